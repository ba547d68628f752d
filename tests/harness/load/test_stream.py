"""One streamed answer: chunks, counts and what can go wrong in it."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest
from answers import CAPTURES, chat, event, last_usage, text, usage
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtpbench.load.http1 import SseParser
from mtpbench.load.stream import Stream
from mtpbench.load.usage import TOKEN_BITS, UNCOUNTED, UNTOLD
from mtpbench.metrics.request_table import UNKNOWN


def times(stream):
    """The stamps of the chunks."""
    return [packed >> TOKEN_BITS for packed in stream.chunks]


def counts(stream):
    """The cumulative tokens of the chunks; None where the server did not say."""
    found = [packed & UNCOUNTED for packed in stream.chunks]
    return [None if tokens == UNCOUNTED else tokens for tokens in found]


def read(*events, ended=True, failure=None):
    """(the stream, its answer) after events that arrive one per µs from 0; text stands for itself."""
    stream = Stream()
    for at_us, data in enumerate(events):
        stream.feed(at_us, event(data))
    return stream, stream.answer(ended, failure)


def replay(name):
    stream = Stream()
    stream.feed(7, (CAPTURES / f"{name}.sse").read_bytes())
    return stream, stream.answer(True)


SGLANG = {"spec_verify_ct": 21, "spec_num_proposed_drafts": 63, "spec_num_correct_drafts": 42}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("vllm_mimo_synth3_completion", (22, 66, 41)),
        ("vllm_mimo_synth3_chat", (22, 66, 42)),
        ("llamacpp_crafted_mtp3_completion", (UNKNOWN, 75, 37)),
        ("llamacpp_crafted_mtp3_chat_continuous_usage", (UNKNOWN, 75, 37)),
        ("vllm_qwen3_off_chat", UNTOLD),
        ("vllm_crafted_mtp3_chat", UNTOLD),
    ],
)
def test_what_a_real_engine_tells_of_a_request_s_drafts_is_kept(name, told):
    assert replay(name)[1].told == told


def test_sglang_tells_of_drafts_in_an_event_of_its_own():
    """By the source of 0.5.21 and 0.5.23: after the finish reason, before the usage."""
    told = {"choices": [], "sglext": {"spec_tokens_details": SGLANG}}
    _, answer = read(text("a"), text("b", "length"), told, last_usage(64), "[DONE]")
    assert (answer.error, answer.told) == (None, (21, 63, 42))


@pytest.mark.parametrize(
    "body",
    [
        {"sglext": {"spec_tokens_details": [SGLANG]}},
        {"sglext": {"spec_tokens_details": {**SGLANG, "spec_num_correct_drafts": 64}}},
        {"sglext": {"spec_tokens_details": {**SGLANG, "spec_num_correct_drafts": True}}},
        {"sglext": [1]},
        {"metrics": {"speculative_decoding": None}},
        {"metrics": {"speculative_decoding": {"num_draft_tokens": "9", "num_accepted_draft_tokens": 3}}},
        {"timings": {"draft_n": 1e999, "draft_n_accepted": -1}},
        {"timings": {"draft_n": 2**70, "draft_n_accepted": 2**69}},
    ],
)
def test_a_tale_of_drafts_that_can_t_be_is_none_and_fails_no_request(body):
    _, answer = read(text("a"), text("b", "length"), {"choices": [], **body}, last_usage(64), "[DONE]")
    assert (answer.error, answer.told) == (None, UNTOLD)


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
    stream, answer = replay(name)
    assert answer.error is None
    assert times(stream) == [7] * chunks
    assert (answer.prompt_tokens, answer.output_tokens, answer.finish_reason) == (prompt_tokens, 64, "length")
    assert not answer.missed_done
    assert (None not in counts(stream)) == name.endswith("continuous_usage")


def test_continuous_usage_gives_the_tokens_after_every_chunk():
    stream, _ = replay("vllm_crafted_mtp3_chat_continuous_usage")
    tokens = counts(stream)
    assert tokens[:4] == [1, 3, 4, 8]
    assert tokens[-1] == 64
    assert tokens == sorted(set(tokens))


def test_an_engine_that_dies_in_mid_stream_is_a_stream_error():
    stream = Stream()
    assert stream.feed(1, (CAPTURES / "crash_midstream.sse").read_bytes())
    answer = stream.answer(True)
    assert answer.error == "stream_error"
    assert answer.error_detail.startswith("EngineCore encountered an issue")


def test_the_first_token_is_the_first_event_with_text_not_the_role():
    events = [chat(role="assistant", content=""), chat(content="a"), chat(content="b", finish="stop")]
    assert times(read(*events, last_usage(), "[DONE]")[0]) == [1, 2]


def test_reasoning_and_tool_calls_are_output():
    events = [chat(reasoning_content="hm"), chat(reasoning="hm"), chat(tool_calls=[{"id": "1"}])]
    assert times(read(*events, last_usage(), "[DONE]")[0]) == [0, 1, 2]


def test_an_event_without_text_is_a_chunk_after_the_first_one_only():
    """Half a character is output, an empty opening or a bare finish reason is not."""
    events = [text(""), text("a"), text(""), text("b"), text("", "length")]
    assert times(read(*events, last_usage(), "[DONE]")[0]) == [1, 2, 3]


def test_with_continuous_usage_an_event_is_a_chunk_if_the_count_rose():
    def at(n, content):
        return text(content, usage=usage(n))

    stream, _ = read(at(0, ""), at(2, ""), at(3, "ab"), at(3, ""), last_usage(), "[DONE]")
    assert (times(stream), counts(stream)) == ([1, 2], [2, 3])


def test_usage_that_only_the_last_choice_carries_counts_the_whole_answer_not_its_chunks():
    stream, answer = read(text("a"), text("b"), text("c", "length", usage=usage()), "[DONE]")
    assert (answer.error, answer.output_tokens) == (None, 3)
    assert times(stream) == [0, 1, 2]
    assert None in counts(stream)


def test_an_answer_in_a_single_event_is_known_to_hold_all_its_tokens():
    assert counts(read(text("abc", "length", usage=usage()), "[DONE]")[0]) == [3]


def test_usage_without_a_count_of_output_tokens_is_unknown_not_zero():
    _, answer = read(text("a", "stop"), last_usage(None), "[DONE]")
    assert (answer.error, answer.output_tokens) == ("no_usage", None)


def test_null_usage_is_no_usage():
    stream, answer = read(text("a", usage=None), text("b", "stop", usage=None), last_usage(), "[DONE]")
    assert (answer.error, counts(stream), answer.output_tokens) == (None, [None, None], 3)


def test_a_missing_done_is_noted_where_finish_reason_and_usage_came():
    _, answer = read(text("a", "length"), last_usage())
    assert (answer.error, answer.missed_done) == (None, True)


@pytest.mark.parametrize(
    ("code", "events"),
    [
        ("no_done", [text("a")]),
        ("no_done", [text("a", "length")]),
        ("no_done", [text("a"), last_usage()]),
        ("no_done", []),
        ("no_finish", [text("a"), last_usage(1), "[DONE]"]),
        ("finish_abort", [text("a"), text("", "abort"), last_usage(1), "[DONE]"]),
        ("finish_abort", [text("a", "abort", usage=usage(1)), "[DONE]"]),
        ("finish_error", [chat(content="a"), chat("error"), last_usage(1), "[DONE]"]),
        ("finish_content_filter", [chat("content_filter", content="a"), last_usage(1)]),
        ("finish_cancelled", [text("", "cancelled"), "[DONE]"]),
        ("finish_other", [text("a", "repetition"), last_usage(1), "[DONE]"]),
        ("no_usage", [text("a", "length"), last_usage(0, 0), "[DONE]"]),
        ("no_usage", [text("a", "length"), last_usage(0), "[DONE]"]),
        ("no_usage", [text("a", "length"), last_usage(1, 0), "[DONE]"]),
        ("stream_error", [text("a"), {"object": "error", "message": "worker lost", "code": 500}, "[DONE]"]),
        ("bad_event", [text("a"), '{"a":' * 3000 + "1" + "}" * 3000]),
        ("bad_event", [text("a"), {"choices": json.loads("[" * 900 + "]" * 900)}]),
        ("no_usage", [text("a", "length"), "[DONE]"]),
        ("no_usage", ["[DONE]"]),
        ("empty_stream", [text("", "length"), last_usage(), "[DONE]"]),
        ("bad_event", [text("a"), "{broken", last_usage(), "[DONE]"]),
        ("bad_event", [[1, 2], "[DONE]"]),
        ("bad_event", [{"choices": 7}, "[DONE]"]),
        ("bad_event", [text("a"), {"choices": [], "usage": {"tokens": 3}}, "[DONE]"]),
        ("bad_event", [text("a", usage=usage(prompt=None)), "[DONE]"]),
        ("stream_error", [text("a"), {"error": {"message": "boom", "code": 500}}, "[DONE]"]),
        ("stream_error", [{"error": "boom"}]),
    ],
)
def test_what_is_wrong_with_a_stream_is_its_code(code, events):
    _, answer = read(*events)
    assert answer.error == code
    assert answer.error_detail
    assert not answer.missed_done


BAD_COUNTS = [1e300, -1, 2**70, "many", [3], 2.5, float("inf"), float("nan")]


@pytest.mark.parametrize(
    ("key", "count"),
    [(key, count) for key in ("prompt_tokens", "completion_tokens") for count in BAD_COUNTS]
    + [("completion_tokens", UNCOUNTED), ("completion_tokens", UNCOUNTED + 1)],
)
@pytest.mark.parametrize("where", ["with text", "at the end"])
def test_counts_that_are_none_are_a_bad_event(count, key, where):
    """They must neither end the client nor spoil the stamp that they are packed with."""
    said = {**usage(), key: count}
    last = text("a", usage=said) if where == "with text" else {"choices": [], "usage": said}
    stream, answer = read(text("a", usage=usage(1)), last, text("b", "stop", usage=usage()), "[DONE]")
    assert (answer.error, times(stream), counts(stream)) == ("bad_event", [0], [1])
    assert (answer.prompt_tokens, answer.output_tokens) == (5, 1)


def test_a_broken_connection_keeps_what_had_come():
    stream, answer = read(text("a"), text("b"), ended=False, failure=("disconnected", "reset"))
    assert (answer.error, answer.error_detail, times(stream)) == ("disconnected", "reset", [0, 1])


def test_what_happens_to_the_connection_after_done_does_not_matter():
    events = [text("a", "stop"), last_usage(), "[DONE]"]
    assert read(*events, ended=False, failure=("disconnected", "reset"))[1].error is None


def test_nothing_counts_after_done():
    stream = Stream()
    assert stream.feed(0, b'data: [DONE]\n\ndata: {"choices":[{"text":"late"}]}\n\n')
    assert times(stream) == []


def test_several_events_of_one_read_share_its_stamp():
    stream = Stream()
    stream.feed(2_500_000, event(text("a")) + event(text("b")))
    assert times(stream) == [2_500_000] * 2
    assert (stream.events, stream.last_us) == (2, 2_500_000)


def test_tokens_so_far_are_counted_by_the_server_or_by_chunks():
    assert read(text("a"), text("b"))[0].tokens == 2
    assert read(text("a", usage=usage(1)), text("b", usage=usage(6)))[0].tokens == 6
    assert Stream().tokens == 0


def test_whether_the_next_byte_begins_an_event():
    stream = Stream()
    assert not stream.at_event  # a byte order mark may come
    stream.feed(0, event(text("a")))
    assert stream.at_event
    stream.feed(0, b"data: {")
    assert not stream.at_event
    compressed = Stream()
    assert compressed.decode("gzip")
    assert not compressed.at_event
    assert [Stream().decode(name) for name in ("", "identity", "deflate", "br")] == [True, True, True, False]


rare = st.sampled_from([None, True, 0, -3, 2.0, 2.5, 1e300, 2**24, 2**40, "3", "x", [], [1], {}, {"a": 1}])
tokens_said = st.integers(0, 9) | rare
texts = st.sampled_from(["a", "b", "", "\u00fc"]) | rare
finishes = st.sampled_from([None, None, None, "length", "stop", ""])
usages = (
    st.none()
    | st.fixed_dictionaries({"prompt_tokens": st.just(5), "completion_tokens": st.integers(0, 9)})
    | st.fixed_dictionaries({}, optional={"prompt_tokens": tokens_said, "completion_tokens": tokens_said})
    | rare
)
completions = st.fixed_dictionaries(
    {"text": texts}, optional={"finish_reason": finishes, "index": st.just(0)}
)
chats = st.fixed_dictionaries(
    {},
    optional={
        "delta": st.fixed_dictionaries(
            {}, optional={"content": texts, "role": st.just("assistant"), "reasoning": texts}
        )
        | rare,
        "finish_reason": finishes,
        "text": texts,
    },
)
choice_lists = st.lists(completions | chats, min_size=1, max_size=1) | st.lists(
    completions | chats | rare, max_size=3
)
bodies = st.fixed_dictionaries(
    {"choices": choice_lists}, optional={"usage": usages, "error": st.sampled_from([None, "", "boom", {}])}
)
events_said = st.lists(
    bodies.map(json.dumps)
    | rare.map(json.dumps)
    | st.sampled_from(["[DONE]", "", "{broken", '{"choices": [{"text": "\\ud800"}]}', "NaN"]),
    max_size=8,
)


def take_long(stream, at_us, data):
    """The long way alone, whatever the event."""
    try:
        body = json.loads(data)
    except ValueError:
        return stream._take_other_json(at_us, data)
    return stream._take_any(at_us, body, data)


def state(stream):
    """All that an answer and its record depend on."""
    return (
        stream.chunks.tolist(),
        stream.done,
        stream.tokens,
        stream.answer(True),
        stream.answer(False, ("x", "y")),
    )


@settings(max_examples=400)
@given(events_said)
@example([json.dumps(text("a", usage={"prompt_tokens": None, "completion_tokens": 3}))])
@example([json.dumps(text("a", usage=usage(3))), json.dumps(text("b", usage=usage(3.0)))])
@example([json.dumps(text("a")), json.dumps(text("b", usage=usage())), json.dumps(text("", usage=usage()))])
def test_the_quick_way_gives_what_the_long_way_gives(said):
    quick, long = Stream(), Stream()
    for at_us, data in enumerate(said):
        over = quick.take(at_us, data.encode())
        assert over == take_long(long, at_us, data.encode())
        if over:
            break
    assert state(quick) == state(long)


@settings(max_examples=200)
@given(events_said)
def test_whatever_comes_an_answer_holds_what_its_types_say(said):
    stream = Stream()
    for at_us, data in enumerate(said):
        if stream.take(at_us, data.encode()):
            break
    answer = stream.answer(True)
    for count in (answer.prompt_tokens, answer.output_tokens):
        assert count is None or (isinstance(count, int) and 0 <= count < UNCOUNTED)
    for words in (answer.finish_reason, answer.error, answer.error_detail):
        assert words is None or isinstance(words, str)
    assert all(0 <= at < len(said) for at in times(stream))


@pytest.mark.parametrize("finish", [7, ["length"], {"type": "stop"}])
def test_a_finish_reason_that_is_no_text_is_a_bad_event(finish):
    _, answer = read(text("a", finish), last_usage(), "[DONE]")
    assert answer.error == "bad_event"


@pytest.mark.parametrize("finish", ["length", "stop", "tool_calls", "function_call"])
def test_an_answer_ends_in_order_by_four_finish_reasons(finish):
    assert read(text("a"), text("", finish), last_usage(1), "[DONE]")[1].error is None


ODD = "a\0b\x1b[31m\ud800\x9b"
STORED = "a\\x00b\\x1b[31m\\ud800\\x9b"


@pytest.mark.parametrize(
    "last",
    [{"error": {"message": ODD}}, text("a", ODD), "{" + ODD.replace("\ud800", "?")],
    ids=["error", "finish", "bad"],
)
def test_words_of_a_server_can_be_stored_and_shown(last):
    """NUL, ESC and lone surrogates are valid in JSON, and neither Parquet nor a terminal takes them."""
    answer = read(text("a"), last, last_usage(), "[DONE]")[1]
    words = f"{answer.finish_reason} {answer.error_detail}"
    assert words.encode()
    assert not set(words) & set("\0\x1b\ud800\x9b")
    if isinstance(last, dict):
        assert STORED in words or STORED in (answer.finish_reason or "")


def test_an_event_of_type_error_fails_the_request_whatever_its_data():
    """sgl-project/sglang and Dynamo's frontend name the type; the data need not hold a key `error`."""
    for data, words in (
        (b'{"object": "error", "message": "worker lost", "code": 500}', "worker lost"),
        (b'{"error": {"message": "worker lost"}}', "worker lost"),
        (b"worker lost", "worker lost"),
        (b"[" * 3000, "[[[["),
    ):
        stream = Stream()
        assert stream.feed(1, event(text("a")) + b"event: error\ndata: " + data + b"\n\n" + event("[DONE]"))
        answer = stream.answer(True)
        assert (answer.error, answer.error_detail[: len(words)]) == ("stream_error", words)


