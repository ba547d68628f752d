"""Pure: the curves of throughput per GPU over interactivity in characters, for a terminal.

A cell holds 2 × 4 dots of braille for the fronts; a measured point is a mark of one cell. Without braille in
the encoding, dots and marks are ASCII.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from mtpbench_analysis.chart.axes import Axis, drawable, linear_axis, short_tick, throughput_axis
from mtpbench_analysis.chart.comparison_chart import Dot, Series, dot_of
from mtpbench_analysis.chart.style import mark_of
from mtpbench_analysis.curves.curve import Curve, display_name
from mtpbench_analysis.curves.splines import Spline
from mtpbench_analysis.document import visible
from mtpbench_analysis.frame import CurvePoint

INVALID = "x"
LEAST_COLUMNS = 26
LEAST_ROWS = 8
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bit of each dot of a braille cell: column, then row from the top."""
_UNIT = "tok/s/user"


@dataclass(frozen=True, kw_only=True, slots=True)
class TerminalCurve:
    """The drawing as a rich renderable; it fills the available width, up to `columns`.

    Args:
        rows: height of the whole drawing, legend included.
        ascii_only: whether braille is avoided even where the console's encoding has it.
        terminals_only: whether nothing is drawn where the console is a pipe or a file.
    """

    series: tuple[Series, ...]
    simulated: bool = False
    rows: int = 16
    columns: int = 76
    ascii_only: bool = False
    terminals_only: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the drawing."""
        if self.terminals_only and not console.is_terminal:
            return
        size = (min(options.max_width, self.columns), self.rows)
        ascii_only = self.ascii_only or options.ascii_only
        yield draw(self.series, size, simulated=self.simulated, ascii_only=ascii_only)


@dataclass(frozen=True, slots=True)
class TableWithCurve:
    """A table with its caption and a curve, beside it where the console is wide enough, else below."""

    table: RenderableType
    caption: Text | None
    curve: TerminalCurve
    least_columns: int = 48

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields table, curve and caption; outside of a terminal without a curve for terminals only."""
        under = () if self.caption is None else (self.caption,)
        if self.curve.terminals_only and not console.is_terminal:
            yield from (self.table, *under)
            return
        taken = console.measure(self.table, options=options).maximum
        if options.max_width - taken - 3 < self.least_columns:
            yield from (self.table, *under, Text(""), self.curve)
            return
        both = Table.grid(padding=(0, 3, 0, 0))
        both.add_column(width=taken)
        both.add_column()
        both.add_row(self.table, self.curve)
        yield from (both, *under)


def series_of(
    curves: Sequence[Curve], invalid: Iterable[CurvePoint] = (), arms: Sequence[str] = ()
) -> tuple[Series, ...]:
    """Returns the throughput of curves without a comparison as points: `arms` in their order, then others.

    Invalid points go to the first curve of their arm; an arm with invalid points alone gets a series of its
    own. An arm of `arms` without any point gets an empty series, so that the other arms keep their marks.
    """
    invalid_dots: dict[str, list[Dot]] = {}
    for point in invalid:
        invalid_dots.setdefault(point.arm, []).append(dot_of(point, point.tput_tps_per_gpu))
    series: list[Series] = []
    for arm in dict.fromkeys((*arms, *(curve.arm for curve in curves), *invalid_dots)):
        dots = tuple(invalid_dots.get(arm, ()))
        for curve in (curve for curve in curves if curve.arm == arm):
            front = {id(knot) for knot in curve.front}
            valid = [dot_of(item.mean, item.y, on_front=id(item) in front) for item in curve.measured]
            series.append(Series(number=len(series), label=curve.label, dots=tuple(valid), invalid=dots))
            dots = ()
        if dots or not any(curve.arm == arm for curve in curves):
            series.append(Series(number=len(series), label=display_name(arm), invalid=dots))
    return tuple(series)


