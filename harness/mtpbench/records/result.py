"""Results are what is derived from the raw records, with their provenance and the facts of their sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from mtpbench.records.codec import SCHEMA_VERSION, AboveZero, Clock, Count, NotNegative, Positive, Within
from mtpbench.records.latency import CategoryFigures, Distribution, Stalls
from mtpbench.records.load import Load
from mtpbench.records.measurement import Settling
from mtpbench.records.raw import (
    MOST_CATEGORIES,
    Answers,
    ClientHealth,
    CounterSource,
    Evaluation,
    GpuCondition,
    IdlePower,
    PowerSource,
    Reason,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Rates are token rates over one stretch of time.

    Output tokens count at the chunk that carried them, input tokens in proportion to their request's output.
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
        """Returns the length of the stretch."""
        return self.end_s - self.start_s

    def fault(self) -> str | None:
        """Returns what no rates can be; None where these can."""
        return None if self.end_s > self.start_s else "end_s is not after start_s"


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """Blocks are equal parts of the steady-state window; their scatter tells the error of this one run.

    A block is at least as long as the median request: a shorter one would show the waves of a closed loop,
    and share most requests with its neighbours. There are at most 20 blocks; fewer than 5 are not kept.

    Args:
        duration_s: of one block.
        tput_tps_per_gpu: by block, counted as `Rates` are.
        interactivity_tps: by block, 1 / median TPOT of the counted requests that ended in it.
    """

    duration_s: AboveZero
    tput_tps_per_gpu: tuple[NotNegative, ...]
    interactivity_tps: tuple[NotNegative, ...]

    def fault(self) -> str | None:
        """Returns what no blocks can be; None where these can."""
        same = len(self.tput_tps_per_gpu) == len(self.interactivity_tps)
        return None if same else "tput_tps_per_gpu and interactivity_tps are of different lengths"


AcceptanceGap = Literal[
    "speculation_off",
    "off_but_drafting",
    "no_window",
    "no_counters",
    "worker_missing",
    "worker_vanished",
    "too_few_samples",
    "counter_reset",
    "no_drafts",
    "steps_unknown",
    "impossible",
]
"""The codes of why an acceptance is NULL; docs/validity.md explains each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GaugeMean:
    """A gauge mean says that an acceptance is the mean of gauge samples, and whether steps weigh them."""

    samples: int
    weighted: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Acceptance:
    """Acceptance says how many drafts were accepted in the window, over all decode workers and ranks.

    `length` is 1 + accepted / drafts (bonus token included); `rate` is accepted / drafted;
    `per_position` is accepted at position i / drafts. All NULL with a `reason` where unknown or off.
    `gauge` says that the engine has no counters, and how its gauges were averaged. `length_by_block` is that
    of each time block of the window; NULL of gauges, and where counters were read less than twice a block.
    `draft_tokens_per_step` is drafted / drafts where the engine counts both; NULL where it counts only one.
    `drafting_steps_only` says that steps may draft nothing, and that such steps are not among the `drafts`.
    `tokens_per_step` is of all steps, drafting or not: the client's tokens besides the first of each request,
    over as many of them as were no accepted drafts; NULL where all steps draft, and where no step could give
    so many, as the client and the counters contradict each other.
    """

    length: NotNegative | None
    rate: float | None
    per_position: tuple[float, ...] | None
    drafts: float | None
    source: CounterSource | None
    gauge: GaugeMean | None = None
    reason: AcceptanceGap | None = None
    length_by_block: tuple[NotNegative, ...] | None = None
    draft_tokens_per_step: NotNegative | None = None
    drafting_steps_only: bool = False
    tokens_per_step: NotNegative | None = None

    @property
    def source_text(self) -> str:
        """Returns the source of the counters as text; `none` where nothing was counted."""
        text = "none" if self.source is None else str(self.source)
        if self.drafting_steps_only:
            text += ", of the steps that drafted"
        if self.gauge is None:
            return text
        weighed = "weighted by verification steps" if self.gauge.weighted else "unweighted"
        return f"{text}; a gauge, mean of {self.gauge.samples} samples, {weighed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Energy:
    """The energy of the deployment's GPUs over the steady-state window; NULL with a reason where unknown.

    Figures of different kinds are never mixed: `energy_j` is that of the GPUs (or of their modules, as
    `source` then says), `grace_energy_j` that of the Grace CPUs beside them.

    Args:
        joules_per_token, joules_per_output_token, joules_per_input_token: all GPUs' energy / those tokens.
        energy_j_by_gpu: by `process/GPU`, idle ones too.
        energy_j_by_role: by role of the process that holds the GPU.
        energy_j_by_node: by number of the node; empty where nodes were not recorded.
        prefill_joules_per_input_token, decode_joules_per_output_token: role energy, where prefill and decode
            have GPUs of their own; each is the energy of that role over the whole window, waiting included.
        source: what was read; None where nothing was.
        basis: whether the figures are differences of the energy `counter` or the `integral` of power; None
            where there are none.
        cross_checked: whether counter and integral were compared; None where there is no counter.
        integral_j: the integral of power over the window, with which the counter was compared.
        grace_energy_j: of the Grace CPUs, one rail for each socket.
        grace_reason: code of why there is none, or None.
        unused_gpus: GPUs of the nodes that no process held; the other figures leave them out.
        unused_energy_j: their energy over the window; NULL where there are none, or one was not read well.
        power_w_per_gpu_by_block: of each time block of the window; NULL where meters' values moved less than
            twice a block.
    """

    energy_j: NotNegative | None
    mean_power_w_per_gpu: NotNegative | None
    joules_per_token: float | None
    joules_per_output_token: float | None
    gpus: int
    source: PowerSource | None
    basis: Literal["counter", "integral"] | None = None
    cross_checked: bool | None = None
    reason: Reason | None = None
    joules_per_input_token: float | None = None
    energy_j_by_gpu: Mapping[str, float] = field(default_factory=dict)
    energy_j_by_role: Mapping[str, float] = field(default_factory=dict)
    energy_j_by_node: Mapping[str, float] = field(default_factory=dict)
    prefill_joules_per_input_token: float | None = None
    decode_joules_per_output_token: float | None = None
    integral_j: float | None = None
    grace_energy_j: float | None = None
    grace_reason: str | None = None
    unused_gpus: int = 0
    unused_energy_j: float | None = None
    power_w_per_gpu_by_block: tuple[NotNegative, ...] | None = None

    @property
    def meter_text(self) -> str:
        """Returns the power source as text, without its cross-check; `none` where there was none."""
        text = "none" if self.source is None else str(self.source)
        return f"{text}, integral of power" if self.basis == "integral" else text

    @property
    def source_text(self) -> str:
        """Returns the power source as text, and whether it could be cross-checked."""
        return f"{self.meter_text}, not cross-checked" if self.cross_checked is False else self.meter_text


