"""What a stored point tells a curve: errors of its run, pools, settings, pacing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from measured import power_samples
from mtpbench.metrics.energy import measure_energy
from mtpbench.metrics.window import Window
from mtpbench.records import (
    Acceptance,
    AcceptancePolicy,
    Arm,
    Blocks,
    DepthRange,
    DepthRule,
    Distribution,
    Engine,
    Interval,
    Load,
    Point,
    PointResult,
    Simulation,
    Speculation,
    Topology,
    WorkerGroup,
    Workload,
    speculation_label,
)
from mtpbench.store import StoredPoint
from mtpbench_analysis.curves.noise import block_errors
from mtpbench_analysis.frame import ERROR_FIELDS, CurvePoint, Unused
from mtpbench_analysis.importers.results import to_curve_point
from mtpbench_analysis.metric_table import metric
from stored_sweep import MTP, provenance, store_point, store_result


def imported(point_changes: dict[str, Any] | None = None, **result_changes: Any) -> CurvePoint:
    point: Point = replace(store_point(MTP, 16), **(point_changes or {}))
    result: PointResult = store_result(point, 60.0, 800.0, **result_changes)
    made = to_curve_point(StoredPoint(point=point, result=result, provenance=provenance(), directory=Path()))
    assert isinstance(made, CurvePoint)
    return made


def test_time_blocks_become_the_errors_of_the_run() -> None:
    blocks = Blocks(
        duration_s=2.0,
        tput_tps_per_gpu=(800.0, 790.0, 810.0, 805.0, 795.0, 802.0),
        interactivity_tps=(60.0, 61.0, 59.0, 59.5, 60.5, 60.2),
    )
    point, found = imported(blocks=blocks), block_errors(blocks.interactivity_tps, blocks.tput_tps_per_gpu)
    assert found is not None
    assert (point.interactivity_rel_se, point.tput_rel_se) == (
        found.interactivity_rel_se,
        found.tput_rel_se,
    )
    assert (point.rel_se_correlation, point.se_df) == (found.correlation, 5)


def test_without_blocks_the_errors_are_unknown() -> None:
    assert {getattr(imported(), name) for name in ERROR_FIELDS} == {None}


def test_power_that_rises_with_the_throughput_leaves_joules_alone() -> None:
    tput = (800.0, 760.0, 840.0, 820.0, 780.0, 802.0)
    blocks = Blocks(duration_s=2.0, tput_tps_per_gpu=tput, interactivity_tps=(60.0,) * 6)
    energy = store_result(store_point(MTP, 16), 60.0, 800.0).energy
    point = imported(
        blocks=blocks, energy=replace(energy, power_w_per_gpu_by_block=tuple(rate * 1.1 for rate in tput))
    )
    assert point.power_rel_se == pytest.approx(point.tput_rel_se)
    assert point.power_tput_correlation == pytest.approx(1.0)
    assert point.joules_per_token_rel_se == pytest.approx(0.0, abs=1e-12)
    flat = imported(blocks=blocks, energy=replace(energy, power_w_per_gpu_by_block=(900.0,) * 6))
    assert (flat.power_rel_se, flat.power_tput_correlation) == (0.0, 0.0)
    assert flat.joules_per_token_rel_se == pytest.approx(point.tput_rel_se, rel=0.01)
    assert imported(blocks=blocks).power_rel_se is None


def test_the_error_of_the_acceptance_is_that_of_its_blocks() -> None:
    blocks = Blocks(duration_s=2.0, tput_tps_per_gpu=(800.0,) * 5, interactivity_tps=(60.0,) * 5)
    lengths = (2.4, 2.6, 2.5, 2.55, 2.45)
    acceptance = replace(store_result(store_point(MTP, 16), 60.0, 800.0).acceptance, length_by_block=lengths)
    point, found = imported(blocks=blocks, acceptance=acceptance), block_errors(lengths, lengths)
    assert found is not None
    assert (point.acceptance_rel_se, point.se_df) == (found.tput_rel_se, 4)
    assert imported(blocks=blocks).acceptance_rel_se is None


def test_percentiles_have_their_intervals_and_those_of_too_few_requests_one_end() -> None:
    told = Interval(low=0.35, high=0.5, effective_count=8.0)
    bound = Interval(low=0.7, high=None, effective_count=8.0)
    spread = Distribution(
        count=10,
        mean=0.5,
        min=0.1,
        p10=0.2,
        p50=0.4,
        p90=0.8,
        p99=0.9,
        max=1.0,
        p50_interval=told,
        p99_interval=bound,
    )
    point = imported(ttft_s=spread, e2el_s=spread, tpot_s=spread)
    assert (point.ttft_p50_low_s, point.ttft_p50_s, point.ttft_p50_high_s) == (0.35, 0.4, 0.5)
    assert (point.ttft_p99_low_s, point.ttft_p99_s, point.ttft_p99_high_s) == (0.7, 0.9, None)
    assert (point.e2el_p50_low_s, point.e2el_p50_high_s) == (0.35, 0.5)
    # Slower than p99 of TPOT at least: as a speed that is an upper end.
    assert (point.interactivity_p99_low_tps, point.interactivity_p99_high_tps) == (None, 1 / 0.7)
    assert metric("ttft_p50_s").text_of(point) == "0.400 (0.350–0.500)"
    assert metric("ttft_p99_s").text_of(point) == "≥ 0.700"
    assert metric("interactivity_p99_tps").text_of(point) == "≤ 1.4"
    assert metric("ttft_from_schedule_p50_s").text_of(point) == "–"


def test_a_point_brings_the_start_of_its_servers_or_none() -> None:
    point = store_point(MTP, 16)
    result = store_result(point, 60.0, 800.0)
    for start in ("5fe0", None):
        origin = replace(provenance(), server_start=start)
        made = to_curve_point(StoredPoint(point=point, result=result, provenance=origin, directory=Path()))
        assert isinstance(made, CurvePoint)
        assert made.start == start


def test_pools_have_gpus_of_their_own() -> None:
    groups = (
        WorkerGroup(role="prefill", workers=6, tp=1, dp=8, ep=8),
        WorkerGroup(role="decode", workers=1, tp=1, dp=16, ep=16),
    )
    split, one = imported({"topology": Topology(groups=groups)}), imported()
    assert (split.gpus, split.prefill_gpus, split.decode_gpus) == (64, 48, 16)
    assert (one.gpus, one.prefill_gpus, one.decode_gpus) == (8, None, None)
    assert one.input_tps_per_gpu == pytest.approx(7 * 800.0 / 8)


def test_settings_are_the_base_alone_by_role() -> None:
    engine = Engine(
        name="vllm",
        flags={
            "decode": {"max_num_seqs": 512, "enforce_eager": True, "swap": None, "cfg": {"b": 1, "a": [2]}},
            "aggregated": {"dtype": "fp8", "compile": False},
        },
        env={"decode": {"NCCL_CUMEM_ENABLE": "1"}},
    )
    forcing = replace(MTP, forces={"decode": {"max_num_seqs": 64}})
    assert imported({"engine": engine, "arm": forcing}).settings == (
        "aggregated: dtype fp8",
        'decode: cfg {"a": [2], "b": 1}',
        "decode: enforce_eager",
        "decode: env NCCL_CUMEM_ENABLE=1",
        "decode: max_num_seqs 512",
    )


def test_an_open_loop_and_a_shared_prefix_stand_in_the_workload() -> None:
    closed = imported()
    assert closed.workload == "random prompts, no chat template, lengths from 0.8 L to L, temperature 0"
    assert closed.rate_rps is None
    load = Load(pacing="gamma", rate_rps=12.5, burstiness=0.5)
    shared = Workload(isl=8192, osl=1024, prefix_share=0.25)
    point = imported({"load": load, "workload": shared})
    assert point.rate_rps == 12.5
    assert point.workload is not None
    assert point.workload.endswith("25% of every prompt shared, open loop, gamma arrivals of burstiness 0.5")


@pytest.mark.parametrize(
    ("prompts", "ignore_eos", "mode", "caveats"),
    [
        ("random", True, "measured", ("random_prompts", "ignore_eos")),
        ("random", False, "measured", ("random_prompts",)),
        ("dataset", True, "measured", ("ignore_eos",)),
        ("dataset", False, "measured", ()),
        ("random", True, "golden", ()),
    ],
)
def test_a_measured_acceptance_brings_why_it_may_not_be_that_of_real_use(
    prompts: Any, ignore_eos: bool, mode: Any, caveats: tuple[str, ...]
) -> None:
    workload = Workload(isl=8192, osl=1024, prompts=prompts, ignore_eos=ignore_eos)
    arm = Arm(name="mtp", speculation=Speculation(draft_tokens=3, acceptance=AcceptancePolicy(mode=mode)))
    assert imported({"workload": workload, "arm": arm, "simulation": None}).acceptance_caveats == caveats
    assert imported({"workload": workload, "arm": Arm(name="off")}).acceptance_caveats == ()
    # A model of an engine accepts by its own rates, whatever the prompts are.
    modelled = {"workload": workload, "arm": arm, "simulation": Simulation(profile="p")}
    assert imported(modelled).acceptance_caveats == ()


def test_thinking_on_and_off_are_two_workloads() -> None:
    chat = Workload(isl=8192, osl=1024, chat_template=True)
    sides = [
        imported({"workload": replace(chat, chat_template_kwargs={"thinking": on})}).workload
        for on in (True, False)
    ]
    assert sides[0] == f'{imported({"workload": chat}).workload}, template told {{"thinking": true}}'
    assert sides[0] != sides[1]
    sampled = imported({"workload": replace(chat, extra_body={"top_p": 0.9, "min_p": 0})}).workload
    assert sampled is not None
    assert sampled.endswith(', sent besides: {"min_p": 0, "top_p": 0.9}')


def test_what_was_measured_of_acceptance_and_waiting_is_kept() -> None:
    found = Acceptance(length=2.5, rate=0.5, per_position=(0.8, 0.5, 0.2), drafts=10.0, source=None)
    point = imported(acceptance=found)
    assert (point.acceptance_per_position, point.ttft_p99_s) == ((0.8, 0.5, 0.2), 0.9)
    assert point.source == store_point(MTP, 16).id


@pytest.mark.parametrize(
    ("load", "kept"),
    [(Load(), None), (Load(ramp_s=5.0), 1.5), (Load(pacing="poisson", rate_rps=2.0), 1.5)],
    ids=["closed", "ramp", "open"],
)
def test_waiting_from_the_schedule_is_kept_where_there_is_one(load: Load, kept: float | None) -> None:
    waits = Distribution(count=9, mean=1.6, min=0.1, p10=0.2, p50=1.5, p90=2.0, p99=3.0, max=4.0)
    point = imported({"load": load}, ttft_from_schedule_s=waits, interactivity_p99_tps=12.5)
    assert (point.ttft_from_schedule_p50_s, point.interactivity_p99_tps) == (kept, 12.5)
    assert imported({"load": load}, ttft_from_schedule_s=None).ttft_from_schedule_p50_s is None


@pytest.mark.parametrize("bad", [-5.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["interactivity_tps", "tput_tps_per_gpu"])
def test_rates_that_are_no_positive_numbers_enter_no_curve(name: str, bad: float) -> None:
    point = store_point(MTP, 16)
    result = store_result(point, 60.0, 800.0)
    assert result.steady is not None
    if name == "interactivity_tps":
        result = replace(result, interactivity_tps=bad)
    else:
        result = replace(result, steady=replace(result.steady, tput_tps_per_gpu=bad))
    made = to_curve_point(StoredPoint(point=point, result=result, provenance=provenance(), directory=Path()))
    assert isinstance(made, Unused)
    assert made.reason == f"{name} is {bad:g}: nothing serves that"


def test_the_meter_is_one_whether_or_not_its_point_could_be_cross_checked() -> None:
    """A point without power beside its counter was read from the same meter: no confound of two arms."""
    window = Window(start_s=1.0, end_s=4.0)
    unchecked = [replace(sample, power_w=None) for sample in power_samples()]
    energies = [
        measure_energy(samples, window, 2, 600.0, 300.0, "simulated")
        for samples in (power_samples(), unchecked)
    ]
    assert energies[0].energy_j == energies[1].energy_j
    first, second = (imported(energy=energy).power_source for energy in energies)
    assert first is not None
    assert first == second
    nothing = measure_energy([], window, 2, 600.0, 300.0, "simulated")
    assert imported(energy=nothing).power_source is None


def _with_arm(**changes: Any) -> dict[str, Any]:
    return {"arm": replace(MTP, **changes)}


def test_a_point_tells_its_method_depth_and_checkpoint_whatever_its_arm_is_called() -> None:
    policy = AcceptancePolicy(mode="measured")
    dspark = Speculation(method="dspark", draft_tokens=6, acceptance=policy, draft_sampling="probabilistic")
    point = imported(_with_arm(speculation=dspark, checkpoint="deepseek-ai/DeepSeek-V4-Pro-0813"))
    assert (point.method, point.draft_tokens, point.depth_rule) == ("dspark", 6, "static")
    assert (point.checkpoint, point.draft_sampling) == ("deepseek-ai/DeepSeek-V4-Pro-0813", "probabilistic")
    assert point.speculation == "DSpark k=6"
    off = imported(_with_arm(name="mtp-later", speculation=None))
    assert (off.method, off.draft_tokens, off.depth_rule, off.speculation) == ("off", 0, None, "off")
    assert off.checkpoint == store_point(MTP, 16).model.path


def test_a_rule_of_depth_brings_its_table() -> None:
    table = DepthRule(
        kind="by_batch",
        ranges=(
            DepthRange(first=1, last=16, draft_tokens=3),
            DepthRange(first=17, last=64, draft_tokens=0),
        ),
    )
    policy = AcceptancePolicy(mode="measured")
    ruled = Speculation(draft_tokens=3, acceptance=policy, depth=table)
    point = imported(_with_arm(speculation=ruled))
    assert point.depth_table == ("batch 1-16: 3", "batch 17-64: 0")
    assert point.speculation == "MTP k≤3 by batch"
    adaptive = DepthRule(kind="adaptive", config={"ema_alpha": 0.2})
    chosen = Speculation(
        method="eagle3", draft_tokens=3, acceptance=policy, draft_model="head", depth=adaptive
    )
    point = imported(_with_arm(speculation=chosen))
    assert (point.depth_table, point.draft_model) == (("ema_alpha 0.2",), "head")
    assert point.speculation == "EAGLE-3 k≤3 adaptive"


def test_the_drafts_of_a_step_as_counted_come_with_the_point() -> None:
    acceptance = replace(
        store_result(store_point(MTP, 16), 60.0, 800.0).acceptance, draft_tokens_per_step=2.25
    )
    assert imported(acceptance=acceptance).draft_tokens_per_step == 2.25


@pytest.mark.parametrize(
    ("facts", "label"),
    [
        ((None, None, None), None),
        ((None, 0, None), "off"),
        ((None, 3, None), "k=3"),
        (("off", None, None), "off"),
        (("mtp", 3, None), "MTP k=3"),
        (("ngram", 4, "static"), "n-gram k=4"),
        (("ngram", None, None), "n-gram"),
        (("draft_model", 5, None), "draft model k=5"),
        (("suffix", None, "adaptive"), "suffix adaptive"),
        (("dflash", 8, None), "dflash k=8"),
    ],
)
def test_a_speculation_has_one_short_name(
    facts: tuple[str | None, int | None, str | None], label: str | None
) -> None:
    assert speculation_label(*facts) == label
