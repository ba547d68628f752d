"""The fast transport: HTTP/1.1 and server-sent events on plain sockets, stamped by the kernel.

It is one loop over epoll without coroutines: at 100,000 events a second every call counts. The inner part of
the loop takes the commonest read itself (one HTTP chunk that is one whole event); other code takes every
other read.
"""

from __future__ import annotations

import time

from mtpbench.load.clocks import CONTROL_BYTES, SLACK_US, STEP_US, Timer, WallClock, unpack_timespec
from mtpbench.load.connection_pool import (
    DRAIN_US,
    HUNG_UP,
    READABLE,
    ClientConnection,
    ConnectionPool,
    Draining,
    choose_address,
    connect_failure,
    render_head,
    resolve,
)
from mtpbench.load.http1 import END, READ_BYTES, STARTS, BadResponse, take_chunks
from mtpbench.load.transport import Failure, Flight, TransportOptions, authorization
from mtpbench.metrics.request_table import CUT_OFF

TICK_US = 50_000
SPIN_NS = 60_000
"""The loop waits for a moment nearer than this without sleeping."""
BETWEEN_SENDS = 7
"""If a read's number has none of these bits, due requests are sent before the next read."""


class EpollTransport:
    """The epoll transport sends one process's share of a load over plain HTTP/1.1.

    Raises:
        RunError: the server's host has no address.
    """

    def __init__(self, options: TransportOptions) -> None:
        scheduler = options.scheduler
        spec = scheduler.spec
        self._scheduler, self._monitor = scheduler, options.monitor
        self._stop_descriptor, self._on_stop = options.stop_descriptor, options.on_stop
        self.connections = ConnectionPool(choose_address(resolve(spec.base_url)))
        self._head = render_head(spec.base_url, options.path, authorization(spec), spec.keeps_connections)
        self._keeps = spec.keeps_connections
        self._handicap_s = spec.handicap_s
        self._draining = Draining()
        self._reread: dict[int, int] = {}
        self._timer = Timer()
        self._due_ns: int | None = None
        self._wall: WallClock
        self._moved = False
        """Whether the wall clock has moved since the last look at it."""
        self._polled_us = self._last_tick_us = 0
        self._starting = False
        self._taken = 0
        """Events of the current read that `_take_plain` has taken."""

    def open(self, connections: int) -> None:
        """See `Transport.open`; a connection that fails is tried again when a request needs it."""
        self.connections.open(connections)
        idle = self.connections.idle
        self._monitor.stamps = "kernel" if idle and all(c.stamped for c in idle) else "user"

    def run(self) -> None:
        """See `Transport.run`."""
        scheduler = self._scheduler
        wall = self._wall = WallClock(scheduler.origin_ns)
        for descriptor in (self._stop_descriptor, self._timer.descriptor):
            if descriptor is not None:
                self.connections.attach(descriptor)
        self._start_due()
        while not scheduler.over:
            self._read_round()
            if self._handicap_s:
                time.sleep(self._handicap_s)
            if scheduler.next_due_ns() is not None:
                self._start_due()
            now_us = scheduler.now_us()
            if now_us >= self._draining.next_us:
                self._end_drained(now_us)
            if now_us - self._last_tick_us >= TICK_US:
                self._last_tick_us = now_us
                self._moved |= wall.follow() != 0
                self._tick(now_us)
        self._monitor.clock_drift_us, self._monitor.clock_step_us = wall.drift_us, wall.largest_step_us

    def _read_round(self) -> None:
        """Waits until connections are ready, and reads once from each.

        Their bytes have come since the poll before. Where the wall clock has moved since then, nobody knows
        whether before or after a stamp: this process stamps these reads itself.
        """
        scheduler, monitor, wall = self._scheduler, self._monitor, self._wall
        patience_s, poll_began_us = self._patience_s(), scheduler.now_us()
        ready = self.connections.poll(0.0 if self._reread else patience_s)
        if self._reread:
            ready = list({**self._reread, **dict(ready)}.items())
            self._reread = {}
        since_us, self._polled_us = self._polled_us, scheduler.now_us()
        monitor.begin_round(poll_began_us, self._polled_us)
        moved, self._moved = wall.look() != 0 or self._moved, False
        reads = monitor.reads
        self._read_ready(ready, since_us - SLACK_US, 0 if moved else CONTROL_BYTES)
        if moved or self._moved:
            monitor.user_stamped += monitor.reads - reads
        elif moved_us := wall.look():
            self._note_step(moved_us, since_us, monitor.reads - reads)

    def _note_step(self, moved_us: int, since_us: int, reads: int) -> None:
        """Notes that the wall clock moved while a round read: the next round is stamped by this process.

        What lay between `since_us` and its read was taken for the stamp of so many `reads`. Where the clock
        was set forward, it is no later than this process's own stamp would be; where it was set back by less
        than that time, it may be too early.
        """
        self._moved = True
        if STEP_US < -moved_us < self._scheduler.now_us() - since_us + SLACK_US:
            self._monitor.misstamped += reads

    def _read_ready(self, ready: list[tuple[int, int]], since_us: int, control_bytes: int) -> None:
        """Reads once from every connection that is ready.

        Args:
            ready: descriptors and their events.
            since_us: their bytes have come after this, or were left by a read whose buffer was too small.
            control_bytes: `CONTROL_BYTES`, or 0 where this process stamps.
        """
        connection_of, clock = self.connections.by_descriptor.get, time.perf_counter_ns
        starts, unpack, size, zero_ns = STARTS, unpack_timespec, READ_BYTES, self._wall.zero_ns
        until_us = self._polled_us
        monitor, origin_ns, between = self._monitor, self._scheduler.origin_ns, BETWEEN_SENDS
        sample_mask, reads = monitor.sample_mask, monitor.reads
        for descriptor, events in ready:
            if not reads & between and self._due_ns is not None and clock() >= self._due_ns:
                self._start_due()  # a step's burst must not make requests late
            connection = connection_of(descriptor)
            if connection is None or not connection.reading:
                self._attend(descriptor, connection)
                # A response may begin before the whole request has been sent.
                if connection is None or connection_of(descriptor) is not connection or not events & READABLE:
                    continue
            try:
                data, control, _, _ = connection.recvmsg(size, control_bytes)
            except BlockingIOError:
                continue
            except OSError as error:
                self._broken(connection, error)
                continue
            if control:
                seconds, nanoseconds = unpack(control[0][2])
                at_us = (seconds * 1_000_000_000 + nanoseconds - zero_ns) // 1000
                if not since_us <= at_us <= until_us:
                    # Most often it came since the poll: the clock need not be read again for those before it.
                    until_us = (clock() - origin_ns) // 1000
                    if not since_us <= at_us <= until_us:
                        at_us, control_bytes = self._judge_stamp(at_us, since_us, reads - monitor.reads)
            else:
                at_us = (clock() - origin_ns) // 1000
            if events & HUNG_UP or len(data) == size:
                self._reread[descriptor] = events
            reads += 1
            if not reads & sample_mask:
                monitor.note_lag(at_us, (clock() - origin_ns) // 1000 - at_us)
            if connection.plain and data:
                # The commonest read: one HTTP chunk that is one whole event of one line. Its first bytes show
                # whether the chunk's size fits: they are the same for all reads of one length.
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
                        self._draining.add(connection, at_us)
                    continue
                data = self._take_plain(connection, at_us, data)
                if not data:
                    continue
            self._receive(connection, at_us, data)
        monitor.reads = reads

    def _judge_stamp(self, at_us: int, since_us: int, reads: int) -> tuple[int, int]:
        """Returns the moment of a read whose stamp is not between the poll before and now.

        It is the stamp where the wall clock stands where it stood: the bytes were left by an earlier read.

        Returns:
            The moment, and the bytes for the stamps of the following reads.
        """
        now_us = self._scheduler.now_us()
        if moved_us := self._wall.follow():
            self._note_step(moved_us, since_us, reads)
            self._monitor.user_stamped -= reads  # all reads of the round are added at its end
            return now_us, 0
        return min(at_us, now_us), CONTROL_BYTES

    def _take_plain(self, connection: ClientConnection, at_us: int, data: bytes) -> bytes:
        """Takes the chunks that are whole events; returns the bytes from the first other chunk on."""
        at, events, stream_ended = take_chunks(connection.take, at_us, data)
        if stream_ended:
            connection.plain = False
        if at < len(data):
            self._taken = events
            return data[at:]
        if events > 1:
            self._monitor.note_events(events, at_us)
        if stream_ended:
            self._draining.add(connection, at_us)
        return b""

    def _receive(self, connection: ClientConnection, at_us: int, data: bytes) -> None:
        """Takes any read, also those that the inner loop does not know."""
        flight = connection.flight
        if flight is None:
            if not self.connections.take_rest(connection, data):
                self._drop(connection)  # the server closed it while idle, or sent bytes without a request
            return
        if not data:
            self._closed(connection, flight)
            return
        before, self._taken = flight.stream.events - self._taken, 0
        try:
            request_ended = connection.receive(at_us, data)
        except BadResponse as error:
            self._finish(connection, connection.failure_after(("bad_response", str(error))), broken=True)
            return
        self._monitor.note_events(flight.stream.events - before, at_us)
        if request_ended:
            self._finish(connection, connection.failure(), broken=False)
        elif flight.stream.done or connection.failure() is not None:
            self._draining.add(connection, at_us)

    def _start_due(self) -> None:
        """Starts all requests that are due, also those whose slot a request that failed at once has freed."""
        if self._starting:
            return
        self._starting = True
        while (flight := self._scheduler.next()) is not None:
            self._start(flight)
        self._starting = False
        self._due_ns = self._scheduler.next_due_ns()
        if self._due_ns is not None:
            self._timer.set(self._due_ns)

    def _start(self, flight: Flight, *, new_connection: bool = False) -> None:
        """Sends a request on an idle connection, or opens one for it."""
        if self.connections.idle and not new_connection:
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
        """Handles a descriptor that is not a connection with a response: timer, stop, connecting, sending."""
        if connection is None:
            if descriptor == self._timer.descriptor:
                self._timer.clear()
            elif descriptor == self._stop_descriptor and self._on_stop is not None:
                self.connections.detach(descriptor)
                self._on_stop()
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
        """Ends or retries the request of a connection that the server closed."""
        ended = connection.response.close()
        if flight.stream.done or (ended and connection.check is not None):
            self._finish(connection, connection.failure(), broken=True)
        elif connection.waited and not connection.response.started:
            self._retry(connection, flight)
        else:
            when = "in mid-answer" if connection.response.started else "without an answer"
            failure = ("disconnected", f"the server closed the connection {when}")
            self._finish(connection, connection.failure_after(failure), broken=True)

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
            self._finish(connection, connection.failure_after(failure), broken=True)

    def _retry(self, connection: ClientConnection, flight: Flight) -> None:
        """Sends a request again whose kept connection was closed before it took the request.

        Neither the request nor the server is at fault.
        """
        self._scheduler.retried += 1
        self._drop(connection)
        self._start(flight, new_connection=True)

    def _finish(self, connection: ClientConnection, failure: Failure | None, *, broken: bool) -> None:
        flight = connection.flight
        assert flight is not None
        connection.flight = None
        connection.plain = False
        self._draining.remove(connection)
        if connection not in self.connections.lingering:
            if broken or not self._keeps or not connection.reusable:
                self._drop(connection)
            else:
                self.connections.keep(connection)
        self._scheduler.end(flight, failure)
        self._start_due()

    def _end_drained(self, now_us: int) -> None:
        """Ends the requests whose responses did not end in time; the rest of a whole answer may yet come."""
        for connection in self._draining.late(now_us):
            flight = connection.flight
            if flight is not None and flight.stream.done:
                self.connections.lingering[connection] = now_us + DRAIN_US
            self._finish(connection, connection.failure(), broken=True)

    def _patience_s(self) -> float:
        """Returns how long the next poll may sleep."""
        longest_s = min(TICK_US, max(self._draining.next_us - self._scheduler.now_us(), 0)) * 1e-6
        due_ns = self._scheduler.next_due_ns()
        if due_ns is None:
            return longest_s
        remaining_ns = due_ns - time.perf_counter_ns()
        if remaining_ns < SPIN_NS:
            return 0.0
        return longest_s if self._timer.descriptor is not None else min(remaining_ns * 1e-9, longest_s)

    def _tick(self, now_us: int) -> None:
        scheduler = self._scheduler
        overrun = scheduler.overrun(now_us)
        cut = scheduler.cut_off or ("point_timeout" if now_us > scheduler.ends_us else None)
        scheduler.cut_off = cut
        if overrun or cut:
            for connection in list(self.connections.by_descriptor.values()):
                flight = connection.flight
                failure = (CUT_OFF, cut) if cut else overrun.get(flight.turn.index) if flight else None
                if flight is not None and failure is not None:
                    self._finish(connection, connection.failure_after(failure), broken=True)
        self.connections.drop_late(now_us)
        self._monitor.tick(now_us, scheduler)

    def _drop(self, connection: ClientConnection) -> None:
        self._reread.pop(connection.descriptor, None)
        self.connections.drop(connection)

    def close(self) -> None:
        """See `Transport.close`."""
        self.connections.close()
        self._timer.close()
