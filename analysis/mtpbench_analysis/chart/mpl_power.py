"""The power of a sweep drawn as one picture in matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from mtpbench_analysis.chart.axes import nice_steps, tick
from mtpbench_analysis.chart.mpl_style import (
    BAD,
    DIM,
    INK,
    apply_style,
    clean,
    colour_of,
    cut,
    draw_footer,
    draw_title,
    make_figure,
    mark_simulated,
    renderer_of,
    wrap_footer,
)
from mtpbench_analysis.chart.power_chart import PowerChart, Stretch
from mtpbench_analysis.chart.style import PictureOptions, check_room
from mtpbench_analysis.curves.curve import display_name
from mtpbench_analysis.numbers import rate

_LEFT_IN, _RIGHT_IN, _BOTTOM_IN, _TITLE_IN, _PLOT_IN = 0.78, 0.25, 0.46, 0.42, 2.9
_LEAST_IN = (2.5, 1.0)
_LABEL_PT = 7.0
_NAME_COLUMNS = 34
_FLAT_IN = 0.34
_UNKNOWN, _INVALID = "///", "xx"
"""Hatches of a window with unknown power, and of an invalid point's window."""
_HATCH_ALPHA = 0.35


def draw_power(title: str, chart: PowerChart, footer: Sequence[str], options: PictureOptions) -> Figure:
    """Draws a figure; `mpl_style.save` makes bytes of it.

    Args:
        title: the title above the chart.
        chart: the chart in values.
        footer: the footer's sentences.
        options: the sizes; the options of curves have no effect.
    """
    width_in = options.width_in or min(24.0, max(9.0, 1.2 + 0.36 * len(chart.stretches)))
    lines = wrap_footer(footer, width_in)
    low_in = _BOTTOM_IN + 0.14 + 0.135 * len(lines)
    with apply_style():
        figure = make_figure(width_in, options.height_in or 1.0, options.dpi)
        legend = _legend(figure, chart)
        labels_in = _labels_height_in(figure, chart, width_in)
        high_in = (
            _TITLE_IN + legend.get_window_extent(renderer_of(figure)).height / options.dpi + 0.14 + labels_in
        )
        height_in = options.height_in or low_in + _PLOT_IN + high_in
        figure.set_size_inches(width_in, height_in)
        room_in = width_in - _LEFT_IN - _RIGHT_IN, height_in - low_in - high_in
        check_room(*room_in, _LEAST_IN)
        legend.set_bbox_to_anchor((0.16 / width_in, 1 - (_TITLE_IN - 0.04) / height_in))
        draw_title(figure, title)
        draw_footer(figure, lines)
        axes = figure.add_axes(
            (_LEFT_IN / width_in, low_in / height_in, room_in[0] / width_in, room_in[1] / height_in)
        )
        _draw_axes(axes, chart)
        _draw_labels(figure, axes, chart, upright=labels_in > _FLAT_IN)
    return figure


def _draw_axes(axes: Axes, chart: PowerChart) -> None:
    _scale(axes, chart)
    if chart.simulated:
        mark_simulated(axes)
    for stretch in chart.stretches:
        _draw_stretch(axes, stretch)
    _draw_pauses(axes, chart)
    if chart.provisioned_w_per_gpu is not None:
        axes.axhline(chart.provisioned_w_per_gpu, color=INK, linewidth=1, linestyle=(0, (5, 3)), zorder=2)


def _scale(axes: Axes, chart: PowerChart) -> None:
    highest = max(
        [float(stretch.power_w_per_gpu.max()) for stretch in chart.stretches if len(stretch.times)],
        default=0.0,
    )
    steps = nice_steps(max(highest, chart.provisioned_w_per_gpu or 0.0) or 1000.0)
    first, last = chart.stretches[0].start, max(stretch.end for stretch in chart.stretches)
    room = 0.01 * (last - first)
    axes.set(xlim=(first - room, last + room), ylim=(0, steps[-1]))
    axes.yaxis.set_major_locator(FixedLocator(steps))
    axes.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.grid(axis="y")
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel("power, W per GPU")


