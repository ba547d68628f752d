"""The submission of a sweep to Slurm: the jobs it needs, sbatch with its journal, and the jobs it has."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mtpbench.errors import InputError, RunError
from mtpbench.plan import Ladder
from mtpbench.records import Deployment, SweepInfo, digest
from mtpbench.slurm.client import Slurm
from mtpbench.slurm.cluster_profile import ClusterProfile, clock
from mtpbench.slurm.journal import JobFile, Journal, Submission
from mtpbench.slurm.states import JobStatus

LIVE = frozenset(("pending", "running", "completing", "requeued", "suspended"))
"""States in which a job may still measure something."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """A need is a ladder that needs a job, and what the job asks Slurm for.

    Args:
        nodes: the nodes of the deployment and of the load client.
        gpus_per_node: the most GPUs that its processes use on any node.
    """

    ladder: Ladder
    nodes: int
    gpus_per_node: int

    @property
    def key(self) -> str:
        """Returns the deployment's key."""
        return self.ladder.key


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """A batch is one call of sbatch to be made: the script, for ladders that need the same nodes."""

    needs: tuple[Need, ...]
    name: str
    number: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request says how a sweep is to be submitted.

    Args:
        cluster: the profile's name, for the record.
        results: the results folder.
        after: job ids that must have ended first.
        again: whether valid points are measured again too.
        separate: whether each deployment gets a job of its own, never an array.
        analysis: whether an extra job makes the tables and the report after all others.
    """

    cluster: str
    profile: ClusterProfile
    results: Path
    after: tuple[str, ...] = ()
    again: bool = False
    separate: bool = False
    analysis: bool = False

    @property
    def python(self) -> str:
        """Returns the Python that jobs run."""
        return self.profile.python or sys.executable


def need_of(ladder: Ladder, profile: ClusterProfile) -> Need:
    """Returns what the job of a ladder needs on a cluster.

    Raises:
        InputError: the deployment needs more nodes than the cluster's NVLink domain has, or other GPUs per
            node than the profile says.
    """
    first, rack = ladder.first, ladder.rack
    if profile.gpus_per_node not in (None, rack.gpus_per_node):
        raise InputError(
            f"the cluster's nodes have {profile.gpus_per_node} GPUs, those of {rack.name} have "
            f"{rack.gpus_per_node}; the sweep is laid out for the latter"
        )
    domain, nodes = profile.segment_nodes, ladder.deployment.nodes + profile.client_nodes
    if domain is not None and nodes > domain:
        raise InputError(
            f"{first.arm.name} on {first.topology.name} needs {nodes} nodes in one NVLink domain; the "
            f"cluster's domains have {domain}"
        )
    return Need(ladder=ladder, nodes=nodes, gpus_per_node=_gpus_per_node(ladder.deployment))


def _gpus_per_node(deployment: Deployment) -> int:
    """Returns the most GPUs that the deployment's processes use on any node."""
    nodes: dict[int, set[int]] = {}
    for process in deployment.processes:
        nodes.setdefault(process.node, set()).update(process.gpus)
    return max((len(gpus) for gpus in nodes.values()), default=0)


def make_batches(
    sweep: SweepInfo, needs: Sequence[Need], request: Request, journal: Journal
) -> tuple[Batch, ...]:
    """Returns the calls of sbatch; deployments of equal size share an array.

    It is pure but for reading the next free number.
    """
    groups: dict[object, list[Need]] = {}
    for need in needs:
        size: object = need.key if request.separate else (need.nodes, need.gpus_per_node)
        groups.setdefault(size, []).append(need)
    first = journal.next_number()
    return tuple(
        _batch(sweep, tuple(group), request, journal, first + i) for i, group in enumerate(groups.values())
    )


def _batch(
    sweep: SweepInfo, needs: tuple[Need, ...], request: Request, journal: Journal, number: int
) -> Batch:
    name = job_name(sweep.name, number, str(request.results.resolve()))
    commands = tuple(("job", str(journal.job_path(need.key))) for need in needs)
    text = batch_text(
        request.profile,
        BatchJob(
            name=name,
            nodes=needs[0].nodes,
            gpus_per_node=needs[0].gpus_per_node,
            log=journal.log_pattern(number, array=len(needs) > 1),
            python=request.python,
            commands=commands,
            after=request.after,
        ),
    )
    return Batch(needs=needs, name=name, number=number, text=text)


