"""What the embedded engine's server can carry: its own connections and uvloop against aiohttp and asyncio.

    .venv/bin/python benchmarks/embedded_server.py [RUNS] [CONCURRENCY]

The client reads raw sockets on the first core, the server has the last one. CPU is the server's own, user and
system, per token event or per request; ratios are to `aiohttp`, which is how the server used to answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from mtpbench.records import EngineLimits, WorkerGroup
from mtpbench.simengine.openai import EventWriter, parse_request
from mtpbench.simengine.profile import load_profile
from mtpbench.simengine.step_loop import Clock, StepLoop
from mtpbench.simengine.worker_model import make_worker

COLUMNS = ("received_ns", "first_token_ns", "last_token_ns", "output_tokens")
VARIANTS = ("aiohttp", "asyncio", "uvloop")
FLAT = {  # steps of a millisecond, so that only the server is in the way
    "name": "flat",
    "about": "For a benchmark of the server, not of an engine.",
    "decode_step_ms": {"tp8_k0": [[1, 1.0]]},
    "prefill_ms": {"ctx_tp8": [[1, 1.0], [2, 1.0]]},
    "prefill_prompt_tokens": 8192,
    "kv_tokens_per_rank": {"tp8": 10**8},
    "transfer_ms": {"base": 0, "per_token": 0},
    "power_w": {"idle": 1, "prefill": 2, "decode": 3},
}
FLAT_OPTIONS = ("--max-running", "8192", "--prefill-chunk-tokens", "10000000")
LARGE_OPTIONS = ("--profile", "dsv4-gb200", "--tp", "1", "--dp", "8", "--ep", "8", "--stream-interval", "4")


class OldStream:
    """As streams were sent: the first event through aiohttp, later ones through the transport."""

    def __init__(self, request: web.Request, writer: EventWriter) -> None:
        self.request, self.writer = request, writer
        self.started, self.ended = (asyncio.get_running_loop().create_future() for _ in range(2))
        self.transport: asyncio.Transport | None = None
        self.pending: list[bytes] = []
        self.complete = False

    def tokens(self, cumulative: int, *, last: bool) -> None:
        self.pending.append(self.writer.tokens(cumulative, last=last))
        self.complete = last
        if not self.started.done():
            self.started.set_result(None)
        self.flush()

    def prefilled(self) -> None:
        pass

    def flush(self) -> None:
        if self.transport is None:
            return
        for data in self.pending:
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.pending.clear()
        if self.complete and not self.ended.done():
            self.ended.set_result(None)

    async def serve(self) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(self.request)
        await self.started
        await response.write(self.pending.pop(0))
        self.transport = self.request.transport
        self.flush()
        await self.ended
        await response.write_eof()
        return response


async def serve_aiohttp(port: int, profile: str) -> None:
    group = WorkerGroup(role="aggregated", workers=1, tp=8, dp=1, ep=1)
    limits = EngineLimits(max_running=8192, prefill_chunk_tokens=10_000_000)
    step_loop = StepLoop(make_worker(group, load_profile(profile), limits, None, [0]), Clock(1.0))

    async def complete(request: web.Request) -> web.StreamResponse:
        completion = parse_request(await request.read(), chat=False, model="m", max_model_len=10**6)
        stream = OldStream(request, EventWriter(completion, "m"))
        step_loop.submit(completion.prompt_tokens, completion.max_tokens, stream)
        return await stream.serve()

    async def health(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/health", health), web.post("/v1/completions", complete)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await step_loop.run()


# ------------------------------------------------------------------------------------------- the client


@dataclass
class Slot:
    sock: socket.socket
    requests: list[bytes]
    sent_s: float = 0.0
    first_s: float = 0.0
    last_s: float = 0.0
    tokens: int = 0
    tail: bytes = b""


@dataclass
class Seen:
    """What the client saw."""

    events: int = 0
    requests: int = 0
    broken: int = 0
    wall_s: float = 0.0
    ttft_s: list[float] = field(default_factory=list)
    tpot_s: list[float] = field(default_factory=list)


def render(osl: int, isl: int, rng: random.Random) -> bytes:
    prompt = [rng.randrange(4000, 28000) for _ in range(isl)]
    options = {"include_usage": True, "continuous_usage_stats": True}
    fields = {"model": "m", "max_tokens": osl, "stream": True, "stream_options": options, "prompt": prompt}
    body = json.dumps(fields).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def drive(port: int, requests: list[list[bytes]]) -> Seen:
    """Every slot connects, then all send at once, each its next request when the last one ended."""
    seen, poll, slots = Seen(), select.epoll(), {}
    for mine in requests:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        slots[sock.fileno()] = Slot(sock, mine[::-1])
        poll.register(sock.fileno(), select.EPOLLIN)
    get(port, "/health")  # answered after all connections before it were accepted
    began = time.monotonic()
    for slot in slots.values():
        send(slot)
    while slots:
        for descriptor, _ in poll.poll():
            if not read(slots[descriptor], seen):
                slots.pop(descriptor).sock.close()
    seen.wall_s = time.monotonic() - began
    return seen


def send(slot: Slot) -> None:
    slot.sent_s, slot.first_s = time.monotonic(), 0.0
    slot.sock.send(slot.requests.pop())


def read(slot: Slot, seen: Seen) -> bool:
    """Whether there is more to come on this connection."""
    try:
        data = slot.sock.recv(2**16)
    except ConnectionError:
        data = b""
    now = time.monotonic()
    if not data:
        seen.broken += 1
        return False
    if found := data.count(b'"finish_reason":'):
        seen.events += found
        slot.last_s = now
        if not slot.first_s:
            slot.first_s = now
            seen.ttft_s.append(now - slot.sent_s)
    slot.tail = (slot.tail + data)[-200:]
    if not slot.tail.endswith(b"0\r\n\r\n"):
        return True
    tokens = int(slot.tail.rpartition(b'"completion_tokens":')[2].partition(b"}")[0])
    if tokens > 1:
        seen.tpot_s.append((slot.last_s - slot.first_s) / (tokens - 1))
    seen.requests += 1
    if slot.requests:
        send(slot)
        return True
    return False


# ------------------------------------------------------------------------------------------- runs


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as text:
        fields = text.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as response:
        body: bytes = response.read()
    return body


def measure(variant: str, options: tuple[str, ...], profile: str, requests: list[list[bytes]]) -> Any:
    """(what the client saw, the server's CPU seconds, the server's timings)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if variant == "aiohttp":
        words = [sys.executable, __file__, "--serve", str(port), profile]
    else:
        words = [sys.executable, "-m", "mtpbench.simengine.server", "--port", str(port), "--model", "m"]
        words += ["--loop", variant, "--profile", profile, *options]
    server = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        os.sched_setaffinity(server.pid, {max(os.sched_getaffinity(0))})
        for _ in range(200):
            try:
                get(port, "/health")
                break
            except OSError:
                time.sleep(0.05)
        before_s = cpu_s(server.pid)
        everywhere = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(everywhere)})
        seen = drive(port, requests)
        os.sched_setaffinity(0, everywhere)
        used_s = cpu_s(server.pid) - before_s
        timings = {} if variant == "aiohttp" else json.loads(get(port, "/internal/timings"))
        return seen, used_s, timings
    finally:
        server.terminate()
        server.wait()


