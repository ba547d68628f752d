"""Plays `mtpbench regress` on sweeps of known noise: how often its gate opens, how often it errs, and whether
the number of sweeps that it asks for is enough.

    .venv/bin/python benchmarks/regression_power.py [PLAYS]        # 400 plays take about a quarter of an hour

Two arms of one deployment each, four concurrencies, run noise 0.7% of throughput and of interactivity; a
server start moves both alike. The criteria are the default ones: 3%, 95%, 80%, 1% assumed for starts.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np

from mtpbench_analysis.frame import CurvePoint, PointSet
from mtpbench_analysis.regression import Finding, Regression, find_regression

STARTS = (0.003, 0.01, 0.02)
SWEEPS = (1, 2, 3, 4, 5, 6, 8, 12)
MOST = 30
"""Where more sweeps are asked for, so many are played."""
RUN = 0.007
LADDER = (8, 16, 24, 32)


def make_sweep(random: np.random.Generator, start: float, factor: float) -> PointSet:
    """One sweep of both arms, each with a server start of its own."""
    points = []
    for arm in ("off", "mtp"):
        luck = random.normal(0, start)
        for concurrency in LADDER:
            x, y = np.exp(luck + random.normal(0, RUN, 2)) * factor
            points.append(
                CurvePoint(
                    arm=arm,
                    interactivity_tps=100 / concurrency**0.3 * float(x),
                    tput_tps_per_gpu=50 * concurrency**0.7 * float(y),
                    concurrency=concurrency,
                    topology="1xTP8",
                    gpus=8,
                )
            )
    return PointSet(sources=("played",), points=tuple(points))


def play(seed: int, start: float, sweeps: int, change: float = 0.0) -> Regression:
    """So many sweeps of each side; the new ones are changed by a share."""
    random = np.random.default_rng([seed, sweeps])
    old, new = ([make_sweep(random, start, factor) for _ in range(sweeps)] for factor in (1.0, 1.0 + change))
    return find_regression(old, new)


def overall(regression: Regression) -> Finding:
    """The finding of throughput over all recipes."""
    return regression.select("all", "tput_tps_per_gpu")[0]


def is_found(finding: Finding) -> bool:
    """Whether the interval excludes no change, on the right side."""
    return finding.interval is not None and finding.interval.high < 0


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


def print_levels(plays: int) -> None:
    """Prints what becomes of so many sweeps, unchanged and changed."""
    print("| start noise | sweeps a side | gate shut | a change called | −3% found | −5% called slower |")
    print("|---:|---:|---:|---:|---:|---:|")
    for start in STARTS:
        for sweeps in SWEEPS:
            same, small, large = (
                [play(i, start, sweeps, by) for i in range(plays)] for by in (0, -0.03, -0.05)
            )
            called = [any(f.verdict in ("slower", "faster") for f in r.findings) for r in same]
            shares = (
                share([bool(regression.gate) for regression in same]),
                share(called),
                share([is_found(overall(regression)) for regression in small]),
                share([overall(regression).verdict == "slower" for regression in large]),
            )
            cells = " | ".join(f"{value:.0%}" for value in shares)
            print(f"| {start:.1%} | {sweeps} | {cells} |", flush=True)


@cache
def opens(start: float, sweeps: int, plays: int) -> float:
    """How often so many new sweeps open the gate where nothing changed."""
    return share([not play(1_000_000 + i, start, sweeps).gate for i in range(plays)])


def print_followed(plays: int) -> None:
    """Prints the numbers that are asked for, and what becomes of those who follow them."""
    print(
        "| start noise | sweeps a side so far | asked for: 10%, median, 90% of plays | then the gate opens |"
    )
    print("|---:|---:|---|---:|")
    for start in STARTS:
        for first in (1, 2, 3, 4):
            asked = [play(i, start, first).sweeps_needed for i in range(plays)]
            numbers = [MOST if number is None else min(number, MOST) for number in asked]
            low, middle, high = (f"{value:.0f}" for value in np.quantile(numbers, (0.1, 0.5, 0.9)))
            opened = np.mean([opens(start, number, max(plays // 4, 25)) for number in numbers])
            print(f"| {start:.1%} | {first} | {low}, {middle}, {high} | {opened:.0%} |", flush=True)


if __name__ == "__main__":
    asked_for = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    print_levels(asked_for)
    print("\nFollowing the number:\n")
    print_followed(asked_for)
