"""Pure: a comparison as a document, in the order in which a reader needs it."""

from __future__ import annotations

from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.curves import describe_workload, display_name
from mtpbench_analysis.details import leads_table, metrics_table, twins_table
from mtpbench_analysis.document import Document, List, Table, Text, Texts, filled
from mtpbench_analysis.pairing import describe_invalid
from mtpbench_analysis.sentences import (
    write_agreements,
    write_caveats,
    write_crossings,
    write_overview,
    write_sentences,
)
from mtpbench_analysis.tables import matched_table, points_table, reference_table


def write_document(comparison: Comparison) -> Document:
    """The document of one comparison."""
    caveats, differences = write_caveats(comparison), _differences(comparison)
    words = (*write_sentences(comparison), *write_crossings(comparison))
    left_out = tuple(str(describe_invalid(point)) for point in comparison.invalid)
    return Document(
        title=_title(comparison),
        simulated=comparison.simulated,
        blocks=filled(
            Text(lines=write_overview(comparison)),
            matched_table(comparison),
            List(id="words", title="In words", items=words),
            List(id="caveats", title="Careful", items=caveats),
            List(id="answers", title="The same answers?", items=write_agreements(comparison)),
            List(id="differences", title="What differs besides speculation", items=differences),
            _leads(comparison),
            twins_table(comparison),
            metrics_table(comparison),
            reference_table(comparison),
            points_table(comparison),
            List(id="left_out", title="Points that entered no curve", items=left_out, shortened=True),
        ),
        reservations=(*caveats, *differences),
    )


def _leads(comparison: Comparison) -> Table | None:
    """None where two curves never cross and the sentences say all."""
    return None if len(comparison.leads) < 2 else leads_table(comparison.curves, comparison.leads)


def _title(comparison: Comparison) -> str:
    arms = list(dict.fromkeys(display_name(other.arm) for other in comparison.others))
    versus = f"{', '.join(arms)} versus {display_name(comparison.baseline.arm)}"
    where = describe_workload(comparison.baseline)
    return versus + (f": {where}" if where else "")


def _differences(comparison: Comparison) -> Texts:
    several = len(comparison.others) > 1
    lines = [
        f"{label}: {text}" if several else text
        for label, texts in comparison.confounds.items()
        for text in texts
    ]
    return (*dict.fromkeys(lines), *comparison.pooling)
