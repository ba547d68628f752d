"""A wake-up at an absolute moment of the monotonic clock, finer than a poll's milliseconds.

Source: timerfd_create(2). Python has it from 3.13 on; before that the C library is called directly.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


class Timer:
    """A timer whose `descriptor` becomes readable at its moment; None where there is no timerfd."""

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
        """Wake at this `time.perf_counter_ns()` value; a moment that has passed wakes at once."""
        if self.descriptor is None or due_ns == self._due_ns:
            return
        self._due_ns = due_ns
        seconds, nanoseconds = divmod(max(due_ns, 1), 10**9)
        setting = struct.pack("qqqq", 0, 0, seconds, nanoseconds)
        if self._library.timerfd_settime(self.descriptor, _ABSOLUTE, setting, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Take the wake-up that has come."""
        self._due_ns = None
        if self.descriptor is not None:
            try:
                os.read(self.descriptor, 8)
            except BlockingIOError:
                return

    def close(self) -> None:
        """Give the descriptor back."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
