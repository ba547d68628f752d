"""Pure: what one curve has over another, at one target or for one recipe, or why there is no such number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mtpbench_analysis.curves.cells import Cell, Interval, Span
from mtpbench_analysis.curves.curve import Curve, Measured
from mtpbench_analysis.frame import LOAD_FIELDS

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


_RECIPE = ("topology", *LOAD_FIELDS, "gpus")


@dataclass(frozen=True, kw_only=True, slots=True)
class Twins:
    """Twins are one recipe (topology, concurrency, GPUs) that both a curve and its baseline measured.

    `gain_per_accepted` is the gain in interactivity over the acceptance length: 1 would mean that every
    accepted draft is a whole step saved, which is the ideal; what is missing went into drafting, verifying
    and larger steps. NULL where the acceptance length is unknown.
    """

    label: str
    recipe: str
    baseline: Measured
    other: Measured

    @property
    def interactivity_ratio(self) -> float:
        """Returns the tok/s/user of the curve over the baseline's."""
        return self.other.x / self.baseline.x

    @property
    def tput_ratio(self) -> float:
        """Returns the tok/s/GPU of the curve over the baseline's."""
        return self.other.y / self.baseline.y

    @property
    def gain_per_accepted(self) -> float | None:
        """Returns the share of the ideal gain that was reached."""
        length = self.other.mean.acceptance_length
        return None if not length else self.interactivity_ratio / length


def find_twins(baseline: Curve, others: Sequence[Curve]) -> tuple[Twins, ...]:
    """Returns every recipe of a curve that its baseline has once too, in the order of the concurrency."""
    pairs = []
    baselines = _by_recipe(baseline)
    for other in others:
        for recipe, item in _by_recipe(other).items():
            base = baselines.get(recipe)
            if item is not None and base is not None:
                pairs.append((other.label, item, base))
    pairs.sort(
        key=lambda pair: (pair[0], pair[1].mean.concurrency or 0, pair[1].mean.rate_rps or 0, -pair[1].x)
    )
    return tuple(
        Twins(label=label, recipe=item.mean.recipe, baseline=base, other=item) for label, item, base in pairs
    )


def _by_recipe(curve: Curve) -> dict[tuple[Any, ...], Measured | None]:
    """Returns a curve's points by recipe; None for a recipe that stands twice (a pooled curve)."""
    recipes: dict[tuple[Any, ...], Measured | None] = {}
    for item in curve.measured:
        if item.mean.concurrency is None:
            continue
        recipe = tuple(getattr(item.mean, name) for name in _RECIPE)
        recipes[recipe] = None if recipe in recipes else item
    return recipes
