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


class Spline:
    """The curve through the knots, ready to be read at many places.

    One knot is a constant; two are joined by a straight line, because d3's end slopes bend a curve that
    nothing but its two ends is known of (593.75 at the middle of (0, 0)-(100, 1000)). A value never leaves
    the range of its two knots.

    Args:
        xs: strictly rising interactivities (tok/s/user).
        ys: their throughputs.

    Raises:
        ValueError: no knots, or xs that do not rise.
    """

    def __init__(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        x, y = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
        if len(x) == 0 or len(x) != len(y):
            raise ValueError(f"{len(x)} interactivities and {len(y)} throughputs make no curve")
        if np.any(np.diff(x) <= 0):
            raise ValueError("the knots' interactivities must rise strictly")
        self._x, self._y = x, y
        self._slope = slopes(xs, ys) if len(x) > 2 else None

    def at(self, places: Sequence[float] | FloatArray) -> FloatArray:
        """The curve at places within its knots.

        Raises:
            ValueError: a place outside them (nothing is extrapolated).
        """
        where, x = np.asarray(places, np.float64), self._x
        if where.size and (where.min() < x[0] or where.max() > x[-1]):
            raise ValueError(f"nothing is known outside {x[0]:g} … {x[-1]:g}")
        if self._slope is None:
            line: FloatArray = np.interp(where, x, self._y)
            return line
        left = np.clip(np.searchsorted(x, where, side="right") - 1, 0, len(x) - 2)
        return _hermite(x, self._y, self._slope, left, where)


def interpolate(xs: Sequence[float], ys: Sequence[float], at: Sequence[float]) -> FloatArray:
    """The curve through the knots at the places `at`, all at once; see `Spline`."""
    return Spline(xs, ys).at(at)


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
