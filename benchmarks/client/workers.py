"""Two worker processes on two cores against one on one, on a machine with no third core for the mock.

The mock sends every answer while the client is stopped; the kernel's socket buffers hold them. Then the
client is let go, and drains them while the mock has nothing to do. So the client alone is measured, with both
cores at work at once; what is not in it is the kernel's work of sending, which another core would do.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measurement import CLIENT_CORE, FOREIGN_CORES, MOCK_CORE, starting_on
from mock_server import MockServer, serve_mock
from process_tree import cpu_of_s, machine_busy_s
from scenarios import Scenario

PROGRAM = Path(__file__).resolve().parent / "drain.py"
CORES = {1: (CLIENT_CORE,), 2: (CLIENT_CORE, MOCK_CORE)}
ORDER = (1, 2, 2, 1)
"""So that a machine that gets slower favours neither."""
PATIENCE_S = 60


def measure_workers(scenario: Scenario) -> dict[str, Any]:
    """`speedup`: the drain time of one worker over that of two; `speedup_cpu`: the same by CPU time.

    A worker computes without a pause while it drains, so that its CPU time is what its drain would take on a
    machine without others: the busier worker's counts. `cpu_growth` is two workers' CPU over one's.
    """
    began_s = time.monotonic()
    try:
        drains = [_drain(scenario, workers) for workers in ORDER]
    except (OSError, ValueError, RuntimeError, subprocess.TimeoutExpired) as error:
        return {"wall_s": time.monotonic() - began_s, "failure": str(error)}

    def total(workers: int, key: str) -> float:
        return sum(drain[key] for drain in drains if drain["workers"] == workers)

    return {
        "wall_s": time.monotonic() - began_s,
        "drains": drains,
        "speedup": total(1, "drain_s") / total(2, "drain_s"),
        "speedup_cpu": total(1, "busiest_s") / total(2, "busiest_s"),
        "cpu_growth": total(2, "cpu_s") / total(1, "cpu_s"),
        "marks": [
            f"others used {drain['foreign_cores']:.2f} cores of the machine meanwhile"
            for drain in drains
            if drain["foreign_cores"] > FOREIGN_CORES
        ],
    }


def _drain(scenario: Scenario, workers: int) -> dict[str, Any]:
    """Fill the buffers of a stopped client, let it go, and see when it is done."""
    pace = {"step_ms": scenario.step_ms, "ttft_ms": scenario.ttft_ms}
    with serve_mock(**pace, on_core=starting_on(MOCK_CORE)) as mock, contextlib.ExitStack() as stack:
        size = _event_bytes(mock)
        processes = [
            stack.enter_context(_worker(mock, scenario, number, workers, size)) for number in range(workers)
        ]
        # Once the first event is read the sockets are empty, so that reads and events stay in step.
        _await(mock, lambda stats: stats["tokens"] >= 2 * (scenario.concurrency or 0), processes)
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        stats = _await(mock, lambda stats: stats["requests"] == scenario.requests, processes)
        if stats["blocked_sends"]:
            raise RuntimeError(f"{stats['blocked_sends']} events did not fit into the sockets' buffers")
        used_s = [cpu_of_s(process.pid) for process in processes]
        busy_s, began_ns = machine_busy_s(), time.monotonic_ns()
        for process in processes:
            process.send_signal(signal.SIGCONT)
        said = [json.loads(process.communicate(timeout=PATIENCE_S)[0]) for process in processes]
        busy_s = machine_busy_s() - busy_s
    cpu_s = [report["cpu_s"] - before for report, before in zip(said, used_s, strict=True)]
    drain_s = (max(report["ended_ns"] for report in said) - began_ns) / 1e9
    events = sum(report["events"] for report in said)
    if events != scenario.requests * scenario.osl or any(report["failed"] for report in said):
        raise RuntimeError(f"the client read {events} of {scenario.requests * scenario.osl} events")
    return {
        "workers": workers,
        "drain_s": drain_s,
        "cpu_s": sum(cpu_s),
        "busiest_s": max(cpu_s),
        "events_per_read": events / sum(report["reads"] for report in said),
        "foreign_cores": max(0.0, busy_s - sum(cpu_s)) / drain_s,
    }


@contextlib.contextmanager
def _worker(mock: MockServer, scenario: Scenario, number: int, workers: int, size: int):
    words: Sequence[object] = (
        *(sys.executable, PROGRAM, "--url", mock.url, "--concurrency", scenario.concurrency),
        *("--osl", scenario.osl, "--isl", scenario.isl, "--event-bytes", size),
        *("--worker", number, "--of", workers),
    )
    with starting_on(CORES[workers][number]):
        process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _await(
    mock: MockServer, enough: Callable[[dict[str, Any]], bool], processes: Sequence[subprocess.Popen[str]]
) -> dict[str, Any]:
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        stats = mock.stats()
        if enough(stats):
            return stats
        if any(process.poll() is not None for process in processes):
            raise RuntimeError("a worker ended before it was stopped")
        time.sleep(0.02)
    raise RuntimeError("the mock did not send everything")


def _event_bytes(mock: MockServer) -> int:
    """Bytes of one event with its chunk's framing, all of them being of one length."""
    body = json.dumps({"model": "mock", "prompt": "x", "max_tokens": 2, "stream": True}).encode()
    request = urllib.request.Request(f"{mock.url}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        length = len(answer.read().split(b"\n\n")[0]) + 2
    with urllib.request.urlopen(urllib.request.Request(f"{mock.url}/reset", b"")):
        return length + len(f"{length:x}") + 4
