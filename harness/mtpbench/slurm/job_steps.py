"""Steps of a Slurm job: the command lines of `srun`, and queries and signals for steps that run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from mtpbench.errors import InputError, RunError
from mtpbench.records import Process
from mtpbench.redaction import looks_secret, variables_in
from mtpbench.slurm.client import Slurm
from mtpbench.slurm.cluster_profile import ClusterProfile

CONTROL_TIMEOUT_S = 10.0
"""For queries while a deployment is stopped, where signals to srun work as well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOptions:
    """The step options say how a cluster's owner wants processes to be started.

    Args:
        python: Python with mtpbench on the nodes.
        gres: Slurm's name of the GPUs, such as `gpu` or `gpu:gb200`; None where Slurm does not manage them.
        mpi: Slurm's MPI plugin, for processes that are several MPI tasks.
        client_nodes: nodes at the end of the allocation that only drive load.
        interface: the network interface whose addresses are used; None for Slurm's own addresses.
        container: whether engines run in their images, through pyxis.
        image: the image to use instead of the sweep's.
        mounts: SOURCE:TARGET pairs.
        container_flags: further flags of pyxis.
    """

    python: str
    gres: str | None = "gpu"
    mpi: str = "pmix"
    client_nodes: int = 0
    interface: str | None = None
    container: bool = False
    image: str | None = None
    mounts: tuple[str, ...] = ()
    container_flags: tuple[str, ...] = ()

    @classmethod
    def of(cls, profile: ClusterProfile | None) -> StepOptions:
        """Returns the options in a cluster's profile; without a profile, Slurm's defaults."""
        if profile is None:
            return cls(python=sys.executable)
        container = profile.container
        return cls(
            python=profile.python or sys.executable,
            gres=profile.gres,
            client_nodes=profile.client_nodes,
            mpi=profile.mpi,
            interface=profile.network_interface,
            container=container is not None,
            image=container.image if container else None,
            mounts=tuple(container.mounts) if container else (),
            container_flags=tuple(container.flags) if container else (),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStep:
    """A step is one `srun`: a process on one node, or an MPI program over several.

    Args:
        name: unique in the job.
        nodes: the nodes it runs on; each gets `tasks_per_node` tasks.
        gpus: GPUs of each node that the step may use: 0 for none, None to leave it to Slurm.
        visible: the value of CUDA_VISIBLE_DEVICES where the step must not use all of them.
        process: what runs, with its placeholders filled in.
        private: names of its variables that no command line may hold.
    """

    name: str
    nodes: tuple[str, ...]
    process: Process
    tasks_per_node: int = 1
    gpus: int | None = None
    visible: str | None = None
    mounts: tuple[str, ...] = field(default=())
    private: frozenset[str] = frozenset()


def srun_command(step: JobStep, options: StepOptions) -> list[str]:
    """Returns the whole `srun` command; no shell reads any of it.

    A step takes all CPUs and memory that the job has on its nodes and shares them (`--overlap`): servers, the
    router and the load client's helpers are steps of the same nodes.

    Raises:
        InputError: a path can't be written in a list of mounts.
    """
    tasks = len(step.nodes) * step.tasks_per_node
    argv = [
        "srun",
        f"--job-name={step.name}",
        f"--nodes={len(step.nodes)}",
        f"--nodelist={','.join(step.nodes)}",
        f"--ntasks={tasks}",
        f"--ntasks-per-node={step.tasks_per_node}",
        "--overlap",
        "--overcommit",
        "--mem=0",
        "--cpu-bind=none",
        # One dead rank of an MPI program is a dead program; of one task there is nothing else to kill.
        f"--kill-on-bad-exit={int(tasks > 1)}",
        f"--mpi={options.mpi if tasks > 1 else 'none'}",
        "--input=none",
        "--unbuffered",
        # One SIGINT then goes on to the tasks, without the controller.
        "--disable-status",
        "--export=ALL",
    ]
    argv += _gres_options(options, step.gpus)
    argv += _container_options(step, options)
    return [*argv, *_program(step, options)]


def helper_launch(node: str, name: str, options: StepOptions, gpus: int | None) -> tuple[str, ...]:
    """Returns the command in front of a helper's own: it runs it on a node, input and output connected.

    Args:
        node: the node it runs on.
        name: the name of the step.
        options: how the cluster's owner wants steps to be started.
        gpus: GPUs of the node that the helper may see: 0 for none, None to leave it to Slurm.
    """
    return (
        "srun",
        f"--job-name={name}",
        "--nodes=1",
        f"--nodelist={node}",
        "--ntasks=1",
        "--overlap",
        "--overcommit",
        "--mem=0",
        "--cpu-bind=none",
        "--mpi=none",
        "--unbuffered",
        "--disable-status",
        "--export=ALL",
        *_gres_options(options, gpus),
    )


def in_container(process: Process, options: StepOptions) -> bool:
    """Returns whether a process runs in an image; a process of the harness's own Python does not."""
    image = options.image or (process.container.image if process.container else None)
    return options.container and image is not None and process.argv[0] != options.python


def _gres_options(options: StepOptions, gpus: int | None) -> list[str]:
    if options.gres is None or gpus is None:
        return []
    return [f"--gres={options.gres}:{gpus}" if gpus else "--gres=none"]


def _container_options(step: JobStep, options: StepOptions) -> list[str]:
    if not in_container(step.process, options):
        return []
    own = step.process.container
    image = options.image or (own.image if own else "")
    mounts = [*options.mounts, *(own.mounts if own else ()), *map(_mount, step.mounts)]
    # A variable that the image sets too is overridden by name alone: secrets stay out of command lines.
    private = [f"--container-env={','.join(sorted(step.private))}"] if step.private else []
    return [
        f"--container-image={image}",
        f"--container-mounts={','.join(mounts)}",
        *private,
        *options.container_flags,
    ]


def private_variables(process: Process) -> frozenset[str]:
    """Returns the names of variables that may hold secrets, of a process whose placeholders still stand."""
    return frozenset(name for name, value in process.env.items() if looks_secret(name) or variables_in(value))


def _mount(directory: str) -> str:
    if "," in directory or ":" in directory:
        raise InputError(
            f"{directory}: a path with a comma or a colon can't be mounted into a container; choose another "
            "--results folder"
        )
    return f"{directory}:{directory}"


def _program(step: JobStep, options: StepOptions) -> list[str]:
    """Returns the program, behind `env` where Slurm or an image would set a variable otherwise."""
    variables: dict[str, str] = {}
    if in_container(step.process, options):
        # Variables of the image would override srun's environment.
        variables |= {name: v for name, v in step.process.env.items() if name not in step.private}
    if step.visible is not None and "CUDA_VISIBLE_DEVICES" not in step.process.env:
        variables["CUDA_VISIBLE_DEVICES"] = step.visible
    prefix = ["env", *(f"{name}={value}" for name, value in variables.items())] if variables else []
    return [*prefix, *step.process.argv]


class Steps:
    """The steps of one job are found by name, and signalled.

    Nothing here raises: an error of Slurm's counts as no answer, and signals to `srun` remain.
    """

    def __init__(self, slurm: Slurm, job_id: str) -> None:
        self._slurm, self._job_id = slurm, job_id

    def alive(self, names: Collection[str]) -> tuple[str, ...] | None:
        """Returns the ids of the running steps of these names; None where Slurm does not answer."""
        arguments = ("--steps", "--noheader", f"--jobs={self._job_id}", "--format=%i|%j")
        try:
            text = self._slurm.ask("squeue", *arguments, timeout_s=CONTROL_TIMEOUT_S)
        except RunError:
            return None
        rows = (line.strip().partition("|") for line in text.splitlines())
        return tuple(step for step, _, name in rows if name in names)

    def signal(self, ids: Sequence[str], name: str) -> None:
        """Sends a signal to steps.

        An error is ignored: scancel of 22.05 may report one although it sent the signal.
        """
        if not ids:
            return
        with contextlib.suppress(RunError):
            self._slurm.ask("scancel", f"--signal={name}", *ids, timeout_s=CONTROL_TIMEOUT_S)
