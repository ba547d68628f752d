"""TTFT and TPOT of every counted request of a stored point, as quantiles; what failed requests were told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mtpbench.errors import StoreError
from mtpbench.store import StoredPoint
from mtpbench.store.columns import read_packed

Floats = npt.NDArray[np.float64]

QUANTILES = 101
"""At most so many values tell a distribution; fewer requests are told one by one."""
_UNKNOWN = -1
"""Stands in the store's tables where a server did not count."""
_EXAMPLE_CHARACTERS = 400


@dataclass(frozen=True, kw_only=True, eq=False)
class RequestTrace:
    """How long the counted requests of one point took.

    Counted are the measured requests that ended well in the steady-state window (anywhere where there is
    none, and in an open loop), as `result.json` counts them.

    Args:
        ttft_s, tpot_s: quantiles in equal steps from the smallest value to the largest, at most `QUANTILES`,
            interpolated linearly. Where fewer requests were counted, their values in rising order. Empty
            where they are not known.
        examples: what the first failed request of each kind was told; measured requests only.
        reason: why there are no quantiles, or None.
    """

    ttft_s: Floats
    tpot_s: Floats
    examples: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None


def request_trace(stored: StoredPoint) -> RequestTrace:
    """The latencies of one stored point; a damaged file gives none, with the reason."""
    try:
        # The first and last chunks are all that it takes: a whole table may hold millions.
        table = read_packed(stored.directory / "requests.parquet").summarised()
    except StoreError as error:
        return _unknown(str(error))
    ttft_s, tpot_s = latencies(table, counted_requests(table, stored))
    examples = _examples(table)
    told = stored.result.ttft_s.count if stored.result.ttft_s else 0
    if len(ttft_s) != told:
        why = f"the request records hold {len(ttft_s)} counted requests, result.json says {told}"
        return _unknown(f"{why}: `mtpbench recompute` makes them agree", examples)
    if not told:
        return _unknown("no request was counted", examples)
    return RequestTrace(ttft_s=quantiles(ttft_s), tpot_s=quantiles(tpot_s), examples=examples)


def counted_requests(table: Any, stored: StoredPoint) -> npt.NDArray[np.bool_]:
    """(n,) which requests of the table a result's distributions are made of.

    Args:
        table: a request table of the store.
        stored: the point, for its window and its kind of load.
    """
    counted = table.ok & ~table.warmup & (table.chunk_counts > 0)
    window = stored.result.steady
    if window is None or stored.point.load.open:
        return np.asarray(counted, np.bool_)
    inside = (table.end_s > window.start_s) & (table.end_s <= window.end_s)
    return np.asarray(counted & inside, np.bool_)


def latencies(table: Any, counted: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """TTFT and TPOT of the counted requests in seconds; TPOT lacks those in which nothing follows a chunk.

    TTFT is the first chunk's time − the time of sending. TPOT is (last − first chunk) / (output tokens −
    those of the first chunk), or − 1 where the server does not say what the first chunk held.
    """
    first, last = table.first_chunk_s[counted], table.last_chunk_s[counted]
    in_first = table.chunk_tokens[table.chunk_offsets[:-1][counted]]
    known = bool(len(in_first)) and not (in_first == _UNKNOWN).any()
    later = table.output_tokens[counted] - (in_first if known else 1)
    several = later >= 1
    return first - table.sent_s[counted], (last - first)[several] / later[several]


def quantiles(values: Floats, at_most: int = QUANTILES) -> Floats:
    """The quantile function of a sample in equal steps, ends included; empty for an empty sample."""
    if not len(values):
        return np.empty(0)
    return np.asarray(np.quantile(values, np.linspace(0, 1, min(at_most, len(values)))), np.float64)


def _examples(table: Any) -> dict[str, str]:
    failed = np.flatnonzero(~table.ok & ~table.warmup)
    found: dict[str, str] = {}
    for row in failed.tolist():
        detail = table.error_detail[row]
        if detail and table.error[row] not in found:
            found[table.error[row]] = detail[:_EXAMPLE_CHARACTERS]
    return found


def _unknown(reason: str, examples: Mapping[str, str] | None = None) -> RequestTrace:
    return RequestTrace(ttft_s=np.empty(0), tpot_s=np.empty(0), examples=examples or {}, reason=reason)
