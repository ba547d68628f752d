"""Pure: the curve through knots: one, or many versions of one that are read at once.

Between the knots of its front a curve is the monotone cubic that d3's curveMonotoneX draws. Source:
M. Steffen, A simple method for monotonic interpolation in one dimension, Astron. Astrophys. 239 (1990);
d3-shape, curve/monotone.js. Both forms give the same (a test holds them together).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtpbench_analysis.curves.errors import FloatArray

IntArray = npt.NDArray[np.intp]
_ROUNDING = 1e-12
"""Interactivities that differ by less than this share are one."""


def slopes(xs: Sequence[float], ys: Sequence[float]) -> FloatArray:
    """Returns Steffen's slope at each knot, with d3's ends.

    Args:
        xs: strictly rising, at least two.
        ys: as many.
    """
    x, y = np.asarray(xs, dtype=np.float64), np.asarray(ys, dtype=np.float64)
    step = np.diff(x)
    slope = np.zeros_like(x)
    with np.errstate(over="ignore", invalid="ignore"):
        return _slopes(slope, step, np.diff(y) / step)


def _slopes(slope: FloatArray, step: FloatArray, secant: FloatArray) -> FloatArray:
    """Fills the slopes from the distances of the knots and the slopes of the lines between them."""
    if len(slope) > 2:
        sign = np.where(secant < 0, -1.0, 1.0)
        mean = (secant[:-1] * step[1:] + secant[1:] * step[:-1]) / (step[:-1] + step[1:])
        smallest = np.minimum(np.minimum(np.abs(secant[:-1]), np.abs(secant[1:])), np.abs(mean) / 2)
        slope[1:-1] = (sign[:-1] + sign[1:]) * smallest
    slope[0] = (3 * secant[0] - slope[1]) / 2
    slope[-1] = (3 * secant[-1] - slope[-2]) / 2
    return slope


class Spline:
    """A spline is the curve through the knots; it is read at many places at once.

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
        """Returns the curve at places within its knots.

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


def _hermite(
    x: FloatArray, y: FloatArray, slope: FloatArray, left: IntArray, where: FloatArray
) -> FloatArray:
    right = left + 1
    step = x[right] - x[left]
    t = (where - x[left]) / step
    with np.errstate(over="ignore", invalid="ignore"):
        value = _cubic(y[left], y[right], slope[left] * step, slope[right] * step, t)
    # Two knots at almost one interactivity have no slope that a number can hold.
    value = np.where(np.isfinite(value), value, y[left])
    # Rounding may carry a value past its knot by an ulp; between two knots a monotone curve stays between.
    clipped: FloatArray = np.clip(value, np.minimum(y[left], y[right]), np.maximum(y[left], y[right]))
    return clipped


def _cubic(y0: FloatArray, y1: FloatArray, rise0: FloatArray, rise1: FloatArray, t: FloatArray) -> FloatArray:
    """Returns Hermite's cubic at t from 0 to 1; the rises are slopes times the distance of the knots."""
    value: FloatArray = (
        y0 * (1 + 2 * t) * (1 - t) ** 2
        + rise0 * t * (1 - t) ** 2
        + y1 * t**2 * (3 - 2 * t)
        - rise1 * t**2 * (1 - t)
    )
    return value


@dataclass(frozen=True, kw_only=True, eq=False)
class Gaps:
    """The gaps are those between neighbouring knots that targets lie in, for every version of a curve.

    Args:
        index: (versions, targets) the number of the gap's lower knot.
        position: where in the gap a target lies, from 0 at the lower knot to 1 at the upper one.
        is_mixed: whether the two knots are of different kinds.
        lower, upper: the throughputs of the two knots; equal where a target lies in no gap.
    """

    index: IntArray
    position: FloatArray
    is_mixed: npt.NDArray[np.bool_]
    lower: FloatArray
    upper: FloatArray

    @property
    def log_ratio(self) -> FloatArray:
        """Returns the logarithm of how far the knots' throughputs lie apart."""
        ratio: FloatArray = np.log(self.lower / self.upper)
        return ratio


