"""Comparisons drawn as one picture in matplotlib: a title, a chart for each, and a footer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from mtpbench_analysis.chart.axes import nice_steps, tick
from mtpbench_analysis.chart.comparison_chart import Chart, Dot, EqualPoint, Series
from mtpbench_analysis.chart.mpl_legend import draw_legend, draw_loads, place_legend
from mtpbench_analysis.chart.mpl_style import (
    DIM,
    INK,
    PAPER,
    apply_style,
    clean,
    colour_of,
    draw_footer,
    draw_title,
    figure_of,
    line_of,
    make_figure,
    mark_simulated,
    marker_of,
    renderer_of,
    wrap,
    wrap_footer,
)
from mtpbench_analysis.chart.style import PictureOptions, check_pixels, check_room
from mtpbench_analysis.curves.errors import FloatArray
from mtpbench_analysis.numbers import target

_LEFT_IN, _RIGHT_IN, _BOTTOM_IN = 0.78, 0.28, 0.52
_TITLE_IN, _FOOTER_LINE_IN, _HEAD_LINE_IN, _TARGETS_IN = 0.42, 0.135, 0.165, 0.2
_CHART_IN = ((7.2, 4.1), (5.4, 3.5), (4.8, 3.2))
"""Width and height of a chart where there are one, two or three in a row."""
_LEAST_IN = (1.8, 1.2)
_HEAD_PER_IN = 13.5
"""Characters of a chart's title in an inch."""
_NEAR = 1.3


@dataclass(frozen=True, kw_only=True, slots=True)
class _Grid:
    """The places of a figure's charts, in inches; each cell has a head above its axes."""

    columns: int
    width_in: float
    height_in: float
    cell_in: tuple[float, float]
    axes_in: tuple[float, float]

    def corner_in(self, i: int) -> tuple[float, float]:
        """Returns the upper left corner of the i-th cell, from the figure's lower left corner."""
        column, row = i % self.columns, i // self.columns
        return column * self.cell_in[0], self.height_in - _TITLE_IN - row * self.cell_in[1]

    def axes_place(self, i: int) -> tuple[float, float, float, float]:
        """Returns left, bottom, width and height of the i-th axes as shares of the figure."""
        left_in, top_in = self.corner_in(i)
        bottom_in = top_in - self.cell_in[1] + _BOTTOM_IN
        return (
            (left_in + _LEFT_IN) / self.width_in,
            bottom_in / self.height_in,
            self.axes_in[0] / self.width_in,
            self.axes_in[1] / self.height_in,
        )


def draw_figure(
    title: str, charts: Sequence[Chart], footer: Sequence[str], options: PictureOptions
) -> Figure:
    """Draws a figure; `mpl_style.save` makes bytes of it.

    Args:
        title: the title above all charts.
        charts: at least one chart.
        footer: the footer's sentences, each on lines of its own.
        options: sizes, axes and labels.
    """
    columns = 1 if len(charts) == 1 else 2 if len(charts) <= 4 else 3
    width_in = options.width_in or columns * _CHART_IN[columns - 1][0]
    footer_lines = wrap_footer(footer, width_in)
    heads = [wrap(chart.title, int((width_in / columns - 0.4) * _HEAD_PER_IN), 2) for chart in charts]
    head_in = max(len(lines) for lines in heads) * _HEAD_LINE_IN + _TARGETS_IN
    grid = _layout(len(charts), columns, head_in, len(footer_lines) * _FOOTER_LINE_IN + 0.12, options)
    with apply_style():
        figure = make_figure(grid.width_in, grid.height_in, options.dpi)
        draw_title(figure, title)
        draw_footer(figure, footer_lines)
        for i, (chart, head) in enumerate(zip(charts, heads, strict=True)):
            axes = figure.add_axes(grid.axes_place(i))
            left_in, top_in = grid.corner_in(i)
            figure.text(
                (left_in + 0.16) / grid.width_in,
                (top_in - 0.02) / grid.height_in,
                "\n".join(head),
                va="top",
                fontsize=8.5,
                color=DIM if len(charts) == 1 else INK,
                linespacing=1.25,
            )
            draw_chart(axes, chart, log=options.log, loads=options.loads)
    return figure


