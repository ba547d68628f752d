"""Known deaths are recognised in what real engines printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtpbench.engines import CODES, explain

FAILURES = Path(__file__).resolve().parents[1] / "fixtures" / "captures" / "failures"


@pytest.mark.parametrize(
    ("name", "code", "telling"),
    [
        ("fail_bad_flag", "bad_flag", "--speculative-tokens 3"),
        ("fail_bad_specjson", "bad_flag", "Unexpected keyword argument"),
        ("fail_bad_method", "bad_speculation", "Input should be 'ngram'"),
        ("fail_synth_bad_len", "bad_speculation", "must be in [1, 2], got 2.5"),
        ("fail_llama_synth_bad", "bad_speculation", "within [1, 2]"),
        ("fail_mtp_on_no_mtp_model", "model_without_mtp", "Unsupported speculative method: 'mtp'"),
        ("fail_oom_kv500g", "out_of_memory", "500.0 GiB"),
        ("fail_gpu_mem_util_099", "out_of_memory", "0.99, 23.31 GiB"),
        ("fail_port_in_use", "port_in_use", "Address already in use"),
        ("fail_model_missing", "model_missing", "Cannot find an appropriate cached snapshot"),
        ("fail_llama_missing_model", "model_missing", "/nope.gguf"),
        ("fail_llama_bad_flag", "bad_flag", "--no-such-flag"),
        ("fail_dsv4_on_cpu", "engine_core_dead", "Engine core initialization failed"),
        ("fail_vllm_headless_in_hybrid", "contradicting_options", "engine 3 must not use --headless"),
        ("crash_engine_core", "engine_core_dead", "EngineCore encountered an issue"),
    ],
)
def test_a_captured_death_is_named(name: str, code: str, telling: str) -> None:
    cause = explain((FAILURES / f"{name}.txt").read_text("utf-8", "replace"))
    assert cause is not None
    assert cause.code == code
    assert telling in cause.line
    assert cause.code in CODES


def test_every_captured_death_is_tested() -> None:
    tested = {mark[0] for mark in test_a_captured_death_is_named.pytestmark[0].args[1]}
    assert {path.stem for path in FAILURES.glob("*.txt")} == tested


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (
            "launch_server.py: error: ambiguous option: --cuda-graph-max-bs could match "
            "--cuda-graph-max-bs-decode, --cuda-graph-max-bs-prefill",
            "bad_flag",
        ),
        (
            "ImportError: cannot import name 'get_engine_zmq_addresses' from 'vllm.v1.engine.utils'",
            "other_release",
        ),
        (
            "AssertionError: mega MoE: num_tokens=4096 exceeds cap "
            "SGLANG_OPT_DEEPGEMM_MEGA_MOE_NUM_MAX_TOKENS_PER_RANK=1024; raise the env var",
            "mega_moe_too_small",
        ),
        ("ValueError: Port is already in use. dist_init_port=20001 port_base=20002", "port_in_use"),
    ],
)
def test_a_death_that_was_read_in_sources_is_named(line: str, code: str) -> None:
    cause = explain(f"Traceback (most recent call last):\n{line}\n")
    assert cause is not None
    assert (cause.code, cause.line) == (code, line)


def test_an_engine_that_is_not_installed_is_named_with_how_to_get_it() -> None:
    cause = explain("/usr/bin/python3: No module named dynamo.sglang\n")
    assert cause is not None
    assert cause.code == "engine_not_installed"
    assert "mtpbench[vllm]" in cause.advice


def test_an_ordinary_log_names_no_cause() -> None:
    assert explain("INFO: Started server process\nINFO: Application startup complete.\n") is None
    assert explain("") is None
