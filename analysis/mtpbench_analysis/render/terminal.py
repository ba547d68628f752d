"""Pure: documents as rich renderables, which the command line prints.

A table fits its terminal. A figure is shown whole or not at all, and the columns that are left out are named.
What gives way, in this order: words fold, at spaces and within long names; whole columns are left out, the
least important first; where that is not enough, every row is a record of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text as RichText

from mtpbench_analysis.chart.terminal_curve import TableWithCurve, TerminalCurve, series_of
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.document import (
    BadNews,
    Caution,
    Document,
    GoodNews,
    List,
    Table,
    Text,
    Texts,
    visible,
    visible_table,
)

_LISTED = 12


def to_terminal(
    documents: Sequence[Document],
    left_out: Texts = (),
    *,
    full: bool = False,
    curves: Sequence[TerminalCurve] = (),
) -> RenderableType:
    """Returns the documents one after the other, then what is in none of them; readable at 100 columns.

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
    """Returns the drawing of each comparison, invalid points included."""
    return tuple(
        TerminalCurve(
            series=series_of(comparison.curves, comparison.invalid),
            simulated=comparison.simulated,
            ascii_only=ascii_only,
            terminals_only=terminals_only,
        )
        for comparison in comparisons
    )


def _document(document: Document, full: bool, curve: TerminalCurve | None) -> list[RenderableType]:
    parts: list[RenderableType] = [RichText(visible(document.heading), style="bold"), RichText("")]
    if document.banner:
        parts += [RichText(document.banner, style="bold yellow"), RichText("")]
    after_text = False
    for block in document.blocks:
        if isinstance(block, Text):
            parts += [RichText(visible(line)) for line in block.lines]
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
    caption = RichText(visible(table.caption), style="dim") if table.caption else None
    if curve is not None:
        return [RichText(""), TableWithCurve(fitted, caption, curve), RichText("")]
    under = () if caption is None else (caption,)
    return [RichText(""), fitted, *under, RichText("")]


def _list(block: List) -> list[RenderableType]:
    parts: list[RenderableType] = [RichText(block.title, style="bold")]
    limit = _LISTED if block.shortened else len(block.items)
    for item in block.items[:limit]:
        bullet = RichTable.grid(padding=(0, 1))
        bullet.add_row(RichText("•"), RichText(visible(item)))
        parts.append(Padding(bullet, (0, 0, 0, 2)))
    if len(block.items) > limit:
        more = f"    and {len(block.items) - limit} more (all of them with --format json)"
        parts.append(RichText(more, style="dim"))
    return [*parts, RichText("")]


LEFT_OUT_FIRST = (
    "runs",
    "J/token",
    "GPUs",
    "gain / acceptance",
    "acceptance length",
    "topology",
    "TTFT s",
    "AL",
    "conc.",
)
"""Headers of columns that a narrow terminal can do without, the least important first; others stay."""
_STYLES: Mapping[type[str], str] = {Caution: "yellow", GoodNews: "green", BadNews: "bold red"}
_MANY = 6
"""More columns than this stand closer together."""
_SIGN = re.compile(r"(?<=[≥≤≈±~]) ")
_TIED = "\N{NO-BREAK SPACE}"
_EDGES = re.compile(r"[^–]*–|[^–]+")
"""The two edges of an interval, `(1,230–1,290)`: either is a number of its own."""
_PARTS = re.compile(r"[^/_-]*[/_-]|[^/_-]+")


