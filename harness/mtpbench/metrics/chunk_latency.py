"""Pure: the gaps between the chunks of requests: ICL, token gaps, and stalls."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt

from mtpbench.metrics.packed_chunks import ChunkBatch
from mtpbench.metrics.percentile_intervals import TimeParts, percentile_interval
from mtpbench.metrics.request_table import UNKNOWN, Floats, Ints, seconds
from mtpbench.metrics.window import Window
from mtpbench.records import Distribution, Stalls

PARTS = 20
"""Equal parts of the window, for each of which stalls are counted."""
WORST = 5
_PERCENTS = (10, 50, 90, 99)
COUNTED_BELOW = 1 << 21
"""Numbers below this are counted in place if many come at once; others are sorted."""
_MANY = 1 << 12
_UNMERGED = 1 << 20
BURST_OF_GAP = 0.25
"""Chunks closer than this share of a typical step's gap belong to one burst."""
AT_ONCE_S = 0.002
"""Wall seconds: no step of a large model is as short."""
_NO_GAP = np.iinfo(np.int64).min


class ChunkGaps:
    """The gaps between neighbouring chunks of the counted requests.

    `add` takes the chunks batch by batch and counts how often each gap, in whole microseconds, brought how
    many tokens: every figure is exact, and none depends on where a batch ends.

    Args:
        index: (n,) indices of the requests.
        counted: (n,) which of them count.
        threshold_s: a longer gap is a stall.
        window: stalls are counted for equal parts of it too; None if there is no window.
        at_once_s: chunks further apart than this did not come at once.
    """

    def __init__(
        self,
        index: Ints,
        counted: npt.NDArray[np.bool_],
        threshold_s: float,
        window: Window | None,
        at_once_s: float = AT_ONCE_S,
    ) -> None:
        self._index, self._counted = index, counted
        self._threshold_s, self._window = threshold_s, window
        self._threshold_us = round(threshold_s * 1e6)
        self._by_tokens: defaultdict[int, Histogram] = defaultdict(Histogram)
        self._longest_us = np.full(len(index), _NO_GAP)
        self._first_bursts: list[Ints] = []
        self._at_once_us = at_once_s * 1e6
        self._stalls = self._stalled_us = self._total_us = 0
        self.furthest_back_us = 0
        """The most that a chunk's stamp lies before the one before it, or before its request was sent."""
        self._over_time = np.zeros(PARTS, np.int64)

    def add(self, batch: ChunkBatch) -> None:
        """Adds the gaps of some more requests."""
        self.furthest_back_us = max(self.furthest_back_us, -int(batch.gaps_us.min(initial=0)))
        filled = batch.counts > 0
        firsts = batch.offsets[:-1][filled]
        counted = np.repeat(self._counted[batch.rows], batch.counts)
        counted[firsts] = False
        gaps = batch.gaps_us[counted].astype(np.int64)
        if not len(gaps):
            return
        several = self._counted[batch.rows] & (batch.counts > 1)
        self._first_bursts.append(_first_bursts(batch, self._at_once_us)[several])
        brought = batch.brought[counted]
        for tokens in np.unique(brought).tolist():
            self._by_tokens[tokens].add(gaps[brought == tokens])
        longest = np.maximum.reduceat(np.where(counted, batch.gaps_us, _NO_GAP), firsts)
        self._longest_us[batch.rows][filled] = longest
        self._total_us += int(gaps.sum())
        if longest.max() > self._threshold_us:
            self._add_stalls(batch, counted & (batch.gaps_us > self._threshold_us))

    def _add_stalls(self, batch: ChunkBatch, stalled: npt.NDArray[np.bool_]) -> None:
        self._stalls += int(stalled.sum())
        self._stalled_us += int(batch.gaps_us[stalled].sum(dtype=np.int64))
        if self._window is not None:
            edges = np.linspace(self._window.start_s, self._window.end_s, PARTS + 1)
            self._over_time += np.histogram(seconds(batch.times_us()[stalled]), edges)[0]

    def per_chunk(self) -> Distribution | None:
        """Summarises the gaps themselves (ICL); None if there is none."""
        distinct = [histogram.distinct() for _, histogram in sorted(self._by_tokens.items())]
        if not distinct:
            return None
        gaps, counts = (np.concatenate([pair[i] for pair in distinct]) for i in range(2))
        return summarise_weighted(seconds(gaps), counts)

    def per_token(self) -> Distribution | None:
        """Summarises the token gaps: a chunk's gap divided by its tokens, each token counting once.

        None if the tokens of a chunk are unknown: chunks instead of tokens would be another figure.
        """
        if UNKNOWN in self._by_tokens:
            return None
        distinct = [(n, *histogram.distinct()) for n, histogram in sorted(self._by_tokens.items()) if n > 0]
        if not distinct:
            return None
        gap_s = np.concatenate([seconds(gaps) / tokens for tokens, gaps, _ in distinct])
        return summarise_weighted(gap_s, np.concatenate([counts * tokens for tokens, _, counts in distinct]))

    def between_bursts(self, tokens_per_step: float) -> int:
        """Counts the gaps that separate bursts; the chunks of one step may come one by one, but at once.

        Args:
            tokens_per_step: output tokens of a step, of which at least one makes a long gap.
        """
        histograms = [histogram.distinct() for histogram in self._by_tokens.values()]
        if not histograms:
            return 0
        gaps, counts = (np.concatenate([pair[i] for pair in histograms]) for i in range(2))
        order = np.argsort(gaps, kind="stable")
        upto = np.cumsum(counts[order])
        # Steps make one gap in `tokens_per_step`, so this is the median of theirs.
        typical = gaps[order][np.searchsorted(upto, (1 - 0.5 / tokens_per_step) * upto[-1])]
        return int(counts[gaps > typical * BURST_OF_GAP].sum())

    def first_burst(self) -> float:
        """Returns the median number of chunks that came at once with the first one, itself included."""
        return float(np.median(np.concatenate(self._first_bursts))) if self._first_bursts else 1.0

    def stalls(self) -> Stalls | None:
        """Summarises the gaps above the threshold; None if there is no gap at all."""
        if not self._by_tokens:
            return None
        longest_s = seconds(self._longest_us)
        has_stall = self._longest_us > self._threshold_us
        worst = np.argsort(-longest_s, kind="stable")[:WORST]
        return Stalls(
            threshold_s=self._threshold_s,
            count=self._stalls,
            requests=int(has_stall.sum()),
            longest_s=float(longest_s.max()),
            share=self._stalled_us / max(self._total_us, 1e-6),
            over_time=tuple(self._over_time.tolist()) if self._window else (),
            worst=tuple((int(self._index[i]), float(longest_s[i])) for i in worst if has_stall[i]),
        )


