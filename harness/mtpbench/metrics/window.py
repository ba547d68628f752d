"""Pure: from the raw requests to the stretch of time in which the server was in steady state."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtpbench.metrics.request_table import Floats, RequestRows, RequestTable


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A stretch of a run: what happens at `start_s` is before it, what happens at `end_s` is inside.

    Half open, because an engine emits in steps: the tokens of the step that opens a window were made
    before it, and counting them would give n intervals the tokens of n + 1 steps.
    """

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Length of the stretch."""
        return self.end_s - self.start_s

    @property
    def edges_us(self) -> tuple[int, int]:
        """Both edges in whole microseconds."""
        return round(self.start_s * 1e6), round(self.end_s * 1e6)


def steady_window(table: RequestTable, concurrency: int) -> Window | None:
    """The time in which all slots were busy and warm; None where there was no such time.

    It starts when every slot has streamed a token and the first measured request has been sent (warm-up
    hands over without draining: its last requests may still run). It ends when the first slot finds no
    next request, which is the earliest of the slots' last ends.

    Args:
        table: the requests, failed ones included.
        concurrency: slots of the closed loop.
    """
    measured = ~table.warmup
    if not measured.any():
        return None
    slots, positions = np.unique(table.slot, return_inverse=True)
    if len(slots) < concurrency:
        return None
    first_token = np.full(len(slots), np.inf)
    streamed = table.chunk_counts > 0
    np.minimum.at(first_token, positions[streamed], table.first_chunk_s[streamed])
    last_end = np.full(len(slots), -np.inf)
    np.maximum.at(last_end, positions, table.end_s)
    start = max(float(first_token.max()), float(table.sent_s[measured].min()))
    end = float(last_end.min())
    return Window(start_s=start, end_s=end) if np.isfinite(start) and end > start else None


def open_window(table: RequestRows) -> Window | None:
    """The time in which an open loop sent its measured requests; None where it sent fewer than two.

    From the moment the first of them was due to the moment the last one was: the warm-up's requests are still
    running at its start, and its own at its end.
    """
    due = table.scheduled_s[~table.warmup]
    if not len(due):
        return None
    start, end = float(due.min()), float(due.max())
    return Window(start_s=start, end_s=end) if end > start else None


def point_window(table: RequestTable, concurrency: int, *, open_loop: bool) -> Window | None:
    """The steady-state window of a point: of its open loop, or of its slots."""
    return open_window(table) if open_loop else steady_window(table, concurrency)


def whole_window(table: RequestRows) -> Window | None:
    """From the first send to the last end; None where nothing was sent."""
    if not len(table):
        return None
    start, end = float(table.sent_s.min()), float(table.end_s.max())
    return Window(start_s=start, end_s=end) if end > start else None


def mean_in_flight(table: RequestRows, window: Window) -> float:
    """Requests sent and not yet ended, averaged over the window."""
    begun = np.maximum(table.sent_s, window.start_s)
    ended = np.minimum(table.end_s, window.end_s)
    return float(np.clip(ended - begun, 0.0, None).sum() / window.duration_s)


def in_flight_over_time(table: RequestRows, window: Window, parts: int) -> tuple[float, ...]:
    """Requests in flight, averaged over each of so many equal parts of the window."""
    edges = np.linspace(window.start_s, window.end_s, parts + 1)
    pieces = (Window(start_s=float(a), end_s=float(b)) for a, b in itertools.pairwise(edges))
    return tuple(mean_in_flight(table, piece) for piece in pieces)


def inside(times_s: Floats, window: Window) -> npt.NDArray[np.bool_]:
    """Which of some moments lie in the window; NaN lies in none."""
    return (times_s > window.start_s) & (times_s <= window.end_s)
