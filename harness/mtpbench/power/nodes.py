"""Pure: the GPUs that each node's sampler reads, the readings of all nodes, and the GPUs' conditions."""

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
"""The reasons that mean a fault of the machine: another one, or a cooler day, gives other figures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeGpus:
    """The node GPUs are those of one node that its sampler reads.

    Args:
        node: the node's number in the deployment.
        names: NVML indices or UUIDs of the held GPUs; a meter's index is its GPU's place in here.
        owners: by meter, the process that holds its GPU, `a+b` where several share it.
        spares: further GPUs of the job that are unused; their meters follow, where they can be read.
    """

    node: int
    names: tuple[str, ...]
    owners: Mapping[int, str]
    spares: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeLog:
    """A node log holds one sampler's log, and by how much its clock is ahead of the load client's."""

    log: PowerLog
    offset_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """A gathered source is the one that all nodes share, or the reason why there is none.

    `grace_reason` is the code of why there is no figure of the Grace CPUs, or None.
    """

    conditions: tuple[GpuCondition, ...] = ()
    source: PowerSource | None = None
    reason: Reason | None = None
    drivers: tuple[str, ...] = ()
    grace_reason: str | None = None


def held_by_node(deployment: Deployment) -> dict[int, dict[int, str]]:
    """Returns, by node and GPU, the process that holds the GPU; `a+b` where several share it."""
    by_node: dict[int, dict[int, str]] = {}
    for process in deployment.processes:
        for gpu in process.gpus:
            node = by_node.setdefault(process.node, {})
            node[gpu] = f"{node[gpu]}+{process.name}" if gpu in node else process.name
    return by_node


def gpus_of_node(node: int, held: Mapping[int, str], visible: Sequence[str] | None) -> NodeGpus:
    """Returns the GPUs of a node to read.

    Args:
        node: the node's number.
        held: by GPU, the process that holds it; the node numbers its GPUs from 0.
        visible: the job's GPUs on the node, in the order of those numbers (CUDA_VISIBLE_DEVICES): all of them
            are read. None where they are unknown: then the held ones are read, by their index.

    Raises:
        Unread: fewer GPUs are visible than are held, or MIG slices.
    """
    gpus = sorted(held)
    owners = {meter: held[gpu] for meter, gpu in enumerate(gpus)}
    if visible is None:
        return NodeGpus(node=node, names=tuple(map(str, gpus)), owners=owners)
    if len(visible) <= max(gpus) or not all(_names_gpu(visible[gpu]) for gpu in gpus):
        raise Unread(
            "no_gpu",
            f"CUDA_VISIBLE_DEVICES={','.join(visible)}: indices or UUIDs of {len(gpus)} whole GPUs are "
            "needed",
        )
    return NodeGpus(
        node=node,
        names=tuple(visible[gpu] for gpu in gpus),
        owners=owners,
        spares=tuple(name for gpu, name in enumerate(visible) if gpu not in held and _names_gpu(name)),
    )


def gather(nodes: Sequence[NodeGpus], logs: Mapping[int, NodeLog]) -> Gathered:
    """Returns the one source of all nodes with the GPUs' conditions, or the reason why there is none.

    Args:
        nodes: the GPUs that were to be read.
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
        node_log = logs.get(gpus.node)
        if node_log is None:
            return Gathered(reason=unread("node_missing", f"the sampler of node {gpus.node} left no file"))
        probe = node_log.log.gpu_probe
        if probe is None or probe.source is None:
            return Gathered(reason=_at(why_unread(node_log.log), where))
        if fault := identity_fault(node_log.log, gpus.owners) or _silence(node_log.log, gpus):
            return Gathered(reason=_at(fault, where))
        sources.add(probe.source)
        drivers |= {probe.driver} if probe.driver else set()
        gpu_conditions += conditions(node_log.log, gpus.owners, gpus.node)
    if len(sources) != 1:
        detail = " / ".join(sorted(map(str, sources))) or "no node was read"
        return Gathered(reason=unread("mixed_sources", detail))
    return Gathered(
        conditions=tuple(gpu_conditions),
        source=sources.pop(),
        drivers=tuple(sorted(drivers)),
        grace_reason=_grace_reason([logs[gpus.node].log for gpus in nodes]),
    )


