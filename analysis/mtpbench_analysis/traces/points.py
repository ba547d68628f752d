"""What a results folder holds of its points beyond their figures, latencies and power, for a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtpbench.errors import StoreError
from mtpbench.store import StoredPoint, read_sweep
from mtpbench.store.columns import read_packed
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.importers.results import to_curve_point
from mtpbench_analysis.traces.power import PowerTrace, power_trace, thin

Floats = npt.NDArray[np.float64]

QUANTILES = 101
"""At most so many values tell a distribution; fewer requests are told one by one."""
_UNKNOWN = -1
"""Stands in the store's tables where a server did not count."""
_EXAMPLE_CHARACTERS = 400
POWER_VALUES = 120
"""Of a point; each is the mean over its share of the time."""


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


@dataclass(frozen=True, kw_only=True, eq=False)
class PointTrace:
    """One stored point with what its figures were made of.

    Args:
        point: the point of a curve that it became, equal to the one that `read_results` makes: this is how a
            comparison finds it, whatever folder it came from. None where it has no figures.
        stored: its records.
        requests: latencies of its requests.
        power: over time, at most `POWER_VALUES` values, each the mean over its share of the time.
    """

    point: CurvePoint | None
    stored: StoredPoint
    requests: RequestTrace
    power: PowerTrace


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepTrace:
    """The points of one results folder in the order in which they were measured.

    Args:
        source: the folder.
        points: every stored one, valid or not.
        missing: planned ids that nobody has measured.
        damaged: ids whose files can't be read, and why.
    """

    source: str
    points: tuple[PointTrace, ...]
    missing: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)


def read_traces(sources: Sequence[Path]) -> tuple[SweepTrace, ...]:
    """The traces of those sources that are results folders; files of other tools have none.

    Raises:
        InputError, SchemaError, StoreError: as `read_results` says.
    """
    return tuple(_read_folder(path) for path in sources if path.is_dir())


def narrow_traces(traces: Sequence[SweepTrace], kept: Iterable[CurvePoint]) -> tuple[SweepTrace, ...]:
    """Only the traces of some points; those without figures stay out, as nothing says that they are meant."""
    wanted = set(kept)
    return tuple(
        replace(sweep, points=tuple(one for one in sweep.points if one.point in wanted)) for sweep in traces
    )


def _read_folder(directory: Path) -> SweepTrace:
    sweep = read_sweep(directory)
    return SweepTrace(
        source=str(directory),
        points=tuple(
            read_trace(stored)
            for stored in sorted(sweep.points, key=lambda stored: stored.provenance.started_utc)
        ),
        missing=sweep.missing,
        damaged=sweep.damaged,
    )


def read_trace(stored: StoredPoint) -> PointTrace:
    """The trace of one stored point; files of it that can't be read give reasons, not errors."""
    made = to_curve_point(stored)
    power = power_trace(stored)
    times_s, power_w = thin(power.times_s, power.power_w, POWER_VALUES)
    return PointTrace(
        point=made if isinstance(made, CurvePoint) else None,
        stored=stored,
        requests=request_trace(stored),
        power=replace(power, times_s=times_s, power_w=power_w),
    )


def request_trace(stored: StoredPoint) -> RequestTrace:
    """The latencies of one stored point; a damaged file gives none, with the reason."""
    try:
        # The first and last chunks are all that it takes: a whole table may hold millions.
        table = read_packed(stored.directory / "requests.parquet").summarised()
    except StoreError as error:
        return _unknown(str(error))
    ttft_s, tpot_s = latencies(table, counted_requests(table, stored))
    examples = _examples(table)
    count = stored.result.ttft_s.count if stored.result.ttft_s else 0
    if len(ttft_s) != count:
        why = f"the request records hold {len(ttft_s)} counted requests, result.json says {count}"
        return _unknown(f"{why}: `mtpbench recompute` makes them agree", examples)
    if not count:
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
    examples: dict[str, str] = {}
    for row in failed.tolist():
        detail = table.error_detail[row]
        if detail and table.error[row] not in examples:
            examples[table.error[row]] = detail[:_EXAMPLE_CHARACTERS]
    return examples


def _unknown(reason: str, examples: Mapping[str, str] | None = None) -> RequestTrace:
    return RequestTrace(ttft_s=np.empty(0), tpot_s=np.empty(0), examples=examples or {}, reason=reason)
