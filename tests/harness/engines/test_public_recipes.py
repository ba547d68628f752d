"""The command lines agree, flag by flag, with the public recipes of the GB200 points."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from mtpbench import hardware
from mtpbench.engines import engine_of
from mtpbench.records import Process
from mtpbench.sweep import load_sweep

SWEEPS = Path(__file__).resolve().parents[3] / "sweeps"

SGLANG_DEP = (
    "--trust-remote-code --tensor-parallel-size {n} --data-parallel-size {n} --expert-parallel-size {n} "
    "--enable-dp-attention --enable-dp-lm-head --moe-a2a-backend megamoe --stream-interval 60 "
    "--disaggregation-mode {role} --disaggregation-transfer-backend mooncake"
)
SGLANG_TP = (
    "--trust-remote-code --tensor-parallel-size {n} --data-parallel-size 1 --expert-parallel-size 1 "
    "--moe-runner-backend flashinfer_mxfp4 --disable-flashinfer-autotune --stream-interval 60 "
    "--disaggregation-mode {role} --disaggregation-transfer-backend mooncake"
)
SGLANG_ROLE = {
    "prefill": "--mem-fraction-static 0.8 --max-running-requests 1024 --chunked-prefill-size 65536",
    "decode": (
        "--mem-fraction-static 0.85 --max-running-requests 21504 --cuda-graph-max-bs 1024 "
        "--swa-full-tokens-ratio 0.15 --context-length 16384"
    ),
}
SGLANG_MTP = (
    "--speculative-algorithm EAGLE --speculative-num-steps 3 --speculative-eagle-topk 1 "
    "--speculative-num-draft-tokens 4"
)
VLLM = (
    """--kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_both"}' --kv-cache-dtype fp8 """
    "--tensor-parallel-size 1 --data-parallel-size 8 --enable-expert-parallel "
    "--moe-backend deep_gemm_mega_moe --block-size 256 --no-enable-prefix-caching --trust-remote-code "
    "--tokenizer-mode deepseek_v4 --max-model-len 9280"
)
VLLM_ROLE = {
    "prefill": (
        "--enforce-eager --max-num-seqs 8 --max-num-batched-tokens 16384 --gpu-memory-utilization 0.9"
    ),
    "decode": (
        "--max-num-seqs 512 --max-num-batched-tokens 512 --max-cudagraph-capture-size 512 "
        """--compilation-config '{"cudagraph_mode":"FULL_DECODE_ONLY","mode":0}' --stream-interval 50"""
    ),
}
VLLM_MTP = (
    """--speculative-config '{"method":"mtp","num_speculative_tokens":2}' """
    """--attention-config '{"use_fp4_indexer_cache":true}'"""
)
# What the harness itself adds: names, addresses, ranks, metrics, and Dynamo's own role option for vLLM.
OURS = {
    "--model",
    "--model-path",
    "--served-model-name",
    "--enable-metrics",
    "--nnodes",
    "--node-rank",
    "--dist-init-addr",
    "--disaggregation-bootstrap-port",
    "--data-parallel-size-local",
    "--data-parallel-start-rank",
    "--data-parallel-address",
    "--data-parallel-rpc-port",
    "--headless",
}


