"""The only reader and writer of results/: a point is written whole or not at all.

    results/<sweep>/
        sweep.json              what the tables need to know of the sweep (SweepInfo)
        <point id>/             one finished attempt, taken over by one atomic rename
            point.json          what was measured (Point)
            provenance.json     where it came from (Provenance)
            result.json         everything derived (PointResult); rebuilt by `mtpbench recompute`
            raw.json            what the request table can't tell (ClientHealth, RunFacts)
            requests.parquet    the raw truth: one row per request, chunk times and token counts as lists
            counters.parquet    speculation counters by time and process
            power.parquet       power and energy by time, process and GPU
            logs/               what each process printed while the point ran
        .attempts/              being written; leftovers of dead writers are removed
        .superseded/            attempts that a newer one replaced

An attempt is written under .attempts/, synced to disk, and renamed into place. A kill between the two
renames of a replacement leaves the old attempt in .superseded/; the next writer puts it back.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mtpbench.columns import (
    read_counters,
    read_power,
    read_requests,
    write_counters,
    write_power,
    write_requests,
)
from mtpbench.errors import InputError, SchemaError, StoreError
from mtpbench.records import (
    SCHEMA_VERSION,
    ClientHealth,
    CounterSample,
    Point,
    PointResult,
    PowerSample,
    Provenance,
    RunFacts,
    SweepInfo,
    from_json,
    to_json,
)
from mtpbench.requests import RequestTable

SWEEP_FILE = "sweep.json"
_REPLACING = ".replacing"
"""Ends the name of an attempt whose successor is just taking its place."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class RawPoint:
    """Everything recorded of one point; every statistic can be rebuilt from it."""

    requests: RequestTable
    counters: tuple[CounterSample, ...]
    power: tuple[PowerSample, ...]
    client: ClientHealth
    facts: RunFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPoint:
    """A point as a table needs it: what, how it came out, where it came from, and its directory."""

    point: Point
    result: PointResult
    provenance: Provenance
    directory: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSweep:
    """A sweep's stored points, in the order of the plan.

    `missing` are planned ids without a result; `damaged` those whose files can't be read, and why.
    """

    info: SweepInfo
    points: tuple[StoredPoint, ...]
    missing: tuple[str, ...]
    damaged: Mapping[str, str] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------- reading


def read_sweep(directory: Path) -> StoredSweep:
    """The stored sweep in `directory` (results/<sweep>).

    Points that the sweep file no longer plans are left out: they belong to an earlier plan.

    Raises:
        InputError: the directory holds no sweep.
        SchemaError: something in it was written under another schema version.
        StoreError: sweep.json is damaged.
    """
    if not (directory / SWEEP_FILE).is_file():
        raise InputError(
            f"{directory}: no results here ({SWEEP_FILE} is missing); a folder results/<sweep> is needed"
        )
    info = _read_record(SweepInfo, directory / SWEEP_FILE)
    points: list[StoredPoint] = []
    missing: list[str] = []
    damaged: dict[str, str] = {}
    for point_id in info.planned:
        if not is_complete(directory / point_id):
            missing.append(point_id)
            continue
        try:
            points.append(read_point(directory / point_id))
        except StoreError as error:
            damaged[point_id] = str(error)
    return StoredSweep(info=info, points=tuple(points), missing=tuple(missing), damaged=damaged)


def is_complete(directory: Path) -> bool:
    """Whether `directory` holds a finished attempt (finished attempts appear whole, by rename)."""
    return (directory / "result.json").is_file()


def is_valid(directory: Path) -> bool:
    """Whether a finished attempt broke no validity rule."""
    return _read_record(PointResult, directory / "result.json").valid


def read_point(directory: Path) -> StoredPoint:
    """One stored point without its raw records."""
    return StoredPoint(
        point=_read_record(Point, directory / "point.json", wrapped=True),
        result=_read_record(PointResult, directory / "result.json"),
        provenance=_read_record(Provenance, directory / "provenance.json"),
        directory=directory,
    )


def read_raw(directory: Path) -> RawPoint:
    """The raw records of one stored point."""
    raw = _read_json(directory / "raw.json")
    _check_schema(raw, directory / "raw.json")
    return RawPoint(
        requests=read_requests(directory / "requests.parquet"),
        counters=read_counters(directory / "counters.parquet"),
        power=read_power(directory / "power.parquet"),
        client=_decode(ClientHealth, raw.get("client"), directory / "raw.json"),
        facts=_decode(RunFacts, raw.get("facts"), directory / "raw.json"),
    )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: can't be read ({error})") from error
    except json.JSONDecodeError as error:
        raise StoreError(f"{path}:{error.lineno}: not JSON ({error.msg}); the file was damaged") from error


def _check_schema(data: Any, path: Path) -> None:
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise SchemaError(
            f"{path}: written under schema version {version!r}; this version of mtpbench reads "
            f"{SCHEMA_VERSION}. Use the version that wrote it, or measure again into another --results folder"
        )


def _decode(kind: type[T], data: Any, path: Path) -> T:
    try:
        return from_json(kind, data)
    except ValueError as error:
        raise StoreError(f"{path}: {error}") from error


