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
from mtpbench.power.nodes import Gathered, NodeGpus, NodeLog, gather
from mtpbench.records import GpuCondition, IdlePower, IdleState, PowerSample
from mtpbench.station import Station

SIMULATED = Gathered(source="simulated")
"""The embedded engine tells its power with its counters, which are scraped anyway."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeteredNode:
    """A node whose GPUs are read, and where its sampler runs."""

    gpus: NodeGpus
    station: Station


class Meter:
    """An async context; its samplers run while the block does.

    `source` and `reason` go into a point's facts: exactly one of them says something. `notes` are what a
    reader of the figures should know besides, `conditions` what the GPUs said of themselves.

    Args:
        nodes: whose GPUs are read.
        directory: where the samplers' files stay; every node sees it.
        instead: what is known without a sampler: another source, or why there is none.
    """

    def __init__(
        self, nodes: Sequence[MeteredNode], directory: Path, instead: Gathered | None = None
    ) -> None:
        self._samplers = [HostSampler(node.gpus, node.station, directory) for node in nodes]
        self._seen = instead or Gathered(reason="no_power_source")
        self._logs: dict[int, NodeLog] = {}
        self._faults: dict[int, str] = {}
        self.notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """What is read, in words; `none` where nothing is."""
        return self._seen.source

    @property
    def reason(self) -> str | None:
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

    async def __aenter__(self) -> Self:
        await self.begin()
        await self.end()
        if self.reason is not None:
            # What can't be read now is not asked for again at every point.
            await self._stop()
            self._samplers = []
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
        """Every sampler reads once more; what was read since `begin` is at hand then."""
        if not self._samplers:
            return
        self._logs = {}
        await asyncio.gather(*(self._end(sampler) for sampler in self._samplers))
        if self._faults:
            node, fault = min(self._faults.items())
            where = f" (node {node})" if len(self._samplers) > 1 else ""
            self._seen = Gathered(reason=f"sampler_failed: {fault}{where}")
        else:
            self._seen = self._gather(0.0)
        self.notes = self._describe()

    def samples(self, origin: float) -> list[PowerSample]:
        """What was read between both, in seconds since `origin` (a `time.perf_counter()` value)."""
        known = self._seen.reason is None and self._logs
        return list(self._gather(origin).samples) if known else []

    async def rest(self, state: IdleState, seconds: float) -> tuple[IdlePower, ...]:
        """Idle power over so many seconds from now; empty, and at once, where nothing can be read."""
        if not self._samplers or self.reason is not None or seconds <= 0:
            return ()
        await self.begin()
        # A reading on either side of both edges, so that the whole time is covered.
        await asyncio.sleep(2 * INTERVAL_S)
        origin = time.perf_counter()
        await asyncio.sleep(seconds)
        await self.end()
        if self.reason is not None:
            return (IdlePower(state=state, duration_s=seconds, power_w_per_gpu=None, reason=self.reason),)
        held = sum(len(sampler.gpus.owners) for sampler in self._samplers)
        return (measure_idle(self.samples(origin), state, seconds, held),)

    async def _stop(self) -> None:
        await asyncio.gather(*(sampler.stop() for sampler in self._samplers))

    def _gather(self, origin: float) -> Gathered:
        return gather([sampler.gpus for sampler in self._samplers], self._logs, origin)

    async def _begin(self, sampler: HostSampler) -> None:
        try:
            await sampler.begin()
        except (OSError, RunError) as why:
            self._faults[sampler.gpus.node] = str(why)

    async def _end(self, sampler: HostSampler) -> None:
        node = sampler.gpus.node
        if node in self._faults:
            return
        try:
            self._logs[node] = await sampler.end()
        except (OSError, RunError) as why:
            self._faults[node] = str(why)

    def _describe(self) -> tuple[str, ...]:
        """Every source that was looked for, what died, how well clocks agree, what held clocks back."""
        said: list[str] = []
        if first := next(iter(self._logs.values()), None):
            said += [f"power: {probe.source}: {probe.reason or probe.says}" for probe in first.log.probes]
        died = [sampler for sampler in self._samplers if sampler.died]
        said += [f"the power sampler of node {one.gpus.node} died: {one.died}" for one in died]
        if away := [one.clock_error_s for one in self._samplers if one.station.launch]:
            said.append(
                f"power: the clocks of {len(away)} nodes are known to within {max(away) * 1e3:.1f} ms"
            )
        return (*said, *hindrances(self._seen.conditions))
