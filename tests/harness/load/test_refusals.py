"""A slot whose request was refused pauses: for how long, in both loops and transports, and how it ends."""

from __future__ import annotations

import itertools
import threading

import pytest
from answers import CHUNKED, answer, answering, chunk, head, token
from hypothesis import given
from hypothesis import strategies as st
from loads import TRANSPORTS, job_for, run_share, serve
from scripted import Server, free_port

from mtpbench.error_rate import failed_slot_time
from mtpbench.load import refusals, transport
from mtpbench.load.refusals import LONGEST_ASKED_S, SlotPauses, read_retry_after_s
from mtpbench.records import Load, Measurement

SECOND_US = 1_000_000
NOON_S = 784_111_777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, the date of the RFC's examples."""
LATER = "Sun, 06 Nov 1994 08:49:47 GMT"


@pytest.fixture(params=TRANSPORTS)
def name(request):
    return request.param


@pytest.fixture
def pauses_as_shipped(monkeypatch, shares_pause_shortly):
    monkeypatch.setattr(refusals, "FIRST_PAUSE_S", 0.5)
    monkeypatch.setattr(refusals, "LONGEST_PAUSE_S", 8.0)


@pytest.mark.parametrize(
    ("asked", "expected_s"),
    [
        ("0", 0.0),
        (" 17 ", 17.0),
        ("9" * 5000, LONGEST_ASKED_S),
        (LATER, 10.0),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10.0),
        ("Sun Nov  6 08:49:47 1994", 10.0),
        ("Sun, 06 Nov 1994 08:49:27 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None),
    ],
)
def test_both_forms_of_retry_after_are_read(asked, expected_s):
    assert read_retry_after_s({"retry-after": asked}, NOON_S) == expected_s


def test_a_date_is_held_against_the_servers_own_clock():
    headers = {"retry-after": LATER, "date": "Sun, 06 Nov 1994 08:49:44 GMT"}
    assert read_retry_after_s(headers, NOON_S + 1e6) == 3.0
    assert read_retry_after_s({**headers, "date": "today"}, NOON_S) == 10.0
    assert read_retry_after_s({}, NOON_S) is None


@given(st.text())
def test_whatever_a_server_asks_for_is_a_time_or_nothing(text):
    asked_s = read_retry_after_s({"retry-after": text, "date": text}, NOON_S)
    assert asked_s is None or asked_s >= 0


@pytest.mark.usefixtures("pauses_as_shipped")
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_pauses_grow_with_the_refusals_in_a_row_of_a_slot(scale):
    pauses = SlotPauses(scale)

    def end(slot, error, asked_s=None, took_us=5 * SECOND_US):
        return pauses.end(slot, error, 0, took_us, asked_s) / 1e6 * scale

    told = [end(0, "http_503") for _ in range(6)]
    assert told == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert end(1, "http_429") == 0.5, "another slot has its own count"
    assert end(0, None) == 0
    assert end(0, "connect_failed") == 0.5, "an answer begins anew"
    assert end(0, "http_503", asked_s=20) == 20
    assert end(0, "http_503", asked_s=1e9) == LONGEST_ASKED_S
    assert end(0, "http_503", asked_s=0.0) == 0.5, "no server is pressed because it says 0"
    assert [end(2, "http_404", took_us=1000) for _ in range(3)] == [0.5] * 3
    assert end(2, "timeout") == 0, "what took its time leaves the slot at once"
    assert end(2, "http_404", asked_s=2.0, took_us=1000) == 2.0
    begins, ends = pauses.table().T
    assert len(begins) == 15
    assert (ends > begins).all()


class Places:
    """A server with so many places: whoever comes beyond them is refused at once."""

    def __init__(self, places, *, retry_after=None, answer_s=0.02):
        self.free, self.answer_s = threading.Semaphore(places), answer_s
        fields = {} if retry_after is None else {"Retry_After": retry_after}
        self.refusal = head("503 Busy", "text/plain", Content_Length=4, **fields) + b"busy"

    def script(self, peer):
        while request := peer.read():
            if not self.free.acquire(blocking=False):
                peer.send(self.refusal)
                continue
            try:
                answer(peer, request, self.answer_s)
            finally:
                self.free.release()


def pauses_in_a_row(outcome):
    """For each refusal: how many its slot had in a row, and seconds until the slot's next request."""
    slots = {r.slot: [] for r in outcome.requests}
    for record in sorted(outcome.requests, key=lambda r: r.sent_s):
        slots[record.slot].append(record)
    for records in slots.values():
        in_a_row = 0
        for one, later in itertools.pairwise(records):
            in_a_row = in_a_row + 1 if one.error == "http_503" else 0
            if in_a_row:
                yield in_a_row, later.sent_s - one.end_s


def shortest_pauses_s(outcome):
    """Between each refusal and the next request of its slot."""
    return [pause_s for _, pause_s in pauses_in_a_row(outcome)]


