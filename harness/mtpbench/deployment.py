"""A live deployment: its processes are started, awaited, watched and ended by an executor at some site."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

from mtpbench.engines import explain
from mtpbench.engines.parts import BY_BUS, GPU_ORDER, Placement
from mtpbench.errors import RunError, StartError
from mtpbench.power.log import Unread, unread
from mtpbench.power.meter import SIMULATED, Meter, MeteredNode
from mtpbench.power.nodes import Gathered
from mtpbench.records import Deployment, Json, Point, Process
from mtpbench.remote import Host
from mtpbench.served import Reader, Unserved, parsed, picked

POLL_S = 0.1
PROBE_TIMEOUT_S = 5.0
CAUSE_LINES = 400
"""How many last lines of a log are searched for the cause of a death."""


class Handle(Protocol):
    """A handle follows a running process, of any executor."""

    process: Process
    log: Path

    def ended(self) -> str | None:
        """Returns how the process ended, or None while it runs."""

    def owns_port(self, port: int) -> bool | None:
        """Returns whether the process is the one that listens on a port; None where that is unknown."""

    def log_tail(self, lines: int = 15) -> str:
        """Returns the last lines of the process's log."""


class Executor(Protocol):
    """An executor starts and ends the processes of one deployment."""

    name: str

    def place(self, deployment: Deployment) -> Placement:
        """Returns hosts and ports for every process."""

    def start(self, process: Process, placement: Placement) -> Handle:
        """Starts one process."""

    def stop(self) -> None:
        """Ends every process that was started."""


class Site(Protocol):
    """A site is where deployments run, one after the other: this machine, or a Slurm allocation."""

    name: str

    def executor(self, directory: Path) -> Executor:
        """Returns the executor of one start of a deployment, whose files and logs go into `directory`."""

    def obstacle(self, deployment: Deployment, point: Point) -> str | None:
        """Returns why a deployment can't run here, and what can be done instead; None where it can."""

    def metered(self, deployment: Deployment, directory: Path) -> tuple[MeteredNode, ...]:
        """Returns the nodes whose GPUs a deployment holds; their samplers write into `directory`.

        Raises:
            RunError: a node does not answer.
            Unread: the GPUs can't be told apart.
        """

    def client_hosts(self, directory: Path) -> tuple[Host, ...]:
        """Returns other hosts that the load client runs on, which see the directory; none for this one."""

    def notes(self) -> tuple[str, ...]:
        """Returns notes on where this is, for the record; none where the host's name is enough."""


async def meter_at(site: Site, deployment: Deployment, point: Point, directory: Path) -> Meter:
    """Returns the meter of the GPUs of one start of a deployment: of all GPUs, or of none with the reason.

    Args:
        site: the site of the start.
        deployment: the deployment whose GPUs are read.
        point: any point that it serves.
        directory: the folder of the start, where the samplers' files stay.
    """
    if point.simulation is not None:
        return Meter((), directory, SIMULATED)
    try:
        # In a thread: a site may have to ask every node first.
        nodes = await asyncio.to_thread(site.metered, deployment, directory)
    except Unread as why:
        return Meter((), directory, Gathered(reason=why.reason))
    except RunError as why:
        return Meter((), directory, Gathered(reason=unread("no_answer", str(why))))
    order = _other_order(deployment)
    if order is not None and any(name.isdigit() for node in nodes for name in node.gpus.names):
        detail = f"{GPU_ORDER} is {order}; take it out of engine.env, or name GPUs by UUID"
        return Meter((), directory, Gathered(reason=unread("gpu_order", detail)))
    return Meter(nodes, directory)


def _other_order(deployment: Deployment) -> str | None:
    """Returns the order in which a process numbers its GPUs, where it is not that of the bus; else None."""
    orders = (process.env.get(GPU_ORDER, BY_BUS) for process in deployment.processes if process.gpus)
    return next((order for order in orders if order != BY_BUS), None)


