"""Pure: which request a free slot sends next. No clock, no network."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mtpbench.records import Measurement


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """The request that a slot sends next: its 0-based index in the run, and whether it is warm-up."""

    index: int
    warmup: bool


class ClosedLoop:
    """C slots, each sending its next request when the last one ended, until none are left.

    The first `warmup` requests handed out are warm-up; load does not pause between the two.

    Args:
        concurrency: slots in flight, at least 1.
        warmup: requests handed out as warm-up.
        measured: requests handed out after them.
    """

    def __init__(self, concurrency: int, warmup: int, measured: int) -> None:
        self.concurrency, self.warmup, self.total = concurrency, warmup, warmup + measured
        self._next = 0

    @classmethod
    def of(cls, concurrency: int, rules: Measurement) -> ClosedLoop:
        """The loop that a sweep's measurement rules ask for at one concurrency."""
        measured = max(math.ceil(rules.requests_per_slot * concurrency), rules.min_requests, concurrency)
        return cls(concurrency, math.ceil(rules.warmup_per_slot * concurrency), measured)

    def take(self) -> Turn | None:
        """The next request for the slot that just became free, or None when none are left."""
        if self._next >= self.total:
            return None
        turn = Turn(index=self._next, warmup=self._next < self.warmup)
        self._next += 1
        return turn
