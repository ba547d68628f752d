"""What is said of latencies: distributions with intervals of their percentiles, and stalls."""

from __future__ import annotations

from dataclasses import dataclass

from mtpbench.records.codec import AboveZero, Count, NotNegative


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A confidence interval of 95% holds a percentile of what the server does, as far as one run tells.

    An end is NULL where the requests are too few to have it. Then the other one is a bound, which the
    percentile passes in 95% of runs, and nobody knows by how much.

    Args:
        low, high: its ends.
        effective_count: how many independent requests would say as much as those that were measured.
    """

    low: float | None
    high: float | None
    effective_count: AboveZero

    def fault(self) -> str | None:
        """Returns what no interval can be; None where this one can."""
        if self.low is None or self.high is None:
            return "an interval without an end" if self.low is self.high else None
        return None if self.low <= self.high else "low is above high"


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """A distribution summarises a sample in the unit of its field; percentiles interpolate linearly.

    The intervals are NULL where the values are not of one request each, where a median has too few requests
    for two ends, and in what was written before schema version 7.
    """

    count: Count
    mean: float
    min: float
    p10: float
    p50: NotNegative
    p90: NotNegative
    p99: NotNegative
    max: NotNegative
    p50_interval: Interval | None = None
    p90_interval: Interval | None = None
    p99_interval: Interval | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stalls:
    """Stalls are gaps between two chunks of one request that are longer than a threshold.

    Args:
        threshold_s: what counts as a stall.
        count: stalls of the counted requests.
        requests: how many of them had one.
        longest_s: the longest gap, stall or not.
        share: time in stalls / time between first and last chunks.
        over_time: stalls by equal parts of the window, at the moment they ended.
        worst: request index and longest gap of the worst few, worst first.
    """

    threshold_s: float
    count: int
    requests: int
    longest_s: float
    share: float
    over_time: tuple[int, ...]
    worst: tuple[tuple[int, float], ...]
