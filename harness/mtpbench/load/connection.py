"""One connection of the fast transport: a socket, the request that goes out, the response that comes in."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence

from mtpbench.load.conductor import Failure, Flight
from mtpbench.load.http1 import HEAD, SIZE, BadResponse, Response
from mtpbench.load.stamps import stamp_receives
from mtpbench.load.verdict import Verdict
from mtpbench.workload import Piece

LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
"""Errors that say that this machine, not the server, is at its end."""
Address = tuple[socket.AddressFamily, tuple[object, ...]]


class Connection:
    """A non-blocking connection to the server; at most one request at a time is on it.

    Args:
        address: family and address of the server.

    Raises:
        OSError: no connection can be begun.
    """

    __slots__ = (
        "_socket",
        "connected",
        "descriptor",
        "flight",
        "plain",
        "reading",
        "recvmsg",
        "response",
        "stamped",
        "take",
        "unsent",
        "verdict",
        "waited",
    )

    def __init__(self, address: Address) -> None:
        family, where = address
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self.stamped = stamp_receives(self._socket)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.descriptor = self._socket.fileno()
        self.recvmsg = self._socket.recvmsg
        self.connected = self.reading = self.waited = self.plain = False
        self.flight: Flight | None = None
        self.take: Callable[[int, bytes], bool]
        self.response = Response()
        self.verdict: Verdict | None = None
        self.unsent: list[Piece] = []
        error = self._socket.connect_ex(where)
        if error not in (0, errno.EINPROGRESS):
            self._socket.close()
            raise OSError(error, os.strerror(error))

    def finish_connecting(self) -> None:
        """Take the outcome of the attempt to connect.

        Raises:
            OSError: it failed.
        """
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        self.connected = self.reading = True

    def send(self, pieces: Sequence[Piece]) -> bool:
        """Send a request's bytes; False where some are left for when the socket takes more.

        Raises:
            OSError: the connection is broken.
        """
        self.unsent = list(pieces)
        return self.send_more()

    def send_more(self) -> bool:
        """Send what is left; whether nothing is."""
        while self.unsent:
            try:
                sent = self._socket.sendmsg(self.unsent)
            except BlockingIOError:
                self.reading = False
                return False
            while self.unsent and sent >= len(self.unsent[0]):
                sent -= len(self.unsent[0])
                del self.unsent[0]
            if sent:
                self.unsent[0] = memoryview(self.unsent[0])[sent:]
        self.reading = True
        return True

    def begin(self, flight: Flight) -> None:
        """Get ready for the response to a new request."""
        self.flight, self.take = flight, flight.stream.take
        self.response = Response()
        self.verdict = None
        self.plain = False

    def receive(self, at_us: int, data: bytes) -> bool:
        """Take what was read; True once the request on this connection is over.

        Raises:
            BadResponse: the bytes are no HTTP response; what came before them has been taken.
        """
        flight, response = self.flight, self.response
        assert flight is not None
        try:
            pieces = response.feed(data)
        except BadResponse as fault:
            if response.state != HEAD:
                self._take(flight, at_us, fault.pieces)
            raise
        if not response.status:
            return False
        verdict, stream = self._take(flight, at_us, pieces), flight.stream
        if not verdict.wanted:
            return response.ended or verdict.heard_enough
        self.plain = response.state == SIZE and stream.at_event and response.at_boundary
        return response.ended

    def _take(self, flight: Flight, at_us: int, pieces: Sequence[bytes]) -> Verdict:
        """Judge the response unless that is done, and take pieces of its body."""
        verdict, stream = self.verdict, flight.stream
        if verdict is None:
            told = self.response.headers.items()
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in told}
            verdict = self.verdict = Verdict(self.response.status, headers, stream)
        for piece in pieces:
            if not verdict.wanted:
                verdict.hear(piece)
            elif not stream.done:
                stream.feed(at_us, piece)
        return verdict

    def failure(self) -> Failure | None:
        """Why the response is not the wanted one, as far as it has come, or None."""
        return self.verdict.failure if self.verdict is not None else None

    @property
    def reusable(self) -> bool:
        """Whether another request may go out on this connection after the response that has ended."""
        return self.response.ended and self.response.keeps_alive and not self.unsent

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def connect_failure(error: OSError) -> Failure:
    """A connection that could not be made, as a request's failure."""
    code = "client_limit" if error.errno in LIMITS else "connect_failed"
    return code, error.strerror or str(error)
