"""One experiment of the coverage study: what a sweep of a known deployment might measure, and what is true.

The truth is what the embedded engine serves at every concurrency (`coverage_truth.py`). An experiment
measures a ladder of it, with luck of each server start and noise of each run, builds curves as `mtpbench
compare` does, and holds every answer with an interval against the truth, where some concurrency really runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import former_intervals as former
import numpy as np
from coverage_truth import Floats, Truth, by_formula, load_truth
from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]

from mtpbench_analysis.best import find_fastest
from mtpbench_analysis.compare import Comparison, Row, Settings, compare
from mtpbench_analysis.curves.cells import Cell
from mtpbench_analysis.curves.cost import find_economics, usd_per_mtok
from mtpbench_analysis.curves.curve import Curve, build_curves
from mtpbench_analysis.frame import CurvePoint

CORRELATION = 0.8
"""Of a run's errors in interactivity and throughput: a faster run is faster in both."""
BLOCKS = 20
"""Time blocks of a run, whose scatter estimates its noise."""
ASKED = 12
"""Interactivities that are asked of each side."""
ECONOMICS = find_economics("gb200")
USD_PER_GPU_H = ECONOMICS.usd_per_gpu_h or 0.0
Bounds = former.Bounds


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """The design of an experiment.

    Args:
        pair: whose truths are compared, a key of `sides_of`.
        step: factor between the concurrencies of a ladder.
        noise: standard deviation of a run, a share of both coordinates; half as much of its power.
        luck: standard deviation of a server start, one shift of both coordinates of all its runs.
        runs: of each recipe.
        restart: whether every run has a start of its own.
        transient: share by which the first recipe after a start is slowed, as by a warm-up that no rule sees;
            the second by half of it.
    """

    pair: str
    step: int
    noise: float
    luck: float
    runs: int
    restart: bool = False
    transient: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One printed answer beside the truth.

    Args:
        kind: `cell`, `measured cell`, `wide cell`, `ratio`, `withheld ratio`, `crossing`, `cost`, `joules` or
            `fastest`.
        knot_ratio: how far apart in throughput the knots around it are; 1 at a knot.
        value, truth: what is printed, and what is true; None for a crossing that does not exist.
        bounds: the interval, None where none is printed.
        former: the interval that was printed formerly.
    """

    kind: str
    knot_ratio: float
    value: float
    truth: float | None
    bounds: Bounds
    former: Bounds


@dataclass(frozen=True, slots=True)
class Served:
    """What is true at an interactivity: tok/s/GPU, of them output, and W/GPU."""

    tput: float
    output: float
    power_w: float

    @property
    def joules(self) -> float:
        """Joules for an output token."""
        return self.power_w / self.output


class TrueFront:
    """The true front of a side: over all its topologies and all their concurrencies.

    Between two concurrencies that were asked (at most 5% apart) it is a monotone cubic of logarithms.
    """

    def __init__(self, truths: Sequence[Truth]) -> None:
        self._curves = [_interpolated(truth) for truth in truths]
        x = np.concatenate([truth.x for truth in truths])
        y = np.concatenate([truth.y for truth in truths])
        self.x = np.unique(x[y >= self.at(x)[:, 0] * (1 - 1e-9)])

    def at(self, x: Floats) -> Floats:
        """(places, 3): throughput, that of output tokens and W/GPU; NaN where nothing is so fast."""
        log_x = np.log(np.asarray(x, np.float64))
        rows = np.array([curve(np.maximum(log_x, low)) for low, curve in self._curves])
        best = np.nan_to_num(rows[:, :, 0], nan=-np.inf).argmax(axis=0)
        figures: Floats = np.exp(rows[best, np.arange(len(log_x))])
        return figures


def _interpolated(truth: Truth) -> tuple[float, PchipInterpolator]:
    # Many concurrencies may run equally fast (each rank has as many requests): the one that serves most.
    order = np.lexsort((truth.y, truth.x))
    x, y = truth.x[order], truth.y[order]
    best_right = np.maximum.accumulate(y[::-1])[::-1]
    front = np.append(y[:-1] > best_right[1:], True) & np.append(np.diff(x) > 0, True)
    logs = np.log(np.stack([x, y, truth.output[order], truth.power_w[order]])[:, front])
    return float(logs[0, 0]), PchipInterpolator(logs[0], logs[1:].T, extrapolate=False)


def sides_of(pair: str) -> tuple[tuple[Truth, ...], tuple[Truth, ...]]:
    """The truths of the baseline and of the other side."""
    one = load_truth()["demo"]
    if pair == "by formula, smooth":
        return (by_formula(10, 0.15, 64, 1, 1),), (by_formula(12, 0.33, 48, 1, 1.9),)
    if pair == "by formula, with a bend":
        return (by_formula(10, 0.1, 64, 1.6, 1),), (by_formula(12, 0.2, 48, 1.8, 1.9),)
    if pair == "one topology":
        return one["off"], one["mtp"]
    if pair == "one topology, equal sides":
        return one["off"], one["off"]
    if pair == "eight topologies":
        eight = load_truth()["dsv4-gb200-sglang"]
        return eight["off"], eight["mtp"]
    if pair == "eight of equal truth against one":
        (truth,) = one["off"]
        return one["off"], tuple(
            dataclasses.replace(truth, topology=f"{truth.topology} {i}") for i in range(8)
        )
    raise ValueError(pair)


def draw_points(arm: str, truths: Sequence[Truth], design: Design, random: Any) -> Iterator[CurvePoint]:
    """What a sweep of the design might measure of one side."""
    for truth in truths:
        chosen = ladder(truth, design.step)
        starts = random.normal(0, design.luck, design.runs if design.restart else 1)
        for run in range(design.runs):
            start = run if design.restart else 0
            for place, at in enumerate(chosen):
                shift = starts[start] - design.transient * max(0.0, 1 - place / 2)
                yield _point(arm, truth, at, shift, design, run, random)


def ladder(truth: Truth, step: int) -> list[int]:
    """Which of its concurrencies a ladder of factor `step` measures."""
    wanted, c = {truth.concurrency[-1]}, truth.concurrency[0]
    while c < truth.concurrency[-1]:
        wanted.add(c)
        c *= step
    return [i for i, concurrency in enumerate(truth.concurrency) if concurrency in wanted]


def _point(
    arm: str, truth: Truth, at: int, shift: float, design: Design, run: int, random: Any
) -> CurvePoint:
    root = np.array([[1, 0], [CORRELATION, np.sqrt(1 - CORRELATION**2)]]) * design.noise
    x, y = shift + root @ random.standard_normal(2)
    # What batch means over that many blocks would estimate of this run's noise.
    blocks = root @ random.standard_normal((2, BLOCKS - 1))
    covariance = blocks @ blocks.T / (BLOCKS - 1)
    x_se, y_se = np.sqrt(np.diag(covariance))
    tput, output = truth.y[at] * np.exp(y), truth.output[at] * np.exp(y)
    return CurvePoint(
        arm=arm,
        interactivity_tps=float(truth.x[at] * np.exp(x)),
        tput_tps_per_gpu=float(tput),
        output_tps_per_gpu=float(output),
        input_tps_per_gpu=float(tput - output),
        concurrency=truth.concurrency[at],
        gpus=truth.gpus,
        topology=truth.topology,
        engine="simulated",
        hardware="gb200-nvl72",
        simulated=True,
        power_w_per_gpu=float(truth.power_w[at] * np.exp(design.noise / 2 * random.standard_normal())),
        power_source="simulated",
        interactivity_rel_se=float(x_se),
        tput_rel_se=float(y_se),
        rel_se_correlation=float(covariance[0, 1] / (x_se * y_se)),
        se_df=BLOCKS - 1,
        repeat=run,
        start=f"{arm} {truth.topology} {run if design.restart else 0}",
    )


class Experiment:
    """One experiment: two curves that were measured, and what is true of them."""

    def __init__(self, design: Design, seed: int) -> None:
        self.design = design
        self._random = random = np.random.default_rng([20261130, seed])
        sides = sides_of(design.pair)
        self.fronts = [TrueFront(truths) for truths in sides]
        self._own = [{truth.topology: TrueFront((truth,)) for truth in truths} for truths in sides]
        points = [
            point
            for arm, truths in zip(("off", "mtp"), sides, strict=True)
            for point in draw_points(arm, truths, design, random)
        ]
        self.curves: tuple[Curve, ...] = build_curves(points)
        self.former = [former.draw_fronts(curve, stream) for stream, curve in enumerate(self.curves)]

    def answers(self) -> Iterator[Answer]:
        """Every answer that is printed with an interval or a range, beside the truth."""
        asked = [self._ask(front.x) for front in self.fronts]
        knots = [self._ask(np.array([knot.x for knot in curve.front]), 3) for curve in self.curves]
        targets = np.concatenate([*asked, *knots])
        comparison = compare(*self._pair(), Settings(targets_tps=tuple(targets), economics=ECONOMICS))
        truths = [front.at(targets) for front in self.fronts]
        ratios = truths[1][:, 0] / truths[0][:, 0]
        drawn = [fronts.read(targets) for fronts in self.former]
        sides = np.repeat([0, 1, 0, 1], [len(asked[0]), len(asked[1]), len(knots[0]), len(knots[1])])
        for i, (row, side) in enumerate(zip(comparison.rows, sides, strict=True)):
            before = former.bounds(drawn[side][:, i])
            truth = self._of_recipe(row.cells[side], side) or Served(*truths[side][i])
            yield from _judge_cell(row.cells[side], truth, before)
            quotient = former.bounds(drawn[1][:, i] / drawn[0][:, i])
            yield from _judge_ratio(row, ratios[i], quotient)
        yield from self._judge_crossings(comparison)
        yield from self._judge_fastest(comparison)

    def _of_recipe(self, cell: Cell, side: int) -> Served | None:
        """What is true of a measured cell: its own deployment there, of which alone it speaks."""
        if cell.state != "measured" or cell.lower is None:
            return None
        own = self._own[side][str(cell.lower.mean.topology)]
        return Served(*own.at(np.array([cell.target_tps]))[0])

    def _pair(self) -> tuple[Curve, list[Curve]]:
        baseline, other = self.curves
        return baseline, [other]

    def _ask(self, places: Floats, most: int = ASKED) -> Floats:
        """Some of the places, each as likely as the stretch of interactivity around it is long."""
        weights = np.gradient(np.log(places)) if len(places) > 1 else np.ones(1)
        chance = weights / weights.sum()
        chosen: Floats = self._random.choice(places, min(most, len(places)), replace=False, p=chance)
        return chosen

    def _judge_crossings(self, comparison: Comparison) -> Iterator[Answer]:
        (found,) = comparison.crossings.values()
        if self.design.pair.endswith("equal sides"):
            return
        low, high = (pick(front.x[end] for front in self.fronts) for pick, end in ((max, 0), (min, -1)))
        places = np.geomspace(low, high, 4001)
        base, other = (front.at(places)[:, 0] for front in self.fronts)
        sign = np.sign(other - base)
        truths = places[:-1][sign[1:] * sign[:-1] < 0]
        for crossing in found:
            gap = crossing.gap
            at = float(np.sqrt(gap.low * gap.high)) if gap else crossing.interactivity_tps or 0.0
            truth = min(truths, key=lambda true: abs(true - at), default=None)
            before = former.crossing_bounds(self.former, self._overlap()) if len(found) == 1 else None
            kind = "wide crossing" if crossing.wide_gap else "crossing"
            yield Answer(kind, 1.0, at, truth, _bounds(gap or crossing.interval), before)

    def _overlap(self) -> tuple[float, float]:
        ranges = [curve.range_tps for curve in self.curves]
        return max(low for low, _ in ranges), min(high for _, high in ranges)

    def _judge_fastest(self, comparison: Comparison) -> Iterator[Answer]:
        for side, (reader, front) in enumerate(zip(comparison.readers, self.fronts, strict=True)):
            formerly = former.Fastest.of(self.former[side], reader.curve.range_tps)
            for truth in self._ask(front.x, 2):
                needed = front.at(np.array([truth]))[0, 0]
                cost = USD_PER_GPU_H * 1e6 / (3600 * needed)
                (fastest,) = find_fastest([reader], cost)
                if fastest.interactivity_tps is None or fastest.at_end or fastest.cell is None:
                    continue
                kind = "wide fastest" if fastest.gap else "fastest"
                bounds = _bounds(fastest.gap or fastest.interval)
                ratio = fastest.cell.knot_ratio or 1.0
                before = formerly.bounds(needed)
                yield Answer(kind, ratio, fastest.interactivity_tps, float(truth), bounds, before)


def _judge_cell(cell: Cell, truth: Served, before: Bounds) -> Iterator[Answer]:
    if cell.state not in ("measured", "interpolated") or cell.envelope is None or not np.isfinite(truth.tput):
        return
    gap, share = cell.knot_ratio or 1.0, cell.output_share or 1.0
    if cell.wide_gap:
        middle = float(np.sqrt(cell.envelope[0] * cell.envelope[1]))
        yield Answer("wide cell", gap, middle, truth.tput, cell.envelope, before)
    else:
        middle = cell.tput_tps_per_gpu or 0.0
        kind = "cell" if cell.state == "interpolated" else "measured cell"
        yield Answer(kind, gap, middle, truth.tput, _bounds(cell.interval), before)
        now, was = _cost(_bounds(cell.interval), share), _cost(before, share)
        yield Answer("cost", gap, _usd(middle * share), _usd(truth.output), now, was)
    span = _bounds(cell.metered_joules_per_output_token)
    watts = [knot.mean.power_w_per_gpu or 0.0 for knot in cell.knots]
    was = (min(watts) / middle / share, max(watts) / middle / share)
    kind = "wide joules" if cell.wide_gap else "joules"
    yield Answer(kind, gap, sum(was) / 2, truth.joules, span, was)


def _cost(bounds: Bounds, share: float) -> Bounds:
    """The dollars for a million output tokens at both ends of a throughput's interval."""
    return None if bounds is None else (_usd(bounds[1] * share), _usd(bounds[0] * share))


def _usd(tput_tps_per_gpu: float) -> float:
    return usd_per_mtok(tput_tps_per_gpu, USD_PER_GPU_H)


def _judge_ratio(row: Row, truth: float, before: Bounds) -> Iterator[Answer]:
    (ratio,) = row.ratios
    if not np.isfinite(truth) or ratio.bound != "exact" or ratio.not_reached:
        return
    gap = max(cell.knot_ratio or 1.0 for cell in row.cells)
    if ratio.value is None:
        if ratio.envelope is not None:
            middle = float(np.sqrt(ratio.envelope[0] * ratio.envelope[1]))
            yield Answer("withheld ratio", gap, middle, truth, ratio.envelope, ratio.envelope)
    else:
        yield Answer("ratio", gap, ratio.value, truth, _bounds(ratio.interval), before)


def _bounds(interval: Any) -> Bounds:
    return None if interval is None else (interval.low, interval.high)
