"""Pure: what a t test of an estimate finds, and how many sweeps it takes to find a change.

A number of sweeps is found by playing it: the played sweeps estimate the noise anew, and get the same test
and verdict as measured ones.

Quantiles are SciPy's `stdtrit`, `stdtr` and `nctdtr`, from Boost's and Cephes' t and noncentral t
distributions. SciPy is imported when the first is asked for: every other command starts without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from mtpbench_analysis.curves.errors import FloatArray
from mtpbench_analysis.regression.estimates import UnitNoise

MOST_SWEEPS = 100
_PLAYS = 4000
"""A share of so many plays errs by 0.6% around 80%."""
_SEED = 20261130
_GRID = 7
"""Degrees of freedom between which quantiles are interpolated."""
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


@cache
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """Played sweeps tell how often a plan does what it is for.

    Args:
        found: share of plays in which a change of the threshold was found.
        blind: share of plays in which nothing had changed and the verdict was `no power`.
    """

    found: float
    blind: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A plan is a test of sweeps that are still to be measured, each with servers started anew.

    Args:
        unit: the noise of one sweep of one side.
        limit: the change that matters, of the logarithm.
        alpha: level of the two-sided test.
        power: the chance with which the change must be found.
    """

    unit: UnitNoise
    limit: float
    alpha: float
    power: float

    @property
    def sweeps_needed(self) -> int | None:
        """Returns how many sweeps of each side find the change with the chance `power`, and are not blind
        with the same chance where nothing changed; None for more than 100.
        """
        return fewest(lambda sweeps: self._is_enough(self.play(sweeps)))

    def _is_enough(self, played: Played) -> bool:
        return played.found >= self.power and played.blind <= 1 - self.power

    def play(self, sweeps: int) -> Played:
        """Plays so many sweeps of each side, at least 2, with the noise as it is known now."""
        random, true = np.random.default_rng([_SEED, sweeps]), self.unit.median
        seen = true * random.chisquare(2 * sweeps - 2, _PLAYS) / (2 * sweeps - 2)
        noise = np.sqrt(true * 2 / sweeps) * random.standard_normal(_PLAYS)
        half, least = self._reach(seen, sweeps)
        is_verdict = (np.abs(noise) + half < self.limit) | (
            (np.abs(noise) > half) & (np.abs(noise) >= self.limit)
        )
        return Played(
            found=float((noise + self.limit > half).mean()),
            blind=float((~is_verdict & (least > self.limit)).mean()),
        )

    def _reach(self, seen: FloatArray, sweeps: int) -> tuple[FloatArray, FloatArray]:
        """Returns half the interval, and the smallest effect that is found, for variances that sweeps show.

        As `estimates` does: what was assumed widens, and counts as far as the sweeps agree with it.
        """
        df, assumed, assumed_df = 2.0 * sweeps - 2, self.unit.assumed, self.unit.assumed_df
        lent = assumed_df * np.minimum(1.0, assumed / np.maximum(seen, 1e-300))
        se = np.sqrt(np.maximum(seen, (seen * df + assumed * lent) / (df + lent)) * 2 / sweeps)
        dfs = np.linspace(df, df + assumed_df, _GRID if assumed_df else 1)
        half = np.interp(df + lent, dfs, [t_quantile(1 - self.alpha / 2, value) for value in dfs])
        least = np.interp(df + lent, dfs, [smallest_effect(value, self.alpha, self.power) for value in dfs])
        return se * half, se * least


def fewest(is_enough: Callable[[int], bool]) -> int | None:
    """Returns the fewest sweeps, from 2 to 100, that are enough; None where not even the most are."""
    low, high = 2, MOST_SWEEPS
    if not is_enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return low
