"""The process in front of several workers: least-loaded dispatch, prefill before decode, bytes passed on."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import aiohttp
from aiohttp import web

from mtpbench.records import Fault, to_json
from mtpbench.simengine.arguments import Options
from mtpbench.simengine.faults import FaultPlan
from mtpbench.simengine.openai import HEADERS, Ask, RequestError, parse_ask
from mtpbench.simengine.pump import Clock
from mtpbench.simengine.service import (
    MAX_BODY_BYTES,
    Health,
    error_response,
    json_response,
    models_route,
    play_early,
)

_MAX_MODEL_LEN = 2**31
"""The workers know their own limit and answer for it."""


class _Fleet:
    """Workers of one role, and how many requests each has."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.load = dict.fromkeys(urls, 0)

    @contextmanager
    def least_loaded(self) -> Iterator[str]:
        """The address of the worker with the fewest requests, counted as busy meanwhile."""
        url = min(self.load, key=self.load.__getitem__)
        self.load[url] += 1
        try:
            yield url
        finally:
            self.load[url] -= 1


class RouterApp:
    """The handlers of the router."""

    def __init__(self, options: Options, plan: FaultPlan, clock: Clock, health: Health) -> None:
        self._options, self._plan, self._clock, self._health = options, plan, clock, health
        self._prefill = _Fleet(options.prefill)
        self._generate = _Fleet(options.decode or options.aggregated)
        self._client: aiohttp.ClientSession

    def routes(self) -> list[web.RouteDef]:
        """Every route of the router."""
        return [
            models_route(self._options.model, _MAX_MODEL_LEN),
            web.get("/health", self._answer_health),
            web.post("/reset_prefix_cache", self._answer_reset),
            web.post("/v1/completions", partial(self._complete, chat=False)),
            web.post("/v1/chat/completions", partial(self._complete, chat=True)),
        ]

    async def run(self, app: web.Application) -> AsyncIterator[None]:
        """Keeps one client open while the application is."""
        del app
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            read_bufsize=2**20,
        )
        yield
        await self._client.close()

    async def _answer_health(self, request: web.Request) -> web.Response:
        del request
        urls = self._urls() if self._health.ok else []
        statuses = await asyncio.gather(*(self._status("GET", f"{url}/health") for url in urls))
        return web.Response(status=200 if set(statuses) == {200} else 503, headers=HEADERS)

    async def _answer_reset(self, request: web.Request) -> web.Response:
        del request
        calls = [self._status("POST", f"{url}/reset_prefix_cache") for url in self._urls()]
        return web.Response(
            status=200 if set(await asyncio.gather(*calls)) == {200} else 503, headers=HEADERS
        )

    def _urls(self) -> list[str]:
        return [*self._prefill.load, *self._generate.load]

    async def _status(self, method: str, url: str) -> int:
        try:
            async with self._client.request(method, url) as response:
                return response.status
        except (aiohttp.ClientError, OSError):
            return 503

    async def _complete(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        struck = self._plan.strike(self._clock.now_s())
        if (early := play_early(request, struck)) is not None:
            return early
        try:
            raw = await request.read()
            ask = parse_ask(raw, chat=chat, model=self._options.model, max_model_len=_MAX_MODEL_LEN)
            if self._prefill.load:
                with self._prefill.least_loaded() as url:
                    await self._run_prefill(url, ask)
            with self._generate.least_loaded() as url:
                return await self._relay(request, url, ask, list(struck.values()))
        except RequestError as error:
            return error_response(error)
        except (aiohttp.ClientError, OSError) as error:
            message = f"a worker is gone: {error or type(error).__name__}"
            return error_response(RequestError(500, "InternalServerError", message))

    async def _run_prefill(self, url: str, ask: Ask) -> None:
        body = {"prompt_tokens": ask.prompt_tokens, "max_tokens": ask.max_tokens}
        async with self._client.post(f"{url}/internal/prefill", json=body) as response:
            if response.status != 200:
                error = (await response.json())["error"]
                raise RequestError(error["code"], error["type"], error["message"], error["param"])

    async def _relay(
        self, request: web.Request, url: str, ask: Ask, faults: list[Fault]
    ) -> web.StreamResponse:
        body = {
            "ask": dataclasses.asdict(ask),
            "faults": to_json(faults),
            "prefilled": bool(self._prefill.load),
        }
        async with self._client.post(f"{url}/internal/generate", data=json.dumps(body)) as answer:
            if not ask.stream or answer.status != 200:
                return json_response(await answer.read(), answer.status)
            response = web.StreamResponse(headers=HEADERS | {"Content-Type": "text/event-stream"})
            started = False
            try:
                async for chunk in answer.content.iter_any():
                    if not started:
                        await response.prepare(request)
                        started = True
                    await response.write(chunk)
            except aiohttp.ClientPayloadError as error:
                await self._break_off(request, response, error, faults, started=started)
            if not started:
                await response.prepare(request)
            await response.write_eof()
            return response

    async def _break_off(
        self,
        request: web.Request,
        response: web.StreamResponse,
        error: Exception,
        faults: list[Fault],
        *,
        started: bool,
    ) -> None:
        """Tell the client that its worker died: an error event and [DONE], as vLLM does in mid-stream."""
        if any(fault.kind == "disconnect_mid_stream" for fault in faults):
            if request.transport is not None:
                request.transport.close()
            return
        if not started:
            raise error
        gone = RequestError(500, "InternalServerError", f"a worker is gone: {error}")
        await response.write(b"data: " + gone.body + b"\n\ndata: [DONE]\n\n")


def router_app(options: Options, plan: FaultPlan, clock: Clock, health: Health) -> web.Application:
    """The application of the router."""
    handlers = RouterApp(options, plan, clock, health)
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.add_routes(handlers.routes())
    app.cleanup_ctx.append(handlers.run)
    return app
