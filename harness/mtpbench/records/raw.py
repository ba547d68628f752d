"""What is recorded while a point runs: the raw truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

IdleState = Literal["before_start", "loaded"]
Scope = Literal["gpu", "module", "grace"]
"""What a power figure covers: one GPU board, a module of Grace and GPU together, or a Grace CPU alone."""

_SAYS_IT_ALL = ("nothing_ran", "no_answer", "other")
_SCOPE_TEXT: Mapping[Scope, str] = {"gpu": "GPU scope", "module": "module scope (GPU and its Grace)"}
_POWER_TEXT = {"instant": "instant power", "averaged": "power averaged over 1 s", "exported": "power"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why a figure is unknown, or a point invalid: a stable code of docs/validity.md, and a sentence.

    As text it is `code: detail`, the code alone where there is no detail. Where nobody gave it a code of its
    own (`nothing_ran`, `no_answer` of a node, `other` of an older schema) it is the detail alone.
    """

    code: str
    detail: str = ""

    def __str__(self) -> str:
        if self.code in _SAYS_IT_ALL:
            return self.detail
        return f"{self.code}: {self.detail}" if self.detail else self.code


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerSource:
    """What power is read from, and what its figures cover; sources that differ are never added up.

    Args:
        meter: `nvml`, a `dcgm` exporter, the `grace` rails of hwmon, or the embedded engine (`simulated`).
        counter: whether it has an energy counter.
        power: how its power is told: at this `instant`, `averaged` over 1 s, as an exporter tells it
            (`exported`); None where it has none, or nobody asks.
        scope: what its figures cover; None where they are simulated.
        stamped: whether an exporter gives its values times of its own; None where it is none.
        rail: which rail of a Grace is read; None where it is none.
    """

    meter: Literal["nvml", "dcgm", "grace", "simulated"]
    counter: bool = False
    power: Literal["instant", "averaged", "exported"] | None = None
    scope: Scope | None = None
    stamped: bool | None = None
    rail: Literal["grace", "cpu"] | None = None

    def __str__(self) -> str:
        if self.meter == "simulated":
            return "simulated"
        if self.meter == "grace":
            return f"{'CPU cores' if self.rail == 'cpu' else 'Grace'} power through hwmon, integral of power"
        meter = "dcgm exporter" if self.meter == "dcgm" else "nvml"
        parts = [f"{meter} energy counter" if self.counter else meter]
        if self.power is not None:
            parts.append(_POWER_TEXT[self.power])
        if self.stamped is not None:
            parts.append("its own timestamps" if self.stamped else "times at which its values moved")
        # An exporter says nothing of the usual scope.
        if self.scope is not None and (self.meter, self.scope) != ("dcgm", "gpu"):
            parts.append(_SCOPE_TEXT[self.scope])
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class CounterSource:
    """Where speculation counters come from: the `metrics` pages of an engine's workers, or its own `process`.

    `engine` is None where nobody recorded it.
    """

    kind: Literal["metrics", "process"]
    engine: str | None = None

    def __str__(self) -> str:
        if self.kind == "process":
            return "embedded engine, in process"
        return f"{self.engine or 'engine'} /metrics of every decoding worker"


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestRecord:
    """One request as the client saw it. A failed request is a record too, never dropped.

    Times are engine seconds since the point's start on one monotonic clock. `chunk_tokens` are cumulative
    output tokens after each chunk as the server counted them, or None where it does not say. `error` is
    a short code (`http_503`, `timeout`, `disconnected`, `no_usage`, `stream_error`, `bad_event`, …).
    """

    index: int
    slot: int
    warmup: bool
    scheduled_s: float
    sent_s: float
    end_s: float
    chunk_times_s: tuple[float, ...] = ()
    chunk_tokens: tuple[int, ...] | None = None
    asked_prompt_tokens: int
    asked_output_tokens: int
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    error: str | None = None
    error_detail: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecCounters:
    """An engine's speculation counters at one moment, summed over the ranks of one process.

    `drafts` counts verification steps, None where the engine counts only tokens. `per_position` counts
    accepted drafts by position; empty where the engine does not say.
    """

    drafts: float | None
    draft_tokens: float
    accepted_tokens: float
    per_position: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecGauge:
    """What one rank of an engine without counters says of its last steps: a mean acceptance length.

    `verify_calls` is its counter of verification steps, which weighs the gauge; None where it has none.
    """

    rank: str
    length: float
    verify_calls: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CounterSample:
    """One scrape of one process: counters, or gauges where the engine has no counters, or a reason."""

    time_s: float
    process: str
    counters: SpecCounters | None
    gauges: tuple[SpecGauge, ...] = ()
    reason: str | None = None


