"""Pure: a sampler on every node of a deployment, and their files put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mtpbench.power.log import PowerLog, identity_fault, samples
from mtpbench.records import Deployment, PowerSample, Process


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """The readings of all nodes; exactly one of `source` (else `none`) and `reason` says something."""

    samples: tuple[PowerSample, ...] = ()
    source: str = "none"
    reason: str | None = None


def log_name(node: int) -> str:
    """The file of a node's sampler in the attempt's directory."""
    return f"power-node{node}.jsonl"


def node_samplers(deployment: Deployment, interval_s: float) -> tuple[Process, ...]:
    """One sampler for each node that holds GPUs, for an executor to run beside the deployment.

    It reads the GPUs by the indices that the processes name, and ends at SIGTERM.

    Args:
        deployment: whose GPUs are to be read.
        interval_s: between two ticks; 0.1 to 0.25 is meant.
    """
    return tuple(
        Process(
            name=f"sampler-{node}",
            role="sampler",
            argv=(
                *("@{python}", "-m", "mtpbench.power.agent", "--detached"),
                *("--out", "@{dir}/" + log_name(node)),
                *("--interval", f"{interval_s:g}", "--gpus", ",".join(map(str, sorted(owners)))),
            ),
            node=node,
        )
        for node, owners in sorted(held_by_node(deployment).items())
    )


def held_by_node(deployment: Deployment) -> dict[int, dict[int, str]]:
    """By node, which process holds which GPU; a GPU that several share is named by all of them (`a+b`)."""
    found: dict[int, dict[int, str]] = {}
    for process in deployment.processes:
        for gpu in process.gpus:
            node = found.setdefault(process.node, {})
            node[gpu] = f"{node[gpu]}+{process.name}" if gpu in node else process.name
    return found


def gather(
    logs: Mapping[int, PowerLog],
    deployment: Deployment,
    origin_unix_s: float,
    offsets_s: Mapping[int, float],
) -> Gathered:
    """What all nodes read, in seconds since the load's origin.

    Args:
        logs: by node, of samplers that `node_samplers` describes.
        deployment: whose GPUs were read.
        origin_unix_s: second 0 by the load client's wall clock.
        offsets_s: by node, how far its wall clock is ahead of the client's; a node without one counts as 0.

    Returns:
        NULL with reason `node_missing`, `gpu_swapped`, `mixed_sources`, or a sampler's own words.
    """
    found: list[PowerSample] = []
    sources: set[str] = set()
    for node, owners in sorted(held_by_node(deployment).items()):
        log = logs.get(node)
        if log is None:
            return Gathered(reason=f"node_missing: the sampler of node {node} left no file")
        probe = log.gpu_probe
        if probe is None:
            words = "; ".join(p.reason or "" for p in log.probes if p.source != "grace")
            return Gathered(reason=f"node {node}: {words}")
        if fault := identity_fault(log):
            return Gathered(reason=f"{fault} (node {node})")
        sources.add(probe.says)
        by_meter = {meter: owners[gpu] for meter, gpu in enumerate(sorted(owners))}
        origin_s = origin_unix_s + offsets_s.get(node, 0.0)
        found += samples(log, origin_s, by_meter, wall=True, node=f"@{node}")
    if len(sources) != 1:
        listed = " / ".join(sorted(sources)) or "the deployment holds no GPU"
        return Gathered(reason=f"mixed_sources: {listed}")
    return Gathered(samples=tuple(found), source=sources.pop())