def readings(
    nodes: Sequence[NodeGpus], logs: Mapping[int, NodeLog], origin_s: float, *, grace: bool = True
) -> list[PowerSample]:
    """Returns every reading of all nodes, in seconds since the load's origin.

    Args:
        nodes: the GPUs that were read.
        logs: by node.
        origin_s: second 0, on the load client's monotonic clock.
        grace: whether the rails of Grace CPUs are included.
    """
    power_samples: list[PowerSample] = []
    for gpus in nodes:
        node_log = logs[gpus.node]
        every = samples(node_log.log, origin_s + node_log.offset_s, gpus.owners, gpus.node)
        power_samples += (
            every if grace else [sample for sample in every if not sample.process.startswith(GRACE)]
        )
    return power_samples


def read_past(nodes: Sequence[NodeGpus], logs: Mapping[int, NodeLog], moment_s: float) -> bool:
    """Returns whether every held GPU was read at or after a moment of the load client's clock."""
    for gpus in nodes:
        node_log = logs.get(gpus.node)
        if node_log is None:
            return False
        last = dict.fromkeys(gpus.owners, -math.inf)
        for tick in reversed(node_log.log.ticks):
            if tick.kind == "gpu":
                for reading in tick.readings:
                    at_s = moment_of(tick, reading) - node_log.offset_s
                    last[reading.meter] = max(last.get(reading.meter, at_s), at_s)
                if all(last[meter] > -math.inf for meter in gpus.owners):
                    break
        if any(last[meter] < moment_s for meter in gpus.owners):
            return False
    return True


def _at(reason: Reason, where: str) -> Reason:
    return replace(reason, detail=reason.detail + where)


def _silence(log: PowerLog, gpus: NodeGpus) -> Reason | None:
    """Returns `no_reading` where a held GPU was never read, else None."""
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
    """Returns why the rails of all nodes give no figure: nodes lack them, or differ; None where they do."""
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
    """Returns why a node's GPUs are not read: the first source's reason, then those of the others."""
    reasons = [probe.reason for probe in log.probes if probe.kind != "grace" and probe.reason is not None]
    if not reasons:
        return unread("no_power_source", "no source of GPU power was looked for")
    first, *others = reasons
    return replace(first, detail="; ".join([first.detail, *map(str, others)]))


def _names_gpu(name: str) -> bool:
    return name.isdigit() or name.startswith("GPU-")


def conditions(log: PowerLog, owners: Mapping[int, str], node: int) -> list[GpuCondition]:
    """Returns the condition of every meter's GPU over a log, in the order of the meters.

    Args:
        log: the log of one node.
        owners: by meter, the process that holds its GPU; a GPU that none holds is `unused@<node>`.
        node: the node's number.
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
    """Returns a sentence for each GPU whose clocks were held back by a fault of the machine."""
    sentences = []
    for gpu in gpus:
        if reasons := [reason for reason in gpu.clock_reasons or () if reason in HINDERING]:
            heat = "" if gpu.temperature_max_c is None else f", up to {gpu.temperature_max_c:g} °C"
            sentences.append(f"GPU {gpu.name}: clocks were held back by {', '.join(reasons)}{heat}")
    return tuple(sentences)


def _named(masks: list[int]) -> tuple[str, ...]:
    """Returns the names of all bits that were ever set; one without a name in hex."""
    bits = 0
    for mask in masks:
        bits |= mask
    names = [name for bit, name in CLOCK_REASONS.items() if bits & bit]
    rest = bits & ~sum(CLOCK_REASONS)
    return (*names, *([f"{rest:#x}"] if rest else []))
