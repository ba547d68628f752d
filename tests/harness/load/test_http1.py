"""One HTTP/1.1 response out of bytes that arrive cut anywhere."""

from __future__ import annotations

import itertools

import pytest
from answers import CHUNKED, LAST_CHUNK, chunk, chunked, cut, head, measured, tokens
from hypothesis import given
from hypothesis import strategies as st

from mtpbench.load.http1 import (
    DONE,
    HEAD,
    MAX_HEAD_BYTES,
    SIZE,
    UNTIL_CLOSE,
    BadResponse,
    Response,
)
from mtpbench.load.stream import Stream
from mtpbench.load.transport import DETAIL_BYTES, ResponseCheck

OK = b"HTTP/1.1 200 OK\r\n"


def read(*pieces):
    """(the body, the response) after these pieces."""
    response = Response()
    body = b"".join(part for piece in pieces for part in response.feed(piece))
    return body, response


def told(body, response):
    return body, response.state, response.status, response.headers, response.keeps_alive, response.at_boundary


bodies = st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"0", b"0\r\n\r\n", b"data: x\n\n", b"HTTP/1.1 200 OK"]
    )
    | st.binary(max_size=12),
    max_size=8,
)


@st.composite
def responses(draw):
    """(a response's bytes, its body): every framing, with interim responses before it."""
    parts = draw(bodies)
    body = b"".join(parts)
    newline = draw(st.sampled_from([b"\r\n", b"\n"]))
    interim = draw(
        st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"])
    )
    lines = [draw(st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"HTTP/1.1 503 Try later"]))]
    lines += draw(
        st.lists(st.sampled_from([b"X-A: 1", b"x-b:2", b"Connection: Close", b"X-C: a: b"]), max_size=3)
    )
    framing = draw(st.sampled_from(["chunked", "length", "close"]))
    if framing == "length":
        lines.append(b"Content-LENGTH: %d" % len(body))
    elif framing == "chunked":
        lines.append(b"Transfer-Encoding: Chunked")
        extension = draw(st.sampled_from([b"", b";a=b", b" ; a", b';a="b;c"']))
        pieces = [chunk(part, extension, draw(st.booleans())) for part in parts if part]
        trailers = draw(st.sampled_from([b"", b"X-T: 1\r\n", b"X-T: 1\r\nX-U: 2\r\n"]))
        body_bytes = b"".join(pieces) + b"0" + extension + b"\r\n" + trailers + b"\r\n"
        return interim + newline.join([*lines, b"", b""]) + body_bytes, body
    return interim + newline.join([*lines, b"", b""]) + body, body


@given(responses(), st.lists(st.integers(0, 400), max_size=12))
def test_where_the_bytes_are_cut_does_not_matter(response, places):
    data, expected = response
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    whole = told(*read(data))
    assert told(*read(*(data[a:b] for a, b in itertools.pairwise(edges)))) == whole
    assert told(*read(*(data[i : i + 1] for i in range(len(data))))) == whole
    assert whole[0] == expected
    assert whole[1] in (DONE, UNTIL_CLOSE)
    assert read(data)[1].close()


@pytest.mark.parametrize("make", [chunked, lambda *parts: measured(b"".join(parts))])
def test_every_single_cut_of_a_short_response(make):
    data, body = make(*tokens()), b"".join(tokens())
    for at in range(len(data) + 1):
        got, response = read(data[:at], data[at:])
        assert (got, response.ended, response.keeps_alive) == (body, True, True)


def test_a_response_before_its_end():
    data = chunked(*tokens())
    for at in range(len(data)):
        _, response = read(data[:at])
        assert not response.ended
        assert response.started == (at > 0)
        assert not response.close()
        assert bool(response.status) == (at >= data.index(b"\r\n\r\n") + 4)


def test_headers_are_lower_case_and_stripped():
    _, response = read(OK + b"Content-Type:  text/EVENT-stream \r\nLOCATION:http://b:1\r\n\r\n")
    assert response.headers == {b"content-type": b"text/EVENT-stream", b"location": b"http://b:1"}
    assert response.status == 200


@pytest.mark.parametrize(
    ("start", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\n", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", True),
    ],
)
def test_whether_a_connection_is_kept(start, keeps):
    _, response = read(start)
    assert response.keeps_alive is keeps
    assert response.close()


def test_a_body_until_close_ends_with_the_connection():
    body, response = read(OK + b"\r\nabc", b"def")
    assert (body, response.ended) == (b"abcdef", False)
    assert response.close()
    assert response.ended


