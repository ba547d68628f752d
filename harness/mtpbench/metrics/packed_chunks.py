"""Pure: chunks packed as small whole numbers, in batches, and the token counts that are folded over them.

A packed chunk is the gap since the chunk before, in microseconds, and the tokens that it brought: 5 bytes in
a `PackedTable`, 16 in a `RequestTable`. A decoded batch fits into a processor's cache, so 60 million chunks
are read with the memory of one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtpbench.metrics.request_table import UNKNOWN, Floats, Ints, RequestRows, RequestTable
from mtpbench.metrics.window import Window
from mtpbench.records import RequestRecord

BATCH_CHUNKS = 1 << 17
"""About how many chunks make a batch: its arrays stay in the processor's cache. No request is split."""
SmallInts = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkBatch:
    """A batch holds the chunks of some consecutive requests.

    Args:
        rows: the rows of the table that the chunks belong to.
        offsets: (k + 1,) int64; chunks of the batch's row i are [offsets[i], offsets[i + 1]).
        sent_us: (k,) int64, when each request was sent.
        gaps_us: (m,) microseconds since the chunk before; a request's first: since it was sent.
        brought: (m,) output tokens that came with the chunk, `UNKNOWN` if the server does not count them.
    """

    rows: slice
    offsets: Ints
    sent_us: Ints
    gaps_us: SmallInts
    brought: SmallInts

    @property
    def counts(self) -> Ints:
        """(k,) chunks per request."""
        return np.diff(self.offsets)

    def times_us(self) -> Ints:
        """Returns when each chunk came, (m,)."""
        return self._cumulate(self.gaps_us, self.sent_us)

    def tokens(self) -> Ints:
        """Returns the request's cumulative output tokens after each chunk, (m,); `UNKNOWN` if not counted."""
        unknown = self.brought == UNKNOWN
        if not unknown.any():
            return self._cumulate(self.brought, np.zeros(len(self.sent_us), np.int64))
        totals = self._cumulate(np.where(unknown, 0, self.brought), np.zeros(len(self.sent_us), np.int64))
        return np.where(unknown, UNKNOWN, totals)

    def edges(self) -> tuple[Ints, Ints]:
        """Returns the first and the last chunk of each request in turn.

        An only chunk is returned once. The arrays are times in microseconds and cumulative tokens.
        """
        filled = self.counts > 0
        firsts = self.offsets[:-1][filled]
        if not len(firsts):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        times = np.stack([self.gaps_us[firsts], np.add.reduceat(self.gaps_us, firsts, dtype=np.int64)], 1)
        tokens = np.stack([self.brought[firsts], np.add.reduceat(self.brought, firsts, dtype=np.int64)], 1)
        tokens[self.brought[firsts] == UNKNOWN] = UNKNOWN
        distinct = np.stack([np.ones(len(firsts), np.bool_), self.counts[filled] > 1], 1)
        return (times + self.sent_us[filled][:, None])[distinct], tokens[distinct]

    def _cumulate(self, steps: SmallInts, begin: Ints) -> Ints:
        """Returns running sums, (m,), that start again with every request, from `begin` (k,)."""
        sums = np.cumsum(steps, dtype=np.int64)
        before = np.concatenate(([0], sums))[self.offsets[:-1]]
        sums += np.repeat(begin - before, self.counts)
        return sums


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedTable(RequestRows):
    """A packed table holds requests, and their chunks as small whole numbers.

    Args:
        chunks: batches that cover every row, in order.
    """

    chunks: tuple[ChunkBatch, ...]

    def summarised(self) -> RequestTable:
        """Returns the requests with only the first and the last chunk of each."""
        edges = [batch.edges() for batch in self.chunks]
        counts = np.minimum(self.chunk_counts, 2)
        offsets = np.concatenate(([0], np.cumsum(counts)))
        return self._table(offsets, [times for times, _ in edges], [tokens for _, tokens in edges])

    def unpacked(self) -> RequestTable:
        """Returns the requests with all chunks."""
        return self._table(
            self.chunk_offsets,
            [batch.times_us() for batch in self.chunks],
            [batch.tokens() for batch in self.chunks],
        )

    def records(self) -> Iterator[RequestRecord]:
        """Returns the rows as records."""
        return self.unpacked().records()

    def _table(self, offsets: Ints, times_us: list[Ints], tokens: list[Ints]) -> RequestTable:
        none = np.empty(0, np.int64)
        return RequestTable(
            **self.row_columns(),
            chunk_offsets=offsets,
            chunk_times_us=np.concatenate([none, *times_us]),
            chunk_tokens=np.concatenate([none, *tokens]),
        )


Requests = RequestTable | PackedTable


