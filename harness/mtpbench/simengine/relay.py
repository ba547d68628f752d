"""One request on its way through the router: bytes passed on, and when."""

from __future__ import annotations

import asyncio
from time import monotonic_ns

from mtpbench.simengine.connection import Connection
from mtpbench.simengine.openai import Ask, RequestError
from mtpbench.simengine.streams import Note

_TOKEN_EVENT = b'"choices":[{'
"""In every event with tokens, and in a chat's role event; not in the one with the usage only."""


class Relay:
    """The client's side of a request that a worker answers.

    Args:
        connection: the client's.
        ask: what it asked for.
        note: told at the end of a stream: when its first and last token event were sent, its tokens (-1 where
            the stream broke off, as they are not counted here) and chunks, and whether it is whole.
    """

    def __init__(self, connection: Connection, ask: Ask, note: Note) -> None:
        self._connection, self.ask, self._note = connection, ask, note
        self.task: asyncio.Task[None]
        self.opened = False
        """Whether anything was sent."""
        self._tail = b""
        self._seen = 0
        self._first_ns = self._last_ns = 0

    def lost(self) -> None:
        """The client is gone: so is what is done for it."""
        self.task.cancel()
        self._end(complete=False)

    def pass_on(self, data: bytes) -> None:
        """Send what came from the worker."""
        connection, framed = self._connection, b"%x\r\n%b\r\n" % (len(data), data)
        now_ns = monotonic_ns()  # before the bytes go, so that no client can have them earlier
        connection.send(framed if self.opened else connection.open_stream() + framed)
        self.opened = True
        text = self._tail + data
        self._tail = text[1 - len(_TOKEN_EVENT) :]
        if found := text.count(_TOKEN_EVENT):
            self._seen += found
            if self._chunks and not connection.gone:
                self._last_ns = now_ns
                self._first_ns = self._first_ns or now_ns

    def answer(self, status: int, body: bytes) -> None:
        """Send a whole answer."""
        self._connection.respond(status, body)

    def break_off(self, error: RequestError, *, hang_up: bool) -> None:
        """Tell the client that its worker died: an error event and [DONE], as vLLM does in mid-stream.

        Args:
            error: what to say.
            hang_up: say nothing and close the connection, as the worker was told to (a fault).
        """
        if hang_up:
            self._connection.hang_up()
        elif not self.opened:
            self._connection.fail(error)
        else:
            self.pass_on(b"data: " + error.body + b"\n\ndata: [DONE]\n\n")
            self.close(complete=False)

    def close(self, *, complete: bool) -> None:
        """End the stream."""
        connection = self._connection
        connection.send((b"" if self.opened else connection.open_stream()) + b"0\r\n\r\n")
        if not connection.gone:
            self._end(complete=complete)
            connection.finish()

    def _end(self, *, complete: bool) -> None:
        if self.ask.stream:
            tokens = self.ask.max_tokens if complete else -1 if self._chunks else 0
            self._note(self._first_ns, self._last_ns, tokens, self._chunks, complete)

    @property
    def _chunks(self) -> int:
        return max(0, self._seen - self.ask.chat)
