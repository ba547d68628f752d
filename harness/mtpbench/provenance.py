"""The provenance of a result: enough to run it again, and no secrets."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import mtpbench
from mtpbench.engines import abouts
from mtpbench.engines.parts import Placement, resolve
from mtpbench.records import Deployment, Point, Provenance

REDACTED = "<redacted>"
_SECRET = re.compile(r"token|key|secret|passw|credential|auth", re.IGNORECASE)
_PREFIXES = ("CUDA", "NCCL", "UCX", "HF", "OMP", "SLURM", "NVIDIA")
"""Prefixes of variables that steer more than one engine; each engine's own stand in its module."""
_OWN_PACKAGES = ("aiohttp", "numpy", "pyarrow", "pydantic")


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A start names the executor, and what it started where (None on the virtual clock).

    `where` holds sentences beside the host's name: the Slurm job and its nodes. `driver` and `gpus` come from
    the power meter: the driver's version, and a text for each GPU.
    """

    executor: str
    deployment: Deployment | None = None
    placement: Placement | None = None
    where: tuple[str, ...] = ()
    driver: str | None = None
    gpus: tuple[str, ...] = ()


def collect(
    point: Point, started: Started, started_utc: str, finished_utc: str, notes: tuple[str, ...] = ()
) -> Provenance:
    """Returns the provenance of one point, with its start and end in ISO 8601."""
    revision, dirty = git_state()
    processes = [
        resolve(process, started.placement)
        for process in (started.deployment.processes if started.deployment else ())
        if started.placement
    ]
    own = {f"{p.name}:{name}": value for p in processes for name, value in p.env.items()}
    of_engines = (prefix for about in abouts() for prefix in about.environment)
    prefixes = tuple(f"{prefix}_" for prefix in (*_PREFIXES, *of_engines))
    outside = {name: value for name, value in os.environ.items() if name.startswith(prefixes)}
    return Provenance(
        started_utc=started_utc,
        finished_utc=finished_utc,
        harness_version=mtpbench.__version__,
        git_revision=revision,
        git_dirty=dirty,
        executor=started.executor,
        host=socket.gethostname(),
        python=platform.python_version(),
        packages=_versions(),
        engine_version=_engine_version(point),
        image=point.engine.image,
        driver=started.driver,
        gpus=started.gpus,
        command_lines={p.name: p.argv for p in processes},
        environment=redact({**outside, **own}),
        notes=(*started.where, *notes),
    )


def redact(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Returns the environment with every value whose name looks secret replaced."""
    return {name: REDACTED if looks_secret(name) else value for name, value in environment.items()}


def looks_secret(name: str) -> bool:
    """Returns whether a variable's name looks as if its value were a secret."""
    return _SECRET.search(name) is not None


@cache
def git_state() -> tuple[str | None, bool | None]:
    """Returns the revision of the harness's checkout and whether it was changed; (None, None) outside."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            completed = subprocess.run(
                ("git", *arguments),
                cwd=here,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return completed.stdout.strip() if completed.returncode == 0 else None

    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None, None
    changes = git("status", "--porcelain")
    return git("rev-parse", "HEAD"), None if changes is None else bool(changes)


def _engine_version(point: Point) -> str | None:
    if point.simulation:
        return f"mtpbench {mtpbench.__version__} embedded engine, profile {point.simulation.profile}"
    return point.engine.version


def _packages() -> tuple[str, ...]:
    engines = dict.fromkeys(about.package for about in abouts() if about.package is not None)
    return (*_OWN_PACKAGES, *engines, "torch")


def _versions() -> Mapping[str, str]:
    versions = {name: _version(name) for name in _packages()}
    return {name: version for name, version in versions.items() if version is not None}


@cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
