"""Dynamo's mocker: `python -m dynamo.mocker`, one per worker, behind Dynamo's frontend; no model, no GPU.

The mocker plays an engine's scheduler and step times by its own formulas; of a layout it knows only the
data-parallel ranks. Its numbers say nothing about any hardware. All workers run on one node.
Source: ai-dynamo 1.4.2 and 1.6.1, run on a CPU; docs: `python -m dynamo.mocker --help`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from mtpbench.engines import dynamo
from mtpbench.engines.about import About, Release, Renaming, spelled
from mtpbench.engines.declared import declared
from mtpbench.engines.parts import (
    PlacedWorker,
    as_argv,
    assemble,
    container_of,
    env_of_role,
    merged,
    of_role,
    place,
    whole,
)
from mtpbench.errors import UnsupportedError
from mtpbench.records import (
    Deployment,
    EngineLimits,
    Flags,
    Hardware,
    Method,
    Point,
    Probe,
    Process,
    WorkerRole,
)

ABOUT = About(
    title="dynamo",
    package="ai-dynamo",
    modules=("dynamo",),
    extra="dynamo",
    programs=("dynamo.mocker",),
    environment=("DYN",),
    kept=(
        *("DYN_DISCOVERY_BACKEND", "DYN_EVENT_PLANE", "DYN_FILE_KV", "DYN_LOG", "DYN_NAMESPACE"),
        *("DYN_REQUEST_PLANE", "DYN_STORE_KV"),
    ),
    speculation=("nextn",),
    simulates=True,
    releases={
        "1.4.0": "2026-08-15",
        "1.4.1": "2026-08-22",
        "1.4.2": "2026-08-28",
        "1.5.0": "2026-09-19",
        "1.5.1": "2026-10-07",
        "1.6.0": "2026-10-22",
        "1.6.1": "2026-10-27",
    },
    # 1.6.1 accepts the old names too, without a warning, but not an old and a new one of the same option.
    renamings=tuple(
        Renaming(old=f"aic-{name}", new=f"ais-{name}", since="1.6.0")
        for name in (
            *("nextn", "nextn-accept-rates", "mtp-seed", "perf-model", "system", "backend"),
            *("backend-version", "tp-size", "moe-tp-size", "moe-ep-size", "attention-dp-size"),
        )
    ),
)
RESET_PATH: str | None = None
METHODS: tuple[Method, ...] = ("mtp",)
MAX_DRAFTS = 5
USUAL_COMMAND = ("python3", "-m", "dynamo.mocker")


def check(point: Point, hardware: Hardware) -> None:
    """Raises an error for another router than Dynamo's, for too many drafts, and for lengths without rates.

    Raises:
        UnsupportedError: says what, and what would be right.
    """
    if point.engine.router != "dynamo":
        raise UnsupportedError(
            f"mocker workers answer through Dynamo's frontend only: set `engine.router: dynamo`, "
            f"not {point.engine.router!r}"
        )
    place(point.topology, hardware.gpus_per_node)
    lacks = ("draft_sampling", "rejection_method", "depth")
    declared(point, METHODS, lacks, starts=("ais-nextn", "aic-nextn"))
    speculation_flags(point, "decode")


def conditional_rates(rates: Sequence[float]) -> tuple[float, ...]:
    """Returns the acceptance rate of each draft when all before it were accepted, from unconditional rates.

    A position that is never reached gets 0.
    """
    before = (1.0, *rates)
    return tuple(rate / earlier if earlier else 0.0 for earlier, rate in zip(before, rates, strict=False))


def speculation_flags(point: Point, role: WorkerRole) -> Flags:
    """Returns what MTP adds to workers that decode: drafts and conditional rates; only drafts if `measured`.

    Raises:
        UnsupportedError: more drafts than it plays, or not one rate for each.
    """
    speculation = point.arm.speculation
    if speculation is None or role == "prefill":
        return {}
    drafts, policy = speculation.draft_tokens, speculation.acceptance
    if drafts > MAX_DRAFTS:
        raise UnsupportedError(
            f"arm {point.arm.name}: the mocker plays 1 … {MAX_DRAFTS} draft tokens, not {drafts}"
        )
    if policy.mode == "measured":
        return {"ais-nextn": drafts}
    # The mocker accepts any number of rates without an error.
    if policy.rates is None or len(policy.rates) != drafts:
        raise UnsupportedError(
            f"arm {point.arm.name}: the mocker pins acceptance by {drafts} rates (one per draft token), "
            "not by a length; use `acceptance: golden` or give `rates`"
        )
    accept_rates = (f"{rate:.6g}" for rate in conditional_rates(policy.rates))
    return {"ais-nextn": drafts, "ais-nextn-accept-rates": ",".join(accept_rates)}


def limits(point: Point) -> Mapping[WorkerRole, EngineLimits]:
    """Returns the limits; they are per data-parallel rank, 256 sequences and 8192 tokens by default."""
    by_role: dict[WorkerRole, EngineLimits] = {}
    for group in point.topology.groups:
        flags = of_role(point, group.role)
        by_role[group.role] = EngineLimits(
            max_running=whole(flags, "max-num-seqs", 256) * group.dp,
            prefill_chunk_tokens=whole(flags, "max-num-batched-tokens", 8192) * group.dp,
        )
    return by_role


def counters(metrics_text: str) -> None:
    """Returns None: the mocker drafts and accepts, but counts neither, so that acceptance stays unknown."""
    del metrics_text


def release(point: Point) -> Release:
    """Returns the release of Dynamo that the point's command lines are written for."""
    return dynamo.written_for(point, ABOUT)


def deploy(point: Point, hardware: Hardware) -> Deployment:
    """Returns Dynamo's frontend, and one process per worker; none of them holds a GPU."""
    check(point, hardware)
    workers = place(point.topology, hardware.gpus_per_node)
    return assemble(
        point, (_frontend(point), *(_worker(point, i, worker) for i, worker in enumerate(workers))), 1
    )


def _frontend(point: Point) -> Process:
    front = dynamo.frontend(point)
    # Without this variable the frontend listens on every interface.
    return dataclasses.replace(front, env={**front.env, "DYN_HTTP_HOST": f"@{{host:{front.name}}}"})


def _worker(point: Point, index: int, worker: PlacedWorker) -> Process:
    name, group = worker.name, worker.group
    flags = merged(
        {"model-path": point.checkpoint, "model-name": point.model.served_name},
        # Workers in processes of their own would all accept the same drafts otherwise.
        {"ais-mtp-seed": index},
        {"data-parallel-size": group.dp} if group.dp > 1 else {},
        {"disaggregation-mode": worker.role} if worker.role != "aggregated" else {},
        of_role(point, worker.role, ABOUT.renamings),
        speculation_flags(point, worker.role),
    )
    flags = spelled(flags, ABOUT.renamings, release(point))
    host = f"@{{host:{name}}}"
    return Process(
        name=name,
        role=worker.role,
        argv=(*(point.engine.command or USUAL_COMMAND), *as_argv(flags)),
        env={
            **dynamo.environment(),
            "DYN_SYSTEM_HOST": host,
            "DYN_SYSTEM_PORT": f"@{{port:{name}/http}}",
            # `/health` answers 503 for ever without this variable.
            "DYN_SYSTEM_USE_ENDPOINT_HEALTH_STATUS": '["generate"]',
            "DYN_TCP_RPC_HOST": host,
            **env_of_role(point, worker.role),
        },
        ports=("http",),
        ready=Probe(port="http", path="/health"),
        metrics=("http", "/metrics"),
        container=container_of(point),
    )