def asks_for_ascii(environment: Mapping[str, str]) -> bool:
    """Returns whether an environment asks for ASCII: its locale is C (or POSIX).

    In the C locale Python writes UTF-8 too (PEP 538, PEP 540), whatever the terminal can show. Where only
    LANG asks for C, Python itself sets LC_CTYPE to C.UTF-8; the user did not choose that.
    """
    names = [environment.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG")]
    if not names[0] and names[1] == "C.UTF-8" and names[2]:
        names[1] = ""
    return next((name for name in names if name), "") in ("C", "POSIX")


def draw(
    series: Sequence[Series], size: tuple[int, int], *, simulated: bool = False, ascii_only: bool = False
) -> Text:
    """Draws curves with axes, units and a legend; a sentence instead where they have no room.

    Args:
        series: the curves; the legend counts negative, infinite and NaN values, which are not drawn.
        size: columns and rows of the whole drawing; no line is wider, and no more lines are drawn.
        simulated: whether the drawing is marked SIMULATED.
        ascii_only: whether braille is avoided.
    """
    columns, rows = size
    drawable_series, dropped = _drop_undrawable(series)
    if (why := _explain_empty(drawable_series, dropped, size, simulated)) is not None:
        return Text(why[: max(columns, 0)], style="dim", no_wrap=True)
    legend = _legend(drawable_series, dropped, columns, ascii_only)[: max(1, rows - 6)]
    height = rows - 3 - len(legend)
    dots = [dot for curve in drawable_series for dot in (*curve.dots, *curve.invalid)]
    up = throughput_axis([dot.y for dot in dots], max(2, height // 3))
    margin = max(map(len, up.labels), default=1) + 1
    width = columns - margin - 1
    along = linear_axis([dot.x for dot in dots], max(2, width // 12), from_zero=False)
    plot = _Plot(along, up, (width, height), ascii_only=ascii_only)
    plot.add(drawable_series)
    lines = [_header(up, columns, simulated), *plot.lines(margin), *_foot(along, margin, width, ascii_only)]
    drawing = Text("\n", no_wrap=True, overflow="crop").join([*lines, *legend])
    drawing.no_wrap, drawing.overflow = True, "crop"
    return drawing


def _explain_empty(
    series: Sequence[Series], dropped: int, size: tuple[int, int], simulated: bool
) -> str | None:
    """Returns why nothing can be drawn; None where the curves can be."""
    if size[0] < LEAST_COLUMNS or size[1] < LEAST_ROWS:
        # SIMULATED must stand even where nothing else has room.
        return ("SIMULATED; " if simulated else "") + "no room for the curve"
    if not any(curve.dots or curve.invalid for curve in series):
        return f"no point to draw yet{f' ({dropped} can not be drawn)' if dropped else ''}"
    return None


def _drop_undrawable(series: Sequence[Series]) -> tuple[list[Series], int]:
    """Returns the series with their drawable points, and the number of other points."""
    drawable_series, dropped = [], 0
    for curve in series:
        dots, invalid = (
            tuple(dot for dot in dots_of_kind if drawable(dot.x) and drawable(dot.y))
            for dots_of_kind in (curve.dots, curve.invalid)
        )
        dropped += len(curve.dots) - len(dots) + len(curve.invalid) - len(invalid)
        drawable_series.append(replace(curve, dots=dots, invalid=invalid))
    return drawable_series, dropped


def mark_and_style(place: int, ascii_only: bool) -> tuple[str, str]:
    """Returns the mark of the n-th curve in a terminal, and its style by Rich's name."""
    mark = mark_of(place)
    return mark.ascii_character if ascii_only else mark.character, f"bold {mark.style}"


class _Plot:
    """The area between the axes: dots of the fronts, and marks over them."""

    def __init__(self, along: Axis, up: Axis, size: tuple[int, int], *, ascii_only: bool) -> None:
        self.along, self.up, self.ascii_only = along, up, ascii_only
        self.width, self.height = size
        self._dots: dict[tuple[int, int], int] = {}
        self._cells: dict[tuple[int, int], tuple[str, str]] = {}

    def add(self, series: Sequence[Series]) -> None:
        """Adds the fronts, then the invalid points, then the valid points over them."""
        for i, curve in enumerate(series):
            self.add_front([dot for dot in curve.dots if dot.on_front], mark_of(i).style)
        for i, curve in enumerate(series):
            self.add_marks(curve.invalid, INVALID, mark_of(i).style)
        for i, curve in enumerate(series):
            self.add_marks(curve.dots, *mark_and_style(i, self.ascii_only))

    def add_front(self, knots: Sequence[Dot], style: str) -> None:
        """Adds the interpolated curve as dots."""
        if len(knots) < 2 or any(b.x <= a.x for a, b in pairwise(knots)):
            return
        low, high = knots[0].x, knots[-1].x
        xs = np.linspace(low, high, 16 * self.width).clip(low, high)
        ys = Spline([dot.x for dot in knots], [dot.y for dot in knots]).at(xs)
        for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
            across = round(self.along.share(x) * (2 * self.width - 1))
            down = round((1 - self.up.share(y)) * (4 * self.height - 1))
            place = (across // 2, down // 4)
            bits = self._dots.get(place, 0) | _DOTS[across % 2][down % 4]
            self._dots[place] = bits
            self._cells[place] = ("." if self.ascii_only else chr(_BRAILLE + bits), style)

    def add_marks(self, dots: Iterable[Dot], mark: str, style: str) -> None:
        """Adds a mark for each point, over everything that was added before."""
        for dot in dots:
            across = round(self.along.share(dot.x) * (self.width - 1))
            down = round((1 - self.up.share(dot.y)) * (self.height - 1))
            self._cells[(across, down)] = (mark, style)

    def lines(self, margin: int) -> list[Text]:
        """Returns the rows from the top, each after its label and the axis."""
        labels = self._labels()
        bar, tick = ("|", "+") if self.ascii_only else ("│", "┤")
        lines = []
        for row in range(self.height):
            label = labels.get(row, "")
            line = Text(f"{label:>{margin - 1}} {tick if label else bar}", style="dim")
            for column in range(self.width):
                character, style = self._cells.get((column, row), (" ", ""))
                line.append(character, style=f"not dim {style}" if style else None)
            lines.append(line)
        return lines

    def _labels(self) -> Mapping[int, str]:
        rows: dict[int, str] = {}
        for tick, label in zip(self.up.ticks, self.up.labels, strict=True):
            rows.setdefault(round((1 - self.up.share(tick)) * (self.height - 1)), label)
        return rows


def _header(up: Axis, columns: int, simulated: bool) -> Text:
    """Returns the line above the area: the unit of the vertical axis, and SIMULATED for simulated curves."""
    line = Text("tok/s/GPU" + (", log scale" if up.log else ""), style="dim")
    if simulated:
        line.append(" " * max(1, columns - len(line) - len("SIMULATED")))
        line.append("SIMULATED", style="not dim bold yellow")
    line.truncate(columns)
    return line


def _foot(along: Axis, margin: int, width: int, ascii_only: bool) -> list[Text]:
    """Returns the horizontal axis with its unit, and the line of labels under it."""
    corner, bar, tick = ("+", "-", "+") if ascii_only else ("└", "─", "┴")
    axis, labels = [bar] * width, [" "] * (margin + 1 + width)
    end = -1
    for value in along.ticks:
        column, label = round(along.share(value) * (width - 1)), short_tick(value)
        axis[column] = tick
        start = min(margin + 1 + column - len(label) // 2, margin + 1 + width - len(label))
        if start > end:
            labels[start : start + len(label)] = label
            end = start + len(label)
    axis[width - len(_UNIT) - 1 :] = f" {_UNIT}"
    return [
        Text(f"{corner:>{margin + 1}}{''.join(axis)}", style="dim"),
        Text("".join(labels).rstrip(), style="dim"),
    ]


def _legend(series: Sequence[Series], dropped: int, columns: int, ascii_only: bool) -> list[Text]:
    """Returns the legend's lines: the meaning of each mark."""
    entries: list[tuple[str, str, str]] = [
        (*mark_and_style(i, ascii_only), f"{visible(curve.label)} ({len(curve.dots)})")
        for i, curve in enumerate(series)
    ]
    if invalid := sum(len(curve.invalid) for curve in series):
        entries.append((INVALID, "", f"invalid ({invalid})"))
    if any(sum(dot.on_front for dot in curve.dots) > 1 for curve in series):
        entries.append((".." if ascii_only else "⠒⠒", "", "front, interpolated"))
    if dropped:
        entries.append(("", "", f"{dropped} not drawn"))
    lines = [Text()]
    for mark, style, label in entries:
        entry = Text.assemble((mark, style), " " if mark else "", (label, "dim"))
        entry.truncate(columns, overflow="crop" if ascii_only else "ellipsis")
        if lines[-1] and len(lines[-1]) + 2 + len(entry) > columns:
            lines.append(Text())
        lines[-1].append_text(Text("  ") + entry if lines[-1] else entry)
    return lines
