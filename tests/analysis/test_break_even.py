"""The acceptance length at which speculation stops paying, and curves projected to another length."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curve_points import make_points
from mtpbench_analysis.curves.break_even import (
    BreakEven,
    StepCosts,
    decode_share,
    find_break_evens,
    find_step_costs,
)
from mtpbench_analysis.curves.curve import Curve, build_curves
from mtpbench_analysis.curves.curve_reader import CurveReader
from mtpbench_analysis.frame import CurvePoint

ISL, OSL = 1024, 256
LADDER = tuple(round(1.25**i, 3) for i in range(30))
"""Requests in flight; fractions too, since the closed form knows no whole numbers."""


def linear(
    arm: str, drafts: int, length: float | None, fixed_s: float, each_s: float, **changes: Any
) -> list[CurvePoint]:
    """Points of a closed loop whose step takes `fixed_s + each_s * requests * (drafts + 1)` seconds; requests
    wait 2 ms for each one in flight."""
    points = []
    for number, requests in enumerate(LADDER):
        step_s, wait_s = fixed_s + each_s * requests * (drafts + 1), 0.002 * requests
        tpot_s = step_s / (length or 1.0)
        request_s = wait_s + (OSL - 1) * tpot_s
        point = make_points(
            arm,
            (1 / tpot_s, requests * (ISL + OSL) / request_s / 8),
            concurrency=number + 1,
            isl=ISL,
            osl=OSL,
            ttft_p50_s=wait_s,
            draft_tokens=drafts,
            acceptance_length=length if drafts else None,
            acceptance_mode="golden" if drafts else "off",
        )[0]
        points.append(replace(point, **changes))
    return points


def curve_of(points: list[CurvePoint]) -> Curve:
    (curve,) = build_curves(points)
    return curve


def break_even(off: Curve, mtp: Curve, *targets_tps: float) -> tuple[BreakEven, ...]:
    baseline, reader = CurveReader(curve=off), CurveReader(curve=mtp, stream=1)
    costs = find_step_costs(mtp, off)
    assert isinstance(costs, StepCosts)
    return find_break_evens(baseline, reader, costs, baseline.cells(targets_tps))


@settings(max_examples=12, deadline=None)
@given(
    drafts=st.integers(1, 6),
    share=st.floats(0.05, 0.95),
    fixed_s=st.floats(0.004, 0.03),
    each_s=st.floats(1e-5, 3e-4),
    accepted=st.floats(0.3, 1.0),
)
def test_linear_step_costs_break_even_where_arithmetic_says(
    drafts: int, share: float, fixed_s: float, each_s: float, accepted: float
) -> None:
    """Both serve x with as many requests in flight where (1/x - c0)(k + 1) = a/x - c0."""
    off = curve_of(linear("off", 0, None, fixed_s, each_s))
    length = 1 + drafts * accepted
    mtp = curve_of(linear("mtp", drafts, length, fixed_s, each_s))
    low, high = off.range_tps
    at = low * (high / low) ** share
    (found,) = break_even(off, mtp, at)
    expected = drafts + 1 - drafts * fixed_s * at
    if found.acceptance_length is None or found.bound != "exact":
        # The projected front does not span the target: no recipe of the ladder runs there.
        projected = find_step_costs(mtp)
        assert isinstance(projected, StepCosts)
        first, last = projected.project(expected).range_tps
        assert not first * 1.02 < at < last * 0.98
        return
    assert found.acceptance_length == pytest.approx(expected, rel=0.004)
    if found.interval is None:
        (cell,) = CurveReader(curve=off).cells([at])
        assert cell.no_interval == "may_end_below"
        return
    assert found.interval.low <= expected * 1.004
    assert found.interval.high >= expected * 0.996
    assert 1 <= found.interval.low <= found.acceptance_length <= found.interval.high <= drafts + 1


def test_a_break_even_is_found_whatever_length_was_measured() -> None:
    off = curve_of(linear("off", 0, None, 0.01, 1e-4))
    found = [
        break_even(off, curve_of(linear("mtp", 3, length, 0.01, 1e-4)), 40.0)[0].acceptance_length
        for length in (1.4, 2.5, 3.6)
    ]
    assert found == pytest.approx([4 - 3 * 0.01 * 40] * 3, rel=0.002)


def test_a_curve_projected_to_its_own_length_is_itself_and_projections_chain() -> None:
    mtp = curve_of(linear("mtp", 3, 2.5, 0.01, 1e-4))
    costs = find_step_costs(mtp)
    assert isinstance(costs, StepCosts)
    same = costs.project(2.5)
    for a, b in zip(same.measured, mtp.measured, strict=True):
        assert (a.x, a.y) == pytest.approx((b.x, b.y), rel=1e-12)
    there = find_step_costs(costs.project(1.7))
    assert isinstance(there, StepCosts)
    direct = costs.project(3.3)
    for a, b in zip(there.project(3.3).measured, direct.measured, strict=True):
        assert (a.x, a.y) == pytest.approx((b.x, b.y))
    exact = curve_of(linear("mtp", 3, 3.3, 0.01, 1e-4))
    for a, b in zip(direct.measured, exact.measured, strict=True):
        assert (a.x, a.y) == pytest.approx((b.x, b.y), rel=1e-12)
    assert {run.acceptance_mode for m in direct.measured for run in m.runs} == {"projected"}


def test_runs_of_a_recipe_that_accepted_differently_are_moved_each_by_its_own_length() -> None:
    """What one run gained by luckier drafts is no cheaper step."""
    runs = [
        replace(point, repeat=repeat)
        for repeat, length in enumerate((2.4, 2.6))
        for point in linear("mtp", 3, length, 0.01, 1e-4)
    ]
    costs = find_step_costs(curve_of(runs))
    exact = curve_of(linear("mtp", 3, 3.0, 0.01, 1e-4))
    assert isinstance(costs, StepCosts)
    for a, b in zip(costs.project(3.0).measured, exact.measured, strict=True):
        assert [(run.interactivity_tps, run.tput_tps_per_gpu) for run in a.runs] == [
            pytest.approx((b.x, b.y), rel=1e-12)
        ] * 2


def test_without_the_wait_all_of_a_request_is_decoding_and_that_is_said() -> None:
    mtp = curve_of(linear("mtp", 3, 2.0, 0.01, 1e-4, ttft_p50_s=None))
    costs = find_step_costs(mtp)
    assert isinstance(costs, StepCosts)
    assert not costs.waits_known
    doubled = costs.project(4.0)
    for a, b in zip(doubled.measured, mtp.measured, strict=True):
        assert (a.x, a.y) == pytest.approx((2 * b.x, 2 * b.y))


def test_the_share_of_decoding_is_taken_from_measured_times_where_both_are_there() -> None:
    (point,) = make_points("mtp", (50.0, 100.0), ttft_p50_s=1.0, e2el_p50_s=5.0, osl=101)
    assert decode_share(point) == pytest.approx(0.8)
    assert decode_share(replace(point, e2el_p50_s=None)) == pytest.approx(2 / 3)
    assert decode_share(replace(point, e2el_p50_s=None, osl=None)) is None
    assert decode_share(replace(point, ttft_p50_s=None)) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"acceptance_length": None}, "acceptance_unknown"),
        ({"acceptance_length": 4.2}, "acceptance_out_of_bounds"),
        ({"acceptance_length": 0.4}, "acceptance_out_of_bounds"),
        ({"draft_tokens": None}, "depth_unknown"),
        ({"rate_rps": 3.0, "arrivals": "poisson"}, "open_loop"),
        ({"draft_tokens": 0}, "no_speculation"),
    ],
)
def test_a_curve_whose_steps_nothing_tells_is_not_projected(changes: dict[str, Any], reason: str) -> None:
    points = linear("mtp", 3, 2.5, 0.01, 1e-4)
    assert find_step_costs(curve_of([*points[:-1], replace(points[-1], **changes)])) == reason


def test_a_curve_of_several_depths_has_no_one_length() -> None:
    points = linear("mtp", 3, 2.5, 0.01, 1e-4)
    assert find_step_costs(
        curve_of([replace(points[0], draft_tokens=1, acceptance_length=1.8), *points[1:]])
    ) == ("mixed_depths")


def test_an_open_loop_of_the_baseline_tells_nothing_either() -> None:
    off = curve_of(linear("off", 0, None, 0.01, 1e-4, rate_rps=2.0, arrivals="poisson"))
    assert find_step_costs(curve_of(linear("mtp", 3, 2.5, 0.01, 1e-4)), off) == "open_loop"


def test_speculation_that_costs_nothing_always_pays() -> None:
    off = curve_of(linear("off", 0, None, 0.01, 1e-4))
    free = curve_of(
        [replace(p, tput_tps_per_gpu=p.tput_tps_per_gpu * 9) for p in linear("mtp", 3, 4.0, 0.01, 1e-4)]
    )
    (found,) = break_even(off, free, 20.0)
    assert (found.acceptance_length, found.reason, found.interval) == (None, "always_pays", None)


def test_speculation_that_costs_too_much_never_pays() -> None:
    off = curve_of(linear("off", 0, None, 0.01, 1e-4))
    dear = curve_of(
        [replace(p, tput_tps_per_gpu=p.tput_tps_per_gpu / 9) for p in linear("mtp", 3, 2.0, 0.01, 1e-4)]
    )
    (found,) = break_even(off, dear, 40.0)
    assert (found.acceptance_length, found.reason) == (None, "never_pays")


def test_targets_that_a_side_does_not_span_say_so() -> None:
    off = curve_of(linear("off", 0, None, 0.01, 1e-4))
    mtp = curve_of(linear("mtp", 3, 2.5, 0.01, 1e-4))
    low, high = off.range_tps
    below, above = break_even(off, mtp, low * 0.9, high * 1.01)
    assert (above.acceptance_length, above.reason) == (None, "baseline_not_reached")
    assert below.bound == "at_least" or below.reason in ("unmeasured", "never_pays")
    slow = curve_of(linear("mtp", 3, 2.5, 0.2, 1e-4))
    (missed,) = break_even(off, slow, 60.0)
    assert (missed.acceptance_length, missed.reason) == (None, "not_reached")


def test_a_front_that_only_just_reaches_the_target_bounds_the_break_even() -> None:
    """The fastest recipe of the curve is far above the baseline: slower acceptance might pay on a recipe that
    was not measured."""
    off = curve_of(linear("off", 0, None, 0.01, 1e-4))
    mtp = curve_of(linear("mtp", 3, 2.5, 0.01, 1e-4)[18:])
    at = mtp.range_tps[1] * 0.9
    (found,) = break_even(off, mtp, at)
    assert found.bound == "at_most"
    assert found.acceptance_length == pytest.approx(2.5 * at / mtp.range_tps[1], rel=1e-6)
    assert found.interval is None
    assert found.acceptance_length > 4 - 3 * 0.01 * at


def test_noisier_points_make_a_wider_interval_and_it_holds_the_truth() -> None:
    truth, at, held, widths = 4 - 3 * 0.01 * 40, 40.0, 0, []
    for noise in (0.005, 0.05):
        for seed in range(6):
            random = np.random.default_rng(seed)
            sides = []
            for arm, drafts, length in (("off", 0, None), ("mtp", 3, 2.5)):
                points = linear(arm, drafts, length, 0.01, 1e-4)
                sides.append(
                    curve_of(
                        [
                            replace(
                                point,
                                repeat=repeat,
                                interactivity_tps=point.interactivity_tps * np.exp(noise * random.normal()),
                                tput_tps_per_gpu=point.tput_tps_per_gpu * np.exp(noise * random.normal()),
                            )
                            for point in points
                            for repeat in range(3)
                        ]
                    )
                )
            (found,) = break_even(sides[0], sides[1], at)
            assert found.interval is not None
            held += found.interval.low <= truth <= found.interval.high
            widths.append(found.interval.high - found.interval.low)
    assert held >= 10, "of 12 intervals of 95%"
    assert np.mean(widths[6:]) > 2 * np.mean(widths[:6])


def test_the_interval_holds_its_length_where_projected_curves_end_near_the_target() -> None:
    """Draws at coarse lengths tell where a curve first reaches the target; what it serves there is steep."""
    off_rates = ((32.3, 5937.0), (35.8, 1651.0), (41.3, 481.0), (60.7, 174.0))
    dspark_rates = ((84.6, 8424.0), (102.0, 4336.0), (111.5, 1191.0), (122.4, 336.0))
    random = np.random.default_rng(1)
    off, dspark = (
        curve_of(
            [
                replace(point, repeat=repeat, tput_tps_per_gpu=point.tput_tps_per_gpu * factor)
                for number, rates in enumerate(side)
                for repeat in range(3)
                for factor in [float(np.exp(0.003 * random.normal()))]
                for point in make_points(
                    arm,
                    rates,
                    concurrency=number + 1,
                    isl=8192,
                    osl=1024,
                    ttft_p50_s=0.7,
                    draft_tokens=drafts,
                    acceptance_length=3.6 if drafts else None,
                    acceptance_mode="golden" if drafts else "off",
                )
            ]
        )
        for arm, side, drafts in (("off", off_rates, 0), ("dspark5", dspark_rates, 5))
    )
    for found in break_even(off, dspark, 42.0, 47.0, 50.0, 52.0, 54.0, 56.0, 58.0):
        assert found.acceptance_length is not None
        assert found.bound == "exact"
        assert found.interval is not None
        assert found.interval.low < found.acceptance_length < found.interval.high, found
        assert found.interval.high < 1.2 * found.interval.low, "both curves are known well"
