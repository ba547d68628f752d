"""The embedded engine on 127.0.0.1 inside the test's own process, and a small client for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import uvloop

from mtpbench.records import Fault, to_json
from mtpbench.simengine.server import listening
from mtpbench.simengine.service import parse_arguments
from mtpbench.simengine.step_loop import Clock

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
RATES = "0.79,0.48,0.22"


async def start(stack: AsyncExitStack, *words: str, faults: tuple[Fault, ...] = (), speed: float = 10) -> str:
    """A server of the given options; its address."""
    base = ["--port", "0", "--model", "m", "--speed", str(speed), "--faults", json.dumps(to_json(faults))]
    options = parse_arguments([*base, *words])
    port = await stack.enter_async_context(listening(options, Clock(options.speed)))
    return f"http://127.0.0.1:{port}"


@asynccontextmanager
async def engine(*words: str, faults: tuple[Fault, ...] = (), split: bool = False, speed: float = 10):
    """(session, address) of one aggregated worker, or of a router before a prefill and a decode worker."""
    async with AsyncExitStack() as stack:
        if split:
            prefill = await start(stack, "--role", "prefill", speed=speed)
            decode = await start(stack, "--role", "decode", *words, speed=speed)
            addresses = ("--prefill", prefill, "--decode", decode)
            url = await start(stack, "--role", "router", *addresses, faults=faults, speed=speed)
        else:
            url = await start(stack, *words, faults=faults, speed=speed)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield session, url


def run(test: Callable[..., Awaitable[Any]], *words: str, loop: str = "uvloop", **settings: Any) -> Any:
    """Runs `test(session, url)` against an engine, on the loop that servers have where nothing is said."""

    async def inside() -> Any:
        async with asyncio.timeout(30), engine(*words, **settings) as (session, url):
            return await test(session, url)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(inside())


def ask(tokens: int = 12, prompt: Any = 20, **more: Any) -> dict[str, Any]:
    """A streaming request with usage."""
    return {
        "model": "m",
        "prompt": list(range(prompt)) if isinstance(prompt, int) else prompt,
        "max_tokens": tokens,
        "stream": True,
        "ignore_eos": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        **more,
    }


async def events(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> list[str]:
    """The data of every event of a completion, [DONE] included."""
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    async with session.post(url + path, json=body) as response:
        assert response.status == 200, await response.text()
        text = (await response.read()).decode()
    assert text.endswith("\n\n") or not text
    return [event.removeprefix("data: ") for event in text.split("\n\n")[:-1]]
