"""The run of a sweep: what is left of it, measured on live servers or on the virtual clock.

`deployment_run` serves one ladder. `recompute` computes stored results again.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import threading
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NoReturn

from mtpbench import reaper
from mtpbench.deployment import Site
from mtpbench.deployment_run import DeploymentRun, RunContext
from mtpbench.engines import engine_of
from mtpbench.errors import (
    INTERNAL_FAULT_EXIT_CODE,
    InputError,
    MtpbenchError,
    RunError,
    StoreError,
    UnsupportedError,
)
from mtpbench.load.capacity import limit_met, usable_cores
from mtpbench.load.pacer import RequestCounts, Schedule
from mtpbench.measure import measure
from mtpbench.plan import Ladder, ladders_of
from mtpbench.progress import Observer, PointCounts, now_utc
from mtpbench.provenance import Started, collect, new_server_start
from mtpbench.records import CounterSource, Point, PointResult, PowerSource, RunFacts
from mtpbench.simengine.virtual import simulate_point
from mtpbench.store import OpenAttempt, RawPoint, SweepStore
from mtpbench.workload import draw_lengths, spread_phases

LOOK_FOR_STOP_S = 0.1
"""How often a simulation looks whether it is to stop. A signal sets a flag for it: an exception that a signal
raises is lost where a library catches whatever comes."""
DYING_S = 5.0
"""How long a worker that has closed its end may take to end by itself, so that its exit code is known."""


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

    A point whose process dies is simulated once more, after all others.

    Returns:
        Whether `stop` ended it; its workers have ended then, and finished points are stored.

    Raises:
        InputError: a point can't be simulated.
        RunError: a worker can't start, or a point's died twice; the other points are stored.
        StoreError: results can't be written.
    """
    points = sorted(plan.points, key=lambda point: point.concurrency, reverse=True)
    if not points:
        return False
    observer.ladder_started(None, points)
    starts = {ladder.key: new_server_start() for ladder in plan.ladders}
    simulation = Simulation(points, starts, store, observer)
    try:
        return simulation.run(stop)
    finally:
        simulation.end()


class Simulation:
    """A simulation plays points on several workers, one point at a time on each.

    Args:
        points: the points, in the order that they are begun.
        starts: the id of the simulated start of each deployment, by its key.
        store: takes the results.
        observer: is told what happens.
    """

    def __init__(
        self, points: Sequence[Point], starts: Mapping[str, str], store: SweepStore, observer: Observer
    ) -> None:
        self._left, self._starts, self._store, self._observer = deque(points), starts, store, observer
        self._workers: dict[Connection, SimulationWorker] = {}
        self._interrupted: set[str] = set()
        self._lost: list[str] = []

    def run(self, stop: threading.Event) -> bool:
        """Simulates until all points are done, or `stop` is set; returns whether it was."""
        for _ in range(min(len(self._left), usable_cores())):
            self._start_worker()
        while self._workers and not stop.is_set():
            for connection in wait(list(self._workers), LOOK_FOR_STOP_S):
                if stop.is_set():
                    break  # of several answers that came together too
                assert isinstance(connection, Connection)
                self._listen(self._workers[connection])
        if self._workers:
            return True
        if self._lost:
            raise RunError(
                f"{', '.join(self._lost)}: the process that simulated it died twice; where the kernel killed "
                "it for want of memory, simulate it on a larger machine. All other points are stored"
            )
        return False

    def end(self) -> None:
        """Ends all workers."""
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()

    def _start_worker(self) -> None:
        """Starts one more worker; without one that runs already, this machine is too small."""
        try:
            worker = SimulationWorker()
        except OSError as error:
            if self._workers:
                return
            raise RunError(f"no process can be started for the simulation ({error})") from error
        self._workers[worker.connection] = worker

    def _listen(self, worker: SimulationWorker) -> None:
        """Takes a worker's message, and gives it its next point."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if isinstance(message, SimulationFault):
            message.raise_again()
        if isinstance(message, PointResult):
            assert worker.point is not None
            self._observer.point_finished(worker.point, message)
        worker.begun = True
        if self._left:
            point = self._left.popleft()
            worker.simulate(point, self._starts[point.deployment_key], self._store)
        else:
            self._drop(worker)

    def _bury(self, worker: SimulationWorker) -> None:
        """Puts the point of a worker that died back, behind all others, and starts another worker."""
        end, point = worker.end(DYING_S), worker.point
        self._drop(worker)
        if not worker.begun:
            raise RunError(f"a process of the simulation did not start ({end})")
        if point is None:
            return
        again = point.id not in self._interrupted
        words = "it is simulated again" if again else "it is left out"
        self._observer.trouble(f"{point.id}: the process that simulated it died ({end}); {words}")
        if again:
            self._interrupted.add(point.id)
            self._left.append(point)
        else:
            self._lost.append(point.id)
        if self._left:
            self._start_worker()

    def _drop(self, worker: SimulationWorker) -> None:
        del self._workers[worker.connection]
        worker.end()


class SimulationWorker:
    """A simulation worker is a process that simulates one point after another.

    `point` is the one at work; `begun` says whether the process has come as far as to ask for one.

    Raises:
        OSError: this machine lets no more processes start.
    """

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            descriptor = theirs.fileno()
            code = f"from mtpbench.run import spawn_main; spawn_main({descriptor})"
            self.process = reaper.start_python(code, descriptor)
        self.point: Point | None = None
        self.begun = False

    def simulate(self, point: Point, server_start: str, store: SweepStore) -> None:
        """Gives the process a point; one that has died shows when its answer is read."""
        self.point = point
        with contextlib.suppress(OSError):
            self.connection.send((point, server_start, store))

    def end(self, patience_s: float = 0.0) -> str:
        """Ends the process, where it has not ended in so many seconds; returns how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience_s)
        self.process.kill()
        code = self.process.wait()
        self.connection.close()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationFault:
    """A simulation fault is an error of a worker: its kind, by exit code, and its message."""

    exit_code: int
    message: str

    def raise_again(self) -> NoReturn:
        """Raises the error where the run sees it."""
        kinds: tuple[type[MtpbenchError], ...] = (InputError, RunError, StoreError)
        kind = next((kind for kind in kinds if kind.exit_code == self.exit_code), None)
        raise RuntimeError(self.message) if kind is None else kind(self.message)


