"""The Slurm executor: each process is a step of the job that the harness runs in, and ends with it.

Node i of a deployment is node i of the allocation; the router is on the first one, where a batch job's load
client runs too. The output of a step comes back through its `srun` into the process's log.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtpbench import reaper
from mtpbench.engines.parts import Placement, resolve
from mtpbench.errors import RunError, StartError
from mtpbench.executors import choose_ports, last_lines, lay_down, let_go, new_log, port_block
from mtpbench.power.log import Unread
from mtpbench.power.meter import MeteredNode
from mtpbench.power.nodes import gpus_of_node, held_by_node
from mtpbench.records import Deployment, Point, Process
from mtpbench.remote import Host
from mtpbench.slurm.allocation import Allocation, Node, call_roll, refuse_loopback
from mtpbench.slurm.client import Slurm
from mtpbench.slurm.job_steps import (
    JobStep,
    StepOptions,
    Steps,
    helper_launch,
    in_container,
    private_variables,
    srun_command,
)

STOP_GRACE_S = 10.0
KILL_GRACE_S = 8.0
USR1_GRACE_S = 2.0


class SlurmSite:
    """The Slurm site runs deployments in an allocation, one after the other.

    Args:
        allocation: the job, its nodes, their addresses.
        options: how the cluster's owner wants steps to be started.
        front_port: the number of the front's port, or None for a free one.
    """

    name = "slurm"

    def __init__(self, allocation: Allocation, options: StepOptions, front_port: int | None = None) -> None:
        self.allocation, self.options, self.front_port = allocation, options, front_port
        self._nodes: tuple[Node, ...] | None = None

    def executor(self, directory: Path) -> SlurmExecutor:
        """Returns the executor of one start of a deployment."""
        return SlurmExecutor(directory.resolve(), self)

    def obstacle(self, deployment: Deployment, point: Point) -> str | None:
        """Returns a sentence where the job has too few nodes or GPUs; None where the deployment fits."""
        clients = self.options.client_nodes
        available = len(self.allocation.nodes) - clients
        name = f"{point.arm.name} on {point.topology.name}"
        if deployment.nodes > available:
            return (
                f"{name} needs {deployment.nodes} nodes; job {self.allocation.job_id} has {available}"
                f"{f' beside {clients} for the load client' if clients else ''}. "
                "Choose smaller points with --only, or get a larger allocation"
            )
        needed = 1 + max((gpu for process in deployment.processes for gpu in process.gpus), default=-1)
        gpus = self.allocation.gpus_per_node or 0
        if needed > gpus and point.simulation is None and self.options.gres is not None:
            return (
                f"{name} needs {needed} GPUs on a node; job {self.allocation.job_id} has {gpus} on each. "
                f"Ask for them with --gres={self.options.gres}:{needed}"
            )
        return None

    def metered(self, deployment: Deployment, directory: Path) -> tuple[MeteredNode, ...]:
        """Returns every node with GPUs; a step on each reads all GPUs that the job has there."""
        owners_by_node = held_by_node(deployment)
        if not owners_by_node:
            raise Unread("no_gpu", "the deployment holds no GPU")
        nodes = self.roll_call(directory.resolve())
        gpus = self.allocation.gpus_per_node
        return tuple(
            MeteredNode(
                gpus=gpus_of_node(number, owners, nodes[number].visible_gpus or None),
                host=self._host(nodes[number].name, "power-sampler", gpus, directory),
            )
            for number, owners in sorted(owners_by_node.items())
        )

    def client_hosts(self, directory: Path) -> tuple[Host, ...]:
        """Returns the nodes that only drive load, each reached by a step."""
        directory.mkdir(parents=True, exist_ok=True)
        clients = self.allocation.nodes[len(self.allocation.nodes) - self.options.client_nodes :]
        return tuple(self._host(node, "load-client", 0, directory) for node in clients)

    def _host(self, node: str, step: str, gpus: int | None, directory: Path) -> Host:
        """Returns a node as a host for helpers; each helper is a step of its own.

        Args:
            node: the name of the node.
            step: the name of the steps.
            gpus: GPUs that helpers see: 0 for none, None to leave it to Slurm.
            directory: a folder that all nodes see.
        """
        return Host(
            name=node,
            launch=helper_launch(node, step, self.options, gpus),
            directory=directory.resolve(),
            environment=self.slurm().environment,
            python=self.options.python,
        )

    def notes(self) -> tuple[str, ...]:
        """Returns one note: the job, its nodes, and the node that the load came from."""
        job = self.allocation
        restarted = f", started again {job.restart} times" if job.restart else ""
        here = f"node {job.here}" if job.here else f"{socket.gethostname()}, which is no node of the job"
        if self.options.client_nodes:
            here = ", ".join(job.nodes[len(job.nodes) - self.options.client_nodes :])
        return (f"Slurm job {job.job_id}{restarted} on {', '.join(job.nodes)}; load from {here}",)

    def slurm(self) -> Slurm:
        """Returns the Slurm client of this job."""
        return Slurm(os.environ, job_id=self.allocation.raw_id)

    def roll_call(self, directory: Path) -> tuple[Node, ...]:
        """Returns every node with its address and GPUs, and that it sees our files; asks the nodes once.

        Raises:
            InputError: a node does not see `directory`, or lacks the network interface.
            RunError: a node does not answer.
        """
        if self._nodes is None:
            self._nodes = call_roll(self.allocation, self.options, self.slurm(), directory)
        return self._nodes


class SlurmHandle:
    """A Slurm handle follows one running step: its state, its log, and signals to it."""

    def __init__(self, process: Process, step: JobStep, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.step, self.log = process, step, log
        self.popen = popen

    @property
    def group(self) -> int:
        """Returns the process group of the step's srun."""
        return self.popen.pid

    def ended(self) -> str | None:
        """Returns how the step ended (`exit code 1`, `killed by SIGKILL`), or None while it runs."""
        code = self.popen.poll()
        if code is None:
            return None
        # srun ends as its task did, with the code that shells use: 128 and the signal's number.
        number = -code if code < 0 else code - 128
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(number).name}"
        return f"exit code {code}"

    def owns_port(self, port: int) -> bool | None:
        """Returns None, for unknown: the process runs on another machine."""
        del port
        return None

    def log_tail(self, lines: int = 15) -> str:
        """Returns the last lines of the step's log."""
        return last_lines(self.log, lines)

    def signal(self, number: signal.Signals) -> None:
        """Signals the step's srun: SIGINT and SIGUSR1 go on to the tasks, SIGTERM ends the step by force."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if number == signal.SIGKILL:
                os.killpg(self.group, number)
            else:
                os.kill(reaper.program_of(self.popen.pid) or self.popen.pid, number)


class SlurmRank(SlurmHandle):
    """A Slurm rank is a further node of an MPI program, which another handle's step runs and logs."""

    def __init__(self, process: Process, head: SlurmHandle) -> None:
        super().__init__(process, head.step, head.popen, head.log.with_name(f"{process.name}.log"))
        self._head = head

    def log_tail(self, lines: int = 15) -> str:
        """Returns the last lines of the whole program's log."""
        return self._head.log_tail(lines)


