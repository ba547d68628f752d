"""The submission of a sweep to Slurm: the jobs it needs, sbatch with its journal, and the jobs it has."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from mtpbench.errors import InputError, RunError
from mtpbench.plan import Ladder
from mtpbench.records import Deployment, SweepInfo, digest
from mtpbench.slurm.client import Slurm
from mtpbench.slurm.cluster_profile import BatchJob, ClusterProfile, batch_text
from mtpbench.slurm.journal import JobFile, Journal, Submission
from mtpbench.slurm.states import JobStatus

TABLES_LIMIT_S = 1800
_JOB_NAME = re.compile(r"mtpbench\.(?P<sweep>.+)\.(?P<number>[1-9][0-9]{0,8})\.[0-9a-f]{8}")
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
    after: tuple[str, ...]
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
    return tuple(
        make_batch(sweep, tuple(group), request, journal, number)
        for number, group in enumerate(groups.values(), journal.next_number())
    )


def make_batch(
    sweep: SweepInfo,
    needs: tuple[Need, ...],
    request: Request,
    journal: Journal,
    number: int,
    after: tuple[str, ...] = (),
) -> Batch:
    """Returns a call of sbatch.

    Args:
        sweep: the sweep.
        needs: the ladders that it runs; without any it makes tables and report.
        request: how the sweep is to be submitted.
        journal: of the sweep.
        number: of the submission.
        after: job ids that must have ended first, in whatever way, besides the request's.
    """
    name = job_name(sweep.name, number, str(request.results.resolve()))
    tables = ("tables", str(journal.directory.resolve()))
    job = BatchJob(
        name=name,
        nodes=needs[0].nodes if needs else 1,
        gpus_per_node=needs[0].gpus_per_node if needs else 0,
        log=journal.log_pattern(number, array=len(needs) > 1),
        python=request.python,
        commands=tuple(("job", str(journal.job_path(need.key))) for need in needs) or (tables,),
        after=after or request.after,
        time_limit_s=None if needs else min(request.profile.time_limit_s, TABLES_LIMIT_S),
    )
    return Batch(needs=needs, name=name, number=number, after=after, text=batch_text(request.profile, job))


def job_name(sweep: str, number: int, results: str) -> str:
    """Returns a job's name, which holds a digest of the results folder: a lost job can be found by it."""
    return f"mtpbench.{sweep}.{number}.{digest([sweep, number, results])[:8]}"


def is_name_of(journal: Journal, name: str) -> bool:
    """Returns whether a job's name is one that a submission of this results folder gives."""
    match = _JOB_NAME.fullmatch(name)
    results = str(journal.directory.parent.resolve())
    return match is not None and name == job_name(match["sweep"], int(match["number"]), results)


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
                # What only the script needs stays there: it may hold secrets.
                profile=request.profile.model_dump(
                    mode="json", by_alias=True, exclude={"environment", "pre_commands"}
                ),
                results=str(request.results.resolve()),
                again=request.again,
            )
        )
    while not journal.claim(submission := _intent(batch, now_utc)):
        number = journal.next_number()
        batch = make_batch(sweep, batch.needs, request, journal, number, batch.after)
    try:
        answer = slurm.submit(journal.write_batch(batch.number, batch.text))
    except BaseException:
        # Its sbatch was killed; the next look finds out whether it had reached Slurm.
        journal.write_submission(replace(submission, error="interrupted"))
        raise
    submission = replace(submission, job_id=answer.job_id, error=answer.error)
    if submission.job_id is None:
        submission = find_lost(submission, slurm)
    journal.write_submission(submission)
    return submission


def _intent(batch: Batch, now_utc: str) -> Submission:
    keys = tuple(need.key for need in batch.needs)
    return Submission(number=batch.number, name=batch.name, keys=keys, time_utc=now_utc)


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
    ids = {status.base_id for status in result.statuses.values()}
    return replace(submission, job_id=max(ids, key=lambda one: (len(one), one))) if ids else submission


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A look at a sweep's jobs holds its submissions, and what Slurm says of their jobs.

    Args:
        submissions: all, oldest first.
        statuses: by job id.
        strangers: live jobs of this results folder's names that no submission knows the id of: the journal
            was removed, or one submission became two jobs.
    """

    submissions: tuple[Submission, ...]
    statuses: Mapping[str, JobStatus]
    strangers: tuple[JobStatus, ...] = ()

    @property
    def unexplained(self) -> tuple[JobStatus, ...]:
        """Strangers of which no submission says what they measure."""
        names = {submission.name for submission in self.submissions}
        return tuple(status for status in self.strangers if status.name not in names)

    def live_keys(self) -> Mapping[str, str]:
        """Returns, by deployment key, the job that still has it: nothing may be submitted twice."""
        live = {status.job_id for status in self.strangers} | {
            job_id for job_id, status in self.statuses.items() if status.state in LIVE
        }
        return {
            key: task
            for submission in self.submissions
            for job_id in (submission.job_id, *self._doubles(submission))
            for key in submission.keys
            if (task := replace(submission, job_id=job_id).task_id(key)) in live and task is not None
        }

    def live_jobs(self) -> set[str]:
        """Returns every job of the sweep that Slurm still has, the analysis job included."""
        known = {t for t in _tasks(self.submissions) if t in self.statuses and self.statuses[t].state in LIVE}
        return known | {status.job_id for status in self.strangers}

    def unanswered(self, now: datetime) -> tuple[Submission, ...]:
        """Returns the submissions whose sbatch may still reach Slurm: it counts as live until it gave up."""
        return tuple(submission for submission in self.submissions if submission.is_unanswered(now))

    def _doubles(self, submission: Submission) -> set[str]:
        return {status.base_id for status in self.strangers if status.name == submission.name}


def _tasks(submissions: Sequence[Submission]) -> set[str]:
    return {
        task
        for submission in submissions
        for key in submission.keys or ("",)
        if (task := submission.task_id(key))
    }


def look_again(journal: Journal, slurm: Slurm, known: Sequence[Submission] | None = None) -> Look:
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
    result = slurm.query([submission.name for submission in submissions], _tasks(submissions))
    if result.answer == "failed":
        raise RunError(f"Slurm does not answer ({result.error}), so nobody knows which jobs run; try again")
    ids = {submission.job_id for submission in submissions}
    strangers = tuple(
        status
        for status in result.others
        if status.state in LIVE and status.base_id not in ids and is_name_of(journal, status.name)
    )
    return Look(submissions=tuple(submissions), statuses=result.statuses, strangers=strangers)
