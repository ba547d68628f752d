"""The record that everything here is made of: one measured point of one curve, and its pandas form.

`CurvePoint` is what every importer makes and every table reads; a field that a source does not have is
None. `PointSet` is what one or several sources held: the points, and what could not become one.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from mtpbench.records import CategoryFigures, LoadForm, SweepInfo, load_label, speculation_label
from mtpbench_analysis.numbers import counted

if TYPE_CHECKING:
    import pandas as pd

MEAN = {"mean": True}
"""Marks a field of which the mean over the runs of a recipe is taken."""
INNER = {"inner": True}
"""Marks a field that holds records: no column of a points CSV."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """A point of a curve is one measured recipe (arm, topology, concurrency, …) with its figures.

    Args:
        arm: the side of the comparison, such as `off` or `mtp`.
        interactivity_tps: output tokens/s that one user sees: 1 / median TPOT.
        tput_tps_per_gpu: (input + output tokens/s) / all GPUs of the deployment.
        output_tps_per_gpu, input_tps_per_gpu: output and input tokens/s over the same GPUs.
        concurrency: requests in flight; the most of them in an open loop.
        rate_rps: requests per second that were asked of an open loop; None in a closed one.
        sent_rps: those that were sent.
        arrivals: how requests of an open loop arrive (`poisson`, `gamma 0.5`); None in a closed one, or where
            it was not recorded.
        ramp_s: seconds over which load rose from nothing, outside the measured window; None for none.
        gpus: all GPUs of the deployment, prefill and decode alike.
        prefill_gpus, decode_gpus: those of each role; None where one pool does both.
        engine: what serves, router included where there is one (`dynamo-trt`).
        serving: `aggregated` or `disaggregated`.
        method: how drafts are made: one of `mtpbench.records.METHOD_NAMES`, `off` among them; None where it
            was not recorded. An arm's name does not tell it.
        draft_tokens: tokens that a step drafts; the most of them by a rule of depth.
        depth_rule: `static`, `by_batch` or `adaptive`; None without speculation, or where not recorded.
        depth_table: the rule's table or settings, one text each (`batch 1-16: 3`).
        checkpoint: what the servers load as the target model, by path or hub id.
        draft_model: the checkpoint that drafts, where it is one of its own.
        draft_sampling: `greedy` or `probabilistic`; None for the engine's default.
        rejection_method: `standard` or `block`; None for the engine's default.
        draft_tokens_per_step: drafted tokens / verification steps, as counted.
        acceptance_mode: `off` (no speculation), `measured`, `golden`, or None where it was not recorded.
        settings: the engine's options and environment beside those that speculation forces, one text each,
            the role first (`decode: max_num_seqs 512`); None where they were not recorded.
        workload: what the requests were beyond ISL and OSL (prompts, template, lengths).
        acceptance_length: tokens per verification step, the bonus token included.
        acceptance_per_position: accepted at position i / verification steps.
        acceptance_caveats: why it may not be that of real use (`random_prompts`, `ignore_eos`), where it was
            measured.
        by_category: figures of each kind of text, where the prompts name any; of a mean of runs none.
        demonstrates: whether the prompts are those that come with mtpbench, which are no benchmark.
        drafting_steps_only: whether steps that drafted nothing are not in the acceptance.
        tokens_per_step: output tokens of all steps, drafting or not, besides the first of each request.
        power_w_per_gpu: mean power of one GPU while measuring, as metered.
        power_source: what was read, and what it covers.
        power_cap_w: the power limit that was enforced on every GPU; None where they differ or are unknown.
        ttft_p50_s, ttft_p99_s, e2el_p50_s: as users wait: in an open loop from the moment at which a request
            was due, so that a wait for a free slot counts, where that was recorded.
        ttft_from_schedule_p50_s: the same as `ttft_p50_s` in an open loop; None where only the moment of
            sending is known, and in a closed loop without a ramp, where nothing is due before it is sent.
        interactivity_p99_tps: 1 / p99 of TPOT: 99% of the requests are at least as fast.
        tpot_basis: how the tokens of a request's first event were known: `known_first_chunk`,
            `least_first_chunk` or `assumed_one_token`; None where it was not recorded.
        ttft_p50_low_s, ttft_p50_high_s and the like: ends of a 95% interval of the percentile. With one end
            alone the requests are too few for the percentile: the end is a bound, and it is unknown
            how far beyond it the percentile lies.
        measuring_rule: the dated rule by which mtpbench measured it (`2026-11`); None for other tools.
        cached_prompt_share: prompt tokens that a prefix cache held / all of them.
        tput_rel_se, interactivity_rel_se: standard errors of this one run, as shares of the values, from
            time blocks of its window; what other runs would do is not in them.
        rel_se_correlation: of the errors of interactivity and throughput, −1 … 1; where it is None they are
            drawn as if they had nothing to do with each other.
        power_rel_se, acceptance_rel_se: the same of `power_w_per_gpu` and of `acceptance_length`.
        power_tput_correlation: of the errors of power and throughput, −1 … 1.
        joules_per_token_rel_se: of power / throughput, which errs less where both rise together.
        se_df: degrees of freedom of these standard errors (blocks − 1).
        start: which start of its servers a run belongs to; None where it was not recorded: all runs of a
            deployment in one source then count as one start.
        source: file and row, or the stored point's id.
        run_url: the address of the run, where its source gives one: equal figures of two runs are two points.
        valid: False where a validity rule was broken; such a point never enters a curve.
        reasons: why it is invalid.
    """

    arm: str
    interactivity_tps: float = field(metadata=MEAN)
    tput_tps_per_gpu: float = field(metadata=MEAN)
    output_tps_per_gpu: float | None = field(default=None, metadata=MEAN)
    input_tps_per_gpu: float | None = field(default=None, metadata=MEAN)
    concurrency: int | None = None
    rate_rps: float | None = None
    sent_rps: float | None = field(default=None, metadata=MEAN)
    arrivals: str | None = None
    ramp_s: float | None = None
    gpus: int | None = None
    prefill_gpus: int | None = None
    decode_gpus: int | None = None
    topology: str | None = None
    engine: str | None = None
    version: str | None = None
    image: str | None = None
    settings: tuple[str, ...] | None = None
    serving: str | None = None
    hardware: str | None = None
    precision: str | None = None
    model: str | None = None
    isl: int | None = None
    osl: int | None = None
    workload: str | None = None
    date: str | None = None
    method: str | None = None
    draft_tokens: int | None = None
    depth_rule: str | None = None
    depth_table: tuple[str, ...] | None = None
    checkpoint: str | None = None
    draft_model: str | None = None
    draft_sampling: str | None = None
    rejection_method: str | None = None
    draft_tokens_per_step: float | None = field(default=None, metadata=MEAN)
    acceptance_length: float | None = field(default=None, metadata=MEAN)
    acceptance_per_position: tuple[float, ...] | None = None
    acceptance_mode: str | None = None
    acceptance_caveats: tuple[str, ...] = ()
    drafting_steps_only: bool = False
    tokens_per_step: float | None = field(default=None, metadata=MEAN)
    by_category: tuple[CategoryFigures, ...] = field(default=(), metadata=INNER)
    demonstrates: bool = field(default=False, metadata=INNER)
    power_w_per_gpu: float | None = field(default=None, metadata=MEAN)
    power_source: str | None = None
    power_cap_w: float | None = None
    ttft_p50_s: float | None = field(default=None, metadata=MEAN)
    ttft_p99_s: float | None = field(default=None, metadata=MEAN)
    e2el_p50_s: float | None = field(default=None, metadata=MEAN)
    ttft_from_schedule_p50_s: float | None = field(default=None, metadata=MEAN)
    interactivity_p99_tps: float | None = field(default=None, metadata=MEAN)
    ttft_p50_low_s: float | None = None
    ttft_p50_high_s: float | None = None
    ttft_p99_low_s: float | None = None
    ttft_p99_high_s: float | None = None
    e2el_p50_low_s: float | None = None
    e2el_p50_high_s: float | None = None
    ttft_from_schedule_p50_low_s: float | None = None
    ttft_from_schedule_p50_high_s: float | None = None
    interactivity_p99_low_tps: float | None = None
    interactivity_p99_high_tps: float | None = None
    tpot_basis: str | None = None
    measuring_rule: str | None = None
    cached_prompt_share: float | None = None
    tput_rel_se: float | None = None
    interactivity_rel_se: float | None = None
    rel_se_correlation: float | None = None
    power_rel_se: float | None = None
    power_tput_correlation: float | None = None
    joules_per_token_rel_se: float | None = None
    acceptance_rel_se: float | None = None
    se_df: int | None = None
    simulated: bool = False
    repeat: int | None = None
    start: str | None = None
    source: str | None = None
    run_url: str | None = None
    valid: bool = True
    reasons: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Returns whether requests started by the clock, as far as recorded."""
        return self.rate_rps is not None or self.arrivals is not None

    @property
    def speculation(self) -> str | None:
        """Returns what its speculation is called: `off`, `DSpark k=6`; None where nobody recorded any."""
        return speculation_label(self.method, self.draft_tokens, self.depth_rule)

    def load(self, form: LoadForm = "long") -> str:
        """Returns what its load is called: `concurrency 64`, `8 req/s, cap 2`."""
        return load_label(self.concurrency, self.rate_rps, self.arrivals, self.ramp_s, form)

    @property
    def recipe(self) -> str:
        """Returns the recipe in a few characters: `concurrency 16384, 6xDEP8-1xDEP16, 64 GPUs`."""
        return self.recipe_of("long")

    @property
    def load_short(self) -> str:
        """Returns its load as a table says it: `conc. 64`."""
        return self.load("short")

    @property
    def load_mark(self) -> str:
        """Returns its load as it stands beside a dot: `c64`; empty where it is unknown."""
        return self.load("mark") if self.is_open or self.concurrency is not None else ""

    def recipe_of(self, form: LoadForm) -> str:
        """Returns the recipe, its load as short as asked for."""
        parts = []
        if self.is_open or self.concurrency is not None:
            parts.append(self.load(form))
        if self.topology is not None:
            parts.append(self.topology)
        if self.gpus is not None:
            parts.append(counted(self.gpus, "GPU"))
        return ", ".join(parts) or "recipe not recorded"


