"""Pure: throughput per GPU over interactivity in characters, for a terminal.

A cell holds 2 × 4 dots of braille for the fronts; measured points are marks of one cell each. Where the
encoding has no braille, dots and marks are ASCII.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from mtpbench_analysis.curves import Curve, display_name
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.interpolate import Spline
from mtpbench_analysis.terminal_axis import Axis, drawable, linear_axis, number, throughput_axis

STYLES = ("cyan", "magenta", "green", "yellow", "blue", "red")
MARKS = "●▲■◆▼★"
ASCII_MARKS = "o+#*@%"
INVALID = "x"
LEAST_COLUMNS = 26
LEAST_ROWS = 8
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bit of each dot of a braille cell: column, then row from the top."""
_UNIT = "tok/s/user"

Pair = tuple[float, float]
"""Interactivity (tok/s/user) and throughput (tok/s/GPU)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """One arm as it is drawn.

    Args:
        label: for the legend.
        points: measured and valid.
        invalid: measured and not valid.
        front: the knots of the curve, by rising interactivity.
    """

    label: str
    points: tuple[Pair, ...] = ()
    invalid: tuple[Pair, ...] = ()
    front: tuple[Pair, ...] = ()


def traces_of(
    curves: Sequence[Curve], invalid: Iterable[CurvePoint] = (), arms: Sequence[str] = ()
) -> tuple[Trace, ...]:
    """A trace for each curve, in the order of `arms` (marks and colours go by place), then the others.

    Invalid points go to the first curve of their arm; an arm that has nothing else gets a trace of its own.
    Arms of `arms` without any point get an empty one, so that the others keep their marks.
    """
    unused: dict[str, list[Pair]] = {}
    for point in invalid:
        unused.setdefault(point.arm, []).append((point.interactivity_tps, point.tput_tps_per_gpu))
    traces: list[Trace] = []
    for arm in dict.fromkeys((*arms, *(curve.arm for curve in curves), *unused)):
        own = [curve for curve in curves if curve.arm == arm]
        lost = tuple(unused.get(arm, ()))
        if not own:
            traces.append(Trace(label=display_name(arm), invalid=lost))
        for i, curve in enumerate(own):
            traces.append(
                Trace(
                    label=curve.label,
                    points=tuple((item.x, item.y) for item in curve.measured),
                    front=tuple((item.x, item.y) for item in curve.front),
                    invalid=() if i else lost,
                )
            )
    return tuple(traces)


@dataclass(frozen=True, kw_only=True, slots=True)
class TerminalCurve:
    """The drawing as a rich renderable; it takes the width that it is given, up to `columns`.

    Args:
        rows: of the whole drawing, legend included.
        terminals_only: draws nothing where the console is a pipe or a file.
    """

    traces: tuple[Trace, ...]
    simulated: bool = False
    rows: int = 16
    columns: int = 76
    terminals_only: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The drawing."""
        if self.terminals_only and not console.is_terminal:
            return
        size = (min(options.max_width, self.columns), self.rows)
        plain = is_plain(options, os.environ)
        yield draw(self.traces, size, simulated=self.simulated, ascii_only=plain)


@dataclass(frozen=True, slots=True)
class Beside:
    """A table with its caption, and a curve beside it where the console is wide enough, else below."""

    table: RenderableType
    caption: Text | None
    curve: TerminalCurve
    least_columns: int = 48

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """All three; without the curve where it is for terminals only and this is none."""
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


