"""How pictures look, and how one becomes bytes: the same input gives the same bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtpbench_analysis.plot.look import Ending
from mtpbench_analysis.plot.texts import clean

PAPER, INK, DIM, LINE, BAD = "#ffffff", "#1c2024", "#5a6068", "#dcdfe3", "#b00020"
COLOURS = ("#4d4d4d", "#0072b2", "#d55e00", "#008562", "#b3579a", "#9a6a00")
"""Those of the report's page (page.css), which colour-blind readers can tell apart."""
MARKERS = ("o", "s", "^", "D", "v", "P")
_MARKER_PT = (5.4, 5.0, 6.0, 5.0, 6.0, 6.2)

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


def colour_of(number: int) -> str:
    """The colour of a comparison's n-th curve."""
    return COLOURS[number % len(COLOURS)]


def marker_of(number: int) -> tuple[str, float]:
    """Mark and size (pt) of the n-th curve; where colours repeat, the mark is another one."""
    place = (number + number // len(COLOURS)) % len(MARKERS)
    return MARKERS[place], _MARKER_PT[place]


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
