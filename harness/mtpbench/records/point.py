"""A point is what is measured: one arm × topology × concurrency × repeat, fully resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal

from mtpbench.records.codec import (
    Clock,
    Count,
    Flags,
    Json,
    Positive,
    Role,
    Within,
    WorkerRole,
    digest,
    to_json,
)
from mtpbench.records.load import Load, LoadForm, load_label
from mtpbench.records.measurement import Measurement
from mtpbench.records.speculation import AcceptanceCaveat, Arm, Method, pinned_text

Width = Annotated[int, Within(1, 10**6)]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerGroup:
    """A worker group is `workers` equal workers of one role; each holds `tp × dp` GPUs.

    `dp` above 1 is attention data parallelism inside one worker (its ranks step together), `ep` the
    expert-parallel width. DEPn is tp 1, dp n, ep n; TPn is tp n; TEPn is tp n, ep n.
    """

    role: WorkerRole
    workers: Width
    tp: Width
    dp: Width = 1
    ep: Width = 1

    @property
    def gpus_per_worker(self) -> int:
        """Returns the GPUs that one worker holds."""
        return self.tp * self.dp

    @property
    def gpus(self) -> int:
        """Returns the GPUs that the group holds."""
        return self.workers * self.gpus_per_worker

    @property
    def layout(self) -> str:
        """Returns the usual short name of a worker: `DEP8`, `TP8`, `TEP8` or the long form `TP2DP4EP8`."""
        if self.tp == 1 and self.dp > 1 and self.ep == self.dp:
            return f"DEP{self.dp}"
        if self.dp == 1 and self.ep == 1:
            return f"TP{self.tp}"
        if self.dp == 1 and self.ep == self.tp:
            return f"TEP{self.tp}"
        return f"TP{self.tp}DP{self.dp}EP{self.ep}"

    @property
    def attention_dp(self) -> bool:
        """Returns whether the worker's attention is data parallel."""
        return self.dp > 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Topology:
    """A topology has the worker groups of a deployment: one aggregated, or a prefill and a decode group."""

    groups: Annotated[tuple[WorkerGroup, ...], Within(1, 2)]

    @property
    def gpus(self) -> int:
        """Returns all GPUs of the deployment: the denominator of every per-GPU figure."""
        return sum(group.gpus for group in self.groups)

    @property
    def disaggregated(self) -> bool:
        """Returns whether prefill and decode run on workers of their own."""
        return any(group.role != "aggregated" for group in self.groups)

    @property
    def name(self) -> str:
        """Returns the name: `6xDEP8-1xDEP16` (prefill, decode) or `1xTP8`."""
        return "-".join(f"{group.workers}x{group.layout}" for group in self.groups)

    def group(self, role: WorkerRole) -> WorkerGroup | None:
        """Returns the group of a role, or None."""
        return next((group for group in self.groups if group.role == role), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A fault is a failure that the embedded engine plays on purpose.

    Args:
        kind: what happens; `simengine/faults.py` lists and explains the kinds.
        at_s: engine seconds after start, or None.
        at_request: the 0-based request index it strikes, or None.
        probability: chance per request (seeded), or None.
        role: the worker role that plays it; by default the process that answers the client.
        value: the kind's number (status code, stall seconds, exit code, …), or None for its default.
    """

    kind: str
    at_s: float | None = None
    at_request: int | None = None
    probability: float | None = None
    role: Role | None = None
    value: float | None = None


MAX_SPEED: float = 10
"""Engine seconds per real second of the scaled clock: beyond it the HTTP client would be what is measured."""


AcceptanceShape = Literal["by_position", "minimum_variance", "lock_step", "geometric"]
"""How accepted drafts scatter around their mean: each draws by position, as real heads do; or as engines pin
a length: the fraction above its whole part drawn by each request, or once for all, or all drafts alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulation:
    """A simulation says with which step costs and by which clock the embedded engine runs a point.

    Args:
        profile: the step costs.
        clock: drives it.
        speed: engine seconds per real second under the scaled clock; 1 under the real one; ignored by the
            virtual one.
        faults: that it plays.
        acceptance_shape: how accepted drafts scatter around their mean; None for `by_position`.
        acceptance_spread: relative standard deviation of requests' own acceptance lengths; None for none.
        step_costs: the method whose step costs stand in for those of the arm's, where the profile has none
            of its own: they are no prediction of it.
    """

    profile: str
    clock: Clock = "real"
    speed: float = 1.0
    faults: tuple[Fault, ...] = ()
    acceptance_shape: AcceptanceShape | None = None
    acceptance_spread: float | None = None
    step_costs: Method | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineLimits:
    """Engine limits are the scheduler limits of one worker, as its engine options set them.

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
    """The engine of a sweep's base is equal in all arms.

    `flags` and `env` are by worker role, already merged for the topology (without what an arm forces).
    `command` is the start of a worker's command line in place of the engine's usual one; None for that one.
    `router` names what stands in front of disaggregated workers (`dynamo`, `sglang`, `trtllm`, `simulated`),
    and `router_version` its release.
    `simulates` says that the figures come from a model of an engine.
    """

    name: str
    router: str | None = None
    router_version: str | None = None
    version: str | None = None
    image: str | None = None
    command: tuple[str, ...] | None = None
    flags: Mapping[str, Flags] = field(default_factory=dict)
    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    simulates: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """The model served has a path or hub id, the name that requests use, and a precision label."""

    path: str
    served_name: str
    precision: str


DEMONSTRATION = "demonstration"
"""Stands for the path of the dataset that comes with mtpbench: prompts of eleven kinds, and no benchmark."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """The workload describes the requests of a point: their prompts and lengths.

    Lengths are uniform in [range_ratio × L, L]. `prompts` is `random` (seeded token ids or words) or
    `dataset` (JSONL at `dataset_path`, or `DEMONSTRATION`: prompts, conversations, or a trace of lengths).
    `prefix_share` is the share of every random prompt that all of them have in common, from its first token
    on: 0 makes each one unique from its first token, 1 makes them all equal. `chat_template` sends chat
    completions; `tokenizer` is the model's folder or tokenizer.json, with which their length is exact in
    tokens. `vocabulary` bounds the random token ids of a model with a small vocabulary; None for the number
    that `workload` assumes. `chat_template_kwargs` reach the server's chat template (`{thinking: true}`),
    `extra_body` are further keys of every request.
    """

    isl: Positive
    osl: Positive
    range_ratio: float = 1.0
    prompts: Literal["random", "dataset"] = "random"
    dataset_path: str | None = None
    prefix_share: float = 0.0
    chat_template: bool = False
    tokenizer: str | None = None
    temperature: float = 0.0
    ignore_eos: bool = True
    vocabulary: int | None = None
    chat_template_kwargs: Mapping[str, Json] = field(default_factory=dict)
    extra_body: Mapping[str, Json] = field(default_factory=dict)

    @property
    def demonstrates(self) -> bool:
        """Returns whether the prompts are mtpbench's own, which show how tables look and are no benchmark."""
        return self.dataset_path == DEMONSTRATION


_LATER = ("draft_model", "draft_sampling", "rejection_method", "depth")
"""Fields of a speculation that schema version 9 brought."""


def _drop_unset(body: Json, names: tuple[str, ...]) -> None:
    for name in names:
        if not body[name]:
            body.pop(name)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point is one arm × topology × concurrency × repeat, fully resolved: all that a run needs.

    `launch` is the number of the start of its deployment that serves it: its repeat where the sweep starts
    servers anew for each, else 0. Id and key are hashes of all of it: each is computed once, and kept.
    """

    sweep: str
    model: Model
    hardware: str
    engine: Engine
    arm: Arm
    topology: Topology
    concurrency: Positive
    repeat: Count
    seed: int
    workload: Workload
    load: Load = field(default_factory=Load)
    measurement: Measurement
    simulation: Simulation | None = None
    launch: Count = 0

    @cached_property
    def id(self) -> str:
        """Returns a readable name with the first 8 hex digits of the SHA-256 of the canonical JSON.

        What the figures don't depend on is not hashed, so that ids of measured points stay.
        """
        rate = f"_q{self.load.rate_rps:g}" if self.load.rate_rps is not None else ""
        start = f"_s{self.launch}" if self.launch else ""
        where = f"{self.arm.name}_{self.topology.name}_c{self.concurrency}{rate}_r{self.repeat}{start}"
        body = self._hashed()
        body["measurement"] = self.measurement.hashed()
        return f"{where}_{digest(body)[:8]}"

    @cached_property
    def deployment_key(self) -> str:
        """Returns a key that is equal for all points that one server start can serve.

        It hashes all but the load, the rules of measuring, the repeat and the seed.
        """
        body = self._hashed()
        for name in ("concurrency", "repeat", "seed", "load", "measurement"):
            body.pop(name)
        start = f"_s{self.launch}" if self.launch else ""
        return f"{self.arm.name}_{self.topology.name}{start}_{digest(body)[:8]}"

    def load_label(self, form: LoadForm = "long") -> str:
        """Returns what the point's load is called."""
        load = self.load
        return load_label(self.concurrency, load.rate_rps, load.arrivals, load.ramp_s, form)

    @property
    def simulated(self) -> bool:
        """Returns whether a model of an engine makes the figures: the embedded one, or another one."""
        return self.simulation is not None or self.engine.simulates

    @property
    def draft_tokens(self) -> int:
        """Returns the draft tokens per step; 0 is speculation off."""
        return self.arm.speculation.draft_tokens if self.arm.speculation else 0

    @property
    def acceptance_caveats(self) -> tuple[AcceptanceCaveat, ...]:
        """Returns why the acceptance that the point measures may not be that of real use; none of a pinned
        one, and of a model of an engine, which accepts by its own rates.
        """
        speculation = self.arm.speculation
        if speculation is None or speculation.acceptance.mode != "measured" or self.simulated:
            return ()
        random: tuple[AcceptanceCaveat, ...] = (
            ("random_prompts",) if self.workload.prompts == "random" else ()
        )
        return (*random, "ignore_eos") if self.workload.ignore_eos else random

    @property
    def checkpoint(self) -> str:
        """Returns the path or hub id that the point's servers load: the arm's own, else the sweep's."""
        return self.arm.checkpoint or self.model.path

    def _hashed(self) -> Json:
        """Returns the JSON that ids hash: that of schema version 4, so that ids of measured points stay.

        That version held what pins acceptance as text, did not record which engines simulate, started a
        deployment once, and knew MTP of one depth only: what came later is hashed where it is used.
        """
        body = to_json(self)
        if not self.launch:
            body.pop("launch")
        body["engine"].pop("simulates")
        if self.engine.router_version is None:
            body["engine"].pop("router_version")
        _drop_unset(body["arm"], ("checkpoint",))
        if body["simulation"]:
            _drop_unset(body["simulation"], ("acceptance_shape", "acceptance_spread", "step_costs"))
        _drop_unset(body["workload"], ("chat_template_kwargs", "extra_body"))
        if self.arm.speculation is not None:
            _drop_unset(body["arm"]["speculation"], _LATER)
            policy = body["arm"]["speculation"]["acceptance"]
            policy.pop("pinned_by")
            policy.pop("table")
            policy["source"] = pinned_text(self.arm.speculation.acceptance)
        return body
