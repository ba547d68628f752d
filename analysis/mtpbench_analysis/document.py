"""Pure: a comparison as a document, in the order in which a reader needs it; formats only lay it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.curves import Curve, display_name
from mtpbench_analysis.details import leads_table, metrics_table, twins_table
from mtpbench_analysis.frame import Unused
from mtpbench_analysis.pairing import describe_invalid
from mtpbench_analysis.sentences import (
    write_agreements,
    write_caveats,
    write_crossings,
    write_overview,
    write_sentences,
)
from mtpbench_analysis.tables import Table, matched_table, points_table, reference_table

SIMULATED_BANNER = "SIMULATED: these figures come from a model of the engine, not from hardware."


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """The parts of one comparison as text.

    Args:
        banner: the SIMULATED line, or None.
        overview: what was measured and where the sides can be compared.
        sentences: one for each target.
        caveats: what to be careful about.
        answers: whether speculation changed the answers.
        differences: what differs between the sides beyond speculation, and what one curve mixes.
        metrics: every metric at the targets.
        leads: who wins where; None where two curves never cross and the sentences say all.
        twins: recipes of both arms; None where there are none.
        left_out: points that entered no curve, and why.
    """

    title: str
    banner: str | None
    overview: tuple[str, ...]
    matched: Table
    sentences: tuple[str, ...]
    caveats: tuple[str, ...]
    answers: tuple[str, ...]
    differences: tuple[str, ...]
    points: Table
    metrics: Table
    leads: Table | None
    twins: Table | None
    reference: Table | None
    left_out: tuple[str, ...]

    @property
    def details(self) -> tuple[Table, ...]:
        """The tables after the words, in the order in which a reader may want them."""
        tables = (self.leads, self.twins, self.metrics, self.reference, self.points)
        return tuple(table for table in tables if table is not None)

    @property
    def lists(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The titled lists that stand between the tables, empty ones left out."""
        titled = (
            ("In words", self.sentences),
            ("Careful", self.caveats),
            ("The same answers?", self.answers),
            ("What differs besides speculation", self.differences),
        )
        return tuple((title, items) for title, items in titled if items)


def write_document(comparison: Comparison) -> Document:
    """The document of one comparison."""
    reference = comparison.settings.reference
    return Document(
        title=_title(comparison),
        banner=SIMULATED_BANNER if comparison.simulated else None,
        overview=write_overview(comparison),
        matched=matched_table(comparison),
        sentences=(*write_sentences(comparison), *write_crossings(comparison)),
        caveats=write_caveats(comparison),
        answers=write_agreements(comparison),
        differences=_differences(comparison),
        points=points_table(comparison),
        metrics=metrics_table(comparison),
        leads=_leads(comparison),
        twins=twins_table(comparison),
        reference=reference_table(comparison, reference) if reference else None,
        left_out=list_unused([describe_invalid(point) for point in comparison.invalid]),
    )


def _leads(comparison: Comparison) -> Table | None:
    if len(comparison.leads) < 2:
        return None
    return leads_table(comparison.curves, comparison.leads, comparison.simulated)


def list_unused(unused: Sequence[Unused]) -> tuple[str, ...]:
    """One line for each thing that was not used, with its reason."""
    return tuple(f"{item.what}: {item.reason}" for item in unused)


def describe_workload(curve: Curve, *, served_by: bool = True) -> str:
    """The hardware, model and workload of a curve, as far as recorded, and what serves it."""
    parts = [curve.shared(name) for name in ("hardware", "model", "precision")]
    if curve.shared("isl") is not None:
        parts.append(f"ISL {curve.shared('isl')} / OSL {curve.shared('osl')}")
    if served_by:
        parts += [curve.shared("engine"), curve.shared("serving")]
    return ", ".join(str(part) for part in parts if part is not None)


def _title(comparison: Comparison) -> str:
    arms = list(dict.fromkeys(display_name(other.arm) for other in comparison.others))
    versus = f"{', '.join(arms)} versus {display_name(comparison.baseline.arm)}"
    simulated = "SIMULATED: " if comparison.simulated else ""
    where = describe_workload(comparison.baseline)
    return f"{simulated}{versus}" + (f": {where}" if where else "")


def _differences(comparison: Comparison) -> tuple[str, ...]:
    several = len(comparison.others) > 1
    lines = [
        f"{label}: {text}" if several else text
        for label, texts in comparison.confounds.items()
        for text in texts
    ]
    return (*dict.fromkeys(lines), *comparison.pooling)
