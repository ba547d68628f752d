"""Acceptance from counter differences, and the published acceptance lengths."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from measured import MTP, OFF, counter_samples, make_point
from mtpbench.errors import InputError
from mtpbench.golden import even_rates, golden_length, golden_rates, golden_table
from mtpbench.metrics.acceptance import measure_acceptance
from mtpbench.metrics.window import Window
from mtpbench.records import (
    AcceptancePolicy,
    Arm,
    CounterSample,
    CounterSource,
    DepthRange,
    DepthRule,
    GoldenTable,
    Point,
    SpecCounters,
    SpecGauge,
    Speculation,
    to_json,
)

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
POINT = make_point(arm=MTP)
THINKING_ON = GoldenTable(model="deepseek-v4-pro", method="mtp", mode="thinking_on")
VLLM = CounterSource(kind="metrics", engine="vllm")
WINDOW = Window(start_s=1.0, end_s=4.0)


def lose(samples, keep):
    """The same scrapes, those that do not match failed."""
    return [s if keep(s.time_s) else dataclasses.replace(s, counters=None, reason="timeout") for s in samples]


def test_length_rate_and_positions_come_from_differences_over_the_window():
    got = measure_acceptance(POINT, counter_samples(), WINDOW, ["worker"], VLLM)
    assert got.length == pytest.approx(2.5)
    assert got.rate == pytest.approx(0.5)
    assert got.per_position == pytest.approx((0.8, 0.5, 0.2))
    assert got.drafts == pytest.approx(30)
    assert (got.source, got.reason) == (VLLM, None)


def test_what_was_counted_before_the_window_does_not_matter():
    before = [
        CounterSample(
            time_s=t, process="worker", counters=SpecCounters(drafts=d, draft_tokens=d, accepted_tokens=a)
        )
        for t, d, a in ((0.0, 1000, 0), (1.5, 1000, 0), (3.5, 1100, 90))
    ]
    assert measure_acceptance(POINT, before, WINDOW).length == pytest.approx(1.9)


def test_workers_are_summed_not_averaged():
    samples = counter_samples("d0", drafts_per_s=30) + counter_samples("d1", accepted=(0, 0, 0))
    got = measure_acceptance(POINT, samples, WINDOW, ["d0", "d1"])
    assert got.length == pytest.approx(1 + 1.5 * 0.75)
    assert got.per_position == pytest.approx((0.6, 0.375, 0.15))


def test_only_the_workers_that_verify_drafts_count():
    samples = counter_samples("decode") + counter_samples("prefill", accepted=(10, 10, 10))
    assert measure_acceptance(POINT, samples, WINDOW, ["decode"]).length == pytest.approx(2.5)


def test_samples_that_bracket_a_short_window_serve_where_too_few_lie_inside():
    got = measure_acceptance(POINT, counter_samples(), Window(start_s=1.1, end_s=1.4))
    assert got.length == pytest.approx(2.5)


def test_positions_are_unknown_where_a_worker_does_not_say():
    silent = [
        dataclasses.replace(s, process="b", counters=dataclasses.replace(s.counters, per_position=()))
        for s in counter_samples()
        if s.counters
    ]
    got = measure_acceptance(POINT, counter_samples() + silent, WINDOW)
    assert got.per_position is None
    assert got.length == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("reason", "samples", "expected"),
    [
        ("no_counters", [], ()),
        ("no_counters", lose(counter_samples(), lambda t: False), ("worker",)),
        ("worker_missing", counter_samples("d0"), ("d0", "d1")),
        ("worker_vanished", lose(counter_samples(), lambda t: t < 2), ("worker",)),
        ("too_few_samples", [s for s in counter_samples() if 1 <= s.time_s < 2], ()),
        ("no_drafts", counter_samples(drafts_per_s=0), ()),
        ("impossible", counter_samples(accepted=(20, 20, 20)), ()),
        (
            "counter_reset",
            [
                *(s for s in counter_samples() if s.time_s < 2.5),
                *(dataclasses.replace(s, time_s=s.time_s + 2.5) for s in counter_samples() if s.time_s < 2.5),
            ],
            (),
        ),
    ],
)
def test_what_is_not_known_is_null_with_a_reason(reason, samples, expected):
    got = measure_acceptance(POINT, samples, WINDOW, expected)
    assert (got.length, got.rate, got.per_position, got.drafts, got.reason) == (
        None,
        None,
        None,
        None,
        reason,
    )


def test_one_lost_scrape_does_not_matter():
    got = measure_acceptance(
        POINT, lose(counter_samples(), lambda t: t not in (2.0, 4.0)), WINDOW, ["worker"]
    )
    assert got.length == pytest.approx(2.5)


def test_speculation_off_is_null_and_says_so_if_the_engine_drafts_all_the_same():
    for samples, reason in (
        ([], "speculation_off"),
        (counter_samples(drafts_per_s=0, accepted=(0, 0, 0)), "speculation_off"),
        (counter_samples(), "off_but_drafting"),
    ):
        got = measure_acceptance(make_point(arm=OFF), samples, WINDOW)
        assert (got.length, got.reason) == (None, reason)


def test_no_window_is_null():
    assert measure_acceptance(POINT, counter_samples(), None).reason == "no_window"


@pytest.mark.parametrize("engine", ["vllm", "llamacpp"])
def test_real_engines_counters_give_the_crafted_models_length(engine):
    """The crafted model accepts 2.5 tokens per step in closed form."""

    def read(when):
        text = (CAPTURES / f"{engine}_crafted_mtp3_metrics_{when}.txt").read_text()
        sums = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = sample.name.partition("spec_decode_num_")[2]
                sums[name] = sums.get(name, 0.0) + sample.value
        return SpecCounters(
            drafts=sums.get("drafts_total", 0),
            draft_tokens=sums.get("draft_tokens_total", 0),
            accepted_tokens=sums.get("accepted_tokens_total", 0),
        )

    samples = [
        CounterSample(time_s=t, process="w", counters=read(when))
        for t, when in ((1.0, "before"), (4.0, "after"))
    ]
    assert measure_acceptance(POINT, samples, WINDOW).length == pytest.approx(2.5, abs=0.04)


def test_golden_rates_are_the_growth_of_the_published_lengths():
    assert golden_rates(golden_table(THINKING_ON), 3) == pytest.approx((0.79, 0.48, 0.22))


@pytest.mark.parametrize("mode", ["thinking_on", "thinking_off"])
@pytest.mark.parametrize("drafts", range(1, 9))
def test_golden_rates_keep_every_published_length(mode, drafts):
    rates = golden_rates(golden_table(replace(THINKING_ON, mode=mode)), drafts)
    length = golden_length(replace(THINKING_ON, mode=mode), drafts)
    assert 1 + sum(rates) == pytest.approx(length)
    assert list(rates) == sorted(rates, reverse=True)
    assert min(rates) >= 0
    assert max(rates) <= 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_golden_rates_of_any_possible_table_are_rates_that_sum_to_its_length(shares):
    """Whatever the noise in the table, the rates never rise, lie in [0, 1] and keep the length."""
    table = {k: 1 + k * share for k, share in enumerate(shares, start=1)}
    rates = golden_rates(table, len(shares))
    assert all(0 <= rate <= 1 for rate in rates)
    assert all(a >= b for a, b in itertools.pairwise(rates))
    assert 1 + sum(rates) == pytest.approx(table[len(shares)])


@pytest.mark.parametrize("length", [0.9, 4.1])
def test_an_impossible_length_is_refused(length):
    with pytest.raises(InputError, match=r"lies in \[1, 4\]"):
        golden_rates({1: 1.5, 2: 2.0, 3: length}, 3)


@pytest.mark.parametrize(
    ("names", "known"),
    [
        ({"model": "gpt"}, "deepseek-v4-pro"),
        ({"method": "eagle"}, "mtp"),
        ({"mode": "loud"}, "thinking_on, thinking_off"),
        ({}, "1, 2, 3, 4, 5, 6, 7, 8"),
    ],
)
def test_an_unknown_golden_name_lists_the_known_ones(names, known):
    with pytest.raises(InputError, match=f"known: .*{known}"):
        golden_length(replace(THINKING_ON, **names), 9)


@given(st.integers(1, 64).flatmap(lambda k: st.tuples(st.just(k), st.floats(1, k + 1))))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_even_rates_sum_to_their_length_and_each_draft_is_as_likely_as_the_one_before(drawn):
    drafts, length = drawn
    rates = even_rates(length, drafts)
    assert 1 + sum(rates) == pytest.approx(length, abs=1e-6)
    assert rates == pytest.approx([rates[0] ** i for i in range(1, drafts + 1)], abs=1e-9)
    assert all(0 <= rate <= 1 for rate in rates)


def test_a_table_with_a_hole_or_no_draft_is_refused():
    with pytest.raises(InputError, match="for 2 draft tokens"):
        golden_rates({1: 1.5, 3: 2.0}, 3)
    with pytest.raises(InputError, match="at least 1"):
        golden_rates({1: 1.5}, 0)


def gauge_sample(
    time_s: float, lengths: dict[str, float], calls: dict[str, float] | None = None
) -> CounterSample:
    gauges = tuple(
        SpecGauge(rank=rank, length=length, verify_calls=calls[rank] if calls else None)
        for rank, length in lengths.items()
    )
    return CounterSample(time_s=time_s, process="decode-0", counters=None, gauges=gauges)


def test_gauges_are_averaged_over_ranks_weighted_by_verification_steps() -> None:
    samples = [
        gauge_sample(1.0, {"0": 9.0, "1": 9.0}, {"0": 100, "1": 100}),
        gauge_sample(2.0, {"0": 2.0, "1": 3.0}, {"0": 130, "1": 110}),
        gauge_sample(3.0, {"0": 2.0, "1": 3.0}, {"0": 160, "1": 120}),
    ]
    found = measure_acceptance(make_point(arm=MTP), samples, Window(start_s=0.9, end_s=3.1), source=VLLM)
    assert found.length == pytest.approx((2.0 * 60 + 3.0 * 20) / 80)
    assert found.drafts == 80
    assert found.rate == pytest.approx((found.length - 1) / 3)
    assert found.per_position is None
    assert "a gauge, mean of 4 samples, weighted by verification steps" in found.source_text


def test_gauges_without_a_count_of_steps_are_averaged_and_say_so() -> None:
    samples = [gauge_sample(float(t), {"": 2.0 + t / 10}) for t in range(5)]
    found = measure_acceptance(make_point(arm=MTP), samples, Window(start_s=-1, end_s=5), source=VLLM)
    assert found.length == pytest.approx(2.25)
    assert found.drafts is None
    assert "unweighted" in found.source_text


def test_a_gauge_of_a_rank_without_requests_has_no_weight() -> None:
    """SGLang's gauge is 0.0 on a rank that has served nothing; no acceptance length lies below 1."""
    samples = [gauge_sample(float(t), {"0": 2.5, "1": 0.0, "2": 0.0}) for t in range(5)]
    found = measure_acceptance(make_point(arm=MTP), samples, Window(start_s=-1, end_s=5))
    assert (found.length, found.rate) == (2.5, 0.5)
    idle = [gauge_sample(float(t), {"0": 0.0}) for t in range(5)]
    assert measure_acceptance(make_point(arm=MTP), idle, Window(start_s=-1, end_s=5)).reason == "no_drafts"


