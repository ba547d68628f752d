"""A small stored sweep, made of records and written through the store, for tests that read results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from measured import SIMULATED_POWER
from mtpbench.hardware import lookup
from mtpbench.metrics.request_table import RequestTable
from mtpbench.records import (
    Acceptance,
    AcceptancePolicy,
    Arm,
    ClientHealth,
    Distribution,
    Energy,
    Engine,
    Measurement,
    Method,
    Model,
    Point,
    PointResult,
    Provenance,
    Rates,
    Reason,
    Reference,
    ReferenceRow,
    RunFacts,
    Speculation,
    SweepInfo,
    Topology,
    WorkerGroup,
    Workload,
)
from mtpbench.store import RawPoint, SweepStore
from mtpbench_analysis.frame import CurvePoint

OFF = Arm(name="off")
MTP = Arm(name="mtp", speculation=Speculation(draft_tokens=3, acceptance=AcceptancePolicy(mode="measured")))
LADDER = ((1, 90.0, 100.0), (16, 60.0, 800.0), (64, 30.0, 1500.0))
"""(concurrency, interactivity, throughput per GPU) of the Off arm; MTP is 1.5 times as fast at all of it."""


def store_point(arm: Arm, concurrency: int, repeat: int = 0) -> Point:
    return Point(
        sweep="small",
        model=Model(path="m", served_name="tiny", precision="fp4"),
        hardware="gb200-nvl72",
        engine=Engine(name="vllm", router="dynamo", image="img:1"),
        arm=arm,
        topology=Topology(groups=(WorkerGroup(role="aggregated", workers=1, tp=8),)),
        concurrency=concurrency,
        repeat=repeat,
        seed=7,
        workload=Workload(isl=8192, osl=1024, range_ratio=0.8),
        measurement=Measurement(),
    )


def store_result(point: Point, speed: float, tput: float, **changes: Any) -> PointResult:
    rates = Rates(
        start_s=0.0,
        end_s=10.0,
        requests_completed=10,
        input_tokens=80.0 * tput,
        output_tokens=10.0 * tput,
        input_tps=7.0 * tput,
        output_tps=tput,
        tput_tps_per_gpu=tput,
        output_tps_per_gpu=tput / 8,
        mean_in_flight=float(point.concurrency),
    )
    spread = Distribution(count=10, mean=0.5, min=0.1, p10=0.2, p50=0.4, p90=0.8, p99=0.9, max=1.0)
    length = 2.5 if point.arm.speculation else None
    result = PointResult(
        point_id=point.id,
        simulated=True,
        clock="virtual",
        requests=10,
        failed_requests=0,
        errors={},
        ttft_s=spread,
        tpot_s=spread,
        e2el_s=spread,
        icl_s=None,
        interactivity_tps=speed,
        interactivity_p99_tps=speed / 2,
        tpot_basis=None,
        steady=rates,
        whole=rates,
        acceptance=Acceptance(length=length, rate=None, per_position=None, drafts=None, source=None),
        energy=Energy(
            energy_j=1.0,
            mean_power_w_per_gpu=900.0,
            joules_per_token=1.0,
            joules_per_output_token=1.0,
            gpus=8,
            source=SIMULATED_POWER,
            basis="counter",
            cross_checked=True,
        ),
        client=ClientHealth(
            reader_lag_p99_s=None, send_lag_p99_s=None, cpu_share=None, achieved_concurrency=None
        ),
    )
    return replace(result, **changes)


def depth_runs(
    throughputs: Mapping[int, Callable[[float], float]],
    loads: Sequence[int] = (1, 4, 16, 64, 256),
    group: WorkerGroup | None = None,
    method: Method = "mtp",
    rel_se: float | None = 0.005,
    **changes: Any,
) -> list[tuple[Point, CurvePoint]]:
    """Points of one recipe at several depths, each with the output tok/s/GPU that its depth serves at a load.

    The error of a run is the same at all of them, in both coordinates.
    """
    group = group or WorkerGroup(role="aggregated", workers=1, tp=8)
    errors = {"tput_rel_se": rel_se, "interactivity_rel_se": rel_se, "se_df": 20} if rel_se else {}
    runs = []
    for depth, serves in throughputs.items():
        policy = AcceptancePolicy(mode="measured")
        speculation = Speculation(method=method, draft_tokens=depth, acceptance=policy) if depth else None
        arm = Arm(name=f"{method}{depth}" if depth else "off", speculation=speculation)
        for load in loads:
            point = replace(store_point(arm, load), topology=Topology(groups=(group,)))
            figures = CurvePoint(
                arm=arm.name,
                interactivity_tps=serves(load) / load,
                tput_tps_per_gpu=9 * serves(load),
                output_tps_per_gpu=serves(load),
                concurrency=load,
                topology=point.topology.name,
                gpus=group.gpus,
                draft_tokens=depth,
                **errors,
            )
            runs.append((replace(point, **changes), figures))
    return runs


def provenance() -> Provenance:
    return Provenance(
        started_utc="2026-11-23T10:00:00Z",
        finished_utc="2026-11-23T10:01:00Z",
        harness_version="0",
        git_revision=None,
        git_dirty=None,
        executor="local",
        host="h",
        python="3.11",
        packages={},
        engine_version="1.2",
        image=None,
        driver=None,
        gpus=(),
        command_lines={},
        environment={},
    )


def write_sweep(root: Path, **info_changes: Any) -> Path:
    """results/small: three points each of Off and MTP, one invalid, one without rates, one only planned."""
    plan: list[tuple[Point, PointResult | None]] = []
    for arm, factor in ((OFF, 1.0), (MTP, 1.5)):
        for concurrency, speed, tput in LADDER:
            point = store_point(arm, concurrency)
            plan.append((point, store_result(point, speed * factor, tput * factor)))
    saturated = store_point(MTP, 128)
    reasons = (Reason(code="client_saturated", detail="event loop 0.4 s late"),)
    plan.append((saturated, store_result(saturated, 20.0, 9000.0, reasons=reasons)))
    died = store_point(MTP, 256)
    dead = (Reason(code="server_died", detail="exit code 1"),)
    nothing: dict[str, Any] = {"interactivity_tps": None, "steady": None, "whole": None, "reasons": dead}
    plan.append((died, store_result(died, 1.0, 1.0, **nothing)))
    plan.append((store_point(OFF, 512), None))
    return write_plan(root, plan, info_changes)


def write_plan(
    root: Path, plan: Sequence[tuple[Point, PointResult | None]], info_changes: dict[str, Any]
) -> Path:
    """results/small, with these points."""
    info = SweepInfo(
        name="small",
        question="?",
        arms=("off", "mtp"),
        baseline="off",
        hardware=lookup("gb200-nvl72", "2026-05"),
        reference=Reference(
            source="the page",
            rows=(ReferenceRow(interactivity_tps=60.0, tput_tps_per_gpu={"off": 1000.0, "mtp": 1600.0}),),
        ),
        confounds=("MTP forces max_num_tokens",),
        planned=tuple(point.id for point, _ in plan),
    )
    store = SweepStore(root, replace(info, **info_changes))
    store.open()
    raw = RawPoint(
        requests=RequestTable.from_records([]),
        counters=(),
        power=(),
        client=ClientHealth(
            reader_lag_p99_s=None, send_lag_p99_s=None, cpu_share=None, achieved_concurrency=None
        ),
        facts=RunFacts(),
    )
    for point, result in plan:
        if result is not None:
            store.write(point, result, provenance(), raw, {})
    return store.directory
