"""The texts inside a chart: the legend, and the load beside each knot, where they find room."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator
from matplotlib.transforms import Bbox

from mtpbench_analysis.chart.axes import nice_steps
from mtpbench_analysis.chart.comparison_chart import Chart, Series
from mtpbench_analysis.chart.mpl_style import (
    DIM,
    INK,
    PAPER,
    clean,
    colour_of,
    figure_of,
    line_of,
    marker_of,
    renderer_of,
)
from mtpbench_analysis.curves.errors import FloatArray
from mtpbench_analysis.numbers import speed

_Corner = Literal["upper right", "upper left", "lower left", "lower right", "upper center", "lower center"]
_CORNERS: tuple[_Corner, ...] = (
    "upper right",
    "upper left",
    "lower left",
    "lower right",
    "upper center",
    "lower center",
)
_LOAD_PT = 6.5
_LEGEND_COLUMNS = 46
_LEGEND_LINE_IN, _LEGEND_HANDLE_IN, _LEGEND_PER_IN = 0.17, 0.45, 14.0


def draw_legend(axes: Axes, chart: Chart) -> Legend:
    """Draws the legend in the upper right corner; `place_legend` moves it later."""
    box, dpi = axes.get_window_extent(), figure_of(axes).dpi
    columns = int((0.66 * box.width / dpi - _LEGEND_HANDLE_IN) * _LEGEND_PER_IN)
    columns = max(8, min(columns, _LEGEND_COLUMNS))
    entries = [_entry(series, columns) for series in chart.series if series.dots or series.pieces]
    signs = _signs(chart)
    room = max(3, int(0.8 * box.height / dpi / _LEGEND_LINE_IN) - len(signs))
    if len(entries) > room:
        rest = len(entries) - room + 1
        entries = [*entries[: room - 1], (Line2D([], [], linestyle="none"), f"and {rest} more")]
    entries += signs
    # Matplotlib drops a label that begins with `_`, so the texts are set afterwards.
    legend = axes.legend(
        [handle for handle, _ in entries],
        [str(i) for i in range(len(entries))],
        loc="upper right",
        framealpha=0.88,
        edgecolor="none",
        facecolor=PAPER,
        borderpad=0.35,
        handlelength=2.2,
        labelspacing=0.45,
    )
    for text, (_, label) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(label)
    return legend


def _signs(chart: Chart) -> list[tuple[Line2D, str]]:
    """Returns the legend's entries for what the chart has besides curves."""
    entries = []
    if any(not dot.on_front for series in chart.series for dot in series.dots):
        hollow = Line2D([], [], linestyle="none", marker="o", mfc=PAPER, mec=DIM, ms=5, mew=1.1)
        entries.append((hollow, "below the front"))
    if any(piece.wide for series in chart.series for piece in series.pieces):
        entries.append((Line2D([], [], color=DIM, lw=1.6, ls=(0, (4, 2.5))), "gap too wide for a ratio"))
    if any(series.band is not None for series in chart.series):
        entries.append((Line2D([], [], color=DIM, lw=6, alpha=0.25), f"{chart.confidence:.0%} band"))
    if chart.crossings:
        ring = Line2D([], [], linestyle="none", marker="o", mfc="none", mec=INK, ms=9, mew=0.9)
        entries.append((ring, _crossing_text(chart)))
    if chart.invalid:
        cross = Line2D([], [], linestyle="none", marker="x", color=DIM, ms=6.5, mew=1.3)
        entries.append((cross, f"invalid ({len(chart.invalid)})"))
    return entries


def _entry(series: Series, columns: int) -> tuple[Line2D, str]:
    colour, (marker, size_pt) = colour_of(series.number), marker_of(series.number)
    line: Any = line_of(series.number) if series.pieces else "none"
    handle = Line2D([], [], color=colour, lw=1.8, ls=line, marker=marker, ms=size_pt, mfc=colour, mec=colour)
    return handle, clean(series.label, columns)


def _crossing_text(chart: Chart) -> str:
    if len(chart.crossings) > 1:
        return "equal at " + ", ".join(speed(mark.x) for mark in chart.crossings[:3]) + " tok/s/user"
    (mark,) = chart.crossings
    between = ""
    if mark.interval_tps is not None:
        between = f" ({speed(mark.interval_tps[0])}–{speed(mark.interval_tps[1])})"
    return f"equal at {speed(mark.x)}{between} tok/s/user"


