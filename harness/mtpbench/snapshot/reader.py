"""The reader of snapshots: it looks at a results folder again and again, and reads only files that changed.

It takes no lock: /proc/locks names the holder of the folder's lock, and jobs write their progress to files.
Slurm is asked only where the reader has a client for it.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

from mtpbench.errors import RunError, SchemaError, StoreError
from mtpbench.progress import PROGRESS_FILE, RunProgress, read_progress
from mtpbench.records import SweepInfo
from mtpbench.slurm.client import Slurm
from mtpbench.slurm.journal import Journal, Submission
from mtpbench.slurm.states import AttemptFiles, JobStatus
from mtpbench.slurm.submission import look_again
from mtpbench.snapshot import Holder, PlannedPoint, Problem, SeenPoint, ServerStart, Snapshot, State
from mtpbench.store import is_there, read_place
from mtpbench.store.files import read_bytes
from mtpbench.store.reading import SWEEP_FILE, read_record

ALL_EVERY = 15
"""All points' files are looked at once in so many looks, even where no point came or went in the folder."""
SLURM_EVERY_S = 20.0
"""Slurm's controller serves all its users: it is asked once for all jobs, three times a minute."""
_TRIES = 3
"""A point may be replaced while it is read."""
_LOCKS = Path("/proc/locks")
_PID = re.compile(r"[0-9]{1,9}")

T = TypeVar("T")


class Signature(NamedTuple):
    """The signature of a file changes when the file does."""

    inode: int
    changed_ns: int
    size: int


class SlurmSource:
    """Slurm's status of a sweep's jobs, asked every `SLURM_EVERY_S`.

    Args:
        journal: of the sweep's submissions.
        slurm: the client that asks.
    """

    def __init__(self, journal: Journal, slurm: Slurm) -> None:
        self._journal, self._slurm = journal, slurm
        self._asked_at = -SLURM_EVERY_S
        self.statuses: Mapping[str, JobStatus] | None = None
        self.strangers: tuple[JobStatus, ...] = ()
        self.trouble: str | None = None

    def ask(self, submissions: Sequence[Submission]) -> bool:
        """Asks for all jobs at once if the last time is long enough ago; returns whether it asked."""
        if time.monotonic() - self._asked_at < SLURM_EVERY_S:
            return False
        self._asked_at = time.monotonic()
        self.statuses, self.trouble = None, self._slurm.available()
        if self.trouble is None:
            try:
                look = look_again(self._journal, self._slurm, submissions)
                self.statuses, self.strangers = look.statuses, look.strangers
            except RunError as error:
                self.trouble = str(error)
        return True


class FileMemory:
    """A memory of the records read from files, each valid while its file's signature stays the same."""

    def __init__(self) -> None:
        self._records: dict[Path, tuple[Signature, object]] = {}

    def read(self, path: Path, reader: Callable[[], T]) -> T | None:
        """Returns the record of a file, read again if the file has changed; None where there is no file.

        An error of the reader is passed on, and not remembered.
        """
        current = signature(path)
        if current is None:
            self._records.pop(path, None)
            return None
        remembered = self._records.get(path)
        if remembered is not None and remembered[0] == current:
            return cast(T, remembered[1])
        record = reader()
        self._records[path] = (current, record)
        return record


