"""Pure: how far a repeat of a measured point would fall, and a curve as it might have come out by that.

The error of a point comes from repeats, else from time blocks of its run. It is relative (an error of
logarithms): noise of 2% is 2% on every point of a curve, wherever it lies. The draws of a
curve's points have a front each and are read at once; a draw without noise equals the curve reader's `Spline`
(a test holds both together).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mtpbench_analysis.curves.curve import Curve, Measured
from mtpbench_analysis.frame import CurvePoint

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
Basis = Literal["repeats", "blocks"]

MIN_BLOCKS = 5
"""With fewer time blocks than this there is no error: their scatter is itself hardly known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """The noise is the error of one measured point.

    Args:
        basis: `repeats` (runs of the same recipe: what a reader wants to know) or `blocks` (time blocks
            inside one run: what other runs would do is not in it).
        covariance: (2, 2) of the logarithms of interactivity and throughput, of the mean over its runs.
        df: degrees of freedom that the covariance rests on.
        shared: whether all points of the curve rest on the same estimate, so that they err together in it.
    """

    basis: Basis
    covariance: FloatArray
    df: int
    shared: bool

    @property
    def rel_se(self) -> tuple[float, float]:
        """Returns the standard errors of interactivity and throughput, as shares of their values."""
        return float(np.sqrt(self.covariance[0, 0])), float(np.sqrt(self.covariance[1, 1]))


def find_noise(curve: Curve) -> tuple[Noise | None, ...]:
    """Returns the error of every measured point of a curve, None where it is unknown.

    Where any recipe was run several times, the scatter between runs is pooled over the curve's recipes: two
    runs of each of nine recipes say more together (9 degrees of freedom) than nine times one. Noise differs
    less between the recipes of a curve than the scatter of two runs differs from the truth. Where runs were
    repeated, time blocks say nothing more: their scatter is part of the runs'.
    """
    between, df = _between_runs(curve.measured)
    if between is None:
        return tuple(_within_run(item.runs[0]) for item in curve.measured)
    return tuple(
        Noise(basis="repeats", covariance=between / len(item.runs), df=df, shared=True)
        for item in curve.measured
    )


def _between_runs(measured: Sequence[Measured]) -> tuple[FloatArray | None, int]:
    """Returns the pooled covariance of single runs, and its degrees of freedom."""
    total, df = np.zeros((2, 2)), 0
    for item in measured:
        if len(item.runs) < 2:
            continue
        logs = np.log([(run.interactivity_tps, run.tput_tps_per_gpu) for run in item.runs])
        residuals = logs - logs.mean(axis=0)
        total += residuals.T @ residuals
        df += len(item.runs) - 1
    return (total / df, df) if df else (None, 0)