LOAD_FIELDS = ("concurrency", "rate_rps", "arrivals", "ramp_s")
"""What makes a load: points that differ in one of them are two points, never runs of one."""

SPECULATION_FIELDS = (
    *("method", "draft_tokens", "depth_rule", "depth_table", "checkpoint", "draft_model", "draft_sampling"),
    "rejection_method",
)
"""What makes a speculation: points that differ in one of them are never runs of one recipe."""

ERROR_FIELDS = (
    *("tput_rel_se", "interactivity_rel_se", "rel_se_correlation", "power_rel_se", "power_tput_correlation"),
    *("joules_per_token_rel_se", "acceptance_rel_se", "se_df"),
    *(f.name for f in dataclasses.fields(CurvePoint) if f.name.endswith(("_low_s", "_high_s"))),
    *("interactivity_p99_low_tps", "interactivity_p99_high_tps"),
)
"""What says how far the figures of one run may be off."""

UnusedKind = Literal["planned", "damaged", "repeated", "unusable", "invalid", "unpaired", "note"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Unused:
    """An unused item of a source is in no comparison, or is a remark on a point that is in one.

    Args:
        what: the row, the point, the curve or the field.
        reason: why, for people.
        kind: why, for programs: `planned` (not measured yet), `damaged` (files that can't be read),
            `repeated` (there twice, used once), `unusable` (a row, or a measured point, without figures),
            `invalid` (a validity rule was broken), `unpaired` (nothing to set it against), or `note` (what a
            point lacks, or what was set aside for it; the point itself is used).
        arm: whose it is, where that is known.
    """

    what: str
    reason: str
    kind: UnusedKind
    arm: str | None = None

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmAnswers:
    """The answers of an arm are the greedy ones of one deployment, and its score in the user's evaluation."""

    arm: str
    topology: str
    texts: tuple[str, ...]
    reason: str | None = None
    score: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PointSet:
    """A set of points holds what was read from one or several sources.

    `info` is the stored sweep's, where a single results folder was read; None otherwise. `answers` are what
    its deployments answered greedily, to see whether speculation changes them.
    """

    sources: tuple[str, ...]
    points: tuple[CurvePoint, ...]
    unused: tuple[Unused, ...] = ()
    info: SweepInfo | None = None
    answers: tuple[ArmAnswers, ...] = ()


def merge(sets: Sequence[PointSet]) -> PointSet:
    """Returns the points of several sources as one set; `info` survives only if there is a single source.

    The servers of each source were started anew, so a point that does not say its start gets its source's.
    """
    if len(sets) == 1:
        return sets[0]
    if sum(bool(item.points) for item in sets) > 1:
        sets = [replace(item, points=tuple(map(_start_in(item), item.points))) for item in sets]
    return PointSet(
        sources=tuple(source for item in sets for source in item.sources),
        points=tuple(point for item in sets for point in item.points),
        unused=tuple(unused for item in sets for unused in item.unused),
    )


def without_start(point: CurvePoint) -> CurvePoint:
    """Returns a point by which its run is found again, whether it lies alone or its source was merged."""
    return replace(point, start=None)


def _start_in(item: PointSet) -> Callable[[CurvePoint], CurvePoint]:
    source = "; ".join(item.sources)
    return lambda point: replace(point, start=source) if point.start is None else point


def columns() -> tuple[str, ...]:
    """Returns the names of `CurvePoint`'s fields, in order: the columns of a points CSV."""
    return tuple(f.name for f in dataclasses.fields(CurvePoint) if f.metadata != INNER)


@cache
def averaged() -> tuple[str, ...]:
    """Returns the names of the fields of which the mean over the runs of a recipe is taken."""
    return tuple(f.name for f in dataclasses.fields(CurvePoint) if f.metadata == MEAN)


@cache
def field_types() -> dict[str, type]:
    """Returns the plain type of each field (str, int, float, bool, tuple), None left out."""
    plain: dict[str, type] = {}
    for name, hint in typing.get_type_hints(CurvePoint).items():
        kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
        is_list = tuple in (typing.get_origin(hint), *(typing.get_origin(kind) for kind in kinds))
        plain[name] = tuple if is_list else kinds[0]
    return plain


def join_list(values: Sequence[object]) -> str:
    """Returns a field that holds several values as one text, `; ` between them."""
    return "; ".join(str(value) for value in values)


def split_list(name: str, text: str) -> tuple[Any, ...]:
    """Returns the values that `join_list` joined; numbers where the field holds numbers.

    Raises:
        ValueError: a number was needed.
    """
    parts = text.split("; ") if text else []
    return tuple(float(part) for part in parts) if name == "acceptance_per_position" else tuple(parts)


def to_frame(points: Iterable[CurvePoint]) -> pd.DataFrame:
    """Returns one row per point, one column per field; a missing value is None, lists are joined by `; `."""
    import pandas as pd  # a sixth of the time that a command takes to start, and only this needs it

    kinds = field_types()
    rows = []
    for point in points:
        row = {name: getattr(point, name) for name in columns()}
        row |= {name: join_list(row[name]) or None for name in row if kinds[name] is tuple and row[name]}
        rows.append({name: value if value != () else None for name, value in row.items()})
    return pd.DataFrame(rows, columns=list(columns()), dtype=object)
