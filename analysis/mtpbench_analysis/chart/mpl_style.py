"""How pictures look, which texts they can carry, and how one becomes bytes, always the same ones."""

from __future__ import annotations

import io
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure

from mtpbench_analysis.chart.style import MARKS, Ending, mark_of

PAPER, INK, DIM, LINE, BAD = "#ffffff", "#1c2024", "#5a6068", "#dcdfe3", "#b00020"
_FOOT_PER_IN, _TITLE_PER_IN = 18.5, 8.5
"""Characters of a picture's texts in an inch; DejaVu is a wide face, so this is on the safe side."""

# What XML 1.0 can't hold, lone surrogates included: an SVG with one of them opens nowhere.
_UNPRINTABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Any: the names that matplotlib types are those of its own version.
_LOOK: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": DIM,
    "axes.labelcolor": DIM,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": PAPER,
    "font.family": "sans-serif",
    # The one that matplotlib brings; an SVG asks for any other sans where it is missing.
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "legend.fontsize": 7.5,
    "pdf.fonttype": 42,
    # Text stays text: it can be searched and copied, and the file stays small.
    "svg.fonttype": "none",
    "svg.hashsalt": "mtpbench",
    "text.color": INK,
    # Names are data: a `$` in one of them is a dollar, not the start of a formula.
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": DIM,
    "xtick.labelsize": 8,
    "ytick.color": DIM,
    "ytick.labelsize": 8,
}


@contextmanager
def ink() -> Iterator[None]:
    """Our look in place of whatever the reader's matplotlibrc says; everything is drawn and saved inside."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that DejaVu lacks is drawn as boxes; SVG leaves it to the viewer's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_LOOK)
        yield


def make_figure(width_in: float, height_in: float, dpi: int) -> Figure:
    """An empty figure with a canvas that can measure text; pyplot's global state has no part in it."""
    figure = Figure(figsize=(width_in, height_in), dpi=dpi)
    FigureCanvasAgg(figure)
    return figure


def renderer_of(figure: Figure) -> RendererAgg:
    """What measures texts of the figure, at its own dpi.

    One pixel is enough for that. The pixels of the whole figure would be 130 MB where it has 60 charts, for
    every renderer, and each text keeps the one that it was measured with.
    """
    return RendererAgg(1, 1, figure.dpi)  # type: ignore[no-untyped-call]


def figure_of(axes: Axes) -> Figure:
    """The figure that the axes stand in."""
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def colour_of(number: int) -> str:
    """The colour of a comparison's n-th curve."""
    return mark_of(number).light


def marker_of(number: int) -> tuple[str, float]:
    """Mark and size (pt) of the n-th curve; where colours repeat, the mark is another one."""
    mark = mark_of(number + number // len(MARKS))
    return mark.marker, mark.size_pt


def draw_title(figure: Figure, title: str) -> None:
    """The sheet's title, cut where it is too long for one line."""
    width_in, height_in = figure.get_size_inches()
    (line,) = wrap(title, 10_000, 1)
    text = cut(line, int((width_in - 0.3) * _TITLE_PER_IN))
    figure.text(
        0.16 / width_in, 1 - 0.13 / height_in, text, va="top", fontsize=12.5, fontweight="bold", color=INK
    )


def wrap_foot(foot: Sequence[str], width_in: float) -> list[str]:
    """The small print as lines, at most four for each sentence."""
    return [line for text in foot for line in wrap(text, int((width_in - 0.3) * _FOOT_PER_IN), 4)]


def draw_foot(figure: Figure, lines: Sequence[str]) -> None:
    """The small print at the bottom."""
    width_in, height_in = figure.get_size_inches()
    figure.text(
        0.16 / width_in,
        0.08 / height_in,
        "\n".join(lines),
        va="bottom",
        fontsize=6.5,
        color=DIM,
        linespacing=1.2,
    )


def mark_simulated(axes: Axes) -> None:
    """SIMULATED across the axes, behind everything that was drawn."""
    width_in = axes.get_window_extent().width / figure_of(axes).dpi
    axes.text(
        0.5,
        0.5,
        "SIMULATED",
        ha="center",
        va="center",
        transform=axes.transAxes,
        color=INK,
        alpha=0.1,
        fontsize=width_in * 72 / 8.2,
        fontweight="bold",
        zorder=1.2,
    )


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
    line = clean(text)
    wide = max(1, columns_of(line)) / max(1, len(line))
    wrapped = textwrap.wrap(line, max(8, int(columns / wide)), break_long_words=True) or [""]
    if len(wrapped) <= lines:
        return wrapped
    return [*wrapped[: lines - 1], cut(" ".join(wrapped[lines - 1 :]), columns)]


def save(figure: Figure, kind: Ending, title: str) -> bytes:
    """The picture's bytes; nothing in them tells the time.

    Args:
        figure: drawn inside of `ink`.
        kind: what to write.
        title: for the file's own description.
    """
    title = clean(title)
    metadata: dict[Ending, dict[str, Any]] = {
        "svg": {"Date": None, "Title": title},
        "png": {"Title": title.encode("latin-1", "replace").decode("latin-1")},
        "pdf": {"CreationDate": None, "Title": title},
    }
    buffer = io.BytesIO()
    with ink():
        figure.savefig(buffer, format=kind, dpi=figure.dpi, metadata=metadata[kind])
    return buffer.getvalue()