@dataclass(frozen=True, kw_only=True, eq=False)
class Fronts:
    """The fronts of many versions of one curve, which are read at once, padded on the right.

    Args:
        x, y: (versions, points) interactivity and throughput of the knots, in their order.
        knots: (versions,) how many of them each front has.
        kinds: (versions, points) of what kind each knot is (which topology).
    """

    x: FloatArray
    y: FloatArray
    knots: IntArray
    kinds: IntArray

    def read(self, targets_tps: Sequence[float] | FloatArray) -> FloatArray:
        """Returns (versions, targets) the throughput at each target: below a front the best point's, NaN
        above it.

        Args:
            targets_tps: (targets,) interactivities, or (versions, targets) of each version its own.
        """
        targets = np.asarray(targets_tps, np.float64)
        last = self.knots[:, None] - 1
        left = self._left_of(targets)
        within = np.clip(left, 0, np.maximum(last - 1, 0))
        value = self._hermite(within, np.minimum(within + 1, last), targets)
        end = np.take_along_axis(self.x, last, 1)
        value = np.where(left < 0, self.y[:, :1], value)
        # The logarithm of an end and back is the end but for rounding.
        is_end = np.abs(targets - end) <= _ROUNDING * end
        value = np.where(is_end, np.take_along_axis(self.y, last, 1), value)
        read: FloatArray = np.where((targets > end) & ~is_end, np.nan, value)
        return read

    def ends(self) -> tuple[FloatArray, FloatArray]:
        """Returns (versions,) the interactivity and the throughput of each front's fastest knot."""
        x, y = self._at(self.knots[:, None] - 1)
        return x[:, 0], y[:, 0]

    def gaps(self, targets_tps: Sequence[float] | FloatArray) -> Gaps:
        """Returns the gap between two knots that each target lies in; outside all of them one of no width."""
        targets = np.asarray(targets_tps, np.float64)
        last = self.knots[:, None] - 1
        left = self._left_of(targets)
        lower = np.clip(left, 0, last)
        upper = np.where(left < 0, lower, np.minimum(lower + 1, last))
        x0, y0 = self._at(lower)
        x1, y1 = self._at(upper)
        is_gap = x1 > x0
        position: FloatArray = np.where(is_gap, (targets - x0) / np.where(is_gap, x1 - x0, 1.0), 0.0)
        first, second = (np.take_along_axis(self.kinds, side, 1) for side in (lower, upper))
        return Gaps(index=lower, position=position, is_mixed=first != second, lower=y0, upper=y1)

    def _left_of(self, targets: FloatArray) -> IntArray:
        """Returns (versions, targets) the last knot at or below each target; -1 where there is none."""
        left = np.full((len(self.x), targets.shape[-1]), -1, np.intp)
        for knot in self.x.T:
            left += knot[:, None] <= targets
        return left

    def _hermite(self, left: IntArray, right: IntArray, targets: FloatArray) -> FloatArray:
        """Returns the cubic between two neighbouring knots; needs only them and one more on either side."""
        last = self.knots[:, None] - 1
        x0, y0 = self._at(left)
        x1, y1 = self._at(right)
        with np.errstate(invalid="ignore", divide="ignore"):
            step = x1 - x0
            secant = (y1 - y0) / step
            has_before, has_after = left > 0, right < last
            slope0 = _steffen(*self._at(np.maximum(left - 1, 0)), x0, y0, x1, y1)
            slope1 = _steffen(x0, y0, x1, y1, *self._at(np.minimum(right + 1, last)))
            # d3's ends; a lone pair of knots is joined by a straight line.
            slope1 = np.where(has_after, slope1, (3 * secant - slope0) / 2)
            slope0 = np.where(has_before, slope0, (3 * secant - slope1) / 2)
            line = ~has_before & ~has_after
            slope0, slope1 = np.where(line, secant, slope0), np.where(line, secant, slope1)
            t = (targets - x0) / step
            rest = 1 - t
            value = (y0 * (1 + 2 * t) + slope0 * step * t) * rest * rest
            value += (y1 * (3 - 2 * t) - slope1 * step * rest) * t * t
        clipped: FloatArray = np.clip(value, np.minimum(y0, y1), np.maximum(y0, y1))
        return clipped

    def _at(self, index: IntArray) -> tuple[FloatArray, FloatArray]:
        return np.take_along_axis(self.x, index, 1), np.take_along_axis(self.y, index, 1)


def fronts(x: FloatArray, y: FloatArray, kinds: Sequence[int] | None = None) -> Fronts:
    """Returns the upper-left front of every row of points.

    Args:
        x: (versions, points) interactivities in any order.
        y: (versions, points) their throughputs.
        kinds: (points,) of what kind each point is; all of one where left out.
    """
    kind = np.broadcast_to(np.zeros(x.shape[1], np.intp) if kinds is None else np.array(kinds), x.shape)
    order = np.lexsort((y, x), axis=1)
    x, y = np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1)
    best_right = np.maximum.accumulate(y[:, ::-1], axis=1)[:, ::-1]
    after = np.concatenate([best_right[:, 1:], np.full((len(y), 1), -np.inf)], axis=1)
    on_front = y > after
    front_first = np.argsort(~on_front, axis=1, kind="stable")
    knots = on_front.sum(axis=1)
    x, y = np.take_along_axis(x, front_first, 1), np.take_along_axis(y, front_first, 1)
    kind = np.take_along_axis(np.take_along_axis(kind, order, 1), front_first, 1)
    padding = np.arange(x.shape[1]) >= knots[:, None]
    x, y = np.where(padding, np.inf, x), np.where(padding, -np.inf, y)
    return Fronts(x=x, y=y, knots=knots, kinds=kind)


def _steffen(*knots: FloatArray) -> FloatArray:
    """Returns Steffen's slope at the middle of three knots (x0, y0, x1, y1, x2, y2)."""
    x0, y0, x1, y1, x2, y2 = knots
    h0, h1 = x1 - x0, x2 - x1
    s0, s1 = (y1 - y0) / h0, (y2 - y1) / h1
    mean = (s0 * h1 + s1 * h0) / (h0 + h1)
    sign = np.where(s0 < 0, -1.0, 1.0) + np.where(s1 < 0, -1.0, 1.0)
    smallest: FloatArray = np.minimum(np.minimum(np.abs(s0), np.abs(s1)), np.abs(mean) / 2)
    return sign * smallest
