"""Workers behind a router, on a clock of events: least-loaded dispatch, prefill, transfer, decode. No I/O."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence

from mtpbench.errors import InputError
from mtpbench.records import EngineLimits, Topology, WorkerGroup, WorkerRole
from mtpbench.simengine.profile import Profile
from mtpbench.simengine.steps import Costs, Drafts, Emission, TokenSequence
from mtpbench.simengine.worker import Worker


def make_worker(
    group: WorkerGroup, profile: Profile, limits: EngineLimits, rates: Sequence[float], seed: Sequence[int]
) -> Worker:
    """One worker of a group; `rates` is empty where speculation is off. Prefill workers never draft."""
    drafting = bool(rates) and group.role != "prefill"
    return Worker(
        role=group.role,
        ranks=group.dp,
        costs=Costs.of(profile, group, len(rates) if drafting else 0, limits),
        limits=limits,
        drafts=Drafts(rates, seed) if drafting else None,
    )


class Cluster:
    """All workers of one topology, and the time-ordered events between them.

    Args:
        topology: one aggregated group, or a prefill and a decode group.
        profile: what everything costs.
        limits: by worker role.
        rates: unconditional acceptance rates, empty where speculation is off.
        seed: of the drafts.
    """

    def __init__(
        self,
        topology: Topology,
        profile: Profile,
        limits: Mapping[WorkerRole, EngineLimits],
        rates: Sequence[float],
        seed: int,
    ) -> None:
        self.names: list[str] = []
        self.workers: list[Worker] = []
        self.gpus: list[int] = []
        for group in topology.groups:
            for i in range(group.workers):
                stream = [seed, 3, len(self.workers)]
                self.workers.append(make_worker(group, profile, limits[group.role], rates, stream))
                self.names.append(f"{group.role}-{i}")
                self.gpus.append(group.gpus_per_worker)
        self._fronts = [i for i, w in enumerate(self.workers) if w.role != "decode"]
        self._backs = [i for i, w in enumerate(self.workers) if w.role == "decode"]
        if not self._fronts or (self.workers[self._fronts[0]].role == "prefill") != bool(self._backs):
            raise InputError(f"topology {topology.name}: one aggregated, or a prefill and a decode group")
        self._load = [0] * len(self.workers)
        self._profile = profile
        self._heap: list[tuple[float, int, int, list[TokenSequence] | None]] = []
        self._order = 0
        self._touched: set[int] = set()

    @property
    def next_s(self) -> float:
        """The time of the next event; infinite where none lies ahead."""
        return self._heap[0][0] if self._heap else math.inf

    def submit(self, key: int, prompt: int, total: int) -> None:
        """Hand a request to the front worker with the fewest; it starts with the next `kick`."""
        self._dispatch(self._fronts, TokenSequence(key, prompt, total), kv_ready=False)

    def kick(self, now_s: float) -> list[Emission]:
        """Start a step on every idle worker that was given something; answers first tokens of admission."""
        emissions: list[Emission] = []
        for i in self._touched:
            worker = self.workers[i]
            if not worker.busy:
                end_s = worker.begin(now_s)
                if end_s is not None:
                    self._push(end_s, i, None)
                emissions += self._settle(i, worker)
        self._touched.clear()
        return emissions

    def advance(self) -> list[Emission]:
        """Play the next event and answer the token events that came of it; `kick` afterwards."""
        now_s, _, i, arrived = heapq.heappop(self._heap)
        if arrived is not None:
            for sequence in arrived:
                self._dispatch(self._backs, sequence, kv_ready=True)
            return []
        worker = self.workers[i]
        worker.finish()
        self._touched.add(i)
        if worker.prefilled:
            self._transfer(i, worker, now_s)
        return self._settle(i, worker)

    def _settle(self, i: int, worker: Worker) -> list[Emission]:
        emissions = worker.take_emissions()
        for emission in emissions:
            self._load[i] -= len(emission.done)
        return emissions

    def _push(self, time_s: float, i: int, sequences: list[TokenSequence] | None) -> None:
        self._order += 1
        heapq.heappush(self._heap, (time_s, self._order, i, sequences))

    def _dispatch(self, among: list[int], sequence: TokenSequence, *, kv_ready: bool) -> None:
        load = self._load
        i = min(among, key=load.__getitem__) if len(among) > 1 else among[0]
        load[i] += 1
        self.workers[i].submit(sequence, kv_ready=kv_ready)
        self._touched.add(i)

    def _transfer(self, i: int, worker: Worker, now_s: float) -> None:
        sequences = worker.take_prefilled()
        self._load[i] -= len(sequences)
        longest = max(sequence.prompt for sequence in sequences)
        self._push(now_s + self._profile.transfer_s(longest), -1, sequences)
