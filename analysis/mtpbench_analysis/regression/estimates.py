"""Pure: how large a change is and how well it is known, from the soundest source of noise that there is.

From the soundest to the weakest, the first that a group of recipes allows (`Basis`):

    sweeps        several sweeps of a side: t over the means of the sweeps. Server starts are in the error.
    deployments   one sweep of each side, at least 4 deployments: t over the deployments' mean log ratios,
                  each of which has the luck of its own two server starts.
    rounds        repeats inside the sweeps: t over the means of the rounds, so that recipes of one round may
                  err together. One server start serves all rounds: its luck is not seen, but allowed for.
    recipes       single runs: the scatter of the log ratios within the arms (at least 3 degrees of freedom).
                  What moves all recipes of a server start is not seen, but allowed for.

The allowance is `start_noise`: how far two starts of one server are taken to differ. Its variance is taken as
known, so it adds no doubt to the degrees of freedom (Welch-Satterthwaite).

What a t test of such an estimate finds stands below it; its quantiles are SciPy's `stdtrit`, `stdtr` and
`nctdtr`, from Boost's and Cephes' t and noncentral t distributions. SciPy is imported when the first is asked
for: every other command starts without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mtpbench_analysis.regression.paired_runs import FloatArray, IntArray, PairedRuns, per_sweep

Basis = Literal["sweeps", "deployments", "rounds", "recipes"]

MIN_DEPLOYMENTS = 4
MIN_UNIT_DF = 2
MIN_RECIPE_DF = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """An estimate is the mean log ratio new / old of some recipes, with its error.

    Args:
        effect: of the logarithm.
        se: its standard error, the allowance included.
        df: degrees of freedom; infinite where only the allowance is left.
        unit_variance: of the mean logarithm that one sweep of one side gives, for planning.
        recipes: how many there are.
    """

    effect: float
    se: float
    df: float
    basis: Basis
    unit_variance: float
    recipes: int


def estimate_group(pairs: PairedRuns, members: IntArray, start_noise: float) -> Estimate | None:
    """Returns the mean change of some recipes; None where its error is unknown.

    Args:
        pairs: one metric of the matched recipes.
        members: columns of the pairs.
        start_noise: how far two starts of one server are taken to differ, as a share.
    """
    effect = float(pairs.ratios[members].mean())
    floor = float(pairs.block_variance[members].sum()) / len(members) ** 2
    allowance = _allowance(pairs, members, start_noise)
    sides = [
        per_sweep(values, sweeps)[:, members].mean(axis=1)
        for values, sweeps in ((pairs.old, pairs.old_sweeps), (pairs.new, pairs.new_sweeps))
    ]
    basis: Basis
    if sum(map(len, sides)) - 2 >= MIN_UNIT_DF:
        basis, (single, variance, df), allowance = "sweeps", _two_samples(sides), 0.0
    elif len(set(pairs.deployments[members])) >= MIN_DEPLOYMENTS:
        variance, df = _clusters(pairs.ratios[members], pairs.deployments[members])
        basis, single, allowance = "deployments", variance / 2, 0.0
    elif len(pairs.old) + len(pairs.new) - 2 >= MIN_UNIT_DF:
        single, variance, df = _two_samples(
            [side[:, members].mean(axis=1) for side in (pairs.old, pairs.new)]
        )
        basis = "rounds"
    else:
        scatter, df = _within_arms(pairs)
        if df < MIN_RECIPE_DF:
            return None
        basis, variance = "recipes", scatter / len(members)
        single = variance / 2
    variance = max(variance, floor)
    starts = _allowance_per_sweep(pairs, members, start_noise) if allowance else 0.0
    return Estimate(
        effect=effect,
        se=math.sqrt(variance + allowance),
        df=_satterthwaite(variance, df, allowance),
        basis=basis,
        unit_variance=max(single, floor / 2) + starts,
        recipes=len(members),
    )


def estimate_recipes(pairs: PairedRuns, start_noise: float) -> tuple[Estimate | None, ...]:
    """Returns the change of each recipe of the pairs, alone.

    Its noise is pooled over all recipes, as `noise.find_noise` does. Recipes that err together pool to less
    than their number: the degrees of freedom are those of a sum of correlated variances, as estimated.
    """
    count = len(pairs.recipes)
    basis: Basis
    per_side = [per_sweep(pairs.old, pairs.old_sweeps), per_sweep(pairs.new, pairs.new_sweeps)]
    if sum(map(len, per_side)) - 2 >= MIN_UNIT_DF:
        basis, rows, allowed = "sweeps", per_side, False
    elif len(pairs.old) + len(pairs.new) - 2 >= MIN_UNIT_DF:
        basis, rows, allowed = "rounds", [pairs.old, pairs.new], True
    else:
        scatter, df = _within_arms(pairs)
        if df < MIN_RECIPE_DF:
            return (None,) * count
        return tuple(
            _alone(pairs, i, "recipes", (scatter / 2, scatter, df), start_noise) for i in range(count)
        )
    single, df = _pooled(rows)
    variance = single * sum(1 / len(side) for side in rows)
    noise = start_noise if allowed else 0.0
    return tuple(_alone(pairs, i, basis, (single, variance, df), noise) for i in range(count))


def _alone(
    pairs: PairedRuns, column: int, basis: Basis, spread: tuple[float, float, float], start_noise: float
) -> Estimate:
    single, variance, df = spread
    member = np.array([column])
    floor = float(pairs.block_variance[column])
    variance = max(variance, floor)
    allowance = _allowance(pairs, member, start_noise)
    return Estimate(
        effect=float(pairs.ratios[column]),
        se=math.sqrt(variance + allowance),
        df=_satterthwaite(variance, df, allowance),
        basis=basis,
        unit_variance=max(single, floor / 2) + start_noise**2,
        recipes=1,
    )


def _two_samples(sides: Sequence[FloatArray]) -> tuple[float, float, float]:
    """Returns the variance of one unit, of the difference of the means, and their degrees of freedom
    (Student's).
    """
    df = sum(len(side) - 1 for side in sides)
    single = float(sum(((side - side.mean()) ** 2).sum() for side in sides)) / df
    return single, single * sum(1 / len(side) for side in sides), df


def _clusters(ratios: FloatArray, deployments: IntArray) -> tuple[float, float]:
    """Returns the variance of the mean over recipes when those of one deployment may err in any way together.

    Equal to the paired t over the deployments' means where each has as many recipes.
    """
    residuals = ratios - ratios.mean()
    sums = np.array([residuals[deployments == number].sum() for number in np.unique(deployments)])
    count = len(sums)
    return float((sums**2).sum()) / len(ratios) ** 2 * count / (count - 1), count - 1


def _within_arms(pairs: PairedRuns) -> tuple[float, float]:
    """Returns the variance of one log ratio around its arm's mean, and its degrees of freedom."""
    arms = np.unique(pairs.arms)
    df = len(pairs.arms) - len(arms)
    if df < 1:
        return math.nan, 0
    groups = [pairs.ratios[pairs.arms == arm] for arm in arms]
    return float(sum(((group - group.mean()) ** 2).sum() for group in groups)) / df, df


def _pooled(sides: Sequence[FloatArray]) -> tuple[float, float]:
    """Returns the variance of one unit of one recipe, pooled over recipes, and its degrees of freedom.

    With S the recipes' covariance, tr(S)² / tr(S²) of the recipes are independent (Satterthwaite); with few
    units the estimate of it is too low, which widens the intervals.
    """
    residuals = np.concatenate([side - side.mean(axis=0) for side in sides])
    units = sum(len(side) - 1 for side in sides)
    covariance = residuals.T @ residuals / units
    trace, square = float(np.trace(covariance)), float((covariance**2).sum())
    if square == 0:
        return 0.0, units
    return trace / covariance.shape[0], units * trace**2 / square


def _allowance(pairs: PairedRuns, members: IntArray, start_noise: float) -> float:
    """Returns the variance that server starts add to the mean change: each deployment started once in
    each sweep.
    """
    sweeps = sum(1 / len(np.unique(numbers)) for numbers in (pairs.old_sweeps, pairs.new_sweeps))
    return _allowance_per_sweep(pairs, members, start_noise) * sweeps


def _allowance_per_sweep(pairs: PairedRuns, members: IntArray, start_noise: float) -> float:
    shares = np.bincount(pairs.deployments[members]) / len(members)
    return start_noise**2 * float((shares**2).sum())


def _satterthwaite(variance: float, df: float, allowance: float) -> float:
    """Returns the degrees of freedom of an estimated variance plus a known one."""
    return math.inf if variance == 0 else df * ((variance + allowance) / variance) ** 2


_MOST_SWEEPS = 100
_NORMAL_DF = 1e6
"""From here on t is the normal distribution to six digits, and its noncentral form is not worth computing."""


def t_quantile(share: float, df: float) -> float:
    """Returns the t below which a share of the distribution lies; of the normal one for infinite `df`."""
    from scipy import special  # type: ignore[import-untyped]

    return float(special.ndtri(share) if df >= _NORMAL_DF else special.stdtrit(df, share))


def two_sided_p(t: float, df: float) -> float:
    """Returns the chance of a t at least as far from 0 if nothing had changed."""
    from scipy import special

    tail = special.ndtr(-abs(t)) if df >= _NORMAL_DF else special.stdtr(df, -abs(t))
    return min(1.0, 2.0 * float(tail))


def find_power(effect_in_se: float, df: float, alpha: float) -> float:
    """Returns the chance that a two-sided test at `alpha` finds, on its right side, an effect of so many
    errors.
    """
    from scipy import special

    limit = t_quantile(1 - alpha / 2, df)
    if df >= _NORMAL_DF:
        return float(special.ndtr(effect_in_se - limit))
    return 1.0 - float(special.nctdtr(df, effect_in_se, limit))


def smallest_effect(df: float, alpha: float, power: float) -> float:
    """Returns the effect, in standard errors, that a two-sided test at `alpha` finds with the chance
    `power`.
    """
    low, high = 0.0, 2 * t_quantile(1 - alpha / 2, df)
    while find_power(high, df, alpha) < power:
        high *= 2
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if find_power(middle, df, alpha) < power else (low, middle)
    return high


def sweeps_needed(unit_variance: float, effect: float, alpha: float, power: float) -> int | None:
    """Returns how many sweeps of each side find a log effect, each with servers started anew.

    Args:
        unit_variance: of what one sweep of one side says (its mean logarithm).
        effect: of the logarithm.
        alpha: level of the two-sided test.
        power: the chance with which it must be found.

    Returns:
        None for more than 100.
    """
    if unit_variance <= 0:
        return 2
    low, high = 2, _MOST_SWEEPS
    if _least(high, unit_variance, alpha, power) > effect:
        return None
    while low < high:
        middle = (low + high) // 2
        if _least(middle, unit_variance, alpha, power) > effect:
            low = middle + 1
        else:
            high = middle
    return low


def _least(sweeps: int, unit_variance: float, alpha: float, power: float) -> float:
    return smallest_effect(2.0 * sweeps - 2, alpha, power) * math.sqrt(2 * unit_variance / sweeps)
