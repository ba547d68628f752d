"""Greedy answers and the evaluation hook, against a small HTTP server and real commands."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from measured import make_point
from mtpbench.deployment import LiveDeployment
from mtpbench.output_check import (
    PROMPTS,
    answer_greedily,
    check_output,
    read_score,
    run_evaluation,
)
from mtpbench.reaper import is_alive
from mtpbench.records import Answers, Measurement
from mtpbench.redaction import Secrets


def live_at(server: TestServer) -> LiveDeployment:
    url = str(server.make_url("")).rstrip("/")
    return cast(LiveDeployment, SimpleNamespace(base_url=url, deployment=SimpleNamespace(model_name="m")))


async def serve(status: int = 200) -> tuple[TestServer, list[Any]]:
    requests: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        requests.append((request.path, await request.json()))
        if status != 200:
            return web.Response(status=status, text="no")
        text = f"answer {len(requests)}"
        return web.json_response({"choices": [{"text": text, "message": {"content": text}}]})

    app = web.Application()
    app.router.add_post("/v1/completions", answer)
    app.router.add_post("/v1/chat/completions", answer)
    server = TestServer(app)
    await server.start_server()
    return server, requests


async def test_each_start_answers_the_fixed_prompts_greedily() -> None:
    server, requests = await serve()
    point = make_point(measurement=Measurement(greedy_prompts=3, greedy_tokens=7))
    answers = await answer_greedily(live_at(server), point)
    await server.close()
    assert answers.texts == ("answer 1", "answer 2", "answer 3")
    assert [body["prompt"] for _, body in requests] == list(PROMPTS[:3])
    assert all(body["temperature"] == 0 and body["max_tokens"] == 7 for _, body in requests)


async def test_chat_workloads_are_asked_by_chat() -> None:
    server, requests = await serve()
    point = make_point()
    told = {"thinking": True}
    workload = dataclasses.replace(
        point.workload, chat_template=True, chat_template_kwargs=told, extra_body={"top_p": 0.5}
    )
    point = dataclasses.replace(point, workload=workload)
    assert len((await answer_greedily(live_at(server), point)).texts) == 4
    await server.close()
    assert {path for path, _ in requests} == {"/v1/chat/completions"}
    assert all(body["chat_template_kwargs"] == told and "top_p" not in body for _, body in requests)


async def test_a_prompt_that_is_not_answered_gives_a_reason_and_no_answers() -> None:
    server, _ = await serve(status=500)
    answers = await answer_greedily(live_at(server), make_point())
    await server.close()
    assert answers.texts == ()
    assert answers.reason == "prompt 0 was not answered: http_500: no"


@pytest.mark.parametrize(
    "answer",
    [
        *("", "null", "[1, 2]", "{}", '{"choices": null}', '{"choices": {}}', '{"choices": [null]}'),
        *('{"choices": []}', '{"choices": [{"text": 5}]}', '{"choices": "abc"}', "[" * 100_000, "9" * 5000),
    ],
)
async def test_an_answer_of_another_shape_gives_a_reason_and_no_answers(answer: str) -> None:
    answers = await answers_of(answer)
    assert answers.texts == ()
    assert str(answers.reason).startswith("prompt 0 was not answered: bad_json: ")


async def test_a_server_that_never_answers_holds_up_no_interruption() -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/completions", hang)
    server = TestServer(app)
    await server.start_server()
    asking = asyncio.create_task(answer_greedily(live_at(server), make_point()))
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    brief = Measurement(request_timeout_s=0.1)
    answers = await answer_greedily(live_at(server), make_point(measurement=brief))
    assert answers.reason == "prompt 0 was not answered: timeout: no end within 0.1 s"
    await server.close()


async def test_what_an_evaluation_prints_without_end_fills_no_memory() -> None:
    evaluation = await run_evaluation("head -c 3000000 /dev/zero; echo; echo 0.5", {}, 30, Secrets())
    assert (evaluation.score, evaluation.reason) == (0.5, None)
    long = await run_evaluation("head -c 3000000 /dev/zero | tr '\\0' x", {}, 30, Secrets())
    assert long.reason is not None
    assert len(long.reason) < 600


async def test_a_score_may_stand_in_a_line_of_any_length_beside_all_else_that_was_measured() -> None:
    evaluation = await run_evaluation(
        f"echo '{json.dumps({'score': 0.5, 'by_task': ['x' * 9] * 99})}'", {}, 30, Secrets()
    )
    assert (evaluation.score, evaluation.reason) == (0.5, None)


async def test_half_of_a_surrogate_pair_in_an_answer_can_be_stored() -> None:
    assert (await answers_of('{"choices": [{"text": "a\\ud800"}]}')).texts == ("a\ufffd",)


async def answers_of(text: str) -> Answers:
    """What comes of a server that gives this answer to the one prompt."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=text)

    app = web.Application()
    app.router.add_post("/v1/completions", answer)
    server = TestServer(app)
    await server.start_server()
    answers = await answer_greedily(live_at(server), make_point(measurement=Measurement(greedy_prompts=1)))
    await server.close()
    return answers


async def test_the_evaluation_gets_the_endpoint_and_its_score_is_kept() -> None:
    server, _ = await serve()
    command = 'echo "at $MTPBENCH_BASE_URL"; echo "{\\"score\\": 0.5, \\"model\\": \\"$MTPBENCH_MODEL\\"}"'
    output = await check_output(
        live_at(server), make_point(measurement=Measurement(evaluate=command)), Secrets()
    )
    await server.close()
    assert output.evaluation is not None
    assert (output.evaluation.score, output.evaluation.reason) == (0.5, None)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("echo broken; exit 3", "exit code 3: broken"),
        ("echo nothing to see", "the last line holds no score: 'nothing to see'"),
        ("true", "the last line holds no score: ''"),
    ],
)
async def test_an_evaluation_without_a_score_says_why(command: str, reason: str) -> None:
    evaluation = await run_evaluation(command, {}, 30, Secrets())
    assert (evaluation.score, evaluation.reason) == (None, reason)


async def test_an_evaluation_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "group"
    evaluation = await run_evaluation(f"echo $$ > {pid_file}; sleep 600 & sleep 600", {}, 1.0, Secrets())
    assert (evaluation.score, evaluation.reason) == (None, "no end after 1 s")
    assert not is_alive(int(pid_file.read_text()))


@pytest.mark.parametrize(
    ("line", "score"),
    [
        ("0.75", 0.75),
        ('{"score": 3}', 3.0),
        ('{"score": null}', None),
        ("true", None),
        ("NaN", None),
        ("1e999", None),
        ("9" * 400, None),
        ("[" * 100_000, None),
        ('{"score": -Infinity}', None),
        ("", None),
    ],
)
def test_scores(line: str, score: float | None) -> None:
    assert read_score(line) == score
