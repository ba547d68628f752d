"""The profile of a cluster, which its owner writes (`slurm/clusters/NAME.yaml`), and its batch scripts.

Nothing of a YAML, a path or a name reaches the shell unquoted, nor a directive in which sbatch would read
anything else than it.
"""

from __future__ import annotations

import os
import re
import reprlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from mtpbench.errors import InputError
from mtpbench.yaml_files import OneLine, Strict, Variable, read_yaml

FOLDER = Path("slurm/clusters")
_LIMIT = re.compile(r"(?:([0-9]{1,4})-)?([0-9]{1,6})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?")
_FORMS = "MINUTES, M:SS, H:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS, as Slurm reads them"
LONGEST_S = 366 * 86_400


def seconds_of(value: object) -> int:
    """Returns the seconds of a time limit that is given in one of Slurm's forms: `240` is minutes.

    Raises:
        ValueError: it has none of these forms.

    Source: sbatch(1), --time.
    """
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise ValueError(f"{reprlib.repr(value)} is no time limit; give {_FORMS}")
    days, *rest = (None if part is None else int(part) for part in match.groups())
    first, second, third = rest
    if any(part is not None and part > 59 for part in (second, third)):
        raise ValueError(f"{text}: after the first number minutes and seconds are below 60; give {_FORMS}")
    if days is not None:
        return ((days * 24 + (first or 0)) * 60 + (second or 0)) * 60 + (third or 0)
    if third is not None:
        return ((first or 0) * 60 + (second or 0)) * 60 + third
    return (first or 0) * 60 + (second or 0)


def clock(seconds: int) -> str:
    """Returns seconds in Slurm's form of a limit: `D-HH:MM:SS`."""
    days, rest = divmod(seconds, 86_400)
    return f"{days}-{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"


class ContainerSpec(Strict):
    """The container settings say how engine processes get into their image (pyxis, enroot).

    The harness itself runs without a container.
    """

    image: OneLine | None = Field(None, description="a .sqsh or an enroot name; left out: the sweep's")
    mounts: list[OneLine] = Field(
        default_factory=list, description="SOURCE:TARGET pairs for --container-mounts"
    )
    flags: list[OneLine] = Field(default_factory=list, description="further --container-… flags of pyxis")

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

    partition: OneLine | None = Field(None, description="left out: the cluster's default")
    account: OneLine | None = None
    qos: OneLine | None = None
    reservation: OneLine | None = None
    constraint: OneLine | None = None
    # A job file keeps it in the form that the cluster's file has it in: a number would be minutes.
    time_limit_s: Annotated[int, BeforeValidator(seconds_of), PlainSerializer(clock, str, "json")] = Field(
        alias="time_limit", ge=60, le=LONGEST_S, description=f"of each job: {_FORMS}"
    )
    gpus_per_node: int | None = Field(None, ge=1, le=1024, description="left out: the hardware's")
    gres: OneLine | None = Field("gpu", description="what GPUs are to Slurm, such as gpu:gb200; null: none")
    segment_nodes: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="nodes of one NVLink domain; a job then asks for one segment (Slurm 24.05 on)",
    )
    max_running: int | None = Field(None, ge=1, le=100_000, description="most jobs of one array at a time")
    requeue: bool = Field(True, description="let Slurm start a job again after a node failed")
    warn_s: int = Field(
        120, ge=10, le=65_535, description="seconds before the limit at which a point is closed"
    )
    container: ContainerSpec | None = None
    python: OneLine | None = Field(None, description="Python with mtpbench on the nodes; left out: this one")
    environment: dict[Variable, OneLine] = Field(
        default_factory=dict, description="set in every job: model paths"
    )
    pre_commands: list[list[OneLine]] = Field(
        default_factory=list, description="run in the job first, as lists of words: [module, load, cuda]"
    )
    directives: list[OneLine] = Field(
        default_factory=list, description="more sbatch options: --exclusive, --mem=0"
    )
    client_nodes: int = Field(0, ge=0, le=1000, description="more nodes of a job, which only drive load")
    mpi: OneLine = Field("pmix", description="Slurm's MPI plugin for engines of several MPI tasks")
    network_interface: OneLine | None = Field(None, description="whose addresses are used; left out: Slurm's")

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
            # The beginning of an option's name is that option to sbatch.
            if any(reserved.startswith(name := option.split("=")[0]) for reserved in RESERVED):
                raise ValueError(f"{name} is set by mtpbench itself, or would change what sbatch does")
        return directives

    @model_validator(mode="after")
    def _warned_in_time(self) -> ClusterProfile:
        if self.warn_s >= self.time_limit_s:
            raise ValueError(
                f"time_limit is {self.time_limit_s} s, and a job is warned {self.warn_s} s (warn_s) before "
                "its end, so at once; give a longer time_limit (a bare number is minutes) or a smaller warn_s"
            )
        return self


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
        "--export-file",
        "--clusters",
        "--help",
        "--usage",
        "--version",
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
    if not os.path.lexists(path):
        names = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        choice = f"known in {FOLDER}: {', '.join(names)}" if names else f"{FOLDER} holds none"
        raise InputError(f"unknown cluster {name!r} ({path} is not there); {choice}, or give a path")
    return read_yaml(path).checked(ClusterProfile)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchJob:
    """A batch job is one `sbatch`: a job, or an array of jobs that need the same nodes.

    Args:
        name: unique among all jobs of the user, so that a job whose id was lost can be found by it.
        nodes: the nodes of each job.
        gpus_per_node: GPUs that a job needs on each node; 0 for none.
        log: where standard output goes; `%A` and `%a` are Slurm's.
        python: the Python that runs the harness.
        commands: arguments of `python -m mtpbench`, one list for each job of the array.
        after: job ids that must have ended first, in whatever way.
        time_limit_s: None for the profile's.
    """

    name: str
    nodes: int
    gpus_per_node: int
    log: str
    python: str
    commands: tuple[tuple[str, ...], ...]
    after: tuple[str, ...] = ()
    time_limit_s: int | None = None


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNWRITABLE = re.compile(r"[\x00\ud800-\udfff]")
_OPTIONAL = ("partition", "account", "qos", "reservation", "constraint")


