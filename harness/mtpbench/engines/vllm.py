"""vLLM: `vllm serve`, or `python -m dynamo.vllm` behind Dynamo's frontend.

Source: the parsers and checks of vLLM 0.25 to 0.33 (`make test-parsers`), its server on a CPU, also
as two "nodes" behind Dynamo, and the public GB200 recipes (read, not run).
"""

from __future__ import annotations

from collections.abc import Mapping

from mtpbench.engines import dynamo, releases
from mtpbench.engines.about import About, Release, renamed, spelled
from mtpbench.engines.parts import (
    PlacedWorker,
    Share,
    as_argv,
    assemble,
    container_of,
    env_of_role,
    merged,
    node_count,
    of_role,
    place,
    spec_counters,
    whole,
)
from mtpbench.engines.vllm_speculation import (
    check_speculation,
    speculation_env,
    speculation_flags,
    step_room,
)
from mtpbench.errors import UnsupportedError
from mtpbench.records import (
    Deployment,
    EngineLimits,
    Flags,
    Hardware,
    Point,
    Probe,
    Process,
    SpecCounters,
    WorkerRole,
)

ABOUT = About(
    title="vllm",
    package="vllm",
    modules=("vllm",),
    extra="vllm",
    programs=("vllm",),
    environment=("VLLM",),
    kept=(
        *("VLLM_ALL2ALL_BACKEND", "VLLM_ATTENTION_BACKEND", "VLLM_CACHE_ROOT", "VLLM_FLASHINFER_MOE_BACKEND"),
        *("VLLM_HOST_IP", "VLLM_KV_CACHE_LAYOUT", "VLLM_LOGGING_LEVEL", "VLLM_NIXL_SIDE_CHANNEL_HOST"),
        *("VLLM_TARGET_DEVICE", "VLLM_WORKER_MULTIPROC_METHOD"),
    ),
    deaths={
        "model_without_mtp": r"Unsupported speculative method: 'mtp'",
        "contradicting_options": r"must not use --headless in external or hybrid dp lb mode",
        "bad_speculation": r"synthetic_acceptance_\w+ must be|validation error for SpeculativeConfig",
        "out_of_memory": r"is less than (?:requested|desired)|No available memory for the cache blocks",
        "engine_core_dead": r"EngineDeadError|EngineCore encountered an issue"
        r"|Engine core initialization failed",
    },
    releases=releases.VLLM,
    renamings=(
        renamed(
            "attention-config.use_fp4_indexer_cache",
            "attention-config.indexer_kv_dtype",
            since="0.28.0",
            removed="0.30.0",
            values={True: "mxfp4"},
        ),
        *(
            renamed(gone, None, since="0.31.0", removed="0.31.0")
            for gone in (
                "calculate-kv-scales",
                "max-long-partial-prefills",
                "max-num-partial-prefills",
                "override-attention-dtype",
                "attention-config.use_prefill_decode_attention",
            )
        ),
        *(renamed(idle, None, since="0.33.0") for idle in ("disable-cascade-attn", "mamba-cache-mode")),
    ),
    step_room=step_room,
)
HYBRID_SINCE = "0.28.0"
"""The release from which a start rank, 0 too, means hybrid load balancing, which `--headless` contradicts."""
RESET_PATH: str | None = "/reset_prefix_cache"


def check(point: Point, hardware: Hardware) -> None:
    """Raises an error for several workers without Dynamo in front of them, and for GPUs that don't divide."""
    workers = place(point.topology, hardware.gpus_per_node)
    if len(workers) > 1 and point.engine.router != "dynamo":
        raise UnsupportedError(
            f"vllm on {point.topology.name} needs `engine.router: dynamo`, not {point.engine.router!r}"
        )
    check_speculation(point, release(point))


def limits(point: Point) -> Mapping[WorkerRole, EngineLimits]:
    """Returns the limits; vLLM's options are per data-parallel rank, so a worker has dp times as many."""
    by_role: dict[WorkerRole, EngineLimits] = {}
    for group in point.topology.groups:
        flags = of_role(point, group.role, ABOUT.renamings)
        by_role[group.role] = EngineLimits(
            max_running=whole(flags, "max-num-seqs", 256) * group.dp,
            prefill_chunk_tokens=whole(flags, "max-num-batched-tokens", 8192) * group.dp,
            stream_interval=whole(flags, "stream-interval", 1),
        )
    return by_role


def counters(metrics_text: str) -> SpecCounters | None:
    """Returns the four `vllm:spec_decode_*` counters; None when speculation is off."""
    return spec_counters(metrics_text, "vllm:")


def release(point: Point) -> Release:
    """Returns the release of vLLM that the point's command lines are written for."""
    return dynamo.written_for(point, ABOUT)


