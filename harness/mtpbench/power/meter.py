"""Meters the GPUs of one start of a deployment: a sampler on every node, from before the servers start.

Samplers run all the while, so that idle power, every point, and what lies between them stand in one record
(`power-node<i>.jsonl` beside the servers' logs); each point takes its part of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mtpbench.errors import RunError
from mtpbench.power.conditions import hindrances
from mtpbench.power.energy import measure_idle
from mtpbench.power.host import INTERVAL_S, HostSampler
from mtpbench.power.nodes import Gathered, NodeGpus, NodeLog, gather, read_past, readings
from mtpbench.power.source import unread
from mtpbench.records import GpuCondition, IdlePower, IdleState, PowerSample, PowerSource, Reason
from mtpbench.remote.hosts import Host

EDGE_S = 2.5
"""How long a source may take to say something new; an exporter collects every second or so."""
SETTLE_S = 0.3

SIMULATED = Gathered(source=PowerSource(meter="simulated", counter=True))
"""The embedded engine tells its power with its counters, which are scraped anyway."""


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
        said: list[str] = []
        for node, seen in sorted(self._logs.items()):
            where = self._where(node)
            said += [f"power: {probe.kind}: {probe.reason or probe.source}" for probe in seen.log.probes]
            late, worst_s = seen.log.late
            if late:
                said.append(f"power: {late} readings took up to {worst_s:.1f} s and were left out{where}")
            if seen.log.damaged:
                said.append(f"power: {seen.log.damaged} lines of the log are damaged{where}")
        troubled = [sampler for sampler in self._samplers if sampler.trouble]
        said += [f"power sampler of node {one.gpus.node}: {one.trouble}" for one in troubled]
        if away := [one.clock_error_s for one in self._samplers if one.host.launch]:
            worst_ms = max(away) * 1e3
            said.append(f"power: the clocks of {len(away)} nodes are known to within {worst_ms:.1f} ms")
        return (*dict.fromkeys(said), *hindrances(self._seen.conditions))
