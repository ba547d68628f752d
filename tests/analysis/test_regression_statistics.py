"""The statistics of `mtpbench regress` on simulated sweeps: level, power, and what correlated noise does.

Every seed is fixed; the bounds are three standard deviations of a binomial share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mtpbench_analysis.metric_table import metrics_in
from mtpbench_analysis.regression.estimates import Estimate, UnitNoise, estimate_group, estimate_recipes
from mtpbench_analysis.regression.paired_runs import PairedRuns
from mtpbench_analysis.regression.power import (
    Plan,
    find_power,
    smallest_effect,
    t_quantile,
    two_sided_p,
)
from mtpbench_analysis.regression.verdicts import Criteria, Finding, _judge, holm

SEEDS = 1000


def bounds(share: float, count: int = SEEDS) -> tuple[float, float]:
    deviation = 3 * math.sqrt(share * (1 - share) / count)
    return share - deviation, share + deviation


def simulate(
    seed: int,
    *,
    sweeps: tuple[int, int] = (1, 1),
    repeats: int = 1,
    deployments: int = 1,
    ladder: int = 4,
    start: float = 0.0,
    round_noise: float = 0.0,
    own: float = 0.01,
    effect: float = 0.0,
) -> PairedRuns:
    """Two sides whose runs err by server start (a deployment's in one sweep), by round, and on their own."""
    random = np.random.default_rng([seed, 7])
    recipes = deployments * ladder
    numbers = np.repeat(np.arange(deployments), ladder)

    def side(count: int, shift: float) -> np.ndarray:
        starts = (
            random.normal(0, start, (count, 1, deployments)) if start else np.zeros((count, 1, deployments))
        )
        rounds = random.normal(0, round_noise, (count, repeats, 1)) if round_noise else 0.0
        values = starts[:, :, numbers] + rounds + random.normal(0, own, (count, repeats, recipes)) + shift
        return np.asarray(values.reshape(count * repeats, recipes))

    old, new = side(sweeps[0], 0.0), side(sweeps[1], effect)
    return PairedRuns(
        recipes=tuple(range(recipes)),
        old=old,
        new=new,
        old_sweeps=np.repeat(np.arange(sweeps[0]), repeats),
        new_sweeps=np.repeat(np.arange(sweeps[1]), repeats),
        arms=np.zeros(recipes, np.intp),
        deployments=numbers,
        block_variance=np.zeros(recipes),
    )


def whole(panel: PairedRuns, start_noise: float = 0.0) -> Estimate:
    found = estimate_group(panel, np.arange(len(panel.recipes)), start_noise)
    assert found is not None
    return found


def p_of(estimate: Estimate) -> float:
    return two_sided_p(estimate.effect / estimate.se, estimate.df)


def share_found(of: Callable[[int], Estimate], basis: str) -> float:
    estimates = [of(seed) for seed in range(SEEDS)]
    assert {estimate.basis for estimate in estimates} == {basis}
    return sum(p_of(estimate) < 0.05 for estimate in estimates) / SEEDS


@pytest.mark.parametrize(
    ("basis", "design"),
    [
        ("sweeps", {"sweeps": (3, 3), "start": 0.02, "repeats": 2, "round_noise": 0.01}),
        ("sweeps", {"sweeps": (5, 1), "start": 0.02, "deployments": 2}),
        ("deployments", {"deployments": 6, "start": 0.02}),
        ("rounds", {"repeats": 3, "round_noise": 0.02}),
        ("recipes", {"ladder": 6}),
    ],
)
def test_where_nothing_changed_one_test_in_twenty_finds_something(basis: str, design: dict[str, Any]) -> None:
    """Whatever moves all recipes of a start or round together, the level holds where the units see it."""
    low, high = bounds(0.05)
    assert low < share_found(lambda seed: whole(simulate(seed, **design)), basis) < high


@pytest.mark.parametrize("design", [{"repeats": 2}, {"ladder": 8}])
def test_the_allowance_keeps_the_level_where_starts_differ_unseen(design: dict[str, Any]) -> None:
    """Without it a start that happens to be slow is found as a slower build most of the time."""
    basis = "rounds" if "repeats" in design else "recipes"
    noisy = {**design, "start": 0.02, "own": 0.004}
    assert share_found(lambda seed: whole(simulate(seed, **noisy)), basis) > 0.5
    assert share_found(lambda seed: whole(simulate(seed, **noisy), 0.02), basis) < bounds(0.05)[1]


@pytest.mark.parametrize(("sweeps", "level"), [((2, 2), 0.062), ((3, 3), 0.05), ((5, 1), 0.05)])
@pytest.mark.parametrize("start", [0.003, 0.01, 0.1])
def test_what_is_assumed_of_starts_makes_hardly_any_false_findings(
    start: float, sweeps: tuple[int, int], level: float
) -> None:
    """Far too small an assumption is given up for what was measured, as soon as that is known a little."""
    design: dict[str, Any] = {"sweeps": sweeps, "start": start, "own": 0.004}
    found = share_found(lambda seed: whole(simulate(seed, **design), 0.01), "sweeps")
    assert found < bounds(level)[1]


def test_starts_twice_as_noisy_as_assumed_are_found_changed_a_little_too_often() -> None:
    """6.2% instead of 5%. With its full weight the assumption would make it 9.6%."""
    design: dict[str, Any] = {"sweeps": (3, 3), "start": 0.02, "own": 1e-6, "ladder": 4}
    assert share_found(lambda seed: whole(simulate(seed, **design), 0.01), "sweeps") < bounds(0.062)[1]


def test_what_is_assumed_of_starts_finds_more_with_few_of_them() -> None:
    design: dict[str, Any] = {"sweeps": (3, 3), "start": 0.01, "own": 0.002, "effect": math.log(0.97)}
    alone, helped = (
        share_found(lambda seed, noise=noise: whole(simulate(seed, **design), noise), "sweeps")
        for noise in (0.0, 0.01)
    )
    assert helped > alone + 0.03


def test_noise_of_runs_is_not_taken_for_that_of_starts() -> None:
    """Where runs scatter by 5% an assumption of 1% for starts says nothing of a sweep's mean."""
    noisy = [whole(simulate(seed, sweeps=(2, 2), own=0.05), 0.01).unit.assumed for seed in range(200)]
    assert np.mean(noisy) == pytest.approx(0.01**2 + 0.05**2 / 4, rel=0.1)
    alone = whole(simulate(1, sweeps=(2, 2), ladder=1), 0.01).unit
    assert alone.assumed_df == 0


def test_a_known_effect_is_found_as_often_as_promised() -> None:
    se = 0.02 * math.sqrt(2 / 4)
    effect = smallest_effect(6, 0.05, 0.8) * se
    design: dict[str, Any] = {"sweeps": (4, 4), "start": 0.02, "own": 1e-9, "effect": -effect}
    low, high = bounds(0.8)
    assert low < share_found(lambda seed: whole(simulate(seed, **design)), "sweeps") < high


@pytest.mark.parametrize("start", [0.0, 0.02])
def test_recipes_that_err_together_are_not_found_more_often_than_allowed(start: float) -> None:
    """Any false finding among eight recipes (Holm) stays rare though their noise is pooled."""
    wrong = 0
    for seed in range(SEEDS):
        panel = simulate(seed, sweeps=(3, 3), ladder=8, start=start)
        raw = [p_of(estimate) for estimate in estimate_recipes(panel, 0.0) if estimate]
        wrong += min(holm(raw)) < 0.05
    assert wrong / SEEDS < bounds(0.05)[1]


def decide(panel: PairedRuns, criteria: Criteria) -> Finding:
    estimate = whole(panel, criteria.start_noise)
    finding = Finding(
        metric=metrics_in("regress")[0],
        level="all",
        of="all",
        recipes=estimate.recipes,
        change=math.expm1(estimate.effect),
        old=1.0,
        new=1.0,
        verdict="no power",
        estimate=estimate,
    )
    return _judge([finding], criteria)[0]


@pytest.mark.parametrize("start", [0.003, 0.01, 0.03])
def test_a_change_of_the_threshold_is_hardly_ever_called_no_change(start: float) -> None:
    criteria = Criteria()
    verdicts = [
        decide(simulate(s, sweeps=(3, 3), start=start, own=1e-9, effect=math.log(0.97)), criteria).verdict
        for s in range(400)
    ]
    assert verdicts.count("no change") / 400 < bounds(0.025, 400)[1]
    assert "faster" not in verdicts


def test_without_noise_worth_the_name_no_change_is_said_nearly_always() -> None:
    verdicts = [decide(simulate(s, sweeps=(3, 3), start=0.002), Criteria()).verdict for s in range(200)]
    assert verdicts.count("no change") > 190


def test_with_much_noise_no_power_is_said_and_never_no_change() -> None:
    found = [decide(simulate(s, sweeps=(2, 2), start=0.1), Criteria()) for s in range(200)]
    assert [f.verdict for f in found].count("no power") > 180
    assert "no change" not in {f.verdict for f in found}
    assert all(f.smallest is not None and f.smallest > 0.03 for f in found if f.verdict == "no power")


def test_the_textbook_example_of_power() -> None:
    """64 in each group find half a standard deviation at 5% with a chance of 80% (Cohen 1988, 2.4)."""
    assert find_power(0.5 * math.sqrt(32), 126, 0.05) == pytest.approx(0.801, abs=0.001)
    known = UnitNoise(variance=1.0, df=math.inf)
    assert Plan(unit=known, limit=0.5, alpha=0.05, power=0.8).sweeps_needed == pytest.approx(64, abs=2)
    assert Plan(unit=known, limit=0.1, alpha=0.05, power=0.8).sweeps_needed is None
    assert t_quantile(0.975, 4) == pytest.approx(2.776445, abs=1e-6)
    assert two_sided_p(2.776445, 4) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("start_noise", [0.0, 0.01])
@pytest.mark.parametrize("sweeps", [3, 5])
def test_played_sweeps_do_what_measured_ones_do(sweeps: int, start_noise: float) -> None:
    criteria = Criteria(start_noise=start_noise)
    design: dict[str, Any] = {"sweeps": (sweeps, sweeps), "start": 0.012, "own": 1e-6}
    unit = UnitNoise(
        variance=0.012**2, df=math.inf, assumed=start_noise**2, assumed_df=3 if start_noise else 0
    )
    limit = -math.log1p(-criteria.threshold)
    played = Plan(unit=unit, limit=limit, alpha=0.05, power=0.8).play(sweeps)
    same = [decide(simulate(seed, **design), criteria).verdict for seed in range(SEEDS)]
    lost = [whole(simulate(seed, **design, effect=-limit), start_noise) for seed in range(SEEDS)]
    found = sum(p_of(estimate) < 0.05 and estimate.effect < 0 for estimate in lost)
    for share, measured in ((played.blind, same.count("no power")), (played.found, found)):
        low, high = bounds(share)
        assert low < measured / SEEDS < high


@pytest.mark.parametrize("first", [{"repeats": 2}, {"sweeps": (2, 2)}, {"sweeps": (3, 3)}])
def test_who_measures_as_often_as_asked_sees(first: dict[str, Any]) -> None:
    """The number of the first sweeps, followed anew: a change of the threshold is found, and none is seen."""
    criteria, found, seen = Criteria(), 0, 0
    noise: dict[str, Any] = {"start": 0.01, "own": 0.004}
    for seed in range(300):
        needed = decide(simulate(seed, **first, **noise), criteria).sweeps_needed or 100
        lost = simulate(seed + 10_000, sweeps=(needed, needed), **noise, effect=math.log(0.97))
        found += p_of(whole(lost, 0.01)) < 0.05
        same = simulate(seed + 20_000, sweeps=(needed, needed), **noise)
        seen += decide(same, criteria).verdict != "no power"
    assert min(found, seen) / 300 > bounds(0.8, 300)[0]


@pytest.mark.parametrize("df", [1, 2, 3.7, 30, 2000, math.inf])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_the_smallest_effect_is_found_with_exactly_the_asked_power(df: float, alpha: float) -> None:
    assert find_power(smallest_effect(df, alpha, 0.9), df, alpha) == pytest.approx(0.9, abs=1e-4)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_the_rounds_of_two_sides_are_a_two_sample_t() -> None:
    panel = simulate(3, repeats=4)
    estimate = whole(panel)
    old, new = panel.old.mean(axis=1), panel.new.mean(axis=1)
    pooled = (old.var(ddof=1) + new.var(ddof=1)) / 2
    assert estimate.se == pytest.approx(math.sqrt(pooled / 2))
    assert estimate.df == pytest.approx(6)


def test_clusters_of_equal_size_are_a_paired_t_over_the_deployments() -> None:
    panel = simulate(5, deployments=5, start=0.02)
    means = panel.ratios.reshape(5, 4).mean(axis=1)
    estimate = whole(panel)
    assert estimate.se == pytest.approx(means.std(ddof=1) / math.sqrt(5))
    assert estimate.df == 4


def test_time_blocks_that_scatter_more_than_the_runs_widen_the_error() -> None:
    panel = simulate(1, ladder=6, own=1e-6)
    panel.block_variance[:] = 0.03**2
    assert whole(panel).se == pytest.approx(0.03 / math.sqrt(6))


def test_single_runs_of_three_recipes_have_no_error() -> None:
    assert estimate_group(simulate(1, ladder=3), np.arange(3), 0.01) is None
    assert estimate_recipes(simulate(1, ladder=3), 0.01) == (None,) * 3