def deploy(point: Point, hardware: Hardware) -> Deployment:
    """Returns one process for each node of each worker, and Dynamo's frontend where the sweep names it."""
    workers = place(point.topology, hardware.gpus_per_node)
    processes = [_process(point, worker, share) for worker in workers for share in worker.shares]
    if point.engine.router == "dynamo":
        processes.insert(0, dynamo.frontend(point))
    return assemble(point, processes, node_count(workers))


def _process(point: Point, worker: PlacedWorker, share: Share) -> Process:
    name, group = worker.process(share), worker.group
    through_dynamo = point.engine.router == "dynamo"
    flags = merged(
        {"served-model-name": point.model.served_name},
        # Only `vllm serve` takes the model as a positional argument.
        {"model": point.checkpoint} if through_dynamo or point.engine.command else {},
        {"tensor-parallel-size": group.tp, "data-parallel-size": group.dp},
        {"enable-expert-parallel": True} if group.ep > 1 else {},
        {"disaggregation-mode": worker.role} if worker.role != "aggregated" else {},
        # How many prompt tokens a prefix cache held; behind Dynamo's frontend that is said anyhow.
        {} if through_dynamo else {"enable-prompt-tokens-details": True},
        of_role(point, worker.role, ABOUT.renamings),
        speculation_flags(point, worker.role),
        _rendezvous(point, worker, share),
        {} if through_dynamo else {"host": f"@{{host:{name}}}", "port": f"@{{port:{name}/http}}"},
    )
    usual = ("python3", "-m", "dynamo.vllm") if through_dynamo else ("vllm", "serve", point.checkpoint)
    env = {**env_of_role(point, worker.role), **speculation_env(point, worker.role, release(point))}
    if through_dynamo:
        env = {**dynamo.environment(), "DYN_SYSTEM_PORT": f"@{{port:{name}/http}}", **env}
    serves = share.rank == 0 or _is_hybrid(point, worker)
    ports = ["http", "dist"] if share.rank == 0 and len(worker.shares) > 1 else ["http"]
    if _uses_nixl(flags):
        # Each data-parallel rank listens on this port plus its rank: two workers of a node must not meet.
        ports.append("nixl")
        env = {"VLLM_NIXL_SIDE_CHANNEL_PORT": f"@{{port:{name}/nixl}}", **env}
    return Process(
        name=name,
        role=worker.role,
        worker=worker.name,
        argv=(*(point.engine.command or usual), *as_argv(spelled(flags, ABOUT.renamings, release(point)))),
        env=env,
        node=share.node,
        gpus=share.gpus,
        ports=tuple(ports),
        port_spans={"nixl": group.dp} if "nixl" in ports and group.dp > 1 else {},
        ready=Probe(port="http", path="/health") if serves else None,
        metrics=("http", "/metrics") if serves else None,
        container=container_of(point),
    )


def _is_hybrid(point: Point, worker: PlacedWorker) -> bool:
    """Returns whether each node of a worker serves its own data-parallel ranks, as a worker of Dynamo's.

    Behind Dynamo no other way is left since 0.28, and public recipes start it so. `vllm serve` alone has one
    front, on the first node.
    """
    several = worker.group.attention_dp and len(worker.shares) > 1
    return several and point.engine.router == dynamo.ROUTER and release(point).since(HYBRID_SINCE)


def _uses_nixl(flags: Flags) -> bool:
    return "nixl" in str(flags.get("kv-transfer-config", "")).lower()


def _rendezvous(point: Point, worker: PlacedWorker, share: Share) -> Flags:
    """Returns the options by which a worker's nodes meet: by start rank under DP, else by node."""
    if len(worker.shares) == 1:
        return {}
    host, port = f"@{{host:{worker.head}}}", f"@{{port:{worker.head}/dist}}"
    headless: Flags = {"headless": True} if share.rank else {}
    if worker.group.attention_dp:
        local = worker.group.dp // len(worker.shares)
        if not local:
            raise UnsupportedError(f"{worker.group.layout}: a vLLM data-parallel rank can't span nodes")
        hybrid = _is_hybrid(point, worker)
        # On the head of a worker with one front a start rank of 0 would mean hybrid load balancing.
        start: Flags = {"data-parallel-start-rank": share.rank * local} if hybrid or share.rank else {}
        return {
            **({"data-parallel-hybrid-lb": True} if hybrid else {}),
            "data-parallel-size-local": local,
            **start,
            "data-parallel-address": host,
            "data-parallel-rpc-port": port,
            **({} if hybrid else headless),
        }
    return {
        "nnodes": len(worker.shares),
        "node-rank": share.rank,
        "master-addr": host,
        "master-port": port,
        **headless,
    }
