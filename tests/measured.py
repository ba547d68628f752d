"""Points, requests and samples for the tests of everything that is derived from raw records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from mtpbench.records import (
    AcceptancePolicy,
    Arm,
    CounterSample,
    Engine,
    Measurement,
    Model,
    Point,
    PowerSample,
    PowerSource,
    RequestRecord,
    SpecCounters,
    Speculation,
    Topology,
    WorkerGroup,
    Workload,
)

MTP = Arm(name="mtp", speculation=Speculation(draft_tokens=3, acceptance=AcceptancePolicy(mode="measured")))
OFF = Arm(name="off")
SIMULATED_POWER = PowerSource(meter="simulated", counter=True)


def make_point(**changes: Any) -> Point:
    """A small aggregated point on 2 GPUs, speculation off, concurrency 2."""
    point = Point(
        sweep="test",
        model=Model(path="m", served_name="tiny", precision="fp4"),
        hardware="gb200",
        engine=Engine(name="vllm"),
        arm=OFF,
        topology=Topology(groups=(WorkerGroup(role="aggregated", workers=1, tp=2),)),
        concurrency=2,
        repeat=0,
        seed=7,
        workload=Workload(isl=100, osl=4),
        measurement=Measurement(min_window_s=1.0),
    )
    return dataclasses.replace(point, **changes)


def make_request(
    index: int, slot: int, sent_s: float, times: Sequence[float], **changes: Any
) -> RequestRecord:
    """A request that ended well: one token per chunk, 100 prompt tokens, as many output tokens as chunks."""
    record = RequestRecord(
        index=index,
        slot=slot,
        warmup=False,
        scheduled_s=sent_s,
        sent_s=sent_s,
        end_s=times[-1] if times else sent_s,
        chunk_times_s=tuple(times),
        chunk_tokens=tuple(range(1, len(times) + 1)),
        asked_prompt_tokens=100,
        asked_output_tokens=len(times),
        prompt_tokens=100,
        output_tokens=len(times),
        finish_reason="length",
    )
    return dataclasses.replace(record, **changes)


def steady_load(slots: int = 2, rounds: int = 4, warmup_rounds: int = 1) -> list[RequestRecord]:
    """Every slot sends a request per second at whole seconds; 4 tokens at .25, .5, .75 and 1 s of each."""
    return [
        make_request(
            turn * slots + slot,
            slot,
            turn,
            [turn + 0.25 * i for i in (1, 2, 3, 4)],
            warmup=turn < warmup_rounds,
        )
        for turn in range(rounds)
        for slot in range(slots)
    ]


def counter_samples(
    process: str = "worker",
    *,
    seconds: int = 5,
    drafts_per_s: float = 10.0,
    accepted: Sequence[float] = (8, 5, 2),
) -> list[CounterSample]:
    """A sample every half second: 3 drafts per step, `accepted` of ten at each position."""
    return [
        CounterSample(
            time_s=t / 2,
            process=process,
            counters=SpecCounters(
                drafts=drafts_per_s * t / 2,
                draft_tokens=3 * drafts_per_s * t / 2,
                accepted_tokens=sum(accepted) / 10 * drafts_per_s * t / 2,
                per_position=tuple(rate / 10 * drafts_per_s * t / 2 for rate in accepted),
            ),
        )
        for t in range(2 * seconds + 1)
    ]


def power_samples(
    gpus: int = 2, *, watts: float = 500.0, seconds: float = 5.0, every_s: float = 0.25
) -> list[PowerSample]:
    """Constant power, and the energy counter that belongs to it (starting at 1,000 J)."""
    return [
        PowerSample(
            time_s=i * every_s, process="worker", gpu=gpu, power_w=watts, energy_j=1000 + watts * i * every_s
        )
        for i in range(round(seconds / every_s) + 1)
        for gpu in range(gpus)
    ]
