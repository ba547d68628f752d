"""Pure: distribution-free intervals of percentiles, from the order statistics of one run's requests.

The requests of one run are not independent: they wait for the same prefill, and run in the same steps. So the
number of them that counts is an effective one, from the scatter of the run's parts in time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mtpbench.metrics.request_table import Floats, Ints
from mtpbench.metrics.window import FEWEST_BLOCKS, Window
from mtpbench.records import Interval

TAIL = 0.05
"""The share of runs whose interval may miss the percentile."""
MOST_CORRELATION = 0.6
"""A larger one can't be told from the few parts of a run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TimeParts:
    """Time parts are equal parts of a window, and say in which of them each request lies.

    Args:
        count: how many parts.
        of_request: (r,) int64 the part of each request, from 0.
    """

    count: int
    of_request: Ints

    @classmethod
    def of(cls, window: Window, blocks: Sequence[Window], ended_s: Floats) -> TimeParts:
        """Finds the parts of some requests: the window's blocks, or fifths where it has none.

        Fifths may be shorter than a request, but the correlation of neighbours is accounted for.

        Args:
            window: the steady-state window.
            blocks: as `cut_blocks` cut it.
            ended_s: (r,) when the requests ended; what lies outside belongs to the first or last part.
        """
        count = len(blocks) or FEWEST_BLOCKS
        parts = np.floor((ended_s - window.start_s) / window.duration_s * count).astype(np.int64)
        return cls(count=count, of_request=np.clip(parts, 0, count - 1))


def percentile_interval(values: Floats, parts: TimeParts, percent: float) -> Interval | None:
    """Computes the 95% interval of a percentile; None where there is none with either end.

    It is that of `ranks` for as many independent values as say as much as these, read from the values at the
    same shares of all. A median's bound alone says too little to be one.

    Args:
        values: (r,) of one request each.
        parts: where the requests lie.
        percent: 50, 90 or 99.
    """
    count = effective_count(values, parts, percent)
    independent = int(count)
    low, high = ranks(independent, percent / 100) if independent else (None, None)
    if (low is None and high is None) or (percent == 50 and (low is None or high is None)):
        return None
    ordered, requests = np.sort(values), len(values)
    return Interval(
        low=None if low is None else float(ordered[(low - 1) * requests // independent]),
        high=None if high is None else float(ordered[-(-high * requests // independent) - 1]),
        effective_count=count,
    )


def ranks(count: int, share: float) -> tuple[int | None, int | None]:
    """Returns the ranks, from 1, of the two order statistics that enclose a quantile in 95% of samples.

    Both tails are alike where the sample allows it. Where the largest value alone passes the quantile in 95%,
    it is the upper end and the lower tail takes the rest. Where it does not (p99 of fewer than 299), there is
    no upper end, and the lower one has the whole tail. A low quantile is the same the other way round.

    Args:
        count: independent values.
        share: of all values that lie below the quantile.

    Source: H. A. David and H. N. Nagaraja, Order Statistics, 3rd ed., 7.1.
    """
    if share < 0.5:
        low, high = ranks(count, 1 - share)
        return (None if high is None else count + 1 - high), (None if low is None else count + 1 - low)
    low, high = _lower_rank(count, share, TAIL / 2), _upper_rank(count, share, TAIL / 2)
    if high is not None:
        return low, high
    none_above = share**count
    if none_above <= TAIL and (low := _lower_rank(count, share, TAIL - none_above)) is not None:
        return low, count
    return _lower_rank(count, share, TAIL), None


def _lower_rank(count: int, share: float, tail: float) -> int | None:
    """Returns the highest rank whose value lies above the quantile with a chance of at most `tail`."""
    return bisect_right(range(count + 1), tail, key=_chance_below(count, share)) or None


def _upper_rank(count: int, share: float, tail: float) -> int | None:
    """Returns the lowest rank whose value lies below the quantile with a chance of at most `tail`."""
    rank = bisect_left(range(count + 1), 1 - tail, key=_chance_below(count, share)) + 1
    return rank if rank <= count else None


def _chance_below(count: int, share: float) -> Callable[[int], float]:
    """Returns how likely at most so many of the values lie below the quantile."""
    from scipy import special  # type: ignore[import-untyped]  # as long to import as all else here

    return lambda most: float(special.bdtr(most, count, share))


def effective_count(values: Floats, parts: TimeParts, percent: float) -> float:
    """Computes how many independent values would tell a percentile as well as these; at most all of them.

    What tells a percentile is how many values lie below it. Their number in each part of the run scatters as
    that of independent values does, or more: by so much fewer count. The scatter is widened, as that of time
    blocks is, for neighbouring parts that err together, and by Student's t for the few parts that tell it.

    Args:
        values: (r,) of one request each.
        parts: where the requests lie.
        percent: of the percentile.

    Source: A. M. Law, Simulation Modeling and Analysis, 5th ed., 9.5.3 (batch means), of the indicators of a
    quantile: E. J. Chen and W. D. Kelton, Quantile and tolerance-interval estimation in simulation, European
    Journal of Operational Research 168(2), 2006.
    """
    from scipy import special

    count, filled = len(values), np.unique(parts.of_request)
    if len(filled) < 2:
        return 1.0
    below = (values <= np.percentile(values, percent)).astype(np.float64)
    share = float(below.mean())
    student = special.stdtrit(len(filled) - 1, 1 - TAIL / 2) / special.ndtri(1 - TAIL / 2)
    excess = np.bincount(parts.of_request, below - share, parts.count)[filled].astype(np.float64)
    independent = share * (1 - share) * count * count / (count - 1)
    # Where no value lies above, none says how they scatter.
    scatter = _scatter(excess) / independent if independent else 1.0
    return float(count / max(1.0, scatter * student**2))


def _scatter(excess: Floats) -> float:
    """Returns the variance of a sum of parts, from the parts' own values about their mean."""
    count, total = len(excess), float(excess @ excess)
    if not total:
        return 0.0
    # The estimate is 1/count too low for parts that have nothing to do with each other.
    correlation = float(excess[1:] @ excess[:-1]) / total + 1 / count
    correlation = min(max(correlation, 0.0), MOST_CORRELATION)
    return total * count / (count - 1) * (1 + correlation) / (1 - correlation)