GRACE = "grace"
"""What stands for the process in the power samples of a Grace rail: it belongs to none."""
UNUSED = "unused"
"""The same for a GPU that is at hand and that no process holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerSample:
    """One reading of one GPU; `energy_j` is a counter that only rises, NULL where the source has none."""

    time_s: float
    process: str
    gpu: int
    power_w: float | None
    energy_j: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What the user's own evaluation said of the live endpoint; `score` is None with a reason."""

    command: str
    score: float | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """Greedy answers to the fixed prompts, to hold against another arm's; empty with a reason."""

    texts: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class IdlePower:
    """What the deployment's GPUs drew with nothing to do: the floor below every figure; NULL with a reason.

    Args:
        state: `before_start` of the servers, or with the model `loaded` and no request in it.
        duration_s: over how long, in wall seconds.
        power_w_per_gpu: mean over that time and over all GPUs that the deployment holds.
        reason: why there is no figure, or None.
    """

    state: IdleState
    duration_s: float
    power_w_per_gpu: float | None
    reason: Reason | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuCondition:
    """What a GPU said of itself while a point was metered, about every second; NULL where it does not say.

    Args:
        name: `process/meter`; `unused@<node>/meter` for a GPU that no process holds.
        uuid: which GPU it is.
        model: its name, such as `NVIDIA GB200`.
        temperature_max_c: the hottest that was seen.
        power_cap_min_w, power_cap_max_w: the enforced power limits that were seen.
        clock_reasons: why its clocks were not higher, all that were ever seen, by NVML's names.
    """

    name: str
    uuid: str | None
    model: str | None = None
    temperature_max_c: float | None = None
    power_cap_min_w: float | None = None
    power_cap_max_w: float | None = None
    clock_reasons: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientHealth:
    """How the load client itself did; a client that is the bottleneck makes the point invalid.

    Figures are over the steady-state window and over all client processes; NULL where a figure does not exist
    (the virtual clock has no client, user-space stamps no drift).

    Args:
        transport: `fast` or `aiohttp`.
        stamps: who stamped the reads: the `kernel`, or the client in `user` space.
        workers: client processes.
        hosts: where they ran.
        host_clock_error_s: how far the clocks of several hosts may disagree; NULL on one host.
        reader_lag_p50_s, reader_lag_p99_s: from the arrival of bytes (kernel stamps), or from a due wake-up
            (user stamps), to the reader.
        send_lag_p50_s, send_lag_p99_s: from the moment a request was due to its first byte.
        reads: reads from the network.
        coalesced_reads: those that held several events which may have come more than 1 ms apart.
        cpu_share: CPU seconds per second of the busiest process.
        achieved_concurrency: requests in flight, averaged.
        concurrency_over_time: the same over equal parts of the window.
        late_starts: requests of an open loop whose time came before one in flight had ended.
        unsent: requests that were never sent.
        clock_drift_s: how far the wall clock that stamps moved against the monotonic one.
        clock_step_s: its largest jump.
        descriptor_limit: open files that each process may have.
        local_ports: connections that this machine can have to one address.
        peak_rss_bytes: peak memory of all processes.
    """

    transport: str | None = None
    stamps: str | None = None
    workers: int | None = None
    hosts: tuple[str, ...] = ()
    host_clock_error_s: float | None = None
    reader_lag_p50_s: float | None = None
    reader_lag_p99_s: float | None = None
    send_lag_p50_s: float | None = None
    send_lag_p99_s: float | None = None
    reads: int | None = None
    coalesced_reads: int | None = None
    cpu_share: float | None = None
    achieved_concurrency: float | None = None
    concurrency_over_time: tuple[float, ...] = ()
    late_starts: int | None = None
    unsent: int | None = None
    clock_drift_s: float | None = None
    clock_step_s: float | None = None
    descriptor_limit: int | None = None
    local_ports: int | None = None
    peak_rss_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What happened to a point that its request table can't tell.

    Args:
        start_failed: why the deployment never became ready, or None.
        server_died: which process ended while the point ran, and how, or None.
        client_failed: how a process of the load client died, or None.
        cut_off: why the point was ended before its last request (`point_timeout`, `interrupted`, …), or None.
        counter_processes: the processes whose speculation counters make the acceptance.
        counter_source: where they come from; None where nothing was counted.
        power_source: where power comes from; None where there is none.
        power_reason: why there is none, or None.
        idle: what the GPUs drew before the servers started and with the model loaded; empty where nobody
            could or would measure it.
        gpus: what they said of themselves while the point ran.
        nodes: the node of every process.
        grace_reason: code of why there is no energy of the Grace CPUs, where the meter knows more than its
            readings.
        answers: what this start answered greedily before its ladder.
        evaluation: what the user's evaluation said of this start, or None where none was asked for.
        notes: anything else a reader should know.
    """

    start_failed: str | None = None
    server_died: str | None = None
    client_failed: str | None = None
    cut_off: str | None = None
    counter_processes: tuple[str, ...] = ()
    counter_source: CounterSource | None = None
    power_source: PowerSource | None = None
    power_reason: Reason | None = None
    idle: tuple[IdlePower, ...] = ()
    gpus: tuple[GpuCondition, ...] = ()
    nodes: Mapping[str, int] = field(default_factory=dict)
    grace_reason: str | None = None
    answers: Answers = field(default_factory=Answers)
    evaluation: Evaluation | None = None
    notes: tuple[str, ...] = ()
