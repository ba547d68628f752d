"""SGLang: `python -m sglang.launch_server`, or `python -m dynamo.sglang` behind Dynamo's frontend.

Source: SGLang 0.5.23's options and the public GB200 recipes; read, not run here.
"""

from __future__ import annotations

from collections.abc import Mapping

from mtpbench.engines.parts import (
    About,
    PlacedWorker,
    Share,
    as_argv,
    assemble,
    container_of,
    dynamo_environment,
    dynamo_frontend,
    env_of_role,
    merged,
    node_count,
    of_role,
    place,
    spec_gauges,
    whole,
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
    SpecGauge,
    WorkerRole,
)

ABOUT = About(
    title="sglang",
    package="sglang",
    modules=("sglang", "sglang_router"),
    extra="sglang",
    programs=("sglang",),
    environment=("SGLANG",),
    kept=(
        "SGLANG_HOST_IP",
        "SGLANG_LOGGING_CONFIG_PATH",
        "SGLANG_MOE_CONFIG_DIR",
        "SGLANG_TORCH_PROFILER_DIR",
    ),
    speculation=("sglang_simulate_acc",),
    deaths={"out_of_memory": r"Not enough memory", "engine_core_dead": r"Scheduler hit an exception"},
)
RESET_PATH: str | None = "/flush_cache"
ROUTERS = ("dynamo", "sglang")


def check(point: Point, hardware: Hardware) -> None:
    """Raises an error for a topology that needs a router and has none, and for GPUs that don't divide."""
    place(point.topology, hardware.gpus_per_node)
    if len(_workers(point, hardware)) > 1 and point.engine.router not in ROUTERS:
        raise UnsupportedError(
            f"sglang on {point.topology.name} needs `engine.router`: {' or '.join(ROUTERS)}, "
            f"not {point.engine.router!r}"
        )


def speculation_flags(point: Point, role: WorkerRole) -> Flags:
    """Returns what MTP adds: EAGLE on the decoding workers only, one chain of drafts."""
    drafts = point.draft_tokens
    if not drafts or role == "prefill":
        return {}
    return {
        "speculative-algo": "EAGLE",
        "speculative-num-steps": drafts,
        "speculative-eagle-topk": 1,
        "speculative-num-draft-tokens": drafts + 1,
    }


def speculation_env(point: Point, role: WorkerRole) -> Mapping[str, str]:
    """Returns the environment that pins an acceptance length, where the arm pins one."""
    speculation = point.arm.speculation
    if speculation is None or role == "prefill" or speculation.acceptance.mode == "measured":
        return {}
    return {
        "SGLANG_SIMULATE_ACC_LEN": f"{speculation.acceptance.length:g}",
        "SGLANG_SIMULATE_ACC_METHOD": "match-expected",
        "SGLANG_SIMULATE_ACC_TOKEN_MODE": "real-draft-token",
    }


def limits(point: Point) -> Mapping[WorkerRole, EngineLimits]:
    """Returns running requests, prefill chunk and stream interval of each role, or SGLang's defaults."""
    by_role: dict[WorkerRole, EngineLimits] = {}
    for group in point.topology.groups:
        flags = of_role(point, group.role)
        by_role[group.role] = EngineLimits(
            max_running=whole(flags, "max-running-requests", 2048),
            prefill_chunk_tokens=whole(flags, "chunked-prefill-size", 8192),
            stream_interval=whole(flags, "stream-interval", 1),
        )
    return by_role


def counters(metrics_text: str) -> tuple[SpecGauge, ...] | None:
    """Returns gauges of the acceptance length by rank: SGLang has no counters of accepted tokens.

    `sglang:spec_verify_calls_total` weighs it where it is there.
    """
    return spec_gauges(metrics_text, "sglang:spec_accept_length", "sglang:spec_verify_calls_total")


def deploy(point: Point, hardware: Hardware) -> Deployment:
    """Returns one process for each node of each worker, and the router."""
    workers = _workers(point, hardware)
    processes = [_process(point, worker, share) for worker in workers for share in worker.shares]
    if point.engine.router == "dynamo":
        processes.insert(0, dynamo_frontend(point))
    elif len(workers) > 1:
        processes.insert(0, _router(point, workers))
    return assemble(point, processes, node_count(workers))


def _workers(point: Point, hardware: Hardware) -> tuple[PlacedWorker, ...]:
    return place(point.topology, hardware.gpus_per_node)


def _process(point: Point, worker: PlacedWorker, share: Share) -> Process:
    name, group = worker.process(share), worker.group
    through_dynamo = point.engine.router == "dynamo"
    flags = merged(
        {"model-path": point.model.path, "served-model-name": point.model.served_name},
        {
            "tensor-parallel-size": group.gpus_per_worker,
            "data-parallel-size": group.dp,
            "expert-parallel-size": group.ep,
        },
        {} if worker.role == "aggregated" else {"disaggregation-mode": worker.role},
        # How many prompt tokens a prefix cache held; behind Dynamo's frontend that is said anyhow.
        {} if through_dynamo else {"enable-cache-report": True},
        of_role(point, worker.role),
        speculation_flags(point, worker.role),
        {"enable-metrics": True},
        _rendezvous(worker, share),
        {} if through_dynamo else {"host": f"@{{host:{name}}}", "port": f"@{{port:{name}/http}}"},
        {"disaggregation-bootstrap-port": f"@{{port:{name}/bootstrap}}"} if worker.role == "prefill" else {},
    )
    module = "dynamo.sglang" if through_dynamo else "sglang.launch_server"
    is_head = share.rank == 0
    ports = ["http"]
    ports += ["dist"] if is_head and len(worker.shares) > 1 else []
    ports += ["bootstrap"] if worker.role == "prefill" else []
    env = {**env_of_role(point, worker.role), **speculation_env(point, worker.role)}
    if through_dynamo:
        env = {**dynamo_environment(point), "DYN_SYSTEM_PORT": f"@{{port:{name}/http}}", **env}
    return Process(
        name=name,
        role=worker.role,
        argv=(*(point.engine.command or ("python3", "-m", module)), *as_argv(flags)),
        env=env,
        node=share.node,
        gpus=share.gpus,
        ports=tuple(ports),
        ready=Probe(port="http", path="/health") if is_head else None,
        metrics=("http", "/metrics") if is_head else None,
        container=container_of(point),
    )


def _rendezvous(worker: PlacedWorker, share: Share) -> Flags:
    if len(worker.shares) == 1:
        return {}
    return {
        "nnodes": len(worker.shares),
        "node-rank": share.rank,
        "dist-init-addr": f"@{{host:{worker.head}}}:@{{port:{worker.head}/dist}}",
    }


def _router(point: Point, workers: tuple[PlacedWorker, ...]) -> Process:
    argv = ["python3", "-m", "sglang_router.launch_router"]
    if point.topology.disaggregated:
        argv.append("--pd-disaggregation")
        for worker in workers:
            url = f"http://@{{host:{worker.head}}}:@{{port:{worker.head}/http}}"
            argv += [f"--{worker.role}", url]
            argv += [f"@{{port:{worker.head}/bootstrap}}"] if worker.role == "prefill" else []
    else:
        argv += ["--worker-urls"]
        argv += [f"http://@{{host:{w.head}}}:@{{port:{w.head}/http}}" for w in workers]
    return Process(
        name="router",
        role="router",
        argv=(*argv, "--host", "@{host:router}", "--port", "@{port:router/http}"),
        ports=("http",),
        ready=Probe(port="http", path="/health", model=point.model.served_name),
        container=container_of(point),
    )