def batch_text(profile: ClusterProfile, job: BatchJob) -> str:
    """Returns the batch script; everything from YAML or a path that a shell reads is quoted.

    Raises:
        InputError: a name or a path can't be written in a directive or in a script.
    """
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH {_checked(option)}" for option in _options(profile, job)]
    lines += ["set -euo pipefail"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in profile.environment.items()]
    lines += [_shell_line(command) for command in profile.pre_commands]
    if len(job.commands) == 1:
        lines.append(f"exec {_shell_line((job.python, '-m', 'mtpbench', *job.commands[0]))}")
    else:
        lines.append('case "$SLURM_ARRAY_TASK_ID" in')
        lines += [
            f"{index}) exec {_shell_line((job.python, '-m', 'mtpbench', *command))} ;;"
            for index, command in enumerate(job.commands)
        ]
        lines.append("esac")
    text = "\n".join(lines) + "\n"
    if unwritable := _UNWRITABLE.search(text):
        raise InputError(
            f"{text[: unwritable.end()].splitlines()[-1]!r}: a batch script holds text in UTF-8 without NUL; "
            "choose another --results folder"
        )
    return text


def _options(profile: ClusterProfile, job: BatchJob) -> list[str]:
    options = [f"--job-name={_quoted(job.name)}"]
    if len(job.commands) > 1:
        throttle = f"%{profile.max_running}" if profile.max_running else ""
        options.append(f"--array=0-{len(job.commands) - 1}{throttle}")
    values = {name: getattr(profile, name) for name in _OPTIONAL}
    options += [f"--{name}={_quoted(value)}" for name, value in values.items() if value is not None]
    options += [f"--nodes={job.nodes}", "--ntasks-per-node=1"]
    if profile.gres is not None and job.gpus_per_node:
        options.append(f"--gres={_quoted(profile.gres)}:{job.gpus_per_node}")
    if profile.segment_nodes is not None and job.nodes > 1:
        # One segment: all nodes of the job in one NVLink domain.
        options.append(f"--segment={job.nodes}")
    options += [
        f"--time={clock(job.time_limit_s or profile.time_limit_s)}",
        f"--output={_quoted(job.log)}",
        "--open-mode=append",
        "--requeue" if profile.requeue else "--no-requeue",
        f"--signal=B:TERM@{profile.warn_s}",
    ]
    if job.after:
        options += [f"--dependency=afterany:{':'.join(job.after)}", "--kill-on-invalid-dep=yes"]
    return [*options, *(_directive(option) for option in profile.directives)]


def _directive(option: str) -> str:
    name, equals, value = option.partition("=")
    return f"{name}={_quoted(value)}" if equals else name


def _checked(option: str) -> str:
    """Returns a directive as it is.

    Raises:
        InputError: sbatch would read something else.
    """
    if _CONTROL.search(option):
        raise InputError(
            f"{option!r} can't stand in a batch script: a directive is one line without control characters; "
            "choose another name, or another --results folder"
        )
    return option


def _quoted(value: str) -> str:
    """Returns a value as sbatch reads it in a directive: in double quotes if it has special characters."""
    if value.isascii() and all(character.isalnum() or character in "._-+:,/@%=&|*[]" for character in value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _shell_line(argv: Sequence[str]) -> str:
    return " ".join(shlex.quote(argument) for argument in argv)
