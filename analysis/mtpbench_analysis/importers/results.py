"""A results folder as points; the only module here that knows the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtpbench.records import (
    OFF,
    DepthRule,
    Distribution,
    Energy,
    Engine,
    GpuCondition,
    Interval,
    Json,
    Load,
    Point,
    PointResult,
    Topology,
    WorkerRole,
    Workload,
)
from mtpbench.store import StoredPoint, read_sweep
from mtpbench_analysis.curves.noise import block_errors
from mtpbench_analysis.frame import ArmAnswers, CurvePoint, PointSet, Unused
from mtpbench_analysis.importers.fields import FASTEST_TPS, SLOWEST_TPS


def read_results(directory: Path) -> PointSet:
    """Returns the points of results/<sweep>; what is planned but not measured, or has no figures, is in
    `unused`.

    Raises:
        InputError: the folder holds no sweep.
        SchemaError: it was written under another schema version.
        StoreError: something in it is damaged.
    """
    sweep = read_sweep(directory)
    points: list[CurvePoint] = []
    unused: list[Unused] = []
    for stored in sweep.points:
        outcome = to_curve_point(stored)
        if isinstance(outcome, CurvePoint):
            points.append(outcome)
        else:
            unused.append(outcome)
    unused += [
        Unused(what=point_id, reason="planned, not measured yet", kind="planned")
        for point_id in sweep.missing
    ]
    unused += [
        Unused(what=point_id, reason=f"damaged: {why}", kind="damaged")
        for point_id, why in sweep.damaged.items()
    ]
    return PointSet(
        sources=(str(directory),),
        points=tuple(points),
        unused=tuple(unused),
        info=sweep.info,
        answers=_answers(sweep.points),
    )


def _answers(stored: Sequence[StoredPoint]) -> tuple[ArmAnswers, ...]:
    """Returns what each deployment answered: all points of a start say the same, and of several starts the
    first counts.
    """
    by_deployment: dict[str, ArmAnswers] = {}
    for item in stored:
        evaluation = item.result.evaluation
        answers = ArmAnswers(
            arm=item.point.arm.name,
            topology=item.point.topology.name,
            texts=() if _is_pinned(item) else item.result.answers.texts,
            reason="acceptance is pinned" if _is_pinned(item) else item.result.answers.reason,
            score=evaluation.score if evaluation else None,
        )
        if answers.texts or answers.score is not None:
            by_deployment.setdefault(item.point.deployment_key, answers)
    return tuple(by_deployment.values())


def _is_pinned(stored: StoredPoint) -> bool:
    """Returns whether drafts are accepted by decree: such an arm answers nonsense by construction."""
    speculation = stored.point.arm.speculation
    return speculation is not None and speculation.acceptance.mode == "golden"


def to_curve_point(stored: StoredPoint) -> CurvePoint | Unused:
    """Returns a stored point as a point of a curve; `Unused` where it has no interactivity or no throughput.

    Rates are those of the steady-state window. A point without one is invalid anyway, and is listed with
    the rates of its whole run.
    """
    point, result = stored.point, stored.result
    rates = result.steady or result.whole
    reasons = tuple(str(reason) for reason in result.reasons)
    if not result.interactivity_tps or rates is None or not rates.tput_tps_per_gpu:
        return Unused(
            what=result.point_id,
            reason="; ".join(reasons) or "no rate was measured",
            kind="unusable",
            arm=point.arm.name,
        )
    if unusable := _why_unusable(result.interactivity_tps, rates.tput_tps_per_gpu):
        reason = "; ".join((unusable, *reasons))
        return Unused(what=result.point_id, reason=reason, kind="unusable", arm=point.arm.name)
    if result.steady is None and not reasons:
        reasons = ("no_steady_window: only the rates of the whole run exist",)
    speculation = point.arm.speculation
    return CurvePoint(
        **_errors(result),
        **_percentiles(point.load, result),
        arm=point.arm.name,
        interactivity_tps=result.interactivity_tps,
        tput_tps_per_gpu=rates.tput_tps_per_gpu,
        output_tps_per_gpu=rates.output_tps_per_gpu,
        input_tps_per_gpu=rates.input_tps / point.topology.gpus,
        concurrency=point.concurrency,
        rate_rps=point.load.rate_rps,
        sent_rps=result.sent_rps,
        arrivals=point.load.arrivals,
        ramp_s=point.load.ramp_s or None,
        gpus=point.topology.gpus,
        prefill_gpus=_gpus(point.topology, "prefill"),
        decode_gpus=_gpus(point.topology, "decode"),
        topology=point.topology.name,
        engine=_engine(point),
        version=stored.provenance.engine_version or point.engine.version,
        image=stored.provenance.image or point.engine.image,
        serving="disaggregated" if point.topology.disaggregated else "aggregated",
        hardware=point.hardware,
        precision=point.model.precision,
        model=point.model.served_name,
        isl=point.workload.isl,
        osl=point.workload.osl,
        workload=_workload(point.workload, point.load),
        settings=_settings(point.engine),
        date=stored.provenance.started_utc[:10],
        **_speculation(point),
        draft_tokens_per_step=result.acceptance.draft_tokens_per_step,
        acceptance_length=result.acceptance.length,
        acceptance_per_position=result.acceptance.per_position,
        by_category=result.by_category,
        demonstrates=point.workload.demonstrates,
        acceptance_mode=speculation.acceptance.mode if speculation else "off",
        acceptance_caveats=point.acceptance_caveats,
        drafting_steps_only=result.acceptance.drafting_steps_only,
        tokens_per_step=result.acceptance.tokens_per_step,
        power_w_per_gpu=result.energy.mean_power_w_per_gpu,
        power_source=_power_source(result.energy),
        power_cap_w=_power_cap_w(result.gpus),
        tpot_basis=result.tpot_basis,
        measuring_rule=point.measurement.rule,
        cached_prompt_share=result.cached_prompt_share,
        simulated=result.simulated,
        repeat=point.repeat,
        start=stored.provenance.server_start,
        source=result.point_id,
        valid=not reasons,
        reasons=reasons,
    )


def _speculation(point: Point) -> dict[str, Any]:
    """Returns what the arm drafts with; without speculation that is `off`, whatever the arm is called."""
    speculation = point.arm.speculation
    if speculation is None:
        return {"method": OFF, "draft_tokens": 0, "checkpoint": point.checkpoint}
    rule = speculation.depth
    return {
        "method": speculation.method,
        "draft_tokens": speculation.draft_tokens,
        "depth_rule": rule.kind if rule else "static",
        "depth_table": _table(rule) if rule else None,
        "checkpoint": point.checkpoint,
        "draft_model": speculation.draft_model,
        "draft_sampling": speculation.draft_sampling,
        "rejection_method": speculation.rejection_method,
    }


def _table(rule: DepthRule) -> tuple[str, ...] | None:
    """Returns a rule of depth, one text for each range of the batch or setting; None for an engine's own."""
    ranges = [f"batch {each.first}-{each.last}: {each.draft_tokens}" for each in rule.ranges]
    settings = [_option(name, value) for name, value in rule.config.items()]
    return (*ranges, *settings) or None


