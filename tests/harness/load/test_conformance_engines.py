"""Both transports on live servers and on what real engines said: the same records, times apart."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time

import pytest
from answers import CAPTURES, LAST_CHUNK, chunk, reply
from loads import TRANSPORTS, details, job_for, nothing, run_share, serve_both
from scripted import free_port

from mtpbench.load.stream import Stream
from mtpbench.records import Measurement, Workload

STREAMS = sorted(CAPTURES.glob("*.sse"))
ERRORS = sorted(CAPTURES.glob("*_err_*.json"))
RULES = Measurement(request_timeout_s=8.0, point_timeout_s=12.0)
START_S = 20


@contextlib.contextmanager
def running(module, *words, port):
    """The port of a server in a process of its own, once it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--port", str(port), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                yield port
                return
            time.sleep(0.02)
        pytest.fail(f"{module} does not listen")
    finally:
        process.terminate()
        process.wait(10)


def each(module, *words, **options):
    """Outcomes of the same share through each transport, each on a new server."""
    found = {}
    for transport in TRANSPORTS:
        with running(module, *words, port=free_port()) as port:
            found[transport] = run_share(job_for(port, transport=transport, rules=RULES, **options))
    return found


def both(module, *words, **options):
    """The same, where all records must agree."""
    found = each(module, *words, **options)
    assert found["fast"].fields == found["aiohttp"].fields, details(found)
    return found


def check_times(outcomes):
    """Within each record, times are in order, and a stream of several chunks takes some."""
    for outcome in outcomes.values():
        for record in outcome.requests:
            stamps = (record.scheduled_s, record.sent_s, *record.chunk_times_s, record.end_s)
            assert list(stamps) == sorted(stamps)
            assert record.chunk_times_s[-1] > record.chunk_times_s[0]


@pytest.mark.parametrize("chat", [False, True], ids=["completions", "chat"])
@pytest.mark.parametrize("rates", [(), ("--acceptance-rates", "0.79,0.48,0.22")], ids=["off", "mtp"])
def test_the_embedded_engine(rates, chat):
    # Slow enough that no pause of a busy machine is as long as a stream: one read of all of it has one time.
    words = ("--model", "tiny", "--speed", "2", *rates)
    workload = Workload(isl=32, osl=24, chat_template=chat)
    # What is accepted is drawn in the order in which requests come: one at a time is the same twice.
    load = {"concurrency": 1 if rates else 3, "warmup": 3, "measured": 9}
    outcomes = both("mtpbench.simengine.server", *words, workload=workload, **load)
    check_times(outcomes)
    for record in outcomes["fast"].requests:
        assert (record.error, record.finish_reason, record.output_tokens) == (None, "length", 24)
        assert record.chunk_tokens[-1] == 24
        assert (len(record.chunk_times_s) < 24) == bool(rates)


def test_what_the_embedded_engine_refuses():
    outcomes = both("mtpbench.simengine.server", "--model", "other", concurrency=2, warmup=0, measured=4)
    assert {error for outcome in outcomes.values() for error in outcome.errors} == {"http_404"}
    assert all("tiny" in detail for detail in details(outcomes))


def test_what_the_embedded_engine_does_wrong_on_purpose():
    expected = {
        "http_429": "http_429",
        "http_500": "http_500",
        "disconnect_mid_stream": "disconnected",
        "no_usage": "no_usage",
        "no_done": None,
        "malformed_event": "bad_event",
        "disconnect_before_stream": None,  # a kept connection: it is sent again
    }
    faults = [{"kind": kind, "at_request": 1 + 2 * i} for i, kind in enumerate(expected)]
    words = ("--model", "tiny", "--speed", "10", "--faults", json.dumps(faults))
    count = 2 * len(expected) + 1
    outcomes = both("mtpbench.simengine.server", *words, concurrency=1, warmup=0, measured=count)
    for outcome in outcomes.values():
        assert outcome.errors[1::2] == list(expected.values())
        assert outcome.errors[::2] == [None] * (len(expected) + 1)
        assert (outcome.scheduler.missed_done, outcome.scheduler.retried) == (1, 1)


def test_an_embedded_engine_that_dies():
    """Its process is gone in mid-load: what was on its way is tried again, and refused like the rest.

    Unless the dying process's port takes that one connection more, to drop it.
    """
    fault = '[{"kind": "exit_after_bind", "at_request": 5, "value": 1}]'
    words = ("--model", "tiny", "--speed", "10", "--faults", fault)
    load = {"workload": Workload(isl=32, osl=24), "concurrency": 1, "warmup": 0, "measured": 40}
    for outcome in each("mtpbench.simengine.server", *words, **load).values():
        assert outcome.scheduler.unreachable
        assert outcome.fields[:5] == [(None, "length", 32, 24, 24, tuple(range(1, 25)))] * 5
        assert outcome.fields[5] in (nothing("connect_failed"), nothing("disconnected"))
        assert set(outcome.fields[6:]) == {nothing("connect_failed")}


def test_the_built_in_mock():
    words = ("--ttft-ms", "5", "--step-ms", "3")
    outcomes = both(
        "mtpbench.load.mock", *words, workload=Workload(isl=16, osl=12), concurrency=8, warmup=8, measured=24
    )
    check_times(outcomes)
    expected = (None, "length", 1, 12, 12, tuple(range(1, 13)))
    assert {transport: set(outcome.fields) for transport, outcome in outcomes.items()} == {
        transport: {expected} for transport in TRANSPORTS
    }


def captured_head(path):
    """Status line and headers as an engine sent them; the probe lost the version and the line ends."""
    first, *lines = path.with_name(f"{path.name}.headers.txt").read_text().strip().split("\n")
    return "\r\n".join(["HTTP/1.1 " + first.partition(" ")[2], *lines, "", ""]).encode()


def framed(path):
    """The answer's pieces as they went out: each event a chunk of its own."""
    events = [event + b"\n\n" for event in path.read_bytes().split(b"\n\n") if event]
    assert b"".join(events) == path.read_bytes()
    return [captured_head(path), *map(chunk, events), LAST_CHUNK]


@pytest.mark.parametrize("gathered", [False, True], ids=["event by event", "all at once"])
@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_a_captured_stream_under_its_own_headers(path, gathered):
    pieces = [b"".join(framed(path))] if gathered else framed(path)
    records, outcomes = serve_both(reply(*pieces, pause_s=0.002), measured=2)
    stream = Stream()
    stream.feed(1, path.read_bytes())
    said = stream.answer(True)
    assert {record[:5] for record in records} == {
        (said.error, said.finish_reason, said.prompt_tokens, said.output_tokens, len(stream.chunks))
    }
    if path.stem == "crash_midstream":
        assert said.error == "stream_error"
        return
    assert (said.error, said.finish_reason, said.output_tokens) == (None, "length", 64)
    for outcome in outcomes.values():
        for record in outcome.requests:
            assert list(record.chunk_times_s) == sorted(record.chunk_times_s)
            assert gathered or record.chunk_times_s[-1] - record.chunk_times_s[0] > 0.02


@pytest.mark.parametrize("path", ERRORS, ids=lambda path: path.stem)
def test_a_captured_answer_that_is_no_stream_under_its_own_headers(path):
    """vLLM refuses; llama.cpp answers all the same, and at once where no stream was asked for."""
    records, outcomes = serve_both(reply(captured_head(path) + path.read_bytes()), measured=2)
    status = captured_head(path).split()[1].decode()
    assert records == [nothing("wrong_content_type" if status == "200" else f"http_{status}")] * 2
    for detail in details(outcomes):
        assert path.read_text()[:40] in detail
