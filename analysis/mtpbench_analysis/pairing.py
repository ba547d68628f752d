"""Pure: which curves of a source go with which baseline; what goes with none is listed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import product

from mtpbench.errors import InputError, NotComparable
from mtpbench_analysis.compare import Comparison, Settings, compare
from mtpbench_analysis.curves.confounds import find_length_mismatch
from mtpbench_analysis.curves.curve import (
    CURVE_FIELDS,
    SPLITTABLE,
    WORKLOAD_FIELDS,
    Curve,
    Grouping,
    build_curves,
    display_name,
    group_by_workload,
    short,
)
from mtpbench_analysis.frame import CurvePoint, PointSet, Unused
from mtpbench_analysis.numbers import counted


class NoComparisonError(InputError):
    """The points of some sources allow no comparison at all.

    Args:
        sources: their names.
        why: in one line, without them.
        examples: the first reasons of single points, to stand after `why`; may be empty.
    """

    def __init__(self, sources: Sequence[str], why: str, examples: str = "") -> None:
        super().__init__(f"{', '.join(sources)}: {why}{examples}")
        self.why, self.examples = why, examples


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonOutcome:
    """An outcome has all comparisons that a source allows, and every curve or row that is in none of them.

    Args:
        left_out: without comparisons also every point that is not valid, and why.
        why_none: why there is no comparison, without the sources' names; None where there is one.
        examples: the first of the points that `left_out` lists, to stand after `why_none`; may be empty.
    """

    comparisons: tuple[Comparison, ...]
    left_out: tuple[Unused, ...]
    why_none: str | None = None
    examples: str = ""


def compare_all(
    points: PointSet,
    baseline_arm: str,
    settings_of: Callable[[Curve], Settings],
    grouping: Grouping | None = None,
) -> ComparisonOutcome:
    """Compares each group of curves of one workload with the baseline of their own engine.

    Args:
        points: everything read from the sources.
        baseline_arm: the arm to compare with, such as `off`.
        settings_of: the settings for a baseline curve (its hardware's constants, say).
        grouping: what makes one curve, where it is not the usual.

    Raises:
        NoComparisonError: no valid point, or none of the baseline's arm.
        NotComparable: both sides exist, but never for the same hardware, model, precision and workload.
    """
    curves = build_curves(points.points, grouping)
    _check_arms(points, curves, baseline_arm)
    comparisons: list[Comparison] = []
    left_out: list[Unused] = []
    for group in group_by_workload(curves):
        pairs, alone = pair(group, baseline_arm)
        left_out += alone
        comparisons += [compare(base, others, settings_of(base)) for base, others in pairs]
    if not comparisons:
        _refuse(curves, baseline_arm)
    invalid = [point for point in points.points if not point.valid]
    comparisons = [replace(c, invalid=tuple(p for p in invalid if _belongs(p, c))) for c in comparisons]
    orphans = [describe_invalid(p) for p in invalid if not any(_belongs(p, c) for c in comparisons)]
    return ComparisonOutcome(comparisons=tuple(comparisons), left_out=(*points.unused, *orphans, *left_out))


def pair(
    group: Sequence[Curve], baseline_arm: str
) -> tuple[list[tuple[Curve, list[Curve]]], tuple[Unused, ...]]:
    """Returns baselines with the curves to compare with them, and the curves of `group` that stay alone.

    A curve goes with the baseline of its own engine and serving mode, else of its own engine, else with
    the only baseline there is; where that leaves a choice of engines, the choice is the reader's. Among
    several of one engine (other images, versions or prompts) it goes with the one it has most in common
    with, then with the nearest in date; what differs is a confound that the comparison lists.
    """
    baselines = [curve for curve in group if curve.arm == baseline_arm]
    pairs: list[tuple[Curve, list[Curve]]] = [(base, []) for base in baselines]
    alone: list[Unused] = []
    for curve in group:
        if curve.arm == baseline_arm:
            continue
        index = _closest(curve, baselines)
        if index is None:
            engines = ", ".join(sorted({str(base.shared("engine")) for base in baselines}))
            have = f"baselines of {engines}" if baselines else f"no {display_name(baseline_arm)} curve"
            alone.append(_alone(curve, f"there is {have} on this hardware, model, precision and workload"))
        elif mismatch := find_length_mismatch(baselines[index], curve):
            alone.append(_alone(curve, mismatch))
        else:
            pairs[index][1].append(curve)
    alone += [_alone(base, "nothing to set against it") for base, others in pairs if not others]
    return [(base, others) for base, others in pairs if others], tuple(alone)


def describe(curve: Curve) -> str:
    """Returns a curve in one line: `Off, gb200-nvl72, fp4, 8192/1024, dynamo-trt, disaggregated`."""
    lengths = f"{curve.shared('isl')}/{curve.shared('osl')}" if curve.shared("isl") else None
    parts = [curve.shared(name) for name in ("hardware", "model", "precision")]
    image = curve.shared("image")
    parts += [lengths, curve.shared("engine"), curve.shared("serving"), image and short(image, "image")]
    return ", ".join([display_name(curve.arm), *(str(part) for part in parts if part is not None)])


def _closest(curve: Curve, baselines: Sequence[Curve]) -> int | None:
    for names in (("engine", "serving"), ("engine",), ()):
        candidates = [
            i
            for i, base in enumerate(baselines)
            if all(base.shared(name) == curve.shared(name) for name in names)
        ]
        if not candidates:
            continue
        if len({baselines[i].shared("engine") for i in candidates}) > 1:
            return None
        return min(candidates, key=lambda i: _distance(curve, baselines[i]))
    return None


def _distance(curve: Curve, baseline: Curve) -> tuple[int, int, int]:
    """Returns how far two curves are apart: differing fields, days between the newest points, points
    missing.
    """
    names = [name for name in (*CURVE_FIELDS, *SPLITTABLE) if name not in _OWN]
    differing = sum(baseline.shared(name) != curve.shared(name) for name in names)
    return differing, _days(curve, baseline), -len(baseline.measured)


_OWN = ("method", "acceptance_mode", "draft_tokens", "depth_rule", "topology", "date")
"""Fields in which an arm differs from its baseline by its nature, or that say nothing of closeness."""


def _days(curve: Curve, baseline: Curve) -> int:
    newest = [max((day for day in side.values("date") if day), default=None) for side in (curve, baseline)]
    try:
        day_of_curve, other = (date.fromisoformat(str(day)[:10]) for day in newest)
    except ValueError:
        return 1_000_000
    return abs((day_of_curve - other).days)


def _alone(curve: Curve, reason: str) -> Unused:
    count = len(curve.measured)
    return Unused(
        what=f"{describe(curve)} ({counted(count, 'point')})", reason=reason, kind="unpaired", arm=curve.arm
    )


def describe_invalid(point: CurvePoint) -> Unused:
    """Returns an invalid point as a line: which one, and why."""
    what = f"{display_name(point.arm)}, {point.recipe}"
    if point.source is not None:
        what += f" ({point.source})"
    reason = "; ".join(point.reasons) or "marked invalid"
    return Unused(what=what, reason=reason, kind="invalid", arm=point.arm)


def _belongs(point: CurvePoint, comparison: Comparison) -> bool:
    return tuple(getattr(point, name) for name in WORKLOAD_FIELDS) == comparison.baseline.workload_key


def _check_arms(points: PointSet, curves: Sequence[Curve], baseline_arm: str) -> None:
    if not curves:
        why = f"; all {len(points.points)} are invalid" if points.points else ""
        raise NoComparisonError(points.sources, f"no valid point to compare{why}")
    arms = sorted({curve.arm for curve in curves})
    if baseline_arm not in arms:
        raise NoComparisonError(
            points.sources,
            f"no valid point of the baseline {baseline_arm!r}; arms with points: {', '.join(arms)} "
            "(choose one of them with --baseline)",
        )
    if len(arms) == 1:
        why = f"all points are of arm {baseline_arm!r}; there is nothing to compare it with"
        raise NoComparisonError(points.sources, why)


def _refuse(curves: Sequence[Curve], baseline_arm: str) -> None:
    baselines = [curve for curve in curves if curve.arm == baseline_arm]
    others = [curve for curve in curves if curve.arm != baseline_arm]
    if len(baselines) == len(others) == 1:
        compare(baselines[0], others)
    for base, other in product(baselines, others):
        mismatch = find_length_mismatch(base, other) if base.workload_key == other.workload_key else None
        if mismatch:
            raise NotComparable(mismatch)
    described = "; ".join(describe(curve) for curve in curves[:6])
    more = f"; and {len(curves) - 6} more" if len(curves) > 6 else ""
    raise NotComparable(
        f"no curve shares hardware, model, precision, workload and engine with a {baseline_arm!r} curve: "
        f"{described}{more}"
    )
