"""Pure: which GPUs of which nodes are read for a deployment, and what the samplers of all nodes read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtpbench.power.conditions import conditions
from mtpbench.power.log import PowerLog, identity_fault, samples
from mtpbench.records import Deployment, GpuCondition, PowerSample


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeGpus:
    """The GPUs of one node that a sampler reads.

    Args:
        node: its number in the deployment.
        names: NVML indices or UUIDs; a meter's index is its place in here.
        owners: by meter, which process holds its GPU, `a+b` where several share it; the others are unused.
    """

    node: int
    names: tuple[str, ...]
    owners: Mapping[int, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeLog:
    """What the sampler of one node wrote, and how far its monotonic clock is ahead of the client's."""

    log: PowerLog
    offset_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """The readings of all nodes; exactly one of `source` (else `none`) and `reason` says something."""

    samples: tuple[PowerSample, ...] = ()
    conditions: tuple[GpuCondition, ...] = ()
    source: str = "none"
    reason: str | None = None
    drivers: tuple[str, ...] = ()


def held_by_node(deployment: Deployment) -> dict[int, dict[int, str]]:
    """By node, which process holds which GPU; a GPU that several share is named by all of them (`a+b`)."""
    found: dict[int, dict[int, str]] = {}
    for process in deployment.processes:
        for gpu in process.gpus:
            node = found.setdefault(process.node, {})
            node[gpu] = f"{node[gpu]}+{process.name}" if gpu in node else process.name
    return found


def gpus_of_node(node: int, held: Mapping[int, str], shown: Sequence[str] | None) -> NodeGpus:
    """The GPUs of a node to read.

    Args:
        node: its number.
        held: which process holds which GPU, by the node's own numbers from 0.
        shown: the GPUs that are ours there, in the order of those numbers (CUDA_VISIBLE_DEVICES): all of them
            are read. None where that is not known: then the held ones are, by their index.

    Raises:
        ValueError: fewer GPUs are shown than are held, or MIG slices.
    """
    wanted = sorted(held)
    if shown is None:
        owners = {meter: held[gpu] for meter, gpu in enumerate(wanted)}
        return NodeGpus(node=node, names=tuple(map(str, wanted)), owners=owners)
    if len(shown) <= max(wanted) or not all(_names_gpu(shown[gpu]) for gpu in wanted):
        raise ValueError(
            f"no_gpu: CUDA_VISIBLE_DEVICES={','.join(shown)}: indices or UUIDs of {len(wanted)} whole GPUs "
            "are needed"
        )
    whole = [gpu for gpu, name in enumerate(shown) if _names_gpu(name)]
    return NodeGpus(
        node=node,
        names=tuple(shown[gpu] for gpu in whole),
        owners={meter: held[gpu] for meter, gpu in enumerate(whole) if gpu in held},
    )


def gather(nodes: Sequence[NodeGpus], logs: Mapping[int, NodeLog], origin_s: float) -> Gathered:
    """What all nodes read, in seconds since the load's origin.

    Args:
        nodes: what was to be read.
        logs: by node.
        origin_s: second 0, on the load client's monotonic clock.

    Returns:
        NULL with reason `node_missing`, `gpu_swapped`, `mixed_sources`, or a sampler's own words.
    """
    found: list[PowerSample] = []
    told: list[GpuCondition] = []
    sources: set[str] = set()
    drivers: set[str] = set()
    for gpus in nodes:
        where = f" (node {gpus.node})" if len(nodes) > 1 else ""
        seen = logs.get(gpus.node)
        if seen is None:
            return Gathered(reason=f"node_missing: the sampler of node {gpus.node} left no file")
        probe = seen.log.gpu_probe
        if probe is None:
            return Gathered(reason=why_unread(seen.log) + where)
        if fault := identity_fault(seen.log):
            return Gathered(reason=fault + where)
        sources.add(probe.says)
        drivers |= {probe.driver} if probe.driver else set()
        found += samples(seen.log, origin_s + seen.offset_s, gpus.owners, gpus.node)
        told += conditions(seen.log, gpus.owners, gpus.node)
    if len(sources) != 1:
        return Gathered(reason=f"mixed_sources: {' / '.join(sorted(sources)) or 'no node was read'}")
    return Gathered(
        samples=tuple(found),
        conditions=tuple(told),
        source=sources.pop(),
        drivers=tuple(sorted(drivers)),
    )


def why_unread(log: PowerLog) -> str:
    """Why a node's GPUs are not read: what each source said of itself."""
    words = "; ".join(probe.reason or "" for probe in log.probes if probe.source != "grace")
    return words or "no source of GPU power was looked for"


def _names_gpu(word: str) -> bool:
    return word.isdigit() or word.startswith("GPU-")