def job_name(sweep: str, number: int, results: str) -> str:
    """Returns a job's name, which holds a digest of the results folder: a lost job can be found by it."""
    return f"mtpbench.{sweep}.{number}.{digest([sweep, number, results])[:8]}"


def analysis_batch(
    sweep: SweepInfo, request: Request, journal: Journal, number: int, after: tuple[str, ...]
) -> Batch:
    """Returns the job that makes tables and report after all others have ended, in whatever way."""
    name = job_name(sweep.name, number, str(request.results.resolve()))
    job = BatchJob(
        name=name,
        nodes=1,
        gpus_per_node=0,
        log=journal.log_pattern(number, array=False),
        python=request.python,
        commands=(("tables", str((request.results / sweep.name).resolve())),),
        after=after,
        time_limit_s=min(request.profile.time_limit_s, 1800),
    )
    return Batch(needs=(), name=name, number=number, text=batch_text(request.profile, job))


def submit_batch(
    sweep: SweepInfo, batch: Batch, request: Request, journal: Journal, slurm: Slurm, now_utc: str
) -> Submission:
    """Writes down the intent, calls sbatch, and writes down the answer.

    Where sbatch fails, the job may run all the same: it is looked for by its name before an error is
    reported.

    Returns:
        The submission; without a job id where sbatch failed and no job of that name is there.
    """
    for need in batch.needs:
        journal.write_job(
            JobFile(
                key=need.key,
                sweep=sweep,
                points=need.ladder.points,
                cluster=request.cluster,
                profile=request.profile.model_dump(mode="json", by_alias=True),
                results=str(request.results.resolve()),
                again=request.again,
            )
        )
    submission = Submission(
        number=batch.number, name=batch.name, keys=tuple(n.key for n in batch.needs), time_utc=now_utc
    )
    journal.write_submission(submission)
    answer = slurm.submit(journal.write_batch(batch.number, batch.text))
    submission = replace(submission, job_id=answer.job_id, error=answer.error)
    if submission.job_id is None:
        submission = find_lost(submission, slurm)
    journal.write_submission(submission)
    return submission


def find_lost(submission: Submission, slurm: Slurm) -> Submission:
    """Returns the submission with the id of a job of its name; unchanged where Slurm has no such job.

    Raises:
        RunError: Slurm does not answer, so nobody knows whether the job exists.
    """
    result = slurm.find_by_name(submission.name)
    if result.answer == "failed":
        raise RunError(
            f"sbatch failed ({submission.error or 'no answer was recorded'}) and Slurm does not answer "
            f"({result.error}): whether job {submission.name} exists is unknown. It is journalled; run the "
            "same command again when Slurm answers, and it is looked for first"
        )
    ids = {status.job_id.partition("_")[0] for status in result.statuses.values()}
    return replace(submission, job_id=max(ids, key=int)) if ids else submission


def live_keys(submissions: Sequence[Submission], statuses: Mapping[str, JobStatus]) -> Mapping[str, str]:
    """Returns, by deployment key, the job that still has it: nothing may be submitted twice."""
    jobs: dict[str, str] = {}
    for submission in submissions:
        for key in submission.keys:
            task = submission.task_id(key)
            if task is not None and task in statuses and statuses[task].state in LIVE:
                jobs[key] = task
    return jobs


def live_jobs(submissions: Sequence[Submission], statuses: Mapping[str, JobStatus]) -> set[str]:
    """Returns every job of the sweep that Slurm still has, the analysis job included."""
    return {task for task in _tasks(submissions) if task in statuses and statuses[task].state in LIVE}


def _tasks(submissions: Sequence[Submission]) -> set[str]:
    return {
        task
        for submission in submissions
        for key in submission.keys or ("",)
        if (task := submission.task_id(key))
    }


