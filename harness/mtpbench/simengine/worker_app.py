"""The HTTP application of one worker: completions, metrics, and the calls that its router makes.

Internal calls, JSON: `POST /internal/prefill` {prompt_tokens, max_tokens} answers when the prompt is
prefilled; `POST /internal/generate` {ask, faults, prefilled} answers like the public one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from mtpbench.errors import InputError
from mtpbench.records import Fault, from_json
from mtpbench.simengine.arguments import Options
from mtpbench.simengine.cluster import make_worker
from mtpbench.simengine.exposition import Counters, read_counters, render
from mtpbench.simengine.faults import SILENTLY_OFF, FaultPlan
from mtpbench.simengine.openai import (
    HEADERS,
    Ask,
    EventWriter,
    RequestError,
    bad_request,
    parse_ask,
    whole_body,
)
from mtpbench.simengine.profile import load_profile
from mtpbench.simengine.pump import Clock, Pump
from mtpbench.simengine.service import (
    MAX_BODY_BYTES,
    Health,
    error_response,
    json_response,
    models_route,
    play_early,
)
from mtpbench.simengine.streams import EventStream, Whole


class WorkerApp:
    """The handlers of one worker."""

    def __init__(self, options: Options, plan: FaultPlan, clock: Clock, health: Health) -> None:
        if options.group is None or options.limits is None:
            raise InputError("a worker needs its layout and its limits")
        self._options, self._plan, self._clock, self._health = options, plan, clock, health
        self._profile = load_profile(options.profile)
        self._gpus = options.group.gpus_per_worker
        rates = () if plan.find(SILENTLY_OFF) else options.rates
        worker = make_worker(options.group, self._profile, options.limits, rates, [options.seed, 3, 0])
        self.pump = Pump(worker, clock)
        self._max_model_len = worker.costs.kv_tokens_per_rank - len(rates) - 1
        self._baseline: Counters = {}

    def routes(self) -> list[web.RouteDef]:
        """Every route of the worker."""
        options = self._options
        routes = [
            models_route(options.model, self._max_model_len),
            web.get("/health", self._answer_health),
            web.get("/metrics", self._answer_metrics),
            web.post("/reset_prefix_cache", self._answer_reset),
            web.post("/internal/prefill", self._prefill),
            web.post("/internal/generate", self._generate),
        ]
        if options.role == "aggregated":
            routes += [
                web.post("/v1/completions", partial(self._complete, chat=False)),
                web.post("/v1/chat/completions", partial(self._complete, chat=True)),
            ]
        return routes

    async def run(self, app: web.Application) -> AsyncIterator[None]:
        """Keeps the step loop alive while the application is."""
        del app
        loop = asyncio.get_running_loop()
        stepping = loop.create_task(self.pump.run())
        if fault := self._plan.find("metrics_reset"):
            due_s = max(0.0, (fault.at_s or 0.0) - self._clock.now_s())
            loop.call_later(due_s / self._clock.speed, self._reset_counters)
        yield
        stepping.cancel()
        await asyncio.gather(stepping, return_exceptions=True)

    def _reset_counters(self) -> None:
        self._baseline = read_counters(self.pump, self._gpus)

    async def _answer_health(self, request: web.Request) -> web.Response:
        del request
        return web.Response(status=200 if self._health.ok else 503, headers=HEADERS)

    async def _answer_reset(self, request: web.Request) -> web.Response:
        del request  # there is no prefix cache, so it is empty already
        return web.Response(headers=HEADERS)

    async def _answer_metrics(self, request: web.Request) -> web.Response:
        del request
        if self._plan.holds("metrics_missing", self._clock.now_s()):
            return web.Response(status=404, text="metrics are missing, as planned")
        text = render(self.pump, self._gpus, self._options.model, self._baseline)
        return web.Response(text=text, headers=HEADERS)

    async def _complete(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        struck = self._plan.strike(self._clock.now_s())
        if (early := play_early(request, struck)) is not None:
            return early
        try:
            ask = parse_ask(
                await request.read(), chat=chat, model=self._options.model, max_model_len=self._max_model_len
            )
            return await self._answer(request, ask, struck, kv_ready=False)
        except RequestError as error:
            return error_response(error)

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        ask, struck = Ask(**body["ask"]), {f["kind"]: from_json(Fault, f) for f in body["faults"]}
        struck |= self._plan.strike(self._clock.now_s())
        if (early := play_early(request, struck)) is not None:
            return early
        if body["prefilled"]:
            await asyncio.sleep(self._profile.transfer_s(ask.prompt_tokens) / self._clock.speed)
        try:
            return await self._answer(request, ask, struck, kv_ready=body["prefilled"])
        except RequestError as error:
            return error_response(error)

    async def _prefill(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = json.loads(await request.read())
        struck = self._plan.strike(self._clock.now_s())
        if (early := play_early(request, struck)) is not None:
            return early
        waiting = Whole()
        try:
            key = self.pump.submit(body["prompt_tokens"], body["max_tokens"], waiting)
        except InputError as error:
            return error_response(bad_request(str(error)))
        try:
            await waiting.ended
        finally:
            self.pump.cancel(key)
        return json_response(b"{}")

    async def _answer(
        self, request: web.Request, ask: Ask, struck: Mapping[str, Fault], *, kv_ready: bool
    ) -> web.StreamResponse:
        usage = "no_usage" not in struck
        stream: Whole
        if ask.stream:
            writer = EventWriter(ask, self._options.model, usage=usage, done="no_done" not in struck)
            stream = EventStream(request, writer, struck, self._clock.speed)
        else:
            stream = Whole()
        try:
            key = self.pump.submit(ask.prompt_tokens, ask.max_tokens, stream, kv_ready=kv_ready)
        except InputError as error:
            raise bad_request(str(error), "max_tokens") from error
        try:
            if isinstance(stream, EventStream):
                response = web.StreamResponse(headers=HEADERS | {"Content-Type": "text/event-stream"})
                await stream.serve(response)
                return response
            await stream.ended
            return json_response(whole_body(ask, self._options.model, usage=usage))
        finally:
            self.pump.cancel(key)


def worker_app(options: Options, plan: FaultPlan, clock: Clock, health: Health) -> web.Application:
    """The application of one worker."""
    handlers = WorkerApp(options, plan, clock, health)
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.add_routes(handlers.routes())
    app.cleanup_ctx.append(handlers.run)
    return app
