"""Pure: documents as markup: Markdown, and LaTeX tables.

GitHub renders the Markdown, and a person can read it as it stands. The LaTeX tables (booktabs) are put into a
paper with `\\input`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mtpbench_analysis.document import Block, Document, List, Table, Text, Texts, visible

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
    lines = [
        _markdown_row(table.headers),
        "|" + "|".join(align) + "|",
        *(_markdown_row(row) for row in table.rows),
    ]
    return "\n".join(lines)


def escape_markdown(text: str) -> str:
    """Escapes the user's arms, file names and engine names, which must not break the table or the page."""
    return _MARKS.sub(lambda mark: "\\" + mark[0], visible(text))


def _document(document: Document) -> str:
    parts = [f"## {escape_markdown(document.heading)}"]
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
    return [*parts, escape_markdown(block.caption)] if block.caption else parts


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape_markdown(cell).replace("\n", " ") for cell in cells) + " |"


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {escape_markdown(item)}" for item in items)


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "†": r"$\dagger$",
    "–": "--",
    "−": "$-$",
    "·": r"$\cdot$",
    "µ": r"\textmu{}",
    "Δ": r"$\Delta$",
    "→": r"$\rightarrow$",
}


_HEAD = "% Needs \\usepackage{booktabs}. Made by mtpbench."


def to_latex(documents: Sequence[Document], left_out: Texts = ()) -> str:
    """Returns a `table` environment for a document's tables up to the first with figures, or for each table
    where none has reservations.

    The caption says what the figures rest on, what differs besides speculation and what to be careful about:
    a table that is cut out of a paper keeps its reservations. What is in no document stands as comments.
    """
    parts = [_HEAD]
    for document in documents:
        if document.reservations is None:
            parts += [_environment(_caption(document, table), table) for table in document.tables]
        else:
            *before, matched = _through(document.tables, "matched")
            parts += [_environment(_caption(document, table), table) for table in before]
            parts.append(_environment(_reserved(document, matched, document.reservations), matched))
    parts += [f"% Not used: {visible(' '.join(text.split()))}" for text in left_out]
    return "\n".join(parts) + "\n"


def _through(tables: Sequence[Table], name: str) -> Sequence[Table]:
    """Returns the tables up to that of an id; the first where there is none of it."""
    ends = next((i for i, table in enumerate(tables) if table.id == name), 0)
    return tables[: ends + 1]


def _caption(document: Document, table: Table) -> str:
    banner = f"{document.banner} " if document.banner else ""
    return f"{banner}{document.heading_of(table)}. {document.heading}. {table.caption}"


def _reserved(document: Document, table: Table, reservations: Texts) -> str:
    banner = (document.banner,) if document.banner else ()
    sentences = [_sentence(text) for text in (*banner, *reservations)]
    return " ".join(part for part in (document.heading + ".", table.caption, *sentences) if part)


def _environment(caption: str, table: Table) -> str:
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(caption)}}}",
        *_tabular(table),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _tabular(table: Table) -> list[str]:
    columns = "l" * table.text_columns + "r" * (len(table.headers) - table.text_columns)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_row(table.headers), r"\midrule"]
    for i, row in enumerate(table.rows):
        if i and i in table.sections:
            lines.append(r"\addlinespace")
        lines.append(_latex_row(row))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(escape_latex(cell) for cell in cells) + r" \\"


def escape_latex(text: str) -> str:
    """Returns text that LaTeX prints as it is; a line break becomes a space."""
    return "".join(_LATEX.get(character, character) for character in visible(" ".join(text.split())))


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
