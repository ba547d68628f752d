"""The schema of sweep files: pydantic models that refuse unknown keys and explain every field.

The JSON Schema for editors (sweeps/sweep.schema.json) is made from these.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from mtpbench.records import Load, Measurement, MeasuringRule, WorkerGroup, WorkerRole
from mtpbench.sweep.arm_schema import ArmSpec, JsonKeys, check_name
from mtpbench.sweep.engine_schema import MOST_SECONDS, EngineSpec
from mtpbench.workload.prompts import check_extra_body
from mtpbench.yaml_files import OneLine, Strict, Variable

_SHORT = re.compile(r"(?P<workers>[0-9]{1,9})x(?P<kind>TP|TEP|DEP)(?P<width>[0-9]{1,9})")

MOST_TOKENS = 10_000_000
"""Tokens of a prompt or an answer: ten times the longest context of a model."""
MOST_GPUS = 16_384
_LONGEST_ARM, _LONGEST_SWEEP = 80, 120
"""Of names: with all that is put around them a file's name stays below 255 bytes."""


Width = Annotated[int, Field(ge=1, le=MOST_GPUS)]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Seconds = Annotated[float, Field(gt=0, le=MOST_SECONDS)]
Pause = Annotated[float, Field(ge=0, le=MOST_SECONDS)]
Positive = Annotated[float, Field(gt=0, le=1e12)]


class WorkersSpec(Strict):
    """Equal workers of one role; `6xDEP8` is short for {workers: 6, tp: 1, dp: 8, ep: 8}."""

    workers: Width = Field(description="how many workers")
    tp: Width = Field(1, description="tensor parallel width")
    dp: Width = Field(1, description="attention data-parallel ranks of one worker")
    ep: Width = Field(1, description="expert parallel width")

    @model_validator(mode="after")
    def _experts_fit(self) -> WorkersSpec:
        if (self.tp * self.dp) % self.ep:
            raise ValueError(f"ep {self.ep} must divide tp × dp = {self.tp * self.dp} GPUs of a worker")
        if self.workers * self.tp * self.dp > MOST_GPUS:
            raise ValueError(
                f"{self.workers * self.tp * self.dp:,} GPUs; at most {MOST_GPUS:,} can be laid out"
            )
        return self

    def group(self, role: WorkerRole) -> WorkerGroup:
        """Returns the record of this group in a role."""
        return WorkerGroup(role=role, workers=self.workers, tp=self.tp, dp=self.dp, ep=self.ep)


