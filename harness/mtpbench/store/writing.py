"""Writes results/: attempts, renamed into place whole, and the files beside them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mtpbench.errors import SchemaError, StoreError
from mtpbench.records import (
    SCHEMA_VERSION,
    Point,
    PointResult,
    Provenance,
    SweepInfo,
    to_json,
)
from mtpbench.store.columns import (
    write_counters,
    write_power,
    write_requests,
)
from mtpbench.store.reading import SWEEP_FILE, RawPoint, check_schema, is_complete, is_valid, read_json

_REPLACING = ".replacing"
"""The suffix of an attempt that is just being replaced."""
_RENAMES = 100
"""Tries to rename an attempt while other writers rename the same point."""
_OVERTAKEN = frozenset((errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST))
"""Errors of a rename when another writer was first; others, such as ESTALE, are real errors."""


class SweepStore:
    """A sweep store writes the results of one sweep.

    Args:
        root: the results folder.
        info: what is written to sweep.json.
    """

    def __init__(self, root: Path, info: SweepInfo) -> None:
        self.directory = root / info.name
        self.info = info

    def open(self) -> None:
        """Makes the folders, restores what a killed run left half replaced, and writes sweep.json.

        Raises:
            StoreError: the folder can't be written.
        """
        try:
            for name in (".attempts", ".superseded"):
                (self.directory / name).mkdir(parents=True, exist_ok=True)
            self._remove_dead_attempts()
            self._restore_superseded()
            self._refuse_foreign()
            replace_file(self.directory / SWEEP_FILE, json_text(self.info))
        except OSError as error:
            raise StoreError(f"{self.directory}: can't be written ({error.strerror})") from error

    def attach(self) -> None:
        """Joins other machines that write the same sweep: makes what is missing, changes nothing.

        Raises:
            SchemaError: another version of mtpbench wrote sweep.json.
            StoreError: the folder can't be written.
        """
        try:
            for name in (".attempts", ".superseded"):
                (self.directory / name).mkdir(parents=True, exist_ok=True)
            self._refuse_foreign()
            if not (self.directory / SWEEP_FILE).exists():
                replace_file(self.directory / SWEEP_FILE, json_text(self.info))
        except OSError as error:
            raise StoreError(f"{self.directory}: can't be written ({error.strerror})") from error

    def _refuse_foreign(self) -> None:
        """Raises an error where another version wrote sweep.json; a damaged one is overwritten."""
        path = self.directory / SWEEP_FILE
        if not path.exists():
            return
        try:
            check_schema(read_json(path), path)
        except StoreError:
            return

    def state(self, point_id: str) -> str:
        """Returns `missing`, `valid`, `invalid` or `damaged`.

        Raises:
            SchemaError: a result is there that another version wrote.
        """
        directory = self.directory / point_id
        if not is_complete(directory):
            return "missing"
        try:
            return "valid" if is_valid(directory) else "invalid"
        except StoreError:
            return "damaged"

    def write(
        self,
        point: Point,
        result: PointResult,
        provenance: Provenance,
        raw: RawPoint,
        logs: Mapping[str, bytes],
        *,
        superseded: bool = False,
    ) -> Path:
        """Writes one point whole into its place; an older attempt moves to .superseded/.

        Several processes may write, on one machine or on many.

        Args:
            point: what was measured.
            result: everything derived.
            provenance: where it came from.
            raw: what it was derived from.
            logs: the output of each process while the point ran.
            superseded: whether to put it into .superseded/ and leave the point's place as it is.

        Returns:
            The directory that holds the point now, or its place where a valid point stayed there.

        Raises:
            StoreError: the disk refused; nothing half-written is left in the point's place.
        """
        attempt = self.directory / ".attempts" / f"{point.id}@{socket.gethostname()}@{os.getpid()}"
        try:
            shutil.rmtree(attempt, ignore_errors=True)
            (attempt / "logs").mkdir(parents=True)
            version = {"schema_version": SCHEMA_VERSION}
            _write_json(attempt / "point.json", {**version, "point": point})
            _write_json(attempt / "provenance.json", provenance)
            _write_json(attempt / "raw.json", {**version, "client": raw.client, "facts": raw.facts})
            write_requests(raw.requests, attempt / "requests.parquet")
            write_counters(raw.counters, attempt / "counters.parquet")
            write_power(raw.power, attempt / "power.parquet")
            for name, text in logs.items():
                (attempt / "logs" / f"{name}.log").write_bytes(text)
            _write_json(attempt / "result.json", result)
            _sync_all(attempt)
            if superseded:
                return self._set_aside(attempt, point.id)
            return self._take_over(attempt, self.directory / point.id)
        except OSError as error:
            raise StoreError(f"{attempt}: can't be written ({error.strerror})") from error

    def _take_over(self, attempt: Path, place: Path) -> Path:
        """Renames an attempt into its place; tries again where another writer renames the same point."""
        valid = is_valid(attempt)
        for _ in range(_RENAMES):
            if not valid and self.state(place.name) == "valid":
                # A valid point is worth more than a newer invalid one, which is kept beside it.
                self._set_aside(attempt, place.name)
                return place
            leaving = self._move_out(place)
            if leaving is not None and not valid and _holds_valid(leaving):
                # It arrived after the check.
                if not _renamed(leaving, place):
                    self._set_aside(leaving, place.name)
                continue
            arrived = _renamed(attempt, place)
            if leaving is not None:
                self._set_aside(leaving, place.name)
            if arrived:
                _sync(self.directory)
                return place
        raise StoreError(f"{place}: other writers keep taking this place; is the same point run twice?")

    def _move_out(self, place: Path) -> Path | None:
        """Moves an attempt out of a point's place, marked as being replaced; None where there is none."""
        for _ in range(_RENAMES):
            if not place.exists():
                return None
            older = self._superseded(place.name)
            leaving = older.with_name(f"{older.name}{_REPLACING}")
            if _renamed(place, leaving):
                return leaving
        raise StoreError(f"{place}: other writers keep taking this place; is the same point run twice?")

    def _set_aside(self, attempt: Path, name: str) -> Path:
        """Moves an attempt to .superseded/, under a name of its own."""
        if attempt.name.endswith(_REPLACING):
            aside = attempt.with_name(attempt.name.removesuffix(_REPLACING))
            if _renamed(attempt, aside):
                return aside
        for _ in range(_RENAMES):
            aside = self._superseded(name)
            if _renamed(attempt, aside) or not attempt.exists():
                return aside
        raise StoreError(f"{attempt}: no free name for it in {self.directory / '.superseded'}")

    def _superseded(self, name: str) -> Path:
        """Returns a free name in .superseded/ for an attempt of a point."""
        folder = self.directory / ".superseded"
        numbers = [path.name.removesuffix(_REPLACING).rpartition("~")[2] for path in folder.glob(f"{name}~*")]
        return folder / f"{name}~{1 + max((int(n) for n in numbers if n.isdigit()), default=-1):04d}"

    def _remove_dead_attempts(self) -> None:
        for attempt in (self.directory / ".attempts").glob("*@*@*"):
            _, host, pid = attempt.name.rsplit("@", 2)
            if host == socket.gethostname() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(attempt)

    def _restore_superseded(self) -> None:
        """Restores only what a kill interrupted: no older attempt comes back for a point that was deleted."""
        for leaving in (self.directory / ".superseded").glob(f"*{_REPLACING}"):
            older = leaving.with_name(leaving.name.removesuffix(_REPLACING))
            place = self.directory / older.name.rpartition("~")[0]
            if not _renamed(leaving, place):
                _renamed(leaving, older)


