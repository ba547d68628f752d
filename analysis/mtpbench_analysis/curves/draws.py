"""Pure: a curve as it might have come out: many draws of its points, each with a front of its own.

All draws are read at once; one of them without noise equals `interpolate` (a test holds both together).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtpbench_analysis.curves.curve import Curve
from mtpbench_analysis.curves.noise import Noise

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

DRAWS = 1000
_SEED = 20261124
"""The same results give the same interval, on every machine and every day."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CurveDraws:
    """Fronts of many draws, padded on the right.

    Args:
        x, y: (draws, points) interactivity and throughput of the knots, in their order.
        knots: (draws,) how many of them each front has.
    """

    x: FloatArray
    y: FloatArray
    knots: IntArray

    def read(self, targets_tps: Sequence[float] | FloatArray) -> FloatArray:
        """(draws, targets) throughput at each target; the best point's below a front, NaN above it."""
        targets = np.asarray(targets_tps, np.float64)
        last = self.knots[:, None] - 1
        left = np.zeros((len(self.x), len(targets)), np.intp) - 1
        for knot in self.x.T:
            left += knot[:, None] <= targets
        within = np.clip(left, 0, np.maximum(last - 1, 0))
        value = self._hermite(within, np.minimum(within + 1, last), targets)
        end = np.take_along_axis(self.x, last, 1)
        value = np.where(left < 0, self.y[:, :1], value)
        value = np.where(end == targets, np.take_along_axis(self.y, last, 1), value)
        read: FloatArray = np.where(targets > end, np.nan, value)
        return read

    def _hermite(self, left: IntArray, right: IntArray, targets: FloatArray) -> FloatArray:
        """The cubic between two neighbouring knots; needs only them and one more on either side."""
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


def draw_curve(curve: Curve, noise: Sequence[Noise | None], stream: int, draws: int = DRAWS) -> CurveDraws:
    """The curve's fronts under the noise of its points; a point without a known error stays where it is.

    Args:
        curve: its measured points, those behind the front too: noise may bring one to the front.
        noise: as `find_noise` gives it.
        stream: tells the random numbers of one curve from those of another.
        draws: how many.
    """
    random = np.random.default_rng([_SEED, stream])
    logs = np.log([(item.x, item.y) for item in curve.measured])
    errors = random.standard_normal((draws, len(logs), 2))
    # Each draw also draws how large the noise is, which is itself only estimated: that makes a t of a normal.
    common = {one.df: random.chisquare(one.df, draws) / one.df for one in noise if one and one.shared}
    scale = np.ones((draws, len(logs)))
    roots = np.zeros((len(logs), 2, 2))
    for i, one in enumerate(noise):
        if one is not None:
            roots[i] = _root(one.covariance)
            scale[:, i] = common[one.df] if one.shared else random.chisquare(one.df, draws) / one.df
    shifts = roots[:, :, 0] * errors[:, :, :1] + roots[:, :, 1] * errors[:, :, 1:]
    values = np.exp(logs + shifts / np.sqrt(scale)[:, :, None])
    return fronts(values[:, :, 0], values[:, :, 1])


def fronts(x: FloatArray, y: FloatArray) -> CurveDraws:
    """The upper-left front of every row of points.

    Args:
        x: (draws, points) interactivities in any order.
        y: (draws, points) their throughputs.
    """
    order = np.lexsort((y, x), axis=1)
    x, y = np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1)
    best_right = np.maximum.accumulate(y[:, ::-1], axis=1)[:, ::-1]
    after = np.concatenate([best_right[:, 1:], np.full((len(y), 1), -np.inf)], axis=1)
    kept = y > after
    front_first = np.argsort(~kept, axis=1, kind="stable")
    knots = kept.sum(axis=1)
    x, y = np.take_along_axis(x, front_first, 1), np.take_along_axis(y, front_first, 1)
    padding = np.arange(x.shape[1]) >= knots[:, None]
    return CurveDraws(x=np.where(padding, np.inf, x), y=np.where(padding, -np.inf, y), knots=knots)


def _steffen(*knots: FloatArray) -> FloatArray:
    """Steffen's slope at the middle of three knots (x0, y0, x1, y1, x2, y2)."""
    x0, y0, x1, y1, x2, y2 = knots
    h0, h1 = x1 - x0, x2 - x1
    s0, s1 = (y1 - y0) / h0, (y2 - y1) / h1
    mean = (s0 * h1 + s1 * h0) / (h0 + h1)
    sign = np.where(s0 < 0, -1.0, 1.0) + np.where(s1 < 0, -1.0, 1.0)
    smallest: FloatArray = np.minimum(np.minimum(np.abs(s0), np.abs(s1)), np.abs(mean) / 2)
    return sign * smallest


def _root(covariance: FloatArray) -> FloatArray:
    """A square root of a covariance that may be singular (two values that always move together)."""
    values, vectors = np.linalg.eigh(covariance)
    root: FloatArray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