def spawn_main(descriptor: int) -> None:
    """Simulates the points that come over a connection until it closes: the program of a worker."""
    with Connection(descriptor) as connection, contextlib.suppress(EOFError, BrokenPipeError):
        message: PointResult | SimulationFault | None = None
        while not isinstance(message, SimulationFault):
            connection.send(message)
            message = _simulated(*connection.recv())
        connection.send(message)


def _simulated(point: Point, server_start: str, store: SweepStore) -> PointResult | SimulationFault:
    try:
        return run_virtual_point(point, server_start, store)
    except MtpbenchError as error:
        return SimulationFault(exit_code=error.exit_code, message=str(error))
    except Exception as error:  # noqa: BLE001 - what is no limit is a bug of mtpbench, which the run shows
        if (limit := limit_met(error)) is not None:
            return SimulationFault(exit_code=RunError.exit_code, message=f"{point.id}: {limit}")
        return SimulationFault(exit_code=INTERNAL_FAULT_EXIT_CODE, message=traceback.format_exc())


def run_virtual_point(point: Point, server_start: str, store: SweepStore) -> PointResult:
    """Simulates one point on the virtual clock and stores it, as one of a simulated start of servers."""
    started = now_utc()
    counts = RequestCounts.of(point.concurrency, point.measurement)
    schedule = Schedule.independent(point.load, counts, point.concurrency, point.seed)
    rules = point.measurement
    lengths = draw_lengths(point.workload, counts.total, point.seed, stratified=rules.stratifies_lengths)
    if rules.spreads_phases:
        lengths = spread_phases(lengths, schedule.first_of_slots, point.seed)
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
    origin = Started(executor="virtual clock, in process", server_start=server_start)
    provenance = collect(point, origin, started, now_utc())
    store.write(point, result, provenance, raw, {})
    return result


def recompute(directory: Path) -> tuple[PointResult, PointResult]:
    """Computes a stored point's result again from its raw records, and replaces it where it differs.

    Returns:
        The result as it was stored, and as it is now.

    Raises:
        InputError: the point's chunks were stored summarised.
        RunError: a run has just replaced the point.
    """
    with OpenAttempt(directory) as attempt:
        stored, raw = attempt.read()
        if stored.point.load.chunks == "summarised":
            raise InputError(
                f"{directory.name}: its chunks were stored summarised, so its result can't be computed "
                "again; measure with `load: {chunks: kept}` for that"
            )
        result = measure(stored.point, raw)
        if result != stored.result:
            attempt.rewrite_result(result)
    return stored.result, result