def _label_of(stretch: Stretch) -> str:
    text = "" if stretch.mean_w_per_gpu is None else f"{rate(stretch.mean_w_per_gpu)} W"
    if stretch.reason is not None:
        text = cut(clean(stretch.reason), _NAME_COLUMNS)
    if stretch.broken:
        more = f" and {len(stretch.broken) - 1} more" if len(stretch.broken) > 1 else ""
        invalid = f"invalid: {cut(clean(stretch.broken[0]), _NAME_COLUMNS)}{more}"
        text = f"{text}, {invalid}" if text else invalid
    return f"{cut(clean(stretch.name), _NAME_COLUMNS)}\n{text}"


def _middle(stretch: Stretch) -> float:
    low, high = stretch.window or (stretch.start, stretch.end)
    return (low + high) / 2


def _labels_height_in(figure: Figure, chart: PowerChart, width_in: float) -> float:
    """Returns the height of flat labels if each has room beside its neighbours, else of upright labels."""
    renderer = renderer_of(figure)
    sizes_in = []
    for stretch in chart.stretches:
        text = figure.text(0, 0, _label_of(stretch), fontsize=_LABEL_PT)
        sizes_in.append(text.get_window_extent(renderer).width / figure.dpi)
        text.remove()
    first, last = chart.stretches[0].start, max(stretch.end for stretch in chart.stretches)
    per_unit_in = (width_in - _LEFT_IN - _RIGHT_IN) / (1.02 * (last - first))
    places_in = sorted(
        (_middle(stretch) * per_unit_in, size)
        for stretch, size in zip(chart.stretches, sizes_in, strict=True)
    )
    for (place, width), (next_place, next_width) in pairwise(places_in):
        if place + width / 2 + 0.05 > next_place - next_width / 2:
            return max(sizes_in) + 0.16
    return _FLAT_IN


def _draw_stretch(axes: Axes, stretch: Stretch) -> None:
    colour = colour_of(stretch.arm)
    if stretch.window is not None:
        axes.axvspan(*stretch.window, color=colour, alpha=0.13, linewidth=0, zorder=1)
        if stretch.mean_w_per_gpu is not None:
            axes.hlines(
                stretch.mean_w_per_gpu,
                *stretch.window,
                color=colour,
                linewidth=1,
                linestyle=(0, (1, 1.5)),
                zorder=4,
            )
    whole = stretch.start, stretch.end
    if len(stretch.times):
        axes.plot(
            stretch.times, stretch.power_w_per_gpu, color=colour, linewidth=1.1, zorder=3, clip_on=False
        )
    if stretch.reason is not None:
        lacking = (stretch.window or whole) if len(stretch.times) else whole
        axes.axvspan(*lacking, **_hatched(BAD, _UNKNOWN))
    if stretch.broken:
        axes.axvspan(*(stretch.window or whole), **_hatched(colour, _INVALID))


def _hatched(colour: str, hatch: str) -> dict[str, Any]:
    """Returns the style of a hatched strip, in the axes and in the legend."""
    return {
        "facecolor": "none",
        "edgecolor": colour,
        "hatch": hatch,
        "alpha": _HATCH_ALPHA,
        "linewidth": 0.7,
        "zorder": 1.1,
    }


def _draw_pauses(axes: Axes, chart: PowerChart) -> None:
    for at, minutes in chart.pauses:
        axes.axvline(at, color=DIM, linewidth=1.4, linestyle=(0, (1, 2)), zorder=2)
        duration = f"{minutes / 60:,.1f} h" if minutes >= 90 else f"{minutes:,.0f} min"
        axes.text(
            at,
            0.5,
            f"{duration} cut out",
            transform=axes.get_xaxis_transform(),
            rotation=90,
            ha="right",
            va="center",
            color=DIM,
            fontsize=_LABEL_PT,
        )


