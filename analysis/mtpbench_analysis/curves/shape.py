"""Pure: how far a curve may run from the spline between its knots.

A spline says what lies between measured knots only as far as curves are smooth. How far real ones are is
known from public rows, each left out of its curve in turn. Between two knots whose throughputs differ by a
factor K the error of the logarithm has a standard deviation of `CURVATURE` × ln(K)², as a smooth curve would,
and of `ROUGHNESS` where K is near 1; where the knots are of two topologies, of `KINK` × ln(K) besides, as one
with a bend would. How far a curve's own knots miss when each is left out in turn says how much rougher or
smoother than those it is; the two go together as few data and what was known before do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtpbench_analysis.curves.curve import Curve, Measured
from mtpbench_analysis.curves.errors import FloatArray, pooled
from mtpbench_analysis.curves.noise import CurveNoise
from mtpbench_analysis.curves.splines import Fronts

BoolArray = npt.NDArray[np.bool_]

CURVATURE, KINK, ROUGHNESS, CURVES_DF = 0.101, 0.228, 0.0251, 4.0
"""The most that the public rows allow, so that few rows make no interval too narrow; the last is how many
knots of its own they count as. `benchmarks/shape_errors.py` makes them."""

_STEP = 1e-4
"""Of the logarithms by which knots are moved to see how far an error follows them."""

_REACH = 2
"""How many knots on either side decide what a curve reads where one was left out: a cubic needs those of its
gap and one more on either side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The shape of a curve says how far it may run from its spline, compared with public curves.

    Args:
        factor: 1 for a curve as rough as those.
        df: degrees of freedom that the factor rests on.
        knots: how many knots of the curve's own could be left out in turn.
    """

    factor: float
    df: float
    knots: int


def kinds_of(items: Sequence[Measured]) -> list[int]:
    """Returns a number for each item that is equal where the topologies are."""
    topologies = [(item.mean.topology, item.mean.gpus) for item in items]
    return [topologies.index(topology) for topology in topologies]


def spread_between(log_ratio: FloatArray, position: FloatArray, is_mixed: BoolArray) -> FloatArray:
    """Returns the standard deviation of the logarithm between two knots, 0 at the knots themselves.

    Args:
        log_ratio: the logarithm of how far the knots' throughputs lie apart.
        position: from 0 at one knot to 1 at the other.
        is_mixed: whether the knots are of different topologies.
    """
    # What public rows show is as large at a quarter of a gap as in its middle.
    flat_top = 1 - (2 * position - 1) ** 4
    smooth = np.hypot(CURVATURE * log_ratio**2, ROUGHNESS) * flat_top
    # Where one topology gives out, the front may fall to the next one's right behind the knot.
    inside = is_mixed & (position > 0) & (position < 1)
    spread: FloatArray = np.hypot(smooth, np.where(inside, KINK * log_ratio, 0.0))
    return spread


@dataclass(frozen=True, kw_only=True, eq=False)
class LeftOut:
    """The knots of a curve that were left out in turn, and read off the curve through the others.

    Args:
        residual: (knots,) logarithm of what was read over what was measured.
        log_ratio, position, is_mixed: of the gap that each left.
        variance: of the residual by the noise of the points.
    """

    residual: FloatArray
    log_ratio: FloatArray
    position: FloatArray
    is_mixed: BoolArray
    variance: FloatArray

    @property
    def spread(self) -> FloatArray:
        """Returns the standard deviation that public rows have in such gaps."""
        return spread_between(self.log_ratio, self.position, self.is_mixed)


def find_shape(curve: Curve, noise: CurveNoise) -> Shape:
    """Returns how rough a curve is, from its own knots as far as it has them.

    What the noise of the points explains is no roughness, and a residual that is mostly noise tells less.
    """
    left_out = leave_one_out(curve, noise)
    if left_out is None:
        return Shape(factor=1.0, df=CURVES_DF, knots=0)
    own = left_out.spread**2
    weight = (own / (own + left_out.variance)) ** 2
    df = float(weight.sum())
    excess = float((weight * (left_out.residual**2 - left_out.variance) / own).sum())
    square, total_df = pooled(max(excess, 0.0) / df, df, 1.0, CURVES_DF)
    return Shape(factor=float(np.sqrt(square)), df=total_df, knots=len(own))


def leave_one_out(curve: Curve, noise: CurveNoise) -> LeftOut | None:
    """Leaves out each inner knot of a curve's front in turn; None where it has none."""
    inner = np.arange(1, len(curve.front) - 1)
    if not len(inner):
        return None
    logs = np.log([(knot.x, knot.y) for knot in curve.front])
    index = inner[:, None] + np.arange(-_REACH, _REACH + 1)
    is_there = (index >= 0) & (index < len(logs))
    index = np.clip(index, 0, len(logs) - 1)
    residual, gradient = _residuals(logs[index], is_there)
    covariance = _covariance(curve, noise)[index[:, :, None], index[:, None, :]]
    kinds = np.array(kinds_of(curve.front))
    before, at, after = np.exp(logs[:, 0][inner + np.array([[-1], [0], [1]])])
    return LeftOut(
        residual=residual,
        log_ratio=logs[inner - 1, 1] - logs[inner + 1, 1],
        position=(at - before) / (after - before),
        is_mixed=(kinds[inner - 1] != kinds[inner]) | (kinds[inner] != kinds[inner + 1]),
        variance=np.einsum("kia,kijab,kjb->k", gradient, covariance, gradient),
    )


