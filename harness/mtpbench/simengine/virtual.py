"""Pure: the virtual clock: a whole point in one process, as fast as it computes.

`Cluster` holds the workers and the events between them: least-loaded dispatch, prefill, transfer, decode.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mtpbench.errors import InputError, UnsupportedError
from mtpbench.load.pacer import Pacer, Schedule, Turn
from mtpbench.metrics.request_table import UNKNOWN, Ints, RequestTable, whole_us
from mtpbench.records import (
    CounterSample,
    EngineLimits,
    Point,
    PowerSample,
    SpecCounters,
    Topology,
    WorkerRole,
)
from mtpbench.simengine.drafting import Drafting, drafting_of
from mtpbench.simengine.engine_steps import Emission, TokenSequence
from mtpbench.simengine.faults import SILENTLY_OFF
from mtpbench.simengine.profile import Profile, load_profile
from mtpbench.simengine.worker_model import Worker, make_worker
from mtpbench.workload import Lengths

_MAX_SAMPLES = 512
_MAX_POWER_SAMPLES = 40_000


class Cluster:
    """A cluster holds all workers of one topology, and the time-ordered events between them.

    Args:
        topology: one aggregated group, or a prefill and a decode group.
        profile: the step costs.
        limits: by worker role.
        drafting: what workers that decode draft; None where speculation is off.
        seed: of the drafts.
    """

    def __init__(
        self,
        topology: Topology,
        profile: Profile,
        limits: Mapping[WorkerRole, EngineLimits],
        drafting: Drafting | None,
        seed: int,
    ) -> None:
        self.names: list[str] = []
        self.workers: list[Worker] = []
        self.gpus: list[int] = []
        for group in topology.groups:
            for i in range(group.workers):
                stream = [seed, 3, len(self.workers)]
                self.workers.append(make_worker(group, profile, limits[group.role], drafting, stream))
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
        """Returns the time of the next event; infinite where there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def submit(self, key: int, prompt: int, total: int) -> None:
        """Gives a request to the front worker with the fewest requests, which `start_steps` then starts."""
        self._dispatch(self._fronts, TokenSequence(key, prompt, total), kv_ready=False)

    def start_steps(self, now_s: float) -> list[Emission]:
        """Starts a step on every idle worker with new work; returns first tokens of admitted sequences."""
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
        """Plays the next event, and returns its token events; `start_steps` follows."""
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


@dataclass(frozen=True, kw_only=True, eq=False)
class VirtualRun:
    """A virtual run holds the raw records of a point on the virtual clock, as a real run would leave them."""

    requests: RequestTable
    counters: tuple[CounterSample, ...]
    power: tuple[PowerSample, ...]


def simulate_point(
    point: Point, limits: Mapping[WorkerRole, EngineLimits], lengths: Lengths, schedule: Schedule
) -> VirtualRun:
    """Plays a point's load to its end on the embedded engine.

    Args:
        point: its `simulation.profile` gives the costs; its arm the drafts and their acceptance rates.
        limits: scheduler limits by worker role.
        lengths: of at least `schedule.total` requests.
        schedule: when which request may start; a closed or an open loop.

    Raises:
        InputError: the profile, the limits or the lengths don't fit the point.
        UnsupportedError: the point has faults that only processes can play.
    """
    if point.simulation is None:
        raise InputError(f"point {point.id} has no simulation: it names no profile to take costs from")
    _check_lengths(lengths, schedule.total)
    profile = load_profile(point.simulation.profile)
    cluster = Cluster(point.topology, profile, limits, _drafting(point), point.seed)
    return play_schedule(cluster, schedule, lengths, point.measurement.sample_interval_s)


def play_schedule(
    cluster: Cluster, schedule: Schedule, lengths: Lengths, sample_interval_s: float
) -> VirtualRun:
    """Plays a schedule on a fresh cluster; `sample_interval_s` is the finest sampling step."""
    recorder = _Recorder(schedule.total, lengths)
    sampler = _Sampler(cluster, sample_interval_s)
    _Player(cluster, schedule.share(0, 1), recorder, sampler).play()
    return VirtualRun(requests=recorder.table(), counters=sampler.counters(), power=sampler.power())


