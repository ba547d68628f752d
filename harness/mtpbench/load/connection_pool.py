"""The connections of the epoll transport: one request and its response on each, and the pool of them all."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from mtpbench.errors import RunError
from mtpbench.load.clocks import stamp_receives
from mtpbench.load.http1 import HEAD, SIZE, BadResponse, Response
from mtpbench.load.transport import DRAIN_S, Failure, Flight, ResponseCheck, grace_us
from mtpbench.workload import Piece

CHOICE_TIMEOUT_S = 2.0


def render_head(base_url: str, path: str, key: str | None, keeps: bool) -> bytes:
    """Returns the bytes of a request's head up to the number of its content-length."""
    url = urlsplit(base_url)
    lines = [
        f"POST {url.path.rstrip('/')}{path} HTTP/1.1",
        f"Host: {url.netloc.rpartition('@')[2]}",
        "User-Agent: mtpbench",
        "Content-Type: application/json",
        "Accept: text/event-stream",
        "Accept-Encoding: identity",
    ]
    if key is not None:
        lines.append(f"Authorization: {key}")
    if not keeps:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "Content-Length: "]).encode("latin-1")


def choose_address(addresses: list[Address]) -> Address:
    """Returns the first address that takes a connection; the first of all if none does."""
    for family, address in addresses if len(addresses) > 1 else ():
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(CHOICE_TIMEOUT_S)
            try:
                connection.connect(address)
            except OSError:
                continue
            return family, address
    return addresses[0]


