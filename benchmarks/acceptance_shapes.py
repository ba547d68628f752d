"""Tails at equal acceptance: one mean length in every shape, on the virtual clock, as a Markdown table.

    .venv/bin/python benchmarks/acceptance_shapes.py [CONCURRENCY] [SEEDS]

Three drafts at the golden 2.49 (thinking on), 2xDEP8 that prefill and 1xDEP8 that decodes of the profile
dsv4-gb200, ISL 1024, OSL 1024: no answer is longer than another, and no prefill delays a step. Figures are
means over the seeds, in brackets the largest distance of a seed. SIMULATED: a model of an engine.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

from mtpbench.records import (
    AcceptancePolicy,
    AcceptanceShape,
    Arm,
    Engine,
    Measurement,
    Model,
    Point,
    PointResult,
    Simulation,
    Speculation,
    Topology,
    WorkerGroup,
    Workload,
)
from mtpbench.run import run_virtual_point

RATES = (0.79, 0.48, 0.22)
SHAPES: tuple[tuple[str, AcceptanceShape, float | None], ...] = (
    ("by position (a real head, all requests alike)", "by_position", None),
    ("by position, requests spread by 10%", "by_position", 0.1),
    ("by position, requests spread by 20%", "by_position", 0.2),
    ("geometric (pinned on llama.cpp)", "geometric", None),
    ("minimum variance (pinned on vLLM)", "minimum_variance", None),
    ("lock-step (pinned on SGLang)", "lock_step", None),
)
HEADINGS = (
    *("shape", "AL", "TPOT p50, ms", "TPOT p99, ms", "p99 / p50", "E2EL p50, s", "E2EL p99, s"),
    *("tok/s/user", "tok/s/GPU"),
)


class Nowhere:
    """A store that keeps nothing."""

    def write(self, *stored: Any) -> None:
        pass


def make_point(concurrency: int, seed: int, shape: AcceptanceShape, spread: float | None) -> Point:
    policy = AcceptancePolicy(mode="golden", length=2.49, rates=RATES)
    return Point(
        sweep="shapes",
        model=Model(path="deepseek-ai/DeepSeek-V4-Pro", served_name="m", precision="FP4"),
        hardware="gb200-nvl72",
        engine=Engine(name="simulated"),
        arm=Arm(name="mtp3", speculation=Speculation(draft_tokens=3, acceptance=policy)),
        topology=Topology(
            groups=(
                WorkerGroup(role="prefill", workers=2, tp=1, dp=8, ep=8),
                WorkerGroup(role="decode", workers=1, tp=1, dp=8, ep=8),
            )
        ),
        concurrency=concurrency,
        repeat=0,
        seed=seed,
        workload=Workload(isl=1024, osl=1024),
        measurement=Measurement(),
        simulation=Simulation(
            profile="dsv4-gb200", clock="virtual", acceptance_shape=shape, acceptance_spread=spread
        ),
    )


def figures(result: PointResult) -> list[float]:
    acceptance, tpot_s, e2el_s, steady = result.acceptance, result.tpot_s, result.e2el_s, result.steady
    assert acceptance is not None
    assert tpot_s is not None
    assert e2el_s is not None
    assert steady is not None
    known = [
        acceptance.length,
        *(tpot_s.p50, tpot_s.p99, e2el_s.p50, e2el_s.p99),
        result.interactivity_tps,
        steady.tput_tps_per_gpu,
    ]
    length, tpot_p50_s, tpot_p99_s, *others = [value for value in known if value is not None]
    return [length, 1e3 * tpot_p50_s, 1e3 * tpot_p99_s, tpot_p99_s / tpot_p50_s, *others]


def cell(values: list[float]) -> str:
    mean = statistics.fmean(values)
    digits = 3 if mean < 10 else 2 if mean < 100 else 0
    return f"{mean:.{digits}f} (±{max(abs(value - mean) for value in values):.{digits}f})"


def main() -> None:
    concurrency = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    print(f"SIMULATED, concurrency {concurrency}, means of {seeds} seeds\n")
    print("|", " | ".join(HEADINGS), "|")
    print("|---" * len(HEADINGS) + "|")
    for name, shape, spread in SHAPES:
        rows = []
        for seed in range(1, seeds + 1):
            point = make_point(concurrency, seed, shape, spread)
            rows.append(figures(run_virtual_point(point, "start", Nowhere())))  # type: ignore[arg-type]
        print("|", " | ".join((name, *map(cell, map(list, zip(*rows, strict=True))))), "|", flush=True)


if __name__ == "__main__":
    main()
