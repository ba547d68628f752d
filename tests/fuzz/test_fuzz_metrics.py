"""What servers say: any bytes in answer to a question, any text of metrics."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mtpbench.engines import llamacpp, sglang, trtllm, vllm
from mtpbench.engines.simulated import simulated_power
from mtpbench.power.dcgm import readings
from mtpbench.records import to_json
from mtpbench.served import Reader, Unserved, parsed, picked_text

CAPTURES = Path(__file__).resolve().parents[1] / "fixtures" / "captures"
PIECES = (
    *(b"\0", b"\n", b"\r\n", b"\r\n\r\n", b"\xff", b"9" * 30, b"{", b"}", b'"', b"\\", b"=", b",", b"1e999"),
    *(b"NaN", b"-", b"Infinity", b"N/A", b"0x1", b"1_0", b" ", b"\xe2\x80\xa8", b"0\r\n\r\n", b"HTTP/1.1 "),
    *(
        b"Content-Encoding: gzip\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\n",
        b"\xc2\xb2",
    ),
)


def mutated(seed: bytes, chance: random.Random) -> bytes:
    """The seed with a few bytes changed, cut out, repeated or put in."""
    text = bytearray(seed)
    for _ in range(chance.choice((1, 2, 4, 10))):
        place = chance.randrange(len(text) + 1)
        match chance.randrange(5):
            case 0:
                text[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del text[place : place + chance.choice((1, 8, 200))]
            case 2:
                text[place:place] = chance.choice(PIECES)
            case 3:
                text[place:place] = text[: chance.choice((4, 60, 400))]
            case _:
                del text[chance.randrange(len(text) + 1) :]
    return bytes(text)


SPOKEN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
ANSWER = b'{"choices": [{"text": "a \\ud83d\\ude00", "message": {"content": "b"}}], "data": [{"id": "m"}]}'
ZIPPED = gzip.compress(ANSWER)
ANSWERS = (
    SPOKEN + b"Content-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER,
    SPOKEN + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(ANSWER), ANSWER),
    SPOKEN + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(ZIPPED) + ZIPPED,
)


async def served(say: bytes) -> None:
    """Reads a page of a server that says these bytes and closes; anything but a text or a code is raised."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(say)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        async with Reader() as reader:
            text = await reader.get(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", 5.0)
        picked_text(parsed(text), "choices", 0, "text").encode()
    except Unserved:
        pass
    finally:
        server.close()


@settings(max_examples=150)
@given(st.randoms(use_true_random=False), st.sampled_from(ANSWERS))
def test_any_bytes_of_a_server_are_a_text_or_a_code(chance: random.Random, seed: bytes) -> None:
    asyncio.run(served(mutated(seed, chance)))


PAGES = [
    *(path.read_bytes() for path in sorted(CAPTURES.glob("*metrics_after*"))),
    b'sglang:spec_accept_length{dp_rank="0"} 2.5\nsglang:spec_verify_calls_total{dp_rank="0"} 9\n',
    b'DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a",modelName="H200"} 500.1 1700000000500\n',
    b'mtpbench_sim_gpu_power_watts{gpu="0"} 500\nmtpbench_sim_gpu_energy_joules_total{gpu="0"} 5\n',
]


@given(st.randoms(use_true_random=False), st.sampled_from(PAGES))
def test_any_page_of_metrics_is_counters_or_a_reason(chance: random.Random, page: bytes) -> None:
    lines = [line for line in page.splitlines(keepends=True) if b"spec" in line or b"gpu" in line]
    text = mutated(b"".join(lines), chance).decode("utf-8", "replace")
    for read in (
        vllm.counters,
        llamacpp.counters,
        trtllm.counters,
        sglang.counters,
        simulated_power,
        readings,
    ):
        try:
            taken = read(text)
        except ValueError:
            continue
        json.dumps(to_json(taken)).encode()
