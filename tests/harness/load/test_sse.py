"""The incremental parser of server-sent events."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtpbench.load.stream import SseParser

CAPTURES = sorted((Path(__file__).parents[2] / "fixtures" / "captures").glob("*.sse"))


def parse(*pieces):
    parser = SseParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.finish()


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data:a\n\ndata:  b\n\n", [b"a", b" b"]),
        (b": comment\n\nevent: x\nid: 7\ndata: a\nretry: 5\n\n", [b"a"]),
        (b"data: a\ndata: b\ndata\n\n", [b"a\nb\n"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
        (b"data: a\n\ndata: [DONE]", [b"a", b"[DONE]"]),
        (b"data: a\n", [b"a"]),
        (b"", []),
        (b"database: a\n\n", []),
    ],
)
def test_events_of_each_form(text, events):
    assert parse(text) == events
    assert parse(*[bytes([byte]) for byte in text]) == events


line = st.sampled_from(
    [b"data: x", b"data:", b"data", b": note", b"event: e", b'data: {"a": "\xc3\xbc"}', b""]
)
ending = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(line, ending), max_size=20), st.lists(st.integers(0, 400), max_size=12))
def test_where_the_bytes_are_cut_does_not_matter(lines, cuts):
    """Any stream cut anywhere, inside a CRLF or a character too, gives the events of the whole."""
    text = b"".join(a + b for a, b in lines)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert parse(*(text[a:b] for a, b in itertools.pairwise(edges))) == parse(text)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
@pytest.mark.parametrize("size", [1, 7, 64, 1_000_000])
def test_real_streams_cut_into_pieces_of_any_size_give_their_events(path, size):
    text = path.read_bytes()
    events = parse(*(text[i : i + size] for i in range(0, len(text), size)))
    assert len(events) == text.count(b"data: ")
    assert events[-1] == b"[DONE]"


def test_a_huge_event_comes_out_whole():
    body = b"x" * 3_000_000
    text = b"data: " + body + b"\n\n"
    assert parse(*(text[i : i + 4096] for i in range(0, len(text), 4096))) == [body]


def test_an_event_comes_out_as_soon_as_its_blank_line_has_begun():
    parser = SseParser()
    assert parser.feed(b"data: a\r\n\r") == [b"a"]
    assert parser.feed(b"\ndata: b\r\n") == []
    assert parser.feed(b"\r\n") == [b"b"]