def signature(path: Path) -> Signature | None:
    """Returns the signature of a file; None where it is not there, or can't be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Signature(status.st_ino, status.st_mtime_ns, status.st_size)


class SnapshotReader:
    """The snapshot reader of one results folder.

    Args:
        directory: results/<sweep>.
        slurm: the client that asks for the jobs' status; None to read files only.
        clock: returns seconds since 1970.
    """

    def __init__(
        self, directory: Path, slurm: Slurm | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.directory, self._clock = directory, clock
        self.journal, self._memory = Journal(directory), FileMemory()
        self._slurm = SlurmSource(self.journal, slurm) if slurm is not None else None
        self._points: dict[str, SeenPoint] = {}
        self._places: dict[str, int] = {}
        self._folder_times: tuple[int | None, int | None] = (None, None)
        self._looks = 0

    def read(self) -> Snapshot | None:
        """Reads the snapshot of this moment; None where the folder holds no sweep.

        Raises:
            SchemaError: another version of mtpbench wrote sweep.json.
            StoreError: sweep.json is damaged.
        """
        path = self.directory / SWEEP_FILE
        info = self._memory.read(path, lambda: read_record(SweepInfo, path))
        if info is None:
            return None
        begun_s = _changed_s(path)
        submissions, trouble = self._submissions()
        submitted = bool(submissions) or self.journal.root.is_dir()
        if submitted and self._slurm is not None and self._slurm.ask(submissions):
            # Asking may find the number of a job that was lost, and write it to the journal.
            submissions, trouble = self._submissions()
        strangers = self._slurm.strangers if self._slurm is not None else ()
        trouble += (f"job {job.job_id} ({job.name}) is in no record of this folder" for job in strangers)
        unread_submissions = bool(trouble)
        unread_jobs: set[str] = set()
        jobs, run = self._jobs(trouble, unread_jobs), self._run(trouble)
        points = self._look_at_points(info.planned)
        return Snapshot(
            info=info,
            points=points,
            simulated=any(point.stored is not None and point.stored.result.simulated for point in points)
            or (run is not None and run.simulated)
            or self._will_be_simulated(),
            now_s=self._clock(),
            trouble=tuple(trouble),
            begun_s=begun_s,
            holder=holder_of(self.directory / ".lock"),
            servers=self._servers(begun_s or 0.0),
            writing=tuple(name.split("@")[0] for name in _names(self.directory / ".attempts")),
            run=run,
            run_here=run is not None and run.host == socket.gethostname(),
            submissions={key: submission for submission in submissions for key in submission.keys},
            jobs=jobs,
            unread_jobs=frozenset(unread_jobs),
            unread_submissions=unread_submissions,
            statuses=self._slurm.statuses if self._slurm is not None else None,
            slurm_trouble=self._slurm.trouble if self._slurm is not None else None,
        )

    # ------------------------------------------------------------------------------------------------ points

    def _look_at_points(self, planned: Sequence[str]) -> tuple[SeenPoint, ...]:
        quiet = self._is_quiet()
        places = self._places if quiet else _inodes(self.directory)
        all_of_them = self._looks % ALL_EVERY == 0
        points: dict[str, SeenPoint] = {}
        for point_id in planned:
            earlier = self._points.get(point_id)
            # A run renames progress.json into the folder every second, which says nothing of the points.
            in_place = not all_of_them and places.get(point_id) == self._places.get(point_id)
            if in_place and earlier is not None and earlier.state in ("valid", "invalid", "missing"):
                points[point_id] = earlier
            elif not quiet and point_id not in places:
                points[point_id] = SeenPoint(planned=PlannedPoint.of(point_id), state="missing")
            else:
                points[point_id] = self._look_at(point_id)
        self._points, self._places = points, places
        return tuple(points.values())

    def _is_quiet(self) -> bool:
        """Whether no point came, went or was replaced: each of these is a rename in the folder.

        A folder's time is trusted once two looks have read the same, because a change may share its tick with
        the first of them. Results that are recomputed in their places are noticed when all points are looked
        at, every `ALL_EVERY` looks.
        """
        folder = signature(self.directory)
        folder_ns = folder.changed_ns if folder else None
        is_same = folder_ns is not None and self._folder_times == (folder_ns, folder_ns)
        self._folder_times = (self._folder_times[1], folder_ns)
        self._looks += 1
        return is_same and self._looks % ALL_EVERY != 0

    def _look_at(self, point_id: str) -> SeenPoint:
        planned, place = PlannedPoint.of(point_id), self.directory / point_id
        path = place / "result.json"
        state: State = "missing"
        problem: Problem | None = None
        for _ in range(_TRIES):
            before = signature(path)
            try:
                stored = self._memory.read(path, lambda: read_place(place))
                if stored is None and is_there(place):
                    stored = read_place(place)
            except (SchemaError, StoreError) as error:
                state = "other schema" if isinstance(error, SchemaError) else "damaged"
                problem = _problem(error)
                if before == signature(path):
                    break
                continue
            if stored is not None and before is not None:
                state = "valid" if stored.result.valid else "invalid"
                return SeenPoint(
                    planned=planned, state=state, stored=stored, landed_s=before.changed_ns / 1e9
                )
            state, problem = "missing", None
            if stored is None:
                break
        return SeenPoint(planned=planned, state=state, problem=problem, landed_s=_changed_s(path))

    # --------------------------------------------------------------------------------------- runs and jobs

    def _servers(self, since_s: float) -> ServerStart | None:
        """Returns the newest start of servers, if it belongs to the last run."""
        folder = self.directory / "servers"
        starts = [(stamp, name) for name in _names(folder) if (stamp := _stamp(name)) is not None]
        if not starts:
            return None
        started_s, name = max(starts)
        if started_s < since_s - 1.0:
            return None
        logs = [_changed_s(folder / name / log) or 0.0 for log in _names(folder / name)]
        return ServerStart(
            key=name.rpartition("@")[0], started_s=started_s, grew_s=max(logs, default=started_s)
        )

    def _run(self, trouble: list[str]) -> RunProgress | None:
        """Reads the progress of a run; a file that can't be read becomes a message in `trouble`."""
        path = self.directory / PROGRESS_FILE
        try:
            return self._memory.read(path, lambda: read_progress(path))
        except (SchemaError, StoreError) as error:
            # The run may have ended, and removed the file, since the look.
            if path.exists():
                trouble.append(str(error))
            return None

    def _read(self, path: Path, reader: Callable[[], T], trouble: list[str]) -> T | None:
        """Reads one file; one that can't be read becomes a message in `trouble`, and hides no other."""
        try:
            return self._memory.read(path, reader)
        except (SchemaError, StoreError) as error:
            trouble.append(str(error))
            return None

    def _submissions(self) -> tuple[list[Submission], list[str]]:
        """Reads the submissions to Slurm, oldest first, and a message on each that can't be read."""
        trouble: list[str] = []
        read = (
            self._read(path, partial(self.journal.read_submission, path), trouble)
            for path in self.journal.submission_paths()
        )
        return [submission for submission in read if submission is not None], trouble

    def _jobs(self, trouble: list[str], unread: set[str]) -> dict[str, AttemptFiles]:
        """Reads the files of Slurm jobs, by key; `unread` gets the keys of those that can't be read."""
        jobs: dict[str, AttemptFiles] = {}
        for name in _names(self.journal.root / "current"):
            key = name.removesuffix(".json")
            if name.startswith(".") or key == name:
                continue
            troubles_before = len(trouble)
            if (files := self._job(key, trouble)) is not None:
                jobs[key] = files
            if len(trouble) > troubles_before:
                unread.add(key)
        return jobs

    def _will_be_simulated(self) -> bool:
        """Whether the files of its jobs say so, before the first point is stored."""
        jobs = self.journal.root / "jobs"
        for name in _names(jobs):
            job = None
            with contextlib.suppress(StoreError, SchemaError):
                job = self._memory.read(jobs / name, partial(self.journal.read_job, jobs / name))
            if job is not None and any(point.simulated for point in job.points):
                return True
        return False

    def _job(self, key: str, trouble: list[str]) -> AttemptFiles | None:
        path = self.journal.root / "current" / f"{key}.json"
        attempt = self._read(path, lambda: self.journal.owner(key), trouble)
        if attempt is None:
            return None
        directory = self.journal.attempt_directory(attempt)
        progress, finished = directory / PROGRESS_FILE, directory / "finished.json"
        return AttemptFiles(
            attempt=attempt,
            progress=self._read(progress, lambda: self.journal.progress(attempt), trouble),
            finished=self._read(finished, lambda: self.journal.finished(attempt), trouble),
        )


