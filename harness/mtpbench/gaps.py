"""Pure: the gaps between the chunks of requests: by chunk, by token, and those that are stalls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtpbench.records import Distribution, Stalls
from mtpbench.requests import UNKNOWN, Floats, Ints, RequestTable
from mtpbench.window import Window

PARTS = 20
"""How many stretches of the window stalls are told for."""
WORST = 5
_PERCENTS = (10, 50, 90, 99)


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkGaps:
    """Every gap between two neighbouring chunks of one of the counted requests.

    Args:
        gap_s: (g,) seconds.
        end_s: (g,) when the later chunk came.
        tokens: (g,) output tokens that it brought, `UNKNOWN` where the server does not say.
        index: (g,) the request's index.
    """

    gap_s: Floats
    end_s: Floats
    tokens: Ints
    index: Ints

    @classmethod
    def of(cls, table: RequestTable, counted: npt.NDArray[np.bool_]) -> ChunkGaps:
        """The gaps of the counted rows of a table."""
        rows = table.chunk_rows
        within = (rows[1:] == rows[:-1]) & counted[rows[1:]]
        later = np.flatnonzero(within) + 1
        brought = table.chunk_tokens[later] - table.chunk_tokens[later - 1]
        return cls(
            gap_s=table.chunk_times_s[later] - table.chunk_times_s[later - 1],
            end_s=table.chunk_times_s[later],
            tokens=np.where(table.chunk_tokens[later] == UNKNOWN, UNKNOWN, brought),
            index=table.index[rows[later]],
        )

    def per_token(self) -> Distribution | None:
        """Time per token, each token counting once: the gap shared by the tokens that ended it.

        None where the tokens of a chunk are unknown: counting chunks instead would say another thing.
        """
        if not len(self.gap_s) or (self.tokens == UNKNOWN).any():
            return None
        brought = self.tokens > 0
        return summarise_weighted(self.gap_s[brought] / self.tokens[brought], self.tokens[brought])

    def stalls(self, threshold_s: float, window: Window | None) -> Stalls | None:
        """The gaps above a threshold; None where there is no gap at all."""
        if not len(self.gap_s):
            return None
        stalled = self.gap_s > threshold_s
        over_time: tuple[int, ...] = ()
        if window is not None:
            edges = np.linspace(window.start_s, window.end_s, PARTS + 1)
            over_time = tuple(np.histogram(self.end_s[stalled], edges)[0].tolist())
        requests = np.unique(self.index[stalled])
        longest = [(int(i), float(self.gap_s[self.index == i].max())) for i in _worst(self.index, self.gap_s)]
        return Stalls(
            threshold_s=threshold_s,
            count=int(stalled.sum()),
            requests=len(requests),
            longest_s=float(self.gap_s.max()),
            share=float(self.gap_s[stalled].sum() / max(self.gap_s.sum(), 1e-12)),
            over_time=over_time,
            worst=tuple(pair for pair in longest if pair[1] > threshold_s),
        )


def _worst(index: Ints, gap_s: Floats) -> list[int]:
    """The requests with the longest gaps, worst first."""
    found: list[int] = []
    for position in np.argsort(gap_s)[::-1][: 50 * WORST]:
        if (request := int(index[position])) not in found:
            found.append(request)
        if len(found) == WORST:
            break
    return found


def summarise(values: Floats) -> Distribution | None:
    """The summary of a sample, percentiles interpolated linearly; None for an empty one."""
    if not len(values):
        return None
    p10, p50, p90, p99 = np.percentile(values, (10, 50, 90, 99))
    return Distribution(
        count=len(values),
        mean=float(values.mean()),
        min=float(values.min()),
        p10=float(p10),
        p50=float(p50),
        p90=float(p90),
        p99=float(p99),
        max=float(values.max()),
    )


def summarise_weighted(values: Floats, weights: Ints) -> Distribution | None:
    """The summary of a sample in which each value stands for `weights` equal ones; None for an empty one.

    Equal to `summarise` of the values repeated, percentiles included.
    """
    if not len(values):
        return None
    order = np.argsort(values, kind="stable")
    values, upto = values[order], np.cumsum(weights[order])
    count = int(upto[-1])
    # Percentiles interpolate between the two elements of the repeated sample that they fall between.
    positions = np.array(_PERCENTS) / 100 * (count - 1)
    low = np.floor(positions)
    lower, upper = (
        values[np.searchsorted(upto, rank, side="right")] for rank in (low, np.minimum(low + 1, count - 1))
    )
    p10, p50, p90, p99 = lower + (upper - lower) * (positions - low)
    return Distribution(
        count=count,
        mean=float(np.average(values, weights=weights[order])),
        min=float(values[0]),
        p10=float(p10),
        p50=float(p50),
        p90=float(p90),
        p99=float(p99),
        max=float(values[-1]),
    )
