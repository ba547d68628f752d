"""Pure: names and errors from results as texts that a picture can carry."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from decimal import Decimal

# What XML 1.0 can't hold, lone surrogates included: an SVG with one of them opens nowhere.
_UNPRINTABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def tick(value: float) -> str:
    """A number at an axis: `0.00001`, `1,500`, and as in the report `2.5M`; never an exponent."""
    rounded = Decimal(f"{value:.6g}")
    for unit, sign in ((10**12, "T"), (10**6, "M")):
        if rounded >= unit:
            return f"{rounded / unit:,f}{sign}"
    return f"{rounded:,f}"


def clean(text: str, at_most: int = 0) -> str:
    """One line without characters that XML can't hold, cut with `…` after so many columns (0: uncut)."""
    line = " ".join(_UNPRINTABLE.sub("\ufffd", text).split())
    return line if not at_most else cut(line, at_most)


def cut(text: str, columns: int) -> str:
    """The text as far as it fits into so many columns; what is left out is an ellipsis."""
    if columns_of(text) <= columns:
        return text
    kept = ""
    for character in text:
        if columns_of(kept + character) > columns - 1:
            break
        kept += character
    return kept.rstrip() + "…"


def columns_of(text: str) -> int:
    """How wide a text is; East Asian characters take two columns."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def wrap(text: str, columns: int, lines: int) -> list[str]:
    """The text in at most so many lines, the last of them cut."""
    # Textwrap counts characters; where they are wide, half as many fit.
    said = clean(text)
    wide = max(1, columns_of(said)) / max(1, len(said))
    found = textwrap.wrap(said, max(8, int(columns / wide)), break_long_words=True) or [""]
    if len(found) <= lines:
        return found
    return [*found[: lines - 1], cut(" ".join(found[lines - 1 :]), columns)]
