"""What aiohttp can do: uvloop, orjson, one session, no limits, no proxies, many events at one read.

Run by the interpreter of bench-aiohttp. Prints one JSON line; times are CLOCK_MONOTONIC, as the mock's are.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import gc
import json
import resource
import time
from collections.abc import Iterator

import aiohttp
import orjson
import uvloop

CONTENT = {"content-type": "application/json"}
STAMP_DIGITS = 19


class Client:
    """One session, and what it measured: flat arrays in ns, one entry per request or per event."""

    def __init__(self, session: aiohttp.ClientSession, words: argparse.Namespace) -> None:
        self.session = session
        self.url = f"{words.url}/v1/completions"
        options = {"max_tokens": words.osl, "stream": True, "stream_options": {"include_usage": True}}
        self.body = orjson.dumps({"model": "mock", "prompt": "x " * words.isl, **options})
        self.ttft, self.tpot_sum, self.lag = array.array("q"), array.array("q"), array.array("q")
        self.events = self.reads = self.ended = 0

    async def send_one(self) -> None:
        """Send a request and stamp each of its events when the read that brought it returned."""
        began, first, last, rest, lag = time.monotonic_ns(), 0, 0, b"", self.lag
        async with self.session.post(self.url, data=self.body, headers=CONTENT) as response:
            response.raise_for_status()
            async for read in response.content.iter_any():
                now = time.monotonic_ns()
                self.reads += 1
                *events, rest = (rest + read if rest else read).split(b"\n\n")
                for event in events:
                    if event.startswith(b"data: {"):
                        content = orjson.loads(event[6:])
                        if not content["choices"]:
                            continue
                        last = now
                        first = first or now
                        self.events += 1
                        lag.append(now - int(content["id"][-STAMP_DIGITS:]))
        self.ttft.append(first - began)
        self.tpot_sum.append(last - first)
        self.ended = last

    async def close_loop(self, slots: int, requests: int) -> None:
        """Keep `slots` requests in flight until `requests` were sent."""

        async def fill(left: Iterator[int]) -> None:
            for _ in left:
                await self.send_one()

        left = iter(range(requests))
        await asyncio.gather(*(fill(left) for _ in range(slots)))

    async def open_loop(self, rate: float, requests: int) -> int:
        """Send request i at i / rate; returns the ns at which the schedule began."""
        began = time.monotonic_ns() + 100_000_000
        sent = []
        for i in range(requests):
            wait_s = (began + i * 1e9 / rate - time.monotonic_ns()) / 1e9
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            sent.append(asyncio.ensure_future(self.send_one()))
        await asyncio.gather(*sent)
        return began


async def measure(words: argparse.Namespace) -> dict[str, object]:
    """Run the load; the figures of the JSON line."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=1 << 20) as session:
        client = Client(session, words)
        began = None
        if words.rate:
            began = await client.open_loop(words.rate, words.requests)
        else:
            await client.close_loop(words.concurrency, words.requests)
    lag = sorted(client.lag)
    gaps = max(1, words.osl - 1)
    return {
        "completed": len(client.ttft),
        "ttft_mean_ms": sum(client.ttft) / len(client.ttft) / 1e6,
        "tpot_mean_ms": sum(client.tpot_sum) / len(client.tpot_sum) / gaps / 1e6 if words.osl > 1 else None,
        "stamp_error_us": {f"p{p}": lag[(len(lag) - 1) * p // 100] / 1e3 for p in (50, 99)},
        "reader_lag_ms": {f"p{p}": lag[(len(lag) - 1) * p // 100] / 1e6 for p in (50, 99)},
        "events_per_read": client.events / client.reads,
        "schedule_start_ns": began,
        "ended_ns": client.ended,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Read the words, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--osl", type=int, default=64)
    parser.add_argument("--isl", type=int, default=500)
    words = parser.parse_args()
    gc.freeze()
    gc.set_threshold(200_000, 50, 1000)
    print(json.dumps(uvloop.run(measure(words))))


if __name__ == "__main__":
    main()
