"""The connections of the fast transport: opened, polled, kept for the next request, closed."""

from __future__ import annotations

import select
import sys
import time
from typing import Any

from mtpbench.load.connection import Address, Connection

OPENING = 64
"""Connections that are being opened at once: a listening socket's backlog is short."""
OPENING_TIMEOUT_US = 10_000_000
MOST_READY = 8192
"""Connections that one poll may give: a step of a whole rack comes in a few rounds."""
READABLE, WRITABLE = select.POLLIN, select.POLLOUT
HUNG_UP = 0
_IN = READABLE
if sys.platform == "linux":
    # Edge-triggered: the kernel need not look at every connection again after each read. What a full buffer
    # or a closing server leaves unread is read again without being asked (`FastTransport._again`).
    _IN |= select.EPOLLET | select.EPOLLRDHUP
    HUNG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Switchboard:
    """Every connection to one address; `by_descriptor` has them all, `idle` those that wait for a request.

    Args:
        address: family and address of the server.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._poller: Any = select.epoll() if sys.platform == "linux" else select.poll()
        self.by_descriptor: dict[int, Connection] = {}
        self.idle: list[Connection] = []

    def open(self, connections: int) -> None:
        """Open so many connections beforehand; those that fail are tried again when needed."""
        deadline = time.perf_counter_ns() // 1000 + OPENING_TIMEOUT_US
        waiting, left = 0, connections
        while (left or waiting) and time.perf_counter_ns() // 1000 < deadline:
            while left and waiting < OPENING:
                left -= 1
                try:
                    self.connect()
                except OSError:
                    left = 0
                    break
                waiting += 1
            for descriptor, _ in self.poll(0.1):
                connection = self.by_descriptor[descriptor]
                if connection.connected:  # it closes, or talks before it was asked
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

    def connect(self) -> Connection:
        """Begin a new connection; a poll tells when it is there.

        Raises:
            OSError: it can't be begun.
        """
        connection = Connection(self._address)
        self.by_descriptor[connection.descriptor] = connection
        self._poller.register(connection.descriptor, WRITABLE)
        return connection

    def expect(self, connection: Connection, *, unsent: bool = False) -> None:
        """Be told when bytes come; with `unsent`, also when the socket takes more."""
        self._poller.modify(connection.descriptor, _IN | WRITABLE if unsent else _IN)

    def keep(self, connection: Connection) -> None:
        """Have a connection wait for the next request."""
        connection.waited = True
        self.idle.append(connection)

    def drop(self, connection: Connection) -> None:
        """Close a connection, wherever it is."""
        if self.by_descriptor.pop(connection.descriptor, None) is not None:
            self._poller.unregister(connection.descriptor)
        if connection in self.idle:
            self.idle.remove(connection)
        connection.close()

    def attach(self, descriptor: int) -> None:
        """Be told of a descriptor that is no connection."""
        self._poller.register(descriptor, READABLE)

    def detach(self, descriptor: int) -> None:
        """Not any more."""
        self._poller.unregister(descriptor)

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        """Descriptors and their events, after so long at most."""
        found: list[tuple[int, int]]
        if sys.platform == "linux":
            found = self._poller.poll(seconds, MOST_READY)
        else:
            found = self._poller.poll(int(seconds * 1000 + 0.999))
        return found

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self.by_descriptor.values()):
            connection.close()
        self.by_descriptor.clear()
        self.idle.clear()
