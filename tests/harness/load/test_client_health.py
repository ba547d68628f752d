"""The load client's notes of itself, and its health over the window."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from loads import job_for

from mtpbench.load.client import PARTS, ProcessNotes, judge_client
from mtpbench.load.request_log import RequestLog
from mtpbench.load.transport import (
    COALESCED_US,
    FEW_SLOTS,
    MOST_LAGS,
    SLEPT_US,
    TICK_COLUMNS,
    ProcessMonitor,
    Scheduler,
)
from mtpbench.metrics.request_table import RequestTable
from mtpbench.records import ClientHealth, RequestRecord


@pytest.fixture
def scheduler(tmp_path):
    spec = job_for(1, concurrency=2)
    prompts, schedule = spec.prepare()
    return Scheduler(spec, prompts, schedule.share(0, 1), RequestLog(tmp_path, 0), 4)


def saved(monitor, path):
    monitor.save(path, NO_PAUSES)
    with np.load(path) as found:
        return found["ticks"], found["lags"]


def test_lags_and_ticks_are_saved(scheduler, tmp_path):
    told = []
    monitor = ProcessMonitor(told.append, 1)
    monitor.reads = 3
    monitor.note_lag(1_000, 20)
    monitor.note_lag(2_000, 30)
    scheduler.next()
    monitor.tick(300_000, scheduler)
    monitor.tick(310_000, scheduler)
    monitor.tick(600_000, scheduler)
    ticks, lags = saved(monitor, tmp_path / "notes.npz")
    assert lags.tolist() == [[1_000, 20], [2_000, 30]]
    columns = dict(zip(TICK_COLUMNS, ticks.T.tolist(), strict=True))
    assert columns["at_us"] == [300_000, 310_000, 600_000]
    assert columns["reads"] == [3] * 3
    assert columns["in_flight"] == [1] * 3
    assert columns["cpu_us"] == sorted(columns["cpu_us"])
    assert told == [scheduler, scheduler]


def test_lags_are_sampled_ever_more_rarely(tmp_path):
    monitor = ProcessMonitor(lambda _: None, 1)
    sampled = 0
    for read in range(1, 4 * MOST_LAGS):
        if not read & monitor.sample_mask:
            monitor.note_lag(read, read)
            sampled += 1
    assert monitor.sample_mask == 3
    assert sampled < 2 * MOST_LAGS
    _, lags = saved(monitor, tmp_path / "notes.npz")
    assert MOST_LAGS // 2 <= len(lags) <= MOST_LAGS
    assert lags[:, 0].tolist() == sorted(set(lags[:, 0].tolist()))
    assert lags[-1, 0] > 4 * MOST_LAGS - 5
    assert (lags[:, 0] == lags[:, 1]).all()


def test_only_events_that_may_have_come_apart_count_as_coalesced():
    monitor = ProcessMonitor(lambda _: None, 1)
    monitor.begin_round(0, 100)
    monitor.begin_round(200, 200 + SLEPT_US)  # it did not sleep: bytes may have waited since the last poll
    monitor.note_events(5, 100 + COALESCED_US)
    monitor.note_events(1, 9_000)
    assert monitor.coalesced == 0
    monitor.note_events(2, 100 + COALESCED_US + 1)
    assert monitor.coalesced == 1
    monitor.begin_round(200, 50_000)  # it slept: nothing had come before it woke
    monitor.note_events(2, 50_000 + COALESCED_US)
    assert monitor.coalesced == 1


KNOWN = ClientHealth(
    hosts=("n0",),
    host_clock_error_s=None,
    workers=2,
    transport="fast",
    stamps="kernel",
    late_starts=3,
    unsent=4,
    clock_drift_s=0.1,
    clock_step_s=0.2,
    descriptor_limit=1024,
    local_ports=28232,
    peak_rss_bytes=7,
)


def record(index, slot, due_s, end_s, **changes):
    made = RequestRecord(
        index=index,
        slot=slot,
        warmup=False,
        scheduled_s=due_s,
        sent_s=due_s,
        end_s=end_s,
        chunk_times_s=(due_s + 0.1, end_s),
        chunk_tokens=(1, 2),
        asked_prompt_tokens=5,
        asked_output_tokens=2,
        prompt_tokens=5,
        output_tokens=2,
        finish_reason="length",
        error=None,
        error_detail=None,
    )
    return dataclasses.replace(made, **changes)


def closed_table(scale=1.0):
    """Two slots, five requests of a second each; the window is (0.1, 5]."""
    records = [record(2 * n + slot, slot, n * 1.0, n + 1.0) for n in range(5) for slot in range(2)]
    late = dataclasses.replace(records[4], sent_s=records[4].sent_s + 0.25)
    return RequestTable.from_records([*records[:4], late, *records[5:]])


NO_PAUSES = np.empty((0, 2), np.int64)


def notes(scale=1.0, cpu=0.5, pauses_s=()):
    """Ticks every 0.1 engine seconds for 10 s: 1,000 reads a second; lags of 1 ms, outside 1 s."""
    at_s = np.arange(0, 10, 0.1)
    us = at_s / scale * 1e6
    ticks = np.stack([us, 1000 * at_s, 10 * at_s, cpu * us, 2 + 0 * us], axis=1)
    lags = np.stack([us, np.where((at_s > 0.1) & (at_s <= 5.0), 1e3, 1e6)], axis=1)
    pauses = np.rint(np.reshape(pauses_s, (-1, 2)) / scale * 1e6).astype(np.int64)
    return ProcessNotes(ticks=np.rint(ticks).astype(np.int64), lags=lags.astype(np.int64), pauses=pauses)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_health_is_judged_over_the_window_in_engine_seconds(scale):
    health = judge_client(
        [notes(scale, 0.5), notes(scale, 0.8)], KNOWN, closed_table(), 2, scale, open_loop=False
    )
    assert (health.transport, health.stamps, health.workers) == ("fast", "kernel", 2)
    assert health.reader_lag_p50_s == health.reader_lag_p99_s == pytest.approx(1e-3 * scale)
    assert health.reads == pytest.approx(2 * 4900, abs=2)
    assert health.coalesced_reads == pytest.approx(2 * 49, abs=2)
    assert health.cpu_share == pytest.approx(0.8, rel=1e-3)
    assert health.achieved_concurrency == pytest.approx(2 - 0.25 / 4.9)
    assert len(health.concurrency_over_time) == PARTS
    assert max(health.concurrency_over_time) == pytest.approx(2.0)
    assert min(health.concurrency_over_time) < 1.9
    assert (health.late_starts, health.unsent, health.descriptor_limit) == (3, 4, 1024)
    assert (health.clock_drift_s, health.clock_step_s) == (0.1, 0.2)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_pauses_are_summed_over_processes_and_cut_to_the_time_that_they_are_of(scale):
    """Requests are sent from 0 to 4 s; the window is (0.1, 5]."""
    first, second = notes(scale, pauses_s=[(-1.0, 0.5)]), notes(scale, pauses_s=[(3.0, 4.5), (6.0, 7.0)])
    health = judge_client([first, second], KNOWN, closed_table(), 2, scale, open_loop=False)
    assert health.pauses == 3
    assert health.paused_s == pytest.approx(0.5 + 1.0)
    assert health.paused_slots == pytest.approx((0.4 + 1.5) / 4.9)
    one_died = judge_client([first], KNOWN, closed_table(), 2, scale, open_loop=False)
    assert (one_died.pauses, one_died.paused_s, one_died.paused_slots) == (None, None, None)
    quiet = judge_client([notes(scale)] * 2, KNOWN, closed_table(), 2, scale, open_loop=False)
    assert (quiet.pauses, quiet.paused_s, quiet.paused_slots) == (0, 0.0, 0.0)


def test_send_lag_leaves_out_warm_up_and_the_slots_first_requests():
    table = RequestTable.from_records(
        [
            record(0, 0, 0.0, 1.0, sent_s=0.9),
            record(1, 0, 1.0, 2.0, sent_s=1.8, warmup=True),
            record(2, 0, 2.0, 3.0, sent_s=2.1),
            record(3, 0, 3.0, 4.0, sent_s=3.1),
        ]
    )
    health = judge_client([notes()], KNOWN, table, 1, 1.0, open_loop=False)
    assert (health.send_lag_p50_s, health.send_lag_p99_s) == pytest.approx((0.1, 0.1))
    health = judge_client([notes()], KNOWN, table, 1, 1.0, open_loop=True)
    assert health.send_lag_p99_s == pytest.approx(0.9, rel=0.05)


def test_what_no_process_noted_is_unknown():
    health = judge_client([], KNOWN, RequestTable.from_records([]), 2, 1.0, open_loop=False)
    unknown = (health.reader_lag_p50_s, health.send_lag_p99_s, health.reads, health.coalesced_reads)
    assert unknown == (None,) * 4
    assert (health.cpu_share, health.achieved_concurrency) == (None, None)
    assert (health.workers, health.concurrency_over_time) == (2, ())
    quiet = ProcessNotes(ticks=np.empty((0, 5), np.int64), lags=NO_PAUSES, pauses=NO_PAUSES)
    health = judge_client([quiet], KNOWN, closed_table(), 2, 1.0, open_loop=False)
    assert (health.reads, health.cpu_share, health.reader_lag_p99_s) == (None, None, None)
    assert health.achieved_concurrency is not None


def test_with_many_slots_not_every_read_is_sampled():
    assert ProcessMonitor(lambda _: None, FEW_SLOTS - 1).sample_mask == 0
    mask = ProcessMonitor(lambda _: None, FEW_SLOTS).sample_mask
    assert mask > 0
    assert mask & (mask + 1) == 0, "it must be a mask of low bits"
