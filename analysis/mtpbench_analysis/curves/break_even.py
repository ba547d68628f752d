"""Pure: a drafting curve at another acceptance length, and the length at which it stops paying.

A step of a recipe takes acceptance length / interactivity seconds (tokens per step over tokens per second of
a user). Its cost is assumed not to depend on what it accepts, with as many requests in flight; so is the time
that a request waits for its first token. At another length a' the recipe then has

    TPOT' = step / a',    request time' = TTFT + (OSL - 1) TPOT',    throughput' = throughput time / time'

since a closed loop serves concurrency × (ISL + OSL) / request time. Nothing of it was measured at a'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from mtpbench_analysis.curves.cells import Cell, Interval
from mtpbench_analysis.curves.curve import Curve, build_curves, pareto_front
from mtpbench_analysis.curves.curve_reader import CurveReader, interval_of
from mtpbench_analysis.curves.draws import draw_curve
from mtpbench_analysis.curves.errors import FloatArray
from mtpbench_analysis.curves.noise import find_noise
from mtpbench_analysis.curves.splines import Spline
from mtpbench_analysis.frame import CurvePoint

NoProjection = Literal[
    "no_speculation",
    "open_loop",
    "dynamic_depth",
    "drafts_in_some_steps",
    "mixed_depths",
    "depth_unknown",
    "acceptance_unknown",
    "acceptance_out_of_bounds",
]
"""Why a curve can't be moved to another acceptance length."""
NoBreakEven = Literal[
    "baseline_not_reached", "not_reached", "always_pays", "never_pays", "wide_gap", "unmeasured"
]
"""Why no length breaks even at a target: a side does not reach it, speculation pays with nothing accepted or
loses with all accepted, knots are too far apart, or a side is known there by its best point only."""
Bound = Literal["exact", "at_most", "at_least"]
_SCANNED, _DRAWN = 65, 17
"""Lengths from 1 to k + 1 that are looked at for a change of sign, and at which the noise is drawn."""
_LENGTH_ROUNDING = 1e-6
_NOT_MOVED = (
    *("acceptance_per_position", "acceptance_rel_se", "power_w_per_gpu", "power_source", "power_cap_w"),
    *("power_rel_se", "power_tput_correlation", "joules_per_token_rel_se", "interactivity_p99_tps"),
    *("interactivity_p99_low_tps", "interactivity_p99_high_tps", "e2el_p50_low_s", "e2el_p50_high_s"),
)
"""Figures of a run that nothing tells at another length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCosts:
    """The step costs of a drafting curve say what its recipes would do at another acceptance length.

    Args:
        draft_tokens: tokens that each step drafts; lengths lie from 1 to one more.
        waits_known: whether the time to first token of every run is known; where it is not, all of a
            request's time counts as decoding.
    """

    curve: Curve
    draft_tokens: int
    waits_known: bool

    @property
    def most(self) -> float:
        """Returns the longest acceptance length there is: everything drafted, and the bonus token."""
        return self.draft_tokens + 1.0

    @property
    def measured(self) -> tuple[float, float]:
        """Returns the lowest and the highest acceptance length of the curve's recipes, as measured."""
        lengths = [item.mean.acceptance_length or 0.0 for item in self.curve.measured]
        return min(lengths), max(lengths)

    def project(self, length: float) -> Curve:
        """Returns the whole curve as it would be at another acceptance length: a projection."""
        points = [_moved(run, length) for item in self.curve.measured for run in item.runs]
        (curve,) = build_curves(points, self.curve.grouping)
        return replace(curve, label=self.curve.label)

    def serves(self, length: float, target_tps: float) -> float:
        """Returns the projected throughput at or above an interactivity; NaN above the projected front."""
        points = [
            (_mean([one[0] for one in runs]), _mean([one[1] for one in runs]))
            for item in self.curve.measured
            for runs in [[_rates(run, length) for run in item.runs]]
        ]
        x, y = zip(*(points[i] for i in pareto_front(points)), strict=True)
        if target_tps > x[-1]:
            return float("nan")
        return float(Spline(x, y).at([max(target_tps, x[0])])[0])


def find_step_costs(curve: Curve, baseline: Curve | None = None) -> StepCosts | NoProjection:
    """Returns the step costs of a curve, or why its points tell none.

    Args:
        curve: what was measured.
        baseline: what it is set against, if anything; an open loop on either side tells nothing.
    """
    runs = [run for item in curve.measured for run in item.runs]
    reason = _why_none(runs)
    if reason is None and baseline is not None:
        is_open = any(run.is_open for item in baseline.measured for run in item.runs)
        reason = "open_loop" if is_open else None
    if reason is not None:
        return reason
    waits_known = all(decode_share(run) is not None for run in runs)
    return StepCosts(curve=curve, draft_tokens=runs[0].draft_tokens or 0, waits_known=waits_known)


