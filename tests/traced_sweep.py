"""A stored sweep whose points have requests and power: measured by the harness from records made here."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from measured import MTP, OFF, SIMULATED_POWER, counter_samples, make_point, make_request, power_samples
from mtpbench.hardware import lookup
from mtpbench.measure import measure
from mtpbench.metrics.request_table import RequestTable
from mtpbench.records import (
    Arm,
    ClientHealth,
    Load,
    Point,
    Reason,
    RequestRecord,
    RunFacts,
    SweepInfo,
    Workload,
)
from mtpbench.store import RawPoint, SweepStore
from stored_sweep import provenance

SECONDS = 40
FACTS = RunFacts(counter_processes=("worker",), power_source=SIMULATED_POWER)
HEALTH = ClientHealth(
    transport="fast",
    stamps="kernel",
    workers=2,
    send_lag_p50_s=0.0011,
    send_lag_p99_s=0.0042,
    reader_lag_p50_s=0.0002,
    reader_lag_p99_s=0.0031,
    reads=900,
    coalesced_reads=0,
    cpu_share=0.25,
)
COMMANDS = {
    "worker": ("vllm", "serve", "a model", "--flag", "it's", '{"a": "<b>"}'),
    "router": ("route", "--port", "1"),
}


def loaded(seed: int, slots: int, gain: float) -> list[RequestRecord]:
    """A closed loop of `slots` requests over 40 s; latencies scatter, and a first chunk has 2 tokens."""
    noise, records = random.Random(seed), []
    for slot in range(slots):
        now, turn = 0.0, 0
        while now < SECONDS:
            first = now + noise.uniform(0.05, 0.2)
            gap = noise.uniform(0.02, 0.03) * slots / gain
            times = [first + gap * i for i in range(20)]
            record = make_request(len(records), slot, now, times, warmup=turn == 0)
            records.append(
                replace(record, chunk_tokens=tuple(range(2, 22)), output_tokens=21, asked_output_tokens=21)
            )
            now, turn = times[-1] + 0.001, turn + 1
    return records


def measured(
    point: Point, requests: Sequence[RequestRecord], health: ClientHealth | None = HEALTH
) -> tuple[Point, RawPoint, Any]:
    """A point, what was recorded of it, and the result that the harness derives."""
    table = RequestTable.from_records(requests)
    drafting = point.arm.speculation is not None
    counters = counter_samples(seconds=SECONDS + 5) if drafting else ()
    power = power_samples(2, seconds=SECONDS + 5.0, watts=500.0 + 7 * point.concurrency)
    raw = RawPoint(
        requests=table,
        counters=tuple(counters),
        power=tuple(power),
        client=health or ClientHealth(),
        facts=FACTS,
    )
    return point, raw, measure(point, raw)


def point_of(arm: Arm, concurrency: int, **changes: Any) -> Point:
    workload = Workload(isl=100, osl=21)
    return make_point(
        sweep="traced", arm=arm, concurrency=concurrency, workload=workload, hardware="gb200-nvl72", **changes
    )


def open_point(**changes: Any) -> Point:
    return point_of(OFF, 4, load=Load(pacing="poisson", rate_rps=4.0), **changes)


def break_result(result: Any, why: str) -> Any:
    return replace(result, reasons=(Reason(code="server_died", detail=why),))


def write_traced(
    root: Path,
    *,
    commands: Mapping[str, tuple[str, ...]] = COMMANDS,
    environment: Mapping[str, str] | None = None,
    failing: str | None = None,
    loads: Sequence[int] = (2, 4, 8),
    load: Load | None = None,
    died: str | None = None,
) -> Path:
    """results/traced: Off and MTP at several loads, and one that nobody measured.

    Args:
        root: the results folder.
        commands: of each start.
        environment: of each start.
        failing: what failed requests of the last MTP point were told; it is invalid then.
        loads: concurrencies.
        load: how requests are sent; None for a closed loop.
        died: why every point is invalid, the last of them without figures; None where they are as measured.
    """
    made = []
    for arm, gain in ((OFF, 1.0), (MTP, 1.5)):
        for seed, concurrency in enumerate(loads):
            made.append(
                measured(point_of(arm, concurrency, load=load or Load()), loaded(seed, concurrency, gain))
            )
    if failing is not None:
        point = point_of(MTP, 16)
        requests = loaded(9, 16, 1.5)
        broken = [
            replace(r, error="http_503", error_detail=failing) if i % 3 == 1 and not r.warmup else r
            for i, r in enumerate(requests)
        ]
        made.append(measured(point, broken))
    if died is not None:
        made = [(point, raw, break_result(result, died)) for point, raw, result in made]
        point, raw, result = made[-1]
        made[-1] = (point, raw, replace(result, interactivity_tps=None, steady=None, whole=None))
    missing = point_of(OFF, 512)
    info = SweepInfo(
        name="traced",
        question="?",
        arms=("off", "mtp"),
        baseline="off",
        hardware=lookup("gb200-nvl72", "2026-05"),
        reference=None,
        confounds=(),
        planned=(*(point.id for point, _, _ in made), missing.id),
    )
    store = SweepStore(root, info)
    store.open()
    for i, (point, raw, result) in enumerate(made):
        began = replace(
            provenance(),
            started_utc=f"2026-11-24T10:{i:02d}:00Z",
            command_lines=dict(commands),
            environment=dict(environment or {}),
        )
        store.write(point, result, began, raw, {})
    return store.directory
