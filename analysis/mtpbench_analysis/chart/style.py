"""Pure: the style of charts: the marks and colours of curves, and the options of a picture.

Of twelve curves each has a colour, a mark and, from the seventh on, a dash-dotted line. Colour-blind readers
can distinguish most of the colours, and nobody needs them: no two marks are alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

from mtpbench.errors import InputError
from mtpbench_analysis.metric import Metric
from mtpbench_analysis.metric_table import metric_by_key, metrics_in

PictureFormat = Literal["svg", "png", "pdf"]
Y_KEYS = tuple(metric.key_in("plot") for metric in metrics_in("plot"))
"""The metrics that a picture's vertical axis can show, by their keys."""
if TYPE_CHECKING:
    YKey = str
else:
    # The command line offers what the metric table declares.
    YKey = Literal[Y_KEYS]

DEFAULT_DPI = 150
_MOST_IN, _LEAST_IN = 100.0, 2.0
_MOST_PIXELS = 20_000
_DPIS = (20, 1200)


Outline = tuple[tuple[float, float], ...]
"""A closed outline around (0, 0), by the places of its corners."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """The mark and the colours of one curve.

    Args:
        light, dark: its colour on light and on dark paper.
        path: its points on the page, an SVG path around (0, 0).
        marker, size_pt: its points in a picture, by matplotlib's names or as an outline.
        character, ascii_character: its points in a terminal.
        style: its colour in a terminal, by Rich's name.
        dashed: whether its line is dash-dotted, so that no two of twelve curves differ in colour alone.
    """

    light: str
    dark: str
    path: str
    marker: str | Outline
    size_pt: float
    character: str
    ascii_character: str
    style: str
    dashed: bool = False


_HOURGLASS: Outline = ((-0.9, 1), (0.9, 1), (-0.9, -1), (0.9, -1), (-0.9, 1))
_BOW_TIE: Outline = ((-1, 0.85), (-1, -0.85), (1, 0.85), (1, -0.85), (-1, 0.85))
_BAR: Outline = ((-1, 0.4), (1, 0.4), (1, -0.4), (-1, -0.4), (-1, 0.4))

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
    Mark(
        light="#7000e0",
        dark="#775cff",
        path="M-5.6,0L3.8,-5.2V5.2z",
        marker="<",
        size_pt=6.0,
        character="○",
        ascii_character="&",
        style="yellow",
        dashed=True,
    ),
    Mark(
        light="#ff4785",
        dark="#ff3377",
        path="M5.6,0L-3.8,-5.2V5.2z",
        marker=">",
        size_pt=6.0,
        character="△",
        ascii_character="=",
        style="blue",
        dashed=True,
    ),
    Mark(
        light="#0e5200",
        dark="#b4d671",
        path="M0,-6.2L1.5,-2.1L5.9,-1.9L2.5,0.8L3.6,5L0,2.6L-3.6,5L-2.5,0.8L-5.9,-1.9L-1.5,-2.1z",
        marker="*",
        size_pt=7.8,
        character="□",
        ascii_character="$",
        style="red",
        dashed=True,
    ),
    Mark(
        light="#122ba5",
        dark="#1f8fff",
        path="M-4.6,-5.2H4.6L-4.6,5.2H4.6z",
        marker=_HOURGLASS,
        size_pt=6.0,
        character="◇",
        ascii_character="~",
        style="cyan",
        dashed=True,
    ),
    Mark(
        light="#f500cc",
        dark="#d18661",
        path="M-5.4,-4.6V4.6L5.4,-4.6V4.6z",
        marker=_BOW_TIE,
        size_pt=6.0,
        character="▽",
        ascii_character="?",
        style="magenta",
        dashed=True,
    ),
    Mark(
        light="#3f2145",
        dark="#a36d00",
        path="M-6,-2.3H6V2.3H-6z",
        marker=_BAR,
        size_pt=6.6,
        character="☆",
        ascii_character="!",
        style="green",
        dashed=True,
    ),
)

DASH_DOT_PX = "11 3 2 3"
"""The line of a dashed mark on the page; a gap too wide for a ratio has even dashes."""
CROSS = "M-4,-4L4,4M-4,4L4,-4"
"""The mark of an invalid point on the page, an SVG path."""


def mark_of(number: int) -> Mark:
    """Returns the mark of a comparison's n-th curve; the thirteenth has the first's colours again."""
    return MARKS[number % len(MARKS)]


def shape_of(number: int) -> Mark:
    """Returns the mark whose shape the n-th curve has: where colours repeat, it is another one."""
    return mark_of(number + number // len(MARKS))


def style_sheet() -> str:
    """Returns the page's CSS rules for colours: `c0` … for charts, `k0` … for cards, `tone0` … for plots."""
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
    dash = f".curve.c{i} {{ stroke-dasharray: {DASH_DOT_PX}; }} " if MARKS[i].dashed else ""
    return dash + (
        f".curve.c{i}, .guide.c{i}, .c{i} .shape {{ stroke: var(--c{i}); }} "
        f".band.c{i}, .c{i} .shape {{ fill: var(--c{i}); }} "
        f".card .name.k{i} {{ border-left-color: var(--c{i}); }} .tone{i} {{ color: var(--c{i}); }}"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureOptions:
    """The options of a picture.

    Args:
        y_key: the key of the metric on the vertical axis, one of `Y_KEYS`.
        front_only: whether points below the front and invalid points are left out.
        log: whether both axes are logarithmic.
        loads: whether the concurrency or rate stands beside each knot.
        width_in, height_in: the size of the whole picture; None for the size that its charts need.
        dpi: pixels in an inch of a PNG.

    Raises:
        InputError: a size is out of range, or the picture would have too many pixels.
    """

    y_key: str = Y_KEYS[0]
    front_only: bool = False
    log: bool = False
    loads: bool = False
    width_in: float | None = None
    height_in: float | None = None
    dpi: int = DEFAULT_DPI

    def __post_init__(self) -> None:
        for option, size_in in (("--width", self.width_in), ("--height", self.height_in)):
            if size_in is None:
                continue
            if not (math.isfinite(size_in) and _LEAST_IN <= size_in <= _MOST_IN):
                raise InputError(
                    f"{option} {size_in:g}: inches from {_LEAST_IN:g} to {_MOST_IN:g} are needed (--dpi "
                    "makes pixels of them)"
                )
            if size_in * self.dpi > _MOST_PIXELS:
                raise InputError(
                    f"{option} {size_in:g} at {self.dpi} dpi: more than {_MOST_PIXELS:,} pixels; choose a "
                    "lower --dpi"
                )
        if not _DPIS[0] <= self.dpi <= _DPIS[1]:
            raise InputError(f"--dpi {self.dpi}: {_DPIS[0]} to {_DPIS[1]} pixels in an inch are needed")

    @property
    def metric(self) -> Metric:
        """The metric on the vertical axis."""
        return metric_by_key("plot", self.y_key)


def check_pixels(width_in: float, height_in: float, dpi: int) -> None:
    """Refuses a picture of more pixels than a PNG can hold in reasonable memory.

    Args:
        width_in: width of the whole picture.
        height_in: height of the whole picture.
        dpi: pixels in an inch.

    Raises:
        InputError: the picture has more.
    """
    longest_in = max(width_in, height_in)
    if longest_in * dpi > _MOST_PIXELS:
        raise InputError(
            f"--dpi {dpi}: {longest_in:.0f} inches would be more than {_MOST_PIXELS:,} pixels; choose at "
            f"most {int(_MOST_PIXELS / longest_in)}, or draw fewer with --panels"
        )


def check_room(width_in: float, height_in: float, least_in: tuple[float, float]) -> None:
    """Refuses a picture whose axes would vanish between their texts.

    Args:
        width_in: the width that its texts leave to one chart's axes.
        height_in: the height that its texts leave to them.
        least_in: the width and height that the axes need.

    Raises:
        InputError: the axes have less; the message tells how much is missing.
    """
    for option, room_in, needed_in in (
        ("--width", width_in, least_in[0]),
        ("--height", height_in, least_in[1]),
    ):
        if room_in < needed_in:
            raise InputError(
                f"{option}: too small for what is to be drawn; each chart needs {needed_in - room_in:.1f} "
                "inches more (or draw fewer with --panels)"
            )


def format_of(name: str) -> PictureFormat:
    """Returns the picture format that a file's name ends with.

    Raises:
        InputError: the name has another ending, or none.
    """
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    if ending not in get_args(PictureFormat):
        why = f"no picture can be made with the ending .{ending}" if ending else "the name has no ending"
        raise InputError(f"{name}: {why}; .svg, .png or .pdf is needed")
    return cast(PictureFormat, ending)
