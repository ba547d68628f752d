"""Processes are what is started: engines describe them, and executors run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mtpbench.records.codec import Role


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A file is written before a process starts; `path` and `text` may hold placeholders."""

    path: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A probe finds out whether a process is ready.

    The process is ready when GET `path` on `port` answers 200, and GET /v1/models lists the `model` if given.
    """

    port: str
    path: str = "/health"
    model: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """A container holds a process under an executor that uses containers; other executors ignore it."""

    image: str
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A process describes one operating-system process of a deployment.

    argv, env and files may hold placeholders, which `engines.parts.fill` lists and replaces.

    Args:
        worker: the worker that it is a part of; processes of one worker have it in common. None for others.
        node: 0-based index of the node inside the deployment.
        gpus: 0-based indices on that node.
        ports: names of the ports it listens on; the executor chooses free numbers.
        port_spans: how many numbers in a row a port takes, where it is more than one: its own and those that
            the process derives from it.
        mpi_tasks: tasks that an MPI-aware executor starts for it on its node; 1 for an ordinary process.
        metrics: the port name and path of its Prometheus metrics, or None.
    """

    name: str
    role: Role
    argv: tuple[str, ...]
    worker: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    node: int = 0
    gpus: tuple[int, ...] = ()
    mpi_tasks: int = 1
    ports: tuple[str, ...] = ()
    port_spans: Mapping[str, int] = field(default_factory=dict)
    ready: Probe | None = None
    metrics: tuple[str, str] | None = None
    container: Container | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """A deployment is the processes that together serve one arm on one topology; `front` takes requests.

    `keeps_connections` is False where the front closes the connection after each answer without announcing
    it: the client then opens a connection for each request.
    """

    key: str
    processes: tuple[Process, ...]
    front: str
    front_port: str
    model_name: str
    gpus: int
    nodes: int
    time_scale: float = 1.0
    """Engine seconds per real second: above 1 only on the embedded engine's scaled clock."""
    keeps_connections: bool = True
