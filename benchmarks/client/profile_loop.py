"""Where our client's microseconds per event go, by sampled stacks of the kernel and of Python; needs `perf`.

    .venv/bin/python benchmarks/client/profile_loop.py [--scenario c2048]

Prints a Markdown table. CPU is the process's own, from the server's first request to the client's last event,
as in the benchmark; its parts are shares of the samples in that window, each named by the first rule that
fits its stack. Python is seldom built with frame pointers: objects that orjson or recvmsg made may count as
the loop's. So what one event takes by itself, over and over, is timed as well.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Iterator
from pathlib import Path

import orjson
from clients.own import PROGRAM
from clients.plain_aiohttp import load_words
from measurement import CLIENT_CORE, MOCK_CORE, starting_on
from mock_server import serve_mock
from process_tree import TreeSampler
from scenarios import SCENARIOS, Scenario

from mtpbench.load.stream import Stream

HERTZ = "2000"
TIMED = 50_000
OTHER = "Python: the loop, the record of each event, objects"
RULES = (
    ("kernel: sending (requests)", ("__x64_sys_sendmsg", "__sys_sendmsg")),
    ("kernel: acknowledging what was read", ("tcp_send_ack", "__tcp_cleanup_rbuf", "tcp_rcv_space_adjust")),
    ("kernel: recvmsg, all else", ("__x64_sys_recvmsg", "__sys_recvmsg")),
    ("kernel: epoll_wait", ("__x64_sys_epoll_wait", "do_epoll_wait", "ep_poll")),
    ("kernel: all else (interrupts, page faults)", ("[kernel",)),
    ("Python's recvmsg", ("_socket.", "recvmsg")),
    ("orjson", ("orjson",)),
    (OTHER, ("",)),
)
"""Parts, each with what one line of a sample's stack holds; the kernel's lines come first in a stack."""


def sample(scenario: Scenario, folder: Path) -> tuple[float, int, collections.Counter[str]]:
    """(CPU seconds, events, samples by part) of one run."""
    data = folder / "perf.data"
    perf = ["perf", "record", "-q", "-e", "cpu-clock", "-F", HERTZ, "-g", "-k", "mono", "-o", str(data)]
    pace = {"step_ms": scenario.step_ms, "ttft_ms": scenario.ttft_ms}
    with serve_mock(**pace, on_core=starting_on(MOCK_CORE)) as mock:
        words = [*perf, sys.executable, str(PROGRAM), "--url", mock.url, *load_words(scenario)]
        with starting_on(CLIENT_CORE):
            process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        sampler = TreeSampler(process.pid)
        sampler.start()
        said = json.loads(process.communicate()[0].splitlines()[-1])
        cpu, stats = sampler.stop(), mock.stats()
    begin_ns, end_ns = stats["first_received_ns"], said["ended_ns"]
    parts = collections.Counter(name(stack) for at_ns, stack in read(data) if begin_ns <= at_ns <= end_ns)
    return cpu.cpu_between_s(begin_ns, end_ns), stats["events"], parts


def read(data: Path) -> Iterator[tuple[int, str]]:
    """Each sample's time (CLOCK_MONOTONIC) and stack, innermost line first."""
    words = ["perf", "script", "--ns", "--no-inline", "-F", "time,ip,sym,dso", "-i", str(data)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    for block in said.split("\n\n"):
        first, _, stack = block.strip().partition("\n")
        if stack:
            yield int(float(first.strip().rstrip(":")) * 1e9), stack


def name(stack: str) -> str:
    """The part that a stack belongs to."""
    kernel = "\n".join(line for line in stack.splitlines() if "[kernel" in line)
    for part, marks in RULES:
        where = kernel if part.startswith("kernel") else stack
        if where and any(mark in where for mark in marks):
            return part
    return OTHER


def time_alone() -> tuple[float, float]:
    """Microseconds that `Stream.take` takes for one event of the mock, and orjson for its part of that."""
    choice = {"index": 0, "text": " tok", "logprobs": None, "finish_reason": None, "stop_reason": None}
    head = {"id": f"cmpl-{time.time_ns()}", "object": "text_completion", "created": 1763900000}
    event, stream = orjson.dumps({**head, "model": "mock", "choices": [choice]}), Stream()
    return tuple(
        min(timeit.repeat(call, number=TIMED, repeat=5)) / TIMED * 1e6
        for call in (lambda: stream.take(1, event), lambda: orjson.loads(event))
    )


def main() -> None:
    """Sample and print."""
    parser = argparse.ArgumentParser(description="where our client's microseconds per event go")
    loads = {s.name: s for s in SCENARIOS if not s.drained}
    parser.add_argument("--scenario", choices=list(loads), default="c2048")
    scenario = loads[parser.parse_args().scenario]
    with tempfile.TemporaryDirectory(prefix="bench-client-") as folder:
        cpu_s, events, parts = sample(scenario, Path(folder))
    each_us, samples = cpu_s / events * 1e6, parts.total()
    print(f"{scenario.title}: {each_us:.1f} µs of CPU per event ({events:,} events, {samples:,} samples)\n")
    print("| part | µs per event | share |\n| --- | --- | --- |")
    for part, _ in RULES:
        print(f"| {part} | {each_us * parts[part] / samples:.2f} | {parts[part] / samples:.0%} |")
    taken_us, parsed_us = time_alone()
    print(f"\nBy itself and warm, taking one event: {taken_us:.1f} µs, {parsed_us:.1f} of them orjson.")


if __name__ == "__main__":
    main()
