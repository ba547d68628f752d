"""Helpers: modules of the harness that run on this host or another one, and are spoken to by lines.

Messages on a helper's standard output are JSON objects, one a line; any other line (a site's prologue) is
skipped:

    {"ready": true, …}    the helper's first message: it can be used
    {"n": "N", …}         its answer to the line `WORD N` on its standard input
    {"n": "N", "clock": nanoseconds}    the answer to `clock N`: its monotonic clock

N counts up, so that an answer that comes late is never taken for another's. A helper ends when its standard
input closes: it does not outlive the process that started it.

Every host's monotonic clock counts from a moment of its own. The offset of another one is the middle of the
quickest of several questions and answers; it can't be further off than half of that answer took.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtpbench.errors import RunError

ANSWER_S = 20.0
END_S, SIGNALLED_END_S = 10.0, 5.0
"""How long a helper may take to end after its input has closed, and after a signal."""
DYING_S = 1.0
"""How long a helper that has closed its output may take to end with an exit code of its own."""
LAST_WORDS = 2000
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


class HelperFailed(RunError):
    """A helper died, or did not say in time what it should; it no longer runs.

    Args:
        message: says how, with the last line of its standard error.
        exit_status: how it ended (negative: by which signal); None where it was killed for being late.
    """

    def __init__(self, message: str, exit_status: int | None) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class HelperProcess:
    """One helper, started in a session of its own: Ctrl-C is not for it.

    Args:
        name: what error messages call it.
        host: where it runs.
        process: the process here, which may only lead to the helper (`srun`).
        errors: the file that takes its standard error.
    """

    def __init__(self, name: str, host: Host, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.name, self.host, self.process, self._errors = name, host, process, errors
        self._asked = 0
        self._given_up = False

    @classmethod
    async def start(
        cls, name: str, host: Host, module: str, arguments: Sequence[str], errors: Path
    ) -> HelperProcess:
        """Start a helper.

        Args:
            name: what error messages call it.
            host: where.
            module: of the harness, run with `python -m`.
            arguments: its arguments.
            errors: the file that takes its standard error.

        Raises:
            OSError: it can't be started.
        """
        with errors.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *(*host.launch, host.python, "-m", module, *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=file,
                env=host.environment,
                start_new_session=True,
            )
        return cls(name, host, process, errors)

    @property
    def running(self) -> bool:
        """Whether it can still be spoken to."""
        return not self._given_up and self.process.returncode is None

    async def ready(self, timeout_s: float) -> dict[str, Any]:
        """Its first message.

        Raises:
            HelperFailed: it died before, or was too late and is killed.
        """
        return await self._await(lambda message: message.get("ready") is True, timeout_s, "was not ready")

    async def ask(self, word: str) -> dict[str, Any]:
        """Its answer to one question.

        Raises:
            HelperFailed: it died, or does not answer in time and is killed.
        """
        if self._given_up:
            raise HelperFailed(f"{self.name} does not run", self.process.returncode)
        self._asked += 1
        number = str(self._asked)
        self.tell(f"{word} {number}")
        return await self._await(
            lambda message: message.get("n") == number, ANSWER_S, f"did not answer {word!r}"
        )

    async def clock_offset(self) -> ClockOffset:
        """The offset of its host's clock.

        Raises:
            HelperFailed: it does not answer.
        """

        async def ask_clock() -> int:
            return int((await self.ask("clock"))["clock"])

        return await compare_clocks(ask_clock)

    def tell(self, line: str) -> None:
        """Send it a line that it does not answer; one that has ended hears nothing."""
        pipe = self.process.stdin
        assert pipe is not None
        if not pipe.is_closing():
            with contextlib.suppress(ConnectionError):
                pipe.write(f"{line}\n".encode())

    async def read(self) -> dict[str, Any] | None:
        """Its next message; None once it has closed its output."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict):
                    return message
        return None

    async def stop(self) -> None:
        """Close its input and wait for its end; one that does not end in time is killed."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self._end(END_S)

    def last_words(self) -> str:
        """The end of its standard error; empty where it said nothing."""
        if not self._errors.exists():
            return ""
        return self._errors.read_text("utf-8", "replace").strip()[-LAST_WORDS:]

    async def _await(
        self, is_wanted: Callable[[dict[str, Any]], bool], timeout_s: float, failure: str
    ) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout_s):
                while (message := await self.read()) is not None:
                    if is_wanted(message):
                        return message
        except TimeoutError:
            await self._end(0.0)
            raise HelperFailed(
                f"{self.name} {failure} in {timeout_s:g} s: {self._last_line()}", None
            ) from None
        await self._end(DYING_S)
        status = self.process.returncode
        raise HelperFailed(f"{self.name} died (exit {status}): {self._last_line()}", status)

    async def _end(self, patience_s: float) -> None:
        """Wait for its end, and force it where that takes longer.

        `srun` takes SIGTERM to a step on another host; SIGKILL would leave the step running.
        """
        self._given_up = True
        for number in (*([signal.SIGTERM] if self.host.launch else []), signal.SIGKILL, None):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._ended()
                return
            if number is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.process.pid, number)
            patience_s = SIGNALLED_END_S

    async def _ended(self) -> None:
        """Until it has ended; what it still says is read, for a full pipe would hold it."""
        assert self.process.stdout is not None
        while await self.process.stdout.read(1 << 16):
            pass
        await self.process.wait()

    def _last_line(self) -> str:
        lines = self.last_words().splitlines()
        return lines[-1] if lines else "no message"
