"""Writes results/: attempts, renamed into place whole, and the files beside them."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

from mtpbench.errors import RunError, SchemaError, StoreError
from mtpbench.records import (
    SCHEMA_VERSION,
    Point,
    PointResult,
    Provenance,
    SweepInfo,
    to_json,
    well_formed,
)
from mtpbench.store.columns import (
    write_counters,
    write_power,
    write_requests,
)
from mtpbench.store.files import (
    create_file,
    guarded,
    is_alive,
    is_there,
    make_folder,
    new_file,
    own_mark,
    remove_leftovers,
    replace_file,
    sync_path,
)
from mtpbench.store.reading import (
    SWEEP_FILE,
    RawPoint,
    StoredPoint,
    check_schema,
    read_attempt,
    read_json,
    read_place,
    read_point,
    read_raw,
)

_REPLACING = ".replacing"
"""The suffix of an attempt that is just being replaced."""
_RENAMES = 100
"""Tries to rename an attempt while other writers rename the same point."""
_OVERTAKEN = frozenset((errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST))
"""Errors of a rename when another writer was first; others, such as ESTALE, are real errors."""


_NUMBER = re.compile(r"[0-9]{1,9}")
PlaceState = Literal["missing", "valid", "invalid", "damaged"]


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
                make_folder(self.directory / name)
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
                make_folder(self.directory / name)
            self._refuse_foreign()
            if not is_there(self.directory / SWEEP_FILE):
                replace_file(self.directory / SWEEP_FILE, json_text(self.info))
        except OSError as error:
            raise StoreError(f"{self.directory}: can't be written ({error.strerror})") from error

    def _refuse_foreign(self) -> None:
        """Raises an error where another version wrote sweep.json; a damaged one is overwritten."""
        path = self.directory / SWEEP_FILE
        if not is_there(path):
            return
        try:
            check_schema(read_json(path), path)
        except StoreError:
            return

    def state(self, point_id: str) -> PlaceState:
        """Returns `missing`, `valid`, `invalid`, or `damaged` where `read_sweep` calls the point that.

        Raises:
            SchemaError: a point is there that another version wrote.
        """
        try:
            stored = read_place(self.directory / point_id)
        except StoreError:
            return "damaged"
        if stored is None:
            return "missing"
        return "valid" if stored.result.valid else "invalid"

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
        attempt = self.directory / ".attempts" / f"{point.id}@{own_mark('@')}"
        try:
            make_folder(attempt.parent)
            attempt.mkdir()
            (attempt / "logs").mkdir()
            version = {"schema_version": SCHEMA_VERSION}
            _write_json(attempt / "point.json", {**version, "point": point})
            _write_json(attempt / "provenance.json", provenance)
            _write_json(attempt / "raw.json", {**version, "client": raw.client, "facts": raw.facts})
            write_requests(raw.requests, attempt / "requests.parquet")
            write_counters(raw.counters, attempt / "counters.parquet")
            write_power(raw.power, attempt / "power.parquet")
            for name, text in logs.items():
                create_file(attempt / "logs" / f"{name}.log", text)
            _write_json(attempt / "result.json", result)
            _sync_all(attempt)
            if superseded:
                return self._set_aside(attempt, point.id)
            return self._take_over(attempt, self.directory / point.id, valid=result.valid)
        except OSError as error:
            raise StoreError(f"{attempt}: can't be written ({error.strerror})") from error
        except ValueError as error:
            raise StoreError(f"{attempt}: can't be written ({error})") from error

    def _take_over(self, attempt: Path, place: Path, *, valid: bool) -> Path:
        """Renames an attempt into its place; tries again where another writer renames the same point."""
        for _ in range(_RENAMES):
            if not valid and self.state(place.name) == "valid":
                # A valid point is worth more than a newer invalid one, which is kept beside it.
                self._set_aside(attempt, place.name)
                return place
            leaving = self._move_out(place)
            if leaving is not None and not valid and _holds_valid(leaving, place.name):
                # It arrived after the check.
                if not _renamed(leaving, place):
                    self._set_aside(leaving, place.name)
                continue
            arrived = _renamed(attempt, place)
            if leaving is not None:
                self._set_aside(leaving, place.name)
            if arrived:
                sync_path(self.directory)
                return place
        raise StoreError(f"{place}: other writers keep taking this place; is the same point run twice?")

    def _move_out(self, place: Path) -> Path | None:
        """Moves an attempt out of a point's place, marked as being replaced; None where there is none."""
        for _ in range(_RENAMES):
            if not is_there(place):
                return None
            older = self._superseded(place.name)
            leaving = older.with_name(f"{older.name}{_REPLACING}")
            try:
                if _renamed(place, leaving):
                    return leaving
            except PermissionError:
                self._hide(place, older.name)
        raise StoreError(f"{place}: other writers keep taking this place; is the same point run twice?")

    def _hide(self, place: Path, name: str) -> None:
        """Moves what can't leave its parent aside within it: a folder that we may not write to.

        Raises:
            StoreError: that is refused too; says what can be done.
        """
        try:
            _renamed(place, self.directory / f".{name}")
        except OSError as error:
            raise StoreError(
                f"{place}: can't be moved out of the way of a new measurement ({error.strerror}); "
                "move it, or ask its owner to"
            ) from error

    def _set_aside(self, attempt: Path, name: str) -> Path:
        """Moves an attempt to .superseded/, under a name of its own."""
        if attempt.name.endswith(_REPLACING):
            aside = attempt.with_name(attempt.name.removesuffix(_REPLACING))
            if _renamed(attempt, aside):
                return aside
        for _ in range(_RENAMES):
            aside = self._superseded(name)
            if _renamed(attempt, aside) or not is_there(attempt):
                return aside
        raise StoreError(f"{attempt}: no free name for it in {self.directory / '.superseded'}")

    def _superseded(self, name: str) -> Path:
        """Returns a free name in .superseded/ for an attempt of a point."""
        folder = self.directory / ".superseded"
        pattern = re.compile(rf"\.?{re.escape(name)}~(\d{{1,9}})({re.escape(_REPLACING)})?")
        used = [
            int(match[1])
            for place in (folder, self.directory)
            for entry in os.listdir(place)
            if (match := pattern.fullmatch(entry))
        ]
        return folder / f"{name}~{1 + max(used, default=-1):04d}"

    def _remove_dead_attempts(self) -> None:
        for attempt in (self.directory / ".attempts").glob("*@*@*"):
            _, host, pid = attempt.name.rsplit("@", 2)
            number = pid.partition(".")[0]
            if host == socket.gethostname() and _NUMBER.fullmatch(number) and not is_alive(int(number)):
                # What belongs to another user, or is a link, stays.
                shutil.rmtree(attempt, ignore_errors=True)

    def _restore_superseded(self) -> None:
        """Restores only what a kill interrupted: no older attempt comes back for a point that was deleted."""
        for leaving in (self.directory / ".superseded").glob(f"*{_REPLACING}"):
            older = leaving.with_name(leaving.name.removesuffix(_REPLACING))
            place = self.directory / older.name.rpartition("~")[0]
            if not _renamed(leaving, place):
                _renamed(leaving, older)


