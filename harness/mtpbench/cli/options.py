"""The arguments and options that several commands share: the sweep, the points, the site of servers."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from mtpbench.deployment import Site
from mtpbench.errors import InputError
from mtpbench.executors.local import LocalSite
from mtpbench.executors.ports import choose_port
from mtpbench.records import Point
from mtpbench.slurm.allocation import allocation_here
from mtpbench.slurm.cluster_profile import load_cluster
from mtpbench.slurm.executor import SlurmSite
from mtpbench.slurm.job_steps import StepOptions

RESULTS = Path("results")
INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended."""

SweepArgument = Annotated[Path, typer.Argument(help="a sweep file")]
ResultsOption = Annotated[Path, typer.Option("--results", help="the results folder")]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", help="only points whose id contains this, or matches it as a pattern; repeatable"),
]
AgainOption = Annotated[bool, typer.Option(help="measure points that are valid already again")]


def select(points: tuple[Point, ...], patterns: list[str] | tuple[str, ...]) -> tuple[Point, ...]:
    """Returns the points whose id contains a pattern or matches it; all if there are no patterns.

    Raises:
        InputError: a pattern matches no point; the message shows some ids.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        ids = {p.id for p in points if _matches(p.id, pattern)}
        ids = ids or {p.id for p in points if pattern in p.id}
        if not ids:
            examples = "\n  ".join(p.id for p in points[:5])
            raise InputError(f"--only {pattern!r} matches no point; ids look like\n  {examples}")
        chosen |= ids
    return tuple(point for point in points if not patterns or point.id in chosen)


def _matches(point_id: str, pattern: str) -> bool:
    """Whether a pattern matches whole parts of an id: `c1` is not c16, `mtp*c64` matches any repeat."""
    return f"_{pattern}_" in f"_{point_id}_" or any(
        fnmatchcase(point_id, form) for form in (pattern, f"{pattern}_*")
    )


def site_of(executor: str, cluster: str | None, port: int | None) -> Site:
    """Returns the site that runs the servers.

    Raises:
        InputError: the executor is unknown, or `slurm` is asked for outside an allocation.
        PortInUse: the port is taken.
    """
    if executor == "local":
        if cluster is not None:
            raise InputError("--cluster is for --executor slurm; the local executor needs none")
        if port is not None:
            choose_port(port)
        return LocalSite(port)
    if executor == "slurm":
        profile = load_cluster(cluster) if cluster is not None else None
        return SlurmSite(allocation_here(os.environ), StepOptions.of(profile), port)
    raise InputError(f"unknown executor {executor!r}; known: local, slurm")
