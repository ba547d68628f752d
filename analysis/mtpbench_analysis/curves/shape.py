"""Pure: how far a curve may run from the spline between its knots.

A spline says what lies between measured knots only as far as curves are smooth. How far real ones are is
known from public rows, each left out of its curve in turn. Between two knots whose throughputs differ by a
factor K the error of the logarithm has a standard deviation of `CURVATURE` × ln(K)², as a smooth curve would;
where the knots are of two topologies, of `KINK` × ln(K) besides, as one with a bend would; and of `ROUGHNESS`
where K is near 1. How far a curve's own knots miss when each is left out in turn says how much rougher or
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

CURVATURE, KINK, ROUGHNESS, CURVES_DF = 0.076, 0.22, 0.029, 4.0
"""Fitted by `benchmarks/shape_errors.py`; the last is how many of its own knots the public rows count as."""

_STEP = 1e-4
"""Of the logarithms by which knots are moved to see how far an error follows them."""


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
    bend = np.where(is_mixed, KINK * log_ratio, 0.0)
    spread: FloatArray = np.sqrt((CURVATURE * log_ratio**2) ** 2 + bend**2 + ROUGHNESS**2) * flat_top
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
    x, y = (np.log([getattr(knot, axis) for knot in curve.front]) for axis in ("x", "y"))
    inner = range(1, len(x) - 1)
    if not inner:
        return None
    order = [next(i for i, item in enumerate(curve.measured) if item is knot) for knot in curve.front]
    root = _roots(noise, order)
    residual, log_ratio, position, variance = [], [], [], []
    kinds = kinds_of(curve.front)
    for knot in inner:
        moved = np.concatenate([np.zeros((1, len(root))), _STEP * np.eye(len(root))]) @ root.T
        errors = _residuals(x + moved[:, 0::2], y + moved[:, 1::2], knot)
        residual.append(errors[0])
        variance.append((((errors[1:] - errors[0]) / _STEP) ** 2).sum())
        log_ratio.append(y[knot - 1] - y[knot + 1])
        before, at, after = np.exp(x[knot - 1 : knot + 2])
        position.append((at - before) / (after - before))
    return LeftOut(
        residual=np.array(residual),
        log_ratio=np.array(log_ratio),
        position=np.array(position),
        is_mixed=np.array([len(set(kinds[knot - 1 : knot + 2])) > 1 for knot in inner]),
        variance=np.array(variance),
    )


def _residuals(log_x: FloatArray, log_y: FloatArray, knot: int) -> FloatArray:
    """Returns (versions,) how far the curve through the other knots runs from one, for moved knots."""
    others = np.delete(np.arange(log_x.shape[1]), knot)
    x, y = np.exp(log_x[:, others]), np.exp(log_y[:, others])
    versions = Fronts(x=x, y=y, knots=np.full(len(x), len(others)), kinds=np.zeros(x.shape, np.intp))
    at = np.exp(log_x[:, knot])
    read = versions.read(at)[np.arange(len(at)), np.arange(len(at))]
    residuals: FloatArray = np.log(read) - log_y[:, knot]
    return residuals


def _roots(noise: CurveNoise, order: list[int]) -> FloatArray:
    """Returns a square root of the covariance of the knots' logarithms, x and y of each in turn."""
    size = 2 * len(order)
    covariance = np.zeros((size, size))
    for at, point in enumerate(order):
        own = noise.runs[point]
        if own is not None:
            covariance[2 * at : 2 * at + 2, 2 * at : 2 * at + 2] = own.covariance
    starts = np.repeat(noise.starts.membership[order], 2, axis=0) * noise.starts.sd
    covariance += starts @ starts.T
    values, vectors = np.linalg.eigh(covariance)
    root: FloatArray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
