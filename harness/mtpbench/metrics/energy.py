"""Pure: the energy of a deployment's GPUs from power samples over a window, or NULL with a reason code."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mtpbench.metrics.meter_series import (
    LEAST_W,
    MOST_W,
    MeterSeries,
    implausible,
    integrate,
    most_at_once_w,
    refused,
)
from mtpbench.metrics.request_table import Floats
from mtpbench.metrics.window import Window
from mtpbench.records import (
    GRACE,
    MOST_COUNTED,
    UNUSED,
    Energy,
    IdlePower,
    IdleState,
    PowerSample,
    PowerSource,
    Reason,
    known,
)

MAX_GAP_S = 3.0
MAX_MISMATCH = 0.05
MIN_CROSS_CHECK_SAMPLES = 5
"""With fewer samples inside the window the integral of power can't check the counter."""

REASONS: Mapping[str, str] = {
    "no_power_source": "nothing was read",
    "no_window": "there was no steady-state window",
    "no_power_samples": "the source gave nothing, or not the same for every GPU",
    "missing_gpu": "fewer GPUs were read than the deployment holds",
    "unexpected_gpu": "more GPUs were read than the deployment holds",
    "gpu_lost": "a GPU stopped answering inside the window",
    "gpu_swapped": "a meter was another GPU (UUID) later than it was first",
    "power_not_covered": "the samples don't reach over both edges of the window",
    "power_gap": "a hole between two samples was longer than a gap may be",
    "counter_reset": "the energy counter fell",
    "counter_frozen": "the energy counter stood still",
    "power_frozen": "there is no counter, and power did not move by a milliwatt",
    "power_mismatch": "a GPU's counter and the integral of its power are more than 5% apart",
    "power_zero": "a meter read 0 J over the whole window",
    "power_implausible": "a GPU would have drawn less than 2 W, or more than 10 kW or 110% of its limit",
}
"""Reason codes of a NULL energy (see docs/validity.md). Those of Grace rails begin with `grace_`."""


@dataclass(frozen=True, slots=True)
class _Gpu:
    """The energy that one GPU used over the window, by its counter and by the integral of its power."""

    name: str
    counted_j: float | None
    integral_j: float | None
    samples: int
    edges_j: float = 0.0
    """The largest error of the counter: a step at each edge of the window, if the samples show its steps."""
    by_block_j: Floats | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Basis:
    """The basis of an energy: one kind of figure for every GPU, and whether the other kind agreed with it."""

    kind: Literal["counter", "integral"]
    by_gpu: Mapping[str, float]
    cross_checked: bool | None = None
    integral_j: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tokens:
    input: float
    output: float


