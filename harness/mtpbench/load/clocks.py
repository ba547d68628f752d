"""The clocks of the epoll transport: kernel stamps of received bytes, and a timer that wakes the loop.

Kernel stamps are right also for a reader that is late. The kernel stamps with the wall clock, which may be
slewed or set; its offset to the monotonic clock is looked at before and after every round of reads. Stamps
between two looks that differ are not taken.

Sources: socket(7), SO_TIMESTAMPNS; Linux, net/ipv4/tcp.c: a read gives the stamp of the last segment it took.
timerfd_create(2): Python has it from 3.13 on; before that the C library is called directly.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
import time

CONTROL_BYTES = 32
"""Room for the one control message: a header of 16 bytes and a timespec of 16."""
unpack_timespec = struct.Struct("qq").unpack
_SO_TIMESTAMPNS = 35
_SAMPLES = 3
STEP_US = 1000
"""A change of the wall clock's offset by more than this between two measurements is a step."""
SLACK_US = 100
"""How far a stamp may be off: a change of the offset by less than this is noise, or a slew."""
_SLACK_NS = SLACK_US * 1000


def stamp_receives(connection: socket.socket) -> bool:
    """Lets the kernel stamp what this socket receives; returns False if the platform can't."""
    if sys.platform != "linux":
        return False
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


class WallClock:
    """The wall clock, by its reading at the run's second 0, which is followed through slews and steps.

    Args:
        origin_ns: the `time.perf_counter_ns()` value of the run's second 0.
    """

    def __init__(self, origin_ns: int) -> None:
        self._origin_ns = origin_ns
        self._first_ns = self.zero_ns = self._read()
        self.largest_step_us = 0

    @property
    def drift_us(self) -> int:
        """How far the offset has moved since the run began."""
        return (self.zero_ns - self._first_ns) // 1000

    def look(self) -> int:
        """Looks whether the offset is what it was; returns by how many microseconds it moved.

        That is 0 for what is no more than `SLACK_US`. A look takes two readings; where they don't agree with
        the offset, it is measured anew.
        """
        moved_ns = time.time_ns() - time.perf_counter_ns() + self._origin_ns - self.zero_ns
        return 0 if -_SLACK_NS < moved_ns < _SLACK_NS else self.follow()

    def follow(self) -> int:
        """Measures the offset anew; returns what `look` does."""
        before, self.zero_ns = self.zero_ns, self._read()
        moved_us = round((self.zero_ns - before) / 1000)
        if abs(moved_us) > STEP_US:
            self.largest_step_us = max(self.largest_step_us, abs(moved_us))
        return moved_us if abs(moved_us) > SLACK_US else 0

    def _read(self) -> int:
        """Reads the offset from the tightest of a few pairs: an interruption only widens a pair."""
        best: tuple[int, int] | None = None
        for _ in range(_SAMPLES):
            before = time.perf_counter_ns()
            wall = time.time_ns()
            after = time.perf_counter_ns()
            pair = (after - before, wall - (before + after) // 2)
            best = pair if best is None or pair < best else best
        assert best is not None
        return best[1] + self._origin_ns


_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


class Timer:
    """A timer makes its `descriptor` readable at a set moment; the descriptor is None without timerfd."""

    def __init__(self) -> None:
        self.descriptor: int | None = None
        self._due_ns: int | None = None
        if sys.platform != "linux":
            return
        self._library = ctypes.CDLL(None, use_errno=True)
        descriptor = self._library.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if descriptor >= 0:
            self.descriptor = descriptor

    def set(self, due_ns: int) -> None:
        """Sets the moment, a `time.perf_counter_ns()` value; it may have passed already."""
        if self.descriptor is None or due_ns == self._due_ns:
            return
        self._due_ns = due_ns
        seconds, nanoseconds = divmod(max(due_ns, 1), 10**9)
        setting = struct.pack("qqqq", 0, 0, seconds, nanoseconds)
        if self._library.timerfd_settime(self.descriptor, _ABSOLUTE, setting, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Makes the descriptor unreadable again after its moment."""
        self._due_ns = None
        if self.descriptor is not None:
            try:
                os.read(self.descriptor, 8)
            except BlockingIOError:
                return

    def close(self) -> None:
        """Closes the descriptor."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
