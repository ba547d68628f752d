"""Pure: how far a repeat of a measured point would fall: by its run, and by the start of its servers.

The error of a run comes from repeats, else from time blocks of its run. That of a server start is shared by
all runs of the start; it comes from starts, where a deployment was started several times, else from an
assumption. Both are relative (errors of logarithms): noise of 2% is 2% on every point of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

import numpy as np

from mtpbench_analysis.curves.curve import CURVE_FIELDS, Curve, Measured
from mtpbench_analysis.curves.errors import START_NOISE, START_NOISE_DF, FloatArray, pooled
from mtpbench_analysis.frame import SPECULATION_FIELDS, CurvePoint

Basis = Literal["repeats", "blocks"]
StartBasis = Literal["measured", "assumed", "in_runs"]

MIN_BLOCKS = 5
"""With fewer time blocks than this there is no error: their scatter is itself hardly known."""

_DEPLOYMENT_FIELDS = ("topology", "gpus", *SPECULATION_FIELDS, *CURVE_FIELDS)
_deployment_of = attrgetter(*_DEPLOYMENT_FIELDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """The noise is the error of one measured point that is its own: that of its runs.

    Args:
        basis: `repeats` (runs of the same recipe: what a reader wants to know) or `blocks` (time blocks
            inside one run: what other runs would do is not in it).
        covariance: (2, 2) of the logarithms of interactivity and throughput, of the mean over its runs.
        df: degrees of freedom that the covariance rests on.
        shared: whether all points of the curve rest on the same estimate, so that they err together in it.
    """

    basis: Basis
    covariance: FloatArray
    df: float
    shared: bool

    @property
    def rel_se(self) -> tuple[float, float]:
        """Returns the standard errors of interactivity and throughput, as shares of their values."""
        return float(np.sqrt(self.covariance[0, 0])), float(np.sqrt(self.covariance[1, 1]))


@dataclass(frozen=True, kw_only=True, eq=False)
class StartNoise:
    """The start noise is the error that all runs of one server start have in common.

    A start that is faster than others is faster for each user and in all, so it moves both coordinates.

    Args:
        membership: (points, starts) the share of a point's runs that each start served.
        sd: standard deviation of the logarithm that one start moves.
        df: degrees of freedom of it; infinite where it is assumed.
        basis: `measured` (a deployment was started several times), `assumed`, or `in_runs` (each run had a
            start of its own, so that the scatter of runs holds that of starts).
    """

    membership: FloatArray
    sd: float
    df: float
    basis: StartBasis


@dataclass(frozen=True, kw_only=True, eq=False)
class CurveNoise:
    """The noise of a curve has the error of each measured point, in their order, and that of its starts."""

    runs: tuple[Noise | None, ...]
    starts: StartNoise


@dataclass(frozen=True, kw_only=True, slots=True)
class _Deployment:
    """A deployment's runs: what they tell of runs and of starts, in units of their recipes' scales.

    Args:
        run_ss: (2, 2) sum of squares that neither recipes nor starts explain.
        run_df: its degrees of freedom.
        start_ss: (2, 2) sum of squares that starts explain beyond recipes.
        start_df: its degrees of freedom.
        weight: the sum of the squared inverse scales that a start has on average, of both coordinates.
    """

    run_ss: FloatArray
    run_df: int
    start_ss: FloatArray
    start_df: int
    weight: float


def find_noise(curve: Curve, start_noise: float = START_NOISE) -> CurveNoise:
    """Returns the errors of a curve's measured points; the error of a run is None where nothing tells it.

    Where any recipe was run several times, the scatter between runs is pooled over the curve's recipes: two
    runs of each of nine recipes say more together (9 degrees of freedom) than nine times one. Noise differs
    less between the recipes of a curve than the scatter of two runs differs from the truth. Where runs were
    repeated, time blocks say nothing more: their scatter is part of the runs'.

    Args:
        curve: what was measured.
        start_noise: how far two starts of one server are taken to differ, as a share; it counts as
            `START_NOISE_DF` degrees of freedom where starts were measured.
    """
    scales = _scales(curve.measured)
    membership, deployments = _deployments(curve.measured, scales)
    run_df = sum(item.run_df for item in deployments)
    start_df = sum(item.start_df for item in deployments)
    if not run_df and not start_df:
        runs = tuple(_within_run(item.runs[0]) for item in curve.measured)
        return CurveNoise(runs=runs, starts=_assumed(membership, start_noise))
    if not run_df:
        return _of_starts_alone(curve.measured, deployments, membership, start_noise)
    covariance: FloatArray = sum((item.run_ss for item in deployments), np.zeros((2, 2))) / run_df
    runs = tuple(
        Noise(
            basis="repeats",
            covariance=np.outer(scale, scale) * covariance / len(item.runs),
            df=run_df,
            shared=True,
        )
        for item, scale in zip(curve.measured, scales, strict=True)
    )
    return CurveNoise(runs=runs, starts=_measured(deployments, membership, covariance, start_noise))


def find_power_errors(curve: Curve) -> tuple[float | None, ...]:
    """Returns the relative standard error of each point's metered power, None where nothing tells it.

    As if it had nothing to do with the throughput's: where both rise together, joules err less.
    """
    scatter, df = 0.0, 0
    for item in curve.measured:
        powers = [run.power_w_per_gpu for run in item.runs if run.power_w_per_gpu]
        if len(powers) > 1:
            scatter += float(np.log(powers).var() * len(powers))
            df += len(powers) - 1
    if df:
        return tuple(math.sqrt(scatter / df / len(item.runs)) for item in curve.measured)
    return tuple(item.runs[0].power_rel_se for item in curve.measured)


def _assumed(membership: FloatArray, start_noise: float) -> StartNoise:
    return StartNoise(membership=membership, sd=start_noise, df=math.inf, basis="assumed")


def _measured(
    deployments: Sequence[_Deployment], membership: FloatArray, covariance: FloatArray, start_noise: float
) -> StartNoise:
    """Returns how far starts differ beyond what their runs' noise explains (analysis of variance)."""
    df = sum(item.start_df for item in deployments)
    if not df:
        return _assumed(membership, start_noise)
    mean_square = sum(float(np.trace(item.start_ss)) for item in deployments) / df
    weight = sum(item.weight * item.start_df for item in deployments) / df
    variance = max(mean_square - float(np.trace(covariance)), 0.0) / weight
    variance, pooled_df = pooled(variance, df, start_noise**2, START_NOISE_DF if start_noise else 0.0)
    return StartNoise(membership=membership, sd=math.sqrt(variance), df=pooled_df, basis="measured")