def _check_lengths(lengths: Lengths, requests: int) -> None:
    count = min(len(lengths.prompt_tokens), len(lengths.output_tokens))
    if count < requests:
        raise InputError(f"lengths of {count} requests were given, the schedule sends {requests}")
    if requests and min(lengths.prompt_tokens.min(), lengths.output_tokens.min()) < 1:
        raise InputError("a request needs at least 1 prompt and 1 output token")


def _drafting(point: Point) -> Drafting | None:
    faults = point.simulation.faults if point.simulation else ()
    if others := sorted({fault.kind for fault in faults} - {SILENTLY_OFF}):
        raise UnsupportedError(
            f"fault {', '.join(others)} needs processes; the virtual clock plays {SILENTLY_OFF} only "
            "(use the real or the scaled clock)"
        )
    return None if faults else drafting_of(point)


class _Player:
    """A player starts requests when they are due, and plays the cluster's events until there are no more."""

    def __init__(self, cluster: Cluster, pacer: Pacer, recorder: _Recorder, sampler: _Sampler) -> None:
        self._cluster, self._pacer, self._recorder, self._sampler = cluster, pacer, recorder, sampler
        self._prompts, self._outputs = recorder.prompts.tolist(), recorder.outputs.tolist()
        self._due_ns: int | None = None

    def play(self) -> None:
        cluster, sampler = self._cluster, self._sampler
        self._start_due(0)
        now_s = 0.0
        sampler.sample(0.0)
        while True:
            while emissions := cluster.start_steps(now_s):
                self._record(emissions)
            event_s, due_ns = cluster.next_s, self._due_ns
            if due_ns is not None and due_ns * 1e-9 < event_s:
                now_s = max(now_s, due_ns * 1e-9)
                sampler.sample_until(now_s)
                self._start_due(due_ns)
            elif event_s < math.inf:
                now_s = event_s
                if now_s >= sampler.next_s:
                    sampler.sample_until(now_s)
                self._record(cluster.advance())
            else:
                break
        sampler.sample(now_s)
        # Times of requests are rounded to whole microseconds: the last one may lie behind this reading.
        sampler.sample(sampler.next_s)

    def _start_due(self, now_ns: int) -> None:
        while turn := self._pacer.take(now_ns):
            self._recorder.start(turn, now_ns)
            self._cluster.submit(turn.index, self._prompts[turn.index], self._outputs[turn.index])
        self._due_ns = self._pacer.next_due_ns()

    def _record(self, emissions: list[Emission]) -> None:
        recorder = self._recorder
        for emission in emissions:
            recorder.events(emission)
            if emission.done:
                # Whole microseconds, as they are recorded: a slot's next request is due when its last ended.
                now_ns = round(emission.time_s * 1e6) * 1000
                for key in emission.done:
                    self._pacer.end(recorder.in_flight.pop(key), now_ns)
                self._start_due(now_ns)