def test_the_type_of_an_event_is_its_own():
    parts = [
        b"event: error\n\n",
        b"event: message\n",
        event(text("a", "stop")),
        event(last_usage(1)),
        event("[DONE]"),
    ]
    for cut in (1, 7, 1000):
        stream, body = Stream(), b"".join(parts)
        for i in range(0, len(body), cut):
            stream.feed(1, body[i : i + cut])
        assert stream.answer(True).error is None
    stream = Stream()
    stream.feed(0, event(text("a")) + b"event: error\n")
    assert not stream.at_event


@pytest.mark.parametrize(
    "key", ["reasoning", "reasoning_content", "thinking", "tool_calls", "function_call", "x_new"]
)
@pytest.mark.parametrize("value", ["hm", [{"text": "hm"}], {"arguments": "{"}])
def test_output_under_any_key_of_a_delta_is_output(key, value):
    """sgl-project/genai-bench#164: the thoughts of a model were not seen."""
    events = [
        chat(role="assistant", content=""),
        chat(**{key: value}, content=None),
        chat("stop", content="b"),
    ]
    assert times(read(*events, last_usage(2), "[DONE]")[0]) == [1, 2]


def test_what_an_unknown_key_of_a_delta_holds_may_be_nothing():
    nothing = {"content": "", "reasoning": None, "tool_calls": [], "x": {"y": None}, "refusal": "", "n": 7}
    events = [chat(role="assistant", **nothing), chat(content="a"), chat("stop", content="b")]
    assert times(read(*events, last_usage(2), "[DONE]")[0]) == [1, 2]