def compare(title: str, slots: int, rounds: int, osl: int, runs: int, profile: str) -> None:
    rng = random.Random(1)
    requests = [[render(osl, 64, rng) for _ in range(rounds)] for _ in range(slots)]
    print(f"\n{title}: {slots} connections, {rounds} requests each, ISL 64, OSL {osl}")
    first = 0.0
    for variant in VARIANTS:
        costs, rates = [], []
        for _ in range(runs):
            seen, used_s, _ = measure(variant, FLAT_OPTIONS, profile, requests)
            costs.append(used_s / seen.events * 1e6)
            rates.append(seen.events / seen.wall_s)
        cost = statistics.median(costs)
        first = first or cost
        rate = statistics.median(rates)
        print(f"  {variant:8s} {cost:6.1f} µs CPU each ({first / cost:4.2f}x)  {rate:8.0f}/s")


def show_large(concurrency: int) -> None:
    rng = random.Random(2)
    requests = [[render(rng.randint(64, 256), 64, rng)] for _ in range(concurrency)]
    print(f"\nburst: {concurrency} requests at once, ISL 64, OSL 64 to 256, DEP8 of dsv4-gb200, interval 4")
    seen, used_s, timings = measure("uvloop", LARGE_OPTIONS, "dsv4-gb200", requests)
    rows = list(zip(*(timings[name] for name in COLUMNS), strict=True))
    ttft_s = statistics.fmean(first - received for received, first, _, _ in rows) / 1e9
    tpot_s = statistics.fmean((last - first) / (n - 1) for _, first, last, n in rows) / 1e9
    for name, client, server in (("TTFT", seen.ttft_s, ttft_s), ("TPOT", seen.tpot_s, tpot_s)):
        mean = statistics.fmean(client)
        ratio = mean / server - 1
        print(f"  {name} {mean * 1e3:8.2f} ms (client) {server * 1e3:8.2f} ms (server)  {ratio:+.2%}")
    late = timings["schedule"]
    print(f"  broken connections {seen.broken}, server CPU {used_s / seen.wall_s:.0%} of a core")
    mean = late["late_s"] / late["steps"]
    print(f"  steps late {mean * 1e3:.2f} ms on average, {late['late_max_s'] * 1e3:.2f} ms at most")


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve_aiohttp(int(sys.argv[2]), sys.argv[3]))
        return
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(FLAT, file)
        file.flush()
        compare("events", 512, 1, 256, runs, file.name)
        compare("requests", 512, 20, 1, runs, file.name)
    show_large(int(sys.argv[2]) if len(sys.argv) > 2 else 4096)


if __name__ == "__main__":
    main()
