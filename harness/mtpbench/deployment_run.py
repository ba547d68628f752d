"""The run of one deployment: started, metered, loaded point by point, and started again once if it dies.

One start serves one ladder; each of its points becomes one stored attempt, whatever happened to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from mtpbench.deployment import LiveDeployment, Site, meter_at
from mtpbench.engines import engine_of
from mtpbench.engines.simulated import simulated_power
from mtpbench.errors import StartError
from mtpbench.executors import hide_in_files
from mtpbench.load.client import DriveResult, drive
from mtpbench.load.client_spec import ClientSpec
from mtpbench.measure import measure
from mtpbench.metrics.request_table import RequestTable
from mtpbench.output_check import OutputCheck, check_output
from mtpbench.plan import Ladder, expected_events_per_s
from mtpbench.power.log import unread
from mtpbench.power.meter import Meter
from mtpbench.progress import Observer, in_background, now_utc
from mtpbench.provenance import Started, bare_secrets, collect, new_server_start, without_secrets
from mtpbench.records import ClientHealth, CounterSource, IdlePower, Point, RunFacts
from mtpbench.redaction import Secrets
from mtpbench.scraper import Scraper
from mtpbench.store import RawPoint, SweepStore

RESTARTS = 1
LOG_LIMIT_BYTES = 1_000_000
WATCH_INTERVAL_S = 0.5
DEATH_GRACE_S = 3.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """The context of a run, which all its deployments share.

    Args:
        store: takes the results.
        observer: is told what happens.
        stop: ends the run when set.
        site: runs the servers.
        servers: the folder of their files and logs.
    """

    store: SweepStore
    observer: Observer
    stop: asyncio.Event
    site: Site
    servers: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """A start of a deployment: its id, the live deployment, its checked output, its meter and idle power."""

    id: str
    live: LiveDeployment
    output: OutputCheck
    meter: Meter
    idle: tuple[IdlePower, ...]


class DeploymentRun:
    """The run of one deployment through its ladder.

    Args:
        ladder: the deployment and its points.
        context: of the whole run.
    """

    def __init__(self, ladder: Ladder, context: RunContext) -> None:
        self.deployment, self.context = ladder.deployment, context
        self.waiting = list(ladder.points)
        self.starts = 0
        self._secrets = Secrets.of(ladder.first, os.environ)

    async def run(self) -> None:
        """Serves the ladder; a dead deployment is started again once, then the rest is stored as invalid."""
        observer, stop = self.context.observer, self.context.stop
        reason = "the server died"
        observer.ladder_started(self.deployment, self.waiting)
        if bare := bare_secrets(self.deployment):
            observer.trouble(bare)
        while self.waiting and self.starts <= RESTARTS and not stop.is_set():
            self.starts += 1
            try:
                reason = self._secrets.hide(await self._serve())
            except StartError as error:
                reason = self._secrets.hide(str(error))
                if self.waiting:
                    observer.trouble(reason)
        if not stop.is_set():
            for point in self.waiting:
                store_failure(point, reason, self.context)

    async def _serve(self) -> str:
        """Starts the deployment and serves what waits, until it is done or died; returns how it died."""
        async with contextlib.AsyncExitStack() as stack:
            start = await self._unless_stopped(self._start(stack))
            while start is not None and self.waiting and not self.context.stop.is_set():
                point, live = self.waiting[0], start.live
                notes = await _reset_cache(live, point)
                if why := await live.unhealthy():
                    return why
                if await PointRun(point, start, self.context).run(notes):
                    self.waiting.remove(point)
        return "the server died"

    async def _start(self, stack: contextlib.AsyncExitStack) -> Start:
        """Starts and meters the deployment, both until the stack ends, and checks its output."""
        site, first = self.context.site, self.waiting[0]
        directory = self.context.servers / f"{self.deployment.key}@{_stamp()}"
        # What servers print is theirs until they have ended; then it loses what is secret, as all texts do.
        stack.callback(self._hide_in_files, directory)
        executor, rules = site.executor(directory), first.measurement
        meter = await stack.enter_async_context(await meter_at(site, self.deployment, first, directory))
        if rules.power == "required" and meter.reason is not None:
            raise StartError(f"required, but can't be read: {meter.reason}", process="power")
        cold = await meter.rest("before_start", rules.idle_s)
        live = await stack.enter_async_context(
            LiveDeployment(self.deployment, executor, rules.ready_timeout_s)
        )
        output = await check_output(live, first, self._secrets)
        loaded = await meter.rest("loaded", rules.idle_s)
        idle = (*cold, *loaded)
        return Start(id=new_server_start(), live=live, output=output, meter=meter, idle=idle)

    def _hide_in_files(self, directory: Path) -> None:
        for sentence in hide_in_files(directory, self._secrets.hide_bytes):
            self.context.observer.trouble(sentence)

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Returns the result of the work; None where the run was stopped first, which cancels the work."""
        task, stopping = asyncio.create_task(work), asyncio.create_task(self.context.stop.wait())
        try:
            await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for pending in (task, stopping):
                pending.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)


