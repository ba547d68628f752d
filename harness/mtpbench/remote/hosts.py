"""Hosts that helpers run on: this one, or one that a command reaches; and how far their clocks differ.

Every host's monotonic clock counts from a moment of its own. The offset of another one is the middle of the
quickest of several questions and answers; it can't be further off than half of that answer took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ASKS = 25
"""How often a clock is asked; the quickest answer counts."""
FEWEST_ASKS, ASK_FOR_S = 3, 1.0
"""A host that is slow to answer is not asked for longer than this, but so often at least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """A host for helpers.

    Args:
        name: for the record.
        launch: what stands in front of a command to run it there, input and output connected (`srun … `);
            empty for this host.
        directory: a folder that both hosts see; None for a private one of this host.
        environment: what `launch` starts with; None for this process's own.
        python: Python with mtpbench there.
    """

    name: str
    launch: tuple[str, ...] = ()
    directory: Path | None = None
    environment: Mapping[str, str] | None = None
    python: str = sys.executable


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockOffset:
    """What to add to this host's `time.perf_counter_ns()` for another one's, and how far off that may be."""

    offset_ns: int = 0
    error_ns: int = 0


async def compare_clocks(ask: Callable[[], Awaitable[int]]) -> ClockOffset:
    """The offset of a clock that answers with its nanoseconds; what `ask` raises is passed on."""
    best: ClockOffset | None = None
    begun = time.monotonic()
    for number in range(ASKS):
        if number >= FEWEST_ASKS and time.monotonic() - begun > ASK_FOR_S:
            break
        asked = time.perf_counter_ns()
        theirs = await ask()
        answered = time.perf_counter_ns()
        error = (answered - asked + 1) // 2
        if best is None or error < best.error_ns:
            best = ClockOffset(offset_ns=theirs - (asked + answered) // 2, error_ns=error)
    assert best is not None
    return best