def _first_bursts(batch: ChunkBatch, at_once_us: float) -> Ints:
    """Counts the chunks that came at once with the first one of each request, itself included: (k,).

    A chunk came at once with the one before it if their gap is a small share of its request's mean gap, and
    below `at_once_us`: decode steps beside those with a prefill are short, but they are steps.
    """
    filled, begins = batch.counts > 0, batch.offsets[:-1]
    firsts, counts = begins[filled], batch.counts[filled]
    sums_us = np.add.reduceat(batch.gaps_us, firsts, dtype=np.int64) - batch.gaps_us[firsts]
    least_us = np.minimum(BURST_OF_GAP * sums_us / np.maximum(counts - 1, 1), at_once_us)
    is_apart = batch.gaps_us >= np.repeat(least_us, counts)
    is_apart[firsts] = False
    apart = np.append(np.flatnonzero(is_apart), len(is_apart))
    return np.asarray(np.minimum(apart[np.searchsorted(apart, begins)], batch.offsets[1:]) - begins, np.int64)


def summarise(values: Floats, parts: TimeParts | None = None) -> Distribution | None:
    """Summarises a sample, with percentiles interpolated linearly; None for an empty sample.

    Args:
        values: (r,) the sample.
        parts: where in time the requests lie of which each value is; None where percentiles get no intervals.
    """
    if not len(values):
        return None
    p10, p50, p90, p99 = np.percentile(values, (10, 50, 90, 99))
    p50_interval, p90_interval, p99_interval = (
        None if parts is None else percentile_interval(values, parts, percent) for percent in (50, 90, 99)
    )
    return Distribution(
        count=len(values),
        mean=float(values.mean()),
        min=float(values.min()),
        p10=float(p10),
        p50=float(p50),
        p90=float(p90),
        p99=float(p99),
        max=float(values.max()),
        p50_interval=p50_interval,
        p90_interval=p90_interval,
        p99_interval=p99_interval,
    )


def summarise_weighted(values: Floats, weights: Ints) -> Distribution | None:
    """Summarises a sample in which each value stands for `weights` equal values; None for an empty sample.

    The result equals `summarise` of the repeated values, percentiles included.
    """
    if not len(values):
        return None
    order = np.argsort(values, kind="stable")
    values, upto = values[order], np.cumsum(weights[order])
    count = int(upto[-1])
    # Percentiles interpolate between the two elements of the repeated sample that they fall between.
    positions = np.array(_PERCENTS) / 100 * (count - 1)
    low = np.floor(positions)
    lower, upper = (
        values[np.searchsorted(upto, rank, side="right")] for rank in (low, np.minimum(low + 1, count - 1))
    )
    p10, p50, p90, p99 = lower + (upper - lower) * (positions - low)
    return Distribution(
        count=count,
        mean=float(np.average(values, weights=weights[order])),
        min=float(values[0]),
        p10=float(p10),
        p50=float(p50),
        p90=float(p90),
        p99=float(p99),
        max=float(values[-1]),
    )


class Histogram:
    """A histogram counts how often each of many whole numbers came.

    Its memory grows with the distinct numbers, not with their count. Counting in place takes a nanosecond for
    each number and sorting fifty, but only numbers of a limited range have a place.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(0, np.int64)
        self._sorted: list[tuple[Ints, Ints]] = []
        self._unmerged = 0

    def add(self, numbers: Ints) -> None:
        """Counts some more numbers, (m,)."""
        placed = (numbers >= 0) & (numbers < (COUNTED_BELOW if len(numbers) >= _MANY else 0))
        if placed.all():
            self._count(numbers)
        else:
            self._count(numbers[placed])
            self._sort(numbers[~placed])

    def distinct(self) -> tuple[Ints, Ints]:
        """Returns the distinct numbers, rising, and how often each came."""
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
            # The next merge waits until as many numbers have come again: the work stays proportional.
            self._unmerged = -len(self._sorted[0][0])


def _merge(parts: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    numbers, counts = (np.concatenate([part[i] for part in parts]) for i in range(2))
    order = np.argsort(numbers, kind="stable")
    return _runs(numbers[order], counts[order])


def _runs(numbers: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Joins equal neighbours and adds up their counts."""
    if not len(numbers):
        return numbers, counts
    begins = np.concatenate(([0], np.flatnonzero(np.diff(numbers)) + 1))
    return numbers[begins], np.add.reduceat(counts, begins)
