"""Pure: one curve read at target interactivities, with what each number rests on and how sure it is.

Between the knots of its front a curve is the monotone cubic that d3's curveMonotoneX draws. Source:
M. Steffen, A simple method for monotonic interpolation in one dimension, Astron. Astrophys. 239 (1990);
d3-shape, curve/monotone.js.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mtpbench_analysis.curves.cells import DEFAULT_MAX_GAP, Cell, Interval, NoInterval, State
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
        stream: tells this curve's random numbers from those of the curves beside it.
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
        errors = self._noise_of(knots)
        bases = {noise.basis for noise in errors if noise is not None}
        if not bases or None in errors:
            return None, "single_run", None
        interval = interval_of(drawn, self.confidence)
        basis = "blocks" if "blocks" in bases else "repeats"
        return interval, "may_end_below", basis


def interval_of(drawn: FloatArray, confidence: float) -> Interval | None:
    """Returns the central interval of some draws; None where more than its tail of them have no value."""
    finite = drawn[np.isfinite(drawn)]
    tail = (1 - confidence) / 2
    if len(drawn) - len(finite) > tail * len(drawn):
        return None
    low, high = np.quantile(finite, (tail, 1 - tail))
    return Interval(low=float(low), high=float(high), confidence=confidence)
