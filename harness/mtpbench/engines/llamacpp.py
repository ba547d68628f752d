"""llama.cpp's server: `llama-server --model FILE.gguf`, one process that holds the whole model.

Source: the server built from llama-cpp-python 0.3.36, run on a CPU; docs: `llama-server --help`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mtpbench.engines.about import About
from mtpbench.engines.declared import declared, misfit
from mtpbench.engines.parts import (
    as_argv,
    assemble,
    env_of_role,
    merged,
    node_count,
    of_role,
    place,
    spec_counters,
    whole,
)
from mtpbench.errors import UnsupportedError
from mtpbench.records import (
    Container,
    Deployment,
    EngineLimits,
    Flags,
    Hardware,
    Method,
    Point,
    Probe,
    Process,
    SpecCounters,
    Speculation,
    WorkerRole,
)

ABOUT = About(
    title="llama.cpp",
    programs=("llama-server",),
    deaths={
        "bad_flag": r"invalid argument:",
        "bad_speculation": r"synthetic acceptance length must be",
        "out_of_memory": r"failed to allocate buffer",
        "port_in_use": r"couldn't bind",
        "model_missing": r"failed to open GGUF file",
    },
)
RESET_PATH: str | None = None
"""The server empties its cache only slot by slot, and only where slots may be saved to disk."""

AUTOMATIC_SLOTS = 4
"""Sequences that run at once where the sweep does not set `parallel`."""


def check(point: Point, hardware: Hardware) -> None:
    """Raises an error for all but one aggregated worker on one GPU (TP1), and for a router."""
    del hardware
    if point.engine.router is not None:
        raise UnsupportedError(f"llamacpp has no router; leave out `engine.router: {point.engine.router}`")
    group = point.topology.groups[0]
    if point.topology.disaggregated or group.workers > 1:
        raise UnsupportedError(
            f"llamacpp is one process that prefills and decodes: {point.topology.name} needs to be 1xTP1"
        )
    if group.gpus_per_worker > 1 or group.ep > 1:
        raise UnsupportedError(
            "llamacpp spreads layers, not tensors or experts, over GPUs: "
            f"{point.topology.name} needs to be 1xTP1"
        )
    _check_speculation(point)


KINDS: Mapping[Method, str] = {
    "mtp": "draft-mtp",
    "dspark": "draft-dspark",
    "eagle3": "draft-eagle3",
    "draft_model": "draft-simple",
    "ngram": "ngram-simple",
}
MATCHED, MATCHED_TOKENS = "spec-ngram-simple-size-n", 12
"""The option for the tokens that n-grams are matched by, and llama.cpp's own number. It drafts nothing (no
warning) where that is more than the draft's tokens, which are 48 by default (common/ngram-map.cpp)."""


def _check_speculation(point: Point) -> None:
    speculation = declared(
        point,
        tuple(KINDS),
        ("draft_sampling", "rejection_method", "depth"),
        starts=("spec-type", "spec-default"),
    )
    if speculation is None:
        return
    if speculation.method == "dspark" and speculation.draft_model is None:
        raise misfit(point, "llamacpp drafts from a GGUF file of its own; give it as `draft_model`")
    if speculation.method == "ngram" and _matched_tokens(point, speculation) > speculation.draft_tokens:
        raise misfit(
            point,
            f"llamacpp drafts nothing after a match that is longer than the draft: {MATCHED} "
            f"{_matched_tokens(point, speculation)} is more than `draft_tokens` {speculation.draft_tokens}",
        )


def _matched_tokens(point: Point, speculation: Speculation) -> int:
    """Returns the tokens that must stand in the text before for n-grams to be drafted."""
    return whole(of_role(point, "aggregated"), MATCHED, min(MATCHED_TOKENS, speculation.draft_tokens))


def speculation_flags(point: Point, role: WorkerRole) -> Flags:
    """Returns what speculation adds: how drafts are made, how many, and the acceptance where it is pinned."""
    del role
    speculation = point.arm.speculation
    if speculation is None:
        return {}
    drafts, policy = speculation.draft_tokens, speculation.acceptance
    flags: dict[str, Any] = {"spec-type": KINDS[speculation.method], "spec-draft-n-max": drafts}
    if speculation.draft_model is not None:
        flags["spec-draft-model"] = speculation.draft_model
    if speculation.method == "ngram":
        # N-grams have a length of their own, which is 48 by default.
        flags |= {"spec-ngram-simple-size-m": drafts, MATCHED: _matched_tokens(point, speculation)}
    if policy.mode == "measured":
        return flags
    if policy.pinned_by == "sweep" and policy.rates is not None:
        return {**flags, "spec-synth-rates": ",".join(f"{rate:g}" for rate in policy.rates)}
    return {**flags, "spec-synth-len": policy.length}


def limits(point: Point) -> Mapping[WorkerRole, EngineLimits]:
    """Returns the limits: slots are sequences; a step takes at most a logical batch of prompt tokens."""
    flags = of_role(point, "aggregated")
    return {
        "aggregated": EngineLimits(
            max_running=whole(flags, "parallel", AUTOMATIC_SLOTS),
            prefill_chunk_tokens=whole(flags, "batch-size", 2048),
        )
    }


def counters(metrics_text: str) -> SpecCounters | None:
    """Returns the four `llamacpp:spec_decode_*` counters; None when speculation is off."""
    return spec_counters(metrics_text, "llamacpp:")


def deploy(point: Point, hardware: Hardware) -> Deployment:
    """Returns a deployment of one process."""
    check(point, hardware)
    workers = place(point.topology, hardware.gpus_per_node)
    name, share = workers[0].head, workers[0].shares[0]
    flags = merged(
        {"model": point.checkpoint, "alias": point.model.served_name, "metrics": True},
        of_role(point, "aggregated"),
        speculation_flags(point, "aggregated"),
        {"host": f"@{{host:{name}}}", "port": f"@{{port:{name}/http}}"},
    )
    process = Process(
        name=name,
        role="aggregated",
        argv=(*(point.engine.command or ("llama-server",)), *as_argv(flags)),
        env=env_of_role(point, "aggregated"),
        node=share.node,
        gpus=share.gpus,
        ports=("http",),
        ready=Probe(port="http", path="/health", model=point.model.served_name),
        metrics=("http", "/metrics"),
        container=Container(image=point.engine.image) if point.engine.image else None,
    )
    deployment = assemble(point, (process,), node_count(workers))
    # The server announces keep-alive and closes after every stream: each second request would fail.
    return dataclasses.replace(deployment, keeps_connections=False)
