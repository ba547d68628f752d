"""A comparison over thousands of points: ours beside the straightforward pandas way, in one run.

    .venv/bin/python benchmarks/compare_points.py [POINTS]

Both get points that are loaded already, and give throughput at three targets and the ratio for every
workload. Ours also pairs, labels and explains; with time blocks it draws a thousand curves for each as well.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mtpbench_analysis.comparisons import Question, compare_points
from mtpbench_analysis.frame import CurvePoint, PointSet, to_frame
from mtpbench_analysis.render.csv_json_parquet import to_csv

ROUNDS = 3
TARGETS = (20.0, 40.0, 60.0)
PER_CURVE = 10


def make_points(count: int, *, blocks: bool) -> PointSet:
    """So many points: workloads with two arms of ten concurrencies each, 1% of noise."""
    random = np.random.default_rng(0)
    errors: dict[str, Any] = (
        {"tput_rel_se": 0.01, "interactivity_rel_se": 0.008, "rel_se_correlation": 0.5, "se_df": 9}
        if blocks
        else {}
    )
    points = []
    for number in range(count):
        workload, place = divmod(number, 2 * PER_CURVE)
        arm, step = divmod(place, PER_CURVE)
        x = 10 * 1.25**step * (1 + 0.3 * arm)
        y = 3000 / (1 + x / 30) * (1 + 0.1 * arm)
        points.append(
            CurvePoint(
                arm=("off", "mtp")[arm],
                interactivity_tps=float(x * np.exp(0.01 * random.standard_normal())),
                tput_tps_per_gpu=float(y * np.exp(0.01 * random.standard_normal())),
                concurrency=2**step,
                gpus=8,
                topology="1xTP8",
                engine="vllm",
                hardware="b200",
                model=f"model-{workload}",
                isl=8192,
                osl=1024,
                **errors,
            )
        )
    return PointSet(sources=("benchmark",), points=tuple(points))


def by_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    """What one writes in an afternoon: group, take the front row by row, interpolate linearly, divide."""
    rows = []
    for model, group in frame.groupby("model"):
        values = {}
        for arm, side in group.groupby("arm"):
            front: list[tuple[float, float]] = []
            for _, row in side.sort_values(
                ["interactivity_tps", "tput_tps_per_gpu"], ascending=[True, False]
            ).iterrows():
                while front and front[-1][1] <= row["tput_tps_per_gpu"]:
                    front.pop()
                front.append((row["interactivity_tps"], row["tput_tps_per_gpu"]))
            xs, ys = zip(*front, strict=True)
            values[arm] = np.interp(TARGETS, xs, ys)
        for i, target in enumerate(TARGETS):
            rows.append(
                {
                    "model": model,
                    "target": target,
                    "off": values["off"][i],
                    "mtp": values["mtp"][i],
                    "ratio": values["mtp"][i] / values["off"][i],
                }
            )
    return pd.DataFrame(rows)


def seconds(do: Callable[[], object]) -> float:
    """How long it takes, once."""
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    plain, noisy = make_points(count, blocks=False), make_points(count, blocks=True)
    frame = to_frame(plain.points)
    frame = frame.astype({"interactivity_tps": float, "tput_tps_per_gpu": float})
    question = Question(targets_tps=TARGETS)
    print(f"{count} points, {count // (2 * PER_CURVE)} comparisons, {len(TARGETS)} targets; {ROUNDS} rounds")
    heads = ("pandas s", "ours s", "ratio", "+ CSV s", "with intervals s", "ratio")
    print(" " * 8, "".join(f"{head:>{len(head) + 3}}" for head in heads))
    for number in range(ROUNDS):
        theirs = seconds(lambda: by_pandas(frame))
        ours = seconds(lambda: compare_points(plain, question))
        export = seconds(partial(to_csv, compare_points(plain, question).comparisons))
        drawn = seconds(lambda: compare_points(noisy, question))
        figures = (theirs, ours, ours / theirs, export, drawn, drawn / theirs)
        cells = (f"{value:>{len(head) + 3}.2f}" for head, value in zip(heads, figures, strict=True))
        print(f"round {number + 1:>2}", "".join(cells))


if __name__ == "__main__":
    main()