def measure_energy(
    samples: Sequence[PowerSample],
    window: Window,
    expected_gpus: int,
    tokens: float,
    output_tokens: float,
    source: PowerSource | None,
    max_gap_s: float = MAX_GAP_S,
    limits_w: Mapping[str, float] | None = None,
    blocks: Sequence[Window] = (),
) -> Energy:
    """Computes the energy of every GPU of the deployment over the window, idle ones too.

    It is the difference of the energy counter, interpolated linearly to the window's edges and checked
    against the integral of power; without a counter it is the integral itself. Rails of Grace CPUs, and GPUs
    that no process holds, are computed separately: their faults do not change the deployment's energy.

    Args:
        samples: readings of every GPU, in any order.
        window: the steady-state window in engine seconds.
        expected_gpus: GPUs that the deployment holds.
        tokens: input and output tokens of the window.
        output_tokens: output tokens of the window.
        source: where the samples come from, for the record.
        max_gap_s: a longer gap between two readings (engine seconds) makes the energy unknown.
        limits_w: power limits in watts, by `process/GPU`, of the GPUs whose limit is known.
        blocks: the window's time blocks, of which the power is computed too.

    Returns:
        NULL with reason `no_power_samples`, `missing_gpu`, `unexpected_gpu`, `gpu_lost`,
        `power_not_covered`, `power_gap`, `counter_reset`, `counter_frozen`, `power_frozen`,
        `power_mismatch`, `power_zero` or `power_implausible` if there is no figure.
    """
    series: dict[tuple[str, int], list[PowerSample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.time_s):
        series.setdefault((sample.process, sample.gpu), []).append(sample)
    rails = [series.pop(key) for key in list(series) if key[0].startswith(GRACE)]
    unused = [series.pop(key) for key in list(series) if key[0].startswith(UNUSED)]
    if not series:
        return unknown_energy("no_power_samples", expected_gpus, source)
    if len(series) != expected_gpus:
        fewer = len(series) < expected_gpus
        return unknown_energy("missing_gpu" if fewer else "unexpected_gpu", expected_gpus, source)
    gpus = _read_gpus(series, window, max_gap_s, limits_w or {}, blocks)
    if isinstance(gpus, str | Reason):
        return unknown_energy(gpus, expected_gpus, source)
    total = _total(gpus, window, _Tokens(input=tokens - output_tokens, output=output_tokens), source)
    if total.energy_j is None:
        return total
    grace = _read_grace(rails, window, max_gap_s)
    return dataclasses.replace(
        total,
        power_w_per_gpu_by_block=_by_block([gpu.by_block_j for gpu in gpus], blocks),
        grace_energy_j=None if isinstance(grace, str) else grace,
        grace_reason=grace if isinstance(grace, str) else "no_grace" if grace is None else None,
        unused_gpus=len(unused),
        unused_energy_j=_read_unused(unused, window, max_gap_s),
    )


def measure_idle(
    samples: Sequence[PowerSample],
    state: IdleState,
    duration_s: float,
    gpus: int,
    max_gap_s: float = MAX_GAP_S,
    limits_w: Mapping[str, float] | None = None,
) -> IdlePower:
    """Computes the idle power of the deployment's GPUs, from second 0 to `duration_s` of the samples.

    Args:
        samples: readings of every GPU.
        state: the state of the deployment while it was idle.
        duration_s: wall seconds.
        gpus: GPUs that the deployment holds.
        max_gap_s: a longer gap between two readings makes the power unknown.
        limits_w: power limits in watts, as for `measure_energy`.
    """
    window = Window(start_s=0.0, end_s=duration_s)
    energy = measure_energy(samples, window, gpus, 0.0, 0.0, None, max_gap_s, limits_w)
    return IdlePower(
        state=state,
        duration_s=duration_s,
        power_w_per_gpu=energy.mean_power_w_per_gpu,
        reason=energy.reason,
    )


def unknown_energy(reason: Reason | str, gpus: int, source: PowerSource | None) -> Energy:
    """Returns an energy without figures, with the reason or its code."""
    return Energy(
        energy_j=None,
        mean_power_w_per_gpu=None,
        joules_per_token=None,
        joules_per_output_token=None,
        gpus=gpus,
        source=source,
        reason=Reason(code=reason) if isinstance(reason, str) else reason,
    )


def split_by_node(energy_j_by_gpu: Mapping[str, float], nodes: Mapping[str, int]) -> dict[str, float]:
    """Sums energy by node number, as text; empty if the node of a process is unknown.

    Args:
        energy_j_by_gpu: the field of an `Energy`, by `process/GPU`.
        nodes: the node number of every process of the deployment.
    """
    by_node: dict[str, float] = {}
    for name, joules in energy_j_by_gpu.items():
        node = nodes.get(name.rsplit("/", 1)[0].split("+")[0])
        if node is None:
            return {}
        by_node[str(node)] = by_node.get(str(node), 0.0) + joules
    return by_node


def _read_gpus(
    series: Mapping[tuple[str, int], list[PowerSample]],
    window: Window,
    max_gap_s: float,
    limits_w: Mapping[str, float],
    blocks: Sequence[Window],
) -> list[_Gpu] | Reason | str:
    """Returns what every GPU used, or the reason (or its code) of the first GPU whose energy is unknown."""
    gpus: list[_Gpu] = []
    for (process, number), readings in series.items():
        name = f"{process}/{number}"
        gpu = _read_gpu(name, readings, window, max_gap_s, limits_w.get(name), blocks)
        if not isinstance(gpu, _Gpu):
            return gpu
        gpus.append(gpu)
    return gpus


def _read_gpu(
    name: str,
    readings: list[PowerSample],
    window: Window,
    max_gap_s: float,
    limit_w: float | None = None,
    blocks: Sequence[Window] = (),
) -> _Gpu | Reason | str:
    most_w = most_at_once_w(limit_w)
    counter = MeterSeries.of((r.time_s, known(r.energy_j, 0.0, MOST_COUNTED)) for r in readings)
    power = MeterSeries.of((r.time_s, known(r.power_w, LEAST_W, most_w)) for r in readings)
    if not len(counter) and not len(power):
        return refused(readings, window, most_w) or "no_power_samples"
    if _was_lost(readings, window, max_gap_s):
        return "gpu_lost"
    counted: float | None = None
    edges_j = 0.0
    if len(counter):
        if fault := counter.coverage_fault(window, max_gap_s) or _counter_fault(counter, window, max_gap_s):
            return fault
        counted, edges_j = counter.at_moves().difference(window), 2 * counter.step(window)
    integral: float | None = None
    inside = 0
    if len(power):
        fault = power.coverage_fault(window, max_gap_s)
        if counted is None and (fault := fault or _power_fault(power, window, max_gap_s)):
            return refused(readings, window, most_w) or fault
        if not fault:
            integral = integrate(power, window)
            inside = power.count(window)
    if counted is not None and counted <= 0:
        # Every GPU that is on draws power: a meter that shows none was not read.
        return "power_zero"
    used_j = integral if counted is None else counted
    if used_j is not None and (why := implausible(name, used_j, edges_j, window, limit_w)):
        return why
    if counted is not None and refused(readings, window, most_w) == "power_implausible":
        detail = f"most powers of {name} are not from {LEAST_W:g} to {most_w:,.4g} W, where its counter is"
        return Reason(code="power_implausible", detail=detail)
    by_block_j = (counter.at_moves() if len(counter) else power.integral()).differences(blocks)
    return _Gpu(name, counted, integral, inside, edges_j, by_block_j)


def _by_block(gpus_j: Sequence[Floats | None], blocks: Sequence[Window]) -> tuple[float, ...] | None:
    """Returns the mean power of a GPU in each block; None where it is unknown of one."""
    known_j = [by_block_j for by_block_j in gpus_j if by_block_j is not None]
    if len(known_j) < len(gpus_j):
        return None
    return tuple((np.mean(known_j, axis=0) / [block.duration_s for block in blocks]).tolist())


def _was_lost(readings: list[PowerSample], window: Window, max_gap_s: float) -> bool:
    """Returns whether the GPU gave no value for longer than a gap may be, or up to the window's end."""
    silent_since: float | None = None
    for reading in readings:
        answered = reading.energy_j is not None or reading.power_w is not None
        if answered:
            silent_since = None
        elif silent_since is None:
            silent_since = reading.time_s
        touches = silent_since is not None and silent_since < window.end_s
        # Of a silence that began before the window, only the part inside the window counts.
        since = max(silent_since or 0.0, window.start_s)
        if touches and min(reading.time_s, window.end_s) - since > max_gap_s:
            return True
    return silent_since is not None and silent_since < window.end_s


def _counter_fault(counter: MeterSeries, window: Window, max_gap_s: float) -> str | None:
    inside = counter.touching(window)
    steps = np.diff(inside.values)
    if (steps < 0).any():
        return "counter_reset"
    # A GPU always draws power, so a counter that stands still is not being updated.
    still_s = min(max_gap_s, inside.span_s)
    return "counter_frozen" if inside.longest_still_s() >= still_s and not (steps > 0).all() else None


def _power_fault(power: MeterSeries, window: Window, max_gap_s: float) -> str | None:
    """Returns a reason code if power never changes, because the meter repeats an old value; else None."""
    inside = power.touching(window)
    return "power_frozen" if len(inside) > 2 and inside.longest_still_s() > max_gap_s else None


def _read_grace(rails: list[list[PowerSample]], window: Window, max_gap_s: float) -> float | str | None:
    """Sums the energy of all Grace rails; a reason code if one is unknown, None if there are no rails."""
    total = 0.0
    for readings in rails:
        power = MeterSeries.of((r.time_s, known(r.power_w, LEAST_W, MOST_W)) for r in readings)
        unread = refused(readings, window)
        if not len(power):
            return f"grace_{unread or 'no_power'}"
        if fault := power.coverage_fault(window, max_gap_s) or _power_fault(power, window, max_gap_s):
            return f"grace_{unread or fault}"
        total += integrate(power, window)
    return total if rails else None


def _read_unused(gpus: list[list[PowerSample]], window: Window, max_gap_s: float) -> float | None:
    """Sums the energy of all GPUs that no process holds; None if there are none, or one has no figure."""
    total = 0.0
    for readings in gpus:
        gpu = _read_gpu("", readings, window, max_gap_s)
        used_j = (
            None if not isinstance(gpu, _Gpu) else gpu.integral_j if gpu.counted_j is None else gpu.counted_j
        )
        if used_j is None:
            return None
        total += used_j
    return total if gpus else None


def _total(gpus: list[_Gpu], window: Window, tokens: _Tokens, source: PowerSource | None) -> Energy:
    basis = _basis(gpus)
    if isinstance(basis, str):
        return unknown_energy(basis, len(gpus), source)
    by_gpu = basis.by_gpu
    energy = sum(by_gpu.values())
    by_role: dict[str, float] = {}
    for name, joules in by_gpu.items():
        role = _role(name)
        by_role[role] = by_role.get(role, 0.0) + joules
    apart = {"prefill", "decode"} <= by_role.keys()
    return Energy(
        energy_j=energy,
        mean_power_w_per_gpu=energy / window.duration_s / len(gpus),
        joules_per_token=_per_token(energy, tokens.input + tokens.output),
        joules_per_output_token=_per_token(energy, tokens.output),
        joules_per_input_token=_per_token(energy, tokens.input),
        gpus=len(gpus),
        source=source,
        basis=basis.kind,
        cross_checked=basis.cross_checked,
        energy_j_by_gpu=by_gpu,
        energy_j_by_role=by_role,
        prefill_joules_per_input_token=_per_token(by_role["prefill"], tokens.input) if apart else None,
        decode_joules_per_output_token=_per_token(by_role["decode"], tokens.output) if apart else None,
        integral_j=basis.integral_j,
    )


def _basis(gpus: list[_Gpu]) -> _Basis | str:
    """Returns the energy of every GPU by one kind of figure, or the reason code of why there is none."""
    counted = {gpu.name: gpu.counted_j for gpu in gpus if gpu.counted_j is not None}
    integrals = {gpu.name: gpu.integral_j for gpu in gpus if gpu.integral_j is not None}
    integral_j = sum(integrals.values()) if len(integrals) == len(gpus) else None
    if not counted and integral_j is not None:
        return _Basis(kind="integral", by_gpu=integrals, integral_j=integral_j)
    if len(counted) < len(gpus):
        # Kinds are never mixed: some GPUs by counter and some by integral would be no figure of one kind.
        return "no_power_samples"
    if integral_j is None or any(gpu.samples < MIN_CROSS_CHECK_SAMPLES for gpu in gpus):
        return _Basis(kind="counter", by_gpu=counted, cross_checked=False)
    # Each GPU is checked by itself: in the sum of 72 GPUs a wrong one would not show.
    if any(map(_disagrees, gpus)):
        return "power_mismatch"
    return _Basis(kind="counter", by_gpu=counted, cross_checked=True, integral_j=integral_j)


def _disagrees(gpu: _Gpu) -> bool:
    """Returns whether counter and integral differ by more than 5% and the counter's own steps together."""
    if gpu.counted_j is None or gpu.integral_j is None:
        return False
    return abs(gpu.counted_j - gpu.integral_j) > MAX_MISMATCH * gpu.counted_j + gpu.edges_j


def _per_token(joules: float, tokens: float) -> float | None:
    return joules / tokens if tokens > 0 else None


def _role(name: str) -> str:
    """Returns `decode` for `decode-1/3`, and `prefill+decode` for a GPU that processes of both share."""
    roles = [process.rsplit("-", 1)[0] for process in name.rsplit("/", 1)[0].split("+")]
    return "+".join(dict.fromkeys(roles))
