"""How far the mean of a recipe's runs may be off in percentiles, acceptance and energy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from curve_points import make_points
from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.curves.mean_errors import NORMAL, Ends, mean_errors, student
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.metric_table import metric


def run(value: float, sd: float, **more: Any) -> CurvePoint:
    """A run whose TTFT is known to a standard deviation of its logarithm."""
    ends = {
        "ttft_p50_low_s": value * np.exp(-NORMAL * sd),
        "ttft_p50_high_s": value * np.exp(NORMAL * sd),
    }
    return CurvePoint(
        arm="off", interactivity_tps=10.0, tput_tps_per_gpu=100.0, ttft_p50_s=value, **{**ends, **more}
    )


def ends_of(recipes: list[list[CurvePoint]], place: int = 0) -> Ends:
    errors = mean_errors(recipes)[place]
    return errors.get("ttft_p50_low_s"), errors.get("ttft_p50_high_s")


def coverage(sds: list[float], between: float, repeats: int, told: bool = True) -> list[float]:
    """How often the interval of each recipe's mean holds the truth; runs differ by more than they tell."""
    random = np.random.default_rng(5)
    held = np.zeros(len(sds))
    for _ in range(500):
        recipes = []
        for sd in sds:
            values = np.exp(random.standard_normal(repeats) * np.hypot(sd, between * sd))
            more = {} if told else {"ttft_p50_low_s": None, "ttft_p50_high_s": None}
            recipes.append([run(float(value), sd, **more) for value in values])
        for place, errors in enumerate(mean_errors(recipes)):
            held[place] += errors["ttft_p50_low_s"] <= 1.0 <= errors["ttft_p50_high_s"]
    return [float(count) / 500 for count in held]


@pytest.mark.parametrize(("between", "least"), [(0.0, 0.92), (1.0, 0.92), (3.0, 0.90)])
@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_means_of_runs_hold_the_truth_where_points_are_known_unlike_well(
    between: float, least: float, repeats: int
) -> None:
    """A point of few requests has eight times the error of another; a common scatter would miss its truth."""
    held = coverage([0.01, 0.02, 0.08], between, repeats)
    assert least <= min(held) <= max(held) <= 0.99


def test_without_intervals_of_runs_their_scatter_alone_tells() -> None:
    held = coverage([0.02, 0.02, 0.02, 0.02], 0.0, 3, told=False)
    assert 0.92 <= min(held) <= max(held) <= 0.99


def test_two_runs_that_agree_are_known_about_as_well_as_they_say() -> None:
    """Two runs alone would give an interval six times as wide; what they tell of themselves counts too."""
    low, high = ends_of([[run(0.5, 0.02), run(0.51, 0.02)]])
    assert low is not None
    assert high is not None
    assert 1 < np.log(high / low) / 2 / (NORMAL * 0.02 / np.sqrt(2)) < 2


def test_more_runs_narrow_the_interval_unless_they_scatter() -> None:
    one = run(0.5, 0.02)
    low, high = ends_of([[one, one, one, one]])
    assert (low, high) == (
        pytest.approx(0.5 * np.exp(-NORMAL * 0.01)),
        pytest.approx(0.5 * np.exp(NORMAL * 0.01)),
    )
    apart = ends_of([[run(0.4, 0.02), run(0.6, 0.02)]])
    assert apart[0] is not None
    assert apart[0] < 0.4


def test_a_single_run_keeps_its_own_errors() -> None:
    assert mean_errors([[run(0.5, 0.02)], [run(0.5, 0.02), run(0.51, 0.02)]])[0] == {}
    (curve,) = build_curves([run(0.5, 0.02, concurrency=4)])
    assert curve.measured[0].mean.ttft_p50_low_s == run(0.5, 0.02).ttft_p50_low_s


def test_bounds_stay_bounds() -> None:
    """Each run had too few requests for p99, and means of them have no upper end either."""
    runs = [
        run(0.5, 0.02, ttft_p99_s=value, ttft_p99_low_s=value - 0.1, ttft_p99_high_s=high)
        for value, high in ((0.9, None), (1.0, 1.3))
    ]
    errors = mean_errors([runs])[0]
    assert (errors["ttft_p99_low_s"], errors["ttft_p99_high_s"]) == (0.8, None)
    # Of runs that do not say how many requests they had, the scatter shows no bias.
    unsaid = [run(0.5, 0.02, ttft_p99_s=value) for value in (0.9, 1.0)]
    assert "ttft_p99_low_s" not in mean_errors([unsaid])[0]


def test_runs_that_are_all_alike_are_not_known_to_the_last_digit() -> None:
    """Most requests of a small server take the same time; a run in which they don't tells the width."""
    recipes = [[run(0.15, 0.0), run(0.15, 0.0001), run(0.18, 0.0)], [run(0.5, 0.02), run(0.505, 0.02)]]
    assert ends_of(recipes) == (pytest.approx(0.15, rel=1e-3), 0.18)
    assert ends_of(recipes, 1) == ends_of([recipes[1]]), "nor does it widen what is known otherwise"


def test_joules_and_acceptance_of_several_runs_are_written_with_their_intervals() -> None:
    known = {"se_df": 9, "acceptance_rel_se": 0.01, "joules_per_token_rel_se": 0.02, "power_rel_se": 0.02}
    points = [
        *make_points("mtp", (50.0, 800.0), acceptance_length=2.45, power_w_per_gpu=900.0, **known),
        *make_points("mtp", (50.0, 800.0), acceptance_length=2.55, power_w_per_gpu=900.0, **known),
    ]
    (curve,) = build_curves(points)
    mean = curve.measured[0].mean
    assert mean.acceptance_length == pytest.approx(2.5)
    assert metric("metered_joules_per_token").text_of(mean) == "1.13 (1.07–1.18)"
    variance = np.log(2.55 / 2.45) ** 2 / 2 / (0.01 * student(9) / NORMAL) ** 2
    factor = np.sqrt((variance + 1) / 2) * student(2) / NORMAL
    half = factor * 0.01 * student(9) / np.sqrt(2)
    low, high = metric("acceptance_length").ends_of(mean) or (None, None)
    assert (low, high) == (pytest.approx(2.5 * np.exp(-half)), pytest.approx(2.5 * np.exp(half)))
    assert mean.tput_rel_se is None


def test_ends_stay_finite_however_far_two_runs_are_apart() -> None:
    apart = [run(value, 0.0, ttft_p50_low_s=None, ttft_p50_high_s=None) for value in (1e-300, 1e15)]
    low, high = ends_of([apart])
    assert low is not None
    assert high is not None
    assert 0 < low < high < np.inf
    negative = run(0.5, 0.02, ttft_p50_low_s=-0.001)
    assert ends_of([[negative, negative]]) == (-0.001, pytest.approx(0.5 * np.exp(NORMAL * 0.02)))
