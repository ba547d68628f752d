"""Drives one worker against the wall clock: steps end when due, events go straight to their streams."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Protocol

from mtpbench.simengine.job import Job
from mtpbench.simengine.worker import Worker

_CATCH_UP_S = 1.0
"""Real seconds behind schedule after which the pump gives up catching up."""


_MIN_MEAN_S, _MAX_MEAN_S = 0.05, 5.0
"""Engine seconds over which a power reading is averaged."""


class Clock:
    """Engine seconds since it was made: real seconds times `speed`."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._start = time.monotonic()

    def now_s(self) -> float:
        """Engine seconds."""
        return (time.monotonic() - self._start) * self.speed


class Sink(Protocol):
    """Where a request's token events go."""

    def tokens(self, cumulative: int, *, last: bool) -> None:
        """The request has `cumulative` tokens now."""

    def prefilled(self) -> None:
        """Its prompt was prefilled on a prefill worker."""


class Pump:
    """The step loop of a worker.

    A step begins where the last one was due to end, not where the timer woke up, so that late timers do
    not slow the engine down.
    """

    def __init__(self, worker: Worker, clock: Clock) -> None:
        self.worker, self.clock = worker, clock
        self._sinks: dict[int, Sink] = {}
        self._keys = itertools.count()
        self._work = asyncio.Event()
        self._reading = (0.0, 0.0)

    def submit(self, prompt: int, total: int, sink: Sink, *, kv_ready: bool = False) -> int:
        """Queue a request; its events go to `sink` until it ends or is cancelled. Answers its key."""
        key = next(self._keys)
        self.worker.submit(Job(key, prompt, total), kv_ready=kv_ready)
        self._sinks[key] = sink
        self._work.set()
        return key

    def cancel(self, key: int) -> None:
        """Free the place of a request that nobody waits for any more."""
        if self._sinks.pop(key, None):
            self.worker.cancel(key)

    def power_w(self) -> float:
        """Power of each GPU: the mean since the last reading, so that readings integrate to the energy.

        The momentary power where the last reading is too old or too young for a mean.
        """
        now_s = self.clock.now_s()
        (then_s, joules), energy_j = self._reading, self.worker.energy_j(now_s)
        if now_s - then_s < _MIN_MEAN_S:
            return self.worker.power_w(now_s)
        self._reading = (now_s, energy_j)
        if now_s - then_s > _MAX_MEAN_S:
            return self.worker.power_w(now_s)
        return (energy_j - joules) / (now_s - then_s)

    async def run(self) -> None:
        """Step for ever."""
        clock, worker = self.clock, self.worker
        now_s = clock.now_s()
        while True:
            end_s = worker.begin(now_s)
            self._deliver()
            if end_s is None:
                self._work.clear()
                await self._work.wait()
                now_s = clock.now_s()
                continue
            late_s = (clock.now_s() - end_s) / clock.speed
            await asyncio.sleep(max(0.0, -late_s))
            worker.finish()
            self._deliver()
            now_s = clock.now_s() if late_s > _CATCH_UP_S else end_s

    def _deliver(self) -> None:
        sinks = self._sinks
        for emission in self.worker.take_emissions():
            done = set(emission.done)
            for key, tokens in zip(emission.keys.tolist(), emission.tokens.tolist(), strict=True):
                last = key in done
                sink = sinks.pop(key, None) if last else sinks.get(key)
                if sink is not None:
                    sink.tokens(tokens, last=last)
        for job in self.worker.take_prefilled():
            if sink := sinks.pop(job.key, None):
                sink.prefilled()
