"""The fast transport: HTTP/1.1 and server-sent events of our own on plain sockets, stamped by the kernel.

One process, one loop over epoll, no coroutines: at 100,000 events a second every call counts. The loop's
inner part knows the commonest read (one chunk that holds one whole event), and hands on all else.
"""

from __future__ import annotations

import time

from mtpbench.load.clocks import CONTROL_BYTES, Timer, WallClock, unpack_timespec
from mtpbench.load.connection_pool import (
    HUNG_UP,
    READABLE,
    ClientConnection,
    ConnectionPool,
    choose,
    connect_failure,
    render_head,
    resolve,
)
from mtpbench.load.response import END, READ_BYTES, STARTS, BadResponse, take_chunks
from mtpbench.load.transport import CUT_OFF, DRAIN_S, Failure, Flight, TransportOptions, authorization

TICK_US = 50_000
DRAIN_US = int(DRAIN_S * 1e6)
SPIN_NS = 60_000
"""A moment nearer than this is waited for without sleeping."""
BETWEEN_SENDS = 7
"""Of a read's number: with none of these bits set, what is due is sent before the next read."""


class EpollTransport:
    """Drives one process's share of a load over plain HTTP/1.1.

    Raises:
        RunError: the server's host has no address.
    """

    def __init__(self, options: TransportOptions) -> None:
        scheduler = options.scheduler
        spec = scheduler.spec
        self._scheduler, self._watch = scheduler, options.watch
        self._control, self._hear = options.control, options.hear
        self.connections = ConnectionPool(choose(resolve(spec.base_url)))
        self._head = render_head(spec.base_url, options.path, authorization(spec), spec.keeps_connections)
        self._keeps = spec.keeps_connections
        self._handicap_s = spec.handicap_s
        self._draining: dict[ClientConnection, int] = {}
        self._again: dict[int, int] = {}
        self._timer = Timer()
        self._due_ns: int | None = None
        self._last_tick_us = 0
        self._starting = False
        self._taken = 0
        """Events of the current read that the quick way has taken."""

    def open(self, connections: int) -> None:
        """See `Transport.open`; connections that fail are tried again when needed."""
        self.connections.open(connections)
        idle = self.connections.idle
        self._watch.stamps = "kernel" if idle and all(c.stamped for c in idle) else "user"

    def run(self) -> None:
        """See `Transport.run`."""
        scheduler = self._scheduler
        wall = WallClock(scheduler.origin_ns)
        for descriptor in (self._control, self._timer.descriptor):
            if descriptor is not None:
                self.connections.attach(descriptor)
        self._start_due()
        while not scheduler.over:
            patience_s, asked_us = self._patience_s(), scheduler.now_us()
            ready = self.connections.poll(0.0 if self._again else patience_s)
            if self._again:
                ready = list({**self._again, **dict(ready)}.items())
                self._again = {}
            self._watch.begin_round(asked_us, scheduler.now_us())
            self._round(ready, wall.zero_ns)
            if self._handicap_s:
                time.sleep(self._handicap_s)
            if scheduler.next_due_ns() is not None:
                self._start_due()
            now_us = scheduler.now_us()
            if now_us - self._last_tick_us >= TICK_US:
                self._last_tick_us = now_us
                wall.follow()
                self._tick(now_us)
        self._watch.clock_drift_us, self._watch.clock_step_us = wall.drift_us, wall.largest_step_us

    def _round(self, ready: list[tuple[int, int]], zero_ns: int) -> None:
        """Read from every connection that has something.

        Args:
            ready: descriptors and their events.
            zero_ns: the wall clock's reading at the run's second 0.
        """
        connection_of, watch, clock = self.connections.by_descriptor.get, self._watch, time.perf_counter_ns
        starts, unpack, size = STARTS, unpack_timespec, READ_BYTES
        origin_ns, every, between = self._scheduler.origin_ns, watch.every, BETWEEN_SENDS
        reads = watch.reads
        for descriptor, events in ready:
            if not reads & between and self._due_ns is not None and clock() >= self._due_ns:
                self._start_due()  # a step's burst must not make requests late
            connection = connection_of(descriptor)
            if connection is None or not connection.reading:
                self._attend(descriptor, connection)
                # An answer may come before all of the request has gone out.
                if connection is None or connection_of(descriptor) is not connection or not events & READABLE:
                    continue
            try:
                data, control, _, _ = connection.recvmsg(size, CONTROL_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                self._broken(connection, error)
                continue
            if control:
                seconds, nanoseconds = unpack(control[0][2])
                at_us = (seconds * 1_000_000_000 + nanoseconds - zero_ns) // 1000
            else:
                at_us = (clock() - origin_ns) // 1000
            if events & HUNG_UP or len(data) == size:
                self._again[descriptor] = events
            reads += 1
            if not reads & every:
                watch.note_lag(at_us, (clock() - origin_ns) // 1000 - at_us)
            if connection.plain and data:
                # The commonest read: one HTTP chunk that is one whole event of one line. Whether the chunk's
                # size fits is seen by its first bytes, which are the same for all reads of one length.
                length = len(data)
                start = starts[length]
                if (
                    data.startswith(start)
                    and data.find(b"\n", len(start)) == length - 4
                    and data.endswith(END)
                    and data.find(b"\r", len(start)) == length - 2
                ):
                    if connection.take(at_us, data[len(start) : -4]):
                        connection.plain = False
                        self._draining[connection] = at_us + DRAIN_US
                    continue
                data = self._take_plain(connection, at_us, data)
                if not data:
                    continue
            self._receive(connection, at_us, data)
        watch.reads = reads

    def _take_plain(self, connection: ClientConnection, at_us: int, data: bytes) -> bytes:
        """Take the commonest bytes; what is left for `_receive`, from the first chunk on that is other."""
        at, events, over = take_chunks(connection.take, at_us, data)
        if over:
            connection.plain = False
        if at < len(data):
            self._taken = events
            return data[at:]
        if events > 1:
            self._watch.note_events(events, at_us)
        if over:
            self._draining.setdefault(connection, at_us + DRAIN_US)
        return b""

    def _receive(self, connection: ClientConnection, at_us: int, data: bytes) -> None:
        """Everything but the commonest read."""
        flight = connection.flight
        if flight is None:
            self._drop(connection)  # an idle connection that the server closed, or garbage on it
            return
        if not data:
            self._closed(connection, flight)
            return
        before, self._taken = flight.stream.events - self._taken, 0
        try:
            over = connection.receive(at_us, data)
        except BadResponse as error:
            self._finish(connection, _why(connection, ("bad_response", str(error))), broken=True)
            return
        self._watch.note_events(flight.stream.events - before, at_us)
        if over:
            self._finish(connection, connection.failure(), broken=False)
        elif flight.stream.done or connection.failure() is not None:
            self._draining.setdefault(connection, at_us + DRAIN_US)

    def _start_due(self) -> None:
        """Start all that is due; one that fails at once frees its slot for the next, hence the loop."""
        if self._starting:
            return
        self._starting = True
        while (flight := self._scheduler.next()) is not None:
            self._start(flight)
        self._starting = False
        self._due_ns = self._scheduler.next_due_ns()
        if self._due_ns is not None:
            self._timer.set(self._due_ns)

    def _start(self, flight: Flight, *, anew: bool = False) -> None:
        """Send a request on an idle connection, or open one for it."""
        if self.connections.idle and not anew:
            self._send(self.connections.idle.pop(), flight)
            return
        try:
            connection = self.connections.connect()
        except OSError as error:
            self._scheduler.end(flight, connect_failure(error))
            return
        connection.begin(flight)

    def _send(self, connection: ClientConnection, flight: Flight) -> None:
        connection.begin(flight)
        body = self._scheduler.pieces(flight)
        flight.sent_us = self._scheduler.now_us()
        head = self._head + b"%d\r\n\r\n" % sum(map(len, body))
        try:
            if not connection.send((head, *body)):
                self.connections.expect(connection, unsent=True)
        except OSError as error:
            self._broken(connection, error)

    def _attend(self, descriptor: int, connection: ClientConnection | None) -> None:
        """A descriptor that is no connection with an answer on its way."""
        if connection is None:
            if descriptor == self._timer.descriptor:
                self._timer.clear()
            elif descriptor == self._control and self._hear is not None:
                self.connections.detach(descriptor)
                self._hear()
                self._last_tick_us = 0
            return
        try:
            if not connection.connected:
                connection.finish_connecting()
                self.connections.expect(connection)
                if connection.flight is not None:
                    self._send(connection, connection.flight)
            elif connection.send_more():
                self.connections.expect(connection)
        except OSError as error:
            self._broken(connection, error)

    def _closed(self, connection: ClientConnection, flight: Flight) -> None:
        """The server closed the connection while a request was on it."""
        ended = connection.response.close()
        if flight.stream.done or (ended and connection.check is not None):
            self._finish(connection, connection.failure(), broken=True)
        elif connection.waited and not connection.response.started:
            self._retry(connection, flight)
        else:
            when = "in mid-answer" if connection.response.started else "without an answer"
            failure = ("disconnected", f"the server closed the connection {when}")
            self._finish(connection, _why(connection, failure), broken=True)

    def _broken(self, connection: ClientConnection, error: OSError) -> None:
        flight = connection.flight
        if flight is None:
            self._drop(connection)
        elif not connection.connected:
            self._finish(connection, connect_failure(error), broken=True)
        elif connection.waited and not connection.response.started:
            self._retry(connection, flight)
        else:
            failure = ("disconnected", error.strerror or str(error))
            self._finish(connection, _why(connection, failure), broken=True)

    def _retry(self, connection: ClientConnection, flight: Flight) -> None:
        """A kept connection was closed before it took the request: no fault of either; open another."""
        self._scheduler.retried += 1
        self._drop(connection)
        self._start(flight, anew=True)

    def _finish(self, connection: ClientConnection, failure: Failure | None, *, broken: bool) -> None:
        flight = connection.flight
        assert flight is not None
        connection.flight = None
        connection.plain = False
        self._draining.pop(connection, None)
        if broken or not self._keeps or not connection.reusable:
            self._drop(connection)
        else:
            self.connections.keep(connection)
        self._scheduler.end(flight, failure)
        self._start_due()

    def _patience_s(self) -> float:
        """How long the next poll may sleep."""
        due_ns = self._scheduler.next_due_ns()
        if due_ns is None:
            return TICK_US * 1e-6
        left_ns = due_ns - time.perf_counter_ns()
        if left_ns < SPIN_NS:
            return 0.0
        return TICK_US * 1e-6 if self._timer.descriptor is not None else min(left_ns * 1e-9, TICK_US * 1e-6)

    def _tick(self, now_us: int) -> None:
        scheduler = self._scheduler
        expired = set(map(id, scheduler.expired(now_us)))
        cut = scheduler.cut_off or ("point_timeout" if now_us > scheduler.ends_us else None)
        scheduler.cut_off = cut
        if expired or cut:
            for connection in list(self.connections.by_descriptor.values()):
                flight = connection.flight
                if flight is not None and (cut or id(flight) in expired):
                    failure = (CUT_OFF, cut) if cut else ("timeout", scheduler.timeout_detail)
                    self._finish(connection, _why(connection, failure), broken=True)
        for connection, until in list(self._draining.items()):
            if now_us > until:
                self._finish(connection, connection.failure(), broken=True)
        self._watch.tick(now_us, scheduler)

    def _drop(self, connection: ClientConnection) -> None:
        self._again.pop(connection.descriptor, None)
        self.connections.drop(connection)

    def close(self) -> None:
        """See `Transport.close`."""
        self.connections.close()
        self._timer.close()


def _why(connection: ClientConnection, failure: Failure) -> Failure | None:
    """Why a request ends now that this has happened to its connection: what its answer said goes first."""
    flight = connection.flight
    if flight is not None and flight.stream.done:
        return None
    return connection.failure() or failure