def steps_sample(time_s: float, steps: float, accepted: float) -> CounterSample:
    counters = SpecCounters(drafts=steps, draft_tokens=None, accepted_tokens=accepted)
    return CounterSample(time_s=time_s, process="decode-0", counters=counters)


def test_drafted_tokens_follow_from_steps_where_the_engine_does_not_count_them() -> None:
    """162 steps that sent 398 tokens besides the first of each request, as on a real SGLang."""
    samples = [steps_sample(0.0, 69, 100), steps_sample(9.0, 231, 100 + 398 - 162)]
    found = measure_acceptance(make_point(arm=MTP), samples, Window(start_s=0, end_s=9))
    assert found.length == pytest.approx(398 / 162)
    assert found.rate == pytest.approx((398 / 162 - 1) / 3)


def test_accepted_tokens_that_fall_by_an_aborted_request_are_no_reset() -> None:
    samples = [steps_sample(0.0, 10, 15), steps_sample(4.0, 10, 14), steps_sample(9.0, 30, 44)]
    found = measure_acceptance(make_point(arm=MTP), samples, Window(start_s=0, end_s=9))
    assert found.length == pytest.approx(1 + 29 / 20)


def test_tokens_that_fell_by_many_aborted_requests_are_no_length() -> None:
    samples = [steps_sample(0.0, 10, 15), steps_sample(9.0, 30, -65)]
    found = measure_acceptance(make_point(arm=MTP), samples, Window(start_s=0, end_s=9))
    assert (found.length, found.reason) == (None, "impossible")
    early = [steps_sample(0.0, 100, -350), steps_sample(9.0, 300, -50)]
    found = measure_acceptance(make_point(arm=MTP), early, Window(start_s=0, end_s=9))
    assert found.length == pytest.approx(2.5)


