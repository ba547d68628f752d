"""How fast the virtual clock runs: simulated seconds per wall second, median of several runs.

.venv/bin/python benchmarks/virtual_clock.py [RUNS]
"""

from __future__ import annotations

import statistics
import sys
import time

from mtpbench.load.pacer import RequestCounts, Schedule
from mtpbench.records import (
    AcceptancePolicy,
    Arm,
    Engine,
    EngineLimits,
    Measurement,
    Model,
    Point,
    Simulation,
    Speculation,
    Topology,
    WorkerGroup,
    WorkerRole,
    Workload,
)
from mtpbench.simengine.virtual import simulate_point
from mtpbench.workload import draw_lengths

RATES = (0.79, 0.48, 0.22)
LIMITS: dict[WorkerRole, EngineLimits] = {
    "prefill": EngineLimits(max_running=1024, prefill_chunk_tokens=65536),
    "decode": EngineLimits(max_running=21504, prefill_chunk_tokens=65536, stream_interval=60),
}
POINTS = ((16384, 6), (1024, 1))
"""Concurrency and DEP8 prefill workers; 1xDEP16 decodes with 3 drafts, 2 + 10 requests per slot, 8k/1k."""


def make_point(concurrency: int, prefill_workers: int) -> Point:
    policy = AcceptancePolicy(mode="golden", length=2.49, rates=RATES)
    return Point(
        sweep="benchmark",
        model=Model(path="deepseek-ai/DeepSeek-V4-Pro", served_name="m", precision="FP4"),
        hardware="gb200-nvl72",
        engine=Engine(name="simulated"),
        arm=Arm(name="mtp", speculation=Speculation(draft_tokens=3, acceptance=policy)),
        topology=Topology(
            groups=(
                WorkerGroup(role="prefill", workers=prefill_workers, tp=1, dp=8, ep=8),
                WorkerGroup(role="decode", workers=1, tp=1, dp=16, ep=16),
            )
        ),
        concurrency=concurrency,
        repeat=0,
        seed=1,
        workload=Workload(isl=8192, osl=1024, range_ratio=0.8),
        measurement=Measurement(),
        simulation=Simulation(profile="dsv4-gb200", clock="virtual"),
    )


def time_point(concurrency: int, prefill_workers: int) -> tuple[float, float]:
    """(simulated seconds, wall seconds) of one run."""
    point = make_point(concurrency, prefill_workers)
    counts = RequestCounts.of(concurrency, point.measurement)
    schedule = Schedule.independent(point.load, counts, concurrency, point.seed)
    lengths = draw_lengths(point.workload, counts.total, point.seed)
    began = time.perf_counter()
    run = simulate_point(point, LIMITS, lengths, schedule)
    return float(run.requests.end_s.max()), time.perf_counter() - began


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print("concurrency  simulated s   wall s  simulated s / wall s   (median of", runs, "runs, one core)")
    for concurrency, prefill_workers in POINTS:
        pairs = [time_point(concurrency, prefill_workers) for _ in range(runs)]
        wall_s = statistics.median(wall for _, wall in pairs)
        simulated_s = pairs[0][0]
        print(f"{concurrency:11d}  {simulated_s:11.0f}  {wall_s:7.2f}  {simulated_s / wall_s:20.0f}")


if __name__ == "__main__":
    main()