def resolve(base_url: str) -> list[Address]:
    """Returns the addresses of a server's host.

    Raises:
        RunError: the host has no address.
    """
    url = urlsplit(base_url)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        addresses = socket.getaddrinfo(url.hostname or "", port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RunError(
            f"the host {url.hostname!r} of {url.scheme}://{url.netloc.rpartition('@')[2]} has no address "
            f"({error.strerror or error}): check the name, or give its IP address"
        ) from error
    return [(family, address) for family, _, _, _, address in addresses]


LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
"""Errors that show a limit of this machine, not of the server."""
Address = tuple[socket.AddressFamily, tuple[object, ...]]


class ClientConnection:
    """A non-blocking connection to the server carries at most one request at a time.

    Args:
        address: family and address of the server.

    Raises:
        OSError: the connection can't be begun.
    """

    __slots__ = (
        "_socket",
        "check",
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
        "waited",
    )

    def __init__(self, address: Address) -> None:
        family, socket_address = address
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
        self.check: ResponseCheck | None = None
        self.unsent: list[Piece] = []
        error = self._socket.connect_ex(socket_address)
        if error not in (0, errno.EINPROGRESS):
            self._socket.close()
            raise OSError(error, os.strerror(error))

    def finish_connecting(self) -> None:
        """Completes the attempt to connect.

        Raises:
            OSError: the attempt failed.
        """
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        self.connected = self.reading = True

    def send(self, pieces: Sequence[Piece]) -> bool:
        """Sends a request's bytes; returns False if some must wait until the socket takes more.

        Raises:
            OSError: the connection is broken.
        """
        self.unsent = list(pieces)
        return self.send_more()

    def send_more(self) -> bool:
        """Sends what is unsent; returns whether nothing is unsent any more."""
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
        """Prepares the connection for a new request and its response."""
        self.flight, self.take = flight, flight.stream.take
        self.response = Response()
        self.check = None
        self.plain = False

    def receive(self, at_us: int, data: bytes) -> bool:
        """Takes the bytes of a read; returns True once the request on this connection has ended.

        Raises:
            BadResponse: the bytes are no HTTP response; the body's pieces before them have been taken.
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
        check, stream = self._take(flight, at_us, pieces), flight.stream
        if not check.accepted:
            return response.ended or check.has_enough
        self.plain = response.state == SIZE and stream.at_event and response.at_boundary
        return response.ended

    def _take(self, flight: Flight, at_us: int, pieces: Sequence[bytes]) -> ResponseCheck:
        """Checks the response's head once, and takes pieces of its body."""
        check, stream = self.check, flight.stream
        if check is None:
            fields = self.response.headers.items()
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields}
            check = self.check = ResponseCheck(self.response.status, headers, stream)
            flight.retry_after_s = check.retry_after_s
        for piece in pieces:
            if not check.accepted:
                check.keep(piece)
            elif not stream.done:
                stream.feed(at_us, piece)
        return check

    def failure(self) -> Failure | None:
        """Returns why the response is not an event stream, as far as it has come; None if it is."""
        return self.check.failure if self.check is not None else None

    def failure_after(self, failure: Failure) -> Failure | None:
        """Returns the failure of the request whose connection failed so; None if its stream is complete.

        What the response itself shows goes before what happened to the connection.
        """
        if self.flight is not None and self.flight.stream.done:
            return None
        return self.failure() or failure

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent on this connection after the response that has ended."""
        return self.response.ended and self.response.keeps_alive and not self.unsent

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


def connect_failure(error: OSError) -> Failure:
    """Returns the failure of a request whose connection could not be opened."""
    code = "client_limit" if error.errno in LIMITS else "connect_failed"
    return code, error.strerror or str(error)


DRAIN_US = int(DRAIN_S * 1e6)
NEVER_US = 1 << 62


class Draining:
    """Connections are draining when the last event of their response has come, but not yet its end.

    `next_us` is when the next of them has been waited for long enough, or earlier.
    """

    def __init__(self) -> None:
        self._until_us: dict[ClientConnection, int] = {}
        self.next_us = NEVER_US

    def add(self, connection: ClientConnection, at_us: int) -> None:
        """Adds a connection whose last event, or refusal, came at `at_us`."""
        flight = connection.flight
        if flight is not None and connection not in self._until_us:
            until_us = at_us + (grace_us(flight, at_us) if flight.stream.done else DRAIN_US)
            self._until_us[connection] = until_us
            self.next_us = min(self.next_us, until_us)

    def remove(self, connection: ClientConnection) -> None:
        """Forgets a connection."""
        self._until_us.pop(connection, None)

    def late(self, now_us: int) -> list[ClientConnection]:
        """Returns the connections that were waited for long enough, and forgets them."""
        late = [connection for connection, until_us in self._until_us.items() if now_us >= until_us]
        for connection in late:
            del self._until_us[connection]
        self.next_us = min(self._until_us.values(), default=NEVER_US)
        return late


OPENING = 64
"""Connections that are opened at the same time at most: a listening socket's backlog is short."""
OPENING_TIMEOUT_US = 10_000_000
MOST_READY = 8192
"""Connections that one poll returns at most: a step of a whole rack comes in a few rounds."""
READABLE, WRITABLE = select.POLLIN, select.POLLOUT
HUNG_UP = 0
_IN = READABLE
if sys.platform == "linux":
    # Edge-triggered: the kernel need not look at every connection again after each read. A connection that
    # may still hold bytes (a full buffer, a closing server) is read again (`EpollTransport._reread`).
    _IN |= select.EPOLLET | select.EPOLLRDHUP
    HUNG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class ConnectionPool:
    """The pool holds every connection to one address: `by_descriptor` all, `idle` those without a request.

    Args:
        address: family and address of the server.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._poller: Any = select.epoll() if sys.platform == "linux" else select.poll()
        self.by_descriptor: dict[int, ClientConnection] = {}
        self.idle: list[ClientConnection] = []
        self.lingering: dict[ClientConnection, int] = {}
        """Those whose request has ended, but not yet the response, with when they are given up."""

    def open(self, connections: int) -> None:
        """Opens connections beforehand; one that fails is tried again when a request needs it."""
        deadline = time.perf_counter_ns() // 1000 + OPENING_TIMEOUT_US
        waiting, unopened = 0, connections
        while (unopened or waiting) and time.perf_counter_ns() // 1000 < deadline:
            while unopened and waiting < OPENING:
                unopened -= 1
                try:
                    self.connect()
                except OSError:
                    unopened = 0
                    break
                waiting += 1
            for descriptor, _ in self.poll(0.1):
                connection = self.by_descriptor[descriptor]
                if connection.connected:  # the server closes it, or sends bytes without a request
                    self.drop(connection)
                    continue
                waiting -= 1
                try:
                    connection.finish_connecting()
                except OSError:
                    self.drop(connection)
                    continue
                self.expect(connection)
                self.keep(connection)
        for connection in [c for c in self.by_descriptor.values() if not c.connected]:
            self.drop(connection)

    def connect(self) -> ClientConnection:
        """Begins a new connection; a poll returns it when the attempt has ended.

        Raises:
            OSError: the connection can't be begun.
        """
        connection = ClientConnection(self._address)
        self.by_descriptor[connection.descriptor] = connection
        self._poller.register(connection.descriptor, WRITABLE)
        return connection

    def expect(self, connection: ClientConnection, *, unsent: bool = False) -> None:
        """Lets a poll return the connection when bytes come; if `unsent`, also when the socket takes more."""
        self._poller.modify(connection.descriptor, _IN | WRITABLE if unsent else _IN)

    def keep(self, connection: ClientConnection) -> None:
        """Keeps a connection for the next request."""
        connection.waited = True
        self.idle.append(connection)

    def take_rest(self, connection: ClientConnection, data: bytes) -> bool:
        """Takes what follows the last event of an answer; returns False if the connection is of no use."""
        if not data or connection not in self.lingering:
            return False
        try:
            connection.response.feed(data)
        except BadResponse:
            return False
        if connection.response.ended:
            del self.lingering[connection]
            if not connection.reusable:
                return False
            self.keep(connection)
        return True

    def drop_late(self, now_us: int) -> None:
        """Drops the connections whose response did not end in time."""
        for connection in [one for one, until_us in self.lingering.items() if now_us > until_us]:
            self.drop(connection)

    def drop(self, connection: ClientConnection) -> None:
        """Closes a connection and forgets it."""
        self.lingering.pop(connection, None)
        if self.by_descriptor.pop(connection.descriptor, None) is not None:
            self._poller.unregister(connection.descriptor)
        if connection in self.idle:
            self.idle.remove(connection)
        connection.close()

    def attach(self, descriptor: int) -> None:
        """Lets a poll return a descriptor that is no connection when it is readable."""
        self._poller.register(descriptor, READABLE)

    def detach(self, descriptor: int) -> None:
        """Undoes `attach`."""
        self._poller.unregister(descriptor)

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        """Returns the ready descriptors and their events; waits for some `seconds` at most."""
        ready: list[tuple[int, int]]
        if sys.platform == "linux":
            ready = self._poller.poll(seconds, MOST_READY)
        else:
            ready = self._poller.poll(int(seconds * 1000 + 0.999))
        return ready

    def close(self) -> None:
        """Closes every connection."""
        for connection in list(self.by_descriptor.values()):
            connection.close()
        self.by_descriptor.clear()
        self.idle.clear()
