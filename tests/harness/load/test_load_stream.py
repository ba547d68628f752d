"""One streamed answer: chunks, counts and what can go wrong in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtpbench.load.stream import Stream

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


def read(*events, ended=True, failure=None):
    """The answer to events that arrive one per second; text stands for itself, the rest is JSON."""
    stream = Stream()
    for second, event in enumerate(events):
        data = event if isinstance(event, str) else json.dumps(event)
        stream.feed(float(second), f"data: {data}\n\n".encode())
    return stream.answer(ended, failure)


def text(content, finish=None, **more):
    return {"choices": [{"index": 0, "text": content, "finish_reason": finish}], **more}


def chat(finish=None, usage=None, **delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": usage}


def last_usage(**changes):
    return {"choices": [], "usage": {**USAGE, **changes}}


@pytest.mark.parametrize(
    ("name", "chunks", "prompt_tokens"),
    [
        ("vllm_crafted_mtp3_completion", 26, 20),
        ("vllm_crafted_mtp3_chat", 27, 23),
        ("vllm_crafted_mtp3_chat_continuous_usage", 27, 23),
        ("llamacpp_crafted_mtp3_completion", 64, 20),
        ("llamacpp_crafted_mtp3_chat", 64, 23),
    ],
)
def test_real_streams_give_their_chunks_and_their_64_tokens(name, chunks, prompt_tokens):
    stream = Stream()
    stream.feed(1.0, (CAPTURES / f"{name}.sse").read_bytes())
    answer = stream.answer(True)
    assert answer.error is None
    assert len(answer.chunk_times) == chunks
    assert (answer.prompt_tokens, answer.output_tokens, answer.finish_reason) == (prompt_tokens, 64, "length")
    assert not answer.missed_done
    assert (answer.chunk_tokens is not None) == name.endswith("continuous_usage")


def test_continuous_usage_gives_the_tokens_after_every_chunk():
    stream = Stream()
    stream.feed(1.0, (CAPTURES / "vllm_crafted_mtp3_chat_continuous_usage.sse").read_bytes())
    tokens = stream.answer(True).chunk_tokens
    assert tokens is not None
    assert tokens[:4] == (1, 3, 4, 8)
    assert tokens[-1] == 64
    assert list(tokens) == sorted(set(tokens))


def test_an_engine_that_dies_in_mid_stream_is_a_stream_error():
    stream = Stream()
    assert stream.feed(1.0, (CAPTURES / "crash_midstream.sse").read_bytes())
    answer = stream.answer(True)
    assert answer.error == "stream_error"
    assert answer.error_detail is not None
    assert answer.error_detail.startswith("EngineCore encountered an issue")


def test_the_first_token_is_the_first_event_with_text_not_the_role():
    events = [chat(role="assistant", content=""), chat(content="a"), chat(content="b", finish="stop")]
    assert read(*events, last_usage(), "[DONE]").chunk_times == (1.0, 2.0)


def test_reasoning_and_tool_calls_are_output():
    events = [chat(reasoning_content="hm"), chat(reasoning="hm"), chat(tool_calls=[{"id": "1"}])]
    assert read(*events, last_usage(), "[DONE]").chunk_times == (0.0, 1.0, 2.0)


def test_an_event_without_text_is_a_chunk_after_the_first_one_only():
    """Half a character is output, an empty opening or a bare finish reason is not."""
    events = [text(""), text("a"), text(""), text("b"), text("", "length")]
    assert read(*events, last_usage(), "[DONE]").chunk_times == (1.0, 2.0, 3.0)


def test_with_continuous_usage_an_event_is_a_chunk_if_the_count_rose():
    def at(n, content):
        return text(content, usage={"prompt_tokens": 5, "completion_tokens": n})

    answer = read(at(0, ""), at(2, ""), at(3, "ab"), at(3, ""), last_usage(), "[DONE]")
    assert answer.chunk_times == (1.0, 2.0)
    assert answer.chunk_tokens == (2, 3)


def test_usage_that_only_the_last_choice_carries_counts_the_whole_answer_not_its_chunks():
    answer = read(text("a"), text("b"), text("c", "length", usage=USAGE), "[DONE]")
    assert (answer.error, answer.output_tokens, answer.chunk_tokens) == (None, 3, None)
    assert answer.chunk_times == (0.0, 1.0, 2.0)


def test_an_answer_in_a_single_event_is_known_to_hold_all_its_tokens():
    assert read(text("abc", "length", usage=USAGE), "[DONE]").chunk_tokens == (3,)


def test_usage_without_a_count_of_output_tokens_is_unknown_not_zero():
    answer = read(text("a", "stop"), last_usage(completion_tokens=None), "[DONE]")
    assert (answer.error, answer.output_tokens) == ("no_usage", None)


def test_null_usage_is_no_usage():
    answer = read(text("a", usage=None), text("b", "stop", usage=None), last_usage(), "[DONE]")
    assert (answer.error, answer.chunk_tokens, answer.output_tokens) == (None, None, 3)


def test_a_missing_done_is_noted_where_finish_reason_and_usage_came():
    answer = read(text("a", "length"), last_usage())
    assert (answer.error, answer.missed_done) == (None, True)


@pytest.mark.parametrize(
    ("code", "events"),
    [
        ("no_done", [text("a")]),
        ("no_done", [text("a", "length")]),
        ("no_done", [text("a"), last_usage()]),
        ("no_done", []),
        ("no_usage", [text("a", "length"), "[DONE]"]),
        ("no_usage", ["[DONE]"]),
        ("empty_stream", [text("", "length"), last_usage(), "[DONE]"]),
        ("bad_event", [text("a"), "{broken", last_usage(), "[DONE]"]),
        ("bad_event", [[1, 2], "[DONE]"]),
        ("bad_event", [{"choices": 7}, "[DONE]"]),
        ("bad_event", [text("a"), {"choices": [], "usage": {"tokens": 3}}, "[DONE]"]),
        ("stream_error", [text("a"), {"error": {"message": "boom", "code": 500}}, "[DONE]"]),
        ("stream_error", [{"error": "boom"}]),
    ],
)
def test_what_is_wrong_with_a_stream_is_its_code(code, events):
    answer = read(*events)
    assert answer.error == code
    assert answer.error_detail
    assert not answer.missed_done


def test_a_broken_connection_keeps_what_had_come():
    answer = read(text("a"), text("b"), ended=False, failure=("disconnected", "reset"))
    assert (answer.error, answer.error_detail, answer.chunk_times) == ("disconnected", "reset", (0.0, 1.0))


def test_what_happens_to_the_connection_after_done_does_not_matter():
    answer = read(text("a", "stop"), last_usage(), "[DONE]", ended=False, failure=("disconnected", "reset"))
    assert answer.error is None


def test_nothing_counts_after_done():
    stream = Stream()
    assert stream.feed(0.0, b'data: [DONE]\n\ndata: {"choices":[{"text":"late"}]}\n\n')
    assert stream.answer(True).chunk_times == ()


def test_several_events_of_one_read_share_its_stamp():
    stream = Stream()
    stream.feed(2.5, f"data: {json.dumps(text('a'))}\n\ndata: {json.dumps(text('b'))}\n\n".encode())
    assert stream.answer(True).chunk_times == (2.5, 2.5)