def roles(*texts):
    """Events of a chat with a role in each."""
    return [chat(role="assistant", content=text) for text in texts]


@pytest.mark.parametrize(
    ("events", "output", "chunks"),
    [
        ([text(""), text(""), text("a"), text("b", "length")], 4, [0, 1, 2, 3]),
        ([text(""), text("a"), text("b", "length")], 2, [1, 2]),
        ([text(""), text(""), text("a"), text("b", "length")], 3, [1, 2, 3]),
        ([text(""), text("abcd"), text("efgh", "length")], 9, [0, 1, 2]),
        ([text(""), text(""), text("", "length")], 3, [0, 1]),
        ([chat(content=""), chat(), chat(content="a"), chat("stop")], 3, [0, 1, 2]),
        ([chat(role="assistant", content=""), chat(content="a"), chat("stop", content="b")], 3, [1, 2]),
        ([chat(role="assistant", content=""), chat(content=""), chat("stop", content="b")], 2, [1, 2]),
        ([*roles("", "", "a", "", "b"), chat("stop")], 5, [0, 1, 2, 3, 4]),
        ([*roles("", "a", "b"), chat("stop")], 2, [1, 2]),
        (
            [chat(role="assistant"), chat(content="a"), chat(role="assistant"), chat("stop", content="b")],
            3,
            [1, 3],
        ),
    ],
)
def test_events_without_text_before_the_first_one_are_chunks_as_far_as_there_are_tokens(
    events, output, chunks
):
    """mlcommons/endpoints#380, vllm-project/vllm#5895: special tokens have no text."""
    stream, answer = read(*events, last_usage(output), "[DONE]")
    assert (answer.error, times(stream)) == (None, chunks)
    assert stream.answer(True) == answer
    assert times(stream) == chunks


