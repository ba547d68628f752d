"""Helpers: modules of the harness that run on this host or another one, and exchange lines with it.

Messages on a helper's standard output are JSON objects, one a line; any other line (a site's prologue) is
skipped:

    {"ready": true, …}    the helper's first message: it can be used
    {"n": "N", …}         its answer to the line `QUESTION N` on its standard input
    {"n": "N", "clock": nanoseconds}    the answer to `clock N`: its monotonic clock

N counts up, so that a late answer is never taken for the answer to another question. A helper ends when
its standard input closes: it does not outlive the process that started it.

Every host's monotonic clock counts from a moment of its own. The offset of another host's clock is taken from
the quickest of several answers, at its middle; its error is at most half of the time that the answer took.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtpbench.errors import RunError
from mtpbench.records import decode_json

ANSWER_S = 20.0
END_S, SIGNALLED_END_S = 10.0, 5.0
"""How long a helper may take to end after its input has closed, and after a signal."""
DYING_S = 1.0
"""How long a helper that has closed its output may take to end with an exit code of its own."""
LAST_WORDS = 2000
ASKS = 25
"""How many times a clock is asked; the quickest answer counts."""
FEWEST_ASKS, ASK_FOR_S = 3, 1.0
"""A host that is slow to answer is asked for this long at most, and this many times at least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """A host runs helpers.

    Args:
        name: the host's name, for the record.
        launch: the command in front of another one that runs it there, input and output connected (`srun …`);
            empty for this host.
        directory: a folder that both hosts see; None for a private one of this host.
        environment: the environment of `launch`; None for this process's own.
        python: Python with mtpbench there.
    """

    name: str
    launch: tuple[str, ...] = ()
    directory: Path | None = None
    environment: Mapping[str, str] | None = None
    python: str = sys.executable


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockOffset:
    """A clock offset is what to add to this host's `time.perf_counter_ns()` for another's, with its error."""

    offset_ns: int = 0
    error_ns: int = 0


async def compare_clocks(ask: Callable[[], Awaitable[int]]) -> ClockOffset:
    """Returns the offset of a clock that answers with its nanoseconds; passes on the errors of `ask`."""
    best: ClockOffset | None = None
    start = time.monotonic()
    for number in range(ASKS):
        if number >= FEWEST_ASKS and time.monotonic() - start > ASK_FOR_S:
            break
        before_ns = time.perf_counter_ns()
        clock_ns = await ask()
        after_ns = time.perf_counter_ns()
        error_ns = (after_ns - before_ns + 1) // 2
        if best is None or error_ns < best.error_ns:
            best = ClockOffset(offset_ns=clock_ns - (before_ns + after_ns) // 2, error_ns=error_ns)
    assert best is not None
    return best


class HelperFailed(RunError):
    """A helper died, or did not answer in time; it no longer runs.

    Args:
        message: how it failed, with the last line of its standard error.
        exit_status: its exit code, or minus the signal that ended it; None where it was killed as too late.
    """

    def __init__(self, message: str, exit_status: int | None) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class HelperProcess:
    """A helper process runs in a session of its own: Ctrl-C does not reach it.

    Args:
        name: its name in error messages.
        host: where it runs.
        process: the process here, which may only lead to the helper (`srun`).
        errors: the file that takes its standard error.
    """

    def __init__(self, name: str, host: Host, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.name, self.host, self.process, self._errors = name, host, process, errors
        self._questions = 0
        self._given_up = False

    @classmethod
    async def start(
        cls, name: str, host: Host, module: str, arguments: Sequence[str], errors: Path
    ) -> HelperProcess:
        """Starts a helper.

        Args:
            name: its name in error messages.
            host: where it runs.
            module: a module of the harness, run with `python -m`.
            arguments: its arguments.
            errors: the file that takes its standard error.

        Raises:
            OSError: the helper can't be started.
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
        """Returns whether the helper can still answer."""
        return not self._given_up and self.process.returncode is None

    async def ready(self, timeout_s: float) -> dict[str, Any]:
        """Returns the helper's first message.

        Raises:
            HelperFailed: the helper died before, or was too late and is killed.
        """
        return await self._await(lambda message: message.get("ready") is True, timeout_s, "was not ready")

    async def ask(self, question: str) -> dict[str, Any]:
        """Returns the helper's answer to one question.

        Raises:
            HelperFailed: the helper died, or does not answer in time and is killed.
        """
        if self._given_up:
            raise HelperFailed(f"{self.name} does not run", self.process.returncode)
        self._questions += 1
        number = str(self._questions)
        self.tell(f"{question} {number}")
        return await self._await(
            lambda message: message.get("n") == number, ANSWER_S, f"did not answer {question!r}"
        )

    async def ask_number(self, question: str, field: str) -> int:
        """Returns a whole number out of the helper's answer to one question.

        Raises:
            HelperFailed: the helper died, does not answer in time, or answers without it; it is killed then.
        """
        number = (await self.ask(question)).get(field)
        if type(number) is not int or not 0 <= number < 1 << 63:
            await self._end(0.0)
            raise HelperFailed(f"{self.name} answered {question!r} with {number!r} as {field}", None)
        return number

    async def clock_offset(self) -> ClockOffset:
        """Returns the offset of the clock of the helper's host.

        Raises:
            HelperFailed: the helper does not answer, or not with its clock.
        """

        async def ask_clock() -> int:
            return await self.ask_number("clock", "clock")

        return await compare_clocks(ask_clock)

    def tell(self, line: str) -> None:
        """Sends a line that the helper does not answer; a helper that has ended gets nothing."""
        pipe = self.process.stdin
        assert pipe is not None
        if not pipe.is_closing():
            with contextlib.suppress(ConnectionError):
                pipe.write(f"{line}\n".encode())

    async def read(self) -> dict[str, Any] | None:
        """Returns the helper's next message; None after it has closed its output."""
        assert self.process.stdout is not None
        while True:
            # A line that is longer than any message (64 KiB) is none either.
            with contextlib.suppress(ValueError):
                line = await self.process.stdout.readline()
                if not line:
                    return None
                message = decode_json(line.decode("utf-8", "replace"))
                if isinstance(message, dict):
                    return message

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the helper and all that it started here."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    async def stop(self) -> None:
        """Closes the helper's input and waits for its end; one that does not end in time is killed."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self._end(END_S)

    def last_words(self) -> str:
        """Returns the end of the helper's standard error; empty where it wrote none."""
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
        """Waits for the helper's end, and forces it where that takes longer.

        `srun` takes SIGTERM to a step on another host; SIGKILL would leave the step running.
        """
        self._given_up = True
        for number in (*([signal.SIGTERM] if self.host.launch else []), signal.SIGKILL, None):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._ended()
                return
            if number is not None:
                self.signal(number)
            patience_s = SIGNALLED_END_S

    async def _ended(self) -> None:
        """Waits until the helper has ended; reads its output meanwhile, since a full pipe would stop it."""
        assert self.process.stdout is not None
        while await self.process.stdout.read(1 << 16):
            pass
        await self.process.wait()

    def _last_line(self) -> str:
        lines = self.last_words().splitlines()
        return lines[-1] if lines else "no message"
