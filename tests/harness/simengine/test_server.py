import asyncio
import json
import time
from itertools import pairwise

import pytest
from http_engine import RATES, ask, engine, events, run
from prometheus_client.parser import text_string_to_metric_families

from mtpbench.engines import simulated

BOTH = pytest.mark.parametrize("split", [False, True], ids=["aggregated", "split"])


def usage_of(event):
    return json.loads(event)["usage"]


@BOTH
def test_a_stream_counts_up_to_its_max_tokens_and_ends_with_usage_and_done(split):
    async def test(session, url):
        *tokens, last, done = await events(session, url, ask(40))
        assert done == "[DONE]"
        counts = [usage_of(event)["completion_tokens"] for event in tokens]
        assert counts[0] == 1
        assert counts[-1] == 40
        assert counts == sorted(set(counts))
        assert len(counts) < 40
        assert json.loads(tokens[-1])["choices"][0]["finish_reason"] == "length"
        assert json.loads(last)["choices"] == []
        assert usage_of(last) == {"prompt_tokens": 20, "total_tokens": 60, "completion_tokens": 40}
        text = "".join(json.loads(event)["choices"][0]["text"] for event in tokens)
        assert len(text.split()) == 40
        assert all(json.loads(event)["system_fingerprint"] == "mtpbench-simulated" for event in tokens)

    run(test, "--acceptance-rates", RATES, split=split)


@BOTH
def test_a_whole_answer_has_its_text_and_usage(split):
    async def test(session, url):
        body = {"model": "m", "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 5}
        async with session.post(f"{url}/v1/chat/completions", json=body) as response:
            answer = await response.json()
            assert response.headers["X-Simulated"] == "mtpbench-simulated"
        assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 8, "completion_tokens": 5}
        assert len(answer["choices"][0]["message"]["content"].split()) == 5

    run(test, split=split)


def test_a_chat_stream_opens_with_the_role():
    async def test(session, url):
        body = ask(3, messages=[{"role": "user", "content": [{"type": "text", "text": "a b"}]}])
        first, *_ = await events(session, url, body)
        assert json.loads(first)["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert usage_of(first)["completion_tokens"] == 0

    run(test)


def test_usage_comes_only_when_asked_for():
    async def test(session, url):
        bare = await events(session, url, ask(3, stream_options=None))
        assert "usage" not in "".join(bare)
        at_end = await events(session, url, ask(3, stream_options={"include_usage": True}))
        assert ["usage" in event for event in at_end] == [False, False, False, True, False]

    run(test)


@pytest.mark.parametrize(
    ("prompt", "count"), [("one two three", 3), (["one two"], 2), ([1, 2, 3, 4], 4), ([[1, 2]], 2)]
)
def test_prompt_tokens_are_ids_or_words(prompt, count):
    async def test(session, url):
        *_, last, _ = await events(session, url, ask(2, prompt=0) | {"prompt": prompt})
        assert usage_of(last)["prompt_tokens"] == count

    run(test)


@BOTH
@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{not json", 400, "not JSON"),
        (b"[]", 400, "not a JSON object"),
        (json.dumps(ask(5, model="other")), 404, "`other` does not exist. Valid aliases: m."),
        (json.dumps(ask(10**9)), 400, "tokens"),
        (json.dumps(ask(0)), 400, "at least 1"),
        (json.dumps(ask(5, prompt=[])), 400, "prompt must be"),
        (json.dumps(ask(5, prompt="  ")), 400, "the prompt is empty"),
    ],
)
def test_bad_requests_get_an_openai_error_with_a_sentence(split, body, status, words):
    async def test(session, url):
        async with session.post(f"{url}/v1/completions", data=body) as response:
            assert response.status == status
            error = (await response.json())["error"]
        assert error["code"] == status
        assert words in error["message"]

    run(test, split=split)


@BOTH
def test_models_health_and_cache_reset_answer(split):
    async def test(session, url):
        async with session.get(f"{url}/v1/models") as response:
            assert [entry["id"] for entry in (await response.json())["data"]] == ["m"]
        async with session.get(f"{url}/health") as response:
            assert response.status == 200
        async with session.post(f"{url}/reset_prefix_cache") as response:
            assert response.status == 200

    run(test, split=split)


