"""TensorRT-LLM: `trtllm-serve` with a generated YAML, aggregated.

Source: TensorRT-LLM 1.2–1.3's options and the public GB200 recipes; read, not run here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from mtpbench.engines import dynamo
from mtpbench.engines.flags import env_of_role, of_role
from mtpbench.engines.placement import PlacedWorker, Share, node_count, place
from mtpbench.engines.prometheus import spec_counters
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
    SpecCounters,
    WorkerGroup,
    WorkerRole,
)

RESET_PATH: str | None = None
_PROMPT_ROOM_TOKENS = 256
_LEAST_BATCHED_TOKENS = 8192


def check(point: Point, hardware: Hardware) -> None:
    """Refuse what the generated configuration can't say."""
    workers = place(point.topology, hardware.gpus_per_node)
    if point.topology.disaggregated or len(workers) > 1:
        raise UnsupportedError(
            f"trtllm on {point.topology.name}: trtllm-serve is started as one aggregated worker here"
        )
    speculation = point.arm.speculation
    if speculation and speculation.acceptance.mode == "golden":
        drafts_accepted = (speculation.acceptance.length or 1) - 1
        if drafts_accepted != int(drafts_accepted):
            raise UnsupportedError(
                f"trtllm pins whole numbers of accepted drafts; {drafts_accepted:g} becomes 0 in releases "
                "that parse an integer. Use `acceptance: measured`, or a whole length"
            )


def speculation_options(point: Point) -> Mapping[str, Any]:
    """What MTP adds to the YAML, with what it forces under attention data parallelism."""
    if not point.draft_tokens:
        return {}
    options: dict[str, Any] = {
        "speculative_config": {"decoding_type": "MTP", "max_draft_len": point.draft_tokens}
    }
    if point.topology.groups[0].attention_dp:
        options["enable_lm_head_tp_in_adp"] = True
    return options


def max_num_tokens(point: Point, batch: int) -> int:
    """Tokens of one step: the prompt and room, and with MTP every sequence's drafts."""
    step = (point.draft_tokens + 1) * batch if point.draft_tokens else 0
    return max(_LEAST_BATCHED_TOKENS, point.workload.isl + _PROMPT_ROOM_TOKENS + step)


def limits(point: Point) -> Mapping[WorkerRole, EngineLimits]:
    """Batch and tokens of a step are per rank under attention data parallelism."""
    group = point.topology.groups[0]
    batch = _batch(point)
    return {
        group.role: EngineLimits(
            max_running=batch * group.dp,
            prefill_chunk_tokens=max_num_tokens(point, batch) * group.dp,
            stream_interval=int(_yaml(point).get("stream_interval", 1)),
        )
    }


def counters(metrics_text: str) -> SpecCounters | None:
    """Drafted and accepted tokens; TensorRT-LLM does not count verification steps.

    Read from its sources: `trtllm_spec_decode_num_draft_tokens_total`, `…num_accepted_tokens_total`.
    """
    return spec_counters(metrics_text, "trtllm_")


def deploy(point: Point, hardware: Hardware) -> Deployment:
    """`trtllm-serve` on one node; across nodes one MPI task for each GPU under `trtllm-llmapi-launch`."""
    workers = place(point.topology, hardware.gpus_per_node)
    (worker,) = workers
    return Deployment(
        key=point.deployment_key,
        processes=tuple(_process(point, worker, share) for share in worker.shares),
        front=worker.head,
        front_port="http",
        model_name=point.model.served_name,
        gpus=point.topology.gpus,
        nodes=node_count(workers),
    )


def _process(point: Point, worker: PlacedWorker, share: Share) -> Process:
    name, group, batch = worker.process(share), worker.group, _batch(point)
    across_nodes = len(worker.shares) > 1
    is_head = share.rank == 0
    words = [
        *(("trtllm-llmapi-launch",) if across_nodes else ()),
        *(point.engine.command or ("trtllm-serve",)),
        *(point.model.path, "--backend", "pytorch"),
        *("--tp_size", str(group.gpus_per_worker), "--ep_size", str(group.ep)),
        *("--max_batch_size", str(batch), "--max_num_tokens", str(max_num_tokens(point, batch))),
        *_options(point),
        *("--host", f"@{{host:{worker.head}}}", "--port", f"@{{port:{worker.head}/http}}"),
        *("--config", f"@{{dir}}/{worker.name}.yaml"),
    ]
    return Process(
        name=name,
        role=worker.role,
        argv=tuple(words),
        env={**env_of_role(point, worker.role), **_pinned(point)},
        files=(File(path=f"@{{dir}}/{worker.name}.yaml", text=_config(point, group, batch)),)
        if is_head
        else (),
        node=share.node,
        gpus=share.gpus,
        mpi_tasks=len(share.gpus) if across_nodes else 1,
        ports=("http",) if is_head else (),
        ready=Probe(port="http", path="/health", model=point.model.served_name) if is_head else None,
        metrics=("http", "/prometheus/metrics") if is_head else None,
        container=dynamo.container(point),
    )


def _pinned(point: Point) -> Mapping[str, str]:
    speculation = point.arm.speculation
    if speculation is None or speculation.acceptance.mode == "measured":
        return {}
    return {"TLLM_SPEC_DECODE_FORCE_NUM_ACCEPTED_TOKENS": f"{(speculation.acceptance.length or 1) - 1:g}"}


def _flags(point: Point) -> Flags:
    return of_role(point, point.topology.groups[0].role)


def _yaml(point: Point) -> Mapping[str, Any]:
    """The options of the YAML file: the flag named `yaml`."""
    options: Mapping[str, Any] = _flags(point).get("yaml", {})
    return options


def _options(point: Point) -> list[str]:
    """The sweep's command-line options: TensorRT-LLM's have underscores."""
    words: list[str] = []
    for name, value in _flags(point).items():
        if name in ("yaml", "max_batch_size") or value is None or value is False:
            continue
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def _batch(point: Point) -> int:
    return int(_flags(point).get("max_batch_size", 1024))


def _config(point: Point, group: WorkerGroup, batch: int) -> str:
    graphs = {"enable_padding": True, "max_batch_size": batch}
    config = {"cuda_graph_config": graphs, "enable_attention_dp": group.attention_dp, **_yaml(point)}
    return yaml.safe_dump({**config, **speculation_options(point)}, sort_keys=False)
