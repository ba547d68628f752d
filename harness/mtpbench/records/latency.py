"""What is said of a run's requests: distributions of latencies with intervals, stalls, and kinds of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


StepsGap = Literal[
    "events_gathered",
    "events_split_or_merged",
    "uncounted",
    "no_later_events",
    "impossible",
]
"""Why tokens per step are NULL; docs/validity.md explains each."""
ToldGap = Literal["speculation_off", "not_told", "no_drafts", "impossible"]
"""Why the acceptance length of a kind of text is NULL."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryFigures:
    """Category figures hold what a point measured of the requests of one kind of text.

    Args:
        category: the kind, as the dataset names it; None for the lines that name none.
        requests: how many requests count.
        tpot_s: of those that have a TPOT.
        tokens_per_step: output tokens after the first chunk / the steps that made them, those without drafts
            too; NULL where neither the client nor the engine tells steps.
        steps_from: whether steps are the `events` that the client saw, or output tokens less the drafts that
            the `engine` told of each request; NULL without tokens per step.
        steps_gap: why there are no tokens per step, or None.
        acceptance_length: 1 + accepted drafts / verification steps, as the engine told of each request.
        acceptance_gap: why there is none, or None.
    """

    category: str | None
    requests: Count
    tpot_s: Distribution | None
    tokens_per_step: NotNegative | None
    steps_from: Literal["events", "engine"] | None
    steps_gap: StepsGap | None
    acceptance_length: NotNegative | None
    acceptance_gap: ToldGap | None

    @property
    def interactivity_tps(self) -> float | None:
        """Returns the tokens/s that one user sees: 1 / median TPOT."""
        return 1 / self.tpot_s.p50 if self.tpot_s is not None and self.tpot_s.p50 > 0 else None
