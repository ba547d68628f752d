"""Pure: chunks as small whole numbers, in batches: what is stored, and what statistics are folded over.

A chunk is the gap since the one before it, in microseconds, and the tokens it brought: 5 bytes in a
`PackedTable`, 16 in a `RequestTable`. A batch decodes to as much as fits a processor's cache, so that 60
million chunks are read with the memory of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtpbench.metrics.request_table import UNKNOWN, Ints, RequestRows, RequestTable
from mtpbench.records import RequestRecord

BATCH_CHUNKS = 1 << 17
"""About so many chunks make a batch: its arrays stay in the processor's cache. A request is never split."""
SmallInts = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkBatch:
    """The chunks of some consecutive requests.

    Args:
        rows: which rows of the table they belong to.
        offsets: (k + 1,) int64; chunks of the batch's row i are [offsets[i], offsets[i + 1]).
        sent_us: (k,) int64, when each request was sent.
        gaps_us: (m,) microseconds since the chunk before; a request's first: since it was sent.
        brought: (m,) output tokens that came with the chunk, `UNKNOWN` where the server does not say.
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
        """(m,) when each chunk came."""
        return self._cumulate(self.gaps_us, self.sent_us)

    def tokens(self) -> Ints:
        """(m,) cumulative output tokens of the request after each chunk; `UNKNOWN` where unknown."""
        unknown = self.brought == UNKNOWN
        if not unknown.any():
            return self._cumulate(self.brought, np.zeros(len(self.sent_us), np.int64))
        totals = self._cumulate(np.where(unknown, 0, self.brought), np.zeros(len(self.sent_us), np.int64))
        return np.where(unknown, UNKNOWN, totals)

    def edges(self) -> tuple[Ints, Ints]:
        """Times in microseconds, and cumulative tokens, of each request's first and last chunk in turn.

        A request's only chunk stands there once.
        """
        filled = self.counts > 0
        firsts = self.offsets[:-1][filled]
        if not len(firsts):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        times = np.stack([self.gaps_us[firsts], np.add.reduceat(self.gaps_us, firsts, dtype=np.int64)], 1)
        tokens = np.stack([self.brought[firsts], np.add.reduceat(self.brought, firsts, dtype=np.int64)], 1)
        tokens[self.brought[firsts] == UNKNOWN] = UNKNOWN
        kept = np.stack([np.ones(len(firsts), np.bool_), self.counts[filled] > 1], 1)
        return (times + self.sent_us[filled][:, None])[kept], tokens[kept]

    def _cumulate(self, steps: SmallInts, begin: Ints) -> Ints:
        """(m,) running sums that begin anew with every request, from `begin` (k,)."""
        sums = np.cumsum(steps, dtype=np.int64)
        before = np.concatenate(([0], sums))[self.offsets[:-1]]
        sums += np.repeat(begin - before, self.counts)
        return sums


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedTable(RequestRows):
    """Requests with their chunks as small whole numbers.

    Args:
        chunks: batches that cover every row, in order.
    """

    chunks: tuple[ChunkBatch, ...]

    def summarised(self) -> RequestTable:
        """The requests with only the first and the last chunk of each."""
        edges = [batch.edges() for batch in self.chunks]
        counts = np.minimum(self.chunk_counts, 2)
        offsets = np.concatenate(([0], np.cumsum(counts)))
        return self._table(offsets, [times for times, _ in edges], [tokens for _, tokens in edges])

    def unpacked(self) -> RequestTable:
        """The requests with their chunks in full."""
        return self._table(
            self.chunk_offsets,
            [batch.times_us() for batch in self.chunks],
            [batch.tokens() for batch in self.chunks],
        )

    def records(self) -> Iterator[RequestRecord]:
        """The rows as records."""
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
    """The chunks of a table.

    Args:
        table: the requests.
        chunks: about so many make a batch; those of a packed table are as they were read.
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
    """The same numbers in the smallest integers that hold all of them."""
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
