"""Pure: documents as rich renderables; the command line prints them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from mtpbench_analysis.chart.content import series_of
from mtpbench_analysis.chart.terminal import Beside, TerminalCurve
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.document import Document
from mtpbench_analysis.sheets import Sheet
from mtpbench_analysis.tables import Table
from mtpbench_analysis.terminal_table import FittedTable

_LISTED = 12


def to_terminal(
    documents: Sequence[Document],
    left_out: Sequence[str] = (),
    *,
    full: bool = False,
    curves: Sequence[TerminalCurve] = (),
) -> RenderableType:
    """The comparisons one after the other, then what entered none of them; readable at 100 columns.

    Args:
        documents: one for each comparison.
        left_out: what entered none of them.
        full: with the table of every metric, which is long.
        curves: a drawing for each document, beside or below its first table; none at all for no drawings.
    """
    parts: list[RenderableType] = []
    for i, document in enumerate(documents):
        parts += _document(document, full, curves[i] if curves else None)
    if left_out:
        parts += _list("Not used", left_out, _LISTED)
    return Group(*parts)


def curves_of(
    comparisons: Sequence[Comparison], *, ascii_only: bool = False, terminals_only: bool = True
) -> tuple[TerminalCurve, ...]:
    """The drawing of each comparison, invalid points included."""
    return tuple(
        TerminalCurve(
            series=series_of(one.curves, one.invalid),
            simulated=one.simulated,
            ascii_only=ascii_only,
            terminals_only=terminals_only,
        )
        for one in comparisons
    )


def sheets_to_terminal(sheets: Sequence[Sheet]) -> RenderableType:
    """The sheets one after the other."""
    parts: list[RenderableType] = []
    for one in sheets:
        parts += [Text(one.title, style="bold"), Text("")]
        if one.banner:
            parts += [Text(one.banner, style="bold yellow"), Text("")]
        parts += [Text(line) for line in one.sentences]
        for table in one.tables:
            parts += _table(table)
    return Group(*parts)


def _document(document: Document, full: bool, curve: TerminalCurve | None) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(document.title, style="bold"), Text("")]
    if document.banner:
        parts += [Text(document.banner, style="bold yellow"), Text("")]
    parts += [Text(line) for line in document.overview]
    parts += _table(document.matched, curve)
    for title, items in document.lists:
        parts += _list(title, items, len(items))
    for table in document.details:
        if full or table is not document.metrics:
            parts += _table(table)
    if document.left_out:
        parts += _list("Points that entered no curve", document.left_out, _LISTED)
    return parts


def _table(table: Table, curve: TerminalCurve | None = None) -> list[RenderableType]:
    fitted = FittedTable(table)
    caption = Text(table.caption, style="dim") if table.caption else None
    if curve is not None:
        return [Text(""), Beside(fitted, caption, curve), Text("")]
    under = () if caption is None else (caption,)
    return [Text(""), fitted, *under, Text("")]


def _list(title: str, items: Sequence[str], limit: int) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(title, style="bold")]
    for item in items[:limit]:
        bullet = RichTable.grid(padding=(0, 1))
        bullet.add_row(Text("•"), Text(item))
        parts.append(Padding(bullet, (0, 0, 0, 2)))
    if len(items) > limit:
        parts.append(Text(f"    and {len(items) - limit} more (all of them with --format json)", style="dim"))
    return [*parts, Text("")]
