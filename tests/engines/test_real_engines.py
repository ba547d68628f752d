"""Real servers, real speculation, a model whose acceptance is known: what the harness says must be true."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines.runs import ANSWER_TOKENS, Run, measure, processes_under
from engines.setup.chain import CHAIN
from mtpbench.sweep import load_sweep
from mtpbench_analysis.cli import compare_folder, write_report

pytestmark = pytest.mark.engines
SWEEPS = Path(__file__).resolve().parent / "sweeps"

CHAIN_TEXT = "".join(chr(ord("a") + i) for i in range(CHAIN.length)) * (2 + ANSWER_TOKENS // CHAIN.length)
BUSY = {"client_saturated", "not_settled"}
"""What a busy machine may add; it spoils speeds, not counts."""


def test_every_point_is_measured_and_valid(run: Run) -> None:
    results = run.results()
    assert set(results) == {(p.arm.name, p.concurrency) for p in run.sweep.points}
    broken = {
        where: result.reasons for where, result in results.items() if {r.code for r in result.reasons} - BUSY
    }
    assert broken == {}
    assert not any(result.simulated for result in results.values())


@pytest.mark.parametrize(("arm", "drafts"), [("mtp1", 1), ("mtp3", 3)])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_measured_acceptance_length_is_the_one_in_closed_form(
    run: Run, arm: str, drafts: int, concurrency: int
) -> None:
    acceptance = run.results()[arm, concurrency].acceptance
    assert acceptance.length == pytest.approx(float(CHAIN.acceptance_length(drafts)), rel=0.02)
    assert acceptance.per_position is not None
    assert len(acceptance.per_position) == drafts
    assert 1 + sum(acceptance.per_position) == pytest.approx(acceptance.length, rel=1e-6)


def test_without_mtp_there_is_no_acceptance_and_the_reason_is_said(run: Run) -> None:
    acceptance = run.results()["off", 1].acceptance
    assert (acceptance.length, acceptance.reason) == (None, "speculation_off")


@pytest.mark.parametrize("concurrency", [1, 4])
def test_pinned_acceptance_is_what_was_asked_for(run: Run, concurrency: int) -> None:
    acceptance = run.results()["pinned", concurrency].acceptance
    assert acceptance.length == pytest.approx(2.2, rel=0.03)


def test_greedy_answers_are_the_same_with_mtp_off_and_on(run: Run) -> None:
    answers = run.greedy_answers("off")
    assert len(answers) == run.sweep.points[0].measurement.greedy_prompts
    assert run.greedy_answers("mtp1") == answers
    assert run.greedy_answers("mtp3") == answers
    assert all(text and text in CHAIN_TEXT for text in answers)


def test_sampling_under_speculation_says_what_the_model_is_sure_of(run: Run) -> None:
    """The crafted model leaves nothing to chance, so that a temperature must not change what it says."""
    sampled = run.watcher.sampled
    assert sampled["mtp1"] == sampled["mtp3"] == sampled["off"]
    assert all(len(text) == ANSWER_TOKENS and text in CHAIN_TEXT for text in sampled["off"])


def test_the_comparison_table_is_rendered_from_it(run: Run) -> None:
    text = write_report(compare_folder(run.directory)).with_name("comparison.md").read_text("utf-8")
    assert "tok/s/GPU" in text
    assert "unknown" in text  # what a CPU costs, and what power it was given
    assert "neither a published price nor a provisioned power" in text
    assert "SIMULATED" not in text


def test_a_server_killed_in_mid_load_costs_one_point_and_the_rest_of_the_ladder_goes_on(
    killed_run: Run,
) -> None:
    results = killed_run.results()
    first, second = results["mtp3", 1], results["mtp3", 4]
    assert len(killed_run.watcher.killed) == 1
    (died,) = [reason for reason in first.reasons if reason.code == "server_died"]
    assert "killed by SIGKILL" in died.detail
    assert first.failed_requests > 0
    assert {reason.code for reason in second.reasons} <= BUSY
    assert second.acceptance.length == pytest.approx(float(CHAIN.acceptance_length(3)), rel=0.02)
    assert processes_under(killed_run.directory) == []


def test_a_deepseek_style_model_accepts_what_its_closed_form_says(tmp_path: Path) -> None:
    """Latent attention and experts: the kind of model that the product is for."""
    if "MTPBENCH_VLLM_PYTHON" not in os.environ:
        pytest.fail("MTPBENCH_VLLM_PYTHON is not set: run `make test-engines`, which sets vLLM up")
    sweep = load_sweep(SWEEPS / "vllm-deepseek.yaml")
    result = measure(sweep, sweep.points, tmp_path).results()["mtp3", 2]
    assert not {reason.code for reason in result.reasons} - BUSY
    assert result.acceptance.length == pytest.approx(float(CHAIN.acceptance_length(3)), rel=0.02)
