"""Pure: the monotone cubic between the knots of a front, as d3's curveMonotoneX draws it.

Source: M. Steffen, A simple method for monotonic interpolation in one dimension, Astron. Astrophys. 239
(1990); d3-shape, curve/monotone.js.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def slopes(xs: Sequence[float], ys: Sequence[float]) -> FloatArray:
    """Steffen's slope at each knot, with d3's ends.

    Args:
        xs: strictly rising, at least two.
        ys: as many.
    """
    x, y = np.asarray(xs, dtype=np.float64), np.asarray(ys, dtype=np.float64)
    step = np.diff(x)
    secant = np.diff(y) / step
    slope = np.zeros_like(x)
    if len(x) > 2:
        sign = np.where(secant < 0, -1.0, 1.0)
        mean = (secant[:-1] * step[1:] + secant[1:] * step[:-1]) / (step[:-1] + step[1:])
        smallest = np.minimum(np.minimum(np.abs(secant[:-1]), np.abs(secant[1:])), np.abs(mean) / 2)
        slope[1:-1] = (sign[:-1] + sign[1:]) * smallest
    slope[0] = (3 * secant[0] - slope[1]) / 2
    slope[-1] = (3 * secant[-1] - slope[-2]) / 2
    return slope


def interpolate(xs: Sequence[float], ys: Sequence[float], at: Sequence[float]) -> FloatArray:
    """The curve through the knots at the places `at`, all at once.

    One knot is a constant; two are joined by a straight line, because d3's end slopes bend a curve that
    nothing but its two ends is known of (593.75 at the middle of (0, 0)-(100, 1000)). A value never leaves
    the range of its two knots.

    Args:
        xs: strictly rising interactivities (tok/s/user).
        ys: their throughputs.
        at: places within [xs[0], xs[-1]].

    Raises:
        ValueError: no knots, xs that do not rise, or a place outside the knots (nothing is extrapolated).
    """
    x, y, where = (np.asarray(values, dtype=np.float64) for values in (xs, ys, at))
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"{len(x)} interactivities and {len(y)} throughputs make no curve")
    if np.any(np.diff(x) <= 0):
        raise ValueError("the knots' interactivities must rise strictly")
    if where.size and (where.min() < x[0] or where.max() > x[-1]):
        raise ValueError(f"nothing is known outside {x[0]:g} … {x[-1]:g}")
    if len(x) < 3:
        line: FloatArray = np.interp(where, x, y)
        return line
    slope = slopes(x.tolist(), y.tolist())
    left = np.clip(np.searchsorted(x, where, side="right") - 1, 0, len(x) - 2)
    return _hermite(x, y, slope, left, where)


def _hermite(
    x: FloatArray, y: FloatArray, slope: FloatArray, left: npt.NDArray[np.intp], where: FloatArray
) -> FloatArray:
    right = left + 1
    step = x[right] - x[left]
    t = (where - x[left]) / step
    value = (
        y[left] * (1 + 2 * t) * (1 - t) ** 2
        + slope[left] * step * t * (1 - t) ** 2
        + y[right] * t**2 * (3 - 2 * t)
        - slope[right] * step * t**2 * (1 - t)
    )
    # Rounding may carry a value past its knot by an ulp; between two knots a monotone curve stays between.
    clipped: FloatArray = np.clip(value, np.minimum(y[left], y[right]), np.maximum(y[left], y[right]))
    return clipped
