"""The one reader of what servers say: whatever comes is a text within bounds, or a code; parsers likewise."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtpbench import served
from mtpbench.engines import llamacpp, sglang, trtllm, vllm
from mtpbench.engines.simulated import simulated_power
from mtpbench.records import MOST_COUNTED, SpecCounters, to_json
from mtpbench.served import Reader, Unserved, metrics, parsed, picked, picked_text

Speak = Callable[[asyncio.StreamWriter], object]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


async def heard(say: bytes, again: bytes = b"", pause_s: float = 0.0, timeout_s: float = 5.0) -> str:
    """What the reader makes of a server that says some bytes, and then others again and again."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(say)
            while again:
                writer.write(again)
                await writer.drain()
                await asyncio.sleep(pause_s)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"
    try:
        async with Reader() as reader:
            return await reader.get(url, timeout_s)
    finally:
        server.close()


def body(content: bytes, more: bytes = b"") -> bytes:
    return HEAD + more + b"Content-Length: %d\r\n\r\n" % len(content) + content


BOMB = zlib.compressobj(9, zlib.DEFLATED, 31)
ZEROS = BOMB.compress(b"0" * (1 << 20)) + BOMB.flush()
ONE = gzip.compress(b"a 1\n", mtime=0)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("say", "again", "code"),
    [
        (CHUNKED, b"10\r\n" + b"x" * 16 + b"\r\n", "too_large"),
        (HEAD + b"\r\n", b"x" * 4096, "too_large"),
        (body(ZEROS, b"Content-Encoding: gzip\r\n"), b"", "too_large"),
        (body(zlib.compress(b"0" * (1 << 20)), b"Content-Encoding: deflate\r\n"), b"", "too_large"),
        (body(b"no gzip", b"Content-Encoding: gzip\r\n"), b"", "bad_response"),
        (body(b"xx", b"Content-Encoding: br\r\n"), b"", "bad_response"),
        (body(ONE[:-9], b"Content-Encoding: gzip\r\n"), b"", "bad_response"),
        (body(ONE * 2, b"Content-Encoding: gzip\r\n"), b"", "bad_response"),
        (body(zlib.compress(b"a 1\n")[:-5], b"Content-Encoding: deflate\r\n"), b"", "bad_response"),
        (b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"b" * 1000 + b"\r\n", "bad_response"),
        (b"hello world\r\n\r\n", b"", "bad_response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", b"", "bad_response"),
        (b"", b"", "disconnected"),
        (HEAD + b"Content-Length: 99\r\n\r\nx", b"", "disconnected"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", b"", "http_503"),
        (b"HTTP/1.1 204 No\r\n\r\n", b"", "http_204"),
    ],
)
async def test_whatever_a_server_sends_is_a_code(
    monkeypatch: pytest.MonkeyPatch, say: bytes, again: bytes, code: str
) -> None:
    monkeypatch.setattr(served, "PAGE_BYTES", 100_000)
    with pytest.raises(Unserved) as caught:
        await heard(say, again)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("say", "again"),
    [(CHUNKED, b"1\r\nx\r\n"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (b"HTTP/1.1 200 ", b"x")],
    ids=["body", "1xx", "head"],
)
async def test_a_trickle_ends_when_its_time_is_over_however_steady_it_is(say: bytes, again: bytes) -> None:
    with pytest.raises(Unserved, match=r"timeout: no end within 0\.2 s"):
        await heard(say, again, pause_s=0.01, timeout_s=0.2)


async def test_an_address_where_nobody_listens_is_a_code() -> None:
    async with Reader() as reader:
        with pytest.raises(Unserved, match="connect_failed: "):
            await reader.get("http://127.0.0.1:9/", 5.0)
        with pytest.raises(Unserved, match="bad_response: "):
            await reader.get("no address", 5.0)


