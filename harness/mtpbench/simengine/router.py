"""The router in front of several workers: least-loaded dispatch, prefill before decode, bytes passed on."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import monotonic_ns

import aiohttp
from aiohttp import web

from mtpbench.records import Fault, to_json
from mtpbench.simengine.connection import Connection, Handler
from mtpbench.simengine.faults import FaultPlan
from mtpbench.simengine.openai import HEADERS, CompletionRequest, RequestError, parse_request
from mtpbench.simengine.service import (
    HealthCheck,
    Options,
    models_route,
    plain_app,
    play_immediate_faults,
    timings_routes,
)
from mtpbench.simengine.step_loop import Clock
from mtpbench.simengine.telemetry import Note, Timings, render_histograms

_MAX_MODEL_LEN = 2**31
"""The router accepts any length; each worker checks its own limit."""
_TOKEN_EVENT = b'"choices":[{'
"""Bytes of every event with tokens, and of a chat's role event; an event with only the usage lacks them."""


class _Fleet:
    """A fleet holds the workers of one role, and counts the requests of each."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.load = dict.fromkeys(urls, 0)

    @contextmanager
    def least_loaded(self) -> Iterator[str]:
        """Returns the address of the worker with the fewest requests, counted as busy meanwhile."""
        url = min(self.load, key=self.load.__getitem__)
        self.load[url] += 1
        try:
            yield url
        finally:
            self.load[url] -= 1


class RouterApp:
    """The router's application handles completions, health, metrics and models."""

    def __init__(self, options: Options, plan: FaultPlan, clock: Clock, health: HealthCheck) -> None:
        self._options, self._plan, self._clock, self._health = options, plan, clock, health
        self._prefill = _Fleet(options.prefill)
        self._generate = _Fleet(options.decode or options.aggregated)
        self._timings = Timings(options.name, clock.speed)
        self._client: aiohttp.ClientSession

    def handlers(self) -> dict[bytes, Handler]:
        """Returns the handlers of the hot calls."""
        return {
            b"/v1/completions": partial(self._complete, chat=False),
            b"/v1/chat/completions": partial(self._complete, chat=True),
        }

    def app(self) -> web.Application:
        """Returns the application for all other calls."""
        app = plain_app(
            [
                models_route(self._options.model, _MAX_MODEL_LEN),
                web.get("/health", self._answer_health),
                web.get("/metrics", self._answer_metrics),
                web.post("/reset_prefix_cache", self._answer_reset),
                *timings_routes(self._timings, dict, lambda: None),
            ]
        )
        app.cleanup_ctx.append(self._run)
        return app

    async def _run(self, app: web.Application) -> AsyncIterator[None]:
        """Keeps one HTTP client open as long as the application runs."""
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

    async def _answer_metrics(self, request: web.Request) -> web.Response:
        del request
        sums = self._timings.sums
        values = {f"{name}_{part}": sums[name][i] for name in sums for i, part in enumerate(("count", "sum"))}
        lines = render_histograms(values.__getitem__, self._options.model)
        return web.Response(text="\n".join(lines) + "\n", headers=HEADERS)

    def _complete(self, connection: Connection, body: bytes, received_ns: int, *, chat: bool) -> None:
        faults = self._plan.strike(self._clock.now_s())
        if play_immediate_faults(connection, faults):
            return
        try:
            request = parse_request(body, chat=chat, model=self._options.model, max_model_len=_MAX_MODEL_LEN)
        except RequestError as error:
            connection.fail(error)
            return
        relay = Relay(connection, request, partial(self._timings.add, received_ns))
        connection.reply = relay
        relay.task = asyncio.get_running_loop().create_task(self._serve(relay, list(faults.values())))

    async def _serve(self, relay: Relay, faults: list[Fault]) -> None:
        try:
            if self._prefill.load:
                with self._prefill.least_loaded() as url:
                    await self._run_prefill(url, relay.request)
            with self._generate.least_loaded() as url:
                await self._generate_at(url, relay, faults)
        except RequestError as error:
            relay.break_off(error, hang_up=False)
        except (aiohttp.ClientError, OSError) as error:
            message = f"a worker is gone: {error or type(error).__name__}"
            planned = any(fault.kind == "disconnect_mid_stream" for fault in faults)
            relay.break_off(RequestError(500, "InternalServerError", message), hang_up=planned)

    async def _run_prefill(self, url: str, request: CompletionRequest) -> None:
        body = {"prompt_tokens": request.prompt_tokens, "max_tokens": request.max_tokens}
        async with self._client.post(f"{url}/internal/prefill", json=body) as response:
            if response.status != 200:
                error = (await response.json())["error"]
                raise RequestError(error["code"], error["type"], error["message"], error["param"])

    async def _generate_at(self, url: str, relay: Relay, faults: list[Fault]) -> None:
        body = {
            "request": dataclasses.asdict(relay.request),
            "faults": to_json(faults),
            "prefilled": bool(self._prefill.load),
        }
        async with self._client.post(f"{url}/internal/generate", data=json.dumps(body)) as answer:
            if not relay.request.stream or answer.status != 200:
                relay.answer(answer.status, await answer.read())
                return
            async for chunk in answer.content.iter_any():
                relay.pass_on(chunk)
            relay.close(complete=True)