def _within_run(run: CurvePoint) -> Noise | None:
    x, y, df = run.interactivity_rel_se, run.tput_rel_se, run.se_df
    if x is None or y is None or df is None or df < MIN_BLOCKS - 1:
        return None
    both = (run.rel_se_correlation or 0.0) * x * y
    return Noise(basis="blocks", covariance=np.array([[x * x, both], [both, y * y]]), df=df, shared=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockErrors:
    """The block errors are relative standard errors of one run from its time blocks, with their
    correlation.
    """

    interactivity_rel_se: float
    tput_rel_se: float
    correlation: float
    df: int


def block_errors(interactivity_tps: Sequence[float], tput_tps_per_gpu: Sequence[float]) -> BlockErrors | None:
    """Computes by batch means the errors of a run's interactivity and throughput from its time blocks.

    Blocks that go up and down together for longer than one block would make the error too small, so it is
    widened by (1 + ρ) / (1 − ρ) for a first autocorrelation ρ above 0.

    Args:
        interactivity_tps: by block, 1 / median TPOT of the requests that ended in it.
        tput_tps_per_gpu: by block, in the same order.

    Returns:
        None with fewer than `MIN_BLOCKS` blocks, or where a block served nothing.

    Source: A. M. Law, Simulation Modeling and Analysis, 5th ed., 9.5.3 (batch means).
    """
    both = np.array([interactivity_tps, tput_tps_per_gpu], np.float64)
    count = both.shape[1]
    if count < MIN_BLOCKS or not np.isfinite(both).all() or (both <= 0).any():
        return None
    share = both / both.mean(axis=1, keepdims=True) - 1
    se = np.sqrt((share**2).sum(axis=1) / (count - 1) / count * [_widening(row) for row in share])
    spread = np.sqrt((share**2).sum(axis=1))
    correlation = float(share[0] @ share[1] / (spread[0] * spread[1])) if spread.all() else 0.0
    return BlockErrors(
        interactivity_rel_se=float(se[0]), tput_rel_se=float(se[1]), correlation=correlation, df=count - 1
    )


def _widening(share: FloatArray) -> float:
    total = float(share @ share)
    if total == 0:
        return 1.0
    # The estimate is 1/count too low for blocks that have nothing to do with each other.
    first = float(share[1:] @ share[:-1]) / total + 1 / len(share)
    bounded = min(max(first, 0.0), 0.6)
    return (1 + bounded) / (1 - bounded)


DRAWS = 1000
FARTHEST_LOG = 80.0
"""Of a drawn figure. Two noisy runs allow draws without a bound; beyond this no rate has a meaning, and what
is computed with it would overflow."""
_SEED = 20261124
"""The same results give the same interval, on every machine and every day."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CurveDraws:
    """The draws of a curve have a front each, padded on the right.

    Args:
        x, y: (draws, points) interactivity and throughput of the knots, in their order.
        knots: (draws,) how many of them each front has.
    """

    x: FloatArray
    y: FloatArray
    knots: IntArray

    def read(self, targets_tps: Sequence[float] | FloatArray) -> FloatArray:
        """Returns (draws, targets) the throughput at each target; the best point's below a front, NaN above
        it.
        """
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


def draw_curve(curve: Curve, noise: Sequence[Noise | None], stream: int, draws: int = DRAWS) -> CurveDraws:
    """Returns the curve's fronts under the noise of its points; a point without a known error stays where it
    is.

    Args:
        curve: its measured points, those behind the front too: noise may bring one to the front.
        noise: as `find_noise` gives it.
        stream: the number of the curve's own stream of random numbers.
        draws: how many.
    """
    random = np.random.default_rng([_SEED, stream])
    logs = np.log([(item.x, item.y) for item in curve.measured])
    errors = random.standard_normal((draws, len(logs), 2))
    # Each draw also draws how large the noise is, which is itself only estimated: that makes a t of a normal.
    common = {
        error.df: random.chisquare(error.df, draws) / error.df for error in noise if error and error.shared
    }
    scale = np.ones((draws, len(logs)))
    roots = np.zeros((len(logs), 2, 2))
    for i, error in enumerate(noise):
        if error is not None:
            roots[i] = _root(error.covariance)
            scale[:, i] = common[error.df] if error.shared else random.chisquare(error.df, draws) / error.df
    shifts = roots[:, :, 0] * errors[:, :, :1] + roots[:, :, 1] * errors[:, :, 1:]
    drawn = logs + shifts / np.sqrt(scale)[:, :, None]
    values = np.exp(np.clip(drawn, -FARTHEST_LOG, FARTHEST_LOG))
    return fronts(values[:, :, 0], values[:, :, 1])


def fronts(x: FloatArray, y: FloatArray) -> CurveDraws:
    """Returns the upper-left front of every row of points.

    Args:
        x: (draws, points) interactivities in any order.
        y: (draws, points) their throughputs.
    """
    order = np.lexsort((y, x), axis=1)
    x, y = np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1)
    best_right = np.maximum.accumulate(y[:, ::-1], axis=1)[:, ::-1]
    after = np.concatenate([best_right[:, 1:], np.full((len(y), 1), -np.inf)], axis=1)
    on_front = y > after
    front_first = np.argsort(~on_front, axis=1, kind="stable")
    knots = on_front.sum(axis=1)
    x, y = np.take_along_axis(x, front_first, 1), np.take_along_axis(y, front_first, 1)
    padding = np.arange(x.shape[1]) >= knots[:, None]
    return CurveDraws(x=np.where(padding, np.inf, x), y=np.where(padding, -np.inf, y), knots=knots)


def _steffen(*knots: FloatArray) -> FloatArray:
    """Returns Steffen's slope at the middle of three knots (x0, y0, x1, y1, x2, y2)."""
    x0, y0, x1, y1, x2, y2 = knots
    h0, h1 = x1 - x0, x2 - x1
    s0, s1 = (y1 - y0) / h0, (y2 - y1) / h1
    mean = (s0 * h1 + s1 * h0) / (h0 + h1)
    sign = np.where(s0 < 0, -1.0, 1.0) + np.where(s1 < 0, -1.0, 1.0)
    smallest: FloatArray = np.minimum(np.minimum(np.abs(s0), np.abs(s1)), np.abs(mean) / 2)
    return sign * smallest


def _root(covariance: FloatArray) -> FloatArray:
    """Returns a square root of a covariance that may be singular (two values that always move together)."""
    values, vectors = np.linalg.eigh(covariance)
    root: FloatArray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
