"""One comparison drawn into one pair of axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from mtpbench_analysis.figures import speed, target
from mtpbench_analysis.plot.content import Dot, Panel, Series
from mtpbench_analysis.plot.ink import DIM, INK, PAPER, colour_of, marker_of
from mtpbench_analysis.plot.labels import draw_loads, figure_of, place_legend, renderer_of
from mtpbench_analysis.plot.texts import clean, tick
from mtpbench_analysis.report.chart import nice_steps

_NEAR = 1.3
_LEGEND_COLUMNS = 46
_LEGEND_LINE_IN, _LEGEND_HANDLE_IN, _LEGEND_PER_IN = 0.17, 0.45, 14.0


def draw_panel(axes: Axes, panel: Panel, *, log: bool, loads: bool) -> None:
    """The panel: axes, targets, bands, curves, crossings, points, legend.

    Args:
        axes: already at their final place, because texts are laid out in pixels.
        panel: what to draw.
        log: both axes logarithmic, where everything drawn is above 0.
        loads: the concurrency or rate beside each knot.
    """
    if not len(panel.values):
        _say_empty(axes, panel)
        return
    targets = _near_targets(panel)
    _scale(axes, panel, targets, log)
    if panel.simulated:
        mark_simulated(axes)
    if panel.level is not None:
        axes.axhline(panel.level, color=DIM, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5)
    for at in targets:
        axes.axvline(at, color=DIM, linewidth=0.6, linestyle=(0, (2, 3)), zorder=1.5)
    _draw_target_texts(axes, targets)
    for one in panel.series:
        _draw_curve(axes, one)
    for mark in panel.crossings:
        style = (0, (2, 1.5)) if mark.wide else "solid"
        ring = axes.scatter([mark.x], [mark.y], s=150, facecolors="none", edgecolors=INK, linewidths=0.9)
        ring.set(linestyle=style, zorder=2.6, clip_on=False)
    for one in panel.series:
        _draw_dots(axes, one)
    _draw_crosses(axes, panel.invalid)
    legend = _legend(axes, panel)
    place_legend(axes, legend, panel)
    if loads:
        draw_loads(axes, legend, panel)


def _say_empty(axes: Axes, panel: Panel) -> None:
    why = panel.notes[0] if panel.notes else "no arm reaches what the other does"
    axes.set(xticks=[], yticks=[])
    text = clean(f"nothing to show: {why}", 60)
    axes.text(0.5, 0.5, text, ha="center", va="center", color=DIM, transform=axes.transAxes)


def _near_targets(panel: Panel) -> list[float]:
    """Targets far above everything measured would leave the chart empty; the tables have them."""
    reach = float(panel.values[:, 0].max())
    return [at for at in panel.targets_tps if at <= reach * _NEAR]


def _scale(axes: Axes, panel: Panel, targets: list[float], log: bool) -> None:
    values = panel.values
    xs = np.concatenate([values[:, 0], targets])
    ys = np.concatenate([values[:, 1], [] if panel.level is None else [panel.level]])
    dollar = "$" if panel.metric == "cost" else ""
    for axis, found, sign in ((axes.xaxis, xs, ""), (axes.yaxis, ys, dollar)):
        name = axis.axis_name
        if log and found.min() > 0:
            axes.set(**{f"{name}scale": "log"})
            decades = np.log10(found.max() / found.min())
            subs = (1.0, 2.0, 5.0) if decades < 3 else (1.0,)
            axis.set_major_locator(LogLocator(subs=subs))
            room = (found.max() / found.min()) ** 0.06 if decades else 1.5
            axes.set(**{f"{name}lim": (found.min() / room, found.max() * room)})
        else:
            # Both begin at 0, so that a ratio looks like what it is.
            steps = nice_steps(float(found.max()) or 1.0)
            axis.set_major_locator(FixedLocator(steps))
            axes.set(**{f"{name}lim": (0, steps[-1])})
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _, sign=sign: sign + tick(value)))
    axes.grid(axis="y")
    axes.set_xlabel("interactivity, tok/s/user")
    axes.set_ylabel(clean(panel.y_label, 60))


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


def _draw_target_texts(axes: Axes, targets: list[float]) -> None:
    """Above the axes; one that would touch its neighbour is left out, its line stays."""
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


def _draw_curve(axes: Axes, one: Series) -> None:
    colour = colour_of(one.number)
    if one.band is not None:
        axes.fill_between(
            one.band.x, one.band.low, one.band.high, color=colour, alpha=0.16, linewidth=0, zorder=2
        )
    for piece in one.pieces:
        style = (0, (4, 2.5)) if piece.wide else "solid"
        axes.plot(piece.x, piece.y, color=colour, linewidth=1.8, linestyle=style, zorder=3)


def _draw_dots(axes: Axes, one: Series) -> None:
    colour, (marker, size_pt) = colour_of(one.number), marker_of(one.number)
    for on_front, face in ((False, PAPER), (True, colour)):
        dots = [dot for dot in one.dots if dot.on_front == on_front]
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
                # Half of a mark on the edge of the axes would be another mark.
                clip_on=False,
            )


def _draw_crosses(axes: Axes, invalid: Sequence[Dot]) -> None:
    """Invalid points in their arm's colour, across a paler copy of its mark: not all readers see colours."""
    for number in dict.fromkeys(dot.number for dot in invalid):
        dots = [dot for dot in invalid if dot.number == number]
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