def _of_starts_alone(
    measured: Sequence[Measured],
    deployments: Sequence[_Deployment],
    membership: FloatArray,
    start_noise: float,
) -> CurveNoise:
    """Returns the errors where each start served one run of one recipe: runs and starts can't be told apart.

    Their scatter is pooled over the recipes as it is: that of starts does not follow the scale of runs.
    """
    plain = _deployments(measured, np.ones((len(measured), 2)))[1]
    df = sum(item.start_df for item in plain)
    scatter = sum((item.start_ss for item in plain), np.zeros((2, 2)))
    known_before = START_NOISE_DF if start_noise else 0.0
    total = df + known_before
    covariance = (scatter + np.full((2, 2), start_noise**2) * known_before) / total
    runs = tuple(
        Noise(basis="repeats", covariance=covariance / len(item.runs), df=total, shared=True)
        for item in measured
    )
    starts = StartNoise(membership=membership, sd=0.0, df=math.inf, basis="in_runs")
    return CurveNoise(runs=runs, starts=starts)


LEAST_SCALE = 5e-4
"""Time blocks of an engine that never varies scatter by nothing, which is no scale."""


def _scales(measured: Sequence[Measured]) -> FloatArray:
    """Returns (points, 2) how noisy each recipe is beside the others, by its time blocks; 1 where a run has
    none.

    A recipe with few requests in flight is several times as noisy as one with many: repeats tell how large
    noise is, blocks how it is spread over the recipes.
    """
    scales = np.ones((len(measured), 2))
    for i, item in enumerate(measured):
        errors = [(run.interactivity_rel_se, run.tput_rel_se) for run in item.runs]
        squares = np.array([[x * x, y * y] for x, y in errors if x is not None and y is not None])
        if len(squares) < len(errors):
            return np.ones((len(measured), 2))
        scales[i] = np.maximum(np.sqrt(squares.mean(axis=0)), LEAST_SCALE)
    return scales


