"""The meter of the GPUs of one start of a deployment: a sampler on every node, from before the servers start.

Samplers run all the time, so that one log holds idle power, every point, and what lies between them
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
from typing import Self

from mtpbench.errors import RunError
from mtpbench.hardware import power_limits_w
from mtpbench.metrics.energy import measure_idle
from mtpbench.power.log import PowerLog, parse, unread
from mtpbench.power.nodes import Gathered, NodeGpus, NodeLog, gather, hindrances, read_past, readings
from mtpbench.records import GpuCondition, IdlePower, IdleState, PowerSample, PowerSource, Reason
from mtpbench.remote import ClockOffset, HelperProcess, Host

EDGE_S = 2.5
"""How long a source may take to give a new reading; an exporter collects about every second."""
SETTLE_S = 0.3

SIMULATED = Gathered(source=PowerSource(meter="simulated", counter=True))
"""The power of the embedded engine stands beside its counters, which are scraped anyway."""
INTERVAL_S = 0.1
READY_TIMEOUT_S = 30.0
FILE_DELAY_S = 10.0
"""How long a shared filesystem may take to show what another host wrote."""
DCGM_VARIABLE = "MTPBENCH_DCGM_URL"
"""The metrics page of a DCGM exporter, for nodes without NVML; `localhost` is each node itself."""


class HostSampler:
    """A host sampler controls the sampler process of one node.

    A process that died, or did not answer in time, is started again by the next `begin`.

    Args:
        gpus: the GPUs that it reads.
        host: the host where it runs.
        directory: the folder of its files, which both hosts see.
    """

    def __init__(self, gpus: NodeGpus, host: Host, directory: Path) -> None:
        self.gpus, self.host = gpus, host
        self.trouble: str | None = None
        self._directory = directory
        self._helper: HelperProcess | None = None
        self._starts = 0
        self._from = 0
        self._clock: ClockOffset | None = None

    @property
    def path(self) -> Path:
        """Returns the file that the sampler writes; each start has another one."""
        again = f".{self._starts}" if self._starts > 1 else ""
        return self._directory / f"power-node{self.gpus.node}{again}.jsonl"

    @property
    def clock_error_s(self) -> float | None:
        """Returns by how much the offset of its clock may be wrong; None where it was not compared."""
        return None if self._clock is None else self._clock.error_ns / 1e9

    async def begin(self) -> None:
        """Marks the start of the readings to keep, with the last one before; starts the sampler if needed.

        Raises:
            OSError: the sampler can't be started.
            RunError: the sampler was not ready in time, or does not answer.
        """
        self.trouble = self._clock = None
        if self._helper is None or not self._helper.running:
            await self._start()
        self._clock = await self._compare_clocks()
        self._from = await self._tick("from")

    async def look(self) -> NodeLog:
        """Returns its readings since `begin`, with one more; of a dead sampler, those that it had written.

        Raises:
            OSError: the sampler's file can't be read.
            RunError: the sampler wrote nothing that can be read.
        """
        if self._clock is None:
            raise RunError("its clock was not compared")
        size = 0
        try:
            size = await self._tick("size")
        except RunError as why:
            self.trouble = str(why)
        try:
            log = await asyncio.to_thread(self._read, size)
        except ValueError as error:
            raise RunError(f"{self.path.name}: {error}") from error
        return NodeLog(log=log, offset_s=self._clock.offset_ns / 1e9)

    async def compare_again(self) -> None:
        """Compares the clocks again: the offset becomes the mean, half of the drift is added to its error.

        A clock that was not compared at the start stays so: what it did since is unknown.
        """
        first = self._clock
        if first is None:
            return
        try:
            last = await self._compare_clocks()
        except RunError as why:
            # The readings are there; the drift of the clocks is unknown, and the notes say so.
            self.trouble = f"its clock was asked before the point only: {why}"
            return
        drift_ns = abs(last.offset_ns - first.offset_ns)
        self._clock = ClockOffset(
            offset_ns=(first.offset_ns + last.offset_ns) // 2,
            error_ns=max(first.error_ns, last.error_ns) + drift_ns // 2,
        )

    async def stop(self) -> None:
        """Lets the sampler read once more, and ends it."""
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
        """Returns the offset of the sampler's clock; exact on this host."""
        if self.host.launch and self._helper is not None:
            return await self._helper.clock_offset()
        # On one host every process has the same monotonic clock.
        return ClockOffset(offset_ns=time.monotonic_ns() - time.perf_counter_ns())

    async def _tick(self, field: str) -> int:
        if self._helper is None:
            raise RunError("it does not run")
        return await self._helper.ask_number("tick", field)

    def _read(self, size: int) -> PowerLog:
        """Returns its log from `begin` on, with the first line, as soon as `size` bytes of it can be seen."""
        deadline = time.monotonic() + FILE_DELAY_S
        while True:
            # Opened again each time: only then does the client of a file server look for new content.
            with self.path.open("rb") as file:
                visible_size = os.fstat(file.fileno()).st_size
                if visible_size >= size:
                    head = file.readline()
                    file.seek(max(file.tell(), self._from))
                    return parse((head + file.read()).decode("utf-8", "replace"))
            if time.monotonic() > deadline:
                raise RunError(f"{self.path.name} shows {visible_size} of the {size} bytes that were written")
            time.sleep(0.1)


@dataclass(frozen=True, kw_only=True, slots=True)
class MeteredNode:
    """A metered node has GPUs that are read, and a host where its sampler runs."""

    gpus: NodeGpus
    host: Host


