"""The HTTP application of one worker (completions, metrics, the router's calls), and its replies.

Completions and the router's calls are answered on bare connections, all else by aiohttp.
Internal calls, JSON: `POST /internal/prefill` {prompt_tokens, max_tokens} answers when the prompt is
prefilled; `POST /internal/generate` {request, faults, prefilled} answers like the public one.
`GET /internal/timings?since=N` returns the times of requests; `POST /internal/timings/reset` drops them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from time import monotonic_ns
from typing import Any

import orjson
from aiohttp import web

from mtpbench.errors import InputError
from mtpbench.records import Fault, from_json
from mtpbench.simengine.connection import Connection, Handler
from mtpbench.simengine.faults import SILENTLY_OFF, FaultPlan
from mtpbench.simengine.openai import (
    HEADERS,
    CompletionRequest,
    EventWriter,
    RequestError,
    bad_request,
    parse_request,
    whole_body,
)
from mtpbench.simengine.profile import load_profile
from mtpbench.simengine.service import (
    HealthCheck,
    Options,
    models_route,
    plain_app,
    play_immediate_faults,
    timings_routes,
)
from mtpbench.simengine.step_loop import Clock, Lateness, StepLoop
from mtpbench.simengine.telemetry import Counters, Note, Timings, read_counters, render
from mtpbench.simengine.worker_model import make_worker


class WorkerApp:
    """The worker's application handles its calls."""

    def __init__(self, options: Options, plan: FaultPlan, clock: Clock, health: HealthCheck) -> None:
        if options.group is None or options.limits is None:
            raise InputError("a worker needs its layout and its limits")
        self._options, self._plan, self._clock, self._health = options, plan, clock, health
        self._profile = load_profile(options.profile)
        self._gpus = options.group.gpus_per_worker
        drafting = None if plan.find(SILENTLY_OFF) else options.drafting
        worker = make_worker(options.group, self._profile, options.limits, drafting, [options.seed, 3, 0])
        self.step_loop = StepLoop(worker, clock)
        self._timings = Timings(options.name, clock.speed)
        self._max_model_len = worker.costs.kv_tokens_per_rank - (drafting.most if drafting else 0) - 1
        self._baseline: Counters = {}

    def handlers(self) -> dict[bytes, Handler]:
        """Returns the handlers of the hot calls."""
        handlers: dict[bytes, Handler] = {
            b"/internal/prefill": self._prefill,
            b"/internal/generate": self._generate,
        }
        if self._options.role == "aggregated":
            handlers[b"/v1/completions"] = partial(self._complete, chat=False)
            handlers[b"/v1/chat/completions"] = partial(self._complete, chat=True)
        return handlers

    def app(self) -> web.Application:
        """Returns the application for all other calls."""
        app = plain_app(
            [
                models_route(self._options.model, self._max_model_len),
                web.get("/health", self._answer_health),
                web.get("/metrics", self._answer_metrics),
                web.post("/reset_prefix_cache", self._answer_reset),
                *timings_routes(self._timings, self._schedule, self._reset_recent),
            ]
        )
        app.cleanup_ctx.append(self._run)
        return app

    async def _run(self, app: web.Application) -> AsyncIterator[None]:
        """Runs the step loop as long as the application runs."""
        del app
        loop = asyncio.get_running_loop()
        stepping = loop.create_task(self.step_loop.run())
        if fault := self._plan.find("metrics_reset"):
            due_s = max(0.0, (fault.at_s or 0.0) - self._clock.now_s())
            loop.call_later(due_s / self._clock.speed, self._reset_counters)
        yield
        stepping.cancel()
        await asyncio.gather(stepping, return_exceptions=True)

    # ------------------------------------------------------------------------------------ aiohttp's calls

    def _schedule(self) -> Mapping[str, Any]:
        return {"schedule": self.step_loop.recent.as_json()}

    def _reset_recent(self) -> None:
        self.step_loop.recent = Lateness()

    def _reset_counters(self) -> None:
        self._baseline = read_counters(self.step_loop, self._gpus, self._timings)

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
        text = render(self.step_loop, self._gpus, self._timings, self._options.model, self._baseline)
        return web.Response(text=text, headers=HEADERS)

    # ------------------------------------------------------------------------------------ hot calls

    def _complete(self, connection: Connection, body: bytes, received_ns: int, *, chat: bool) -> None:
        faults = self._plan.strike(self._clock.now_s())
        if play_immediate_faults(connection, faults):
            return
        try:
            request = parse_request(
                body, chat=chat, model=self._options.model, max_model_len=self._max_model_len
            )
            self._answer(connection, request, faults, received_ns, False)
        except RequestError as error:
            connection.fail(error)

    def _generate(self, connection: Connection, body: bytes, received_ns: int) -> None:
        call = orjson.loads(body)
        request, faults = (
            CompletionRequest(**call["request"]),
            {f["kind"]: from_json(Fault, f) for f in call["faults"]},
        )
        faults |= self._plan.strike(self._clock.now_s())
        if play_immediate_faults(connection, faults):
            return
        delay_s = self._profile.transfer_s(request.prompt_tokens) if call["prefilled"] else 0.0

        def answer() -> None:
            if connection.closed:
                return
            try:
                self._answer(connection, request, faults, received_ns, call["prefilled"])
            except RequestError as error:
                connection.fail(error)

        if delay_s:
            asyncio.get_running_loop().call_later(delay_s / self._clock.speed, answer)
        else:
            answer()

    def _prefill(self, connection: Connection, body: bytes, received_ns: int) -> None:
        del received_ns
        call: dict[str, Any] = orjson.loads(body)
        if play_immediate_faults(connection, self._plan.strike(self._clock.now_s())):
            return
        waiting = WholeReply(connection, lambda: b"{}", self.step_loop.cancel)
        try:
            self._submit(connection, waiting, call["prompt_tokens"], call["max_tokens"])
        except RequestError as error:
            connection.fail(error)

    def _answer(
        self,
        connection: Connection,
        request: CompletionRequest,
        faults: Mapping[str, Fault],
        received_ns: int,
        kv_ready: bool,
    ) -> None:
        """Queues a request whose answer goes to the connection.

        Raises:
            RequestError: it can never fit.
        """
        model, usage, cancel = self._options.model, "no_usage" not in faults, self.step_loop.cancel
        reply: WholeReply | EventStream
        if request.stream:
            writer = EventWriter(request, model, usage=usage, done="no_done" not in faults)
            note = partial(self._timings.add, received_ns)
            if faults:
                reply = FaultyStream(connection, writer, cancel, note, faults, self._clock.speed)
            else:
                reply = EventStream(connection, writer, cancel, note)
        else:
            reply = WholeReply(connection, partial(whole_body, request, model, usage=usage), cancel)
        self._submit(connection, reply, request.prompt_tokens, request.max_tokens, kv_ready=kv_ready)

    def _submit(
        self,
        connection: Connection,
        reply: WholeReply | EventStream,
        prompt: int,
        total: int,
        *,
        kv_ready: bool = False,
    ) -> None:
        try:
            reply.key = self.step_loop.submit(prompt, total, reply, kv_ready=kv_ready)
        except InputError as error:
            raise bad_request(str(error), "max_tokens") from error
        connection.reply = reply


