"""Where helpers run (client processes, power samplers): on this host, or on others that a command reaches.

Every host's monotonic clock counts from a moment of its own. The offset of another one is the middle of the
quickest of several questions and answers; it can't be further off than half of that answer took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mtpbench.errors import RunError

ASKS = 25
"""How often a clock is asked; the quickest answer counts."""
FEWEST_ASKS, ASK_FOR_S = 3, 1.0
"""One that is slow to answer is not asked for longer than this, but so often at least."""
ANSWER_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Station:
    """A host for helpers.

    Args:
        host: its name, for the record.
        launch: words in front of a command that run it there, input and output connected (`srun … `).
        directory: a folder that both hosts see; None for a private one of this host.
        environment: what `launch` starts with; None for this process's own.
        python: Python with mtpbench there.
    """

    host: str
    launch: tuple[str, ...] = ()
    directory: Path | None = None
    environment: Mapping[str, str] | None = None
    python: str = sys.executable


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockOffset:
    """What to add to this host's `time.perf_counter_ns()` for another one's, and how far off that may be."""

    offset_ns: int
    error_ns: int


async def launch(station: Station, words: Sequence[str], errors: BinaryIO) -> asyncio.subprocess.Process:
    """A helper, started in a session of its own (Ctrl-C is not for it), its input and output connected.

    Args:
        station: where.
        words: its command line.
        errors: an open file that takes what it says on standard error.
    """
    return await asyncio.create_subprocess_exec(
        *station.launch,
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        env=station.environment,
        start_new_session=True,
    )


async def ask_clock(process: asyncio.subprocess.Process, what: str) -> ClockOffset:
    """The offset of the clock of a helper that answers `clock` with its own.

    Args:
        process: the helper.
        what: it in words, for the error (`the load client on node7`).

    Raises:
        RunError: it does not answer.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    answers, words = process.stdout, process.stdin

    async def ask() -> int:
        words.write(b"clock\n")
        try:
            async with asyncio.timeout(ANSWER_S):
                line = await answers.readline()
        except TimeoutError:
            line = b""
        try:
            return int(json.loads(line)["clock"])
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{what} does not tell its clock ({line!r})") from None

    return await compare_clocks(ask)


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
