"""Two sides that are equal in truth: what is printed of them holds 1.00, whatever luck and noise did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mtpbench_analysis.compare import Comparison, Row, Settings, compare
from mtpbench_analysis.curves.cells import Interval
from mtpbench_analysis.curves.curve import Curve, build_curves
from mtpbench_analysis.curves.splines import Spline
from mtpbench_analysis.frame import CurvePoint

TRUE_X = (10.0, 14.0, 20.0, 28.0, 38.0, 50.0, 65.0, 85.0)
TRUE_Y = (2000.0, 1900.0, 1700.0, 1400.0, 1100.0, 800.0, 520.0, 260.0)
BELOW = 5.0
"""Best point against best point: no shape is in doubt there, so only starts and runs are."""


def measure(
    random: np.random.Generator, arm: str, *, runs: int, noise: float, luck: float, topologies: int = 1
) -> Curve:
    """A ladder of each topology, all runs of one by one start: the true curve with noise of each run."""
    points = []
    for topology in range(topologies):
        start = luck * random.standard_normal()
        for i, (x, y) in enumerate(zip(TRUE_X, TRUE_Y, strict=True)):
            for run in range(runs):
                first, second = random.standard_normal(2)
                points.append(
                    CurvePoint(
                        arm=arm,
                        interactivity_tps=float(x * np.exp(start + noise * first)),
                        tput_tps_per_gpu=float(y * np.exp(start + noise * (first + second) / np.sqrt(2))),
                        concurrency=i,
                        topology=str(topology),
                        repeat=run,
                    )
                )
    (curve,) = build_curves(points)
    return curve


def experiments(
    count: int, targets: Sequence[float], *, topologies: int = 1, start_noise: float = 0.01, **design: float
) -> list[Comparison]:
    random = np.random.default_rng(17)
    settings = Settings(targets_tps=tuple(targets), start_noise=start_noise)
    found = []
    for _ in range(count):
        off = measure(random, "off", runs=int(design["runs"]), noise=design["noise"], luck=design["luck"])
        mtp = measure(
            random,
            "mtp",
            runs=int(design["runs"]),
            noise=design["noise"],
            luck=design["luck"],
            topologies=topologies,
        )
        found.append(compare(off, [mtp], settings))
    return found


def ratios_of(rows: Sequence[Row]) -> list[Interval]:
    return [ratio.interval for row in rows for ratio in row.ratios if ratio.interval is not None]


def holds(intervals: Sequence[Interval], truth: float = 1.0) -> float:
    return float(np.mean([interval.low <= truth <= interval.high for interval in intervals]))


def test_one_lucky_start_of_either_side_makes_no_winner() -> None:
    """1% of luck, two runs of 0.3% noise each: runs of one start repeat its luck and say nothing of it."""
    targets = (BELOW, 24.0, 57.0)
    found = experiments(200, targets, runs=2, noise=0.003, luck=0.01)
    true = Spline(TRUE_X, TRUE_Y).at(np.clip(targets, TRUE_X[0], None))
    for at, truth in enumerate(true):
        rows = [comparison.rows[at] for comparison in found]
        assert len(ratios_of(rows)) == 200
        assert holds(ratios_of(rows)) >= 0.92
        cells = [cell.interval for row in rows for cell in row.cells if cell.interval is not None]
        assert len(cells) == 400
        assert holds(cells, truth) >= 0.92


def test_without_an_allowance_for_starts_every_second_experiment_had_a_winner() -> None:
    """The experiments above can tell."""
    found = experiments(60, (BELOW,), runs=2, noise=0.003, luck=0.01, start_noise=0.0)
    assert holds(ratios_of([comparison.rows[0] for comparison in found])) < 0.6


@pytest.mark.parametrize("runs", [2, 3])
def test_eight_topologies_have_no_advantage_over_one_that_is_as_good(runs: int) -> None:
    """The luckiest of eight is on the front: at 5% of noise that is 8% for nothing."""
    found = experiments(70, (18.0, 33.0, 57.0), runs=runs, noise=0.05, luck=0.01, topologies=8)
    intervals = ratios_of([row for comparison in found for row in comparison.rows])
    assert len(intervals) >= 200
    assert holds(intervals) >= 0.92
    assert np.mean([interval.low > 1 for interval in intervals]) <= 0.06
    values = [row.ratios[0].value or 0.0 for comparison in found for row in comparison.rows]
    assert np.median(values) > 1.03, "the numbers themselves are optimistic, which the intervals know"
