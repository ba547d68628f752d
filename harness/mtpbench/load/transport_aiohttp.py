"""The other transport: aiohttp, for TLS, proxies and servers that the fast one does not understand.

The same scheduler, the same streams, the same records; stamps are taken in user space, right after each read.
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
from mtpbench.load.response import MAX_HEAD_BYTES, ResponseCheck
from mtpbench.load.transport import CUT_OFF, DRAIN_S, Failure, Flight, TransportOptions, authorization

READ_BUFFER_BYTES = 1 << 20
TICK_S = 0.01


class _Way:
    """One attempt at a request: what is known of it, for whoever has to end it."""

    __slots__ = ("answered", "check", "flight", "reused", "transport")

    def __init__(self, flight: Flight) -> None:
        self.flight = flight
        self.reused = self.answered = False
        self.check: ResponseCheck | None = None
        self.transport: asyncio.Transport | None = None

    def why(self, failure: Failure) -> Failure | None:
        """Why the request ends now that this has happened: what its answer said goes first."""
        if self.flight.stream.done:
            return None
        return (self.check and self.check.failure) or failure


_on_the_way: ContextVar[_Way] = ContextVar("_on_the_way")
"""The attempt that the current task makes."""


class _Connector(aiohttp.TCPConnector):
    """Tells each attempt its connection: one whose request did not go out whole can only be aborted."""

    async def connect(self, *arguments: Any, **named: Any) -> Any:
        connection = await super().connect(*arguments, **named)
        _on_the_way.get().transport = connection.transport
        return connection


class AiohttpTransport:
    """Drives one process's share of a load through one aiohttp session, on an event loop of its own."""

    def __init__(self, options: TransportOptions) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._scheduler, self._watch, self._path = options.scheduler, options.watch, options.path
        self._control, self._hear = options.control, options.hear
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._freed: asyncio.Event
        self._fault: BaseException | None = None

    def open(self, connections: int) -> None:
        """See `Transport.open`; connections are made when they are needed."""
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
        if self._control is not None and self._hear is not None:
            loop.add_reader(self._control, self._heard)
        ticking = loop.create_task(self._tick())
        try:
            while not scheduler.over:
                while (flight := scheduler.next()) is not None:
                    task = loop.create_task(self._fly(flight))
                    self._tasks.add(task)
                    task.add_done_callback(partial(self._landed, flight))
                await self._sleep()
                self._raise_faults(ticking)
                if self._fault is not None:
                    raise self._fault
        finally:
            ticking.cancel()
            if self._control is not None:
                loop.remove_reader(self._control)
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(ticking, *self._tasks, return_exceptions=True)

    def _heard(self) -> None:
        assert self._control is not None
        assert self._hear is not None
        asyncio.get_running_loop().remove_reader(self._control)
        self._hear()

    def _landed(self, flight: Flight, task: asyncio.Task[None]) -> None:
        """A task has ended; one that was cancelled before it began has recorded nothing."""
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
        """Until a slot is free or something is due."""
        due_ns = self._scheduler.next_due_ns()
        left_s = TICK_S if due_ns is None else min((due_ns - time.perf_counter_ns()) * 1e-9, TICK_S)
        self._freed.clear()
        try:
            async with asyncio.timeout(max(left_s, 0.0)):
                await self._freed.wait()
        except TimeoutError:
            return

    async def _fly(self, flight: Flight) -> None:
        scheduler = self._scheduler
        way = _Way(flight)
        failure: Failure | None
        try:
            async with asyncio.timeout(scheduler.timeout_us * 1e-6):
                failure = await self._stream(way)
        except TimeoutError:
            failure = self._give_up(way, ("timeout", scheduler.timeout_detail))
        except asyncio.CancelledError:
            failure = self._give_up(way, (CUT_OFF, scheduler.cut_off or "stopped"))
        scheduler.end(flight, None if flight.stream.done else failure)
        self._freed.set()

    @staticmethod
    def _give_up(way: _Way, failure: Failure) -> Failure | None:
        """Leave a request; closing its connection would wait until the server has read the rest of it."""
        if way.transport is not None:
            way.transport.abort()
        return way.why(failure)

    async def _stream(self, way: _Way) -> Failure | None:
        body = b"".join(self._scheduler.pieces(way.flight))
        _on_the_way.set(way)
        while True:
            way.reused = way.answered = False
            failure = await self._try(way, body)
            if failure is None or failure[0] != "disconnected" or way.answered or not way.reused:
                return failure
            self._scheduler.retried += 1  # a kept connection was closed before it took the request

    async def _try(self, way: _Way, body: bytes) -> Failure | None:
        assert self._session is not None
        url = self._scheduler.spec.base_url.rstrip("/") + self._path
        try:
            async with self._session.post(url, data=BytesIO(body), allow_redirects=False) as response:
                way.answered = True
                return await self._read(response, way)
        except aiohttp.ClientConnectorError as error:
            return "client_limit" if error.errno in LIMITS else "connect_failed", str(error)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError) as error:
            way.answered |= not isinstance(getattr(error, "message", ""), str)
            return "disconnected", str(error) or type(error).__name__
        except OSError as error:
            code = "client_limit" if error.errno in LIMITS else "disconnected"
            return code, str(error) or type(error).__name__
        except (aiohttp.ClientError, ValueError) as error:
            return "bad_response", f"{type(error).__name__}: {error}"

    async def _read(self, response: aiohttp.ClientResponse, way: _Way) -> Failure | None:
        headers = {name.lower(): value for name, value in response.headers.items()}
        stream, content, watch = way.flight.stream, response.content, self._watch
        check = way.check = ResponseCheck(response.status, headers, stream)
        if not check.wanted:
            await _hear(content, check)
            if way.transport is not None and way.transport.get_write_buffer_size():
                way.transport.abort()  # refused before it had gone out: closing would wait until it has
            return check.failure
        while piece := await content.readany():
            at_us = self._scheduler.now_us()
            watch.reads += 1
            before = stream.events
            done = stream.feed(at_us, piece)
            watch.note_events(stream.events - before, at_us)
            if done:
                await _drain(content)
                break
        return check.failure

    async def _note_sent(self, *_: Any) -> None:
        """The request leaves: what came before was waiting for a connection."""
        _on_the_way.get().flight.sent_us = self._scheduler.now_us()

    @staticmethod
    async def _note_reused(*_: Any) -> None:
        _on_the_way.get().reused = True

    async def _tick(self) -> None:
        """The event loop's lag, and the point's timeout."""
        scheduler, watch = self._scheduler, self._watch
        while True:
            due_us = scheduler.now_us() + int(TICK_S * 1e6)
            await asyncio.sleep(TICK_S)
            now_us = scheduler.now_us()
            watch.begin_round(due_us, now_us)
            watch.note_lag(now_us, max(now_us - due_us, 0))
            if scheduler.cut_off is None and now_us > scheduler.ends_us:
                scheduler.cut_off = "point_timeout"
            if scheduler.cut_off is not None:
                for task in list(self._tasks):
                    task.cancel()
            watch.tick(now_us, scheduler)


async def _hear(content: aiohttp.StreamReader, check: ResponseCheck) -> None:
    """Keep what an unwanted answer says, also where it breaks off or does not end; not for long."""
    try:
        async with asyncio.timeout(DRAIN_S):
            while not check.heard_enough and (piece := await content.readany()):
                check.hear(piece)
    except (TimeoutError, aiohttp.ClientError, OSError):
        return


async def _drain(content: aiohttp.StreamReader) -> None:
    """Read up to the end, so that the connection can serve the next request; not for long."""
    if content.at_eof():
        return
    try:
        async with asyncio.timeout(DRAIN_S):
            while await content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError, OSError):
        return  # the answer was whole; only the connection is lost