def look_again(
    journal: Journal, slurm: Slurm, known: Sequence[Submission] | None = None
) -> tuple[tuple[Submission, ...], Mapping[str, JobStatus]]:
    """Returns all submissions of a sweep and the states of their jobs now, in one query.

    A submission whose answer was lost is looked for by its name first, and written down where it is found.

    Args:
        journal: of the sweep.
        slurm: the client that asks.
        known: the submissions, where they have been read already.

    Raises:
        RunError: Slurm does not answer.
    """
    submissions = []
    for submission in journal.submissions() if known is None else known:
        updated = find_lost(submission, slurm) if submission.job_id is None else submission
        if updated != submission:
            journal.write_submission(updated)
        submissions.append(updated)
    ids = _tasks(submissions)
    if not ids:
        return tuple(submissions), {}
    result = slurm.query([submission.name for submission in submissions], ids)
    if result.answer == "failed":
        raise RunError(f"Slurm does not answer ({result.error}), so nobody knows which jobs run; try again")
    return tuple(submissions), result.statuses


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchJob:
    """A batch job is one `sbatch`: a job, or an array of jobs that need the same nodes.

    Args:
        name: unique among all jobs of the user, so that a job whose id was lost can be found by it.
        nodes: the nodes of each job.
        gpus_per_node: GPUs that a job needs on each node; 0 for none.
        log: where standard output goes; `%A` and `%a` are Slurm's.
        python: the Python that runs the harness.
        commands: arguments of `python -m mtpbench`, one list for each job of the array.
        after: job ids that must have ended first, in whatever way.
        time_limit_s: None for the profile's.
    """

    name: str
    nodes: int
    gpus_per_node: int
    log: str
    python: str
    commands: tuple[tuple[str, ...], ...]
    after: tuple[str, ...] = ()
    time_limit_s: int | None = None


_OPTIONAL = ("partition", "account", "qos", "reservation", "constraint")


def batch_text(profile: ClusterProfile, job: BatchJob) -> str:
    """Returns the batch script; everything from YAML or a path that a shell reads is quoted."""
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH {option}" for option in _options(profile, job)]
    lines += ["set -euo pipefail"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in profile.environment.items()]
    lines += [_shell_line(command) for command in profile.pre_commands]
    if len(job.commands) == 1:
        lines.append(f"exec {_shell_line((job.python, '-m', 'mtpbench', *job.commands[0]))}")
    else:
        lines.append('case "$SLURM_ARRAY_TASK_ID" in')
        lines += [
            f"{index}) exec {_shell_line((job.python, '-m', 'mtpbench', *command))} ;;"
            for index, command in enumerate(job.commands)
        ]
        lines.append("esac")
    return "\n".join(lines) + "\n"


def _options(profile: ClusterProfile, job: BatchJob) -> list[str]:
    options = [f"--job-name={job.name}"]
    if len(job.commands) > 1:
        throttle = f"%{profile.max_running}" if profile.max_running else ""
        options.append(f"--array=0-{len(job.commands) - 1}{throttle}")
    values = {name: getattr(profile, name) for name in _OPTIONAL}
    options += [f"--{name}={_quoted(value)}" for name, value in values.items() if value is not None]
    options += [f"--nodes={job.nodes}", "--ntasks-per-node=1"]
    if profile.gres is not None and job.gpus_per_node:
        options.append(f"--gres={_quoted(profile.gres)}:{job.gpus_per_node}")
    if profile.segment_nodes is not None and job.nodes > 1:
        # One segment: all nodes of the job in one NVLink domain.
        options.append(f"--segment={job.nodes}")
    options += [
        f"--time={clock(job.time_limit_s or profile.time_limit_s)}",
        f"--output={_quoted(job.log)}",
        "--open-mode=append",
        "--requeue" if profile.requeue else "--no-requeue",
        f"--signal=B:TERM@{profile.warn_s}",
    ]
    if job.after:
        options += [f"--dependency=afterany:{':'.join(job.after)}", "--kill-on-invalid-dep=yes"]
    return [*options, *(_directive(option) for option in profile.directives)]


def _directive(option: str) -> str:
    name, equals, value = option.partition("=")
    return f"{name}={_quoted(value)}" if equals else name


def _quoted(value: str) -> str:
    """Returns a value as sbatch reads it in a directive: in double quotes if it has special characters."""
    if all(character.isalnum() or character in "._-+:,/@%=&|*[]" for character in value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _shell_line(argv: Sequence[str]) -> str:
    return " ".join(shlex.quote(argument) for argument in argv)
