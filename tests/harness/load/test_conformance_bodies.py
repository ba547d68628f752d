"""Both transports on good answers in every form that HTTP/1.1 and server-sent events allow: equal records."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib

import pytest
from answers import (
    CHUNKED,
    DONE,
    LAST_CHUNK,
    STREAMS,
    answering,
    chunk,
    chunked,
    cut,
    event,
    head,
    last_usage,
    measured,
    reply,
    text,
    tokens,
)
from loads import nothing, serve_both

from mtpbench.load.stream import Stream

GOOD = (None, "length", 8, 4, 4, (1, 2, 3, 4))
BODY = b"".join(tokens())
FRAMES = {
    "chunked": lambda body: [CHUNKED, *map(chunk, cut(body, 1000)), LAST_CHUNK],
    "content-length": lambda body: [head(Content_Length=len(body)), *cut(body, 1000)],
    "until-close": lambda body: [head(), *cut(body, 1000)],
    "until-close of HTTP/1.0": lambda body: [head().replace(b"1.1", b"1.0", 1) + body],
}


def pure(body):
    """What the stream alone says of a body."""
    stream = Stream()
    stream.feed(1, body)
    said = stream.answer(True)
    return said.error, said.finish_reason, said.prompt_tokens, said.output_tokens, len(stream.chunks)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_streams_of_real_engines_in_every_framing(path, frame):
    body = path.read_bytes()
    (record,), _ = serve_both(reply(*FRAMES[frame](body), closes=True))
    assert record[:5] == pure(body)
    assert record[:4] == (None, "length", record[2], 64)


@pytest.mark.parametrize("size", [1, 7, 229, 4096])
@pytest.mark.parametrize("frame", ["chunked", "content-length"])
def test_where_the_segments_are_cut_does_not_matter(frame, size):
    response = b"".join(FRAMES[frame](BODY))
    assert serve_both(reply(*cut(response, size)))[0] == [GOOD]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_where_the_chunks_are_cut_does_not_matter(size):
    """One event over several HTTP chunks, and for the larger sizes parts of two in one."""
    assert serve_both(reply(chunked(*cut(BODY, size))))[0] == [GOOD]


def test_a_pause_at_any_place_does_not_matter():
    """A sample of all cuts, each read apart: the server waits in between."""
    response = chunked(*tokens())
    places = iter([*range(3, len(response), 29), len(response) - 1, len(response) - 3, len(response) - 5])
    cuts = list(places)

    def halves():
        for at in itertools.cycle(cuts):
            yield response[:at], response[at:]

    left = halves()

    def script(peer):
        while peer.read():
            peer.send(*next(left), pause_s=0.002)

    records, _ = serve_both(script, measured=len(cuts))
    assert records == [GOOD] * len(cuts)


def ends(line_end):
    return BODY.replace(b"\n", line_end)


EVENT_FORMS = {
    "CRLF": ends(b"\r\n"),
    "CR": ends(b"\r"),
    "comments": b": ping\n\n" + BODY.replace(b"data:", b": ping - 2026-11-24\n\ndata:"),
    "a comment within an event": BODY.replace(b"data:", b":\ndata:"),
    "id, retry and event fields": BODY.replace(b"data:", b"id: 7\nretry: 10\nevent: message\ndata:"),
    "no space after the colon": BODY.replace(b"data: ", b"data:"),
    "a byte order mark": b"\xef\xbb\xbf" + BODY,
    "blank lines": BODY.replace(b"\n\n", b"\n\n\n\n"),
    "no blank line at the end": BODY.removesuffix(b"\n"),
    "no line end at the end": BODY.removesuffix(b"\n\n"),
    "data in several lines": BODY.replace(b'"usage"', b'\ndata: "usage"'),
    "data in several lines that end in CR": BODY.replace(b'"usage"', b'\rdata: "usage"'),
    "CR between two events": BODY.replace(b"\n\ndata: {", b"\r\rdata: {"),
    "events of an unknown kind before": b"event: hello\n\nfoo: bar\n\n" + BODY,
    "text after the end": BODY + b"data: {broken\n\n",
}


@pytest.mark.parametrize("form", EVENT_FORMS)
@pytest.mark.parametrize("size", [90, 100_000])
def test_every_form_of_events(form, size):
    body = EVENT_FORMS[form]
    assert serve_both(reply(chunked(*cut(body, size))))[0] == [GOOD]
    assert serve_both(reply(measured(body)))[0] == [GOOD]


@pytest.mark.parametrize("per_chunk", [1, 2, 5])
@pytest.mark.parametrize("form", ["CRLF", "CR", "data in several lines that end in CR"])
def test_odd_events_among_usual_ones_in_chunks_of_whole_events(form, per_chunk):
    """The fast transport has a quick way for usual events; odd ones must find out of it at any place."""
    odd = EVENT_FORMS[form]
    blank = {"CRLF": b"\r\n\r\n", "CR": b"\r\r"}.get(form, b"\n\n")
    odd_events = [part + blank for part in odd.split(blank)[:-1]]
    mixed = [a if i % 2 else b for i, (a, b) in enumerate(zip(tokens(), odd_events, strict=True))]
    chunks = [b"".join(mixed[i : i + per_chunk]) for i in range(0, len(mixed), per_chunk)]
    assert serve_both(reply(chunked(*chunks)))[0] == [GOOD]
    assert serve_both(reply(CHUNKED, *map(chunk, chunks), LAST_CHUNK, pause_s=0.001))[0] == [GOOD]


CHUNK_FORMS = {
    "extensions": [chunk(piece, b';name="value";other') for piece in tokens()] + [LAST_CHUNK],
    "upper-case sizes": [chunk(piece, upper=True) for piece in tokens()] + [LAST_CHUNK],
    "sizes with leading zeros": [b"000" + chunk(piece) for piece in tokens()] + [LAST_CHUNK],
    "trailers": [chunk(piece) for piece in tokens()] + [b"0\r\nX-Took: 12\r\nX-More: yes\r\n\r\n"],
    "several events in a chunk": [chunk(BODY[:200]), chunk(BODY[200:]), LAST_CHUNK],
    "an extension of the last chunk": [chunk(piece) for piece in tokens()] + [b"0;last\r\n\r\n"],
}


@pytest.mark.parametrize("form", CHUNK_FORMS)
@pytest.mark.parametrize("pause_s", [0.0, 0.002])
def test_every_form_of_chunks(form, pause_s):
    records, _ = serve_both(reply(CHUNKED, *CHUNK_FORMS[form], pause_s=pause_s), measured=2)
    assert records == [GOOD] * 2


@pytest.mark.parametrize("size", [10_000, 3_000_000])
@pytest.mark.parametrize("frame", [chunked, measured], ids=["chunked", "content-length"])
def test_huge_events(frame, size):
    body = event(text("x" * size, "length")) + event(last_usage()) + DONE
    assert serve_both(reply(frame(body)))[0] == [(None, "length", 5, 3, 1, None)]


def test_thousands_of_events_in_one_segment():
    body = b"".join(tokens(3000))
    (record,), _ = serve_both(reply(measured(body)))
    assert record == (None, "length", 8, 3000, 3000, tuple(range(1, 3001)))


def encode_by_events(compressor):
    """Each event flushed, as servers that compress streams do."""
    parts = [compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH) for piece in tokens()]
    return [*parts, compressor.flush()]


def gzipped():
    return encode_by_events(zlib.compressobj(wbits=31))


def deflated():
    return encode_by_events(zlib.compressobj())


@pytest.mark.parametrize(
    ("encoding", "parts"),
    [
        ("gzip", gzipped()),
        ("x-gzip", gzipped()),
        ("GZIP", gzipped()),
        ("deflate", deflated()),
        ("gzip", [gzip.compress(BODY)]),
        ("identity", tokens()),
        ("gzip", cut(gzip.compress(BODY), 1)),
    ],
    ids=["gzip", "x-gzip", "GZIP", "deflate", "gzip in one", "identity", "gzip cut everywhere"],
)
def test_encoded_bodies(encoding, parts):
    start = head(Transfer_Encoding="chunked", Content_Encoding=encoding)
    script = reply(start, *map(chunk, parts), LAST_CHUNK, pause_s=0.0005)
    assert serve_both(script, measured=2)[0] == [GOOD] * 2


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("br", b"\x0b\x02\x80data\x03"), ("gzip", BODY), ("deflate", BODY), ("gzip, br", b"abc")],
)
def test_an_encoding_that_is_not_understood(encoding, body):
    (record,), outcomes = serve_both(reply(measured(body, Content_Encoding=encoding)))
    assert record == ("bad_response", None, None, None, 0, ())
    for outcome in outcomes.values():
        assert outcome.requests[0].error_detail


def test_a_gzip_stream_that_breaks_off_keeps_what_had_come():
    start = head(Transfer_Encoding="chunked", Content_Encoding="gzip")
    script = reply(start, *map(chunk, gzipped()[:2]), LAST_CHUNK, pause_s=0.001)
    assert serve_both(script)[0] == [("no_done", None, 8, 2, 2, (1, 2))]


INTERIM = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "103": b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n",
    "102 and 103": b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n",
}


@pytest.mark.parametrize("interim", INTERIM)
@pytest.mark.parametrize("pause_s", [0.0, 0.005])
def test_interim_responses_before_the_answer(interim, pause_s):
    script = reply(INTERIM[interim], chunked(*tokens()), pause_s=pause_s)
    assert serve_both(script, measured=3)[0] == [GOOD] * 3


def test_a_switch_of_protocols_is_the_answer_itself_and_no_interim_one():
    switch = head("101 Switching Protocols", kind=None, Upgrade="websocket", Connection="Upgrade")
    (record,), _ = serve_both(reply(switch, b"\x81\x02hi", closes=True))
    assert record == nothing("http_101")


def test_the_identity_transfer_coding_is_a_body_until_the_connection_ends():
    script = reply(head(Transfer_Encoding="identity"), *tokens(), closes=True)
    assert serve_both(script, measured=2)[0] == [GOOD] * 2


HEADS = {
    "no reason phrase": b"HTTP/1.1 200\r\n",
    "a long reason phrase": b"HTTP/1.1 200 All is as it should be\r\n",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n",
}


@pytest.mark.parametrize("form", HEADS)
def test_every_form_of_the_status_line(form):
    response = measured(BODY).replace(b"HTTP/1.1 200 OK\r\n", HEADS[form], 1)
    assert serve_both(reply(response, closes=form == "HTTP/1.0"), measured=2)[0] == [GOOD] * 2


@pytest.mark.parametrize("size", [3_000, 20_000])
def test_a_long_head(size):
    """Gateways add cookies and policies; 8 KB is where some clients give up."""
    response = measured(BODY, Content_Security_Policy="x" * size)
    assert serve_both(reply(response))[0] == [GOOD]


@pytest.mark.parametrize(
    "kind", ["text/event-stream; charset=utf-8", "Text/Event-Stream", "text/event-stream;"]
)
def test_every_form_of_the_content_type(kind):
    assert serve_both(reply(head(kind=kind, Content_Length=len(BODY)) + BODY))[0] == [GOOD]


def test_requests_say_what_they_are_and_ask_for_usage():
    seen = {}

    def note(peer, request):
        seen.setdefault(request.headers["user-agent"], []).append(request)
        return False

    serve_both(answering(first=note), measured=3)
    (requests,) = seen.values()
    assert len(requests) == 6
    bodies = [request.body for request in requests]
    assert bodies[:3] == bodies[3:], "the two transports must send the same bytes"
    assert len(set(bodies)) == 3
    for request in requests:
        assert request.first_line == "POST /v1/completions HTTP/1.1"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["host"].startswith("127.0.0.1:")
        assert "authorization" not in request.headers
        body = json.loads(request.body)
        assert len(body["prompt"]) == 8
        assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
