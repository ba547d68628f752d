"""Looks at a results folder again and again; reads only, and only what changed since the last look.

Neither the folder's lock nor Slurm is asked: who holds the lock stands in /proc/locks, and what jobs do in
their own files.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from mtpbench.errors import SchemaError, StoreError
from mtpbench.progress import PROGRESS_FILE, RunProgress, read_progress
from mtpbench.records import SweepInfo
from mtpbench.slurm.journal import Journal, Submission
from mtpbench.slurm.outcome import JobFiles
from mtpbench.store import read_point
from mtpbench.store.reading import SWEEP_FILE, read_record
from mtpbench.watch.picture import Holder, Picture, Planned, SeenPoint, ServerStart, State

ALL_EVERY = 15
"""Looks between two at every point's file, where the folder says that no point came or went."""
_TRIES = 3
"""A point may be replaced while it is read."""
_LOCKS = Path("/proc/locks")

T = TypeVar("T")
Signature = tuple[int, int, int]


class FileMemory:
    """What was read from files, for as long as they stay as they are (inode, time of change, size)."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Signature, object]] = {}

    def read(self, path: Path, reader: Callable[[], T]) -> T | None:
        """What `reader` makes of a file, or made when it last changed; None where there is no file.

        What the reader raises is passed on, and not remembered.
        """
        now = signature(path)
        if now is None:
            self._known.pop(path, None)
            return None
        known = self._known.get(path)
        if known is not None and known[0] == now:
            return cast(T, known[1])
        made = reader()
        self._known[path] = (now, made)
        return made


def signature(path: Path) -> Signature | None:
    """What changes when a file does; None where it is not there, or can't be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class SweepFiles:
    """A results folder under observation.

    Args:
        directory: results/<sweep>.
        clock: seconds since 1970.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self.directory, self._clock = directory, clock
        self._memory, self._journal = FileMemory(), Journal(directory)
        self._points: dict[str, SeenPoint] = {}
        self._places: dict[str, int] = {}
        self._folder_times: tuple[int | None, int | None] = (None, None)
        self._looks = 0

    def look(self) -> Picture | None:
        """The sweep now; None where the folder holds no sweep.

        Raises:
            SchemaError: another version of mtpbench wrote sweep.json.
            StoreError: sweep.json is damaged.
        """
        path = self.directory / SWEEP_FILE
        info = self._memory.read(path, lambda: read_record(SweepInfo, path))
        if info is None:
            return None
        begun_s = _changed_s(path)
        trouble: list[str] = []
        jobs, unheard = self._jobs(trouble)
        run = self._run(trouble)
        points = self._look_at_points(info.planned)
        return Picture(
            info=info,
            points=points,
            simulated=any(one.stored is not None and one.stored.result.simulated for one in points)
            or self._will_be_simulated(),
            now_s=self._clock(),
            trouble=tuple(trouble),
            begun_s=begun_s,
            holder=holder_of(self.directory / ".lock"),
            servers=self._servers(begun_s or 0.0),
            writing=tuple(name.split("@")[0] for name in _names(self.directory / ".attempts")),
            run=run,
            run_here=run is not None and run.host == socket.gethostname(),
            jobs=jobs,
            unheard=unheard,
        )

    # ------------------------------------------------------------------------------------------------ points

    def _look_at_points(self, planned: Sequence[str]) -> tuple[SeenPoint, ...]:
        quiet = self._is_quiet()
        places = self._places if quiet else _inodes(self.directory)
        all_of_them = self._looks % ALL_EVERY == 0
        seen: dict[str, SeenPoint] = {}
        for point_id in planned:
            known = self._points.get(point_id)
            # A run renames progress.json into the folder every second, which says nothing of the points.
            stays = not all_of_them and places.get(point_id) == self._places.get(point_id)
            if stays and known is not None and known.state in ("valid", "invalid", "missing"):
                seen[point_id] = known
            elif not quiet and point_id not in places:
                seen[point_id] = SeenPoint(planned=Planned.of(point_id), state="missing")
            else:
                seen[point_id] = self._look_at(point_id)
        self._points, self._places = seen, places
        return tuple(seen.values())

    def _is_quiet(self) -> bool:
        """Whether no point came, went or was replaced: each of these is a rename in the folder.

        Only a time that two looks have found the same is believed, because a change may share its tick with
        the first of them. Results that are recomputed in their places are found
        by looking at all of them now and then.
        """
        found = signature(self.directory)
        folder_ns = found[1] if found else None
        same = folder_ns is not None and self._folder_times == (folder_ns, folder_ns)
        self._folder_times = (self._folder_times[1], folder_ns)
        self._looks += 1
        return same and self._looks % ALL_EVERY != 0

    def _look_at(self, point_id: str) -> SeenPoint:
        planned, place = Planned.of(point_id), self.directory / point_id
        path = place / "result.json"
        state: State = "missing"
        detail = ""
        for _ in range(_TRIES):
            before = signature(path)
            try:
                stored = self._memory.read(path, lambda: read_point(place))
            except (SchemaError, StoreError) as error:
                state = "other schema" if isinstance(error, SchemaError) else "damaged"
                detail = _shortened(error, place)
                if before == signature(path):
                    break
                continue
            if stored is not None and before is not None:
                state = "valid" if stored.result.valid else "invalid"
                return SeenPoint(planned=planned, state=state, stored=stored, landed_s=before[1] / 1e9)
            state, detail = ("incomplete", "result.json is missing") if place.is_dir() else ("missing", "")
            break
        return SeenPoint(planned=planned, state=state, detail=detail, landed_s=_changed_s(path))

    # ----------------------------------------------------------------------------------------- what goes on

    def _servers(self, since_s: float) -> ServerStart | None:
        """The newest start of servers, if it belongs to the last run."""
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
        """What a run says of itself; what can't be read becomes a sentence."""
        path = self.directory / PROGRESS_FILE
        try:
            return self._memory.read(path, lambda: read_progress(path))
        except (SchemaError, StoreError) as error:
            # It may have ended since we looked.
            if path.exists():
                trouble.append(str(error))
            return None

    def _jobs(self, trouble: list[str]) -> tuple[dict[str, JobFiles], tuple[Submission, ...]]:
        """What Slurm jobs left on disk; what can't be read becomes a sentence."""
        jobs: dict[str, JobFiles] = {}
        for name in _names(self._journal.root / "current"):
            key = name.removesuffix(".json")
            if name.startswith(".") or key == name:
                continue
            try:
                if (files := self._job(key)) is not None:
                    jobs[key] = files
            except (SchemaError, StoreError) as error:
                trouble.append(str(error))
        try:
            submissions = self._memory.read(self._journal.root / "journal", self._journal.submissions) or ()
        except StoreError as error:
            trouble.append(str(error))
            submissions = ()
        newest = {key: one for one in submissions for key in one.keys}
        waiting = {
            one.number: one
            for key, one in newest.items()
            if key not in jobs or jobs[key].attempt.job_id != one.task_id(key)
        }
        return jobs, tuple(waiting[number] for number in sorted(waiting))

    def _will_be_simulated(self) -> bool:
        """What says so before the first point lands: the files of its jobs, or the run that is at work."""
        jobs, path = self._journal.root / "jobs", self.directory / PROGRESS_FILE
        with contextlib.suppress(StoreError, SchemaError):
            progress = self._memory.read(path, lambda: read_progress(path))
            if progress is not None and progress.simulated:
                return True
        for name in _names(jobs):
            job = None
            with contextlib.suppress(StoreError, SchemaError):
                job = self._memory.read(jobs / name, partial(self._journal.read_job, jobs / name))
            if job is not None and any(point.simulated for point in job.points):
                return True
        return False

    def _job(self, key: str) -> JobFiles | None:
        root, memory = self._journal.root, self._memory
        attempt = memory.read(root / "current" / f"{key}.json", lambda: self._journal.owner(key))
        if attempt is None:
            return None
        own = self._journal.attempt_directory(attempt)
        return JobFiles(
            attempt=attempt,
            progress=memory.read(own / "progress.json", lambda: self._journal.progress(attempt)),
            finished=memory.read(own / "finished.json", lambda: self._journal.finished(attempt)),
        )