class SlurmExecutor:
    """The Slurm executor starts the processes of a deployment as steps of a job and ends all of them.

    Args:
        directory: where files and logs are written, on a filesystem that all nodes share.
        site: the allocation.
    """

    name = "slurm"

    def __init__(self, directory: Path, site: SlurmSite) -> None:
        self.directory, self._site = directory, site
        self._tag = secrets.token_hex(3)
        self._nodes: tuple[Node, ...] = ()
        self._programs: Mapping[str, tuple[Process, ...]] = {}
        self._handles: list[SlurmHandle] = []

    def place(self, deployment: Deployment) -> Placement:
        """Returns addresses and ports for every process of a deployment.

        Raises:
            InputError: a node does not see the directory.
            PortInUse: the front's port was asked for by number and is taken.
            StartError: a node does not answer.
        """
        try:
            self._nodes = self._site.roll_call(self.directory)
        except RunError as error:
            raise StartError(f"a step on every node failed: {error}", process="roll call") from error
        hosts = {p.name: self._nodes[p.node].address for p in deployment.processes}
        refuse_loopback(self._nodes[: deployment.nodes])
        self._programs = mpi_programs(deployment)
        block = port_block(self._site.allocation.raw_id)
        ports = choose_ports(deployment, hosts, self._site.front_port, block)
        return Placement(
            hosts=hosts,
            ports=ports,
            directory=str(self.directory),
            python=self._site.options.python,
            environment=os.environ,
        )

    def start(self, process: Process, placement: Placement) -> SlurmHandle:
        """Writes a process's files and starts its step.

        Raises:
            StartError: srun can't be run.
        """
        ready = resolve(process, placement)
        log = lay_down(ready, self.directory)
        head = next((h for h in self._handles if process in self._programs.get(h.process.name, ())), None)
        if head is not None:
            handle: SlurmHandle = SlurmRank(process, head)
            self._handles.append(handle)
            return handle
        step = self._step(process, ready)
        with new_log(log) as output:
            try:
                popen = self._site.slurm().start(srun_command(step, self._site.options), ready.env, output)
            except OSError as error:
                raise StartError(f"srun can't be run ({error.strerror})", process=process.name) from error
        handle = SlurmHandle(process, step, popen, log)
        self._handles.append(handle)
        return handle

    def stop(self) -> None:
        """Ends every step: asks it to end, waits, then kills it.

        SIGTERM goes through Slurm. Where its controller does not answer, srun takes SIGINT to the nodes by
        itself, and then SIGUSR1, which kills a process that does not handle it: Slurm kills what is left only
        later.
        """
        running = [handle for handle in self._handles if not isinstance(handle, SlurmRank)]
        steps = Steps(self._site.slurm(), self._site.allocation.raw_id)
        names = {handle.step.name for handle in running}
        for number, grace_s in self._ask_to_end(steps, names, running):
            for handle in running:
                if handle.ended() is None:
                    handle.signal(number)
            _await(running, grace_s)
        self._end_left_overs(steps, names)
        groups = {handle.group for handle in running}
        reaper.reap({group for group in groups if reaper.is_alive(group)}, grace_s=0.5)
        for handle in running:
            let_go(handle.popen)
        self._handles.clear()

    def _ask_to_end(
        self, steps: Steps, names: set[str], running: Sequence[SlurmHandle]
    ) -> tuple[tuple[signal.Signals, float], ...]:
        """Asks all steps through Slurm to end, and waits.

        Returns the signals and waits (s) for the steps that still run then.
        """
        force = ((signal.SIGTERM, KILL_GRACE_S), (signal.SIGKILL, KILL_GRACE_S))
        if all(handle.ended() is not None for handle in running):
            return force
        alive = steps.alive(names)
        if alive is None:
            return (signal.SIGINT, STOP_GRACE_S), (signal.SIGUSR1, USR1_GRACE_S), *force
        if alive:
            steps.signal(alive, "TERM")
            _await(running, STOP_GRACE_S)
        return force

    def _end_left_overs(self, steps: Steps, names: set[str]) -> None:
        """Kills steps whose srun was killed: they go on without it."""
        deadline = time.monotonic() + KILL_GRACE_S
        while names and (survivors := steps.alive(names)) and time.monotonic() < deadline:
            steps.signal(survivors, "KILL")
            time.sleep(0.3)

    def _step(self, process: Process, ready: Process) -> JobStep:
        """Returns the step of a process, or of the MPI program that it is the first process of."""
        program = self._programs.get(process.name, (process,))
        nodes = tuple(self._nodes[part.node].name for part in program)
        visible = self._nodes[process.node].visible_gpus
        gpus = self._site.allocation.gpus_per_node
        chosen = [visible[gpu] for gpu in process.gpus if gpu < len(visible)]
        return JobStep(
            name=f"{process.name}.{self._tag}",
            nodes=nodes,
            process=ready,
            tasks_per_node=process.mpi_tasks,
            # All GPUs of the job: the steps of one node would get the same first ones otherwise.
            gpus=(gpus if process.gpus else 0) if gpus else None,
            visible=",".join(chosen) if chosen and len(chosen) < len(visible) else None,
            mounts=(str(self.directory),) if in_container(ready, self._site.options) else (),
            private=private_variables(process),
        )


def mpi_programs(deployment: Deployment) -> Mapping[str, tuple[Process, ...]]:
    """Returns, by the first process's name, the processes that are one MPI program over several nodes.

    Engines describe such a worker as one process for each node (`decode-0.r0`, `decode-0.r1`); its ranks find
    each other only when one `srun` starts them all.
    """
    programs: dict[str, list[Process]] = {}
    for process in deployment.processes:
        worker, dot, rank = process.name.rpartition(".r")
        if process.mpi_tasks > 1 and dot and rank.isdigit():
            programs.setdefault(worker, []).append(process)
    return {parts[0].name: tuple(parts) for parts in programs.values() if len(parts) > 1}


def _await(handles: Sequence[SlurmHandle], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(handle.ended() is None for handle in handles) and time.monotonic() < deadline:
        time.sleep(0.02)
