"""SGLang: `python -m sglang.launch_server`, or `python -m dynamo.sglang` behind Dynamo's frontend.

Source: the parsers and checks of SGLang 0.5.12 to 0.5.23 (`make test-parsers`), 0.5.23's server on a CPU
(`make test-sglang`), and the public GB200 recipes (read, not run).
"""

from __future__ import annotations

import math
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
    python_of,
    spec_gauges,
    whole,
)
from mtpbench.engines.sglang_speculation import (
    check_speculation,
    running_requests,
    speculation_env,
    speculation_files,
    speculation_flags,
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
    SpecGauge,
    WorkerGroup,
    WorkerRole,
)
from mtpbench.served import metrics

ATTN_DP_SIZE_SINCE = "0.5.22"
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
    speculation=("sglang_simulate_acc", "ragged_verify"),
    # sglang-router answers token ids with HTTP 422, smg with 400.
    text_routers=("sglang",),
    deaths={
        "mega_moe_too_small": r"mega MoE: num_tokens=\d+ exceeds cap",
        "port_in_use": r"Port is already in use\. dist_init_port=",
        "out_of_memory": r"Not enough memory",
        "engine_core_dead": r"Scheduler hit an exception",
    },
    releases=releases.SGLANG,
    renamings=(
        renamed("stream-output", "incremental-streaming-output", since="0.5.12", removed="0.5.20"),
        renamed("nsa-prefill-backend", "dsa-prefill-backend", since="0.5.13", removed="0.5.20"),
        renamed("nsa-decode-backend", "dsa-decode-backend", since="0.5.13", removed="0.5.20"),
        renamed("cuda-graph-max-bs", "cuda-graph-max-bs-decode", since="0.5.14", removed="0.5.20"),
        renamed("cuda-graph-bs", "cuda-graph-bs-decode", since="0.5.14", removed="0.5.20"),
        renamed(
            "piecewise-cuda-graph-max-tokens", "cuda-graph-max-bs-prefill", since="0.5.14", removed="0.5.20"
        ),
        renamed("piecewise-cuda-graph-tokens", "cuda-graph-bs-prefill", since="0.5.14", removed="0.5.20"),
        *(
            renamed(
                old, "cuda-graph-backend-prefill", since="0.5.14", removed="0.5.20", values={True: backend}
            )
            for old, backend in (
                ("disable-piecewise-cuda-graph", "disabled"),
                ("enforce-piecewise-cuda-graph", "tc_piecewise"),
                ("enable-breakable-cuda-graph", "breakable"),
            )
        ),
        renamed("mamba-scheduler-strategy", "mamba-radix-cache-strategy", since="0.5.14", removed="0.5.20"),
        renamed("prefill-cp-mode", "cp-strategy", since="0.5.14", removed="0.5.20"),
        renamed("enable-prefill-context-parallel", "enable-prefill-cp", since="0.5.14", removed="0.5.20"),
        renamed(
            "speculative-dflash-draft-window-size",
            "speculative-draft-window-size",
            since="0.5.13",
            removed="0.5.20",
        ),
        renamed(
            "enable-dp-attention",
            "attn-dp-size",
            since=ATTN_DP_SIZE_SINCE,
            goes_after="2026-12-31",
            written_as="attn-dp-size",
        ),
        # Two options take its place, one for each role; it is accepted all the same.
        renamed(
            "disable-cuda-graph",
            "cuda-graph-backend-decode",
            since="0.5.14",
            values={True: "disabled"},
            written_as="disable-cuda-graph",
        ),
        renamed("prefill-round-robin-balance", None, since="0.5.12", removed="0.5.20"),
        renamed("hybrid-kvcache-ratio", None, since="0.5.12", removed="0.5.14"),
        renamed("speculative-skip-dp-mlp-sync", None, since="0.5.23", removed="0.5.23"),
    ),
)
DERIVED_PORTS = 6
"""The ports that SGLang derives from --dist-init-addr under attention DP: dist + 1 … dist + 6."""
MEGA_MOE_TOKENS = "SGLANG_OPT_DEEPGEMM_MEGA_MOE_NUM_MAX_TOKENS_PER_RANK"
"""The tokens of a step and rank that MegaMoE has room for."""
MEGA_MOE_ROOM, MEGA_MOE_ROOM_SINCE = 8192, "0.5.18"
"""SGLang's own room from that release on; before, it is 1024."""
_USUAL_GRAPH_BATCH = 512
"""SGLang's own largest captured batch on GPUs of this size."""
_USUAL_CHUNK = 8192
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
    check_speculation(point, release(point))
    for group in point.topology.groups:
        _check_mega_moe(point, group)


def release(point: Point) -> Release:
    """Returns the release of SGLang that the point's command lines are written for."""
    return dynamo.written_for(point, ABOUT)