def _residuals(logs: FloatArray, is_there: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Returns how far the curve through the neighbours of each knot runs from it, and how that follows them.

    Args:
        logs: (knots, neighbours, 2) of each knot, in the middle, and of its neighbours.
        is_there: (knots, neighbours) whether the front has that neighbour.

    Returns:
        (knots,) logarithms of what was read over what was measured, and (knots, neighbours, 2) their
        derivatives.
    """
    knots, neighbours, _ = logs.shape
    steps = np.concatenate([np.zeros((1, 2 * neighbours)), _STEP * np.eye(2 * neighbours)])
    moved = (logs[:, None] + steps.reshape(-1, neighbours, 2)).reshape(-1, neighbours, 2)
    errors = _left_out_errors(moved, np.repeat(is_there, len(steps), axis=0)).reshape(knots, -1)
    gradient = (errors[:, 1:] - errors[:, :1]).reshape(knots, neighbours, 2) / _STEP
    return errors[:, 0], gradient


def _left_out_errors(logs: FloatArray, is_there: BoolArray) -> FloatArray:
    """Returns (versions,) how far the curve through the neighbours runs from each version's middle knot."""
    others = is_there.copy()
    others[:, _REACH] = False
    # A front is padded on the right.
    columns = np.argsort(~others, axis=1, kind="stable")
    is_other = np.take_along_axis(others, columns, 1)
    through = np.take_along_axis(np.exp(logs), columns[:, :, None], 1)
    versions = Fronts(
        x=np.where(is_other, through[:, :, 0], np.inf),
        y=np.where(is_other, through[:, :, 1], -np.inf),
        knots=is_other.sum(axis=1),
        kinds=np.zeros(is_other.shape, np.intp),
    )
    read = versions.read(np.exp(logs[:, _REACH, :1]))[:, 0]
    errors: FloatArray = np.log(read) - logs[:, _REACH, 1]
    return errors


def _covariance(curve: Curve, noise: CurveNoise) -> FloatArray:
    """Returns (knots, knots, 2, 2) of the logarithms of a front's knots, by their runs and starts."""
    order = [curve.place_of(knot) for knot in curve.front]
    starts = noise.starts.membership[order] * noise.starts.sd
    covariance = np.repeat((starts @ starts.T)[:, :, None], 4, axis=2).reshape(len(order), len(order), 2, 2)
    for at, point in enumerate(order):
        own = noise.runs[point]
        if own is not None:
            covariance[at, at] += own.covariance
    return covariance