def _legend(axes: Axes, panel: Panel) -> Legend:
    box, dpi = axes.get_window_extent(), figure_of(axes).dpi
    columns = int((0.66 * box.width / dpi - _LEGEND_HANDLE_IN) * _LEGEND_PER_IN)
    columns = max(8, min(columns, _LEGEND_COLUMNS))
    entries = [_entry(one, columns) for one in panel.series if one.dots or one.pieces]
    signs = _signs(panel)
    room = max(3, int(0.8 * box.height / dpi / _LEGEND_LINE_IN) - len(signs))
    if len(entries) > room:
        rest = len(entries) - room + 1
        entries = [*entries[: room - 1], (Line2D([], [], linestyle="none"), f"and {rest} more")]
    entries += signs
    # A label that begins with `_` would be dropped, so the names are put in afterwards.
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


def _signs(panel: Panel) -> list[tuple[Line2D, str]]:
    """What the legend explains besides the curves, as far as it is there."""
    entries = []
    if any(not dot.on_front for one in panel.series for dot in one.dots):
        hollow = Line2D([], [], linestyle="none", marker="o", mfc=PAPER, mec=DIM, ms=5, mew=1.1)
        entries.append((hollow, "below the front"))
    if any(piece.wide for one in panel.series for piece in one.pieces):
        entries.append((Line2D([], [], color=DIM, lw=1.6, ls=(0, (4, 2.5))), "gap too wide for a ratio"))
    if any(one.band is not None for one in panel.series):
        entries.append((Line2D([], [], color=DIM, lw=6, alpha=0.25), f"{panel.confidence:.0%} band"))
    if panel.crossings:
        ring = Line2D([], [], linestyle="none", marker="o", mfc="none", mec=INK, ms=9, mew=0.9)
        entries.append((ring, _crossing_text(panel)))
    if panel.invalid:
        cross = Line2D([], [], linestyle="none", marker="x", color=DIM, ms=6.5, mew=1.3)
        entries.append((cross, f"invalid ({len(panel.invalid)})"))
    return entries


def _entry(one: Series, columns: int) -> tuple[Line2D, str]:
    colour, (marker, size_pt) = colour_of(one.number), marker_of(one.number)
    line = "-" if one.pieces else "none"
    handle = Line2D([], [], color=colour, lw=1.8, ls=line, marker=marker, ms=size_pt, mfc=colour, mec=colour)
    return handle, clean(one.label, columns)


def _crossing_text(panel: Panel) -> str:
    if len(panel.crossings) > 1:
        return "equal at " + ", ".join(speed(mark.x) for mark in panel.crossings[:3]) + " tok/s/user"
    (mark,) = panel.crossings
    between = ""
    if mark.interval_tps is not None:
        between = f" ({speed(mark.interval_tps[0])}–{speed(mark.interval_tps[1])})"
    return f"equal at {speed(mark.x)}{between} tok/s/user" + (", in a wide gap" if mark.wide else "")