def test_counters_begin_at_0_where_a_server_has_only_its_gauge_before() -> None:
    """SGLang's counters have no series before its first request has ended."""
    samples = [
        gauge_sample(0.0, {"": 0.0}),
        gauge_sample(1.0, {"": 2.5}),
        *(steps_sample(t, 10 * t, 15 * t) for t in (8.0, 9.0)),
    ]
    samples = [dataclasses.replace(sample, process="decode-0") for sample in samples]
    found = measure_acceptance(make_point(arm=MTP), samples, Window(start_s=0, end_s=9))
    assert (found.length, found.drafts) == (2.5, 90)


def test_a_worker_that_served_nothing_adds_nothing() -> None:
    """Fewer users than workers: an idle SGLang has its gauge of 0.0, and never a counter."""
    idle = [dataclasses.replace(gauge_sample(float(t), {"": 0.0}), process="decode-1") for t in range(10)]
    samples = [steps_sample(float(t), 10.0 * t, 15.0 * t) for t in range(10)] + idle
    window = Window(start_s=0, end_s=9)
    found = measure_acceptance(make_point(arm=MTP), samples, window, ["decode-0", "decode-1"])
    assert (found.length, found.drafts) == (2.5, 90)


def test_an_arm_without_speculation_whose_server_drafts_is_found_by_steps_and_by_gauges() -> None:
    off = make_point(arm=OFF)
    window = Window(start_s=0, end_s=9)
    rising, still = [steps_sample(0.0, 10, 15), steps_sample(9.0, 30, 44)], [steps_sample(0.0, 10, 15)] * 2
    assert measure_acceptance(off, rising, window).reason == "off_but_drafting"
    assert measure_acceptance(off, still, window).reason == "speculation_off"
    assert measure_acceptance(off, [gauge_sample(1.0, {"0": 2.0})], window).reason == "off_but_drafting"
    assert measure_acceptance(off, [gauge_sample(1.0, {"0": 0.0})], window).reason == "speculation_off"


