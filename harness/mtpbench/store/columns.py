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
from mtpbench.requests import UNKNOWN, Floats, Ints, RequestTable, seconds, whole_us

_INTS = ("index", "slot", "asked_prompt_tokens", "asked_output_tokens")
_KNOWN_OR_NULL = ("prompt_tokens", "output_tokens")
_FLOATS = ("scheduled_s", "sent_s", "end_s")
_GAUGE = pa.struct([("rank", pa.string()), ("length", pa.float64()), ("verify_calls", pa.float64())])
_GAPS, _BROUGHT = "chunk_gaps_us", "chunk_tokens_brought"
_TEXTS = ("finish_reason", "error", "error_detail")


def write_requests(table: RequestTable, path: Path) -> None:
    """Write the request table: null where the server did not say."""
    columns: dict[str, Any] = {name: pa.array(getattr(table, name)) for name in (*_INTS, "warmup", *_FLOATS)}
    for name in _KNOWN_OR_NULL:
        columns[name] = _nullable(getattr(table, name))
    for name in _TEXTS:
        columns[name] = pa.array(getattr(table, name).tolist(), pa.string())
    offsets = pa.array(table.chunk_offsets, pa.int64())
    gaps, brought = _encode_chunks(table)
    columns[_GAPS] = pa.LargeListArray.from_arrays(offsets, pa.array(gaps))
    columns[_BROUGHT] = pa.LargeListArray.from_arrays(offsets, brought)
    # The bytes of the gaps apart from each other: the high ones are nearly constant, the low ones noise.
    pq.write_table(
        pa.table(columns),
        path,
        compression="zstd",
        use_dictionary=[f"{_BROUGHT}.list.element", *_TEXTS],
        column_encoding={f"{_GAPS}.list.element": "BYTE_STREAM_SPLIT"},
    )


def read_requests(path: Path) -> RequestTable:
    """The request table that `write_requests` wrote.

    Raises:
        StoreError: the file is damaged or lacks a column.
    """
    data = _read(path, (*_INTS, "warmup", *_FLOATS, *_KNOWN_OR_NULL, *_TEXTS, _GAPS, _BROUGHT))
    plain: dict[str, Any] = {name: data[name].to_numpy() for name in (*_INTS, "warmup", *_FLOATS)}
    known: dict[str, Any] = {name: _ints(data[name]) for name in _KNOWN_OR_NULL}
    texts: dict[str, Any] = {name: _objects(data[name].to_pylist()) for name in _TEXTS}
    gaps = data[_GAPS].combine_chunks()
    offsets = gaps.offsets.to_numpy().astype(np.int64)
    offsets = offsets - offsets[0]
    brought = data[_BROUGHT].combine_chunks().flatten()
    return RequestTable(
        **plain,
        **known,
        **texts,
        chunk_offsets=offsets,
        chunk_times_s=_decode_times(gaps.flatten().to_numpy(), offsets, plain["sent_s"]),
        chunk_tokens=_decode_tokens(_ints(brought), offsets),
    )


def _encode_chunks(table: RequestTable) -> tuple[Ints, Any]:
    """(m,) microseconds since the chunk before (a request's first: since the send), and tokens brought."""
    firsts = table.chunk_offsets[:-1][table.chunk_counts > 0]
    times = whole_us(table.chunk_times_s)
    gaps = np.diff(times, prepend=0)
    gaps[firsts] = times[firsts] - whole_us(table.sent_s)[table.chunk_counts > 0]
    brought = np.diff(table.chunk_tokens, prepend=0)
    brought[firsts] = table.chunk_tokens[firsts]
    return gaps, pa.array(brought, mask=table.chunk_tokens == UNKNOWN)


def _decode_times(gaps: Ints, offsets: Ints, sent_s: Floats) -> Floats:
    return seconds(_cumulate(gaps, offsets) + np.repeat(whole_us(sent_s), np.diff(offsets)))


def _decode_tokens(brought: Ints, offsets: Ints) -> Ints:
    unknown = brought == UNKNOWN
    tokens = _cumulate(np.where(unknown, 0, brought), offsets)
    tokens[unknown] = UNKNOWN
    return tokens


def _cumulate(steps: Ints, offsets: Ints) -> Ints:
    """(m,) running sums that begin anew at every offset."""
    sums = np.cumsum(steps, dtype=np.int64)
    before = np.concatenate(([0], sums))[offsets[:-1]]
    return np.asarray(sums - np.repeat(before, np.diff(offsets)), np.int64)


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
