"""The files of Slurm jobs under results/<sweep>/.slurm/: they are the truth, whatever Slurm remembers.

    jobs/<key>.json              what one job runs: the points of one deployment, fully resolved
    journal/<number>.json        one submission; written before sbatch is called, completed after
    batch/<number>.sh            its script
    logs/                        standard output of the jobs
    attempts/<job>.<restart>/    one run of a job: started.json, progress.json, finished.json, servers/
    current/<key>.json           the attempt that owns a deployment now; another one's points take no place
    turns/<number>.json          who submits or cancels; the next one waits for <number>.done

Every file is written whole, by rename. A JobFile is read by the mtpbench that wrote it, or refused with its
points. An attempt's progress.json carries the schema version too; the other records carry none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mtpbench.errors import InputError
from mtpbench.progress import PROGRESS_FILE, RunProgress, read_progress
from mtpbench.records import SCHEMA_VERSION, Point, SweepInfo
from mtpbench.store import json_text, replace_file
from mtpbench.store.files import claim_file, latest_number
from mtpbench.store.reading import read_record
from mtpbench.store.turns import Turn

FOLDER = ".slurm"
ANSWER_LIMIT_S = 100.0
"""Seconds after which an intent without an answer is dead: its sbatch has given up by then."""
Outcome = Literal["done", "stopped", "failed", "superseded"]
_SUBMISSION = re.compile(r"(\d{5,9})\.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFile:
    """A job file says what one job runs.

    Args:
        key: the deployment's key.
        points: its ladder; points that are valid already are skipped when the job starts.
        profile: the cluster's profile, as plain values, without the variables and commands of its scripts.
        results: the results folder, absolute.
        again: measure valid points again too.
    """

    schema_version: int = SCHEMA_VERSION
    key: str
    sweep: SweepInfo
    points: tuple[Point, ...]
    cluster: str
    profile: Mapping[str, Any]
    results: str
    again: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A submission is one call of sbatch, or the intent to make it.

    Args:
        number: the number of the submission in its sweep, from 1.
        name: the job's unique name.
        keys: the deployments that it runs, in the order of the array; empty for the analysis job.
        time_utc: when the intent was written.
        job_id: None until sbatch answered, or the job was found by its name.
        error: the message of sbatch where it failed.
    """

    number: int
    name: str
    keys: tuple[str, ...]
    time_utc: str
    job_id: str | None = None
    error: str | None = None

    def is_unanswered(self, now: datetime) -> bool:
        """Returns whether its sbatch may still reach Slurm: no answer is written, and the intent is young."""
        if self.job_id is not None or self.error is not None:
            return False
        try:
            return (now - datetime.fromisoformat(self.time_utc)).total_seconds() < ANSWER_LIMIT_S
        except (TypeError, ValueError):
            return False

    def task_id(self, key: str) -> str | None:
        """Returns the id of the job that runs one deployment: `12`, or `12_3` in an array."""
        if self.job_id is None or key not in self.keys:
            return self.job_id
        return self.job_id if len(self.keys) == 1 else f"{self.job_id}_{self.keys.index(key)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """An attempt is one run of a job: Slurm's id of it, and how often the job was restarted before."""

    key: str
    job_id: str
    restart: int
    host: str
    pid: int
    nodes: tuple[str, ...]
    started_utc: str

    @property
    def name(self) -> str:
        """Returns the name of the attempt's directory: `12.0`, `12_3.1`."""
        return f"{self.job_id}.{self.restart}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A finish record says how an attempt ended; the attempt writes it, and one that was killed has none.

    `done`: nothing is left. `stopped`: it was stopped, and the points that are left stay pending. `failed`:
    points were measured and are invalid, or servers never started. `superseded`: another attempt owns the
    job.
    """

    outcome: Outcome
    ended_utc: str
    points_valid: int
    points_invalid: int
    points_left: int
    detail: str | None = None


class Journal:
    """The journal reads and writes the files of one sweep's jobs.

    Args:
        directory: results/<sweep>.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.root = directory, directory / FOLDER

    # ------------------------------------------------------------------------------------- written by submit

    def turn(self, on_wait: Callable[[str], None]) -> Turn:
        """Returns the next turn to submit or cancel, which begins when the block is entered.

        Args:
            on_wait: is told in a sentence, once, whom it waits for.
        """
        return Turn(self.root / "turns", "submits or cancels jobs of this sweep", on_wait)

    def job_path(self, key: str) -> Path:
        """Returns the absolute path of a deployment's job file."""
        return (self.root / "jobs" / f"{key}.json").resolve()

    def write_job(self, job: JobFile) -> Path:
        """Writes the file of a job."""
        return self._write(f"jobs/{job.key}.json", job)

    def read_job(self, path: Path) -> JobFile:
        """Returns the job in a file.

        Raises:
            SchemaError: another version of mtpbench wrote it.
            StoreError: the file can't be read.
        """
        return read_record(JobFile, path, versions=(SCHEMA_VERSION,), remedy="Submit again")

    def next_number(self) -> int:
        """Returns the number of the next submission."""
        return 1 + latest_number(self.root / "journal", _SUBMISSION)

    def claim(self, submission: Submission) -> bool:
        """Writes the intent of a submission down, before sbatch is called.

        Returns:
            False where its number is taken: nothing is written then.
        """
        return claim_file(self._submission_path(submission), json_text(submission))

    def write_submission(self, submission: Submission) -> Path:
        """Writes what became of a submission over its intent."""
        path = self._submission_path(submission)
        replace_file(path, json_text(submission), parents=True)
        return path

    def _submission_path(self, submission: Submission) -> Path:
        return self.root / "journal" / f"{submission.number:05d}.json"

    def write_batch(self, number: int, text: str) -> Path:
        """Writes the script of a submission, for its owner's eyes: it sets the profile's variables."""
        # Slurm makes no folders for what a job prints.
        (self.root / "logs").mkdir(parents=True, exist_ok=True)
        path = self.root / "batch" / f"{number:05d}.sh"
        replace_file(path, text, parents=True, private=True)
        return path

    def submission_paths(self) -> list[Path]:
        """Returns the files of all submissions, oldest first."""
        return sorted(path for path in (self.root / "journal").glob("*") if _SUBMISSION.fullmatch(path.name))

    def read_submission(self, path: Path) -> Submission:
        """Returns the submission in a file.

        Raises:
            StoreError: the file can't be read.
        """
        return read_record(Submission, path)

    def submissions(self) -> tuple[Submission, ...]:
        """Returns all submissions, oldest first."""
        return tuple(self.read_submission(path) for path in self.submission_paths())

    def log_pattern(self, number: int, *, array: bool) -> str:
        """Returns the path, in Slurm's pattern, of a submission's standard output.

        Raises:
            InputError: Slurm knows no pattern for the path.
        """
        folder = (self.root / "logs").resolve()
        if "\\" in str(folder):
            raise InputError(
                f"{folder}: Slurm fills in no job ids in a path with a backslash; choose another "
                "--results folder"
            )
        return f"{str(folder).replace('%', '%%')}/{number:05d}.{'%A_%a' if array else '%j'}.log"

    def log_tail(self, job_id: str, lines: int) -> tuple[str, ...]:
        """Returns the last lines of a job's standard output; none where there is no log."""
        logs = sorted((self.root / "logs").glob(f"*.{job_id}.log"))
        if not logs:
            return ()
        return tuple(logs[-1].read_text("utf-8", "replace").splitlines()[-lines:])

    # --------------------------------------------------------------------------------------- written by jobs

    def take_over(self, attempt: Attempt) -> Path:
        """Makes an attempt the owner of its deployment, and returns the attempt's directory."""
        directory = self.attempt_directory(attempt)
        directory.mkdir(parents=True, exist_ok=True)
        # Slurm uses ids again after a new installation: the end of an older attempt is not this one's.
        for name in ("finished.json", PROGRESS_FILE):
            (directory / name).unlink(missing_ok=True)
        self._write(f"attempts/{attempt.name}/started.json", attempt)
        self._write(f"current/{attempt.key}.json", attempt)
        return directory

    def attempt_directory(self, attempt: Attempt) -> Path:
        """Returns the directory of an attempt's own files."""
        return self.root / "attempts" / attempt.name

    def owner(self, key: str) -> Attempt | None:
        """Returns the attempt that owns a deployment; None before the first."""
        path = self.root / "current" / f"{key}.json"
        return read_record(Attempt, path) if path.exists() else None

    def progress_path(self, attempt: Attempt) -> Path:
        """Returns the path of an attempt's progress."""
        return self.attempt_directory(attempt) / PROGRESS_FILE

    def write_finished(self, attempt: Attempt, finished: Finished) -> None:
        """Writes how an attempt ended."""
        self._write(f"attempts/{attempt.name}/finished.json", finished)

    # ------------------------------------------------------------------------------------- read by status

    def attempts(self, key: str) -> tuple[Attempt, ...]:
        """Returns the attempts of one deployment, oldest first."""
        attempts = [read_record(Attempt, path) for path in (self.root / "attempts").glob("*/started.json")]
        return tuple(
            sorted(
                (attempt for attempt in attempts if attempt.key == key),
                key=lambda attempt: attempt.started_utc,
            )
        )

    def progress(self, attempt: Attempt) -> RunProgress | None:
        """Returns the last progress that an attempt wrote; None before the first."""
        path = self.progress_path(attempt)
        return read_progress(path) if path.exists() else None

    def finished(self, attempt: Attempt) -> Finished | None:
        """Returns how an attempt ended; None while it runs, and for ever where it was killed."""
        path = self.attempt_directory(attempt) / "finished.json"
        return read_record(Finished, path) if path.exists() else None

    def _write(self, name: str, record: object) -> Path:
        path = self.root / name
        replace_file(path, json_text(record), parents=True)
        return path
