"""HTTP/1.1 for a worker's hot calls (completions, and what its router calls): one protocol object per
connection, no task per request.

aiohttp takes about 180 µs for a request, this about a tenth, which is what lets a burst of thousands in on
schedule. Whatever is not a hot call is handed, with its connection, to aiohttp.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from time import monotonic_ns
from typing import Protocol, cast

from mtpbench.simengine.openai import HEADERS, RequestError

_SLICE = 16
"""Requests handled in one turn of the event loop, about half a millisecond."""
_MAX_HEAD_BYTES = 2**16
_MARK = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items()).encode()
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\n%bContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n%b\r\n"
_HEAD = b"HTTP/1.1 %d %b\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
_CLOSE = b"Connection: close\r\n"
_STREAM_HEADS = {True: _STREAM_HEAD % (_MARK, b""), False: _STREAM_HEAD % (_MARK, _CLOSE)}


class Reply(Protocol):
    """A reply is what a connection is answering with."""

    def lost(self) -> None:
        """Ends the reply's work: the client has closed its connection."""


Handler = Callable[["Connection", bytes, int], None]
"""A handler gets the connection to answer on, the body, and when (CLOCK_MONOTONIC, ns) it was complete."""


class Intake:
    """The intake queues requests that were read from their connections and not yet handled.

    Requests are read in the turn of the event loop that finds their bytes, so that their stamps are true.
    They are handled in slices, so that steps of the engine are not late meanwhile.

    Args:
        handlers: the hot calls, by path; all are POST.
        others: makes the protocol for everything else.
        limit: bytes of the longest body.
    """

    def __init__(
        self, handlers: Mapping[bytes, Handler], others: Callable[[], asyncio.Protocol], limit: int
    ) -> None:
        self.handlers, self.others, self.limit = handlers, others, limit
        self.connections: set[Connection] = set()
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Connection, Handler, bytes, int]] = deque()
        self._draining = False

    def connect(self) -> Connection:
        """Returns the protocol of a new connection."""
        return Connection(self)

    def put(self, connection: Connection, handler: Handler, body: bytes, received_ns: int) -> None:
        """Queues a request."""
        self._waiting.append((connection, handler, body, received_ns))
        if not self._draining:
            self._draining = True
            self._loop.call_soon(self._drain)

    def close(self) -> None:
        """Aborts every connection."""
        for connection in list(self.connections):
            connection.abort()

    def _drain(self) -> None:
        waiting = self._waiting
        try:
            for _ in range(min(_SLICE, len(waiting))):
                connection, handler, body, received_ns = waiting.popleft()
                if not connection.closed:
                    handler(connection, body, received_ns)
        finally:
            self._draining = bool(waiting)
            if waiting:
                self._loop.call_soon(self._drain)


