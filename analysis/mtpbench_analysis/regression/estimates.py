"""Pure: how large a change is and how well it is known, from the soundest source of noise that there is.

From the soundest to the weakest, the first that a group of recipes allows (`Basis`):

    sweeps        several sweeps of a side (or repeats by restart): t over the means of the sweeps. Server
                  starts are in the error.
    deployments   one sweep of each side, at least 4 deployments: t over the deployments' mean log ratios,
                  each of which has the luck of its own two server starts.
    rounds        repeats inside the sweeps: t over the means of the rounds, so that recipes of one round may
                  err together. One server start serves all rounds: its luck is not seen, but allowed for.
    recipes       single runs: the scatter of the log ratios within the arms (at least 3 degrees of freedom).
                  What moves all recipes of a server start is not seen, but allowed for.

The allowance is `start_noise`: how far two starts of one server are taken to differ. Where no start was
measured its variance is taken as known, as in `curves.noise`, so it adds no doubt to the degrees of freedom
(Welch-Satterthwaite). Where few were measured it counts as some of them (`curves.errors.pooled`), as fewer
the more the measured ones contradict it; and it widens what was measured, but never narrows it. So an
assumption that is too small makes hardly more false findings than none (docs/howto/regression.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mtpbench_analysis.curves.errors import START_NOISE_DF, pooled
from mtpbench_analysis.regression.paired_runs import FloatArray, IntArray, PairedRuns, per_sweep

Basis = Literal["sweeps", "deployments", "rounds", "recipes"]

MIN_DEPLOYMENTS = 4
MIN_UNIT_DF = 2
MIN_RECIPE_DF = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitNoise:
    """The noise of a unit is that of the mean logarithm that one sweep of one side gives.

    Args:
        variance: as it is known now.
        df: degrees of freedom of it; infinite where it is taken as known.
        assumed: what it would be if starts differed as assumed.
        assumed_df: how many measured starts that counts as where they agree with it.
    """

    variance: float
    df: float
    assumed: float = 0.0
    assumed_df: float = 0.0

    @property
    def median(self) -> float:
        """Returns the variance that is as likely too small as too large.

        Source: a variance, given its estimate, is a scaled inverse chi-squared one (A. Gelman et al.,
        Bayesian Data Analysis, 3rd ed., 3.2).
        """
        from scipy import special  # type: ignore[import-untyped]

        return (
            self.variance
            if math.isinf(self.df)
            else self.variance * self.df / float(special.chdtri(self.df, 0.5))
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """An estimate is the mean log ratio new / old of some recipes, with its error.

    Args:
        effect: of the logarithm.
        se: its standard error, the allowance included.
        df: degrees of freedom; infinite where only the allowance is left.
        unit: the noise of one sweep of one side, for planning.
        recipes: how many there are.
    """

    effect: float
    se: float
    df: float
    basis: Basis
    unit: UnitNoise
    recipes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scatter:
    """The scatter that an error comes from.

    Args:
        single: variance of what one unit (a sweep, a round, a run) of one side says.
        times: how many times it is in the variance of the change.
        df: degrees of freedom.
        own: the part of it that single runs make; None where they can't be told from starts.
    """

    basis: Basis
    single: float
    times: float
    df: float
    own: float | None = None

    @property
    def holds_starts(self) -> bool:
        """Returns whether every unit had a server start of its own."""
        return self.basis in ("sweeps", "deployments")


def estimate_group(pairs: PairedRuns, members: IntArray, start_noise: float) -> Estimate | None:
    """Returns the mean change of some recipes; None where its error is unknown.

    Args:
        pairs: one metric of the matched recipes.
        members: columns of the pairs.
        start_noise: how far two starts of one server are taken to differ, as a share.
    """
    scatter = _scatter_of(pairs, members)
    if scatter is None:
        return None
    shares = np.bincount(pairs.deployments[members]) / len(members)
    starts = start_noise**2 * float((shares**2).sum())
    return _estimate(pairs, members, scatter, starts)


def estimate_recipes(pairs: PairedRuns, start_noise: float) -> tuple[Estimate | None, ...]:
    """Returns the change of each recipe of the pairs, alone.

    Its noise is pooled over all recipes, as `noise.find_noise` does. Recipes that err together pool to less
    than their number: the degrees of freedom are those of a sum of correlated variances, as estimated.
    """
    columns = [np.array([column]) for column in range(len(pairs.recipes))]
    scatter = _scatter_of_each(pairs)
    if scatter is None:
        return (None,) * len(columns)
    return tuple(_estimate(pairs, column, scatter, start_noise**2) for column in columns)


def _estimate(pairs: PairedRuns, members: IntArray, scatter: _Scatter, starts: float) -> Estimate:
    """Returns an estimate from its scatter and from what starts are taken to add to one sweep's mean."""
    floor = float(pairs.block_variance[members].sum()) / len(members) ** 2
    single, df, allowance = scatter.single, scatter.df, 0.0
    if scatter.holds_starts:
        assumed = starts + (scatter.own or 0.0)
        assumed_df = START_NOISE_DF if starts and scatter.own is not None else 0.0
        together, df = pooled(single, df, assumed, assumed_df * agreement(single, assumed))
        single = max(single, together)
        unit = UnitNoise(variance=max(together, floor / 2), df=df, assumed=assumed, assumed_df=assumed_df)
    else:
        allowance = starts * _per_start(pairs)
        known = max(single, floor / 2) + starts
        assumed_df = START_NOISE_DF if starts else 0.0
        unit = UnitNoise(
            variance=known, df=_satterthwaite(single, df, starts), assumed=known, assumed_df=assumed_df
        )
    variance = max(single * scatter.times, floor)
    return Estimate(
        effect=float(pairs.ratios[members].mean()),
        se=math.sqrt(variance + allowance),
        df=_satterthwaite(variance, df, allowance),
        basis=scatter.basis,
        unit=unit,
        recipes=len(members),
    )


