"""Pure: one curve read at target interactivities, with what each number rests on and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from mtpbench_analysis.curves.cells import DEFAULT_MAX_GAP, Cell, Held, Interval, Span
from mtpbench_analysis.curves.cost import Economics
from mtpbench_analysis.curves.curve import Curve, Measured
from mtpbench_analysis.curves.draws import DRAWS, CurveDraws, draw_curve
from mtpbench_analysis.curves.errors import START_NOISE, FloatArray
from mtpbench_analysis.curves.noise import CurveNoise, Noise, find_noise, find_power_errors
from mtpbench_analysis.curves.shape import BoolArray, Shape, find_shape
from mtpbench_analysis.curves.splines import Spline

DEFAULT_CONFIDENCE = 0.95
_SAME_TPS = 1e-9
_POWER_SEED, _GAP_SEED = 20261130, 20261131


@dataclass(frozen=True, kw_only=True)
class CurveReader:
    """A curve reader reads one curve at target interactivities, with its noise.

    Args:
        curve: what was measured.
        economics: the constants for cost and megawatts, or None where the hardware has none.
        max_gap: knots whose throughputs differ by more than this factor leave a cell hardly known.
        confidence: of every interval.
        start_noise: how far two starts of one server are taken to differ, as a share.
        stream: the number of the curve's own stream of random numbers.
    """

    curve: Curve
    economics: Economics | None = None
    max_gap: float = DEFAULT_MAX_GAP
    confidence: float = DEFAULT_CONFIDENCE
    start_noise: float = START_NOISE
    stream: int = 0

    @cached_property
    def noise(self) -> CurveNoise:
        """Returns the error of each measured point of the curve, in its order, and that of its starts."""
        return find_noise(self.curve, self.start_noise)

    @cached_property
    def shape(self) -> Shape:
        """Returns how far the curve may run from its spline."""
        return find_shape(self.curve, self.noise)

    @property
    def is_sure(self) -> bool:
        """Returns whether the error of every knot's runs is known: only then do draws say all of how the
        curve might lie.
        """
        return None not in self._noise_of(self.curve.front)

    def _noise_of(self, knots: Sequence[Measured]) -> list[Noise | None]:
        return [
            noise
            for noise, item in zip(self.noise.runs, self.curve.measured, strict=True)
            if any(item is knot for knot in knots)
        ]

    @cached_property
    def draws(self) -> CurveDraws:
        """Returns the curve as it might have come out, and as it may run between its knots."""
        return draw_curve(self.curve, self.noise, self.shape, self.stream)

    @cached_property
    def spline(self) -> Spline:
        """Returns the curve through its front's knots."""
        return Spline([knot.x for knot in self.curve.front], [knot.y for knot in self.curve.front])

    def serves(self, targets_tps: Sequence[float] | FloatArray) -> FloatArray:
        """Returns (targets,) the throughput at or above each interactivity; NaN above the front."""
        where = np.asarray(targets_tps, np.float64)
        low, high = self.curve.range_tps
        values: FloatArray = np.where(where > high, np.nan, self.spline.at(np.clip(where, low, high)))
        return values

    def drawn(self, targets_tps: Sequence[float] | FloatArray) -> FloatArray:
        """Returns (draws, targets) what `serves` gives in each draw.

        Over a wide gap a draw gives anything between the knots.
        """
        drawn = self.draws.read(targets_tps)
        wide, lowest, highest = self._wide_gaps(targets_tps)
        if not wide.any():
            return drawn
        anything = np.random.default_rng([_GAP_SEED, self.stream]).random((len(drawn), 1))
        spread: FloatArray = np.where(wide, lowest * (highest / lowest) ** anything, drawn)
        return spread

    def bounds(self, targets_tps: Sequence[float] | FloatArray) -> tuple[FloatArray, FloatArray]:
        """Returns the lowest and the highest (targets,) that the curve may serve: what `serves` gives, over a
        wide gap its knots' throughputs.
        """
        served = self.serves(targets_tps)
        wide, lowest, highest = self._wide_gaps(targets_tps)
        return np.where(wide, lowest, served), np.where(wide, highest, served)

    def is_wide(self, targets_tps: Sequence[float] | FloatArray) -> BoolArray:
        """Returns (targets,) whether each target lies in a wide gap."""
        return self._wide_gaps(targets_tps)[0]

    def _wide_gaps(
        self, targets_tps: Sequence[float] | FloatArray
    ) -> tuple[BoolArray, FloatArray, FloatArray]:
        """Returns whether each target lies in a wide gap, and the throughputs of the knots around it."""
        targets = np.asarray(targets_tps, np.float64)
        x, y = np.array([(knot.x, knot.y) for knot in self.curve.front]).T
        right = np.searchsorted(x, targets * (1 + _SAME_TPS), side="right")
        inside = (right > 0) & (right < len(x))
        left, right = np.where(inside, right - 1, 0), np.where(inside, right, 0)
        at_knot = np.abs(x[left] - targets) <= _SAME_TPS * targets
        wide: BoolArray = (y[left] / y[right] > self.max_gap) & ~at_knot
        return wide, y[right], y[left]

    def cells(self, targets_tps: Sequence[float], drawn: FloatArray | None = None) -> tuple[Cell, ...]:
        """Returns the curve at each target; throughput is interpolated, everything else derived from it.

        Args:
            targets_tps: where to read it.
            drawn: (draws, targets) what `drawn` gives there, where the caller has it already.
        """
        drawn = self.drawn(targets_tps) if drawn is None else drawn
        return tuple(self._cell(target, drawn[:, i]) for i, target in enumerate(targets_tps))

    def _cell(self, target: float, drawn: FloatArray) -> Cell:
        cell = self._place(target)
        if cell.state == "not_reached":
            return replace(cell, no_interval="not_reached")
        if cell.knot_ratio is not None and cell.knot_ratio > self.max_gap:
            cell = replace(cell, tput_tps_per_gpu=None, wide_gap=True, no_interval="wide_gap")
        else:
            cell = replace(cell, **self._interval(cell, drawn))
        return replace(cell, metered_joules_per_token=self._joules(cell, drawn))

    def _place(self, target: float) -> Cell:
        """Returns the cell without its interval: where the target lies on the front, and the value there."""
        front, at = self.curve.front, partial(Cell, target_tps=target, economics=self.economics)
        for knot in front:
            if abs(knot.x - target) <= _SAME_TPS * target:
                return at(
                    state="measured", tput_tps_per_gpu=knot.y, runs_at_tps=knot.x, lower=knot, upper=knot
                )
        if target < front[0].x:
            best = front[0]
            return at(state="at_least", tput_tps_per_gpu=best.y, runs_at_tps=best.x, upper=best)
        if target > front[-1].x:
            return at(state="not_reached", lower=front[-1])
        right = next(i for i, knot in enumerate(front) if knot.x > target)
        return at(
            state="interpolated",
            tput_tps_per_gpu=float(self.spline.at([target])[0]),
            runs_at_tps=target,
            lower=front[right - 1],
            upper=front[right],
        )

    def _interval(self, cell: Cell, drawn: FloatArray) -> dict[str, Any]:
        """Returns the fields of a cell that say what its interval is and holds, or why there is none.

        Between two knots the shape is in doubt whatever is known of runs; of a single run at a knot nothing
        but what starts are assumed to do would be.
        """
        errors = self._noise_of(cell.knots)
        is_between = cell.state == "interpolated"
        if None in errors and not is_between:
            return {"no_interval": "single_run"}
        held: set[Held] = {noise.basis for noise in errors if noise is not None and None not in errors}
        starts = self.noise.starts
        if starts.basis != "assumed" or starts.sd:
            held.add("assumed_starts" if starts.basis == "assumed" else "starts")
        if is_between:
            held.add("shape")
        interval = interval_of(drawn, self.confidence)
        no_interval = None if interval else "may_end_below"
        return {"interval": interval, "held": frozenset(held), "no_interval": no_interval}

    def _joules(self, cell: Cell, drawn: FloatArray) -> Span | None:
        """Returns what a token takes in metered joules, over the throughputs that the cell may have."""
        power, tput = cell.metered_w_per_gpu, cell.tput_tps_per_gpu
        if power is None:
            return None
        if cell.tput_range is not None:
            return Span(low=power.low / cell.tput_range.high, high=power.high / cell.tput_range.low)
        if tput is None:
            return None
        if cell.interval is None:
            return Span(low=power.low / tput, high=power.high / tput)
        errors = [self._power_errors[self.curve.place_of(knot)] for knot in cell.knots]
        known = [error for error in errors if error is not None]
        joules = interval_of(self._watts(power, max(known, default=None)) / drawn, self.confidence)
        return None if joules is None else Span(low=joules.low, high=joules.high)

    @cached_property
    def _power_errors(self) -> tuple[float | None, ...]:
        return find_power_errors(self.curve)

    def _watts(self, power: Span, rel_se: float | None) -> FloatArray:
        """Returns (draws,) powers that a target may have: anything between its knots' as metered.

        Where nothing tells how far a meter's mean may be off, it is taken as it was read.
        """
        random = np.random.default_rng([_POWER_SEED, self.stream])
        between = random.uniform(np.log(power.low), np.log(power.high), DRAWS)
        metered = 0.0 if rel_se is None else rel_se * random.standard_normal(DRAWS)
        watts: FloatArray = np.exp(between + metered)
        return watts


def interval_of(drawn: FloatArray, confidence: float) -> Interval | None:
    """Returns the central interval of some draws; None where more than its tail of them have no value."""
    finite = drawn[np.isfinite(drawn)]
    tail = (1 - confidence) / 2
    if len(drawn) - len(finite) > tail * len(drawn):
        return None
    low, high = np.quantile(finite, (tail, 1 - tail))
    return Interval(low=float(low), high=float(high), confidence=confidence)
