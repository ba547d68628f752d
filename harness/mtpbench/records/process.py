"""What is started: processes as engines describe them and executors run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mtpbench.records.codec import Role


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A file to lay down before a process starts; `path` and `text` may hold placeholders."""

    path: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """How a process shows that it is ready.

    GET `path` on port `port` answers 200, and where `model` is given, GET /v1/models lists it.
    """

    port: str
    path: str = "/health"
    model: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """The container that a process runs in under a container-aware executor; ignored where it runs bare."""

    image: str
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """One operating-system process of a deployment, described and not run.

    argv, env and files may hold placeholders, which `engines.parts.fill` lists and replaces.

    Args:
        node: 0-based index of the node inside the deployment.
        gpus: 0-based indices on that node.
        ports: names of the ports it listens on; the executor chooses free numbers.
        mpi_tasks: tasks that an MPI-aware executor starts for it on its node; 1 for an ordinary process.
        metrics: the port name and path of its Prometheus metrics, or None.
    """

    name: str
    role: Role
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    node: int = 0
    gpus: tuple[int, ...] = ()
    mpi_tasks: int = 1
    ports: tuple[str, ...] = ()
    ready: Probe | None = None
    metrics: tuple[str, str] | None = None
    container: Container | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """The processes that together serve one arm on one topology; `front` is the one that takes requests.

    `keeps_connections` is False where the front closes the connection after each answer without saying so:
    the client then opens one for each request.
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
