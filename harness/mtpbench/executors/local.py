"""The local executor: it runs each process in a group of its own on this machine, and ends all of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mtpbench import reaper
from mtpbench.engines import install_hint
from mtpbench.engines.parts import Placement, resolve
from mtpbench.errors import StartError
from mtpbench.executors import (
    HOST,
    choose_ports,
    last_lines,
    lay_down,
    let_go,
    listens_in_group,
    new_log,
)
from mtpbench.power.log import Unread
from mtpbench.power.meter import MeteredNode
from mtpbench.power.nodes import gpus_of_node, held_by_node
from mtpbench.records import Deployment, Point, Process
from mtpbench.remote import Host

STOP_GRACE_S = 10.0


class LocalHandle:
    """A local handle follows one running process: its state, its log, and signals to it."""

    def __init__(self, process: Process, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log
        self._popen = popen

    @property
    def group(self) -> int:
        """Returns its process group, which holds its children too."""
        return self._popen.pid

    def ended(self) -> str | None:
        """Returns how the process ended (`exit code 1`, `killed by SIGKILL`), or None while it runs."""
        code = self._popen.poll()
        if code is None:
            return None
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def owns_port(self, port: int) -> bool | None:
        """Returns whether this process's group listens on a port; None where the machine does not show it."""
        return listens_in_group(port, self.group)

    def log_tail(self, lines: int = 15) -> str:
        """Returns the last lines of the process's log."""
        return last_lines(self.log, lines)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the whole process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, number)

    def reap(self) -> None:
        """Collects the process's status, so that it does not stay a zombie."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=STOP_GRACE_S)
        let_go(self._popen)


class LocalSite:
    """The local site runs every process of a deployment on this machine.

    Args:
        front_port: the number of the front's port, or None for a free one.
    """

    name = "local"

    def __init__(self, front_port: int | None = None) -> None:
        self._front_port = front_port

    def executor(self, directory: Path) -> LocalExecutor:
        """Returns the executor of one start of a deployment."""
        return LocalExecutor(directory, self._front_port)

    def obstacle(self, deployment: Deployment, point: Point) -> str | None:
        """Returns a sentence where more nodes than one are needed or an engine is missing; else None."""
        if deployment.nodes > 1 and point.simulation is None:
            return (
                f"{point.arm.name} on {point.topology.name} needs {deployment.nodes} nodes of "
                f"{point.hardware}; the local executor has this one. Choose smaller points with --only, or "
                "play the sweep with --simulate"
            )
        missing = missing_program(deployment)
        return f"{missing.process}: {missing.text}" if missing else None

    def metered(self, deployment: Deployment, directory: Path) -> tuple[MeteredNode, ...]:
        """Returns this machine for every node of the deployment; CUDA_VISIBLE_DEVICES names its GPUs."""
        del directory
        owners_by_node = held_by_node(deployment)
        if not owners_by_node:
            raise Unread("no_gpu", "the deployment holds no GPU")
        variable = os.environ.get("CUDA_VISIBLE_DEVICES")
        visible = None if variable is None else [gpu.strip() for gpu in variable.split(",")]
        here = Host(name=socket.gethostname())
        return tuple(
            MeteredNode(gpus=gpus_of_node(node, owners, visible), host=here)
            for node, owners in sorted(owners_by_node.items())
        )

    def client_hosts(self, directory: Path) -> tuple[Host, ...]:
        """Returns no host: the load client runs here too."""
        del directory
        return ()

    def notes(self) -> tuple[str, ...]:
        """Returns no note: the host's name is enough."""
        return ()


class LocalExecutor:
    """The local executor starts the processes of a deployment on this machine and ends all of them.

    Args:
        directory: where files and logs are written.
        front_port: the number of the front's port, or None for a free one.
    """

    name = "local"

    def __init__(self, directory: Path, front_port: int | None = None) -> None:
        self.directory, self._front_port = directory, front_port
        self._handles: list[LocalHandle] = []

    def place(self, deployment: Deployment) -> Placement:
        """Returns hosts and free ports for every process of a deployment.

        Raises:
            PortInUse: the front's port was asked for by number and is taken.
        """
        hosts = {process.name: HOST for process in deployment.processes}
        return Placement(
            hosts=hosts,
            ports=choose_ports(deployment, hosts, self._front_port),
            directory=str(self.directory),
            python=sys.executable,
            environment=os.environ,
        )

    def start(self, process: Process, placement: Placement) -> LocalHandle:
        """Writes a process's files and starts it.

        Raises:
            StartError: the program does not exist or can't be run.
        """
        ready = resolve(process, placement)
        log, environment = lay_down(ready, self.directory), _environment(ready)
        if shutil.which(ready.argv[0], path=environment.get("PATH")) is None:
            raise StartError(
                f"{ready.argv[0]!r} can't be run (no such program); {install_hint(ready.argv)}",
                process=process.name,
            )
        with new_log(log) as output:
            try:
                popen = reaper.start(ready.argv, environment, output)
            except OSError as error:
                raise StartError(f"no process can be started ({error})", process=process.name) from error
        handle = LocalHandle(process, popen, log)
        self._handles.append(handle)
        return handle

    def stop(self) -> None:
        """Ends every process: SIGTERM to all groups, a wait, SIGKILL to all that still run."""
        groups = {handle.group for handle in self._handles}
        for handle in self._handles:
            handle.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_GRACE_S
        while any(h.ended() is None for h in self._handles) and time.monotonic() < deadline:
            time.sleep(0.02)
        for handle in self._handles:
            handle.signal(signal.SIGKILL)
            handle.reap()
        self._handles.clear()
        reaper.reap({group for group in groups if reaper.is_alive(group)}, grace_s=0.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingProgram:
    """A missing program is one that a process of a deployment needs and this machine does not have."""

    process: str
    program: str
    hint: str

    @property
    def text(self) -> str:
        """Returns what is missing, and how to get it."""
        return f"{self.program!r} is not installed on this machine; {self.hint}"


def missing_program(deployment: Deployment) -> MissingProgram | None:
    """Returns the first program of a deployment that this machine does not have; None if all are here.

    A missing Python module is found only at the start: the log then names it.
    """
    for process in deployment.processes:
        program = process.argv[0]
        if "@{" not in program and shutil.which(program) is None:
            return MissingProgram(process=process.name, program=program, hint=install_hint(process.argv))
    return None


def _environment(process: Process) -> dict[str, str]:
    """Returns the environment of a process: the harness's, its own variables, and only its own GPUs."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if process.gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible is not None else None
        chosen = [names[gpu] if names and gpu < len(names) else str(gpu) for gpu in process.gpus]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    return {**environment, **process.env}
