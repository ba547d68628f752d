"""Raw records as Parquet: request tables, counter samples, power samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtpbench.errors import StoreError
from mtpbench.records import CounterSample, PowerSample, SpecCounters, SpecGauge, to_json
from mtpbench.requests import UNKNOWN, Ints, RequestTable

_INTS = ("index", "slot", "asked_prompt_tokens", "asked_output_tokens")
_KNOWN_OR_NULL = ("prompt_tokens", "output_tokens")
_FLOATS = ("scheduled_s", "sent_s", "end_s")
_GAUGE = pa.struct([("rank", pa.string()), ("length", pa.float64()), ("verify_calls", pa.float64())])
_TEXTS = ("finish_reason", "error", "error_detail")


def write_requests(table: RequestTable, path: Path) -> None:
    """Write the request table: null where the server did not say."""
    columns: dict[str, Any] = {name: pa.array(getattr(table, name)) for name in (*_INTS, "warmup", *_FLOATS)}
    for name in _KNOWN_OR_NULL:
        columns[name] = _nullable(getattr(table, name))
    for name in _TEXTS:
        columns[name] = pa.array(getattr(table, name).tolist(), pa.string())
    offsets = pa.array(table.chunk_offsets, pa.int64())
    columns["chunk_times_s"] = pa.LargeListArray.from_arrays(offsets, pa.array(table.chunk_times_s))
    columns["chunk_tokens"] = pa.LargeListArray.from_arrays(offsets, _nullable(table.chunk_tokens))
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_requests(path: Path) -> RequestTable:
    """The request table that `write_requests` wrote.

    Raises:
        StoreError: the file is damaged or lacks a column.
    """
    data = _read(
        path, (*_INTS, "warmup", *_FLOATS, *_KNOWN_OR_NULL, *_TEXTS, "chunk_times_s", "chunk_tokens")
    )
    plain: dict[str, Any] = {name: data[name].to_numpy() for name in (*_INTS, "warmup", *_FLOATS)}
    known: dict[str, Any] = {name: _ints(data[name]) for name in _KNOWN_OR_NULL}
    texts: dict[str, Any] = {name: _objects(data[name].to_pylist()) for name in _TEXTS}
    times = data["chunk_times_s"].combine_chunks()
    offsets = times.offsets.to_numpy().astype(np.int64)
    return RequestTable(
        **plain,
        **known,
        **texts,
        chunk_offsets=offsets - offsets[0],
        chunk_times_s=times.flatten().to_numpy(zero_copy_only=False).astype(np.float64),
        chunk_tokens=_ints(data["chunk_tokens"].combine_chunks().flatten()),
    )


def write_counters(samples: Sequence[CounterSample], path: Path) -> None:
    """Write counter samples; a failed scrape keeps its row, with nulls and the reason."""
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
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_counters(path: Path) -> tuple[CounterSample, ...]:
    """The counter samples that `write_counters` wrote."""
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
        )
        for row in _read(path, names).to_pylist()
    )


def write_power(samples: Sequence[PowerSample], path: Path) -> None:
    """Write power samples."""
    columns = {
        "time_s": pa.array([s.time_s for s in samples], pa.float64()),
        "process": pa.array([s.process for s in samples], pa.string()),
        "gpu": pa.array([s.gpu for s in samples], pa.int64()),
        "power_w": pa.array([s.power_w for s in samples], pa.float64()),
        "energy_j": pa.array([s.energy_j for s in samples], pa.float64()),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_power(path: Path) -> tuple[PowerSample, ...]:
    """The power samples that `write_power` wrote."""
    rows = _read(path, ("time_s", "process", "gpu", "power_w", "energy_j")).to_pylist()
    return tuple(PowerSample(**row) for row in rows)


def _read(path: Path, names: Sequence[str]) -> Any:
    try:
        data = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path}: can't be read ({error})") from error
    if missing := [name for name in names if name not in data.column_names]:
        raise StoreError(f"{path}: lacks the columns {', '.join(missing)}")
    return data.select(list(names))


def _nullable(values: Ints) -> Any:
    return pa.array(values, mask=values == UNKNOWN)


def _ints(column: Any) -> Ints:
    return np.asarray(column.fill_null(UNKNOWN).to_numpy(zero_copy_only=False), np.int64)


def _objects(values: list[str | None]) -> Any:
    column = np.empty(len(values), object)
    column[:] = values
    return column