class OpenAttempt:
    """An open attempt is a stored point that stays the same one, though a run replaces it meanwhile.

    Its folder is held open: a result goes into that one, wherever a new measurement has moved it.

    Args:
        directory: the folder.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._handle = -1

    def __enter__(self) -> Self:
        with guarded(self.directory):
            self._handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def read(self) -> tuple[StoredPoint, RawPoint]:
        """Reads the point and its raw records.

        Raises:
            RunError: a run replaced it meanwhile, so that its files may be of two attempts.
            SchemaError, StoreError: as `read_place` says.
        """
        try:
            return read_point(self.directory), read_raw(self.directory)
        finally:
            with guarded(self.directory):
                if not os.path.samestat(os.stat(self.directory), os.fstat(self._handle)):
                    raise RunError(f"{self.directory}: a run has just measured it again")

    def rewrite_result(self, result: PointResult) -> None:
        """Replaces result.json by a recomputed result, atomically.

        Raises:
            StoreError: it can't be written; what was there still is.
        """
        name, beside, folder = "result.json", f".result.json.{own_mark()}", self._handle
        remove_leftovers(self.directory)
        try:
            with new_file(beside, folder=folder) as file:
                file.write(json_text(result).encode())
                file.flush()
                os.fsync(file.fileno())
            os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        except OSError as error:
            with suppress(OSError):
                os.unlink(beside, dir_fd=folder)
            raise StoreError(f"{self.directory / name}: can't be written ({error.strerror})") from error


def json_text(record: Any) -> str:
    """Returns the text of a JSON file: of a record, or of plain values with records in them.

    Whatever texts it holds, UTF-8 can hold it: half a surrogate pair, which a server may have sent, is �.
    """
    return well_formed(json.dumps(to_json(record), indent=1, ensure_ascii=False)) + "\n"


def _holds_valid(directory: Path, point_id: str) -> bool:
    try:
        return read_attempt(directory, point_id).result.valid
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
    create_file(path, json_text(record).encode())


def _sync_all(directory: Path) -> None:
    for path in (*directory.rglob("*"), directory):
        sync_path(path)
