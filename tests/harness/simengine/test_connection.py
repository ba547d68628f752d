"""The bare connections of the embedded engine, byte by byte."""

import asyncio
import json

import pytest
from http_engine import LOOPS, ask, run

from mtpbench.simengine.connection import Intake

LOOP = pytest.mark.parametrize("loop", LOOPS)
SPLIT = pytest.mark.parametrize("split", [False, True], ids=["aggregated", "split"])
END = b"0\r\n\r\n"


def post(body, path="/v1/completions", version="1.1", *headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/{version}", "Host: x", f"content-LENGTH: {len(data)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + data


async def connect(url):
    host, _, port = url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


def on_a_connection(test, *words, **settings):
    """Runs `test(reader, writer)` on one connection."""

    async def inside(session, url):
        del session
        reader, writer = await connect(url)
        try:
            return await test(reader, writer)
        finally:
            writer.close()

    return run(inside, *words, **settings)


async def status_and_body(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lengths = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
    body = await reader.readexactly(int(lengths[0].split(":")[1])) if lengths else b""
    return int(head.split()[1]), head, body


@LOOP
@SPLIT
def test_a_request_may_come_in_single_bytes(loop, split):
    async def test(reader, writer):
        for byte in post(ask(3)):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        return await reader.readuntil(END)

    answer = on_a_connection(test, loop=loop, split=split)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nX-Simulated: mtpbench-simulated\r\n")
    assert answer.count(b'"choices":[{') == 3
    assert b"[DONE]" in answer


@LOOP
@SPLIT
def test_requests_follow_one_another_on_a_connection_even_if_sent_together(loop, split):
    async def test(reader, writer):
        writer.write(post(ask(2)) + post(b"{") + post(ask(4, stream=False)) + post(ask(3)))
        first = await reader.readuntil(END)
        error, whole = await status_and_body(reader), await status_and_body(reader)
        return first, error, whole, await reader.readuntil(END)

    first, error, whole, last = on_a_connection(test, loop=loop, split=split)
    assert first.count(b'"choices":[{') == 2
    assert error[0] == 400
    assert json.loads(whole[2])["usage"]["completion_tokens"] == 4
    assert last.count(b'"choices":[{') == 3


@LOOP
@SPLIT
def test_other_calls_are_answered_on_a_connection_that_was_used_and_close_it(loop, split):
    async def test(reader, writer):
        writer.write(post(ask(2)))
        await reader.readuntil(END)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        return await status_and_body(reader), await reader.read()

    (status, head, _), rest = on_a_connection(test, loop=loop, split=split)
    assert status == 200
    assert "connection: close" in head.lower()
    assert rest == b""


@LOOP
@pytest.mark.parametrize("opening", [b"GET /nothing HTTP/1.1", b"POST /nothing HTTP/1.1", b"PUT / HTTP/1.1"])
def test_unknown_calls_get_404(loop, opening):
    async def test(reader, writer):
        writer.write(opening[:3])
        await asyncio.sleep(0.01)
        writer.write(opening[3:] + b"\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        return await status_and_body(reader)

    assert on_a_connection(test, loop=loop)[0] == 404


@LOOP
def test_garbage_gets_400(loop):
    async def test(reader, writer):
        writer.write(b"\x16\x03\x01 no http\r\n\r\n")
        return await status_and_body(reader)

    assert on_a_connection(test, loop=loop)[0] == 400


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 411),
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n", 413),
    ],
)
@LOOP
def test_bodies_of_unknown_or_unbearable_length_are_refused(loop, sent, status):
    async def test(reader, writer):
        writer.write(sent)
        return await status_and_body(reader), await reader.read()

    (found, _, body), rest = on_a_connection(test, loop=loop)
    assert found == status
    assert json.loads(body)["error"]["code"] == status
    assert rest == b""


@LOOP
def test_a_client_that_waits_to_be_told_to_go_on_is(loop):
    async def test(reader, writer):
        head, _, body = post(ask(2), "/v1/completions", "1.1", "Expect: 100-continue").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert (await status_and_body(reader))[0] == 100
        writer.write(body)
        return await reader.readuntil(END)

    assert b"[DONE]" in on_a_connection(test, loop=loop)


@LOOP
@pytest.mark.parametrize("words", [("1.1", "Connection: close"), ("1.0",)])
def test_the_connection_closes_where_the_client_wants_it(loop, words):
    async def test(reader, writer):
        writer.write(post(ask(2), "/v1/completions", *words))
        return await reader.read()

    answer = on_a_connection(test, loop=loop)
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(END)


def serve_with(handler, test, loop):
    """Runs `test(reader, writer, connections)` against a server whose only call, POST /, is the handler."""

    async def inside():
        intake = Intake({b"/": handler}, asyncio.Protocol, 1000)
        server = await asyncio.get_running_loop().create_server(intake.connect, "127.0.0.1", 0)
        reader, writer = await connect(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with asyncio.timeout(30):
            answer = await test(reader, writer, intake.connections)
        writer.close()
        intake.close()
        server.close()
        await asyncio.sleep(0.01)
        return answer

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(inside())


@LOOP
def test_a_client_that_reads_late_gets_every_byte_in_order(loop):
    """More than sockets hold: the rest waits in the transport, and what comes later behind it."""
    lines = [b"%07d" % i + b"." * 1000 + b"\n" for i in range(20_000)]
    late = [b"%07d late\n" % i for i in range(1_000)]

    def handle(connection, body, received_ns):
        del body, received_ns
        for line in lines:
            connection.send(line)
        send_late(connection, 0)

    def send_late(connection, i):
        connection.send(late[i])
        if i + 1 < len(late):
            asyncio.get_running_loop().call_later(0.0001, send_late, connection, i + 1)
        else:
            connection.hang_up()

    async def test(reader, writer, connections):
        writer.write(post(b"", "/"))
        await asyncio.sleep(0.2)
        waiting = [c._transport.get_write_buffer_size() for c in connections]
        return waiting, await reader.read()

    waiting, answer = serve_with(handle, test, loop)
    assert waiting[0] > 0
    assert answer == b"".join([*lines, *late])


@LOOP
def test_nothing_is_sent_to_a_client_that_left_and_its_reply_is_told_once(loop):
    told = []

    class Reply:
        def lost(self):
            told.append("lost")

    def handle(connection, body, received_ns):
        del body, received_ns
        connection.reply = Reply()
        told.append(connection)

    async def test(reader, writer, connections):
        del reader
        writer.write(post(b"", "/"))
        while not told:
            await asyncio.sleep(0.001)
        writer.transport.abort()
        while len(told) < 2:
            await asyncio.sleep(0.001)
        told[0].send(b"too late")
        told[0].hang_up()
        assert not connections

    serve_with(handle, test, loop)
    assert told[1:] == ["lost"]


def test_a_burst_of_connections_and_requests_is_answered_without_an_error():
    async def test(session, url):
        del session
        pairs = await asyncio.gather(*(connect(url) for _ in range(600)))
        for _, writer in pairs:
            writer.write(post(ask(4)))
        answers = await asyncio.gather(*(reader.readuntil(END) for reader, _ in pairs))
        for _, writer in pairs:
            writer.close()
        return answers

    answers = run(test, "--stream-interval", "2")
    assert all(answer.startswith(b"HTTP/1.1 200") and b"[DONE]" in answer for answer in answers)
