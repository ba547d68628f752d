"""Pure: documents as Markdown that GitHub renders and a person can read as it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mtpbench_analysis.document import Block, Document, List, Table, Text, Texts

_MARKS = re.compile(r"[\\|<*`[$]|(?<![^\W_])_|_(?![^\W_])")
"""What GitHub reads as a mark. `$` begins mathematics where two stand in one paragraph. `_` begins emphasis
at the edge of a word only: within one, as in `max_num_seqs`, it is itself, and stays readable."""


def to_markdown(documents: Sequence[Document], left_out: Texts = ()) -> str:
    """Returns the documents one after the other, then what is in none of them."""
    parts = [_document(document) for document in documents]
    if left_out:
        parts.append("## Not used\n\n" + _bullets(left_out))
    return "\n\n".join(parts) + "\n"


def table_to_markdown(table: Table) -> str:
    """Returns one table; a line break in a cell becomes a space."""
    align = ["---" if i < table.text_columns else "---:" for i in range(len(table.headers))]
    lines = [_row(table.headers), "|" + "|".join(align) + "|", *(_row(row) for row in table.rows)]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Escapes the user's arms, file names and engine names, which must not break the table or the page."""
    return _MARKS.sub(lambda mark: "\\" + mark[0], text)


def _document(document: Document) -> str:
    parts = [f"## {escape(document.heading)}"]
    if document.banner:
        parts.append(f"> **{document.banner}**")
    for block in document.blocks:
        parts += _block(document, block)
    return "\n\n".join(parts)


def _block(document: Document, block: Block) -> list[str]:
    if isinstance(block, Text):
        return [_bullets(block.lines)]
    if isinstance(block, List):
        return [f"### {block.title}\n\n{_bullets(block.items)}"]
    parts = [f"### {document.heading_of(block)}", table_to_markdown(block)]
    return [*parts, escape(block.caption)] if block.caption else parts


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape(cell).replace("\n", " ") for cell in cells) + " |"


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {escape(item)}" for item in items)
