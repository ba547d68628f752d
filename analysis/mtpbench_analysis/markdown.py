"""Pure: documents as Markdown that GitHub renders and a person can read as it stands."""

from __future__ import annotations

from collections.abc import Sequence

from mtpbench_analysis.document import Document
from mtpbench_analysis.sheets import Sheet
from mtpbench_analysis.tables import Table


def to_markdown(documents: Sequence[Document], left_out: Sequence[str] = ()) -> str:
    """The comparisons one after the other, then what entered none of them."""
    parts = [_document(document) for document in documents]
    if left_out:
        parts.append("## Not used\n\n" + _bullets(left_out))
    return "\n\n".join(parts) + "\n"


def sheets_to_markdown(sheets: Sequence[Sheet]) -> str:
    """The sheets one after the other."""
    parts = []
    for one in sheets:
        parts.append(f"## {_escape(one.title)}")
        if one.banner:
            parts.append(f"> **{one.banner}**")
        if one.sentences:
            parts.append(_bullets(one.sentences))
        for table in one.tables:
            parts += _table(table)
    return "\n\n".join(parts) + "\n"


def table_to_markdown(table: Table) -> str:
    """One table; a line break in a cell becomes a space."""
    align = ["---" if i < table.text_columns else "---:" for i in range(len(table.headers))]
    lines = [_row(table.headers), "|" + "|".join(align) + "|", *(_row(row) for row in table.rows)]
    return "\n".join(lines)


def _document(document: Document) -> str:
    parts = [f"## {_escape(document.title)}"]
    if document.banner:
        parts.append(f"> **{document.banner}**")
    parts.append(_bullets(document.overview))
    parts += _table(document.matched)
    for title, items in document.lists:
        parts.append(f"### {title}\n\n{_bullets(items)}")
    for table in document.details:
        parts += _table(table)
    if document.left_out:
        parts.append("### Points that entered no curve\n\n" + _bullets(document.left_out))
    return "\n\n".join(parts)


def _table(table: Table) -> list[str]:
    parts = [f"### {table.title}", table_to_markdown(table)]
    return [*parts, _escape(table.caption)] if table.caption else parts


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escape(cell).replace("\n", " ") for cell in cells) + " |"


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {_escape(item)}" for item in items)


def _escape(text: str) -> str:
    """Arms, file names and engine names are the user's: they must not break the table or the page."""
    for character in ("\\", "|", "<", "*", "`", "["):
        text = text.replace(character, "\\" + character)
    # `$` begins mathematics on GitHub where two stand in one paragraph.
    return text.replace("$", "\\$")
