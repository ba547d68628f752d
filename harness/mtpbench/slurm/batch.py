"""Pure: the text of a batch script, from a cluster's profile and what is to run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from mtpbench.slurm.cluster import ClusterProfile


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchJob:
    """One `sbatch`: a job, or an array of jobs that need the same nodes.

    Args:
        name: unique among all jobs of the user: a lost answer of sbatch is found again by it.
        nodes: of each job.
        gpus_per_node: GPUs that a job needs on each node; 0 for none.
        log: where standard output goes; `%A` and `%a` are Slurm's.
        python: the Python that runs the harness.
        commands: arguments of `python -m mtpbench`, one list for each job of the array.
        after: job ids that must have ended first, whatever came of them.
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


_WISHES = ("partition", "account", "qos", "reservation", "constraint")


def batch_text(profile: ClusterProfile, job: BatchJob) -> str:
    """The script. Every word of a YAML or a path that a shell reads is quoted."""
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH {option}" for option in _options(profile, job)]
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
    return "\n".join(lines) + "\n"


def clock(seconds: int) -> str:
    """Seconds as Slurm writes limits: `D-HH:MM:SS`."""
    days, rest = divmod(seconds, 86_400)
    return f"{days}-{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"


def _options(profile: ClusterProfile, job: BatchJob) -> list[str]:
    options = [f"--job-name={job.name}"]
    if len(job.commands) > 1:
        throttle = f"%{profile.max_running}" if profile.max_running else ""
        options.append(f"--array=0-{len(job.commands) - 1}{throttle}")
    wishes = {name: getattr(profile, name) for name in _WISHES}
    options += [f"--{name}={_quoted(value)}" for name, value in wishes.items() if value is not None]
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


def _quoted(value: str) -> str:
    """A value as sbatch reads its directives: in double quotes where it holds more than plain characters."""
    if all(character.isalnum() or character in "._-+:,/@%=&|*[]" for character in value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _shell_line(argv: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in argv)
