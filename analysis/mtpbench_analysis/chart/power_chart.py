"""Pure: the chart of a sweep's power in values: traces on one time axis, steady-state windows, reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from mtpbench.records import Hardware
from mtpbench_analysis.curves.curve import display_name
from mtpbench_analysis.curves.errors import FloatArray
from mtpbench_analysis.traces import PowerTrace, thin

_AT_MOST = 2000
"""The most values of one trace; nobody would see more."""
_PAUSE_SHARE = 0.25
"""A pause of more than twice this share of the whole load time is cut to the share, such as a night."""
_SHORTEST_PAUSE_S = 120.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Stretch:
    """One point's stretch of the common time axis.

    Args:
        arm: its arm's place among the sweep's arms, which decides the colour.
        name: `MTP c64`, with the topology where the sweep has several.
        start, end: its load on the axis.
        times, power_w_per_gpu: (n,) its trace; empty where it is unknown.
        window: its steady-state window on the axis.
        mean_w_per_gpu: the mean over the window, from the point's result.
        reason: why it has no trace or no mean.
        broken: codes of the validity rules that the point broke.
    """

    arm: int
    name: str
    start: float
    end: float
    times: FloatArray
    power_w_per_gpu: FloatArray
    window: tuple[float, float] | None
    mean_w_per_gpu: float | None
    reason: str | None
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class PowerChart:
    """The chart of a whole sweep's power.

    Args:
        arms: names of the measured arms, the baseline first.
        pauses: for each cut pause, its place on the axis and the minutes cut out.
        provisioned_w_per_gpu: the provisioned power among the constants; None where it is unknown.
    """

    arms: tuple[str, ...]
    stretches: tuple[Stretch, ...]
    pauses: tuple[tuple[float, float], ...]
    x_label: str
    provisioned_w_per_gpu: float | None
    provisioned_label: str
    simulated: bool
    notes: tuple[str, ...] = ()


def describe_power(
    traces: Sequence[PowerTrace], baseline: str, hardware: Hardware | None, order: Sequence[str] = ()
) -> PowerChart:
    """Returns a sweep's traces on one axis: minutes of wall time, or, simulated, engine seconds end to end.

    Args:
        traces: traces in the order of measurement; at least one.
        baseline: the arm with the first colour.
        hardware: the constants, or None.
        order: the order of the other arms.
    """
    simulated = any(trace.simulated for trace in traces)
    names = list(dict.fromkeys([baseline, *order, *(trace.arm for trace in traces)]))
    names = [name for name in names if any(trace.arm == name for trace in traces)]
    spans = [_span(trace) for trace in traces]
    if simulated:
        starts, pauses, unit_s = *_end_to_end(spans), 1.0
    else:
        starts, pauses, unit_s = *_wall_times(traces, spans), 60.0
    several = len({trace.topology for trace in traces}) > 1
    stretches = [
        _stretch(trace, span, start, unit_s, names.index(trace.arm), several)
        for trace, span, start in zip(traces, spans, starts, strict=True)
    ]
    watts = hardware.power_kw_per_gpu * 1000 if hardware and hardware.power_kw_per_gpu else None
    return PowerChart(
        arms=tuple(names),
        stretches=tuple(stretches),
        pauses=tuple((at / unit_s, cut_s / 60) for at, cut_s in pauses),
        x_label=_x_label(simulated, bool(pauses)),
        provisioned_w_per_gpu=watts,
        provisioned_label=_provisioned(hardware, watts),
        simulated=simulated,
        notes=_notes(traces),
    )


def _x_label(simulated: bool, cut: bool) -> str:
    if simulated:
        return "engine seconds of the points, laid end to end in the order measured"
    return "minutes since the first load" + (", pauses cut out where marked" if cut else "")


def _provisioned(hardware: Hardware | None, watts: float | None) -> str:
    if hardware is None or watts is None:
        return ""
    return f"provisioned: {watts:,.6g} W per {hardware.gpu}, all-in (constants of {hardware.constants_date})"


def _span(trace: PowerTrace) -> tuple[float, float]:
    """Returns the first and last second of a point's load and samples; at least one second apart."""
    ends = [float(trace.times_s[0]), float(trace.times_s[-1])] if len(trace.times_s) else []
    ends += trace.window_s or ()
    return (min([*ends, 0.0]), max([*ends, min([*ends, 0.0]) + 1.0]))


def _end_to_end(spans: Sequence[tuple[float, float]]) -> tuple[list[float], list[tuple[float, float]]]:
    """Returns each trace's origin on the axis, a short pause apart, and no cut pauses."""
    pause_s = 0.02 * sum(last - first for first, last in spans) / len(spans)
    starts, at = [], 0.0
    for first, last in spans:
        starts.append(at - first)
        at += last - first + pause_s
    return starts, []


def _wall_times(
    traces: Sequence[PowerTrace], spans: Sequence[tuple[float, float]]
) -> tuple[list[float], list[tuple[float, float]]]:
    """Returns each origin in seconds since the first, and for each cut pause its place and seconds."""
    clock = [_instant(trace.started_utc) for trace in traces]
    origin = clock[0] + spans[0][0]
    longest_s = max(_SHORTEST_PAUSE_S, _PAUSE_SHARE * sum(last - first for first, last in spans))
    starts, pauses, removed, busy_until = [], [], 0.0, clock[0]
    for at, (first, last) in zip(clock, spans, strict=True):
        idle_s = at + first - busy_until
        if idle_s > 2 * longest_s:
            removed += idle_s - longest_s
            pauses.append((busy_until - origin - removed + idle_s - longest_s / 2, idle_s - longest_s))
        starts.append(at - origin - removed)
        busy_until = max(busy_until, at + last)
    return starts, pauses


def _instant(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _stretch(
    trace: PowerTrace, span: tuple[float, float], start: float, unit_s: float, arm: int, several: bool
) -> Stretch:
    name = [display_name(trace.arm), trace.topology if several else "", trace.load]
    has_trace = trace.gpus > 0 and len(trace.times_s) > 0
    times_s, power_w = (
        thin(trace.times_s, trace.power_w, _AT_MOST) if has_trace else (np.empty(0), np.empty(0))
    )
    mean = None
    if trace.energy_j is not None and trace.window_s is not None and trace.gpus:
        mean = trace.energy_j / (trace.window_s[1] - trace.window_s[0]) / trace.gpus
    window = trace.window_s
    return Stretch(
        arm=arm,
        name=" ".join(part for part in name if part),
        start=(start + span[0]) / unit_s,
        end=(start + span[1]) / unit_s,
        times=(times_s + start) / unit_s,
        power_w_per_gpu=power_w / trace.gpus if has_trace else np.empty(0),
        window=None if window is None else ((start + window[0]) / unit_s, (start + window[1]) / unit_s),
        mean_w_per_gpu=mean,
        reason=(trace.reason or "reason not recorded") if mean is None or not has_trace else None,
        broken=trace.broken,
    )


def _notes(traces: Sequence[PowerTrace]) -> tuple[str, ...]:
    sources = ", ".join(sorted({trace.source for trace in traces if trace.source}))
    return (
        "Power of one GPU: that of all GPUs of the deployment over their number. Shaded: steady-state "
        f"windows, with the mean over each. Meter: {sources or 'none'}.",
    )
