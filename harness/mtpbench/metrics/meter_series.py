"""Pure: the readings of one meter over time, and their figures over a window."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from mtpbench.metrics.request_table import Floats
from mtpbench.metrics.window import LEAST_READINGS, Window
from mtpbench.records import PowerSample, Reason, known

LEAST_W, MOST_W = 2.0, 10_000.0
"""No GPU that is on draws less, and none is built to draw more; a figure in another unit lies outside."""
MOST_OF_LIMIT, MOST_OF_LIMIT_AT_ONCE = 1.1, 2.0
"""Nor does one draw more than a tenth above its power limit for long: meters are good to 5% (NVML, of
`nvmlDeviceGetPowerUsage`), and power management acts on means. A single reading may be a spike."""


@dataclass(frozen=True, slots=True)
class MeterSeries:
    """A meter series holds values at rising times; between two readings the value is a straight line."""

    times: Floats
    values: Floats

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float | None]]) -> Self:
        """Builds the series of those pairs of time and value that are known, in the order of time."""
        readings = [
            (time_s, value) for time_s, value in pairs if value is not None and math.isfinite(time_s + value)
        ]
        times, values = np.array(readings, np.float64).reshape(-1, 2).T
        return cls(times, values)

    def __len__(self) -> int:
        return len(self.times)

    @property
    def span_s(self) -> float:
        """The time from the first reading to the last."""
        return float(self.times[-1] - self.times[0])

    def coverage_fault(self, window: Window, max_gap_s: float) -> str | None:
        """Returns the reason code of readings that do not cover the window; None if they do.

        `power_not_covered`: they do not reach over both edges; `power_gap`: there is a hole inside.
        """
        if self.times[0] > window.start_s or self.times[-1] < window.end_s:
            return "power_not_covered"
        touching = (self.times[1:] > window.start_s) & (self.times[:-1] < window.end_s)
        return "power_gap" if (np.diff(self.times)[touching] > max_gap_s).any() else None

    def touching(self, window: Window) -> MeterSeries:
        """Returns the readings in the window, with the one before and the one after it."""
        steps = np.flatnonzero((self.times[1:] > window.start_s) & (self.times[:-1] < window.end_s))
        return MeterSeries(self.times[steps[0] : steps[-1] + 2], self.values[steps[0] : steps[-1] + 2])

    def count(self, window: Window) -> int:
        """Returns how many readings lie in the window."""
        return int(((self.times >= window.start_s) & (self.times <= window.end_s)).sum())

    def longest_still_s(self) -> float:
        """Returns the longest time without a change of the value."""
        moved = self.times[1:][np.diff(self.values) != 0]
        return float(np.diff(np.concatenate((self.times[:1], moved, self.times[-1:]))).max())

    def at_moves(self) -> MeterSeries:
        """Returns the readings at which the value had just changed, with the first and the last.

        A counter that is updated more slowly than it is read is a staircase: a line through the beginnings of
        its steps follows the energy, a line through every reading is wrong by up to a step at each edge.
        """
        changed = np.concatenate(([True], np.diff(self.values) != 0))
        changed[-1] = True
        return MeterSeries(self.times[changed], self.values[changed])

    def step(self, window: Window) -> float:
        """Returns the median step of a value that sometimes stands still in the window; 0 if it never does.

        A value that changed at every reading may be updated much more often than it is read.
        """
        steps = np.diff(self.touching(window).values)
        return float(np.median(steps[steps != 0])) if (steps == 0).any() and (steps != 0).any() else 0.0

    def difference(self, window: Window) -> float:
        """Returns the value at the window's end minus the value at its start."""
        return float(
            np.interp(window.end_s, self.times, self.values)
            - np.interp(window.start_s, self.times, self.values)
        )

    def differences(self, blocks: Sequence[Window]) -> Floats | None:
        """Returns (b,) the differences over some neighbouring blocks; None if there are none, or too
        few readings lie in them."""
        if not blocks:
            return None
        edges_s = [blocks[0].start_s, *(block.end_s for block in blocks)]
        if self.count(Window(start_s=edges_s[0], end_s=edges_s[-1])) < LEAST_READINGS * len(blocks):
            return None
        return np.diff(np.interp(edges_s, self.times, self.values))

    def integral(self) -> MeterSeries:
        """Returns the integral of a power since the first reading, in joules."""
        steps = np.diff(self.times) * (self.values[1:] + self.values[:-1]) / 2
        return MeterSeries(self.times, np.concatenate(([0.0], np.cumsum(steps))))


def integrate(power: MeterSeries, window: Window) -> float:
    """Computes the integral of power over the window, in joules."""
    times = power.times
    inner = times[(times > window.start_s) & (times < window.end_s)]
    at = np.concatenate(([window.start_s], inner, [window.end_s]))
    return float(np.trapezoid(np.interp(at, times, power.values), at))


def most_at_once_w(limit_w: float | None) -> float:
    """Returns the most that a single reading of a GPU may say, by its power limit where that is known."""
    return MOST_W if limit_w is None else min(MOST_W, MOST_OF_LIMIT_AT_ONCE * limit_w)


def implausible(
    name: str, used_j: float, edges_j: float, window: Window, limit_w: float | None
) -> Reason | None:
    """Returns why a GPU can't have used so much over the window, or so little; None where it can."""
    mean_w, least_mean_w = used_j / window.duration_s, (used_j - edges_j) / window.duration_s
    detail = f"{name} would have drawn {mean_w:,.4g} W on average"
    if known(mean_w, LEAST_W, MOST_W) is None:
        return Reason(code="power_implausible", detail=detail)
    if limit_w is not None and least_mean_w > MOST_OF_LIMIT * limit_w:
        return Reason(code="power_implausible", detail=f"{detail}; its power limit is {limit_w:,.4g} W")
    return None


def refused(readings: list[PowerSample], window: Window, most_w: float = MOST_W) -> str | None:
    """Returns the reason code of powers in the window most of which none can be; None where most can."""
    inside = [r.power_w for r in readings if window.start_s <= r.time_s <= window.end_s]
    said = [power_w for power_w in inside if power_w is not None]
    odd = [power_w for power_w in said if not LEAST_W <= power_w <= most_w]
    if 2 * len(odd) <= len(said):
        return None
    return "power_implausible" if any(odd) else "power_zero"
