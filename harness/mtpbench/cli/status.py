"""`mtpbench status`: which points are measured, running or missing, and why; from files and from Slurm."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from mtpbench.cli.options import RESULTS, ResultsOption, SweepArgument, output_ended
from mtpbench.cli.run import summary
from mtpbench.errors import InputError, SchemaError
from mtpbench.records import Point
from mtpbench.slurm.client import Slurm
from mtpbench.slurm.journal import Journal
from mtpbench.snapshot import SeenPoint, Snapshot
from mtpbench.snapshot.reader import SnapshotReader
from mtpbench.store import is_there
from mtpbench.store.reading import SWEEP_FILE
from mtpbench.sweep import Sweep, load_sweep, with_simulated
from mtpbench_analysis.cli.options import make_console
from mtpbench_analysis.document import Table
from mtpbench_analysis.render.terminal import FittedTable

FILES_EVERY_S = 2.0
LOG_LINES = 6
_BUSY = ("pending", "running", "unknown")
_STYLES = {"failed": "red", "lost": "red", "unknown": "yellow", "stopped": "yellow"}


def status(
    sweep: SweepArgument,
    watch: Annotated[bool, typer.Option("--watch", help="go on until nothing runs any more")] = False,
    results: ResultsOption = RESULTS,
) -> None:
    """Show which points of a sweep are measured, running, invalid (and why) or missing, and their jobs."""
    loaded = load_sweep(sweep)
    console = make_console()
    for plan in with_simulated(loaded):
        directory = results / plan.info.name
        if is_there(directory / SWEEP_FILE):
            _show(console, plan, directory, watch)
            return
    console.print(f"{loaded.info.name}: nothing in {results} yet; {len(loaded.points)} points are missing")


def _show(console: Console, sweep: Sweep, directory: Path, watch: bool) -> None:
    reader = SnapshotReader(directory, Slurm())
    snapshot = _read(reader)
    if not watch or not _is_busy(snapshot):
        console.print(render(sweep, snapshot, reader.journal))
        return
    with Live(
        render(sweep, snapshot, reader.journal), console=console, auto_refresh=False, transient=False
    ) as live:
        while _is_busy(snapshot) and not output_ended():
            time.sleep(FILES_EVERY_S)
            snapshot = _read(reader)
            live.update(render(sweep, snapshot, reader.journal), refresh=True)


def _read(reader: SnapshotReader) -> Snapshot:
    """Reads a snapshot.

    Raises:
        InputError: the folder holds no sweep any more.
        SchemaError: another version of mtpbench wrote a point.
    """
    snapshot = reader.read()
    if snapshot is None:
        raise InputError(f"{reader.directory}: no results here any more ({SWEEP_FILE} is missing)")
    for point in snapshot.having("other schema"):
        if point.problem is not None:
            raise SchemaError(point.problem.message)
    return snapshot


def _is_busy(snapshot: Snapshot) -> bool:
    """Whether a job may still measure something; a submission that can't be read may have such a job."""
    return snapshot.unread_submissions or any(
        outcome.state in _BUSY for outcome in snapshot.outcomes.values()
    )


def render(sweep: Sweep, snapshot: Snapshot, journal: Journal) -> RenderableType:
    """Renders a snapshot: a table of points, one of jobs, and the last log lines of jobs that failed."""
    by_id = {point.planned.id: point for point in snapshot.points}
    states = [(point.id, *_state(snapshot, point, by_id.get(point.id))) for point in sweep.points]
    parts: list[RenderableType] = [_points(snapshot.info.name, states)]
    if snapshot.outcomes:
        parts.append(_jobs(snapshot))
        parts += _logs(snapshot, journal)
    parts += [Text(trouble, style="yellow") for trouble in snapshot.trouble]
    if snapshot.slurm_trouble:
        parts.append(Text(f"Slurm could not be asked: {snapshot.slurm_trouble}", style="yellow"))
    arms = dict.fromkeys(point.arm.label for point in sweep.points)
    parts.append(Text(f"arms: {', '.join(arms)}", style="dim"))
    return Group(*parts, Text(_counts([state for _, state, _ in states])))


def _points(name: str, states: Sequence[tuple[str, str, str]]) -> FittedTable:
    table = Table(
        title=f"{name}: points",
        headers=("point", "state", "figures"),
        rows=tuple(states),
        text_columns=3,
    )
    return FittedTable(table, elsewhere="")


def _state(snapshot: Snapshot, planned: Point, point: SeenPoint | None) -> tuple[str, str]:
    """Returns a point's state, and its figures or what is wrong with it."""
    if point is not None and point.state == "damaged" and point.problem is not None:
        return "damaged", f"{point.problem.message}; running again measures it anew"
    if point is None or point.stored is None:
        outcome = snapshot.outcomes.get(planned.deployment_key)
        if outcome is None:
            return "unknown" if snapshot.unread_submissions else "missing", ""
        return outcome.state if outcome.state in _BUSY else "missing", ""
    if point.stored.result.valid:
        return "valid", summary(point.stored.point, point.stored.result)
    return "invalid", "; ".join(map(str, point.stored.result.reasons))


def _jobs(snapshot: Snapshot) -> FittedTable:
    outcomes = list(snapshot.outcomes.items())
    table = Table(
        title=f"{snapshot.info.name}: jobs",
        headers=("deployment", "job", "state"),
        rows=tuple((key, outcome.job_id or "", outcome.text) for key, outcome in outcomes),
        text_columns=3,
    )
    styles = {
        (row, 2): _STYLES[outcome.state]
        for row, (_, outcome) in enumerate(outcomes)
        if outcome.state in _STYLES
    }
    return FittedTable(table, styles, elsewhere="")


def _logs(snapshot: Snapshot, journal: Journal) -> Sequence[RenderableType]:
    """Returns the last log lines of jobs that failed: most causes are in them."""
    parts = []
    for key, outcome in snapshot.outcomes.items():
        lines = journal.log_tail(outcome.job_id, LOG_LINES) if outcome.show_log and outcome.job_id else ()
        if lines:
            parts.append(
                Text("\n".join([f"{key}, job {outcome.job_id}:", *(f"  | {line}" for line in lines)]))
            )
    return parts


def _counts(states: Sequence[str]) -> str:
    names = ("valid", "invalid", "missing", *sorted({*states} - {"valid", "invalid", "missing"}))
    return ", ".join(f"{states.count(name)} {name}" for name in names)
