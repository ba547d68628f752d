"""Both transports on connections: kept and closed ones, sent again, addresses, keys, faults of their own."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time

import pytest
from answers import (
    CHUNKED,
    LAST_CHUNK,
    answer,
    answering,
    chunk,
    head,
    measured,
    reply,
    tokens,
)
from loads import TRANSPORTS, job_for, run_share, serve, serve_both
from scripted import Server

from mtpbench.errors import InputError
from mtpbench.load.stream import Stream
from mtpbench.load.transport_epoll import EpollTransport
from mtpbench.records import Load, Workload

GOOD = (None, "length", 8, 4, 4, (1, 2, 3, 4))
BODY = b"".join(tokens())
KEY = "sk-a-secret-of-the-test"


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return request.param


def connections(server):
    """The connection that each request came on."""
    return [request.connection for request in server.requests]


@pytest.mark.parametrize("frame", ["chunked", "content-length"])
def test_a_connection_is_kept_for_the_next_request(transport, frame):
    script = answering() if frame == "chunked" else reply(measured(BODY))
    outcome, server = serve(script, transport=transport, concurrency=2, measured=20)
    assert outcome.fields == [GOOD] * 22
    assert server.connections == 2
    assert outcome.scheduler.retried == 0


def test_a_connection_is_kept_after_an_error_that_was_read_to_its_end(transport):
    script = reply(head("503 Busy", "text/plain", Content_Length=4) + b"busy")
    _, server = serve(script, transport=transport, concurrency=1, warmup=0, measured=5)
    assert server.connections == 1


CLOSING = {
    "Connection: close": measured(BODY, Connection="close"),
    "Connection: Close, chunked": head(Transfer_Encoding="chunked", Connection="Close")
    + chunk(BODY)
    + LAST_CHUNK,
    "HTTP/1.0": measured(BODY).replace(b"1.1", b"1.0", 1),
}


@pytest.mark.parametrize("kind", CLOSING)
@pytest.mark.parametrize("closes", [True, False])
def test_a_server_that_does_not_keep_connections_gets_a_new_one_each(transport, kind, closes):
    """Also one that forgets to close what it said it would."""
    script = reply(CLOSING[kind], closes=closes)
    outcome, server = serve(script, transport=transport, concurrency=1, warmup=0, measured=4)
    assert outcome.fields == [GOOD] * 4
    assert len(set(connections(server))) == 4
    assert outcome.scheduler.retried == 0


def test_http_1_0_with_keep_alive_is_kept(transport):
    response = measured(BODY, Connection="keep-alive").replace(b"1.1", b"1.0", 1)
    outcome, server = serve(reply(response), transport=transport, concurrency=1, warmup=0, measured=4)
    assert outcome.fields == [GOOD] * 4
    assert len(set(connections(server))) == 1


def test_a_client_that_keeps_no_connections_says_so(transport):
    outcome, server = serve(
        answering(), transport=transport, concurrency=1, warmup=0, measured=4, keeps_connections=False
    )
    assert outcome.fields == [GOOD] * 4
    assert len(set(connections(server))) == 4
    assert {request.headers.get("connection") for request in server.requests} == {"close"}


def test_a_request_on_a_kept_connection_that_just_closes_is_sent_again_once(transport):
    """Kept connections time out at servers; a request that meets that was never taken."""

    def script(peer):
        answer(peer, peer.read())
        peer.read()  # the next request comes, and finds the connection closed without a word

    outcome, server = serve(script, transport=transport, concurrency=1, warmup=0, measured=5)
    assert outcome.fields == [GOOD] * 5
    assert outcome.scheduler.retried == 4
    bodies = [request.body for request in server.requests]
    assert len(bodies) == 9
    assert len(set(bodies)) == 5


def test_a_request_whose_answer_has_begun_is_not_sent_again(transport):
    def script(peer):
        answer(peer, peer.read())
        peer.read()
        peer.send(b"HTTP/1.1 200")

    outcome, server = serve(script, transport=transport, concurrency=1, warmup=0, measured=4)
    assert outcome.errors == [None, "disconnected"] * 2
    assert (len(server.requests), outcome.scheduler.retried) == (4, 0)


def test_a_kept_connection_that_closes_between_two_requests_costs_nothing(transport):
    """The server closes first, with an open loop's pause before the next request."""
    load = Load(pacing="constant", rate_rps=20.0)
    outcome, server = serve(
        reply(measured(BODY), closes=True),
        transport=transport,
        concurrency=2,
        warmup=0,
        measured=4,
        load=load,
    )
    assert outcome.fields == [GOOD] * 4
    assert len(server.requests) == 4


def test_a_server_that_talks_or_closes_while_connections_are_being_opened():
    """No connection may be handed out twice, whatever happens on it before the start."""
    for script in (lambda peer: None, lambda peer: (peer.send(b"hello"), peer.await_close())):
        with Server(script) as server:
            spec = job_for(server.port, concurrency=300, warmup=0, measured=300)
            seen = []
            original = EpollTransport.run

            def run(self, seen=seen, original=original):
                seen.extend(self.connections.idle)
                return original(self)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(EpollTransport, "run", run)
                outcome = run_share(spec)
        assert len(set(map(id, seen))) == len(seen)
        assert len(outcome.requests) == 300
        assert set(outcome.errors) <= {"disconnected", "bad_response"}


