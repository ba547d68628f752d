"""Pure: the pacer decides which request starts next, in which slot, and when. It has no clock and no network.

A `Schedule` holds the whole run and is equal in every client process. A `Pacer` gives out a share of it: to
the load client by the wall clock, to the embedded engine by the virtual clock.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtpbench.errors import InputError
from mtpbench.metrics.request_table import Floats, Ints
from mtpbench.records import Load, Measurement

_ARRIVALS = 7
"""The random stream of arrivals, beside those of lengths and contents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestCounts:
    """The numbers of requests of a run: `warmup` first, then `measured`, without a pause between them."""

    warmup: int
    measured: int

    @property
    def total(self) -> int:
        """All requests of the run."""
        return self.warmup + self.measured

    @classmethod
    def of(cls, concurrency: int, rules: Measurement) -> RequestCounts:
        """Computes the counts from a sweep's measurement rules, at one concurrency."""
        measured = max(math.ceil(rules.requests_per_slot * concurrency), rules.min_requests, concurrency)
        return cls(warmup=math.ceil(rules.warmup_per_slot * concurrency), measured=measured)


@dataclass(kw_only=True, slots=True)  # every request makes one, and frozen ones take twice as long
class Turn:
    """A turn is the start of one request.

    Args:
        index: the request's 0-based index in the run.
        warmup: whether the request is warm-up.
        slot: the slot that it starts in.
        due_ns: when it was due, in nanoseconds since the run's second 0.
        waited: whether it was due before a slot was free.
    """

    index: int
    warmup: bool
    slot: int = 0
    due_ns: int = 0
    waited: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """The schedule holds every request of a run, in the order in which they may start.

    Args:
        concurrency: slots; in an open loop the most requests in flight.
        warmup: indices below this are warm-up.
        heads: (h,) int64, rising indices of the requests that wait for no other request.
        arrivals_s: (h,) engine seconds at which each head starts in an open loop; None in a closed loop.
        following: (n,) int64, the request that starts after a request's end (a session's next turn), or -1.
        delay_s: (n,) engine seconds between that end and that start, by the index of the later request.
        not_before_s: (n,) engine seconds before which a following turn does not start (a trace's timestamps).
        ramp_s: engine seconds over which the slots of a closed loop open.
        time_scale: engine seconds per wall second.
    """

    concurrency: int
    warmup: int
    heads: Ints
    arrivals_s: Floats | None
    following: Ints
    delay_s: Floats
    not_before_s: Floats | None = None
    ramp_s: float = 0.0
    time_scale: float = 1.0

    @classmethod
    def independent(cls, load: Load, counts: RequestCounts, concurrency: int, seed: int) -> Schedule:
        """Builds the schedule of requests that wait for no other, as random prompts do.

        Raises:
            InputError: the load is a trace, whose times come from a dataset.
        """
        return cls(
            concurrency=concurrency,
            warmup=counts.warmup,
            heads=np.arange(counts.total, dtype=np.int64),
            arrivals_s=draw_arrivals_s(load, counts.total, seed) if load.open else None,
            following=np.full(counts.total, -1, np.int64),
            delay_s=np.zeros(counts.total),
            ramp_s=load.ramp_s,
        )

    @classmethod
    def chained(cls, after: Ints) -> tuple[Ints, Ints]:
        """Returns `heads` and `following` of requests that each wait for `after[i]`, or for none (-1)."""
        following = np.full(len(after), -1, np.int64)
        waits = after >= 0
        following[after[waits]] = np.flatnonzero(waits)
        return np.flatnonzero(~waits), following

    @property
    def total(self) -> int:
        """All requests of the run."""
        return len(self.following)

    @property
    def first_of_slots(self) -> Ints:
        """Indices of the warm-up requests with which a closed loop's slots begin; none in an open loop."""
        if self.arrivals_s is not None:
            return self.heads[:0]
        firsts = self.heads[: self.concurrency]
        return firsts[firsts < self.warmup]

    def share(self, worker: int, workers: int) -> Pacer:
        """Returns the share of one client process: every `workers`-th slot, and the heads of those slots.

        The shares are fixed beforehand, so no process waits for another; together they keep exactly
        `concurrency` requests in flight.
        """
        return Pacer(self, range(worker, self.concurrency, workers), self.positions(worker, workers))

    def positions(self, worker: int, workers: int) -> Ints:
        """Returns the positions in `heads` of a worker's share: every slot has about as many as any other."""
        return np.flatnonzero(np.arange(len(self.heads)) % self.concurrency % workers == worker)


