"""A sweep behind Dynamo's frontend through `run_live`, and what was seen of its servers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mtpbench import hardware
from mtpbench.engines import engine_of
from mtpbench.executors.local import LocalSite
from mtpbench.load.client import LoadProgress
from mtpbench.records import Deployment, Point, PointResult
from mtpbench.run import RunPlan, plan_run, run_live
from mtpbench.store import RawPoint, SweepStore, read_raw, read_sweep

MID_STREAM_S = 0.6
BUSY = {"client_saturated", "not_settled"}
"""What a busy machine may add; it spoils speeds, not counts."""
LISTEN = "0A"
IPV6_LOOPBACK = ("00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


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
    deployments: dict[str, Deployment] = field(default_factory=dict)
    listeners: dict[str, set[str]] = field(default_factory=dict)

    def ladder_started(self, deployment: Deployment | None, points: Sequence[Point]) -> None:
        assert deployment is not None
        self.deployments[points[0].arm.name] = deployment

    def point_started(self, point: Point) -> None: ...

    def point_progress(self, point: Point, progress: LoadProgress) -> None:
        if point.id not in self.listeners and progress.ended:
            self.listeners[point.id] = listening(servers_under(self.root))
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

    def greedy_answers(self, arm: str) -> tuple[str, ...]:
        """What the arm's servers answered to the harness's fixed prompts before the ladder."""
        first = next(p for p in read_sweep(self.directory).points if p.point.arm.name == arm)
        return read_raw(first.directory).facts.answers.texts

    def exposed(self) -> set[str]:
        """Addresses other than loopback on which servers listened under load."""
        assert self.watcher.listeners, "nobody looked"
        assert all(self.watcher.listeners.values()), "no server was seen to listen"
        everywhere = set().union(*self.watcher.listeners.values())
        return {address for address in everywhere if not is_loopback(address)}


def codes(result: PointResult) -> set[str]:
    """Why a point is invalid, without what a busy machine may add."""
    return {reason.code for reason in result.reasons} - BUSY


def measure(
    store: SweepStore,
    points: Sequence[Point],
    *,
    kill: tuple[str, int] | None = None,
    gpus_per_node: int | None = None,
    attempts: int = 1,
) -> Run:
    """Run points; those that came to nothing, which a busy machine can do, once more.

    Args:
        store: takes the results.
        points: what to run.
        kill: the worker that is killed and the concurrency of the point, or None.
        gpus_per_node: lays workers out on nodes of so many "GPUs", all of which are this machine; None for
            nodes of the sweep's hardware.
        attempts: how often a point is run at most.
    """
    store.open()
    run = Run(watcher=Watcher(root=store.directory, kill=kill), directory=store.directory)
    for _ in range(attempts):
        plan = plan_run(points, store)
        if gpus_per_node is not None:
            plan = on_nodes_of(gpus_per_node, plan)
        asyncio.run(run_live(plan, store, run.watcher, asyncio.Event(), LocalSite()))
        results = run.results()
        points = [point for point in points if codes(results[point.arm.name, point.concurrency])]
    return run


def on_nodes_of(gpus: int, plan: RunPlan) -> RunPlan:
    """The plan with each deployment on nodes of so many GPUs."""
    ladders = []
    for ladder in plan.ladders:
        rack = replace(hardware.lookup(ladder.first.hardware), gpus_per_node=gpus)
        deployment = engine_of(ladder.first).deploy(ladder.first, rack)
        ladders.append(replace(ladder, deployment=deployment, rack=rack))
    return RunPlan(ladders=tuple(ladders), done=plan.done)


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


def listening(pids: Iterable[int]) -> set[str]:
    """Addresses with ports, as in /proc/net/tcp, on which processes listen."""
    mine = {inode for pid in pids for inode in sockets(pid)}
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text("ascii").splitlines()[1:]:
            columns = line.split()
            if columns[3] == LISTEN and columns[9] in mine:
                found.add(columns[1])
    return found


def sockets(pid: int) -> set[str]:
    """Inodes of a process's open sockets; none where it has just ended."""
    inodes = set()
    try:
        for handle in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{handle}")
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
    except OSError:
        pass
    return inodes


def is_loopback(address: str) -> bool:
    """Whether an address of /proc/net/tcp (hexadecimal, the first byte of IPv4 last) is the machine's own."""
    host = address.partition(":")[0]
    return host.endswith("7F") if len(host) == 8 else host in IPV6_LOOPBACK
