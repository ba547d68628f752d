"""The style of pictures in matplotlib: colours, texts, and the bytes of a file, always the same."""

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

from mtpbench_analysis.chart.style import PictureFormat, mark_of, shape_of

PAPER, INK, DIM, LINE, BAD = "#ffffff", "#1c2024", "#5a6068", "#dcdfe3", "#b00020"
_FOOTER_PER_IN, _TITLE_PER_IN = 18.5, 8.5
"""Characters in an inch of footer and title. DejaVu is a wide face, so lines of these lengths fit."""

# XML 1.0 can't hold these characters, lone surrogates included: no viewer opens an SVG with one of them.
_UNPRINTABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Any: matplotlib types the names of its own version only.
_RC_PARAMS: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": DIM,
    "axes.labelcolor": DIM,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": PAPER,
    "font.family": "sans-serif",
    # Matplotlib brings DejaVu Sans; a viewer without it shows an SVG in another sans face.
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
def apply_style() -> Iterator[None]:
    """Sets this module's style in place of the reader's matplotlibrc, for drawing and saving."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Characters that DejaVu lacks become boxes; in an SVG the viewer's fonts show them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC_PARAMS)
        yield


def make_figure(width_in: float, height_in: float, dpi: int) -> Figure:
    """Returns an empty figure with a canvas that can measure text; pyplot's global state is not used."""
    figure = Figure(figsize=(width_in, height_in), dpi=dpi)
    FigureCanvasAgg(figure)
    return figure


def renderer_of(figure: Figure) -> RendererAgg:
    """Returns a renderer that measures the figure's texts at its dpi.

    One pixel is enough for measuring. A renderer with all pixels of a figure of 60 charts would take 130 MB,
    and each text keeps its renderer.
    """
    return RendererAgg(1, 1, figure.dpi)  # type: ignore[no-untyped-call]


def figure_of(axes: Axes) -> Figure:
    """Returns the figure of the axes."""
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def colour_of(number: int) -> str:
    """Returns the colour of a comparison's n-th curve."""
    return mark_of(number).light


def marker_of(number: int) -> tuple[Any, float]:
    """Returns mark and size (pt) of the n-th curve; where colours repeat, the mark differs."""
    mark = shape_of(number)
    return mark.marker, mark.size_pt


def line_of(number: int, *, wide: bool = False) -> str | tuple[int, tuple[float, ...]]:
    """Returns the line of the n-th curve: even dashes over a wide gap, else solid or dash-dotted."""
    if wide:
        return (0, (4, 2.5))
    return (0, (6, 1.6, 1, 1.6)) if mark_of(number).dashed else "solid"


def draw_title(figure: Figure, title: str) -> None:
    """Draws the figure's title, cut where it is too long for one line."""
    width_in, height_in = figure.get_size_inches()
    (line,) = wrap(title, 10_000, 1)
    text = cut(line, int((width_in - 0.3) * _TITLE_PER_IN))
    figure.text(
        0.16 / width_in, 1 - 0.13 / height_in, text, va="top", fontsize=12.5, fontweight="bold", color=INK
    )


def wrap_footer(footer: Sequence[str], width_in: float) -> list[str]:
    """Returns the footer as lines, at most four for each sentence."""
    return [line for text in footer for line in wrap(text, int((width_in - 0.3) * _FOOTER_PER_IN), 4)]


def draw_footer(figure: Figure, lines: Sequence[str]) -> None:
    """Draws the footer at the bottom."""
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
    """Draws SIMULATED across the axes, behind everything else."""
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
    """Returns one line without characters that XML can't hold, cut with `…` to `at_most` columns (0: all)."""
    line = " ".join(_UNPRINTABLE.sub("\ufffd", text).split())
    return line if not at_most else cut(line, at_most)


def cut(text: str, columns: int) -> str:
    """Returns the text as far as it fits into the columns, with `…` in place of the rest."""
    if columns_of(text) <= columns:
        return text
    head = ""
    for character in text:
        if columns_of(head + character) > columns - 1:
            break
        head += character
    return head.rstrip() + "…"


def columns_of(text: str) -> int:
    """Returns a text's width in columns; East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def wrap(text: str, columns: int, lines: int) -> list[str]:
    """Returns the text in at most `lines` lines, the last of them cut."""
    # Textwrap counts characters; where they are wide, half as many fit.
    line = clean(text)
    wide = max(1, columns_of(line)) / max(1, len(line))
    wrapped = textwrap.wrap(line, max(8, int(columns / wide)), break_long_words=True) or [""]
    if len(wrapped) <= lines:
        return wrapped
    return [*wrapped[: lines - 1], cut(" ".join(wrapped[lines - 1 :]), columns)]


def save(figure: Figure, kind: PictureFormat, title: str) -> bytes:
    """Returns the picture's bytes, without any time in them.

    Args:
        figure: a figure drawn inside of `apply_style`.
        kind: the format.
        title: the title in the file's metadata.
    """
    title = clean(title)
    metadata: dict[PictureFormat, dict[str, Any]] = {
        "svg": {"Date": None, "Title": title},
        "png": {"Title": title.encode("latin-1", "replace").decode("latin-1")},
        "pdf": {"CreationDate": None, "Title": title},
    }
    buffer = io.BytesIO()
    with apply_style():
        figure.savefig(buffer, format=kind, dpi=figure.dpi, metadata=metadata[kind])
    return buffer.getvalue()
