"""Pure: what became of a deployment's jobs, from their files and from what Slurm says, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from mtpbench.progress import RunProgress
from mtpbench.slurm.journal import Attempt, Finished, Submission
from mtpbench.slurm.states import JobStatus, cause

STALE_S = 60.0
"""A running job that has said nothing for so long is no longer believed without saying so."""


Standing = Literal["not submitted", "lost", "pending", "running", "done", "stopped", "failed", "unknown"]

_OUTCOMES = {
    "done": "done",
    "stopped": "stopped before its end",
    "failed": "failed",
    "superseded": "taken over by a later attempt",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFiles:
    """What one attempt left on disk."""

    attempt: Attempt
    progress: RunProgress | None
    finished: Finished | None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOutcome:
    """How a deployment stands.

    Args:
        job_id: of its newest job; None before the first.
        state: `lost` where Slurm took no job, `unknown` where it does not answer now.
        text: the same for a reader, with the cause or the progress.
        show_log: whether the job's log is worth showing.
    """

    job_id: str | None
    state: Standing
    text: str
    show_log: bool = False


def judge_job(
    key: str,
    submission: Submission | None,
    files: JobFiles | None,
    statuses: Mapping[str, JobStatus] | None,
    now: datetime,
) -> JobOutcome:
    """Says how one deployment stands.

    Args:
        key: the deployment's.
        submission: its newest.
        files: of its newest attempt.
        statuses: what Slurm says of all jobs; None where it does not answer.
        now: for ages; with a time zone.
    """
    if submission is None:
        return JobOutcome(job_id=None, state="not submitted", text="not submitted")
    job = submission.task_id(key)
    if job is None:
        why = submission.error or "no answer was recorded"
        return JobOutcome(job_id=None, state="lost", text=f"submission failed: {why}")
    files = files if files is not None and _of_this_job(files.attempt, job) else None
    if files is not None and files.finished is not None:
        return _finished(job, files.finished)
    if statuses is None:
        return _unheard(job, files, now)
    status = statuses.get(job)
    if status is None:
        return _vanished(job, files)
    if status.state in ("pending", "requeued", "suspended"):
        return JobOutcome(job_id=job, state="pending", text=_pending(status))
    if status.state in ("running", "completing"):
        return JobOutcome(job_id=job, state="running", text=_running(status, files, now))
    text = cause(status) or status.raw.lower().replace("_", " ")
    return JobOutcome(job_id=job, state="failed", text=text, show_log=True)


def _of_this_job(attempt: Attempt, job: str) -> bool:
    return attempt.job_id == job


def _finished(job: str, finished: Finished) -> JobOutcome:
    counts = f"{finished.points_valid} valid, {finished.points_invalid} invalid, {finished.points_left} left"
    detail = f": {finished.detail}" if finished.detail else ""
    return JobOutcome(
        job_id=job,
        state="stopped" if finished.outcome == "superseded" else finished.outcome,
        text=f"{_OUTCOMES[finished.outcome]} ({counts}){detail}",
        show_log=finished.outcome == "failed",
    )


def _unheard(job: str, files: JobFiles | None, now: datetime) -> JobOutcome:
    doing = _progress(files, now) if files is not None else "no attempt has started yet"
    return JobOutcome(job_id=job, state="unknown", text=f"Slurm does not answer; {doing}")


def _vanished(job: str, files: JobFiles | None) -> JobOutcome:
    """Slurm forgets jobs that ended; one that left no last word was killed."""
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


def _running(status: JobStatus, files: JobFiles | None, now: datetime) -> str:
    where = f" on {status.nodes}" if status.nodes else ""
    doing = f": {_progress(files, now)}" if files is not None else ": starting"
    again = f" (start {1 + status.restarts})" if status.restarts else ""
    return f"{status.state}{where}{again}{doing}"


def _progress(files: JobFiles | None, now: datetime) -> str:
    progress = files.progress if files is not None else None
    if progress is None:
        return "starting"
    left = f"{progress.points_done} points done, {progress.points_left} left"
    if progress.point_id is None:
        text = f"{progress.stage or 'between points'}; {left}"
    else:
        share = f"{progress.requests_ended} of {progress.requests_total} requests"
        rate = f", {progress.output_tps:,.0f} output tok/s" if progress.output_tps is not None else ""
        text = f"{progress.point_id}: {share}{rate}; {left}"
    age_s = (now - datetime.fromisoformat(progress.time_utc)).total_seconds()
    return f"{text} (last heard of {age_s / 60:.0f} min ago)" if age_s > STALE_S else text
