"""Several comparisons on one sheet: title, a grid of panels, and what the reader must know in small print."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from mtpbench_analysis.plot.content import Panel
from mtpbench_analysis.plot.ink import DIM, INK, ink, make_figure
from mtpbench_analysis.plot.look import Look, check_pixels, check_room
from mtpbench_analysis.plot.panel import draw_panel
from mtpbench_analysis.plot.texts import cut, wrap

_LEFT_IN, _RIGHT_IN, _BOTTOM_IN = 0.78, 0.28, 0.52
_TITLE_IN, _FOOT_LINE_IN, _HEAD_LINE_IN, _TARGETS_IN = 0.42, 0.135, 0.165, 0.2
_PANEL_IN = ((7.2, 4.1), (5.4, 3.5), (4.8, 3.2))
"""Width and height of a panel where there are one, two or three in a row."""
_LEAST_IN = (1.8, 1.2)
_FOOT_PER_IN, _HEAD_PER_IN, _TITLE_PER_IN = 18.5, 13.5, 8.5
"""Characters of the sheet's texts in an inch; DejaVu is a wide face, so this is on the safe side."""


def draw_sheet(title: str, panels: Sequence[Panel], foot: Sequence[str], look: Look) -> Figure:
    """The sheet; saved by `ink.save`.

    Args:
        title: above all panels.
        panels: at least one.
        foot: sentences below them, each on lines of its own.
        look: sizes and choices.
    """
    columns = 1 if len(panels) == 1 else 2 if len(panels) <= 4 else 3
    rows = math.ceil(len(panels) / columns)
    panel_width_in, panel_height_in = _PANEL_IN[columns - 1]
    width_in = look.width_in or columns * panel_width_in
    cell_width_in = width_in / columns
    foot_lines = wrap_foot(foot, width_in)
    heads = [wrap(one.title, int((cell_width_in - 0.4) * _HEAD_PER_IN), 2) for one in panels]
    head_in = max(len(lines) for lines in heads) * _HEAD_LINE_IN + _TARGETS_IN
    foot_in = len(foot_lines) * _FOOT_LINE_IN + 0.12
    height_in = look.height_in or _TITLE_IN + rows * (panel_height_in + head_in) + foot_in
    cell_height_in = (height_in - _TITLE_IN - foot_in) / rows
    room_in = cell_width_in - _LEFT_IN - _RIGHT_IN, cell_height_in - _BOTTOM_IN - head_in
    check_room(*room_in, _LEAST_IN)
    check_pixels(width_in, height_in, look.dpi)
    with ink():
        figure = make_figure(width_in, height_in, look.dpi)
        draw_title(figure, title)
        draw_foot(figure, foot_lines)
        for i, (panel, head) in enumerate(zip(panels, heads, strict=True)):
            left_in = (i % columns) * cell_width_in
            top_in = height_in - _TITLE_IN - (i // columns) * cell_height_in
            place = (
                (left_in + _LEFT_IN) / width_in,
                (top_in - cell_height_in + _BOTTOM_IN) / height_in,
                room_in[0] / width_in,
                room_in[1] / height_in,
            )
            axes = figure.add_axes(place)
            figure.text(
                (left_in + 0.16) / width_in,
                (top_in - 0.02) / height_in,
                "\n".join(head),
                va="top",
                fontsize=8.5,
                color=DIM if len(panels) == 1 else INK,
                linespacing=1.25,
            )
            draw_panel(axes, panel, log=look.log, loads=look.loads)
    return figure


def wrap_foot(foot: Sequence[str], width_in: float) -> list[str]:
    """The small print as lines, at most four for each sentence."""
    return [line for text in foot for line in wrap(text, int((width_in - 0.3) * _FOOT_PER_IN), 4)]


def draw_title(figure: Figure, title: str) -> None:
    """The sheet's title, cut where it is too long for one line."""
    width_in, height_in = figure.get_size_inches()
    (line,) = wrap(title, 10_000, 1)
    text = cut(line, int((width_in - 0.3) * _TITLE_PER_IN))
    figure.text(
        0.16 / width_in, 1 - 0.13 / height_in, text, va="top", fontsize=12.5, fontweight="bold", color=INK
    )


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
