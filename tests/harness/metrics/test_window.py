"""The steady-state window, and the equal blocks of it from which the error of one run is computed."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from measured import make_point, make_request, steady_load
from mtpbench.measure import measure, rates
from mtpbench.metrics.request_table import RequestTable
from mtpbench.metrics.window import (
    Window,
    cut_blocks,
    describe_blocks,
    in_flight_over_time,
    mean_in_flight,
    open_window,
    point_window,
    steady_window,
    whole_window,
)
from mtpbench.records import Load, PointResult, from_json, to_json
from mtpbench.store import RawPoint


def table(records):
    return RequestTable.from_records(records)


def test_starts_when_the_first_measured_request_is_sent_and_ends_when_a_slot_runs_dry():
    assert steady_window(table(steady_load()), 2) == Window(start_s=1.0, end_s=4.0)


def test_starts_only_when_every_slot_has_streamed_a_token():
    records = steady_load(warmup_rounds=0)
    records[1] = make_request(1, 1, 0.0, [0.875, 1.0])
    assert steady_window(table(records), 2) == Window(start_s=0.875, end_s=4.0)


def test_ends_with_the_slot_that_is_free_first():
    records = steady_load()
    records[-1] = make_request(7, 1, 3.0, [3.125, 3.25])
    assert steady_window(table(records), 2) == Window(start_s=1.0, end_s=3.25)


def test_works_with_one_slot():
    assert steady_window(table(steady_load(slots=1)), 1) == Window(start_s=1.0, end_s=4.0)
    assert steady_window(table(steady_load(slots=1, warmup_rounds=0)), 1) == Window(start_s=0.25, end_s=4.0)


@pytest.mark.parametrize(
    ("records", "concurrency"),
    [
        ([], 1),
        (steady_load(slots=2), 3),
        (steady_load(rounds=2, warmup_rounds=2), 2),
        ([make_request(0, 0, 0.0, [1.0]), make_request(1, 1, 0.0, [], error="timeout", end_s=9.0)], 2),
        ([make_request(0, 0, 0.0, [1.0]), make_request(1, 1, 0.0, [2.0])], 2),
    ],
    ids=["nothing", "an unused slot", "warm-up only", "a slot without a token", "a slot ends too early"],
)
def test_is_none_where_not_all_slots_were_busy(records, concurrency):
    assert steady_window(table(records), concurrency) is None


def test_failed_requests_keep_their_slot_busy():
    records = steady_load()
    records[4] = make_request(4, 0, 2.0, [2.25], end_s=3.0, error="disconnected", output_tokens=None)
    assert steady_window(table(records), 2) == Window(start_s=1.0, end_s=4.0)


def test_the_whole_window_spans_first_send_to_last_end():
    assert whole_window(table(steady_load())) == Window(start_s=0.0, end_s=4.0)
    assert whole_window(table([])) is None


def test_requests_in_flight_are_averaged_over_the_window():
    records = [make_request(0, 0, 0.0, [1.0]), make_request(1, 1, 0.0, [2.0])]
    assert mean_in_flight(table(records), Window(start_s=0.0, end_s=2.0)) == pytest.approx(1.5)
    assert mean_in_flight(table(records), Window(start_s=1.5, end_s=2.0)) == pytest.approx(1.0)


def test_an_open_loop_is_steady_while_its_measured_requests_start():
    records = [make_request(i, i % 3, float(i), [i + 0.5, i + 9.0], warmup=i < 2) for i in range(6)]
    assert open_window(table(records)) == Window(start_s=2.0, end_s=5.0)
    assert point_window(table(records), 3, open_loop=True) == Window(start_s=2.0, end_s=5.0)
    assert open_window(table(records[:3])) is None
    assert open_window(table(records[:2])) is None


def test_concurrency_over_time_averages_to_the_mean():
    records = [make_request(0, 0, 0.0, [1.0]), make_request(1, 1, 0.5, [2.0])]
    window = Window(start_s=0.0, end_s=2.0)
    assert in_flight_over_time(table(records), window, 4) == pytest.approx((1, 2, 1, 1))
    assert mean_in_flight(table(records), window) == pytest.approx(1.25)


WINDOW = Window(start_s=10.0, end_s=110.0)
EVERYWHERE = np.arange(10.5, 110.5, 0.5)


def lives(seconds: float) -> np.ndarray:
    return np.full(9, seconds)


@pytest.mark.parametrize(
    ("life_s", "blocks"), [(1.0, 20), (5.0, 20), (7.0, 14), (20.0, 5), (20.1, 0), (200, 0)]
)
def test_no_block_is_shorter_than_the_median_request_and_there_are_5_to_20(life_s, blocks):
    assert len(cut_blocks(WINDOW, lives(life_s), EVERYWHERE)) == blocks


def test_blocks_are_equal_and_cover_the_window():
    blocks = cut_blocks(WINDOW, lives(14.0), EVERYWHERE)
    assert (blocks[0].start_s, blocks[-1].end_s) == (10.0, 110.0)
    assert [block.duration_s for block in blocks] == pytest.approx([100 / 7] * 7, abs=2e-6)
    assert all(a.end_s == b.start_s for a, b in itertools.pairwise(blocks))


def test_a_block_in_which_nothing_ended_makes_all_of_them_longer():
    late = EVERYWHERE[EVERYWHERE > 22.0]  # the first of 20 blocks ends at 15, the first of 8 at 22.5
    assert len(cut_blocks(WINDOW, lives(1.0), late)) == 8
    assert cut_blocks(WINDOW, lives(1.0), EVERYWHERE[EVERYWHERE > 31.0]) == ()
    assert cut_blocks(WINDOW, np.empty(0), np.empty(0)) == ()


@given(st.lists(st.floats(10, 110), max_size=40), st.floats(0.1, 30))
def test_whatever_ends_when_every_block_has_an_end(ended, life_s):
    blocks = cut_blocks(WINDOW, lives(life_s), np.array(ended))
    assert len(blocks) == 0 or 5 <= len(blocks) <= 20
    assert all(any(block.start_s < end <= block.end_s for end in ended) for block in blocks)


def test_interactivity_of_a_block_is_one_over_the_median_of_what_ended_in_it():
    blocks = (Window(start_s=0, end_s=1), Window(start_s=1, end_s=2))
    found = describe_blocks(
        blocks, (7.0, 9.0), np.array([0.1, 0.2, 0.4, 0.5]), np.array([1.0, 0.5, 0.7, 1.1])
    )
    assert found is not None
    assert (found.duration_s, found.tput_tps_per_gpu) == (1.0, (7.0, 9.0))
    assert found.interactivity_tps == pytest.approx((5.0, 2.0))
    assert describe_blocks((), (), np.empty(0), np.empty(0)) is None
    assert describe_blocks(blocks[:1], (7.0,), np.zeros(1), np.ones(1)) is None


def test_blocks_of_a_point_are_counted_like_its_rates():
    table = RequestTable.from_records(steady_load(rounds=12))
    result = measure(make_point(), RawPoint(requests=table))
    assert result.steady is not None
    assert result.blocks is not None
    assert len(result.blocks.tput_tps_per_gpu) == 11
    assert result.blocks.duration_s == pytest.approx(1.0)
    edges = np.linspace(result.steady.start_s, result.steady.end_s, 12)
    plain = [rates(table, Window(start_s=a, end_s=b), 2) for a, b in itertools.pairwise(edges)]
    assert result.blocks.tput_tps_per_gpu == pytest.approx([one.tput_tps_per_gpu for one in plain])
    assert result.blocks.interactivity_tps == pytest.approx([4.0] * 11)
    assert from_json(PointResult, json.loads(json.dumps(to_json(result)))) == result


def test_an_open_loop_has_blocks_too():
    records = [
        make_request(i, i, i / 2, [i / 2 + 0.1 * k for k in (1, 2, 3)], warmup=i < 2) for i in range(30)
    ]
    point = make_point(concurrency=50, load=Load(pacing="constant", rate_rps=2.0))
    result = measure(point, RawPoint(requests=RequestTable.from_records(records)))
    assert result.steady is not None
    assert result.blocks is not None
    assert result.blocks.interactivity_tps == pytest.approx([10.0] * len(result.blocks.interactivity_tps))
    assert np.mean(result.blocks.tput_tps_per_gpu) == pytest.approx(result.steady.tput_tps_per_gpu)


def test_a_short_window_has_none():
    result = measure(make_point(), RawPoint(requests=RequestTable.from_records(steady_load())))
    assert result.steady is not None
    assert result.blocks is None
