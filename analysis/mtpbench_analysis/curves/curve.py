"""Pure: measured points become curves that a reader may compare, each with its front."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from statistics import fmean
from typing import Any

from mtpbench.errors import InputError
from mtpbench.records import METHOD_NAMES, OFF, speculation_label
from mtpbench_analysis.curves.mean_errors import mean_errors
from mtpbench_analysis.frame import ERROR_FIELDS, LOAD_FIELDS, SPECULATION_FIELDS, CurvePoint, averaged
from mtpbench_analysis.numbers import counted

WORKLOAD_FIELDS = ("hardware", "model", "precision", "isl", "osl", "simulated")
"""Curves that differ in one of these answer different questions and are never compared."""

CURVE_FIELDS = (
    "method",
    "engine",
    "version",
    "image",
    "serving",
    "workload",
    "acceptance_mode",
    "checkpoint",
)
"""Fields that split an arm into several curves, unless a reader pools them by name."""

SPLITTABLE = ("topology", "draft_tokens", "depth_rule", "date")
"""Fields in which one curve's points may differ, unless a reader splits by them."""

_RECIPE_FIELDS = tuple(
    dict.fromkeys(("topology", *LOAD_FIELDS, "gpus", *SPECULATION_FIELDS, "measuring_rule", *CURVE_FIELDS))
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grouping:
    """A grouping says which fields make one curve, where a reader wants others than usual.

    Args:
        pool: fields of `CURVE_FIELDS` in which the points of one curve may differ.
        split: fields of `SPLITTABLE` in which they may not.
    """

    pool: tuple[str, ...] = ()
    split: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Topologies are pooled anyway; naming one that is, is no mistake.
        for names, allowed in ((self.pool, (*CURVE_FIELDS, *SPLITTABLE)), (self.split, SPLITTABLE)):
            if wrong := [name for name in names if name not in allowed]:
                verb = "pool" if names is self.pool else "split by"
                raise InputError(f"can't {verb} {', '.join(wrong)}; one of {', '.join(allowed)} is needed")
        if both := set(self.pool) & set(self.split):
            raise InputError(f"{', '.join(sorted(both))}: both pooled and split by; choose one")

    @property
    def fields(self) -> tuple[str, ...]:
        """Returns the fields that the points of one curve share, besides arm and workload."""
        return (*(name for name in CURVE_FIELDS if name not in self.pool), *self.split)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A measured recipe has all its runs; `mean` is their arithmetic mean, field by field."""

    mean: CurvePoint
    runs: tuple[CurvePoint, ...]

    @property
    def x(self) -> float:
        """Returns the interactivity, tok/s/user."""
        return self.mean.interactivity_tps

    @property
    def y(self) -> float:
        """Returns the throughput, tok/s/GPU."""
        return self.mean.tput_tps_per_gpu


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A curve holds the valid points of one arm that share hardware, workload and all `CURVE_FIELDS` not
    pooled.

    `measured` is sorted by interactivity; `front` is its upper-left Pareto front, the knots of the curve.
    Neither is ever empty.
    """

    label: str
    arm: str
    measured: tuple[Measured, ...]
    front: tuple[Measured, ...]
    grouping: Grouping = field(default_factory=Grouping)

    def shared(self, name: str) -> Any:
        """Returns what all points have in a field, or, where it is pooled, `a + b`."""
        values = self.values(name)
        return values[0] if len(values) == 1 else " + ".join(str(value) for value in values)

    def values(self, name: str) -> tuple[Any, ...]:
        """Returns the distinct values of a field over all runs, None last, in a stable order."""
        values = {getattr(run, name) for item in self.measured for run in item.runs}
        return tuple(sorted(values, key=lambda value: (value is None, str(value))))

    def place_of(self, item: Measured) -> int:
        """Returns where an item of `measured`, or a knot of the front, stands in `measured`."""
        return next(i for i, measured in enumerate(self.measured) if measured is item)

    @property
    def speculation(self) -> str | None:
        """Returns what its points' speculation is called: `MTP k=3`, `MTP k=1, MTP k=3`; None if unknown."""
        labels = sorted({run.speculation or "" for item in self.measured for run in item.runs} - {""})
        return ", ".join(labels) or None

    @property
    def full_name(self) -> str:
        """Returns the label with what it does not say of method and depth: `MTP3 (k=3)`, `a (DSpark k=6)`."""
        said = _said(self.arm)
        facts = {
            (run.method, run.draft_tokens, run.depth_rule) for item in self.measured for run in item.runs
        }
        texts = {
            speculation_label(None if method == said else method, drafts, rule)
            for method, drafts, rule in facts
        }
        more = sorted(text for text in texts if text is not None and text != said)
        return f"{self.label} ({', '.join(more)})" if more else self.label

    @property
    def workload_key(self) -> tuple[Any, ...]:
        """Returns a key that is equal for curves that may be compared."""
        return tuple(self.shared(name) for name in WORKLOAD_FIELDS)

    @property
    def range_tps(self) -> tuple[float, float]:
        """Returns the front's lowest and highest interactivity."""
        return self.front[0].x, self.front[-1].x


def pareto_front(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Returns the indices of the upper-left front: interactivity rises, throughput strictly falls.

    Sort by x, ties by y descending; keep the highest y at equal x; drop the tail while its y ≤ the new y.

    Args:
        points: (interactivity, throughput) pairs in any order.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        x, y = points[i]
        if front and points[front[-1]][0] == x:
            continue
        while front and points[front[-1]][1] <= y:
            front.pop()
        front.append(i)
    return tuple(front)


def build_curves(points: Iterable[CurvePoint], grouping: Grouping | None = None) -> tuple[Curve, ...]:
    """Returns the curves of the valid points, in the order in which they first appear; invalid points are
    left out.

    Repeats of a recipe are averaged. A point without a recorded concurrency can't be told from its
    neighbours, so it stays on its own.
    """
    grouping = grouping or Grouping()
    names = ("arm", *grouping.fields, *WORKLOAD_FIELDS)
    key_of = attrgetter(*names)
    grouped: dict[tuple[Any, ...], list[CurvePoint]] = {}
    for point in points:
        if point.valid:
            grouped.setdefault(key_of(point), []).append(point)
    return relabel([_curve(group, grouping) for group in grouped.values()])


def relabel(curves: Sequence[Curve]) -> tuple[Curve, ...]:
    """Returns the curves with labels as short as tell them apart: the arm, and only what differs
    within it.
    """
    families: dict[tuple[Any, ...], list[Curve]] = {}
    for curve in curves:
        families.setdefault((curve.arm, curve.workload_key), []).append(curve)
    labels: dict[int, str] = {}
    for family in families.values():
        telling = [
            name for name in (*CURVE_FIELDS, *SPLITTABLE) if len({curve.shared(name) for curve in family}) > 1
        ]
        for curve in family:
            texts = [short(curve.shared(name), name) for name in _enough(family, telling)]
            labels[id(curve)] = _name(curve) + (f" ({', '.join(texts)})" if texts else "")
    return tuple(replace(curve, label=labels[id(curve)]) for curve in curves)


def _enough(family: Sequence[Curve], telling: Sequence[str]) -> list[str]:
    """Returns the first of the telling fields that together tell all curves apart (an image often
    says all).
    """
    chosen: list[str] = []
    for name in telling:
        chosen.append(name)
        if len({tuple(curve.shared(n) for n in chosen) for curve in family}) == len(family):
            break
    return [name for name in chosen if _needed(family, chosen, name)]


def _needed(family: Sequence[Curve], chosen: Sequence[str], name: str) -> bool:
    rest = [other for other in chosen if other != name]
    return len({tuple(curve.shared(n) for n in rest) for curve in family}) < len(
        {tuple(curve.shared(n) for n in chosen) for curve in family}
    )


def group_by_workload(curves: Iterable[Curve]) -> tuple[list[Curve], ...]:
    """Returns the curves that may be compared, group by group, in the order in which they first appear."""
    groups: dict[tuple[Any, ...], list[Curve]] = {}
    for curve in curves:
        groups.setdefault(curve.workload_key, []).append(curve)
    return tuple(groups.values())


def short(value: object, name: str) -> str:
    """Returns a field's value as a label can carry it: an image without its registry, the end of a path."""
    if value is None:
        return f"{name.replace('_', ' ')} unknown"
    text = str(value)
    if name == "method":
        return METHOD_NAMES.get(text, text)
    # A hub id is `owner/name`; a folder's path says where somebody's files lie.
    is_path = name == "image" or (name == "checkpoint" and text.startswith(("/", "~", ".")))
    return text.rstrip("/").rsplit("/", 1)[-1] if is_path else text


_LISTED = 4


def list_values(values: Iterable[object]) -> str:
    """Returns the first few values of a field as one text, `not recorded` for None, which comes last."""
    ordered = sorted(values, key=lambda value: (value is None, str(value)))
    texts = ["not recorded" if value is None else str(value) for value in ordered[:_LISTED]]
    more = len(ordered) - len(texts)
    return ", ".join(texts) + (f" and {more} more" if more else "")


_SPELLINGS = {OFF: "Off", **{name: METHOD_NAMES[name] for name in ("mtp", "dspark")}}


def display_name(arm: str) -> str:
    """Returns an arm's name as a table says it: `off` is Off, `mtp-k3` is MTP-k3, `dspark6` is DSpark6."""
    said = _said(arm)
    return arm if said is None else _SPELLINGS[said] + arm.removeprefix(said)


def _said(arm: str) -> str | None:
    """Returns the method that an arm's name begins with, whatever it drafts with; None without one."""
    return next((method for method in _SPELLINGS if arm.startswith(method)), None)


def _name(curve: Curve) -> str:
    """Returns a curve's arm as tables say it, without a method that it does not draft with."""
    said, methods = _said(curve.arm), {*curve.values("method")} - {None}
    return curve.arm if said is not None and methods and methods != {said} else display_name(curve.arm)


def full_names(curves: Sequence[Curve]) -> tuple[str, ...]:
    """Returns the curves' names with method and depth, and with the checkpoint where that is not the first
    curve's.
    """
    usual = curves[0].values("checkpoint")
    return tuple(
        curve.full_name
        if curve.values("checkpoint") in (usual, (None,))
        else f"{curve.full_name} on {brief_checkpoint(curve)}"
        for curve in curves
    )


def brief_checkpoint(curve: Curve) -> str | None:
    """Returns the last part of what a curve serves, which tells the checkpoints of a model apart."""
    parts = [str(value).rstrip("/").rsplit("/", 1)[-1] for value in curve.values("checkpoint") if value]
    return ", ".join(parts) or None


_MOST_NAMED = 4


def describe_sides(others: Iterable[Curve], baseline: Curve) -> str:
    """Returns the arms that are compared: `MTP versus Off`, `11 arms versus Off`."""
    arms = list(dict.fromkeys(display_name(other.arm) for other in others))
    sides = ", ".join(arms) if len(arms) <= _MOST_NAMED else counted(len(arms), "arm")
    return f"{sides} versus {display_name(baseline.arm)}"


def describe_workload(curve: Curve, *, served_by: bool = True) -> str:
    """Returns the hardware, model and workload of a curve, as far as recorded, and what serves it."""
    parts = [curve.shared(name) for name in ("hardware", "model", "precision")]
    if curve.shared("isl") is not None:
        parts.append(f"ISL {curve.shared('isl')} / OSL {curve.shared('osl')}")
    if served_by:
        parts += [curve.shared("engine"), curve.shared("serving")]
    return ", ".join(str(part) for part in parts if part is not None)


def _curve(points: Sequence[CurvePoint], grouping: Grouping) -> Curve:
    recipes: dict[tuple[Any, ...], list[CurvePoint]] = {}
    for i, point in enumerate(points):
        alone = i if point.concurrency is None else -1
        recipes.setdefault((alone, *_recipe_of(point)), []).append(point)
    errors = mean_errors([*recipes.values()])
    means = [_mean(runs, of_mean) for runs, of_mean in zip(recipes.values(), errors, strict=True)]
    measured = sorted(
        (Measured(mean=mean, runs=tuple(runs)) for mean, runs in zip(means, recipes.values(), strict=True)),
        key=lambda m: m.x,
    )
    front = pareto_front([(item.x, item.y) for item in measured])
    arm = points[0].arm
    return Curve(
        label=display_name(arm),
        arm=arm,
        measured=tuple(measured),
        front=tuple(measured[i] for i in front),
        grouping=grouping,
    )


_recipe_of = attrgetter(*_RECIPE_FIELDS)


def _mean(runs: Sequence[CurvePoint], errors: Mapping[str, Any]) -> CurvePoint:
    if len(runs) == 1:
        return runs[0]
    means: dict[str, Any] = {}
    for name in averaged():
        values = [value for run in runs if (value := getattr(run, name)) is not None]
        means[name] = fmean(values) if values else None
    sources = [run.source for run in runs if run.source]
    means["source"] = "; ".join(sources) or None
    means["repeat"] = means["start"] = None
    means["by_category"] = ()
    means["run_url"] = runs[0].run_url if len({run.run_url for run in runs}) == 1 else None
    # The errors of single runs stay with the runs; `noise` says what those of the mean's rates are.
    means |= {**dict.fromkeys(ERROR_FIELDS), **errors}
    positions = [run.acceptance_per_position for run in runs if run.acceptance_per_position is not None]
    if len({len(rates) for rates in positions}) == 1:
        means["acceptance_per_position"] = tuple(fmean(rates) for rates in zip(*positions, strict=True))
    return replace(runs[0], date=runs[-1].date, simulated=runs[-1].simulated, **means)


_FEWEST = {"assumed_one_token", "least_first_chunk"}


def describe_bounds(curves: Sequence[Curve]) -> list[str]:
    """Returns a sentence where a server does not say how many tokens its first event held."""
    bases = {curve.label: {*curve.values("tpot_basis")} & _FEWEST for curve in curves}
    unsaid = [curve for curve in curves if bases[curve.label]]
    if not unsaid:
        return []
    labels = " and ".join(curve.label for curve in unsaid)
    named = ", ".join(sorted(set().union(*bases.values())))
    return [
        f"The servers of {labels} do not say how many tokens the first event of an answer held, so "
        f"the fewest are taken ({named}): their interactivity is at most what is shown."
    ]