TpotBasis = Literal["known_first_chunk", "least_first_chunk", "assumed_one_token"]
"""How the tokens of the first chunk are known: by the server's count; as those that all later chunks, full by
the stream interval, can't have held; or not at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PointResult:
    """A point result holds everything derived from a point's raw records; `mtpbench recompute` rebuilds it.

    `steady` covers the steady-state window and is NULL where there was none; `whole` covers the whole
    run, from the first send to the last end. Distributions are over measured requests that ended in the
    steady-state window (over all measured requests where there is none, and in an open loop). NULL where
    nothing was measured.
    """

    schema_version: int = SCHEMA_VERSION
    point_id: str
    simulated: bool
    clock: Clock
    requests: Count
    failed_requests: Count
    errors: Mapping[str, Count]
    ttft_s: Distribution | None
    tpot_s: Distribution | None
    e2el_s: Distribution | None
    icl_s: Distribution | None
    token_gap_s: Distribution | None = None
    """Time per token within a chunk's gap, each token counting once; NULL where their number is unknown."""
    ttft_from_schedule_s: Distribution | None = None
    """TTFT from the moment the request was due: in an open loop, how long a user would have waited."""
    e2el_from_schedule_s: Distribution | None = None
    stalls: Stalls | None = None
    tokens_per_chunk: float | None = None
    """Output tokens / chunks of the requests counted above."""
    first_chunk_tokens: float | None = None
    """The median of the tokens that a request's first chunk held; NULL where their number is unknown."""
    by_category: Annotated[tuple[CategoryFigures, ...], Within(0, MOST_CATEGORIES + 1)] = ()
    """By kind of text, in the order of their names, where the dataset names any."""
    tokens_per_burst: float | None = None
    """Output tokens / bursts: chunks that came at once, as those of one step may, are one burst."""
    cached_prompt_share: float | None = None
    """Prompt tokens that a prefix cache held / all prompt tokens; NULL where no request was told."""
    interactivity_tps: float | None
    interactivity_p99_tps: float | None
    tpot_basis: TpotBasis | None
    sent_rps: float | None = None
    """Requests sent per engine second in an open loop, of those that were due in its window; else NULL."""
    steady: Rates | None
    whole: Rates | None
    blocks: Blocks | None = None
    """NULL where the window holds fewer than 5 blocks, and in what was written before schema version 3."""
    settling: Settling | None = None
    """NULL under the measuring rule 2026-05, without a window, and in an open loop, whose load moves."""
    acceptance: Acceptance
    energy: Energy
    idle: tuple[IdlePower, ...] = ()
    gpus: tuple[GpuCondition, ...] = ()
    client: ClientHealth
    answers: Answers = field(default_factory=Answers)
    evaluation: Evaluation | None = None
    reasons: tuple[Reason, ...] = ()

    def ttft_as_waited_s(self, load: Load) -> Distribution | None:
        """Returns TTFT as users wait for it: in an open loop from the moment a request was due, else from
        its sending.
        """
        return self.ttft_from_schedule_s if load.open else self.ttft_s

    def e2el_as_waited_s(self, load: Load) -> Distribution | None:
        """Returns E2EL as users wait for it, counted as in `ttft_as_waited_s`."""
        return self.e2el_from_schedule_s if load.open else self.e2el_s

    @property
    def first_chunk_is_known(self) -> bool:
        """Returns whether the server counted the tokens of first chunks; else interactivity is a bound."""
        return self.tpot_basis in (None, "known_first_chunk")

    @property
    def valid(self) -> bool:
        """Returns whether the point broke no validity rule."""
        return not self.reasons


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Provenance says where a result came from, enough to run it again, with secrets redacted.

    `server_start` is equal for all points that one start of the servers served, and for no others; NULL where
    servers never started, and in what older versions wrote.
    """

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
    server_start: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Hardware is a kind of rack with the constants for cost and power (from a dated file, not from code).

    Args:
        power_kw_per_gpu: provisioned all-in power per GPU; None where none is published.
        usd_per_gpu_h: price by owner tier, such as `hyperscaler`; empty where none is published, None for a
            tier that the source has no price of.
        nodes_per_domain: nodes that share one NVLink domain.
        source: where the constants come from, or why there are none.
        caveats: what the source says of its figures, by `power`, `price` (of all tiers) or a tier; why a tier
            has no price stands under the tier.
    """

    name: str
    gpu: str
    gpus_per_node: Positive
    nodes_per_domain: Positive
    power_kw_per_gpu: AboveZero | None
    usd_per_gpu_h: Mapping[str, AboveZero | None]
    constants_date: str
    source: str
    caveats: Mapping[str, str] = field(default_factory=dict)

    @property
    def unpriced(self) -> Mapping[str, str]:
        """Returns the tiers without a price, each with the reason."""
        tiers = [tier for tier, usd in self.usd_per_gpu_h.items() if usd is None]
        return {tier: self.caveats.get(tier, "these constants have none") for tier in tiers}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceRow:
    """A reference row holds the published throughput of both sides at one interactivity."""

    interactivity_tps: AboveZero
    tput_tps_per_gpu: Mapping[str, AboveZero]
    """By arm name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A reference holds published numbers that a sweep measures again, and their source."""

    source: str
    rows: tuple[ReferenceRow, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepInfo:
    """The sweep info holds what tables need to know of a sweep besides its points, and lies beside them."""

    schema_version: int = SCHEMA_VERSION
    name: str
    question: str
    arms: tuple[str, ...]
    baseline: str
    hardware: Hardware
    targets_tps: tuple[AboveZero, ...] = ()
    """Target interactivities of the tables; empty for the default targets."""
    reference: Reference | None = None
    confounds: tuple[str, ...] = ()
    """What differs between the arms beyond speculation, one sentence each."""
    confound_arms: tuple[str, ...] = ()
    """The arm that each of `confounds` is about, in their order; empty where an older version planned."""
    planned: tuple[str, ...] = ()
    """Ids of all points of the sweep, measured or not."""

    def fault(self) -> str | None:
        """Returns what no sweep can plan; None where this one can."""
        if len({*self.planned}) < len(self.planned):
            return "planned holds an id twice"
        if self.confound_arms and len(self.confound_arms) != len(self.confounds):
            return "confound_arms needs one arm for each of confounds"
        odd = next(
            (name for name in self.planned if name[:1] in ("", ".") or "/" in name or "\0" in name), None
        )
        return None if odd is None else f"planned holds {odd[:80]!r}, which is no id of a point"
