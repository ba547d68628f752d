"""Pure: the steady-state window of a point, computed from its raw requests, and its equal blocks."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtpbench.metrics.request_table import Floats, RequestRows, RequestTable, seconds, whole_us
from mtpbench.records import Blocks


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A window is a stretch of a run: the moment `start_s` is outside it, the moment `end_s` is inside.

    It is half open because an engine emits in steps: the tokens of the step that opens a window were made
    before it, and counting them would give n intervals the tokens of n + 1 steps.
    """

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """The length of the window."""
        return self.end_s - self.start_s

    @property
    def edges_us(self) -> tuple[int, int]:
        """Both edges in whole microseconds."""
        return round(self.start_s * 1e6), round(self.end_s * 1e6)


def steady_window(table: RequestTable, concurrency: int) -> Window | None:
    """Computes the time in which all slots were busy and warm; None if there was no such time.

    It starts when every slot has streamed a token and the first measured request has been sent; the last
    requests of the warm-up may still run then. It ends when the first slot has no next request, which is the
    earliest of the slots' last ends.

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


def open_window(table: RequestRows, ramp_s: float = 0.0) -> Window | None:
    """Computes the time in which an open loop sent its measured requests; None if it sent fewer than two.

    It lasts from the moment the first of them was due to the moment the last one was. Requests are in flight
    at both edges: those of the warm-up at its start, the measured ones at its end. While the rate still rises
    over `ramp_s` there is no steady state: what was due before its end lies before the window.
    """
    due = table.scheduled_s[due_in_window(table, ramp_s)]
    if not len(due):
        return None
    start, end = float(due.min()), float(due.max())
    return Window(start_s=start, end_s=end) if end > start else None


def due_in_window(table: RequestRows, ramp_s: float) -> npt.NDArray[np.bool_]:
    """Returns which measured requests of an open loop were due after its ramp."""
    return ~table.warmup & (table.scheduled_s >= ramp_s)


def point_window(
    table: RequestTable, concurrency: int, *, open_loop: bool, ramp_s: float = 0.0
) -> Window | None:
    """Computes the steady-state window of a point with an open or a closed loop."""
    return open_window(table, ramp_s) if open_loop else steady_window(table, concurrency)


def rates_due_and_sent(table: RequestRows, ramp_s: float) -> tuple[float, float] | None:
    """Computes at what rates an open loop's measured requests were due, and were sent, per engine second.

    Both are of the same requests, so what the process of arrivals drew is in both alike. None for fewer than
    two requests, or those that were due, or sent, at one moment.
    """
    chosen = due_in_window(table, ramp_s)
    intervals = int(chosen.sum()) - 1
    if intervals < 1:
        return None
    due_s, sent_s = (float(np.ptp(times[chosen])) for times in (table.scheduled_s, table.sent_s))
    return (intervals / due_s, intervals / sent_s) if due_s > 0 and sent_s > 0 else None


def whole_window(table: RequestRows) -> Window | None:
    """Computes the time from the first send to the last end; None if no request was sent."""
    if not len(table):
        return None
    start, end = float(table.sent_s.min()), float(table.end_s.max())
    return Window(start_s=start, end_s=end) if end > start else None


def mean_in_flight(table: RequestRows, window: Window) -> float:
    """Computes the mean number of requests in flight over the window."""
    sent = np.maximum(table.sent_s, window.start_s)
    ended = np.minimum(table.end_s, window.end_s)
    return float(np.clip(ended - sent, 0.0, None).sum() / window.duration_s)


def in_flight_over_time(table: RequestRows, window: Window, parts: int) -> tuple[float, ...]:
    """Computes the mean number of requests in flight over each of some equal parts of the window."""
    edges = np.linspace(window.start_s, window.end_s, parts + 1)
    pieces = (Window(start_s=float(a), end_s=float(b)) for a, b in itertools.pairwise(edges))
    return tuple(mean_in_flight(table, piece) for piece in pieces)


def sending_window(table: RequestRows) -> Window | None:
    """Computes the time from the first measured request's start to the last one's; None without requests.

    A pause that lies behind it kept no request from starting.
    """
    sent_s = table.sent_s[~table.warmup]
    return Window(start_s=float(sent_s.min()), end_s=float(sent_s.max())) if len(sent_s) else None


def seconds_inside(begin_s: Floats, end_s: Floats, window: Window) -> Floats:
    """Returns how much of each stretch lies in a window."""
    inside_s = np.minimum(end_s, window.end_s) - np.maximum(begin_s, window.start_s)
    return np.asarray(np.clip(inside_s, 0.0, None), np.float64)


def inside(times_s: Floats, window: Window) -> npt.NDArray[np.bool_]:
    """Returns which of some moments lie in the window; NaN lies in none."""
    return (times_s > window.start_s) & (times_s <= window.end_s)


MOST_BLOCKS = 20
FEWEST_BLOCKS = 5
"""The scatter of fewer blocks says too little."""
LEAST_READINGS = 2
"""Readings of a counter for each block; with fewer, neighbours would share most of what was counted."""


def cut_blocks(window: Window, e2el_s: Floats, ended_s: Floats) -> tuple[Window, ...]:
    """Cuts the window into equal blocks, as many as its requests allow; none if fewer than 5 are possible.

    Blocks shorter than one request would show the waves of a closed loop, and neighbours would share most of
    their requests; so no block is shorter than the median E2EL. In every block some request ended.

    Args:
        window: the steady-state window.
        e2el_s: (r,) E2EL of the counted requests.
        ended_s: (q,) when the requests with a TPOT ended.
    """
    if not len(e2el_s) or (median_s := float(np.median(e2el_s))) <= 0:
        return ()
    most = int(min(MOST_BLOCKS, window.duration_s // median_s))
    for count in range(most, FEWEST_BLOCKS - 1, -1):
        blocks = _equal(window, count)
        if all(inside(ended_s, block).any() for block in blocks):
            return blocks
    return ()


def _equal(window: Window, count: int) -> tuple[Window, ...]:
    """Cuts the window into blocks that are equal to the microsecond."""
    edges = seconds(whole_us(np.linspace(window.start_s, window.end_s, count + 1)))
    return tuple(Window(start_s=float(a), end_s=float(b)) for a, b in itertools.pairwise(edges))


def describe_blocks(
    blocks: tuple[Window, ...], tput_tps_per_gpu: tuple[float, ...], tpot_s: Floats, ended_s: Floats
) -> Blocks | None:
    """Computes the figures of each block; None if there is no block, or one has a median TPOT of 0.

    Args:
        blocks: the blocks from `cut_blocks`.
        tput_tps_per_gpu: the throughput of each block.
        tpot_s: (q,) TPOT of the counted requests.
        ended_s: (q,) when they ended.
    """
    medians = [float(np.median(tpot_s[inside(ended_s, block)])) for block in blocks]
    if not medians or min(medians) <= 0:
        return None
    return Blocks(
        duration_s=(blocks[-1].end_s - blocks[0].start_s) / len(blocks),
        tput_tps_per_gpu=tput_tps_per_gpu,
        interactivity_tps=tuple(1 / median for median in medians),
    )
