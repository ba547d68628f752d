"""Pure: numbers as a reader sees them. Halves round up, as in the page and unlike Python's format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

MISSING = "–"
LARGEST_FIXED = 1e15
"""Digits beyond those of a float say nothing; the end of an interval of two noisy runs may be that large."""


def fixed(value: float, decimals: int) -> str:
    """Returns the value with so many decimals and thousands commas; 54.25 becomes 54.3, 5e34 stays."""
    if not abs(value) < LARGEST_FIXED:
        return f"{value:.3g}"
    quantum = Decimal(1).scaleb(-decimals)
    return f"{Decimal(repr(float(value))).quantize(quantum, ROUND_HALF_UP):,f}"


def rate(value: float | None) -> str:
    """Returns a throughput: `1,260`, `131.9`, `3.27`."""
    if value is None:
        return MISSING
    return fixed(value, 0 if value >= 200 else 1 if value >= 10 else 2)


def speed(value: float | None) -> str:
    """Returns an interactivity: `38.2`; a whole target stays whole."""
    if value is None:
        return MISSING
    return fixed(value, 0 if value == int(value) else 1 if value >= 1 else 3)


def target(value: float) -> str:
    """Returns a target as the reader wrote it: `32`, `13.5`."""
    return f"{value:.6g}"


def dollars(value: float | None) -> str:
    """Returns a cost in a table: three decimals, more where that would leave fewer than two digits."""
    if value is None:
        return MISSING
    return "$" + (fixed(value, 3) if value >= 0.01 else f"{value:.2g}")


def money(value: float) -> str:
    """Returns a cost in a sentence: `$0.43`, `$0.065`."""
    return "$" + (fixed(value, 2) if value >= 0.1 else fixed(value, 3) if value >= 0.01 else f"{value:.2g}")


def seconds(value: float | None) -> str:
    """Returns a duration: `0.215`, `12.3`."""
    return MISSING if value is None else fixed(value, 3 if value < 10 else 1)


def energy(value: float | None) -> str:
    """Returns the joules for a token: `0.222`, `3.16`."""
    return MISSING if value is None else fixed(value, 3 if value < 1 else 2)


def spread(low: float, high: float, show: Callable[[float], str]) -> str:
    """Returns an interval behind its value: `(1,230–1,290)`."""
    return f"({show(low)}–{show(high)})"


def times(value: float) -> str:
    """Returns a ratio: `2.42`."""
    return fixed(value, 2 if value < 100 else 0)


def percent(share: float) -> str:
    """Returns a share as a percentage: `58.6%`."""
    return fixed(share * 100, 1) + "%"


def counted(count: int, noun: str) -> str:
    """Returns a count with its noun: `1 point`, `7 points`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(words: Sequence[str]) -> str:
    """Returns words in a row: `Off`, `Off and MTP`, `Off, k1 and k3`."""
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last


def hundredths(value: float | None) -> str:
    """Returns a length or a share with two decimals: `2.49`."""
    return MISSING if value is None else fixed(value, 2)


def hundredths_list(values: Sequence[float] | None) -> str:
    """Returns several lengths or shares: `0.90 / 0.72`."""
    return MISSING if values is None else " / ".join(fixed(value, 2) for value in values)


def whole(value: float | None) -> str:
    """Returns a count, as it is."""
    return MISSING if value is None else str(value)


def text(value: str | None) -> str:
    """Returns a word, as it is."""
    return value or MISSING


Format = Literal[
    "rate", "speed", "dollars", "seconds", "energy", "times", "hundredths", "hundredths_list", "whole", "text"
]
FORMATS: Mapping[Format, Callable[[Any], str]] = {
    "rate": rate,
    "speed": speed,
    "dollars": dollars,
    "seconds": seconds,
    "energy": energy,
    "times": times,
    "hundredths": hundredths,
    "hundredths_list": hundredths_list,
    "whole": whole,
    "text": text,
}
"""How a metric's values are written; the page's script has the same by the same names."""