@pytest.mark.parametrize(
    "late",
    [
        text(""),
        chat(content=""),
        chat(),
        chat(usage=usage(2)),
        text("", usage=usage(3)),
        chat(role="assistant"),
        chat("stop"),
    ],
)
@pytest.mark.parametrize("along", [False, True])
def test_after_the_finish_reason_only_text_is_a_chunk(late, along):
    """mozilla-ai/any-llm#1392, BerriAI/litellm#36767, vllm-project/vllm#55508."""
    said = [usage(n) if along else None for n in (1, 2)]
    events = [text("a", usage=said[0]), text("b", "length", usage=said[1])]
    stream, answer = read(*events, late, last_usage(2), "[DONE]")
    assert (answer.error, times(stream)) == (None, [0, 1])
    assert times(read(*events, text("c"), last_usage(3), "[DONE]")[0])[-1] == 2
    assert times(read(*events, text("c"), last_usage(2), "[DONE]")[0])[-1] == 1


def test_a_running_count_that_leaves_out_its_own_event_is_none():
    events = [text("w", usage=usage(n)) for n in range(8)]
    stream, answer = read(*events, text("", "length"), last_usage(8), "[DONE]")
    assert (answer.error, answer.output_tokens, times(stream)) == (None, 8, list(range(8)))
    assert {packed & UNCOUNTED for packed in stream.chunks} == {UNCOUNTED}