class WholeReply:
    """A whole reply sends one JSON answer at the last token (or at the end of a prefill), and nothing before.

    Args:
        connection: of the client.
        body: makes the answer.
        cancel: called with `key` when the client closes its connection.
    """

    __slots__ = ("_body", "_cancel", "_connection", "key")

    def __init__(
        self, connection: Connection, body: Callable[[], bytes], cancel: Callable[[int], None]
    ) -> None:
        self._connection, self._body, self._cancel = connection, body, cancel
        self.key = -1

    def tokens(self, cumulative: int, *, last: bool) -> None:
        """Sends the answer at the last token."""
        del cumulative
        if last:
            self._connection.respond(200, self._body())

    def prefilled(self) -> None:
        """Sends the answer."""
        self.tokens(0, last=True)

    def lost(self) -> None:
        """Cancels the request: the client has closed its connection."""
        self._cancel(self.key)


class EventStream:
    """An event stream sends each event at once, and reports its times at the end.

    Args:
        connection: of the client.
        writer: makes the events.
        cancel: called with `key` when the client closes its connection.
        note: called at the end of the stream, with the times of its first and last token event, its tokens
            and chunks, and whether it is whole.
    """

    __slots__ = (
        "_cancel",
        "_chunks",
        "_connection",
        "_first_ns",
        "_last_ns",
        "_note",
        "_sent",
        "_writer",
        "key",
    )

    def __init__(
        self, connection: Connection, writer: EventWriter, cancel: Callable[[int], None], note: Note
    ) -> None:
        self._connection, self._writer, self._cancel, self._note = connection, writer, cancel, note
        self.key = -1
        self._first_ns = self._last_ns = self._chunks = self._sent = 0

    def tokens(self, cumulative: int, *, last: bool) -> None:
        """Sends the event."""
        self._send(self._writer.tokens(cumulative, last=last), cumulative, last)

    def prefilled(self) -> None:
        """Does nothing: a prefill is not streamed."""

    def lost(self) -> None:
        """Cancels the request and reports its times: the client has closed its connection."""
        self._cancel(self.key)
        self._note(self._first_ns, self._last_ns, self._sent, self._chunks, False)

    def _send(self, data: bytes, cumulative: int, last: bool) -> None:
        connection = self._connection
        if connection.closed:
            return
        framed = b"%x\r\n%b\r\n" % (len(data), data)
        if last:
            framed += b"0\r\n\r\n"
        now_ns = monotonic_ns()  # before the bytes go, so that no client can have them earlier
        connection.send(framed if self._chunks else connection.open_stream() + framed)
        if connection.closed:
            return
        self._last_ns = now_ns
        if not self._chunks:
            self._first_ns = now_ns
        self._chunks += 1
        self._sent = cumulative
        if last:
            self._note(self._first_ns, now_ns, cumulative, self._chunks, True)
            connection.finish()


