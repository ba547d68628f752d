"""Pure: the same recipe with and without speculation, and how much of the acceptance became speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtpbench_analysis.curves.curve import Curve, Measured

_RECIPE = ("topology", "concurrency", "rate_rps", "gpus")


@dataclass(frozen=True, kw_only=True, slots=True)
class Twins:
    """One recipe (topology, concurrency, GPUs) that both a curve and its baseline measured.

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
        """Tok/s/user of the curve over the baseline's."""
        return self.other.x / self.baseline.x

    @property
    def tput_ratio(self) -> float:
        """Tok/s/GPU of the curve over the baseline's."""
        return self.other.y / self.baseline.y

    @property
    def gain_per_accepted(self) -> float | None:
        """The share of the ideal gain that was reached."""
        length = self.other.mean.acceptance_length
        return None if not length else self.interactivity_ratio / length


def find_twins(baseline: Curve, others: Sequence[Curve]) -> tuple[Twins, ...]:
    """Every recipe of a curve that its baseline has once too, in the order of the concurrency."""
    pairs = []
    known = _by_recipe(baseline)
    for other in others:
        for recipe, item in _by_recipe(other).items():
            if recipe in known and item is not None and known[recipe] is not None:
                pairs.append((other.label, item, known[recipe]))
    pairs.sort(key=lambda pair: (pair[0], pair[1].mean.concurrency or 0, -pair[1].x))
    return tuple(
        Twins(label=label, recipe=item.mean.recipe, baseline=base, other=item)
        for label, item, base in pairs
        if base is not None
    )


def _by_recipe(curve: Curve) -> dict[tuple[Any, ...], Measured | None]:
    """None where a recipe is ambiguous (a pooled curve) or where its concurrency is unknown."""
    found: dict[tuple[Any, ...], Measured | None] = {}
    for item in curve.measured:
        if item.mean.concurrency is None:
            continue
        recipe = tuple(getattr(item.mean, name) for name in _RECIPE)
        found[recipe] = None if recipe in found else item
    return found
