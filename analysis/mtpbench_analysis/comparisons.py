"""From sources to comparisons: which points are meant, which constants they get, which question is asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import RenderableType

from mtpbench import hardware
from mtpbench.errors import InputError
from mtpbench.records import SweepInfo
from mtpbench_analysis.agreement import find_agreements
from mtpbench_analysis.cells import DEFAULT_MAX_GAP
from mtpbench_analysis.compare import Settings
from mtpbench_analysis.cost import DEFAULT_TIER, Economics, find_economics, has_constants, resolve_name
from mtpbench_analysis.curves import POOLABLE, Curve
from mtpbench_analysis.document import list_unused, write_document
from mtpbench_analysis.frame import CurvePoint, PointSet
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.markdown import to_markdown
from mtpbench_analysis.pairing import Outcome, compare_all
from mtpbench_analysis.terminal import to_terminal


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """How to compare, where the reader may say less than everything.

    Args:
        targets_tps: empty for the sweep's own, or the default targets.
        baseline: None for the sweep's own, or `off`.
        constants_date: None for the sweep's own constants, or the newest.
        pool: fields in which one curve's points may differ; the tables say so.
    """

    targets_tps: tuple[float, ...] = ()
    baseline: str | None = None
    constants_date: str | None = None
    tier: str = DEFAULT_TIER
    max_gap: float = DEFAULT_MAX_GAP
    pool: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """Which points are meant; None is all. `hardware` also names it for points that do not say."""

    hardware: str | None = None
    precision: str | None = None
    isl: int | None = None
    osl: int | None = None
    engine: str | None = None

    def __str__(self) -> str:
        asked = {name: getattr(self, name) for name in ("hardware", "precision", "isl", "osl", "engine")}
        return (
            ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None) or "no filter"
        )

    def keeps(self, point: CurvePoint) -> bool:
        """Whether the point is meant."""
        if self.hardware and resolve_name(point.hardware or "") != resolve_name(self.hardware):
            return False
        pairs = ((self.precision, point.precision), (self.engine, point.engine))
        lengths = ((self.isl, point.isl), (self.osl, point.osl))
        return all(asked is None or asked.lower() == (has or "").lower() for asked, has in pairs) and all(
            length is None or length == has_length for length, has_length in lengths
        )


def narrow(points: PointSet, kept: Filter) -> PointSet:
    """The points that are meant; those that do not say their hardware get the name that was given."""
    named = [
        replace(point, hardware=kept.hardware) if point.hardware is None and kept.hardware else point
        for point in points.points
    ]
    return replace(points, points=tuple(point for point in named if kept.keeps(point)))


def compare_points(points: PointSet, question: Question, kept: Filter | None = None) -> Outcome:
    """All comparisons that the points allow.

    Raises:
        InputError: no point is left, the baseline has none, or a name or number is wrong.
        NotComparable: both sides exist, but never for the same hardware, model, precision and workload.
    """
    kept = kept or Filter()
    _check_hardware(points, kept)
    chosen = narrow(points, kept)
    if points.points and not chosen.points:
        known = sorted({f"{p.hardware} {p.precision} {p.isl}/{p.osl} {p.engine}" for p in points.points})
        more = f" and {len(known) - 12} more" if len(known) > 12 else ""
        raise InputError(f"no point of {kept}; there are: {'; '.join(known[:12])}{more}")
    if unknown := [name for name in question.pool if name not in POOLABLE]:
        raise InputError(f"can't pool {', '.join(unknown)}; one of {', '.join(POOLABLE)} is needed")
    info = points.info
    baseline = question.baseline or (info.baseline if info else "off")
    agreements = find_agreements(points.answers, baseline)

    def settings_of(curve: Curve) -> Settings:
        return replace(_settings(curve, question, info), agreements=agreements)

    return compare_all(chosen, baseline, settings_of, question.pool)


def _check_hardware(points: PointSet, kept: Filter) -> None:
    """A name that neither the points nor the constants know is a slip, not a new kind of hardware."""
    if kept.hardware is None or has_constants(kept.hardware):
        return
    recorded = sorted({point.hardware for point in points.points if point.hardware is not None})
    if kept.hardware.lower() not in [name.lower() for name in recorded]:
        there = f"; the points have: {', '.join(recorded)}" if recorded else ""
        raise InputError(f"unknown hardware {kept.hardware!r}; known: {', '.join(hardware.names())}{there}")


def compare_results(directory: Path, question: Question | None = None) -> Outcome:
    """The comparisons of a results folder.

    Raises:
        InputError, SchemaError, StoreError: as the store and `compare_points` say.
    """
    return compare_points(read_source(directory), question or Question())


def render_results(directory: Path) -> tuple[RenderableType, str]:
    """The comparison of a results folder, for the terminal and as Markdown.

    Raises:
        InputError, SchemaError, StoreError: as `compare_results` says.
    """
    outcome = compare_results(directory)
    documents = [write_document(comparison) for comparison in outcome.comparisons]
    left_out = list_unused(outcome.left_out)
    return to_terminal(documents, left_out), to_markdown(documents, left_out)


def _settings(curve: Curve, question: Question, info: SweepInfo | None) -> Settings:
    return Settings(
        targets_tps=question.targets_tps or (info.targets_tps if info else ()),
        max_gap=question.max_gap,
        economics=_economics(curve, question, info),
        known_confounds=info.confounds if info else (),
        reference=info.reference if info else None,
    )


def _economics(curve: Curve, question: Question, info: SweepInfo | None) -> Economics | None:
    """A sweep's stored constants unless a date asks for others; no constants where hardware is unknown."""
    name = curve.shared("hardware")
    if info is not None and question.constants_date is None and name in (None, info.hardware.name):
        return Economics(hardware=info.hardware, tier=question.tier)
    if name is None or not has_constants(name):
        return None
    return find_economics(name, question.constants_date, question.tier)
