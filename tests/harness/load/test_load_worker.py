"""One client process's part of a load against a small server: what is sent, and what is recorded of it."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from answers import CHUNKED, DONE, LAST_CHUNK, answer, answering, chunk, head, token
from loads import TRANSPORTS, job_for, run_share, serve
from scripted import Server

from mtpbench.metrics.window import open_window, steady_window
from mtpbench.records import Load, Measurement


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return request.param


def test_every_request_is_recorded_with_its_chunks_and_counts(transport):
    outcome, server = serve(answering(), transport=transport)
    assert [record.index for record in outcome.requests] == list(range(8))
    assert [record.warmup for record in outcome.requests] == [True] * 2 + [False] * 6
    assert {record.slot for record in outcome.requests} == {0, 1}
    assert len({tuple(request.json["prompt"]) for request in server.requests}) == 8
    for record in outcome.requests:
        assert (record.error, record.finish_reason) == (None, "length")
        assert (record.prompt_tokens, record.output_tokens) == (8, 4)
        assert (record.asked_prompt_tokens, record.asked_output_tokens) == (8, 4)
        assert record.chunk_tokens == (1, 2, 3, 4)
        stamps = (record.scheduled_s, record.sent_s, *record.chunk_times_s, record.end_s)
        assert list(stamps) == sorted(stamps)
    scheduler = outcome.scheduler
    assert (scheduler.unreachable, scheduler.cut_off, scheduler.failed, scheduler.retried) == (
        False,
        None,
        0,
        0,
    )
    assert outcome.monitor.reads >= 8


def test_each_slot_sends_its_next_request_when_the_last_one_ended(transport):
    outcome, _ = serve(answering(), transport=transport, concurrency=3, measured=9)
    for slot in range(3):
        mine = [record for record in outcome.requests if record.slot == slot]
        assert mine[0].scheduled_s == 0.0
        assert [r.scheduled_s for r in mine[1:]] == [r.end_s for r in mine[:-1]]


class Count:
    """A script's count of the requests that it works on."""

    def __init__(self):
        self.now = self.most = 0
        self.lock = threading.Lock()

    def script(self, pause_s):
        def run(peer):
            while peer.read():
                with self.lock:
                    self.now += 1
                    self.most = max(self.most, self.now)
                pieces = [chunk(token(n)) for n in range(1, 5)]
                peer.send(CHUNKED, *pieces, pause_s=pause_s)
                with self.lock:
                    self.now -= 1
                peer.send(chunk(DONE) + LAST_CHUNK)

        return run


def test_no_more_requests_are_in_flight_than_asked(transport):
    count = Count()
    outcome, _ = serve(count.script(0.002), transport=transport, concurrency=4, measured=20)
    assert count.most == 4
    assert steady_window(outcome.table, 4) is not None
    assert set(outcome.errors) == {None}


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_times_are_engine_seconds_since_the_origin(transport, scale):
    began = time.perf_counter()
    outcome, _ = serve(
        answering(0.02), transport=transport, concurrency=1, warmup=0, measured=1, time_scale=scale
    )
    lasted = time.perf_counter() - began
    (record,) = outcome.requests
    assert 3 * 0.02 * scale * 0.9 <= record.chunk_times_s[-1] - record.chunk_times_s[0]
    assert 0 <= record.sent_s < record.chunk_times_s[0] < record.end_s < lasted * scale


def test_chunks_are_stamped_when_they_came_not_when_the_stream_ended(transport):
    outcome, _ = serve(answering(0.03), transport=transport, concurrency=1, warmup=0, measured=2)
    for record in outcome.requests:
        assert min(np.diff(record.chunk_times_s)) > 0.015


def test_the_kernel_stamps_the_fast_transports_reads():
    """A reader that is slow on purpose still learns when the bytes came."""
    sent = []

    def script(peer):
        peer.read()
        peer.send(CHUNKED)
        for n, pause_s in ((1, 0.02), (2, 0.25)):
            time.sleep(pause_s)
            sent.append(time.perf_counter())
            peer.send(chunk(token(n, asked=2)))
        time.sleep(0.25)
        peer.send(chunk(DONE) + LAST_CHUNK)

    outcome, _ = serve(script, concurrency=1, warmup=0, measured=1, handicap_s=0.2)
    if outcome.monitor.stamps != "kernel":
        pytest.skip("the kernel does not stamp here")
    (record,) = outcome.requests
    origin = outcome.scheduler.origin_ns * 1e-9
    assert [origin + at for at in record.chunk_times_s] == pytest.approx(sent, abs=0.08)
    lags = np.asarray(outcome.monitor._lags).reshape(-1, 2)[:, 1]
    assert max(lags) > 100_000


@pytest.mark.parametrize("odd", [1, 2])
def test_a_read_of_several_events_counts_as_coalesced_once_whatever_they_are(odd):
    """A reader that is slow on purpose gets usual events and odd ones (with a comment) in one read."""
    usual, odd_events = [chunk(token(n)) for n in (2, 3)][:odd], [chunk(b": odd\n" + token(4))] * odd
    late = b"".join([*usual, *odd_events])

    def script(peer):
        peer.read()
        peer.send(CHUNKED + chunk(token(1)), late, pause_s=0.03)
        time.sleep(0.2)
        peer.send(chunk(DONE) + LAST_CHUNK)

    outcome, _ = serve(script, concurrency=1, warmup=0, measured=1, handicap_s=0.1)
    (record,) = outcome.requests
    assert record.error is None
    assert outcome.monitor.coalesced == 1


