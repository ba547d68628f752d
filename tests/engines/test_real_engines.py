"""Real servers, real speculation, a model whose acceptance is known: what the harness says must be true."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines.runs import ANSWER_TOKENS, Run, measure, processes_under
from engines.setup.chain import (
    CHAIN,
    LONG_CHAIN,
    Chain,
    Drafted,
    Drafter,
    earliest_match,
    latest_match,
    lookup_prompt,
    replay,
)
from mtpbench.sweep import load_sweep
from mtpbench_analysis.cli import compare_folder, write_report

pytestmark = pytest.mark.engines
SWEEPS = Path(__file__).resolve().parent / "sweeps"

BUSY = {"client_saturated", "not_settled"}
"""What a busy machine may add; it spoils speeds, not counts."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of an engine: the language of its crafted model, its n-gram drafter, its last steps.

    Args:
        chain: the language.
        ngram: the drafter of the arm `ngram3`.
        cuts: whether a step drafts no more than what is left of an answer.
    """

    chain: Chain
    ngram: Drafter
    cuts: bool


KNOWN: Mapping[str, Known] = {
    "vllm": Known(chain=CHAIN, ngram=earliest_match(5, 3), cuts=False),
    "llamacpp": Known(chain=LONG_CHAIN, ngram=latest_match(3, 3), cuts=True),
}


@pytest.fixture
def known(engine: str) -> Known:
    """What is known of the engine under test."""
    return KNOWN[engine]


def says(chain: Chain, text: str) -> bool:
    """Whether the model can say a text."""
    return bool(text) and text in chain.letters * (2 + ANSWER_TOKENS // chain.length)


def replayed(run: Run, known: Known) -> Drafted:
    """What the engine's n-gram drafter must make of the sweep's prompts."""
    workload = run.sweep.points[0].workload
    assert workload.dataset_path is not None
    lines = Path(workload.dataset_path).read_text("utf-8").splitlines()
    prompts = [json.loads(line)["prompt"] for line in lines]
    assert prompts == [
        lookup_prompt(known.chain, known.chain.letters.index(prompt[-1])) for prompt in prompts
    ]
    return replay(known.chain, prompts, workload.osl, known.ngram, cut=known.cuts)


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
    run: Run, known: Known, arm: str, drafts: int, concurrency: int
) -> None:
    acceptance = run.results()[arm, concurrency].acceptance
    assert acceptance.length == pytest.approx(float(known.chain.acceptance_length(drafts)), rel=0.02)
    assert acceptance.per_position == pytest.approx(known.chain.rates(drafts), rel=0.02)
    assert 1 + sum(acceptance.per_position) == pytest.approx(acceptance.length, rel=1e-6)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_ngram_drafts_are_accepted_as_often_as_in_a_replay_of_the_drafter(
    run: Run, known: Known, concurrency: int
) -> None:
    acceptance, expected = run.results()["ngram3", concurrency].acceptance, replayed(run, known)
    assert acceptance.length == pytest.approx(expected.acceptance_length, rel=0.02)
    assert acceptance.rate == pytest.approx(expected.accepted / expected.tokens, rel=0.02)
    assert acceptance.draft_tokens_per_step == pytest.approx(expected.tokens / expected.steps, rel=0.02)


@pytest.mark.parametrize("engine", ["vllm"], indirect=True)
@pytest.mark.parametrize(("concurrency", "drafts"), [(1, 3), (3, 1)])
def test_a_depth_by_batch_is_played_and_accepted_as_in_closed_form(
    run: Run, concurrency: int, drafts: int
) -> None:
    """A step drafts what its own batch says, so that the ends of answers mix depths a little."""
    acceptance = run.results()["by-load", concurrency].acceptance
    assert acceptance.draft_tokens_per_step == pytest.approx(drafts, rel=0.02)
    assert acceptance.length == pytest.approx(float(CHAIN.acceptance_length(drafts)), rel=0.02)
    assert acceptance.drafting_steps_only


@pytest.mark.parametrize("engine", ["vllm"], indirect=True)
def test_where_the_depth_is_0_next_to_nothing_is_drafted_and_no_figure_hides_that(run: Run) -> None:
    """Only while fewer than five requests are there, as before the next ones come, are there drafts."""
    result = run.results()["by-load", 8]
    acceptance = result.acceptance
    assert result.steady is not None
    drafted_tokens = (acceptance.drafts or 0) * (acceptance.length or 0)
    assert drafted_tokens < 0.02 * result.steady.output_tokens
    assert acceptance.drafting_steps_only or acceptance.reason == "no_drafts"
    logs = [path.read_text("utf-8") for path in run.directory.glob("servers/by-load_*/aggregated-0.log")]
    schedule = "'num_speculative_tokens_per_batch_size': [[1, 1, 3], [2, 4, 1], [5, 8, 0]]"
    assert logs
    assert all(schedule in log and "Disabling num_speculative_tokens" not in log for log in logs)


def test_without_mtp_there_is_no_acceptance_and_the_reason_is_said(run: Run) -> None:
    acceptance = run.results()["off", 1].acceptance
    assert (acceptance.length, acceptance.reason) == (None, "speculation_off")


@pytest.mark.parametrize("concurrency", [1, 4])
def test_pinned_acceptance_is_what_was_asked_for(run: Run, concurrency: int) -> None:
    """To 2% and what the ends of answers may move it by: less than drafts / output tokens, 1.2%."""
    acceptance = run.results()["pinned", concurrency].acceptance
    assert acceptance.length == pytest.approx(2.2, rel=0.03)


def test_greedy_answers_are_the_same_however_drafts_are_made(run: Run, known: Known) -> None:
    answers = run.greedy_answers("off")
    assert len(answers) == run.sweep.points[0].measurement.greedy_prompts
    drafting = {point.arm.name for point in run.sweep.points} - {"off", "pinned"}
    assert {arm for arm in drafting if run.greedy_answers(arm) != answers} == set()
    assert all(says(known.chain, text) for text in answers)


def test_sampling_under_speculation_says_what_the_model_is_sure_of(run: Run, known: Known) -> None:
    """The crafted model leaves nothing to chance, so that a temperature must not change what it says."""
    sampled = run.watcher.sampled
    assert sampled["mtp1"] == sampled["mtp3"] == sampled["ngram3"] == sampled["off"]
    assert all(len(text) == ANSWER_TOKENS and says(known.chain, text) for text in sampled["off"])


def test_the_comparison_table_is_rendered_from_it(run: Run) -> None:
    text = write_report(compare_folder(run.directory)).with_name("comparison.md").read_text("utf-8")
    assert "tok/s/GPU" in text
    assert "unknown" in text  # what a CPU costs, and what power it was given
    assert "neither a published price nor a provisioned power" in text
    assert "SIMULATED" not in text


def test_a_server_killed_in_mid_load_costs_one_point_and_the_rest_of_the_ladder_goes_on(
    killed_run: Run, known: Known
) -> None:
    results = killed_run.results()
    first, second = results["mtp3", 1], results["mtp3", 4]
    assert len(killed_run.watcher.killed) == 1
    (died,) = [reason for reason in first.reasons if reason.code == "server_died"]
    assert "killed by SIGKILL" in died.detail
    assert first.failed_requests > 0
    assert {reason.code for reason in second.reasons} <= BUSY
    assert second.acceptance.length == pytest.approx(float(known.chain.acceptance_length(3)), rel=0.02)
    assert processes_under(killed_run.directory) == []


def test_a_deepseek_style_model_accepts_what_its_closed_form_says(tmp_path: Path) -> None:
    """Latent attention and experts: the kind of model that the product is for."""
    if "MTPBENCH_VLLM_PYTHON" not in os.environ:
        pytest.fail("MTPBENCH_VLLM_PYTHON is not set: run `make test-engines`, which sets vLLM up")
    sweep = load_sweep(SWEEPS / "vllm-deepseek.yaml")
    result = measure(sweep, sweep.points, tmp_path).results()["mtp3", 2]
    assert not {reason.code for reason in result.reasons} - BUSY
    assert result.acceptance.length == pytest.approx(float(CHAIN.acceptance_length(3)), rel=0.02)
