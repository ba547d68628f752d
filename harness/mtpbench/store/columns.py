"""Parquet files hold the raw records: request tables, counter samples, power samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtpbench.errors import StoreError
from mtpbench.metrics.packed_chunks import BATCH_CHUNKS, ChunkBatch, PackedTable, Requests, batches, smallest
from mtpbench.metrics.request_table import TOLD, UNKNOWN, Ints, RequestTable, whole_us
from mtpbench.records import (
    MOST_CATEGORIES,
    CounterSample,
    PowerSample,
    SpecCounters,
    SpecGauge,
    to_json,
    well_formed,
)
from mtpbench.store.files import check_file, guarded

_TIMES = {"scheduled_us": "scheduled_s", "sent_us": "sent_s", "end_us": "end_s"}
"""The columns of times, and what they are called up to schema 4, which held them as float seconds."""
_INTS = ("index", "slot", "asked_prompt_tokens", "asked_output_tokens", *_TIMES)
_SINCE_6 = ("cached_prompt_tokens", "reasoning_tokens")
"""Columns that files of an older schema lack: unknown there."""
_SINCE_9 = (*TOLD, "category")
"""Columns that files of an older schema lack, and that are null where no request has a value."""
_KNOWN_OR_NULL = ("prompt_tokens", "output_tokens", *_SINCE_6)
_GAUGE = pa.struct([("rank", pa.string()), ("length", pa.float64()), ("verify_calls", pa.float64())])
_GAPS, _BROUGHT = "chunk_gaps_us", "chunk_tokens_brought"
_TEXTS = ("finish_reason", "error", "error_detail")
_ROW_COLUMNS = (*_INTS, "warmup", "prompt_tokens", "output_tokens", *_TEXTS)
_REQUESTS = pa.schema(
    [
        *((name, pa.int64()) for name in _INTS),
        ("warmup", pa.bool_()),
        *((name, pa.int64()) for name in _KNOWN_OR_NULL),
        *((name, pa.int64()) for name in TOLD),
        *((name, pa.string()) for name in ("category", *_TEXTS)),
        (_GAPS, pa.large_list(pa.int64())),
        (_BROUGHT, pa.large_list(pa.int64())),
    ]
)
_COUNTERS = pa.schema(
    [
        ("time_s", pa.float64()),
        ("process", pa.string()),
        *((name, pa.float64()) for name in ("drafts", "draft_tokens", "accepted_tokens")),
        ("per_position", pa.list_(pa.float64())),
        ("gauges", pa.list_(_GAUGE)),
        ("reason", pa.string()),
        ("restarted", pa.bool_()),
    ]
)
_POWER = pa.schema(
    [
        ("time_s", pa.float64()),
        ("process", pa.string()),
        ("gpu", pa.int64()),
        *((name, pa.float64()) for name in ("power_w", "energy_j")),
    ]
)
_MOST_US = 1 << 44
"""Times are below 200 days: `packed_chunks` sorts by request and time as one number."""
_MOST = 1 << 53
"""No count is larger, and no sum of gaps or tokens; a float holds them all exactly."""
_MOST_PHYSICAL = 1e15
"""No second, watt or joule is more than this."""
_GROUP_CHUNKS = 1 << 22
"""Chunks of a row group, about, so that neither writer nor reader holds all chunks decoded at once."""
_BUFFER_BYTES = 1 << 20
T = TypeVar("T")


def write_requests(table: Requests, path: Path) -> None:
    """Writes the request table: null where the server did not report a value."""
    # The bytes of gaps are split into streams: the high bytes are nearly constant, the low ones noise.
    with (
        _open(path, "wb") as sink,
        pq.ParquetWriter(
            sink,
            _REQUESTS,
            compression="zstd",
            use_dictionary=[f"{_BROUGHT}.list.element", "category", *_TEXTS],
            column_encoding={f"{_GAPS}.list.element": "BYTE_STREAM_SPLIT"},
            write_page_checksum=True,
        ) as writer,
    ):
        for batch in batches(table, _GROUP_CHUNKS):
            writer.write_table(pa.table(_columns(table, batch), _REQUESTS))


def _columns(table: Requests, batch: ChunkBatch) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: pa.array(getattr(table, name)[batch.rows]) for name in (*_INTS, "warmup")
    }
    for name in _KNOWN_OR_NULL:
        columns[name] = _nullable(getattr(table, name)[batch.rows])
    for name in TOLD:
        column = getattr(table, name)
        columns[name] = (
            pa.nulls(len(batch.counts), pa.int64()) if column is None else _nullable(column[batch.rows])
        )
    for name in ("category", *_TEXTS):
        column = getattr(table, name)
        texts = [None] * len(batch.counts) if column is None else column[batch.rows].tolist()
        columns[name] = _text_array(texts)
    offsets = pa.array(batch.offsets, pa.int64())
    columns[_GAPS] = pa.LargeListArray.from_arrays(offsets, pa.array(batch.gaps_us, pa.int64()))
    columns[_BROUGHT] = pa.LargeListArray.from_arrays(offsets, _nullable(batch.brought.astype(np.int64)))
    return columns


def read_requests(path: Path) -> RequestTable:
    """Reads the request table that `write_requests` wrote, with its chunks unpacked.

    Raises:
        StoreError: the file is damaged or lacks a column.
    """
    return read_packed(path).unpacked()


def read_packed(path: Path) -> PackedTable:
    """Reads the request table that `write_requests` wrote, with its chunks in the smallest integers.

    The file is decoded piece by piece, whether it has one row group or many.

    Raises:
        StoreError: the file is damaged or lacks a column.
    """
    return _guarded(path, _REQUESTS, _packed, younger=(*_SINCE_6, *_SINCE_9))


def _packed(file: pq.ParquetFile) -> PackedTable:
    column_names = file.schema_arrow.names
    data = file.read(
        columns=[name if name in column_names else _TIMES[name] for name in _ROW_COLUMNS]
        + [name for name in (*_SINCE_6, *_SINCE_9) if name in column_names]
    )
    # The bytes of a text may be none.
    data.validate(full=True)
    columns: dict[str, Any] = {name: _row_ints(data, name) for name in _INTS}
    columns["warmup"] = _filled(data, "warmup").to_numpy()
    for name in _KNOWN_OR_NULL:
        known = name in data.column_names
        columns[name] = _ints(data[name]) if known else np.full(len(data), UNKNOWN, np.int64)
        _check_range(name, columns[name], UNKNOWN, _MOST)
    columns |= _since_9(data)
    columns |= {name: _objects(data[name].to_pylist()) for name in _TEXTS}
    if (columns["end_us"] < columns["sent_us"]).any():
        raise ValueError("a request ends before it was sent")
    chunks = tuple(_read_chunks(file, columns["sent_us"]))
    counts = np.concatenate([np.empty(0, np.int64), *(batch.counts for batch in chunks)])
    if len(counts) != len(data):
        raise ValueError(f"{len(counts)} lists of chunks for {len(data)} requests")
    return PackedTable(**columns, chunk_offsets=np.concatenate(([0], np.cumsum(counts))), chunks=chunks)


def _since_9(data: Any) -> dict[str, Any]:
    """Returns the columns that older files lack; None of one that holds nothing."""
    filled = [name for name in _SINCE_9 if name in data.column_names and data[name].null_count < len(data)]
    columns: dict[str, Any] = {name: _ints(data[name]) for name in filled if name in TOLD}
    for name, column in columns.items():
        _check_range(name, column, UNKNOWN, _MOST)
    if "category" in filled:
        columns["category"] = _objects(data["category"].to_pylist())
        if (kinds := len({*columns["category"]} - {None})) > MOST_CATEGORIES:
            raise ValueError(
                f"category holds {kinds} kinds of text: no dataset has more than {MOST_CATEGORIES}"
            )
    return columns


def _row_ints(data: Any, name: str) -> Ints:
    """Returns a column of whole numbers, none of them unknown."""
    if name in data.column_names:
        values = _filled(data, name).to_numpy()
    else:
        times_s = _filled(data, _TIMES[name]).to_numpy()
        _check_range(_TIMES[name], times_s, -_MOST_US * 1e-6, _MOST_US * 1e-6)
        values = whole_us(times_s)
    least, most = (-_MOST_US, _MOST_US) if name in _TIMES else (UNKNOWN, _MOST)
    _check_range(name, values, least, most)
    return np.asarray(values, np.int64)


def _read_chunks(file: pq.ParquetFile, sent_us: Ints) -> Iterator[ChunkBatch]:
    whole = sum(group.num_rows for group in map(file.metadata.row_group, range(file.num_row_groups)))
    chunks = sum(_values(file, group) for group in range(file.num_row_groups))
    first = 0
    for piece in file.iter_batches(
        batch_size=max(1, int(BATCH_CHUNKS * whole / max(chunks, 1))), columns=[_GAPS, _BROUGHT]
    ):
        rows = slice(first, first := first + len(piece))
        offsets, gaps = _lists(piece, _GAPS, -_MOST)
        of_tokens, brought = _lists(piece, _BROUGHT, UNKNOWN)
        if not np.array_equal(offsets, of_tokens):
            raise ValueError(f"{_GAPS} and {_BROUGHT} hold lists of different lengths")
        yield ChunkBatch(
            rows=rows,
            offsets=offsets,
            sent_us=sent_us[rows],
            gaps_us=smallest(gaps),
            brought=smallest(brought),
        )


def _lists(piece: Any, name: str, least: int) -> tuple[Ints, Ints]:
    """Returns the offsets of a column of lists, from 0, and the values of all; their sums stay in bounds."""
    column = _filled(piece, name)
    offsets, values = column.offsets.to_numpy().astype(np.int64), _ints(column.flatten())
    most = _MOST // max(1, len(values))
    _check_range(name, values, max(least, -most), most)
    return offsets - offsets[0], values


def _values(file: pq.ParquetFile, group: int) -> int:
    """Returns the number of chunks in a row group (a request without any counts as one)."""
    row_group = file.metadata.row_group(group)
    columns = (row_group.column(i) for i in range(row_group.num_columns))
    return int(next(column.num_values for column in columns if column.path_in_schema.startswith(_GAPS)))


def write_counters(samples: Sequence[CounterSample], path: Path) -> None:
    """Writes counter samples; a failed scrape keeps its row, with nulls and the reason."""
    counters = [sample.counters for sample in samples]
    gauges = [[to_json(gauge) for gauge in sample.gauges] for sample in samples]
    columns = {
        "time_s": [s.time_s for s in samples],
        "process": _text_array([s.process for s in samples]),
        "drafts": [c and c.drafts for c in counters],
        "draft_tokens": [c and c.draft_tokens for c in counters],
        "accepted_tokens": [c and c.accepted_tokens for c in counters],
        "per_position": [c and list(c.per_position) for c in counters],
        "gauges": gauges,
        "reason": _text_array([s.reason for s in samples]),
        "restarted": [s.restarted for s in samples],
    }
    _write(columns, _COUNTERS, path)


def read_counters(path: Path) -> tuple[CounterSample, ...]:
    """Reads the counter samples that `write_counters` wrote.

    Raises:
        StoreError: the file is damaged, or lacks a column.
    """
    return _guarded(path, _COUNTERS, _counter_samples, younger=("restarted",))


def _counter_samples(file: pq.ParquetFile) -> tuple[CounterSample, ...]:
    return tuple(
        CounterSample(
            time_s=row["time_s"],
            process=row["process"],
            counters=None
            if row["accepted_tokens"] is None
            else SpecCounters(
                drafts=row["drafts"],
                draft_tokens=row["draft_tokens"],
                accepted_tokens=row["accepted_tokens"],
                per_position=tuple(row["per_position"]),
            ),
            gauges=tuple(SpecGauge(**gauge) for gauge in row["gauges"]),
            reason=row["reason"],
            restarted=bool(row.get("restarted")),
        )
        for row in _sample_rows(file, _COUNTERS)
    )


def write_power(samples: Sequence[PowerSample], path: Path) -> None:
    """Writes power samples."""
    columns = {
        "time_s": [s.time_s for s in samples],
        "process": _text_array([s.process for s in samples]),
        "gpu": [s.gpu for s in samples],
        "power_w": [s.power_w for s in samples],
        "energy_j": [s.energy_j for s in samples],
    }
    _write(columns, _POWER, path)


def read_power(path: Path) -> tuple[PowerSample, ...]:
    """Reads the power samples that `write_power` wrote.

    Raises:
        StoreError: the file is damaged, or lacks a column.
    """
    return _guarded(path, _POWER, _power_samples)


def _power_samples(file: pq.ParquetFile) -> tuple[PowerSample, ...]:
    samples = tuple(PowerSample(**row) for row in _sample_rows(file, _POWER))
    for name in ("power_w", "energy_j"):
        known = [value for sample in samples if (value := getattr(sample, name)) is not None]
        _check_range(name, np.array(known, np.float64), -_MOST_PHYSICAL, _MOST_PHYSICAL)
    return samples


def _write(columns: Mapping[str, Any], schema: pa.Schema, path: Path) -> None:
    # A flipped byte of a page is then found when it is read.
    with _open(path, "wb") as sink:
        pq.write_table(pa.table(columns, schema), sink, compression="zstd", write_page_checksum=True)


def _open(path: Path, mode: Literal["rb", "wb"]) -> pa.OSFile:
    """Opens a file by the bytes of its path: of a text, pyarrow expands a `~`, and wants it to be UTF-8."""
    return pa.OSFile(os.fsencode(path), mode)


def _sample_rows(file: pq.ParquetFile, schema: pa.Schema) -> list[dict[str, Any]]:
    """Returns the rows of a file of samples; each has a time, a process and, where there are any, a GPU."""
    data = file.read(columns=[name for name in schema.names if name in file.schema_arrow.names])
    data.validate(full=True)
    for name in ("time_s", "process", "gpu"):
        if name in data.column_names:
            _filled(data, name)
    _check_range("time_s", data["time_s"].to_numpy(), -_MOST_PHYSICAL, _MOST_PHYSICAL)
    rows: list[dict[str, Any]] = data.to_pylist()
    return rows


def _guarded(
    path: Path, schema: pa.Schema, read: Callable[[pq.ParquetFile], T], younger: Sequence[str] = ()
) -> T:
    """Opens a file, checks its columns, and returns what `read` makes of it.

    Args:
        path: the file.
        schema: the columns that it was written with.
        read: reads the columns.
        younger: those columns that older versions did not write.

    Raises:
        StoreError: the file is damaged, or lacks a column; or one is of another type.
    """
    check_file(path)
    with (
        guarded(path),
        _open(path, "rb") as source,
        pq.ParquetFile(source, buffer_size=_BUFFER_BYTES, page_checksum_verification=True) as file,
    ):
        found = file.schema_arrow
        absent = [name for name in schema.names if not {name, _TIMES.get(name)} & {*found.names, *younger}]
        if absent:
            raise StoreError(f"{path}: lacks the columns {', '.join(absent)}")
        for field in schema:
            old = _TIMES.get(field.name, field.name)
            name, kind = (field.name, field.type) if field.name in found.names else (old, pa.float64())
            if name in found.names and found.field(name).type != kind:
                raise StoreError(f"{path}: column {name} holds {found.field(name).type}, not {kind}")
        return read(file)


def _filled(data: Any, name: str) -> Any:
    """Returns a column, none of whose values is unknown."""
    if data[name].null_count:
        raise ValueError(f"{name} is null in {data[name].null_count} rows")
    return data[name]


def _check_range(name: str, values: Any, least: float, most: float) -> None:
    # NaN is within no bounds.
    if len(values) and not (values.min() >= least and values.max() <= most):
        raise ValueError(f"{name} goes from {values.min():g} to {values.max():g}: nothing has that")


def _text_array(texts: Sequence[str | None]) -> Any:
    """Returns texts as Parquet can hold them: it wants UTF-8, which has no half of a surrogate pair."""
    return pa.array([None if text is None else well_formed(text) for text in texts], pa.string())


def _nullable(values: Ints) -> Any:
    return pa.array(values, mask=values == UNKNOWN)


def _ints(column: Any) -> Ints:
    return np.asarray(column.fill_null(UNKNOWN).to_numpy(zero_copy_only=False), np.int64)


def _objects(values: list[str | None]) -> Any:
    column = np.empty(len(values), object)
    column[:] = values
    return column