def test_progress_is_said_while_it_runs(transport):
    outcome, _ = serve(answering(0.08), transport=transport, concurrency=2, warmup=0, measured=4)
    assert len(outcome.reports) >= 2
    assert 0 < outcome.reports[0]["in_flight"] <= 2
    assert [counts["ended"] for counts in outcome.reports] == sorted(
        counts["ended"] for counts in outcome.reports
    )
    assert outcome.reports[-1]["output_tokens"] <= 16
    assert {counts["failed"] for counts in outcome.reports} == {0}


def test_a_server_that_goes_away_ends_the_run(transport):
    """It answers three requests, then nobody listens any more: 20 refused connections in a row are enough."""

    def script(peer):
        for _ in range(3):
            answer(peer, peer.read())
        peer.server.stop_listening()

    with Server(script) as server:
        spec = job_for(server.port, transport=transport, concurrency=1, warmup=0, measured=5000)
        outcome = run_share(spec)
    assert outcome.errors == [None] * 3 + ["connect_failed"] * 20
    assert outcome.scheduler.unreachable


def test_the_points_timeout_cuts_off_what_is_in_flight(transport):
    def script(peer):
        peer.read()
        peer.send(CHUNKED, chunk(token(1)))
        peer.await_close()

    rules = Measurement(request_timeout_s=60.0, point_timeout_s=3.0)
    outcome, _ = serve(script, transport=transport, rules=rules, time_scale=10.0)
    assert outcome.scheduler.cut_off == "point_timeout"
    assert [(r.error, r.error_detail, len(r.chunk_times_s)) for r in outcome.requests] == [
        ("cut_off", "point_timeout", 1)
    ] * 2
    assert all(3.0 <= record.end_s < 15.0 for record in outcome.requests)


def test_a_stop_before_the_first_answer_sends_no_more(transport):
    def script(peer):
        peer.read()
        peer.await_close()

    with Server(script) as server:
        spec = job_for(server.port, transport=transport, measured=1000)
        outcome = run_share(spec, meanwhile=lambda channel: channel.stop())
    assert outcome.scheduler.cut_off == "stopped"
    assert len(outcome.requests) <= 2
    assert set(outcome.errors) <= {"cut_off"}


def test_a_failing_server_is_asked_every_request_once(transport):
    def first(peer, request):
        peer.send(head("503 Busy", "text/plain", Content_Length=4) + b"busy")
        return True

    outcome, server = serve(answering(first=first), transport=transport, measured=20)
    assert outcome.errors == ["http_503"] * 22
    assert len(server.requests) == 22
    assert len({request.body for request in server.requests}) == 22
    assert outcome.scheduler.failed == 22


@pytest.mark.parametrize("pacing", ["poisson", "gamma", "constant"])
def test_an_open_loop_sends_by_its_arrivals(transport, pacing):
    load = Load(pacing=pacing, rate_rps=100.0)
    with Server(answering()) as server:
        spec = job_for(server.port, transport=transport, concurrency=32, warmup=8, measured=64, load=load)
        outcome = run_share(spec)
    _, schedule = spec.prepare()
    assert outcome.errors == [None] * 72
    assert outcome.table.scheduled_s == pytest.approx(schedule.arrivals_s, abs=2e-6)
    assert (outcome.table.sent_s >= outcome.table.scheduled_s - 1e-6).all()
    assert [record.warmup for record in outcome.requests] == [True] * 8 + [False] * 64
    assert outcome.scheduler.pacer.waited <= 10
    assert open_window(outcome.table) is not None


def test_an_open_loop_under_a_small_ceiling_counts_late_starts(transport):
    """Ten arrive within 50 ms; each takes 40 ms, two at a time: all but two wait, from their due time on."""
    count = Count()
    load = Load(pacing="constant", rate_rps=200.0)
    outcome, _ = serve(
        count.script(0.01), transport=transport, concurrency=2, warmup=0, measured=10, load=load
    )
    assert outcome.errors == [None] * 10
    assert count.most == 2
    assert outcome.scheduler.pacer.waited == 8
    assert outcome.table.scheduled_s == pytest.approx(np.arange(10) / 200, abs=2e-6)
    assert (outcome.table.sent_s - outcome.table.scheduled_s)[-1] > 0.05


def test_a_ramp_starts_the_slots_one_after_another(transport):
    outcome, _ = serve(
        answering(0.05), transport=transport, concurrency=4, warmup=0, measured=4, load=Load(ramp_s=0.2)
    )
    assert outcome.table.scheduled_s == pytest.approx([0, 0.05, 0.1, 0.15], abs=1e-6)
    assert (outcome.table.sent_s >= outcome.table.scheduled_s - 1e-6).all()
    assert outcome.errors == [None] * 4


def test_the_shares_of_two_workers_are_the_whole(transport):
    with Server(answering()) as server:
        spec = job_for(server.port, transport=transport, concurrency=3, warmup=0, measured=9)
        shares = [run_share(spec, number=number, of=2).requests for number in (0, 1)]
    assert sorted(record.index for share in shares for record in share) == list(range(9))
    assert [{record.slot for record in share} for share in shares] == [{0, 2}, {1}]