def hosts_first(address):
    """A resolver that names this address before the true one."""
    original = socket.getaddrinfo

    def resolve(host, port, *arguments, **named):
        found = original("127.0.0.1", port, *arguments, **named)
        return [(socket.AF_INET6, *found[0][1:4], (address, port, 0, 0)), *found]

    return resolve


def test_a_host_of_several_addresses_is_reached_at_any(transport, monkeypatch):
    """`localhost` is often ::1 first, while servers listen on 127.0.0.1."""
    with Server(answering()) as server:
        spec = job_for(server.port, transport=transport, host="localhost")
        monkeypatch.setattr(socket, "getaddrinfo", hosts_first("::1"))
        outcome = run_share(spec)
    assert outcome.fields == [GOOD] * 8


def test_an_address_with_a_path_and_an_ipv6_host(transport):
    try:
        server = Server(answering(), "::1")
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        spec = job_for(server.port, transport=transport, host="[::1]")
        spec = dataclasses.replace(spec, base_url=spec.base_url + "/engine/1/")
        assert run_share(spec).fields == [GOOD] * 8
    assert {request.path for request in server.requests} == {"/engine/1/v1/completions"}
    assert {request.headers["host"] for request in server.requests} == {f"[::1]:{server.port}"}


def test_chat_requests_go_to_their_own_path(transport):
    workload = Workload(isl=8, osl=4, chat_template=True)
    _, server = serve(answering(), transport=transport, workload=workload)
    assert {request.path for request in server.requests} == {"/v1/chat/completions"}


def test_a_key_from_the_environment_reaches_the_server_and_nothing_else(transport, monkeypatch, tmp_path):
    """Also not through a server that repeats it in its refusal."""
    monkeypatch.setenv("TEST_KEY", KEY)

    def first(peer, request):
        if len(peer.server.requests) % 2:
            return False
        said = f"no such key: {request.headers['authorization']}".encode()
        peer.send(head("401 Unauthorized", "text/plain", Content_Length=len(said)) + said)
        return True

    with Server(answering(first=first)) as server:
        spec = job_for(server.port, transport=transport, concurrency=1, load=Load(api_key_env="TEST_KEY"))
        outcome = run_share(spec, folder=tmp_path)
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert outcome.errors == [None, "http_401"] * 4
    assert all(KEY not in repr(record) for record in outcome.requests)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 5
    assert [path.name for path in files if KEY.encode() in path.read_bytes()] == []


def test_a_key_that_is_not_set_is_the_users_error(transport, monkeypatch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    with Server(answering()) as server, pytest.raises(InputError, match=r"api_key_env.*TEST_KEY"):
        run_share(job_for(server.port, transport=transport, load=Load(api_key_env="TEST_KEY")))
    assert server.requests == []


def test_a_fault_of_the_client_itself_is_raised_not_recorded(transport, monkeypatch):
    def broken(self, at_us, event):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Stream, "take", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        serve(answering(), transport=transport)


def test_a_cut_off_share_ends_at_once_and_keeps_what_it_has(transport):
    begun = threading.Event()

    def first(peer, request):
        if len(peer.server.requests) <= 2:
            return False
        peer.send(CHUNKED, chunk(tokens()[0]))
        begun.set()
        peer.await_close()
        return True

    def stop(channel):
        assert begun.wait(10)
        channel.stop()

    with Server(answering(first=first)) as server:
        spec = job_for(server.port, transport=transport, concurrency=1, warmup=0, measured=10)
        outcome = run_share(spec, meanwhile=stop)
    assert outcome.errors == [None, None, "cut_off"]
    assert outcome.requests[-1].error_detail == "stopped"
    assert outcome.scheduler.cut_off == "stopped"
    assert outcome.fields[-1][4] <= 1


def test_a_response_that_ends_long_after_done_keeps_no_slot_busy():
    """The next request gets another connection: the client would be blamed for a slot without a request."""
    waited = []

    def script(peer):
        while request := peer.read():
            number = len(peer.server.requests)
            peer.send(CHUNKED, *map(chunk, tokens(request.json["max_tokens"])))
            until = time.monotonic() + 0.8
            while number < 4 and len(peer.server.requests) == number and time.monotonic() < until:
                time.sleep(0.002)
            waited.append(time.monotonic() >= until)
            peer.send(LAST_CHUNK)

    for transport in TRANSPORTS:
        outcome, _ = serve(script, transport=transport, concurrency=1, warmup=0, measured=4)
        assert outcome.fields == [GOOD] * 4
    assert not any(waited)


def test_a_response_that_never_ends_after_done_is_whole():
    def script(peer):
        while request := peer.read():
            peer.send(CHUNKED, *map(chunk, tokens(request.json["max_tokens"])))
            peer.await_close()

    assert serve_both(script, measured=3)[0] == [GOOD] * 3
