"""How far a curve may run from its spline between knots, and how much its own knots say of that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from curve_points import make_curve, make_points
from mtpbench_analysis.curves.curve import Curve, build_curves
from mtpbench_analysis.curves.curve_reader import CurveReader
from mtpbench_analysis.curves.noise import find_noise
from mtpbench_analysis.curves.shape import (
    CURVATURE,
    CURVES_DF,
    KINK,
    ROUGHNESS,
    Shape,
    find_shape,
    leave_one_out,
    spread_between,
)
from mtpbench_analysis.curves.splines import Spline

BENT = ((10.0, 2000.0), (14.0, 1700.0), (20.0, 1650.0), (28.0, 900.0), (38.0, 850.0), (50.0, 400.0))
SMOOTH = ((10.0, 2000.0), (14.0, 1900.0), (20.0, 1700.0), (28.0, 1400.0), (38.0, 1100.0), (50.0, 800.0))


def shape_of(curve: Curve, start_noise: float = 0.0) -> Shape:
    return find_shape(curve, find_noise(curve, start_noise))


def spread(ratio: float, position: float = 0.5, *, mixed: bool = False) -> float:
    return float(spread_between(np.log([ratio]), np.array([position]), np.array([mixed]))[0])


def test_nothing_is_in_doubt_at_a_knot() -> None:
    assert spread(4, 0.0) == spread(4, 1.0) == 0
    assert spread(4, 0.1) < spread(4, 0.3) < spread(4, 0.5)


def test_the_doubt_grows_with_the_square_of_the_gap_and_with_a_bend_between_topologies() -> None:
    curvature = [np.sqrt(spread(ratio) ** 2 - ROUGHNESS**2) for ratio in (2, 4)]
    assert curvature[1] / curvature[0] == pytest.approx(4)
    assert curvature[0] == pytest.approx(CURVATURE * np.log(2) ** 2)
    bend = np.sqrt(spread(3, mixed=True) ** 2 - spread(3) ** 2)
    assert bend == pytest.approx(KINK * np.log(3))
    assert spread(1) == ROUGHNESS


@pytest.mark.parametrize("knots", [1, 2])
def test_a_curve_without_an_inner_knot_is_as_rough_as_public_ones(knots: int) -> None:
    assert shape_of(make_curve("off", *BENT[:knots])) == Shape(factor=1, df=CURVES_DF, knots=0)


def test_left_out_knots_are_read_off_the_curve_through_the_others() -> None:
    curve = make_curve("off", *BENT)
    left_out = leave_one_out(curve, find_noise(curve))
    assert left_out is not None
    x, y = np.array(BENT).T
    for i, knot in enumerate(range(1, 5)):
        others = np.delete(np.arange(6), knot)
        read = Spline(x[others].tolist(), y[others].tolist()).at([x[knot]])[0]
        assert left_out.residual[i] == pytest.approx(np.log(read / y[knot]), rel=1e-9)
        assert left_out.log_ratio[i] == pytest.approx(np.log(y[knot - 1] / y[knot + 1]))
        assert left_out.position[i] == pytest.approx((x[knot] - x[knot - 1]) / (x[knot + 1] - x[knot - 1]))


def test_the_noise_of_a_residual_is_that_of_all_knots_that_it_rests_on() -> None:
    """Against a curve drawn anew two thousand times: by runs, and by the starts of two deployments."""
    known: dict[str, Any] = {"interactivity_rel_se": 0.002, "tput_rel_se": 0.004, "se_df": 99}
    points = [
        *make_points("off", *SMOOTH[:3], topology="a", **known),
        *make_points("off", *SMOOTH[3:], topology="b", **known),
    ]
    (curve,) = build_curves(points)
    left_out = leave_one_out(curve, find_noise(curve, 0.01))
    assert left_out is not None
    random = np.random.default_rng(6)
    residuals = []
    for _ in range(2000):
        starts = np.repeat(0.01 * random.standard_normal(2), 3)
        x, y = np.exp(
            np.log(SMOOTH).T + starts + np.array([[0.002], [0.004]]) * random.standard_normal((2, 6))
        )
        read = [
            Spline(np.delete(x, knot).tolist(), np.delete(y, knot).tolist()).at([x[knot]])[0]
            for knot in range(1, 5)
        ]
        residuals.append(np.log(read / y[1:5]))
    assert left_out.variance == pytest.approx(np.var(residuals, axis=0), rel=0.15)


def test_a_bent_curve_is_rougher_than_public_ones_and_a_straight_one_smoother() -> None:
    straight = [(10.0 + 5 * i, 1000.0 - 60 * i) for i in range(9)]
    rough, smooth = shape_of(make_curve("off", *BENT)), shape_of(make_curve("off", *straight))
    assert rough.factor > 1.5
    assert smooth.factor == pytest.approx(np.sqrt(CURVES_DF / (CURVES_DF + 7)), rel=0.01)
    assert (rough.knots, smooth.knots) == (4, 7)
    assert rough.df == pytest.approx(CURVES_DF + 4)


def test_what_noise_explains_is_no_roughness() -> None:
    noisy = shape_of(make_curve("off", *BENT, interactivity_rel_se=0.3, tput_rel_se=0.3, se_df=9))
    assert noisy.factor == pytest.approx(1, abs=0.05)
    assert noisy.df == pytest.approx(CURVES_DF, abs=0.1)


def test_what_is_left_of_a_residual_is_what_noise_does_not_explain() -> None:
    curve = make_curve("off", *SMOOTH, interactivity_rel_se=0.03, tput_rel_se=0.03, se_df=9)
    left_out = leave_one_out(curve, find_noise(curve, 0.0))
    assert left_out is not None
    assert (left_out.residual**2 < left_out.variance).all(), "noise explains all of it"
    shape = shape_of(curve)
    assert shape.df > CURVES_DF + 0.05
    assert shape.factor == pytest.approx(np.sqrt(CURVES_DF / shape.df))


def test_knots_of_several_topologies_are_expected_to_bend() -> None:
    points = [*make_points("off", *BENT[:3], topology="a"), *make_points("off", *BENT[3:], topology="b")]
    (curve,) = build_curves(points)
    left_out = leave_one_out(curve, find_noise(curve))
    assert left_out is not None
    assert left_out.is_mixed.tolist() == [False, True, True, False]
    assert shape_of(curve).factor < shape_of(make_curve("off", *BENT)).factor


@pytest.mark.parametrize("target", [15.0, 24.0, 45.0])
def test_a_draw_stays_between_the_knots_of_its_gap(target: float) -> None:
    """Nothing moves the knots, so whatever the shape does ends at theirs: a curve of one topology falls."""
    reader = CurveReader(curve=make_curve("off", *BENT), start_noise=0.0)
    drawn = reader.drawn([target])[:, 0]
    upper, lower = (y for x, y in BENT[::-1] if x > target), (y for x, y in BENT if x < target)
    low, high = max(upper), min(lower)
    assert drawn.min() == pytest.approx(low)
    assert drawn.max() == pytest.approx(high)
    assert ((drawn > low * 1.0001) & (drawn < high * 0.9999)).mean() > 0.05


def test_between_two_topologies_a_draw_serves_neither_more_nor_less_than_both() -> None:
    points = [
        *make_points("off", (10.0, 2000.0), topology="a"),
        *make_points("off", (30.0, 700.0), topology="b"),
    ]
    (curve,) = build_curves(points)
    drawn = CurveReader(curve=curve, start_noise=0.0).drawn([11.0, 25.0])
    assert drawn.min() >= 700 * (1 - 1e-9)
    assert drawn.max() <= 2000 * (1 + 1e-9)
    assert drawn[:, 0].max() > 1999, "right behind the last knot of the first it may still serve as much"


def test_a_draw_without_noise_and_shape_is_the_curve_at_its_knots() -> None:
    reader = CurveReader(curve=make_curve("off", *BENT), start_noise=0.0)
    drawn = reader.drawn([x for x, _ in BENT])
    assert drawn == pytest.approx(np.tile([y for _, y in BENT], (len(drawn), 1)))
