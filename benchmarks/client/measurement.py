"""One client under one scenario, once: what the mock saw, what the client said, what it cost."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from clients.base import Client, Report
from mock_server import serve_mock
from process_tree import Samples, TreeSampler
from scenarios import Scenario

MOCK_CORE, CLIENT_CORE = 0, 1
CPU_BOUND = 0.9
ACHIEVED = 0.98
FOREIGN_CORES = 0.25
NICE = -10
KILL_S = 5
TAIL_LINES = 4


def measure(client: Client, python: Path, scenario: Scenario, limit_s: float) -> dict[str, Any]:
    """The figures of a run, or `failure` with the reason; `marks` say what makes figures doubtful."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-client-") as name,
        serve_mock(
            step_ms=scenario.step_ms, ttft_ms=scenario.ttft_ms, on_core=starting_on(MOCK_CORE)
        ) as mock,
    ):
        folder = Path(name)
        words = client.command(python, mock.url, scenario, folder)
        began_s = time.monotonic()
        with (folder / "printed").open("w+") as printed, (folder / "log").open("w") as log:
            process, samples = _run(words, client, folder, printed, log, limit_s)
        wall_s = time.monotonic() - began_s
        stats = mock.stats()
        row: dict[str, Any] = {"wall_s": wall_s, "server": stats}
        if process is None or process:
            what = f"stopped after {limit_s:.0f} s" if process is None else f"exit code {process}"
            return {**row, "failure": f"{what}: {_tail(folder)}"}
        if not stats["requests"]:
            return {**row, "failure": f"no request was finished: {_tail(folder)}"}
        try:
            report = client.read(folder, (folder / "printed").read_text())
        except (OSError, ValueError, KeyError, IndexError) as error:
            return {**row, "failure": f"its report can't be read ({error!r}): {_tail(folder)}"}
        received = mock.received_ns()
    return {
        **row,
        "report": asdict(report),
        "marks": find_marks(scenario, stats, report, samples),
        **derive(scenario, stats, report, samples),
        **(start_cost(stats, report, received, samples) if scenario.osl == 1 else {}),
        **(send_lag(scenario, received, report) if scenario.rate_per_s else {}),
    }


def derive(scenario: Scenario, stats: dict[str, Any], report: Report, samples: Samples) -> dict[str, Any]:
    """CPU, latency and memory figures; the window is from the first request to the client's last token."""
    begin_ns = stats["first_received_ns"]
    end_ns = max(stats["last_token_ns"], report.ended_ns or 0, begin_ns + int((report.duration_s or 0) * 1e9))
    cpu_s = samples.cpu_between_s(begin_ns, end_ns)
    peak_rss, peak_pss = samples.peaks(begin_ns, end_ns)
    server_tpot_ms = (stats["tpot_ms"] or {}).get("mean")
    return {
        "window_s": (end_ns - begin_ns) / 1e9,
        "cpu_s": cpu_s,
        "cpu_us_per_event": cpu_s / stats["events"] * 1e6 if scenario.osl > 1 else None,
        "delta_ttft_ms": None if report.ttft_ms is None else report.ttft_ms - stats["ttft_ms"]["mean"],
        "delta_tpot_percent": (report.tpot_ms / server_tpot_ms - 1) * 100
        if report.tpot_ms and server_tpot_ms
        else None,
        "peak_rss_mb": None if peak_rss is None else peak_rss / 1e6,
        "peak_pss_mb": None if peak_pss is None else peak_pss / 1e6,
        "events_per_s": stats["events"] / (end_ns - begin_ns) * 1e9,
        "stamp_error_p99_us": report.stamp_error_p99_us,
        "reader_lag_p99_ms": report.reader_lag_p99_ms,
        "events_per_read": report.events_per_read,
    }


def start_cost(
    stats: dict[str, Any], report: Report, received_ns: np.ndarray, samples: Samples
) -> dict[str, Any]:
    """CPU for each request of a burst, up to the last of them that went out before the first token came back.

    Opening its connection counts, unless the client says that it does so before its clock starts.
    """
    sent = received_ns[received_ns < stats["first_token_ns"]]
    begin_ns = sent[0] if report.connected_beforehand else min(stats["first_accepted_ns"], sent[0])
    cpu_s = samples.cpu_between_s(begin_ns, sent[-1])
    return {"start_us": cpu_s / len(sent) * 1e6, "started": len(sent)}