def batches(table: Requests, chunks: int = BATCH_CHUNKS) -> Iterator[ChunkBatch]:
    """Returns the chunks of a table in batches.

    Args:
        table: the requests.
        chunks: about how many make a batch; the batches of a packed table stay as they were read.
    """
    if isinstance(table, PackedTable):
        yield from table.chunks
        return
    first = 0
    while first < len(table):
        full = int(np.searchsorted(table.chunk_offsets, table.chunk_offsets[first] + chunks))
        end = min(max(full, first + 1), len(table))
        yield _encode(table, slice(first, end))
        first = end


def smallest(values: Ints) -> SmallInts:
    """Returns the same numbers in the smallest integer type that holds all of them."""
    low, high = values.min(initial=0), values.max(initial=0)
    for kind in (np.int8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    return values


def _encode(table: RequestTable, rows: slice) -> ChunkBatch:
    begin, end = int(table.chunk_offsets[rows.start]), int(table.chunk_offsets[rows.stop])
    offsets = table.chunk_offsets[rows.start : rows.stop + 1] - begin
    filled = np.diff(offsets) > 0
    firsts, sent_us = offsets[:-1][filled], table.sent_us[rows]
    times, tokens = table.chunk_times_us[begin:end], table.chunk_tokens[begin:end]
    gaps, brought = np.diff(times, prepend=0), np.diff(tokens, prepend=0)
    gaps[firsts] = times[firsts] - sent_us[filled]
    brought[firsts] = tokens[firsts]
    brought[tokens == UNKNOWN] = UNKNOWN
    return ChunkBatch(rows=rows, offsets=offsets, sent_us=sent_us, gaps_us=gaps, brought=brought)


_ROW_BITS = 44
"""Times below 2^44 microseconds (200 days) sort by request and then by time as one number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenCounts:
    """Token counts are the output tokens by request and moment.

    Args:
        moments_us: (k,) rising, whole microseconds.
        tokens: (n, k) output tokens that each request had brought up to each moment, that moment included.
    """

    moments_us: Ints
    tokens: Floats

    def within(self, window: Window) -> Floats:
        """Returns the output tokens of each request in (start, end], (n,); the moments hold both edges."""
        start, end = np.searchsorted(self.moments_us, window.edges_us)
        return np.asarray(self.tokens[:, end] - self.tokens[:, start])


def count_tokens(
    table: Requests, windows: Sequence[Window], on_batch: Callable[[ChunkBatch], None] | None = None
) -> TokenCounts:
    """Counts the output tokens that each request had brought by the edges of some windows, in one pass.

    Args:
        table: the requests.
        windows: the windows, in any order.
        on_batch: called with every batch, so that one pass serves other figures too.
    """
    moments_us = np.unique(np.array([window.edges_us for window in windows], np.int64))
    tokens = [np.empty((0, len(moments_us)))]
    for batch in batches(table):
        tokens.append(tokens_by(batch, table.output_tokens[batch.rows], moments_us))
        if on_batch is not None:
            on_batch(batch)
    return TokenCounts(moments_us=moments_us, tokens=np.concatenate(tokens))


def tokens_by(batch: ChunkBatch, output_tokens: Ints, moments_us: Ints) -> Floats:
    """Counts the output tokens that each request of a batch had brought up to each moment: (k, j).

    Tokens count at the chunk that carried them: by the server's cumulative counts, or spread evenly over
    the request's chunks if it gives none. The final usage is the truth: tokens that the running count missed
    came with the last chunk.

    Args:
        batch: the chunks.
        output_tokens: (k,) of its requests, `UNKNOWN` if the server did not count them.
        moments_us: (j,) moments, rising.
    """
    counts, begins = batch.counts, batch.offsets[:-1]
    row_keys = np.arange(len(counts), dtype=np.int64) << _ROW_BITS
    keys = batch.times_us() + np.repeat(row_keys, counts)
    # The search needs order: a stamp that went back (a clock was set) counts with the chunk before it.
    np.maximum.accumulate(keys, out=keys)
    arrived = np.searchsorted(keys, row_keys[:, None] + moments_us, side="right") - begins[:, None]
    running = np.concatenate(([0], batch.tokens()))[begins[:, None] + arrived]
    outputs, chunks, is_counted = output_tokens[:, None], counts[:, None], output_tokens[:, None] != UNKNOWN
    counted = np.where((arrived == chunks) & is_counted, outputs, running)
    evenly = np.where(is_counted, outputs, 0) * arrived / np.maximum(chunks, 1)
    silent = np.zeros((len(counts), 1), np.bool_)
    silent[counts > 0, 0] = batch.brought[begins[counts > 0]] == UNKNOWN
    return np.where(arrived == 0, 0.0, np.where(silent, evenly, counted))
