"""One ladder: a deployment's points, and the servers that serve them, started again once if they die.

One server start serves one ladder; each point of it becomes one stored attempt, whatever happened to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mtpbench import hardware
from mtpbench.deployment import LiveDeployment, Site, meter_at
from mtpbench.engines.prometheus import simulated_power
from mtpbench.engines.registry import engine_of
from mtpbench.errors import StartError
from mtpbench.load.client import Progress, drive
from mtpbench.load.harvest import DriveResult
from mtpbench.load.job import Job
from mtpbench.metrics import measure
from mtpbench.plan import expected_events_per_s
from mtpbench.power.meter import Meter
from mtpbench.provenance import Started, collect
from mtpbench.quality import Quality, check_quality
from mtpbench.records import (
    ClientHealth,
    Deployment,
    IdlePower,
    Point,
    PointResult,
    RunFacts,
)
from mtpbench.requests import RequestTable
from mtpbench.scraper import Scraper
from mtpbench.store import RawPoint, SweepStore

RESTARTS = 1
STOPPED = "the run was stopped"
LOG_LIMIT_BYTES = 1_000_000
WATCH_INTERVAL_S = 0.5
DEATH_GRACE_S = 3.0


T = TypeVar("T")


class Observer(Protocol):
    """Who watches a run; the command line shows what it is told."""

    def ladder_started(self, deployment: Deployment | None, ladder: Sequence[Point]) -> None:
        """A deployment is being started (None on the virtual clock) to serve these points."""

    def point_started(self, point: Point) -> None:
        """Load begins."""

    def point_progress(self, point: Point, progress: Progress) -> None:
        """Load goes on."""

    def point_finished(self, point: Point, result: PointResult) -> None:
        """The point is stored."""

    def trouble(self, message: str) -> None:
        """Something went wrong that the run survives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """One start of a deployment: alive, asked for its quality, metered, and its idle power."""

    live: LiveDeployment
    quality: Quality
    meter: Meter
    idle: tuple[IdlePower, ...]


