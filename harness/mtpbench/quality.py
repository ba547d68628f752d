"""MTP must not change the answers: what a start of a deployment answers before its ladder.

Verified drafts give the same greedy tokens as no drafts at all, up to the noise of floating point in
batches of another shape. Both arms answer the same fixed prompts; analysis holds the texts side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import aiohttp

from mtpbench.deployment import LiveDeployment
from mtpbench.executors.evaluation import run_evaluation
from mtpbench.records import Answers, Evaluation, Point

ANSWER_TIMEOUT_S = 600.0
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
class Quality:
    """What one start of a deployment answers and scores."""

    answers: Answers
    evaluation: Evaluation | None


async def check_quality(live: LiveDeployment, point: Point) -> Quality:
    """The greedy answers of a live deployment, and the score of the user's evaluation if there is one."""
    rules = point.measurement
    evaluation = None
    if rules.evaluate:
        environment = {"MTPBENCH_BASE_URL": live.base_url, "MTPBENCH_MODEL": live.deployment.model_name}
        evaluation = await run_evaluation(rules.evaluate, environment, rules.evaluate_timeout_s)
    return Quality(answers=await answer_greedily(live, point), evaluation=evaluation)


async def answer_greedily(live: LiveDeployment, point: Point) -> Answers:
    """The deployment's greedy answers to the first fixed prompts; none with a reason where it can't."""
    rules = point.measurement
    if not rules.greedy_prompts:
        return Answers(reason="not asked for")
    if point.simulated:
        return Answers(reason="a simulated engine's text is filler")
    texts = []
    async with aiohttp.ClientSession(trust_env=False) as session:
        for prompt in PROMPTS[: rules.greedy_prompts]:
            try:
                texts.append(await _answer(session, live, point, prompt))
            except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, IndexError) as error:
                return Answers(
                    reason=f"prompt {len(texts)} was not answered: {type(error).__name__}: {error}"
                )
    return Answers(texts=tuple(texts))


async def _answer(session: aiohttp.ClientSession, live: LiveDeployment, point: Point, prompt: str) -> str:
    chat = point.workload.chat_template
    body: dict[str, object] = {
        "model": live.deployment.model_name,
        "max_tokens": point.measurement.greedy_tokens,
        "temperature": 0,
        "stream": False,
    }
    body |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    url = live.base_url + ("/v1/chat/completions" if chat else "/v1/completions")
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    async with session.post(url, json=body, timeout=timeout) as answer:
        if answer.status != 200:
            raise ValueError(f"HTTP {answer.status}: {(await answer.text())[:200]}")
        choice = (await answer.json(content_type=None))["choices"][0]
    text = choice["message"]["content"] if chat else choice["text"]
    if not isinstance(text, str):
        raise ValueError("the answer holds no text")
    return text