class PointRun:
    """The run of one point: its load on a started deployment, and the attempt that is stored.

    Args:
        point: the point.
        start: of its deployment.
        context: of the whole run.
    """

    def __init__(self, point: Point, start: Start, context: RunContext) -> None:
        self.point, self.start, self.context = point, start, context
        self.started_utc = now_utc()
        self._log_sizes = {h.process.name: _size(h.log) for h in start.live.handles}

    async def run(self, notes: tuple[str, ...]) -> bool:
        """Loads the deployment and stores the point; False if the run was stopped before a request ended."""
        self.context.observer.point_started(self.point)
        driven, scraper = await self._drive()
        if self.context.stop.is_set() and not len(driven.table):
            return False
        live, meter = self.start.live, self.start.meter
        death = live.dead()
        cut_off = None if death else driven.cut_off
        if death is None and driven.server_unreachable:
            death = f"{live.deployment.front} stopped answering"
        facts = dataclasses.replace(
            self._facts(),
            server_died=death,
            cut_off=cut_off,
            client_failed=driven.client_failed,
            notes=(*notes, *driven.notes, *scraper.notes, *meter.notes),
        )
        raw = RawPoint(
            requests=driven.table,
            counters=tuple(scraper.counters),
            power=(*scraper.power, *meter.samples(driven.origin)),
            client=driven.client,
            facts=facts,
        )
        self._store(raw)
        if death:
            self.context.observer.trouble(Secrets.of(self.point, os.environ).hide(death))
        return True

    async def _drive(self) -> tuple[DriveResult, Scraper]:
        point, live, scale = self.point, self.start.live, self.start.live.deployment.time_scale
        scraper = Scraper(
            live.metrics_urls,
            interval_s=point.measurement.sample_interval_s / scale,
            counters=engine_of(point).counters,
            power=simulated_power if point.simulation else None,
            time_scale=scale,
        )
        halt = asyncio.Event()
        watching = asyncio.create_task(self._watch(halt))
        async with scraper, in_background(watching):
            await self.start.meter.begin()
            try:
                driven = await drive(
                    ClientSpec.of(
                        point,
                        live.base_url,
                        live.deployment.model_name,
                        scale,
                        live.deployment.keeps_connections,
                    ),
                    events_per_s=expected_events_per_s(point, scale),
                    progress=lambda progress: self.context.observer.point_progress(point, progress),
                    stop=halt,
                    hosts=self.context.site.client_hosts(self.context.servers),
                )
            finally:
                await self.start.meter.end()
        scraper.start_clock(driven.origin)
        return driven, scraper

    async def _watch(self, halt: asyncio.Event) -> None:
        """Ends the load when the run is stopped, or soon after a process of the deployment died.

        A front that waits for a dead worker would keep its streams open until every timeout has passed.
        """
        stop = self.context.stop
        while not stop.is_set():
            if self.start.live.dead():
                # A request that fails on its own says more than one that is cut off.
                await _wait(stop, DEATH_GRACE_S)
                break
            await _wait(stop, WATCH_INTERVAL_S)
        halt.set()

    def _facts(self) -> RunFacts:
        start, processes = self.start, self.start.live.deployment.processes
        return RunFacts(
            counter_processes=tuple(
                p.name for p in processes if p.role in ("decode", "aggregated") and p.metrics
            ),
            counter_source=CounterSource(kind="metrics", engine=self.point.engine.name),
            power_source=start.meter.source,
            power_reason=start.meter.reason,
            idle=start.idle,
            gpus=start.meter.conditions,
            grace_reason=start.meter.grace_reason,
            nodes={process.name: process.node for process in processes},
            answers=start.output.answers,
            evaluation=start.output.evaluation,
        )

    def _store(self, raw: RawPoint) -> None:
        """Stores the raw records and their result, with the output of the processes since the point began."""
        point, site, live, meter = self.point, self.context.site, self.start.live, self.start.meter
        origin = Started(
            executor=site.name,
            server_start=self.start.id,
            deployment=live.deployment,
            placement=live.placement,
            where=site.notes(),
            driver=meter.driver,
            gpus=tuple(
                f"{gpu.name}: {gpu.model or 'GPU'} {gpu.uuid or ''}".rstrip() for gpu in meter.conditions
            ),
        )
        logs = {h.process.name: _since(h.log, self._log_sizes[h.process.name]) for h in live.handles}
        _store_point(point, raw, origin, self.started_utc, logs, self.context)


def store_failure(point: Point, reason: str, context: RunContext) -> None:
    """Stores a point that never ran as invalid, with the reason."""
    raw = RawPoint(
        requests=RequestTable.from_records([]),
        counters=(),
        power=(),
        client=ClientHealth(),
        facts=RunFacts(start_failed=reason, power_reason=unread("nothing_ran", "nothing ran")),
    )
    origin = Started(executor=context.site.name, where=context.site.notes())
    _store_point(point, raw, origin, now_utc(), {"failure": reason.encode()}, context)


def _store_point(
    point: Point,
    raw: RawPoint,
    origin: Started,
    started_utc: str,
    logs: Mapping[str, bytes],
    context: RunContext,
) -> None:
    secrets = Secrets.of(point, os.environ)
    # Before anything is derived or cut: the result quotes the records.
    raw = without_secrets(raw, secrets)
    logs = {name: secrets.hide_bytes(text) for name, text in logs.items()}
    result = measure(point, raw)
    provenance = collect(point, origin, started_utc, now_utc(), raw.facts.notes)
    if point.load.chunks == "summarised":
        raw = dataclasses.replace(raw, requests=raw.requests.summarised())
    context.store.write(point, result, provenance, raw, logs)
    context.observer.point_finished(point, result)


async def _reset_cache(live: LiveDeployment, point: Point) -> tuple[str, ...]:
    """Empties the prefix caches before a point; returns notes where that is not possible."""
    path = engine_of(point).RESET_PATH
    if path is None:
        return ("this engine has no cache reset; prompts are unique",)
    failure = await live.reset_cache(path)
    return (f"cache reset failed: {failure}",) if failure else ()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Waits for the event, but no longer than so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _since(path: Path, offset: int) -> bytes:
    """Reads what was added to a log since `offset`, its last megabyte at most."""
    if not path.exists():
        return b""
    with path.open("rb") as log:
        log.seek(max(offset, _size(path) - LOG_LIMIT_BYTES))
        return log.read()
