"""Pure: many comparisons in one document for each hardware: what each says at its targets, in a row each."""

from __future__ import annotations

from collections.abc import Sequence

from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.curves import Curve, short
from mtpbench_analysis.document import Document, Table, Text, Texts
from mtpbench_analysis.figures import target
from mtpbench_analysis.frame import Unused
from mtpbench_analysis.tables import show_brief, show_ratio

_NAMED = ("model", "precision", "engine", "serving")
_HEADERS = ("workload", "points", "tok/s/user", "tok/s/GPU", "baseline's", "ratio")
_CAPTION = (
    "Points: the curve's and its baseline's. Knots, confounds and recipes of each comparison: without "
    "--summary."
)


def summarize(comparisons: Sequence[Comparison], left_out: Sequence[Unused] = ()) -> tuple[Document, ...]:
    """One document for each hardware, in the order in which it first appears; what is in none comes last."""
    groups: dict[object, list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault(comparison.baseline.shared("hardware"), []).append(comparison)
    documents = [
        _document(str(hardware or "hardware not recorded"), group) for hardware, group in groups.items()
    ]
    if left_out:
        table = Table(
            title="Not used",
            headers=("what", "reason"),
            rows=tuple((item.what, item.reason) for item in left_out),
            text_columns=2,
        )
        documents.append(Document(title="Not used", simulated=False, blocks=(table,)))
    return tuple(documents)


def _document(hardware: str, group: Sequence[Comparison]) -> Document:
    simulated = any(comparison.simulated for comparison in group)
    rows: list[Texts] = []
    sections = []
    for comparison in group:
        for index in range(len(comparison.others)):
            sections.append(len(rows))
            rows += _rows(comparison, index)
    table = Table(
        title=f"{hardware}: at equal interactivity",
        headers=_HEADERS,
        rows=tuple(rows),
        caption=_CAPTION,
        sections=tuple(sections),
        text_columns=2,
    )
    blocks = (Text(lines=_sentences(group)), table)
    return Document(title=hardware, simulated=simulated, blocks=blocks)


def _sentences(group: Sequence[Comparison]) -> tuple[str, ...]:
    """How often there is an answer at all, and which way it points."""
    ratios = [ratio for comparison in group for row in comparison.rows for ratio in row.ratios]
    known = [ratio.value for ratio in ratios if ratio.value is not None]
    won = sum(value > 1 for value in known)
    withheld = sum(ratio.withheld is not None for ratio in ratios)
    unreached = len(ratios) - len(known) - withheld
    text = f"{len(group)} comparisons, {len(ratios)} targets: a ratio at {len(known)}"
    if known:
        text += f" (above 1 at {won})"
    return (f"{text}; withheld over a wide gap at {withheld}; one side not reached at {unreached}.",)


def _rows(comparison: Comparison, index: int) -> list[Texts]:
    other, base = comparison.others[index], comparison.baseline
    name = _name(other, base)
    points = f"{len(other.measured)} / {len(base.measured)}"
    return [
        (
            name if place == 0 else "",
            points if place == 0 else "",
            target(row.target_tps),
            show_brief(row.cells[index + 1]),
            show_brief(row.cells[0]),
            show_ratio(row.ratios[index]),
        )
        for place, row in enumerate(comparison.rows)
    ]


def _name(other: Curve, base: Curve) -> str:
    lengths = f"{other.shared('isl')}/{other.shared('osl')}" if other.shared("isl") else None
    parts = [*(other.shared(name) for name in _NAMED[:2]), lengths]
    parts += [other.shared(name) for name in _NAMED[2:]]
    parts.append(f"{other.label} / {base.label}")
    if other.shared("image") == base.shared("image") and other.shared("image"):
        parts.append(short(other.shared("image"), "image"))
    elif other.shared("image") or base.shared("image"):
        parts.append("images differ")
    return ", ".join(str(part) for part in parts if part is not None)
