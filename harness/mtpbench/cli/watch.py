"""`mtpbench watch`: a sweep as its points land, from files alone, as a frame that fits its terminal."""

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
from mtpbench.store.reading import SWEEP_FILE
from mtpbench.sweep import load_sweep, simulate
from mtpbench_analysis.chart.comparison_chart import Series
from mtpbench_analysis.chart.terminal_curve import LEAST_COLUMNS, LEAST_ROWS, asks_for_ascii, draw, series_of
from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.frame import CurvePoint, Unused
from mtpbench_analysis.importers.results import to_curve_point

TERMINATED = 128 + signal.SIGTERM
MANY_ROWS = 100_000
"""The height of a frame that nothing limits: one that goes into a pipe."""
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
    console = Console()
    if once or not console.is_terminal or console.is_dumb_terminal:
        frame = view.look(console.height - 1 if console.is_terminal else None)
        if (wrong := view.nothing_to_come()) is not None:
            raise InputError(wrong)
        console.print(frame)
        return
    try:
        _follow(view, console, interval)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    # One row is the prompt's.
    console.print(view.look(console.height - 1))


def _follow(view: View, console: Console, interval_s: float) -> None:
    """Look again and again until all is measured; whatever ends it, the terminal is as it was."""
    before = signal.signal(signal.SIGTERM, _leave)
    live = Live(view.look(console.height), console=console, screen=True, auto_refresh=False)
    try:
        # As a context it would not be stopped by what interrupts its first frame.
        live.start(refresh=True)
        while not view.over:
            time.sleep(interval_s)
            live.update(view.look(console.height), refresh=True)
    finally:
        live.stop()
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:
    del number, frame
    sys.exit(TERMINATED)


class View:
    """What is watched: finds the folder, looks at it, and makes the frame.

    Args:
        target: a sweep file, or a folder.
        results: where the folder of a sweep file is to be.

    Raises:
        SweepError: the sweep file is wrong.
    """

    def __init__(self, target: Path, results: Path) -> None:
        self.planned: int | None = None
        self.simulated = False
        if target.suffix in (".yaml", ".yml") or target.is_file():
            loaded = load_sweep(target)
            self.planned, self.simulated = len(loaded.points), loaded.points[0].simulated
            self.folders = tuple(results / plan.info.name for plan in (loaded, simulate(loaded)))
        else:
            self.folders = (target,)
        self.over = False
        self._readers = {folder: SnapshotReader(folder) for folder in self.folders}
        self._drawn: dict[str, tuple[SeenPoint, CurvePoint | Unused | None]] = {}

    def look(self, rows: int | None = None) -> RenderableType:
        """The frame of this moment, or why there is none."""
        folder = self._folder()
        try:
            snapshot = self._readers[folder].read()
        except (SchemaError, StoreError) as error:
            return Text(f"nothing to show: {error}", style="red")
        if snapshot is None:
            return Text(self._waiting())
        # Before the first point has landed, only the sweep file knows.
        snapshot = replace(snapshot, simulated=snapshot.simulated or self.simulated)
        series = self._series(snapshot)
        snapshot = replace(snapshot, points=tuple(self._told(point) for point in snapshot.points))
        self.over = snapshot.over
        return Frame(snapshot=snapshot, series=series, rows=rows)

    def nothing_to_come(self) -> str | None:
        """Why a single look at a folder shows nothing; None where it does, or a sweep file promises a run."""
        folder = self.folders[0]
        if self.planned is not None or (folder / SWEEP_FILE).exists():
            return None
        if not folder.is_dir():
            return f"{folder}: there is no such folder, and no sweep file of that name"
        return self._without_sweep(folder)

    def _folder(self) -> Path:
        """The folder that a run wrote to last: a sweep and its simulation have one each."""
        begun = {
            folder: status.changed_ns for folder in self.folders if (status := signature(folder / SWEEP_FILE))
        }
        return max(begun, key=lambda folder: begun[folder], default=self.folders[0])

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
            if folder.is_dir():
                return f"waiting: {self._without_sweep(folder)}"
            return f"waiting: {folder}: there is no such folder yet"
        names = " and none in ".join(str(folder) for folder in self.folders)
        return f"waiting: no results in {names} yet; {self.planned} points are planned"

    def _series(self, snapshot: Snapshot) -> tuple[Series, ...]:
        """The curves of what has landed; a point is converted once."""
        drawn: dict[str, tuple[SeenPoint, CurvePoint | Unused | None]] = {}
        for point in snapshot.points:
            earlier = self._drawn.get(point.planned.id)
            drawn[point.planned.id] = earlier if earlier and earlier[0] is point else (point, _convert(point))
        self._drawn = drawn
        points = [made for _, made in drawn.values() if isinstance(made, CurvePoint)]
        return series_of(
            build_curves(points), [point for point in points if not point.valid], snapshot.info.arms
        )

    def _told(self, point: SeenPoint) -> SeenPoint:
        """A point that says it is valid, and has rates that no curve can hold, as what it is."""
        _, made = self._drawn[point.planned.id]
        if point.state != "valid" or not isinstance(made, Unused):
            return point
        return replace(point, state="unusable", problem=Problem(reason=made.reason))


