"""Real SGLang, real speculation, a model whose acceptance is known: what the harness says must be true."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from servers import serve

from engines.runs import Run, processes_under
from engines.setup.chain import CHAIN
from mtpbench.engines import sglang
from mtpbench.metrics.acceptance import measure_acceptance
from mtpbench.metrics.window import Window
from mtpbench.records import CounterSample, SpecCounters
from mtpbench.served import metrics
from mtpbench.store import read_raw, read_sweep
from mtpbench.sweep import Sweep

pytestmark = pytest.mark.engines

CHAIN_TEXT = "".join(chr(ord("a") + i) for i in range(CHAIN.length)) * 30
BUSY = {"client_saturated", "not_settled"}
"""What a busy machine may add; it spoils speeds, not counts."""


def steps(start: int, drafts: int, tokens: int) -> int:
    """Verification steps for `tokens` after class `start`; of the last step's, what is too much is cut."""
    count = 0
    while tokens > 0:
        said = 1 + CHAIN.accepted(start, drafts)
        start, tokens, count = (start + said) % CHAIN.length, tokens - said, count + 1
    return count


def counted_lengths(drafts: int, tokens: int) -> tuple[float, float]:
    """The least and the most tokens a step that SGLang can count for answers of so many tokens.

    An answer's first token comes from prefill, and where its steps begin depends on the prompt.
    """
    counts = [steps(start, drafts, tokens - 1) for start in range(CHAIN.length)]
    return (tokens - 1) / max(counts), (tokens - 1) / min(counts)


def test_every_point_is_measured_and_valid(run: Run) -> None:
    results = run.results()
    assert set(results) == {
        ("off", 1),
        ("off", 4),
        ("mtp3", 1),
        ("mtp3", 4),
        ("pinned", 4),
        ("ngram3", 1),
        ("ngram3", 4),
        ("by-load", 1),
        ("by-load", 3),
        ("by-load", 8),
    }
    broken = {
        where: result.reasons for where, result in results.items() if {r.code for r in result.reasons} - BUSY
    }
    assert broken == {}
    assert not any(result.simulated for result in results.values())


@pytest.mark.parametrize(("arm", "drafts", "concurrency"), [("mtp1", 1, 4), ("mtp3", 3, 1), ("mtp3", 3, 4)])
def test_the_acceptance_length_is_the_closed_form_less_what_is_cut_off_last_steps(
    run: Run, killed_run: Run, arm: str, drafts: int, concurrency: int
) -> None:
    measured = {**run.results(), **killed_run.results()}[arm, concurrency].acceptance.length
    assert measured is not None
    least, most = counted_lengths(drafts, tokens=256)
    assert least - 1e-9 <= measured <= most + 1e-9
    assert measured == pytest.approx(float(CHAIN.acceptance_length(drafts)), rel=0.02)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_ngram_drafts_of_a_text_that_was_seen_before_are_all_accepted(run: Run, concurrency: int) -> None:
    """Its drafts come from all answers so far: those of the warm-up hold all that the model ever says."""
    acceptance = run.results()["ngram3", concurrency].acceptance
    fewest = math.ceil((256 - 1) / (3 + 1))
    assert acceptance.length == pytest.approx((256 - 1) / fewest, rel=0.02)


@pytest.mark.parametrize(("concurrency", "drafts"), [(1, 3), (3, 1), (8, 0)])
def test_a_depth_by_batch_is_played_and_accepted_as_in_closed_form(
    run: Run, concurrency: int, drafts: int
) -> None:
    """SGLang counts every step, also those that draft nothing: they give one token each."""
    acceptance = run.results()["by-load", concurrency].acceptance
    assert acceptance.length == pytest.approx(float(CHAIN.acceptance_length(drafts)), rel=0.02)
    assert (acceptance.draft_tokens_per_step, acceptance.drafting_steps_only) == (None, False)


def test_without_mtp_there_is_no_acceptance_and_the_reason_is_said(run: Run) -> None:
    acceptance = run.results()["off", 1].acceptance
    assert (acceptance.length, acceptance.reason) == (None, "speculation_off")


def test_pinned_acceptance_is_what_was_asked_for(run: Run) -> None:
    """To 2% and what the ends of answers may move it by: less than drafts / output tokens, 1.2%."""
    acceptance = run.results()["pinned", 4].acceptance
    assert acceptance.length == pytest.approx(2.2, rel=0.03)


def test_greedy_answers_are_the_same_however_drafts_are_made(run: Run, killed_run: Run) -> None:
    answers = run.greedy_answers("off")
    assert len(answers) == run.sweep.points[0].measurement.greedy_prompts
    assert killed_run.greedy_answers("mtp1") == answers
    assert {arm for arm in ("mtp3", "ngram3", "by-load") if run.greedy_answers(arm) != answers} == set()
    assert all(text and text in CHAIN_TEXT for text in answers)