async def test_no_redirect_is_followed_not_even_to_the_same_host() -> None:
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        port = writer.get_extra_info("sockname")[1]
        place = f"http://127.0.0.1:{port}/elsewhere".encode()
        writer.write(b"HTTP/1.1 302 F\r\nLocation: " + place + b"\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with Reader() as reader:
        with pytest.raises(Unserved, match="http_302"):
            await reader.get(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics", 5.0)
    server.close()
    assert asked == [b"GET /metrics HTTP/1.1\r\n"]


@pytest.mark.parametrize("charset", ["utf-16", "no-such-thing", "latin-1"])
async def test_no_charset_is_taken_but_utf_8_with_replacement(charset: str) -> None:
    say = body(b"a \xff\xc3\xa4", f"X: y\r\nContent-Type: text/plain; charset={charset}\r\n".encode())
    assert await heard(say) == "a \ufffdä"


async def test_compression_that_was_not_asked_for_is_undone() -> None:
    assert await heard(body(gzip.compress(b"text"), b"Content-Encoding: gzip\r\n")) == "text"
    assert await heard(body(zlib.compress(b"text"), b"Content-Encoding: deflate\r\n")) == "text"


# --- JSON ---


@pytest.mark.parametrize("text", ["", "x", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, "[1,", "\x00"])
def test_what_is_no_json_is_a_code(text: str) -> None:
    with pytest.raises(Unserved, match="bad_json: "):
        parsed(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)


@given(
    VALUES | st.fixed_dictionaries({"choices": VALUES | st.lists(st.fixed_dictionaries({"text": VALUES}))})
)
@settings(derandomize=True, deadline=None)
def test_what_is_picked_is_a_text_that_can_be_stored_or_a_code(value: object) -> None:
    text = ""
    with contextlib.suppress(Unserved):
        text = picked_text(value, "choices", 0, "text")
    assert text.encode().decode() == text


def test_a_path_says_where_it_ends() -> None:
    with pytest.raises(Unserved, match="there is no 1 of data/1"):
        picked({"data": [0]}, "data", 1)
    assert picked({"data": [0]}, "data", 0) == 0


# --- Prometheus's text ---

NAMES = (
    *(f"vllm:spec_decode_num_{name}_total" for name in ("drafts", "draft_tokens", "accepted_tokens")),
    "vllm:spec_decode_num_accepted_tokens_per_pos_total",
    *("sglang:spec_accept_length", "sglang:spec_verify_calls_total", "mtpbench_sim_gpu_power_watts"),
)
LABELS = (
    *("", "{}", "{", '{engine="0"}', '{engine="0",position="1"}', '{position="1000000000"}'),
    *('{position="-1"}', '{position="x"}', '{gpu="0"}', '{gpu=""}', '{position="²"}', '{a="\\"'),
)
NUMBERS = (
    "1",
    "2.5",
    "NaN",
    "+Inf",
    "-Inf",
    "1e999",
    "-1",
    "0x1",
    "1_0",
    "",
    "N/A",
    "9" * 400,
    "1 2 3",
    "1 5",
)
LINES = st.builds("{}{} {}".format, st.sampled_from(NAMES), st.sampled_from(LABELS), st.sampled_from(NUMBERS))
PAGES = st.lists(LINES | st.text(max_size=40), max_size=12).map("\n".join)


@given(PAGES)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_any_page_gives_counters_that_can_be_stored_or_none_or_a_reason(page: str) -> None:
    for read in (vllm.counters, sglang.counters, llamacpp.counters, trtllm.counters, simulated_power):
        try:
            taken = read(page)
        except ValueError:
            continue
        to_json(taken)
        if isinstance(taken, SpecCounters):
            counts = (taken.drafts or 0.0, taken.draft_tokens, taken.accepted_tokens, *taken.per_position)
            assert all(0 <= count <= len(page) * MOST_COUNTED for count in counts)
            assert len(taken.per_position) <= served.MOST_POSITIONS


@pytest.mark.parametrize(
    "line",
    [
        'vllm:spec_decode_num_accepted_tokens_per_pos_total{position="1000000000"} 1',
        'vllm:spec_decode_num_accepted_tokens_per_pos_total{position="999999999999999999999"} 1',
        "vllm:spec_decode_num_accepted_tokens_per_pos_total 1",
        'vllm:spec_decode_num_drafts_total{a="' + "\\\\" * 500_000 + '"} 1',
        "\n".join(['vllm:spec_decode_num_drafts_total{a="x"} 1'] * 50_000),
    ],
    ids=["gigabytes", "digits", "none", "quadratic", "many"],
)
def test_labels_and_lines_are_bounded(line: str) -> None:
    with pytest.raises(ValueError, match=r"position is|characters of metrics"):
        vllm.counters(line + "\n")


def test_lines_of_other_metrics_are_not_looked_at() -> None:
    text = "odd{ \xff\nNaN NaN\nvllm:a 1\n" + "x" * 100_000 + "\n# HELP vllm:a is a\n"
    (one,) = metrics(text, ("vllm:a",))
    assert (one.name, one.value, one.unix_s, one.series) == ("vllm:a", 1.0, None, "vllm:a{}")


def test_a_rank_whose_gauge_is_nan_has_none() -> None:
    """SGLang's gauges start as NaN (`fwd_occupancy`)."""
    text = 'sglang:spec_accept_length{rank="0"} NaN\nsglang:spec_accept_length{rank="1"} 2.5\n'
    gauges = sglang.counters(text)
    assert gauges is not None
    assert [(gauge.rank, gauge.length) for gauge in gauges] == [("rank=1", 2.5)]
    with pytest.raises(ValueError, match="NaN in all of its 1 series"):
        sglang.counters("sglang:spec_accept_length NaN\n")
