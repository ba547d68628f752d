"""The buyer's questions: how fast at a cost, how cheap at a speed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from curve_points import make_curve
from mtpbench_analysis.best import Requirement, find_fastest, find_recipes, nearest_misses
from mtpbench_analysis.curves.cost import find_economics, usd_per_mtok
from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.curves.curve_reader import CurveReader
from mtpbench_analysis.frame import CurvePoint

B200 = find_economics("b200", "2026-05")
"""$1.95 per GPU-hour."""


def reader(arm: str, *pairs: tuple[float, float], **shared: Any) -> CurveReader:
    return CurveReader(curve=make_curve(arm, *pairs, **shared), economics=B200)


def test_the_fastest_at_a_cost_is_where_the_curve_has_that_cost() -> None:
    """Forth and back: the cost at the interactivity found is the cost asked for."""
    (found,) = find_fastest([reader("mtp", (10.0, 2000.0), (30.0, 1200.0), (50.0, 400.0))], 0.6)
    assert found.cell is not None
    assert found.cell.usd_per_mtok == pytest.approx(0.6, rel=1e-7)
    assert not found.at_end
    assert found.interactivity_tps is not None
    assert 30 < found.interactivity_tps < 50


def test_the_fastest_comes_first_and_what_is_too_dear_last() -> None:
    found = find_fastest(
        [
            reader("off", (10.0, 500.0)),
            reader("mtp-k1", (10.0, 2000.0), (30.0, 1000.0)),
            reader("mtp-k3", (10.0, 2000.0), (40.0, 1000.0)),
        ],
        0.5,
    )
    assert [one.curve.arm for one in found] == ["mtp-k3", "mtp-k1", "off"]
    assert found[-1].interactivity_tps is None
    assert found[-1].least_usd_per_mtok == usd_per_mtok(500, 1.95)


def test_a_cost_that_allows_more_than_was_measured_is_marked() -> None:
    (found,) = find_fastest([reader("mtp", (10.0, 2000.0), (30.0, 1000.0))], 50.0)
    assert found.at_end
    assert found.interactivity_tps == 30


def test_hardware_without_a_price_has_no_answer() -> None:
    (found,) = find_fastest([CurveReader(curve=make_curve("mtp", (10.0, 2000.0)))], 0.5)
    assert (found.interactivity_tps, found.least_usd_per_mtok) == (None, None)


def test_the_interval_of_the_interactivity_covers_the_truth() -> None:
    random = np.random.default_rng(4)
    pairs = [(10.0, 2000.0), (20.0, 1600.0), (35.0, 900.0), (50.0, 400.0)]
    (true,) = find_fastest([reader("mtp", *pairs)], 0.5)
    assert true.interactivity_tps is not None
    covered = 0
    for _ in range(100):
        points = [
            CurvePoint(
                arm="mtp",
                interactivity_tps=x * float(np.exp(0.02 * random.standard_normal())),
                tput_tps_per_gpu=y * float(np.exp(0.02 * random.standard_normal())),
                concurrency=i,
            )
            for i, (x, y) in enumerate(pairs)
            for _ in range(3)
        ]
        (curve,) = build_curves(points)
        (found,) = find_fastest([CurveReader(curve=curve, economics=B200)], 0.5)
        assert found.interval is not None
        covered += found.interval.low <= true.interactivity_tps <= found.interval.high
    assert covered >= 90


def test_the_cheapest_recipe_meets_both_wishes() -> None:
    points = [
        CurvePoint(arm="mtp", interactivity_tps=50, tput_tps_per_gpu=900, concurrency=1, ttft_p50_s=3.0),
        CurvePoint(arm="mtp", interactivity_tps=60, tput_tps_per_gpu=700, concurrency=2, ttft_p50_s=1.5),
        CurvePoint(arm="mtp", interactivity_tps=70, tput_tps_per_gpu=800, concurrency=3),
        CurvePoint(arm="mtp", interactivity_tps=30, tput_tps_per_gpu=2000, concurrency=4, ttft_p50_s=1.0),
    ]
    curves = build_curves(points)
    both = find_recipes(curves, Requirement(min_interactivity_tps=45, max_ttft_s=2.0), B200)
    assert [one.measured.mean.concurrency for one in both] == [2]
    assert both[0].usd_per_mtok == pytest.approx(usd_per_mtok(700, 1.95))
    fast = find_recipes(curves, Requirement(min_interactivity_tps=45), None)
    assert [one.measured.mean.concurrency for one in fast] == [1, 3, 2]
    assert fast[0].usd_per_mtok is None
    (miss,) = nearest_misses(curves, Requirement(min_interactivity_tps=45, max_ttft_s=1.0))
    assert "the shortest TTFT among them is 1.50 s" in miss
    (slow,) = nearest_misses(curves, Requirement(min_interactivity_tps=100))
    assert "the fastest recipe runs at 70.0 tok/s/user" in slow