def _read_record(kind: type[T], path: Path, *, wrapped: bool = False) -> T:
    data = _read_json(path)
    _check_schema(data, path)
    return _decode(kind, data.get("point") if wrapped else data, path)


# ------------------------------------------------------------------------------------------------- writing


class SweepStore:
    """Writes one sweep's results.

    Args:
        root: the results folder.
        info: what is written to sweep.json.
    """

    def __init__(self, root: Path, info: SweepInfo) -> None:
        self.directory = root / info.name
        self.info = info

    def open(self) -> None:
        """Make the folders, put back what a kill left half replaced, and write sweep.json.

        Raises:
            StoreError: the folder can't be written.
        """
        try:
            for name in (".attempts", ".superseded"):
                (self.directory / name).mkdir(parents=True, exist_ok=True)
            self._remove_dead_attempts()
            self._restore_superseded()
            self._refuse_foreign()
            _write_atomically(self.directory / SWEEP_FILE, to_json(self.info))
        except OSError as error:
            raise StoreError(f"{self.directory}: can't be written ({error.strerror})") from error

    def _refuse_foreign(self) -> None:
        """What another version of mtpbench wrote is not overwritten; a damaged sweep.json is."""
        path = self.directory / SWEEP_FILE
        if not path.exists():
            return
        try:
            _check_schema(_read_json(path), path)
        except StoreError:
            return

    def state(self, point_id: str) -> str:
        """`missing`, `valid`, `invalid` or `damaged`.

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
    ) -> Path:
        """Write one point whole and take its place; an older attempt moves to .superseded/.

        Returns:
            The point's directory.

        Raises:
            StoreError: the disk refused; nothing half-written is left in the point's place.
        """
        attempt = self.directory / ".attempts" / f"{point.id}@{socket.gethostname()}@{os.getpid()}"
        try:
            shutil.rmtree(attempt, ignore_errors=True)
            (attempt / "logs").mkdir(parents=True)
            _write_json(attempt / "point.json", {"schema_version": SCHEMA_VERSION, "point": to_json(point)})
            _write_json(attempt / "provenance.json", to_json(provenance))
            _write_json(attempt / "raw.json", _raw_json(raw))
            write_requests(raw.requests, attempt / "requests.parquet")
            write_counters(raw.counters, attempt / "counters.parquet")
            write_power(raw.power, attempt / "power.parquet")
            for name, text in logs.items():
                (attempt / "logs" / f"{name}.log").write_bytes(text)
            _write_json(attempt / "result.json", to_json(result))
            return self._take_over(attempt, self.directory / point.id)
        except OSError as error:
            raise StoreError(f"{attempt}: can't be written ({error.strerror})") from error

    def _take_over(self, attempt: Path, place: Path) -> Path:
        for path in (*attempt.rglob("*"), attempt):
            _sync(path)
        if not place.exists():
            attempt.rename(place)
        elif self.state(place.name) == "valid" and not is_valid(attempt):
            # A valid point is worth more than a newer invalid one, which is kept beside it.
            attempt.rename(self._superseded(place.name))
        else:
            older = self._superseded(place.name)
            leaving = older.with_name(f"{older.name}{_REPLACING}")
            place.rename(leaving)
            attempt.rename(place)
            leaving.rename(older)
        _sync(self.directory)
        return place

    def _superseded(self, name: str) -> Path:
        """A free name for an attempt of a point that is not, or no longer, in its place."""
        folder = self.directory / ".superseded"
        numbers = [path.name.removesuffix(_REPLACING).rpartition("~")[2] for path in folder.glob(f"{name}~*")]
        return folder / f"{name}~{1 + max((int(n) for n in numbers if n.isdigit()), default=-1):04d}"

    def _remove_dead_attempts(self) -> None:
        for attempt in (self.directory / ".attempts").glob("*@*@*"):
            _, host, pid = attempt.name.rsplit("@", 2)
            if host == socket.gethostname() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(attempt)

    def _restore_superseded(self) -> None:
        """Only what a kill interrupted: an older attempt must not come back for a point that was deleted."""
        for leaving in (self.directory / ".superseded").glob(f"*{_REPLACING}"):
            older = leaving.with_name(leaving.name.removesuffix(_REPLACING))
            place = self.directory / older.name.rpartition("~")[0]
            leaving.rename(older if place.exists() else place)


def rewrite_result(directory: Path, result: PointResult) -> None:
    """Replace result.json of a stored point by a recomputed one, atomically."""
    _write_atomically(directory / "result.json", to_json(result))


def write_tables(directory: Path, texts: Mapping[str, str]) -> None:
    """Write tables and pages beside the points they are made of; no reader ever sees half of one.

    Raises:
        StoreError: a file can't be written.
    """
    for name, text in texts.items():
        beside = directory / f".{name}.{os.getpid()}"
        try:
            beside.write_text(text, "utf-8")
            beside.rename(directory / name)
        except OSError as error:
            raise StoreError(f"{directory / name}: can't be written ({error.strerror})") from error


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the sweep's lock: two runs on one machine would measure each other.

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


def _raw_json(raw: RawPoint) -> Mapping[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "client": to_json(raw.client), "facts": to_json(raw.facts)}


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _write_atomically(path: Path, data: Any) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    _write_json(beside, data)
    _sync(beside)
    beside.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
