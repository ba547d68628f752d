"""Many draws of a curve at once: the same curve as a single one, and intervals that come true."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curve_points import make_curve
from mtpbench_analysis.curves.curve import build_curves, pareto_front
from mtpbench_analysis.curves.curve_reader import CurveReader, interval_of
from mtpbench_analysis.curves.draws import expected_luck
from mtpbench_analysis.curves.splines import Spline, fronts
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.numbers import fixed

TRUE_X = np.array([10.0, 14, 20, 28, 38, 50, 65, 85])
TRUE_Y = np.array([2000.0, 1900, 1700, 1400, 1100, 800, 520, 260])
TARGETS = (12.0, 24.0, 40.0, 60.0, 80.0)

figures = st.floats(1, 1000).map(lambda value: round(value, 2))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(figures, figures), min_size=1, max_size=12), figures)
def test_a_single_draw_is_the_curve_itself(points: list[tuple[float, float]], target: float) -> None:
    """One algorithm: the vectorised reading equals the scalar front and interpolation."""
    x, y = np.array([points]).transpose(2, 0, 1)
    value = fronts(x, y).read([target])[0, 0]
    front = [points[i] for i in pareto_front(points)]
    xs, ys = [p[0] for p in front], [p[1] for p in front]
    if target > xs[-1]:
        assert np.isnan(value)
    elif target < xs[0]:
        assert value == ys[0]
    else:
        assert value == pytest.approx(Spline(xs, ys).at([target])[0], rel=1e-12)


def test_draws_of_different_fronts_stand_side_by_side() -> None:
    x = np.array([[10.0, 20.0, 30.0], [10.0, 20.0, 30.0]])
    y = np.array([[9.0, 5.0, 1.0], [9.0, 0.5, 1.0]])
    drawn = fronts(x, y)
    assert drawn.knots.tolist() == [3, 2]
    assert drawn.read([20.0]).ravel().tolist() == [5.0, 5.0]


def noisy_curve(random: np.random.Generator, runs: int, correlation: float, crowded: bool) -> CurveReader:
    """Runs of a known curve with 2% of noise from run to run; crowded: with points a little behind it."""
    xs, ys = TRUE_X, TRUE_Y
    if crowded:
        xs, ys = np.concatenate([xs, 0.97 * xs]), np.concatenate([ys, 0.985 * ys])
    points = []
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        for _ in range(runs):
            first, second = random.standard_normal(2)
            other = correlation * first + np.sqrt(1 - correlation**2) * second
            points.append(
                CurvePoint(
                    arm="mtp",
                    interactivity_tps=float(x * np.exp(0.02 * first)),
                    tput_tps_per_gpu=float(y * np.exp(0.02 * other)),
                    concurrency=i + 1,
                )
            )
    (curve,) = build_curves(points)
    return CurveReader(curve=curve)


@pytest.mark.parametrize("runs", [2, 4])
@pytest.mark.parametrize("correlation", [0.0, 0.8])
@pytest.mark.parametrize("crowded", [False, True])
def test_intervals_of_cells_hold_what_they_promise(runs: int, correlation: float, crowded: bool) -> None:
    """95% intervals cover the true curve in 92% of experiments or more: through mean, front and spline."""
    random = np.random.default_rng(3)
    true = Spline(TRUE_X.tolist(), TRUE_Y.tolist()).at(TARGETS)
    covered = asked = 0
    for _ in range(120):
        cells = noisy_curve(random, runs, correlation, crowded).cells(TARGETS)
        for cell, value in zip(cells, true, strict=True):
            if cell.interval is not None:
                assert cell.interval_basis == "repeats"
                asked += 1
                covered += cell.interval.low <= value <= cell.interval.high
    assert asked > 550
    assert covered / asked >= 0.92


def test_the_same_results_give_the_same_interval() -> None:
    readers = [noisy_curve(np.random.default_rng(5), 3, 0.5, False) for _ in range(2)]
    assert readers[0].cells([24.0])[0].interval == readers[1].cells([24.0])[0].interval


def test_a_single_run_says_nothing_of_runs_but_its_shape_is_in_doubt() -> None:
    cells = CurveReader(curve=make_curve("off", (10.0, 100.0), (20.0, 50.0))).cells([5.0, 10.0, 15.0])
    assert [(cell.interval is None, cell.no_interval) for cell in cells] == [
        (True, "single_run"),
        (True, "single_run"),
        (False, None),
    ]
    assert cells[2].held == {"shape", "assumed_starts"}
    assert cells[2].interval_basis is None


def test_one_knot_without_an_error_leaves_runs_out_of_the_interval() -> None:
    known: dict[str, Any] = {"tput_rel_se": 0.01, "interactivity_rel_se": 0.01, "se_df": 9}
    points = [
        CurvePoint(arm="off", interactivity_tps=10, tput_tps_per_gpu=100, concurrency=1, **known),
        CurvePoint(arm="off", interactivity_tps=20, tput_tps_per_gpu=50, concurrency=2, **known),
        CurvePoint(arm="off", interactivity_tps=30, tput_tps_per_gpu=20, concurrency=3),
    ]
    (curve,) = build_curves(points)
    first, second = CurveReader(curve=curve).cells([15.0, 25.0])
    assert first.interval is not None
    assert first.held == {"blocks", "shape", "assumed_starts"}
    assert second.held == {"shape", "assumed_starts"}


def test_a_target_that_many_draws_do_not_reach_has_no_interval() -> None:
    curve = make_curve(
        "off", (10.0, 100.0), (20.0, 50.0), tput_rel_se=0.01, interactivity_rel_se=0.05, se_df=20
    )
    cell = CurveReader(curve=curve).cells([19.9])[0]
    assert (cell.interval, cell.no_interval) == (None, "may_end_below")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), min_size=2, max_size=4), st.integers(0, 40))
def test_draws_of_few_noisy_runs_overflow_nothing(runs: list[tuple[float, float]], stream: int) -> None:
    """Of one degree of freedom a t reaches a thousand standard errors; warnings are errors here."""
    points = [
        CurvePoint(
            arm="off",
            interactivity_tps=10 ** (1 + x),
            tput_tps_per_gpu=10 ** (2 + y),
            concurrency=1,
            gpus=8,
            repeat=i,
        )
        for i, (x, y) in enumerate(runs)
    ]
    (curve,) = build_curves(points)
    reader = CurveReader(curve=curve, stream=stream)
    read = reader.drawn([5.0, 15.0, 1e5])
    assert np.isfinite(read[~np.isnan(read)]).all()
    for value in (*reader.draws.fronts.y.flat, *read.flat):
        assert fixed(float(value), 2)


def test_the_lower_half_of_draws_has_the_luck_of_the_best_of_many_points_taken_from_it() -> None:
    known: dict[str, Any] = {"tput_rel_se": 0.05, "interactivity_rel_se": 1e-9, "se_df": 10**6}
    points = [
        CurvePoint(
            arm="mtp", interactivity_tps=10, tput_tps_per_gpu=100, concurrency=1, topology=str(i), **known
        )
        for i in range(8)
    ]
    (curve,) = build_curves(points)
    reader = CurveReader(curve=curve, start_noise=0.0)
    raw, read = (np.sort(side.read([5.0])[:, 0]) for side in (reader.draws.fronts, reader.draws))
    # The expected highest of eight normals is 1.42 of their standard deviation above their mean.
    assert np.median(raw) == pytest.approx(100 * np.exp(1.42 * 0.05), rel=0.01)
    assert read[500:].tolist() == raw[500:].tolist()
    assert read[:500] == pytest.approx(raw[:500] * np.exp(-1.42 * 0.05), rel=0.001)


def test_points_that_noise_tells_apart_have_no_luck_to_take() -> None:
    known: dict[str, Any] = {"tput_rel_se": 0.01, "interactivity_rel_se": 0.01, "se_df": 99}
    curve = make_curve("mtp", (10.0, 1000.0), (10.1, 900.0), (20.0, 700.0), (20.1, 695.0), **known)
    reader = CurveReader(curve=curve, start_noise=0.0)
    logs = np.log([(item.x, item.y) for item in curve.measured])
    luck = expected_luck(logs, reader.noise)
    assert (luck > 0).all(axis=1).tolist() == [item.x > 15 for item in curve.measured]
    assert luck.max() == pytest.approx(0.01 * 0.589, rel=0.01), "of the better of two"
    alone = CurveReader(curve=make_curve("mtp", (10.0, 1000.0), (20.0, 700.0), **known)).draws
    assert alone.humble is alone.fronts


def test_an_interval_is_central() -> None:
    interval = interval_of(np.arange(1001.0), 0.9)
    assert interval is not None
    assert (interval.low, interval.high, interval.confidence) == (pytest.approx(50), pytest.approx(950), 0.9)