def holder_of(lock: Path) -> Holder:
    """Returns the holder of a lock's file on this machine, without taking the lock."""
    lock_status = signature(lock)
    if lock_status is None:
        return Holder(held=False)
    try:
        text, table = read_bytes(lock).decode("ascii", "replace").strip(), _LOCKS.read_text("utf-8")
    except (OSError, StoreError, UnicodeDecodeError):
        return Holder(held=None)
    pid = int(text) if _PID.fullmatch(text) else None
    rows = [line.split() for line in table.splitlines()]
    held = any(
        str(pid) in row and any(column.endswith(f":{lock_status.inode}") for column in row) for row in rows
    )
    return Holder(held=held, pid=pid)


def _names(folder: Path) -> list[str]:
    """Returns the names in a folder; none where it is not there (a reader creates nothing)."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _inodes(folder: Path) -> dict[str, int]:
    """Returns the names in a folder with their inodes: a point that is replaced gets another inode."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.inode() for entry in entries}
    except OSError:
        return {}


def _problem(error: SchemaError | StoreError) -> Problem:
    name = error.path.name if error.path is not None else None
    return Problem(reason=error.reason or str(error), file=name, message=str(error))


def _changed_s(path: Path) -> float | None:
    status = signature(path)
    return None if status is None else status.changed_ns / 1e9


def _stamp(name: str) -> float | None:
    """Returns when the servers of a folder `key@20261124T102128.246147` were started; None of other names."""
    try:
        started = datetime.strptime(name.rpartition("@")[2], "%Y%m%dT%H%M%S.%f")
    except ValueError:
        return None
    return started.replace(tzinfo=UTC).timestamp()