def options(words: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for i, word in enumerate(words):
        if word.startswith("--"):
            value = words[i + 1] if i + 1 < len(words) and not words[i + 1].startswith("--") else ""
            found[word] = json.loads(value) if value.startswith("{") else value
    return found


def processes(sweep: str, arm: str, topology: str) -> tuple[Process, ...]:
    points = load_sweep(SWEEPS / f"dsv4-gb200-{sweep}.yaml").points
    point = next(p for p in points if (p.arm.name, p.topology.name) == (arm, topology))
    return engine_of(point).deploy(point, hardware.lookup("gb200-nvl72")).processes


def check(process: Process, recipe: str, also_ours: set[str] | None = None) -> None:
    said = options(list(process.argv))
    ours = OURS | (also_ours or set())
    assert {name: value for name, value in said.items() if name not in ours} == options(shlex.split(recipe))


@pytest.mark.parametrize(
    ("arm", "topology"),
    [("off", "1xDEP8-1xDEP16"), ("mtp", "6xDEP8-1xDEP16"), ("off", "1xTP8-1xTP8"), ("mtp", "1xDEP8-6xTP8")],
)
def test_sglang(arm: str, topology: str) -> None:
    workers = [p for p in processes("sglang", arm, topology) if p.role != "router"]
    layouts = dict(zip(("prefill", "decode"), topology.split("-"), strict=True))
    for process in workers:
        layout = layouts[process.role].split("x")[1]
        base = SGLANG_DEP if layout.startswith("DEP") else SGLANG_TP
        recipe = base.format(n=layout.removeprefix("DEP").removeprefix("TP"), role=process.role)
        recipe += " " + SGLANG_ROLE[process.role]
        if arm == "mtp" and process.role == "decode":
            recipe += " " + SGLANG_MTP
        check(process, recipe)
        assert process.env["SGLANG_RADIX_FORCE_MISS"] == "1"
        assert process.env["MC_FORCE_MNNVL"] == "1"
        assert process.container is not None
        assert process.container.image == "lmsysorg/sglang:nightly-dev-cu13-20260528-0abe6a85"


@pytest.mark.parametrize("arm", ["off", "mtp"])
def test_vllm(arm: str) -> None:
    workers = [p for p in processes("vllm", arm, "1xDEP8-1xDEP8") if p.role != "router"]
    assert {p.role for p in workers} == {"prefill", "decode"}
    for process in workers:
        recipe = f"{VLLM} {VLLM_ROLE[process.role]}" + (f" {VLLM_MTP}" if arm == "mtp" else "")
        check(process, recipe, {"--disaggregation-mode"})
        assert process.env["VLLM_USE_NCCL_SYMM_MEM"] == "1"
        assert process.env["UCX_CUDA_IPC_ENABLE_MNNVL"] == "y"


@pytest.mark.parametrize(("arm", "topology"), [("off", "1xDEP8"), ("mtp-k3", "1xDEP8"), ("mtp-k3", "1xTP8")])
def test_trtllm(arm: str, topology: str) -> None:
    head = processes("trtllm", arm, topology)[0]
    dep = topology == "1xDEP8"
    expected = {
        "--backend": "pytorch",
        "--tp_size": "8",
        "--ep_size": "8" if dep else "1",
        "--max_batch_size": "1024",
        "--max_seq_len": "9472",
        "--max_num_tokens": "8448" if arm == "off" else "12544",
        "--trust_remote_code": "",
        "--custom_tokenizer": "deepseek_v4",
    }
    said = options(list(head.argv))
    ours = ("--host", "--port", "--config", "--served_model_name")
    assert {n: v for n, v in said.items() if n not in ours} == expected
    config = yaml.safe_load(head.files[0].text)
    shared = {
        "cuda_graph_config": {"enable_padding": True, "max_batch_size": 1024},
        "enable_attention_dp": dep,
        "print_iter_log": True,
        "kv_cache_config": {
            "tokens_per_block": 128,
            "dtype": "fp8",
            "free_gpu_memory_fraction": 0.6 if dep else 0.9,
            "enable_block_reuse": False,
        },
        "stream_interval": 100,
        "num_postprocess_workers": 4,
        "moe_config": {"backend": "TRTLLM", "use_low_precision_moe_combine": True},
        # The recipe does not count accepted tokens.
        "return_perf_metrics": True,
        "enable_iter_perf_stats": True,
    }
    if dep:
        shared["attention_dp_config"] = {"batching_wait_iters": 30, "enable_balance": True}
    if arm != "off":
        mtp = {"decoding_type": "MTP", "max_draft_len": 3, "num_nextn_predict_layers": 3}
        shared["speculative_config"] = mtp
        if dep:
            shared["enable_lm_head_tp_in_adp"] = True
    assert config == shared