def _why_unusable(interactivity_tps: float, tput_tps_per_gpu: float) -> str | None:
    """Returns why rates are none: no curve holds one that nothing serves, 0 and NaN among them."""
    for name, value in (("interactivity_tps", interactivity_tps), ("tput_tps_per_gpu", tput_tps_per_gpu)):
        if not SLOWEST_TPS <= value <= FASTEST_TPS:
            return f"{name} is {value:g}: nothing serves that"
    return None


def _engine(point: Point) -> str:
    """Returns the engine with its router, as the public rows name it (`dynamo-sglang`).

    A router only stands in front of disaggregated workers.
    """
    router = point.engine.router if point.topology.disaggregated else None
    return f"{router}-{point.engine.name}" if router and router != point.engine.name else point.engine.name


def _errors(result: PointResult) -> dict[str, Any]:
    """Returns the errors of this one run, from its time blocks; nothing where it has too few."""
    blocks = result.blocks
    errors = blocks and block_errors(blocks.interactivity_tps, blocks.tput_tps_per_gpu)
    if not blocks or not errors:
        return {}
    return {
        "interactivity_rel_se": errors.interactivity_rel_se,
        "tput_rel_se": errors.tput_rel_se,
        "rel_se_correlation": errors.correlation,
        "se_df": errors.df,
        **_power_errors(result.energy.power_w_per_gpu_by_block, blocks.tput_tps_per_gpu),
        "acceptance_rel_se": _rel_se(result.acceptance.length_by_block),
    }


def _power_errors(power_w: Sequence[float] | None, tput_tps: Sequence[float]) -> dict[str, Any]:
    """Returns the errors of the power per GPU and of what a token takes of it; nothing where unknown."""
    joint = block_errors(power_w, tput_tps) if power_w else None
    if power_w is None or joint is None:
        return {}
    joules = [power / tput for power, tput in zip(power_w, tput_tps, strict=True)]
    return {
        "power_rel_se": _rel_se(power_w),
        "power_tput_correlation": joint.correlation,
        "joules_per_token_rel_se": _rel_se(joules),
    }


