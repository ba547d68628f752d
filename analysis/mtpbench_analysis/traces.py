"""What a results folder holds of its points beyond their figures: request latencies, and power over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtpbench.errors import StoreError
from mtpbench.records import PointResult, PowerSample, SweepInfo
from mtpbench.store import StoredPoint, StoredSweep, read_power, read_sweep
from mtpbench.store.columns import read_packed
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.importers.results import to_curve_point

Floats = npt.NDArray[np.float64]

QUANTILES = 101
"""At most so many values tell a distribution; fewer requests are told one by one."""
_UNKNOWN = -1
"""Stands in the store's tables where a server did not count."""
_EXAMPLE_CHARACTERS = 400
POWER_VALUES = 120
"""Of a point; each is the mean over its share of the time."""


OTHERS = ("grace@", "unused@")
"""Names of series that begin so are CPU rails, or GPUs that no process holds (`mtpbench.power.log`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PowerTrace:
    """The power of one point's deployment while it was loaded.

    Args:
        point_id, arm, topology, concurrency: which point; concurrency is None in an open loop.
        started_utc: when its load was begun, ISO 8601.
        times_s: (n,) seconds since the load's origin; engine seconds where simulated.
        power_w: (n,) of all its GPUs together, at those times; empty where it is not known.
        gpus: GPUs that were read; 0 where none was.
        window_s: start and end of the steady-state window, in the same seconds; None where there is none.
        energy_j: over the window, by the point's result; None with a reason.
        reason: why `power_w` is empty or `energy_j` is None.
        source: what was read.
        broken: codes of the validity rules that the point broke; empty where it is valid.
    """

    point_id: str
    arm: str
    topology: str
    concurrency: int | None
    started_utc: str
    times_s: Floats
    power_w: Floats
    gpus: int
    window_s: tuple[float, float] | None
    energy_j: float | None
    reason: str | None
    source: str
    simulated: bool
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepPower:
    """The power of a whole results folder.

    Args:
        info: of the sweep.
        traces: of every stored point, in the order in which they were measured.
        missing: planned ids that nobody has measured.
        damaged: ids whose files can't be read, and why.
    """

    info: SweepInfo
    traces: tuple[PowerTrace, ...]
    missing: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)


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

    @property
    def recipe(self) -> str:
        """The recipe of the stored point in a few characters, whether it became a point of a curve or not."""
        point = self.stored.point
        return CurvePoint(
            arm=point.arm.name,
            interactivity_tps=0.0,
            tput_tps_per_gpu=0.0,
            concurrency=point.concurrency,
            rate_rps=point.load.rate_rps,
            topology=point.topology.name,
            gpus=point.topology.gpus,
        ).recipe


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


def read_sweep_power(directory: Path) -> SweepPower:
    """The power of results/<sweep>, with what is not there to be drawn.

    Raises:
        InputError: the folder holds no sweep.
        SchemaError: it was written under another schema version.
        StoreError: sweep.json is damaged.
    """
    sweep = read_sweep(directory)
    return SweepPower(
        info=sweep.info, traces=power_traces(sweep), missing=sweep.missing, damaged=sweep.damaged
    )


def power_traces(sweep: StoredSweep) -> tuple[PowerTrace, ...]:
    """One trace for each stored point, in the order in which they were measured."""
    return tuple(
        power_trace(point) for point in sorted(sweep.points, key=lambda one: one.provenance.started_utc)
    )


def power_trace(stored: StoredPoint) -> PowerTrace:
    """The trace of one point; a damaged file gives an empty one with the reason."""
    result = stored.result
    reason = None if result.energy.reason is None else str(result.energy.reason)
    path = stored.directory / "power.parquet"
    try:
        samples = read_power(path)
    except StoreError:
        # Short, and without the folder: the reason stands in pictures and pages that are handed on.
        samples, reason = (), f"{path.name} is {'damaged' if path.exists() else 'missing'}"
    times_s, power_w, gpus = total_power(samples)
    if not len(times_s):
        reason = reason or "no_power_samples"
    return PowerTrace(
        point_id=result.point_id,
        arm=stored.point.arm.name,
        topology=stored.point.topology.name,
        concurrency=stored.point.concurrency,
        started_utc=stored.provenance.started_utc,
        times_s=times_s,
        power_w=power_w,
        gpus=gpus,
        window_s=(result.steady.start_s, result.steady.end_s) if result.steady else None,
        energy_j=result.energy.energy_j,
        reason=reason,
        source=result.energy.source_text,
        simulated=result.simulated,
        broken=_broken(result),
    )


def _broken(result: PointResult) -> tuple[str, ...]:
    """A point without a steady-state window enters no curve either, whether or not a rule says so."""
    codes = tuple(dict.fromkeys(reason.code for reason in result.reasons))
    return codes or (() if result.steady else ("no_steady_window",))


def total_power(samples: Sequence[PowerSample]) -> tuple[Floats, Floats, int]:
    """Times (s), the power of all GPUs together (W), and how many GPUs they are.

    GPUs are read one after the other, so each is interpolated to the times of all. Only what all of them
    cover is told: a sum that lacks a GPU would look like a fall. A GPU without power readings gets the slope
    of its energy counter; one without either makes the sum unknown.
    """
    readings: dict[tuple[str, int], list[PowerSample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.time_s):
        if not sample.process.startswith(OTHERS):
            readings.setdefault((sample.process, sample.gpu), []).append(sample)
    series = [_series(one) for one in readings.values()]
    if not series or any(len(times_s) < 2 for times_s, _ in series):
        return np.empty(0), np.empty(0), 0
    first = max(times_s[0] for times_s, _ in series)
    last = min(times_s[-1] for times_s, _ in series)
    every = np.unique(np.concatenate([times_s for times_s, _ in series]))
    times = every[(every >= first) & (every <= last)]
    total = np.zeros(len(times))
    for times_s, power_w in series:
        total += np.interp(times, times_s, power_w)
    return times, total, len(series)


def _series(readings: Sequence[PowerSample]) -> tuple[Floats, Floats]:
    """Times and power of one GPU."""
    power = [(one.time_s, one.power_w) for one in readings if one.power_w is not None]
    if power:
        times_s, power_w = np.array(power, np.float64).T
        return times_s, power_w
    counter = np.array([(one.time_s, one.energy_j) for one in readings if one.energy_j is not None])
    if len(counter) < 2:
        return np.empty(0), np.empty(0)
    times_s, energy_j = counter.T
    moved = np.concatenate(([True], np.diff(energy_j) > 0)) & np.concatenate(([True], np.diff(times_s) > 0))
    times_s, energy_j = times_s[moved], energy_j[moved]
    if len(times_s) < 2:
        return np.empty(0), np.empty(0)
    return (times_s[1:] + times_s[:-1]) / 2, np.diff(energy_j) / np.diff(times_s)


def thin(times_s: Floats, values: Floats, at_most: int) -> tuple[Floats, Floats]:
    """At most so many values of a long series, each the mean over its equal share of time.

    Raises:
        ValueError: `at_most` is below 2.
    """
    if at_most < 2:
        raise ValueError(f"at_most is {at_most}: at least 2 values are needed")
    if len(times_s) <= at_most:
        return times_s, values
    share = np.linspace(times_s[0], times_s[-1], at_most + 1)
    cell = np.clip(np.searchsorted(share, times_s, side="right") - 1, 0, at_most - 1)
    counts = np.bincount(cell, minlength=at_most)
    some = counts > 0
    means = np.bincount(cell, values, minlength=at_most)[some] / counts[some]
    return np.bincount(cell, times_s, minlength=at_most)[some] / counts[some], means
