"""Both transports on answers that end badly, or are none: the same named error, within the timeout."""

from __future__ import annotations

import re
import ssl
import time

import pytest
from answers import (
    CAPTURES,
    CHUNKED,
    LAST_CHUNK,
    answer,
    answering,
    chunk,
    chunked,
    head,
    measured,
    reply,
    tokens,
)
from loads import TRANSPORTS, details, job_for, nothing, run_share, serve, serve_both
from scripted import free_port

from mtpbench.records import Measurement

GOOD = (None, "length", 8, 4, 4, (1, 2, 3, 4))
BODY = b"".join(tokens())
SOON = Measurement(request_timeout_s=0.4, point_timeout_s=20.0)


def parting(*pieces, pause_s=0.02, resets=False):
    """The first connection gets this and is closed; later ones are served well."""

    def script(peer):
        if peer.number:
            return answering()(peer)
        peer.read()
        peer.send(*pieces, pause_s=pause_s)
        time.sleep(pause_s)
        return peer.reset() if resets else None

    return script


TWO = ("disconnected", None, 8, 2, 2, (1, 2))
PARTINGS = {
    "in the status line": ([b"HTTP/1.1 2"], nothing("disconnected")),
    "in the head": ([b"HTTP/1.1 200 OK\r\nContent-Ty"], nothing("disconnected")),
    "after the head of a chunked body": ([CHUNKED], nothing("disconnected")),
    "between two chunks": ([CHUNKED, *map(chunk, tokens()[:2])], TWO),
    "in a chunk's size": ([CHUNKED, *map(chunk, tokens()[:2]), b"5"], TWO),
    "in a chunk's data": ([CHUNKED, *map(chunk, tokens()[:2]), chunk(tokens()[2])[:40]], TWO),
    "in a body of known length": ([head(Content_Length=len(BODY)), b"".join(tokens()[:2])], TWO),
    "in a body until close": ([head(), b"".join(tokens()[:2])], ("no_done", *TWO[1:])),
    "in an event of a body until close": ([head(), BODY[:300]], ("bad_event", *TWO[1:])),
    "after [DONE] without the final chunk": ([CHUNKED, *map(chunk, tokens())], GOOD),
    "after an unwanted head": (
        [head("500 Oops", "text/plain", Content_Length=99), b"boom"],
        nothing("http_500"),
    ),
    "after another type's head": (
        [head(kind="text/html", Content_Length=99), b"<html>"],
        nothing("wrong_content_type"),
    ),
}


@pytest.mark.parametrize("place", PARTINGS)
def test_a_server_that_closes_early(place):
    pieces, expected = PARTINGS[place]
    assert serve_both(parting(*pieces))[0] == [expected]


RESETS = {
    "before the answer": ([], nothing("disconnected")),
    "between two chunks": ([CHUNKED, *map(chunk, tokens()[:2])], TWO),
    "after [DONE] without the final chunk": ([CHUNKED, *map(chunk, tokens())], GOOD),
}


@pytest.mark.parametrize("place", RESETS)
def test_a_server_that_resets_the_connection(place):
    pieces, expected = RESETS[place]

    def script(peer):  # a fresh connection's reset may be the first connection's: all are reset
        peer.read()
        peer.send(*pieces)
        time.sleep(0.05)
        peer.reset()

    assert serve_both(script)[0] == [expected]


def test_a_reset_in_a_body_until_close_is_no_end_in_order():
    """The codes differ: aiohttp does not tell a reset from a close here."""
    for transport, code in (("fast", "disconnected"), ("aiohttp", "no_done")):
        script = parting(head(), b"".join(tokens()[:2]), resets=True)
        outcome, _ = serve(script, transport=transport, concurrency=1, warmup=0, measured=1)
        assert outcome.fields == [(code, *TWO[1:])]


def test_a_server_that_sends_all_and_closes_at_once_without_the_final_chunk():
    """Data and end arrive together: what came before the end counts."""
    script = reply(CHUNKED + b"".join(map(chunk, tokens())), closes=True)
    assert serve_both(script, measured=5)[0] == [GOOD] * 5


def test_an_engine_that_dies_in_mid_stream():
    body = (CAPTURES / "crash_midstream.sse").read_bytes()
    records, outcomes = serve_both(reply(chunked(body)))
    assert records == [nothing("stream_error")]
    for detail in details(outcomes):
        assert detail.startswith("EngineCore encountered an issue")


