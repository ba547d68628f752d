"""How sure a point is: the stated confidence is what comes true on distributions that are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import stdtrit

from curve_points import make_curve, make_points
from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.curves.noise import BlockErrors, block_errors, find_noise

RUNS, SAMPLES = 1500, 400
Series = npt.NDArray[np.float64]


def autoregressive(random: np.random.Generator, phi: float) -> Series:
    """Around 1, with a spread of 10% and neighbours that correlate by phi."""
    shocks = random.standard_normal(SAMPLES + 200)
    values = np.zeros_like(shocks)
    for i in range(1, len(values)):
        values[i] = phi * values[i - 1] + shocks[i]
    return 1 + 0.1 * values[200:] * np.sqrt(1 - phi**2)


def waves(random: np.random.Generator) -> Series:
    """The waves of a closed loop whose slots start together, ten of them in the window."""
    wave = np.sin(2 * np.pi * (np.arange(SAMPLES) / 40 + random.random()))
    return 1 + 0.2 * wave + 0.05 * random.standard_normal(SAMPLES)


SERIES: dict[str, Callable[[np.random.Generator], Series]] = {
    "independent": lambda random: 1 + 0.1 * random.standard_normal(SAMPLES),
    "skewed": lambda random: random.exponential(1, SAMPLES),
    "neighbours": lambda random: autoregressive(random, 0.5),
    "long memory": lambda random: autoregressive(random, 0.9),
    "waves": waves,
}


@pytest.mark.parametrize("kind", SERIES)
@pytest.mark.parametrize("blocks", [5, 10, 20])
def test_block_intervals_hold_what_they_promise(kind: str, blocks: int) -> None:
    """95% intervals of the mean cover the true mean in 92% of runs or more, whatever the series."""
    random = np.random.default_rng(7)
    covered, runs = 0, RUNS if kind != "long memory" else 600
    for _ in range(runs):
        means = SERIES[kind](random).reshape(blocks, -1).mean(axis=1)
        errors = block_errors(means.tolist(), means.tolist())
        assert errors is not None
        reach = stdtrit(errors.df, 0.975) * errors.tput_rel_se * means.mean()
        covered += abs(means.mean() - 1) <= reach
    assert covered / runs >= 0.92


def test_independent_blocks_do_not_make_intervals_that_say_nothing() -> None:
    random = np.random.default_rng(8)
    found = []
    for _ in range(200):
        means = SERIES["independent"](random).reshape(10, -1).mean(axis=1)
        errors = block_errors(means.tolist(), means.tolist())
        assert errors is not None
        found.append(errors.tput_rel_se)
    # The true standard error is 0.1 / sqrt(400).
    assert np.mean(found) == pytest.approx(0.005, rel=0.2)


def test_errors_of_two_series_that_move_together_correlate() -> None:
    up = (1.0, 1.1, 0.9, 1.05, 0.95)
    errors = block_errors(up, [100 * value for value in up])
    assert errors is not None
    assert errors.correlation == pytest.approx(1)
    opposite = block_errors(up, [2 - value for value in up])
    assert opposite is not None
    assert opposite.correlation == pytest.approx(-1)


def test_equal_blocks_have_no_error() -> None:
    assert block_errors([2.0] * 6, [3.0] * 6) == BlockErrors(
        interactivity_rel_se=0, tput_rel_se=0, correlation=0, df=5
    )


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_block_without_a_figure_gives_no_error(bad: float) -> None:
    assert block_errors([1.0] * 5, [1.0, 1.0, bad, 1.0, 1.0]) is None


def test_too_few_blocks_give_no_error() -> None:
    assert block_errors([1.0, 1.1, 1.2, 1.0], [1.0, 1.1, 1.2, 1.0]) is None


def test_a_single_run_without_blocks_has_no_noise() -> None:
    assert find_noise(make_curve("off", (10.0, 100.0), (20.0, 50.0))).runs == (None, None)


def test_a_single_run_with_blocks_has_their_noise() -> None:
    curve = make_curve(
        "off", (10.0, 100.0), tput_rel_se=0.02, interactivity_rel_se=0.01, rel_se_correlation=0.5, se_df=9
    )
    (noise,) = find_noise(curve).runs
    assert noise is not None
    assert (noise.basis, noise.df, noise.shared) == ("blocks", 9, False)
    assert noise.rel_se == pytest.approx((0.01, 0.02))
    assert noise.covariance[0, 1] == pytest.approx(0.5 * 0.01 * 0.02)


def test_repeats_are_pooled_over_the_curve() -> None:
    """Three recipes with two, two and one run: two degrees of freedom, and an error for the single run."""
    points = [
        *make_points("off", (10.0, 100.0), (20.0, 50.0), (30.0, 20.0), tput_rel_se=0.5, se_df=9),
        *make_points("off", (10.0, 110.0), (20.0, 55.0)),
    ]
    (curve,) = build_curves(points)
    noises = find_noise(curve).runs
    assert all(noise is not None and noise.basis == "repeats" and noise.df == 2 for noise in noises)
    spread = np.log(1.1) / np.sqrt(2)
    errors = [noise.rel_se[1] for noise in noises if noise is not None]
    assert errors == pytest.approx([spread / np.sqrt(2), spread / np.sqrt(2), spread])
