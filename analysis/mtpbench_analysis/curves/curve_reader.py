"""Pure: one curve read at target interactivities, with what each number rests on and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mtpbench_analysis.curves.cells import DEFAULT_MAX_GAP, Cell, Interval, NoInterval, State
from mtpbench_analysis.curves.cost import Economics
from mtpbench_analysis.curves.curve import Curve, Measured
from mtpbench_analysis.curves.interpolate import Spline
from mtpbench_analysis.curves.noise import CurveDraws, FloatArray, Noise, draw_curve, find_noise

DEFAULT_CONFIDENCE = 0.95
_SAME_TPS = 1e-9


@dataclass(frozen=True, kw_only=True)
class CurveReader:
    """A curve that is about to be read.

    Args:
        curve: what was measured.
        economics: the constants for cost and megawatts, or None where the hardware has none.
        max_gap: knots whose throughputs differ by more than this factor leave a cell hardly known.
        confidence: of every interval.
        stream: tells this curve's random numbers from those of the curves beside it.
    """

    curve: Curve
    economics: Economics | None = None
    max_gap: float = DEFAULT_MAX_GAP
    confidence: float = DEFAULT_CONFIDENCE
    stream: int = 0

    @cached_property
    def noise(self) -> tuple[Noise | None, ...]:
        """The error of each measured point of the curve, in its order."""
        return find_noise(self.curve)

    @property
    def is_sure(self) -> bool:
        """Whether the error of every knot is known: only then do draws say how the whole curve might lie."""
        return all(
            one is not None
            for one, item in zip(self.noise, self.curve.measured, strict=True)
            if any(item is knot for knot in self.curve.front)
        )

    @cached_property
    def draws(self) -> CurveDraws | None:
        """The curve as it might have come out; None where no error is known."""
        if not any(self.noise):
            return None
        return draw_curve(self.curve, self.noise, self.stream)

    @cached_property
    def spline(self) -> Spline:
        """The curve through its front's knots."""
        return Spline([knot.x for knot in self.curve.front], [knot.y for knot in self.curve.front])

    def serves(self, targets_tps: Sequence[float] | FloatArray) -> FloatArray:
        """(targets,) throughput at or above each interactivity; NaN above the front."""
        where = np.asarray(targets_tps, np.float64)
        low, high = self.curve.range_tps
        values: FloatArray = np.where(where > high, np.nan, self.spline.at(np.clip(where, low, high)))
        return values

    def drawn(self, targets_tps: Sequence[float] | FloatArray) -> FloatArray:
        """(draws, targets) what `serves` might have been; a single row where no error is known."""
        if self.draws is None:
            return self.serves(targets_tps)[None, :]
        return self.draws.read(targets_tps)

    def cells(self, targets_tps: Sequence[float], drawn: FloatArray | None = None) -> tuple[Cell, ...]:
        """The curve at each target; throughput is interpolated, everything else derived from it.

        Args:
            targets_tps: where to read it.
            drawn: (draws, targets) what `drawn` gives there, where the caller has it already.
        """
        drawn = self.drawn(targets_tps) if drawn is None else drawn
        return tuple(self._cell(target, drawn[:, i]) for i, target in enumerate(targets_tps))

    def _cell(self, target: float, drawn: FloatArray) -> Cell:
        state, tput, runs_at, lower, upper = self._place(target)
        wide = state == "interpolated" and lower is not None and upper is not None
        wide = wide and lower.y / upper.y > self.max_gap  # type: ignore[union-attr]
        knots = [knot for knot in (lower, upper) if knot is not None]
        interval, basis = None, None
        reason: NoInterval = "not_reached"
        if tput is not None:
            interval, reason, basis = self._interval(knots, drawn)
        return Cell(
            target_tps=target,
            state=state,
            tput_tps_per_gpu=tput,
            runs_at_tps=runs_at,
            lower=lower,
            upper=upper,
            wide_gap=wide,
            interval=interval,
            interval_basis=basis,
            no_interval=None if interval else reason,
            economics=self.economics,
        )

    def _place(
        self, target: float
    ) -> tuple[State, float | None, float | None, Measured | None, Measured | None]:
        front = self.curve.front
        for knot in front:
            if abs(knot.x - target) <= _SAME_TPS * target:
                return "measured", knot.y, knot.x, knot, knot
        if target < front[0].x:
            return "at_least", front[0].y, front[0].x, None, front[0]
        if target > front[-1].x:
            return "not_reached", None, None, front[-1], None
        right = next(i for i, knot in enumerate(front) if knot.x > target)
        return "interpolated", float(self.spline.at([target])[0]), target, front[right - 1], front[right]

    def _interval(
        self, knots: Sequence[Measured], drawn: FloatArray
    ) -> tuple[Interval | None, NoInterval, str | None]:
        known = [
            one
            for one, item in zip(self.noise, self.curve.measured, strict=True)
            if any(item is knot for knot in knots)
        ]
        bases = {one.basis for one in known if one is not None}
        if not bases or None in known:
            return None, "single_run", None
        interval = interval_of(drawn, self.confidence)
        basis = "blocks" if "blocks" in bases else "repeats"
        return interval, "may_end_below", basis


def interval_of(drawn: FloatArray, confidence: float) -> Interval | None:
    """The central interval of some draws; None where more than its tail of them have no value."""
    known = drawn[np.isfinite(drawn)]
    tail = (1 - confidence) / 2
    if len(drawn) - len(known) > tail * len(drawn):
        return None
    low, high = np.quantile(known, (tail, 1 - tail))
    return Interval(low=float(low), high=float(high), confidence=confidence)
