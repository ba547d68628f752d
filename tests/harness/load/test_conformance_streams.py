"""Both transports on every form of a stream's events: what they say decides the record, not who reads it."""

from __future__ import annotations

import time

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
from loads import TRANSPORTS, serve, serve_both

GOOD = (None, "length", 8, 4, 4, (1, 2, 3, 4))


def listed(content, ids, finish=None):
    """An event that lists its tokens."""
    return {"choices": [{"text": content, "token_ids": ids, "finish_reason": finish}]}


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
    "tokens without text before the first text": (
        [text(""), text(""), text("a", "length"), last_usage()],
        (None, "length", 5, 3, 3, None),
    ),
    "a role in every delta": (
        [chat(role="assistant", content=c) for c in ("", "a", "")] + [chat("length"), last_usage()],
        (None, "length", 5, 3, 3, None),
    ),
    "output under an unknown key": (
        [chat(role="assistant"), chat(x_new="hm"), chat("stop", content="b"), last_usage(2)],
        (None, "stop", 5, 2, 2, None),
    ),
    "an empty event after the finish reason": (
        [text("a"), text("b"), text("c", "length"), text(""), last_usage()],
        (None, "length", 5, 3, 3, None),
    ),
    "usage beside an empty choice after the finish reason": (
        [chat(content="a"), chat("stop", content="b"), chat(usage=usage(2))],
        (None, "stop", 5, 2, 2, None),
    ),
    "usage of zeros until the end": (
        [text("a", usage=usage(0, 0)), text("b", "length", usage=usage(0, 0)), last_usage(2)],
        (None, "length", 5, 2, 2, None),
    ),
    "an answer that the engine aborted": (
        [text("a", usage=usage(1)), text("", "abort", usage=usage(1))],
        ("finish_abort", "abort", 5, 1, 1, (1,)),
    ),
    "an answer that a filter ended": (
        [text("a", usage=usage(1)), text("", "content_filter", usage=usage(1))],
        ("finish_content_filter", "content_filter", 5, 1, 1, (1,)),
    ),
    "text after the finish reason, as far as there are tokens": (
        [text("a"), text("b", "stop"), text("c"), text("d"), last_usage()],
        (None, "stop", 5, 3, 3, None),
    ),
    "a first event of several tokens": (
        [text("abc", usage=usage(3)), text("d", "length", usage=usage(4)), last_usage(4)],
        (None, "length", 5, 4, 2, (3, 4)),
    ),
    "a running count without the tokens of its own event": (
        [
            text("a", usage=usage(0)),
            text("b", usage=usage(1)),
            text("c", "stop", usage=usage(2)),
            last_usage(),
        ],
        (None, "stop", 5, 3, 3, None),
    ),
    "tokens that are listed by their ids": (
        [listed("ab", [7, 8]), listed("", [9]), listed("c", [7], "length"), last_usage(4)],
        (None, "length", 5, 4, 3, (2, 3, 4)),
    ),
    "no finish reason": ([text("a"), last_usage(1)], ("no_finish", None, 5, 1, 1, None)),
    "an event nested 3,000 deep": (
        [text("a"), '{"a":' * 3000 + "1" + "}" * 3000],
        ("bad_event", None, None, None, 1, None),
    ),
    "words that no file takes": (
        [text("a"), {"error": {"message": "a\0b\ud800"}}],
        ("stream_error", None, None, None, 1, None),
    ),
    "no usage": ([text("a", "length")], ("no_usage", "length", None, None, 1, None)),
}


@pytest.mark.parametrize("form", STREAM_FORMS)
def test_every_form_of_streams(form):
    events, expected = STREAM_FORMS[form]
    pieces = [*map(event, events), DONE]
    assert serve_both(reply(chunked(*pieces)))[0] == [expected]
    assert serve_both(reply(CHUNKED, *map(chunk, pieces), LAST_CHUNK, pause_s=0.001))[0] == [expected]


def test_prompt_tokens_of_a_prefix_cache_and_thoughts_are_kept_by_request():
    said = {
        **usage(3, 5),
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    pieces = [*map(event, (text("a"), text("b", "stop"), {"choices": [], "usage": said})), DONE]
    _, outcomes = serve_both(reply(chunked(*pieces)), measured=2)
    for outcome in outcomes.values():
        assert [(r.cached_prompt_tokens, r.reasoning_tokens) for r in outcome.requests] == [(4, 2)] * 2


@pytest.mark.parametrize("body", [text("a"), text("")], ids=["text", "no text"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_answer_without_end_is_bounded_however_its_events_are_read(transport, body, monkeypatch):
    """Each event in a read of its own is what the fast transport takes by its quick way."""
    monkeypatch.setattr("mtpbench.load.stream.MOST_EVENTS", 50)

    def script(peer):
        peer.read()
        peer.send(CHUNKED)
        while not peer.server.closing.is_set():
            peer.send(chunk(event(body)))
            time.sleep(0.001)

    outcome, _ = serve(script, transport=transport, concurrency=1, warmup=0, measured=1)
    assert outcome.errors == ["oversized"]


def test_an_event_of_type_error():
    """It may be cut between its type and its data."""
    parts = [event(text("a")), b"event: error\n", b'data: {"message": "worker lost"}\n\n', DONE]
    expected = ("stream_error", None, None, None, 1, None)
    assert serve_both(reply(chunked(*parts)))[0] == [expected]
    assert serve_both(reply(CHUNKED, *map(chunk, parts), LAST_CHUNK, pause_s=0.001))[0] == [expected]


@pytest.mark.parametrize("frame", [chunked, measured], ids=["chunked", "content-length"])
def test_a_missing_done_is_complete_with_finish_reason_and_usage_and_noted(frame):
    records, outcomes = serve_both(reply(frame(BODY.removesuffix(DONE))), measured=2)
    assert records == [GOOD] * 2
    assert {outcome.scheduler.missed_done for outcome in outcomes.values()} == {2}
