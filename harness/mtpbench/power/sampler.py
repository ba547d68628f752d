"""Scrapes the metrics of a deployment's processes while a point runs: counters and power, on its clock."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping
from types import TracebackType

import aiohttp

from mtpbench.load.clock import PointClock
from mtpbench.power.simulated import Reading
from mtpbench.records import CounterSample, PowerSample, SpecCounters, SpecGauge

MIN_INTERVAL_S = 0.05
SCRAPE_TIMEOUT_S = 2.0


class Sampler:
    """An async context: samples once on entry, then every interval, and once more on exit.

    A scrape that fails is a counter sample with its reason; power then has a hole, which the energy rules
    find. A sample's time is the middle of its request, since the server reads its counters in between.

    Args:
        urls: metrics URL by process name.
        interval_s: wall seconds between two scrapes; at least 0.05.
        counters: metrics text -> speculation counters, or gauges by rank; None to take none.
        power: metrics text -> (GPU, watts, joules); None to take none.
        time_scale: engine seconds per wall second.
    """

    def __init__(
        self,
        urls: Mapping[str, str],
        *,
        interval_s: float,
        counters: Callable[[str], SpecCounters | tuple[SpecGauge, ...] | None] | None = None,
        power: Callable[[str], list[Reading]] | None = None,
        time_scale: float = 1.0,
    ) -> None:
        self._urls = dict(urls)
        self._interval_s = max(interval_s, MIN_INTERVAL_S)
        self._read_counters, self._read_power = counters, power
        self._clock = PointClock(time_scale)
        self._counters: list[CounterSample] = []  # stamped on the wall clock until they are asked for
        self._power: list[PowerSample] = []
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def counters(self) -> list[CounterSample]:
        """Every scrape of the counters, in engine seconds since the origin (before it: negative)."""
        return [dataclasses.replace(s, time_s=self._clock.at(s.time_s)) for s in self._counters]

    @property
    def power(self) -> list[PowerSample]:
        """Every reading of power, in engine seconds since the origin (before it: negative)."""
        return [dataclasses.replace(s, time_s=self._clock.at(s.time_s)) for s in self._power]

    def start_clock(self, origin: float) -> None:
        """Count time from this `time.perf_counter()` value: the load's origin."""
        self._clock = PointClock(self._clock.time_scale, origin)

    async def __aenter__(self) -> Sampler:
        # One connection per scrape: a worker that closes idle ones would cost a sample now and then.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=SCRAPE_TIMEOUT_S),
            trust_env=False,
        )
        try:
            await self._sample_all()
        except BaseException:
            await self._session.close()
            raise
        self._task = asyncio.create_task(self._keep_sampling())
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
                await self._sample_all()
        finally:
            self._task = self._session = None
            if session is not None:
                await session.close()

    async def _keep_sampling(self) -> None:
        due = time.perf_counter()
        while True:
            # A round that took too long is not made up for: late samples in a row tell nothing.
            due = max(due + self._interval_s, time.perf_counter())
            await asyncio.sleep(due - time.perf_counter())
            await self._sample_all()

    async def _sample_all(self) -> None:
        await asyncio.gather(*(self._sample(name, url) for name, url in self._urls.items()))

    async def _sample(self, process: str, url: str) -> None:
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
        found: SpecCounters | tuple[SpecGauge, ...] | None = None
        readings: list[Reading] = []
        if reason is None:
            try:
                found = self._read_counters(text) if self._read_counters else None
                readings = self._read_power(text) if self._read_power else []
            except (ValueError, KeyError) as error:
                found, readings, reason = None, [], f"unreadable metrics: {error}"
        if self._read_counters:
            gauges = found if isinstance(found, tuple) else ()
            sample = CounterSample(
                time_s=stamp,
                process=process,
                counters=found if isinstance(found, SpecCounters) else None,
                gauges=gauges,
                reason=None if found else (reason or "no counters in the metrics"),
            )
            self._counters.append(sample)
        self._power += [
            PowerSample(time_s=stamp, process=process, gpu=gpu, power_w=watts, energy_j=joules)
            for gpu, watts, joules in readings
        ]
