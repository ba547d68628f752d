"""The sampler process of one node (`power.agent`), wherever that node is, and what it wrote."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path

from mtpbench.errors import RunError
from mtpbench.power.log import PowerLog, parse
from mtpbench.power.nodes import NodeGpus, NodeLog
from mtpbench.station import ClockOffset, Station, ask_clock, launch

INTERVAL_S = 0.1
READY_TIMEOUT_S = 30.0
ANSWER_S = 10.0
SEEN_S = 5.0
"""How long a shared filesystem may take to show what another host wrote."""
END_TIMEOUT_S = 5.0
DCGM_VARIABLE = "MTPBENCH_DCGM_URL"
"""Names a DCGM exporter's metrics page, for nodes where NVML can't be used; each asks its own `localhost`."""


class HostSampler:
    """One node's sampler. It ends by itself when this process does: its standard input closes.

    Args:
        gpus: what it reads.
        station: where it runs.
        directory: where its files stay, seen by both hosts.
    """

    def __init__(self, gpus: NodeGpus, station: Station, directory: Path) -> None:
        self.gpus, self.station = gpus, station
        self.died: str | None = None
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None
        self._starts = 0
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
        """From here on its readings are wanted; it is started where it does not run.

        Raises:
            OSError: it can't be started.
            RunError: it was not ready in time, or does not answer.
        """
        self.died = None
        if self._process is None or self._process.returncode is not None:
            await self._start()
        assert self._process is not None
        self._clock = await ask_clock(self._process, f"the power sampler on {self.station.host}")
        self._from = await self._tick()

    async def end(self) -> NodeLog:
        """What it read since `begin`, one more reading included; of a dead one, what it had written.

        Raises:
            OSError: its file can't be read.
            RunError: it wrote nothing that can be read.
        """
        size = 0
        try:
            size = await self._tick()
        except RunError as why:
            self.died = str(why)
        try:
            log = await asyncio.to_thread(self._read, size)
        except ValueError as error:
            raise RunError(f"{self.path.name}: {error}") from error
        return NodeLog(log=log, offset_s=self._clock.offset_ns / 1e9)

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
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._process = None

    async def _start(self) -> None:
        self._starts += 1
        self._directory.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "mtpbench.power.agent", "--out", str(self.path.resolve())]
        words += ["--interval", f"{INTERVAL_S:g}", "--gpus", ",".join(self.gpus.names)]
        if url := os.environ.get(DCGM_VARIABLE):
            words += ["--dcgm", url]
        with self._errors.open("ab") as errors:
            self._process = await launch(self.station, words, errors)
        if not await self._line(READY_TIMEOUT_S):
            raise RunError(await self._last_words(f"was not ready in {READY_TIMEOUT_S:g} s"))

    async def _tick(self) -> int:
        """Have it read now; the size of its file then."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(b"tick\n")
        line = await self._line(ANSWER_S)
        if not line:
            raise RunError(await self._last_words(f"did not answer in {ANSWER_S:g} s"))
        return int(json.loads(line)["size"])

    async def _line(self, seconds: float) -> bytes:
        """Its next line; empty where it died, or is late."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                return await self._process.stdout.readline()
        except TimeoutError:
            return b""

    async def _last_words(self, otherwise: str) -> str:
        """How it died and what it said last; `otherwise` where it lives."""
        process = self._process
        assert process is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await process.wait()
        lines = (
            self._errors.read_text("utf-8", "replace").strip().splitlines() if self._errors.exists() else []
        )
        how = otherwise if process.returncode is None else f"exit {process.returncode}"
        return f"{how}: {lines[-1] if lines else 'no message'}"

    @property
    def _errors(self) -> Path:
        return self.path.with_suffix(".err")

    def _read(self, size: int) -> PowerLog:
        """Its file from `begin` on, behind its first line, as soon as `size` bytes of it are to be seen."""
        deadline = time.monotonic() + SEEN_S
        while self.path.stat().st_size < size and time.monotonic() < deadline:
            time.sleep(0.05)
        with self.path.open("rb") as file:
            head = file.readline()
            file.seek(max(file.tell(), self._from))
            return parse((head + file.read()).decode("utf-8"))