def _expand_short(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _SHORT.fullmatch(value.strip())
    if not match or not int(match["width"]) or not int(match["workers"]):
        raise ValueError(
            f"{value!r} is no layout; write it like 6xDEP8, 4xTP8, 1xTEP8, or as workers/tp/dp/ep"
        )
    width = int(match["width"])
    wide = {"TP": {"tp": width}, "TEP": {"tp": width, "ep": width}, "DEP": {"dp": width, "ep": width}}
    return {"workers": int(match["workers"]), **wide[match["kind"]]}


Workers = Annotated[WorkersSpec, BeforeValidator(_expand_short, json_schema_input_type=WorkersSpec | str)]
Rung = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Ladder = Annotated[list[Rung], Field(min_length=1)]
Ladders = Annotated[
    dict[str, Ladder],
    BeforeValidator(
        lambda v: {"*": v} if isinstance(v, list) else v, json_schema_input_type=Ladder | dict[str, Ladder]
    ),
]


Rate = Annotated[float, Field(ge=1e-6, le=1e6)]


class TopologySpec(Strict):
    """A topology is one deployment layout with its concurrency ladder, for every arm or by arm name."""

    aggregated: Workers | None = Field(None, description="workers that prefill and decode")
    prefill: Workers | None = Field(None, description="prefill workers (with decode)")
    decode: Workers | None = Field(None, description="decode workers (with prefill)")
    concurrency: Ladders = Field(
        description="ladder of concurrencies, or one by arm name; an arm without one is not run here"
    )
    rate_rps: Annotated[list[Rate], Field(min_length=1)] | None = Field(
        None,
        description="open loop only: ladder of request rates, each with every concurrency as its ceiling",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> TopologySpec:
        present = tuple(group is not None for group in (self.aggregated, self.prefill, self.decode))
        if present not in ((True, False, False), (False, True, True)):
            raise ValueError("give either `aggregated`, or both `prefill` and `decode`")
        return self

    @field_validator("concurrency")
    @classmethod
    def _rising(cls, ladders: dict[str, list[int]]) -> dict[str, list[int]]:
        if falling := [ladder for ladder in ladders.values() if sorted(set(ladder)) != ladder]:
            raise ValueError(f"a ladder rises without repeats; {falling[0]} does not")
        return ladders


class ModelSpec(Strict):
    """The model that the servers serve."""

    path: OneLine = Field(description="hub id or folder")
    served_name: OneLine | None = Field(None, description="the name requests use; the path by default")
    precision: OneLine = Field(
        description="label such as fp4; curves of different precision are not compared"
    )


class WorkloadSpec(Strict):
    """The workload says what requests ask of the server."""

    isl: Tokens = Field(description="input sequence length, tokens")
    osl: Tokens = Field(ge=2, description="output sequence length, tokens; one token has no time per token")
    range_ratio: float = Field(1.0, gt=0, le=1, description="lengths are uniform in [range_ratio × L, L]")
    prompts: Literal["random", "dataset"] = "random"
    dataset: OneLine | None = Field(
        None, description="JSONL file, relative to the sweep file; or `demonstration`"
    )
    prefix_share: float = Field(
        0.0, ge=0, le=1, description="share of every random prompt that all have in common; 1 for equal ones"
    )
    chat_template: bool = Field(False, description="send chat completions")
    tokenizer: OneLine | None = Field(
        None, description="folder of the model's tokenizer, relative to the sweep file: exact chat lengths"
    )
    temperature: float = Field(0.0, ge=0, le=1000)
    ignore_eos: bool = True
    vocabulary: int | None = Field(
        None,
        ge=8,
        le=2_000_000,
        description="the model's vocabulary, where it is smaller than the 32,000 assumed",
    )
    chat_template_kwargs: JsonKeys = Field(
        default_factory=dict, description="for the chat template, such as {thinking: true}"
    )
    extra_body: JsonKeys = Field(default_factory=dict, description="further keys of every request's body")

    @model_validator(mode="after")
    def _dataset_given(self) -> WorkloadSpec:
        if (self.prompts == "dataset") != (self.dataset is not None):
            raise ValueError("`prompts: dataset` and `dataset: FILE` go together")
        if self.prefix_share and self.prompts == "dataset":
            raise ValueError("`prefix_share` is for random prompts; a dataset brings its own prefixes")
        if self.tokenizer is not None and not self.chat_template:
            raise ValueError("`tokenizer` needs `chat_template: true`; token ids are exact without one")
        if self.chat_template_kwargs and not self.chat_template:
            raise ValueError("`chat_template_kwargs` needs `chat_template: true`")
        return self

    @field_validator("extra_body")
    @classmethod
    def _keys_are_free(cls, keys: dict[str, Any]) -> dict[str, Any]:
        check_extra_body(keys)
        return keys


_LOAD = Load()


class LoadSpec(Strict):
    """The load says how requests are sent; times in engine seconds."""

    pacing: Literal["closed", "poisson", "gamma", "constant", "trace"] = Field(
        _LOAD.pacing, description="closed loop, or open loop by a process or by the dataset's timestamps"
    )
    burstiness: float = Field(
        _LOAD.burstiness, ge=1e-3, le=1e6, description="shape of gamma intervals; 1 is Poisson"
    )
    ramp_s: Pause = Field(_LOAD.ramp_s, description="load rises from nothing over so long; 0: a burst")
    transport: Literal["auto", "fast", "aiohttp"] = Field(
        _LOAD.transport, description="fast: kernel receive stamps; aiohttp: TLS, proxies, odd servers"
    )
    workers: int | None = Field(
        None, ge=1, le=64, description="client processes; as many as needed if left out"
    )
    chunks: Literal["kept", "summarised"] = Field(
        _LOAD.chunks, description="keep every chunk time, or only summaries (smaller, not recomputable)"
    )
    stall_s: Seconds = Field(_LOAD.stall_s, description="a longer gap between two chunks is a stall")
    api_key_env: Variable | None = Field(
        None, description="environment variable with the server's key; its value is never stored"
    )

    @model_validator(mode="after")
    def _shape_needs_gamma(self) -> LoadSpec:
        if "burstiness" in self.model_fields_set and self.pacing != "gamma":
            raise ValueError("`burstiness` needs `pacing: gamma`")
        if self.ramp_s and self.pacing == "trace":
            raise ValueError("`ramp_s` bends the times of a trace; leave it out")
        return self


_RULES = Measurement()


class MeasurementSpec(Strict):
    """The measurement holds the rules of measuring a point; times in engine seconds."""

    warmup_per_slot: float = Field(_RULES.warmup_per_slot, ge=0, le=1e9)
    requests_per_slot: Annotated[float, Field(gt=0, le=1e9)] = _RULES.requests_per_slot
    min_requests: int = Field(_RULES.min_requests, ge=1, le=10**9)
    min_window_s: Pause = _RULES.min_window_s
    max_error_rate: float = Field(_RULES.max_error_rate, ge=0, le=1)
    request_timeout_s: Seconds = _RULES.request_timeout_s
    point_timeout_s: Seconds = _RULES.point_timeout_s
    ready_timeout_s: Seconds = _RULES.ready_timeout_s
    sample_interval_s: float = Field(_RULES.sample_interval_s, ge=1e-3, le=MOST_SECONDS)
    continuous_usage: bool = Field(_RULES.continuous_usage, description="token counts in every event")
    greedy_prompts: int = Field(
        _RULES.greedy_prompts, ge=0, le=8, description="fixed prompts answered greedily before each ladder"
    )
    greedy_tokens: Tokens = Field(_RULES.greedy_tokens, description="output tokens of each such answer")
    evaluate: str | None = Field(
        None, description="command that scores the live endpoint; gets MTPBENCH_BASE_URL and MTPBENCH_MODEL"
    )
    evaluate_timeout_s: Seconds = Field(_RULES.evaluate_timeout_s, description="wall seconds")
    power: Literal["optional", "required"] = Field(
        _RULES.power, description="required: don't measure where the GPUs' power can't be read"
    )
    idle_s: Pause = Field(
        _RULES.idle_s, description="wall seconds of idle power, before the servers start and loaded"
    )
    rule: MeasuringRule = Field(
        "2026-11",
        description="how load is made and the window found, by date; 2026-05 to go on with an older sweep",
    )


class ReferenceRowSpec(Strict):
    """A row holds published throughput at one interactivity, by arm."""

    interactivity_tps: Positive
    tput_tps_per_gpu: dict[str, Positive]


class ReferenceSpec(Strict):
    """A reference holds published numbers to print beside the sweep's own."""

    source: str
    rows: list[ReferenceRowSpec] = Field(min_length=1)


class SweepFile(Strict):
    """A sweep is one question: a base, its arms, its topologies with their ladders."""

    sweep: str = Field(max_length=_LONGEST_SWEEP, description="name of the sweep and of its results folder")
    question: str = Field(description="the question that the sweep answers, one sentence")
    model: ModelSpec
    hardware: OneLine = Field(description="a name of the hardware constants, such as gb200-nvl72")
    engine: EngineSpec
    workload: WorkloadSpec
    load: LoadSpec = LoadSpec()
    measurement: MeasurementSpec = MeasurementSpec()
    arms: dict[str, Annotated[ArmSpec, BeforeValidator(lambda v: {} if v is None else v)]] = Field(
        min_length=1, max_length=200
    )
    baseline: str | None = Field(None, description="the arm others are compared with; the one without drafts")
    topologies: list[TopologySpec] = Field(min_length=1, max_length=500)
    repeats: int = Field(1, ge=1, le=10_000, description="how often each point is measured")
    restart: bool = Field(
        False, description="start the servers anew for each repeat, so that it shows how starts differ"
    )
    seed: int = Field(0, ge=0, lt=2**63)
    targets: list[Positive] = Field(
        default_factory=list, description="target interactivities of the tables, tok/s/user"
    )
    reference: ReferenceSpec | None = None

    @field_validator("sweep")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        return check_name(name)

    @field_validator("arms")
    @classmethod
    def _plain_arms(cls, arms: dict[str, ArmSpec]) -> dict[str, ArmSpec]:
        for name in arms:
            if len(check_name(name)) > _LONGEST_ARM:
                raise ValueError(f"the name of an arm has at most {_LONGEST_ARM} characters, not {len(name)}")
        if "off" in arms and arms["off"].speculates:
            raise ValueError("the arm `off` drafts tokens; give the arm with speculation another name")
        return arms

    @model_validator(mode="after")
    def _rates_fit_the_pacing(self) -> SweepFile:
        paced = self.load.pacing in ("poisson", "gamma", "constant")
        for i, topology in enumerate(self.topologies):
            if paced and topology.rate_rps is None:
                raise ValueError(f"`pacing: {self.load.pacing}` needs topologies[{i}].rate_rps")
            if not paced and topology.rate_rps is not None:
                raise ValueError(f"topologies[{i}].rate_rps needs `pacing: poisson`, `gamma` or `constant`")
        if self.load.pacing == "trace" and self.workload.prompts != "dataset":
            raise ValueError("`pacing: trace` needs `prompts: dataset` with a timestamp in every line")
        return self

    @model_validator(mode="after")
    def _arms_exist(self) -> SweepFile:
        named = {f"topologies[{i}].concurrency": {*t.concurrency} for i, t in enumerate(self.topologies)}
        for where, names in {"baseline": {self.baseline or "*"}, **named}.items():
            if unknown := sorted(names - {"*"} - self.arms.keys()):
                raise ValueError(f"{where} names the arm {unknown[0]!r}; the arms are {', '.join(self.arms)}")
        return self


def schema_text() -> str:
    """Returns the JSON Schema for editors, as it stands in sweeps/sweep.schema.json."""
    return json.dumps(SweepFile.model_json_schema(), indent=1, ensure_ascii=False) + "\n"
