"""What a results folder holds of its points beyond their figures: request latencies, and power over time."""

from __future__ import annotations

import os
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
from mtpbench_analysis.frame import CurvePoint, without_start
from mtpbench_analysis.importers.results import to_curve_point

Floats = npt.NDArray[np.float64]

QUANTILES = 101
"""The most values that a trace keeps of a distribution; of fewer requests it keeps every value."""
_UNKNOWN = -1
"""The store's tables hold this where a server did not count its tokens."""
_EXAMPLE_CHARACTERS = 400
POWER_VALUES = 120
"""The most power values of a point; each is the mean over its share of the time."""
OTHERS = ("grace@", "unused@")
"""Series whose names begin so are CPU rails, or GPUs that no process holds (`mtpbench.power.log`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PowerTrace:
    """The power of one point's deployment while it was loaded.

    Args:
        point_id, arm, topology, load: which point; its load as a mark (`c64`, `8/s cap 2`).
        started_utc: when its load began, ISO 8601.
        times_s: (n,) seconds since the load's origin; engine seconds where simulated.
        power_w: (n,) the power of all its GPUs together, at those times; empty where it is unknown.
        gpus: the number of GPUs whose power was read; 0 for none.
        window_s: start and end of the steady-state window, in the same seconds; None without a window.
        energy_j: the energy over the window, from the point's result; None with a reason.
        reason: why `power_w` is empty or `energy_j` is None.
        source: the meter that was read.
        broken: codes of the validity rules that the point broke; empty where it is valid.
    """

    point_id: str
    arm: str
    topology: str
    load: str
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
        info: name, arms and hardware of the sweep.
        traces: a trace of every stored point, in the order of measurement.
        missing: ids of planned points without a measurement.
        damaged: ids of points whose files can't be read, with the reason.
    """

    info: SweepInfo
    traces: tuple[PowerTrace, ...]
    missing: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class RequestTrace:
    """The latencies of one point's counted requests.

    A request counts if it was measured, succeeded, and ended in the steady-state window. Without a window,
    and in an open loop, it may end at any time. `result.json` counts the same requests.

    Args:
        ttft_s, tpot_s: quantiles in equal steps from the smallest value to the largest, at most `QUANTILES`,
            interpolated linearly; of fewer requests, their values in order. Empty where they are unknown.
        reasoning_share: reasoning tokens / output tokens of the counted requests; None where unknown.
        examples: by kind of failure, the error message of its first request; measured requests only.
        reason: why there are no quantiles, or None.
    """

    ttft_s: Floats
    tpot_s: Floats
    examples: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None
    reasoning_share: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PointTrace:
    """One stored point with the samples behind its figures.

    Args:
        point: the curve's point that it became, or None where it has no figures. It equals the point that
            `read_results` makes, so a comparison finds its trace in whatever folder it lies.
        stored: its records.
        requests: the latencies of its requests.
        power: its power over time, at most `POWER_VALUES` values, each the mean over its share of the time.
    """

    point: CurvePoint | None
    stored: StoredPoint
    requests: RequestTrace
    power: PowerTrace

    @property
    def recipe(self) -> str:
        """The recipe of the stored point in a few characters; a point without figures has one too."""
        point = self.stored.point
        return CurvePoint(
            arm=point.arm.name,
            interactivity_tps=0.0,
            tput_tps_per_gpu=0.0,
            concurrency=point.concurrency,
            rate_rps=point.load.rate_rps,
            arrivals=point.load.arrivals,
            ramp_s=point.load.ramp_s or None,
            topology=point.topology.name,
            gpus=point.topology.gpus,
        ).recipe


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepTrace:
    """The points of one results folder in the order of measurement.

    Args:
        source: the folder.
        points: every stored point, valid or not.
        missing: ids of planned points without a measurement.
        damaged: ids of points whose files can't be read, with the reason.
    """

    source: str
    points: tuple[PointTrace, ...]
    missing: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)


def read_traces(sources: Sequence[Path]) -> tuple[SweepTrace, ...]:
    """Returns the traces of those sources that are results folders; other tools' files have none.

    Raises:
        InputError, SchemaError, StoreError: for the same faults as `read_results`.
    """
    return tuple(_read_folder(path) for path in sources if os.path.isdir(path))


