"""Pure: documents as LaTeX tables (booktabs), to be put into a paper with `\\input`."""

from __future__ import annotations

from collections.abc import Sequence

from mtpbench_analysis.document import Document, Table, Texts

_PLAIN = {
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
    "–": "--",
    "−": "$-$",
    "·": r"$\cdot$",
    "µ": r"\textmu{}",
    "Δ": r"$\Delta$",
    "→": r"$\rightarrow$",
}


_HEAD = "% Needs \\usepackage{booktabs}. Made by mtpbench."


def to_latex(documents: Sequence[Document], left_out: Texts = ()) -> str:
    """Returns a `table` environment for a document's first table, or for each table where none has
    reservations.

    The caption says what the figures rest on, what differs besides speculation and what to be careful about:
    a table that is cut out of a paper keeps its reservations. What is in no document stands as comments.
    """
    parts = [_HEAD]
    for document in documents:
        if document.reservations is None:
            parts += [_environment(_caption(document, table), table) for table in document.tables]
        else:
            first = document.tables[0]
            parts.append(_environment(_reserved(document, first, document.reservations), first))
    parts += [f"% Not used: {' '.join(text.split())}" for text in left_out]
    return "\n".join(parts) + "\n"


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
        rf"\caption{{{escape(caption)}}}",
        *_tabular(table),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _tabular(table: Table) -> list[str]:
    columns = "l" * table.text_columns + "r" * (len(table.headers) - table.text_columns)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _row(table.headers), r"\midrule"]
    for i, row in enumerate(table.rows):
        if i and i in table.sections:
            lines.append(r"\addlinespace")
        lines.append(_row(row))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _row(cells: Sequence[str]) -> str:
    return " & ".join(escape(cell) for cell in cells) + r" \\"


def escape(text: str) -> str:
    """Returns text that LaTeX prints as it is; a line break becomes a space."""
    return "".join(_PLAIN.get(character, character) for character in " ".join(text.split()))


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
