"""A plan on the virtual clock: every point simulated in this machine's cores, stored like any other."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

from mtpbench.engines.registry import engine_of
from mtpbench.load.pacer import RequestCounts, Schedule
from mtpbench.measure import measure
from mtpbench.progress import Observer, now_utc
from mtpbench.provenance import Started, collect
from mtpbench.records import ClientHealth, CounterSource, Point, PointResult, PowerSource, RunFacts
from mtpbench.run import RunPlan
from mtpbench.simengine.virtual import simulate_point
from mtpbench.store import RawPoint, SweepStore
from mtpbench.workload import draw_lengths


def run_virtual(plan: RunPlan, store: SweepStore, observer: Observer) -> bool:
    """Simulate every point of a plan on this machine's cores, the longest first.

    Returns:
        Whether it was interrupted (KeyboardInterrupt); the workers are gone then, finished points are kept.

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
    try:
        work = ((point, store) for point in points)
        for result in pool.imap_unordered(_run_virtual_task, work):
            observer.point_finished(by_id[result.point_id], result)
    except KeyboardInterrupt:
        return True
    finally:
        pool.terminate()
        pool.join()
    return False


def _die_with_parent() -> None:
    """A worker leaves interrupts to its parent, and ends when that is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)  # it went before it could be watched


def _run_virtual_task(task: tuple[Point, SweepStore]) -> PointResult:
    return run_virtual_point(*task)


def run_virtual_point(point: Point, store: SweepStore) -> PointResult:
    """Simulate one point on the virtual clock and store it."""
    started = now_utc()
    counts = RequestCounts.of(point.concurrency, point.measurement)
    schedule = Schedule.independent(point.load, counts, point.concurrency, point.seed)
    lengths = draw_lengths(point.workload, counts.total, point.seed)
    run = simulate_point(point, engine_of(point).limits(point), lengths, schedule)
    raw = RawPoint(
        requests=run.requests,
        counters=run.counters,
        power=run.power,
        client=ClientHealth(),
        facts=RunFacts(
            counter_processes=tuple(sorted({sample.process for sample in run.counters})),
            counter_source=CounterSource(kind="process"),
            power_source=PowerSource(meter="simulated", counter=True),
        ),
    )
    result = measure(point, raw.requests, raw.counters, raw.power, raw.client, raw.facts)
    provenance = collect(point, Started(executor="virtual clock, in process"), started, now_utc())
    store.write(point, result, provenance, raw, {})
    return result
