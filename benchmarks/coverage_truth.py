"""What the embedded engine serves at every concurrency: the truth of the coverage study, and how it is made.

    .venv/bin/python benchmarks/coverage_truth.py      # asks the engine anew, and writes coverage_truth.json

Every point is a settled run of thousands of requests on the virtual clock. Concurrencies are every whole
number up to 16, then steps of at most 5%: what a ladder leaves out is known, nothing is interpolated far.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtpbench.engines import engine_of
from mtpbench.load.pacer import RequestCounts, Schedule
from mtpbench.measure import measure
from mtpbench.records import Point, PowerSource, RunFacts
from mtpbench.records import Topology as Groups
from mtpbench.simengine.virtual import simulate_point
from mtpbench.store import RawPoint
from mtpbench.sweep import load_sweep
from mtpbench.sweep.expansion import simulate
from mtpbench.workload import draw_lengths

Floats = npt.NDArray[np.float64]
ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "benchmarks" / "coverage_truth.json"
ARMS = ("off", "mtp")
FIELDS = ("interactivity_tps", "tput_tps_per_gpu", "output_tps_per_gpu", "power_w_per_gpu")
PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Asked:
    """A deployment of a sweep, asked from the first edge to the last, in steps that begin anew at each.

    The ranges are so wide that the front leaves a deployment before its range ends.
    """

    sweep: str
    prefill: str
    decode: str
    edges: tuple[int, ...]


ASKED = (
    Asked("demo", "1xTP8", "1xTP8", (1, 128)),
    Asked("dsv4-gb200-sglang", "1xTP8", "1xTP8", (1, 64)),
    Asked("dsv4-gb200-sglang", "1xDEP8", "4xTP8", (4, 16, 256)),
    Asked("dsv4-gb200-sglang", "1xDEP8", "6xTP8", (4, 16, 256)),
    Asked("dsv4-gb200-sglang", "1xDEP8", "2xDEP16", (16, 64, 1024)),
    Asked("dsv4-gb200-sglang", "1xDEP8", "1xDEP16", (32, 128, 2048)),
    Asked("dsv4-gb200-sglang", "2xDEP8", "1xDEP16", (64, 256, 4096)),
    Asked("dsv4-gb200-sglang", "4xDEP8", "1xDEP16", (128, 512, 8192)),
    Asked("dsv4-gb200-sglang", "6xDEP8", "1xDEP16", (256, 1024, 16384)),
)


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth of one arm on one topology: what it serves at each concurrency.

    Args:
        topology: `1xTP8-1xTP8`: prefill, decode.
        gpus: of the deployment.
        concurrency: rising.
        x, y: interactivity (tok/s/user) and throughput (tok/s/GPU) there.
        output: output tokens (tok/s/GPU).
        power_w: mean power of one GPU.
    """

    topology: str
    gpus: int
    concurrency: tuple[int, ...]
    x: Floats
    y: Floats
    output: Floats
    power_w: Floats


def concurrencies(*edges: int) -> tuple[int, ...]:
    """From edge to edge: every whole number up to 16, then steps of at most 5%, and every power of two."""
    first, last = edges[0], edges[-1]
    found = {c for c in range(first, 17) if c <= last}
    found |= {2**k for k in range(15) if first <= 2**k <= last}
    for low, high in itertools.pairwise(edges):
        c = max(16, low)
        while c < high:
            found.add(c)
            c = max(c + 1, math.floor(c * 1.05))
    return tuple(sorted({*found, last}))


@cache
def load_truth() -> dict[str, dict[str, tuple[Truth, ...]]]:
    """The stored truth: by sweep and arm, one for each topology."""
    data = json.loads(FILE.read_text("utf-8"))
    return {
        sweep: {arm: tuple(_truth(name, row) for name, row in rows.items()) for arm, rows in arms.items()}
        for sweep, arms in data["sweeps"].items()
    }


def _truth(topology: str, row: Mapping[str, Any]) -> Truth:
    figures = [np.array(row[name], np.float64) for name in FIELDS]
    x, y, output, power_w = figures
    return Truth(topology, row["gpus"], tuple(row["concurrency"]), x, y, output, power_w)


