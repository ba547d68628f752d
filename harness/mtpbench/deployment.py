"""One deployment, alive: start its processes, await readiness, watch them, stop every one of them."""

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
"""How far back a log is searched for the cause of a death."""


class Handle(Protocol):
    """A running process, whatever executor runs it."""

    process: Process
    log: Path

    def ended(self) -> str | None:
        """How it ended, or None while it runs."""

    def owns_port(self, port: int) -> bool | None:
        """Whether it is the one that listens on a port; None where that can't be told."""

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log."""


class Executor(Protocol):
    """Where processes run."""

    name: str

    def place(self, deployment: Deployment) -> Placement:
        """Hosts and ports for every process."""

    def start(self, process: Process, placement: Placement) -> Handle:
        """Start one process."""

    def stop(self) -> None:
        """End every process started."""


class Site(Protocol):
    """A place where deployments run, one after the other: this machine, or a Slurm allocation."""

    name: str

    def executor(self, directory: Path) -> Executor:
        """What runs one start of a deployment, with its files and logs in a directory of its own."""

    def obstacle(self, deployment: Deployment, point: Point) -> str | None:
        """Why a deployment can't run here, and what can be done instead; None where it can."""

    def metered(self, deployment: Deployment, directory: Path) -> tuple[MeteredNode, ...]:
        """The nodes whose GPUs a deployment holds, to be read by samplers that write into a directory.

        Raises:
            RunError: a node does not answer.
            Unread: the GPUs can't be told apart.
        """

    def client_hosts(self, directory: Path) -> tuple[Host, ...]:
        """Other hosts that the load client runs on, which see the directory; none for this one."""

    def notes(self) -> tuple[str, ...]:
        """Where this is, for the record; nothing where the host's name says it all."""


async def meter_at(site: Site, deployment: Deployment, point: Point, directory: Path) -> Meter:
    """What meters the GPUs of one start of a deployment: all of them, or none with the reason.

    Args:
        site: where the start runs.
        deployment: whose GPUs are read.
        point: any of those that it serves.
        directory: of the start; the samplers' files stay there.
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
    """A deployment whose processes run while the `async with` block does.

    Args:
        deployment: what to start.
        executor: where.
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
        """Where everything is."""
        assert self._placement is not None, "the deployment has not been started"
        return self._placement

    @property
    def base_url(self) -> str:
        """Where requests go."""
        return self.url(self.deployment.front, self.deployment.front_port)

    def url(self, process: str, port: str) -> str:
        """The address of one port of one process."""
        return f"http://{self.placement.hosts[process]}:{self.placement.ports[process, port]}"

    @property
    def metrics_urls(self) -> Mapping[str, str]:
        """Metrics addresses by process; of every worker, never of the router alone."""
        return {
            process.name: self.url(process.name, process.metrics[0]) + process.metrics[1]
            for process in self.deployment.processes
            if process.metrics
        }

    def dead(self) -> str | None:
        """Which process ended and how, with the cause its log names; None while all run."""
        for handle in self.handles:
            if (how := handle.ended()) is not None:
                return f"{handle.process.name} ended with {how}; {_last_words(handle)}"
        return None

    async def is_healthy(self) -> bool:
        """Whether all processes run and the front answers its probe."""
        if self.dead():
            return False
        front = next(p for p in self.deployment.processes if p.name == self.deployment.front)
        async with aiohttp.ClientSession(trust_env=False) as session:
            return await self._answers(session, front)

    async def reset_cache(self, path: str) -> str | None:
        """POST `path` to every worker; None, or what failed."""
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
                listed = await answer.json(content_type=None) if answer.status == 200 else {}
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError):
            return False
        return any(model.get("id") == probe.model for model in listed.get("data", []))


def _cause(handle: Handle) -> str:
    cause = explain(handle.log_tail(CAUSE_LINES))
    return f"; {cause}" if cause else ""


def _last_words(handle: Handle) -> str:
    """The known cause in a log, else its last line."""
    if cause := explain(handle.log_tail(CAUSE_LINES)):
        return str(cause)
    last = handle.log_tail(1)
    return f"last log line: {last}" if last else "it printed nothing"


def _timeout() -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