class _Recorder:
    """The recorder collects requests and their token events."""

    def __init__(self, count: int, lengths: Lengths) -> None:
        self.prompts: Ints = lengths.prompt_tokens[:count]
        self.outputs: Ints = lengths.output_tokens[:count]
        self.in_flight: dict[int, Turn] = {}
        self._slot, self._due_us, self._sent_us = ([0] * count for _ in range(3))
        self._warmup = [False] * count
        self._times: list[float] = []
        self._keys: list[Ints] = []
        self._tokens: list[Ints] = []

    def start(self, turn: Turn, now_ns: int) -> None:
        index = turn.index
        self.in_flight[index] = turn
        self._slot[index], self._warmup[index] = turn.slot, turn.warmup
        self._due_us[index], self._sent_us[index] = turn.due_ns // 1000, now_ns // 1000

    def events(self, emission: Emission) -> None:
        self._times.append(emission.time_s)
        self._keys.append(emission.keys)
        self._tokens.append(emission.tokens)

    def table(self) -> RequestTable:
        n = len(self.prompts)
        sizes = np.fromiter(map(len, self._keys), np.int64, len(self._keys))
        keys = np.concatenate(self._keys)
        order = np.argsort(keys, kind="stable")
        times_us = np.repeat(whole_us(np.array(self._times)), sizes)[order]
        tokens = np.concatenate(self._tokens)[order]
        offsets = np.concatenate(([0], np.cumsum(np.bincount(keys, minlength=n)))).astype(np.int64)
        last = offsets[1:] - 1
        return RequestTable(
            index=np.arange(n, dtype=np.int64),
            slot=np.array(self._slot, np.int64),
            warmup=np.array(self._warmup, np.bool_),
            scheduled_us=np.array(self._due_us, np.int64),
            sent_us=np.array(self._sent_us, np.int64),
            end_us=times_us[last],
            asked_prompt_tokens=self.prompts,
            asked_output_tokens=self.outputs,
            prompt_tokens=self.prompts,
            output_tokens=tokens[last],
            cached_prompt_tokens=np.full(n, UNKNOWN, np.int64),
            reasoning_tokens=np.full(n, UNKNOWN, np.int64),
            finish_reason=np.full(n, "length", object),
            error=np.full(n, None, object),
            error_detail=np.full(n, None, object),
            chunk_offsets=offsets,
            chunk_times_us=times_us,
            chunk_tokens=tokens,
        )


class _Sampler:
    """The sampler reads counters and energy of every worker on a time grid that gets coarser as it grows."""

    def __init__(self, cluster: Cluster, interval_s: float) -> None:
        self._cluster, self._interval_s = cluster, interval_s
        self._times: list[float] = []
        self._counters: list[list[SpecCounters | None]] = []
        self._energy: list[list[float]] = []
        self.next_s = interval_s

    def sample_until(self, now_s: float) -> None:
        """Takes the grid's samples up to `now_s`; the state has not changed since the last event."""
        while self.next_s <= now_s:
            self.sample(self.next_s)
            if len(self._times) >= _MAX_SAMPLES:
                self._interval_s *= 2
                for column in (self._times, self._counters, self._energy):
                    del column[1::2]
            self.next_s += self._interval_s

    def sample(self, now_s: float) -> None:
        workers = self._cluster.workers
        self._times.append(now_s)
        self._counters.append([w.counters() for w in workers])
        self._energy.append([w.energy_j(now_s) for w in workers])

    def counters(self) -> tuple[CounterSample, ...]:
        """Returns one sample per grid time for every worker that decodes."""
        return tuple(
            CounterSample(
                time_s=time_s,
                process=name,
                counters=counters[i],
                reason=None if counters[i] else "speculation is off",
            )
            for time_s, counters in zip(self._times, self._counters, strict=True)
            for i, name in enumerate(self._cluster.names)
            if self._cluster.workers[i].role != "prefill"
        )

    def power(self) -> tuple[PowerSample, ...]:
        """Returns samples of every GPU of every worker; the power is the mean since the sample before."""
        gpus = self._cluster.gpus
        stride = max(1, -(-len(self._times) * sum(gpus) // _MAX_POWER_SAMPLES))
        rows = sorted({*range(0, len(self._times), stride), len(self._times) - 1})
        samples = []
        for before, row in zip([None, *rows], rows, strict=False):
            time_s, energy = self._times[row], self._energy[row]
            for i, name in enumerate(self._cluster.names):
                power_w = self._cluster.workers[i].costs.idle_w
                if before is not None and time_s > self._times[before]:
                    power_w = (energy[i] - self._energy[before][i]) / (time_s - self._times[before])
                samples += [
                    PowerSample(time_s=time_s, process=name, gpu=gpu, power_w=power_w, energy_j=energy[i])
                    for gpu in range(gpus[i])
                ]
        return tuple(samples)
