"""Pure: what GPUs said of themselves while they were metered: heat, power cap, why clocks were not higher."""

from __future__ import annotations

from collections.abc import Mapping

from mtpbench.power.log import PowerLog
from mtpbench.records import UNUSED, GpuCondition

CLOCK_REASONS: Mapping[int, str] = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
"""NVML's clock-event reasons (nvml.h, nvmlClocksEventReason…)."""
HINDERING = ("hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
"""Those that mean something is wrong with the machine: another one, or a cooler day, gives other figures."""


def conditions(log: PowerLog, owners: Mapping[int, str], node: int) -> list[GpuCondition]:
    """What every meter said of itself over a log, in the order of the meters.

    Args:
        log: of one node.
        owners: which process holds a meter's GPU; one that none holds is `unused@<node>`.
        node: its number.
    """
    names = dict(probe.meters) if (probe := log.gpu_probe) else {}
    found = []
    models = dict(zip(names, probe.models, strict=False)) if probe else {}
    for meter, uuid in sorted(names.items()):
        states = [state for _, told in log.states for state in told if state.meter == meter]
        heat = [state.temperature_c for state in states if state.temperature_c is not None]
        caps = [state.limit_w for state in states if state.limit_w is not None]
        bits = [state.clock_reasons for state in states if state.clock_reasons is not None]
        found.append(
            GpuCondition(
                name=f"{owners.get(meter, f'{UNUSED}@{node}')}/{meter}",
                uuid=uuid,
                model=models.get(meter),
                temperature_max_c=max(heat, default=None),
                power_cap_min_w=min(caps, default=None),
                power_cap_max_w=max(caps, default=None),
                clock_reasons=_named(bits) if bits else None,
            )
        )
    return found


def hindrances(told: tuple[GpuCondition, ...]) -> tuple[str, ...]:
    """A sentence for each GPU whose clocks were held back by what is wrong with the machine."""
    found = []
    for gpu in told:
        if reasons := [reason for reason in gpu.clock_reasons or () if reason in HINDERING]:
            heat = "" if gpu.temperature_max_c is None else f", up to {gpu.temperature_max_c:g} °C"
            found.append(f"GPU {gpu.name}: clocks were held back by {', '.join(reasons)}{heat}")
    return tuple(found)


def _named(masks: list[int]) -> tuple[str, ...]:
    """The names of all bits that were ever set; one without a name is told in hex."""
    seen = 0
    for mask in masks:
        seen |= mask
    known = [name for bit, name in CLOCK_REASONS.items() if seen & bit]
    rest = seen & ~sum(CLOCK_REASONS)
    return (*known, *([f"{rest:#x}"] if rest else []))