def is_plain(options: ConsoleOptions, environment: Mapping[str, str]) -> bool:
    """Whether to keep to ASCII: the console's encoding has nothing more, or the locale is C (or POSIX).

    In the C locale Python writes UTF-8 all the same (PEP 538, PEP 540), which says nothing of the terminal.
    Where LANG alone asks for C, Python sets LC_CTYPE to C.UTF-8 itself; that is no wish of the user's.
    """
    names = [environment.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG")]
    if not names[0] and names[1] == "C.UTF-8" and names[2]:
        names[1] = ""
    return options.ascii_only or next((name for name in names if name), "") in ("C", "POSIX")


def draw(
    traces: Sequence[Trace], size: tuple[int, int], *, simulated: bool = False, ascii_only: bool = False
) -> Text:
    """The curves of some arms with axes, units and a legend; a line of words where they have no room.

    Args:
        traces: the arms; values that are negative, infinite or NaN are left out, and counted in the legend.
        size: columns and rows, all included; nothing is wider or higher.
        simulated: says so.
        ascii_only: no braille.
    """
    columns, rows = size
    if columns < LEAST_COLUMNS or rows < LEAST_ROWS:
        # The mark of a simulation must not be what has no room.
        words = ("SIMULATED; " if simulated else "") + "no room for the curve"
        return Text(words[: max(columns, 0)], style="dim", no_wrap=True)
    kept, lost = _clean(traces)
    if not any(trace.points or trace.invalid for trace in kept):
        words = f"no point to draw yet{f' ({lost} can not be drawn)' if lost else ''}"
        return Text(words[:columns], style="dim", no_wrap=True)
    legend = _legend(kept, lost, columns, ascii_only)[: max(1, rows - 6)]
    height = rows - 3 - len(legend)
    values = [pair for trace in kept for pair in (*trace.points, *trace.invalid)]
    up = throughput_axis([y for _, y in values], max(2, height // 3))
    margin = max(map(len, up.labels), default=1) + 1
    width = columns - margin - 1
    along = linear_axis([x for x, _ in values], max(2, width // 12), from_zero=False)
    plot = _Plot(along, up, (width, height), ascii_only=ascii_only)
    for i, trace in enumerate(kept):
        plot.add_front(trace.front, STYLES[i % len(STYLES)])
    for i, trace in enumerate(kept):
        plot.add_marks(trace.invalid, INVALID, STYLES[i % len(STYLES)])
    for i, trace in enumerate(kept):
        plot.add_marks(trace.points, _mark(i, ascii_only), f"bold {STYLES[i % len(STYLES)]}")
    lines = [_header(up, columns, simulated), *plot.lines(margin), *_foot(along, margin, width, ascii_only)]
    made = Text("\n", no_wrap=True, overflow="crop").join([*lines, *legend])
    made.no_wrap, made.overflow = True, "crop"
    return made


def _clean(traces: Sequence[Trace]) -> tuple[list[Trace], int]:
    """The traces with what can be drawn, and how many points can't."""
    kept, lost = [], 0
    for trace in traces:
        points, invalid, front = (
            tuple(pair for pair in pairs if all(map(drawable, pair)))
            for pairs in (trace.points, trace.invalid, trace.front)
        )
        lost += len(trace.points) - len(points) + len(trace.invalid) - len(invalid)
        kept.append(Trace(label=trace.label, points=points, invalid=invalid, front=front))
    return kept, lost


def _mark(place: int, ascii_only: bool) -> str:
    marks = ASCII_MARKS if ascii_only else MARKS
    return marks[place % len(marks)]


class _Plot:
    """The field between the axes: dots of the fronts, and marks over them."""

    def __init__(self, along: Axis, up: Axis, size: tuple[int, int], *, ascii_only: bool) -> None:
        self.along, self.up, self.ascii_only = along, up, ascii_only
        self.width, self.height = size
        self._dots: dict[tuple[int, int], int] = {}
        self._cells: dict[tuple[int, int], tuple[str, str]] = {}

    def add_front(self, knots: Sequence[Pair], style: str) -> None:
        """The interpolated curve as dots."""
        if len(knots) < 2 or any(b[0] <= a[0] for a, b in pairwise(knots)):
            return
        xs = np.linspace(knots[0][0], knots[-1][0], 16 * self.width).clip(knots[0][0], knots[-1][0])
        ys = Spline([x for x, _ in knots], [y for _, y in knots]).at(xs)
        for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
            across = round(self.along.share(x) * (2 * self.width - 1))
            down = round((1 - self.up.share(y)) * (4 * self.height - 1))
            place = (across // 2, down // 4)
            bits = self._dots.get(place, 0) | _DOTS[across % 2][down % 4]
            self._dots[place] = bits
            self._cells[place] = ("." if self.ascii_only else chr(_BRAILLE + bits), style)

    def add_marks(self, pairs: Iterable[Pair], mark: str, style: str) -> None:
        """One mark for each point, over whatever is there."""
        for x, y in pairs:
            across = round(self.along.share(x) * (self.width - 1))
            down = round((1 - self.up.share(y)) * (self.height - 1))
            self._cells[(across, down)] = (mark, style)

    def lines(self, margin: int) -> list[Text]:
        """The rows from the top, each behind its label and the axis."""
        labels = self._labels()
        bar, tick = ("|", "+") if self.ascii_only else ("│", "┤")
        made = []
        for row in range(self.height):
            label = labels.get(row, "")
            line = Text(f"{label:>{margin - 1}} {tick if label else bar}", style="dim")
            for column in range(self.width):
                character, style = self._cells.get((column, row), (" ", ""))
                line.append(character, style=f"not dim {style}" if style else None)
            made.append(line)
        return made

    def _labels(self) -> Mapping[int, str]:
        rows: dict[int, str] = {}
        for tick, label in zip(self.up.ticks, self.up.labels, strict=True):
            rows.setdefault(round((1 - self.up.share(tick)) * (self.height - 1)), label)
        return rows


def _header(up: Axis, columns: int, simulated: bool) -> Text:
    """The unit of the vertical axis, and whether this is simulated."""
    line = Text("tok/s/GPU" + (", log scale" if up.log else ""), style="dim")
    if simulated:
        line.append(" " * max(1, columns - len(line) - len("SIMULATED")))
        line.append("SIMULATED", style="not dim bold yellow")
    line.truncate(columns)
    return line


def _foot(along: Axis, margin: int, width: int, ascii_only: bool) -> list[Text]:
    """The horizontal axis with its unit, and the labels under it."""
    corner, bar, tick = ("+", "-", "+") if ascii_only else ("└", "─", "┴")
    axis, labels = [bar] * width, [" "] * (margin + 1 + width)
    end = -1
    for value in along.ticks:
        column, label = round(along.share(value) * (width - 1)), number(value)
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


def _legend(traces: Sequence[Trace], lost: int, columns: int, ascii_only: bool) -> list[Text]:
    """What the marks mean, in as many lines as that takes."""
    entries: list[tuple[str, str, str]] = [
        (_mark(i, ascii_only), f"bold {STYLES[i % len(STYLES)]}", f"{trace.label} ({len(trace.points)})")
        for i, trace in enumerate(traces)
    ]
    if invalid := sum(len(trace.invalid) for trace in traces):
        entries.append((INVALID, "", f"invalid ({invalid})"))
    if any(len(trace.front) > 1 for trace in traces):
        entries.append((".." if ascii_only else "⠒⠒", "", "front, interpolated"))
    if lost:
        entries.append(("", "", f"{lost} not drawn"))
    lines = [Text()]
    for mark, style, words in entries:
        entry = Text.assemble((mark, style), " " if mark else "", (words, "dim"))
        entry.truncate(columns, overflow="crop" if ascii_only else "ellipsis")
        if lines[-1] and len(lines[-1]) + 2 + len(entry) > columns:
            lines.append(Text())
        lines[-1].append_text(Text("  ") + entry if lines[-1] else entry)
    return lines