def _draw_labels(figure: Figure, axes: Axes, chart: PowerChart, *, upright: bool) -> None:
    """Draws arm, concurrency and mean above each window; upright labels keep apart."""
    box = axes.get_window_extent()
    to_pixels = axes.transData.transform
    width_px, height_px = figure.get_size_inches() * figure.dpi
    order = sorted(chart.stretches, key=_middle)
    middles = [float(to_pixels((_middle(stretch), 0))[0]) for stretch in order]
    apart_px = 2.5 * _LABEL_PT * figure.dpi / 72
    places = spread(middles, apart_px, box.x0, box.x1) if upright else middles
    for stretch, at, place in zip(order, middles, places, strict=True):
        sound = stretch.reason is None and not stretch.broken
        figure.text(
            place / width_px,
            (box.y1 + (9 if upright else 4) * figure.dpi / 72) / height_px,
            _label_of(stretch),
            rotation=90 if upright else 0,
            ha="center",
            va="bottom",
            multialignment="left" if upright else "center",
            fontsize=_LABEL_PT,
            linespacing=1.15,
            color=colour_of(stretch.arm) if sound else BAD,
        )
        if upright:
            ends = [
                (at / width_px, box.y1 / height_px),
                (place / width_px, (box.y1 + 7 * figure.dpi / 72) / height_px),
            ]
            figure.add_artist(Line2D(*zip(*ends, strict=True), color=DIM, linewidth=0.7))


def spread(ideal: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Returns places near the ideal places, in their order, a distance apart; closer where room is short.

    Args:
        ideal: the ideal places, rising.
        apart: the least distance of two neighbours.
        low: the lowest place.
        high: the highest place.
    """
    if len(ideal) > 1:
        apart = min(apart, (high - low) / (len(ideal) - 1))
    places: list[float] = []
    for at in ideal:
        places.append(max(at, places[-1] + apart if places else low))
    limit = high
    for i in range(len(places) - 1, -1, -1):
        places[i] = min(places[i], limit)
        limit = places[i] - apart
    return places


def _legend(figure: Figure, chart: PowerChart) -> Legend:
    """Draws the legend in as few rows as the width allows; its caller places it."""
    entries = _legend_entries(chart)
    for columns in range(len(entries), 0, -1):
        legend = figure.legend(
            [handle for handle, _ in entries],
            [str(i) for i in range(len(entries))],
            loc="upper left",
            ncols=columns,
            frameon=False,
            borderaxespad=0,
            borderpad=0,
            columnspacing=1.6,
            fontsize=7.5,
        )
        # Matplotlib drops a label that begins with `_`, so the texts are set afterwards.
        for text, (_, label) in zip(legend.get_texts(), entries, strict=True):
            text.set_text(clean(label, 70))
        if columns == 1 or legend.get_window_extent(renderer_of(figure)).width < 0.96 * figure.bbox.width:
            break
        legend.remove()
    return legend


def _legend_entries(chart: PowerChart) -> list[tuple[Line2D | Patch, str]]:
    entries: list[tuple[Line2D | Patch, str]] = [
        (Line2D([], [], color=colour_of(i), lw=1.8), display_name(arm)) for i, arm in enumerate(chart.arms)
    ]
    if chart.provisioned_w_per_gpu is not None:
        entries.append((Line2D([], [], color=INK, lw=1, ls=(0, (5, 3))), chart.provisioned_label))
    if any(stretch.reason is not None for stretch in chart.stretches):
        entries.append((Patch(**_hatched(BAD, _UNKNOWN)), "power not known, with the reason"))
    if any(stretch.broken for stretch in chart.stretches):
        entries.append((Patch(**_hatched(DIM, _INVALID)), "invalid, with the rule that it broke"))
    return entries
