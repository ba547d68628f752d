"""Pure: the marks and colours of the curves, by their place in a comparison, wherever a chart is drawn.

Colour-blind readers can tell the colours apart, and nobody needs them: each curve has a mark of its own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """The look of one curve.

    Args:
        light, dark: its colour on light and on dark paper.
        path: its points on the page, an SVG path around (0, 0).
        marker, size_pt: its points in a picture, in matplotlib's words.
        character, ascii_character: its points in a terminal.
        style: its colour in a terminal, in Rich's words.
    """

    light: str
    dark: str
    path: str
    marker: str
    size_pt: float
    character: str
    ascii_character: str
    style: str


MARKS = (
    Mark(
        light="#4d4d4d",
        dark="#c4c8cc",
        path="M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z",
        marker="o",
        size_pt=5.4,
        character="●",
        ascii_character="o",
        style="cyan",
    ),
    Mark(
        light="#0072b2",
        dark="#56b4e9",
        path="M-4,-4H4V4H-4z",
        marker="s",
        size_pt=5.0,
        character="▲",
        ascii_character="+",
        style="magenta",
    ),
    Mark(
        light="#d55e00",
        dark="#ff9147",
        path="M0,-5.4L5,3.8H-5z",
        marker="^",
        size_pt=6.0,
        character="■",
        ascii_character="#",
        style="green",
    ),
    Mark(
        light="#008562",
        dark="#2ac79a",
        path="M0,-5.8L5.2,0L0,5.8L-5.2,0z",
        marker="D",
        size_pt=5.0,
        character="◆",
        ascii_character="*",
        style="yellow",
    ),
    Mark(
        light="#b3579a",
        dark="#e39bc9",
        path="M0,5.4L5,-3.8H-5z",
        marker="v",
        size_pt=6.0,
        character="▼",
        ascii_character="@",
        style="blue",
    ),
    Mark(
        light="#9a6a00",
        dark="#e6b422",
        path="M-1.7,-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7z",
        marker="P",
        size_pt=6.2,
        character="★",
        ascii_character="%",
        style="red",
    ),
)

CROSS = "M-4,-4L4,4M-4,4L4,-4"
"""An invalid point on the page, an SVG path."""


def mark_of(number: int) -> Mark:
    """The look of a comparison's n-th curve; there are six of them."""
    return MARKS[number % len(MARKS)]


def style_sheet() -> str:
    """The page's rules for colours: `c0` … for charts, `k0` … for cards, `tone0` … for small charts."""
    light = " ".join(f"--c{i}: {mark.light};" for i, mark in enumerate(MARKS))
    dark = " ".join(f"--c{i}: {mark.dark};" for i, mark in enumerate(MARKS))
    return "\n".join(
        (
            f":root {{ {light} }}",
            f'@media (prefers-color-scheme: dark) {{ :root:not([data-theme="light"]) {{ {dark} }} }}',
            f'@media print {{ :root, :root:not([data-theme="light"]) {{ {light} }} }}',
            *(_rules(i) for i in range(len(MARKS))),
            "",
        )
    )


def _rules(i: int) -> str:
    return (
        f".curve.c{i}, .guide.c{i}, .c{i} .shape {{ stroke: var(--c{i}); }} "
        f".band.c{i}, .c{i} .shape {{ fill: var(--c{i}); }} "
        f".card .name.k{i} {{ border-left-color: var(--c{i}); }} .tone{i} {{ color: var(--c{i}); }}"
    )
