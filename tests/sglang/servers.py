"""One real SGLang server outside a sweep: started as the harness starts it, with a few words more."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mtpbench import hardware
from mtpbench.deployment import LiveDeployment
from mtpbench.engines import sglang
from mtpbench.executors.local import LocalExecutor
from mtpbench.records import Point
from mtpbench.served import Reader, metrics

START_S, ASK_S = 300.0, 120.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a request gave, and how many verification steps the server counted for it."""

    text: str
    cached_tokens: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class Server:
    """A ready server; nobody else asks it anything."""

    live: LiveDeployment
    model: str
    reader: Reader

    async def page(self) -> str:
        """Returns its metrics."""
        (url,) = self.live.metrics_urls.values()
        return await self.reader.get(url, ASK_S)

    async def answer(self, prompt: str, tokens: int) -> Answer:
        """Asks greedily, alone."""
        before = _verify_calls(await self.page())
        answered = await self._complete(prompt, tokens)
        details = answered["usage"]["prompt_tokens_details"] or {}
        return Answer(
            text=answered["choices"][0]["text"],
            cached_tokens=details.get("cached_tokens") or 0,
            steps=round(_verify_calls(await self.page()) - before),
        )

    async def load(self, prompt: str, tokens: int, requests: int) -> None:
        """Asks the same of it many times at once."""
        await asyncio.gather(*(self._complete(prompt, tokens) for _ in range(requests)))

    async def _complete(self, prompt: str, tokens: int) -> dict:
        question = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        return json.loads(await self.reader.post(f"{self.live.base_url}/v1/completions", ASK_S, question))


@asynccontextmanager
async def serve(
    point: Point,
    directory: Path,
    *,
    words: Sequence[str] = (),
    without: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Server]:
    """Starts the one server of a point and ends it.

    Args:
        point: a point of one server.
        directory: where its log is written.
        words: what its command line gets in the end.
        without: words that are taken out of it.
        env: variables that it gets besides its own.
    """
    deployment = sglang.deploy(point, hardware.lookup(point.hardware))
    (process,) = deployment.processes
    argv = (*(word for word in process.argv if word not in without), *words)
    process = dataclasses.replace(process, argv=argv, env={**process.env, **(env or {})})
    deployment = dataclasses.replace(deployment, processes=(process,))
    async with LiveDeployment(deployment, LocalExecutor(directory), START_S) as live, Reader() as reader:
        yield Server(live=live, model=point.model.served_name, reader=reader)


def _verify_calls(page: str) -> float:
    return sum(metric.amount for metric in metrics(page, ("sglang:spec_verify_calls_total",)))
