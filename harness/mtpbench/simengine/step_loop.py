"""The step loop drives one worker by the wall clock: steps end when due, events go straight to sinks."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping
from typing import Protocol

from mtpbench.simengine.engine_steps import TokenSequence
from mtpbench.simengine.worker_model import Worker

_CATCH_UP_S = 1.0
"""Real seconds behind schedule after which the step loop gives up catching up."""
_SLICE = 64
"""Events sent in one turn of the event loop, under a millisecond: arrivals are stamped in between."""

_MIN_MEAN_S, _MAX_MEAN_S = 0.05, 5.0
"""Engine seconds over which a power reading is averaged."""


class Clock:
    """A clock counts engine seconds since it was made: real seconds times `speed`."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._start = time.monotonic()

    def now_s(self) -> float:
        """Returns the engine seconds."""
        return (time.monotonic() - self._start) * self.speed


class Sink(Protocol):
    """A sink takes the token events of a request."""

    def tokens(self, cumulative: int, *, last: bool) -> None:
        """Takes the event that brings the request to `cumulative` tokens."""

    def prefilled(self) -> None:
        """Takes the end of the prompt's prefill on a prefill worker."""


class Lateness:
    """The lateness of a step loop is how far it was behind its own schedule, in real seconds.

    It says whether this process was the bottleneck. `late_s` is the time from a step's due end to its
    played end; `delivery_s` is how long the events of a step took into their sockets.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.late_s = self.delivery_s = self.late_max_s = self.delivery_max_s = 0.0

    def add(self, late_s: float, delivery_s: float) -> None:
        """Counts a step."""
        late_s = max(0.0, late_s)
        self.steps += 1
        self.late_s += late_s
        self.delivery_s += delivery_s
        self.late_max_s = max(self.late_max_s, late_s)
        self.delivery_max_s = max(self.delivery_max_s, delivery_s)

    def as_json(self) -> Mapping[str, float]:
        """Returns all sums and maxima, by name."""
        return {
            "steps": self.steps,
            "late_s": self.late_s,
            "late_max_s": self.late_max_s,
            "delivery_s": self.delivery_s,
            "delivery_max_s": self.delivery_max_s,
        }


class StepLoop:
    """The step loop of a worker begins and ends its steps, and delivers their events.

    A step begins when the last one was due to end, not when the timer woke up, so that late timers do not
    slow the engine down.
    """

    def __init__(self, worker: Worker, clock: Clock) -> None:
        self.worker, self.clock = worker, clock
        self.lateness, self.recent = Lateness(), Lateness()
        """Counted since the start, and since the timings were reset."""
        self._sinks: dict[int, Sink] = {}
        self._keys = itertools.count()
        self._work = asyncio.Event()
        self._reading = (0.0, 0.0)

    def submit(self, prompt: int, total: int, sink: Sink, *, kv_ready: bool = False) -> int:
        """Queues a request, and returns its key; its events go to `sink` until it ends or is cancelled."""
        key = next(self._keys)
        self.worker.submit(TokenSequence(key, prompt, total), kv_ready=kv_ready)
        self._sinks[key] = sink
        self._work.set()
        return key

    def cancel(self, key: int) -> None:
        """Frees the place of a request whose client has left."""
        if self._sinks.pop(key, None):
            self.worker.cancel(key)

    def power_w(self) -> float:
        """Returns the mean power of a GPU since the last reading, so that readings integrate to the energy.

        It is the power of this moment where the last reading is too old or too young for a mean.
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
        """Runs steps until it is cancelled."""
        clock, worker = self.clock, self.worker
        now_s = clock.now_s()
        while True:
            self._work.clear()
            end_s = worker.begin(now_s)
            await self._deliver()
            if end_s is None:
                await self._work.wait()
                now_s = clock.now_s()
                continue
            late_s = await self._until(end_s)
            worker.finish()
            began = time.monotonic()
            await self._deliver()
            delivery_s = time.monotonic() - began
            self.lateness.add(late_s, delivery_s)
            self.recent.add(late_s, delivery_s)
            now_s = clock.now_s() if late_s > _CATCH_UP_S else end_s

    async def _until(self, due_s: float) -> float:
        """Waits until an engine second, and returns how many real seconds late it is then.

        Timers of uvloop are in whole milliseconds and can be early, hence the loop. It sleeps at
        least once, so that a loop that is behind lets other tasks run.
        """
        clock = self.clock
        late_s = (clock.now_s() - due_s) / clock.speed
        await asyncio.sleep(max(0.0, -late_s))
        while (late_s := (clock.now_s() - due_s) / clock.speed) < 0:
            await asyncio.sleep(-late_s)
        return late_s

    async def _deliver(self) -> None:
        sinks, sent = self._sinks, 0
        for emission in self.worker.take_emissions():
            done = set(emission.done)
            for key, tokens in zip(emission.keys.tolist(), emission.tokens.tolist(), strict=True):
                last = key in done
                sink = sinks.pop(key, None) if last else sinks.get(key)
                if sink is not None:
                    sink.tokens(tokens, last=last)
                sent += 1
                if not sent % _SLICE:
                    await asyncio.sleep(0)
        for sequence in self.worker.take_prefilled():
            if sink := sinks.pop(sequence.key, None):
                sink.prefilled()