class Ladder:
    """One deployment's points, and the servers that serve them."""

    def __init__(
        self,
        points: Sequence[Point],
        store: SweepStore,
        observer: Observer,
        stop: asyncio.Event,
        place: tuple[Site, Path],
    ) -> None:
        self.store, self.observer, self.stop = store, observer, stop
        self.site, self.servers = place
        self.waiting = list(points)
        self.deployment = engine_of(points[0]).deploy(points[0], hardware.lookup(points[0].hardware))
        self.starts = 0

    async def run(self) -> None:
        """Serve the ladder; a dead deployment is started again once, then the rest is marked."""
        why = "the server died"
        self.observer.ladder_started(self.deployment, self.waiting)
        while self.waiting and self.starts <= RESTARTS and not self.stop.is_set():
            self.starts += 1
            try:
                why = await self._serve()
            except StartError as error:
                why = str(error)
                if self.waiting:
                    self.observer.trouble(why)
        if not self.stop.is_set():
            for point in self.waiting:
                self._store_failure(point, why)

    async def _serve(self) -> str:
        """Start the deployment and serve what waits, until it is done or dead; says how it died."""
        first, directory = self.waiting[0], self.servers / f"{self.deployment.key}@{_stamp()}"
        executor, rules = self.site.executor(directory), first.measurement
        async with contextlib.AsyncExitStack() as stack:
            meter = await self._unless_stopped(self._meter(stack, first, directory))
            if meter is None:
                return STOPPED
            if rules.power == "required" and meter.reason is not None:
                raise StartError(f"required, but can't be read: {meter.reason}", process="power")
            cold = await self._unless_stopped(meter.rest("before_start", rules.idle_s))
            starting = stack.enter_async_context(
                LiveDeployment(self.deployment, executor, rules.ready_timeout_s)
            )
            live = await self._unless_stopped(starting)
            quality = await self._unless_stopped(check_quality(live, first)) if live else None
            loaded = await self._unless_stopped(meter.rest("loaded", rules.idle_s)) if quality else None
            if cold is None or live is None or quality is None or loaded is None:
                return STOPPED
            start = Start(live=live, quality=quality, meter=meter, idle=(*cold, *loaded))
            while self.waiting and not self.stop.is_set():
                point = self.waiting[0]
                notes = await self._between_points(live, point)
                if not await live.is_healthy():
                    return live.dead() or f"{live.deployment.front} no longer answers its health check"
                self.observer.point_started(point)
                await self._serve_point(start, point, notes)
        return "the server died"

    async def _meter(self, stack: contextlib.AsyncExitStack, point: Point, directory: Path) -> Meter:
        """What meters this start, running until the stack ends."""
        return await stack.enter_async_context(await meter_at(self.site, self.deployment, point, directory))

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What the work gives; None where the run was stopped first: the work is cancelled then."""
        task, stopping = asyncio.create_task(work), asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return None
            return task.result()
        finally:
            for left in (task, stopping):
                left.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)

    async def _between_points(self, live: LiveDeployment, point: Point) -> tuple[str, ...]:
        path = engine_of(point).RESET_PATH
        if path is None:
            return ("this engine has no cache reset; prompts are unique",)
        failed = await live.reset_cache(path)
        return (f"cache reset failed: {failed}",) if failed else ()

    async def _serve_point(self, start: Start, point: Point, notes: tuple[str, ...]) -> None:
        live, meter, started = start.live, start.meter, now_utc()
        offsets = {h.process.name: _size(h.log) for h in live.handles}
        driven, scraper = await self._drive(start, point)
        if self.stop.is_set() and not len(driven.table):
            return
        died = live.dead()
        cut_off = None if died else driven.cut_off
        if died is None and driven.server_unreachable:
            died = f"{live.deployment.front} stopped answering"
        raw = RawPoint(
            requests=driven.table,
            counters=tuple(scraper.counters),
            power=(*scraper.power, *meter.samples(driven.origin)),
            client=driven.client,
            facts=dataclasses.replace(
                self._facts(point, start),
                server_died=died,
                cut_off=cut_off,
                client_failed=driven.client_failed,
                notes=(*notes, *driven.notes, *meter.notes),
            ),
        )
        logs = {h.process.name: _since(h.log, offsets[h.process.name]) for h in live.handles}
        result = measure(point, raw.requests, raw.counters, raw.power, raw.client, raw.facts)
        origin = Started(
            executor=self.site.name,
            deployment=live.deployment,
            placement=live.placement,
            where=self.site.notes(),
            driver=meter.driver,
            gpus=tuple(
                f"{gpu.name}: {gpu.model or 'GPU'} {gpu.uuid or ''}".rstrip() for gpu in meter.conditions
            ),
        )
        provenance = collect(point, origin, (started, now_utc()), raw.facts.notes)
        if point.load.chunks == "summarised":
            raw = dataclasses.replace(raw, requests=raw.requests.summarised())
        self.store.write(point, result, provenance, raw, logs)
        self.waiting.remove(point)
        self.observer.point_finished(point, result)
        if died:
            self.observer.trouble(died)

    async def _drive(self, start: Start, point: Point) -> tuple[DriveResult, Scraper]:
        live, scale = start.live, start.live.deployment.time_scale
        scraper = Scraper(
            live.metrics_urls,
            interval_s=point.measurement.sample_interval_s / scale,
            counters=engine_of(point).counters,
            power=simulated_power if point.simulation else None,
            time_scale=scale,
        )
        halt = asyncio.Event()
        watching = asyncio.create_task(self._watch(live, halt))
        async with scraper, _cancelled_at_end(watching):
            await start.meter.begin()
            try:
                driven = await drive(
                    Job.of(
                        point,
                        live.base_url,
                        live.deployment.model_name,
                        scale,
                        live.deployment.keeps_connections,
                    ),
                    events_per_s=expected_events_per_s(point, scale),
                    progress=lambda progress: self.observer.point_progress(point, progress),
                    stop=halt,
                    hosts=self.site.client_hosts(self.servers),
                )
            finally:
                await start.meter.end()
        scraper.start_clock(driven.origin)
        return driven, scraper

    def _facts(self, point: Point, start: Start) -> RunFacts:
        deciding = [p.name for p in self.deployment.processes if p.role in ("decode", "aggregated")]
        return RunFacts(
            counter_processes=tuple(
                p.name for p in self.deployment.processes if p.name in deciding and p.metrics
            ),
            counter_source=f"{point.engine.name} /metrics of every decoding worker",
            power_source=start.meter.source,
            power_reason=start.meter.reason,
            idle=start.idle,
            gpus=start.meter.conditions,
            grace_reason=start.meter.grace_reason,
            nodes={process.name: process.node for process in self.deployment.processes},
            answers=start.quality.answers,
            evaluation=start.quality.evaluation,
        )

    async def _watch(self, live: LiveDeployment, halt: asyncio.Event) -> None:
        """End the load when the run is stopped, or soon after a process of the deployment died.

        A front that hangs on a lost worker would keep its streams open until every timeout has passed.
        """
        while not self.stop.is_set():
            if live.dead():
                # What fails by itself says more than what is cut off.
                await _wait(self.stop, DEATH_GRACE_S)
                break
            await _wait(self.stop, WATCH_INTERVAL_S)
        halt.set()

    def _store_failure(self, point: Point, why: str) -> None:
        """A point that never ran is a record too: invalid, with the reason and the servers' last words."""
        facts = RunFacts(start_failed=why, power_reason="nothing ran", counter_source="none")
        raw = RawPoint(
            requests=RequestTable.from_records([]), counters=(), power=(), client=ClientHealth(), facts=facts
        )
        result = measure(point, raw.requests, (), (), raw.client, facts)
        now = now_utc()
        origin = Started(executor=self.site.name, where=self.site.notes())
        provenance = collect(point, origin, (now, now))
        self.store.write(point, result, provenance, raw, {"failure": why.encode()})
        self.observer.point_finished(point, result)


@contextlib.asynccontextmanager
async def _cancelled_at_end(task: asyncio.Task[None]) -> AsyncIterator[None]:
    """A task that goes on no longer than the block does, however that ends."""
    try:
        yield
    finally:
        task.cancel()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event or the time, whichever comes first."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def now_utc() -> str:
    """This moment, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _since(path: Path, offset: int) -> bytes:
    """What a log gained since `offset`, its last megabyte at most."""
    if not path.exists():
        return b""
    with path.open("rb") as log:
        log.seek(max(offset, _size(path) - LOG_LIMIT_BYTES))
        return log.read()
