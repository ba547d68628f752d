"""The same recipe with and without speculation."""

from __future__ import annotations

import pytest

from curve_points import make_curve
from mtpbench_analysis.curves.ratios import find_twins


def test_twins_share_the_recipe_and_say_how_much_of_the_acceptance_became_speed() -> None:
    off = make_curve("off", (20.0, 1000.0), (40.0, 500.0))
    mtp = make_curve("mtp", (40.0, 1900.0), (60.0, 700.0), acceptance_length=2.5)
    first, second = find_twins(off, [mtp])
    assert (first.interactivity_ratio, first.tput_ratio) == (2.0, 1.9)
    assert first.gain_per_accepted == pytest.approx(0.8)
    assert second.gain_per_accepted == pytest.approx(0.6)


def test_recipes_of_one_arm_only_have_no_twin() -> None:
    off = make_curve("off", (20.0, 1000.0), topology="1xTP8")
    assert find_twins(off, [make_curve("mtp", (40.0, 1900.0), topology="1xTP4")]) == ()
    assert find_twins(off, [make_curve("mtp", (40.0, 1900.0), topology="1xTP8", concurrency=None)]) == ()


def test_unknown_acceptance_leaves_the_share_unknown() -> None:
    (pair,) = find_twins(make_curve("off", (20.0, 1.0)), [make_curve("mtp", (40.0, 1.0))])
    assert pair.gain_per_accepted is None