class LiveDeployment:
    """A live deployment runs its processes while the `async with` block does.

    Args:
        deployment: the deployment to start.
        executor: starts its processes.
        ready_timeout_s: wall seconds until all must be ready.

    Raises:
        StartError: from entering the block; every process is stopped again.
    """

    def __init__(self, deployment: Deployment, executor: Executor, ready_timeout_s: float) -> None:
        self.deployment, self.executor = deployment, executor
        self.ready_timeout_s = ready_timeout_s
        self.handles: list[Handle] = []
        self._placement: Placement | None = None

    async def __aenter__(self) -> Self:
        try:
            # In a thread: an executor may have to ask every node first.
            placement = await asyncio.to_thread(self.executor.place, self.deployment)
            self._placement = placement
            # Workers first: a router that starts before them may give up on them.
            for process in sorted(self.deployment.processes, key=lambda p: p.role == "router"):
                self.handles.append(self.executor.start(process, placement))
            await self._await_ready()
        except BaseException:
            self.executor.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.executor.stop)

    @property
    def placement(self) -> Placement:
        """Returns where all its processes are."""
        assert self._placement is not None, "the deployment has not been started"
        return self._placement

    @property
    def base_url(self) -> str:
        """Returns the address that requests go to."""
        return self.url(self.deployment.front, self.deployment.front_port)

    def url(self, process: str, port: str) -> str:
        """Returns the address of one port of one process."""
        return f"http://{self.placement.hosts[process]}:{self.placement.ports[process, port]}"

    @property
    def metrics_urls(self) -> Mapping[str, str]:
        """Returns the metrics addresses of all workers, by process; a router's alone is never enough."""
        return {
            process.name: self.url(process.name, process.metrics[0]) + process.metrics[1]
            for process in self.deployment.processes
            if process.metrics
        }

    def dead(self) -> str | None:
        """Returns which process ended, how, and the cause in its log; None while all run."""
        for handle in self.handles:
            if (how := handle.ended()) is not None:
                return f"{handle.process.name} ended with {how}; {_last_words(handle)}"
        return None

    async def unhealthy(self) -> str | None:
        """Returns which process ended, or what the front's probe met; None where all is well."""
        if death := self.dead():
            return death
        front = next(p for p in self.deployment.processes if p.name == self.deployment.front)
        async with Reader() as reader:
            met = await self._silence(reader, front)
        return met and f"{front.name} no longer answers its health check ({met})"

    async def reset_cache(self, path: str) -> str | None:
        """Posts to `path` of every worker; returns None, or what failed."""
        async with Reader() as reader:
            for process in self.deployment.processes:
                if not process.metrics:
                    continue
                url = self.url(process.name, process.metrics[0]) + path
                try:
                    await reader.post(url, PROBE_TIMEOUT_S)
                except Unserved as why:
                    return f"{process.name}: POST {path} failed ({why})"
        return None

    async def _await_ready(self) -> None:
        deadline = time.monotonic() + self.ready_timeout_s
        waiting = {handle.process.name: handle for handle in self.handles if handle.process.ready}
        async with Reader() as reader:
            while waiting:
                self._refuse_dead()
                silent: dict[str, str] = {}
                for name, handle in waiting.items():
                    if why := await self._not_ready(reader, handle):
                        silent[name] = why
                waiting = {name: waiting[name] for name in silent}
                if waiting and time.monotonic() > deadline:
                    name, why = next(iter(silent.items()))
                    raise StartError(
                        f"was not ready after {self.ready_timeout_s:.0f} s ({why})",
                        process=name,
                        log_tail=waiting[name].log_tail(),
                    )
                if waiting:
                    await asyncio.sleep(POLL_S)
        self._refuse_dead()

    def _refuse_dead(self) -> None:
        for handle in self.handles:
            if (how := handle.ended()) is not None:
                raise StartError(
                    f"died before the deployment was ready ({how}){_cause(handle)}",
                    process=handle.process.name,
                    log_tail=handle.log_tail(),
                )

    async def _not_ready(self, reader: Reader, handle: Handle) -> str | None:
        """Returns why a process is not ready; None where it is."""
        process = handle.process
        if why := await self._silence(reader, process):
            return why
        assert process.ready
        port = self.placement.ports[process.name, process.ready.port]
        if handle.owns_port(port) is False:
            raise StartError(
                f"port {port} answers, but another process listens there (a stale server?)",
                process=process.name,
                log_tail=handle.log_tail(),
            )
        return None

    async def _silence(self, reader: Reader, process: Process) -> str | None:
        """Returns why a process's probe gives no answer that will do; None where it does."""
        probe = process.ready
        if probe is None:
            return None
        base, path = self.url(process.name, probe.port), probe.path
        try:
            await reader.get(base + path, PROBE_TIMEOUT_S)
            if probe.model is None:
                return None
            path = "/v1/models"
            models = picked(parsed(await reader.get(base + path, PROBE_TIMEOUT_S)), "data")
        except Unserved as why:
            return f"{path}: {why}"
        return None if _names(models, probe.model) else f"{path} does not name {probe.model}"


def _names(models: Json, model: str) -> bool:
    """Returns whether a list of models, in whatever shape a server sends it, has one of this name."""
    return isinstance(models, list) and any(
        isinstance(entry, dict) and entry.get("id") == model for entry in models
    )


def _cause(handle: Handle) -> str:
    """Returns the known cause in a log, for the end of a message."""
    cause = explain(handle.log_tail(CAUSE_LINES))
    return f"; {cause}" if cause else ""


def _last_words(handle: Handle) -> str:
    """Returns the known cause in a log, else its last line."""
    if cause := explain(handle.log_tail(CAUSE_LINES)):
        return str(cause)
    last = handle.log_tail(1)
    return f"last log line: {last}" if last else "it printed nothing"
