"""Where texts inside a chart find room: the legend, and the load beside each knot."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import FixedLocator
from matplotlib.transforms import Bbox

from mtpbench_analysis.noise import FloatArray
from mtpbench_analysis.plot.content import Panel
from mtpbench_analysis.plot.ink import DIM
from mtpbench_analysis.report.chart import nice_steps

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


def renderer_of(figure: Figure) -> RendererAgg:
    """What measures texts of the figure, at its own dpi.

    One pixel is enough for that. The pixels of the whole figure would be 130 MB where it has 60 panels, for
    every renderer, and each text keeps the one that it was measured with.
    """
    return RendererAgg(1, 1, figure.dpi)  # type: ignore[no-untyped-call]


def figure_of(axes: Axes) -> Figure:
    """The figure that the axes stand in."""
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def place_legend(axes: Axes, legend: Legend, panel: Panel) -> None:
    """The corner where the legend hides the least; a linear axis grows until it hides nothing."""
    renderer = renderer_of(figure_of(axes))
    low, high = axes.get_ylim()
    best: tuple[float, _Corner, float] = (np.inf, _CORNERS[0], high)
    growing = (1.0, 1.2, 1.4, 1.6) if axes.get_yscale() == "linear" else (1.0,)
    for factor in growing:
        top = nice_steps(high * factor)[-1] if factor > 1 else high
        axes.set_ylim(low, top)
        drawn = axes.transData.transform(panel.values)
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


def draw_loads(axes: Axes, legend: Legend, panel: Panel) -> None:
    """`c64` beside every knot that has room for it; what would cover another text or point is left out."""
    figure = figure_of(axes)
    renderer, scale = renderer_of(figure), figure.dpi / 72
    dots = [dot for one in panel.series for dot in one.dots]
    curves = np.concatenate(
        [np.empty((0, 2)), *(np.column_stack([p.x, p.y]) for one in panel.series for p in one.pieces)]
    )
    lines = axes.transData.transform(curves) if len(curves) else np.empty((0, 2))
    radius = 3.2 * scale
    taken = [legend.get_window_extent(renderer)]
    for x, y in axes.transData.transform([(dot.x, dot.y) for dot in dots]) if dots else ():
        taken.append(Bbox.from_extents(x - radius, y - radius, x + radius, y + radius))
    room = axes.get_window_extent(renderer)
    for dot in dots:
        if not (dot.on_front and dot.load):
            continue
        text = axes.annotate(
            dot.load, (dot.x, dot.y), xytext=(0, 0), textcoords="offset points", color=DIM, fontsize=_LOAD_PT
        )
        text.set_zorder(6)
        size = text.get_window_extent(renderer)
        found: list[tuple[int, tuple[float, float], Bbox]] = []
        for offset in _offsets(size.width / scale, size.height / scale):
            box = size.translated(offset[0] * scale, offset[1] * scale)
            inside = room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1
            if inside and not any(box.overlaps(other) for other in taken):
                found.append((_inside(box, lines), offset, box))
        if not found:
            text.remove()
            continue
        _, offset, box = min(found, key=lambda one: one[0])
        text.set_position(offset)
        taken.append(box)


def _offsets(width_pt: float, height_pt: float) -> list[tuple[float, float]]:
    """Eight places around a mark, for the lower left corner of a text of that size."""
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
