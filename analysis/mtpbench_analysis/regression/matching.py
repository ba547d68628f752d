"""Pure: which recipes were measured on both sides, what differs between the sides, and when to refuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from mtpbench.errors import NotComparable
from mtpbench_analysis.curves.curve import display_name, list_values, short
from mtpbench_analysis.frame import LOAD_FIELDS, CurvePoint, PointSet, Unused
from mtpbench_analysis.pairing import describe_invalid

DEPLOYMENT_FIELDS = (
    "arm",
    "topology",
    "gpus",
    "draft_tokens",
    "engine",
    "serving",
    "workload",
    "hardware",
    "model",
    "precision",
    "isl",
    "osl",
    "acceptance_mode",
    "simulated",
)
"""What one server start serves: points that share these also share the luck of that start."""

RECIPE_FIELDS = (*DEPLOYMENT_FIELDS, *LOAD_FIELDS)
"""Points of both sides that share all of these measure the same thing."""

TESTED_FIELDS = ("version", "image", "settings", "date")
"""In these the sides may differ: they are what is tested."""

_TOLD_FIELDS = (
    *TESTED_FIELDS,
    "measuring_rule",
    *("method", "depth_rule", "checkpoint", "draft_model", "draft_sampling", "rejection_method"),
)
"""A difference in these is told."""

_deployment_of = attrgetter(*DEPLOYMENT_FIELDS)
_recipe_of = attrgetter(*RECIPE_FIELDS)
_IN_LABEL = ("arm", "topology", "gpus")


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedRecipe:
    """A paired recipe has its runs on both sides.

    Args:
        old, new: its valid runs, source by source (one tuple per sweep of that side, in order).
    """

    old: tuple[tuple[CurvePoint, ...], ...]
    new: tuple[tuple[CurvePoint, ...], ...]

    @property
    def point(self) -> CurvePoint:
        """Returns one of its runs: all share the recipe."""
        return next(run for runs in self.new for run in runs)

    @property
    def arm(self) -> str:
        """Returns the arm."""
        return self.point.arm

    @property
    def deployment(self) -> tuple[Any, ...]:
        """Returns a key that is equal for recipes that one server start serves."""
        return tuple(_deployment_of(self.point))


def label_recipes(recipes: Sequence[PairedRecipe]) -> tuple[str, ...]:
    """Returns `MTP, conc. 16, 1xTP8, 8 GPUs` for each; with hardware, model, … where only they tell two
    apart.
    """
    short_labels = [f"{display_name(recipe.arm)}, {recipe.point.recipe_of('short')}" for recipe in recipes]
    if len(set(short_labels)) == len(recipes):
        return tuple(short_labels)
    telling = [
        name
        for name in DEPLOYMENT_FIELDS
        if name not in _IN_LABEL and len({getattr(recipe.point, name) for recipe in recipes}) > 1
    ]
    return tuple(
        ", ".join(
            [label, *(str(value) for name in telling if (value := getattr(recipe.point, name)) is not None)]
        )
        for label, recipe in zip(short_labels, recipes, strict=True)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Matched:
    """The matched recipes are those that both sides measured; with them comes everything else that they hold.

    Args:
        differences: what differs between the sides, one text each (`version 1.2 → 1.3`).
        unknown: the fields of `TESTED_FIELDS` that were not recorded.
        left_out: recipes of one side only, invalid points and unusable rows, with the reason.
        broken: recipes with a valid run in the old sweeps and only invalid ones in the new.
        unfinished: new sweeps that lack figures of points they planned, one text each.
    """

    old_sources: tuple[str, ...]
    new_sources: tuple[str, ...]
    recipes: tuple[PairedRecipe, ...]
    differences: tuple[str, ...]
    unknown: tuple[str, ...]
    left_out: tuple[Unused, ...]
    broken: tuple[str, ...]
    unfinished: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Returns a name for each recipe."""
        return label_recipes(self.recipes)

    @property
    def simulated(self) -> bool:
        """Returns whether the figures come from a model of an engine."""
        return any(recipe.point.simulated for recipe in self.recipes)


def match(old: Sequence[PointSet], new: Sequence[PointSet]) -> Matched:
    """Returns the recipes of both sides.

    Args:
        old: the sweeps of the old side, one `PointSet` for each: each started its servers anew.
        new: those of the new side.

    Raises:
        NotComparable: simulated and measured figures are mixed, or no recipe is on both sides.
    """
    _check_simulated(old, new)
    sides = {"old": _by_recipe(old), "new": _by_recipe(new)}
    both = [key for key in sides["old"] if key in sides["new"]]
    if not both:
        raise NotComparable(_why_nothing(old, new))
    recipes = tuple(PairedRecipe(old=sides["old"][key], new=sides["new"][key]) for key in both)
    differences, unknown = _differences(recipes)
    return Matched(
        old_sources=tuple(source for item in old for source in item.sources),
        new_sources=tuple(source for item in new for source in item.sources),
        recipes=recipes,
        differences=differences,
        unknown=unknown,
        left_out=(
            *_lonely(sides, "old"),
            *_lonely(sides, "new"),
            *_unusable(old, "old"),
            *_unusable(new, "new"),
        ),
        broken=_broken(sides, new),
        unfinished=tuple(text for source in new if (text := _unfinished(source))),
    )


_Runs = dict[tuple[Any, ...], tuple[tuple[CurvePoint, ...], ...]]