def _deployments(
    measured: Sequence[Measured], scales: FloatArray
) -> tuple[FloatArray, tuple[_Deployment, ...]]:
    """Returns the share of each point's runs that each start served, and what each deployment's runs tell."""
    starts: dict[tuple[Any, ...], int] = {}
    families: dict[tuple[Any, ...], list[tuple[int, int, CurvePoint]]] = {}
    for row, item in enumerate(measured):
        for run in item.runs:
            deployment = _deployment_of(run)
            start = starts.setdefault((run.start, deployment), len(starts))
            families.setdefault(deployment, []).append((row, start, run))
    membership = np.zeros((len(measured), len(starts)))
    for members in families.values():
        for row, start, _ in members:
            membership[row, start] += 1 / len(measured[row].runs)
    return membership, tuple(_deployment(members, scales) for members in families.values())


def _deployment(members: Sequence[tuple[int, int, CurvePoint]], scales: FloatArray) -> _Deployment:
    """Fits recipes and starts to the logarithms of a deployment's runs by weighted least squares.

    All runs of a recipe weigh the same, so recipes are fitted by their means.
    """
    recipes = _dummies([row for row, *_ in members])
    starts = _dummies([start for _, start, _ in members])
    logs = np.log([(run.interactivity_tps, run.tput_tps_per_gpu) for *_, run in members])
    weights = 1 / scales[[row for row, *_ in members]]
    alone = _without_means(recipes, logs) * weights
    design = _without_means(recipes, starts)
    residuals = _residuals(design, alone, weights)
    run_ss = residuals.T @ residuals
    start_df = int(np.linalg.matrix_rank(design, tol=_ROUNDING))
    return _Deployment(
        run_ss=run_ss,
        run_df=len(logs) - recipes.shape[1] - start_df,
        start_ss=alone.T @ alone - run_ss,
        start_df=start_df,
        weight=float((weights**2).sum()) / starts.shape[1],
    )


_ROUNDING = 1e-9
"""Of shares of runs, which are 0 or not below the inverse of their number."""


def _dummies(labels: Sequence[int]) -> FloatArray:
    """Returns (n, kinds) 1 where an item is of a kind, kinds in the order of their numbers."""
    array = np.asarray(labels)
    kinds: FloatArray = (array[:, None] == np.unique(array)[None, :]).astype(np.float64)
    return kinds


def _without_means(kinds: FloatArray, values: FloatArray) -> FloatArray:
    """Returns (n, columns) values without the means of their kind."""
    means = (kinds.T @ values) / kinds.sum(axis=0)[:, None]
    rest: FloatArray = values - kinds @ means
    return rest


def _residuals(design: FloatArray, values: FloatArray, weights: FloatArray) -> FloatArray:
    """Returns (n, 2) what a weighted design does not explain of either coordinate (weighted too)."""
    residuals = np.empty_like(values)
    for axis in range(values.shape[1]):
        weighted = design * weights[:, axis : axis + 1]
        fit = np.linalg.lstsq(weighted, values[:, axis], rcond=None)[0]
        residuals[:, axis] = values[:, axis] - weighted @ fit
    return residuals


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
