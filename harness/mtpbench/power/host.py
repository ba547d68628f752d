"""The sampler process of one node (`power.agent`), wherever that node is, and what it wrote."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from mtpbench.errors import RunError
from mtpbench.power.log import PowerLog, parse
from mtpbench.power.nodes import NodeGpus, NodeLog
from mtpbench.remote.helper import HelperProcess
from mtpbench.remote.hosts import ClockOffset, Host

INTERVAL_S = 0.1
READY_TIMEOUT_S = 30.0
SEEN_S = 10.0
"""How long a shared filesystem may take to show what another host wrote."""
DCGM_VARIABLE = "MTPBENCH_DCGM_URL"
"""Names a DCGM exporter's metrics page, for nodes where NVML can't be used; each asks its own `localhost`."""


class HostSampler:
    """One node's sampler; one that died, or did not answer in time, is started anew by the next `begin`.

    Args:
        gpus: what it reads.
        host: where it runs.
        directory: where its files stay, seen by both hosts.
    """

    def __init__(self, gpus: NodeGpus, host: Host, directory: Path) -> None:
        self.gpus, self.host = gpus, host
        self.trouble: str | None = None
        self._directory = directory
        self._helper: HelperProcess | None = None
        self._starts = 0
        self._from = 0
        self._clock = ClockOffset()

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
        if self._helper is None or not self._helper.running:
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
        if self._helper is not None:
            await self._helper.stop()
        self._helper = None

    async def _start(self) -> None:
        self._starts += 1
        self._directory.mkdir(parents=True, exist_ok=True)
        arguments = ["--out", str(self.path.resolve()), "--interval", f"{INTERVAL_S:g}"]
        arguments += ["--gpus", ",".join(self.gpus.names)]
        if self.gpus.spares:
            arguments += ["--spares", ",".join(self.gpus.spares)]
        if url := os.environ.get(DCGM_VARIABLE):
            arguments += ["--dcgm", url]
        errors = self.path.with_suffix(".err")
        self._helper = await HelperProcess.start("it", self.host, "mtpbench.power.agent", arguments, errors)
        await self._helper.ready(READY_TIMEOUT_S)

    async def _compare_clocks(self) -> ClockOffset:
        if self.host.launch and self._helper is not None:
            return await self._helper.clock_offset()
        # On one host every process has the same monotonic clock.
        return ClockOffset(offset_ns=time.monotonic_ns() - time.perf_counter_ns())

    async def _ask(self, word: str) -> dict[str, Any]:
        if self._helper is None:
            raise RunError("it does not run")
        return await self._helper.ask(word)

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
