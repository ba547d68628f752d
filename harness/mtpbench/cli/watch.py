"""`mtpbench watch`: a sweep while its points are stored, from files only, in a frame that fits a terminal."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.text import Text

from mtpbench.cli.options import INTERRUPTED, RESULTS, ResultsOption
from mtpbench.cli.watch_lines import count_line, present_lines, table_lines
from mtpbench.errors import InputError, SchemaError, StoreError
from mtpbench.snapshot import Problem, SeenPoint, Snapshot
from mtpbench.snapshot.reader import SnapshotReader, signature
from mtpbench.store import is_there
from mtpbench.store.reading import SWEEP_FILE
from mtpbench.sweep import load_sweep, with_simulated
from mtpbench_analysis.chart.comparison_chart import Series
from mtpbench_analysis.chart.terminal_curve import LEAST_COLUMNS, LEAST_ROWS, asks_for_ascii, draw, series_of
from mtpbench_analysis.cli.options import make_console
from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.frame import CurvePoint, Unused
from mtpbench_analysis.importers.results import to_curve_point

TERMINATED = 128 + signal.SIGTERM
MANY_ROWS = 100_000
"""The height of a frame without a limit: one that is written into a pipe."""
CURVE_ROWS = 16
HIGH_ROWS = 24
_GAP = 3
_BOTH = 22
_PLAIN = str.maketrans({"…": "~", "–": "-", "·": "|", "×": "x"})


def watch(
    sweep: Annotated[Path, typer.Argument(help="a sweep file, or a folder results/<sweep>")],
    once: Annotated[
        bool, typer.Option("--once", help="show one frame and end; what a pipe gets anyway")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600.0, help="seconds between two looks at the files")
    ] = 2.0,
    results: ResultsOption = RESULTS,
) -> None:
    """Show a sweep live as its points land: counts, table, curve. Reads files only, ends by itself."""
    view = View(sweep, results)
    console = make_console()
    if once or not console.is_terminal or console.is_dumb_terminal:
        frame = view.look(console.height - 1 if console.is_terminal else None)
        if (obstacle := view.nothing_to_come()) is not None:
            raise InputError(obstacle)
        console.print(frame)
        return
    try:
        _follow(view, console, interval)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    # The prompt takes one row.
    console.print(view.look(console.height - 1))


def _follow(view: View, console: Console, interval_s: float) -> None:
    """Shows a new frame every so many seconds until all is measured, and always restores the terminal."""
    handler = signal.signal(signal.SIGTERM, _leave)
    live = Live(view.look(console.height), console=console, screen=True, auto_refresh=False)
    try:
        # Used as a context, it would not be stopped by a signal during its first frame.
        live.start(refresh=True)
        while not view.over:
            time.sleep(interval_s)
            live.update(view.look(console.height), refresh=True)
    finally:
        live.stop()
        signal.signal(signal.SIGTERM, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    del number, frame
    sys.exit(TERMINATED)


class View:
    """A view reads the snapshots of one sweep, and makes each a frame.

    Args:
        target: a sweep file, or a folder results/<sweep>.
        results: the results folder, for a sweep file.

    Raises:
        SweepError: the sweep file is wrong.
    """

    def __init__(self, target: Path, results: Path) -> None:
        self.planned: int | None = None
        self.simulated = False
        if target.suffix in (".yaml", ".yml") or os.path.isfile(target):
            loaded = load_sweep(target)
            self.planned, self.simulated = len(loaded.points), loaded.points[0].simulated
            self.folders = tuple(results / plan.info.name for plan in with_simulated(loaded))
        else:
            self.folders = (target,)
        self.over = False
        self._readers = {folder: SnapshotReader(folder) for folder in self.folders}
        self._converted: dict[str, tuple[SeenPoint, CurvePoint | Unused | None]] = {}

    def look(self, rows: int | None = None) -> RenderableType:
        """Returns the frame of this moment, or a text that says why there is none."""
        folder = self._folder()
        try:
            snapshot = self._readers[folder].read()
        except (SchemaError, StoreError) as error:
            return Text(f"nothing to show: {error}", style="red")
        if snapshot is None:
            return Text(self._waiting())
        # Before the first point is stored, only the sweep file says so.
        snapshot = replace(snapshot, simulated=snapshot.simulated or self.simulated)
        series = self._series(snapshot)
        snapshot = replace(snapshot, points=tuple(self._judged(point) for point in snapshot.points))
        self.over = snapshot.over
        return Frame(snapshot=snapshot, series=series, rows=rows)

    def nothing_to_come(self) -> str | None:
        """Returns why a single look shows nothing; None where it shows something, or for a sweep file."""
        folder = self.folders[0]
        if self.planned is not None or is_there(folder / SWEEP_FILE):
            return None
        if not os.path.isdir(folder):
            return f"{folder}: there is no such folder, and no sweep file of that name"
        return self._without_sweep(folder)

    def _folder(self) -> Path:
        """Returns the folder that a run wrote to last: a sweep and its simulation have one each."""
        changed_ns = {
            folder: status.changed_ns for folder in self.folders if (status := signature(folder / SWEEP_FILE))
        }
        return max(changed_ns, key=lambda folder: changed_ns[folder], default=self.folders[0])

    def _without_sweep(self, folder: Path) -> str:
        names = sorted(path.parent.name for path in folder.glob(f"*/{SWEEP_FILE}"))[:5]
        hint = (
            f"it holds {', '.join(names)}: watch one of them"
            if names
            else "a folder results/<sweep> is needed"
        )
        return f"{folder}: no results here ({SWEEP_FILE} is missing); {hint}"

    def _waiting(self) -> str:
        folder = self.folders[0]
        if self.planned is None:
            if os.path.isdir(folder):
                return f"waiting: {self._without_sweep(folder)}"
            return f"waiting: {folder}: there is no such folder yet"
        names = " and none in ".join(str(folder) for folder in self.folders)
        return f"waiting: no results in {names} yet; {self.planned} points are planned"

    def _series(self, snapshot: Snapshot) -> tuple[Series, ...]:
        """Builds the curves of the stored points; each point is converted once."""
        converted: dict[str, tuple[SeenPoint, CurvePoint | Unused | None]] = {}
        for point in snapshot.points:
            earlier = self._converted.get(point.planned.id)
            is_same = earlier is not None and earlier[0] is point
            converted[point.planned.id] = earlier if earlier and is_same else (point, _convert(point))
        self._converted = converted
        points = [record for _, record in converted.values() if isinstance(record, CurvePoint)]
        return series_of(
            build_curves(points), [point for point in points if not point.valid], snapshot.info.arms
        )

    def _judged(self, point: SeenPoint) -> SeenPoint:
        """Returns a point with the state `unusable` where it is valid but no curve can hold its rates."""
        _, record = self._converted[point.planned.id]
        if point.state != "valid" or not isinstance(record, Unused):
            return point
        return replace(point, state="unusable", problem=Problem(reason=record.reason))


def _convert(point: SeenPoint) -> CurvePoint | Unused | None:
    return None if point.stored is None else to_curve_point(point.stored)


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A frame is a snapshot as a rich renderable, never wider or higher than its console.

    Args:
        snapshot: of the sweep.
        series: the curves, one for each arm of the sweep in its order.
        rows: the frame's height; None for as high as it gets.
    """

    snapshot: Snapshot
    series: tuple[Series, ...]
    rows: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the lines of the frame."""
        size = (options.max_width, self.rows or MANY_ROWS)
        plain = options.ascii_only or asks_for_ascii(os.environ)
        yield from lines_of(self.snapshot, self.series, size, ascii_only=plain)


def lines_of(
    snapshot: Snapshot, series: Sequence[Series], size: tuple[int, int], *, ascii_only: bool = False
) -> list[Text]:
    """Returns the lines of a frame, at most as wide and as many as its size (columns, rows) says."""
    columns, rows = size
    head = [_title(snapshot, columns), *_wrapped(count_line(snapshot), columns, 2)]
    for text, style in present_lines(snapshot):
        head += _wrapped(text, columns, 3, style)
    head = [*head[: max(2, rows // 2)], Text()]
    body = _body(snapshot, series, (columns, rows - len(head)), ascii_only)
    return [_fitted(line, columns, ascii_only) for line in [*head, *body][:rows]]


def _body(
    snapshot: Snapshot, series: Sequence[Series], size: tuple[int, int], ascii_only: bool
) -> list[Text]:
    """Returns the table, with the curve beside it or below it."""
    columns, rows = size
    table = table_lines(snapshot, columns, min(rows, MANY_ROWS), ascii_only=ascii_only)
    width = max((len(line) for line in table), default=0)
    beside = columns - width - _GAP
    if beside >= LEAST_COLUMNS + 8:
        height = min(rows, HIGH_ROWS if rows < MANY_ROWS // 2 else CURVE_ROWS)
        curve = draw(series, (min(beside, 76), height), simulated=snapshot.simulated, ascii_only=ascii_only)
        return _side_by_side(table, list(curve.split("\n")), width)
    # Half of a low terminal has no room for both: the table goes first.
    room = min(CURVE_ROWS, max(rows // 2 if rows >= _BOTH else 0, rows - len(table) - 1))
    if room < LEAST_ROWS or columns < LEAST_COLUMNS:
        return table
    curve = draw(series, (min(columns, 76), room), simulated=snapshot.simulated, ascii_only=ascii_only)
    curve_lines = curve.split("\n")
    table = table_lines(snapshot, columns, rows - len(curve_lines) - 1, ascii_only=ascii_only)
    return [*table, Text(), *curve_lines]


def _side_by_side(table: Sequence[Text], curve: Sequence[Text], width: int) -> list[Text]:
    lines = []
    for i in range(max(len(table), len(curve))):
        line = table[i].copy() if i < len(table) else Text()
        if i < len(curve):
            line.append(" " * (width + _GAP - len(line)))
            line.append_text(curve[i])
        lines.append(line)
    return lines


def _title(snapshot: Snapshot, columns: int) -> Text:
    line = Text(snapshot.info.name, style="bold")
    if snapshot.simulated:
        line.append("  SIMULATED", style="bold yellow")
    clock = f"{datetime.fromtimestamp(snapshot.now_s):%H:%M:%S}"
    if (room := columns - len(line) - len(clock)) > 0:
        line.append(" " * room + clock, style="not bold dim")
    return line


def _wrapped(text: str, columns: int, limit: int, style: str = "") -> list[Text]:
    """Wraps a text into at most so many lines."""
    lines = textwrap.wrap(text, max(1, columns), max_lines=limit, placeholder=" …")
    return [Text(line, style=style) for line in lines]


def _fitted(line: Text, columns: int, ascii_only: bool) -> Text:
    """Returns a line cut off at the edge, in characters that the terminal can show."""
    fitted = line.copy()
    fitted.no_wrap, fitted.overflow = True, "crop"
    if ascii_only:
        # Each character becomes one character, so that styles keep their places.
        fitted.plain = fitted.plain.translate(_PLAIN).encode("ascii", "replace").decode("ascii")
    fitted.truncate(columns, overflow="crop")
    return fitted
