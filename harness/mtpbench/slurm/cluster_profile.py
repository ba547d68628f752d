"""The profile of a cluster, which its owner writes: `slurm/clusters/NAME.yaml`, checked key by key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from mtpbench.errors import InputError
from mtpbench.yaml_files import Strict, read_yaml

FOLDER = Path("slurm/clusters")
_CLOCK = re.compile(r"^(?:(?P<days>\d+)-)?(?P<hours>\d{1,3}):(?P<minutes>[0-5]?\d):(?P<seconds>[0-5]?\d)$")


def seconds_of(value: object) -> object:
    """Converts `4:00:00` and `1-00:00:00` to seconds; a number is seconds already."""
    match = _CLOCK.match(value) if isinstance(value, str) else None
    if match is None:
        return value
    days, hours, minutes, seconds = (
        int(match[name] or 0) for name in ("days", "hours", "minutes", "seconds")
    )
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


class ContainerSpec(Strict):
    """The container settings say how engine processes get into their image (pyxis, enroot).

    The harness itself runs without a container.
    """

    image: str | None = Field(None, description="a .sqsh or an enroot name; left out: the sweep's")
    mounts: list[str] = Field(default_factory=list, description="SOURCE:TARGET pairs for --container-mounts")
    flags: list[str] = Field(default_factory=list, description="further --container-… flags of pyxis")

    @field_validator("mounts")
    @classmethod
    def _pairs(cls, mounts: list[str]) -> list[str]:
        for mount in mounts:
            if ":" not in mount or "," in mount:
                raise ValueError(f"{mount!r}: SOURCE:TARGET without commas is needed")
        return mounts

    @field_validator("flags")
    @classmethod
    def _pyxis_flags(cls, flags: list[str]) -> list[str]:
        for flag in flags:
            if not flag.startswith(("--container-", "--no-container-")):
                raise ValueError(f"{flag!r}: a flag of pyxis such as --container-writable is needed")
        return flags


class ClusterProfile(Strict):
    """A cluster profile holds all that a job needs to know of a cluster.

    No shell ever reads any of it unquoted.
    """

    partition: str | None = Field(None, description="left out: the cluster's default")
    account: str | None = None
    qos: str | None = None
    reservation: str | None = None
    constraint: str | None = None
    time_limit_s: Annotated[int, BeforeValidator(seconds_of)] = Field(
        alias="time_limit", ge=60, description="HH:MM:SS, D-HH:MM:SS or seconds, of each job"
    )
    gpus_per_node: int | None = Field(None, ge=1, description="left out: the hardware's")
    gres: str | None = Field("gpu", description="what GPUs are to Slurm, such as gpu:gb200; null: none")
    segment_nodes: int | None = Field(
        None, ge=1, description="nodes of one NVLink domain; a job then asks for one segment (Slurm 24.05 on)"
    )
    max_running: int | None = Field(None, ge=1, description="most jobs of one array at a time")
    requeue: bool = Field(True, description="let Slurm start a job again after a node failed")
    warn_s: int = Field(120, ge=10, description="seconds before the limit at which a point is closed")
    container: ContainerSpec | None = None
    python: str | None = Field(None, description="Python with mtpbench on the nodes; left out: this one")
    environment: dict[str, str] = Field(default_factory=dict, description="set in every job: model paths")
    pre_commands: list[list[str]] = Field(
        default_factory=list, description="run in the job first, as lists of words: [module, load, cuda]"
    )
    directives: list[str] = Field(
        default_factory=list, description="more sbatch options: --exclusive, --mem=0"
    )
    client_nodes: int = Field(0, ge=0, description="more nodes of a job, which only drive load")
    mpi: str = Field("pmix", description="Slurm's MPI plugin for engines of several MPI tasks")
    network_interface: str | None = Field(None, description="whose addresses are used; left out: Slurm's")

    @field_validator("environment")
    @classmethod
    def _plain_variables(cls, environment: dict[str, str]) -> dict[str, str]:
        for name in environment:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{name!r} is no name of an environment variable")
        return environment

    @field_validator("pre_commands")
    @classmethod
    def _no_empty_command(cls, commands: list[list[str]]) -> list[list[str]]:
        if any(not command for command in commands):
            raise ValueError("an empty command")
        return commands

    @field_validator("directives")
    @classmethod
    def _sbatch_options(cls, directives: list[str]) -> list[str]:
        for option in directives:
            if not re.fullmatch(r"--[a-z][a-z-]*(=.*)?", option):
                raise ValueError(f"{option!r}: a long sbatch option such as --mem=0 is needed")
            if (name := option.split("=")[0]) in RESERVED:
                raise ValueError(f"{name} is set by mtpbench itself")
        return directives

    @field_validator("partition", "account", "qos", "reservation", "constraint", "gres", "directives")
    @classmethod
    def _one_line(cls, value: object) -> object:
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and any(ord(character) < 32 for character in text):
                raise ValueError(f"{text!r}: a directive is one line without control characters")
        return value


RESERVED = frozenset(
    (
        "--job-name",
        "--array",
        "--nodes",
        "--ntasks",
        "--ntasks-per-node",
        "--time",
        "--signal",
        "--requeue",
        "--no-requeue",
        "--open-mode",
        "--output",
        "--error",
        "--chdir",
        "--dependency",
        "--kill-on-invalid-dep",
        "--segment",
        "--wrap",
        "--parsable",
        "--wait",
        "--test-only",
        "--export",
    )
)
"""Options that mtpbench sets itself: by them a job is found, resumed and believed."""


def load_cluster(name: str) -> ClusterProfile:
    """Returns the profile of a cluster, by name or by path.

    Raises:
        InputError: there is none of that name (the known ones are listed), or something in it is wrong
            (file, line and key are named).
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) or "/" in name else FOLDER / f"{name}.yaml"
    if not path.is_file():
        names = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        choice = f"known in {FOLDER}: {', '.join(names)}" if names else f"{FOLDER} holds none"
        raise InputError(f"unknown cluster {name!r} ({path} is not there); {choice}, or give a path")
    return read_yaml(path).checked(ClusterProfile)
