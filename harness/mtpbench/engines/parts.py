"""Pure: what engine modules build a deployment of: options in layers, workers on nodes, and their processes.

Workers fill nodes in order, prefill before decode. A worker that needs more GPUs than a node has spans
whole nodes; smaller ones share a node. No worker straddles two partly filled nodes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtpbench.errors import UnsupportedError
from mtpbench.records import Deployment, Flags, Point, Process, Topology, WorkerGroup, WorkerRole


def merged(*layers: Flags) -> Flags:
    """Later layers win; None takes an option away."""
    flat = {name: value for layer in layers for name, value in layer.items()}
    return {name: value for name, value in flat.items() if value is not None}


def of_role(point: Point, role: WorkerRole) -> Flags:
    """The options of one role: the base's, then what the arm forces."""
    return merged(point.engine.flags.get(role, {}), point.arm.forces.get(role, {}))


def env_of_role(point: Point, role: WorkerRole) -> Mapping[str, str]:
    """The environment of one role: the base's, then what the arm forces."""
    return {**point.engine.env.get(role, {}), **point.arm.forces_env.get(role, {})}


def as_argv(flags: Flags) -> tuple[str, ...]:
    """`--name value` pairs: True is a bare flag, False and None leave it out, mappings and lists are JSON."""
    argv: list[str] = []
    for name, value in flags.items():
        if value is None or value is False:
            continue
        argv.append(f"--{name}")
        if isinstance(value, (Mapping, list, tuple)):
            argv.append(json.dumps(value, separators=(",", ":")))
        elif value is not True:
            argv.append(str(value))
    return tuple(argv)


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """The part of a worker on one node: its rank among the worker's nodes, and its GPUs there."""

    rank: int
    node: int
    gpus: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedWorker:
    """One worker: `decode-0`, its group, and its share of each node."""

    name: str
    group: WorkerGroup
    shares: tuple[Share, ...]

    @property
    def role(self) -> WorkerRole:
        """The worker's role."""
        return self.group.role

    def process(self, share: Share) -> str:
        """The name of the worker's process on one node: the worker's own, with the rank if there are more."""
        return self.name if len(self.shares) == 1 else f"{self.name}.r{share.rank}"

    @property
    def head(self) -> str:
        """The name of the worker's first process, which the others meet at and the router talks to."""
        return self.process(self.shares[0])


def place(topology: Topology, gpus_per_node: int) -> tuple[PlacedWorker, ...]:
    """Every worker of a topology with its nodes and GPUs.

    Raises:
        UnsupportedError: a worker's GPUs neither fit into a node nor fill whole nodes.
    """
    workers: list[PlacedWorker] = []
    node, used = 0, 0
    for group in topology.groups:
        size = group.gpus_per_worker
        if size > gpus_per_node and size % gpus_per_node:
            raise UnsupportedError(
                f"{group.layout} needs {size} GPUs, which neither fit into a node of {gpus_per_node} "
                f"nor fill whole nodes; use a multiple of {gpus_per_node}"
            )
        for index in range(group.workers):
            if used and used + size > gpus_per_node:
                node, used = node + 1, 0
            width = min(size, gpus_per_node)
            spans = max(1, size // gpus_per_node)
            shares = tuple(
                Share(rank=rank, node=node + rank, gpus=tuple(range(used, used + width)))
                for rank in range(spans)
            )
            workers.append(PlacedWorker(name=f"{group.role}-{index}", group=group, shares=shares))
            node, used = (node + spans, 0) if used + width == gpus_per_node else (node, used + width)
    return tuple(workers)


def node_count(workers: tuple[PlacedWorker, ...]) -> int:
    """Nodes that the workers hold."""
    return 1 + max(share.node for worker in workers for share in worker.shares)


def assemble(point: Point, processes: Sequence[Process], nodes: int) -> Deployment:
    """The deployment of some processes; requests go to its router, else to the first of them."""
    router = next((process.name for process in processes if process.role == "router"), None)
    return Deployment(
        key=point.deployment_key,
        processes=tuple(processes),
        front=router or processes[0].name,
        front_port="http",
        model_name=point.model.served_name,
        gpus=point.topology.gpus,
        nodes=nodes,
    )
