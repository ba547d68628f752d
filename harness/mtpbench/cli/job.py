"""`mtpbench job`, hidden: what the script of a Slurm job calls.

It ends with 0 when it was told to stop, too: its last record says what is left, and `submit` goes on. Slurm
shows a job as FAILED where nothing could be measured.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mtpbench.cli.run_view import RunView
from mtpbench.slurm.job import FAILED_EXIT, JobRun, job_file
from mtpbench.slurm.journal import Finished


def job(file: Annotated[Path, typer.Argument(help="a file of results/<sweep>/.slurm/jobs")]) -> None:
    """Run one deployment's ladder inside a Slurm job."""
    early: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: early.append(received))
    console = Console(width=200)
    run = JobRun(job_file(file), os.environ)
    left = len(run.prepare().points)
    console.print(
        f"attempt {run.attempt.name} of {run.job.key} on {', '.join(run.allocation.nodes)}: {left} of "
        f"{len(run.job.points)} points to measure",
        markup=False,
        highlight=False,
    )
    with RunView(console, left) as view:
        finished = asyncio.run(_run(run, view, early))
    console.print(
        f"{finished.outcome}: {finished.points_valid} valid, {finished.points_invalid} invalid, "
        f"{finished.points_left} left" + (f": {finished.detail}" if finished.detail else ""),
        markup=False,
        highlight=False,
    )
    if finished.outcome == "failed":
        raise typer.Exit(FAILED_EXIT)


async def _run(run: JobRun, view: RunView, early: list[int]) -> Finished:
    """Run the job; a signal ends it in order, and whatever hangs then is cancelled."""
    stop = asyncio.Event()
    task = asyncio.ensure_future(run.run(view, stop))
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        if stop.is_set():
            return
        stop.set()
        view.trouble("told to stop: the running point is closed, what is left can be submitted again")
        loop.call_later(run.stop_patience_s, task.cancel)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, interrupt)
    if early:
        interrupt()
    return await task
