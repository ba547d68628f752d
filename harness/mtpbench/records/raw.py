"""Raw records are what is recorded while a point runs: the only source of all results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mtpbench.records.codec import Count

IdleState = Literal["before_start", "loaded"]
Scope = Literal["gpu", "module", "grace"]
"""What a power figure covers: one GPU board, a module of Grace and GPU together, or a Grace CPU alone."""

_DETAIL_ONLY = ("nothing_ran", "no_answer", "other")
_SCOPE_TEXT: Mapping[Scope, str] = {"gpu": "GPU scope", "module": "module scope (GPU and its Grace)"}
_POWER_TEXT = {"instant": "instant power", "averaged": "power averaged over 1 s", "exported": "power"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """A reason says why a figure is unknown or a point invalid: a code of docs/validity.md, and a detail.

    Its text is `code: detail`, or the code alone where there is no detail. A few codes stand for themselves
    (`nothing_ran`, `no_answer` of a node, `other` of an older schema): the text is then the detail alone.
    """

    code: str
    detail: str = ""

    def __str__(self) -> str:
        if self.code in _DETAIL_ONLY:
            return self.detail
        return f"{self.code}: {self.detail}" if self.detail else self.code

    @property
    def headline(self) -> str:
        """Returns the text's first line: details may hold the last lines of a log."""
        return str(self).partition("\n")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerSource:
    """A power source says what power is read from, and what it covers; different sources are never summed.

    Args:
        meter: `nvml`, a `dcgm` exporter, the `grace` rails of hwmon, or the embedded engine (`simulated`).
        counter: whether it has an energy counter.
        power: how power is reported: at this `instant`, `averaged` over 1 s, or by an exporter (`exported`);
            None where there is none, or none is read.
        scope: what its figures cover; None where they are simulated.
        stamped: whether an exporter gives its values timestamps; None for other meters.
        rail: which rail of a Grace is read; None for other meters.
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
        # The text of an exporter leaves the usual scope out.
        if self.scope is not None and (self.meter, self.scope) != ("dcgm", "gpu"):
            parts.append(_SCOPE_TEXT[self.scope])
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class CounterSource:
    """A counter source says where speculation counters come from: `metrics` of workers, or the `process`.

    `engine` is None where it was not recorded.
    """

    kind: Literal["metrics", "process"]
    engine: str | None = None

    def __str__(self) -> str:
        if self.kind == "process":
            return "embedded engine, in process"
        return f"{self.engine or 'engine'} /metrics of every decoding worker"


MOST_CATEGORIES = 64
"""Kinds of text in one dataset: each is a row of a table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestRecord:
    """A request record holds one request as the client saw it. A failed request is a record too.

    Times are engine seconds since the point's start on one monotonic clock. `chunk_tokens` are cumulative
    output tokens after each chunk as the server counted them, or None where it does not count. `error` is
    a short code (`http_503`, `timeout`, `disconnected`, `no_usage`, `stream_error`, `bad_event`, …).
    `cached_prompt_tokens` came from a prefix cache; `reasoning_tokens` are those of the output that were
    thoughts. Both are None where the server does not say. `category` is the kind of text that the dataset
    says its prompt is. `drafts` are verification steps, `draft_tokens` drafted tokens, and
    `accepted_draft_tokens` those that were accepted, where the engine tells them of each request.
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
    cached_prompt_tokens: int | None = None
    reasoning_tokens: int | None = None
    drafts: int | None = None
    draft_tokens: int | None = None
    accepted_draft_tokens: int | None = None
    category: str | None = None
    finish_reason: str | None = None
    error: str | None = None
    error_detail: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecCounters:
    """Speculation counters of an engine at one moment, summed over the ranks of one process.

    `drafts` counts verification steps, `draft_tokens` drafted tokens: an engine that counts only one of them
    has None for the other. `per_position` counts accepted drafts by position; empty where the engine does not
    count them. `series` holds what the sums are of, by name and labels; it is not stored.
    """

    drafts: float | None
    draft_tokens: float | None
    accepted_tokens: float
    per_position: tuple[float, ...] = ()
    series: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecGauge:
    """A speculation gauge is the mean acceptance length of a rank's last steps, for engines without counters.

    `verify_calls` is its counter of verification steps, which weighs the gauge; None where it has none.
    """

    rank: str
    length: float
    verify_calls: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CounterSample:
    """A counter sample is one scrape of one process: counters, gauges where there are none, or a reason.

    `restarted` says that one of its series fell or went since the readable scrape before: a rank began anew,
    though the sum over all ranks may have risen.
    """

    time_s: float
    process: str
    counters: SpecCounters | None
    gauges: tuple[SpecGauge, ...] = ()
    reason: str | None = None
    restarted: bool = False


GRACE = "grace"
"""Stands for the process in the power samples of a Grace rail, which belongs to no process."""
UNUSED = "unused"
"""Stands for the process in the power samples of a GPU that no process holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerSample:
    """A power sample is a reading of one GPU; `energy_j` only rises; it is NULL without an energy counter."""

    time_s: float
    process: str
    gpu: int
    power_w: float | None
    energy_j: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """An evaluation is the result of the user's command on the endpoint; `score` is None with a reason."""

    command: str
    score: float | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """Answers are the greedy answers to fixed prompts, to compare arms by; empty with a reason."""

    texts: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class IdlePower:
    """Idle power is what the deployment's GPUs draw without requests; NULL with a reason.

    Args:
        state: `before_start` of the servers, or with the model `loaded` and no request in flight.
        duration_s: wall seconds of the reading.
        power_w_per_gpu: mean over that time and over all GPUs that the deployment holds.
        reason: why there is no figure, or None.
    """

    state: IdleState
    duration_s: float
    power_w_per_gpu: float | None
    reason: Reason | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuCondition:
    """A GPU condition holds what a GPU reported about every second of a point; NULL where unknown.

    Args:
        name: `process/meter`; `unused@<node>/meter` for a GPU that no process holds.
        uuid: of the GPU.
        model: its name, such as `NVIDIA GB200`.
        temperature_max_c: the highest temperature.
        power_cap_min_w, power_cap_max_w: the lowest and the highest enforced power limit; the default one,
            where the driver does not tell that.
        clock_reasons: all reasons why its clocks were not higher, by NVML's names.
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
    """Client health says how the load client itself performed; a saturated client makes the point invalid.

    Figures are over the steady-state window and over all client processes; NULL where a figure does not exist
    (the virtual clock has no client, user-space stamps no drift).

    Args:
        transport: `fast` or `aiohttp`.
        stamps: what stamped the reads: the `kernel`, or the client in `user` space.
        workers: client processes.
        hosts: of these processes.
        host_clock_error_s: how far the clocks of several hosts may disagree; NULL on one host.
        reader_lag_p50_s, reader_lag_p99_s: from the arrival of bytes (kernel stamps), or from a due wake-up
            (user stamps), to the reader.
        send_lag_p50_s, send_lag_p99_s: from the moment a request was due to its first byte.
        reads: reads from the network.
        coalesced_reads: those that held several events which may have come more than 1 ms apart.
        cpu_share: CPU seconds per second of the busiest process.
        achieved_concurrency: requests in flight, averaged.
        concurrency_over_time: the same over equal parts of the window.
        pauses: pauses of slots after refused requests, over the whole run.
        paused_s: how long slots paused between the first and the last measured request's start, all together;
            NULL in what older versions stored: they paused no slot.
        paused_slots: slots in a pause, averaged.
        late_starts: requests of an open loop whose time came before one in flight had ended.
        unsent: requests that were not sent.
        clock_drift_s: how far the wall clock that stamps moved against the monotonic one.
        clock_step_s: its largest jump.
        misstamped_reads: reads whose stamps may be too early because that clock was set back.
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
    pauses: Count | None = None
    paused_s: float | None = None
    paused_slots: float | None = None
    late_starts: int | None = None
    unsent: int | None = None
    clock_drift_s: float | None = None
    clock_step_s: float | None = None
    misstamped_reads: Count | None = None
    descriptor_limit: int | None = None
    local_ports: int | None = None
    peak_rss_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """Run facts hold what happened to a point and is not in its request table.

    Args:
        start_failed: why the deployment never became ready, or None.
        server_died: which process ended while the point ran, and how, or None.
        client_failed: how a process of the load client died, or None.
        cut_off: why the point was ended before its last request (`point_timeout`, `interrupted`, …), or None.
        counter_processes: the processes whose speculation counters make the acceptance.
        counter_source: where these counters come from; None where nothing was counted.
        power_source: where power comes from; None where there is none.
        power_reason: why there is no power source, or None.
        idle: power of the GPUs before the servers started and with the model loaded; empty where it was not
            measured.
        gpus: what the GPUs reported while the point ran.
        nodes: the node of every process.
        grace_reason: code of why there is no energy of the Grace CPUs, where the readings don't tell it.
        answers: the greedy answers of this start, before its ladder.
        evaluation: the user's evaluation of this start, or None where there is none.
        notes: anything else that a reader should know.
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
