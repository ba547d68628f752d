"""The sampler process of one node (`power.agent`), wherever that node is, and what it wrote."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from mtpbench.errors import RunError
from mtpbench.power.log import PowerLog, parse
from mtpbench.power.nodes import NodeGpus, NodeLog
from mtpbench.station import ClockOffset, Station, compare_clocks, launch

INTERVAL_S = 0.1
READY_TIMEOUT_S = 30.0
ANSWER_S = 20.0
SEEN_S = 10.0
"""How long a shared filesystem may take to show what another host wrote."""
END_TIMEOUT_S = 5.0
DCGM_VARIABLE = "MTPBENCH_DCGM_URL"
"""Names a DCGM exporter's metrics page, for nodes where NVML can't be used; each asks its own `localhost`."""


class HostSampler:
    """One node's sampler. It ends by itself when this process does: its standard input closes.

    Every question carries a number, so that an answer that comes late is never taken for another's. One that
    does not answer in time is killed, and the next `begin` starts a new one.

    Args:
        gpus: what it reads.
        station: where it runs.
        directory: where its files stay, seen by both hosts.
    """

    def __init__(self, gpus: NodeGpus, station: Station, directory: Path) -> None:
        self.gpus, self.station = gpus, station
        self.trouble: str | None = None
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None
        self._starts = self._asked = 0
        self._from = 0
        self._clock = ClockOffset(offset_ns=0, error_ns=0)

    @property
    def path(self) -> Path:
        """The file that it writes; another one after each start."""
        again = f".{self._starts}" if self._starts > 1 else ""
        return self._directory / f"power-node{self.gpus.node}{again}.jsonl"

    @property
    def clock_error_s(self) -> float:
        """How far off its clock may be."""
        return self._clock.error_ns / 1e9

    async def begin(self) -> None:
        """From here on its readings are wanted, and the last one before; it is started where it does not run.

        Raises:
            OSError: it can't be started.
            RunError: it was not ready in time, or does not answer.
        """
        self.trouble = None
        if self._process is None or self._process.returncode is not None:
            await self._start()
        self._clock = await self._compare_clocks()
        self._from = int((await self._ask("tick"))["from"])

    async def look(self) -> NodeLog:
        """What it read since `begin`, one more reading included; of a dead one, what it had written.

        Raises:
            OSError: its file can't be read.
            RunError: it wrote nothing that can be read.
        """
        size = 0
        try:
            size = int((await self._ask("tick"))["size"])
        except RunError as why:
            self.trouble = str(why)
        try:
            log = await asyncio.to_thread(self._read, size)
        except ValueError as error:
            raise RunError(f"{self.path.name}: {error}") from error
        return NodeLog(log=log, offset_s=self._clock.offset_ns / 1e9)

    async def compare_again(self) -> None:
        """Ask for its clock once more: both moments count, and what lies between them is error."""
        try:
            first, last = self._clock, await self._compare_clocks()
        except RunError as why:
            # The readings are there; how far the clocks drifted meanwhile is not known, and the notes say so.
            self.trouble = f"its clock was asked before the point only: {why}"
            return
        drift_ns = abs(last.offset_ns - first.offset_ns)
        self._clock = ClockOffset(
            offset_ns=(first.offset_ns + last.offset_ns) // 2,
            error_ns=max(first.error_ns, last.error_ns) + drift_ns // 2,
        )

    async def stop(self) -> None:
        """Let it read once more and end."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            await self._kill()
        self._process = None

    async def _start(self) -> None:
        self._starts += 1
        self._directory.mkdir(parents=True, exist_ok=True)
        words = [self.station.python, "-m", "mtpbench.power.agent", "--out", str(self.path.resolve())]
        words += ["--interval", f"{INTERVAL_S:g}", "--gpus", ",".join(self.gpus.names)]
        if self.gpus.spares:
            words += ["--spares", ",".join(self.gpus.spares)]
        if url := os.environ.get(DCGM_VARIABLE):
            words += ["--dcgm", url]
        with self._errors.open("ab") as errors:
            self._process = await launch(self.station, words, errors)
        # What a site's own prologue prints comes first.
        await self._hear(lambda line: line.strip() == b"ready" or None, READY_TIMEOUT_S, "was not ready")

    async def _compare_clocks(self) -> ClockOffset:
        if self.station.launch:
            return await compare_clocks(self._ask_clock)
        # On one host every process has the same monotonic clock.
        return ClockOffset(offset_ns=time.monotonic_ns() - time.perf_counter_ns(), error_ns=0)

    async def _ask_clock(self) -> int:
        return int((await self._ask("clock"))["clock"])

    async def _ask(self, word: str) -> dict[str, Any]:
        """Its answer to one question."""
        process = self._process
        if process is None or process.stdin is None:
            raise RunError("it does not run")
        self._asked += 1
        number = str(self._asked)
        with contextlib.suppress(ConnectionError):
            process.stdin.write(f"{word} {number}\n".encode())

        def is_answer(line: bytes) -> dict[str, Any] | None:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if isinstance(said, dict) and said.get("n") == number:
                    return said
            return None

        said: dict[str, Any] = await self._hear(is_answer, ANSWER_S, f"did not answer {word!r}")
        return said

    async def _hear(self, wanted: Any, seconds: float, otherwise: str) -> Any:
        """The first line that is wanted.

        Raises:
            RunError: there is none in time, and the sampler is killed; or it has died. Its last words follow.
        """
        process = self._process
        assert process is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                while line := await process.stdout.readline():
                    if (found := wanted(line)) is not None:
                        return found
        except TimeoutError:
            await self._kill()
            raise RunError(f"it {otherwise} in {seconds:g} s: {self._last_words()}") from None
        # It has closed its output: it is on its way out, with a code of its own.
        await self._kill(patience_s=1.0)
        raise RunError(f"it died (exit {process.returncode}): {self._last_words()}")

    async def _kill(self, patience_s: float = 0.0) -> None:
        """End it, at the latest by force; the next `begin` starts another one."""
        process, self._process = self._process, None
        if process is None:
            return
        for wait_s in (patience_s, END_TIMEOUT_S):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await process.wait()
                return
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def _last_words(self) -> str:
        said = self._errors.read_text("utf-8", "replace") if self._errors.exists() else ""
        lines = said.strip().splitlines()
        return lines[-1] if lines else "no message"

    @property
    def _errors(self) -> Path:
        return self.path.with_suffix(".err")

    def _read(self, size: int) -> PowerLog:
        """Its file from `begin` on, behind its first line, as soon as `size` bytes of it are to be seen."""
        deadline = time.monotonic() + SEEN_S
        while True:
            # Opened anew each time: that is when a client of a file server asks what there is.
            with self.path.open("rb") as file:
                shown = os.fstat(file.fileno()).st_size
                if shown >= size:
                    head = file.readline()
                    file.seek(max(file.tell(), self._from))
                    return parse((head + file.read()).decode("utf-8", "replace"))
            if time.monotonic() > deadline:
                raise RunError(f"{self.path.name} shows {shown} of the {size} bytes that were written")
            time.sleep(0.1)
