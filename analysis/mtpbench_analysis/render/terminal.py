"""Pure: documents as rich renderables; the command line prints them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text as RichText

from mtpbench_analysis.chart.terminal_curve import Beside, TerminalCurve, series_of
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.document import Document, List, Table, Text, Texts
from mtpbench_analysis.render.terminal_table import FittedTable

_LISTED = 12


def to_terminal(
    documents: Sequence[Document],
    left_out: Texts = (),
    *,
    full: bool = False,
    curves: Sequence[TerminalCurve] = (),
) -> RenderableType:
    """The documents one after the other, then what is in none of them; readable at 100 columns.

    Args:
        documents: in their order.
        left_out: what is in none of them.
        full: with the tables of detail, which are long.
        curves: a drawing for each document, beside or below its first table; none at all for no drawings.
    """
    parts: list[RenderableType] = []
    for i, document in enumerate(documents):
        parts += _document(document, full, curves[i] if curves else None)
    if left_out:
        parts += _list(List(id="left_out", title="Not used", items=left_out, shortened=True))
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


def _document(document: Document, full: bool, curve: TerminalCurve | None) -> list[RenderableType]:
    parts: list[RenderableType] = [RichText(document.heading, style="bold"), RichText("")]
    if document.banner:
        parts += [RichText(document.banner, style="bold yellow"), RichText("")]
    after_text = False
    for block in document.blocks:
        if isinstance(block, Text):
            parts += [RichText(line) for line in block.lines]
        elif isinstance(block, List):
            parts += [*([RichText("")] if after_text else []), *_list(block)]
        elif full or not block.detail:
            parts += _table(replace(block, title=document.heading_of(block)), curve)
            curve = None
        after_text = isinstance(block, Text)
    return parts


def _table(table: Table, curve: TerminalCurve | None) -> list[RenderableType]:
    if table.short:
        hidden, rows = len(table.rows) - len(table.short), tuple(table.rows[i] for i in table.short)
        table = replace(table, rows=rows, caption=f"and {hidden} more (--format md or json)")
    fitted = FittedTable(table)
    caption = RichText(table.caption, style="dim") if table.caption else None
    if curve is not None:
        return [RichText(""), Beside(fitted, caption, curve), RichText("")]
    under = () if caption is None else (caption,)
    return [RichText(""), fitted, *under, RichText("")]


def _list(block: List) -> list[RenderableType]:
    parts: list[RenderableType] = [RichText(block.title, style="bold")]
    limit = _LISTED if block.shortened else len(block.items)
    for item in block.items[:limit]:
        bullet = RichTable.grid(padding=(0, 1))
        bullet.add_row(RichText("•"), RichText(item))
        parts.append(Padding(bullet, (0, 0, 0, 2)))
    if len(block.items) > limit:
        more = f"    and {len(block.items) - limit} more (all of them with --format json)"
        parts.append(RichText(more, style="dim"))
    return [*parts, RichText("")]
