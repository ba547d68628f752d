"""Pure: how large an error is where few data tell it: what they tell and what was known before, together.

`compare` and `regress` share it: a server start that was measured twice says little of how far starts differ,
and one that was measured once says nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtpbench.errors import InputError

FloatArray = npt.NDArray[np.float64]

FARTHEST_LOG = 80.0
"""Of a drawn figure, or of an end of an interval. Two noisy runs set no bound; beyond this no rate has a
meaning, and what is computed with it would overflow."""
START_NOISE = 0.01
"""How far two starts of one server are taken to differ in speed, as a share (one standard deviation).

An assumption of 2026-11: the only public repeats of a GB200 and a GB300 configuration differ by less than 1%,
and the embedded engine's starts by 0.2% to 0.6%.
"""

START_NOISE_DF = 3.0
"""How many measured starts the assumption counts as. With it two starts are known no better than one that is
taken on trust, and from four on what was measured counts for more than what was assumed."""


def check_noise(confidence: float, start_noise: float) -> None:
    """Checks the confidence of intervals, and the share by which starts of one server are taken to differ.

    Raises:
        InputError: no interval has such a confidence, or no start such a noise.
    """
    if not 0.5 <= confidence < 1:
        raise InputError(f"confidence {confidence:g}: a share such as 0.95 is needed")
    if not 0 <= start_noise < 1:
        raise InputError(f"start noise {start_noise * 100:g}%: at least 0% and below 100% is needed")


def pooled(variance: float, df: float, prior_variance: float, prior_df: float) -> tuple[float, float]:
    """Returns a variance and its degrees of freedom from data and from what was known before.

    Args:
        variance: as estimated; anything for 0 degrees of freedom.
        df: its degrees of freedom.
        prior_variance: what was known before.
        prior_df: how many degrees of freedom that counts as; infinite for what is taken as known.

    Source: A. Gelman et al., Bayesian Data Analysis, 3rd ed., 2.6 (scaled inverse chi-squared).
    """
    if np.isinf(prior_df):
        return prior_variance, prior_df
    total = df + prior_df
    estimated = variance * df if df else 0.0
    return (estimated + prior_variance * prior_df) / total, total


def inflation(random: np.random.Generator, df: float | FloatArray, draws: int) -> FloatArray:
    """Returns (draws,) factors that make a t of a normal: how much larger an error may be than its estimate.

    Args:
        random: where they are drawn from.
        df: degrees of freedom of the estimate; infinite for one that is known; (n,) of n estimates, for
            (n, draws) factors.
        draws: how many.
    """
    many = np.asarray(df, np.float64)
    factors = np.ones((*many.shape, draws))
    is_estimated = np.isfinite(many)
    each = many[is_estimated][:, None]
    factors[is_estimated] = np.sqrt(each / random.chisquare(each, (len(each), draws)))
    return factors
