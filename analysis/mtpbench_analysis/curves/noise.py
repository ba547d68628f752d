"""Pure: how far a repeat of a measured point would fall: from repeats, else from time blocks of its run.

Everything is relative (errors of logarithms): noise of 2% is 2% on every point of a curve, wherever it lies.
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
Basis = Literal["repeats", "blocks"]

MIN_BLOCKS = 5
"""With fewer time blocks than this nothing is said: their scatter is itself hardly known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """The error of one measured point.

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
        """Standard errors of interactivity and throughput, as shares of their values."""
        return float(np.sqrt(self.covariance[0, 0])), float(np.sqrt(self.covariance[1, 1]))


def find_noise(curve: Curve) -> tuple[Noise | None, ...]:
    """The error of every measured point of a curve, None where nothing tells it.

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
    """The pooled covariance of single runs, and its degrees of freedom."""
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
    """Relative standard errors of one run from its time blocks, and how they go together."""

    interactivity_rel_se: float
    tput_rel_se: float
    correlation: float
    df: int


def block_errors(interactivity_tps: Sequence[float], tput_tps_per_gpu: Sequence[float]) -> BlockErrors | None:
    """Batch means: the errors of a run's interactivity and throughput from equal time blocks of its window.

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
