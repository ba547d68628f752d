"""What became of a job, in words: files first, then Slurm, and a job that neither knows was killed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mtpbench.progress import RunProgress
from mtpbench.slurm.journal import Attempt, Finished, Submission
from mtpbench.slurm.states import AttemptFiles, JobOutcome, JobStatus, Place, judge_job

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
KEY = "mtp_1xTP8_0a"
SUBMITTED = Submission(number=1, name="mtpbench.demo.1.0a", keys=(KEY,), time_utc="t", job_id="12")
ATTEMPT = Attempt(
    key=KEY,
    job_id="12",
    restart=0,
    host="n0",
    pid=1,
    nodes=("n0", "n1"),
    started_utc="2026-11-24T11:00:00+00:00",
)


def status(state: str, **more: Any) -> JobStatus:
    values: dict[str, Any] = {
        "job_id": "12",
        "name": SUBMITTED.name,
        "state": state,
        "raw": state.upper(),
        "reason": None,
        "nodes": None,
        "restarts": None,
        "exit_code": None,
        "signal": None,
        "start_estimate": None,
        "time_left_s": None,
        "dependency_never": False,
    }
    return JobStatus(**{**values, **more})


def judged(
    files: AttemptFiles | None = None, *statuses: JobStatus, submission: Submission | None = SUBMITTED
) -> JobOutcome:
    return judge_job(KEY, submission, files, {one.job_id: one for one in statuses}, NOW)


def progress(age_s: float = 1.0, **more: Any) -> RunProgress:
    values: dict[str, Any] = {
        "time_utc": (NOW - timedelta(seconds=age_s)).isoformat(),
        "point_id": "mtp_c64",
        "requests_ended": 123,
        "requests_total": 640,
        "output_tps": 1234.5,
        "points_done": 2,
        "points_left": 3,
    }
    return RunProgress(**{**values, **more})


def test_before_anything_was_submitted() -> None:
    assert judged(submission=None).text == "not submitted"


def test_a_submission_that_failed_says_why() -> None:
    lost = replace(SUBMITTED, job_id=None, error="Invalid account")
    assert judged(submission=lost) == JobOutcome(
        job_id=None, state="lost", text="submission failed: Invalid account"
    )


def test_waiting_in_the_queue() -> None:
    waiting = judged(None, status("pending", reason="Priority", start_estimate="12:30"))
    assert (waiting.state, waiting.text) == ("pending", "pending (Priority), starts about 12:30")
    third = status("pending", reason="Priority", place=Place(number=3, of=12, partition="batch"))
    assert judged(None, third).text == "pending (Priority), place 3 of 12 in batch"
    again = judged(None, status("pending", reason="BeginTime", restarts=1))
    assert again.text == "requeued (BeginTime)"
    never = judged(None, status("pending", reason="DependencyNeverSatisfied", dependency_never=True))
    assert never.text.startswith("pending for ever")


def test_running_with_its_live_rate() -> None:
    files = AttemptFiles(attempt=ATTEMPT, progress=progress(), finished=None)
    running = judged(files, status("running", nodes="n[0-1]", restarts=1))
    assert running.state == "running"
    assert running.text == (
        "running on n[0-1] (start 2): mtp_c64: 123 of 640 requests, 1,234 output tok/s; 2 points done, 3 left"
    )


def test_a_silent_job_is_said_to_be_silent() -> None:
    files = AttemptFiles(attempt=ATTEMPT, progress=progress(age_s=300), finished=None)
    assert judged(files, status("running")).text.endswith("(last heard of 5 min ago)")


@pytest.mark.parametrize(
    ("outcome", "state", "log"),
    [
        ("done", "done", False),
        ("stopped", "stopped", False),
        ("failed", "failed", True),
        ("superseded", "stopped", False),
    ],
)
def test_the_last_word_counts_whatever_slurm_says(outcome: Any, state: str, log: bool) -> None:
    finished = Finished(
        outcome=outcome, ended_utc="t", points_valid=4, points_invalid=1, points_left=0, detail="x"
    )
    files = AttemptFiles(attempt=ATTEMPT, progress=None, finished=finished)
    unheard = judge_job(KEY, SUBMITTED, files, None, NOW)
    for found in (judged(files), judged(files, status("failed", exit_code=1)), unheard):
        assert (found.state, found.show_log) == (state, log)
        assert "(4 valid, 1 invalid, 0 left): x" in found.text


def test_an_outage_is_not_a_death() -> None:
    files = AttemptFiles(attempt=ATTEMPT, progress=progress(), finished=None)
    found = judge_job(KEY, SUBMITTED, files, None, NOW)
    assert found.state == "unknown"
    assert found.text.startswith("Slurm does not answer; mtp_c64: 123 of 640")


def test_a_job_that_slurm_forgot_and_that_said_nothing_was_killed() -> None:
    files = AttemptFiles(attempt=ATTEMPT, progress=progress(), finished=None)
    assert "left no last word" in judged(files).text
    assert judged(files).show_log
    assert "never started" in judged(None).text


def test_files_of_an_earlier_job_say_nothing_of_this_one() -> None:
    finished = Finished(outcome="failed", ended_utc="t", points_valid=0, points_invalid=1, points_left=0)
    files = AttemptFiles(attempt=replace(ATTEMPT, job_id="11"), progress=None, finished=finished)
    assert judged(files, status("pending")).state == "pending"


@pytest.mark.parametrize("state", ["timeout", "node_fail", "out_of_memory", "cancelled", "failed"])
def test_what_killed_a_job_is_named(state: str) -> None:
    found = judged(None, status(state, nodes="n2", exit_code=7))
    assert found.state == "failed"
    assert found.show_log
    assert found.text
