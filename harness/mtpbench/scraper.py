"""The scraper reads the metrics pages of a deployment's processes while a point runs, on the load's clock."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping
from types import TracebackType

import aiohttp

from mtpbench.engines.simulated import GpuPower
from mtpbench.records import CounterSample, PowerSample, SpecCounters, SpecGauge

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
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def counters(self) -> list[CounterSample]:
        """Returns every sample of the counters."""
        return [dataclasses.replace(s, time_s=self._engine_s(s.time_s)) for s in self._counters]

    @property
    def power(self) -> list[PowerSample]:
        """Returns every sample of simulated power."""
        return [dataclasses.replace(s, time_s=self._engine_s(s.time_s)) for s in self._power]

    def start_clock(self, origin: float) -> None:
        """Sets second 0 to this `time.perf_counter()` value: the load's origin."""
        self._origin = origin

    def _engine_s(self, stamp: float) -> float:
        return (stamp - self._origin) * self._time_scale

    async def __aenter__(self) -> Scraper:
        # One connection per scrape: a worker that closes idle ones would cost a sample now and then.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=SCRAPE_TIMEOUT_S),
            trust_env=False,
        )
        try:
            await self._scrape_all()
        except BaseException:
            await self._session.close()
            raise
        self._task = asyncio.create_task(self._keep_scraping())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, session = self._task, self._session
        try:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                if not task.cancelled() and (error := task.exception()):
                    raise error
            if kind is None:
                await self._scrape_all()
        finally:
            self._task = self._session = None
            if session is not None:
                await session.close()

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
        assert self._session is not None
        before = time.perf_counter()
        text, reason = "", None
        try:
            async with self._session.get(url) as response:
                if response.status != 200:
                    reason = f"http_{response.status}"
                else:
                    text = await response.text()
        except TimeoutError:
            reason = "timeout"
        except (aiohttp.ClientError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
        stamp = (before + time.perf_counter()) / 2
        self._take(process, stamp, text, reason)

    def _take(self, process: str, stamp: float, text: str, reason: str | None) -> None:
        counters: SpecCounters | tuple[SpecGauge, ...] | None = None
        powers: list[GpuPower] = []
        if reason is None:
            try:
                counters = self._read_counters(text) if self._read_counters else None
                powers = self._read_power(text) if self._read_power else []
            except (ValueError, KeyError) as error:
                counters, powers, reason = None, [], f"unreadable metrics: {error}"
        if self._read_counters:
            sample = CounterSample(
                time_s=stamp,
                process=process,
                counters=counters if isinstance(counters, SpecCounters) else None,
                gauges=counters if isinstance(counters, tuple) else (),
                reason=None if counters else (reason or "no counters in the metrics"),
            )
            self._counters.append(sample)
        self._power += [
            PowerSample(
                time_s=stamp, process=process, gpu=gpu.gpu, power_w=gpu.power_w, energy_j=gpu.energy_j
            )
            for gpu in powers
        ]
