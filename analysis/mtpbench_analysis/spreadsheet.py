"""Pure: texts as cells of a CSV that a spreadsheet may open, and back."""

from __future__ import annotations

import re

from mtpbench_analysis.document import HIDDEN

FORMULA = "=+@\\-\uff0b\uff0d\uff1d\uff20"
"""What begins a formula in a spreadsheet, as a class of a pattern; its wide forms too."""
_MARKED = re.compile(f"'(?=[{FORMULA}'\\\\])")
_ODD_CELL = re.compile(f"[{FORMULA}]|{_MARKED.pattern}|\\s|.*[{HIDDEN}\n]|.*\\s\\Z", re.DOTALL)
_ESCAPED = re.compile(f"[{HIDDEN}\n\\\\]|\\A\\s|\\s\\Z")
_ESCAPE = re.compile(r"\\(?:(\\)|u([0-9a-f]{4})|(&))")


def to_cell(text: str) -> str:
    """Returns the cell of a CSV for a text: no spreadsheet takes it for a formula, and nothing in it hides.

    Almost every text is its own cell. One that begins like a formula gets `'` before it. Where it holds
    control characters or begins or ends with a blank, these become `\\u001b`, and a backslash two; `\\&`
    stands for nothing, where the mark needs something behind it. `from_cell` reads all of it back.
    """
    if not _ODD_CELL.match(text):
        return text
    body = _ESCAPED.sub(lambda found: "\\\\" if found[0] == "\\" else f"\\u{ord(found[0]):04x}", text)
    marked = f"'{body}"
    return marked if _MARKED.match(marked) else f"'\\&{body}"


def from_cell(cell: str) -> str:
    """Returns the text of a cell that `to_cell` made; any other cell as it is."""
    if not _MARKED.match(cell):
        return cell
    return _ESCAPE.sub(
        lambda found: found[1] or (chr(int(found[2], 16)) if found[2] else ""), cell.removeprefix("'")
    )
