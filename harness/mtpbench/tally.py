"""Pure: a multiset of whole numbers, counted rather than kept, so that its percentiles stay exact."""

from __future__ import annotations

import numpy as np

from mtpbench.requests import Ints

COUNTED_BELOW = 1 << 21
"""Numbers below this are counted in place, where many come at once; others are sorted."""
_MANY = 1 << 12
_UNMERGED = 1 << 20


class Tally:
    """How often each of many whole numbers came.

    Memory goes with the distinct numbers, not with how many come. Counting in place takes a nanosecond a
    number and sorting fifty, but only numbers of a known range have a place.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(0, np.int64)
        self._sorted: list[tuple[Ints, Ints]] = []
        self._unmerged = 0

    def add(self, numbers: Ints) -> None:
        """Count some more numbers, (m,)."""
        placed = (numbers >= 0) & (numbers < (COUNTED_BELOW if len(numbers) >= _MANY else 0))
        if placed.all():
            self._count(numbers)
        else:
            self._count(numbers[placed])
            self._sort(numbers[~placed])

    def distinct(self) -> tuple[Ints, Ints]:
        """The distinct numbers, rising, and how often each came."""
        placed = np.flatnonzero(self._counts)
        return _merge([(placed, self._counts[placed]), *self._sorted])

    def _count(self, numbers: Ints) -> None:
        if not len(numbers):
            return
        if (top := int(numbers.max())) >= len(self._counts):
            grown = np.zeros(max(top + 1, min(2 * top, COUNTED_BELOW)), np.int64)
            grown[: len(self._counts)] = self._counts
            self._counts = grown
        np.add.at(self._counts, numbers, 1)

    def _sort(self, numbers: Ints) -> None:
        self._sorted.append(_runs(np.sort(numbers), np.ones(len(numbers), np.int64)))
        self._unmerged += len(self._sorted[-1][0])
        if self._unmerged > _UNMERGED:
            self._sorted = [_merge(self._sorted)]
            # Merged again only once as much has come as is there: the work stays in proportion.
            self._unmerged = -len(self._sorted[0][0])


def _merge(parts: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    numbers, counts = (np.concatenate([part[i] for part in parts]) for i in range(2))
    order = np.argsort(numbers, kind="stable")
    return _runs(numbers[order], counts[order])


def _runs(numbers: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Equal neighbours as one, their counts added up."""
    if not len(numbers):
        return numbers, counts
    begins = np.concatenate(([0], np.flatnonzero(np.diff(numbers)) + 1))
    return numbers[begins], np.add.reduceat(counts, begins)
