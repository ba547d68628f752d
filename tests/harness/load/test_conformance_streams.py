"""Both transports on every form of a stream's events: what they say decides the record, not who reads it."""

from __future__ import annotations

import pytest
from answers import (
    CHUNKED,
    DONE,
    LAST_CHUNK,
    chat,
    chunk,
    chunked,
    event,
    last_usage,
    measured,
    reply,
    text,
    tokens,
    usage,
)
from loads import serve_both

GOOD = (None, "length", 8, 4, 4, (1, 2, 3, 4))
BODY = b"".join(tokens())

STREAM_FORMS = {
    "role-only first event": (
        [chat(role="assistant", content=""), chat(content="a"), chat("stop", content="b"), last_usage()],
        (None, "stop", 5, 3, 2, None),
    ),
    "role-only event of a second choice": (
        [chat(content="a"), chat(role="assistant", content=""), chat("stop", content="b"), last_usage()],
        (None, "stop", 5, 3, 2, None),
    ),
    "usage in an event of its own": (
        [text("a"), text("b"), text("", "length"), last_usage()],
        (None, "length", 5, 3, 2, None),
    ),
    "usage in the last choice": (
        [text("a"), text("b"), text("c", "length", usage=usage())],
        (None, "length", 5, 3, 3, None),
    ),
    "continuous usage": (
        [text("a", usage=usage(2)), text("", usage=usage(3)), text("c", "stop", usage=usage(5))],
        (None, "stop", 5, 5, 3, (2, 3, 5)),
    ),
    "usage null until the end": (
        [text("a", usage=None), text("b", "length", usage=None), last_usage()],
        (None, "length", 5, 3, 2, None),
    ),
    "reasoning before the answer": (
        [chat(role="assistant"), chat(reasoning_content="hm"), chat("stop", content="b"), last_usage()],
        (None, "stop", 5, 3, 2, None),
    ),
    "half a character": (
        [text("a"), text(""), text("b", "length"), last_usage()],
        (None, "length", 5, 3, 3, None),
    ),
    "several choices": (
        [{"choices": [{"text": "a"}, {"text": "b", "finish_reason": "stop"}]}, last_usage()],
        (None, "stop", 5, 3, 2, None),
    ),
    "an error event in a 200": (
        [text("a"), {"error": {"message": "out of memory", "code": 500}}],
        ("stream_error", None, None, None, 1, None),
    ),
    "an event that is not JSON": (
        [text("a"), "{broken", last_usage()],
        ("bad_event", None, None, None, 1, None),
    ),
    "a lone surrogate, which strict parsers refuse": (
        ['{"choices": [{"text": "\\ud83d", "finish_reason": "length"}]}', last_usage()],
        (None, "length", 5, 3, 1, None),
    ),
    "no usage": ([text("a", "length")], ("no_usage", "length", None, None, 1, None)),
}


@pytest.mark.parametrize("form", STREAM_FORMS)
def test_every_form_of_streams(form):
    events, expected = STREAM_FORMS[form]
    pieces = [*map(event, events), DONE]
    assert serve_both(reply(chunked(*pieces)))[0] == [expected]
    assert serve_both(reply(CHUNKED, *map(chunk, pieces), LAST_CHUNK, pause_s=0.001))[0] == [expected]


@pytest.mark.parametrize("frame", [chunked, measured], ids=["chunked", "content-length"])
def test_a_missing_done_is_complete_with_finish_reason_and_usage_and_noted(frame):
    records, outcomes = serve_both(reply(frame(BODY.removesuffix(DONE))), measured=2)
    assert records == [GOOD] * 2
    assert {outcome.scheduler.missed_done for outcome in outcomes.values()} == {2}
