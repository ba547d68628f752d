"""Pure: how far the mean of a recipe's runs may be off in what is no rate: percentiles, acceptance, energy.

A run tells how far its own figures may be off. Where runs scatter more than that, they are off by more, by
the same factor on the whole curve: a point of few requests is known less well than one of many anyway, and
the two runs of one point would hardly tell how well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mtpbench_analysis.curves.errors import FARTHEST_LOG, pooled
from mtpbench_analysis.frame import CurvePoint

Ends = tuple[float | None, float | None]
"""The ends of a 95% interval; one alone is a bound."""
Recipe = Sequence[CurvePoint]

NORMAL = 1.959964
"""Half of a 95% interval in standard deviations, where those are known."""
TOLD_DF = 1.0
"""How many degrees of freedom it counts as that a run is off by as much as it tells. Two runs of one point
would alone make an interval six times as wide; and were it more, intervals of runs that differ more than they
tell would hold the truth less often."""
LEAST_SD = 0.001
"""A relative error below this says only that most requests were alike, not that another run's will be."""
PERCENTILES: Mapping[str, tuple[str, str]] = {
    "ttft_p50_s": ("ttft_p50_low_s", "ttft_p50_high_s"),
    "ttft_p99_s": ("ttft_p99_low_s", "ttft_p99_high_s"),
    "e2el_p50_s": ("e2el_p50_low_s", "e2el_p50_high_s"),
    "ttft_from_schedule_p50_s": ("ttft_from_schedule_p50_low_s", "ttft_from_schedule_p50_high_s"),
    "interactivity_p99_tps": ("interactivity_p99_low_tps", "interactivity_p99_high_tps"),
}
"""By metric, the fields of a point that hold the ends of its percentiles' intervals."""
_FAR = ("ttft_p99_s", "interactivity_p99_tps")
"""Those that need many requests."""
STANDARD_ERRORS: Mapping[str, str] = {
    "power_w_per_gpu": "power_rel_se",
    "acceptance_length": "acceptance_rel_se",
    "metered_joules_per_token": "joules_per_token_rel_se",
    "metered_joules_per_output_token": "joules_per_token_rel_se",
    "metered_tps_per_mw": "joules_per_token_rel_se",
}
"""By metric, the fields of a point that hold standard errors. Output tokens are so nearly a fixed share of
all that joules for one err as joules for any."""
_OF_RUNS = ("power_w_per_gpu", "acceptance_length", "metered_joules_per_token")
"""The metric of each field of a standard error."""


def student(df: float) -> float:
    """Returns half of a 95% interval in standard deviations that are known with some degrees of freedom."""
    from scipy import special  # type: ignore[import-untyped]

    return float(special.stdtrit(df, 0.975))


def reach_of(point: CurvePoint, field: str) -> float | None:
    """Returns by what factor a point's figures may be higher or lower, with 95%; None where it is unknown.

    Args:
        point: one run, or the mean of several.
        field: what holds the standard error of their logarithm.
    """
    rel_se = getattr(point, field)
    return None if rel_se is None or point.se_df is None else _factor(student(point.se_df) * rel_se)


def mean_errors(recipes: Sequence[Recipe]) -> list[dict[str, Any]]:
    """Returns the error fields of each recipe's mean; empty for a single run, which has its own.

    Args:
        recipes: the runs of each measured recipe of a curve.
    """
    found: list[dict[str, Any]] = [{} for _ in recipes]
    for name, (low, high) in PERCENTILES.items():
        for errors, ends in zip(found, _means(recipes, name), strict=True):
            if ends is not None:
                errors |= {low: ends[0], high: ends[1]}
    for name in _OF_RUNS:
        field = STANDARD_ERRORS[name]
        for recipe, errors, ends in zip(recipes, found, _means(recipes, name), strict=True):
            if ends is not None and ends[0] and ends[1]:
                errors["se_df"] = df = errors.get("se_df") or recipe[0].se_df or len(recipe) - 1
                errors[field] = math.log(ends[1] / ends[0]) / 2 / student(df)
    return found


@dataclass(frozen=True, slots=True)
class _Figure:
    """A figure of one run: its value, and the ends of its interval, None where they are unknown."""

    value: float
    low: float | None
    high: float | None

    @property
    def sd(self) -> float | None:
        """Returns the standard deviation of its logarithm; None where an end is unknown."""
        if self.low is None or self.high is None or not 0 < self.low <= self.high:
            return None
        return math.log(self.high / self.low) / 2 / NORMAL


def _means(recipes: Sequence[Recipe], name: str) -> list[Ends | None]:
    """Returns the interval of the mean of each recipe's runs in one figure, None where it is unknown."""
    figures = [[one for run in recipe if (one := _figure(run, name)) is not None] for recipe in recipes]
    nobody_tells = not any(one.low or one.high for runs in figures for one in runs)
    if nobody_tells and name in _FAR:
        return [None] * len(recipes)  # their own scatter does not show that they are of too few requests
    sds = [1.0 if nobody_tells else _sd(runs) for runs in figures]
    several = [(runs, sd) for runs, sd in zip(figures, sds, strict=True) if len(runs) > 1 and sd]
    scatter = sum(_scatter(runs) / sd**2 for runs, sd in several)
    measured_df = sum(len(runs) - 1 for runs, _ in several)
    if not measured_df:
        factor = 1.0
    else:
        known_df = 0.0 if nobody_tells else TOLD_DF
        variance, df = pooled(scatter / measured_df, measured_df, 1.0, known_df)
        factor = max(math.sqrt(variance) * student(df) / NORMAL, 0.0 if nobody_tells else 1.0)
    return [
        _of_mean(runs, sd, factor) if len(runs) > 1 else None for runs, sd in zip(figures, sds, strict=True)
    ]


def _of_mean(runs: Sequence[_Figure], sd: float | None, factor: float) -> Ends:
    """Returns the interval of a mean; without an error of its runs it is as wide as that of one of them."""
    if sd is not None:
        return _around(fmean(one.value for one in runs), NORMAL * factor * sd / math.sqrt(len(runs)))
    lows, highs = [one.low for one in runs], [one.high for one in runs]
    low = None if None in lows else min(filter(None, lows), default=None)
    return low, None if None in highs else max(filter(None, highs), default=None)


def _sd(runs: Sequence[_Figure]) -> float | None:
    """Returns the standard deviation of one of some runs, as they tell it; None where one does not."""
    sds = [one.sd for one in runs]
    known = [sd for sd in sds if sd is not None]
    if not known or len(known) < len(sds):
        return None
    sd = math.sqrt(fmean(sd**2 for sd in known))
    return sd if sd >= LEAST_SD else None


def _scatter(runs: Sequence[_Figure]) -> float:
    """Returns the sum of squares of the logarithms about their mean."""
    logs = [math.log(one.value) for one in runs]
    return sum((log - fmean(logs)) ** 2 for log in logs)


def _around(value: float, reach: float) -> Ends:
    return value / _factor(reach), value * _factor(reach)


def _factor(reach: float) -> float:
    return math.exp(min(reach, FARTHEST_LOG))


def _figure(run: CurvePoint, name: str) -> _Figure | None:
    if name == "metered_joules_per_token":
        value = run.power_w_per_gpu and run.power_w_per_gpu / run.tput_tps_per_gpu
    else:
        value = getattr(run, name)
    if value is None or value <= 0:
        return None
    if name in PERCENTILES:
        return _Figure(value, *(getattr(run, field) for field in PERCENTILES[name]))
    reach = reach_of(run, STANDARD_ERRORS[name])
    return _Figure(value, reach and value / reach, reach and value * reach)