def _layout(count: int, columns: int, head_in: float, footer_in: float, options: PictureOptions) -> _Grid:
    """Returns the grid of the charts in the size of the options, or in the size that they need."""
    rows = math.ceil(count / columns)
    chart_width_in, chart_height_in = _CHART_IN[columns - 1]
    width_in = options.width_in or columns * chart_width_in
    height_in = options.height_in or _TITLE_IN + rows * (chart_height_in + head_in) + footer_in
    cell_in = width_in / columns, (height_in - _TITLE_IN - footer_in) / rows
    axes_in = cell_in[0] - _LEFT_IN - _RIGHT_IN, cell_in[1] - _BOTTOM_IN - head_in
    check_room(*axes_in, _LEAST_IN)
    check_pixels(width_in, height_in, options.dpi)
    return _Grid(columns=columns, width_in=width_in, height_in=height_in, cell_in=cell_in, axes_in=axes_in)


def draw_chart(axes: Axes, chart: Chart, *, log: bool, loads: bool) -> None:
    """Draws a chart: axes, targets, bands, curves, crossings, points, legend.

    Args:
        axes: axes at their final place, because texts are laid out in pixels.
        chart: the chart in values.
        log: whether both axes are logarithmic, where all values are above 0.
        loads: whether the concurrency or rate stands beside each knot.
    """
    if not len(chart.values):
        _draw_reason(axes, chart)
        return
    targets = _near_targets(chart)
    _scale(axes, chart, targets, log)
    if chart.simulated:
        mark_simulated(axes)
    if chart.level is not None:
        axes.axhline(chart.level, color=DIM, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5)
    for at in targets:
        axes.axvline(at, color=DIM, linewidth=0.6, linestyle=(0, (2, 3)), zorder=1.5)
    _draw_target_texts(axes, targets)
    for series in chart.series:
        _draw_curve(axes, series)
        if chart.guided:
            _draw_guide(axes, series)
    _draw_rings(axes, chart.crossings)
    for series in chart.series:
        _draw_dots(axes, series)
    for series in chart.series:
        _draw_crosses(axes, series.invalid, series.number)
    _draw_crosses(axes, chart.lone, None)
    legend = draw_legend(axes, chart)
    place_legend(axes, legend, chart)
    if loads:
        draw_loads(axes, legend, chart)


def _draw_rings(axes: Axes, crossings: Sequence[EqualPoint]) -> None:
    for equal in crossings:
        ring = axes.scatter([equal.x], [equal.y], s=150, facecolors="none", edgecolors=INK, linewidths=0.9)
        ring.set(zorder=2.6, clip_on=False)


def _draw_reason(axes: Axes, chart: Chart) -> None:
    why = chart.notes[0] if chart.notes else "no arm reaches what the other does"
    axes.set(xticks=[], yticks=[])
    text = clean(f"nothing to show: {why}", 60)
    axes.text(0.5, 0.5, text, ha="center", va="center", color=DIM, transform=axes.transAxes)


def _near_targets(chart: Chart) -> list[float]:
    """Returns the targets near the points; with targets far above them the chart would be mostly empty."""
    reach = float(chart.values[:, 0].max())
    return [at for at in chart.targets_tps if at <= reach * _NEAR]


def _scale(axes: Axes, chart: Chart, targets: list[float], log: bool) -> None:
    values = chart.values
    xs = np.concatenate([values[:, 0], targets])
    ys = np.concatenate([values[:, 1], [] if chart.level is None else [chart.level]])
    _scale_axis(axes, "x", xs, log)
    _scale_axis(axes, "y", ys, log, "$" if chart.metric.show == "dollars" else "")
    axes.grid(axis="y")
    axes.set_xlabel("interactivity, tok/s/user")
    axes.set_ylabel(clean(chart.y_label, 60))


