"""`mtpbench run` and `recompute`."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mtpbench import run as running
from mtpbench.cli.options import (
    INTERRUPTED,
    RESULTS,
    AgainOption,
    OnlyOption,
    ResultsOption,
    SweepArgument,
    select,
    site_of,
)
from mtpbench.cli.run_view import RunView
from mtpbench.deployment import Site
from mtpbench.errors import InputError, RunError, SchemaError, StoreError
from mtpbench.progress import PROGRESS_FILE, ProgressObserver, ProgressWriter, heartbeat
from mtpbench.store import SweepStore, exclusive, read_sweep
from mtpbench.sweep import Sweep, load_sweep, simulate
from mtpbench.virtual_run import run_virtual
from mtpbench_analysis.cli import compare_folder, render_results, write_report

STOP_PATIENCE_S = 60.0


def run(
    sweep: SweepArgument,
    only: OnlyOption = None,
    on_virtual_clock: Annotated[
        bool, typer.Option("--simulate", help="run on the embedded engine's virtual clock instead")
    ] = False,
    again: AgainOption = False,
    executor: Annotated[
        str, typer.Option(help="where servers run: local, or slurm inside an allocation")
    ] = "local",
    cluster: Annotated[
        str | None, typer.Option(help="for --executor slurm: a profile, as for submit")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="number of the port that takes requests")
    ] = None,
    results: ResultsOption = RESULTS,
) -> None:
    """Measure a sweep's missing and invalid points; ends with the comparison table and the report's path."""
    site = site_of(executor, cluster, port)
    loaded = simulate(load_sweep(sweep)) if on_virtual_clock else load_sweep(sweep)
    chosen = select(loaded.points, only or ())
    store = SweepStore(results, loaded.info)
    console = Console()
    with exclusive(store.directory):
        store.open()
        plan = running.plan_run(chosen, store, again=again)
        if not on_virtual_clock:
            running.refuse_impossible(plan, site)
        left = len(plan.points)
        _announce(console, loaded, len(plan.done), left)
        with RunView(console, left) as view, ProgressWriter(store.directory / PROGRESS_FILE) as writer:
            observer = ProgressObserver(writer, plan.counts(), view)
            observer.beat()
            if on_virtual_clock:
                signal.signal(signal.SIGTERM, signal.default_int_handler)
                interrupted = run_virtual(plan, store, observer)
            else:
                interrupted = asyncio.run(_run_live(plan, store, observer, site))
    _finish(console, store.directory, interrupted=interrupted)


def recompute(
    directory: Annotated[Path, typer.Argument(help="a folder results/<sweep>")],
) -> None:
    """Rebuild every result of a sweep from its raw records."""
    stored = read_sweep(directory)
    changed = 0
    for point in stored.points:
        before, after = running.recompute(point.directory)
        changed += before != after
    typer.echo(f"{len(stored.points)} results recomputed from raw records, {changed} changed")
    if changed:
        typer.echo(
            f"tables and report are of the old results: `mtpbench compare {directory}` reads the new ones"
        )


async def _run_live(plan: running.RunPlan, store: SweepStore, observer: ProgressObserver, site: Site) -> bool:
    """Run, and take everything down in order on Ctrl-C or SIGTERM; returns whether that happened."""
    stop = asyncio.Event()
    task = asyncio.ensure_future(running.run_live(plan, store, observer, stop, site))
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        if stop.is_set():
            # Asked twice: go at once. The reaper ends what the local executor started.
            os._exit(INTERRUPTED)
        stop.set()
        observer.trouble("interrupted: stopping the servers; what was recorded is kept")
        # Everything looks at `stop`; what hangs all the same is cancelled.
        loop.call_later(STOP_PATIENCE_S, task.cancel)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        async with heartbeat(observer):
            await task
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    return stop.is_set()


def _announce(console: Console, sweep: Sweep, done: int, left: int) -> None:
    simulated = "  SIMULATED" if sweep.points[0].simulated else ""
    console.print(
        f"[bold]{sweep.info.name}[/]: {sweep.info.question}[bold yellow]{simulated}[/]", highlight=False
    )
    kept = f", {done} valid already" if done else ""
    console.print(f"{left} points to measure{kept}", highlight=False)


def _finish(console: Console, directory: Path, *, interrupted: bool) -> None:
    """The table, the report, and the exit code that says how it went."""
    stored = read_sweep(directory)
    valid = [point for point in stored.points if point.result.valid]
    _show_comparison(console, directory)
    if interrupted:
        console.print(f"interrupted with {len(stored.missing)} points missing; run again to continue")
        raise typer.Exit(INTERRUPTED)
    invalid = len(stored.points) - len(valid)
    if invalid:
        console.print(
            f"{invalid} of {len(stored.points)} points are invalid; `mtpbench status` says why, and running "
            f"again measures only them. Logs: {directory}/<point>/logs",
            style="red",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(RunError.exit_code)


def _show_comparison(console: Console, directory: Path) -> None:
    """The table and the report, or why there is none yet: a run of one arm or one point is no mistake."""
    try:
        compared = compare_folder(directory)
        table, report = render_results(compared), write_report(compared)
    except (SchemaError, StoreError):
        raise
    except InputError as reason:
        console.print(f"no comparison yet: {reason}", highlight=False, soft_wrap=True)
        return
    console.print(table)
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
