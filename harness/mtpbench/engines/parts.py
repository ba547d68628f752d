"""Pure: what engine modules are built of: options in layers, workers on nodes, processes, counters.

Workers fill nodes in order, prefill before decode. A worker that needs more GPUs than a node has spans
whole nodes; smaller ones share a node. No worker straddles two partly filled nodes.

Argv, environment and files hold placeholders for what only the executor knows; `fill` replaces them:

    @{host:NAME}       the host that process NAME runs on
    @{port:NAME/PORT}  the number chosen for port PORT of process NAME
    @{dir}             the attempt's directory (files and logs are written there)
    @{python}          the Python that runs the harness (where the engine runs bare)
    @{env:NAME}        the variable NAME of the environment in which the executor starts processes
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import reprlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mtpbench.engines.about import Renaming, canonical
from mtpbench.errors import InputError, UnsupportedError
from mtpbench.records import (
    Container,
    Deployment,
    File,
    Flags,
    Point,
    Process,
    SpecCounters,
    SpecGauge,
    Topology,
    WorkerGroup,
    WorkerRole,
)
from mtpbench.served import MOST_POSITIONS, metrics


def merged(*layers: Flags) -> Flags:
    """Returns the options of several layers: later layers win; None removes an option."""
    flat = {name: value for layer in layers for name, value in layer.items()}
    return {name: value for name, value in flat.items() if value is not None}


def of_role(point: Point, role: WorkerRole, renamings: Sequence[Renaming] | None = None) -> Flags:
    """Returns the options of one role: the base's, then what the arm forces.

    With the renamings of an engine they have their newest names, whichever each layer uses.

    Raises:
        UnsupportedError: a layer gives an option under two names.
    """
    layers = (point.engine.flags.get(role, {}), point.arm.forces.get(role, {}))
    if renamings is not None:
        layers = (canonical(layers[0], renamings), canonical(layers[1], renamings))
    return merged(*layers)


def env_of_role(point: Point, role: WorkerRole) -> Mapping[str, str]:
    """Returns the environment of one role: the base's, then what the arm forces."""
    return {**point.engine.env.get(role, {}), **point.arm.forces_env.get(role, {})}


def whole(flags: Flags, name: str, usual: int) -> int:
    """Returns an option that is a whole number; `usual` where it is left out, as `as_argv` leaves False out.

    Raises:
        UnsupportedError: it is no whole number.
    """
    value = flags.get(name)
    if value is None or value is False:
        return usual
    digits = isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value)
    if isinstance(value, bool) or not (isinstance(value, int) or digits):
        raise UnsupportedError(f"the option {name} is a whole number, not {reprlib.repr(value)}")
    return int(value)


def as_argv(flags: Flags, *, list_words: bool = False) -> tuple[str, ...]:
    """Returns `--name value` pairs: True is a bare flag, False and None are left out, mappings are JSON.

    A list is JSON too, or with `list_words` a word for each of its items.
    """
    argv: list[str] = []
    for name, value in flags.items():
        if value is None or value is False:
            continue
        argv.append(f"--{name}")
        if list_words and isinstance(value, (list, tuple)):
            argv += [str(item) for item in value]
        elif isinstance(value, (Mapping, list, tuple)):
            argv.append(json.dumps(value, separators=(",", ":")))
        elif value is not True:
            argv.append(str(value))
    return tuple(argv)


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A share is the part of a worker on one node: its rank among the worker's nodes, and its GPUs there."""

    rank: int
    node: int
    gpus: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedWorker:
    """A placed worker has a name (`decode-0`), its group, and its share of each node."""

    name: str
    group: WorkerGroup
    shares: tuple[Share, ...]

    @property
    def role(self) -> WorkerRole:
        """Returns the worker's role."""
        return self.group.role

    def process(self, share: Share) -> str:
        """Returns the name of the worker's process on a node: with its rank where the worker spans nodes."""
        return self.name if len(self.shares) == 1 else f"{self.name}.r{share.rank}"

    @property
    def head(self) -> str:
        """Returns the name of the worker's first process, which other ranks and the router connect to."""
        return self.process(self.shares[0])


def place(topology: Topology, gpus_per_node: int) -> tuple[PlacedWorker, ...]:
    """Returns every worker of a topology with its nodes and GPUs.

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
    """Returns how many nodes the workers hold."""
    return 1 + max(share.node for worker in workers for share in worker.shares)


def assemble(point: Point, processes: Sequence[Process], nodes: int) -> Deployment:
    """Builds the deployment of some processes; requests go to its router, else to the first process."""
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


def python_of(point: Point) -> tuple[str, ...]:
    """Returns what runs a router's modules: the sweep's command before `-m`, or the Python beside it.

    It is `python3` where the command names no path.
    """
    command = point.engine.command or ("python3",)
    if "-m" in command[1:]:
        return command[: command.index("-m", 1)]
    folder, slash, _ = command[0].rpartition("/")
    return (f"{folder}{slash}python3",) if slash else ("python3",)


def container_of(point: Point) -> Container | None:
    """Returns the container of the engine's image, or None where the sweep names no image."""
    return Container(image=point.engine.image) if point.engine.image else None


