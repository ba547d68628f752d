"""The closed-loop client against a small server that streams, fails and dies in every way."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from mtpbench.load.client import drive
from mtpbench.load.pacer import ClosedLoop
from mtpbench.load.transport import raise_descriptor_limit
from mtpbench.records import Measurement, Workload
from mtpbench.requests import RequestTable
from mtpbench.window import steady_window
from mtpbench.workload import Prompts, draw_lengths

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
RULES = Measurement(request_timeout_s=5.0, point_timeout_s=20.0)
Handler = Callable[[web.Request, dict, "web.StreamResponse | None"], Awaitable[web.StreamResponse]]


async def begin(request, **headers):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **headers})
    await response.prepare(request)
    return response


async def send(response, *events):
    for event in events:
        text = event if isinstance(event, str) else json.dumps(event)
        await response.write(f"data: {text}\n\n".encode())


def token(n, asked, prompt):
    finish = "length" if n == asked else None
    usage = {"prompt_tokens": prompt, "completion_tokens": n}
    return {"choices": [{"index": 0, "text": "x", "finish_reason": finish}], "usage": usage}


async def answer_well(request, body, pause_s=0.0):
    """As many tokens as asked, one per event, each with usage."""
    response = await begin(request)
    asked, prompt = body["max_tokens"], len(body.get("prompt", "x"))
    for n in range(1, asked + 1):
        await asyncio.sleep(pause_s)
        await send(response, token(n, asked, prompt))
    await send(response, "[DONE]")
    return response


def run(handler, *, concurrency=2, warmup=2, measured=6, rules=RULES, workload=None, **options):
    """Drive a loop against a server whose every answer is `handler(request, body)`; result and bodies."""
    bodies = []

    async def serve(request):
        body = await request.json()
        bodies.append(body)
        return await handler(request, body)

    async def main():
        app = web.Application()
        app.router.add_post("/v1/{kind:.*}", serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            return await drive_at(port, concurrency, warmup, measured, rules, workload, **options)
        finally:
            await runner.cleanup()

    return asyncio.run(main()), bodies


async def drive_at(port, concurrency, warmup, measured, rules, workload=None, **options):
    workload = workload or Workload(isl=8, osl=4)
    loop = ClosedLoop(concurrency, warmup, measured)
    prompts = Prompts(workload, draw_lengths(workload, loop.total, 1), 1)
    return await drive(f"http://127.0.0.1:{port}", "tiny", prompts, loop, rules, **options)


def test_every_request_is_recorded_with_its_chunks_and_counts():
    result, bodies = run(answer_well)
    assert [record.index for record in result.requests] == list(range(8))
    assert [record.warmup for record in result.requests] == [True] * 2 + [False] * 6
    assert {record.slot for record in result.requests} == {0, 1}
    assert len({tuple(body["prompt"]) for body in bodies}) == 8
    for record in result.requests:
        assert (record.error, record.finish_reason) == (None, "length")
        assert (record.prompt_tokens, record.output_tokens) == (8, 4)
        assert record.chunk_tokens == (1, 2, 3, 4)
        stamps = (record.scheduled_s, record.sent_s, *record.chunk_times_s, record.end_s)
        assert list(stamps) == sorted(stamps)
    assert (result.server_unreachable, result.cut_off, result.notes) == (False, None, ())


def test_each_slot_sends_its_next_request_when_the_last_one_ended():
    result, _ = run(answer_well, concurrency=3, measured=9)
    for slot in range(3):
        mine = [record for record in result.requests if record.slot == slot]
        assert mine[0].scheduled_s == 0.0
        assert [r.scheduled_s for r in mine[1:]] == [r.end_s for r in mine[:-1]]


def test_no_more_requests_are_in_flight_than_asked():
    now, most = 0, 0

    async def count(request, body):
        nonlocal now, most
        now += 1
        most = max(most, now)
        response = await answer_well(request, body, 0.002)
        now -= 1
        return response

    result, _ = run(count, concurrency=4, measured=20)
    assert most <= 4
    window = steady_window(RequestTable.from_records(result.requests), 4)
    assert window is not None


def test_connections_are_kept_for_the_next_request():
    ports = set()

    async def remember(request, body):
        ports.add(request.transport.get_extra_info("peername")[1])
        return await answer_well(request, body)

    run(remember, concurrency=2, measured=20)
    assert len(ports) == 2


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_times_are_engine_seconds_since_the_origin(scale):
    origins = []

    async def slow(request, body):
        return await answer_well(request, body, 0.02)

    began = time.perf_counter()
    result, _ = run(slow, concurrency=1, warmup=0, measured=1, time_scale=scale, on_origin=origins.append)
    (record,) = result.requests
    assert origins == [result.origin]
    assert began < result.origin < time.perf_counter()
    assert record.chunk_times_s[-1] - record.chunk_times_s[0] >= 3 * 0.02 * scale * 0.9


def test_progress_is_told_and_ends_complete():
    seen = []
    run(lambda request, body: answer_well(request, body, 0.03), progress=seen.append)
    assert len(seen) >= 2
    assert (seen[-1].ended, seen[-1].total, seen[-1].failed, seen[-1].in_flight) == (8, 8, 0, 0)
    assert seen[-1].output_tokens == 32
    assert 0 < seen[0].in_flight <= 2


def test_the_client_reports_how_it_did():
    result, _ = run(lambda request, body: answer_well(request, body, 0.01))
    assert result.client.loop_lag_p99_s is not None
    assert result.client.send_lag_p99_s is not None
    assert result.client.send_lag_p99_s >= 0
    assert result.client.cpu_share is not None
    assert result.client.achieved_concurrency is not None
    assert 1.0 < result.client.achieved_concurrency <= 2.0


def test_chat_requests_go_to_their_own_path():
    paths = []

    async def remember(request, body):
        paths.append(request.path)
        return await answer_well(request, body)

    run(remember, workload=Workload(isl=8, osl=4, chat_template=True))
    assert set(paths) == {"/v1/chat/completions"}


@pytest.mark.parametrize("name", sorted(path.name for path in CAPTURES.glob("*mtp3*.sse")))
@pytest.mark.parametrize("size", [50, 100_000])
def test_recorded_streams_of_real_engines_are_read_as_64_tokens(name, size):
    raw = (CAPTURES / name).read_bytes()

    async def replay(request, body):
        response = await begin(request)
        for at in range(0, len(raw), size):
            await response.write(raw[at : at + size])
        return response

    result, _ = run(replay, concurrency=1, warmup=0, measured=1)
    (record,) = result.requests
    assert (record.error, record.output_tokens, record.finish_reason) == (None, 64, "length")
    assert len(record.chunk_times_s) >= 26


async def refuse(request, body):
    return web.Response(status=503, text="busy, come back")


async def say_json(request, body):
    return web.json_response({"choices": []})


async def hang_up_before(request, body):
    request.transport.abort()
    return web.Response()


async def hang_up_in_mid_stream(request, body):
    response = await begin(request)
    await send(response, token(1, 4, 8))
    await asyncio.sleep(0.01)
    request.transport.abort()
    return response


async def stop_without_usage(request, body):
    response = await begin(request)
    await send(response, {"choices": [{"text": "x", "finish_reason": "length"}]}, "[DONE]")
    return response


async def stop_early(request, body):
    response = await begin(request)
    await send(response, token(1, 4, 8))
    return response


async def break_an_event(request, body):
    response = await begin(request)
    await send(response, token(1, 4, 8), '{"choices": [')
    return response


async def die_in_mid_stream(request, body):
    response = await begin(request)
    await response.write((CAPTURES / "crash_midstream.sse").read_bytes())
    return response


async def stall(request, body):
    response = await begin(request)
    await send(response, token(1, 4, 8))
    await asyncio.sleep(30)
    return response


@pytest.mark.parametrize(
    ("code", "handler", "chunks"),
    [
        ("http_503", refuse, 0),
        ("wrong_content_type", say_json, 0),
        ("disconnected", hang_up_before, 0),
        ("disconnected", hang_up_in_mid_stream, 1),
        ("no_usage", stop_without_usage, 1),
        ("no_done", stop_early, 1),
        ("bad_event", break_an_event, 1),
        ("stream_error", die_in_mid_stream, 0),
        ("timeout", stall, 1),
    ],
)
def test_a_failed_request_is_a_record_with_its_code_and_the_slot_goes_on(code, handler, chunks):
    count = 0

    async def fail_once(request, body):
        nonlocal count
        count += 1
        return await (handler if count == 1 else answer_well)(request, body)

    rules = Measurement(request_timeout_s=1.0, point_timeout_s=30.0)
    result, _ = run(fail_once, concurrency=1, warmup=0, measured=3, rules=rules)
    failed, *good = result.requests
    assert failed.error == code
    assert failed.error_detail
    assert len(failed.chunk_times_s) == chunks
    assert failed.end_s >= failed.sent_s
    assert [record.error for record in good] == [None, None]


def test_the_servers_words_are_kept():
    result, _ = run(refuse, measured=2)
    assert {(r.error, r.error_detail) for r in result.requests} == {("http_503", "busy, come back")}
    assert len(result.requests) == 4


def test_a_stream_without_done_is_complete_but_noted():
    async def forget_done(request, body):
        response = await begin(request)
        await send(response, *(token(n, 4, 8) for n in range(1, 5)))
        return response

    result, _ = run(forget_done)
    assert {record.error for record in result.requests} == {None}
    assert result.notes == ("8 streams ended without [DONE] but with usage and a finish reason",)


def test_a_connection_that_stays_open_after_done_ends_the_request_all_the_same():
    async def linger(request, body):
        response = await answer_well(request, body)
        await asyncio.sleep(30)
        return response

    ended = []
    result, _ = run(
        linger, concurrency=1, warmup=0, measured=1, progress=lambda _: ended.append(time.perf_counter())
    )
    (record,) = result.requests
    assert record.error is None
    assert ended[-1] - result.origin - record.end_s > 0.9  # waiting for the end is no part of the request


def test_a_dead_server_ends_the_run_instead_of_spinning():
    async def main():
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await drive_at(port, 2, 4, 10_000, RULES)

    result = asyncio.run(main())
    assert result.server_unreachable
    assert {record.error for record in result.requests} == {"connect_failed"}
    assert 20 <= len(result.requests) <= 22
    (note,) = result.notes
    assert "refused" in note


def test_the_points_timeout_cuts_off_what_is_in_flight():
    rules = Measurement(request_timeout_s=60.0, point_timeout_s=3.0)
    result, _ = run(stall, rules=rules, time_scale=10.0)
    assert (result.cut_off, result.timed_out) == ("point_timeout", True)
    assert [(r.error, r.error_detail, len(r.chunk_times_s)) for r in result.requests] == [
        ("cut_off", "point_timeout", 1)
    ] * 2
    assert all(record.end_s >= 3.0 for record in result.requests)


def test_the_stop_event_cuts_off_too():
    stop = asyncio.Event()

    async def stall_and_stop(request, body):
        asyncio.get_running_loop().call_later(0.1, stop.set)
        return await stall(request, body)

    result, _ = run(stall_and_stop, stop=stop)
    assert (result.cut_off, result.timed_out) == ("stopped", False)
    assert {record.error for record in result.requests} == {"cut_off"}


def test_a_stop_before_the_start_sends_next_to_nothing():
    stop = asyncio.Event()
    stop.set()
    result, _ = run(answer_well, stop=stop, measured=1000)
    assert result.cut_off == "stopped"
    assert len(result.requests) <= 2


def test_cancelling_the_drive_leaves_no_task_behind():
    async def stall_for_ever(request):
        return await stall(request, {})

    async def main():
        app = web.Application()
        app.router.add_post("/v1/completions", stall_for_ever)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        before = asyncio.all_tasks()
        task = asyncio.create_task(drive_at(runner.addresses[0][1], 2, 0, 4, RULES))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left = {t for t in asyncio.all_tasks() - before if "drive" in repr(t) or "_slot" in repr(t)}
        await runner.cleanup()
        return left

    assert asyncio.run(main()) == set()


def test_a_fault_of_the_client_itself_is_raised_not_recorded():
    class Broken:
        async def open(self, base_url, connections):
            pass

        async def stream(self, path, body, take):
            raise ZeroDivisionError("a bug")

        async def close(self):
            pass

    with pytest.raises(ZeroDivisionError, match="a bug"):
        asyncio.run(drive_at(1, 2, 0, 4, RULES, transport=Broken()))


def test_another_transport_needs_only_stamp_and_hand_on():
    class Canned:
        opened = closed = 0

        async def open(self, base_url, connections):
            self.opened = connections

        async def stream(self, path, body, take):
            asked = json.loads(body)["max_tokens"]
            for n in range(1, asked + 1):
                await asyncio.sleep(0.001)
                take(time.perf_counter(), f"data: {json.dumps(token(n, asked, 8))}\n\n".encode())
            take(time.perf_counter(), b"data: [DONE]\n\n")

        async def close(self):
            self.closed += 1

    transport = Canned()
    result = asyncio.run(drive_at(1, 3, 3, 9, RULES, transport=transport))
    assert (transport.opened, transport.closed) == (3, 1)
    assert [record.output_tokens for record in result.requests] == [4] * 12


def test_the_descriptor_limit_is_raised_only_as_far_as_needed(monkeypatch):
    limits = [100, 1000]
    monkeypatch.setattr("resource.getrlimit", lambda kind: tuple(limits))
    monkeypatch.setattr("resource.setrlimit", lambda kind, both: limits.__setitem__(slice(None), both))
    assert raise_descriptor_limit(50) == 100
    assert raise_descriptor_limit(500) == 500
    assert raise_descriptor_limit(5000) == 1000
    assert limits == [1000, 1000]
