"""The front and the curve through its knots, held against worked numbers and against their definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtpbench_analysis.curves.curve import pareto_front
from mtpbench_analysis.curves.splines import Spline, slopes

XS, YS = [10, 30, 55, 80], [6000, 2000, 900, 300]

positive = st.floats(min_value=0.01, max_value=1e5, allow_nan=False)
clouds = st.lists(st.tuples(positive, positive), min_size=1, max_size=25)


def front_of(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [points[i] for i in pareto_front(points)]


def test_the_front_drops_what_another_point_beats() -> None:
    points = [(10.0, 800.0), (15.0, 100.0), (20.0, 700.0), (30.0, 300.0)]
    assert front_of(points) == [(10, 800), (20, 700), (30, 300)]


def test_equal_interactivity_keeps_the_higher() -> None:
    assert front_of([(10.0, 5.0), (10.0, 9.0), (10.0, 7.0)]) == [(10, 9)]


def test_equal_throughput_keeps_the_faster() -> None:
    assert front_of([(10.0, 5.0), (20.0, 5.0)]) == [(20, 5)]


def test_strictly_rising_throughput_keeps_the_last_point() -> None:
    assert front_of([(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]) == [(3, 3)]


@settings(deadline=None)
@given(clouds)
def test_the_front_is_exactly_the_points_that_nothing_beats(points: list[tuple[float, float]]) -> None:
    beaten = {p for p in points if any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)}
    assert front_of(points) == sorted(set(points) - beaten)


def test_slopes_of_two_knots_are_d3s_ends() -> None:
    assert slopes([0, 10], [0, 100]).tolist() == [15, 7.5]


def test_the_middle_slope_is_limited_by_the_gentler_side() -> None:
    assert slopes([0, 1, 2], [0, 1, 4])[1] == 2


@pytest.mark.parametrize("ys", [[0, 5, 0], [5, 0, 5]])
def test_peaks_and_valleys_are_flat(ys: list[float]) -> None:
    assert slopes([0, 1, 2], ys)[1] == 0


def test_slopes_of_the_worked_front() -> None:
    assert slopes(XS, YS).tolist() == pytest.approx([-256, -88, -34, -19], rel=1e-12)


def test_values_of_the_worked_front() -> None:
    values = Spline(XS, YS).at([15, 20, 42, 60, 75])
    assert values.tolist() == pytest.approx([4737.5, 3580, 1299.2768, 744, 396], rel=1e-12)


def test_cost_is_derived_from_the_interpolated_throughput() -> None:
    cost = 578.4 / Spline(XS, YS).at([15, 20, 42, 60, 75])
    assert cost.tolist() == pytest.approx([0.122090, 0.161564, 0.445171, 0.777419, 1.460606], abs=5e-7)


def test_two_knots_are_joined_by_a_straight_line() -> None:
    assert Spline([0, 100], [0, 1000]).at([50])[0] == 500


def test_one_knot_is_known_at_itself_only() -> None:
    assert Spline([27.0], [14952.0]).at([27.0]).tolist() == [14952.0]
    with pytest.raises(ValueError, match="nothing is known outside"):
        Spline([27.0], [14952.0]).at([28.0])


@pytest.mark.parametrize("at", [9.999, 80.001])
def test_nothing_is_extrapolated(at: float) -> None:
    with pytest.raises(ValueError, match="nothing is known outside 10 … 80"):
        Spline(XS, YS).at([at])


def test_knots_must_rise() -> None:
    with pytest.raises(ValueError, match="rise strictly"):
        Spline([1, 1], [2, 1]).at([1])


@st.composite
def fronts(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """Rising xs and strictly falling ys that are far enough apart to be told apart in floating point."""
    size = draw(st.integers(min_value=1, max_value=12))
    step = st.floats(min_value=0.01, max_value=1e3)
    xs = np.cumsum([draw(step) for _ in range(size)])
    ys = np.cumsum([draw(step) for _ in range(size)])[::-1]
    return xs.tolist(), ys.tolist()


@settings(deadline=None)
@given(fronts())
def test_the_curve_passes_through_its_knots(front: tuple[list[float], list[float]]) -> None:
    xs, ys = front
    assert Spline(xs, ys).at(xs).tolist() == pytest.approx(ys, rel=1e-12)


@settings(deadline=None)
@given(fronts(), st.integers(min_value=2, max_value=60))
def test_the_curve_falls_and_stays_between_its_two_knots(
    front: tuple[list[float], list[float]], places: int
) -> None:
    xs, ys = front
    at = np.clip(np.linspace(xs[0], xs[-1], places), xs[0], xs[-1])
    values = Spline(xs, ys).at(at.tolist())
    assert np.all(np.diff(values) <= 1e-9 * ys[0])
    for x, value in zip(at, values, strict=True):
        left = max(i for i, knot in enumerate(xs) if knot <= x)
        right = min(left + 1, len(xs) - 1)
        assert ys[right] <= value <= ys[left]


@settings(deadline=None)
@given(fronts())
def test_many_places_at_once_are_the_same_as_one_by_one(front: tuple[list[float], list[float]]) -> None:
    xs, ys = front
    at = np.clip(np.linspace(xs[0], xs[-1], 7), xs[0], xs[-1]).tolist()
    assert Spline(xs, ys).at(at).tolist() == [Spline(xs, ys).at([x])[0] for x in at]