GARBAGE = {
    "words": b"hello, world\r\n",
    "an SSH banner": b"SSH-2.0-OpenSSH_9.6\r\n",
    "binary": bytes(range(255, 127, -1)),
    "a bad status": b"HTTP/1.1 abc OK\r\n\r\n",
    "HTTP/2's SETTINGS": b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "a content-length of letters": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    "a content-length of 5,000 digits": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("closes", [False, True])
def test_garbage_instead_of_http(kind, closes):
    records, outcomes = serve_both(reply(GARBAGE[kind], closes=closes))
    assert records == [nothing("bad_response")]
    assert all(details(outcomes))


def test_http2_only_and_tls_are_named_by_the_fast_transport():
    for kind, words in (("HTTP/2's SETTINGS", "HTTP/2"), ("a TLS alert", "https://")):
        outcome, _ = serve(reply(GARBAGE[kind]), concurrency=1, warmup=0, measured=1)
        assert words in outcome.requests[0].error_detail


def test_an_http2_server_that_speaks_first():
    """Real ones send their SETTINGS on acceptance, before any request."""

    def script(peer):
        peer.send(GARBAGE["HTTP/2's SETTINGS"])
        peer.await_close()

    assert serve_both(script)[0] == [nothing("bad_response")]


def test_a_tls_server_behind_an_http_address():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def script(peer):
        """What OpenSSL says to a request in plain HTTP."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        connection = context.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(b"POST /v1/completions HTTP/1.1\r\n")
        peer.read()
        with pytest.raises(ssl.SSLError):
            connection.do_handshake()
        peer.send(outgoing.read() or GARBAGE["a TLS alert"])

    assert serve_both(script)[0] == [nothing("bad_response")]


BROKEN_CHUNKS = {
    "no size": b"xyz\r\n",
    "a negative size": b"-5\r\nhello\r\n",
    "a size with a prefix": b"0x5\r\nhello\r\n",
    "a size with an underscore": b"1_0\r\n0123456789abcdef\r\n",
    "an empty size": b"\r\nhello\r\n",
    "more data than its size": b"3\r\nhello\r\n",
}


@pytest.mark.parametrize("kind", BROKEN_CHUNKS)
def test_chunks_that_are_broken(kind):
    """aiohttp keeps such an error to itself once the head has come: the request ends by its timeout."""
    script = reply(CHUNKED, *map(chunk, tokens()[:2]), BROKEN_CHUNKS[kind], pause_s=0.02)
    spec = {"concurrency": 1, "warmup": 0, "measured": 1, "rules": SOON}
    (record,) = serve(script, transport="fast", **spec)[0].fields
    assert record == ("bad_response", *TWO[1:])
    (record,) = serve(script, transport="aiohttp", **spec)[0].fields
    assert record[0] in ("bad_response", "timeout")
    assert record[1:] == TWO[1:]


@pytest.mark.parametrize("kind", BROKEN_CHUNKS)
def test_what_is_read_together_with_a_broken_chunk_counts(kind):
    """Where the network cut the bytes decides nothing. aiohttp hands on nothing of such a read."""
    script = reply(CHUNKED + b"".join(map(chunk, tokens()[:2])) + BROKEN_CHUNKS[kind])
    (record,) = serve(script, concurrency=1, warmup=0, measured=1, rules=SOON)[0].fields
    assert record == ("bad_response", *TWO[1:])


def test_bytes_after_the_end_of_an_answer_do_not_get_into_the_next():
    """With aiohttp they spoil the answer that they are read with, but nothing else."""
    response = measured(BODY, Connection="close")
    records, _ = serve_both(reply(response, b"garbage", pause_s=0.02, closes=True), measured=3)
    assert records == [GOOD] * 3
    together = reply(response + b"garbage", closes=True)
    spec = {"concurrency": 1, "warmup": 0, "measured": 3}
    assert serve(together, transport="fast", **spec)[0].fields == [GOOD] * 3
    assert set(serve(together, transport="aiohttp", **spec)[0].errors) <= {None, "bad_response"}


STATUSES = {
    "204 No Content": "http_204",
    "301 Moved Permanently": "http_301",
    "307 Temporary Redirect": "http_307",
    "400 Bad Request": "http_400",
    "401 Unauthorized": "http_401",
    "403 Forbidden": "http_403",
    "404 Not Found": "http_404",
    "413 Content Too Large": "http_413",
    "429 Too Many Requests": "http_429",
    "500 Internal Server Error": "http_500",
    "503 Service Unavailable": "http_503",
}


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_its_code_and_keeps_the_servers_words(status):
    words = b"" if status.startswith("204") else b"busy, come back"
    more = {} if status.startswith("204") else {"Content_Length": len(words)}
    script = reply(head(status, "text/plain", Location="http://elsewhere:1/v1", **more) + words)
    records, outcomes = serve_both(script, measured=2)
    assert records == [nothing(STATUSES[status])] * 2
    for detail in details(outcomes):
        assert words.decode() in (detail or "")
        if status.startswith("30"):
            assert "http://elsewhere:1/v1" in detail
        if status.startswith("40") and status[2] in "13":
            assert "load.api_key_env" in detail


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_huge_error_page_is_not_read_to_its_end(framing):
    page = b"x" * 5_000_000
    bodies = {
        "length": head("502 Bad Gateway", "text/html", Content_Length=len(page)) + page,
        "chunked": head("502 Bad Gateway", "text/html", Transfer_Encoding="chunked")
        + chunk(page)
        + LAST_CHUNK,
        "close": head("502 Bad Gateway", "text/html") + page,
    }
    records, outcomes = serve_both(reply(bodies[framing], closes=framing == "close"), measured=2)
    assert records == [nothing("http_502")] * 2
    assert all(detail.startswith("xxx") and len(detail) <= 2000 for detail in details(outcomes))


UNENDING = {
    "http_500": head("500 Oops", "text/plain", Content_Length=99),
    "http_503": head("503 Busy", "text/plain", Transfer_Encoding="chunked"),
    "http_502": head("502 Bad Gateway", "text/plain"),
    "wrong_content_type": head(kind="text/html", Content_Length=99),
}


@pytest.mark.parametrize("code", UNENDING)
def test_an_unwanted_answer_that_never_ends_is_named_after_a_second(code):
    """Not after the request's timeout: its head has said what it is."""
    said = chunk(b"boom") if code == "http_503" else b"boom"

    def script(peer):
        peer.read()
        peer.send(UNENDING[code], said)
        peer.await_close()

    records, outcomes = serve_both(script, rules=Measurement(request_timeout_s=8.0, point_timeout_s=20.0))
    assert records == [nothing(code)]
    for outcome in outcomes.values():
        (record,) = outcome.requests
        assert record.error_detail.endswith("boom")
        assert record.end_s - record.sent_s < 5.0


@pytest.mark.parametrize("rules", [SOON, Measurement(request_timeout_s=9.0, point_timeout_s=0.4)])
def test_an_unwanted_answer_keeps_its_name_when_time_is_up(rules):
    """Be it the request's or the point's."""

    def script(peer):
        peer.read()
        peer.send(UNENDING["http_500"], b"boom")
        peer.await_close()

    records, outcomes = serve_both(script, rules=rules)
    assert records == [nothing("http_500")]
    assert details(outcomes) == ["boom"] * 2


def test_a_200_that_is_no_stream():
    script = reply(head(kind="application/json", Content_Length=13) + b'{"choices":[]')
    records, outcomes = serve_both(script)
    assert records == [nothing("wrong_content_type")]
    for detail in details(outcomes):
        assert "application/json instead of text/event-stream" in detail
        assert '{"choices":[]' in detail
    assert serve_both(reply(head(kind=None, Content_Length=0)))[0] == [nothing("wrong_content_type")]


def test_a_server_that_is_not_there_ends_the_run_instead_of_spinning():
    for transport in TRANSPORTS:
        outcome = run_share(job_for(free_port(), transport=transport, measured=10_000))
        assert outcome.scheduler.unreachable
        assert set(outcome.errors) == {"connect_failed"}
        assert 20 <= len(outcome.requests) <= 22
        assert all(re.search("refused|connect", record.error_detail, re.I) for record in outcome.requests)


def test_a_server_that_accepts_and_closes_at_once():
    records, outcomes = serve_both(lambda peer: None, measured=30)
    assert records == [nothing("disconnected")] * 30
    assert all(details(outcomes))
    assert not any(outcome.scheduler.unreachable for outcome in outcomes.values())


def test_a_failed_request_leaves_the_slot_to_the_next():
    def first(peer, request):
        failing = len(peer.server.requests) % 2 == 1
        if failing:
            peer.send(head("503 Busy", "text/plain", Content_Length=4) + b"busy")
        else:
            answer(peer, request)
        return True

    records, _ = serve_both(answering(first=first), measured=6)
    assert records == [nothing("http_503"), GOOD] * 3
