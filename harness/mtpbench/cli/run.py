"""`mtpbench run` and `recompute`, and what a run shows: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from mtpbench import run as running
from mtpbench.cli.options import (
    INTERRUPTED,
    RESULTS,
    AgainOption,
    OnlyOption,
    ResultsOption,
    SweepArgument,
    ending_signals,
    select,
    site_of,
)
from mtpbench.deployment import Site
from mtpbench.errors import InputError, MtpbenchError, RunError, SchemaError, StoreError
from mtpbench.load.capacity import files_needed, refuse_few_descriptors
from mtpbench.load.client import LoadProgress
from mtpbench.progress import PROGRESS_FILE, ProgressObserver, ProgressWriter, heartbeat
from mtpbench.records import Deployment, Point, PointResult
from mtpbench.store import SweepStore, exclusive, figures_moved, read_sweep
from mtpbench.sweep import Sweep, load_sweep, simulate
from mtpbench_analysis.cli import compare_folder, render_results, write_report
from mtpbench_analysis.cli.options import echo, make_console

STOP_PATIENCE_S = 60.0
PLAIN_EVERY_S = 10.0
FEW_CACHED = 0.05
"""A share of cached prompt tokens below this is not told with every point."""

T = TypeVar("T")


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
    console = make_console()
    with exclusive(store.directory):
        store.open()
        plan = running.plan_run(chosen, store, again=again)
        refuse_few_descriptors(0 if on_virtual_clock else max(map(files_needed, plan.points), default=0))
        if not on_virtual_clock:
            running.refuse_impossible(plan, site)
        to_measure = len(plan.points)
        _announce(console, loaded, len(plan.done), to_measure)
        with RunView(console, to_measure) as view, ProgressWriter(store.directory / PROGRESS_FILE) as writer:
            observer = ProgressObserver(writer, plan.counts(), view)
            observer.beat()
            if on_virtual_clock:
                with _set_by_signals() as stop:
                    interrupted = running.run_virtual(plan, store, observer, stop)
            else:
                interrupted = _run_live(plan, store, observer, site)
    _finish(console, store.directory, interrupted=interrupted)


@contextlib.contextmanager
def _set_by_signals() -> Iterator[threading.Event]:
    """Gives an event that the signals that end a run set within the block."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in ending_signals()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def recompute(
    directory: Annotated[Path, typer.Argument(help="a folder results/<sweep>")],
) -> None:
    """Rebuild every result of a sweep from its raw records; lists those that can't be (damaged: exit 4)."""
    stored = read_sweep(directory)
    changed = 0
    faults: list[MtpbenchError] = []
    for point in stored.points:
        try:
            before, after = running.recompute(point.directory)
        except MtpbenchError as fault:
            faults.append(fault)
            continue
        # A result of an older schema is written again, though no figure moved.
        changed += figures_moved(before, after)
    done = len(stored.points) - len(faults)
    echo(f"{done} results recomputed from raw records, {changed} changed")
    if changed:
        echo(f"tables and report are of the old results: `mtpbench compare {directory}` reads the new ones")
    for text in (*stored.damaged.values(), *map(str, faults)):
        echo(f"not recomputed: {text}", err=True)
    if stored.damaged or faults:
        raise typer.Exit(StoreError.exit_code if stored.damaged else max(f.exit_code for f in faults))


def _run_live(plan: running.RunPlan, store: SweepStore, observer: ProgressObserver, site: Site) -> bool:
    """Measures a plan on live servers; returns whether a signal ended that early."""
    stop = asyncio.Event()
    work = _measure(plan, store, observer, stop, site)

    def announce() -> None:
        observer.trouble("interrupted: stopping the servers; what was recorded is kept")

    asyncio.run(run_until_signalled(work, stop, announce, STOP_PATIENCE_S, on_second=_leave_at_once))
    return stop.is_set()


async def _measure(
    plan: running.RunPlan, store: SweepStore, observer: ProgressObserver, stop: asyncio.Event, site: Site
) -> None:
    """Measures a plan on live servers until `stop` is set; being cancelled after that is no error."""
    try:
        async with heartbeat(observer):
            await running.run_live(plan, store, observer, stop, site)
    except asyncio.CancelledError:
        if not stop.is_set():
            raise


async def run_until_signalled(
    work: Coroutine[Any, Any, T],
    stop: asyncio.Event,
    announce: Callable[[], None],
    patience_s: float,
    *,
    on_second: Callable[[], None] = lambda: None,
    signalled: bool = False,
) -> T:
    """Runs work that ends in order when `stop` is set, and sets `stop` on the signals that end a run.

    Args:
        work: ends soon after `stop` is set.
        stop: set by the first signal.
        announce: called by the first signal.
        patience_s: wall seconds from the first signal until work that still goes on is cancelled.
        on_second: called by every later signal.
        signalled: whether the first signal has come already.
    """
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

    def interrupt() -> None:
        if stop.is_set():
            on_second()
            return
        stop.set()
        announce()
        loop.call_later(patience_s, task.cancel)

    for number in ending_signals():
        loop.add_signal_handler(number, interrupt)
    if signalled:
        interrupt()
    return await task


def _leave_at_once() -> None:
    """Ends this process; whatever it started ends with it."""
    os._exit(INTERRUPTED)


