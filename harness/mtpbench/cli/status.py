"""`mtpbench status`: what is measured, running, missing, and why; from files, and from what Slurm says."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from mtpbench.cli.progress import summary
from mtpbench.cli.run import RESULTS, ResultsOption, SweepArgument
from mtpbench.errors import RunError
from mtpbench.records import Point
from mtpbench.slurm.client import Slurm
from mtpbench.slurm.journal import Journal
from mtpbench.slurm.outcome import JobFiles, JobOutcome, judge_job
from mtpbench.slurm.states import JobStatus
from mtpbench.slurm.submission import look_again
from mtpbench.store import StoredSweep, read_sweep
from mtpbench.sweep import Sweep, load_sweep, simulate
from mtpbench_analysis.tables import Table
from mtpbench_analysis.terminal_table import FittedTable

FILES_EVERY_S = 2.0
SLURM_EVERY_S = 20.0
"""Slurm's controller serves everybody: it is asked once for all jobs, three times a minute."""
LOG_LINES = 6
_STYLES = {"failed": "red", "lost": "red", "unknown": "yellow", "stopped": "yellow"}


def status(
    sweep: SweepArgument,
    watch: Annotated[bool, typer.Option("--watch", help="go on until nothing runs any more")] = False,
    results: ResultsOption = RESULTS,
) -> None:
    """Show which points of a sweep are measured, running, invalid (and why) or missing, and their jobs."""
    loaded = load_sweep(sweep)
    console = Console()
    for plan in (loaded, simulate(loaded)):
        directory = results / plan.info.name
        if (directory / "sweep.json").is_file():
            _show(console, plan, directory, watch)
            return
    console.print(f"{loaded.info.name}: nothing in {results} yet; {len(loaded.points)} points are missing")


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A sweep at one moment.

    Args:
        jobs: the outcome of each deployment that was ever submitted, by key.
        trouble: why Slurm could not be asked; None where it was, or where nothing was submitted.
    """

    sweep: Sweep
    stored: StoredSweep
    jobs: Mapping[str, JobOutcome]
    journal: Journal
    trouble: str | None = None

    @property
    def busy(self) -> bool:
        """Whether a job may still measure something."""
        return any(outcome.state in ("pending", "running", "unknown") for outcome in self.jobs.values())


def _show(console: Console, sweep: Sweep, directory: Path, watch: bool) -> None:
    view = _View(sweep, directory)
    picture = view.look()
    if not watch or not picture.busy:
        console.print(render(picture))
        return
    with Live(render(picture), console=console, auto_refresh=False, transient=False) as live:
        while picture.busy:
            time.sleep(FILES_EVERY_S)
            picture = view.look()
            live.update(render(picture), refresh=True)


class _View:
    """Looks again and again: at the files every time, at Slurm only now and then."""

    def __init__(self, sweep: Sweep, directory: Path) -> None:
        self.sweep, self.directory = sweep, directory
        self.journal, self.slurm = Journal(directory), Slurm()
        self._asked_at = -SLURM_EVERY_S
        self._statuses: Mapping[str, JobStatus] | None = None
        self._trouble: str | None = None

    def look(self) -> Picture:
        submissions = self.journal.submissions()
        if submissions and time.monotonic() - self._asked_at >= SLURM_EVERY_S:
            self._ask()
            submissions = self.journal.submissions()
        newest = {key: one for one in submissions for key in one.keys}
        now = datetime.now(UTC)
        return Picture(
            sweep=self.sweep,
            stored=read_sweep(self.directory),
            jobs={
                key: judge_job(key, one, self._files(key), self._statuses, now) for key, one in newest.items()
            },
            journal=self.journal,
            trouble=self._trouble,
        )

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        self._statuses, self._trouble = None, self.slurm.available()
        if self._trouble is None:
            try:
                _, self._statuses = look_again(self.journal, self.slurm)
            except RunError as error:
                self._trouble = str(error)

    def _files(self, key: str) -> JobFiles | None:
        attempts = self.journal.attempts(key)
        if not attempts:
            return None
        last = attempts[-1]
        return JobFiles(
            attempt=last, progress=self.journal.progress(last), finished=self.journal.finished(last)
        )


def render(picture: Picture) -> RenderableType:
    """The picture as tables: the points, then the jobs, then the words of those that failed."""
    parts: list[RenderableType] = [_points(picture)]
    if picture.jobs:
        parts.append(_jobs(picture))
        parts += _logs(picture)
    if picture.trouble:
        parts.append(Text(f"Slurm could not be asked: {picture.trouble}", style="yellow"))
    return Group(*parts, Text(_counts(picture)))


def _points(picture: Picture) -> FittedTable:
    table = Table(
        title=f"{picture.stored.info.name}: points",
        headers=("point", "state", "figures"),
        rows=tuple((point.id, *_state(picture, point)) for point in picture.sweep.points),
        text_columns=3,
    )
    return FittedTable(table, elsewhere="")


def _state(picture: Picture, point: Point) -> tuple[str, str]:
    stored = {item.point.id: item for item in picture.stored.points}.get(point.id)
    if point.id in picture.stored.damaged:
        return "damaged", f"{picture.stored.damaged[point.id]}; running again measures it anew"
    if stored is None:
        outcome = picture.jobs.get(point.deployment_key)
        waiting = outcome is not None and outcome.state in ("pending", "running", "unknown")
        return (outcome.state if outcome is not None and waiting else "missing"), ""
    if stored.result.valid:
        return "valid", summary(stored.result)
    return "invalid", "; ".join(f"{reason.code}: {reason.detail}" for reason in stored.result.reasons)


def _jobs(picture: Picture) -> FittedTable:
    outcomes = list(picture.jobs.items())
    table = Table(
        title=f"{picture.stored.info.name}: jobs",
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


def _logs(picture: Picture) -> Sequence[RenderableType]:
    """The last lines of what failed: most causes stand there."""
    parts = []
    for key, outcome in picture.jobs.items():
        if not outcome.show_log or outcome.job_id is None:
            continue
        lines = picture.journal.log_tail(outcome.job_id, LOG_LINES)
        if lines:
            head = f"{key}, job {outcome.job_id}:"
            parts.append(Text("\n".join([head, *(f"  | {line}" for line in lines)])))
    return parts


def _counts(picture: Picture) -> str:
    states = [_state(picture, point)[0] for point in picture.sweep.points]
    names = ("valid", "invalid", "missing", *sorted({*states} - {"valid", "invalid", "missing"}))
    return ", ".join(f"{states.count(name)} {name}" for name in names)