def _convert(point: SeenPoint) -> CurvePoint | Unused | None:
    return None if point.stored is None else to_curve_point(point.stored)


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A snapshot as a rich renderable; never wider or higher than the console it is printed on.

    Args:
        series: what the curve shows, one for each arm of the sweep in its order.
        rows: the frame's height; None for as high as it gets.
    """

    snapshot: Snapshot
    series: tuple[Series, ...]
    rows: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The frame, line by line."""
        size = (options.max_width, self.rows or MANY_ROWS)
        plain = options.ascii_only or asks_for_ascii(os.environ)
        yield from lines_of(self.snapshot, self.series, size, ascii_only=plain)


def lines_of(
    snapshot: Snapshot, series: Sequence[Series], size: tuple[int, int], *, ascii_only: bool = False
) -> list[Text]:
    """The lines of a frame; at most as many, and as wide, as its size says."""
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
    """The table, and the curve beside or below it."""
    columns, rows = size
    table = table_lines(snapshot, columns, min(rows, MANY_ROWS), ascii_only=ascii_only)
    taken = max((len(line) for line in table), default=0)
    beside = columns - taken - _GAP
    if beside >= LEAST_COLUMNS + 8:
        height = min(rows, HIGH_ROWS if rows < MANY_ROWS // 2 else CURVE_ROWS)
        curve = draw(series, (min(beside, 76), height), simulated=snapshot.simulated, ascii_only=ascii_only)
        return _side_by_side(table, list(curve.split("\n")), taken)
    # Half of a low terminal is too little for both: the figures come first.
    room = min(CURVE_ROWS, max(rows // 2 if rows >= _BOTH else 0, rows - len(table) - 1))
    if room < LEAST_ROWS or columns < LEAST_COLUMNS:
        return table
    drawn = draw(series, (min(columns, 76), room), simulated=snapshot.simulated, ascii_only=ascii_only).split(
        "\n"
    )
    table = table_lines(snapshot, columns, rows - len(drawn) - 1, ascii_only=ascii_only)
    return [*table, Text(), *drawn]


def _side_by_side(table: Sequence[Text], curve: Sequence[Text], taken: int) -> list[Text]:
    made = []
    for i in range(max(len(table), len(curve))):
        line = table[i].copy() if i < len(table) else Text()
        if i < len(curve):
            line.append(" " * (taken + _GAP - len(line)))
            line.append_text(curve[i])
        made.append(line)
    return made


def _title(snapshot: Snapshot, columns: int) -> Text:
    line = Text(snapshot.info.name, style="bold")
    if snapshot.simulated:
        line.append("  SIMULATED", style="bold yellow")
    clock = f"{datetime.fromtimestamp(snapshot.now_s):%H:%M:%S}"
    if (room := columns - len(line) - len(clock)) > 0:
        line.append(" " * room + clock, style="not bold dim")
    return line


def _wrapped(text: str, columns: int, limit: int, style: str = "") -> list[Text]:
    """Words in at most so many lines."""
    lines = textwrap.wrap(text, max(1, columns), max_lines=limit, placeholder=" …")
    return [Text(line, style=style) for line in lines]


def _fitted(line: Text, columns: int, ascii_only: bool) -> Text:
    """A line that is cut off at the edge, in characters that the terminal has."""
    made = line.copy()
    made.no_wrap, made.overflow = True, "crop"
    if ascii_only:
        # One character for one, so that the styles stay where they are.
        made.plain = made.plain.translate(_PLAIN).encode("ascii", "replace").decode("ascii")
    made.truncate(columns, overflow="crop")
    return made