def _announce(console: Console, sweep: Sweep, valid: int, to_measure: int) -> None:
    simulated = "  SIMULATED" if sweep.points[0].simulated else ""
    title = Text.assemble((sweep.info.name, "bold"), f": {sweep.info.question}", (simulated, "bold yellow"))
    console.print(title)
    for sentence in sweep.left_out:
        console.print(Text(sentence, style="yellow"))
    already = f", {valid} valid already" if valid else ""
    console.print(f"{to_measure} points to measure{already}", highlight=False)


def _finish(console: Console, directory: Path, *, interrupted: bool) -> None:
    """Prints the table and the report's path, and exits with the code of the run's outcome."""
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
    """Prints the table and the report's path, or why there is none: a run of one arm or point is no error."""
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


class RunView:
    """The view of a run shows its deployment, its point and progress, tokens per second, and the time left.

    Args:
        console: shows it.
        total: the number of points to measure.
    """

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.finished = console, total, 0
        self._live = console.is_terminal
        self._begun = time.monotonic()
        self._last_plain = 0.0
        self._bar = Progress(
            SpinnerColumn("line" if console.options.ascii_only else "dots"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[rate]}", markup=False),
            _TimeLeft(self),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=1.0, rate="")

    def __enter__(self) -> RunView:
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._bar.stop()

    def ladder_started(self, deployment: Deployment | None, points: Sequence[Point]) -> None:
        """Prints which deployment is being started."""
        first = points[0]
        if deployment is None:
            self._print(f"{len(points)} points on the virtual clock")
        else:
            processes = f"{len(deployment.processes)} process" + (
                "es" if len(deployment.processes) > 1 else ""
            )
            rungs = ", ".join(dict.fromkeys(point.load_label("mark") for point in points))
            again = f" for repeat {first.launch}" if first.launch else ""
            self._print(f"{first.arm.name} on {first.topology.name}: starting {processes}{again} for {rungs}")
        self._describe("waiting for the servers" if deployment else "simulating")

    def point_started(self, point: Point) -> None:
        """Begins the bar anew."""
        self._describe(_name(point))

    def point_progress(self, point: Point, progress: LoadProgress) -> None:
        """Moves the bar; elsewhere than on a terminal, prints a line every ten seconds."""
        share = progress.ended / max(1, progress.total)
        output_tps = progress.output_tokens / progress.elapsed_s if progress.elapsed_s > 0 else 0.0
        rate = f"{output_tps:,.0f} output tok/s, {progress.in_flight} in flight"
        if self._live:
            self._bar.update(self._task, completed=share, rate=rate)
        elif time.monotonic() - self._last_plain > PLAIN_EVERY_S:
            self._last_plain = time.monotonic()
            ended = f"{progress.ended}/{progress.total} requests"
            self.console.print(f"  {_name(point)}: {ended}, {rate}", highlight=False)

    def point_finished(self, point: Point, result: PointResult) -> None:
        """Prints a line for the point, and its reasons if it is invalid."""
        self.finished += 1
        self._describe("")
        self._print(f"[{self.finished}/{self.total}] {_name(point)}: {summary(point, result)}")
        for reason in result.reasons:
            self._print(f"    invalid, {reason.headline}", style="red")

    def trouble(self, message: str) -> None:
        """Prints what went wrong without ending the run."""
        self._print(f"  trouble: {message}", style="yellow")

    def seconds_left(self) -> float | None:
        """Estimates the seconds left from the points that are finished; None before the first."""
        if not self.finished:
            return None
        return (time.monotonic() - self._begun) / self.finished * (self.total - self.finished)

    def _describe(self, text: str) -> None:
        self._bar.update(self._task, description=text, completed=0.0, rate="")

    def _print(self, text: str, style: str | None = None) -> None:
        self.console.print(text, style=style, highlight=False, markup=False)


class _TimeLeft(ProgressColumn):
    def __init__(self, run: RunView) -> None:
        super().__init__()
        self._run = run

    def render(self, task: Task) -> Text:
        """Returns the column's text."""
        del task
        left_s = self._run.seconds_left()
        done = f"{self._run.finished}/{self._run.total} points"
        return Text(done if left_s is None else f"{done}, about {left_s:.0f} s left", style="dim")


def _name(point: Point) -> str:
    repeat = f" repeat {point.repeat}" if point.repeat else ""
    return f"{point.arm.name} {point.topology.name} {point.load_label('mark')}{repeat}"


def summary(point: Point, result: PointResult) -> str:
    """Returns the figures of a point in one line."""
    rates = result.steady or result.whole
    if rates is None or result.interactivity_tps is None:
        return "no figures"
    basis = "" if result.first_chunk_is_known else f" ({result.tpot_basis})"
    figures = [
        f"{rates.tput_tps_per_gpu:,.1f} tok/s/GPU",
        f"{result.interactivity_tps:.1f} tok/s/user{basis}",
    ]
    if ttft_s := result.ttft_as_waited_s(point.load):
        figures.append(f"TTFT {ttft_s.p50:.2f} s")
    if result.settling and result.settling.cut_s:
        figures.append(f"{result.settling.cut_s:.3g} s before it settled cut")
    if result.sent_rps is not None:
        figures.append(f"{result.sent_rps:.3g} requests/s sent")
    if result.cached_prompt_share and result.cached_prompt_share >= FEW_CACHED:
        figures.append(f"{result.cached_prompt_share:.0%} of the prompts cached")
    if result.acceptance.length is not None:
        figures.append(f"AL {result.acceptance.length:.2f}")
    return ", ".join(figures) + (" SIMULATED" if result.simulated else "")
