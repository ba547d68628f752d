"""Pure: a document: a title and blocks of text, lists and tables, before any format; and visible text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Texts = tuple[str, ...]
SIMULATED_BANNER = "SIMULATED: these figures come from a model of the engine, not from hardware."


class Caution(str):
    """A caution is a cell's text that needs care: no figure, or an invalid point. It may stand out."""

    __slots__ = ()


class GoodNews(str):
    """Good news is a cell's text that says that all is well."""

    __slots__ = ()


class BadNews(str):
    """Bad news is a cell's text that says that something is wrong."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A text has sentences, a line each."""

    lines: Texts


@dataclass(frozen=True, kw_only=True, slots=True)
class List:
    """A list has sentences under a title.

    Args:
        id: its own among the lists of its document.
        shortened: whether a terminal shows the first of many only.
    """

    id: str
    title: str
    items: Texts
    shortened: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table has rows of text under headers. A newline in a cell is a line break where the format has one.

    Args:
        id: its own among the tables of its document.
        sections: indices of rows that begin a new section.
        text_columns: the leading columns that are words and not figures.
        short: indices of the rows that a terminal shows where all would be too many; empty for all.
        detail: whether a terminal shows it with `--full` only.
    """

    id: str = ""
    title: str
    headers: Texts
    rows: tuple[Texts, ...]
    caption: str = ""
    sections: tuple[int, ...] = ()
    text_columns: int = 1
    short: tuple[int, ...] = ()
    detail: bool = False


Block = Text | List | Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A document is one answer: a comparison, a regression, a buyer's question.

    Args:
        title: what it is about.
        simulated: whether any of it was simulated; every format says so.
        blocks: in the order in which a reader needs them.
        reservations: what must stay with the first table where that is cut out of the document; None where
            every table may be.
        data: the same for programs, JSON types only.
    """

    title: str
    simulated: bool
    blocks: tuple[Block, ...]
    reservations: Texts | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """Returns the title, which says SIMULATED where anything is."""
        return f"SIMULATED: {self.title}" if self.simulated else self.title

    @property
    def banner(self) -> str | None:
        """Returns the SIMULATED line, or None."""
        return SIMULATED_BANNER if self.simulated else None

    @property
    def tables(self) -> tuple[Table, ...]:
        """Returns its tables."""
        return tuple(block for block in self.blocks if isinstance(block, Table))

    def heading_of(self, table: Table) -> str:
        """Returns the title of one of its tables, which says SIMULATED where anything is."""
        return mark_simulated(table.title, self.simulated)

    def table(self, name: str) -> Table:
        """Returns the table of an id.

        Raises:
            KeyError: there is none.
        """
        return {table.id: table for table in self.tables}[name]

    def items(self, name: str) -> Texts:
        """Returns what the list of an id holds; nothing where there is none."""
        lists = (block for block in self.blocks if isinstance(block, List))
        return next((block.items for block in lists if block.id == name), ())


def filled(*blocks: Block | None) -> tuple[Block, ...]:
    """Returns the blocks that hold anything; a table without rows still says that there is nothing."""
    return tuple(
        block
        for block in blocks
        if isinstance(block, Table)
        or (isinstance(block, Text) and block.lines)
        or (isinstance(block, List) and block.items)
    )


def mark_simulated(title: str, simulated: bool) -> str:
    """Returns a table's title, which says so where anything was simulated."""
    return f"{title} (SIMULATED)" if simulated else title


_PICTURES = {code: 0x2400 + code for code in range(0x20) if code != 0x0A} | {0x7F: 0x2421}
"""By control character, its picture in Unicode (`␛` for ESC), as wide as one letter."""
HIDDEN = "\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufff9-\ufffb"
"""What a reader does not see, or what steers a terminal or the direction of text, as a class of a pattern:
control characters but the line feed, marks of direction, lone surrogates (bytes that were no UTF-8)."""
_HIDDEN = re.compile(f"[{HIDDEN}]")


def visible(text: str) -> str:
    """Returns text in which nothing steers a terminal or hides: control characters become their pictures.

    Names, logs, error texts and options come from servers, files and users. A line feed stays. What has no
    picture becomes `�`.
    """
    return _HIDDEN.sub(lambda found: chr(_PICTURES.get(ord(found[0]), 0xFFFD)), text)


def visible_table(table: Table) -> Table:
    """Returns a table in which all text is visible; cells keep their kind."""
    rows = tuple(
        tuple(type(cell)(visible(cell)) if _HIDDEN.search(cell) else cell for cell in row)
        for row in table.rows
    )
    return replace(
        table,
        title=visible(table.title),
        headers=tuple(map(visible, table.headers)),
        rows=rows,
        caption=visible(table.caption),
    )


def visible_values(value: Any) -> Any:
    """Returns plain JSON in which all text is visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(key): visible_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [visible_values(inner) for inner in value]
    return value


def json_text(data: Any) -> str:
    """Returns plain JSON as text for people and programs: what hides in it is written as JSON's escape."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
