import asyncio
import json
import time

import aiohttp
import numpy as np
import orjson
import pytest
from http_engine import ask, events, run
from prometheus_client.parser import text_string_to_metric_families

from mtpbench.errors import InputError
from mtpbench.records import EngineLimits, Fault, WorkerGroup
from mtpbench.simengine.profile import load_profile
from mtpbench.simengine.step_loop import Clock, Lateness, StepLoop
from mtpbench.simengine.telemetry import COLUMNS, GAP, TPOT, TTFT, Timings, parse_since
from mtpbench.simengine.worker_model import make_worker

BOTH = pytest.mark.parametrize("split", [False, True], ids=["aggregated", "split"])
CHAT = pytest.mark.parametrize("chat", [False, True], ids=["text", "chat"])


async def timings(session, url, since=0):
    async with session.get(f"{url}/internal/timings?since={since}") as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def samples(session, url):
    async with session.get(f"{url}/metrics") as response:
        text = await response.text()
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples}


def request(chat, tokens):
    return ask(tokens, messages=[{"role": "user", "content": "a b"}]) if chat else ask(tokens)


def token_events(found):
    usages = [json.loads(event)["usage"]["completion_tokens"] for event in found[:-2]]
    return sum(count > 0 for count in usages)


@BOTH
@CHAT
def test_rows_lie_within_what_their_clients_saw_and_count_alike(split, chat):
    async def test(session, url):
        seen = []
        for tokens in (9, 30, 1):
            sent_ns = time.monotonic_ns()
            found = await events(session, url, request(chat, tokens))
            seen.append((sent_ns, time.monotonic_ns(), tokens, token_events(found)))
        return seen, await timings(session, url)

    seen, answer = run(test, "--stream-interval", "4", split=split)
    assert answer["clock"] == "CLOCK_MONOTONIC"
    assert (answer["begin"], answer["next"], answer["lost"], answer["time_scale"]) == (0, 3, 0, 10)
    rows = zip(*(answer[name] for name in COLUMNS), strict=True)
    for (sent_ns, ended_ns, tokens, chunks), row in zip(seen, rows, strict=True):
        received_ns, first_ns, last_ns, row_tokens, row_chunks, complete = row
        assert sent_ns < received_ns < first_ns <= last_ns < ended_ns
        assert (row_tokens, row_chunks, complete) == (tokens, chunks, True)
        assert (first_ns == last_ns) == (tokens == 1)


@BOTH
def test_a_client_sees_its_first_token_after_the_server_sent_it_and_before_the_last_one(split):
    async def test(session, url):
        async with session.post(f"{url}/v1/completions", json=ask(60)) as response:
            await response.content.readany()
            seen_ns = time.monotonic_ns()
            await response.read()
        return seen_ns, await timings(session, url)

    seen_ns, answer = run(test, split=split, speed=2)
    assert answer["first_token_ns"][0] < seen_ns < answer["last_token_ns"][0]


@BOTH
def test_the_histograms_are_the_rows_in_engine_seconds(split):
    async def test(session, url):
        await asyncio.gather(*(events(session, url, ask(n)) for n in (1, 5, 40, 17)))
        return await timings(session, url), await samples(session, url)

    answer, metrics = run(test, "--stream-interval", "3", split=split)
    received, first, last, tokens, chunks, _ = (np.array(answer[name]) for name in COLUMNS)
    many = tokens > 1
    assert metrics[f"{TTFT}_count"] == 4
    assert metrics[f"{TTFT}_sum"] == pytest.approx((first - received).sum() / 1e8)
    assert metrics[f"{TPOT}_count"] == 3
    assert metrics[f"{TPOT}_sum"] == pytest.approx(((last - first)[many] / (tokens - 1)[many]).sum() / 1e8)
    assert metrics[f"{GAP}_count"] == metrics[f"{GAP}_bucket"] == (chunks - 1).sum()
    assert metrics[f"{GAP}_sum"] == pytest.approx((last - first).sum() / 1e8)


@BOTH
def test_rows_are_read_on_from_a_number_and_forgotten_on_reset(split):
    async def test(session, url):
        for tokens in (2, 3, 4):
            await events(session, url, ask(tokens))
        later = await timings(session, url, since=2)
        async with session.post(f"{url}/internal/timings/reset") as response:
            assert response.status == 200
        after = await timings(session, url)
        await events(session, url, ask(5))
        async with session.get(f"{url}/internal/timings?since=9") as response:
            assert response.status == 400
            assert "rows 0 to 4" in (await response.json())["error"]["message"]
        return later, after, await timings(session, url)

    later, after, anew = run(test, split=split)
    assert (later["begin"], later["next"], later["output_tokens"]) == (2, 3, [4])
    assert (after["begin"], after["next"], after["lost"], after["output_tokens"]) == (3, 3, 0, [])
    assert (anew["begin"], anew["output_tokens"]) == (3, [5])


