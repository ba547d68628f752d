"""From raw requests to distributions, rates and a point's result."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from measured import (
    MTP,
    SIMULATED_POWER,
    counter_samples,
    make_point,
    make_request,
    power_samples,
    steady_load,
)
from mtpbench.measure import latencies, measure, rates, summarise
from mtpbench.metrics.request_table import RequestTable
from mtpbench.metrics.window import Window, whole_window
from mtpbench.records import (
    ClientHealth,
    PointResult,
    Reason,
    RequestRecord,
    RunFacts,
    Simulation,
    from_json,
    to_json,
)
from mtpbench.store import RawPoint

FACTS = RunFacts(power_source=SIMULATED_POWER, counter_processes=("worker",))
CLIENT = ClientHealth(reader_lag_p99_s=0.001, send_lag_p99_s=0.0, cpu_share=0.2, achieved_concurrency=2.0)


def table(records):
    return RequestTable.from_records(records)


def test_rates_count_tokens_by_their_own_times_and_prompts_in_proportion():
    total = rates(table(steady_load()), Window(start_s=1.0, end_s=3.5), gpus=2)
    assert total.input_tokens == pytest.approx(20 / 4 * 100)
    assert total.output_tokens == 2 * 10
    assert total.input_tps == pytest.approx(200)
    assert total.output_tps == pytest.approx(8)
    assert total.tput_tps_per_gpu == pytest.approx(104)
    assert total.output_tps_per_gpu == pytest.approx(4)
    assert total.mean_in_flight == pytest.approx(2.0)
    assert total.requests_completed == 4


def test_a_prompt_counts_as_much_as_its_output_lies_in_the_window():
    records = [make_request(0, 0, 0.0, [1, 2, 3, 4])]
    shares = [rates(table(records), Window(start_s=s, end_s=s + 1), 1).input_tokens for s in (0, 1, 3, 4)]
    assert shares == pytest.approx([25, 25, 25, 0])


def test_rates_take_several_tokens_per_chunk_from_the_servers_count():
    records = [make_request(0, 0, 0.0, [1, 2, 3], chunk_tokens=(1, 5, 8), output_tokens=8)]
    output_tokens = [
        rates(table(records), Window(start_s=s, end_s=s + 1), 1).output_tokens for s in (0, 1, 2)
    ]
    assert output_tokens == [1, 4, 3]


def test_rates_spread_tokens_evenly_where_the_server_does_not_count_along():
    records = [make_request(0, 0, 0.0, [1, 2, 3, 4], chunk_tokens=None, output_tokens=10)]
    assert rates(table(records), Window(start_s=0, end_s=2), 1).output_tokens == pytest.approx(5)


def test_the_final_usage_corrects_the_running_count():
    records = [make_request(0, 0, 0.0, [1, 2], chunk_tokens=(1, 3), output_tokens=4)]
    assert rates(table(records), Window(start_s=0, end_s=2), 1).output_tokens == 4


def test_tokens_of_failed_requests_do_not_count():
    failed = make_request(0, 0, 0.0, [1, 2], error="disconnected", output_tokens=None)
    total = rates(table([failed]), Window(start_s=0, end_s=2), 1)
    assert (total.input_tokens, total.output_tokens, total.requests_completed) == (0, 0, 0)


@st.composite
def runs(draw) -> list[RequestRecord]:
    """Runs of any shape in which every request ended well."""
    records = []
    for index in range(draw(st.integers(1, 8))):
        sent = draw(st.floats(0, 10))
        gaps = draw(st.lists(st.floats(0.001, 5), min_size=1, max_size=6))
        steps = draw(st.lists(st.integers(1, 5), min_size=len(gaps), max_size=len(gaps)))
        counted = draw(st.booleans())
        tokens = tuple(int(n) for n in np.cumsum(steps))
        times = sent + np.cumsum(gaps)
        records.append(
            make_request(
                index,
                index,
                sent,
                [float(t) for t in times],
                chunk_tokens=tokens if counted else None,
                output_tokens=tokens[-1],
                prompt_tokens=draw(st.integers(1, 500)),
            )
        )
    return records


@given(runs(), st.floats(0.05, 0.95))
def test_no_token_is_lost_or_counted_twice(records, cut):
    """Rate × duration over the whole run, or over two halves of it, is the number of tokens."""
    requests = table(records)
    whole = whole_window(requests)
    assert whole is not None
    middle = whole.start_s + cut * whole.duration_s
    parts = [
        rates(requests, Window(start_s=a, end_s=b), 3)
        for a, b in ((whole.start_s, middle), (middle, whole.end_s))
    ]
    outputs = sum(record.output_tokens or 0 for record in records)
    inputs = sum(record.prompt_tokens or 0 for record in records)
    everything = rates(requests, whole, 3)
    assert everything.output_tps * everything.duration_s == pytest.approx(outputs)
    assert everything.tput_tps_per_gpu * 3 * everything.duration_s == pytest.approx(inputs + outputs)
    assert sum(part.output_tokens for part in parts) == pytest.approx(outputs)
    assert sum(part.input_tokens for part in parts) == pytest.approx(inputs)
    assert sum(part.requests_completed for part in parts) == len(records)


def test_tpot_leaves_out_the_tokens_of_the_first_chunk_where_they_are_known():
    records = [make_request(0, 0, 0.0, [1.0, 2.0], chunk_tokens=(3, 8), output_tokens=8)]
    figures = latencies(table(records), np.array([True]))
    assert figures.tpot_s.tolist() == [pytest.approx(1 / 5)]
    assert figures.tpot_basis == "known_first_chunk"


def test_tpot_assumes_one_token_in_the_first_chunk_where_any_request_does_not_say():
    records = [
        make_request(0, 0, 0.0, [1.0, 2.0], chunk_tokens=(3, 8), output_tokens=8),
        make_request(1, 0, 0.0, [1.0, 2.0], chunk_tokens=None, output_tokens=8),
    ]
    figures = latencies(table(records), np.array([True, True]))
    assert figures.tpot_s.tolist() == [pytest.approx(1 / 7)] * 2
    assert figures.tpot_basis == "assumed_one_token"


@pytest.mark.parametrize(("outputs", "chunks", "first"), [(64, 4, 16), (64, 5, 1), (60, 4, 12), (200, 4, 16)])
def test_the_first_chunk_holds_what_full_later_ones_cannot_have_held(outputs, chunks, first):
    """With a stream interval of 16 and no counts: 4 events for 64 tokens are 16 each."""
    times = [16 / 50 * i for i in range(1, chunks + 1)]
    record = make_request(0, 0, 0.0, times, chunk_tokens=None, output_tokens=outputs)
    figures = latencies(table([record]), np.array([True]), None, 16.0)
    assert figures.tpot_s.tolist() == [pytest.approx((times[-1] - times[0]) / (outputs - first))]
    assert figures.tpot_basis == ("least_first_chunk" if first > 1 else "assumed_one_token")
    assert figures.first_chunk_tokens is None


def test_tpot_is_undefined_for_one_output_token():
    figures = latencies(table([make_request(0, 0, 0.0, [1.0])]), np.array([True]))
    assert len(figures.tpot_s) == 0
    assert figures.tpot_basis is None
    assert figures.ttft_s.tolist() == [1.0]


def test_a_summary_interpolates_percentiles_and_is_none_for_nothing():
    distribution = summarise(np.arange(101.0))
    assert distribution is not None
    assert (
        distribution.count,
        distribution.mean,
        distribution.p10,
        distribution.p50,
        distribution.p99,
        distribution.max,
    ) == (101, 50, 10, 50, 99, 100)
    assert summarise(np.empty(0)) is None


def test_measure_brings_everything_together():
    point = make_point(arm=MTP)
    result = measure(
        point,
        RawPoint(
            requests=table(steady_load()),
            counters=tuple(counter_samples()),
            power=tuple(power_samples()),
            client=CLIENT,
            facts=FACTS,
        ),
    )
    assert result.valid, result.reasons
    assert (result.requests, result.failed_requests, result.errors) == (6, 0, {})
    assert result.steady is not None
    assert result.whole is not None
    assert (result.steady.start_s, result.steady.end_s) == (1.0, 4.0)
    assert (result.whole.start_s, result.whole.end_s) == (0.0, 4.0)
    assert result.ttft_s is not None
    assert result.ttft_s.p50 == pytest.approx(0.25)
    assert result.e2el_s is not None
    assert result.e2el_s.p50 == pytest.approx(1.0)
    assert result.interactivity_tps == pytest.approx(4.0)
    assert result.interactivity_p99_tps == pytest.approx(4.0)
    assert result.acceptance.length == pytest.approx(2.5)
    assert result.energy.energy_j == pytest.approx(2 * 500 * 3)
    tokens = result.steady.input_tokens + result.steady.output_tokens
    assert result.energy.joules_per_token == pytest.approx(3000 / tokens)
    assert (result.simulated, result.clock) == (False, "real")


@pytest.mark.parametrize(
    ("cached", "share"),
    [
        ((None, None, None, None, None, None, None, None), None),
        ((0, 0, 0, 0, 0, 0, 0, 0), 0.0),
        ((None, None, None, 64, None, None, None, None), 64 / 600),
        ((64, None, None, None, None, None, None, None), 0.0),
        ((64, 64, 50, 50, 50, 50, 50, 50), 0.5),
    ],
)
def test_a_prompt_without_a_count_had_no_cached_token_where_others_have_one(cached, share):
    """vLLM and SGLang leave out a count of 0; the first two requests are of the warm-up."""
    load = steady_load()
    records = [dataclasses.replace(r, cached_prompt_tokens=n) for r, n in zip(load, cached, strict=True)]
    raw = RawPoint(requests=table(records), counters=(), power=(), client=CLIENT, facts=FACTS)
    got = measure(make_point(), raw).cached_prompt_share
    assert got == (None if share is None else pytest.approx(share))


def test_a_result_survives_json_and_holds_no_nan():
    result = measure(
        make_point(arm=MTP),
        RawPoint(
            requests=table(steady_load()),
            counters=tuple(counter_samples()),
            power=tuple(power_samples()),
            client=CLIENT,
            facts=FACTS,
        ),
    )
    text = json.dumps(to_json(result), allow_nan=False)
    assert from_json(PointResult, json.loads(text)) == result


def test_nothing_sent_gives_null_figures_and_the_reason():
    facts = RunFacts(
        start_failed="decode-0: exited with code 1",
        power_reason=Reason(code="nothing_ran", detail="nothing ran"),
    )
    result = measure(make_point(arm=MTP), RawPoint(requests=table([]), facts=facts))
    figures = (result.ttft_s, result.tpot_s, result.steady, result.whole, result.interactivity_tps)
    assert figures == (None,) * 5
    assert result.acceptance.reason == "no_window"
    assert (result.energy.energy_j, result.energy.reason) == (
        None,
        Reason(code="nothing_ran", detail="nothing ran"),
    )
    assert [(r.code, r.detail) for r in result.reasons] == [("start_failed", "decode-0: exited with code 1")]
    json.dumps(to_json(result), allow_nan=False)


def test_distributions_cover_measured_requests_that_ended_in_the_window():
    records = steady_load()
    records[-1] = make_request(7, 1, 3.0, [3.5, 5.0])  # ends after slot 0 ran dry
    result = measure(make_point(), RawPoint(requests=table(records), client=CLIENT))
    assert result.ttft_s is not None
    assert (result.ttft_s.count, result.requests) == (5, 6)


def test_errors_are_counted_by_code_among_measured_requests():
    records = steady_load(rounds=60)
    records[0] = dataclasses.replace(records[0], error="timeout")
    records[9] = dataclasses.replace(records[9], error="http_503", output_tokens=None)
    result = measure(make_point(), RawPoint(requests=table(records), client=CLIENT))
    assert (result.requests, result.failed_requests, result.errors) == (118, 1, {"http_503": 1})


def test_chunks_that_all_came_at_once_give_no_interactivity():
    records = [make_request(i, 0, i, [i + 0.5, i + 0.5]) for i in range(4)]
    result = measure(make_point(concurrency=1), RawPoint(requests=table(records), client=CLIENT))
    assert result.tpot_s is not None
    assert (result.tpot_s.p50, result.interactivity_tps) == (0.0, None)


def test_simulated_results_say_so():
    point = make_point(simulation=Simulation(profile="p", clock="scaled", speed=10))
    result = measure(point, RawPoint(requests=table(steady_load()), client=CLIENT))
    assert (result.simulated, result.clock) == (True, "scaled")