def send_lag(scenario: Scenario, received_ns: np.ndarray, report: Report) -> dict[str, Any]:
    """How late the server received requests of an open loop.

    Where the client does not say when its schedule began, the request that was least late counts as in time,
    which favours that client.
    """
    assert scenario.rate_per_s is not None
    due_ns = np.arange(len(received_ns)) * 1e9 / scenario.rate_per_s
    late_ms = (received_ns - received_ns[0] - due_ns) / 1e6
    known = report.schedule_start_ns is not None
    late_ms += (received_ns[0] - report.schedule_start_ns) / 1e6 if known else -late_ms.min()
    p50, p99 = np.percentile(late_ms, (50, 99))
    return {"send_lag_p50_ms": float(p50), "send_lag_p99_ms": float(p99), "schedule_known": known}


def find_marks(scenario: Scenario, stats: dict[str, Any], report: Report, samples: Samples) -> list[str]:
    """What makes the figures of a run doubtful, in words."""
    marks = []
    window_s = max(1e-9, (stats["last_token_ns"] - stats["first_received_ns"]) / 1e9)
    if stats["overruns"]:
        steps = round(window_s * 1000 / scenario.step_ms)
        marks.append(f"the mock overran {stats['overruns']} of {steps} steps")
    if stats["cpu_s"] / window_s > CPU_BOUND:
        marks.append(f"the mock was CPU-bound ({stats['cpu_s'] / window_s:.0%} of its core)")
    begin_ns, end_ns = stats["first_received_ns"], stats["last_token_ns"]
    used_s = samples.cpu_between_s(begin_ns, end_ns) + stats["cpu_s"]
    foreign = (samples.busy_between_s(begin_ns, end_ns) - used_s) / window_s
    if foreign > FOREIGN_CORES:
        marks.append(f"others used {foreign:.2f} cores of the machine meanwhile")
    if stats["requests"] != scenario.requests:
        marks.append(f"the client sent {stats['requests']} requests when asked for {scenario.requests}")
    if stats["peak_running"] < ACHIEVED * (scenario.concurrency or 0):
        marks.append(f"at most {stats['peak_running']} of {scenario.concurrency} streams ran at once")
    if report.completed < scenario.requests:
        marks.append(f"the client completed {report.completed} of {scenario.requests} requests")
    return marks


def _run(
    words: Any, client: Client, folder: Path, printed: Any, log: Any, limit_s: float
) -> tuple[int | None, Samples]:
    """Run the client on its core; its exit code (None if it had to be stopped) and what it used."""
    with starting_on(CLIENT_CORE):
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=log,
            cwd=folder,
            env={**os.environ, **client.environment, "PYTHONWARNINGS": "ignore"},
            start_new_session=True,
        )
    sampler = TreeSampler(process.pid)
    sampler.start()
    try:
        code: int | None = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        samples = sampler.stop()
        _end_session(process)
    return code, samples


@contextlib.contextmanager
def starting_on(core: int) -> Iterator[None]:
    """What this thread starts meanwhile is pinned to a core, and may open all the files that there may be.

    Its priority is raised where that is allowed, for what else runs on the machine to disturb it less.
    """
    cores, files = os.sched_getaffinity(0), resource.getrlimit(resource.RLIMIT_NOFILE)
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    os.sched_setaffinity(0, {core})
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        os.sched_setaffinity(0, cores)
        resource.setrlimit(resource.RLIMIT_NOFILE, files)


def _end_session(process: subprocess.Popen[Any]) -> None:
    """End whatever the client left behind; its session is its process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_S)


def _tail(folder: Path) -> str:
    lines = [
        line
        for name in ("printed", "log")
        for line in (folder / name).read_text("utf-8", "replace").splitlines()
    ]
    return " | ".join(line.strip() for line in lines[-TAIL_LINES:] if line.strip())[-600:]
