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
    Blocks,
    Distribution,
    Engine,
    Load,
    Point,
    PointResult,
    Topology,
    WorkerGroup,
    Workload,
)
from mtpbench.store import StoredPoint
from mtpbench_analysis.curves.noise import block_errors
from mtpbench_analysis.frame import CurvePoint, Unused
from mtpbench_analysis.importers.results import to_curve_point
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
    point = imported()
    errors = (point.interactivity_rel_se, point.tput_rel_se, point.rel_se_correlation, point.se_df)
    assert errors == (None,) * 4


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
