"""What the load client knows of itself: each process's notes, and how the client did over the window.

Notes are bounded whatever the load: lags are sampled ever more rarely, ticks come 20 times a second.
"""

from __future__ import annotations

import dataclasses
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtpbench.load.scheduler import Scheduler
from mtpbench.metrics.request_table import Floats, Ints, RequestTable
from mtpbench.metrics.window import Window, in_flight_over_time, inside, mean_in_flight, point_window
from mtpbench.records import ClientHealth

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

    def __init__(self, report: Callable[[Scheduler], None], slots: int) -> None:
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

    def tick(self, now_us: int, scheduler: Scheduler) -> None:
        """Note how far things are; report and flush when it is time."""
        cpu_us = time.process_time_ns() // 1000
        self._ticks.extend((now_us, self.reads, self.coalesced, cpu_us, len(scheduler.flights)))
        if now_us - self._reported_us >= REPORT_US:
            self._reported_us = now_us
            self._report(scheduler)
        if now_us - self._flushed_us >= FLUSH_US:
            self._flushed_us = now_us
            scheduler.log.flush()

    def save(self, path: Path) -> None:
        """Write ticks and lags."""
        np.savez(path, ticks=_table(self._ticks, len(TICK_COLUMNS)), lags=_table(self._lags, 2))


def _table(values: array[int], columns: int) -> Ints:
    return np.frombuffer(values.tobytes(), np.int64).reshape(-1, columns)


PARTS = 20
"""How many stretches of the window the concurrency is told for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Notes:
    """What one process noted: ticks (at_us, reads, coalesced, cpu_us, in_flight) and lags (at_us, lag_us)."""

    ticks: Ints
    lags: Ints


def judge_client(
    notes: Sequence[Notes],
    known: ClientHealth,
    table: RequestTable,
    concurrency: int,
    scale: float,
    *,
    open_loop: bool,
) -> ClientHealth:
    """How the client did.

    Args:
        notes: one for each process that ended in order.
        known: what else is known of it: its transport, stamps, counts and limits.
        table: the requests, in engine time.
        concurrency: slots asked for.
        scale: engine seconds per wall second.
        open_loop: whether requests started by the clock.
    """
    window = point_window(table, concurrency, open_loop=open_loop)
    lags = np.concatenate([_lags_s(note, window, scale) for note in notes]) if notes else np.empty(0)
    reads, coalesced, cpu = (_sums(notes, column, window, scale) for column in (1, 2, 3))
    wall_s = (window.duration_s / scale) if window else None
    # The slots' first requests have no schedule: they start together, as fast as the client can.
    later = (table.scheduled_us > 0) if not open_loop else np.ones(len(table), np.bool_)
    send_lags = (table.sent_s - table.scheduled_s)[later & ~table.warmup]
    return dataclasses.replace(
        known,
        reader_lag_p50_s=_percentile(lags, 50),
        reader_lag_p99_s=_percentile(lags, 99),
        send_lag_p50_s=_percentile(send_lags, 50),
        send_lag_p99_s=_percentile(send_lags, 99),
        reads=round(sum(reads)) if reads else None,
        coalesced_reads=round(sum(coalesced)) if coalesced else None,
        cpu_share=max(cpu) * 1e-6 / wall_s if cpu and wall_s else None,
        achieved_concurrency=mean_in_flight(table, window) if window else None,
        concurrency_over_time=in_flight_over_time(table, window, PARTS) if window else (),
    )


def _lags_s(note: Notes, window: Window | None, scale: float) -> Floats:
    """Lags inside the window, in engine seconds; all where none lies inside."""
    at_s, lag_s = np.asarray(note.lags * (1e-6 * scale), np.float64).T
    during = inside(at_s, window) if window else np.ones(len(at_s), np.bool_)
    return np.asarray(lag_s[during] if during.any() else lag_s)


def _sums(notes: Sequence[Notes], column: int, window: Window | None, scale: float) -> list[float]:
    """By how much a cumulative column rose over the window, by process."""
    if window is None:
        return []
    rises = []
    for note in notes:
        if len(note.ticks) > 1:
            at_s, values = note.ticks[:, 0] * (1e-6 * scale), note.ticks[:, column]
            first, last = np.interp([window.start_s, window.end_s], at_s, values)
            rises.append(float(last - first))
    return rises


def _percentile(values: Floats, percent: float) -> float | None:
    return float(np.percentile(values, percent)) if len(values) else None