def narrow_traces(traces: Sequence[SweepTrace], points: Iterable[CurvePoint]) -> tuple[SweepTrace, ...]:
    """Returns the traces of these points only; a trace without figures belongs to none of them."""
    chosen = set(map(without_start, points))
    return tuple(
        replace(sweep, points=tuple(t for t in sweep.points if t.point and without_start(t.point) in chosen))
        for sweep in traces
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
    """Returns the trace of one stored point; a file that can't be read gives a reason, not an error."""
    point = to_curve_point(stored)
    power = power_trace(stored)
    times_s, power_w = thin(power.times_s, power.power_w, POWER_VALUES)
    return PointTrace(
        point=point if isinstance(point, CurvePoint) else None,
        stored=stored,
        requests=request_trace(stored),
        power=replace(power, times_s=times_s, power_w=power_w),
    )


def request_trace(stored: StoredPoint) -> RequestTrace:
    """Returns the latencies of one stored point; a damaged file gives none, with the reason."""
    try:
        # Each request's first and last chunk suffice: a whole table may hold millions of chunks.
        table = read_packed(stored.directory / "requests.parquet").summarised()
    except StoreError as error:
        return _unknown(str(error))
    counted = counted_requests(table, stored)
    ttft_s, tpot_s = latencies(table, counted, since_due=stored.point.load.open)
    if stored.result.tpot_basis == "least_first_chunk":
        tpot_s = np.empty(0)  # it rests on the engine's stream interval, which only the result knows
    examples = _examples(table)
    count = stored.result.ttft_s.count if stored.result.ttft_s else 0
    if len(ttft_s) != count:
        why = f"the request records hold {len(ttft_s)} counted requests, result.json says {count}"
        return _unknown(f"{why}: `mtpbench recompute` makes them agree", examples)
    if not count:
        return _unknown("no request was counted", examples)
    return RequestTrace(
        ttft_s=quantiles(ttft_s),
        tpot_s=quantiles(tpot_s),
        examples=examples,
        reasoning_share=_reasoning_share(table, counted),
    )


def counted_requests(table: Any, stored: StoredPoint) -> npt.NDArray[np.bool_]:
    """Returns (n,) whether each request of the table counts in a result's distributions.

    Args:
        table: a request table of the store.
        stored: the point, with its window and its kind of load.
    """
    counted = table.ok & ~table.warmup & (table.chunk_counts > 0)
    window = stored.result.steady
    if window is None or stored.point.load.open:
        return np.asarray(counted, np.bool_)
    inside = (table.end_s > window.start_s) & (table.end_s <= window.end_s)
    return np.asarray(counted & inside, np.bool_)


def latencies(table: Any, counted: npt.NDArray[np.bool_], since_due: bool = False) -> tuple[Floats, Floats]:
    """Returns TTFT and TPOT of the counted requests in seconds; without TPOT where no token follows a chunk.

    TTFT is the first chunk's time − the time of sending; `since_due`, − when it was due. TPOT is (last −
    first chunk) / (output tokens − those of the first chunk, or − 1 where the server does not tell them).
    """
    first, last = table.first_chunk_s[counted], table.last_chunk_s[counted]
    in_first = table.chunk_tokens[table.chunk_offsets[:-1][counted]]
    counts_first = bool(len(in_first)) and not (in_first == _UNKNOWN).any()
    later = table.output_tokens[counted] - (in_first if counts_first else 1)
    several = later >= 1
    begun = table.scheduled_s if since_due else table.sent_s
    return first - begun[counted], (last - first)[several] / later[several]


def _reasoning_share(table: Any, counted: npt.NDArray[np.bool_]) -> float | None:
    known = counted & (table.reasoning_tokens != _UNKNOWN) & (table.output_tokens > 0)
    if not known.any():
        return None
    return float(table.reasoning_tokens[known].sum() / table.output_tokens[known].sum())


def quantiles(values: Floats, at_most: int = QUANTILES) -> Floats:
    """Returns a sample's quantile function in equal steps, ends included; empty for an empty sample."""
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
    """Returns the power of results/<sweep>, with the ids of points that have none.

    Raises:
        InputError: the folder holds no sweep.
        SchemaError: another schema version wrote it.
        StoreError: sweep.json is damaged.
    """
    sweep = read_sweep(directory)
    return SweepPower(
        info=sweep.info, traces=power_traces(sweep), missing=sweep.missing, damaged=sweep.damaged
    )


def power_traces(sweep: StoredSweep) -> tuple[PowerTrace, ...]:
    """Returns a trace of each stored point, in the order of measurement."""
    points = sorted(sweep.points, key=lambda point: point.provenance.started_utc)
    return tuple(power_trace(point) for point in points)


def power_trace(stored: StoredPoint) -> PowerTrace:
    """Returns the trace of one point; a damaged file gives an empty trace with the reason."""
    result = stored.result
    reason = None if result.energy.reason is None else str(result.energy.reason)
    path = stored.directory / "power.parquet"
    try:
        samples = read_power(path)
    except StoreError:
        # Short, and without the folder: pictures and pages that readers pass on show this reason.
        samples, reason = (), f"{path.name} is {'damaged' if os.path.exists(path) else 'missing'}"
    times_s, power_w, gpus = total_power(samples)
    if not len(times_s):
        reason = reason or "no_power_samples"
    return PowerTrace(
        point_id=result.point_id,
        arm=stored.point.arm.name,
        topology=stored.point.topology.name,
        load=stored.point.load_label("mark"),
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
    """Returns the codes of the broken rules; a point without a steady-state window enters no curve either."""
    codes = tuple(dict.fromkeys(reason.code for reason in result.reasons))
    return codes or (() if result.steady else ("no_steady_window",))


def total_power(samples: Sequence[PowerSample]) -> tuple[Floats, Floats, int]:
    """Returns times (s), the power of all GPUs together (W), and the number of GPUs.

    The meter reads one GPU after the other, so each GPU's power is interpolated to the times of all. The sum
    covers only the time that all GPUs cover: without one of them it would look like a fall. A GPU without
    power readings gets the slope of its energy counter; a GPU without either makes the sum unknown.
    """
    readings: dict[tuple[str, int], list[PowerSample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.time_s):
        if not sample.process.startswith(OTHERS):
            readings.setdefault((sample.process, sample.gpu), []).append(sample)
    series = [_power_of_gpu(samples_of_gpu) for samples_of_gpu in readings.values()]
    if not series or any(len(times_s) < 2 for times_s, _ in series):
        return np.empty(0), np.empty(0), 0
    first = max(times_s[0] for times_s, _ in series)
    last = min(times_s[-1] for times_s, _ in series)
    all_times_s = np.unique(np.concatenate([times_s for times_s, _ in series]))
    shared_times_s = all_times_s[(all_times_s >= first) & (all_times_s <= last)]
    total_w = np.zeros(len(shared_times_s))
    for times_s, power_w in series:
        total_w += np.interp(shared_times_s, times_s, power_w)
    return shared_times_s, total_w, len(series)


def _power_of_gpu(samples: Sequence[PowerSample]) -> tuple[Floats, Floats]:
    """Returns times (s) and power (W) of one GPU."""
    power = [(sample.time_s, sample.power_w) for sample in samples if sample.power_w is not None]
    if power:
        times_s, power_w = np.array(power, np.float64).T
        return times_s, power_w
    counter = np.array(
        [(sample.time_s, sample.energy_j) for sample in samples if sample.energy_j is not None]
    )
    if len(counter) < 2:
        return np.empty(0), np.empty(0)
    times_s, energy_j = counter.T
    moved = np.concatenate(([True], np.diff(energy_j) > 0)) & np.concatenate(([True], np.diff(times_s) > 0))
    times_s, energy_j = times_s[moved], energy_j[moved]
    if len(times_s) < 2:
        return np.empty(0), np.empty(0)
    return (times_s[1:] + times_s[:-1]) / 2, np.diff(energy_j) / np.diff(times_s)


def thin(times_s: Floats, values: Floats, at_most: int) -> tuple[Floats, Floats]:
    """Returns at most `at_most` values of a series and their times, each the mean over a share of the time.

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
    filled = counts > 0
    means = np.bincount(cell, values, minlength=at_most)[filled] / counts[filled]
    return np.bincount(cell, times_s, minlength=at_most)[filled] / counts[filled], means
