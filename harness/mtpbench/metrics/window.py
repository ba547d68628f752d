"""Pure: from the raw requests to the stretch of time in which the server was in steady state."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtpbench.metrics.request_table import Floats, RequestRows, RequestTable, seconds, whole_us
from mtpbench.records import Blocks


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


MOST_BLOCKS = 20
FEWEST_BLOCKS = 5
"""With fewer than this their scatter is itself hardly known."""


def cut_blocks(window: Window, e2el_s: Floats, ended_s: Floats) -> tuple[Window, ...]:
    """The window in equal blocks, as many as its requests allow; empty where fewer than 5 would do.

    A block shorter than one request's life would see the waves of a closed loop, and neighbours that share
    most of their requests; so none is shorter than the median one. In every block some request ended.

    Args:
        window: the steady-state window.
        e2el_s: (r,) how long the counted requests took.
        ended_s: (q,) when those with a time per output token ended.
    """
    if not len(e2el_s) or (life_s := float(np.median(e2el_s))) <= 0:
        return ()
    most = int(min(MOST_BLOCKS, window.duration_s // life_s))
    for count in range(most, FEWEST_BLOCKS - 1, -1):
        blocks = _equal(window, count)
        if all(inside(ended_s, block).any() for block in blocks):
            return blocks
    return ()


def _equal(window: Window, count: int) -> tuple[Window, ...]:
    """So many blocks, equal to the microsecond."""
    edges = seconds(whole_us(np.linspace(window.start_s, window.end_s, count + 1)))
    return tuple(Window(start_s=float(a), end_s=float(b)) for a, b in itertools.pairwise(edges))


def describe_blocks(
    blocks: tuple[Window, ...], tput_tps_per_gpu: tuple[float, ...], tpot_s: Floats, ended_s: Floats
) -> Blocks | None:
    """The blocks of a point; None where there are none, or where one has a median TPOT of 0.

    Args:
        blocks: as `cut_blocks` made them.
        tput_tps_per_gpu: the rate of each.
        tpot_s: (q,) time per output token of the counted requests.
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
