"""A sweep on the mocker through `run_live`, and what was seen of its servers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtpbench.executors.local import LocalSite
from mtpbench.load.client import LoadProgress
from mtpbench.records import Deployment, Point, PointResult
from mtpbench.run import plan_run, run_live
from mtpbench.store import RawPoint, SweepStore, read_raw, read_sweep

MID_STREAM_S = 0.6


@dataclass(kw_only=True)
class Watcher:
    """Watches a run; kills one worker in the middle of one point's load where it is told to.

    Args:
        root: the folder of the results.
        kill: the worker and the concurrency of the point, or None.
    """

    root: Path
    kill: tuple[str, int] | None = None
    victim: list[int] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def ladder_started(self, deployment: Deployment | None, points: Sequence[Point]) -> None: ...

    def point_started(self, point: Point) -> None: ...

    def point_progress(self, point: Point, progress: LoadProgress) -> None:
        if self.kill is None or self.victim or point.concurrency != self.kill[1] or not progress.ended:
            return
        self.victim = [pid for pid, name in servers_under(self.root).items() if name == self.kill[0]]
        # Where some requests have just ended the next ones begin; a little later they are in mid-stream.
        asyncio.get_running_loop().call_later(MID_STREAM_S, self._end_victim)

    def _end_victim(self) -> None:
        for pid in self.victim:
            os.kill(pid, signal.SIGKILL)

    def point_finished(self, point: Point, result: PointResult) -> None: ...

    def trouble(self, message: str) -> None:
        self.troubles.append(message)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run: who watched it, and where its results are."""

    watcher: Watcher
    directory: Path

    def results(self) -> dict[tuple[str, int], PointResult]:
        """Results by arm and concurrency."""
        stored = read_sweep(self.directory).points
        return {(p.point.arm.name, p.point.concurrency): p.result for p in stored}

    def raw(self, arm: str, concurrency: int) -> RawPoint:
        """The raw records of one point."""
        (found,) = (
            p.directory
            for p in read_sweep(self.directory).points
            if (p.point.arm.name, p.point.concurrency) == (arm, concurrency)
        )
        return read_raw(found)


def measure(store: SweepStore, points: Sequence[Point], kill: tuple[str, int] | None = None) -> Run:
    """Run points once; a busy machine may make some invalid (`client_saturated`)."""
    store.open()
    watcher = Watcher(root=store.directory, kill=kill)
    asyncio.run(run_live(plan_run(points, store), store, watcher, asyncio.Event(), LocalSite()))
    return Run(watcher=watcher, directory=store.directory)


def servers_under(root: Path) -> dict[int, str]:
    """Processes that write their output into a log under a folder, with the names of the logs."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            output = Path(os.readlink(f"/proc/{pid}/fd/1"))
        except OSError:
            continue
        if output.is_relative_to(root):
            found[int(pid)] = output.stem
    return found
