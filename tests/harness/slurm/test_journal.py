"""The jobs' files: written whole, read back equal, and an attempt that was overtaken owns nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtpbench.errors import SchemaError, StoreError
from mtpbench.progress import ProgressWriter, RunProgress
from mtpbench.records import SCHEMA_VERSION
from mtpbench.slurm.journal import Attempt, Finished, JobFile, Journal, Submission
from mtpbench.sweep import load_sweep

ROOT = Path(__file__).parents[3]


def attempt(job: str = "12", restart: int = 0, key: str = "mtp_1xTP8_0a") -> Attempt:
    return Attempt(
        key=key,
        job_id=job,
        restart=restart,
        host="n0",
        pid=1,
        nodes=("n0", "n1"),
        started_utc=f"2026-11-24T10:00:0{restart}.000+00:00",
    )


def test_a_job_comes_back_as_it_was_laid_down(tmp_path: Path) -> None:
    sweep = load_sweep(ROOT / "sweeps/demo.yaml")
    job = JobFile(
        key=sweep.points[0].deployment_key,
        sweep=sweep.info,
        points=sweep.points[:5],
        cluster="mine",
        profile={"time_limit": 60, "container": {"mounts": ["/a:/b"]}},
        results="/shared/results",
    )
    journal = Journal(tmp_path)
    path = journal.write_job(job)
    assert path.is_absolute() or path == journal.root / "jobs" / f"{job.key}.json"
    assert journal.read_job(journal.job_path(job.key)) == job


@pytest.mark.parametrize("version", [99, SCHEMA_VERSION - 1, None])
def test_a_job_of_another_version_is_refused(tmp_path: Path, version: int | None) -> None:
    """Its points would be read as what they are not; a job without a version is none of ours."""
    sweep = load_sweep(ROOT / "sweeps/demo.yaml")
    job = JobFile(
        key="k", sweep=sweep.info, points=sweep.points[:1], cluster="mine", profile={}, results="/r"
    )
    path = Journal(tmp_path).write_job(job)
    data = json.loads(path.read_text("utf-8"))
    if version is None:
        del data["schema_version"]
    else:
        data["schema_version"] = version
    path.write_text(json.dumps(data), "utf-8")
    kind, words = SchemaError, rf"schema version {version}.*ubmit again"
    if version is None:
        kind, words = StoreError, r"k\.json: no record of ours"
    with pytest.raises(kind, match=words):
        Journal(tmp_path).read_job(path)


def test_a_damaged_record_is_an_error_of_the_store(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    path = journal.write_submission(Submission(number=1, name="a", keys=("x",), time_utc="t"))
    path.write_text('{"number": 1', "utf-8")
    with pytest.raises(StoreError, match=r"00001\.json:1: not JSON"):
        journal.submissions()
    path.write_text('{"number": 1}', "utf-8")
    with pytest.raises(StoreError, match="missing name"):
        journal.submissions()


def test_submissions_count_up_and_know_their_tasks(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.next_number() == 1
    first = Submission(number=1, name="a", keys=("x",), time_utc="t", job_id="12")
    second = Submission(number=2, name="b", keys=("y", "z"), time_utc="t", job_id="13")
    for one in (first, second):
        journal.write_submission(one)
    assert journal.submissions() == (first, second)
    assert journal.next_number() == 3
    assert (first.task_id("x"), second.task_id("z")) == ("12", "13_1")


def test_an_intent_without_an_answer_stays_on_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    intent = Submission(number=1, name="a", keys=("x",), time_utc="t")
    journal.write_submission(intent)
    assert Journal(tmp_path).submissions() == (intent,)
    assert intent.task_id("x") is None


def test_the_later_attempt_owns_the_deployment(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.owner("mtp_1xTP8_0a") is None
    first, second = attempt(), attempt(restart=1)
    journal.take_over(first)
    journal.take_over(second)
    assert journal.owner(first.key) == second
    assert journal.attempts(first.key) == (first, second)
    assert (second.name, journal.attempt_directory(second).is_dir()) == ("12.1", True)


def test_progress_and_the_last_word(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    one = attempt("12_3")
    journal.take_over(one)
    assert (journal.progress(one), journal.finished(one)) == (None, None)
    progress = RunProgress(time_utc="t", point_id="p", requests_ended=3, requests_total=9, output_tps=1.5)
    finished = Finished(outcome="stopped", ended_utc="t", points_valid=1, points_invalid=0, points_left=4)
    ProgressWriter(journal.progress_path(one)).write(progress)
    journal.write_finished(one, finished)
    assert (journal.progress(one), journal.finished(one)) == (progress, finished)


def test_an_id_that_comes_round_again_begins_anew(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    one = attempt()
    journal.take_over(one)
    journal.write_finished(
        one, Finished(outcome="failed", ended_utc="t", points_valid=0, points_invalid=1, points_left=0)
    )
    journal.take_over(one)
    assert journal.finished(one) is None


def test_the_log_pattern_keeps_percent_signs_of_the_path(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "50% off")
    assert journal.log_pattern(1, array=False).endswith("/50%% off/.slurm/logs/00001.%j.log")
    assert journal.log_pattern(2, array=True).endswith("/00002.%A_%a.log")
