"""The output check: what a started deployment answers before its ladder: drafts must not change answers.

Verified drafts give the same greedy tokens as no drafts, up to the noise of floating point in batches of
another shape. Both arms answer the same fixed prompts; analysis compares the texts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass

from mtpbench import reaper
from mtpbench.deployment import LiveDeployment
from mtpbench.reaper import is_alive
from mtpbench.records import MOST_COUNTED, Answers, Evaluation, Point, decode_json, known
from mtpbench.redaction import Secrets
from mtpbench.served import Reader, Unserved, parsed, picked_text

ANSWER_TIMEOUT_S = 600.0
END_S = 10.0
LAST_BYTES, LAST_CHARACTERS = 1 << 16, 500
"""How much of an evaluation's output is kept, and of its last line in a reason."""
PROMPTS = (
    "List the first ten prime numbers, separated by commas:",
    "The capital of France is Paris. The capital of Japan is",
    "def fibonacci(n):\n    ",
    "Translate to German: The measurement is finished and the report is ready.",
    "Once upon a time, in a machine room far away,",
    "Question: If a train travels 120 km in 90 minutes, what is its speed in km/h?\nAnswer:",
    '{"name": "mtpbench", "version":',
    "SELECT name, count(*) FROM requests WHERE",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputCheck:
    """The answers and the score of one start of a deployment."""

    answers: Answers
    evaluation: Evaluation | None


async def check_output(live: LiveDeployment, point: Point, secrets: Secrets) -> OutputCheck:
    """Collects a deployment's greedy answers, and the score of the user's evaluation if there is one."""
    rules = point.measurement
    evaluation = None
    if rules.evaluate:
        environment = {"MTPBENCH_BASE_URL": live.base_url, "MTPBENCH_MODEL": live.deployment.model_name}
        evaluation = await run_evaluation(rules.evaluate, environment, rules.evaluate_timeout_s, secrets)
    return OutputCheck(answers=await answer_greedily(live, point), evaluation=evaluation)


async def answer_greedily(live: LiveDeployment, point: Point) -> Answers:
    """Collects the greedy answers to the fixed prompts; none, with a reason, where one is not answered."""
    rules = point.measurement
    if not rules.greedy_prompts:
        return Answers(reason="not asked for")
    if point.simulated:
        return Answers(reason="a simulated engine's text is filler")
    texts = []
    async with Reader() as reader:
        for prompt in PROMPTS[: rules.greedy_prompts]:
            try:
                texts.append(await _answer(reader, live, point, prompt))
            except Unserved as why:
                return Answers(reason=f"prompt {len(texts)} was not answered: {why}")
    return Answers(texts=tuple(texts))


async def _answer(reader: Reader, live: LiveDeployment, point: Point, prompt: str) -> str:
    chat = point.workload.chat_template
    # What the template is told shapes an answer; extra keys of the load may sample, and so vary, one.
    question: dict[str, object] = {
        "model": live.deployment.model_name,
        "max_tokens": point.measurement.greedy_tokens,
        "temperature": 0,
        "stream": False,
    }
    question |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    if point.workload.chat_template_kwargs:
        question["chat_template_kwargs"] = point.workload.chat_template_kwargs
    url = live.base_url + ("/v1/chat/completions" if chat else "/v1/completions")
    patience_s = min(ANSWER_TIMEOUT_S, point.measurement.request_timeout_s)
    answer = parsed(await reader.post(url, patience_s, question))
    return picked_text(answer, "choices", 0, *(("message", "content") if chat else ("text",)))


async def run_evaluation(
    command: str, environment: Mapping[str, str], timeout_s: float, secrets: Secrets
) -> Evaluation:
    """Runs a shell command whose last line is its score: a number, or JSON with a number under `score`.

    Args:
        command: run by `sh -c`, in a process group of its own.
        environment: added to the harness's own; names the endpoint.
        timeout_s: wall seconds after which the group is killed.
        secrets: what the reason must not hold.
    """
    process = await asyncio.create_subprocess_exec(
        *reaper.COMMAND,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            assert process.stdin is not None
            process.stdin.write(reaper.order(("sh", "-c", command)))
            output = await _tail(process)
            await process.wait()
    except TimeoutError:
        return Evaluation(command=command, score=None, reason=f"no end after {timeout_s:g} s")
    finally:
        await _end_group(process)
    lines = output.decode("utf-8", "replace").strip().splitlines()
    last = lines[-1].strip() if lines else ""
    shown = secrets.hide(last)[-LAST_CHARACTERS:]
    if process.returncode:
        return Evaluation(command=command, score=None, reason=f"exit code {process.returncode}: {shown}")
    score = read_score(last)
    reason = None if score is not None else f"the last line holds no score: {shown!r}"
    return Evaluation(command=command, score=score, reason=reason)


async def _tail(process: asyncio.subprocess.Process) -> bytes:
    """Reads all that a process prints, and returns the end of it: there may be more than memory holds."""
    assert process.stdout is not None
    output = b""
    while more := await process.stdout.read(LAST_BYTES):
        output = (output + more)[-LAST_BYTES:]
    return output


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """Kills a process group and waits for its end, because a child that still runs would disturb the ladder.

    Each process ends when it is scheduled next after SIGKILL, so the shell's end says nothing about its
    children. A process that the kernel holds (a dead file system) is waited for no longer than `END_S`.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    deadline = time.monotonic() + END_S
    while is_alive(process.pid) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)


def read_score(line: str) -> float | None:
    """Parses the number in a line, or under `score` in its JSON object; None where there is none."""
    try:
        value = decode_json(line)
    except ValueError:
        return None
    if isinstance(value, dict):
        value = value.get("score")
    return known(value, -MOST_COUNTED, MOST_COUNTED)