def rewrite_result(directory: Path, result: PointResult) -> None:
    """Replaces result.json of a stored point by a recomputed result, atomically."""
    replace_file(directory / "result.json", json_text(result))


def json_text(record: Any) -> str:
    """Returns the text of a JSON file: of a record, or of plain values with records in them."""
    return json.dumps(to_json(record), indent=1, ensure_ascii=False) + "\n"


def replace_file(path: Path, content: str | bytes, *, sync: bool = True, parents: bool = False) -> None:
    """Writes a file beside its place, then renames it over its place; no reader ever sees half of a file.

    Args:
        path: its place.
        content: what it holds.
        sync: whether to wait until the disk has it; what is made anew at any time need not.
        parents: whether to make the folders that it lies in.

    Raises:
        StoreError: it can't be written; what was in its place is still there.
    """
    beside = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        if sync:
            _sync(beside)
        beside.rename(path)
        if sync:
            _sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise StoreError(f"{path}: can't be written ({error.strerror})") from error


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Holds the sweep's lock: two runs on one machine would disturb each other's figures.

    Raises:
        StoreError: another run holds it; the message names its process id.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        held = (directory / ".lock").open("a+")
    except OSError as error:
        raise StoreError(f"{directory}: can't be written ({error.strerror})") from error
    with held as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StoreError(
                f"{directory}: another run is writing here (process {lock.read().strip() or 'unknown'}); "
                "wait for it or stop it"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _holds_valid(directory: Path) -> bool:
    try:
        return is_complete(directory) and is_valid(directory)
    except (StoreError, SchemaError):
        return False


def _renamed(source: Path, target: Path) -> bool:
    """Renames a folder; returns False where the target exists, or another writer has moved the source."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in _OVERTAKEN:
            return False
        raise
    return True


def _write_json(path: Path, record: Any) -> None:
    path.write_text(json_text(record), "utf-8")


def _sync_all(directory: Path) -> None:
    for path in (*directory.rglob("*"), directory):
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
