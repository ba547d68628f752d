"""Reads stored points and sweeps from results/; refuses what a newer or too old schema version wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from mtpbench.errors import InputError, SchemaError, StoreError
from mtpbench.metrics.packed_chunks import Requests
from mtpbench.records import (
    READABLE_VERSIONS,
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
)
from mtpbench.store.columns import read_counters, read_packed, read_power
from mtpbench.store.migration import FIRST_WITH_FIELDS, upgraded

SWEEP_FILE = "sweep.json"
MEASURE_AGAIN = "Use the version that wrote it, or measure again into another --results folder"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class RawPoint:
    """The raw records of one point; every statistic can be computed from them again.

    Args:
        requests: every request, warm-up and failed ones included.
        counters: scrapes of the speculation counters, in engine seconds.
        power: readings of power, in engine seconds.
        client: how the load client did.
        facts: what the records can't tell (a dead server, a cut-off).
    """

    requests: Requests
    counters: tuple[CounterSample, ...] = ()
    power: tuple[PowerSample, ...] = ()
    client: ClientHealth = field(default_factory=ClientHealth)
    facts: RunFacts = field(default_factory=RunFacts)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPoint:
    """A stored point is a point with its result, its provenance and its directory."""

    point: Point
    result: PointResult
    provenance: Provenance
    directory: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSweep:
    """A stored sweep holds the stored points of a sweep, in the order of the plan.

    `missing` are planned ids without a result; `damaged` holds why the files of other ids can't be read.
    """

    info: SweepInfo
    points: tuple[StoredPoint, ...]
    missing: tuple[str, ...]
    damaged: Mapping[str, str] = field(default_factory=dict)


def read_sweep(directory: Path) -> StoredSweep:
    """Reads the stored sweep in `directory` (results/<sweep>).

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
    info = read_record(SweepInfo, directory / SWEEP_FILE)
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
    """Returns whether `directory` holds a finished attempt (finished attempts appear whole, by rename)."""
    return (directory / "result.json").is_file()


def is_valid(directory: Path) -> bool:
    """Returns whether a finished attempt broke no validity rule."""
    return read_record(PointResult, directory / "result.json").valid


def read_point(directory: Path) -> StoredPoint:
    """Reads one stored point without its raw records."""
    return StoredPoint(
        point=read_record(Point, directory / "point.json", wrapped=True),
        result=read_record(PointResult, directory / "result.json"),
        provenance=read_record(Provenance, directory / "provenance.json"),
        directory=directory,
    )


def read_raw(directory: Path) -> RawPoint:
    """Reads the raw records of one stored point."""
    raw = read_json(directory / "raw.json")
    version = check_schema(raw, directory / "raw.json")
    return RawPoint(
        requests=read_packed(directory / "requests.parquet"),
        counters=read_counters(directory / "counters.parquet"),
        power=read_power(directory / "power.parquet"),
        client=decode(ClientHealth, raw.get("client"), directory / "raw.json", version),
        facts=decode(RunFacts, raw.get("facts"), directory / "raw.json", version),
    )


def read_json(path: Path) -> Any:
    """Reads a file's JSON.

    Raises:
        StoreError: it can't be read, or is damaged.
    """
    try:
        return orjson.loads(path.read_bytes())
    except OSError as error:
        reason = error.strerror or "can't be read"
        raise StoreError(f"{path}: can't be read ({error})", path=path, reason=reason) from error
    except orjson.JSONDecodeError as error:
        raise StoreError(
            f"{path}:{error.lineno}: not JSON ({error.msg}); the file was damaged",
            path=path,
            reason="not JSON",
        ) from error


def check_schema(
    data: Any, path: Path, versions: Sequence[int] = READABLE_VERSIONS, remedy: str = MEASURE_AGAIN
) -> int:
    """Returns the schema version that wrote the data, and refuses a version that can't be read.

    Args:
        data: the file's JSON.
        path: the file.
        versions: the versions that can be read.
        remedy: advice for other versions.

    Raises:
        SchemaError: says which version wrote it, and what can be done.
    """
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or version not in versions:
        readable = " and ".join(filter(None, (", ".join(map(str, versions[:-1])), str(versions[-1]))))
        written = f"written under schema version {version!r}"
        raise SchemaError(
            f"{path}: {written}; this version of mtpbench reads {readable}. {remedy}",
            path=path,
            reason=written,
        )
    return version


def decode(kind: type[T], data: Any, path: Path, version: int = SCHEMA_VERSION) -> T:
    """Returns the record in a file's JSON, which the given schema version wrote.

    Raises:
        StoreError: the file lacks something; says what.
    """
    try:
        return from_json(kind, upgraded(kind, data) if version < FIRST_WITH_FIELDS else data)
    except ValueError as error:
        raise StoreError(f"{path}: {error}", path=path, reason=str(error)) from error


def read_record(
    kind: type[T],
    path: Path,
    *,
    wrapped: bool = False,
    versions: Sequence[int] = READABLE_VERSIONS,
    remedy: str = MEASURE_AGAIN,
) -> T:
    """Reads the record in a file, or under its key `point` where `wrapped`.

    Args:
        kind: of the record; the version is checked where it has a field for it.
        path: the file.
        wrapped: whether the file holds the version beside the record.
        versions: the versions that can be read.
        remedy: advice for other versions.

    Raises:
        SchemaError, StoreError: as `check_schema` and `read_json` say.
    """
    data = read_json(path)
    version = SCHEMA_VERSION
    if wrapped or "schema_version" in getattr(kind, "__dataclass_fields__", ()):
        version = check_schema(data, path, versions, remedy)
    return decode(kind, data.get("point") if wrapped else data, path, version)
