"""The run of a sweep: what is left of it, measured on live servers or on the virtual clock.

`deployment_run` serves one ladder. `recompute` computes stored results again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mtpbench.deployment import Site
from mtpbench.deployment_run import DeploymentRun, RunContext
from mtpbench.engines import engine_of
from mtpbench.errors import InputError, UnsupportedError
from mtpbench.load.pacer import RequestCounts, Schedule
from mtpbench.measure import measure
from mtpbench.plan import Ladder, ladders_of
from mtpbench.progress import Observer, PointCounts, now_utc
from mtpbench.provenance import Started, collect
from mtpbench.records import CounterSource, Point, PointResult, PowerSource, RunFacts
from mtpbench.simengine.virtual import simulate_point
from mtpbench.store import RawPoint, SweepStore, read_point, read_raw, rewrite_result
from mtpbench.workload import draw_lengths

LOOK_FOR_STOP_S = 0.1
"""How often a simulation looks whether it is to stop. A signal sets a flag for it: an exception that a signal
raises is lost where a library catches whatever comes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """A run plan holds the ladders that are to be measured, and the ids of points that are valid already."""

    ladders: tuple[Ladder, ...]
    done: tuple[str, ...]

    @property
    def points(self) -> tuple[Point, ...]:
        """The points to measure, in the order that they run."""
        return tuple(point for ladder in self.ladders for point in ladder.points)

    def counts(self) -> PointCounts:
        """Returns counts that begin with the points that are valid already."""
        return PointCounts(total=len(self.done) + len(self.points), valid=len(self.done))


def plan_run(points: Sequence[Point], store: SweepStore, *, again: bool = False) -> RunPlan:
    """Returns the plan of a run: the ladders of the points that are missing or invalid.

    Args:
        points: the chosen points of the sweep.
        store: holds their results.
        again: measure valid points again too.
    """
    states = [store.state(point.id) for point in points]
    done = [state == "valid" and not again for state in states]
    return RunPlan(
        ladders=ladders_of(point for point, is_done in zip(points, done, strict=True) if not is_done),
        done=tuple(point.id for point, is_done in zip(points, done, strict=True) if is_done),
    )


def refuse_impossible(plan: RunPlan, site: Site) -> None:
    """Checks, before anything starts, that every deployment of a plan can run at a site.

    Raises:
        UnsupportedError: names the first deployment that can't, and what can be done instead.
    """
    for ladder in plan.ladders:
        if obstacle := site.obstacle(ladder.deployment, ladder.first):
            raise UnsupportedError(obstacle)


async def run_live(
    plan: RunPlan,
    store: SweepStore,
    observer: Observer,
    stop: asyncio.Event,
    site: Site,
    servers: Path | None = None,
) -> None:
    """Measures every ladder of a plan on servers of its own.

    Args:
        plan: what to measure.
        store: takes the results.
        observer: is told what happens.
        stop: ends the run when set.
        site: runs the servers.
        servers: the folder of their files and logs; None for the folder `servers` of the results.

    A point that fails is stored as invalid, and the ladder goes on. When `stop` is set, the running point is
    cut off, its records are stored (invalid, so that the next run measures it again), and all servers are
    stopped.

    Raises:
        RunError: an address asked for by number is taken.
        StoreError: results can't be written.
    """
    context = RunContext(
        store=store,
        observer=observer,
        stop=stop,
        site=site,
        servers=servers or store.directory / "servers",
    )
    for ladder in plan.ladders:
        if stop.is_set():
            return
        await DeploymentRun(ladder, context).run()


def run_virtual(plan: RunPlan, store: SweepStore, observer: Observer, stop: threading.Event) -> bool:
    """Simulates every point of a plan on this machine's cores, the longest first, until `stop` is set.

    Returns:
        Whether `stop` ended it; its workers have ended then, and finished points are stored.

    Raises:
        StoreError: results can't be written.
    """
    points = sorted(plan.points, key=lambda point: point.concurrency, reverse=True)
    if not points:
        return False
    observer.ladder_started(None, points)
    by_id = {point.id: point for point in points}
    workers = min(len(points), os.cpu_count() or 1)
    pool = multiprocessing.get_context("spawn").Pool(workers, _die_with_parent)
    results = pool.imap_unordered(partial(run_virtual_point, store=store), points)
    try:
        while not stop.is_set():
            with contextlib.suppress(multiprocessing.TimeoutError):
                result = results.next(LOOK_FOR_STOP_S)
                observer.point_finished(by_id[result.point_id], result)
    except StopIteration:
        return False
    finally:
        pool.terminate()
        pool.join()
    return True


def _die_with_parent() -> None:
    """Makes a worker leave interrupts to its parent, and end when its parent has ended, even by SIGKILL."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)  # it ended before the signal of its death was set


def run_virtual_point(point: Point, store: SweepStore) -> PointResult:
    """Simulates one point on the virtual clock and stores it."""
    started = now_utc()
    counts = RequestCounts.of(point.concurrency, point.measurement)
    schedule = Schedule.independent(point.load, counts, point.concurrency, point.seed)
    lengths = draw_lengths(point.workload, counts.total, point.seed)
    run = simulate_point(point, engine_of(point).limits(point), lengths, schedule)
    raw = RawPoint(
        requests=run.requests,
        counters=run.counters,
        power=run.power,
        facts=RunFacts(
            counter_processes=tuple(sorted({sample.process for sample in run.counters})),
            counter_source=CounterSource(kind="process"),
            power_source=PowerSource(meter="simulated", counter=True),
        ),
    )
    result = measure(point, raw)
    provenance = collect(point, Started(executor="virtual clock, in process"), started, now_utc())
    store.write(point, result, provenance, raw, {})
    return result


def recompute(directory: Path) -> tuple[PointResult, PointResult]:
    """Computes a stored point's result again from its raw records, and replaces it where it differs.

    Returns:
        The result as it was stored, and as it is now.

    Raises:
        InputError: the point's chunks were stored summarised.
    """
    stored = read_point(directory)
    if stored.point.load.chunks == "summarised":
        raise InputError(
            f"{directory.name}: its chunks were stored summarised, so its result can't be computed again; "
            "measure with `load: {chunks: kept}` for that"
        )
    raw = read_raw(directory)
    result = measure(stored.point, raw)
    if result != stored.result:
        rewrite_result(directory, result)
    return stored.result, result
