"""Pure: the state of one job as Slurm tells it, what ended it, and how its deployment stands by its files.

States and causes have the same names for all versions of Slurm.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    # For annotations only: the journal brings Parquet along, which a question to Slurm does not need.
    from mtpbench.progress import RunProgress
    from mtpbench.slurm.journal import Attempt, Finished, Submission

State = Literal[
    "pending",
    "running",
    "completing",
    "completed",
    "failed",
    "timeout",
    "node_fail",
    "out_of_memory",
    "cancelled",
    "preempted",
    "requeued",
    "suspended",
    "unknown",
]

NEVER = "DependencyNeverSatisfied"

_WAITING: dict[str, str] = {
    NEVER: "waits for ever: a job that it depends on failed",
    "JobHeldUser": "held; `scontrol release` lets it go",
    "JobHeldAdmin": "held by an administrator",
    "JobHoldMaxRequeue": "held: it failed to launch too often",
    "BadConstraints": "can't run: no nodes are as it asks",
    "PartitionNodeLimit": "can't run: it asks for more or fewer nodes than its partition allows",
    "PartitionTimeLimit": "can't run: it asks for more time than its partition allows",
    "PartitionConfig": "can't run: its partition does not allow what it asks for",
    "PartitionInactive": "waits for its partition, which is inactive",
    "PartitionDown": "waits for its partition, which is down",
    "AccountNotAllowed": "can't run: its account may not use this partition",
    "InvalidAccount": "can't run: its account does not exist",
    "InvalidQOS": "can't run: its QOS does not exist",
    "QOSNotAllowed": "can't run: its QOS is not allowed in this partition",
    "DeadLine": "can't run: it can't end before its deadline",
    "launch_failed_requeued_held": "held: it could not be launched",
    "job_requeued_in_held_state": "held after it was requeued",
}

_ENDINGS: dict[str, str] = {
    "JobLaunchFailure": "it could not be launched",
    "Prolog": "the cluster's prolog failed",
    "BadConstraints": "no nodes are as it asks",
    "OutOfMemory": "out of memory",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A place says where a job stands among those that wait their turn in its partition."""

    number: int
    of: int
    partition: str


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStatus:
    """A job status is what Slurm says of one job or array task.

    Args:
        job_id: `12`, or `12_3` for a task of an array.
        state: the same for every version of Slurm.
        raw: Slurm's own name of the state.
        reason: Slurm's own name of why it waits or ended; None where Slurm gives none.
        nodes: node list, such as `n[0-1]`.
        restarts: how many times it was requeued; None where the source does not print that.
        exit_code: the batch script's; None before its end and where a signal ended it.
        signal: the number of the signal that ended it.
        start_estimate: local time at which Slurm means to start a waiting job.
        place: the place of a job that waits its turn; None where it waits for something else, or where
            Slurm does not show it.
        time_left_s: seconds until its time limit, where it has one.
        dependency_never: it waits for a job that failed.
        failed_node: the node that it lost.
        cancelled_by: the id of the user that cancelled it.
    """

    job_id: str
    name: str
    state: State
    raw: str
    reason: str | None = None
    nodes: str | None = None
    restarts: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    start_estimate: str | None = None
    place: Place | None = None
    time_left_s: float | None = None
    dependency_never: bool = False
    failed_node: str | None = None
    cancelled_by: int | None = None

    @property
    def base_id(self) -> str:
        """Returns the id of the whole array for a task, the job's own id for any other."""
        return base_of(self.job_id)


def base_of(job_id: str) -> str:
    """Returns the id of the whole array for the id of a task; any other id as it is."""
    return job_id.partition("_")[0]


def absent_of(ids: Iterable[str], statuses: Mapping[str, JobStatus]) -> set[str]:
    """Returns those of the ids of jobs, arrays and tasks that no status belongs to."""
    present = {status.base_id for status in statuses.values()} | statuses.keys()
    return {job_id for job_id in ids if job_id not in present}


def chosen_of(
    statuses: Iterable[JobStatus], names: Collection[str], ids: Collection[str]
) -> dict[str, JobStatus]:
    """Returns, by job id, the statuses of these ids; only of jobs of these names, where names are given."""
    names_in_history = set(map(_as_in_history, names))
    return {
        status.job_id: status
        for status in statuses
        if (status.job_id in ids or status.base_id in ids)
        and (not names_in_history or _as_in_history(status.name) in names_in_history)
    }