def mega_moe_env(point: Point, group: WorkerGroup) -> Mapping[str, str]:
    """Returns the room for MegaMoE's tokens where the release's own may be too small for a step.

    With too little room graph capture dies, and a chunk of prefill silently takes another kernel. Older
    releases get what newer ones give, in all arms alike; a larger step gets what it needs.
    """
    needed = _mega_moe_tokens(point, group)
    enough = release(point).since(MEGA_MOE_ROOM_SINCE) and needed <= MEGA_MOE_ROOM
    if not needed or enough or MEGA_MOE_TOKENS in env_of_role(point, group.role):
        return {}
    return {MEGA_MOE_TOKENS: str(max(needed, MEGA_MOE_ROOM))}


def _check_mega_moe(point: Point, group: WorkerGroup) -> None:
    """Refuses room for MegaMoE's tokens that graph capture would exceed."""
    given = env_of_role(point, group.role).get(MEGA_MOE_TOKENS)
    captured = _captured_tokens(point, group) if _mega_moe_tokens(point, group) else 0
    if given is None:
        return
    if not (given.isascii() and given.isdecimal()):
        raise UnsupportedError(
            f"engine.env gives {MEGA_MOE_TOKENS}={given!r}; it is a whole number of tokens"
        )
    if int(given) >= captured:
        return
    raise UnsupportedError(
        f"engine.env gives {group.role} workers {MEGA_MOE_TOKENS}={given}, and graph capture takes "
        f"{captured} tokens a rank ({captured // (point.draft_tokens + 1)} sequences × "
        f"{point.draft_tokens + 1}) and would fail; set it to {captured} or more, or leave it out: then the "
        "harness sets it"
    )


