"""From sources to comparisons: which points are kept, which constants they get, how they are compared."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from mtpbench import hardware
from mtpbench.errors import InputError
from mtpbench.records import METHOD_NAMES, OFF, Hardware, SweepInfo
from mtpbench_analysis.compare import KnownConfound, Settings
from mtpbench_analysis.curves.cells import DEFAULT_MAX_GAP
from mtpbench_analysis.curves.confounds import find_agreements
from mtpbench_analysis.curves.cost import DEFAULT_TIER, Economics, find_economics, has_constants, resolve_name
from mtpbench_analysis.curves.curve import Curve, Grouping, build_curves, group_by_workload
from mtpbench_analysis.curves.curve_reader import DEFAULT_CONFIDENCE
from mtpbench_analysis.curves.errors import START_NOISE
from mtpbench_analysis.frame import CurvePoint, PointSet
from mtpbench_analysis.importers.documents import join_reasons
from mtpbench_analysis.numbers import counted
from mtpbench_analysis.pairing import (
    ComparisonOutcome,
    NoComparisonError,
    compare_all,
    describe_invalid,
    pair,
)
from mtpbench_analysis.public_page import Explanation, Method, explain_points

_SHOWN = 3
"""Reasons in the message that there is no valid point."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question says how to compare; a reader may leave out all of it.

    Args:
        targets_tps: empty for the sweep's own, or the default targets.
        baseline: None for the sweep's own, or `off`.
        constants: a date or a file; None for the sweep's own constants, or the newest.
        usd_per_gpu_h: a price of the reader's own, in place of the tier's.
        kw_per_gpu: a provisioned power of the reader's own.
        grouping: what makes one curve, where it is not the usual; the tables say so.
        strict: refuse curves that differ in more than speculation, or whose measured acceptance has a
            caveat.
        confidence: of every interval.
        start_noise: how far two starts of one server are taken to differ, as a share.
        what_if: acceptance lengths to project drafting curves to.
    """

    targets_tps: tuple[float, ...] = ()
    baseline: str | None = None
    constants: str | None = None
    usd_per_gpu_h: float | None = None
    kw_per_gpu: float | None = None
    tier: str = DEFAULT_TIER
    max_gap: float = DEFAULT_MAX_GAP
    grouping: Grouping = field(default_factory=Grouping)
    strict: bool = False
    confidence: float = DEFAULT_CONFIDENCE
    start_noise: float = START_NOISE
    what_if: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """A filter says which points are compared; None is all. `hardware` also names it for points that do not
    say.

    Args:
        methods: of speculation; empty for all. What drafts nothing stays, and so does the baseline's arm.
    """

    hardware: str | None = None
    precision: str | None = None
    isl: int | None = None
    osl: int | None = None
    engine: str | None = None
    methods: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if wrong := [method for method in self.methods if method not in METHOD_NAMES]:
            raise InputError(
                f"--speculation {', '.join(wrong)}: names among {', '.join(METHOD_NAMES)} are needed"
            )

    def __str__(self) -> str:
        fields = {name: getattr(self, name) for name in ("hardware", "precision", "isl", "osl", "engine")}
        fields["speculation"] = ",".join(self.methods) or None
        return (
            ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None) or "no filter"
        )

    def keeps(self, point: CurvePoint, baselines: Collection[str] = ()) -> bool:
        """Returns whether the filter keeps the point.

        Args:
            point: a point with its hardware's name.
            baselines: arms that stay whatever they draft with.
        """
        if self.methods and not (
            point.method in self.methods or point.speculation == OFF or point.arm in (OFF, *baselines)
        ):
            return False
        if self.hardware and resolve_name(point.hardware or "") != resolve_name(self.hardware):
            return False
        names = ((self.precision, point.precision), (self.engine, point.engine))
        lengths = ((self.isl, point.isl), (self.osl, point.osl))
        return all(
            name is None or name.lower() == (of_point or "").lower() for name, of_point in names
        ) and all(length is None or length == of_point for length, of_point in lengths)


def narrow(points: PointSet, point_filter: Filter, baseline: str | None = None) -> PointSet:
    """Returns the points that a filter keeps; those without a hardware's name get the filter's.

    Args:
        points: all that was read.
        point_filter: what is asked for.
        baseline: an arm that a choice of methods leaves in; the sweep's own stays as well.
    """
    baselines = [arm for arm in (baseline, points.info.baseline if points.info else None) if arm is not None]
    named = [
        replace(point, hardware=point_filter.hardware)
        if point.hardware is None and point_filter.hardware
        else point
        for point in points.points
    ]
    kept = tuple(point for point in named if point_filter.keeps(point, baselines))
    return replace(points, points=kept)


def compare_points(
    points: PointSet, question: Question, point_filter: Filter | None = None
) -> ComparisonOutcome:
    """Returns all comparisons that the points allow.

    Raises:
        InputError: no point is left, the baseline has none, or a name or number is wrong.
        NotComparable: both sides exist, but never for the same hardware, model, precision and workload.
    """
    chosen = choose(points, point_filter or Filter(), question.baseline)
    _check_some(chosen)
    baseline = _baseline(points, question)
    agreements = find_agreements(points.answers, baseline)

    def settings_of(curve: Curve) -> Settings:
        return replace(settings_for(curve, question, points.info), agreements=agreements)

    return compare_all(chosen, baseline, settings_of, question.grouping)


def _check_some(points: PointSet) -> None:
    """Checks that a point is valid; the message gives the reasons of those that are not.

    Raises:
        NoComparisonError: no point is valid.
    """
    if any(point.valid for point in points.points) or not (points.points or points.unused):
        return
    wrong = [describe_invalid(point) for point in points.points]
    if wrong or points.info is not None:
        wrong += [item for item in points.unused if item.kind == "unusable"]
    reasons = join_reasons(wrong or points.unused, _SHOWN)
    if wrong:
        why = f"no valid point to compare; all {len(wrong)} are invalid"
        raise NoComparisonError(points.sources, why, f": {reasons}")
    raise NoComparisonError(points.sources, f"no valid point to compare; {reasons}")


def compare_if_possible(
    points: PointSet, question: Question, point_filter: Filter | None = None
) -> ComparisonOutcome:
    """Returns the comparisons, or why the points allow none: a sweep whose servers died has a report too.

    Raises:
        InputError: the question is wrong: a filter that keeps nothing, an unknown baseline, a number.
    """
    try:
        return compare_points(points, question, point_filter)
    except InputError as error:
        chosen = choose(points, point_filter or Filter(), question.baseline)
        if _is_pair_possible(chosen, question, _baseline(points, question)) or _is_unknown(points, question):
            raise
        invalid = tuple(describe_invalid(point) for point in chosen.points if not point.valid)
        return ComparisonOutcome(
            comparisons=(),
            left_out=(*invalid, *points.unused),
            why_none=error.why if isinstance(error, NoComparisonError) else str(error),
            examples=error.examples if isinstance(error, NoComparisonError) else "",
        )


def _is_pair_possible(points: PointSet, question: Question, baseline: str) -> bool:
    """Returns whether some curves go together, so that an error is about the question."""
    groups = group_by_workload(build_curves(points.points, question.grouping))
    return any(pair(group, baseline)[0] for group in groups)


def _is_unknown(points: PointSet, question: Question) -> bool:
    """Returns whether the question names a baseline that neither the sweep nor a point has."""
    arms = {point.arm for point in points.points} | {item.arm for item in points.unused}
    arms |= set(points.info.arms if points.info else ())
    return question.baseline is not None and question.baseline not in arms


def explain_page(
    points: PointSet, question: Question, point_filter: Filter, method: Method
) -> tuple[Explanation, ...]:
    """Returns what a public page says of the points, and where and why that is not what they show.

    Raises:
        InputError: no point is left, or a name or number is wrong.
    """

    def settings_of(curve: Curve) -> Settings:
        return settings_for(curve, question, points.info)

    chosen = choose(points, point_filter, question.baseline).points
    return explain_points(chosen, settings_of, method, _baseline(points, question), question.grouping)


def _baseline(points: PointSet, question: Question) -> str:
    return question.baseline or (points.info.baseline if points.info else "off")


def choose(points: PointSet, point_filter: Filter, baseline: str | None = None) -> PointSet:
    """Returns the points that a filter keeps, and those of a baseline whatever they draft with.

    Raises:
        InputError: none is, or the hardware's name is unknown; the message lists what there is.
    """
    _check_hardware(points, point_filter)
    chosen = narrow(points, point_filter, baseline)
    _check_methods(points, point_filter)
    if points.points and not chosen.points:
        recipes = sorted({f"{p.hardware} {p.precision} {p.isl}/{p.osl} {p.engine}" for p in points.points})
        more = f" and {len(recipes) - 12} more" if len(recipes) > 12 else ""
        raise InputError(f"no point of {point_filter}; there are: {'; '.join(recipes[:12])}{more}")
    return chosen


def _check_methods(points: PointSet, point_filter: Filter) -> None:
    """Checks that some point drafts by a method that is asked for; the message lists those there are."""
    recorded = {point.method for point in points.points}
    if point_filter.methods and points.points and not recorded & {*point_filter.methods}:
        there = ", ".join(sorted(method for method in recorded if method)) or "none"
        unsaid = counted(sum(point.method is None for point in points.points), "point")
        raise InputError(
            f"no point of speculation {', '.join(point_filter.methods)}; the methods recorded: {there} "
            f"({unsaid} without one)"
        )


def _check_hardware(points: PointSet, point_filter: Filter) -> None:
    """Checks the filter's hardware: a name that neither points nor constants have is a slip of the pen."""
    if point_filter.hardware is None or has_constants(point_filter.hardware):
        return
    recorded = sorted({point.hardware for point in points.points if point.hardware is not None})
    if point_filter.hardware.lower() not in [name.lower() for name in recorded]:
        there = f"; the points have: {', '.join(recorded)}" if recorded else ""
        raise InputError(
            f"unknown hardware {point_filter.hardware!r}; known: {', '.join(hardware.names())}{there}"
        )


