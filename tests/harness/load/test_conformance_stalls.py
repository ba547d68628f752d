"""Both transports on servers that stall, never end, or go on after the end: named errors at their time."""

from __future__ import annotations

import os
import threading
import time

import pytest
from answers import CHUNKED, DONE, answering, chunk, chunked, cut, event, head, reply, text, token, tokens
from loads import TRANSPORTS, details, job_for, nothing, run_share, serve, serve_both
from scripted import Server

from mtpbench.records import Measurement, Workload

GOOD = (None, "length", 8, 4, 4, (1, 2, 3, 4))
BODY = b"".join(tokens())
BIG = Workload(isl=2_000_000, osl=4)
SOON = Measurement(request_timeout_s=0.4, point_timeout_s=20.0)


def ends_soon(script, code, **options):
    """The share's one request ends with this code at its timeout, not much later."""
    options = {"rules": SOON, **options}
    records, outcomes = serve_both(script, **options)
    assert [record[0] for record in records] == [code]
    for outcome in outcomes.values():
        (record,) = outcome.requests
        # A request is sent once its last byte is written, or it is given up: its time counts from its turn.
        assert 0.3 < record.end_s - record.scheduled_s < 3.0
    return records[0], outcomes


def test_a_server_that_sends_nothing():
    def script(peer):
        peer.read()
        peer.await_close()

    _, outcomes = ends_soon(script, "timeout")
    assert details(outcomes) == ["no end after 0.4 s"] * 2


def test_a_server_that_never_reads():
    ends_soon(lambda peer: peer.ignore(), "timeout", workload=BIG)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_that_streams_for_ever(transport):
    def script(peer):
        peer.read()
        peer.send(CHUNKED)
        while True:
            peer.send(chunk(event(text("x"))))
            time.sleep(0.01)

    outcome, _ = serve(script, transport=transport, concurrency=1, warmup=0, measured=1, rules=SOON)
    (record,) = outcome.requests
    assert (record.error, record.error_detail) == ("timeout", "no end after 0.4 s")
    assert 0.3 < record.end_s - record.scheduled_s < 3.0  # a busy machine may send late
    assert len(record.chunk_times_s) > 3


def test_a_server_that_stalls_in_mid_stream():
    def script(peer):
        peer.read()
        peer.send(CHUNKED, chunk(token(1)))
        peer.await_close()

    record, _ = ends_soon(script, "timeout")
    assert record == ("timeout", None, 8, 1, 1, (1,))


def test_a_server_that_sends_half_a_head_and_no_more():
    def script(peer):
        peer.read()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-T")
        peer.await_close()

    ends_soon(script, "timeout")


def test_a_server_that_pings_for_ever():
    """Comments are no answer."""

    def script(peer):
        peer.read()
        peer.send(CHUNKED)
        while True:
            peer.send(chunk(b": ping\n\n"))
            time.sleep(0.01)

    record, _ = ends_soon(script, "timeout")
    assert record == nothing("timeout")


def test_a_server_that_only_sends_interim_responses():
    def script(peer):
        peer.read()
        while True:
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.02)

    ends_soon(script, "timeout")


def test_what_follows_a_timed_out_request_is_served_well():
    def first(peer, request):
        if len(peer.server.requests) > 1:
            return False
        peer.await_close()
        return True

    records, _ = serve_both(answering(first=first), rules=SOON, measured=3)
    assert records == [nothing("timeout"), GOOD, GOOD]


