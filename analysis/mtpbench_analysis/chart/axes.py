"""Pure: the axes of charts: their range, their round ticks, the place of a value, the text of a tick."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

LOG_ABOVE = 20.0
"""An axis is logarithmic where the highest value is more than 20 times the lowest: it would look like 0."""
LARGEST = 1e15
"""A larger value is a fault of its source; beside it all other values would look equal."""
_SMALLEST_STEP = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A linear or logarithmic axis.

    Args:
        low, high: the ends of the axis; never equal.
        log: whether it is logarithmic; `low` is positive then.
        ticks: the values with a label, rising.
    """

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Returns how far along the axis a value lies: 0 at `low`, 1 at `high`, never outside."""
        if self.log:
            value, low, high = (math.log(max(v, self.low)) for v in (value, self.low, self.high))
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / (high - low)))

    @property
    def labels(self) -> tuple[str, ...]:
        """The texts of the ticks in a terminal."""
        return tuple(short_tick(tick) for tick in self.ticks)


def nice_steps(highest: float) -> tuple[float, ...]:
    """Returns 0 and round numbers up to the first that is not below `highest`: steps of 1, 2 or 5 × 10ⁿ."""
    step = _round_step(highest / 6)
    return tuple(step * i for i in range(math.ceil(highest / step - 1e-9) + 1))


def drawable(value: float) -> bool:
    """Returns whether an axis can show a value."""
    return math.isfinite(value) and 0 <= value <= LARGEST


def linear_axis(values: Sequence[float], count: int, *, from_zero: bool) -> Axis:
    """Returns a linear axis with round ends around the values.

    Args:
        values: drawable values; without any the axis goes from 0 to 1.
        count: the approximate number of ticks.
        from_zero: whether the axis begins at 0 whatever the values are.
    """
    high = max(values, default=1.0)
    low = 0.0 if from_zero else min(values, default=0.0)
    if high - low < max(_SMALLEST_STEP, _SMALLEST_STEP * high):
        # All values are equal: leave some room on both sides.
        spread = high / 10 if high > _SMALLEST_STEP else 1.0
        low, high = max(0.0, low - spread), high + spread
    step = _round_step((high - low) / max(1, count))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(step * i for i in range(first, last + 1))
    return Axis(low=ticks[0], high=ticks[-1], log=False, ticks=ticks)


def throughput_axis(values: Sequence[float], count: int) -> Axis:
    """Returns a linear axis from 0, or a logarithmic one where the values are too far apart for that."""
    low, high = min(values, default=1.0), max(values, default=1.0)
    if low < _SMALLEST_STEP or high / low <= LOG_ABOVE:
        return linear_axis(values, count, from_zero=True)
    low, high = low / 1.1, high * 1.1
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= count + 1:
            break
    every = max(1, math.ceil(len(ticks) / (count + 1)))
    return Axis(low=low, high=high, log=True, ticks=tuple(ticks[::every]))


def _round_step(rough: float) -> float:
    """Returns the smallest of 1, 2 or 5 × 10ⁿ that is at least `rough`."""
    magnitude = 10.0 ** math.floor(math.log10(rough))
    return next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough * (1 - 1e-9))


def tick(value: float) -> str:
    """Returns a tick's text in a picture or on the page: `0.00001`, `1,500`, `2.5M`; never an exponent."""
    rounded = Decimal(f"{value:.6g}")
    for unit, sign in ((10**12, "T"), (10**6, "M")):
        if rounded >= unit:
            return f"{rounded / unit:,f}{sign}"
    return f"{rounded:,f}"


def short_tick(value: float) -> str:
    """Returns a tick's text in a terminal, at most nine characters."""
    if value == 0:
        return "0"
    if value >= 1e6 or value < 1e-3:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"
