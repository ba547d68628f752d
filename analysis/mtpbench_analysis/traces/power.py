"""Power over time of every point of a sweep, all GPUs of a deployment together, with the counted window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtpbench.errors import StoreError
from mtpbench.records import PointResult, PowerSample, SweepInfo
from mtpbench.store import StoredPoint, StoredSweep, read_power, read_sweep

Floats = npt.NDArray[np.float64]

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