def test_a_head_that_never_ends_is_given_up():
    def script(peer):
        peer.read()
        peer.send(b"HTTP/1.1 200 OK\r\n", *[b"X-Filler: " + b"y" * 1000 + b"\r\n"] * 200)
        peer.await_close()

    assert serve_both(script)[0] == [nothing("bad_response")]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_request_that_timed_out_half_sent_is_not_sent_on(transport):
    """Its connection is gone with it, though the server takes up reading again."""
    whole, looked = [], threading.Event()

    def script(peer):
        peer.has_head()
        if peer.number:
            looked.wait(5)
            peer.read()
            peer.send(chunked(*tokens()))
            return
        time.sleep(0.8)
        try:
            whole.append(peer.read())
        except OSError:
            whole.append(None)
        looked.set()

    rules = Measurement(request_timeout_s=0.4, point_timeout_s=20.0)
    outcome, _ = serve(
        script, transport=transport, concurrency=1, warmup=0, measured=3, rules=rules, workload=BIG
    )
    assert outcome.errors[0] == "timeout"
    assert whole == [None]


@pytest.mark.parametrize("status", ["413 Content Too Large", "401 Unauthorized"])
def test_a_server_that_answers_a_big_request_before_it_has_read_it(status):
    """Limits of gateways do this; they go on reading only what is in their buffers."""

    def script(peer):
        peer.has_head()
        peer.send(head(status, "text/plain", Content_Length=7, Connection="close") + b"too big")
        peer.ignore()

    records, outcomes = serve_both(script, workload=BIG, rules=SOON)
    assert records == [nothing(f"http_{status[:3]}")]
    for detail in details(outcomes):
        assert "too big" in detail


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_waiting_for_the_big_request_to_go_out_costs_no_cpu(transport):
    """The server has begun to answer and reads nothing: there is nothing to do but to wait."""
    spent = []

    def script(peer):
        peer.has_head()
        peer.send(head("500 Oops", "text/plain", Content_Length=70) + b"half")
        peer.ignore()

    def watch(channel):
        time.sleep(0.3)  # by now all is sent that will be
        before = sum(os.times()[:2])
        time.sleep(0.5)
        spent.append(sum(os.times()[:2]) - before)
        channel.stop()

    with Server(script) as server:
        spec = job_for(
            server.port,
            transport=transport,
            concurrency=1,
            warmup=0,
            measured=1,
            workload=BIG,
        )
        run_share(spec, meanwhile=watch)
    assert spent[0] < 0.35, "it span for most of half a second"


def test_a_stream_that_lingers_after_done_ends_its_request_all_the_same():
    """For a second the client waits for the end, so that the connection can be kept; that is no latency."""

    def script(peer):
        peer.read()
        peer.send(CHUNKED, *map(chunk, tokens()))
        peer.await_close()

    began = time.perf_counter()
    records, outcomes = serve_both(script)
    assert records == [GOOD]
    assert time.perf_counter() - began < 8.0
    for outcome in outcomes.values():
        (record,) = outcome.requests
        assert record.end_s == record.chunk_times_s[-1] or record.end_s - record.chunk_times_s[-1] < 0.5


def test_a_stream_that_goes_on_after_done_is_left():
    def script(peer):
        peer.read()
        peer.send(CHUNKED, *map(chunk, tokens()))
        while True:
            peer.send(chunk(event(text("more"))))
            time.sleep(0.02)

    assert serve_both(script)[0] == [GOOD]


def test_done_within_a_longer_segment_is_the_end():
    late = [event(text("late", usage={"prompt_tokens": 9, "completion_tokens": 99})), DONE]
    for pieces in ([*tokens(), *late], [BODY + b"".join(late)], cut(BODY + b"".join(late), 11)):
        assert serve_both(reply(chunked(*pieces)))[0] == [GOOD]


@pytest.mark.parametrize("early", [b"HTTP/1.1 100 Continue\r\n\r\n", CHUNKED])
def test_a_server_that_begins_to_answer_while_the_request_still_goes_out(early):
    """The answer's beginning must not keep the rest of the request from going out."""

    def script(peer):
        while peer.has_head():
            peer.send(early)
            time.sleep(0.05)
            peer.read()
            if early is not CHUNKED:
                peer.send(CHUNKED)
            peer.send(b"".join(map(chunk, tokens())) + b"0\r\n\r\n")

    assert serve_both(script, workload=BIG, measured=2)[0] == [GOOD] * 2