@pytest.mark.parametrize("said", [0, 1])
def test_a_running_count_that_stands_while_text_comes_is_none(said):
    zeros = {**usage(0, 0), "total_tokens": 0}
    along = zeros if said == 0 else usage(1)
    events = [text(c, usage=along) for c in "abc"] + [text("d", "length", usage=along)]
    stream, answer = read(*events, last_usage(4), "[DONE]")
    assert (answer.error, answer.output_tokens) == (None, 4)
    assert (times(stream), counts(stream)) == ([0, 1, 2, 3], [None] * 4)


def test_a_running_count_that_misses_tokens_is_none():
    events = [text(str(n), usage=usage(n)) for n in range(1, 33)]
    stream, _ = read(*events, text("", "length"), last_usage(64), "[DONE]")
    assert counts(stream) == [None] * 32
    stream, _ = read(*events, text("", "length"), last_usage(33), "[DONE]")
    assert counts(stream) == list(range(1, 33))


@pytest.mark.parametrize("form", ["token_ids", "content", "tokens"])
def test_tokens_that_an_event_lists_are_counted(form):
    def listing(n):
        return {"token_ids": [7] * n} if form == "token_ids" else {"logprobs": {form: [{}] * n}}

    events = [
        {"choices": [{"text": t, "finish_reason": f, **listing(n)}]}
        for t, n, f in (("", 2, None), ("a", 3, None), ("b", 1, "stop"))
    ]
    stream, answer = read(*events, last_usage(6), "[DONE]")
    assert (answer.error, times(stream), counts(stream)) == (None, [0, 1, 2], [2, 5, 6])


