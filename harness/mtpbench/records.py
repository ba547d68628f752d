"""Every record that crosses a seam: frozen, keyword-only, JSON round-trip, units in the names.

Standard library only. `to_json` and `from_json` at the end serve them all.

Schema history (`SCHEMA_VERSION` is written into every stored record; the store refuses what it can't read)
    1   2026-11   first version
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeVar

SCHEMA_VERSION = 1

Json = Any
Role = Literal["router", "prefill", "decode", "aggregated", "sampler", "client"]
WorkerRole = Literal["prefill", "decode", "aggregated"]
Clock = Literal["real", "scaled", "virtual"]
Flags = Mapping[str, Json]
"""Engine options without dashes: True is a bare flag, False or None leaves it out, a mapping is JSON."""


# ----------------------------------------------------------------------------------------- what is measured


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerGroup:
    """`workers` equal workers of one role; each holds `tp × dp` GPUs.

    `dp` above 1 is attention data parallelism inside one worker (its ranks step together), `ep` the
    expert-parallel width. DEPn is tp 1, dp n, ep n; TPn is tp n; TEPn is tp n, ep n.
    """

    role: WorkerRole
    workers: int
    tp: int
    dp: int = 1
    ep: int = 1

    @property
    def gpus_per_worker(self) -> int:
        """GPUs that one worker holds."""
        return self.tp * self.dp

    @property
    def gpus(self) -> int:
        """GPUs that the group holds."""
        return self.workers * self.gpus_per_worker

    @property
    def layout(self) -> str:
        """The field's short name of one worker: `DEP8`, `TP8`, `TEP8` or the long form `TP2DP4EP8`."""
        if self.tp == 1 and self.dp > 1 and self.ep == self.dp:
            return f"DEP{self.dp}"
        if self.dp == 1 and self.ep == 1:
            return f"TP{self.tp}"
        if self.dp == 1 and self.ep == self.tp:
            return f"TEP{self.tp}"
        return f"TP{self.tp}DP{self.dp}EP{self.ep}"

    @property
    def attention_dp(self) -> bool:
        """Whether the worker's attention is data parallel."""
        return self.dp > 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Topology:
    """The worker groups of one deployment: one aggregated group, or a prefill and a decode group."""

    groups: tuple[WorkerGroup, ...]

    @property
    def gpus(self) -> int:
        """All GPUs the deployment holds: the denominator of every per-GPU figure."""
        return sum(group.gpus for group in self.groups)

    @property
    def disaggregated(self) -> bool:
        """Whether prefill and decode run on workers of their own."""
        return any(group.role != "aggregated" for group in self.groups)

    @property
    def name(self) -> str:
        """`6xDEP8-1xDEP16` (prefill, decode) or `1xTP8`."""
        return "-".join(f"{group.workers}x{group.layout}" for group in self.groups)

    def group(self, role: WorkerRole) -> WorkerGroup | None:
        """The group of a role, or None."""
        return next((group for group in self.groups if group.role == role), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptancePolicy:
    """How draft tokens are accepted: really (`measured`), or pinned to a golden mean length.

    `length` counts the bonus token (1 … drafts + 1). `rates` are unconditional per-position acceptance
    rates, non-increasing, one per draft; the embedded engine needs them, real engines take the length.
    """

    mode: Literal["measured", "golden"]
    length: float | None = None
    rates: tuple[float, ...] | None = None
    source: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Speculation:
    """Speculative decoding as an arm declares it."""

    method: Literal["mtp"] = "mtp"
    draft_tokens: int
    acceptance: AcceptancePolicy


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One side of a comparison: the base with speculation off, or on with what that forces.

    `forces` are the engine options that speculation makes necessary, by worker role; they are the only
    options in which two arms of a sweep can differ, and plan and every table list them.
    """

    name: str
    speculation: Speculation | None = None
    forces: Mapping[str, Flags] = field(default_factory=dict)
    forces_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A fault that the embedded engine plays out.

    Args:
        kind: what happens; `simengine/faults.py` lists and explains the kinds.
        at_s: engine seconds after start, or None.
        at_request: the 0-based request index it strikes, or None.
        probability: chance per request (seeded), or None.
        role: the worker role that plays it; the process that answers HTTP by default.
        value: the kind's number (status code, stall seconds, exit code, …), or None for its default.
    """

    kind: str
    at_s: float | None = None
    at_request: int | None = None
    probability: float | None = None
    role: Role | None = None
    value: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulation:
    """That a point runs on the embedded engine, with which step costs and against which clock.

    `speed` is engine seconds per real second under the scaled clock; 1 under the real one; ignored by the
    virtual one.
    """

    profile: str
    clock: Clock = "real"
    speed: float = 1.0
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineLimits:
    """The scheduler limits of one worker, as its engine options set them.

    Args:
        max_running: sequences that one worker runs at once, over all its attention-DP ranks.
        prefill_chunk_tokens: prompt tokens that one worker takes into one step, over all its ranks.
        stream_interval: output tokens that the engine gathers before it sends an event (at least 1).
        kv_tokens: KV-cache tokens of one worker, or None for what the profile says.
    """

    max_running: int
    prefill_chunk_tokens: int
    stream_interval: int = 1
    kv_tokens: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """The engine of a sweep's base, equal in all its arms.

    `flags` and `env` are by worker role, already merged for the topology (without what an arm forces).
    `command` are the words that start a worker in place of the engine's usual ones; None for those.
    `router` names what stands in front of disaggregated workers (`dynamo`, `sglang`, `trtllm`, `simulated`).
    """

    name: str
    router: str | None = None
    version: str | None = None
    image: str | None = None
    command: tuple[str, ...] | None = None
    flags: Mapping[str, Flags] = field(default_factory=dict)
    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """The model served: its path or hub id, the name that requests use, and the precision label."""

    path: str
    served_name: str
    precision: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What is asked of the server.

    Lengths are uniform in [range_ratio × L, L]. `prompts` is `random` (seeded token ids or words) or
    `dataset` (JSONL at `dataset_path`). `chat_template` sends chat completions. `vocabulary` bounds the
    random token ids, for a model that has fewer than `workload.py` assumes; None for what it assumes.
    """

    isl: int
    osl: int
    range_ratio: float = 1.0
    prompts: Literal["random", "dataset"] = "random"
    dataset_path: str | None = None
    chat_template: bool = False
    temperature: float = 0.0
    ignore_eos: bool = True
    vocabulary: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """The rules of measuring one point.

    Args:
        warmup_per_slot: requests per slot that end before the window may begin; load goes on after them.
        requests_per_slot: requests per slot that are measured.
        min_requests: at least so many measured requests, whatever the concurrency.
        min_window_s: a steady-state window shorter than this (engine seconds) makes the point invalid.
        max_error_rate: the share of failed measured requests above which the point is invalid.
        request_timeout_s: a request without an end after this fails.
        point_timeout_s: a point that takes longer is cut off and invalid.
        ready_timeout_s: how long a deployment may take to become ready.
        sample_interval_s: seconds between two scrapes of counters and power.
        continuous_usage: ask the server for the token count in every event.
        greedy_prompts: fixed prompts that each start answers greedily before its ladder; 0 for none.
        greedy_tokens: output tokens of each of those answers.
        evaluate: a command that scores the live endpoint once for each start, or None.
        evaluate_timeout_s: wall seconds that it may take.
    """

    warmup_per_slot: float = 2.0
    requests_per_slot: float = 10.0
    min_requests: int = 8
    min_window_s: float = 1.0
    max_error_rate: float = 0.01
    request_timeout_s: float = 3600.0
    point_timeout_s: float = 14400.0
    ready_timeout_s: float = 3600.0
    sample_interval_s: float = 0.25
    continuous_usage: bool = True
    greedy_prompts: int = 4
    greedy_tokens: int = 32
    evaluate: str | None = None
    evaluate_timeout_s: float = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One arm × topology × concurrency × repeat, fully resolved: all that a job needs to run it."""

    sweep: str
    model: Model
    hardware: str
    engine: Engine
    arm: Arm
    topology: Topology
    concurrency: int
    repeat: int
    seed: int
    workload: Workload
    measurement: Measurement
    simulation: Simulation | None = None

    @property
    def id(self) -> str:
        """A readable name and the first 8 hex digits of the SHA-256 of the canonical JSON."""
        where = f"{self.arm.name}_{self.topology.name}_c{self.concurrency}_r{self.repeat}"
        return f"{where}_{digest(to_json(self))[:8]}"

    @property
    def deployment_key(self) -> str:
        """Equal for all points that one server start can serve (all but concurrency, repeat and seed)."""
        body = to_json(self)
        for name in ("concurrency", "repeat", "seed", "measurement"):
            body.pop(name)
        return f"{self.arm.name}_{self.topology.name}_{digest(body)[:8]}"

    @property
    def draft_tokens(self) -> int:
        """Draft tokens per step; 0 is speculation off."""
        return self.arm.speculation.draft_tokens if self.arm.speculation else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """A kind of rack and the constants that turn tokens into money and megawatts (a dated file, not code).

    Args:
        power_kw_per_gpu: provisioned all-in power per GPU; None where nobody published one.
        usd_per_gpu_h: price by owner tier, such as `hyperscaler`; empty where nobody published one.
        nodes_per_domain: nodes that share one NVLink domain.
        source: where the constants come from, or why there are none.
    """

    name: str
    gpu: str
    gpus_per_node: int
    nodes_per_domain: int
    power_kw_per_gpu: float | None
    usd_per_gpu_h: Mapping[str, float]
    constants_date: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceRow:
    """Published throughput of both sides at one interactivity, to print beside one's own."""

    interactivity_tps: float
    tput_tps_per_gpu: Mapping[str, float]
    """By arm name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Published numbers that a sweep re-measures, with where they came from."""

    source: str
    rows: tuple[ReferenceRow, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepInfo:
    """What the tables need to know of a sweep besides its points; stored beside them."""

    schema_version: int = SCHEMA_VERSION
    name: str
    question: str
    arms: tuple[str, ...]
    baseline: str
    hardware: Hardware
    targets_tps: tuple[float, ...] = ()
    """Target interactivities of the tables; empty for the default targets."""
    reference: Reference | None = None
    confounds: tuple[str, ...] = ()
    """What differs between the arms beyond speculation, one sentence each."""
    planned: tuple[str, ...] = ()
    """Ids of all points of the sweep, measured or not."""


# ---------------------------------------------------------------------------------------- what is started


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A file to lay down before a process starts; `path` and `text` may hold placeholders."""

    path: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """How a process shows that it is ready.

    GET `path` on port `port` answers 200, and where `model` is given, GET /v1/models lists it.
    """

    port: str
    path: str = "/health"
    model: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """The container that a process runs in under a container-aware executor; ignored where it runs bare."""

    image: str
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """One operating-system process of a deployment, described and not run.

    argv, env and files may hold placeholders, which `placeholders.py` lists and resolves.

    Args:
        node: 0-based index of the node inside the deployment.
        gpus: 0-based indices on that node.
        ports: names of the ports it listens on; the executor chooses free numbers.
        mpi_tasks: tasks that an MPI-aware executor starts for it on its node; 1 for an ordinary process.
        metrics: the port name and path of its Prometheus metrics, or None.
    """

    name: str
    role: Role
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    node: int = 0
    gpus: tuple[int, ...] = ()
    mpi_tasks: int = 1
    ports: tuple[str, ...] = ()
    ready: Probe | None = None
    metrics: tuple[str, str] | None = None
    container: Container | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """The processes that together serve one arm on one topology; `front` is the one that takes requests.

    `keeps_connections` is False where the front closes the connection after each answer without saying so:
    the client then opens one for each request.
    """

    key: str
    processes: tuple[Process, ...]
    front: str
    front_port: str
    model_name: str
    gpus: int
    nodes: int
    time_scale: float = 1.0
    """Engine seconds per real second: above 1 only on the embedded engine's scaled clock."""
    keeps_connections: bool = True


# --------------------------------------------------------------------------------------- what is recorded


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
class RunFacts:
    """What happened to a point that its request table can't tell.

    Args:
        start_failed: why the deployment never became ready, or None.
        server_died: which process ended while the point ran, and how, or None.
        cut_off: why the point was ended before its last request (`point_timeout`, `interrupted`, …), or None.
        counter_processes: the processes whose speculation counters make the acceptance.
        counter_source: where they come from, such as `vllm:spec_decode_*`.
        power_source: where power comes from, or why there is none.
        power_reason: why there is no power, or None.
        answers: what this start answered greedily before its ladder.
        evaluation: what the user's evaluation said of this start, or None where none was asked for.
        notes: anything else a reader should know.
    """

    start_failed: str | None = None
    server_died: str | None = None
    cut_off: str | None = None
    counter_processes: tuple[str, ...] = ()
    counter_source: str = "none"
    power_source: str = "none"
    power_reason: str | None = None
    answers: Answers = Answers()
    evaluation: Evaluation | None = None
    notes: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------ what is derived


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """A sample's summary in the unit of the field that holds it; percentiles interpolate linearly."""

    count: int
    mean: float
    min: float
    p10: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Token rates over one stretch of time.

    Input tokens count at their request's first chunk, output tokens at the chunk that carried them.
    `tput_tps_per_gpu` is (input + output) / all GPUs of the deployment.
    """

    start_s: float
    end_s: float
    requests_completed: int
    input_tokens: float
    output_tokens: float
    input_tps: float
    output_tps: float
    tput_tps_per_gpu: float
    output_tps_per_gpu: float
    mean_in_flight: float
    """Requests in flight, averaged over the stretch (sent and not yet ended)."""

    @property
    def duration_s(self) -> float:
        """Length of the stretch."""
        return self.end_s - self.start_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Acceptance:
    """What became of the drafts over the window, summed over all decode workers and ranks.

    `length` is 1 + accepted / drafts (bonus token included); `rate` is accepted / drafted;
    `per_position` is accepted at position i / drafts. All NULL with a `reason` where unknown or off.
    """

    length: float | None
    rate: float | None
    per_position: tuple[float, ...] | None
    drafts: float | None
    source: str
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Energy:
    """Energy of the deployment's GPUs over the steady-state window; NULL with a reason where unknown."""

    energy_j: float | None
    mean_power_w_per_gpu: float | None
    joules_per_token: float | None
    joules_per_output_token: float | None
    gpus: int
    source: str
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientHealth:
    """How the load client itself did; a client that is the bottleneck makes the point invalid.

    NULL where a figure does not exist (the virtual clock has no client).
    """

    loop_lag_p99_s: float | None
    send_lag_p99_s: float | None
    cpu_share: float | None
    achieved_concurrency: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why a point is invalid: a stable code of `validity.py` and a sentence with the figures."""

    code: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PointResult:
    """Everything derived from one point's raw records; `mtpbench recompute` rebuilds it.

    `steady` covers the steady-state window and is NULL where there was none; `whole` covers the whole
    run, from the first send to the last end. Distributions are over measured requests that ended in the
    steady-state window (over all measured requests where there is none). NULL where nothing was measured.
    """

    schema_version: int = SCHEMA_VERSION
    point_id: str
    simulated: bool
    clock: Clock
    requests: int
    failed_requests: int
    errors: Mapping[str, int]
    ttft_s: Distribution | None
    tpot_s: Distribution | None
    e2el_s: Distribution | None
    icl_s: Distribution | None
    interactivity_tps: float | None
    interactivity_p99_tps: float | None
    tpot_basis: Literal["known_first_chunk", "assumed_one_token"] | None
    steady: Rates | None
    whole: Rates | None
    acceptance: Acceptance
    energy: Energy
    client: ClientHealth
    answers: Answers = Answers()
    evaluation: Evaluation | None = None
    reasons: tuple[Reason, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether no validity rule was broken."""
        return not self.reasons


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where a result came from, enough to run it again; environment values that look secret are redacted."""

    schema_version: int = SCHEMA_VERSION
    started_utc: str
    finished_utc: str
    harness_version: str
    git_revision: str | None
    git_dirty: bool | None
    executor: str
    host: str
    python: str
    packages: Mapping[str, str]
    engine_version: str | None
    image: str | None
    driver: str | None
    gpus: tuple[str, ...]
    command_lines: Mapping[str, tuple[str, ...]]
    environment: Mapping[str, str]
    notes: tuple[str, ...] = ()


# ----------------------------------------------------------------------------------------- JSON and hashing

T = TypeVar("T")


def to_json(value: Json) -> Json:
    """A record, or a tuple or mapping of records, as plain JSON values; NaN and infinity are refused.

    Raises:
        ValueError: a float is not finite (unknown is None, never NaN).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} can't be stored; unknown is null with a reason")
    return value


def from_json(kind: type[T], data: Json) -> T:
    """The record of type `kind` that `to_json` wrote.

    Raises:
        ValueError: a key is unknown or missing, or a value has the wrong type; the message names it.
    """
    return typing.cast(T, _decode(kind, data, kind.__name__))


def digest(value: Json) -> str:
    """SHA-256, in hex, of the canonical JSON (sorted keys, no spaces) of plain JSON values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _decode(kind: Any, data: Json, where: str) -> Any:
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_record(kind, data, where)
    origin = typing.get_origin(kind)
    if origin is Literal:
        if data not in typing.get_args(kind):
            raise ValueError(f"{where}: {data!r} is none of {', '.join(map(repr, typing.get_args(kind)))}")
        return data
    if origin in (typing.Union, types.UnionType):
        return _decode_optional(kind, data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise ValueError(f"{where}: a list was expected, not {data!r}")
        item = typing.get_args(kind)[0]
        return tuple(_decode(item, value, f"{where}[{i}]") for i, value in enumerate(data))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise ValueError(f"{where}: a mapping was expected, not {data!r}")
        item = typing.get_args(kind)[1]
        return {key: _decode(item, value, f"{where}.{key}") for key, value in data.items()}
    return _decode_scalar(kind, data, where)


def _decode_optional(kind: Any, data: Json, where: str) -> Any:
    if data is None:
        return None
    (inner,) = [arg for arg in typing.get_args(kind) if arg is not type(None)]
    return _decode(inner, data, where)


def _decode_record(kind: type, data: Json, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{where}: a mapping was expected, not {data!r}")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(data) - set(fields)):
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; valid: {', '.join(fields)}")
    hints = _hints(kind)
    missing = [
        name
        for name, f in fields.items()
        if name not in data and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}")
    return kind(**{name: _decode(hints[name], value, f"{where}.{name}") for name, value in data.items()})


def _decode_scalar(kind: Any, data: Json, where: str) -> Any:
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise ValueError(f"{where}: {kind.__name__} was expected, not {data!r}")
    return data