def _why_none(runs: Sequence[CurvePoint]) -> NoProjection | None:
    if any(run.acceptance_mode == "off" or run.draft_tokens == 0 for run in runs):
        return "no_speculation"
    if any(run.is_open for run in runs):
        return "open_loop"
    if any(run.depth_rule in ("by_batch", "adaptive") for run in runs):
        return "dynamic_depth"
    if any(run.drafting_steps_only for run in runs):
        return "drafts_in_some_steps"
    depths = {run.draft_tokens for run in runs}
    if None in depths:
        return "depth_unknown"
    if len(depths) > 1:
        return "mixed_depths"
    lengths = [run.acceptance_length for run in runs]
    if None in lengths:
        return "acceptance_unknown"
    most = (runs[0].draft_tokens or 0) + 1
    if not all(1 - _LENGTH_ROUNDING <= (length or 0) <= most + _LENGTH_ROUNDING for length in lengths):
        return "acceptance_out_of_bounds"
    return None


def decode_share(run: CurvePoint) -> float | None:
    """Returns the share of a request's time after its first token; None where the time before is unknown.

    From the medians of E2EL and TTFT; without the former from OSL − 1 tokens at the median TPOT.
    """
    wait, whole = run.ttft_p50_s, run.e2el_p50_s
    if wait is None:
        return None
    if whole is not None and whole > wait:
        return (whole - wait) / whole
    if run.osl is None:
        return None
    decoding = (run.osl - 1) / run.interactivity_tps
    return decoding / (wait + decoding) if decoding > 0 else None


def _rates(run: CurvePoint, length: float) -> tuple[float, float]:
    """Returns a run's interactivity and throughput at another acceptance length."""
    gain = length / (run.acceptance_length or 1.0)
    share = decode_share(run)
    share = 1.0 if share is None else share
    return run.interactivity_tps * gain, run.tput_tps_per_gpu / (1 - share + share / gain)


