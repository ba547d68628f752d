"""Where client processes run: on this host, or on others that a command reaches, whose clocks are asked for.

Every host's monotonic clock counts from a moment of its own. The offset of another one is the middle of the
quickest of several questions and answers; it can't be further off than half of that answer took.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtpbench.errors import RunError

ASKS = 25
"""How often a clock is asked; the quickest answer counts."""
ANSWER_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Station:
    """A host for client processes.

    Args:
        host: its name, for the record.
        launch: words in front of a command that run it there, input and output connected (`srun … `).
        directory: a folder that both hosts see; None for a private one of this host.
        environment: what `launch` starts with; None for this process's own.
    """

    host: str
    launch: tuple[str, ...] = ()
    directory: Path | None = None
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockOffset:
    """What to add to this host's `time.perf_counter_ns()` for another one's, and how far off that may be."""

    offset_ns: int
    error_ns: int


async def ask_clock(process: asyncio.subprocess.Process, host: str) -> ClockOffset:
    """The offset of the clock of a client process that waits for its start.

    Raises:
        RunError: it does not answer.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    best: ClockOffset | None = None
    for _ in range(ASKS):
        asked = time.perf_counter_ns()
        process.stdin.write(b"clock\n")
        try:
            async with asyncio.timeout(ANSWER_S):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
        answered = time.perf_counter_ns()
        try:
            theirs = int(json.loads(line)["clock"])
        except (ValueError, KeyError, TypeError):
            raise RunError(f"the load client on {host} does not tell its clock ({line!r})") from None
        error = (answered - asked + 1) // 2
        if best is None or error < best.error_ns:
            best = ClockOffset(offset_ns=theirs - (asked + answered) // 2, error_ns=error)
    assert best is not None
    return best