class Relay:
    """A relay passes the answer of a worker on to the client.

    Args:
        connection: the client's.
        request: the client's request.
        note: called at the end of a stream, with the times of its first and last token event, its tokens (-1
            where the stream broke off: they are not counted here) and chunks, and whether it is whole.
    """

    def __init__(self, connection: Connection, request: CompletionRequest, note: Note) -> None:
        self._connection, self.request, self._note = connection, request, note
        self.task: asyncio.Task[None]
        self.opened = False
        """Whether bytes of the answer were sent."""
        self._tail = b""
        self._events = 0
        self._first_ns = self._last_ns = 0

    def lost(self) -> None:
        """Cancels the request: the client has closed its connection."""
        self.task.cancel()
        self._end(complete=False)

    def pass_on(self, data: bytes) -> None:
        """Sends bytes of the worker's answer."""
        connection, framed = self._connection, b"%x\r\n%b\r\n" % (len(data), data)
        now_ns = monotonic_ns()  # before the bytes go, so that no client can have them earlier
        connection.send(framed if self.opened else connection.open_stream() + framed)
        self.opened = True
        text = self._tail + data
        self._tail = text[1 - len(_TOKEN_EVENT) :]
        if events := text.count(_TOKEN_EVENT):
            self._events += events
            if self._chunks and not connection.closed:
                self._last_ns = now_ns
                self._first_ns = self._first_ns or now_ns

    def answer(self, status: int, body: bytes) -> None:
        """Sends a whole answer."""
        self._connection.respond(status, body)

    def break_off(self, error: RequestError, *, hang_up: bool) -> None:
        """Ends the stream of a worker that died by an error event and [DONE], as vLLM does in mid-stream.

        Args:
            error: the error of the event.
            hang_up: close the connection without an event, because a fault plans that.
        """
        if hang_up:
            self._connection.hang_up()
        elif not self.opened:
            self._connection.fail(error)
        else:
            self.pass_on(b"data: " + error.body + b"\n\ndata: [DONE]\n\n")
            self.close(complete=False)

    def close(self, *, complete: bool) -> None:
        """Ends the stream."""
        connection = self._connection
        connection.send((b"" if self.opened else connection.open_stream()) + b"0\r\n\r\n")
        if not connection.closed:
            self._end(complete=complete)
            connection.finish()

    def _end(self, *, complete: bool) -> None:
        if self.request.stream:
            tokens = self.request.max_tokens if complete else -1 if self._chunks else 0
            self._note(self._first_ns, self._last_ns, tokens, self._chunks, complete)

    @property
    def _chunks(self) -> int:
        return max(0, self._events - self.request.chat)
