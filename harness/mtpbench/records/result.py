"""What is derived from the raw records, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mtpbench.records.raw import Answers, Evaluation
from mtpbench.records.types import SCHEMA_VERSION, Clock


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
    answers: Answers = field(default_factory=Answers)
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