class Connection(asyncio.Protocol):
    """A connection of one client reads requests one after another, and writes answers straight to the socket.

    The transport of uvloop would keep the bytes until the end of the loop's turn, and time stamps taken now
    would be wrong by that time. Only what the socket does not take goes to the transport.
    """

    __slots__ = (
        "_behind",
        "_body",
        "_buffer",
        "_end",
        "_fd",
        "_handler",
        "_intake",
        "_keep",
        "_transport",
        "closed",
        "reply",
    )

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._transport: asyncio.Transport
        self._buffer: bytes | bytearray = b""
        self._handler: Handler | None = None
        self._body = self._end = self._fd = 0
        self._behind, self._keep = False, True
        self.closed = False
        """Whether the connection is closed, so that nothing can be sent."""
        self.reply: Reply | None = None
        """The reply under way; its `lost` is called when the client closes the connection."""

    # ------------------------------------------------------------------------------------ reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Stores the transport and the socket to write to."""
        self._transport = cast(asyncio.Transport, transport)
        self._fd = transport.get_extra_info("socket").fileno()
        self._intake.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the reply that the connection was answering with."""
        del exc
        self.closed = True
        self._intake.connections.discard(self)
        reply, self.reply = self.reply, None
        if reply is not None:
            reply.lost()

    def data_received(self, data: bytes) -> None:
        """Adds bytes to the request that is being read."""
        now_ns = monotonic_ns()
        if self._buffer:
            if isinstance(self._buffer, bytes):
                self._buffer = bytearray(self._buffer)
            self._buffer += data
        else:
            self._buffer = data
        if not self._busy:
            self._read(now_ns)

    @property
    def _busy(self) -> bool:
        return self._end < 0

    def _read(self, now_ns: int) -> None:
        buffer = self._buffer
        if not self._end and not self._read_head(buffer):
            return
        if len(buffer) < self._end or (handler := self._handler) is None:
            return
        body = bytes(buffer[self._body : self._end])
        self._buffer = buffer[self._end :]
        self._end = -1
        self._intake.put(self, handler, body, now_ns)

    def _read_head(self, buffer: bytes | bytearray) -> bool:
        """Returns whether the buffer begins with the head of a hot call, and sets `_body` and `_end`."""
        split = buffer.find(b"\r\n\r\n")
        if split < 0 and buffer.startswith(b"POST "[: len(buffer)]) and len(buffer) < _MAX_HEAD_BYTES:
            return False
        line, _, rest = bytes(buffer[: max(split, 0)]).partition(b"\r\n")
        request_line = line.split(b" ")
        is_post = len(request_line) == 3 and request_line[0] == b"POST"
        handler = self._intake.handlers.get(request_line[1]) if is_post else None
        if handler is None:
            self._hand_over(bytes(buffer))
            return False
        headers = b"\r\n" + rest.lower() + b"\r\n"
        length = _header(headers, b"content-length")
        self._keep = request_line[2] == b"HTTP/1.1" and _header(headers, b"connection") != b"close"
        if not length.isdigit() or int(length) > self._intake.limit:
            self._keep, self._end = False, -1
            status = 413 if length.isdigit() else 411
            self.fail(RequestError(status, "BadRequestError", "an acceptable Content-Length is needed"))
            return False
        self._handler, self._body = handler, split + 4
        self._end = self._body + int(length)
        if len(buffer) < self._end and _header(headers, b"expect") == b"100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _hand_over(self, data: bytes) -> None:
        other = self._intake.others()
        self._intake.connections.discard(self)
        self._buffer = b""
        self._transport.set_protocol(other)
        other.connection_made(self._transport)
        other.data_received(data)

    # ------------------------------------------------------------------------------------ answering

    def open_stream(self) -> bytes:
        """Returns the head of a streamed answer, to be sent with its first event."""
        return _STREAM_HEADS[self._keep]

    def send(self, data: bytes) -> None:
        """Writes bytes into the socket now."""
        if self.closed:
            return
        if self._behind:
            if self._transport.get_write_buffer_size():
                self._transport.write(data)
                return
            self._behind = False
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.abort()
            return
        if sent < len(data):
            self._behind = True
            self._transport.write(data[sent:])

    def respond(self, status: int, body: bytes) -> None:
        """Sends a whole JSON answer."""
        phrase = HTTPStatus(status).phrase.encode()
        close = b"" if self._keep else _CLOSE
        self.send(_HEAD % (status, phrase, _MARK, len(body), close) + body)
        self.finish()

    def fail(self, error: RequestError) -> None:
        """Sends an error in OpenAI's form."""
        self.respond(error.status, error.body)

    def finish(self) -> None:
        """Ends the answer, and reads the next request if its bytes are here already."""
        self.reply, self._handler, self._end = None, None, 0
        if not self._keep:
            self.hang_up()
        elif self._buffer:
            self._read(monotonic_ns())

    def hang_up(self) -> None:
        """Closes the connection once all written bytes are sent."""
        self.closed = True
        self._transport.close()

    def abort(self) -> None:
        """Closes the connection at once."""
        self.closed = True
        self._transport.abort()


def _header(headers: bytes, name: bytes) -> bytes:
    """Returns the value of a header in lower-case lines, empty where there is none."""
    _, separator, rest = headers.partition(b"\r\n" + name + b":")
    return rest[: rest.index(b"\r\n")].strip() if separator else b""
