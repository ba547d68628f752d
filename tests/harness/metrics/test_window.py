"""The steady-state window."""

from __future__ import annotations

import pytest

from measured import make_request, steady_load
from mtpbench.metrics.request_table import RequestTable
from mtpbench.metrics.window import (
    Window,
    in_flight_over_time,
    mean_in_flight,
    open_window,
    point_window,
    steady_window,
    whole_window,
)


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