@BOTH
def test_a_stream_that_breaks_off_is_a_row_that_says_so_and_no_observation(split):
    async def test(session, url):
        with pytest.raises(aiohttp.ClientPayloadError):
            await events(session, url, ask(50))
        for _ in range(200):
            answer = await timings(session, url)
            if answer["next"]:
                return answer, await samples(session, url)
            await asyncio.sleep(0.01)
        raise AssertionError("no row")

    fault = Fault(kind="disconnect_mid_stream", value=3.0)
    answer, metrics = run(test, split=split, faults=(fault,))
    assert answer["complete"] == [False]
    assert answer["chunks"] == [3]
    assert answer["output_tokens"] == [None if split else 3]
    assert metrics[f"{TTFT}_count"] == 0


def test_a_client_that_leaves_before_its_first_token_leaves_a_row_without_times():
    async def test(session, url):
        async with session.post(f"{url}/v1/completions", json=ask(10_000)) as first:
            await first.content.readany()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(events(session, url, ask(5)), 0.2)
            for _ in range(200):
                if (answer := await timings(session, url))["next"]:
                    return answer
                await asyncio.sleep(0.01)
        raise AssertionError("no row")

    answer = run(test, "--max-running", "1")
    assert (answer["first_token_ns"], answer["last_token_ns"]) == ([None], [None])
    assert (answer["output_tokens"], answer["chunks"], answer["complete"]) == ([0], [0], [False])


def test_errors_and_whole_answers_are_no_rows():
    async def test(session, url):
        async with session.post(f"{url}/v1/completions", json=ask(5, stream=False)) as response:
            assert response.status == 200
        async with session.post(f"{url}/v1/completions", json=ask(0)) as response:
            assert response.status == 400
        return await timings(session, url)

    assert run(test)["next"] == 0


def test_the_oldest_rows_go_first_and_are_counted():
    kept = Timings("w", 1.0, capacity=3)
    for i in range(1, 6):
        kept.add(10 * i, 10 * i + 1, 10 * i + 2, i, 1, True)
    answer = orjson.loads(kept.render(1, {"more": 1}))
    assert (answer["begin"], answer["next"], answer["lost"], answer["more"]) == (2, 5, 1, 1)
    assert answer["received_ns"] == [30, 40, 50]
    assert orjson.loads(kept.render(5, {}))["received_ns"] == []
    kept.reset()
    assert orjson.loads(kept.render(0, {}))["lost"] == 0
    with pytest.raises(InputError, match="rows 0 to 5"):
        kept.render(6, {})
    with pytest.raises(InputError, match="since=x"):
        parse_since("x")


# ------------------------------------------------------------------------------------------- the schedule


def test_lateness_adds_up_and_early_is_not_late():
    lateness = Lateness()
    for late_s, delivery_s in ((0.25, 0.5), (-1.0, 0.125), (0.5, 0.25)):
        lateness.add(late_s, delivery_s)
    assert lateness.as_json() == {
        "steps": 3,
        "late_s": 0.75,
        "late_max_s": 0.5,
        "delivery_s": 0.875,
        "delivery_max_s": 0.5,
    }


def test_the_schedule_is_in_the_metrics_and_starts_anew_with_the_timings():
    async def test(session, url):
        await events(session, url, ask(20))
        before = (await timings(session, url))["schedule"], await samples(session, url)
        async with session.post(f"{url}/internal/timings/reset"):
            pass
        return *before, (await timings(session, url))["schedule"], await samples(session, url)

    schedule, metrics, fresh, after = run(test)
    prefix = "mtpbench_sim_step_late_seconds"
    assert metrics["mtpbench_sim_steps_total"] == schedule["steps"] == 20
    assert 0 < metrics[f"{prefix}_max"] <= metrics[f"{prefix}_total"]
    assert metrics[f"{prefix}_total"] == pytest.approx(schedule["late_s"])
    assert fresh["steps"] == after[f"{prefix}_max"] == 0
    assert after["mtpbench_sim_steps_total"] == 20


def test_a_request_that_comes_while_the_last_events_go_out_is_not_slept_over():
    """All that runs ends with admission, in more events than one turn of the loop sends."""

    class Sink:
        def __init__(self, then=None):
            self.then = then

        def tokens(self, cumulative, *, last):
            if self.then:
                asyncio.get_running_loop().call_soon(self.then)

        def prefilled(self):
            raise AssertionError("a decode worker")

    async def test():
        group = WorkerGroup(role="decode", workers=1, tp=8, dp=1, ep=1)
        limits = EngineLimits(max_running=1024, prefill_chunk_tokens=8192)
        step_loop = StepLoop(make_worker(group, load_profile("dsv4-gb200"), limits, None, [0]), Clock(1.0))
        ended = asyncio.Event()
        late = Sink(ended.set)
        first = Sink(lambda: step_loop.submit(8, 1, late, kv_ready=True))
        for sink in (first, *(Sink() for _ in range(300))):
            step_loop.submit(8, 1, sink, kv_ready=True)
        stepping = asyncio.create_task(step_loop.run())
        await asyncio.wait_for(ended.wait(), 5)
        stepping.cancel()
        await asyncio.gather(stepping, return_exceptions=True)

    asyncio.run(test())
