"""Pure: quantiles and power of the t test; the only module of the regression that needs SciPy.

SciPy is imported when the first quantile is asked for: every other command starts without it.
Source: SciPy's `stdtrit`, `stdtr` and `nctdtr`, from Boost's and Cephes' t and noncentral t distributions.
"""

from __future__ import annotations

import math

_MOST_SWEEPS = 100
_NORMAL_DF = 1e6
"""From here on t is the normal distribution to six digits, and its noncentral form is not worth computing."""


def t_quantile(share: float, df: float) -> float:
    """The t below which a share of the distribution lies; of the normal one for infinite `df`."""
    from scipy import special  # type: ignore[import-untyped]

    return float(special.ndtri(share) if df >= _NORMAL_DF else special.stdtrit(df, share))


def two_sided_p(t: float, df: float) -> float:
    """The chance of a t at least as far from 0 if nothing had changed."""
    from scipy import special

    tail = special.ndtr(-abs(t)) if df >= _NORMAL_DF else special.stdtr(df, -abs(t))
    return min(1.0, 2.0 * float(tail))


def find_power(effect_in_se: float, df: float, alpha: float) -> float:
    """The chance that a two-sided test at `alpha` finds, on its right side, an effect of so many errors."""
    from scipy import special

    limit = t_quantile(1 - alpha / 2, df)
    if df >= _NORMAL_DF:
        return float(special.ndtr(effect_in_se - limit))
    return 1.0 - float(special.nctdtr(df, effect_in_se, limit))


def smallest_effect(df: float, alpha: float, power: float) -> float:
    """The effect, in standard errors, that a two-sided test at `alpha` finds with the chance `power`."""
    low, high = 0.0, 2 * t_quantile(1 - alpha / 2, df)
    while find_power(high, df, alpha) < power:
        high *= 2
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if find_power(middle, df, alpha) < power else (low, middle)
    return high


def sweeps_needed(unit_variance: float, effect: float, alpha: float, power: float) -> int | None:
    """How many sweeps of each side find a log effect, each with servers started anew.

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
