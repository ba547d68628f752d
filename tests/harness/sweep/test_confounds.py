from __future__ import annotations

from pathlib import Path

from mtpbench.records import File, Process
from mtpbench.sweep import load_sweep
from mtpbench.sweep.arm_confounds import compare_processes
from mtpbench.sweep.expansion import simulate


def test_what_speculation_forces_is_listed(sweeps: Path) -> None:
    confounds = "\n".join(load_sweep(sweeps / "dsv4-gb200-trtllm.yaml").info.confounds)
    assert "mtp-k3 on aggregated: --max_num_tokens is 12544 instead of 8448" in confounds
    assert "enable_lm_head_tp_in_adp is true instead of absent" in confounds


def test_what_a_recipe_adds_to_one_arm_is_listed(sweeps: Path) -> None:
    confounds = "\n".join(load_sweep(sweeps / "dsv4-gb200-vllm.yaml").info.confounds)
    assert '--attention-config is {"use_fp4_indexer_cache":true} instead of absent' in confounds
    assert "--speculative-config" not in confounds
    room = "has room for 170 sequences with their drafts instead of 512"
    assert f"mtp on decode: --max-num-batched-tokens {room}" in confounds


def test_topologies_of_one_arm_only_are_listed(sweeps: Path) -> None:
    (off, mtp) = load_sweep(sweeps / "dsv4-gb200-sglang.yaml").info.confounds
    assert off == (
        "6 of 8 points of off have no counterpart in mtp on 1xDEP8-2xDEP16, 1xDEP8-4xTP8, 6xDEP8-1xDEP12"
    )
    assert "6xDEP8-1xDEP16" in mtp


def test_each_confound_says_whose_it_is_and_goes_with_its_arm(sweeps: Path) -> None:
    sweep = load_sweep(sweeps / "dsv4-gb200-arms-trtllm.yaml")
    arms = ("ngram", "ngram", "off-0813", "dspark5", "dspark6")
    assert sweep.info.confound_arms == arms
    # No table tells the embedded engine what n-grams find, so that this arm is not played.
    played = simulate(sweep).info
    assert "ngram" not in {*played.arms, *played.confound_arms}
    assert len(played.confound_arms) == len(played.confounds) >= 3
    assert not [text for text in played.confounds if "ngram" in text]


def test_arms_on_the_same_ladder_have_no_confounds(write_sweep) -> None:
    assert load_sweep(write_sweep()).info.confounds == ()


def test_differences_are_found_in_argv_environment_and_files() -> None:
    def process(argv: tuple[str, ...], env: dict[str, str], text: str) -> Process:
        return Process(name="w", role="decode", argv=argv, env=env, files=(File(path="f", text=text),))

    base = process(("x", "--batch", "8", "--eager"), {"A": "1"}, "graphs:\n  size: 1\nkeep: 2\n")
    drafting = ("x", "--batch", "16", "--speculative-x", "1")
    other = process(drafting, {"A": "2"}, "graphs:\n  size: 4\nkeep: 2\n")
    assert compare_processes(base, other) == [
        "--batch is 16 instead of 8",
        "--eager is absent instead of set",
        "environment A is 2 instead of 1",
        "file graphs is size: 4 instead of size: 1",
    ]