def _by_recipe(sources: Sequence[PointSet]) -> _Runs:
    """Returns the valid runs of every recipe, source by source, without those of unknown load."""
    by_recipe: dict[tuple[Any, ...], list[list[CurvePoint]]] = {}
    for number, source in enumerate(sources):
        for point in sorted(source.points, key=lambda p: p.repeat or 0):
            if point.valid and _load_known(point):
                runs = by_recipe.setdefault(_recipe_of(point), [[] for _ in sources])
                runs[number].append(point)
    return {key: tuple(tuple(runs) for runs in lists) for key, lists in by_recipe.items()}


def _load_known(point: CurvePoint) -> bool:
    return point.concurrency is not None or point.rate_rps is not None


def _check_simulated(old: Sequence[PointSet], new: Sequence[PointSet]) -> None:
    kinds = {
        side: {point.simulated for source in sources for point in source.points}
        for side, sources in (("old", old), ("new", new))
    }
    if len(kinds["old"] | kinds["new"]) > 1:
        sides = "; ".join(
            f"{side}: {' and '.join('simulated' if kind else 'measured' for kind in sorted(of_side))}"
            for side, of_side in kinds.items()
            if of_side
        )
        raise NotComparable(f"simulated and measured figures can't be compared ({sides})")


def _why_nothing(old: Sequence[PointSet], new: Sequence[PointSet]) -> str:
    """Returns which fields keep the sides apart: those without a common value, else those of the closest
    pair.
    """
    sides = [[p for source in sources for p in source.points if p.valid] for sources in (old, new)]
    for name, points in zip(("old", "new"), sides, strict=True):
        if not points:
            return f"no recipe is on both sides: the {name} side has no valid point"
        if not any(_load_known(point) for point in points):
            return f"no recipe is on both sides: the {name} side recorded neither concurrency nor rate_rps"
    values = {name: [{getattr(p, name) for p in points} for points in sides] for name in RECIPE_FIELDS}
    apart = [name for name, (ours, theirs) in values.items() if not ours & theirs]
    if apart:
        values_apart = "; ".join(
            f"{name}: old {list_values(values[name][0])}, new {list_values(values[name][1])}"
            for name in apart[:4]
        )
        return f"no recipe is on both sides; they share no value of {values_apart}"
    closest = min(
        (
            [name for name in RECIPE_FIELDS if getattr(a, name) != getattr(b, name)]
            for a in sides[0]
            for b in sides[1]
        ),
        key=len,
    )
    return f"no recipe is on both sides; the closest two points differ in {', '.join(closest)}"


def _differences(recipes: Sequence[PairedRecipe]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    differences, unknown = [], []
    for name in _TOLD_FIELDS:
        ours, theirs = (
            {getattr(run, name) for recipe in recipes for runs in getattr(recipe, side) for run in runs}
            for side in ("old", "new")
        )
        if ours == theirs == {None}:
            unknown += [name] if name in TESTED_FIELDS else []
        elif ours != theirs and name == "settings":
            differences.append(_settings(ours, theirs))
        elif ours != theirs:
            old, new = (
                list_values({v if v is None else short(v, name) for v in side}) for side in (ours, theirs)
            )
            differences.append(f"{name} {old} → {new}")
    return tuple(differences), tuple(unknown)


def _settings(ours: set[Any], theirs: set[Any]) -> str:
    if None in ours | theirs:
        return "settings not recorded on one side"
    old, new = ({text for item in side for text in item} for side in (ours, theirs))
    parts = [
        f"{name} only {list_values(only)}" for name, only in (("old", old - new), ("new", new - old)) if only
    ]
    return f"settings ({'; '.join(parts) or 'distributed otherwise over the recipes'})"


def _lonely(sides: dict[str, _Runs], side: str) -> list[Unused]:
    other = sides["new" if side == "old" else "old"]
    return [
        Unused(
            what=f"{display_name(point.arm)}, {point.recipe}",
            reason=f"{side} side only",
            kind="unpaired",
            arm=point.arm,
        )
        for key, lists in sides[side].items()
        if key not in other
        for point in [next(run for runs in lists for run in runs)]
    ]


def _unusable(sources: Sequence[PointSet], side: str) -> list[Unused]:
    unusable = []
    for source in sources:
        for point in source.points:
            what = f"{side}: {display_name(point.arm)}, {point.recipe}"
            if not point.valid:
                unusable.append(replace(describe_invalid(point), what=what))
            elif not _load_known(point):
                reason = "neither concurrency nor rate_rps recorded"
                unusable.append(Unused(what=what, reason=reason, kind="unpaired", arm=point.arm))
        unusable += [replace(item, what=f"{side}: {item.what}") for item in source.unused]
    return unusable


def _broken(sides: dict[str, _Runs], new: Sequence[PointSet]) -> tuple[str, ...]:
    invalid = [p for source in new for p in source.points if not p.valid and _load_known(p)]
    lost = [p for p in invalid if _recipe_of(p) in sides["old"] and _recipe_of(p) not in sides["new"]]
    return tuple(dict.fromkeys(f"{display_name(p.arm)}, {p.recipe}" for p in lost))


def _unfinished(source: PointSet) -> str | None:
    """Returns how many planned points of a stored sweep lack figures; None where none does."""
    planned = set(source.info.planned if source.info else ())
    if not (lacking := planned - {point.source for point in source.points}):
        return None
    return f"{', '.join(source.sources)}: no figures of {len(lacking)} of {len(planned)} planned points"