# --- counters of speculation, out of Prometheus text ---

_COUNTERS = ("drafts_total", "draft_tokens_total", "accepted_tokens_total")
_BY_POSITION = "accepted_tokens_per_pos_total"


def spec_counters(metrics_text: str, prefix: str) -> SpecCounters | None:
    """Returns the four `<prefix>spec_decode_*` counters as vLLM names them; None where they are absent.

    Args:
        metrics_text: the body of /metrics.
        prefix: `vllm:`, `llamacpp:` or `trtllm_` (which lacks the count of steps).

    Raises:
        ValueError: the text is not Prometheus's exposition format, or a value is no count.
    """
    sums: dict[str, float] = defaultdict(float)
    positions: dict[int, float] = defaultdict(float)
    series: dict[str, float] = {}
    start = f"{prefix}spec_decode_num_"
    for metric in metrics(metrics_text, (start,)):
        name = metric.name.removeprefix(start)
        if name not in (*_COUNTERS, _BY_POSITION):
            continue
        series[metric.series] = metric.amount
        if name == _BY_POSITION:
            positions[metric.whole("position", MOST_POSITIONS - 1)] += metric.amount
        else:
            sums[name] += metric.amount
    if not {"draft_tokens_total", "accepted_tokens_total"} <= set(sums):
        return None
    return SpecCounters(
        drafts=sums.get("drafts_total"),
        draft_tokens=sums["draft_tokens_total"],
        accepted_tokens=sums["accepted_tokens_total"],
        per_position=tuple(positions[i] for i in range(1 + max(positions, default=-1))),
        series=series,
    )


def spec_gauges(metrics_text: str, length: str) -> tuple[SpecGauge, ...] | None:
    """Returns gauges of the acceptance length by label set (rank).

    A rank whose gauge is NaN has none: SGLang's gauges start as NaN.

    Args:
        metrics_text: the body of /metrics.
        length: name of the gauge.

    Raises:
        ValueError: the text is not Prometheus's exposition format, or a value can be none of its kind.
    """
    lengths: dict[str, float] = {}
    empty = 0
    for metric in metrics(metrics_text, (length,)):
        if metric.name == length and math.isnan(metric.value):
            empty += 1
        elif metric.name == length:
            lengths[metric.rank] = metric.amount
    if empty and not lengths:
        raise ValueError(f"{length} is NaN in all of its {empty} series")
    return (
        tuple(SpecGauge(rank=rank, length=value, verify_calls=None) for rank, value in lengths.items())
        or None
    )


# --- placeholders, which executors fill in ---

_PLACEHOLDER = re.compile(r"@\{([^}]*)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """A placement holds the executor's choices: hosts by process, ports by (process, name), folder, Python.

    `environment` holds the variables of the executor, which each process's own override.
    """

    hosts: Mapping[str, str]
    ports: Mapping[tuple[str, str], int]
    directory: str
    python: str
    environment: Mapping[str, str] = field(default_factory=dict)


def fill(text: str, placement: Placement) -> str:
    """Returns `text` with every placeholder replaced.

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
        valid = sorted(f"@{{port:{p}/{n}}}" for p, n in placement.ports)
        valid += sorted(f"@{{host:{p}}}" for p in placement.hosts)
        raise InputError(
            f"unknown placeholder {match[0]}; known: @{{dir}}, @{{python}}, @{{env:NAME}}, {', '.join(valid)}"
        )

    return _PLACEHOLDER.sub(value, text)


GPU_ORDER, BY_BUS = "CUDA_DEVICE_ORDER", "PCI_BUS_ID"
"""By bus is how NVML numbers GPUs; by CUDA's own default, the fastest first, a number may be another GPU."""


def resolve(process: Process, placement: Placement) -> Process:
    """Returns the process with the placeholders of its argv, environment and files filled in.

    A process that holds GPUs numbers them as NVML does, unless the sweep says otherwise.
    """
    order = {GPU_ORDER: BY_BUS} if process.gpus else {}
    return dataclasses.replace(
        process,
        argv=tuple(fill(argument, placement) for argument in process.argv),
        env={name: fill(value, placement) for name, value in {**order, **process.env}.items()},
        files=tuple(
            File(path=fill(file.path, placement), text=fill(file.text, placement)) for file in process.files
        ),
    )
