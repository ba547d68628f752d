"""A sweep on a real engine through `run_live`, and what is asked of its servers while they live."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from mtpbench.errors import MtpbenchError
from mtpbench.executors.local import LocalSite
from mtpbench.load.client import LoadProgress
from mtpbench.records import Deployment, Point, PointResult
from mtpbench.run import plan_run, run_live
from mtpbench.store import SweepStore, read_raw, read_sweep
from mtpbench.sweep import Sweep
from mtpbench_analysis.cli import compare_folder, render_results

PROMPTS = ("The quick brown fox", "zzz")
ANSWER_TOKENS = 60
TEMPERATURE = 1.0
ATTEMPTS = 5
"""A busy machine may make a point invalid (`client_saturated`), and a table needs points of two arms."""


@dataclass(kw_only=True)
class Watcher:
    """Watches a run; asks each deployment for samples once, when it has no other load.

    Args:
        port: the front's port.
        kill_under: the folder of the results, to kill the server in the middle of the first point's load;
            None to let it live.
    """

    port: int
    kill_under: Path | None = None
    sampled: dict[str, tuple[str, ...]] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    starts: int = 0

    def ladder_started(self, deployment: Deployment | None, points: Sequence[Point]) -> None:
        self.starts += 1

    def point_started(self, point: Point) -> None: ...

    def point_progress(self, point: Point, progress: LoadProgress) -> None:
        if self.kill_under and not self.killed and progress.ended and progress.in_flight:
            self.killed.append(point.id)
            for pid in processes_under(self.kill_under):
                os.kill(pid, signal.SIGKILL)

    def point_finished(self, point: Point, result: PointResult) -> None:
        if self.kill_under is None and point.arm.name not in self.sampled:
            self.sampled[point.arm.name] = tuple(self.sample(point, prompt) for prompt in PROMPTS)

    def trouble(self, message: str) -> None:
        self.troubles.append(message)

    def sample(self, point: Point, prompt: str) -> str:
        """The live server's answer at `TEMPERATURE`."""
        body = {
            "model": point.model.served_name,
            "prompt": prompt,
            "max_tokens": ANSWER_TOKENS,
            "temperature": TEMPERATURE,
            "ignore_eos": True,
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(json.load(answer)["choices"][0]["text"])


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run: the sweep, who watched it, and where its results are."""

    sweep: Sweep
    watcher: Watcher
    directory: Path

    def results(self) -> dict[tuple[str, int], PointResult]:
        """Results by arm and concurrency."""
        stored = read_sweep(self.directory).points
        return {(p.point.arm.name, p.point.concurrency): p.result for p in stored}

    def greedy_answers(self, arm: str) -> tuple[str, ...]:
        """What the arm's servers answered to the harness's fixed prompts before the ladder."""
        first = next(p for p in read_sweep(self.directory).points if p.point.arm.name == arm)
        return read_raw(first.directory).facts.answers.texts


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def measure(sweep: Sweep, points: Sequence[Point], root: Path, *, kill: bool = False) -> Run:
    """Run points of a sweep; where a busy machine left too few for a table, the arms without any again."""
    store = SweepStore(root, sweep.info)
    store.open()
    watcher = Watcher(port=free_port(), kill_under=root if kill else None)
    for _ in range(1 if kill else ATTEMPTS):
        measured = {point.arm.name for point in points if store.state(point.id) == "valid"}
        if "off" in measured and len(measured) > 1:
            break
        left = [point for point in points if point.arm.name not in measured]
        asyncio.run(run_live(plan_run(left, store), store, watcher, asyncio.Event(), LocalSite(watcher.port)))
    return Run(sweep=sweep, watcher=watcher, directory=store.directory)


def processes_under(root: Path) -> list[int]:
    """Processes that write their output into a file under a folder: the servers that a run started there."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            output = os.readlink(f"/proc/{pid}/fd/1")
        except OSError:
            continue
        if output.startswith(f"{root}/"):
            found.append(int(pid))
    return found


def show_tables(runs: Sequence[Run]) -> None:
    """Print the tables of what was measured on the way."""
    console = Console(width=100)
    for done in runs:
        try:
            console.print(render_results(compare_folder(done.directory)))
        except MtpbenchError as error:
            console.print(f"no table of {done.sweep.info.name}: {error}", markup=False)
