"""Pure: one curve read at target interactivities, with what each number rests on and how sure it is.

Between the knots of its front a curve is the monotone cubic that d3's curveMonotoneX draws. Source:
M. Steffen, A simple method for monotonic interpolation in one dimension, Astron. Astrophys. 239 (1990);
d3-shape, curve/monotone.js.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from mtpbench_analysis.curves.cells import DEFAULT_MAX_GAP, Cell, Interval
from mtpbench_analysis.curves.cost import Economics
from mtpbench_analysis.curves.curve import Curve, Measured
from mtpbench_analysis.curves.noise import CurveDraws, FloatArray, IntArray, Noise, draw_curve, find_noise

DEFAULT_CONFIDENCE = 0.95
_SAME_TPS = 1e-9


def slopes(xs: Sequence[float], ys: Sequence[float]) -> FloatArray:
    """Returns Steffen's slope at each knot, with d3's ends.

    Args:
        xs: strictly rising, at least two.
        ys: as many.
    """
    x, y = np.asarray(xs, dtype=np.float64), np.asarray(ys, dtype=np.float64)
    step = np.diff(x)
    secant = np.diff(y) / step
    slope = np.zeros_like(x)
    if len(x) > 2:
        sign = np.where(secant < 0, -1.0, 1.0)
        mean = (secant[:-1] * step[1:] + secant[1:] * step[:-1]) / (step[:-1] + step[1:])
        smallest = np.minimum(np.minimum(np.abs(secant[:-1]), np.abs(secant[1:])), np.abs(mean) / 2)
        slope[1:-1] = (sign[:-1] + sign[1:]) * smallest
    slope[0] = (3 * secant[0] - slope[1]) / 2
    slope[-1] = (3 * secant[-1] - slope[-2]) / 2
    return slope


class Spline:
    """A spline is the curve through the knots; it is read at many places at once.

    One knot is a constant; two are joined by a straight line, because d3's end slopes bend a curve that
    nothing but its two ends is known of (593.75 at the middle of (0, 0)-(100, 1000)). A value never leaves
    the range of its two knots.

    Args:
        xs: strictly rising interactivities (tok/s/user).
        ys: their throughputs.

    Raises:
        ValueError: no knots, or xs that do not rise.
    """

    def __init__(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        x, y = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
        if len(x) == 0 or len(x) != len(y):
            raise ValueError(f"{len(x)} interactivities and {len(y)} throughputs make no curve")
        if np.any(np.diff(x) <= 0):
            raise ValueError("the knots' interactivities must rise strictly")
        self._x, self._y = x, y
        self._slope = slopes(xs, ys) if len(x) > 2 else None

    def at(self, places: Sequence[float] | FloatArray) -> FloatArray:
        """Returns the curve at places within its knots.

        Raises:
            ValueError: a place outside them (nothing is extrapolated).
        """
        where, x = np.asarray(places, np.float64), self._x
        if where.size and (where.min() < x[0] or where.max() > x[-1]):
            raise ValueError(f"nothing is known outside {x[0]:g} … {x[-1]:g}")
        if self._slope is None:
            line: FloatArray = np.interp(where, x, self._y)
            return line
        left = np.clip(np.searchsorted(x, where, side="right") - 1, 0, len(x) - 2)
        return _hermite(x, self._y, self._slope, left, where)


def _hermite(
    x: FloatArray, y: FloatArray, slope: FloatArray, left: IntArray, where: FloatArray
) -> FloatArray:
    right = left + 1
    step = x[right] - x[left]
    t = (where - x[left]) / step
    value = (
        y[left] * (1 + 2 * t) * (1 - t) ** 2
        + slope[left] * step * t * (1 - t) ** 2
        + y[right] * t**2 * (3 - 2 * t)
        - slope[right] * step * t**2 * (1 - t)
    )
    # Rounding may carry a value past its knot by an ulp; between two knots a monotone curve stays between.
    clipped: FloatArray = np.clip(value, np.minimum(y[left], y[right]), np.maximum(y[left], y[right]))
    return clipped


@dataclass(frozen=True, kw_only=True)
class CurveReader:
    """A curve reader reads one curve at target interactivities, with its noise.

    Args:
        curve: what was measured.
        economics: the constants for cost and megawatts, or None where the hardware has none.
        max_gap: knots whose throughputs differ by more than this factor leave a cell hardly known.
        confidence: of every interval.
        stream: the number of the curve's own stream of random numbers.
    """

    curve: Curve
    economics: Economics | None = None
    max_gap: float = DEFAULT_MAX_GAP
    confidence: float = DEFAULT_CONFIDENCE
    stream: int = 0

    @cached_property
    def noise(self) -> tuple[Noise | None, ...]:
        """Returns the error of each measured point of the curve, in its order."""
        return find_noise(self.curve)

    @property
    def is_sure(self) -> bool:
        """Returns whether the error of every knot is known: only then do draws say how the whole curve might
        lie.
        """
        return None not in self._noise_of(self.curve.front)

    def _noise_of(self, knots: Sequence[Measured]) -> list[Noise | None]:
        return [
            noise
            for noise, item in zip(self.noise, self.curve.measured, strict=True)
            if any(item is knot for knot in knots)
        ]

    @cached_property
    def draws(self) -> CurveDraws | None:
        """Returns the curve as it might have come out; None where no error is known."""
        if not any(self.noise):
            return None
        return draw_curve(self.curve, self.noise, self.stream)

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
        """Returns (draws, targets) what `serves` gives in each draw; a single row where no error is known."""
        if self.draws is None:
            return self.serves(targets_tps)[None, :]
        return self.draws.read(targets_tps)

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
        wide = cell.knot_ratio is not None and cell.knot_ratio > self.max_gap
        return replace(cell, wide_gap=wide, **self._interval(cell.knots, drawn))

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

    def _interval(self, knots: Sequence[Measured], drawn: FloatArray) -> dict[str, Any]:
        """Returns the fields of a cell that say what its interval is, or why there is none."""
        errors = self._noise_of(knots)
        bases = {noise.basis for noise in errors if noise is not None}
        if not bases or None in errors:
            return {"no_interval": "single_run"}
        interval = interval_of(drawn, self.confidence)
        return {
            "interval": interval,
            "interval_basis": "blocks" if "blocks" in bases else "repeats",
            "no_interval": None if interval else "may_end_below",
        }


def interval_of(drawn: FloatArray, confidence: float) -> Interval | None:
    """Returns the central interval of some draws; None where more than its tail of them have no value."""
    finite = drawn[np.isfinite(drawn)]
    tail = (1 - confidence) / 2
    if len(drawn) - len(finite) > tail * len(drawn):
        return None
    low, high = np.quantile(finite, (tail, 1 - tail))
    return Interval(low=float(low), high=float(high), confidence=confidence)
