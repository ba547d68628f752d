"""What a client process notes of itself while it runs: how late it reads, how much it reads at once, its CPU.

Bounded whatever the load: lags are sampled ever more rarely, ticks come 20 times a second.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mtpbench.load.conductor import Conductor
from mtpbench.metrics.request_table import Ints

COALESCED_US = 1000
"""Events of one read share a stamp; up to this far apart that is no loss."""
SLEPT_US = 100
FEW_SLOTS = 64
MOST_LAGS = 1 << 17
REPORT_US = 250_000
FLUSH_US = 1_000_000
TICK_COLUMNS = ("at_us", "reads", "coalesced", "cpu_us", "in_flight")


class SelfWatch:
    """One process's notes; `save` writes them for `health`.

    Args:
        report: called about four times a second.
        slots: requests in flight; with many of them not every read is sampled.
    """

    def __init__(self, report: Callable[[Conductor], None], slots: int) -> None:
        self._report = report
        self.stamps = "user"
        """Who stamps reads: `kernel`, or this process (`user`)."""
        self.reads = self.coalesced = self.clock_drift_us = self.clock_step_us = 0
        self.every = 0 if slots < FEW_SLOTS else 7
        """A read is sampled if its number has none of these bits: 0 is every read, 7 every eighth."""
        self._lags: array[int] = array("q")
        self._ticks: array[int] = array("q")
        self._since_us = self._polled_us = self._reported_us = self._flushed_us = 0

    def begin_round(self, asked_us: int, now_us: int) -> None:
        """A poll that was asked then has returned now; what is read in this round has come since `_since_us`.

        A poll that slept woke at the first arrival. One that did not found what had come since the last one.
        """
        self._since_us = now_us if now_us - asked_us > SLEPT_US else self._polled_us
        self._polled_us = now_us

    def note_lag(self, at_us: int, lag_us: int) -> None:
        """A read came so long after its bytes."""
        self._lags.append(at_us)
        self._lags.append(lag_us)
        if len(self._lags) >= 2 * MOST_LAGS:
            kept = np.asarray(self._lags).reshape(-1, 2)[::2]
            self._lags = array("q", kept.tobytes())
            self.every = 2 * self.every + 1

    def note_events(self, events: int, at_us: int) -> None:
        """One read held so many events; the last of its bytes came then."""
        if events > 1 and at_us - self._since_us > COALESCED_US:
            self.coalesced += 1

    def tick(self, now_us: int, conductor: Conductor) -> None:
        """Note how far things are; report and flush when it is time."""
        cpu_us = time.process_time_ns() // 1000
        self._ticks.extend((now_us, self.reads, self.coalesced, cpu_us, len(conductor.flights)))
        if now_us - self._reported_us >= REPORT_US:
            self._reported_us = now_us
            self._report(conductor)
        if now_us - self._flushed_us >= FLUSH_US:
            self._flushed_us = now_us
            conductor.ledger.flush()

    def save(self, path: Path) -> None:
        """Write ticks and lags."""
        np.savez(path, ticks=_table(self._ticks, len(TICK_COLUMNS)), lags=_table(self._lags, 2))


def _table(values: array[int], columns: int) -> Ints:
    return np.frombuffer(values.tobytes(), np.int64).reshape(-1, columns)
