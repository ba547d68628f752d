"""Pure: what became of a deployment's jobs, from their files and from what Slurm says, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from mtpbench.progress import RunProgress
from mtpbench.slurm.journal import Attempt, Finished, Submission
from mtpbench.slurm.states import JobSight, cause

STALE_S = 60.0
"""A running job that has said nothing for so long is no longer believed without saying so."""


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
class Fate:
    """How a deployment stands.

    Args:
        job: the id of its newest job; None before the first.
        state: `not submitted`, `lost`, `pending`, `running`, `done`, `stopped`, `failed` or `unknown`.
        words: the same for a reader, with the cause or the progress.
        look_at_log: whether the job's log is worth showing.
    """

    job: str | None
    state: str
    words: str
    look_at_log: bool = False


def tell(
    key: str,
    submission: Submission | None,
    files: JobFiles | None,
    sights: Mapping[str, JobSight] | None,
    now: datetime,
) -> Fate:
    """The fate of one deployment.

    Args:
        key: the deployment's.
        submission: its newest.
        files: of its newest attempt.
        sights: what Slurm says of all jobs; None where it does not answer.
        now: for ages; with a time zone.
    """
    if submission is None:
        return Fate(job=None, state="not submitted", words="not submitted")
    job = submission.task_id(key)
    if job is None:
        why = submission.error or "no answer was recorded"
        return Fate(job=None, state="lost", words=f"submission failed: {why}")
    files = files if files is not None and _of_this_job(files.attempt, job) else None
    if files is not None and files.finished is not None:
        return _finished(job, files.finished)
    if sights is None:
        return _unheard(job, files, now)
    sight = sights.get(job)
    if sight is None:
        return _vanished(job, files)
    if sight.state in ("pending", "requeued", "suspended"):
        return Fate(job=job, state="pending", words=_pending(sight))
    if sight.state in ("running", "completing"):
        return Fate(job=job, state="running", words=_running(sight, files, now))
    words = cause(sight) or sight.raw.lower().replace("_", " ")
    return Fate(job=job, state="failed", words=words, look_at_log=True)


def _of_this_job(attempt: Attempt, job: str) -> bool:
    return attempt.job_id == job


def _finished(job: str, finished: Finished) -> Fate:
    counts = f"{finished.points_valid} valid, {finished.points_invalid} invalid, {finished.points_left} left"
    detail = f": {finished.detail}" if finished.detail else ""
    return Fate(
        job=job,
        state="stopped" if finished.outcome == "superseded" else finished.outcome,
        words=f"{_OUTCOMES[finished.outcome]} ({counts}){detail}",
        look_at_log=finished.outcome == "failed",
    )


def _unheard(job: str, files: JobFiles | None, now: datetime) -> Fate:
    said = _progress(files, now) if files is not None else "no attempt has started yet"
    return Fate(job=job, state="unknown", words=f"Slurm does not answer; {said}")


def _vanished(job: str, files: JobFiles | None) -> Fate:
    """Slurm forgets jobs that ended; one that left no last word was killed."""
    if files is None:
        words = f"Slurm no longer knows job {job}, and it never started: cancelled, or asked the impossible"
    else:
        words = f"Slurm no longer knows job {job}, and it left no last word: it was killed"
    return Fate(job=job, state="failed", words=words, look_at_log=files is not None)


def _pending(sight: JobSight) -> str:
    if sight.dependency_never:
        return "pending for ever: a job that it waits for failed; `mtpbench cancel`, then submit again"
    text: str = "requeued" if sight.state == "requeued" or (sight.restarts or 0) > 0 else sight.state
    if sight.reason and sight.reason != "None":
        text += f" ({sight.reason})"
    if place := sight.place:
        text += f", place {place.number} of {place.of} in {place.partition}"
    if sight.start_estimate:
        text += f", starts about {sight.start_estimate}"
    return text


def _running(sight: JobSight, files: JobFiles | None, now: datetime) -> str:
    where = f" on {sight.nodes}" if sight.nodes else ""
    said = f": {_progress(files, now)}" if files is not None else ": starting"
    again = f" (start {1 + sight.restarts})" if sight.restarts else ""
    return f"{sight.state}{where}{again}{said}"


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