def agreement(measured: float, assumed: float) -> float:
    """Returns the weight of an assumed variance: 1 where what was measured is no larger, else their ratio."""
    return min(1.0, assumed / measured) if measured else 1.0


def _scatter_of(pairs: PairedRuns, members: IntArray) -> _Scatter | None:
    """Returns the soundest scatter of the mean of some recipes; None where there is none."""
    sweeps = [side[:, members].mean(axis=1) for side in _sweeps_of(pairs)]
    if sum(map(len, sweeps)) - 2 >= MIN_UNIT_DF:
        own = _own_variance(pairs, members)
        return _of_units("sweeps", sweeps, None if own is None else own / len(members))
    ratios, deployments = pairs.ratios[members], pairs.deployments[members]
    if len(set(deployments)) >= MIN_DEPLOYMENTS:
        variance, df = _clusters(ratios, deployments)
        within = _within(ratios, deployments)
        own = within[0] / 2 / len(members) if within[1] else None
        return _Scatter(basis="deployments", single=variance / 2, times=2, df=df, own=own)
    if len(pairs.old) + len(pairs.new) - 2 >= MIN_UNIT_DF:
        return _of_units("rounds", [side[:, members].mean(axis=1) for side in (pairs.old, pairs.new)])
    return _of_recipes(pairs, len(members))


def _scatter_of_each(pairs: PairedRuns) -> _Scatter | None:
    """Returns the scatter of one recipe, pooled over all; None where there is none."""
    bases: tuple[tuple[Basis, list[FloatArray]], ...] = (
        ("sweeps", _sweeps_of(pairs)),
        ("rounds", [pairs.old, pairs.new]),
    )
    for basis, sides in bases:
        if sum(map(len, sides)) - 2 >= MIN_UNIT_DF:
            single, df = _pooled(sides)
            own = _own_variance(pairs, np.arange(len(pairs.recipes)))
            return _Scatter(basis=basis, single=single, times=_times(sides), df=df, own=own)
    return _of_recipes(pairs, 1)


def _of_units(basis: Basis, sides: Sequence[FloatArray], own: float | None = None) -> _Scatter:
    """Returns the scatter of units within their sides, as in Student's t of two samples."""
    df = sum(len(side) - 1 for side in sides)
    single = float(sum(((side - side.mean()) ** 2).sum() for side in sides)) / df
    return _Scatter(basis=basis, single=single, times=_times(sides), df=df, own=own)


def _of_recipes(pairs: PairedRuns, recipes: int) -> _Scatter | None:
    """Returns the scatter of single runs, from that of the log ratios around their arms' means."""
    scatter, df = _within(pairs.ratios, pairs.arms)
    if df < MIN_RECIPE_DF:
        return None
    return _Scatter(basis="recipes", single=scatter / 2 / recipes, times=2, df=df)


def _times(sides: Sequence[FloatArray]) -> float:
    return sum(1 / len(side) for side in sides)


def _sweeps_of(pairs: PairedRuns) -> list[FloatArray]:
    """Returns (sweeps, recipes) means, of the old side and of the new one."""
    return [per_sweep(pairs.old, pairs.old_sweeps), per_sweep(pairs.new, pairs.new_sweeps)]


def _own_variance(pairs: PairedRuns, members: IntArray) -> float | None:
    """Returns the variance of one recipe's mean in one sweep beyond what all recipes of its start share; None
    where each start served one recipe.
    """
    total, df = 0.0, 0
    for side in _sweeps_of(pairs):
        residuals = side[:, members] - side[:, members].mean(axis=0)
        for number in np.unique(pairs.deployments[members]):
            of_start = residuals[:, pairs.deployments[members] == number]
            total += float(((of_start - of_start.mean(axis=1, keepdims=True)) ** 2).sum())
            df += (len(side) - 1) * (of_start.shape[1] - 1)
    return total / df if df else None


def _clusters(ratios: FloatArray, deployments: IntArray) -> tuple[float, float]:
    """Returns the variance of the mean over recipes when those of one deployment may err in any way together.

    Equal to the paired t over the deployments' means where each has as many recipes.
    """
    residuals = ratios - ratios.mean()
    sums = np.array([residuals[deployments == number].sum() for number in np.unique(deployments)])
    count = len(sums)
    return float((sums**2).sum()) / len(ratios) ** 2 * count / (count - 1), count - 1


def _within(ratios: FloatArray, groups: IntArray) -> tuple[float, int]:
    """Returns the variance of one log ratio around its group's mean, and its degrees of freedom."""
    numbers = np.unique(groups)
    df = len(ratios) - len(numbers)
    residuals = [ratios[groups == number] - ratios[groups == number].mean() for number in numbers]
    return sum(float((group**2).sum()) for group in residuals) / max(df, 1), df


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


def _per_start(pairs: PairedRuns) -> float:
    """Returns how many times one sweep's starts are in the change: each deployment started once in each."""
    return sum(1 / len(np.unique(numbers)) for numbers in (pairs.old_sweeps, pairs.new_sweeps))


def _satterthwaite(variance: float, df: float, allowance: float) -> float:
    """Returns the degrees of freedom of an estimated variance plus a known one."""
    return math.inf if variance == 0 else df * ((variance + allowance) / variance) ** 2