def named(statuses: Iterable[JobStatus], name: str) -> dict[str, JobStatus]:
    """Returns, by job id, the statuses of jobs of this name."""
    return {
        status.job_id: status for status in statuses if _as_in_history(status.name) == _as_in_history(name)
    }


def _as_in_history(name: str) -> str:
    """Returns a job's name as the history keeps it: it turns double quotes into back quotes."""
    return name.replace('"', "`")


def cause(status: JobStatus) -> str | None:
    """Returns what ended a job, or keeps it from ever starting; None where all is well.

    A completed job and one that only waits its turn have no cause.
    """
    match status.state:
        case "pending":
            return _WAITING.get(status.reason or "")
        case "requeued":
            return "requeued" if status.reason is None else f"requeued ({status.reason})"
        case "out_of_memory":
            return "out of memory"
        case "timeout":
            return "time limit reached" if status.raw == "TIMEOUT" else "deadline passed"
        case "node_fail":
            return _lost_node(status)
        case "preempted":
            return "preempted by a job of higher priority"
        case "cancelled":
            return _cancelled(status)
        case "failed":
            return _failed(status)
        case "unknown":
            return f"Slurm calls it {status.raw}"
        case _:
            return None


def _lost_node(status: JobStatus) -> str:
    what = "did not boot" if status.raw == "BOOT_FAIL" else "failed"
    if status.failed_node:
        return f"node {status.failed_node} {what}"
    if status.nodes is None:
        return f"a node {what}"
    several = "[" in status.nodes or "," in status.nodes
    return f"one of its nodes {status.nodes} {what}" if several else f"node {status.nodes} {what}"


def _cancelled(status: JobStatus) -> str:
    if status.dependency_never:
        return "cancelled by Slurm: a job that it depends on failed"
    by = status.cancelled_by
    who = "" if by is None else " by root" if by == 0 else f" by user {by}"
    return f"cancelled{who}"


def _failed(status: JobStatus) -> str:
    # Slurm 22.05 calls it a launch failure too when a signal ended the script.
    if status.reason in _ENDINGS and not (status.signal and status.reason == "JobLaunchFailure"):
        return _ENDINGS[status.reason]
    if status.signal is not None:
        return f"killed by {_signal_name(status.signal)}"
    if status.exit_code:
        inner = status.exit_code - 128
        hint = f" (a process of it was killed by {_signal_name(inner)})" if 0 < inner < 65 else ""
        return f"exit code {status.exit_code}{hint}"
    return "failed" if status.reason is None else f"failed ({status.reason})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


STALE_S = 60.0
"""The progress of a running job that is older than this is shown with its age."""


Standing = Literal["not submitted", "lost", "pending", "running", "done", "stopped", "failed", "unknown"]