def _moved(run: CurvePoint, length: float) -> CurvePoint:
    x, y = _rates(run, length)
    faster = y / run.tput_tps_per_gpu
    moved: dict[str, Any] = dict.fromkeys(_NOT_MOVED)
    for name, factor in (
        ("output_tps_per_gpu", faster),
        ("input_tps_per_gpu", faster),
        ("e2el_p50_s", 1 / faster),
    ):
        value = getattr(run, name)
        moved[name] = None if value is None else value * factor
    moved |= {"interactivity_tps": x, "tput_tps_per_gpu": y}
    return replace(run, acceptance_length=length, acceptance_mode="projected", **moved)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def project_reader(reader: CurveReader, costs: StepCosts, length: float) -> CurveReader:
    """Returns a reader of the curve at another acceptance length, with the same random numbers."""
    return CurveReader(
        curve=costs.project(length),
        economics=reader.economics,
        max_gap=reader.max_gap,
        confidence=reader.confidence,
        start_noise=reader.start_noise,
        stream=reader.stream,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakEven:
    """A break-even is the acceptance length at which a curve serves what its baseline does at a target.

    Args:
        acceptance_length: below it speculation does not pay there; None where no length is known.
        bound: `exact`, `at_most` (slower recipes of the curve, not measured, might pay with less) or
            `at_least` (the baseline's might serve more than its best point).
        reason: why there is none.
        interval: of an exact length; None where nothing tells the noise. An end at 1 or at k + 1 also stands
            for draws in which every length pays, or none.
    """

    target_tps: float
    acceptance_length: float | None = None
    bound: Bound = "exact"
    reason: NoBreakEven | None = None
    interval: Interval | None = None


def find_break_evens(
    baseline: CurveReader, reader: CurveReader, costs: StepCosts, cells: Sequence[Cell]
) -> tuple[BreakEven, ...]:
    """Returns the break-even of a curve at each target.

    Args:
        baseline: the baseline's curve with its noise.
        reader: the drafting curve with its own.
        costs: of `reader`'s curve.
        cells: the baseline's, one for each target.
    """
    found = [_break_even(costs, reader, cell) for cell in cells]
    if all(item.acceptance_length is None or item.bound != "exact" for item in found):
        return tuple(found)
    drawn = _drawn(baseline, reader, costs, [cell.target_tps for cell in cells])
    return tuple(
        _with_interval(item, drawn[:, at], reader, costs, cell)
        for at, (item, cell) in enumerate(zip(found, cells, strict=True))
    )


def _break_even(costs: StepCosts, reader: CurveReader, base: Cell) -> BreakEven:
    at = base.target_tps
    if base.wide_gap:
        return BreakEven(target_tps=at, reason="wide_gap")
    if base.tput_tps_per_gpu is None:
        return BreakEven(target_tps=at, reason="baseline_not_reached")
    served = base.tput_tps_per_gpu

    def pays(length: float) -> bool:
        return costs.serves(length, at) >= served

    scanned = np.geomspace(1.0, costs.most, _SCANNED).tolist()
    signs = [pays(length) for length in scanned]
    if not signs[-1]:
        return BreakEven(target_tps=at, reason=_why_never(costs, reader, at))
    losing = [i for i, sign in enumerate(signs) if not sign]
    if not losing:
        reason: NoBreakEven = "unmeasured" if base.state == "at_least" else "always_pays"
        return BreakEven(target_tps=at, reason=reason)
    length = _bisect(pays, scanned[losing[-1]], scanned[losing[-1] + 1])
    projected = project_reader(reader, costs, length)
    (cell,) = projected.cells([at])
    if cell.wide_gap:
        return BreakEven(target_tps=at, reason="wide_gap")
    # Where the projected front only just reaches the target it does so with more than is needed.
    is_jump = bool(np.isnan(costs.serves(length * (1 - 1e-7), at)))
    is_at_most = cell.state == "at_least" or is_jump
    if is_at_most and base.state == "at_least":
        return BreakEven(target_tps=at, reason="unmeasured")
    bound: Bound = "at_most" if is_at_most else "at_least" if base.state == "at_least" else "exact"
    return BreakEven(target_tps=at, acceptance_length=length, bound=bound)


def _why_never(costs: StepCosts, reader: CurveReader, target: float) -> NoBreakEven:
    (cell,) = project_reader(reader, costs, costs.most).cells([target])
    if cell.state == "not_reached":
        return "not_reached"
    if cell.wide_gap:
        return "wide_gap"
    return "unmeasured" if cell.state == "at_least" else "never_pays"


def _bisect(pays: Callable[[float], bool], low: float, high: float) -> float:
    """Returns the shortest length that pays between one that does not and one that does."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if pays(middle) else (middle, high)
    return high


def _drawn(
    baseline: CurveReader, reader: CurveReader, costs: StepCosts, targets: Sequence[float]
) -> FloatArray:
    """Returns (draws, targets) the break-even in each draw of the noise: 1 where every length pays, k + 1
    where none does, NaN where the baseline ends below the target.
    """
    lengths = np.geomspace(1.0, costs.most, _DRAWN)
    # Noise and shape are shares of the figures: they are those of the curve wherever it is moved to.
    noise = find_noise(costs.project(costs.measured[1]), reader.start_noise)
    base = np.log(baseline.drawn(targets))
    gains, starts, at_starts = [], [], []
    for length in lengths.tolist():
        moved = draw_curve(costs.project(length), noise, reader.shape, reader.stream)
        served = moved.read(targets)
        gains.append(np.where(np.isnan(served), -np.inf, np.log(served)) - base)
        # Interactivity goes with the length: so much shorter a one, and the front ends at the target.
        fastest, slowest_tput = (np.log(side)[:, None] for side in moved.fronts.ends())
        shorter = np.log(targets) - fastest
        starts.append(np.log(length) + shorter)
        at_starts.append(slowest_tput + shorter - base)
    roots = _last_rise(np.log(lengths), np.stack(gains), np.stack(starts), np.stack(at_starts))
    drawn: FloatArray = np.where(np.isnan(base), np.nan, np.clip(np.exp(roots), 1.0, costs.most))
    return drawn


def _last_rise(
    places: FloatArray, values: FloatArray, starts: FloatArray, at_starts: FloatArray
) -> FloatArray:
    """Returns where values rise to 0 for the last time: the first place where all are, the last where the
    last is below.

    Args:
        places: (places,) in rising order.
        values: (places, …) read there; −inf where there is none.
        starts: (places, …) where values begin, as told by each place that has one: between it and the place
            before it, if that has none.
        at_starts: (places, …) the values there.
    """
    roots = np.full(values.shape[1:], places[0])
    for i, (below, above) in enumerate(pairwise(values), 1):
        begins = ~np.isfinite(below)
        low, first = np.where(begins, starts[i], places[i - 1]), np.where(begins, at_starts[i], below)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(first < 0, first / (first - above), 0.0)
        roots = np.where((below < 0) & (above >= 0), low + (places[i] - low) * share, roots)
    rises: FloatArray = np.where(values[-1] < 0, places[-1], roots)
    return rises


def _with_interval(
    found: BreakEven, drawn: FloatArray, reader: CurveReader, costs: StepCosts, base: Cell
) -> BreakEven:
    if found.acceptance_length is None or found.bound != "exact":
        return found
    (cell,) = project_reader(reader, costs, found.acceptance_length).cells([found.target_tps])
    if cell.interval is None and base.interval is None:
        return found
    return replace(found, interval=interval_of(drawn, reader.confidence))
