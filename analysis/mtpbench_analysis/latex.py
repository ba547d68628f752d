"""Pure: documents as LaTeX tables (booktabs), to be put into a paper with `\\input`."""

from __future__ import annotations

from collections.abc import Sequence

from mtpbench_analysis.document import Document
from mtpbench_analysis.sheets import Sheet
from mtpbench_analysis.tables import Table

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


def to_latex(documents: Sequence[Document], left_out: Sequence[str] = ()) -> str:
    """One `table` environment for each comparison; what entered none of them stands as comments.

    The caption says what the figures rest on, what differs besides speculation and what to be careful about:
    a table that is cut out of a paper keeps its reservations.
    """
    parts = [_HEAD]
    parts += [_document(document) for document in documents]
    parts += [f"% Not used: {' '.join(text.split())}" for text in left_out]
    return "\n".join(parts) + "\n"


def sheets_to_latex(sheets: Sequence[Sheet]) -> str:
    """One `table` environment for each table of the sheets."""
    parts = [_HEAD]
    for sheet in sheets:
        for table in sheet.tables:
            banner = f"{sheet.banner} " if sheet.banner else ""
            parts.append(_environment(f"{banner}{table.title}. {sheet.title}. {table.caption}", table))
    return "\n".join(parts) + "\n"


def _document(document: Document) -> str:
    banner = (document.banner,) if document.banner else ()
    reservations = (*banner, *document.caveats, *document.differences)
    caption = [document.title + ".", document.matched.caption, *(_sentence(text) for text in reservations)]
    return _environment(" ".join(part for part in caption if part), document.matched)


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
    """Text that LaTeX prints as it is; a line break becomes a space."""
    return "".join(_PLAIN.get(character, character) for character in " ".join(text.split()))


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
