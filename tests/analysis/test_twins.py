"""The same recipe with and without speculation."""

from __future__ import annotations

import numpy as np
import pytest

from curve_points import make_curve, make_points
from mtpbench_analysis.curves.curve import Curve, build_curves
from mtpbench_analysis.curves.curve_reader import CurveReader
from mtpbench_analysis.curves.twins import Twins, find_twins


def twins_of(base: Curve, other: Curve) -> tuple[Twins, ...]:
    return find_twins(CurveReader(curve=base), [CurveReader(curve=other, stream=1)])


def test_twins_share_the_recipe_and_say_how_much_of_the_acceptance_became_speed() -> None:
    off = make_curve("off", (20.0, 1000.0), (40.0, 500.0))
    mtp = make_curve("mtp", (40.0, 1900.0), (60.0, 700.0), acceptance_length=2.5)
    first, second = twins_of(off, mtp)
    assert (first.interactivity_ratio, first.tput_ratio) == (2.0, 1.9)
    assert first.gain_per_accepted == pytest.approx(0.8)
    assert second.gain_per_accepted == pytest.approx(0.6)


def test_recipes_of_one_arm_only_have_no_twin() -> None:
    off = make_curve("off", (20.0, 1000.0), topology="1xTP8")
    assert twins_of(off, make_curve("mtp", (40.0, 1900.0), topology="1xTP4")) == ()
    assert twins_of(off, make_curve("mtp", (40.0, 1900.0), topology="1xTP8", concurrency=None)) == ()


def test_unknown_acceptance_leaves_the_share_unknown() -> None:
    (pair,) = twins_of(make_curve("off", (20.0, 1.0)), make_curve("mtp", (40.0, 1.0)))
    assert pair.gain_per_accepted is None


def repeated(
    random: np.random.Generator, shared: float, repeats: tuple[int, ...], luck: float = 0.0
) -> tuple[Curve, Curve]:
    """Both arms serve 1,000 tok/s/GPU; their runs of one repeat have a part of their noise in common."""
    common = random.standard_normal((3, 12)) * 0.02 * np.sqrt(shared)
    curves = []
    for number, arm in enumerate(("off", "mtp")):
        start = luck * random.standard_normal()
        own = random.standard_normal((3, 12)) * 0.02 * np.sqrt(1 - shared)
        points = [
            point
            for recipe in range(3)
            for repeat in repeats
            for point in make_points(
                arm,
                (20.0 + 10 * recipe, 1000 * np.exp(start + common[recipe, repeat] + own[recipe, repeat])),
                repeat=repeat if shared else repeat + 100 * number,
                concurrency=recipe + 1,
            )
        ]
        curves.append(build_curves(points)[0])
    return curves[0], curves[1]


@pytest.mark.parametrize(("shared", "luck"), [(0.8, 0.0), (0.8, 0.01), (0.0, 0.01)])
def test_the_interval_of_twins_holds_the_truth(shared: float, luck: float) -> None:
    random = np.random.default_rng(4)
    pairs = [pair for _ in range(150) for pair in twins_of(*repeated(random, shared, (0, 1, 2), luck))]
    assert {pair.paired for pair in pairs} == {shared > 0}
    held = [pair.tput_interval.low <= 1 <= pair.tput_interval.high for pair in pairs if pair.tput_interval]
    assert len(held) == 450
    assert 0.92 <= np.mean(held) <= 1


def test_what_both_arms_have_in_common_makes_the_interval_narrower() -> None:
    random = np.random.default_rng(5)
    widths = {}
    for shared in (0.9, 0.0):
        pairs = [pair for _ in range(40) for pair in twins_of(*repeated(random, shared, (0, 1, 2)))]
        widths[shared] = np.median(
            [pair.tput_interval.high - pair.tput_interval.low for pair in pairs if pair.tput_interval]
        )
    assert widths[0.9] < 0.75 * widths[0.0]


def test_single_runs_tell_no_interval_of_twins_but_time_blocks_do() -> None:
    bare = make_curve("off", (20.0, 1000.0)), make_curve("mtp", (40.0, 1900.0))
    assert twins_of(*bare)[0].tput_interval is None
    known = {"tput_rel_se": 0.01, "interactivity_rel_se": 0.01, "se_df": 19}
    (pair,) = twins_of(make_curve("off", (20.0, 1000.0), **known), make_curve("mtp", (40.0, 1900.0), **known))
    assert pair.tput_interval is not None
    assert (pair.tput_interval.low < 1.9 < pair.tput_interval.high, pair.paired) == (True, False)