class Meter:
    """A meter reads the GPUs of a deployment; its samplers run while its async context does.

    `source` and `reason` go into a point's facts: exactly one of them is given. `notes` are sentences for the
    reader of the figures, `conditions` the states of the GPUs.

    Args:
        nodes: the nodes whose GPUs are read.
        directory: the folder of the samplers' files, which every node sees.
        instead: the result where no sampler runs: another source, or why there is none.
    """

    def __init__(
        self, nodes: Sequence[MeteredNode], directory: Path, instead: Gathered | None = None
    ) -> None:
        self._samplers = [HostSampler(node.gpus, node.host, directory) for node in nodes]
        self._gpus = [node.gpus for node in nodes]
        self._gathered = instead or Gathered(reason=unread("no_power_source", "nothing was read yet"))
        self._logs: dict[int, NodeLog] = {}
        self._faults: dict[int, str] = {}
        self.notes: tuple[str, ...] = ()

    @property
    def source(self) -> PowerSource | None:
        """Returns the source that is read, or None."""
        return self._gathered.source

    @property
    def reason(self) -> Reason | None:
        """Returns why nothing is read, or None."""
        return self._gathered.reason

    @property
    def conditions(self) -> tuple[GpuCondition, ...]:
        """Returns the conditions of the GPUs between `begin` and `end`."""
        return self._gathered.conditions

    @property
    def driver(self) -> str | None:
        """Returns the version of the GPUs' driver, several with commas; None where it is unknown."""
        return ", ".join(self._gathered.drivers) or None

    @property
    def grace_reason(self) -> str | None:
        """Returns the code of why there is no figure of the Grace CPUs, or None."""
        return self._gathered.grace_reason

    async def __aenter__(self) -> Self:
        try:
            await self.begin()
            await self.end()
            if self.reason is not None:
                # What can't be read now is not tried again at every point.
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
        """Marks the start of the readings to keep; a sampler that has died is started again."""
        self._faults = {}
        await asyncio.gather(*(self._begin(sampler) for sampler in self._samplers))

    async def end(self) -> None:
        """Marks the end of the readings to keep; waits up to `EDGE_S` for one more reading of every GPU."""
        if not self._samplers:
            return
        edge, self._logs = time.perf_counter(), {}
        while True:
            await asyncio.gather(*(self._look(sampler) for sampler in self._samplers))
            over = time.perf_counter() > edge + EDGE_S
            sourceless = any(node_log.log.gpu_probe is None for node_log in self._logs.values())
            hopeless = self._faults or sourceless or any(sampler.trouble for sampler in self._samplers)
            if over or hopeless or read_past(self._gpus, self._logs, edge):
                break
            await asyncio.sleep(2 * INTERVAL_S)
        await asyncio.gather(*(sampler.compare_again() for sampler in self._samplers if sampler.host.launch))
        if self._faults:
            node, fault = min(self._faults.items())
            self._gathered = Gathered(reason=unread("sampler_failed", f"{fault}{self._where(node)}"))
        else:
            self._gathered = gather(self._gpus, self._logs)
        self.notes = self._describe()

    def samples(self, origin: float) -> list[PowerSample]:
        """Returns the readings between both, in seconds since `origin` (a `time.perf_counter()` value)."""
        if self._gathered.reason is not None or not self._logs:
            return []
        return readings(self._gpus, self._logs, origin, grace=self._gathered.grace_reason is None)

    async def rest(self, state: IdleState, seconds: float) -> tuple[IdlePower, ...]:
        """Returns idle power over the next `seconds`; at once, with the reason, where nothing can be read."""
        if not self._gpus or seconds <= 0:
            return ()
        duration_s = 0.0
        if self._samplers:
            await self.begin()
            origin = time.perf_counter()
            await asyncio.sleep(seconds)
            duration_s = time.perf_counter() - origin
            # A counter covers a moment only when it next moves, which takes up to a quarter of a second.
            await asyncio.sleep(SETTLE_S)
            await self.end()
        if self.reason is not None:
            return (IdlePower(state=state, duration_s=duration_s, power_w_per_gpu=None, reason=self.reason),)
        held = sum(len(gpus.owners) for gpus in self._gpus)
        limits_w = power_limits_w(self.conditions, self.source)
        return (measure_idle(self.samples(origin), state, duration_s, held, limits_w=limits_w),)

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
        """Returns the notes: the sources that were probed, dead samplers, clock errors, clocks held back."""
        notes: list[str] = []
        for node, node_log in sorted(self._logs.items()):
            where = self._where(node)
            notes += [f"power: {probe.kind}: {probe.reason or probe.source}" for probe in node_log.log.probes]
            late, worst_s = node_log.log.late
            if late:
                notes.append(f"power: {late} readings took up to {worst_s:.1f} s and were left out{where}")
            if node_log.log.damaged:
                notes.append(f"power: {node_log.log.damaged} lines of the log are damaged{where}")
        troubled = [sampler for sampler in self._samplers if sampler.trouble]
        notes += [f"power sampler of node {sampler.gpus.node}: {sampler.trouble}" for sampler in troubled]
        others = (sampler.clock_error_s for sampler in self._samplers if sampler.host.launch)
        if errors_s := [error_s for error_s in others if error_s is not None]:
            worst_ms = max(errors_s) * 1e3
            notes.append(f"power: the clocks of {len(errors_s)} nodes are known to within {worst_ms:.1f} ms")
        return (*dict.fromkeys(notes), *hindrances(self._gathered.conditions))
