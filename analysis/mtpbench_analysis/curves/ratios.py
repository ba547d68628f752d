"""Pure: what one curve has over another at one target, or why there is no such number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mtpbench_analysis.curves.cells import Cell, Interval, Span

Bound = Literal["exact", "at_least", "at_most", "best_points"]
EQUAL = 0.005
"""A ratio nearer to 1 than this is shown as 1.00×: nobody who reads it sees a winner."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A gap lies between two neighbouring knots that are too far apart in throughput for a ratio.

    Args:
        knot_ratio: throughput of the lower knot over that of the upper one.
        limit: the largest such factor at which a ratio is given.
    """

    knot_ratio: float
    limit: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """A ratio is the throughput of a curve over the baseline's at one target, or the reason why there is
    none.

    Args:
        bound: `exact` (both sides read at the target), `at_least` or `at_most` (the curve, or the
            baseline, is only known by its best point, which does better than the target), `best_points`
            (both are).
        withheld: the gap because of which `value` is None; where there is neither, a side is not reached.
        interval: of the value, which holds of each side what that side's interval holds; None where neither
            has one.
        envelope: lowest and highest ratio that falling curves through the same knots allow.
    """

    value: float | None
    bound: Bound = "exact"
    withheld: Gap | None = None
    interval: Interval | None = None
    envelope: tuple[float, float] | None = None

    @property
    def not_reached(self) -> bool:
        """Returns whether there is no ratio because one side does not reach the target."""
        return self.value is None and self.withheld is None

    @property
    def is_equal(self) -> bool:
        """Returns whether both sides serve the same, to what is shown; a bound leaves that open."""
        is_known = self.value is not None and self.bound in ("exact", "best_points")
        return is_known and abs((self.value or 0.0) - 1) < EQUAL

    @property
    def lower_cost(self) -> float | None:
        """Returns the share of the baseline's cost per token that is saved: 1 − 1/ratio; never above 1.

        Negative where the curve costs more.
        """
        return None if self.value is None else 1 - 1 / self.value


def ratio_of(cell: Cell, base: Cell, max_gap: float) -> Ratio:
    """Returns what a cell serves over what another one does at the same target.

    Args:
        cell: of one curve.
        base: of the other.
        max_gap: knots whose throughputs differ by more than this factor are no ground for a ratio.
    """
    if "not_reached" in (cell.state, base.state):
        return Ratio(value=None)
    envelope = _envelope(cell, base)
    for side in (cell, base):
        if side.wide_gap and side.knot_ratio is not None:
            gap = Gap(knot_ratio=side.knot_ratio, limit=max_gap)
            return Ratio(value=None, withheld=gap, envelope=envelope)
    if cell.tput_tps_per_gpu is None or base.tput_tps_per_gpu is None:
        return Ratio(value=None)
    bounds: dict[tuple[bool, bool], Bound] = {
        (False, False): "exact",
        (True, False): "at_least",
        (False, True): "at_most",
        (True, True): "best_points",
    }
    bound = bounds[cell.state == "at_least", base.state == "at_least"]
    return Ratio(value=cell.tput_tps_per_gpu / base.tput_tps_per_gpu, bound=bound, envelope=envelope)


def _envelope(cell: Cell, base: Cell) -> tuple[float, float] | None:
    if cell.envelope is None or base.envelope is None:
        return None
    return cell.envelope[0] / base.envelope[1], cell.envelope[1] / base.envelope[0]


def energy_ratio_of(cell: Cell, base: Cell) -> Span | None:
    """Returns the metered joules for an output token over the other cell's.

    None where a cell has none or lies in a wide gap, or where the two were metered differently.
    """
    ours, theirs = cell.metered_joules_per_output_token, base.metered_joules_per_output_token
    if ours is None or theirs is None or cell.wide_gap or base.wide_gap or cell.meters != base.meters:
        return None
    return Span(low=ours.low / theirs.high, high=ours.high / theirs.low)
