"""The scraper reads the metrics pages of a deployment's processes while a point runs, on the load's clock."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from mtpbench.engines.simulated import GpuPower
from mtpbench.records import CounterSample, PowerSample, SpecCounters, SpecGauge
from mtpbench.served import Reader, Unserved

MIN_INTERVAL_S = 0.05
SCRAPE_TIMEOUT_S = 2.0


class Scraper:
    """A scraper reads every metrics page on entry of its async context, at every interval, and on exit.

    A failed scrape becomes a counter sample with its reason; power then has a gap, which the energy rules
    find. A sample's time is the middle of its request, since the server reads its counters in between.
    Times are engine seconds since the origin, and negative before it.

    Args:
        urls: metrics URL by process name.
        interval_s: wall seconds between two scrapes; at least 0.05.
        counters: metrics text -> speculation counters, or gauges by rank; None to take none.
        power: metrics text -> the power of simulated GPUs; None to take none.
        time_scale: engine seconds per wall second.
    """

    def __init__(
        self,
        urls: Mapping[str, str],
        *,
        interval_s: float,
        counters: Callable[[str], SpecCounters | tuple[SpecGauge, ...] | None] | None = None,
        power: Callable[[str], list[GpuPower]] | None = None,
        time_scale: float = 1.0,
    ) -> None:
        self._urls = dict(urls)
        self._interval_s = max(interval_s, MIN_INTERVAL_S)
        self._read_counters, self._read_power = counters, power
        self._time_scale, self._origin = time_scale, time.perf_counter()
        self._counters: list[CounterSample] = []  # stamped by `time.perf_counter` until they are asked for
        self._power: list[PowerSample] = []
        self._series: dict[str, Mapping[str, float]] = {}
        self._unread: dict[str, list[str]] = {}
        self._reader: Reader | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def counters(self) -> list[CounterSample]:
        """Returns every sample of the counters."""
        return [dataclasses.replace(s, time_s=self._engine_s(s.time_s)) for s in self._counters]

    @property
    def power(self) -> list[PowerSample]:
        """Returns every sample of simulated power."""
        return [dataclasses.replace(s, time_s=self._engine_s(s.time_s)) for s in self._power]

    @property
    def notes(self) -> tuple[str, ...]:
        """Returns a sentence on each process that had scrapes which gave nothing, with the first reason."""
        return tuple(
            f"{len(reasons)} scrapes of {process}'s metrics gave nothing: {reasons[0]}"
            for process, reasons in sorted(self._unread.items())
        )

    def start_clock(self, origin: float) -> None:
        """Sets second 0 to this `time.perf_counter()` value: the load's origin."""
        self._origin = origin

    def _engine_s(self, stamp: float) -> float:
        return (stamp - self._origin) * self._time_scale

    async def __aenter__(self) -> Scraper:
        self._reader = await Reader().__aenter__()
        try:
            await self._scrape_all()
        except BaseException:
            await self._reader.__aexit__(None, None, None)
            raise
        self._task = asyncio.create_task(self._keep_scraping())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, reader = self._task, self._reader
        try:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                if not task.cancelled() and (error := task.exception()):
                    raise error
            if kind is None:
                await self._scrape_all()
        finally:
            self._task = self._reader = None
            if reader is not None:
                await reader.__aexit__(kind, value, trace)

    async def _keep_scraping(self) -> None:
        due = time.perf_counter()
        while True:
            # A round that took too long is not made up for: two samples at once add nothing.
            due = max(due + self._interval_s, time.perf_counter())
            await asyncio.sleep(due - time.perf_counter())
            await self._scrape_all()

    async def _scrape_all(self) -> None:
        await asyncio.gather(*(self._scrape(name, url) for name, url in self._urls.items()))

    async def _scrape(self, process: str, url: str) -> None:
        assert self._reader is not None
        before = time.perf_counter()
        text, reason = "", None
        try:
            text = await self._reader.get(url, SCRAPE_TIMEOUT_S)
        except Unserved as why:
            reason = str(why)
        stamp = (before + time.perf_counter()) / 2
        self._take(process, stamp, text, reason)

    def _take(self, process: str, stamp: float, text: str, reason: str | None) -> None:
        counters: SpecCounters | tuple[SpecGauge, ...] | None = None
        powers: list[GpuPower] = []
        if reason is None:
            try:
                counters = self._read_counters(text) if self._read_counters else None
                powers = self._read_power(text) if self._read_power else []
            except ValueError as error:
                counters, powers, reason = None, [], f"bad_metrics: {error}"
        if reason is not None:
            self._unread.setdefault(process, []).append(reason)
        if self._read_counters:
            sample = CounterSample(
                time_s=stamp,
                process=process,
                counters=counters if isinstance(counters, SpecCounters) else None,
                gauges=counters if isinstance(counters, tuple) else (),
                reason=None if counters else (reason or "no counters in the metrics"),
                restarted=isinstance(counters, SpecCounters) and self._restarted(process, counters.series),
            )
            self._counters.append(sample)
        self._power += [
            PowerSample(
                time_s=stamp, process=process, gpu=gpu.gpu, power_w=gpu.power_w, energy_j=gpu.energy_j
            )
            for gpu in powers
        ]

    def _restarted(self, process: str, series: Mapping[str, float]) -> bool:
        """Returns whether a series fell, or went, since the process's last readable scrape."""
        before, self._series[process] = self._series.get(process, {}), series
        return any(series.get(name, -1.0) < value for name, value in before.items())