@dataclass(frozen=True, slots=True)
class _Form:
    """A form says how far a table's columns stand apart.

    Args:
        padding: blanks behind a column, besides the one that divides it from the next.
        edge: a blank at either side.
    """

    padding: int
    edge: bool

    def around(self, columns: int) -> int:
        """Returns the blanks in a row."""
        return columns * self.padding + (columns - 1) + 2 * self.edge


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout has the columns that are shown, their widths, and how they stand apart."""

    columns: tuple[int, ...]
    widths: tuple[int, ...]
    form: _Form


@dataclass(frozen=True, slots=True)
class FittedTable:
    """A fitted table is a table as a rich renderable that takes the width it is given.

    Args:
        styles: of cells, by row and column; the others are styled by what they say.
        elsewhere: where what is left out is to be had, besides a wider terminal.
    """

    table: Table
    styles: Mapping[tuple[int, int], str] = field(default_factory=dict)
    elsewhere: str = "--format md"

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", visible_table(self.table))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the title, the table, and the names of columns that had no room."""
        yield RichText(self.table.title, style="bold")
        layout = layout_of(self.table, options.max_width)
        if layout is None:
            yield from self._records(options.max_width)
            yield RichText("")
            return
        yield self._grid(layout)
        if not layout.form.edge:
            yield RichText("")
        names = {self.table.headers[place] for place in layout.columns}
        hidden = [name for name in LEFT_OUT_FIRST if name in self.table.headers and name not in names]
        if hidden:
            where = f"a wider terminal or {self.elsewhere}" if self.elsewhere else "a wider terminal"
            yield RichText(f"left out for width: {', '.join(hidden)}; {where} shows them", style="dim")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Returns the width at which nothing folds, and that of the terminal where it is less."""
        natural = _natural(self.table, range(len(self.table.headers)))
        width = sum(natural) + _forms(self.table)[0].around(len(natural))
        return Measurement(min(width, options.max_width), width)

    def _grid(self, layout: Layout) -> RichTable:
        table, form = self.table, layout.form
        grid = RichTable(
            box=box.SIMPLE_HEAD, padding=(0, form.padding, 0, 0), pad_edge=False, show_edge=form.edge
        )
        columns = list(zip(layout.columns, layout.widths, strict=True))
        for place, width in columns:
            justify: Literal["left", "right"] = "left" if place < table.text_columns else "right"
            header = RichText("\n".join(folded(table.headers[place], width)))
            grid.add_column(header, justify=justify, width=width, no_wrap=True)
        for i in range(len(table.rows)):
            if i and i in table.sections:
                grid.add_section()
            grid.add_row(*(self._cell(i, place, width) for place, width in columns))
        return grid

    def _cell(self, row: int, place: int, width: int) -> RichText:
        """Returns a cell whose figure stands out; what it rests on is dimmed."""
        text = self.table.rows[row][place]
        first, _, rest = text.partition("\n")
        cell = RichText("\n".join(folded(first, width)), style=self._style(row, place))
        if rest:
            cell.append("\n" + "\n".join(folded(rest, width)), style="dim")
        return cell

    def _style(self, row: int, place: int) -> str:
        return self.styles.get((row, place), _STYLES.get(type(self.table.rows[row][place]), ""))

    def _records(self, width: int) -> Iterator[RichText]:
        """Yields every row by itself: its name, then a line for each column."""
        about = [""] * self.table.text_columns
        for i, row in enumerate(self.table.rows):
            # A row that leaves its first cell empty goes on about what the row above names.
            names = [row[0] or about[0], *row[1 : self.table.text_columns]]
            about = names
            yield RichText("")
            heading = ", ".join(name.replace("\n", " ") for name in names if name)
            yield RichText("\n".join(folded(heading, width)), style="bold")
            for place in range(self.table.text_columns, len(row)):
                header, text = self.table.headers[place], row[place].replace("\n", " ")
                lines = folded(f"{header}: {text}" if header else text, max(1, width - 4))
                indented = [f"{'    ' if k else '  '}{line}" for k, line in enumerate(lines)]
                yield RichText("\n".join(indented), style=self._style(i, place))


def layout_of(table: Table, width: int) -> Layout | None:
    """Returns the columns for a terminal of some width; None where only records fit."""
    columns = list(range(len(table.headers)))
    spare = [table.headers.index(name) for name in LEFT_OUT_FIRST if name in table.headers]
    spare = [place for place in spare if place >= table.text_columns]
    while True:
        natural, least = _natural(table, columns), _least(table, columns)
        for form in _forms(table):
            widths = _share_out(natural, least, width - form.around(len(columns)))
            if widths is not None:
                return Layout(tuple(columns), widths, form)
        if not spare:
            return None
        columns.remove(spare.pop(0))


def folded(text: str, width: int) -> list[str]:
    """Returns text in lines of at most a width, broken at spaces, within names (`1xTP8-1xTP8`, `tok/s/user`)
    and between the edges of an interval.

    What a reader takes for one thing stays one: numbers, dates, signs with their figures. Only such a
    thing that is longer than a line sticks out of it; `layout_of` never asks for that.
    """
    lines: list[str] = []
    for whole in text.split("\n"):
        line = ""
        for piece, gap in _pieces(whole):
            if line and cell_len(line) + len(gap) + cell_len(piece) > width:
                lines.append(line)
                line = piece
            else:
                line += (gap if line else "") + piece
        lines.append(line)
    return [line.replace(_TIED, " ") for line in lines]


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yields pieces that are never broken, each with what divides it from the one before: a blank or
    nothing.
    """
    for word in _SIGN.sub(_TIED, text).split(" "):
        if not word:
            continue
        gap, piece = " ", ""
        for part in (part for side in _EDGES.findall(word) for part in _PARTS.findall(side)):
            is_edge = piece.startswith("(") and piece.endswith("–")
            is_joint = piece[-1:] in ("/", "_", "-") and _is_name(piece[:-1])
            if is_edge or (is_joint and _is_name(part.rstrip("/_-"))):
                yield piece, gap
                gap, piece = "", ""
            piece += part
        yield piece, gap


def _is_name(text: str) -> bool:
    """Returns whether text can stand alone at the end or start of a line: it has letters, and not
    just one.
    """
    return len(text) > 1 and any(character.isalpha() for character in text)


def _forms(table: Table) -> tuple[_Form, ...]:
    """Returns the forms from the widest apart to the closest."""
    padding = 0 if len(table.headers) > _MANY else 1
    return (_Form(padding, edge=True), _Form(0, edge=False))


def _natural(table: Table, columns: Sequence[int]) -> list[int]:
    """Returns the widths at which nothing folds."""
    return [
        max(cell_len(line) for cell in _column(table, place) for line in cell.split("\n"))
        for place in columns
    ]


def _least(table: Table, columns: Sequence[int]) -> list[int]:
    """Returns the widths below which something would break that must not."""
    return [
        max(
            (
                cell_len(piece)
                for cell in _column(table, i)
                for s in cell.split("\n")
                for piece, _ in _pieces(s)
            ),
            default=0,
        )
        for i in columns
    ]


def _column(table: Table, place: int) -> list[str]:
    return [table.headers[place], *(row[place] for row in table.rows)]


def _share_out(natural: Sequence[int], least: Sequence[int], room: int) -> tuple[int, ...] | None:
    """Returns widths that fit: the widest columns give way; None where all are as narrow as they can be."""
    widths = list(natural)
    while sum(widths) > room:
        wide = [i for i in range(len(widths)) if widths[i] > least[i]]
        if not wide:
            return None
        widths[max(wide, key=lambda i: widths[i])] -= 1
    return tuple(widths)