class FaultyStream(EventStream):
    """A faulty stream plays the faults that strike its request.

    Args:
        faults: by kind.
        speed: engine seconds per real second.
    """

    __slots__ = ("_events", "_faults", "_held", "_speed", "_stalled")

    def __init__(
        self,
        connection: Connection,
        writer: EventWriter,
        cancel: Callable[[int], None],
        note: Note,
        faults: Mapping[str, Fault],
        speed: float,
    ) -> None:
        super().__init__(connection, writer, cancel, note)
        self._faults, self._speed = faults, speed
        self._held: list[tuple[bytes, int, bool]] = []
        self._stalled = False
        self._events = 0

    def tokens(self, cumulative: int, *, last: bool) -> None:
        """Sends the event, or holds it until a stall is over."""
        self._events += 1
        event = self._spoil(self._writer.tokens(cumulative, last=last)), cumulative, last
        if self._stalled:
            self._held.append(event)
        else:
            self._send(*event)
        self._strike()

    def _spoil(self, data: bytes) -> bytes:
        if "malformed_event" in self._faults and self._events == 2:
            event, _, rest = data.partition(b"\n\n")
            return event[: len(event) // 2] + b"\n\n" + rest
        return data

    def _strike(self) -> None:
        fault = self._faults.get("disconnect_mid_stream")
        if fault and self._events >= (fault.value or 1):
            self._connection.hang_up()
        if (fault := self._faults.get("stall")) and self._events == 1:
            self._stalled = True
            delay_s = 60.0 if fault.value is None else fault.value
            asyncio.get_running_loop().call_later(delay_s / self._speed, self._resume)

    def _resume(self) -> None:
        self._stalled = False
        for event in self._held:
            self._send(*event)
        self._held.clear()