def place_legend(axes: Axes, legend: Legend, chart: Chart) -> None:
    """Moves the legend where it hides the least; a linear axis grows until the legend hides nothing."""
    renderer = renderer_of(figure_of(axes))
    low, high = axes.get_ylim()
    best: tuple[float, _Corner, float] = (np.inf, _CORNERS[0], high)
    growing = (1.0, 1.2, 1.4, 1.6) if axes.get_yscale() == "linear" else (1.0,)
    for factor in growing:
        top = nice_steps(high * factor)[-1] if factor > 1 else high
        axes.set_ylim(low, top)
        drawn = axes.transData.transform(chart.values)
        for corner in _CORNERS:
            legend.set_loc(corner)
            hidden = _inside(legend.get_window_extent(renderer).padded(4), drawn)
            if hidden < best[0]:
                best = (hidden, corner, top)
        if best[0] == 0:
            break
    _, corner, top = best
    axes.set_ylim(low, top)
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(FixedLocator(nice_steps(top)))
    legend.set_loc(corner)


def _inside(box: Bbox, places: FloatArray) -> int:
    x, y = places.T
    return int(((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).sum())


def draw_loads(axes: Axes, legend: Legend, chart: Chart) -> None:
    """Draws `c64` beside each knot with room for it, where it covers neither another text nor a point."""
    figure = figure_of(axes)
    renderer, scale = renderer_of(figure), figure.dpi / 72
    dots = [dot for series in chart.series for dot in series.dots]
    free = _FreeRoom(axes, legend, chart)
    for dot in dots:
        if not (dot.on_front and dot.load):
            continue
        text = axes.annotate(
            dot.load, (dot.x, dot.y), xytext=(0, 0), textcoords="offset points", color=DIM, fontsize=_LOAD_PT
        )
        text.set_zorder(6)
        offset = free.take(text.get_window_extent(renderer), scale)
        if offset is None:
            text.remove()
        else:
            text.set_position(offset)


class _FreeRoom:
    """The free room inside the axes, beside the legend, the marks and earlier texts."""

    def __init__(self, axes: Axes, legend: Legend, chart: Chart) -> None:
        figure = figure_of(axes)
        renderer, radius = renderer_of(figure), 3.2 * figure.dpi / 72
        pieces = [np.column_stack([piece.x, piece.y]) for series in chart.series for piece in series.pieces]
        self._lines = axes.transData.transform(np.concatenate(pieces)) if pieces else np.empty((0, 2))
        self._axes = axes.get_window_extent(renderer)
        self._taken = [legend.get_window_extent(renderer)]
        places = [(dot.x, dot.y) for series in chart.series for dot in series.dots]
        for x, y in axes.transData.transform(places) if places else ():
            self._taken.append(Bbox.from_extents(x - radius, y - radius, x + radius, y + radius))

    def take(self, size: Bbox, scale: float) -> tuple[float, float] | None:
        """Returns the offset (pt) where a text covers the least of the curves; None where no place is free.

        Args:
            size: the text's box at its mark, in pixels.
            scale: pixels in a typographic point.
        """
        offsets = _offsets(size.width / scale, size.height / scale)
        boxes = [(offset, size.translated(offset[0] * scale, offset[1] * scale)) for offset in offsets]
        fitting = [(_inside(box, self._lines), offset, box) for offset, box in boxes if self._fits(box)]
        if not fitting:
            return None
        _, offset, box = min(fitting, key=lambda place: place[0])
        self._taken.append(box)
        return offset

    def _fits(self, box: Bbox) -> bool:
        room = self._axes
        inside = room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1
        return inside and not any(box.overlaps(other) for other in self._taken)


def _offsets(width_pt: float, height_pt: float) -> list[tuple[float, float]]:
    """Returns eight places around a mark, for the lower left corner of a text of this size."""
    near, half, mid = 5.0, -width_pt / 2, -height_pt / 2
    left, below = -near - width_pt, -near - height_pt
    return [
        (near, near - 2),
        (near, below + 2),
        (left, below + 2),
        (left, near - 2),
        (half, near + 1),
        (half, below - 1),
        (near + 1, mid),
        (left - 1, mid),
    ]