def test_tokens_of_a_prefix_cache_and_of_thoughts_are_kept():
    said = {
        **usage(4, 9),
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    answer = read(text("a", "stop"), {"choices": [], "usage": said}, "[DONE]")[1]
    assert (answer.cached_prompt_tokens, answer.reasoning_tokens) == (8, 3)
    for odd in (
        None,
        7,
        [],
        {},
        {"cached_tokens": None},
        {"cached_tokens": -1},
        {"cached_tokens": "8"},
        {"cached_tokens": True},
        {"cached_tokens": 10},  # of a prompt of 9
    ):
        answer = read(
            text("a", "stop"), {"choices": [], "usage": {**said, "prompt_tokens_details": odd}}, "[DONE]"
        )[1]
        assert (answer.error, answer.cached_prompt_tokens) == (None, None)
    said = {**said, "completion_tokens_details": {"reasoning_tokens": 5}}  # of an answer of 4
    answer = read(text("a", "stop"), {"choices": [], "usage": said}, "[DONE]")[1]
    assert (answer.error, answer.reasoning_tokens) == (None, None)


def test_what_a_server_sends_is_bounded(monkeypatch):
    line, lines = [b"data: ", *[b"x" * 65_536] * 70], [b"data: x\n" * 2000] * 400
    for pieces in (line, lines):
        stream = Stream()
        assert any(stream.feed(0, piece) for piece in pieces)
        assert stream.answer(False, ("disconnected", "x")).error == "oversized"
    monkeypatch.setattr("mtpbench.load.stream.MOST_EVENTS", 10)
    for many in (text("a"), text("")):
        stream = Stream()
        assert any(stream.feed(0, event(many)) for _ in range(20))
        assert stream.answer(True).error == "oversized"
    for harmless in (b": ping\n\n", event({"choices": []})):
        stream = Stream()
        assert not any(stream.feed(0, harmless) for _ in range(100))


def test_a_compressed_answer_is_read_in_bounded_parts():
    stream = Stream()
    assert stream.decode("gzip")
    bomb = gzip.compress(b"data: " + b"x" * (64 << 20))
    assert stream.feed(0, bomb)
    assert stream.answer(True).error == "oversized"
    whole = Stream()
    assert whole.decode("gzip")
    body = b"".join(
        [event(text("a"))] * 2000 + [event(text("", "stop")), event(last_usage(2000)), event("[DONE]")]
    )
    assert whole.feed(5, gzip.compress(body))
    assert (whole.answer(True).error, len(whole.chunks)) == (None, 2000)


CAPTURED_STREAMS = sorted((Path(__file__).parents[2] / "fixtures" / "captures").glob("*.sse"))


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


@pytest.mark.parametrize("path", CAPTURED_STREAMS, ids=lambda path: path.name)
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