def _rel_se(by_block: Sequence[float] | None) -> float | None:
    """Returns the relative standard error of a figure by time block."""
    errors = block_errors(by_block, by_block) if by_block else None
    return errors.tput_rel_se if errors else None


def _percentiles(load: Load, result: PointResult) -> dict[str, Any]:
    """Returns the percentiles of latencies as users wait, each with the ends of its interval."""
    ttft_s, e2el_s = result.ttft_as_waited_s(load), result.e2el_as_waited_s(load)
    since_due = result.ttft_from_schedule_s if load.open or load.ramp_s else None
    slowest = result.tpot_s and result.tpot_s.p99_interval
    return {
        **_with_ends("ttft_p50", ttft_s),
        **_with_ends("ttft_p99", ttft_s),
        **_with_ends("e2el_p50", e2el_s),
        # In a closed loop a request is due when a slot is free: without a ramp it would repeat the TTFT, to
        # the client's own delay, which has a rule of its own.
        **_with_ends("ttft_from_schedule_p50", since_due),
        "interactivity_p99_tps": result.interactivity_p99_tps,
        "interactivity_p99_low_tps": _inverse(slowest.high) if slowest else None,
        "interactivity_p99_high_tps": _inverse(slowest.low) if slowest else None,
    }


def _inverse(tpot_s: float | None) -> float | None:
    return None if tpot_s is None or tpot_s <= 0 else 1 / tpot_s


def _with_ends(name: str, latency_s: Distribution | None) -> dict[str, float | None]:
    """Returns a percentile and the ends of its interval, by the names of a point's fields."""
    percentile = name.rsplit("_", 1)[-1]
    interval: Interval | None = getattr(latency_s, f"{percentile}_interval") if latency_s else None
    return {
        f"{name}_s": getattr(latency_s, percentile) if latency_s else None,
        f"{name}_low_s": interval.low if interval else None,
        f"{name}_high_s": interval.high if interval else None,
    }


def _power_source(energy: Energy) -> str | None:
    """Returns what was read; whether it could be cross-checked says something of the point, not of
    the meter.
    """
    return None if energy.energy_j is None else energy.meter_text


def _power_cap_w(gpus: Sequence[GpuCondition]) -> float | None:
    held = [gpu for gpu in gpus if not gpu.name.startswith("unused")]
    caps = {cap for gpu in held for cap in (gpu.power_cap_min_w, gpu.power_cap_max_w)}
    return caps.pop() if len(caps) == 1 else None


def _gpus(topology: Topology, role: WorkerRole) -> int | None:
    """Returns the GPUs of one role; None where one pool does all."""
    group = topology.group(role)
    return group.gpus if group else None


def _settings(engine: Engine) -> tuple[str, ...]:
    """Returns the base's engine options and environment, one text each; what an arm forces is not
    among them.
    """
    flags = [
        f"{role}: {_option(name, value)}"
        for role, options in engine.flags.items()
        for name, value in options.items()
        if value is not None and value is not False
    ]
    env = [
        f"{role}: env {name}={value}"
        for role, options in engine.env.items()
        for name, value in options.items()
    ]
    return tuple(sorted((*flags, *env)))


def _option(name: str, value: Json) -> str:
    """Returns `max_num_seqs 512`; a bare flag is its name alone, a mapping is JSON."""
    if value is True:
        return name
    return f"{name} {value if isinstance(value, str) else json.dumps(value, sort_keys=True)}"


def _workload(workload: Workload, load: Load) -> str:
    lengths = (
        "exact lengths" if workload.range_ratio == 1 else f"lengths from {workload.range_ratio:g} L to L"
    )
    template = "chat template" if workload.chat_template else "no chat template"
    prompts = "demonstration prompts" if workload.demonstrates else f"{workload.prompts} prompts"
    parts = [prompts, template, lengths, f"temperature {workload.temperature:g}"]
    if workload.prefix_share:
        parts.append(f"{workload.prefix_share:.0%} of every prompt shared")
    # Another thinking mode, or other sampling, is another workload.
    for what, keys in (
        ("template told", workload.chat_template_kwargs),
        ("sent besides:", workload.extra_body),
    ):
        if keys:
            parts.append(f"{what} {json.dumps(keys, sort_keys=True)}")
    if load.open:
        parts.append(f"open loop, {_pacing(load)}")
    return ", ".join(parts)


def _pacing(load: Load) -> str:
    """Returns `poisson arrivals`, or gamma's with their shape."""
    return f"{load.pacing} arrivals" + (
        f" of burstiness {load.burstiness:g}" if load.pacing == "gamma" else ""
    )
