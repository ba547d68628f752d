"""What a server streams: any bytes, any events, cut anywhere, end as an answer or as an error with a name."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mtpbench.load.http1 import DONE, BadResponse, Response
from mtpbench.load.stream import Stream
from mtpbench.load.usage import TOKEN_BITS, UNCOUNTED

CAPTURES = Path(__file__).resolve().parents[1] / "fixtures" / "captures"
STREAMS = [path.read_bytes()[-6000:] for path in sorted(CAPTURES.glob("*mtp3*.sse"))]
PIECES = (
    *(
        b"\0",
        b"\n\n",
        b"\r\n",
        b"\r",
        b"\xff",
        b"data: ",
        b"event: error\n",
        b": ping\n\n",
        b"data: [DONE]\n\n",
    ),
    *(
        b'"finish_reason":"abort"',
        b'"usage":null',
        b"\\ud800",
        b"1e999",
        b"NaN",
        b"-1",
        b"9" * 40,
        b"[" * 3000,
    ),
    *(
        b'"role":"assistant",',
        b'"content":""',
        b"null",
        b"{}",
        b"\xef\xbb\xbf",
        b'{"error":{}}',
        b'"text":""',
    ),
)
CODE = re.compile(r"[a-z_]{4,24}")
odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
keys = (
    "choices",
    "usage",
    "error",
    "object",
    "delta",
    "text",
    "content",
    "role",
    "finish_reason",
    "reasoning",
)
bodies: Any = st.deferred(
    lambda: (
        st.fixed_dictionaries(
            {},
            optional={
                **dict.fromkeys(("error", "object", "usage"), odd),
                "choices": st.lists(
                    st.fixed_dictionaries({}, optional=dict.fromkeys((*keys, "logprobs", "token_ids"), odd))
                    | odd,
                    max_size=3,
                )
                | odd,
            },
        )
        | odd
    )
)


def check(stream: Stream) -> None:
    """What every answer holds: counts in their range, texts that can be stored, a named error."""
    for ended, failure in ((True, None), (False, ("disconnected", "x\0\ud800"))):
        answer = stream.answer(ended, failure)
        assert answer.error is None or CODE.fullmatch(answer.error)
        for words in (answer.finish_reason, answer.error, answer.error_detail):
            assert words is None or (words.encode() and "\0" not in words and "\x1b" not in words)
        for count in (
            answer.prompt_tokens,
            answer.output_tokens,
            answer.cached_prompt_tokens,
            answer.reasoning_tokens,
        ):
            assert count is None or (type(count) is int and 0 <= count < UNCOUNTED)
        if answer.error is None:
            assert answer.output_tokens is not None
            assert answer.finish_reason in ("length", "stop", "tool_calls", "function_call")
        assert all(0 <= packed >> TOKEN_BITS < 1 << 20 for packed in stream.chunks)


def fed(data: bytes, cut: int, encoding: str = "") -> Stream:
    stream = Stream()
    assert stream.decode(encoding)
    for at_us, begin in enumerate(range(0, len(data), cut)):
        if stream.feed(at_us, data[begin : begin + cut]):
            break
    return stream


@given(st.lists(bodies, max_size=6), st.integers(1, 300))
def test_any_events_end_as_an_answer_or_a_named_error(said: list[Any], cut: int) -> None:
    data = b"".join(b"data: " + json.dumps(body).encode() + b"\n\n" for body in said)
    check(fed(data, cut))


@settings(max_examples=400)
@given(st.randoms(use_true_random=False), st.sampled_from(STREAMS), st.sampled_from([1, 7, 64, 5000]))
def test_any_damage_to_a_real_stream_does_too(chance: random.Random, seed: bytes, cut: int) -> None:
    text = bytearray(seed)
    for _ in range(chance.choice((1, 2, 4, 10))):
        place = chance.randrange(len(text) + 1)
        text[place : place + chance.choice((0, 1, 30))] = chance.choice(PIECES)
    check(fed(bytes(text), cut))


@given(st.binary(max_size=400), st.sampled_from(["", "gzip", "deflate"]), st.integers(1, 50))
def test_any_bytes_do_too(data: bytes, encoding: str, cut: int) -> None:
    check(fed(data, cut, encoding))


HEADS = (
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"\r\n",
    b"9" * 5000,
    b"f\r\n",
)


@given(st.lists(st.sampled_from([*HEADS, *PIECES]) | st.binary(max_size=20), max_size=8), st.integers(1, 60))
def test_any_head_and_framing_is_read_or_refused(parts: list[bytes], cut: int) -> None:
    data, response = b"HTTP/1.1 200 OK\r\n" + b"".join(parts), Response()
    try:
        for begin in range(0, len(data), cut):
            response.feed(data[begin : begin + cut])
    except BadResponse:
        assert response.state < DONE or response.ended