_OUTCOMES = {
    "done": "done",
    "stopped": "stopped before its end",
    "failed": "failed",
    "superseded": "taken over by a later attempt",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptFiles:
    """The attempt files are what one attempt left on disk."""

    attempt: Attempt
    progress: RunProgress | None
    finished: Finished | None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOutcome:
    """A job outcome says how the jobs of a deployment stand.

    Args:
        job_id: the id of the newest job; None before the first.
        state: `lost` where Slurm took no job, `unknown` where Slurm does not answer now.
        text: a sentence of the same, with the cause or the progress.
        show_log: whether the job's log is worth showing.
    """

    job_id: str | None
    state: Standing
    text: str
    show_log: bool = False


def judge_job(
    key: str,
    submission: Submission | None,
    files: AttemptFiles | None,
    statuses: Mapping[str, JobStatus] | None,
    now: datetime,
    *,
    unread: bool = False,
) -> JobOutcome:
    """Returns the outcome of one deployment's jobs.

    Args:
        key: the deployment's key.
        submission: its newest submission.
        files: the files of its newest attempt.
        statuses: of all jobs; None where Slurm does not answer.
        now: the time for ages, with a time zone.
        unread: whether some of those files can't be read, so that what they do not say is unknown.
    """
    if submission is None:
        return JobOutcome(job_id=None, state="not submitted", text="not submitted")
    job = submission.task_id(key)
    if job is None and submission.is_unanswered(now):
        return JobOutcome(job_id=None, state="unknown", text="sbatch was called and has not answered yet")
    if job is None:
        why = submission.error or "no answer was recorded"
        return JobOutcome(job_id=None, state="lost", text=f"submission failed: {why}")
    files = files if files is not None and files.attempt.job_id == job else None
    if files is not None and files.finished is not None:
        return _finished(job, files.finished)
    if statuses is None:
        return _unanswered(job, files, now, unread)
    status = statuses.get(job)
    if status is None:
        return _unread(job) if unread else _vanished(job, files)
    if status.state in ("pending", "requeued", "suspended"):
        return JobOutcome(job_id=job, state="pending", text=_pending(status))
    if status.state in ("running", "completing"):
        return JobOutcome(job_id=job, state="running", text=_running(status, files, now))
    text = cause(status) or status.raw.lower().replace("_", " ")
    return JobOutcome(job_id=job, state="failed", text=text, show_log=True)


def _finished(job: str, finished: Finished) -> JobOutcome:
    counts = f"{finished.points_valid} valid, {finished.points_invalid} invalid, {finished.points_left} left"
    detail = f": {finished.detail}" if finished.detail else ""
    return JobOutcome(
        job_id=job,
        state="stopped" if finished.outcome == "superseded" else finished.outcome,
        text=f"{_OUTCOMES[finished.outcome]} ({counts}){detail}",
        show_log=finished.outcome == "failed",
    )


def _unread(job: str) -> JobOutcome:
    """Returns the outcome of a job that Slurm has forgotten, and whose files can't be read."""
    text = f"Slurm no longer knows job {job}, and its files that say how it ended can't be read"
    return JobOutcome(job_id=job, state="lost", text=text, show_log=True)


def _unanswered(job: str, files: AttemptFiles | None, now: datetime, unread: bool) -> JobOutcome:
    """Returns the outcome while Slurm does not answer."""
    without = "its files can't be read" if unread else "no attempt has started yet"
    doing = _progress(files, now) if files is not None else without
    return JobOutcome(job_id=job, state="unknown", text=f"Slurm does not answer; {doing}")


def _vanished(job: str, files: AttemptFiles | None) -> JobOutcome:
    """Returns the outcome of a job that Slurm has forgotten.

    Slurm forgets jobs that ended; an attempt that wrote no end was killed.
    """
    if files is None:
        text = f"Slurm no longer knows job {job}, and it never started: cancelled, or asked the impossible"
    else:
        text = f"Slurm no longer knows job {job}, and it left no last word: it was killed"
    return JobOutcome(job_id=job, state="failed", text=text, show_log=files is not None)


def _pending(status: JobStatus) -> str:
    if status.dependency_never:
        return "pending for ever: a job that it waits for failed; `mtpbench cancel`, then submit again"
    text: str = "requeued" if status.state == "requeued" or (status.restarts or 0) > 0 else status.state
    if status.reason and status.reason != "None":
        text += f" ({status.reason})"
    if place := status.place:
        text += f", place {place.number} of {place.of} in {place.partition}"
    if status.start_estimate:
        text += f", starts about {status.start_estimate}"
    return text


def _running(status: JobStatus, files: AttemptFiles | None, now: datetime) -> str:
    where = f" on {status.nodes}" if status.nodes else ""
    doing = f": {_progress(files, now)}" if files is not None else ": starting"
    again = f" (start {1 + status.restarts})" if status.restarts else ""
    return f"{status.state}{where}{again}{doing}"


def _progress(files: AttemptFiles | None, now: datetime) -> str:
    progress = files.progress if files is not None else None
    if progress is None:
        return "starting"
    points = f"{progress.points_done} points done, {progress.points_left} left"
    if progress.point_id is None:
        text = f"{progress.stage or 'between points'}; {points}"
    else:
        share = f"{progress.requests_ended} of {progress.requests_total} requests"
        rate = f", {progress.output_tps:,.0f} output tok/s" if progress.output_tps is not None else ""
        text = f"{progress.point_id}: {share}{rate}; {points}"
    age_s = (now - datetime.fromisoformat(progress.time_utc)).total_seconds()
    return f"{text} (last heard of {age_s / 60:.0f} min ago)" if age_s > STALE_S else text