def by_formula(base_ms: float, slope_ms: float, bend: int, steeper: float, tokens: float) -> Truth:
    """A truth by formula: a step takes longer with each request, beyond `bend` of them `steeper` times more.

    Args:
        base_ms: of a step without requests.
        slope_ms: for each request in it.
        bend: requests from which on the slope is steeper.
        steeper: how much; 1 for a smooth curve.
        tokens: that a step brings each request.
    """
    asked = concurrencies(1, 256)
    c = np.array(asked, np.float64)
    step_ms = base_ms + slope_ms * (np.minimum(c, bend) + steeper * np.maximum(c - bend, 0))
    x = 1000 * tokens / step_ms
    output = c * x / 8
    return Truth("1xTP8", 8, asked, x, 9 * output, output, 1000 - 400 / (1 + c / 30))


def main() -> None:
    tasks = [(asked, arm, c) for asked in ASKED for arm in ARMS for c in concurrencies(*asked.edges)]
    with get_context("spawn").Pool(PROCESSES) as pool:
        rows = pool.starmap(ask, tasks, chunksize=4)
    sweeps: dict[str, dict[str, dict[str, Any]]] = {}
    for (asked, arm, c), (gpus, figures) in zip(tasks, rows, strict=True):
        arms = sweeps.setdefault(asked.sweep, {}).setdefault(arm, {})
        row = arms.setdefault(f"{asked.prefill}-{asked.decode}", {"gpus": gpus, "concurrency": []})
        row["concurrency"].append(c)
        for name, value in zip(FIELDS, figures, strict=True):
            row.setdefault(name, []).append(float(f"{value:.5g}"))
    FILE.write_text(_text({"made": MADE, "sweeps": sweeps}), "utf-8")
    print(f"{FILE}: {len(tasks)} points, {FILE.stat().st_size} bytes")


MADE = (
    "benchmarks/coverage_truth.py: each sweep's own recipe on the embedded engine's virtual clock, asked at "
    "every concurrency listed; settled runs (30 rounds of warm-up, at least 3, then 800 requests "
    "or more, at least 4 rounds). SIMULATED."
)


def ask(asked: Asked, arm: str, concurrency: int) -> tuple[int, tuple[float, ...]]:
    """GPUs, and the figures of one settled run of a deployment at one concurrency, in the order of FIELDS."""
    point = dataclasses.replace(_recipe(asked, arm), concurrency=concurrency)
    counts = RequestCounts(
        warmup=max(min(30 * concurrency, 3000), 60, 3 * concurrency),
        measured=max(min(600 + 200 * concurrency, 4000), 4 * concurrency),
    )
    schedule = Schedule.independent(point.load, counts, concurrency, point.seed)
    lengths = draw_lengths(point.workload, counts.total, point.seed)
    run = simulate_point(point, engine_of(point).limits(point), lengths, schedule)
    facts = RunFacts(power_source=PowerSource(meter="simulated", counter=True))
    raw = RawPoint(requests=run.requests, counters=run.counters, power=run.power, facts=facts)
    result = measure(point, raw)
    steady, energy = result.steady, result.energy
    figures = (
        result.interactivity_tps,
        steady and steady.tput_tps_per_gpu,
        steady and steady.output_tps_per_gpu,
        energy and energy.mean_power_w_per_gpu,
    )
    known = tuple(float(value) for value in figures if value)
    if len(known) < len(FIELDS):
        raise SystemExit(f"{asked} {arm} at {concurrency}: {figures}, {result.reasons}")
    return point.topology.gpus, known


@cache
def _recipe(asked: Asked, arm: str) -> Point:
    """A point of the sweep's arm, on the topology that is asked."""
    points = simulate(load_sweep(ROOT / "sweeps" / f"{asked.sweep}.yaml")).points
    known = {
        (group.role, f"{group.workers}x{group.layout}"): group
        for point in points
        for group in point.topology.groups
    }
    point = next(point for point in points if point.arm.name == arm)
    groups = (known["prefill", asked.prefill], known["decode", asked.decode])
    return dataclasses.replace(point, topology=Groups(groups=groups))


def _text(data: Mapping[str, Any]) -> str:
    """JSON with one line for each list of figures."""
    pieces: Sequence[str] = json.JSONEncoder(indent=1).encode(data).split("[\n")
    return "[".join([pieces[0], *(_joined(piece) for piece in pieces[1:])]) + "\n"


def _joined(piece: str) -> str:
    inside, _, rest = piece.partition("]")
    return " ".join(inside.split()) + "]" + rest


if __name__ == "__main__":
    main()
