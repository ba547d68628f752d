"""Pure: which GPUs of which nodes a sampler reads, what was read there, and what GPUs said of themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mtpbench.power.log import PowerLog, Unread, identity_fault, moment_of, samples, unread
from mtpbench.records import GRACE, UNUSED, Deployment, GpuCondition, PowerSample, PowerSource, Reason

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


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeGpus:
    """The GPUs of one node that a sampler reads.

    Args:
        node: its number in the deployment.
        names: NVML indices or UUIDs of those that are held; a meter's index is its place in here.
        owners: by meter, which process holds its GPU, `a+b` where several share it.
        spares: further GPUs that are ours and unused; their meters follow, where they can be read.
    """

    node: int
    names: tuple[str, ...]
    owners: Mapping[int, str]
    spares: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeLog:
    """What the sampler of one node wrote, and how far its monotonic clock is ahead of the client's."""

    log: PowerLog
    offset_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """What the readings of all nodes are good for; exactly one of `source` and `reason` is given.

    `grace_reason` is the code of why there is no figure of the Grace CPUs beside it, or None.
    """

    conditions: tuple[GpuCondition, ...] = ()
    source: PowerSource | None = None
    reason: Reason | None = None
    drivers: tuple[str, ...] = ()
    grace_reason: str | None = None


def held_by_node(deployment: Deployment) -> dict[int, dict[int, str]]:
    """By node, which process holds which GPU; a GPU that several share is named by all of them (`a+b`)."""
    by_node: dict[int, dict[int, str]] = {}
    for process in deployment.processes:
        for gpu in process.gpus:
            node = by_node.setdefault(process.node, {})
            node[gpu] = f"{node[gpu]}+{process.name}" if gpu in node else process.name
    return by_node


def gpus_of_node(node: int, held: Mapping[int, str], shown: Sequence[str] | None) -> NodeGpus:
    """The GPUs of a node to read.

    Args:
        node: its number.
        held: which process holds which GPU, by the node's own numbers from 0.
        shown: the GPUs that are ours there, in the order of those numbers (CUDA_VISIBLE_DEVICES): all of them
            are read. None where that is not known: then the held ones are, by their index.

    Raises:
        Unread: fewer GPUs are shown than are held, or MIG slices.
    """
    wanted = sorted(held)
    if shown is None:
        owners = {meter: held[gpu] for meter, gpu in enumerate(wanted)}
        return NodeGpus(node=node, names=tuple(map(str, wanted)), owners=owners)
    if len(shown) <= max(wanted) or not all(_names_gpu(shown[gpu]) for gpu in wanted):
        raise Unread(
            "no_gpu",
            f"CUDA_VISIBLE_DEVICES={','.join(shown)}: indices or UUIDs of {len(wanted)} whole GPUs are "
            "needed",
        )
    return NodeGpus(
        node=node,
        names=tuple(shown[gpu] for gpu in wanted),
        owners={meter: held[gpu] for meter, gpu in enumerate(wanted)},
        spares=tuple(name for gpu, name in enumerate(shown) if gpu not in held and _names_gpu(name)),
    )


def gather(nodes: Sequence[NodeGpus], logs: Mapping[int, NodeLog]) -> Gathered:
    """What the logs of all nodes are good for.

    Args:
        nodes: what was to be read.
        logs: by node.

    Returns:
        Without a source and with reason `node_missing`, `gpu_swapped`, `no_reading`, `mixed_sources`, or a
        sampler's own, where not all of them can be added up.
    """
    gpu_conditions: list[GpuCondition] = []
    sources: set[PowerSource] = set()
    drivers: set[str] = set()
    for gpus in nodes:
        where = f" (node {gpus.node})" if len(nodes) > 1 else ""
        seen = logs.get(gpus.node)
        if seen is None:
            return Gathered(reason=unread("node_missing", f"the sampler of node {gpus.node} left no file"))
        probe = seen.log.gpu_probe
        if probe is None or probe.source is None:
            return Gathered(reason=_at(why_unread(seen.log), where))
        if fault := identity_fault(seen.log, gpus.owners) or _silence(seen.log, gpus):
            return Gathered(reason=_at(fault, where))
        sources.add(probe.source)
        drivers |= {probe.driver} if probe.driver else set()
        gpu_conditions += conditions(seen.log, gpus.owners, gpus.node)
    if len(sources) != 1:
        listed = " / ".join(sorted(map(str, sources))) or "no node was read"
        return Gathered(reason=unread("mixed_sources", listed))
    return Gathered(
        conditions=tuple(gpu_conditions),
        source=sources.pop(),
        drivers=tuple(sorted(drivers)),
        grace_reason=_grace_reason([logs[gpus.node].log for gpus in nodes]),
    )