class Pacer:
    """A pacer starts the requests of some slots and heads of a schedule.

    Its user calls `take` when time has passed or a request has ended, and `end` for each request that ended.
    In a closed loop a session keeps its slot, also through its pauses; in an open loop its turns wait for any
    slot.

    Args:
        schedule: the whole run.
        slots: the slots that this pacer fills.
        heads: positions in `schedule.heads` of the requests that it starts.
    """

    def __init__(self, schedule: Schedule, slots: Sequence[int], heads: Sequence[int] | Ints) -> None:
        self._schedule = schedule
        self._per_s = 1e9 / schedule.time_scale
        positions = np.asarray(heads, np.int64)
        self._heads: list[int] = schedule.heads[positions].tolist()
        self._following: list[int] = schedule.following.tolist()
        self._position = 0
        self.in_flight = 0
        self.waited = 0
        self._free: deque[tuple[int, int]] = deque()
        """Slots without a request, and since when they are free."""
        self._queue: deque[tuple[int, int, bool]] = deque()
        """Requests of an open loop that are due: due time, index, whether no slot was free at that time."""
        self._later: list[tuple[int, int, int]] = []
        """Heap of later turns, and slots that open (again): due time, slot (-1: any), index (-1: opens)."""
        self._arrivals: list[int] | None = None
        if schedule.arrivals_s is not None:
            self._arrivals = (schedule.arrivals_s[positions] * self._per_s).astype(np.int64).tolist()
        for slot in slots:
            opens = 0
            if self._arrivals is None:
                opens = int(schedule.ramp_s * self._per_s * slot / schedule.concurrency)
            self._later.append((opens, slot, -1))
        heapq.heapify(self._later)

    @property
    def finished(self) -> bool:
        """Whether no request is in flight and none will start."""
        return not self.in_flight and self.unsent == 0

    @property
    def unsent(self) -> int:
        """Requests that have not started; a session's later turn counts once the turn before has ended."""
        waiting = sum(index >= 0 for _, _, index in self._later)
        return len(self._heads) - self._position + len(self._queue) + waiting

    @property
    def started(self) -> int:
        """Heads of the share that have started or wait for a slot."""
        return self._position

    def upcoming(self, count: int) -> list[int]:
        """Returns the indices of the heads that start next, `count` at most."""
        return self._heads[self._position : self._position + count]

    def take(self, now_ns: int) -> Turn | None:
        """Returns a request that starts now; None if none is due or no slot is free."""
        later = self._later
        while later and later[0][0] <= now_ns:
            due, slot, index = heapq.heappop(later)
            if index < 0:
                self._free.append((slot, due))
            elif slot >= 0:
                return self._start(index, slot, due)
            else:
                self._queue.append((due, index, not self._free))
        if self._arrivals is not None:
            return self._take_arrived(now_ns)
        if self._free and self._position < len(self._heads):
            slot, since = self._free.popleft()
            self._position += 1
            return self._start(self._heads[self._position - 1], slot, since)
        return None

    def _take_arrived(self, now_ns: int) -> Turn | None:
        assert self._arrivals is not None
        while self._position < len(self._heads) and self._arrivals[self._position] <= now_ns:
            due, index = self._arrivals[self._position], self._heads[self._position]
            self._queue.append((due, index, len(self._free) <= len(self._queue)))
            self._position += 1
        if not self._queue or not self._free:
            return None
        due, index, waited = self._queue.popleft()
        slot, _ = self._free.popleft()
        return self._start(index, slot, due, waited)

    def _start(self, index: int, slot: int, due: int, waited: bool = False) -> Turn:
        self.in_flight += 1
        self.waited += waited
        return Turn(index=index, warmup=index < self._schedule.warmup, slot=slot, due_ns=due, waited=waited)

    def end(self, turn: Turn, at_ns: int, pause_ns: int = 0) -> None:
        """Frees the slot of a request that ended, and lets its session's next turn start; both after a pause.

        In an open loop other slots take what is due during the pause.
        """
        self.in_flight -= 1
        follower = self._following[turn.index]
        closed = self._arrivals is None
        if follower >= 0:
            due = at_ns + int(self._schedule.delay_s[follower] * self._per_s)
            if self._schedule.not_before_s is not None:
                due = max(due, int(self._schedule.not_before_s[follower] * self._per_s))
            due = max(due, at_ns + pause_ns)
            heapq.heappush(self._later, (due, turn.slot if closed else -1, follower))
        if pause_ns and (follower < 0 or not closed):
            heapq.heappush(self._later, (at_ns + pause_ns, turn.slot, -1))
        elif follower < 0 or not closed:
            self._free.append((turn.slot, at_ns))

    def next_due_ns(self) -> int | None:
        """Returns when `take` may start the next request without any end; None if it needs an end."""
        due = self._later[0][0] if self._later else None
        if self._position == len(self._heads):
            return due
        if self._arrivals is not None:
            arrival = self._arrivals[self._position]
            return arrival if due is None else min(due, arrival)
        return 0 if self._free else due


def draw_arrivals_s(load: Load, count: int, seed: int) -> Floats:
    """Draws the engine seconds at which requests start: (count,), rising from 0.

    Intervals are exponential (`poisson`), gamma with shape `burstiness` (`gamma`), or equal (`constant`), all
    with mean 1 / `rate_rps`. With a ramp the rate rises linearly from 0 over the first `ramp_s` seconds: the
    same arrivals, mapped by the inverse of the expected count.

    Args:
        load: an open loop with a rate.
        count: how many requests there are.
        seed: the point's seed; arms with the same seed have the same arrivals.

    Raises:
        InputError: the pacing is no open loop with a rate of its own.
    """
    if load.rate_rps is None or load.pacing not in ("poisson", "gamma", "constant"):
        raise InputError(f"pacing {load.pacing!r} with rate_rps {load.rate_rps!r} has no arrivals to draw")
    rng = np.random.default_rng([seed, _ARRIVALS])
    if load.pacing == "constant":
        expected = np.arange(count, dtype=np.float64)
    else:
        shape = load.burstiness if load.pacing == "gamma" else 1.0
        intervals = rng.gamma(shape, 1.0 / shape, size=count)
        expected = np.cumsum(intervals) - intervals[:1]  # the first request opens the run
    return _apply_ramp(expected, load.rate_rps, load.ramp_s)


def _apply_ramp(expected: Floats, rate_rps: float, ramp_s: float) -> Floats:
    """Returns when so many requests are expected to have started: the inverse of the cumulated rate."""
    if not ramp_s:
        return expected / rate_rps
    in_ramp = 0.5 * rate_rps * ramp_s
    rising = np.sqrt(2.0 * ramp_s * np.minimum(expected, in_ramp) / rate_rps)
    return rising + np.maximum(expected - in_ramp, 0.0) / rate_rps
