"""Parquet files hold the raw records: request tables, counter samples, power samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtpbench.errors import StoreError
from mtpbench.metrics.packed_chunks import BATCH_CHUNKS, ChunkBatch, PackedTable, Requests, batches, smallest
from mtpbench.metrics.request_table import UNKNOWN, Ints, RequestTable, whole_us
from mtpbench.records import CounterSample, PowerSample, SpecCounters, SpecGauge, to_json

_TIMES = {"scheduled_us": "scheduled_s", "sent_us": "sent_s", "end_us": "end_s"}
"""The columns of times, and what they are called up to schema 4, which held them as float seconds."""
_INTS = ("index", "slot", "asked_prompt_tokens", "asked_output_tokens", *_TIMES)
_SINCE_6 = ("cached_prompt_tokens", "reasoning_tokens")
"""Columns that files of an older schema lack: unknown there."""
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
        *((name, pa.string()) for name in _TEXTS),
        (_GAPS, pa.large_list(pa.int64())),
        (_BROUGHT, pa.large_list(pa.int64())),
    ]
)
_GROUP_CHUNKS = 1 << 22
"""Chunks of a row group, about, so that neither writer nor reader holds all chunks decoded at once."""
_BUFFER_BYTES = 1 << 20
T = TypeVar("T")


def write_requests(table: Requests, path: Path) -> None:
    """Writes the request table: null where the server did not report a value."""
    # The bytes of gaps are split into streams: the high bytes are nearly constant, the low ones noise.
    with pq.ParquetWriter(
        path,
        _REQUESTS,
        compression="zstd",
        use_dictionary=[f"{_BROUGHT}.list.element", *_TEXTS],
        column_encoding={f"{_GAPS}.list.element": "BYTE_STREAM_SPLIT"},
    ) as writer:
        for batch in batches(table, _GROUP_CHUNKS):
            writer.write_table(pa.table(_columns(table, batch), _REQUESTS))


def _columns(table: Requests, batch: ChunkBatch) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: pa.array(getattr(table, name)[batch.rows]) for name in (*_INTS, "warmup")
    }
    for name in _KNOWN_OR_NULL:
        columns[name] = _nullable(getattr(table, name)[batch.rows])
    for name in _TEXTS:
        columns[name] = pa.array(getattr(table, name)[batch.rows].tolist(), pa.string())
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
    return _guarded(path, (*_ROW_COLUMNS, _GAPS, _BROUGHT), _packed)


def _packed(file: pq.ParquetFile) -> PackedTable:
    column_names = file.schema_arrow.names
    data = file.read(
        columns=[name if name in column_names else _TIMES[name] for name in _ROW_COLUMNS]
        + [name for name in _SINCE_6 if name in column_names]
    )
    columns: dict[str, Any] = {
        name: data[name].to_numpy() if name in column_names else whole_us(data[_TIMES[name]].to_numpy())
        for name in (*_INTS, "warmup")
    }
    columns |= {
        name: _ints(data[name]) if name in data.column_names else np.full(len(data), UNKNOWN, np.int64)
        for name in _KNOWN_OR_NULL
    }
    columns |= {name: _objects(data[name].to_pylist()) for name in _TEXTS}
    chunks = tuple(_read_chunks(file, columns["sent_us"]))
    counts = np.concatenate([np.empty(0, np.int64), *(batch.counts for batch in chunks)])
    return PackedTable(**columns, chunk_offsets=np.concatenate(([0], np.cumsum(counts))), chunks=chunks)


def _read_chunks(file: pq.ParquetFile, sent_us: Ints) -> Iterator[ChunkBatch]:
    whole = sum(group.num_rows for group in map(file.metadata.row_group, range(file.num_row_groups)))
    chunks = sum(_values(file, group) for group in range(file.num_row_groups))
    first = 0
    for piece in file.iter_batches(
        batch_size=max(1, int(BATCH_CHUNKS * whole / max(chunks, 1))), columns=[_GAPS, _BROUGHT]
    ):
        rows = slice(first, first := first + len(piece))
        offsets = piece[_GAPS].offsets.to_numpy().astype(np.int64)
        yield ChunkBatch(
            rows=rows,
            offsets=offsets - offsets[0],
            sent_us=sent_us[rows],
            gaps_us=smallest(_ints(piece[_GAPS].flatten())),
            brought=smallest(_ints(piece[_BROUGHT].flatten())),
        )


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
        "time_s": pa.array([s.time_s for s in samples], pa.float64()),
        "process": pa.array([s.process for s in samples], pa.string()),
        "drafts": pa.array([c and c.drafts for c in counters], pa.float64()),
        "draft_tokens": pa.array([c and c.draft_tokens for c in counters], pa.float64()),
        "accepted_tokens": pa.array([c and c.accepted_tokens for c in counters], pa.float64()),
        "per_position": pa.array([c and list(c.per_position) for c in counters], pa.list_(pa.float64())),
        "gauges": pa.array(gauges, pa.list_(_GAUGE)),
        "reason": pa.array([s.reason for s in samples], pa.string()),
        "restarted": pa.array([s.restarted for s in samples], pa.bool_()),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_counters(path: Path) -> tuple[CounterSample, ...]:
    """Reads the counter samples that `write_counters` wrote."""
    counts = ("drafts", "draft_tokens", "accepted_tokens", "per_position")
    names = ("time_s", "process", *counts, "gauges", "reason")
    return tuple(
        CounterSample(
            time_s=row["time_s"],
            process=row["process"],
            counters=None
            if row["draft_tokens"] is None
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
        for row in _read(path, names, ("restarted",)).to_pylist()
    )


def write_power(samples: Sequence[PowerSample], path: Path) -> None:
    """Writes power samples."""
    columns = {
        "time_s": pa.array([s.time_s for s in samples], pa.float64()),
        "process": pa.array([s.process for s in samples], pa.string()),
        "gpu": pa.array([s.gpu for s in samples], pa.int64()),
        "power_w": pa.array([s.power_w for s in samples], pa.float64()),
        "energy_j": pa.array([s.energy_j for s in samples], pa.float64()),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_power(path: Path) -> tuple[PowerSample, ...]:
    """Reads the power samples that `write_power` wrote."""
    rows = _read(path, ("time_s", "process", "gpu", "power_w", "energy_j")).to_pylist()
    return tuple(PowerSample(**row) for row in rows)


def _read(path: Path, names: Sequence[str], younger: Sequence[str] = ()) -> Any:
    """Reads columns of a file, and of the younger ones, which older versions did not write, those it has."""

    def read(file: pq.ParquetFile) -> Any:
        return file.read(columns=[*names, *(name for name in younger if name in file.schema_arrow.names)])

    return _guarded(path, names, read)


def _guarded(path: Path, names: Sequence[str], read: Callable[[pq.ParquetFile], T]) -> T:
    """Opens a file, checks its columns, and returns what `read` makes of it.

    Raises:
        StoreError: the file is damaged or lacks one of the named columns.
    """
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
            column_names = file.schema_arrow.names
            if missing := [name for name in names if not {name, _TIMES.get(name)} & set(column_names)]:
                raise StoreError(f"{path}: lacks the columns {', '.join(missing)}")
            return read(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path}: can't be read ({error})") from error


def _nullable(values: Ints) -> Any:
    return pa.array(values, mask=values == UNKNOWN)


def _ints(column: Any) -> Ints:
    return np.asarray(column.fill_null(UNKNOWN).to_numpy(zero_copy_only=False), np.int64)


def _objects(values: list[str | None]) -> Any:
    column = np.empty(len(values), object)
    column[:] = values
    return column
