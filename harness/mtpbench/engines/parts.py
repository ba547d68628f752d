"""Pure: what engine modules build a deployment of: options in layers, workers on nodes, and their processes.

Workers fill nodes in order, prefill before decode. A worker that needs more GPUs than a node has spans
whole nodes; smaller ones share a node. No worker straddles two partly filled nodes.

What only the executor knows stands as a placeholder in argv, environment and files; `fill` replaces it:

    @{host:NAME}       the host that process NAME runs on
    @{port:NAME/PORT}  the number chosen for port PORT of process NAME
    @{dir}             the attempt's directory (files and logs are written there)
    @{python}          the Python that runs the harness (where the engine runs bare)
    @{env:NAME}        the variable NAME of the environment in which the executor starts processes
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mtpbench.errors import InputError, UnsupportedError
from mtpbench.records import Deployment, File, Flags, Point, Process, Topology, WorkerGroup, WorkerRole


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


# --- placeholders, which executors fill in ---

_PLACEHOLDER = re.compile(r"@\{([^}]*)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """What the executor decided: hosts by process name, ports by (process, port name), directory, Python.

    `environment` holds the variables that it starts processes with, before each process's own.
    """

    hosts: Mapping[str, str]
    ports: Mapping[tuple[str, str], int]
    directory: str
    python: str
    environment: Mapping[str, str] = field(default_factory=dict)


def fill(text: str, placement: Placement) -> str:
    """`text` with every placeholder replaced.

    Raises:
        InputError: a placeholder is unknown, or names a process, port or variable that is not there.
    """

    def value(match: re.Match[str]) -> str:
        kind, _, rest = match[1].partition(":")
        process, _, port = rest.partition("/")
        if kind == "dir" and not rest:
            return placement.directory
        if kind == "python" and not rest:
            return placement.python
        if kind == "host" and process in placement.hosts:
            return placement.hosts[process]
        if kind == "port" and (process, port) in placement.ports:
            return str(placement.ports[process, port])
        if kind == "env" and rest:
            if rest not in placement.environment:
                raise InputError(f"{match[0]} needs the environment variable {rest}, which is not set")
            return placement.environment[rest]
        known = sorted(f"@{{port:{p}/{n}}}" for p, n in placement.ports)
        known += sorted(f"@{{host:{p}}}" for p in placement.hosts)
        raise InputError(
            f"unknown placeholder {match[0]}; known: @{{dir}}, @{{python}}, @{{env:NAME}}, {', '.join(known)}"
        )

    return _PLACEHOLDER.sub(value, text)


def resolve(process: Process, placement: Placement) -> Process:
    """The process with the placeholders of its argv, environment and files filled in."""
    return dataclasses.replace(
        process,
        argv=tuple(fill(word, placement) for word in process.argv),
        env={name: fill(value, placement) for name, value in process.env.items()},
        files=tuple(
            File(path=fill(file.path, placement), text=fill(file.text, placement)) for file in process.files
        ),
    )
