"""Where a request's events go: one HTTP stream, one whole answer, or the end of a prefill."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

from mtpbench.records import Fault
from mtpbench.simengine.openai import EventWriter


class Whole:
    """Waits for the last token (or the end of a prefill) and sends nothing before."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tokens(self, cumulative: int, *, last: bool) -> None:
        """Notes the end."""
        del cumulative
        if last and not self.ended.done():
            self.ended.set_result(None)

    def prefilled(self) -> None:
        """Notes the end."""
        self.tokens(0, last=True)


class EventStream(Whole):
    """Writes each event into the connection at once, without waking the request's coroutine.

    The first event goes through aiohttp (it carries the headers); later ones are framed here.

    Args:
        request: whose connection it is.
        writer: makes the events.
        faults: what is to go wrong, by kind.
        speed: engine seconds per real second.
    """

    def __init__(
        self, request: web.Request, writer: EventWriter, faults: Mapping[str, Fault], speed: float
    ) -> None:
        super().__init__()
        self._request, self._writer, self._faults, self._speed = request, writer, faults, speed
        self._started = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._pending: list[bytes] = []
        self._stalled = self._complete = False
        self._events = 0

    def tokens(self, cumulative: int, *, last: bool) -> None:
        """Sends the event, or keeps it until the headers are out or a stall is over."""
        data = self._writer.tokens(cumulative, last=last)
        self._events += 1
        self._complete = last
        if self._faults:
            data = self._spoil(data)
        self._pending.append(data)
        if not self._started.done():
            self._started.set_result(None)
        if self._transport is not None:
            self._flush()
        if self._faults:
            self._strike()

    async def serve(self, response: web.StreamResponse) -> None:
        """Send all events, from the headers to the end of the body."""
        await response.prepare(self._request)
        await self._started
        await response.write(self._pending.pop(0))
        self._transport = self._request.transport
        self._flush()
        await self.ended
        await response.write_eof()

    def _flush(self) -> None:
        if self._stalled or self._transport is None:
            return
        if not self._transport.is_closing():
            for data in self._pending:
                self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        self._pending.clear()
        if self._complete and not self.ended.done():
            self.ended.set_result(None)

    def _spoil(self, data: bytes) -> bytes:
        if "malformed_event" in self._faults and self._events == 2:
            event, _, rest = data.partition(b"\n\n")
            return event[: len(event) // 2] + b"\n\n" + rest
        return data

    def _strike(self) -> None:
        loop = asyncio.get_running_loop()
        fault = self._faults.get("disconnect_mid_stream")
        if fault and self._events >= (fault.value or 1):
            loop.call_soon(self._hang_up)
        if (fault := self._faults.get("stall")) and self._events == 1:
            self._stalled = True
            loop.call_later((60.0 if fault.value is None else fault.value) / self._speed, self._resume)

    def _hang_up(self) -> None:
        if self._request.transport is not None:
            self._request.transport.close()

    def _resume(self) -> None:
        self._stalled = False
        self._flush()
