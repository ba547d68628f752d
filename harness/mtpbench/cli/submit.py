"""`mtpbench submit` and `cancel`, and the hidden commands of Slurm jobs, `job` and `tables`.

A job that was told to stop ends with 0 too: its last record says what is left, and `submit` goes on.
Slurm shows a job as FAILED where no point could be measured.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mtpbench.cli.options import (
    RESULTS,
    AgainOption,
    OnlyOption,
    ResultsOption,
    SweepArgument,
    ending_signals,
    select,
)
from mtpbench.cli.run import RunView, run_until_signalled
from mtpbench.engines import dynamo, engine_of, release_for
from mtpbench.engines.about import version_in_image
from mtpbench.errors import InputError, RunError
from mtpbench.plan import acceptance_warnings, estimate_ladder
from mtpbench.progress import now_utc
from mtpbench.records import Point
from mtpbench.run import plan_run
from mtpbench.slurm.client import Slurm
from mtpbench.slurm.cluster_profile import ClusterProfile, clock, load_cluster
from mtpbench.slurm.job import FAILED_EXIT, JobRun, job_file
from mtpbench.slurm.journal import ANSWER_LIMIT_S, Finished, Journal
from mtpbench.slurm.submission import (
    Batch,
    Look,
    Need,
    Request,
    look_again,
    make_batch,
    make_batches,
    need_of,
    submit_batch,
)
from mtpbench.store import SweepStore, exclusive
from mtpbench.store.turns import Turn
from mtpbench.sweep import Sweep, load_sweep
from mtpbench_analysis.cli import compare_folder, write_report
from mtpbench_analysis.cli.options import echo, make_console

_JOB_ID = re.compile(r"[0-9]+(_[0-9]+)?")
_NO_JOB = "no job is pending or running"

ClusterOption = Annotated[
    str, typer.Option("--cluster", help="a name in slurm/clusters, or the path of a profile")
]


def submit(
    sweep: SweepArgument,
    cluster: ClusterOption,
    only: OnlyOption = None,
    after: Annotated[
        list[str] | None, typer.Option(help="ids of jobs that must have ended first; repeatable")
    ] = None,
    again: AgainOption = False,
    separate: Annotated[
        bool, typer.Option("--separate", help="a job for each deployment instead of arrays")
    ] = False,
    analysis: Annotated[bool, typer.Option(help="a last job that makes the tables and the report")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the scripts, submit nothing")] = False,
    results: ResultsOption = RESULTS,
) -> None:
    """Submit a sweep's missing and invalid points to Slurm: one job for each deployment."""
    console = make_console()
    loaded = load_sweep(sweep)
    chosen = select(loaded.points, only or ())
    request = Request(
        cluster=cluster,
        profile=load_cluster(cluster),
        results=results,
        after=tuple(_job_ids(after or ())),
        again=again,
        separate=separate,
        analysis=analysis,
    )
    store = SweepStore(results, loaded.info)
    journal = Journal(store.directory)
    # Made once before anything is written: what can't be submitted is refused here.
    batches = _all_batches(loaded, _needs(chosen, store, request), request, journal)
    limit = clock(request.profile.time_limit_s)
    console.print(f"# time limit of each job: {limit} (days-hours:minutes:seconds)", highlight=False)
    _warn_of_image(console, chosen[0], request.profile)
    for warning in acceptance_warnings(chosen):
        console.print(f"# warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    if dry_run:
        _print_scripts(console, batches)
        return
    slurm = _usable_slurm(request.profile)
    with journal.turn(partial(console.print, highlight=False)) as turn, exclusive(store.directory):
        store.open()
        needs = _needs(chosen, store, request)
        waiting = _without_job(console, needs, look_again(journal, slurm))
        if not waiting:
            console.print(_nothing_to_do(needs, len(chosen)), highlight=False)
            return
        _warn_of_limit(console, waiting, request.profile)
        _submit_all(console, loaded, waiting, request, turn, journal, slurm)


def _needs(points: Sequence[Point], store: SweepStore, request: Request) -> tuple[Need, ...]:
    """Returns what the jobs of the missing and invalid points need."""
    plan = plan_run(points, store, again=request.again)
    return tuple(need_of(ladder, request.profile) for ladder in plan.ladders)


def cancel(
    sweep: SweepArgument,
    results: ResultsOption = RESULTS,
) -> None:
    """Cancel a sweep's pending and running jobs; what is measured stays, and `submit` goes on from there."""
    loaded = load_sweep(sweep)
    journal, slurm = Journal(results / loaded.info.name), Slurm()
    if why_not := slurm.available():
        raise InputError(why_not)
    if not os.path.isdir(journal.directory):
        raise InputError(f"{journal.directory}: no results here, so no job of this sweep is known")
    with journal.turn(echo):
        look = look_again(journal, slurm)
        live = look.live_jobs()
        if live and (error := slurm.cancel(sorted(live))):
            raise RunError(f"scancel failed: {error}")
    echo(f"cancelled: {', '.join(sorted(live))}" if live else f"{loaded.info.name}: {_NO_JOB}")
    if unanswered := look.unanswered(datetime.now(UTC)):
        numbers = ", ".join(str(submission.number) for submission in unanswered)
        echo(
            f"submission {numbers}: sbatch was called and has not answered, so its job may still come; "
            f"cancel again in {ANSWER_LIMIT_S:.0f} s"
        )


def tables(directory: Annotated[Path, typer.Argument(help="a folder results/<sweep>")]) -> None:
    """Make the tables and the report of a results folder; what the last job of a submission runs."""
    report = write_report(compare_folder(directory))
    echo(f"{directory / 'comparison.md'}\n{report}")


def job(file: Annotated[Path, typer.Argument(help="a file of results/<sweep>/.slurm/jobs")]) -> None:
    """Run one deployment's ladder inside a Slurm job."""
    early: list[int] = []
    for number in ending_signals():
        signal.signal(number, lambda received, _: early.append(received))
    console = make_console(width=200)
    run = JobRun(job_file(file), os.environ)
    to_measure = len(run.prepare().points)
    console.print(
        f"attempt {run.attempt.name} of {run.job.key} on {', '.join(run.allocation.nodes)}: {to_measure} of "
        f"{len(run.job.points)} points to measure",
        markup=False,
        highlight=False,
    )
    with RunView(console, to_measure) as view:
        finished = _run_job(run, view, signalled=bool(early))
    console.print(
        f"{finished.outcome}: {finished.points_valid} valid, {finished.points_invalid} invalid, "
        f"{finished.points_left} left" + (f": {finished.detail}" if finished.detail else ""),
        markup=False,
        highlight=False,
    )
    if finished.outcome == "failed":
        raise typer.Exit(FAILED_EXIT)


def _run_job(run: JobRun, view: RunView, *, signalled: bool) -> Finished:
    """Runs a job to its end; the first signal ends it early."""
    stop = asyncio.Event()

    def announce() -> None:
        view.trouble("told to stop: the running point is closed, what is left can be submitted again")

    return asyncio.run(
        run_until_signalled(run.run(view, stop), stop, announce, run.stop_patience_s, signalled=signalled)
    )


def _usable_slurm(profile: ClusterProfile) -> Slurm:
    """Returns a client of Slurm that knows the partition and the image of a profile.

    Raises:
        InputError: Slurm is not here, or the partition or the image is unknown.
    """
    slurm = Slurm()
    if why_not := slurm.available():
        raise InputError(why_not)
    _check_cluster(slurm, profile)
    _check_image(profile)
    return slurm


def _without_job(console: Console, needs: Sequence[Need], look: Look) -> tuple[Need, ...]:
    """Returns the needs of deployments without a live job, and prints why each other needs none.

    Raises:
        RunError: a job of this results folder runs that no file says anything of.
    """
    if unexplained := look.unexplained:
        jobs = ", ".join(f"{status.job_id} ({status.name})" for status in unexplained)
        raise RunError(
            f"jobs of this results folder are in no file of its journal, so what they measure is unknown: "
            f"{jobs}. Wait for their end, or end them with `mtpbench cancel`; then submit again"
        )
    having = {key: f"job {job} has it already" for key, job in look.live_keys().items()}
    for submission in look.unanswered(datetime.now(UTC)):
        text = (
            f"submission {submission.number} of {submission.time_utc} has no answer of sbatch yet, so its "
            f"job may still come; it counts as submitted until {ANSWER_LIMIT_S:.0f} s have passed"
        )
        having |= dict.fromkeys(submission.keys, text)
    for need in needs:
        if need.key in having:
            console.print(f"{need.key}: {having[need.key]}", highlight=False)
    return tuple(need for need in needs if need.key not in having)


def _submit_all(
    console: Console,
    sweep: Sweep,
    needs: Sequence[Need],
    request: Request,
    turn: Turn,
    journal: Journal,
    slurm: Slurm,
) -> None:
    table = Table(title=f"{sweep.info.name} on {request.cluster}", title_justify="left")
    for heading in ("job", "nodes", "deployments", "points"):
        table.add_column(heading)
    job_ids: list[str] = []
    failed: list[str] = []
    for batch in make_batches(sweep.info, needs, request, journal):
        turn.check()
        submission = submit_batch(sweep.info, batch, request, journal, slurm, now_utc())
        if submission.job_id is None:
            failed.append(f"{', '.join(submission.keys)}: {submission.error}")
            continue
        job_ids.append(submission.job_id)
        points = sum(len(need.ladder.points) for need in batch.needs)
        table.add_row(submission.job_id, str(batch.needs[0].nodes), "\n".join(submission.keys), str(points))
    if job_ids:
        console.print(table)
    if job_ids and request.analysis:
        turn.check()
        last = make_batch(sweep.info, (), request, journal, journal.next_number(), tuple(job_ids))
        submission = submit_batch(sweep.info, last, request, journal, slurm, now_utc())
        analysis_job = (
            f"job {submission.job_id}" if submission.job_id else f"not submitted ({submission.error})"
        )
        console.print(f"tables and report after them: {analysis_job}", highlight=False)
    if failed:
        raise RunError("sbatch refused:\n" + "\n".join(f"  {line}" for line in failed))
    console.print(f"mtpbench status {sweep.path} shows how they fare", highlight=False)


def _job_ids(ids: Sequence[str]) -> Sequence[str]:
    for job_id in ids:
        if not _JOB_ID.fullmatch(job_id):
            raise InputError(f"--after {job_id}: the number of a job such as 1234 or 1234_5 is needed")
    return ids


def _all_batches(
    sweep: Sweep, needs: Sequence[Need], request: Request, journal: Journal
) -> tuple[Batch, ...]:
    """Returns every script of a submission; the last job waits for ids that only sbatch gives."""
    batches = make_batches(sweep.info, needs, request, journal)
    if not batches or not request.analysis:
        return batches
    waits = tuple(f"JOB{batch.number}" for batch in batches)
    number = batches[-1].number + 1
    return (*batches, make_batch(sweep.info, (), request, journal, number, waits))


def _print_scripts(console: Console, batches: Sequence[Batch]) -> None:
    for batch in batches:
        keys = ", ".join(need.key for need in batch.needs) or "tables and report, after all others"
        console.print(f"# {batch.number}: {keys}", markup=False, highlight=False, soft_wrap=True)
        console.print(batch.text, markup=False, highlight=False, soft_wrap=True)
    if not batches:
        console.print("# nothing to submit", highlight=False)


def _nothing_to_do(needs: Sequence[Need], points: int) -> str:
    if needs:
        return "nothing to submit: every deployment with points left has a job"
    return f"nothing to submit: all {points} points are valid"


def _check_cluster(slurm: Slurm, profile: ClusterProfile) -> None:
    if profile.partition is None:
        return
    partitions = slurm.partitions()
    missing = [name for name in profile.partition.split(",") if name not in partitions]
    if partitions and missing:
        raise InputError(
            f"partition {missing[0]!r} is unknown to this Slurm; it has: {', '.join(partitions)}"
        )


def _warn_of_image(console: Console, point: Point, profile: ClusterProfile) -> None:
    """Prints where the profile's image is of another release than command lines are written for."""
    image = profile.container.image if profile.container else None
    release = release_for(point)
    found = version_in_image(image, engine_of(point).ABOUT.releases)
    if found is None or release is None or release.equals(found) or dynamo.is_own(image):
        return
    console.print(
        f"# warning: the profile's image {image} is of release {found}, and command lines are written for "
        f"{release.version}; name it in engine.version of the sweep",
        highlight=False,
        soft_wrap=True,
    )


def _check_image(profile: ClusterProfile) -> None:
    """Checks that an image file is here: one that is not is most likely missing on the nodes too."""
    image = profile.container.image if profile.container else None
    if image is not None and image.startswith("/") and not os.path.exists(image):
        raise InputError(f"container.image {image} is not there; the path of a .sqsh on a shared filesystem")


def _warn_of_limit(console: Console, needs: Sequence[Need], profile: ClusterProfile) -> None:
    """Warns of ladders that are estimated to take longer than the time limit; `submit` goes on from there."""
    for need in needs:
        hours = estimate_ladder(need.ladder).hours
        if hours is not None and hours * 3600 > profile.time_limit_s:
            console.print(
                f"{need.key} is expected to take {hours:.1f} h, the limit is "
                f"{profile.time_limit_s / 3600:.1f} h: what is left then can be submitted again",
                style="yellow",
                highlight=False,
            )
