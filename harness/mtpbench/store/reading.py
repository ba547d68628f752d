"""Reads stored points and sweeps from results/; refuses what a newer or too old schema version wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from mtpbench.redaction import REDACTED, looks_secret, variables_in, without_credentials
from mtpbench.store.columns import read_counters, read_packed, read_power
from mtpbench.store.files import guarded, is_there, read_bytes
from mtpbench.store.migration import FIRST_WITH_FIELDS, upgraded

SWEEP_FILE = "sweep.json"
MEASURE_AGAIN = "Use the version that wrote it, or measure again into another --results folder"
_SHOWN = 200
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
    """A stored point is a point with its result, its provenance and its directory.

    `own_id` is the id that its record has; None where an older version wrote that.
    """

    point: Point
    result: PointResult
    provenance: Provenance
    directory: Path
    own_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSweep:
    """A stored sweep holds the stored points of a sweep, in the order of the plan.

    `missing` are planned ids with nothing in their place; `damaged` holds why what is there can't be read.
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
    if not is_there(directory / SWEEP_FILE):
        raise InputError(
            f"{directory}: no results here ({SWEEP_FILE} is missing); a folder results/<sweep> is needed"
        )
    info = read_record(SweepInfo, directory / SWEEP_FILE)
    points: list[StoredPoint] = []
    missing: list[str] = []
    damaged: dict[str, str] = {}
    for point_id in info.planned:
        try:
            stored = read_place(directory / point_id)
        except StoreError as error:
            damaged[point_id] = str(error)
            continue
        if stored is None:
            missing.append(point_id)
        else:
            points.append(stored)
    return StoredSweep(info=info, points=tuple(points), missing=tuple(missing), damaged=damaged)


def read_place(place: Path) -> StoredPoint | None:
    """Reads the point in its place, results/<sweep>/<point id>; None where nothing is there.

    Raises:
        SchemaError: another version wrote it.
        StoreError: the point is damaged: a file can't be read, or is another point's.
    """
    return read_attempt(place, place.name) if is_there(place) else None


def read_attempt(directory: Path, point_id: str) -> StoredPoint:
    """Reads an attempt at a point, wherever it lies.

    Raises:
        SchemaError, StoreError: as `read_place` says.
    """
    stored = read_point(directory)
    for name, found in (("result.json", stored.result.point_id), ("point.json", stored.own_id)):
        if found is not None and found != point_id:
            path, reason = directory / name, f"holds another point, {found[:_SHOWN]}"
            raise StoreError(f"{path}: {reason}", path=path, reason=reason)
    return stored


def read_point(directory: Path) -> StoredPoint:
    """Reads one stored point without its raw records, wherever it lies."""
    path = directory / "point.json"
    data = read_json(path)
    version = check_schema(data, path)
    point = decode(Point, data.get("point"), path, version)
    return StoredPoint(
        point=point,
        result=read_record(PointResult, directory / "result.json"),
        provenance=_shareable(read_record(Provenance, directory / "provenance.json")),
        directory=directory,
        # What an older version hashed may have been less.
        own_id=point.id if version == SCHEMA_VERSION else None,
    )


def _shareable(provenance: Provenance) -> Provenance:
    """Returns a provenance without what older versions kept: tokens, and passwords in URLs."""
    return replace(
        provenance,
        command_lines={
            name: tuple(map(without_credentials, argv)) for name, argv in provenance.command_lines.items()
        },
        environment={
            name: REDACTED if looks_secret(name) and not variables_in(value) else without_credentials(value)
            for name, value in provenance.environment.items()
        },
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
    content = read_bytes(path)
    with guarded(path):
        try:
            return orjson.loads(content)
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
        StoreError: no version stands in it.
    """
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int:
        reason = "no record of ours: it says no schema version"
        raise StoreError(f"{path}: {reason}", path=path, reason=reason)
    if version not in versions:
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
    with guarded(path):
        try:
            return from_json(kind, upgraded(kind, data) if version < FIRST_WITH_FIELDS else data)
        except ValueError as error:
            raise StoreError(f"{path}: {error}", path=path, reason=str(error)) from error


def read_record(
    kind: type[T],
    path: Path,
    *,
    versions: Sequence[int] = READABLE_VERSIONS,
    remedy: str = MEASURE_AGAIN,
) -> T:
    """Reads the record in a file.

    Args:
        kind: of the record; the version is checked where it has a field for it.
        path: the file.
        versions: the versions that can be read.
        remedy: advice for other versions.

    Raises:
        SchemaError, StoreError: as `check_schema` and `read_json` say.
    """
    data = read_json(path)
    version = SCHEMA_VERSION
    if "schema_version" in getattr(kind, "__dataclass_fields__", ()):
        version = check_schema(data, path, versions, remedy)
    return decode(kind, data, path, version)
