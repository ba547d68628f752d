"""TensorRT-LLM: `trtllm-serve` with a generated YAML, alone, behind `trtllm-serve disaggregated`, or as
`python -m dynamo.trtllm` behind Dynamo's frontend.

Options of the sweep are those of the command line (underscores); the flag named `yaml` goes into the file.
Source: sources, pull requests and release notes of TensorRT-LLM 1.1 to 1.4.0rc1, read, not run (its packages
hold nothing to run; tests/parsers/trtllm_options.yaml says of each option since when it is); the parser of
Dynamo 1.6's worker, run, of 1.0 to 1.5's, read; the public GB200 recipes, read.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any

import yaml
from packaging.version import Version

from mtpbench.engines import dynamo, releases
from mtpbench.engines.about import About, Release, renamed, spelled
from mtpbench.engines.parts import (
    PlacedWorker,
    Share,
    as_argv,
    assemble,
    container_of,
    env_of_role,
    node_count,
    of_role,
    place,
    whole,
)
from mtpbench.engines.trtllm_counters import counters as counters
from mtpbench.engines.trtllm_speculation import (
    CONFIG,
    batch_of,
    check_speculation,
    forced_drafts,
    speculation_env,
    speculation_options,
)
from mtpbench.errors import UnsupportedError
from mtpbench.records import (
    Deployment,
    EngineLimits,
    File,
    Flags,
    Hardware,
    Point,
    Probe,
    Process,
    WorkerGroup,
    WorkerRole,
)

ABOUT = About(
    title="trtllm",
    package="tensorrt-llm",
    modules=("tensorrt_llm",),
    extra="trtllm",
    programs=("trtllm-serve", "trtllm-llmapi-launch"),
    environment=("TLLM", "TRTLLM"),
    kept=("TLLM_LOG_LEVEL", "TRTLLM_ENABLE_PDL", "TRTLLM_UCX_INTERFACE"),
    deaths={
        "bad_flag": r"validation errors? for \w*LlmArgs",
        "out_of_memory": r"Executor creation failed due to insufficient GPU memory",
        "port_in_use": r"Failed to bind socket to",
        "engine_core_dead": r"Executor worker (?:died|returned error)",
    },
    interval_of_steps=True,
    releases=releases.TENSORRT_LLM,
    renamings=tuple(
        renamed(name, None, since="1.3.0rc8") for name in ("moe_cluster_parallel_size", "cluster_size")
    ),
)
COUNTERS_SINCE = "1.3.0rc12"
"""The first release whose page for Prometheus counts drafted and accepted tokens (#12545)."""
FRACTIONS_SINCE = "1.3.0rc15"
"""The first release that surely takes a fraction of accepted drafts (#13569, merged on 2026-05-06)."""
NAME_SINCE = "1.3.0rc7"
"""The first release with `--served_model_name` (#11711)."""
COUNTING = ("return_perf_metrics", "enable_iter_perf_stats")
"""The options without which there is no page for Prometheus, or none of its counters of speculation."""
RESET_PATH: str | None = None
ROUTERS = ("dynamo", "trtllm")
_PROMPT_ROOM_TOKENS = 256
_LEAST_BATCHED_TOKENS = 8192
_LIMITS = ("max_batch_size", "max_num_tokens", "max_seq_len")


def check(point: Point, hardware: Hardware) -> None:
    """Raises an error for workers without a router, and for what the release can't measure, pin or name."""
    workers = place(point.topology, hardware.gpus_per_node)
    if len(workers) > 1 and point.engine.router not in ROUTERS:
        raise UnsupportedError(
            f"trtllm on {point.topology.name} needs `engine.router`: {' or '.join(ROUTERS)}, "
            f"not {point.engine.router!r}"
        )
    if len(workers) > 1 and point.engine.router == "trtllm" and not point.topology.disaggregated:
        raise UnsupportedError(
            f"`trtllm-serve disaggregated` routes prefill and decode workers, not {point.topology.name}"
        )
    if point.draft_tokens:
        _check_counters(point)
    given = {group.role: _yaml(point, group.role).get(CONFIG) for group in point.topology.groups}
    check_speculation(point, release(point), given)
    _check_pinned(point)
    _check_names(point)


def _check_counters(point: Point) -> None:
    """Refuses drafts whose acceptance nothing would count: such a point is invalid after all it costs."""
    made = release(point)
    if not made.since(COUNTERS_SINCE):
        later = f"{COUNTERS_SINCE} or later (`engine.version`)"
        if made.named_by == "router":
            later = f"a Dynamo that is made for {COUNTERS_SINCE} or later (`engine.router_version: 1.2.1`)"
        raise UnsupportedError(
            f"trtllm {made.version} has no counters of drafted and accepted tokens, so no arm that drafts is "
            f"valid; run {later}"
        )
    for group in point.topology.groups:
        options = _yaml(point, group.role)
        missing = [n for n in _counting(point) if options.get(n, True) is not True]
        if missing and group.role != "prefill":
            raise UnsupportedError(
                f"the yaml of {group.role} workers turns {missing[0]} off, without which trtllm counts no "
                "accepted tokens, and no arm that drafts is valid; leave it out"
            )


def _check_pinned(point: Point) -> None:
    drafts_accepted, made = forced_drafts(point), release(point)
    if drafts_accepted is None or drafts_accepted == int(drafts_accepted) or made.since(FRACTIONS_SINCE):
        return
    raise UnsupportedError(
        f"trtllm {made.version} pins whole numbers of accepted drafts: {drafts_accepted:g} becomes 0. Use "
        f"`acceptance: measured`, a whole length, or {FRACTIONS_SINCE} or later (`engine.version`)"
    )


def _check_names(point: Point) -> None:
    """Refuses names that the release does not have, of the model as it serves it and of a tokenizer."""
    made, through_dynamo = release(point), point.engine.router == "dynamo"
    name, path = point.model.served_name, point.checkpoint
    # A folder is served under its last part; what is no path is taken for a hub id.
    own = path.rstrip("/").rpartition("/")[2] if path.startswith(("/", "./", "../", "~")) else path
    if not through_dynamo and not made.since(NAME_SINCE) and name != own:
        raise UnsupportedError(
            f"trtllm {made.version} serves {path} as {own!r}, not as {name!r}: its option for it came with "
            f"{NAME_SINCE}; set `model.served_name: {own}`"
        )
    tokenizers = [of_role(point, group.role).get("custom_tokenizer") for group in point.topology.groups]
    if "deepseek_v4" in tokenizers and not made.since("1.3.0rc0"):
        raise UnsupportedError(f"trtllm {made.version} has no custom_tokenizer deepseek_v4; run a later one")


def release(point: Point) -> Release:
    """Returns the release of TensorRT-LLM that the point's command lines are written for."""
    return dynamo.written_for(point, ABOUT)


def max_num_tokens(point: Point, role: WorkerRole) -> int:
    """Returns the tokens of one step: the sweep's, or room for a prompt, and for all drafts.

    A decode worker of its own takes no prompts: its step holds its sequences and their drafts.
    """
    flags = of_role(point, role)
    batch = batch_of(point, role)
    step = (point.draft_tokens + 1) * batch if point.draft_tokens else 0
    if given := whole(flags, "max_num_tokens", 0):
        return max(given, step)
    if role == "decode":
        return max(step, batch)
    drafts = step if role == "aggregated" else 0
    return max(_LEAST_BATCHED_TOKENS, point.workload.isl + _PROMPT_ROOM_TOKENS + drafts)


def limits(point: Point) -> Mapping[WorkerRole, EngineLimits]:
    """Returns the limits: batch and tokens of a step are per rank under attention data parallelism."""
    return {
        group.role: EngineLimits(
            max_running=batch_of(point, group.role) * group.dp,
            prefill_chunk_tokens=max_num_tokens(point, group.role) * group.dp,
            stream_interval=whole(_yaml(point, group.role), "stream_interval", 1),
        )
        for group in point.topology.groups
    }


def deploy(point: Point, hardware: Hardware) -> Deployment:
    """Returns a process for each node of each worker (across nodes one MPI task per GPU), and the router."""
    workers = place(point.topology, hardware.gpus_per_node)
    processes = [_process(point, worker, share) for worker in workers for share in worker.shares]
    if point.engine.router == "dynamo":
        processes.insert(0, dynamo.frontend(point))
    elif len(workers) > 1:
        processes.insert(0, _router(point, workers))
    return assemble(point, processes, node_count(workers))


def _process(point: Point, worker: PlacedWorker, share: Share) -> Process:
    name, across_nodes, is_head = worker.process(share), len(worker.shares) > 1, share.rank == 0
    through_dynamo = point.engine.router == "dynamo"
    file = f"@{{dir}}/{worker.name}.yaml"
    start = _dynamo_argv(point, worker, file) if through_dynamo else _serve_argv(point, worker, file)
    env = {**env_of_role(point, worker.role), **speculation_env(point)}
    if through_dynamo:
        env = {**dynamo.environment(), "DYN_SYSTEM_PORT": f"@{{port:{worker.head}/http}}", **env}
    return Process(
        name=name,
        role=worker.role,
        worker=worker.name,
        argv=(*(("trtllm-llmapi-launch",) if across_nodes else ()), *start),
        env=env,
        files=(File(path=file, text=_config(point, worker.group, through_dynamo)),) if is_head else (),
        node=share.node,
        gpus=share.gpus,
        mpi_tasks=len(share.gpus) if across_nodes else 1,
        ports=("http",) if is_head else (),
        ready=_probe(point, through_dynamo) if is_head else None,
        metrics=("http", "/metrics" if through_dynamo else "/prometheus/metrics") if is_head else None,
        container=container_of(point),
    )


def _probe(point: Point, through_dynamo: bool) -> Probe:
    # A Dynamo worker answers for its health only; its models are listed by the frontend.
    return Probe(port="http", path="/health", model=None if through_dynamo else point.model.served_name)


def _serve_argv(point: Point, worker: PlacedWorker, file: str) -> tuple[str, ...]:
    group = worker.group
    return (
        *(point.engine.command or ("trtllm-serve",)),
        *(point.checkpoint, "--backend", "pytorch"),
        *("--tp_size", str(group.gpus_per_worker), "--ep_size", str(group.ep)),
        *("--max_batch_size", str(batch_of(point, worker.role))),
        *("--max_num_tokens", str(max_num_tokens(point, worker.role))),
        *_options(point, worker.role),
        *(("--served_model_name", point.model.served_name) if release(point).since(NAME_SINCE) else ()),
        *("--host", f"@{{host:{worker.head}}}", "--port", f"@{{port:{worker.head}/http}}"),
        *("--config" if release(point).since("1.2.0") else "--extra_llm_api_options", file),
    )


def _dynamo_argv(point: Point, worker: PlacedWorker, file: str) -> tuple[str, ...]:
    """Returns the command line of Dynamo's worker, which takes nearly everything from the file."""
    flags: dict[str, Any] = {"model": point.checkpoint, "served-model-name": point.model.served_name}
    if worker.role != "aggregated":
        flags["disaggregation-mode"] = worker.role
    flags |= {"extra-engine-args": file, _publishing(dynamo.release(point.engine)): True}
    return (*(point.engine.command or ("python3", "-m", "dynamo.trtllm")), *as_argv(flags))


def _publishing(of_dynamo: str) -> str:
    """Returns the option of Dynamo's worker that starts the engine's metrics, in a release of Dynamo.

    Its help says of 1.3 to 1.5 that metrics need no option; their code starts them with the one for events.
    """
    made = Version(of_dynamo)
    if made >= Version("1.6"):
        return "publish-metrics"
    return "publish-kv-events" if made >= Version("1.3") else "publish-events-and-metrics"


def _router(point: Point, workers: tuple[PlacedWorker, ...]) -> Process:
    """Returns `trtllm-serve disaggregated` in front of context and generation servers."""

    def servers(role: WorkerRole) -> Mapping[str, Any]:
        urls = [f"@{{host:{w.head}}}:@{{port:{w.head}/http}}" for w in workers if w.role == role]
        return {"num_instances": len(urls), "urls": urls}

    config = {
        "hostname": "@{host:router}",
        "port": "@{port:router/http}",
        "backend": "pytorch",
        "context_servers": servers("prefill"),
        "generation_servers": servers("decode"),
    }
    # Only after the placeholder is filled in is the port the number that the file needs.
    text = yaml.safe_dump(config, sort_keys=False).replace("'@{port:router/http}'", "@{port:router/http}")
    return Process(
        name="router",
        role="router",
        argv=(
            *("trtllm-serve", "disaggregated", "-c", "@{dir}/router.yaml"),
            # Its own 180 s are too few for a large model to load, and for a request in a long row.
            *("--server_start_timeout", str(math.ceil(point.measurement.ready_timeout_s))),
            *("--request_timeout", str(math.ceil(point.measurement.request_timeout_s))),
        ),
        files=(File(path="@{dir}/router.yaml", text=text),),
        ports=("http",),
        ready=Probe(port="http", path="/health"),
        container=container_of(point),
    )


def _yaml(point: Point, role: WorkerRole) -> Mapping[str, Any]:
    """Returns the options of the YAML file: the flag named `yaml`."""
    options: Any = of_role(point, role).get("yaml", {})
    if not isinstance(options, Mapping):
        raise UnsupportedError(f"the option yaml is a mapping of options, not {reprlib.repr(options)}")
    return options


def _options(point: Point, role: WorkerRole) -> list[str]:
    """Returns the sweep's command-line options, without those that this module computes."""
    argv: list[str] = []
    for name, value in spelled(of_role(point, role), ABOUT.renamings, release(point)).items():
        if name in ("yaml", "max_batch_size", "max_num_tokens") or value is None or value is False:
            continue
        argv += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return argv


def _config(point: Point, group: WorkerGroup, through_dynamo: bool) -> str:
    graphs = {"enable_padding": True, "max_batch_size": batch_of(point, group.role)}
    config: dict[str, Any] = {"cuda_graph_config": graphs, "enable_attention_dp": group.attention_dp}
    if group.role == "prefill":
        # A context server runs no decoding steps to capture, and its overlap scheduler is not supported.
        config = {"disable_overlap_scheduler": True, "enable_attention_dp": group.attention_dp}
    if group.role != "aggregated":
        config["cache_transceiver_config"] = {"backend": "DEFAULT"}
    config |= dict.fromkeys(_counting(point), True)
    if through_dynamo:
        config |= _engine_arguments(point, group)
    options = _yaml(point, group.role)
    return yaml.safe_dump(
        {**config, **options, **speculation_options(point, group, options.get(CONFIG))}, sort_keys=False
    )


def _counting(point: Point) -> tuple[str, ...]:
    """Returns the options that make the engine count, in all arms alike: they cost a little of each step.

    Dynamo has a page anyhow, and asks of each request for its own figures.
    """
    return COUNTING[1:] if point.engine.router == "dynamo" else COUNTING


def _engine_arguments(point: Point, group: WorkerGroup) -> Flags:
    """Returns what `trtllm-serve` takes on its command line, by its names in the file."""
    flags = of_role(point, group.role)
    numbers = {name: flags[name] for name in _LIMITS if name in flags}
    return {
        "backend": "pytorch",
        "tensor_parallel_size": group.gpus_per_worker,
        "moe_expert_parallel_size": group.ep,
        **numbers,
        "max_batch_size": batch_of(point, group.role),
        "max_num_tokens": max_num_tokens(point, group.role),
        **({"trust_remote_code": True} if flags.get("trust_remote_code") else {}),
    }
