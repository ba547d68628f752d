"""Pure: the steady-state window cut into equal time blocks, whose scatter tells the error of one run."""

from __future__ import annotations

import itertools

import numpy as np

from mtpbench.metrics.request_table import Floats, seconds, whole_us
from mtpbench.metrics.window import Window, inside
from mtpbench.records import Blocks

MOST_BLOCKS = 20
FEWEST_BLOCKS = 5
"""With fewer than this their scatter is itself hardly known."""


def cut(window: Window, e2el_s: Floats, ended_s: Floats) -> tuple[Window, ...]:
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


def describe(
    blocks: tuple[Window, ...], tput_tps_per_gpu: tuple[float, ...], tpot_s: Floats, ended_s: Floats
) -> Blocks | None:
    """The blocks of a point; None where there are none, or where one has a median TPOT of 0.

    Args:
        blocks: as `cut` made them.
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