def readings(
    nodes: Sequence[NodeGpus], logs: Mapping[int, NodeLog], origin_s: float, *, grace: bool = True
) -> list[PowerSample]:
    """Every reading of all nodes, in seconds since the load's origin.

    Args:
        nodes: what was read.
        logs: by node.
        origin_s: second 0, on the load client's monotonic clock.
        grace: with the rails of Grace CPUs.
    """
    power_samples: list[PowerSample] = []
    for gpus in nodes:
        seen = logs[gpus.node]
        every = samples(seen.log, origin_s + seen.offset_s, gpus.owners, gpus.node)
        power_samples += (
            every if grace else [sample for sample in every if not sample.process.startswith(GRACE)]
        )
    return power_samples


def read_past(nodes: Sequence[NodeGpus], logs: Mapping[int, NodeLog], moment_s: float) -> bool:
    """Whether every held GPU was read at or after a moment of the load client's clock."""
    for gpus in nodes:
        seen = logs.get(gpus.node)
        if seen is None:
            return False
        last = dict.fromkeys(gpus.owners, -math.inf)
        for tick in reversed(seen.log.ticks):
            if tick.kind == "gpu":
                for reading in tick.readings:
                    at_s = moment_of(tick, reading) - seen.offset_s
                    last[reading.meter] = max(last.get(reading.meter, at_s), at_s)
                if all(last[meter] > -math.inf for meter in gpus.owners):
                    break
        if any(last[meter] < moment_s for meter in gpus.owners):
            return False
    return True


def _at(reason: Reason, where: str) -> Reason:
    return replace(reason, detail=reason.detail + where)


def _silence(log: PowerLog, gpus: NodeGpus) -> Reason | None:
    """`no_reading` where a held GPU was never read: a source that is there and says nothing is none."""
    read_meters = {
        reading.meter
        for tick in log.ticks
        if tick.kind == "gpu"
        for reading in tick.readings
        if reading.power_w is not None or reading.energy_j is not None
    }
    silent = [gpus.names[meter] for meter in sorted(gpus.owners) if meter not in read_meters]
    return unread("no_reading", f"GPU {', '.join(silent)} told nothing") if silent else None


def _grace_reason(logs: Sequence[PowerLog]) -> str | None:
    """Why the rails of all nodes make no figure: some lack them, or have others; None where they do."""
    sources = {log.grace_probe.source for log in logs if log.grace_probe is not None}
    codes = {
        probe.reason.code
        for log in logs
        for probe in log.probes
        if probe.kind == "grace" and probe.reason is not None
    }
    if len(sources) > 1:
        return "grace_mixed"
    if sources and any(log.grace_probe is None for log in logs):
        return "grace_missing"
    return None if sources else min(codes, default="no_grace")


def why_unread(log: PowerLog) -> Reason:
    """Why a node's GPUs are not read: the reason of the first source, with those of the others behind it."""
    reasons = [probe.reason for probe in log.probes if probe.kind != "grace" and probe.reason is not None]
    if not reasons:
        return unread("no_power_source", "no source of GPU power was looked for")
    first, *others = reasons
    return replace(first, detail="; ".join([first.detail, *map(str, others)]))


def _names_gpu(word: str) -> bool:
    return word.isdigit() or word.startswith("GPU-")


def conditions(log: PowerLog, owners: Mapping[int, str], node: int) -> list[GpuCondition]:
    """What every meter said of itself over a log, in the order of the meters.

    Args:
        log: of one node.
        owners: which process holds a meter's GPU; one that none holds is `unused@<node>`.
        node: its number.
    """
    names = dict(probe.meters) if (probe := log.gpu_probe) else {}
    gpu_conditions = []
    models = dict(zip(names, probe.models, strict=False)) if probe else {}
    for meter, uuid in sorted(names.items()):
        states = [state for _, meter_states in log.states for state in meter_states if state.meter == meter]
        heat = [state.temperature_c for state in states if state.temperature_c is not None]
        caps = [state.limit_w for state in states if state.limit_w is not None]
        bits = [state.clock_reasons for state in states if state.clock_reasons is not None]
        gpu_conditions.append(
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
    return gpu_conditions


def hindrances(gpus: tuple[GpuCondition, ...]) -> tuple[str, ...]:
    """A sentence for each GPU whose clocks were held back by what is wrong with the machine."""
    sentences = []
    for gpu in gpus:
        if reasons := [reason for reason in gpu.clock_reasons or () if reason in HINDERING]:
            heat = "" if gpu.temperature_max_c is None else f", up to {gpu.temperature_max_c:g} °C"
            sentences.append(f"GPU {gpu.name}: clocks were held back by {', '.join(reasons)}{heat}")
    return tuple(sentences)


def _named(masks: list[int]) -> tuple[str, ...]:
    """The names of all bits that were ever set; one without a name is told in hex."""
    seen = 0
    for mask in masks:
        seen |= mask
    names = [name for bit, name in CLOCK_REASONS.items() if seen & bit]
    rest = seen & ~sum(CLOCK_REASONS)
    return (*names, *([f"{rest:#x}"] if rest else []))
