"""The request table holds the raw records of a point as columns: a row for each request, chunks with offsets.

`RequestRecord` is one row; pure statistics work on the table, so that 200,000 requests stay cheap. If there
are too many chunks for this table, `packed_chunks` has the same table with smaller chunks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtpbench.records import RequestRecord

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
UNKNOWN = -1
"""Stands for None in the integer columns, inside this table only (Parquet and records hold null)."""
TOLD = ("drafts", "draft_tokens", "accepted_draft_tokens")
"""The columns that engines tell of each request at its end, where they do."""
CUT_OFF = "cut_off"
"""The error of a request that the harness ended: it shows nothing about the server."""


def whole_us(times_s: Floats) -> Ints:
    """Returns times in whole microseconds; times from outside are rounded here, once."""
    return np.rint(times_s * 1e6).astype(np.int64)


def seconds(times_us: Ints) -> Floats:
    """Returns whole microseconds in seconds; `whole_us` turns them back exactly."""
    return np.asarray(times_us * 1e-6, np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class RequestRows:
    """Request rows hold requests as columns, ordered by index, and how many chunks each request has.

    Args:
        index, slot: (n,) int64.
        warmup: (n,) bool.
        scheduled_us, sent_us, end_us: (n,) int64, engine microseconds since the point's start.
        asked_prompt_tokens, asked_output_tokens: (n,) int64.
        prompt_tokens, output_tokens: (n,) int64 as the server counted them, `UNKNOWN` if it did not.
        cached_prompt_tokens, reasoning_tokens: (n,) int64, those of a prefix cache and of thoughts, likewise.
        drafts, draft_tokens, accepted_draft_tokens: (n,) int64, those that the engine told of each request,
            likewise; None where it told them of none.
        category: (n,) object array of str or None, the kind of text; None where no request has one.
        finish_reason, error, error_detail: (n,) object arrays of str or None.
        chunk_offsets: (n + 1,) int64; chunks of row i are [chunk_offsets[i], chunk_offsets[i + 1]).
    """

    index: Ints
    slot: Ints
    warmup: npt.NDArray[np.bool_]
    scheduled_us: Ints
    sent_us: Ints
    end_us: Ints
    asked_prompt_tokens: Ints
    asked_output_tokens: Ints
    prompt_tokens: Ints
    output_tokens: Ints
    cached_prompt_tokens: Ints
    reasoning_tokens: Ints
    finish_reason: npt.NDArray[np.object_]
    error: npt.NDArray[np.object_]
    error_detail: npt.NDArray[np.object_]
    chunk_offsets: Ints
    drafts: Ints | None = None
    draft_tokens: Ints | None = None
    accepted_draft_tokens: Ints | None = None
    category: npt.NDArray[np.object_] | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def scheduled_s(self) -> Floats:
        """(n,) `scheduled_us` in seconds."""
        return seconds(self.scheduled_us)

    @property
    def sent_s(self) -> Floats:
        """(n,) `sent_us` in seconds."""
        return seconds(self.sent_us)

    @property
    def end_s(self) -> Floats:
        """(n,) `end_us` in seconds."""
        return seconds(self.end_us)

    @property
    def ok(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the request ended without an error."""
        return np.array([error is None for error in self.error], np.bool_)

    @property
    def chunk_counts(self) -> Ints:
        """(n,) chunks per request."""
        return np.diff(self.chunk_offsets)

    @property
    def chunk_rows(self) -> Ints:
        """(m,) the row that each chunk belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.chunk_counts)

    def row_columns(self) -> dict[str, Any]:
        """Returns every column with one value for each request, by name."""
        names = [field.name for field in dataclasses.fields(RequestRows) if field.name != "chunk_offsets"]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True, eq=False)
class RequestTable(RequestRows):
    """A request table holds requests with all their chunks.

    Args:
        chunk_times_us: (m,) int64 engine microseconds, rising within a row.
        chunk_tokens: (m,) int64 cumulative output tokens after each chunk, `UNKNOWN` for every chunk of
            a row whose server does not count them.
    """

    chunk_times_us: Ints
    chunk_tokens: Ints

    @property
    def chunk_times_s(self) -> Floats:
        """(m,) `chunk_times_us` in seconds."""
        return seconds(self.chunk_times_us)

    @property
    def first_chunk_s(self) -> Floats:
        """(n,) time of the first chunk; NaN if there was none."""
        return self._edge_chunk(self.chunk_offsets[:-1])

    @property
    def last_chunk_s(self) -> Floats:
        """(n,) time of the last chunk; NaN if there was none."""
        return self._edge_chunk(self.chunk_offsets[1:] - 1)

    def _edge_chunk(self, at: Ints) -> Floats:
        times = np.full(len(self), np.nan)
        filled = self.chunk_counts > 0
        times[filled] = seconds(self.chunk_times_us[at[filled]])
        return times

    def summarised(self) -> RequestTable:
        """Returns the same requests with only the first and the last chunk of each."""
        counts = self.chunk_counts
        first, last = self.chunk_offsets[:-1], self.chunk_offsets[1:] - 1
        edges = np.unique(np.concatenate([first[counts > 0], last[counts > 0]]))
        offsets = np.concatenate(([0], np.cumsum(np.minimum(counts, 2)))).astype(np.int64)
        return dataclasses.replace(
            self,
            chunk_offsets=offsets,
            chunk_times_us=self.chunk_times_us[edges],
            chunk_tokens=self.chunk_tokens[edges],
        )

    @classmethod
    def from_records(cls, records: Iterable[RequestRecord]) -> RequestTable:
        """Builds the table of some records, ordered by index, with times rounded to whole microseconds."""
        rows = sorted(records, key=lambda record: record.index)
        counts = [len(row.chunk_times_s) for row in rows]
        tokens = [
            np.full(count, UNKNOWN, np.int64)
            if row.chunk_tokens is None
            else np.asarray(row.chunk_tokens, np.int64)
            for row, count in zip(rows, counts, strict=True)
        ]
        times = [np.asarray(row.chunk_times_s, np.float64) for row in rows]

        def ints(name: str) -> Ints:
            values = (getattr(row, name) for row in rows)
            return np.array([UNKNOWN if value is None else value for value in values], np.int64)

        def told(name: str) -> Ints | None:
            column = ints(name)
            return None if (column == UNKNOWN).all() else column

        def times_us(name: str) -> Ints:
            return whole_us(np.array([getattr(row, name) for row in rows], np.float64))

        def objects(name: str) -> npt.NDArray[np.object_]:
            column = np.empty(len(rows), object)
            column[:] = [getattr(row, name) for row in rows]
            return column

        return cls(
            index=ints("index"),
            slot=ints("slot"),
            warmup=np.array([row.warmup for row in rows], np.bool_),
            scheduled_us=times_us("scheduled_s"),
            sent_us=times_us("sent_s"),
            end_us=times_us("end_s"),
            asked_prompt_tokens=ints("asked_prompt_tokens"),
            asked_output_tokens=ints("asked_output_tokens"),
            prompt_tokens=ints("prompt_tokens"),
            output_tokens=ints("output_tokens"),
            cached_prompt_tokens=ints("cached_prompt_tokens"),
            reasoning_tokens=ints("reasoning_tokens"),
            **{name: told(name) for name in TOLD},
            category=objects("category") if any(row.category for row in rows) else None,
            finish_reason=objects("finish_reason"),
            error=objects("error"),
            error_detail=objects("error_detail"),
            chunk_offsets=np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64),
            chunk_times_us=whole_us(np.concatenate([np.empty(0), *times])),
            chunk_tokens=np.concatenate(tokens) if tokens else np.empty(0, np.int64),
        )

    def records(self) -> Iterator[RequestRecord]:
        """Returns the rows as records."""

        def optional(value: Any) -> int | None:
            return None if value == UNKNOWN else int(value)

        told = {name: column for name in TOLD if (column := getattr(self, name)) is not None}

        scheduled_s, sent_s, end_s = self.scheduled_s, self.sent_s, self.end_s
        times_s = self.chunk_times_s
        for i in range(len(self)):
            chunks = slice(int(self.chunk_offsets[i]), int(self.chunk_offsets[i + 1]))
            tokens = tuple(int(t) for t in self.chunk_tokens[chunks])
            yield RequestRecord(
                index=int(self.index[i]),
                slot=int(self.slot[i]),
                warmup=bool(self.warmup[i]),
                scheduled_s=float(scheduled_s[i]),
                sent_s=float(sent_s[i]),
                end_s=float(end_s[i]),
                chunk_times_s=tuple(float(t) for t in times_s[chunks]),
                chunk_tokens=None if UNKNOWN in tokens else tokens,
                asked_prompt_tokens=int(self.asked_prompt_tokens[i]),
                asked_output_tokens=int(self.asked_output_tokens[i]),
                prompt_tokens=optional(self.prompt_tokens[i]),
                output_tokens=optional(self.output_tokens[i]),
                cached_prompt_tokens=optional(self.cached_prompt_tokens[i]),
                reasoning_tokens=optional(self.reasoning_tokens[i]),
                **{name: optional(column[i]) for name, column in told.items()},
                category=None if self.category is None else self.category[i],
                finish_reason=self.finish_reason[i],
                error=self.error[i],
                error_detail=self.error_detail[i],
            )
