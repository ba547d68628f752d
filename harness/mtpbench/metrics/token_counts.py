"""Pure: how many output tokens each request had brought by some moments; every token rate comes from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mtpbench.metrics.packed_chunks import ChunkBatch, Requests, batches
from mtpbench.metrics.request_table import UNKNOWN, Floats, Ints
from mtpbench.metrics.window import Window

_ROW_BITS = 44
"""Times below 2^44 microseconds (200 days) sort by request and then by time as one number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenCounts:
    """Output tokens by request and moment.

    Args:
        moments_us: (k,) rising, whole microseconds.
        tokens: (n, k) output tokens that each request had brought up to each moment, that moment included.
    """

    moments_us: Ints
    tokens: Floats

    def within(self, window: Window) -> Floats:
        """(n,) output tokens of each request in (start, end], both of which are among the moments."""
        start, end = np.searchsorted(self.moments_us, window.edges_us)
        return np.asarray(self.tokens[:, end] - self.tokens[:, start])


def count_tokens(
    table: Requests, windows: Sequence[Window], seen: Callable[[ChunkBatch], None] | None = None
) -> TokenCounts:
    """Output tokens that each request had brought by the edges of some windows, in one pass over its chunks.

    Args:
        table: the requests.
        windows: in any order.
        seen: told of every batch, so that one pass serves others too.
    """
    moments_us = np.unique(np.array([window.edges_us for window in windows], np.int64))
    tokens = [np.empty((0, len(moments_us)))]
    for batch in batches(table):
        tokens.append(tokens_by(batch, table.output_tokens[batch.rows], moments_us))
        if seen is not None:
            seen(batch)
    return TokenCounts(moments_us=moments_us, tokens=np.concatenate(tokens))


def tokens_by(batch: ChunkBatch, output_tokens: Ints, moments_us: Ints) -> Floats:
    """(k, j) output tokens that each request of a batch had brought up to each moment.

    Tokens count at the chunk that carried them: by the server's cumulative counts, or spread evenly over
    the request's chunks where it gives none. The final usage is the truth: what the running count missed
    came with the last chunk.

    Args:
        batch: the chunks.
        output_tokens: (k,) of its requests, `UNKNOWN` where the server did not say.
        moments_us: (j,) rising.
    """
    counts, begins = batch.counts, batch.offsets[:-1]
    row_keys = np.arange(len(counts), dtype=np.int64) << _ROW_BITS
    keys = batch.times_us() + np.repeat(row_keys, counts)
    # A stamp that went back (a clock that was set) counts with the chunk before it: the search needs order.
    np.maximum.accumulate(keys, out=keys)
    come = np.searchsorted(keys, row_keys[:, None] + moments_us, side="right") - begins[:, None]
    running = np.concatenate(([0], batch.tokens()))[begins[:, None] + come]
    outputs, chunks, is_counted = output_tokens[:, None], counts[:, None], output_tokens[:, None] != UNKNOWN
    counted = np.where((come == chunks) & is_counted, outputs, running)
    evenly = np.where(is_counted, outputs, 0) * come / np.maximum(chunks, 1)
    silent = np.zeros((len(counts), 1), np.bool_)
    silent[counts > 0, 0] = batch.brought[begins[counts > 0]] == UNKNOWN
    return np.where(come == 0, 0.0, np.where(silent, evenly, counted))
