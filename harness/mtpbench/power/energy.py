"""Pure: power samples over a window -> Energy of the deployment's GPUs, or NULL with a reason code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtpbench.records import Energy, PowerSample
from mtpbench.requests import Floats
from mtpbench.window import Window

MAX_GAP_S = 3.0
MAX_MISMATCH = 0.05
MIN_CROSS_CHECK_SAMPLES = 5
"""With fewer samples inside the window the integral of power says nothing about the counter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Gpu:
    """What one GPU used over the window: by its counter, and by the integral of its power."""

    counted_j: float | None
    integral_j: float | None
    samples: int


def measure_energy(
    samples: Sequence[PowerSample],
    window: Window,
    expected_gpus: int,
    tokens: float,
    output_tokens: float,
    source: str,
    max_gap_s: float = MAX_GAP_S,
) -> Energy:
    """The energy of every GPU of the deployment over the window, idle ones too.

    The energy counter's difference, interpolated linearly to the window's edges, checked against the
    integral of power; the integral itself where the source has no counter.

    Args:
        samples: readings of every GPU, in any order.
        window: the steady-state window in engine seconds.
        expected_gpus: GPUs that the deployment holds.
        tokens: input and output tokens of the window.
        output_tokens: output tokens of the window.
        source: what was read, for the record.
        max_gap_s: a longer hole between two readings (engine seconds) makes the energy unknown.

    Returns:
        NULL with reason `no_power_samples`, `missing_gpu`, `unexpected_gpu`, `power_not_covered`,
        `power_gap`, `counter_reset`, `counter_frozen`,
        `power_mismatch` or `power_zero` where there is no figure.
    """
    series: dict[tuple[str, int], list[PowerSample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.time_s):
        series.setdefault((sample.process, sample.gpu), []).append(sample)
    if not series:
        return unknown("no_power_samples", expected_gpus, source)
    if len(series) != expected_gpus:
        fewer = len(series) < expected_gpus
        return unknown("missing_gpu" if fewer else "unexpected_gpu", expected_gpus, source)
    gpus: list[_Gpu] = []
    for readings in series.values():
        gpu = _read_gpu(readings, window, max_gap_s)
        if isinstance(gpu, str):
            return unknown(gpu, expected_gpus, source)
        gpus.append(gpu)
    return _total(gpus, window, tokens, output_tokens, source)


def unknown(reason: str, gpus: int, source: str) -> Energy:
    """An energy that is not known, with the reason code."""
    return Energy(
        energy_j=None,
        mean_power_w_per_gpu=None,
        joules_per_token=None,
        joules_per_output_token=None,
        gpus=gpus,
        source=source,
        reason=reason,
    )


def _read_gpu(readings: list[PowerSample], window: Window, max_gap_s: float) -> _Gpu | str:
    counter = [(r.time_s, r.energy_j) for r in readings if r.energy_j is not None]
    power = [(r.time_s, r.power_w) for r in readings if r.power_w is not None]
    if not counter and not power:
        return "no_power_samples"
    counted: float | None = None
    if counter:
        times, joules = _columns(counter)
        if fault := _coverage_fault(times, window, max_gap_s) or _counter_fault(
            times, joules, window, max_gap_s
        ):
            return fault
        counted = float(np.interp(window.end_s, times, joules) - np.interp(window.start_s, times, joules))
    integral: float | None = None
    inside = 0
    if power:
        times, watts = _columns(power)
        fault = _coverage_fault(times, window, max_gap_s)
        if fault and counted is None:
            return fault
        if not fault:
            integral = _integrate(times, watts, window)
            inside = int(((times >= window.start_s) & (times <= window.end_s)).sum())
    return _Gpu(counted_j=counted, integral_j=integral, samples=inside)


def _columns(pairs: list[tuple[float, float]]) -> tuple[Floats, Floats]:
    times, values = np.array(pairs, np.float64).T
    return times, values


def _coverage_fault(times: Floats, window: Window, max_gap_s: float) -> str | None:
    if times[0] > window.start_s or times[-1] < window.end_s:
        return "power_not_covered"
    touching = (times[1:] > window.start_s) & (times[:-1] < window.end_s)
    return "power_gap" if (np.diff(times)[touching] > max_gap_s).any() else None


def _counter_fault(times: Floats, joules: Floats, window: Window, max_gap_s: float) -> str | None:
    touching = np.flatnonzero((times[1:] > window.start_s) & (times[:-1] < window.end_s))
    first, last = touching[0], touching[-1] + 1
    times, joules = times[first : last + 1], joules[first : last + 1]
    steps = np.diff(joules)
    if (steps < 0).any():
        return "counter_reset"
    # A GPU always draws power, so a counter that stands still is not being updated.
    moves = np.concatenate((times[:1], times[1:][steps > 0], times[-1:]))
    still_s = min(max_gap_s, float(times[-1] - times[0]))
    return "counter_frozen" if (np.diff(moves) >= still_s).any() and not (steps > 0).all() else None


def _integrate(times: Floats, watts: Floats, window: Window) -> float:
    inner = times[(times > window.start_s) & (times < window.end_s)]
    at = np.concatenate(([window.start_s], inner, [window.end_s]))
    return float(np.trapezoid(np.interp(at, times, watts), at))


def _total(gpus: list[_Gpu], window: Window, tokens: float, output_tokens: float, source: str) -> Energy:
    if all(gpu.counted_j is None for gpu in gpus):
        energy, source = sum(gpu.integral_j or 0.0 for gpu in gpus), f"{source}, integral of power"
    elif any(gpu.counted_j is None for gpu in gpus):
        # Never mix: some GPUs by counter and some by integral would be a figure of no one kind.
        return unknown("no_power_samples", len(gpus), source)
    else:
        energy = sum(gpu.counted_j or 0.0 for gpu in gpus)
        checkable = all(g.integral_j is not None and g.samples >= MIN_CROSS_CHECK_SAMPLES for g in gpus)
        if not checkable:
            source = f"{source}, not cross-checked"
        elif abs(energy - sum(gpu.integral_j or 0.0 for gpu in gpus)) > MAX_MISMATCH * energy:
            return unknown("power_mismatch", len(gpus), source)
    if energy <= 0:
        # No GPU that is on draws nothing: a meter that says so is not read, not at rest.
        return unknown("power_zero", len(gpus), source)
    return Energy(
        energy_j=energy,
        mean_power_w_per_gpu=energy / window.duration_s / len(gpus),
        joules_per_token=energy / tokens if tokens else None,
        joules_per_output_token=energy / output_tokens if output_tokens else None,
        gpus=len(gpus),
        source=source,
    )
