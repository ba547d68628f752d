"""Where a request's events go: one HTTP stream, one whole answer, or the end of a prefill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic_ns

from mtpbench.records import Fault
from mtpbench.simengine.connection import Connection
from mtpbench.simengine.openai import EventWriter

Note = Callable[[int, int, int, int, bool], None]


class Whole:
    """Sends one JSON answer at the last token (or the end of a prefill), and nothing before.

    Args:
        connection: where to answer.
        body: makes the answer.
        leave: called with `key` when the client is gone.
    """

    __slots__ = ("_body", "_connection", "_leave", "key")

    def __init__(
        self, connection: Connection, body: Callable[[], bytes], leave: Callable[[int], None]
    ) -> None:
        self._connection, self._body, self._leave = connection, body, leave
        self.key = -1

    def tokens(self, cumulative: int, *, last: bool) -> None:
        """Answers at the end."""
        del cumulative
        if last:
            self._connection.respond(200, self._body())

    def prefilled(self) -> None:
        """Answers."""
        self.tokens(0, last=True)

    def lost(self) -> None:
        """The client is gone."""
        self._leave(self.key)


class EventStream:
    """Sends each event into the connection at once, and notes when.

    Args:
        connection: where to send.
        writer: makes the events.
        leave: called with `key` when the client is gone.
        note: told at the end of the stream: when its first and last token event were sent, its tokens and
            chunks, and whether it is whole.
    """

    __slots__ = (
        "_chunks",
        "_connection",
        "_first_ns",
        "_last_ns",
        "_leave",
        "_note",
        "_sent",
        "_writer",
        "key",
    )

    def __init__(
        self, connection: Connection, writer: EventWriter, leave: Callable[[int], None], note: Note
    ) -> None:
        self._connection, self._writer, self._leave, self._note = connection, writer, leave, note
        self.key = -1
        self._first_ns = self._last_ns = self._chunks = self._sent = 0

    def tokens(self, cumulative: int, *, last: bool) -> None:
        """Sends the event."""
        self._send(self._writer.tokens(cumulative, last=last), cumulative, last)

    def prefilled(self) -> None:
        """Never called: a prefill is not streamed."""

    def lost(self) -> None:
        """The client is gone."""
        self._leave(self.key)
        self._note(self._first_ns, self._last_ns, self._sent, self._chunks, False)

    def _send(self, data: bytes, cumulative: int, last: bool) -> None:
        connection = self._connection
        if connection.gone:
            return
        framed = b"%x\r\n%b\r\n" % (len(data), data)
        if last:
            framed += b"0\r\n\r\n"
        now_ns = monotonic_ns()  # before the bytes go, so that no client can have them earlier
        connection.send(framed if self._chunks else connection.open_stream() + framed)
        if connection.gone:
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
    """A stream with which something goes wrong.

    Args:
        faults: what, by kind.
        speed: engine seconds per real second.
    """

    __slots__ = ("_events", "_faults", "_held", "_speed", "_stalled")

    def __init__(
        self,
        connection: Connection,
        writer: EventWriter,
        leave: Callable[[int], None],
        note: Note,
        faults: Mapping[str, Fault],
        speed: float,
    ) -> None:
        super().__init__(connection, writer, leave, note)
        self._faults, self._speed = faults, speed
        self._held: list[tuple[bytes, int, bool]] = []
        self._stalled = False
        self._events = 0

    def tokens(self, cumulative: int, *, last: bool) -> None:
        """Sends the event, or keeps it until a stall is over."""
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
