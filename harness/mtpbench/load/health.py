"""Pure: what the processes noted of themselves -> how the load client did, over the steady-state window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtpbench.metrics.request_table import Floats, Ints, RequestTable
from mtpbench.metrics.window import Window, in_flight_over_time, inside, mean_in_flight, point_window
from mtpbench.records import ClientHealth

PARTS = 20
"""How many stretches of the window the concurrency is told for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Notes:
    """What one process noted: ticks (at_us, reads, coalesced, cpu_us, in_flight) and lags (at_us, lag_us)."""

    ticks: Ints
    lags: Ints


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientFacts:
    """What is known of the client besides: its transport, stamps, counts and limits."""

    transport: str
    stamps: str | None
    workers: int
    hosts: tuple[str, ...]
    host_clock_error_s: float | None
    late_starts: int | None
    unsent: int | None
    clock_drift_s: float | None
    clock_step_s: float | None
    descriptor_limit: int | None
    local_ports: int | None
    peak_rss_bytes: int | None


def judge_client(
    notes: Sequence[Notes],
    facts: ClientFacts,
    table: RequestTable,
    concurrency: int,
    scale: float,
    *,
    open_loop: bool,
) -> ClientHealth:
    """How the client did.

    Args:
        notes: one for each process that ended in order.
        facts: what else is known.
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
    return ClientHealth(
        transport=facts.transport,
        stamps=facts.stamps,
        workers=facts.workers,
        hosts=facts.hosts,
        host_clock_error_s=facts.host_clock_error_s,
        reader_lag_p50_s=_percentile(lags, 50),
        reader_lag_p99_s=_percentile(lags, 99),
        send_lag_p50_s=_percentile(send_lags, 50),
        send_lag_p99_s=_percentile(send_lags, 99),
        reads=round(sum(reads)) if reads else None,
        coalesced_reads=round(sum(coalesced)) if coalesced else None,
        cpu_share=max(cpu) * 1e-6 / wall_s if cpu and wall_s else None,
        achieved_concurrency=mean_in_flight(table, window) if window else None,
        concurrency_over_time=in_flight_over_time(table, window, PARTS) if window else (),
        late_starts=facts.late_starts,
        unsent=facts.unsent,
        clock_drift_s=facts.clock_drift_s,
        clock_step_s=facts.clock_step_s,
        descriptor_limit=facts.descriptor_limit,
        local_ports=facts.local_ports,
        peak_rss_bytes=facts.peak_rss_bytes,
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
