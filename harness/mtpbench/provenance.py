"""The provenance of a result: enough to run it again, and no secrets."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

import mtpbench
from mtpbench.engines import abouts
from mtpbench.engines.parts import Placement, resolve
from mtpbench.records import Deployment, Point, Process, Provenance, to_json
from mtpbench.redaction import REDACTED, Secrets, looks_secret, unfilled, variables_in
from mtpbench.store import RawPoint

Texts = npt.NDArray[np.object_]
_PREFIXES = ("CUDA", "NCCL", "UCX", "HF", "OMP", "SLURM", "NVIDIA")
"""Prefixes of variables that steer more than one engine; each engine's own stand in its module. Their names
are kept; their values only where they stand below or in the engine's module, or are numbers and switches."""
_KEPT_NAMES = """
    CUDA_CACHE_PATH CUDA_DEVICE_ORDER CUDA_HOME CUDA_MODULE_LOADING CUDA_PATH CUDA_VERSION
    CUDA_VISIBLE_DEVICES HF_DATASETS_CACHE HF_ENDPOINT HF_HOME HF_HUB_CACHE NCCL_ALGO NCCL_CONF_FILE
    NCCL_DEBUG NCCL_DEBUG_SUBSYS NCCL_IB_HCA NCCL_NET NCCL_NET_GDR_LEVEL NCCL_NET_PLUGIN NCCL_P2P_LEVEL
    NCCL_PROTO NCCL_SOCKET_FAMILY NCCL_SOCKET_IFNAME NCCL_TOPO_FILE NCCL_TUNER_PLUGIN NCCL_VERSION
    NVIDIA_DRIVER_CAPABILITIES NVIDIA_VISIBLE_DEVICES OMP_NUM_THREADS OMP_PLACES OMP_PROC_BIND
    OMP_SCHEDULE SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_CLUSTER_NAME SLURM_CPUS_ON_NODE
    SLURM_CPU_BIND SLURM_GPUS_ON_NODE SLURM_GPUS_PER_NODE SLURM_JOBID SLURM_JOB_ACCOUNT
    SLURM_JOB_CPUS_PER_NODE SLURM_JOB_GPUS SLURM_JOB_ID SLURM_JOB_NAME SLURM_JOB_NODELIST
    SLURM_JOB_NUM_NODES SLURM_JOB_PARTITION SLURM_JOB_QOS SLURM_JOB_RESERVATION SLURM_MEM_PER_NODE
    SLURM_NNODES SLURM_NODELIST SLURM_NTASKS SLURM_RESTART_COUNT SLURM_SUBMIT_DIR SLURM_SUBMIT_HOST
    SLURM_TASKS_PER_NODE SLURM_TOPOLOGY_ADDR UCX_MEMTYPE_CACHE UCX_NET_DEVICES UCX_RNDV_SCHEME
    UCX_RNDV_THRESH UCX_TLS
"""
_KEPT = frozenset(_KEPT_NAMES.split())
_SWITCH = re.compile(r"[-+]?\d{1,9}(\.\d{1,6})?|true|false|yes|no|on|off|", re.IGNORECASE)
_OWN_PACKAGES = ("aiohttp", "numpy", "pyarrow", "pydantic")


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A start names the executor, and what it started where (None on the virtual clock).

    `where` holds sentences beside the host's name: the Slurm job and its nodes. `driver` and `gpus` come from
    the power meter: the driver's version, and a text for each GPU. `server_start` is from `new_server_start`;
    None where no server started.
    """

    executor: str
    server_start: str | None = None
    deployment: Deployment | None = None
    placement: Placement | None = None
    where: tuple[str, ...] = ()
    driver: str | None = None
    gpus: tuple[str, ...] = ()


def new_server_start() -> str:
    """Returns the id of a start of servers that is about to be made; no other start has it, anywhere."""
    return uuid.uuid4().hex[:12]


def collect(
    point: Point, started: Started, started_utc: str, finished_utc: str, notes: tuple[str, ...] = ()
) -> Provenance:
    """Returns the provenance of one point, with its start and end in ISO 8601."""
    revision, dirty = git_state()
    secrets = Secrets.of(point, os.environ)
    processes = _unfilled_processes(started)
    own = {f"{p.name}:{name}": _own(name, value, secrets) for p in processes for name, value in p.env.items()}
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
        command_lines={p.name: tuple(map(secrets.hide, p.argv)) for p in processes},
        environment={**kept(os.environ, secrets), **own},
        notes=tuple(map(secrets.hide, (*started.where, *notes))),
        server_start=started.server_start,
    )


def kept(environment: Mapping[str, str], secrets: Secrets) -> Mapping[str, str]:
    """Returns the variables that steer an engine; a value that nobody has put on a list is not kept."""
    engines = abouts()
    prefixes = tuple(
        f"{name}_" for name in (*_PREFIXES, *(p for about in engines for p in about.environment))
    )
    known = _KEPT.union(*(about.kept for about in engines))
    return {
        name: secrets.hide(value) if _may_be_kept(name, value, known) else REDACTED
        for name, value in environment.items()
        if name.startswith(prefixes)
    }


def _may_be_kept(name: str, value: str, known: frozenset[str]) -> bool:
    return name in known or (not looks_secret(name) and _SWITCH.fullmatch(value) is not None)


def _unfilled_processes(started: Started) -> Sequence[Process]:
    """Returns the processes as they were started, but with `@{env:NAME}` as the sweep has it."""
    if started.deployment is None or started.placement is None:
        return ()
    variables = unfilled(variables_in(to_json(started.deployment.processes)))
    placement = replace(started.placement, environment=variables)
    return [resolve(process, placement) for process in started.deployment.processes]


def _own(name: str, value: str, secrets: Secrets) -> str:
    """Returns the value of a variable that the sweep sets: a secret stands there as `@{env:NAME}` alone."""
    hidden = secrets.hide(value)
    return hidden if not looks_secret(name) or variables_in(value) else REDACTED


def bare_secrets(deployment: Deployment) -> str | None:
    """Returns a sentence on a command line that holds a secret, which every user can list; None without."""
    for process in deployment.processes:
        for before, argument in pairwise(("", *process.argv)):
            names = [name for name in variables_in(argument) if looks_secret(name)]
            names += variables_in(argument) if before.startswith("-") and looks_secret(before) else ()
            if names:
                return (
                    f"the value of {names[0]} stands in the command line of {process.name}, which every user "
                    "of the node can list; give it in engine.env where the server reads it from there"
                )
    return None


def without_secrets(raw: RawPoint, secrets: Secrets) -> RawPoint:
    """Returns the raw records of a point whose texts hold no secret; servers and commands repeat them."""
    facts, hide = raw.facts, secrets.hide

    def maybe(text: str | None) -> str | None:
        return None if text is None else hide(text)

    answers = replace(
        facts.answers, texts=tuple(map(hide, facts.answers.texts)), reason=maybe(facts.answers.reason)
    )
    evaluation = facts.evaluation and replace(facts.evaluation, reason=maybe(facts.evaluation.reason))
    power_reason = facts.power_reason and replace(facts.power_reason, detail=hide(facts.power_reason.detail))
    requests = raw.requests
    return replace(
        raw,
        requests=replace(
            requests,
            finish_reason=_hidden(requests.finish_reason, secrets),
            error_detail=_hidden(requests.error_detail, secrets),
        ),
        counters=tuple(replace(sample, reason=maybe(sample.reason)) for sample in raw.counters),
        facts=replace(
            facts,
            start_failed=maybe(facts.start_failed),
            server_died=maybe(facts.server_died),
            client_failed=maybe(facts.client_failed),
            power_reason=power_reason,
            answers=answers,
            evaluation=evaluation,
            notes=tuple(map(hide, facts.notes)),
        ),
    )


def _hidden(column: Texts, secrets: Secrets) -> Texts:
    """Returns a column of texts without secrets; equal texts are looked at once."""
    hidden = {text: secrets.hide(text) for text in {*column} if text is not None}
    return np.array([None if text is None else hidden[text] for text in column], np.object_)


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