def test_bytes_are_handed_on_as_they_come():
    response = Response()
    assert response.feed(CHUNKED) == []
    assert response.state == SIZE
    assert response.feed(b"5\r\nhe") == [b"he"]
    assert response.feed(b"llo\r\n2\r\nab") == [b"llo", b"ab"]
    assert not response.ended
    assert response.feed(b"\r\n" + LAST_CHUNK) == []
    assert response.ended


BAD = {
    b"hello": "no HTTP/1.1 response",
    b"HTTP/2 200 OK\r\n\r\n": "no HTTP/1.1 response",
    b"\x00\x00\x12\x04\x00\x00\x00\x00\x00": "HTTP/2",
    b"\x15\x03\x01\x00\x02\x02\x46": "https://",
    b"\x16\x03\x01": "https://",
    b"HTTP/1.1 2000 OK\r\n\r\n": "no status line",
    b"HTTP/1.1 abc OK\r\n\r\n": "no status line",
    b"HTTP/1.1\r\n\r\n": "no status line",
    OK + b"Content-Length: many\r\n\r\n": "no number",
    OK + b"Content-Length: -1\r\n\r\n": "no number",
    OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n": "no number",
    OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\n": "no chunk size",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n": "transfer coding",
    OK + b"X: " + b"y" * MAX_HEAD_BYTES: "longer than",
    CHUNKED + b"xyz\r\n": "chunk size",
    CHUNKED + b"\r\n": "chunk size",
    CHUNKED + b";a=b\r\n": "chunk size",
    CHUNKED + b"-5\r\nhello\r\n": "chunk size",
    CHUNKED + b"+5\r\nhello\r\n": "chunk size",
    CHUNKED + b"0x5\r\nhello\r\n": "chunk size",
    CHUNKED + b"1_0\r\n0123456789abcdef\r\n": "chunk size",
    CHUNKED + b"3\r\nhello\r\n": "longer than its size",
    CHUNKED + b"5" * (MAX_HEAD_BYTES + 1): "longer than",
    measured(b"abc") + b"d": "after the end",
    chunked(b"abc") + b"d": "after the end",
    b"HTTP/1.1 204 No Content\r\n\r\nabc": "after the end",
}


@pytest.mark.parametrize("data", BAD, ids=lambda data: repr(data[-40:]))
def test_what_is_no_response(data):
    """Refused whole, and as soon as it can be told when the bytes come one by one."""
    with pytest.raises(BadResponse, match=BAD[data]):
        read(data)
    with pytest.raises(BadResponse):
        read(*cut(data, 1 + len(data) // 500))


def test_the_body_that_came_before_a_fault_is_handed_on_with_it():
    response = Response()
    response.feed(CHUNKED)
    with pytest.raises(BadResponse) as caught:
        response.feed(chunk(b"ab") + chunk(b"cd") + b"2\r\nefg\r\n")
    assert caught.value.pieces == [b"ab", b"cd", b"ef"]


def test_a_head_of_bare_newlines_ends_where_it_ends():
    """Also if the body holds what would end another head."""
    body, response = read(b"HTTP/1.1 200 OK\nContent-Length: 12\n\n1234\r\n\r\n5678")
    assert (body, response.ended) == (b"1234\r\n\r\n5678", True)


def test_nothing_has_come_yet():
    response = Response()
    assert (response.state, response.status, response.started, response.ended) == (HEAD, 0, False, False)
    assert response.feed(b"") == []
    assert not response.close()


def test_head_says_its_status_only_when_it_has_ended():
    _, response = read(head("503 Busy")[:-1])
    assert response.status == 0
    response.feed(b"\n")
    assert response.status == 503


@pytest.mark.parametrize(
    ("status", "headers", "failure"),
    [
        (200, {"content-type": "text/event-stream"}, None),
        (200, {"content-type": "Text/Event-Stream; charset=utf-8", "content-encoding": " GZIP"}, None),
        (200, {}, ("wrong_content_type", "no content type instead of text/event-stream: said")),
        (
            200,
            {"content-type": "text/html"},
            ("wrong_content_type", "text/html instead of text/event-stream: said"),
        ),
        (500, {"content-type": "text/event-stream"}, ("http_500", "said")),
        (302, {}, ("http_302", "redirected to nowhere; give the final address, none is followed: said")),
    ],
)
def test_a_head_is_judged(status, headers, failure):
    check = ResponseCheck(status, headers, Stream())
    assert check.accepted == (failure is None)
    if failure is not None:
        check.keep(b"  said ")
    assert check.failure == failure
    assert not check.has_enough


def test_only_the_beginning_of_an_unwanted_body_is_kept():
    check = ResponseCheck(500, {}, Stream())
    for _ in range(3):
        check.keep(b"x" * (DETAIL_BYTES // 2))
    assert check.has_enough
    assert check.failure == ("http_500", "x" * DETAIL_BYTES)