def test_a_reset_of_the_gauges_counter_makes_acceptance_unknown() -> None:
    samples = [gauge_sample(1.0, {"0": 2.0}, {"0": 50}), gauge_sample(2.0, {"0": 2.0}, {"0": 10})]
    found = measure_acceptance(make_point(arm=MTP), samples, Window(start_s=0.9, end_s=2.1))
    assert (found.length, found.reason) == (None, "counter_reset")


def of_arm(**changes) -> Point:
    speculation = Speculation(
        **{"draft_tokens": 3, "acceptance": AcceptancePolicy(mode="measured"), **changes}
    )
    return make_point(arm=Arm(name="it", speculation=speculation))


NGRAM = of_arm(method="ngram")
BY_BATCH = of_arm(
    depth=DepthRule(
        kind="by_batch",
        ranges=(
            DepthRange(first=1, last=8, draft_tokens=3),
            DepthRange(first=9, last=64, draft_tokens=0),
        ),
    )
)


def test_steps_do_not_follow_from_drafted_tokens_alone() -> None:
    """An engine that drafts 1 a step where the arm says 3 would seem to give 3.4 tokens a step, not 1.8."""

    def sample(time_s: float) -> CounterSample:
        counters = SpecCounters(drafts=None, draft_tokens=100 * time_s, accepted_tokens=80 * time_s)
        return CounterSample(time_s=time_s, process="aggregated-0", counters=counters)

    found = measure_acceptance(POINT, [sample(0.0), sample(9.0)], Window(start_s=0, end_s=9))
    assert (found.length, found.rate, found.drafts, found.reason) == (None, None, None, "steps_unknown")


@pytest.mark.parametrize(
    ("per_step", "rate", "decoded_tps", "length"),
    [
        (3, 0.5, 250.0, 2.5),
        (3, 0.5, 262.0, 2.5),  # what is counted at the edges makes a few percent
        (1, 0.8, 180.0, None),
        (2, 0.6, 220.0, None),
        (3, 0.5, 120.0, None),  # fewer tokens came than were accepted
        (3, 0.5, None, None),
    ],
)
def test_steps_follow_from_drafted_tokens_where_the_clients_tokens_tell_the_same_depth(
    per_step: int, rate: float, decoded_tps: float | None, length: float | None
) -> None:
    """100 steps a second, which the engine does not count; the arm says that 3 tokens are drafted in each."""
    samples = [
        CounterSample(
            time_s=float(t),
            process="worker",
            counters=SpecCounters(
                drafts=None, draft_tokens=100.0 * per_step * t, accepted_tokens=100.0 * per_step * rate * t
            ),
        )
        for t in range(6)
    ]
    found = measure_acceptance(POINT, samples, WINDOW, blocks=blocks_of(1), decoded_tps=decoded_tps)
    assert found.length == (pytest.approx(length) if length else None)
    assert found.reason == (None if length else "steps_unknown")
    assert found.draft_tokens_per_step is None
    assert found.length_by_block == ((pytest.approx(2.5),) if length else None)