def test_metrics_have_vllms_names_and_add_up():
    async def test(session, url):
        await asyncio.gather(*(events(session, url, ask(50)) for _ in range(4)))
        async with session.get(f"{url}/metrics") as response:
            return await response.text()

    text = run(test, "--acceptance-rates", RATES)
    values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values.setdefault(sample.name, []).append(sample.value)
    assert values["vllm:prompt_tokens_total"] == [80]
    assert values["vllm:generation_tokens_total"] == [200]
    assert values["vllm:num_requests_running"] == values["vllm:num_requests_waiting"] == [0]
    assert len(values["mtpbench_sim_gpu_power_watts"]) == 8
    assert all(joules > 0 for joules in values["mtpbench_sim_gpu_energy_joules_total"])
    counters = simulated.counters(text)
    assert counters.draft_tokens == 3 * counters.drafts
    assert sum(counters.per_position) == counters.accepted_tokens
    assert counters.drafts + counters.accepted_tokens >= 4 * 49


def test_speculation_counters_are_absent_when_it_is_off():
    async def test(session, url):
        async with session.get(f"{url}/metrics") as response:
            text = await response.text()
        assert simulated.counters(text) is None
        assert "vllm:generation_tokens_total" in text

    run(test)


def test_counters_sum_over_label_sets():
    name = "vllm:spec_decode_num_"
    text = "".join(
        f'{name}{kind}_total{{engine="{rank}"{label}}} {value}\n'
        for rank in (0, 1)
        for kind, label, value in (
            ("drafts", "", 10),
            ("draft_tokens", "", 20),
            ("accepted_tokens", "", 11),
            ("accepted_tokens_per_pos", ',position="0"', 8),
            ("accepted_tokens_per_pos", ',position="1"', 3),
        )
    )
    counters = simulated.counters(text)
    assert (counters.drafts, counters.accepted_tokens, counters.per_position) == (20, 22, (16, 6))


@BOTH
def test_a_client_that_leaves_frees_its_place(split):
    """With one place only, the second request ends because the first one's client hung up."""

    async def test(session, url):
        response = await session.post(f"{url}/v1/completions", json=ask(10_000))
        await response.content.readany()
        response.close()
        *_, done = await events(session, url, ask(3))
        assert done == "[DONE]"

    run(test, "--max-running", "1", split=split)


def test_the_scaled_clock_runs_as_fast_as_asked():
    """60 tokens cost the same engine energy at any speed: counters are in engine seconds."""

    async def used(speed):
        async with engine(speed=speed) as (session, url):
            await events(session, url, ask(60))
            async with session.get(f"{url}/metrics") as response:
                lines = (await response.text()).splitlines()
        return float(
            next(x for x in lines if x.startswith('mtpbench_sim_gpu_energy_joules_total{gpu="0"')).split()[1]
        )

    fast, slow = (asyncio.run(used(speed)) for speed in (10, 2))
    assert fast >= 60 * 0.009956 * 900
    assert slow >= 60 * 0.009956 * 900


def test_power_readings_integrate_to_the_energy_counter():
    """Each reading is the mean since the one before: power × time adds up to the joules.

    The engine looks at some moment between question and answer, so the sum lies between two.
    """

    async def test(session, url):
        async def read():
            async with session.get(f"{url}/metrics") as response:
                lines = (await response.text()).splitlines()
            row = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("mtpbench")}
            return row['mtpbench_sim_gpu_power_watts{gpu="0"}'], row[
                'mtpbench_sim_gpu_energy_joules_total{gpu="0"}'
            ]

        await read()
        load = asyncio.create_task(events(session, url, ask(300)))
        readings = []
        for _ in range(6):
            await asyncio.sleep(0.05)
            asked = time.monotonic()
            watts, joules = await read()
            readings.append((asked, time.monotonic(), watts, joules))
        await load
        return readings

    readings = run(test)
    joules = readings[-1][3] - readings[0][3]
    least = sum(10 * (b[0] - a[1]) * b[2] for a, b in pairwise(readings))
    most = sum(10 * (b[1] - a[0]) * b[2] for a, b in pairwise(readings))
    assert 0.99 * least <= joules <= 1.01 * most
    assert all(170 <= watts <= 1200 for _, _, watts, _ in readings)
