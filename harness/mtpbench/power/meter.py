"""Meters the GPUs of one start of a deployment: a sampler on every node, from before the servers start.

Samplers run all the while, so that idle power, every point, and what lies between them stand in one record
(`power-node<i>.jsonl` beside the servers' logs); each point takes its part of it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mtpbench.errors import RunError
from mtpbench.metrics.energy import measure_idle
from mtpbench.power.log import PowerLog, parse, unread
from mtpbench.power.nodes import Gathered, NodeGpus, NodeLog, gather, hindrances, read_past, readings
from mtpbench.records import GpuCondition, IdlePower, IdleState, PowerSample, PowerSource, Reason
from mtpbench.remote import ClockOffset, HelperProcess, Host

EDGE_S = 2.5
"""How long a source may take to say something new; an exporter collects every second or so."""
SETTLE_S = 0.3

SIMULATED = Gathered(source=PowerSource(meter="simulated", counter=True))
"""The embedded engine tells its power with its counters, which are scraped anyway."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class MeteredNode:
    """A node whose GPUs are read, and where its sampler runs."""

    gpus: NodeGpus
    host: Host


class Meter:
    """An async context; its samplers run while the block does.

    `source` and `reason` go into a point's facts: exactly one of them is given. `notes` are what a
    reader of the figures should know besides, `conditions` what the GPUs said of themselves.

    Args:
        nodes: whose GPUs are read.
        directory: where the samplers' files stay; every node sees it.
        instead: what is known without a sampler: another source, or why there is none.
    """

    def __init__(
        self, nodes: Sequence[MeteredNode], directory: Path, instead: Gathered | None = None
    ) -> None:
        self._samplers = [HostSampler(node.gpus, node.host, directory) for node in nodes]
        self._gpus = [node.gpus for node in nodes]
        self._seen = instead or Gathered(reason=Reason(code="no_power_source"))
        self._logs: dict[int, NodeLog] = {}
        self._faults: dict[int, str] = {}
        self.notes: tuple[str, ...] = ()

    @property
    def source(self) -> PowerSource | None:
        """What is read, or None."""
        return self._seen.source

    @property
    def reason(self) -> Reason | None:
        """Why nothing is read, or None."""
        return self._seen.reason

    @property
    def conditions(self) -> tuple[GpuCondition, ...]:
        """What the GPUs said of themselves between `begin` and `end`."""
        return self._seen.conditions

    @property
    def driver(self) -> str | None:
        """The version of the GPUs' driver, several with commas; None where nobody told it."""
        return ", ".join(self._seen.drivers) or None

    @property
    def grace_reason(self) -> str | None:
        """The code of why there is no figure of the Grace CPUs, or None."""
        return self._seen.grace_reason

    async def __aenter__(self) -> Self:
        try:
            await self.begin()
            await self.end()
            if self.reason is not None:
                # What can't be read now is not asked for again at every point.
                await self._stop()
                self._samplers = []
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def begin(self) -> None:
        """What is read from here on is wanted; a sampler that has died is started anew."""
        self._faults = {}
        await asyncio.gather(*(self._begin(sampler) for sampler in self._samplers))

    async def end(self) -> None:
        """What is wanted ends here: it is at hand when every GPU was read once more, or `EDGE_S` is over."""
        if not self._samplers:
            return
        edge, self._logs = time.perf_counter(), {}
        while True:
            await asyncio.gather(*(self._look(sampler) for sampler in self._samplers))
            over = time.perf_counter() > edge + EDGE_S
            sourceless = any(seen.log.gpu_probe is None for seen in self._logs.values())
            hopeless = self._faults or sourceless or any(sampler.trouble for sampler in self._samplers)
            if over or hopeless or read_past(self._gpus, self._logs, edge):
                break
            await asyncio.sleep(2 * INTERVAL_S)
        await asyncio.gather(*(sampler.compare_again() for sampler in self._samplers if sampler.host.launch))
        if self._faults:
            node, fault = min(self._faults.items())
            self._seen = Gathered(reason=unread("sampler_failed", f"{fault}{self._where(node)}"))
        else:
            self._seen = gather(self._gpus, self._logs)
        self.notes = self._describe()

    def samples(self, origin: float) -> list[PowerSample]:
        """What was read between both, in seconds since `origin` (a `time.perf_counter()` value)."""
        if self._seen.reason is not None or not self._logs:
            return []
        return readings(self._gpus, self._logs, origin, grace=self._seen.grace_reason is None)

    async def rest(self, state: IdleState, seconds: float) -> tuple[IdlePower, ...]:
        """Idle power over so many seconds from now; at once, with the reason, where nothing can be read."""
        if not self._gpus or seconds <= 0:
            return ()
        duration_s = 0.0
        if self._samplers:
            await self.begin()
            origin = time.perf_counter()
            await asyncio.sleep(seconds)
            duration_s = time.perf_counter() - origin
            # A counter tells of a moment when it next moves, which takes up to a quarter of a second.
            await asyncio.sleep(SETTLE_S)
            await self.end()
        if self.reason is not None:
            return (IdlePower(state=state, duration_s=duration_s, power_w_per_gpu=None, reason=self.reason),)
        held = sum(len(gpus.owners) for gpus in self._gpus)
        return (measure_idle(self.samples(origin), state, duration_s, held),)

    async def _stop(self) -> None:
        await asyncio.gather(*(sampler.stop() for sampler in self._samplers))

    async def _begin(self, sampler: HostSampler) -> None:
        try:
            await sampler.begin()
        except (OSError, RunError) as why:
            self._faults[sampler.gpus.node] = str(why)

    async def _look(self, sampler: HostSampler) -> None:
        node = sampler.gpus.node
        if node in self._faults:
            return
        try:
            self._logs[node] = await sampler.look()
        except (OSError, RunError) as why:
            self._faults[node] = str(why)

    def _where(self, node: int) -> str:
        return f" (node {node})" if len(self._gpus) > 1 else ""

    def _describe(self) -> tuple[str, ...]:
        """Every source that was looked for, what died, how well clocks agree, what held clocks back."""
        notes: list[str] = []
        for node, seen in sorted(self._logs.items()):
            where = self._where(node)
            notes += [f"power: {probe.kind}: {probe.reason or probe.source}" for probe in seen.log.probes]
            late, worst_s = seen.log.late
            if late:
                notes.append(f"power: {late} readings took up to {worst_s:.1f} s and were left out{where}")
            if seen.log.damaged:
                notes.append(f"power: {seen.log.damaged} lines of the log are damaged{where}")
        troubled = [sampler for sampler in self._samplers if sampler.trouble]
        notes += [f"power sampler of node {sampler.gpus.node}: {sampler.trouble}" for sampler in troubled]
        if away := [sampler.clock_error_s for sampler in self._samplers if sampler.host.launch]:
            worst_ms = max(away) * 1e3
            notes.append(f"power: the clocks of {len(away)} nodes are known to within {worst_ms:.1f} ms")
        return (*dict.fromkeys(notes), *hindrances(self._seen.conditions))