def test_drafts_of_a_step_are_known_where_the_engine_counts_steps_and_drafted_tokens() -> None:
    got = measure_acceptance(POINT, counter_samples(), WINDOW)
    assert (got.draft_tokens_per_step, got.drafting_steps_only) == (pytest.approx(3), False)
    steps = [steps_sample(0.0, 69, 100), steps_sample(9.0, 231, 336)]
    assert measure_acceptance(POINT, steps, Window(start_s=0, end_s=9)).draft_tokens_per_step is None


@pytest.mark.parametrize("point", [NGRAM, BY_BATCH, of_arm(depth=DepthRule(kind="adaptive"))])
def test_where_steps_may_draft_nothing_the_counted_ones_are_those_that_drafted(point) -> None:
    got = measure_acceptance(point, counter_samples(), WINDOW, source=VLLM)
    assert (got.drafting_steps_only, got.length) == (True, pytest.approx(2.5))
    assert got.source_text.endswith(", of the steps that drafted")
    # One that counts steps alone may count those too; and what they drafted in all is unknown.
    steps = [steps_sample(0.0, 69, 100), steps_sample(9.0, 231, 336)]
    got = measure_acceptance(point, steps, Window(start_s=0, end_s=9))
    assert (got.drafting_steps_only, got.rate) == (False, None)
    assert got.length == pytest.approx(398 / 162)


def test_tokens_per_step_hold_the_steps_that_drafted_nothing_too() -> None:
    """10 steps a second draft, and 15 of their drafts are accepted: 25 tokens; other steps give 75 more."""
    got = measure_acceptance(NGRAM, counter_samples(), WINDOW, decoded_tps=100.0)
    assert got.length == pytest.approx(2.5)
    assert got.tokens_per_step == pytest.approx(100 / 85)
    assert measure_acceptance(NGRAM, counter_samples(), WINDOW).tokens_per_step is None
    # Fewer tokens than were accepted, or more than 4 a step: client and counters contradict each other.
    for decoded_tps in (10.0, 18.0):
        contradicted = measure_acceptance(NGRAM, counter_samples(), WINDOW, decoded_tps=decoded_tps)
        assert contradicted.tokens_per_step is None


def test_steps_that_follow_from_a_configured_depth_are_unknown_where_the_depth_changes() -> None:
    assumed = [
        replace(s, counters=replace(s.counters, per_position=())) for s in counter_samples() if s.counters
    ]
    assert measure_acceptance(POINT, assumed, WINDOW).length == pytest.approx(2.5)
    assert measure_acceptance(BY_BATCH, assumed, WINDOW).reason == "steps_unknown"


def test_a_gauge_above_what_a_step_can_give_is_impossible() -> None:
    samples = [gauge_sample(float(t), {"0": 2.5, "1": 4.5}) for t in range(5)]
    assert measure_acceptance(POINT, samples, Window(start_s=-1, end_s=5)).reason == "impossible"


def test_a_worker_that_counts_the_impossible_spoils_the_sum() -> None:
    """Accepted 5 of 3 drafted on one worker of four: the sum of all would look sound."""
    odd = [
        replace(
            s, counters=SpecCounters(drafts=s.time_s, draft_tokens=3 * s.time_s, accepted_tokens=5 * s.time_s)
        )
        for s in counter_samples()
    ]
    others = [s for name in "abc" for s in counter_samples(name)]
    assert measure_acceptance(POINT, [*odd, *others], WINDOW).reason == "impossible"


def test_a_position_accepted_more_often_than_drafted_is_impossible() -> None:
    samples = counter_samples(accepted=(12, 2, 1))
    assert measure_acceptance(POINT, samples, WINDOW).reason == "impossible"


