"""The aiohttp transport, for TLS, proxies and servers that the fast transport does not understand.

It shares the scheduler, the streams and the records with the fast transport; its stamps are taken in user
space, right after each read.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from functools import partial
from io import BytesIO
from typing import Any

import aiohttp
import uvloop

from mtpbench.load.connection_pool import LIMITS, resolve
from mtpbench.load.http1 import MAX_HEAD_BYTES
from mtpbench.load.transport import (
    DRAIN_S,
    Failure,
    Flight,
    ResponseCheck,
    TransportOptions,
    authorization,
    grace_us,
)
from mtpbench.metrics.request_table import CUT_OFF

READ_BUFFER_BYTES = 1 << 20
TICK_S = 0.01


class _Exchange:
    """One attempt to send a request and read its response, with what is needed to end it."""

    __slots__ = ("answered", "check", "ended", "flight", "reused", "transport")

    def __init__(self, flight: Flight) -> None:
        self.flight = flight
        self.reused = self.answered = self.ended = False
        self.check: ResponseCheck | None = None
        self.transport: asyncio.Transport | None = None

    def failure_after(self, failure: Failure) -> Failure | None:
        """Returns the failure of the request after this one; None if its stream is complete.

        What the response itself shows goes first.
        """
        if self.flight.stream.done:
            return None
        return (self.check and self.check.failure) or failure


_current_exchange: ContextVar[_Exchange] = ContextVar("_current_exchange")
"""The exchange of the current task."""


class _Connector(aiohttp.TCPConnector):
    """Gives each exchange its connection: if a request was not sent whole, the connection must be aborted."""

    async def connect(self, *arguments: Any, **options: Any) -> Any:
        connection = await super().connect(*arguments, **options)
        _current_exchange.get().transport = connection.transport
        return connection


class AiohttpTransport:
    """The aiohttp transport sends one process's share of a load, on an event loop of its own."""

    def __init__(self, options: TransportOptions) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._scheduler, self._monitor, self._path = options.scheduler, options.monitor, options.path
        self._stop_descriptor, self._on_stop = options.stop_descriptor, options.on_stop
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._freed: asyncio.Event
        self._fault: BaseException | None = None

    def open(self, connections: int) -> None:
        """See `Transport.open`; connections are opened when requests need them."""
        del connections
        resolve(self._scheduler.spec.base_url)
        self._runner.run(self._open())

    def run(self) -> None:
        """See `Transport.run`."""
        self._runner.run(self._run())

    def close(self) -> None:
        """See `Transport.close`."""
        if self._session is not None:
            self._runner.run(self._session.close())
        self._runner.close()

    async def _open(self) -> None:
        spec = self._scheduler.spec
        headers = {
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "mtpbench",
        }
        if (key := authorization(spec)) is not None:
            headers["Authorization"] = key
        connector = _Connector(
            limit=0, **({"keepalive_timeout": 60} if spec.keeps_connections else {"force_close": True})
        )
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(self._note_sent)
        trace.on_connection_reuseconn.append(self._note_reused)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            trace_configs=[trace],
        )
        self._freed = asyncio.Event()

    async def _run(self) -> None:
        scheduler = self._scheduler
        loop = asyncio.get_running_loop()
        if self._stop_descriptor is not None and self._on_stop is not None:
            loop.add_reader(self._stop_descriptor, self._stop)
        ticking = loop.create_task(self._tick())
        try:
            while not scheduler.over:
                while (flight := scheduler.next()) is not None:
                    task = loop.create_task(self._send(flight))
                    self._tasks.add(task)
                    task.add_done_callback(partial(self._end_task, flight))
                await self._sleep()
                self._raise_faults(ticking)
                if self._fault is not None:
                    raise self._fault
        finally:
            ticking.cancel()
            if self._stop_descriptor is not None:
                loop.remove_reader(self._stop_descriptor)
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(ticking, *self._tasks, return_exceptions=True)

    def _stop(self) -> None:
        assert self._stop_descriptor is not None
        assert self._on_stop is not None
        asyncio.get_running_loop().remove_reader(self._stop_descriptor)
        self._on_stop()

    def _end_task(self, flight: Flight, task: asyncio.Task[None]) -> None:
        """Clears up after a task; records the request of one that was cancelled before it began."""
        self._tasks.discard(task)
        if task.cancelled():
            self._scheduler.end(flight, (CUT_OFF, self._scheduler.cut_off or "stopped"))
        elif (fault := task.exception()) is not None:
            self._fault = fault
        self._freed.set()

    @staticmethod
    def _raise_faults(task: asyncio.Task[None]) -> None:
        if task.done():
            task.result()

    async def _sleep(self) -> None:
        """Sleeps until a slot is free or a request is due, but no longer than a tick."""
        due_ns = self._scheduler.next_due_ns()
        sleep_s = TICK_S if due_ns is None else min((due_ns - time.perf_counter_ns()) * 1e-9, TICK_S)
        self._freed.clear()
        try:
            async with asyncio.timeout(max(sleep_s, 0.0)):
                await self._freed.wait()
        except TimeoutError:
            return

    async def _send(self, flight: Flight) -> None:
        scheduler = self._scheduler
        exchange = _Exchange(flight)
        failure: Failure | None
        try:
            async with asyncio.timeout(scheduler.timeout_us * 1e-6):
                failure = await self._stream(exchange)
        except TimeoutError:
            failure = self._give_up(exchange, ("timeout", scheduler.timeout_detail))
        except asyncio.CancelledError:
            failure = self._give_up(exchange, (CUT_OFF, scheduler.cut_off or "stopped"))
        self._end(exchange, failure)

    def _end(self, exchange: _Exchange, failure: Failure | None) -> None:
        """Ends the request once; the rest of its response may still come."""
        if not exchange.ended:
            exchange.ended = True
            flight = exchange.flight
            self._scheduler.end(flight, None if flight.stream.done else failure)
            self._freed.set()

    @staticmethod
    def _give_up(exchange: _Exchange, failure: Failure) -> Failure | None:
        """Aborts an exchange: a normal close would wait until the server has read the whole request."""
        if exchange.transport is not None:
            exchange.transport.abort()
        return exchange.failure_after(failure)

    async def _stream(self, exchange: _Exchange) -> Failure | None:
        body = b"".join(self._scheduler.pieces(exchange.flight))
        _current_exchange.set(exchange)
        while True:
            exchange.reused = exchange.answered = False
            failure = await self._try(exchange, body)
            if failure is None or failure[0] != "disconnected" or exchange.answered or not exchange.reused:
                return failure
            self._scheduler.retried += 1  # the server had closed a kept connection before it took the request

    async def _try(self, exchange: _Exchange, body: bytes) -> Failure | None:
        assert self._session is not None
        url = self._scheduler.spec.base_url.rstrip("/") + self._path
        try:
            async with self._session.post(url, data=BytesIO(body), allow_redirects=False) as response:
                exchange.answered = True
                return await self._read(response, exchange)
        except aiohttp.ClientConnectorError as error:
            return "client_limit" if error.errno in LIMITS else "connect_failed", str(error)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError) as error:
            exchange.answered |= not isinstance(getattr(error, "message", ""), str)
            return "disconnected", str(error) or type(error).__name__
        except OSError as error:
            code = "client_limit" if error.errno in LIMITS else "disconnected"
            return code, str(error) or type(error).__name__
        except (aiohttp.ClientError, ValueError) as error:
            return "bad_response", f"{type(error).__name__}: {error}"

    async def _read(self, response: aiohttp.ClientResponse, exchange: _Exchange) -> Failure | None:
        headers = {name.lower(): value for name, value in response.headers.items()}
        stream, content, monitor = exchange.flight.stream, response.content, self._monitor
        check = exchange.check = ResponseCheck(response.status, headers, stream)
        exchange.flight.retry_after_s = check.retry_after_s
        if not check.accepted:
            await _read_refusal(content, check)
            if exchange.transport is not None and exchange.transport.get_write_buffer_size():
                exchange.transport.abort()  # closing would wait until the whole request is sent
            return check.failure
        while piece := await content.readany():
            at_us = self._scheduler.now_us()
            monitor.reads += 1
            before = stream.events
            done = stream.feed(at_us, piece)
            monitor.note_events(stream.events - before, at_us)
            if done:
                await _drain(content, grace_us(exchange.flight, at_us) * 1e-6)
                self._end(exchange, check.failure)
                await _drain(content, DRAIN_S)
                break
        return check.failure

    async def _note_sent(self, *_: Any) -> None:
        """Notes when the request is sent: before that it waited for a connection."""
        _current_exchange.get().flight.sent_us = self._scheduler.now_us()

    @staticmethod
    async def _note_reused(*_: Any) -> None:
        _current_exchange.get().reused = True

    async def _tick(self) -> None:
        """Notes the event loop's lag, and cuts the load off at the point's timeout."""
        scheduler, monitor = self._scheduler, self._monitor
        while True:
            due_us = scheduler.now_us() + int(TICK_S * 1e6)
            await asyncio.sleep(TICK_S)
            now_us = scheduler.now_us()
            monitor.begin_round(due_us, now_us)
            monitor.note_lag(now_us, max(now_us - due_us, 0))
            if scheduler.cut_off is None and now_us > scheduler.ends_us:
                scheduler.cut_off = "point_timeout"
            if scheduler.cut_off is not None:
                for task in list(self._tasks):
                    task.cancel()
            monitor.tick(now_us, scheduler)


async def _read_refusal(content: aiohttp.StreamReader, check: ResponseCheck) -> None:
    """Keeps the beginning of a refused response's body, for `DRAIN_S` at most; it may break off."""
    try:
        async with asyncio.timeout(DRAIN_S):
            while not check.has_enough and (piece := await content.readany()):
                check.keep(piece)
    except (TimeoutError, aiohttp.ClientError, OSError):
        return


async def _drain(content: aiohttp.StreamReader, seconds: float) -> None:
    """Reads up to the end, so that the connection can serve the next request; waits for some `seconds`."""
    if content.at_eof():
        return
    try:
        async with asyncio.timeout(seconds):
            while await content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError, OSError):
        return  # the stream was complete; only the connection is lost