def _mega_moe_tokens(point: Point, group: WorkerGroup) -> int:
    """Returns the most tokens that a step of a rank takes through MegaMoE; 0 where it is not used."""
    flags = of_role(point, group.role, ABOUT.renamings)
    if flags.get("moe-a2a-backend") != "megamoe":
        return 0
    chunk = 0 if group.role == "decode" else whole(flags, "chunked-prefill-size", _USUAL_CHUNK)
    # Attention DP divides the chunk among the ranks.
    return max(_captured_tokens(point, group), -(-chunk // group.dp))


def _captured_tokens(point: Point, group: WorkerGroup) -> int:
    """Returns the tokens of the largest captured batch: each sequence holds its drafts and one token more."""
    if group.role == "prefill":
        return 0
    flags = of_role(point, group.role, ABOUT.renamings)
    if flags.get("disable-cuda-graph") is True or flags.get("cuda-graph-backend-decode") == "disabled":
        return 0
    listed = flags.get("cuda-graph-bs-decode")
    usual = max(listed, default=0) if isinstance(listed, (list, tuple)) else _USUAL_GRAPH_BATCH
    return whole(flags, "cuda-graph-max-bs-decode", usual) * (point.draft_tokens + 1)


def limits(point: Point) -> Mapping[WorkerRole, EngineLimits]:
    """Returns running requests, prefill chunk and stream interval of each role, or SGLang's defaults."""
    by_role: dict[WorkerRole, EngineLimits] = {}
    for group in point.topology.groups:
        flags = of_role(point, group.role, ABOUT.renamings)
        by_role[group.role] = EngineLimits(
            max_running=whole(flags, "max-running-requests", running_requests(point, group)),
            prefill_chunk_tokens=whole(flags, "chunked-prefill-size", 8192),
            stream_interval=whole(flags, "stream-interval", 1),
        )
    return by_role


_TOKENS, _REQUESTS = "sglang:generation_tokens_total", "sglang:num_requests_total"
_STEPS = "sglang:spec_verify_calls_total"


def counters(metrics_text: str) -> SpecCounters | tuple[SpecGauge, ...] | None:
    """Returns verification steps and the drafts that they accepted, of the requests that have ended.

    A request's first token comes from prefill, every other from a step, which gives one token and the drafts
    that it accepts: those sent, for the last step is cut at the request's length. All three counters rise at
    the end of a request. SGLang before 0.5.13 does not count steps: then its gauge of the acceptance length.
    """
    sums: dict[str, float] = {}
    series: dict[str, float] = {}
    for metric in metrics(metrics_text, (_TOKENS, _REQUESTS, _STEPS)):
        if metric.name in (_TOKENS, _REQUESTS, _STEPS):
            sums[metric.name] = sums.get(metric.name, 0.0) + metric.amount
            series[metric.series] = metric.amount
    if len(sums) < 3:
        return spec_gauges(metrics_text, "sglang:spec_accept_length")
    accepted = sums[_TOKENS] - sums[_REQUESTS] - sums[_STEPS]
    return SpecCounters(drafts=sums[_STEPS], draft_tokens=None, accepted_tokens=accepted, series=series)


def deploy(point: Point, hardware: Hardware) -> Deployment:
    """Returns one process for each node of each worker, and the router."""
    workers = _workers(point, hardware)
    processes = [_process(point, worker, share) for worker in workers for share in worker.shares]
    if point.engine.router == "dynamo":
        processes.insert(0, dynamo.frontend(point))
    elif len(workers) > 1:
        processes.insert(0, _router(point, workers))
    return assemble(point, processes, node_count(workers))


def _workers(point: Point, hardware: Hardware) -> tuple[PlacedWorker, ...]:
    return place(point.topology, hardware.gpus_per_node)


def _process(point: Point, worker: PlacedWorker, share: Share) -> Process:
    name, group = worker.process(share), worker.group
    through_dynamo, table = point.engine.router == "dynamo", f"@{{dir}}/{name}.speculative.json"
    flags = _attention_dp(
        point,
        {"model-path": point.checkpoint, "served-model-name": point.model.served_name},
        {
            "tensor-parallel-size": group.gpus_per_worker,
            "data-parallel-size": group.dp,
            "expert-parallel-size": group.ep,
        },
        {} if worker.role == "aggregated" else {"disaggregation-mode": worker.role},
        # How many prompt tokens a prefix cache held; behind Dynamo's frontend that is said anyhow.
        {} if through_dynamo else {"enable-cache-report": True},
        {"max-running-requests": running_requests(point, group)},
        of_role(point, worker.role, ABOUT.renamings),
        speculation_flags(point, worker.role, table),
        {"enable-metrics": True},
        _rendezvous(worker, share),
        {} if through_dynamo else {"host": f"@{{host:{name}}}", "port": f"@{{port:{name}/http}}"},
        {"disaggregation-bootstrap-port": f"@{{port:{name}/bootstrap}}"} if worker.role == "prefill" else {},
    )
    module = "dynamo.sglang" if through_dynamo else "sglang.launch_server"
    is_head = share.rank == 0
    ports = ["http"]
    ports += ["dist"] if is_head and _meets(worker) else []
    ports += ["bootstrap"] if worker.role == "prefill" else []
    env = {
        **env_of_role(point, worker.role),
        **mega_moe_env(point, group),
        **speculation_env(point, worker.role),
    }
    if through_dynamo:
        env = {**dynamo.environment(), "DYN_SYSTEM_PORT": f"@{{port:{name}/http}}", **env}
    return Process(
        name=name,
        role=worker.role,
        worker=worker.name,
        argv=(
            *(point.engine.command or ("python3", "-m", module)),
            *as_argv(spelled(flags, ABOUT.renamings, release(point)), list_words=True),
        ),
        env=env,
        files=speculation_files(point, worker.role, table),
        node=share.node,
        gpus=share.gpus,
        ports=tuple(ports),
        port_spans={"dist": 1 + DERIVED_PORTS} if "dist" in ports else {},
        ready=Probe(port="http", path="/health") if is_head else None,
        metrics=("http", "/metrics") if is_head else None,
        container=container_of(point),
    )


def _attention_dp(point: Point, *layers: Flags) -> Flags:
    """Returns the options of the layers; attention DP as the release asks for it.

    Since 0.5.22 --data-parallel-size counts whole replicas there.
    """
    flags = dict(merged(*layers))
    ranks = flags["data-parallel-size"]
    given = flags.get("attn-dp-size")
    if given is not None and whole(flags, "attn-dp-size", 1) != ranks:
        raise UnsupportedError(f"attn-dp-size is {given}, and the topology has {ranks} ranks; leave it out")
    if flags.get("enable-dp-attention") is not True and given is None:
        return flags
    removed, put = "enable-dp-attention", {"attn-dp-size": ranks}
    if release(point).since(ATTN_DP_SIZE_SINCE):
        flags.pop("data-parallel-size")
    else:
        removed, put = "attn-dp-size", {"enable-dp-attention": True}
    return merged(flags, {removed: None}, put)


def _meets(worker: PlacedWorker) -> bool:
    """Returns whether a worker's processes meet at an address: those of several nodes, and of attention DP.

    Without an address attention DP derives its ports from --port, which Dynamo's workers have in common.
    """
    return len(worker.shares) > 1 or worker.group.attention_dp


def _rendezvous(worker: PlacedWorker, share: Share) -> Flags:
    if not _meets(worker):
        return {}
    nodes = {"nnodes": len(worker.shares), "node-rank": share.rank} if len(worker.shares) > 1 else {}
    return {**nodes, "dist-init-addr": f"@{{host:{worker.head}}}:@{{port:{worker.head}/dist}}"}


def _router(point: Point, workers: tuple[PlacedWorker, ...]) -> Process:
    rules = point.measurement
    # Its own policy, cache_aware, would send equal beginnings to one worker; recipes take turns.
    argv = [*python_of(point), "-m", "sglang_router.launch_router", "--policy", "round_robin"]
    argv += ["--worker-startup-timeout-secs", str(math.ceil(rules.ready_timeout_s))]
    argv += ["--request-timeout-secs", str(math.ceil(rules.request_timeout_s))]
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
