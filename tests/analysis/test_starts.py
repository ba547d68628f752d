"""Server starts in the noise of a curve: what one moves, how far they differ, what can't be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from curve_points import make_points, point_set
from mtpbench_analysis.curves.curve import Curve, build_curves
from mtpbench_analysis.curves.curve_reader import CurveReader
from mtpbench_analysis.curves.draws import draw_curve
from mtpbench_analysis.curves.errors import START_NOISE, START_NOISE_DF
from mtpbench_analysis.curves.noise import find_noise
from mtpbench_analysis.curves.shape import Shape
from mtpbench_analysis.frame import CurvePoint, merge

LADDER = ((10.0, 1000.0), (20.0, 700.0), (40.0, 400.0))
RIGID = Shape(factor=0.0, df=np.inf, knots=0)
Rows = Sequence[tuple[int, str | None, float, float]]


def curve_of(rows: Rows, **shared: Any) -> Curve:
    """Runs as (recipe of the ladder, start, shift of log interactivity, of log throughput)."""
    points = [
        CurvePoint(
            arm="off",
            interactivity_tps=LADDER[recipe][0] * float(np.exp(x)),
            tput_tps_per_gpu=LADDER[recipe][1] * float(np.exp(y)),
            concurrency=recipe,
            start=start,
            repeat=number,
            **shared,
        )
        for number, (recipe, start, x, y) in enumerate(rows)
    ]
    (curve,) = build_curves(points)
    return curve


def shifts(curve: Curve, start_noise: float = START_NOISE) -> npt.NDArray[np.float64]:
    """(draws, points, 2) by how much each draw moves the logarithms of the points, the fastest last."""
    drawn = draw_curve(curve, find_noise(curve, start_noise), RIGID, 0).fronts
    measured = np.array(sorted((item.x, item.y) for item in curve.measured))
    assert (drawn.knots == len(measured)).all(), "every point is on every front"
    moved: npt.NDArray[np.float64] = np.log(np.stack([drawn.x, drawn.y], axis=2) / measured)
    return moved


@pytest.mark.parametrize("start", [None, "job 7"])
def test_one_start_moves_both_coordinates_of_all_its_recipes_together(start: str | None) -> None:
    curve = curve_of([(recipe, start, 0.0, 0.0) for recipe in range(3) for _ in range(2)])
    starts = find_noise(curve).starts
    assert (starts.basis, starts.sd, starts.df) == ("assumed", START_NOISE, np.inf)
    assert starts.membership.tolist() == [[1.0]] * 3
    moved = shifts(curve)
    assert np.ptp(moved.reshape(len(moved), -1), axis=1).max() < 1e-12
    assert moved[:, 0, 0].std() == pytest.approx(0.01, rel=0.1)


def test_a_start_of_another_deployment_is_another_start() -> None:
    points = [
        *make_points("off", *LADDER[:2], topology="1xTP8", start="a"),
        *make_points("off", LADDER[2], topology="2xTP4", start="a"),
    ]
    (curve,) = build_curves(points)
    assert find_noise(curve).starts.membership.tolist() == [[1, 0], [1, 0], [0, 1]]
    moved = shifts(curve)
    assert moved[:, 0] == pytest.approx(moved[:, 1])
    assert abs(np.corrcoef(moved[:, 0, 0], moved[:, 2, 0])[0, 1]) < 0.15


def test_several_sources_are_several_starts() -> None:
    """Two sweeps on another day: they differ as starts do, and their mean errs by less than either."""
    sweeps = [
        point_set(*make_points("off", *((x * k, y * k) for x, y in LADDER), gpus=8)) for k in (0.98, 1.02)
    ]
    one = build_curves(sweeps[0].points)[0]
    (both,) = build_curves(
        merge([replace(item, sources=(name,)) for item, name in zip(sweeps, "ab", strict=True)]).points
    )
    assert find_noise(one).starts.basis == "assumed"
    starts = find_noise(both).starts
    assert starts.basis == "measured"
    assert starts.membership.tolist() == [[0.5, 0.5]] * 3
    (unmerged,) = build_curves([point for item in sweeps for point in item.points])
    assert find_noise(unmerged).starts.membership.shape == (3, 1)


def test_how_far_starts_differ_has_the_degrees_of_freedom_of_starts() -> None:
    """Four starts of three recipes, two runs each: 24 runs say no more of starts than four starts do."""
    effects = (-0.03, 0.01, 0.04, -0.02)
    rows = [
        (recipe, f"start {i}", effect, effect)
        for recipe in range(3)
        for i, effect in enumerate(effects)
        for _ in range(2)
    ]
    noise = find_noise(curve_of(rows))
    measured = np.var(effects, ddof=1)
    expected = (measured * 3 + START_NOISE**2 * START_NOISE_DF) / (3 + START_NOISE_DF)
    assert noise.starts.sd == pytest.approx(np.sqrt(expected))
    assert noise.starts.df == 3 + START_NOISE_DF
    # What starts explain is not in the noise of runs.
    assert noise.runs[0] is not None
    assert noise.runs[0].rel_se == pytest.approx((0, 0), abs=1e-9)
    assert noise.runs[0].df == 24 - 3 - 3


def test_a_difference_of_starts_that_the_noise_of_runs_explains_is_none() -> None:
    rows = [
        (recipe, start, effect + noise, effect + noise)
        for recipe in range(3)
        for start, effect in (("a", -0.01), ("b", 0.01))
        for noise in (-0.05, 0.05)
    ]
    noise = find_noise(curve_of(rows), 0.0)
    assert (noise.starts.basis, noise.starts.sd) == ("measured", 0)
    assert noise.runs[0] is not None
    assert noise.runs[0].rel_se[0] == pytest.approx(np.sqrt(12 * 0.05**2 / (12 - 4) / 4))


def test_runs_each_with_a_start_of_its_own_hold_the_starts() -> None:
    """Nothing tells starts from runs: their scatter is one, and no start is drawn besides."""
    rows = [(0, "a", -0.02, 0.02), (0, "b", 0.02, -0.02), (1, "c", 0.03, 0.0), (1, "d", -0.03, 0.0)]
    noise = find_noise(curve_of(rows))
    assert (noise.starts.basis, noise.starts.sd) == ("in_runs", 0)
    (first, second) = noise.runs
    assert first is not None
    assert second is not None
    assert (first.basis, first.df) == ("repeats", 2 + START_NOISE_DF)
    scatter = 2 * 0.02**2 + 2 * 0.03**2
    expected = (scatter + START_NOISE**2 * START_NOISE_DF) / (2 + START_NOISE_DF) / 2
    assert first.covariance[0, 0] == pytest.approx(expected)
    cell = CurveReader(curve=curve_of(rows)).cells([LADDER[0][0]])[0]
    assert "assumed_starts" not in cell.held
    assert "starts" in cell.held


def test_without_start_noise_only_what_was_measured_is_drawn() -> None:
    once = curve_of([(recipe, None, shift, shift) for recipe in range(3) for shift in (-0.01, 0.01)])
    assert np.ptp(shifts(once)[:, :, 0], axis=1).min() > 1e-6, "runs still scatter, each by itself"
    assert find_noise(once, 0.0).starts.sd == 0
    assert CurveReader(curve=once, start_noise=0.0).cells([10.0])[0].held == {"repeats"}
    rows = [
        (recipe, str(i), e, e) for recipe in range(3) for i, e in enumerate((-0.02, 0.02)) for _ in range(2)
    ]
    measured = find_noise(curve_of(rows), 0.0).starts
    assert (measured.basis, measured.df) == ("measured", 1)
    assert measured.sd == pytest.approx(0.02 * np.sqrt(2))


def test_the_estimate_is_right_on_average_for_starts_that_served_not_all_recipes() -> None:
    random = np.random.default_rng(4)
    served = {"a": (0, 1), "b": (1, 2), "c": (0, 1, 2)}
    found, runs = [], []
    for _ in range(300):
        luck = {start: 0.03 * random.standard_normal() for start in served}
        rows = [
            (recipe, start, *(luck[start] + 0.01 * random.standard_normal(2)))
            for start, recipes in served.items()
            for recipe in recipes
            for _ in range(2)
        ]
        noise = find_noise(curve_of(rows), 0.0)
        assert noise.starts.df == 2
        found.append(noise.starts.sd**2)
        assert noise.runs[0] is not None
        runs.append(noise.runs[0].covariance[0, 0] * 4)
    assert np.sqrt(np.mean(runs)) == pytest.approx(0.01, rel=0.05)
    assert np.sqrt(np.mean(found)) == pytest.approx(0.03, rel=0.15)


def test_blocks_say_how_noise_is_spread_over_recipes_and_repeats_how_large_it_is() -> None:
    """One recipe's blocks scatter four times as much as another's, runs twice as much as blocks say."""
    random = np.random.default_rng(5)
    points = []
    for recipe, error in enumerate((0.004, 0.016)):
        for repeat in range(60):
            x, y = LADDER[recipe] * np.exp(2 * error * random.standard_normal(2))
            points.append(
                CurvePoint(
                    arm="off",
                    interactivity_tps=float(x),
                    tput_tps_per_gpu=float(y),
                    concurrency=recipe,
                    repeat=repeat,
                    interactivity_rel_se=error,
                    tput_rel_se=error,
                    se_df=9,
                )
            )
    (curve,) = build_curves(points)
    errors = [noise.rel_se[1] * np.sqrt(60) for noise in find_noise(curve).runs if noise is not None]
    assert sorted(errors) == pytest.approx([0.008, 0.032], rel=0.15)
    assert max(errors) / min(errors) == pytest.approx(4, rel=1e-6)