def settings_for(curve: Curve, question: Question, info: SweepInfo | None) -> Settings:
    """Returns the settings for a curve and its rivals: the question's, else the sweep's own."""
    return Settings(
        targets_tps=question.targets_tps or (info.targets_tps if info else ()),
        max_gap=question.max_gap,
        confidence=question.confidence,
        start_noise=question.start_noise,
        strict=question.strict,
        economics=_economics(curve, question, info),
        known_confounds=_known_confounds(curve, info) if info else (),
        reference=info.reference if info else None,
        what_if=question.what_if,
    )


def _known_confounds(baseline: Curve, info: SweepInfo) -> tuple[KnownConfound, ...]:
    arms = info.confound_arms or (None,) * len(info.confounds)
    against = info.baseline if baseline.arm != info.baseline else None
    return tuple(
        KnownConfound(text=text, arm=arm, against=against)
        for arm, text in zip(arms, info.confounds, strict=True)
    )


def _economics(curve: Curve, question: Question, info: SweepInfo | None) -> Economics | None:
    """Returns a sweep's stored constants unless the question names others; None for unknown hardware."""
    name, constants = curve.shared("hardware"), question.constants
    if info is not None and constants is None and name in (None, info.hardware.name):
        economics = Economics(hardware=hardware.with_caveats(info.hardware), tier=question.tier)
    elif name is None or not has_constants(name, constants):
        return None
    else:
        economics = find_economics(name, constants, question.tier)
    if question.usd_per_gpu_h is not None:
        economics = economics.with_price(question.usd_per_gpu_h)
    return economics if question.kw_per_gpu is None else economics.with_power(question.kw_per_gpu)


def constants_for(info: SweepInfo, question: Question) -> Hardware | None:
    """Returns the constants of a stored sweep; None where the question names others that do not list it."""
    constants: Hardware | None = info.hardware
    if question.constants is not None:
        name = resolve_name(info.hardware.name, question.constants)
        is_listed = has_constants(name, question.constants)
        constants = hardware.lookup(name, question.constants) if is_listed else None
    if question.kw_per_gpu is None:
        return constants
    economics = Economics(hardware=constants or info.hardware, tier=question.tier)
    return economics.with_power(question.kw_per_gpu).hardware