ODD = st.none() | st.floats() | st.sampled_from([0.0, 1.0, 5.0, 100.0, 1e9, 1e308, -1.0, 2.0**63])
COUNTERS = st.builds(
    SpecCounters,
    drafts=ODD,
    draft_tokens=ODD.map(lambda value: 3.0 if value is None else value),
    accepted_tokens=ODD.map(lambda value: 2.0 if value is None else value),
    per_position=st.lists(st.floats() | st.floats(0, 9), max_size=3).map(tuple),
)
GAUGES = st.builds(
    SpecGauge, rank=st.sampled_from("ab"), length=st.floats() | st.floats(0, 5), verify_calls=ODD
)
ANY_SAMPLES = st.lists(
    st.builds(
        CounterSample,
        time_s=st.floats() | st.floats(0, 6),
        process=st.sampled_from("de"),
        counters=st.none() | COUNTERS,
        gauges=st.lists(GAUGES, max_size=2).map(tuple),
        restarted=st.booleans(),
    ),
    max_size=8,
)


@given(ANY_SAMPLES, st.sampled_from([(), ("d",), ("d", "e")]))
@settings(derandomize=True, deadline=None, max_examples=300)
def test_any_samples_give_an_acceptance_that_can_be_stored_or_a_reason(samples, expected):
    for point in (POINT, make_point(arm=OFF)):
        got = measure_acceptance(point, samples, WINDOW, expected)
        to_json(got)
        assert (got.length is None) == (got.reason is not None)


@given(ANY_SAMPLES, st.sampled_from([POINT, NGRAM, BY_BATCH]), st.sampled_from([1, 3]))
@settings(derandomize=True, deadline=None, max_examples=300)
def test_a_length_is_1_to_k_plus_1_and_a_rate_is_a_share_whatever_is_counted(samples, point, blocks):
    got = measure_acceptance(point, samples, WINDOW, blocks=blocks_of(blocks))
    lengths = [length for length in (got.length, *(got.length_by_block or ())) if length is not None]
    shares = [share for share in (got.rate, *(got.per_position or ())) if share is not None]
    assert all(1 - 1e-6 <= length <= 4 + 1e-6 for length in lengths)
    assert all(-1e-6 <= share <= 1 + 1e-6 for share in shares)


def test_a_rank_that_began_anew_is_a_reset_though_the_sum_rises():
    first, *others = counter_samples()
    inside = next(s for s in others if s.time_s > WINDOW.start_s + 1)
    samples = [first, *(replace(s, restarted=s is inside) for s in others)]
    assert measure_acceptance(POINT, samples, WINDOW).reason == "counter_reset"
    before = [replace(s, restarted=s.time_s < WINDOW.start_s) for s in counter_samples()]
    assert measure_acceptance(POINT, before, WINDOW).length == pytest.approx(2.5)


# --------------------------------------------------------------------------------------------- time blocks
def blocks_of(count: int) -> list[Window]:
    edges = [1.0 + 3.0 * i / count for i in range(count + 1)]
    return [Window(start_s=a, end_s=b) for a, b in itertools.pairwise(edges)]


def test_the_length_of_each_block_is_of_what_all_workers_counted_in_it():
    """Accepted drafts double after second 2.5, in the middle of a block."""
    changing = [
        CounterSample(
            time_s=t / 4,
            process="worker",
            counters=SpecCounters(
                drafts=10 * t, draft_tokens=30 * t, accepted_tokens=10.0 * t + 10.0 * max(0, t - 10)
            ),
        )
        for t in range(21)
    ]
    steady = counter_samples("other", drafts_per_s=120, accepted=(10, 5, 0))
    alone = measure_acceptance(POINT, changing, WINDOW, blocks=blocks_of(6))
    assert alone.length_by_block == pytest.approx((2, 2, 2, 3, 3, 3))
    both = measure_acceptance(POINT, [*changing, *steady], WINDOW, blocks=blocks_of(3))
    assert both.length_by_block == pytest.approx((2.375, 2.5, 2.625))


def test_blocks_of_too_few_readings_or_without_drafts_have_no_length():
    every_half_second = counter_samples()
    assert (
        measure_acceptance(POINT, every_half_second, WINDOW, blocks=blocks_of(3)).length_by_block is not None
    )
    sparse = measure_acceptance(POINT, every_half_second, WINDOW, blocks=blocks_of(6))
    assert (sparse.length, sparse.length_by_block) == (pytest.approx(2.5), None)
    idle = [
        replace(s, counters=SpecCounters(drafts=min(s.time_s, 2.0), draft_tokens=6.0, accepted_tokens=2.0))
        for s in every_half_second
    ]
    assert measure_acceptance(POINT, idle, WINDOW, blocks=blocks_of(3)).length_by_block is None
    assert measure_acceptance(POINT, every_half_second, WINDOW).length_by_block is None
