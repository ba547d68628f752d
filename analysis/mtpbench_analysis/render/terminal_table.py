"""Pure: a table that fits its terminal. A figure is shown whole or not at all, and what is not is said.

What gives way, in this order: words fold, at spaces and within long names; whole columns are left out, the
least important first; where that is not enough, every row is a record of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from mtpbench_analysis.document import BadNews, Caution, GoodNews, Table

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
_PARTS = re.compile(r"[^/_-]*[/_-]|[^/_-]+")


@dataclass(frozen=True, slots=True)
class _Form:
    """How far a table's columns stand apart.

    Args:
        padding: blanks behind a column, besides the one that divides it from the next.
        edge: a blank at either side.
    """

    padding: int
    edge: bool

    def around(self, columns: int) -> int:
        """The blanks in a row."""
        return columns * self.padding + (columns - 1) + 2 * self.edge


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that are shown, their widths, and how they stand apart."""

    kept: tuple[int, ...]
    widths: tuple[int, ...]
    form: _Form


@dataclass(frozen=True, slots=True)
class FittedTable:
    """A table as a rich renderable; it takes the width that it is given.

    Args:
        styles: of cells, by row and column; the others are styled by what they say.
        elsewhere: where what is left out is to be had, besides a wider terminal.
    """

    table: Table
    styles: Mapping[tuple[int, int], str] = field(default_factory=dict)
    elsewhere: str = "--format md"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The title, the table, and which columns had no room."""
        yield Text(self.table.title, style="bold")
        layout = layout_of(self.table, options.max_width)
        if layout is None:
            yield from self._records(options.max_width)
            yield Text("")
            return
        yield self._grid(layout)
        if not layout.form.edge:
            yield Text("")
        shown = {self.table.headers[place] for place in layout.kept}
        hidden = [name for name in LEFT_OUT_FIRST if name in self.table.headers and name not in shown]
        if hidden:
            where = f"a wider terminal or {self.elsewhere}" if self.elsewhere else "a wider terminal"
            yield Text(f"left out for width: {', '.join(hidden)}; {where} shows them", style="dim")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """As wide as nothing has to fold; as narrow as it has to be."""
        natural = _natural(self.table, range(len(self.table.headers)))
        width = sum(natural) + _forms(self.table)[0].around(len(natural))
        return Measurement(min(width, options.max_width), width)

    def _grid(self, layout: Layout) -> RichTable:
        table, form = self.table, layout.form
        grid = RichTable(
            box=box.SIMPLE_HEAD, padding=(0, form.padding, 0, 0), pad_edge=False, show_edge=form.edge
        )
        shown = list(zip(layout.kept, layout.widths, strict=True))
        for place, width in shown:
            justify: Literal["left", "right"] = "left" if place < table.text_columns else "right"
            header = Text("\n".join(folded(table.headers[place], width)))
            grid.add_column(header, justify=justify, width=width, no_wrap=True)
        for i in range(len(table.rows)):
            if i and i in table.sections:
                grid.add_section()
            grid.add_row(*(self._cell(i, place, width) for place, width in shown))
        return grid

    def _cell(self, row: int, place: int, width: int) -> Text:
        """The figure stands out; what it rests on is dimmed."""
        text = self.table.rows[row][place]
        first, _, rest = text.partition("\n")
        cell = Text("\n".join(folded(first, width)), style=self._style(row, place))
        if rest:
            cell.append("\n" + "\n".join(folded(rest, width)), style="dim")
        return cell

    def _style(self, row: int, place: int) -> str:
        return self.styles.get((row, place), _STYLES.get(type(self.table.rows[row][place]), ""))

    def _records(self, width: int) -> Iterator[Text]:
        """Every row by itself: what it is about, then a line for each column."""
        about = [""] * self.table.text_columns
        for i, row in enumerate(self.table.rows):
            # A row that leaves its first cell empty goes on about what the row above names.
            names = [row[0] or about[0], *row[1 : self.table.text_columns]]
            about = names
            yield Text("")
            heading = ", ".join(name.replace("\n", " ") for name in names if name)
            yield Text("\n".join(folded(heading, width)), style="bold")
            for place in range(self.table.text_columns, len(row)):
                header, text = self.table.headers[place], row[place].replace("\n", " ")
                lines = folded(f"{header}: {text}" if header else text, max(1, width - 4))
                indented = [f"{'    ' if k else '  '}{line}" for k, line in enumerate(lines)]
                yield Text("\n".join(indented), style=self._style(i, place))


def layout_of(table: Table, width: int) -> Layout | None:
    """The columns for a terminal of some width; None where only records fit."""
    kept = list(range(len(table.headers)))
    spare = [table.headers.index(name) for name in LEFT_OUT_FIRST if name in table.headers]
    spare = [place for place in spare if place >= table.text_columns]
    while True:
        natural, least = _natural(table, kept), _least(table, kept)
        for form in _forms(table):
            widths = _share_out(natural, least, width - form.around(len(kept)))
            if widths is not None:
                return Layout(tuple(kept), widths, form)
        if not spare:
            return None
        kept.remove(spare.pop(0))


def folded(text: str, width: int) -> list[str]:
    """Text in lines of at most a width, broken at spaces and within names (`1xTP8-1xTP8`, `tok/s/user`).

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
    """What is never broken, each with what divides it from the one before: a blank or nothing."""
    for word in _SIGN.sub(_TIED, text).split(" "):
        if not word:
            continue
        gap, piece = " ", ""
        for part in _PARTS.findall(word):
            if piece and _is_name(piece[:-1]) and piece[-1] in "/_-" and _is_name(part.rstrip("/_-")):
                yield piece, gap
                gap, piece = "", ""
            piece += part
        yield piece, gap


def _is_name(text: str) -> bool:
    """Whether text can stand alone at the end or the start of a line: letters are in it, and not just one."""
    return len(text) > 1 and any(character.isalpha() for character in text)


def _forms(table: Table) -> tuple[_Form, ...]:
    """From airy to close."""
    padding = 0 if len(table.headers) > _MANY else 1
    return (_Form(padding, edge=True), _Form(0, edge=False))


def _natural(table: Table, kept: Sequence[int]) -> list[int]:
    """The widths at which nothing folds."""
    return [
        max(cell_len(line) for cell in _column(table, place) for line in cell.split("\n")) for place in kept
    ]


def _least(table: Table, kept: Sequence[int]) -> list[int]:
    """The widths below which something would break that must not."""
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
        for i in kept
    ]


def _column(table: Table, place: int) -> list[str]:
    return [table.headers[place], *(row[place] for row in table.rows)]


def _share_out(natural: Sequence[int], least: Sequence[int], room: int) -> tuple[int, ...] | None:
    """Widths that fit: the widest columns give way; None where all are as narrow as they can be."""
    widths = list(natural)
    while sum(widths) > room:
        wide = [i for i in range(len(widths)) if widths[i] > least[i]]
        if not wide:
            return None
        widths[max(wide, key=lambda i: widths[i])] -= 1
    return tuple(widths)
