"""A live deployment: its processes are started, awaited, watched and ended by an executor at some site."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

import aiohttp

from mtpbench.engines import explain
from mtpbench.engines.parts import Placement
from mtpbench.errors import RunError, StartError
from mtpbench.power.log import Unread, unread
from mtpbench.power.meter import SIMULATED, Meter, MeteredNode
from mtpbench.power.nodes import Gathered
from mtpbench.records import Deployment, Point, Process
from mtpbench.remote import Host

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
    return Meter(nodes, directory)


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

    async def is_healthy(self) -> bool:
        """Returns whether all processes run and the front answers its probe."""
        if self.dead():
            return False
        front = next(p for p in self.deployment.processes if p.name == self.deployment.front)
        async with aiohttp.ClientSession(trust_env=False) as session:
            return await self._answers(session, front)

    async def reset_cache(self, path: str) -> str | None:
        """Posts to `path` of every worker; returns None, or what failed."""
        async with aiohttp.ClientSession(trust_env=False) as session:
            for process in self.deployment.processes:
                if not process.metrics:
                    continue
                url = self.url(process.name, process.metrics[0]) + path
                try:
                    async with session.post(url, timeout=_timeout()) as answer:
                        if answer.status >= 400:
                            return f"{process.name}: POST {path} answered {answer.status}"
                except (aiohttp.ClientError, TimeoutError) as error:
                    return f"{process.name}: POST {path} failed ({type(error).__name__})"
        return None

    async def _await_ready(self) -> None:
        deadline = time.monotonic() + self.ready_timeout_s
        waiting = [handle for handle in self.handles if handle.process.ready]
        async with aiohttp.ClientSession(trust_env=False) as session:
            while waiting:
                self._refuse_dead()
                waiting = [h for h in waiting if not await self._is_ready(session, h)]
                if waiting and time.monotonic() > deadline:
                    handle = waiting[0]
                    raise StartError(
                        f"was not ready after {self.ready_timeout_s:.0f} s",
                        process=handle.process.name,
                        log_tail=handle.log_tail(),
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

    async def _is_ready(self, session: aiohttp.ClientSession, handle: Handle) -> bool:
        process = handle.process
        if not await self._answers(session, process):
            return False
        assert process.ready
        port = self.placement.ports[process.name, process.ready.port]
        if handle.owns_port(port) is False:
            raise StartError(
                f"port {port} answers, but another process listens there (a stale server?)",
                process=process.name,
                log_tail=handle.log_tail(),
            )
        return True

    async def _answers(self, session: aiohttp.ClientSession, process: Process) -> bool:
        probe = process.ready
        if probe is None:
            return True
        base = self.url(process.name, probe.port)
        try:
            async with session.get(base + probe.path, timeout=_timeout()) as answer:
                if answer.status != 200:
                    return False
            if probe.model is None:
                return True
            async with session.get(f"{base}/v1/models", timeout=_timeout()) as answer:
                models = await answer.json(content_type=None) if answer.status == 200 else {}
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError):
            return False
        return any(model.get("id") == probe.model for model in models.get("data", []))


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


def _timeout() -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