def test_every_cache_reset_before_a_point_succeeds(run: Run) -> None:
    notes = [note for p in read_sweep(run.directory).points for note in read_raw(p.directory).facts.notes]
    assert not [note for note in notes if "cache reset" in note]


def test_a_server_killed_in_mid_load_costs_one_point_and_the_rest_of_the_ladder_goes_on(
    killed_run: Run,
) -> None:
    results = killed_run.results()
    first, second = results["mtp1", 1], results["mtp1", 4]
    assert len(killed_run.watcher.killed) == 1
    (died,) = [reason for reason in first.reasons if reason.code == "server_died"]
    assert "killed by SIGKILL" in died.detail
    assert first.failed_requests > 0
    assert {reason.code for reason in second.reasons} <= BUSY


def test_two_workers_behind_sglangs_router_serve_and_are_counted_together(routed_run: Run) -> None:
    result = routed_run.results()["mtp3", 4]
    assert {reason.code for reason in result.reasons} <= BUSY
    assert result.failed_requests == 0
    assert result.acceptance.length == pytest.approx(float(CHAIN.acceptance_length(3)), rel=0.02)
    (stored,) = read_sweep(routed_run.directory).points
    steps_of: dict[str, list[float]] = {}
    for sample in read_raw(stored.directory).counters:
        if sample.counters is not None and sample.counters.drafts is not None:
            steps_of.setdefault(sample.process, []).append(sample.counters.drafts)
    assert set(steps_of) == {"aggregated-0", "aggregated-1"}
    assert all(max(counts) > min(counts) for counts in steps_of.values())


def test_nothing_that_was_started_is_left(run: Run, killed_run: Run, routed_run: Run) -> None:
    for done in (run, killed_run, routed_run):
        assert processes_under(done.directory) == []


async def test_ngram_drafts_are_verified_and_a_flush_empties_what_was_cached_and_learnt(
    sweep: Sweep, tmp_path: Path
) -> None:
    """Once it has seen the whole chain, an n-gram draft is never wrong; a flush makes it begin anew."""
    drafts, tokens = 3, 200
    prompt, expected = CHAIN_TEXT[7:10], CHAIN_TEXT[10 : 10 + tokens]
    ngram = ("--speculative-algorithm", "NGRAM", "--speculative-num-draft-tokens", str(drafts + 1))
    off = next(point for point in sweep.points if point.arm.speculation is None)
    async with serve(off, tmp_path, words=ngram, without=("--disable-radix-cache",)) as server:
        first = await server.answer(prompt, tokens)
        second = await server.answer(prompt, tokens)
        assert sglang.RESET_PATH is not None
        assert await server.live.reset_cache(sglang.RESET_PATH) is None
        third = await server.answer(prompt, tokens)
    assert [first.text, second.text, third.text] == [expected] * 3
    fewest = math.ceil((tokens - 1) / (drafts + 1))
    assert second.steps == fewest
    assert third.steps > fewest
    assert [first.cached_tokens, second.cached_tokens, third.cached_tokens] == [0, len(prompt) - 1, 0]


async def test_two_ranks_of_data_parallel_are_read_as_one_worker(sweep: Sweep, tmp_path: Path) -> None:
    """Data parallel of whole replicas, without attention DP: two schedulers behind one /metrics."""
    drafts, tokens = 3, 200
    mtp = next(point for point in sweep.points if point.arm.name == "mtp3")
    cores = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1"}  # else SGLang wants a NUMA node for each rank
    async with serve(
        mtp, tmp_path, words=("--data-parallel-size", "2", "--load-balance-method", "round_robin"), env=cores
    ) as server:
        pages = [await server.page()]
        await server.load(CHAIN_TEXT[:40], tokens, requests=8)
        pages.append(await server.page())
    decoded = {
        metric.labels["dp_rank"]: metric.amount
        for metric in metrics(pages[1], ("sglang:realtime_tokens_total",))
        if metric.labels["mode"] == "decode"
    }
    assert set(decoded) == {"0", "1"}
    assert min(decoded.values()) >= 4 * tokens - 4
    samples = [_sample(time_s, page) for time_s, page in enumerate(pages)]
    acceptance = measure_acceptance(mtp, samples, Window(start_s=0.0, end_s=1.0))
    expected = (tokens - 1) / steps(0, drafts, tokens - 1)
    assert acceptance.length == pytest.approx(expected, rel=1e-6)


def _sample(time_s: float, page: str) -> CounterSample:
    read = sglang.counters(page)
    counters = read if isinstance(read, SpecCounters) else None
    return CounterSample(
        time_s=time_s, process="aggregated-0", counters=counters, gauges=() if counters else read or ()
    )