def _scale_axis(axes: Axes, name: Literal["x", "y"], values: FloatArray, log: bool, sign: str = "") -> None:
    """Sets limits and ticks around the values; `sign` stands before each number."""
    axis, low, high = {"x": axes.xaxis, "y": axes.yaxis}[name], float(values.min()), float(values.max())
    if log and low > 0:
        axes.set(**{f"{name}scale": "log"})
        decades = np.log10(high / low)
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,)))
        room = (high / low) ** 0.06 if decades else 1.5
        axes.set(**{f"{name}lim": (low / room, high * room)})
    else:
        # Both axes begin at 0, so that heights show ratios truly.
        steps = nice_steps(high or 1.0)
        axis.set_major_locator(FixedLocator(steps))
        axes.set(**{f"{name}lim": (0, steps[-1])})
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: sign + tick(value)))


def _draw_target_texts(axes: Axes, targets: list[float]) -> None:
    """Draws the targets' texts above the axes; a text that would touch its neighbour is left out."""
    renderer = renderer_of(figure_of(axes))
    free = -np.inf
    for at in sorted(targets):
        text = axes.annotate(
            target(at),
            (at, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=DIM,
            fontsize=7.5,
        )
        box = text.get_window_extent(renderer)
        if box.x0 < free:
            text.remove()
        else:
            free = box.x1 + 3


def _draw_curve(axes: Axes, series: Series) -> None:
    colour = colour_of(series.number)
    if series.band is not None:
        axes.fill_between(
            series.band.x, series.band.low, series.band.high, color=colour, alpha=0.16, linewidth=0, zorder=2
        )
    for piece in series.pieces:
        style: Any = line_of(series.number, wide=piece.wide)
        axes.plot(piece.x, piece.y, color=colour, linewidth=1.8, linestyle=style, zorder=3)


def _draw_guide(axes: Axes, series: Series) -> None:
    """Draws a fine line along the front, where a metric has no curve."""
    knots = [dot for dot in series.dots if dot.on_front]
    axes.plot(
        [dot.x for dot in knots],
        [dot.y for dot in knots],
        color=colour_of(series.number),
        linewidth=1,
        linestyle=(0, (1, 2.5)),
        zorder=3,
    )


def _draw_dots(axes: Axes, series: Series) -> None:
    colour, (marker, size_pt) = colour_of(series.number), marker_of(series.number)
    for on_front, face in ((False, PAPER), (True, colour)):
        dots = [dot for dot in series.dots if dot.on_front == on_front]
        if dots:
            axes.plot(
                [dot.x for dot in dots],
                [dot.y for dot in dots],
                color=colour,
                linestyle="none",
                marker=marker,
                markersize=size_pt,
                markerfacecolor=face,
                markeredgecolor=colour,
                markeredgewidth=1.1,
                zorder=5 if on_front else 4,
                # Half a mark on the edge of the axes would look like another mark.
                clip_on=False,
            )


def _draw_crosses(axes: Axes, dots: Sequence[Dot], number: int | None) -> None:
    """Draws invalid points as crosses in their arm's colour, over a pale mark of it: nobody needs colours."""
    if not dots:
        return
    xs, ys = [dot.x for dot in dots], [dot.y for dot in dots]
    colour = DIM if number is None else colour_of(number)
    if number is not None:
        marker, size_pt = marker_of(number)
        axes.plot(
            xs,
            ys,
            linestyle="none",
            marker=marker,
            ms=size_pt * 1.6,
            mfc=PAPER,
            mec=(colour, 0.55),
            mew=0.8,
            zorder=4,
            clip_on=False,
        )
    axes.plot(xs, ys, "x", color=colour, ms=5.5, mew=1.4, linestyle="none", zorder=4.5, clip_on=False)
