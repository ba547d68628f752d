"""Pure: a curve as it might have come out by the noise of runs and starts, and as it may run between knots.

The draws of a curve's points have a front each. Between its knots each draw leaves the spline by its own
error of shape, one for each gap. A draw without either equals the curve reader's spline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mtpbench_analysis.curves.curve import Curve
from mtpbench_analysis.curves.errors import FARTHEST_LOG, FloatArray, inflation
from mtpbench_analysis.curves.noise import CurveNoise
from mtpbench_analysis.curves.shape import Shape, kinds_of, spread_between
from mtpbench_analysis.curves.splines import Fronts, fronts

DRAWS = 1000
TOLD_APART = 2.0
"""Standard deviations of their difference, in both coordinates, beyond which two points are no rivals for the
front."""
_SEED = 20261124
"""The same results give the same interval, on every machine and every day."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CurveDraws:
    """The draws of a curve: the fronts of its points as they might have come out, and errors of shape.

    Args:
        fronts: a front for each draw.
        humble: the same where each point has the luck of the best of its neighbours taken from it.
        roughness: (draws, knots) how far a draw leaves its spline in the gap above each knot, in standard
            deviations of public curves.
    """

    fronts: Fronts
    humble: Fronts
    roughness: FloatArray

    def read(self, targets_tps: Sequence[float] | FloatArray) -> FloatArray:
        """Returns (draws, targets) the throughput at each target; the best point's below a front, NaN above
        it.

        A front picks the luckiest of points that noise can't tell apart, so the curve lies above the truth,
        and draws around it do. The lower half of them is therefore read off the humble fronts; where no
        points lie close together, these are the same.
        """
        proud = self._read(self.fronts, targets_tps)
        if self.humble is self.fronts:
            return proud
        humble = self._read(self.humble, targets_tps)
        known = np.isfinite(proud)
        middle = np.nanmedian(np.where(known.any(axis=0), proud, 0.0), axis=0)
        is_lower = known & np.isfinite(humble) & (proud < middle)
        drawn: FloatArray = np.where(is_lower, np.fmin(proud, humble), proud)
        return drawn

    def _read(self, side: Fronts, targets_tps: Sequence[float] | FloatArray) -> FloatArray:
        """Returns what fronts serve with the errors of shape.

        A curve falls, so it stays between its knots: nothing that was measured tells that a recipe between
        two topologies would serve more than both.
        """
        drawn, gaps = side.read(targets_tps), side.gaps(targets_tps)
        sd = spread_between(gaps.log_ratio, gaps.position, gaps.is_mixed)
        left = np.take_along_axis(self.roughness, gaps.index, 1) * sd
        shaped: FloatArray = np.clip(drawn * np.exp(left), gaps.upper, gaps.lower)
        return np.where(np.isnan(drawn), np.nan, shaped)


def draw_curve(curve: Curve, noise: CurveNoise, shape: Shape, stream: int, draws: int = DRAWS) -> CurveDraws:
    """Returns the curve as it might have come out; a point without a known error of its own moves with its
    start alone.

    Args:
        curve: its measured points, those behind the front too: noise may bring one to the front.
        noise: of its runs and starts.
        shape: how far it may run from its spline.
        stream: the number of the curve's own stream of random numbers.
        draws: how many.
    """
    random = np.random.default_rng([_SEED, stream])
    logs = np.log([(item.x, item.y) for item in curve.measured])
    shifts = _run_shifts(random, noise, draws) + _start_shifts(random, noise, draws)[:, :, None]
    rough = random.standard_normal((draws, len(logs)))
    rough *= shape.factor * inflation(random, shape.df, draws)[:, None]
    kinds = kinds_of(curve.measured)
    luck, proud = expected_luck(logs, noise), _fronts(logs + shifts, kinds)
    humble = _fronts(logs + shifts - luck, kinds) if luck.any() else proud
    return CurveDraws(fronts=proud, humble=humble, roughness=rough)


def _fronts(logs: FloatArray, kinds: Sequence[int]) -> Fronts:
    values = np.exp(np.clip(logs, -FARTHEST_LOG, FARTHEST_LOG))
    return fronts(values[:, :, 0], values[:, :, 1], kinds)


def expected_luck(logs: FloatArray, noise: CurveNoise) -> FloatArray:
    """Returns (points, 2) how lucky the best of the points is that noise can't tell from each, as expected.

    Args:
        logs: (points, 2) logarithms of interactivity and throughput.
        noise: of the points.

    Source: G. Blom, Statistical Estimates and Transformed Beta-Variables, 1958 (normal order statistics).
    """
    variances = np.array(
        [np.zeros(2) if error is None else np.diag(error.covariance) for error in noise.runs], np.float64
    )
    variances += ((noise.starts.membership * noise.starts.sd) ** 2).sum(axis=1)[:, None]
    apart = np.abs(logs[:, None, :] - logs[None, :, :])
    reach = TOLD_APART * np.sqrt(variances[:, None, :] + variances[None, :, :])
    rivals = (apart <= reach).all(axis=2).sum(axis=1)
    best = np.array([NormalDist().inv_cdf((m - 0.375) / (m + 0.25)) if m > 1 else 0.0 for m in rivals])
    luck: FloatArray = best[:, None] * np.sqrt(variances)
    return luck


def _run_shifts(random: np.random.Generator, noise: CurveNoise, draws: int) -> FloatArray:
    """Returns (draws, points, 2) by how much the runs of a point move its logarithms.

    Each draw also draws how large the noise is, which is itself only estimated: that makes a t of a normal.
    """
    errors = random.standard_normal((draws, len(noise.runs), 2))
    known = [i for i, error in enumerate(noise.runs) if error is not None]
    own = [error for error in noise.runs if error is not None]
    if not own:
        return np.zeros_like(errors)
    roots = _roots(np.array([error.covariance for error in own]))
    common = {error.df: inflation(random, error.df, draws) for error in own if error.shared}
    alone = iter(inflation(random, np.array([error.df for error in own if not error.shared]), draws))
    scale = np.array([common[error.df] if error.shared else next(alone) for error in own]).T
    errors[:, known] = np.einsum("kab,dkb->dka", roots, errors[:, known]) * scale[:, :, None]
    errors[:, [error is None for error in noise.runs]] = 0.0
    return errors


def _start_shifts(random: np.random.Generator, noise: CurveNoise, draws: int) -> FloatArray:
    """Returns (draws, points) by how much the starts of a point's servers move both its logarithms."""
    starts = noise.starts
    luck = random.standard_normal((draws, starts.membership.shape[1]))
    luck *= starts.sd * inflation(random, starts.df, draws)[:, None]
    shifts: FloatArray = luck @ starts.membership.T
    return shifts


def _roots(covariances: FloatArray) -> FloatArray:
    """Returns (n, 2, 2) square roots of covariances that may be singular (two values that always move
    together).
    """
    values, vectors = np.linalg.eigh(covariances)
    roots: FloatArray = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]
    return roots
