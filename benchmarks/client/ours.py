"""mtpbench's own client under one load of the benchmark: the product's worker, in this process.

    python benchmarks/client/ours.py --url URL (--concurrency N | --rate PER_S) --requests N --osl N

Every 16th stream is a probe: it compares its stamps with the send time that the mock writes into each event's
id, which no client parses. Prints one JSON line with what aiohttp_client.py prints too; every time is
CLOCK_MONOTONIC:

    completed, ttft_mean_ms, tpot_mean_ms (null with one token)
    stamp_error_us {p50, p99}   an event's stamp (the kernel's) less the send time in its id
    reader_lag_ms {p50, p99}    when the event was read less that send time
    events_per_read, ended_ns (last event read), schedule_start_ns (open loop: when request 0 was due)
    connected_beforehand        true: connections were opened before the clock started
    peak_rss_mb
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import resource
import tempfile
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mtpbench.load import transport
from mtpbench.load.client_spec import ClientSpec
from mtpbench.load.pacer import Turn
from mtpbench.load.request_log import read_table
from mtpbench.load.stream import Stream
from mtpbench.load.worker import LoadWorker
from mtpbench.measure import latencies
from mtpbench.records import Load, Measurement, Workload

PROBED = 16
START_DELAY_NS = 100_000_000
_SENT_NS = re.compile(rb'cmpl-(\d{19})"')
errors_ns: array[int] = array("q")
lags_ns: array[int] = array("q")


class Probe(Stream):
    """A stream that also holds its stamps against the send times in the events' ids."""

    __slots__ = ()

    def take(self, at_us: int, event: bytes) -> bool:
        """See `Stream.take`."""
        if found := _SENT_NS.search(event):
            sent_ns = int(found[1])
            lags_ns.append(time.perf_counter_ns() - sent_ns)
            errors_ns.append(at_us * 1000 + Channel.origin_ns - sent_ns)
        return super().take(at_us, event)


@dataclass(eq=False, slots=True)
class ProbedFlight:
    """A flight of which every 16th has a probe for a stream."""

    turn: Turn
    sent_us: int
    stream: Stream = field(init=False)

    def __post_init__(self) -> None:
        self.stream = Stream() if self.turn.index % PROBED else Probe()


class Channel:
    """Starts the worker by itself."""

    stop_descriptor: int | None = None
    origin_ns = 0

    def await_start(self) -> int:
        """See `mtpbench.load.worker.ControlChannel`."""
        # Like the product's worker: what is there now stays, what comes is freed by count alone.
        gc.collect()
        gc.freeze()
        gc.disable()
        Channel.origin_ns = time.perf_counter_ns() + START_DELAY_NS
        return Channel.origin_ns

    def report(self, counts: dict[str, int]) -> None:
        """Nobody listens."""


def measure(spec: ClientSpec) -> dict[str, Any]:
    """Run the load and say what came of it."""
    transport.Flight = ProbedFlight  # type: ignore[misc,assignment]
    with tempfile.TemporaryDirectory() as folder:
        worker = LoadWorker(spec, Path(folder), 0, 1, Channel())
        worker.run()
        peak_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        prompts, schedule = spec.prepare()
        table = read_table(Path(folder), schedule, 1, [], prompts.lengths)
    ok = table.ok & (table.chunk_counts > 0)
    found = latencies(table, ok)
    ended_s = float(table.last_chunk_s[ok].max())
    return {
        "completed": int(ok.sum()),
        "ttft_mean_ms": float(found.ttft_s.mean()) * 1e3,
        "tpot_mean_ms": float(found.tpot_s.mean()) * 1e3 if len(found.tpot_s) else None,
        "stamp_error_us": spread(errors_ns, 1e-3),
        "reader_lag_ms": spread(lags_ns, 1e-6),
        "events_per_read": len(table.chunk_times_us) / max(worker.monitor.reads, 1),
        "ended_ns": Channel.origin_ns + int(ended_s * 1e9),
        "schedule_start_ns": Channel.origin_ns,
        "connected_beforehand": True,
        "peak_rss_mb": peak_rss_mb,
    }


def spread(values_ns: array[int], unit: float) -> dict[str, float]:
    """Median and 99th percentile."""
    p50, p99 = np.percentile(np.asarray(values_ns), (50, 99)) * unit
    return {"p50": float(p50), "p99": float(p99)}


def main() -> None:
    """Read the words, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    pace = parser.add_mutually_exclusive_group(required=True)
    pace.add_argument("--concurrency", type=int, help="closed loop: requests in flight")
    pace.add_argument("--rate", type=float, help="open loop: requests per second, evenly spaced")
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--osl", type=int, default=64)
    parser.add_argument("--isl", type=int, default=500)
    words = parser.parse_args()
    slots = words.concurrency or words.requests
    load = Load(pacing="constant", rate_rps=words.rate) if words.rate else Load()
    rules = Measurement(
        warmup_per_slot=0.0,
        requests_per_slot=words.requests / slots,
        min_requests=1,
        continuous_usage=False,
    )
    spec = ClientSpec(
        base_url=words.url.removesuffix("/").removesuffix("/v1"),
        model_name="mock",
        workload=Workload(isl=words.isl, osl=words.osl),
        load=load,
        rules=rules,
        concurrency=slots,
    )
    print(json.dumps(measure(spec)))


if __name__ == "__main__":
    main()
