"""Pure: measured points become curves, one per arm, engine, serving and acceptance mode; a curve's front."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from mtpbench_analysis.frame import CurvePoint

WORKLOAD_FIELDS = ("hardware", "model", "precision", "isl", "osl", "workload", "simulated")
"""Curves that differ in one of these answer different questions and are never compared."""

POOLABLE = ("engine", "serving", "acceptance_mode")
"""Fields that split an arm into several curves, unless a reader asks to pool them."""

_CURVE_FIELDS = ("arm", *POOLABLE, *WORKLOAD_FIELDS)
_RECIPE_FIELDS = ("topology", "concurrency", "gpus", "version", "image", "draft_tokens", *POOLABLE)
_MEANS = (
    "interactivity_tps",
    "tput_tps_per_gpu",
    "output_tps_per_gpu",
    "acceptance_length",
    "power_w_per_gpu",
    "ttft_p50_s",
    "e2el_p50_s",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One recipe with all its runs; `mean` is their arithmetic mean, field by field."""

    mean: CurvePoint
    runs: tuple[CurvePoint, ...]

    @property
    def x(self) -> float:
        """Interactivity, tok/s/user."""
        return self.mean.interactivity_tps

    @property
    def y(self) -> float:
        """Throughput, tok/s/GPU."""
        return self.mean.tput_tps_per_gpu


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """The valid points of one arm on one engine, serving mode, acceptance mode, hardware and workload.

    `measured` is sorted by interactivity; `front` is its upper-left Pareto front, the knots of the curve.
    Neither is ever empty.
    """

    label: str
    arm: str
    measured: tuple[Measured, ...]
    front: tuple[Measured, ...]

    def shared(self, name: str) -> Any:
        """A field that tells curves apart: what all points share, or, where pooled, `a + b`."""
        values = self.values(name)
        return values[0] if len(values) == 1 else " + ".join(str(value) for value in values)

    def values(self, name: str) -> tuple[Any, ...]:
        """The distinct values of a field over all runs, None last, in a stable order."""
        found = {getattr(run, name) for item in self.measured for run in item.runs}
        return tuple(sorted(found, key=lambda value: (value is None, str(value))))

    @property
    def workload_key(self) -> tuple[Any, ...]:
        """Equal for curves that may be compared."""
        return tuple(self.shared(name) for name in WORKLOAD_FIELDS)

    @property
    def single_run(self) -> bool:
        """Whether every recipe was measured once only, so that nothing says how far a repeat would fall."""
        return all(len(item.runs) == 1 for item in self.measured)

    @property
    def range_tps(self) -> tuple[float, float]:
        """The front's lowest and highest interactivity."""
        return self.front[0].x, self.front[-1].x


def pareto_front(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Indices of the upper-left front: interactivity rises, throughput strictly falls.

    Sort by x, ties by y descending; keep the highest y at equal x; drop the tail while its y ≤ the new y.

    Args:
        points: (interactivity, throughput) pairs in any order.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    kept: list[int] = []
    for i in order:
        x, y = points[i]
        if kept and points[kept[-1]][0] == x:
            continue
        while kept and points[kept[-1]][1] <= y:
            kept.pop()
        kept.append(i)
    return tuple(kept)


def build_curves(points: Iterable[CurvePoint], pool: Collection[str] = ()) -> tuple[Curve, ...]:
    """The curves of the valid points, in the order in which they first appear; invalid points are left out.

    Repeats of a recipe are averaged. A point whose concurrency nobody recorded can't be told from its
    neighbours, so it stays on its own.

    Args:
        points: the points of any number of curves.
        pool: fields of `POOLABLE` in which the points of one curve may differ.
    """
    grouped: dict[tuple[Any, ...], list[CurvePoint]] = {}
    for point in points:
        if point.valid:
            key = tuple(getattr(point, name) for name in _CURVE_FIELDS if name not in pool)
            grouped.setdefault(key, []).append(point)
    return relabel([_curve(group) for group in grouped.values()])


def relabel(curves: Sequence[Curve]) -> tuple[Curve, ...]:
    """The curves with labels as short as tell them apart: the arm, and only what differs within it."""
    labelled = []
    for curve in curves:
        rivals = [c for c in curves if c.arm == curve.arm and c.workload_key == curve.workload_key]
        telling = [
            str(curve.shared(name) or f"{name.replace('_', ' ')} unknown")
            for name in POOLABLE
            if len({rival.shared(name) for rival in rivals}) > 1
        ]
        label = display_name(curve.arm) + (f" ({', '.join(telling)})" if telling else "")
        labelled.append(replace(curve, label=label))
    return tuple(labelled)


def display_name(arm: str) -> str:
    """An arm's name as a table says it: `off` is Off, `mtp-k3` is MTP-k3."""
    if arm == "off":
        return "Off"
    return "MTP" + arm[3:] if arm.startswith("mtp") else arm


def _curve(points: Sequence[CurvePoint]) -> Curve:
    recipes: dict[tuple[Any, ...], list[CurvePoint]] = {}
    for i, point in enumerate(points):
        alone = i if point.concurrency is None else -1
        key = (alone, *(getattr(point, name) for name in _RECIPE_FIELDS))
        recipes.setdefault(key, []).append(point)
    measured = sorted(
        (Measured(mean=_mean(runs), runs=tuple(runs)) for runs in recipes.values()), key=lambda m: m.x
    )
    front = pareto_front([(item.x, item.y) for item in measured])
    arm = points[0].arm
    return Curve(
        label=display_name(arm),
        arm=arm,
        measured=tuple(measured),
        front=tuple(measured[i] for i in front),
    )


def _mean(runs: Sequence[CurvePoint]) -> CurvePoint:
    if len(runs) == 1:
        return runs[0]
    means: dict[str, Any] = {}
    for name in _MEANS:
        known = [value for run in runs if (value := getattr(run, name)) is not None]
        means[name] = fmean(known) if known else None
    sources = [run.source for run in runs if run.source]
    means["source"] = "; ".join(sources) or None
    means["repeat"] = None
    for name in ("date", "simulated"):
        values = {getattr(run, name) for run in runs}
        means[name] = values.pop() if len(values) == 1 else getattr(runs[-1], name)
    return replace(runs[0], **means)