def test_a_slot_without_a_place_burns_no_requests(monkeypatch, name):
    """Three of four slots are served; the fourth asks less and less often, and has the failures alone."""
    monkeypatch.setattr(refusals, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(refusals, "LONGEST_PAUSE_S", 0.8)
    outcome, _ = serve(Places(3).script, transport=name, concurrency=4, warmup=4, measured=36)
    failed = [record for record in outcome.requests if record.error]
    assert {record.error for record in failed} == {"http_503"}
    # At once it would be most of them. Which slot has no place changes with luck, and a new one begins anew:
    # of one slot's refusals in a row, those after the first are few (4 on a quiet machine).
    rows = list(pauses_in_a_row(outcome))
    again = len(failed) - sum(in_a_row == 1 for in_a_row, _ in rows)
    assert 3 <= len(failed) <= len(outcome.requests) / 2
    assert again <= 8
    for in_a_row, pause_s in rows:
        assert pause_s >= min(0.05 * 2 ** (in_a_row - 1), 0.8)
    assert len(outcome.requests) == 40
    begins_us, ends_us = outcome.scheduler.pauses.table().T
    assert len(begins_us) == len(failed)
    sending_us = outcome.table.sent_s.max() * 1e6
    paused_s = float((ends_us.clip(max=sending_us) - begins_us).clip(min=0).sum()) / 1e6
    lost = failed_slot_time(outcome.table, paused_s)
    assert lost is not None
    measured = [record for record in outcome.requests if not record.warmup]
    begin_s, end_s = min(r.sent_s for r in measured), max(r.end_s for r in outcome.requests)
    served_s = sum(max(r.end_s - max(r.sent_s, begin_s), 0.0) for r in outcome.requests if not r.error)
    assert lost.share == pytest.approx(1 - served_s / (4 * (end_s - begin_s)), abs=0.08)
    assert 0.15 < lost.share < 0.4, "one slot of four, and what a busy machine adds"


def test_a_server_is_left_alone_for_as_long_as_it_asks(name):
    """Three seconds on a clock that runs ten times as fast."""
    places = Places(1, retry_after=3)
    # Engine seconds, of which a busy machine needs many: nothing is cut off.
    rules = Measurement(request_timeout_s=200.0, point_timeout_s=600.0)
    outcome, _ = serve(
        places.script, transport=name, concurrency=2, warmup=0, measured=30, time_scale=10.0, rules=rules
    )
    pauses_s = shortest_pauses_s(outcome)
    assert pauses_s
    assert min(pauses_s) >= 3.0
    assert set(outcome.errors) == {None, "http_503"}
    assert len(outcome.scheduler.pauses.table()) == sum(error is not None for error in outcome.errors)


@pytest.mark.usefixtures("pauses_as_shipped")
def test_in_an_open_loop_other_slots_take_what_is_due_during_a_pause(name):
    def first(peer, request):
        if len(peer.server.requests) == 1:
            peer.send(head("429 Slow Down", "text/plain", Content_Length=4) + b"busy")
            return True
        return False

    load = Load(pacing="constant", rate_rps=50.0)
    outcome, _ = serve(
        answering(first=first), transport=name, concurrency=3, warmup=0, measured=20, load=load
    )
    refused, *others = sorted(outcome.requests, key=lambda record: record.error is None)
    assert [refused.error, *(record.error for record in others)] == ["http_429"] + [None] * 19
    assert refused.slot not in {record.slot for record in others if record.sent_s > refused.sent_s}
    assert outcome.table.sent_s.max() < 0.5, "the arrivals go on"
    assert outcome.scheduler.pacer.waited <= 10


@pytest.mark.parametrize("pacing", ["closed", "poisson"])
def test_a_server_that_refuses_for_ever_ends_at_the_points_timeout(name, pacing):
    rules = Measurement(request_timeout_s=60.0, point_timeout_s=3.0)
    load = Load() if pacing == "closed" else Load(pacing="poisson", rate_rps=100.0)
    places = Places(0, retry_after=50)
    outcome, server = serve(
        places.script, transport=name, rules=rules, measured=500, time_scale=10.0, load=load
    )
    assert outcome.scheduler.cut_off == "point_timeout"
    assert outcome.errors == ["http_503"] * 2
    assert len(server.requests) == 2
    assert outcome.scheduler.pacer.unsent >= 498 or pacing == "poisson"


def test_a_server_that_takes_no_connection_is_gone_after_a_while(monkeypatch, name):
    """One slot asks too seldom to be refused 20 times."""
    monkeypatch.setattr(transport, "GONE_S", 0.2)
    monkeypatch.setattr(refusals, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(refusals, "LONGEST_PAUSE_S", 0.8)
    outcome = run_share(job_for(free_port(), transport=name, concurrency=1, measured=1000))
    assert outcome.scheduler.unreachable
    assert outcome.errors == ["connect_failed"] * 4  # after 0, 50, 150 and 350 ms


def test_an_answer_that_breaks_off_late_pauses_nothing(name):
    """Only what is refused, or fails at once, does."""

    def script(peer):
        while request := peer.read():
            if len(peer.server.requests) % 2:
                peer.send(CHUNKED, chunk(token(1)), chunk(token(2)), pause_s=0.08)
                return
            answer(peer, request)

    outcome, _ = serve(script, transport=name, concurrency=1, warmup=0, measured=4)
    assert outcome.errors == ["disconnected", None] * 2
    assert len(outcome.scheduler.pauses.table()) == 0


def test_the_pauses_of_a_load_end_with_it(name):
    """Nothing waits for the pause of a slot that has nothing more to send."""
    with Server(Places(0, retry_after=9).script) as server:
        outcome = run_share(job_for(server.port, transport=name, concurrency=2, warmup=0, measured=2))
    assert outcome.errors == ["http_503"] * 2
    assert outcome.table.end_s.max() < 5