def holder_of(lock: Path) -> Holder:
    """Whether a process of this machine holds a lock's file, without touching the lock."""
    found = signature(lock)
    if found is None:
        return Holder(held=False)
    try:
        text, table = lock.read_text("utf-8"), _LOCKS.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return Holder(held=None)
    pid = int(text) if text.strip().isdigit() else None
    rows = [line.split() for line in table.splitlines()]
    held = any(str(pid) in row and any(word.endswith(f":{found[0]}") for word in row) for row in rows)
    return Holder(held=held, pid=pid)


def _names(folder: Path) -> list[str]:
    """The names in a folder; none where it is not there (a reader makes nothing)."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _inodes(folder: Path) -> dict[str, int]:
    """The names in a folder and what they stand for: a point that is replaced gets another inode."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.inode() for entry in entries}
    except OSError:
        return {}


def _shortened(error: Exception, place: Path) -> str:
    """`not JSON (point.json)`: why a point can't be read, before where; all of the path is the point's."""
    file, _, reason = str(error).removeprefix(f"{place}{os.sep}").partition(": ")
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.strerror:
        reason = cause.strerror
    words = (reason or file).partition(";")[0].partition(" (")[0]
    return f"{words} ({file.partition(':')[0]})" if reason else words


def _changed_s(path: Path) -> float | None:
    found = signature(path)
    return None if found is None else found[1] / 1e9


def _stamp(name: str) -> float | None:
    """When the servers of a folder `key@20261124T102128.246147` were started."""
    try:
        made = datetime.strptime(name.rpartition("@")[2], "%Y%m%dT%H%M%S.%f")
    except ValueError:
        return None
    return made.replace(tzinfo=UTC).timestamp()
