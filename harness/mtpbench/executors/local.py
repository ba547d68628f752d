"""The local executor: each process in a group of its own on this machine, every one gone at the end."""

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

from mtpbench.engines import install_hint
from mtpbench.engines.parts import Placement, resolve
from mtpbench.errors import StartError
from mtpbench.executors import reaper
from mtpbench.executors.ports import HOST, choose_ports, listens_in_group
from mtpbench.power.log import Unread
from mtpbench.power.meter import MeteredNode
from mtpbench.power.nodes import gpus_of_node, held_by_node
from mtpbench.records import Deployment, Point, Process
from mtpbench.remote import Host

STOP_GRACE_S = 10.0


class LocalHandle:
    """One running process: alive or not, its log, and its end."""

    def __init__(self, process: Process, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log
        self._popen = popen

    @property
    def group(self) -> int:
        """Its process group, which holds its children too."""
        return self._popen.pid

    def ended(self) -> str | None:
        """How it ended (`exit code 1`, `killed by SIGKILL`), or None while it runs."""
        code = self._popen.poll()
        if code is None:
            return None
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def owns_port(self, port: int) -> bool | None:
        """Whether this process's group listens on a port; None where the machine does not tell."""
        return listens_in_group(port, self.group)

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log."""
        return last_lines(self.log, lines)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, number)

    def reap(self) -> None:
        """Collect the process's status, so that it does not stay a zombie."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=STOP_GRACE_S)


class LocalSite:
    """This machine, one node of whatever it has.

    Args:
        front_port: the number of the front's port, or None for a free one.
    """

    name = "local"

    def __init__(self, front_port: int | None = None) -> None:
        self._front_port = front_port

    def executor(self, directory: Path) -> LocalExecutor:
        """What runs one start of a deployment."""
        return LocalExecutor(directory, self._front_port)

    def obstacle(self, deployment: Deployment, point: Point) -> str | None:
        """More nodes than one, or a missing engine; None where the deployment can run."""
        if deployment.nodes > 1 and point.simulation is None:
            return (
                f"{point.arm.name} on {point.topology.name} needs {deployment.nodes} nodes of "
                f"{point.hardware}; the local executor has this one. Choose smaller points with --only, or "
                "play the sweep with --simulate"
            )
        missing = missing_program(deployment)
        return f"{missing.process}: {missing.text}" if missing else None

    def metered(self, deployment: Deployment, directory: Path) -> tuple[MeteredNode, ...]:
        """This machine, whatever nodes the deployment thinks of; CUDA_VISIBLE_DEVICES names its GPUs."""
        del directory
        held = held_by_node(deployment)
        if not held:
            raise Unread("no_gpu", "the deployment holds no GPU")
        variable = os.environ.get("CUDA_VISIBLE_DEVICES")
        shown = None if variable is None else [word.strip() for word in variable.split(",")]
        here = Host(name=socket.gethostname())
        return tuple(
            MeteredNode(gpus=gpus_of_node(node, gpus, shown), host=here)
            for node, gpus in sorted(held.items())
        )

    def client_hosts(self, directory: Path) -> tuple[Host, ...]:
        """None: the load client runs here too."""
        del directory
        return ()

    def notes(self) -> tuple[str, ...]:
        """Nothing: the host's name says it all."""
        return ()


class LocalExecutor:
    """Starts the processes of a deployment on this machine and ends every one of them.

    Args:
        directory: where files are laid down and logs written.
        front_port: the number of the front's port, or None for a free one.
    """

    name = "local"

    def __init__(self, directory: Path, front_port: int | None = None) -> None:
        self.directory, self._front_port = directory, front_port
        self._handles: list[LocalHandle] = []
        self._reaper = Reaper()

    def place(self, deployment: Deployment) -> Placement:
        """Hosts and free ports for every process of a deployment.

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
        """Lay down a process's files and start it.

        Raises:
            StartError: the program does not exist or can't be run.
        """
        ready = resolve(process, placement)
        lay_down(ready, self.directory)
        log = self.directory / f"{process.name}.log"
        with log.open("ab") as output:
            try:
                popen = subprocess.Popen(
                    ready.argv,
                    env=_environment(ready),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise StartError(
                    f"{ready.argv[0]!r} can't be run ({error.strerror}); {install_hint(ready.argv)}",
                    process=process.name,
                ) from error
        handle = LocalHandle(process, popen, log)
        self._handles.append(handle)
        self._reaper.add(handle.group)
        return handle

    def stop(self) -> None:
        """End every process: SIGTERM to all groups, a grace, SIGKILL to what is left, routers first."""
        groups = {handle.group for handle in self._handles}
        for handle in self._handles:
            handle.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_GRACE_S
        while any(h.ended() is None for h in self._handles) and time.monotonic() < deadline:
            time.sleep(0.02)
        for handle in self._handles:
            handle.signal(signal.SIGKILL)
            handle.reap()
            self._reaper.forget(handle.group)
        self._handles.clear()
        reaper.reap({group for group in groups if reaper.is_alive(group)}, grace_s=0.5)
        self._reaper.close()


class Reaper:
    """The process that ends what is still running when this one is killed; started with the first group."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def add(self, group: int) -> None:
        """A process group that must not outlive this process."""
        self._tell(f"+{group}")

    def forget(self, group: int) -> None:
        """One that has ended."""
        self._tell(f"-{group}")

    def close(self) -> None:
        """Let it end; it ends what it was not told to forget."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _tell(self, line: str) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                (sys.executable, "-I", reaper.__file__),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()


def lay_down(process: Process, directory: Path) -> None:
    """Write a resolved process's files, and make the directory of its log."""
    directory.mkdir(parents=True, exist_ok=True)
    for file in process.files:
        Path(file.path).parent.mkdir(parents=True, exist_ok=True)
        Path(file.path).write_text(file.text, "utf-8")


def last_lines(log: Path, lines: int) -> str:
    """The last lines of a log; empty where there is none."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-lines:])


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingProgram:
    """A program that a process of a deployment needs and this machine does not have."""

    process: str
    program: str
    hint: str

    @property
    def text(self) -> str:
        """What is missing, and how to get it."""
        return f"{self.program!r} is not installed on this machine; {self.hint}"


def missing_program(deployment: Deployment) -> MissingProgram | None:
    """The first program of a deployment that this machine does not have; None if all are here.

    A Python module that is missing shows only when it is started: its log then names it.
    """
    for process in deployment.processes:
        program = process.argv[0]
        if "@{" not in program and shutil.which(program) is None:
            return MissingProgram(process=process.name, program=program, hint=install_hint(process.argv))
    return None


def _environment(process: Process) -> dict[str, str]:
    """The harness's environment, the process's own, and only the GPUs that the process was given."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if process.gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible is not None else None
        chosen = [names[gpu] if names and gpu < len(names) else str(gpu) for gpu in process.gpus]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    return {**environment, **process.env}
