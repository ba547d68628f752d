"""The page's own method against the worked numbers of its algorithm and against real points."""

from __future__ import annotations

import pytest

from curve_points import FIXTURES, GLM5, INFERENCEX, make_points
from mtpbench.errors import InputError
from mtpbench_analysis.curves.cost import Economics, find_economics
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.public_page.method import (
    Method,
    PageCell,
    PageSide,
    build_sides,
    check_method,
    claim_cheaper,
    claim_faster,
    default_targets,
    percent_text,
    read_side,
    spline_metric,
)
from mtpbench_analysis.public_page.texts import show_page, to_fixed

EIGHT = FIXTURES / "dsv4_gb200_off_8k1k.csv"
GB200 = find_economics("gb200", "2026-05")
B200 = find_economics("b200", "2026-05")
NAMES = ("MTP", "Off")


def side_of(arm: str, *pairs: tuple[float, float], **shared: object) -> PageSide:
    (side,) = build_sides(make_points(arm, *pairs, **shared))
    return side


def read_eight(target: float, method: Method = "page-2026-05") -> PageCell:
    (side,) = build_sides(read_source(EIGHT).points)
    return read_side(side, target, GB200, method)


def test_two_knots_bend_as_d3_says() -> None:
    assert spline_metric([0, 100], [0, 1000], 50) == 593.75


def test_the_spline_gives_the_worked_numbers() -> None:
    xs, ys = [10, 30, 55, 80], [6000, 2000, 900, 300]
    for at, expected in ((15, 4737.5), (20, 3580), (42, 1299.2768), (60, 744), (75, 396)):
        assert spline_metric(xs, ys, at) == pytest.approx(expected, abs=1e-9)


def test_the_later_form_derives_the_cost_and_the_first_one_splines_it() -> None:
    side = side_of("off", (10, 6000), (30, 2000), (55, 900), (80, 300))
    rate = 578.4
    price = GB200.with_price(rate * 3600 / 1e6)
    derived = {15: 0.122090, 20: 0.161564, 42: 0.445171, 60: 0.777419, 75: 1.460606}
    for at, expected in derived.items():
        assert read_side(side, at, price, "page").usd_per_mtok == pytest.approx(expected, abs=5e-7)
    splined = read_side(side, 60, price, "page-2026-05").usd_per_mtok
    assert splined == pytest.approx(
        spline_metric([10, 30, 55, 80], [rate / y for y in (6000, 2000, 900, 300)], 60)
    )
    assert splined != pytest.approx(derived[60], rel=0.01)


def test_the_front_is_the_upper_left_one() -> None:
    side = side_of("off", (10, 800), (15, 100), (20, 700), (30, 300))
    assert [point.interactivity_tps for point in side.front] == [10, 20, 30]


@pytest.mark.parametrize(("target", "clamp", "tput"), [(5, "below", 100), (40, "above", 60), (20, None, 80)])
def test_a_target_outside_the_front_is_clamped_to_its_end(
    target: float, clamp: str | None, tput: float
) -> None:
    side = side_of("off", (10, 100), (20, 80), (30, 60), hardware="gb200")
    cell = read_side(side, target, GB200, "page-2026-05")
    assert (cell.clamped, cell.tput_tps_per_gpu) == (clamp, tput)
    assert cell.concurrency == {5: 10, 20: 11, 40: 12}[int(target)]


def test_everything_of_an_arm_is_pooled_and_every_run_is_a_point() -> None:
    points = [
        *make_points("off", (10, 100), engine="vllm", image="a", serving="aggregated", date="2026-01-01"),
        *make_points(
            "off", (10, 90), engine="vllm", image="a", serving="aggregated", date="2026-01-01", repeat=2
        ),
        *make_points("off", (20, 80), engine="sglang", image="b", serving="disaggregated", date="2026-02-02"),
        *make_points("mtp", (20, 90)),
        *make_points("off", (20, 80), isl=1024),
    ]
    assert [(side.arm, len(side.points)) for side in build_sides(points)] == [
        ("off", 3),
        ("mtp", 1),
        ("off", 1),
    ]
    assert [p.tput_tps_per_gpu for p in build_sides(points)[0].front] == [100, 80]


def test_an_invalid_point_is_on_the_page() -> None:
    assert len(side_of("off", (10, 100), valid=False).front) == 1


def test_concurrency_is_rounded_half_up_and_unknown_where_a_knot_lacks_it() -> None:
    side = side_of("off", (10, 100), (20, 80), (30, 60))
    assert read_side(side, 15, None, "page").concurrency == 11  # 10.5
    points = [*make_points("off", (10, 100)), *make_points("off", (20, 80), concurrency=None)]
    assert read_side(build_sides(points)[0], 15, None, "page").concurrency is None


def test_default_targets_are_rounded_half_up_over_the_range_of_all_points() -> None:
    one = side_of("mtp", (10, 100), (24, 80))
    assert default_targets([one]) == (14, 17, 21)  # 13.5, 17, 20.5
    # Strictly rising: the front is the last point alone, the range is not.
    rising = side_of("off", (10, 10), (24, 80))
    assert default_targets([one, rising]) == (14, 17, 21)
    apart = side_of("off", (30, 10), (50, 5))
    assert default_targets([one, apart]) == (20, 30, 40)
    assert default_targets([side_of("off", (10, 10))]) == (10,)


def test_the_page_claims_more_than_100_percent_cheaper() -> None:
    """The page's 17397% follows from its costs before rounding: 11.614 and 0.066377."""
    assert claim_cheaper(0.066377, 11.614, NAMES) == "MTP is 17397% cheaper per token"
    assert percent_text(11.614 / 0.066) == "17497%"
    # From the throughput beside it the same claim would be another: the cost was splined on its own.
    derived = 2.21e6 / 3600 / 9251.8
    assert claim_cheaper(derived, 11.614, NAMES) == "MTP is 17403% cheaper per token"
    assert claim_cheaper(2.0, 1.0, NAMES) == "Off is 100% cheaper per token"
    assert claim_cheaper(1.0, 1.005, NAMES) == "cost per token is essentially tied"


def test_the_page_claims_a_throughput() -> None:
    assert claim_faster(9251.8, 131.9, NAMES) == "MTP delivers 6914% more tok/s/GPU"
    assert claim_faster(1.0, 1.0, NAMES) == "throughput per GPU is essentially tied"


def test_the_page_row_of_its_peak_comes_out_digit_by_digit() -> None:
    side = side_of("mtp", (61.0, 9478.862), hardware="gb200")
    cell = read_side(side, 32, GB200, "page-2026-05")
    assert show_page("tput_tps_per_gpu", cell.tput_tps_per_gpu) == "9478.9"
    assert show_page("usd_per_mtok", cell.usd_per_mtok) == "0.065"
    assert cell.tps_per_mw == pytest.approx(4513743.8, abs=0.05)
    assert show_page("tps_per_mw", cell.tps_per_mw) == "4513744"
    assert {tier: to_fixed(usd, 5) for tier, usd in cell.usd_per_mtok_by_tier.items()} == {
        "hyperscaler": "0.06476",
        "neocloud": "0.08059",
        "rental_3y": "0.09671",
    }


@pytest.mark.parametrize(
    ("target", "tput", "cost", "per_mw", "concurrency"),
    [
        (32, "1660.9", "0.361", "790887", "~279"),
        (46, "816.7", "3.171", "388886", "~127"),
        (61, "308.4", "10.493", "146861", "~45"),
        (80, "32.8", "18.716", "15619", "~1"),
        (10, "8933.0", "0.069", "4253810", "~4096"),
    ],
)
def test_the_eight_gb200_points_as_the_page_would_show_them(
    target: float, tput: str, cost: str, per_mw: str, concurrency: str
) -> None:
    cell = read_eight(target)
    shown = [
        show_page(metric, getattr(cell, metric))
        for metric in ("tput_tps_per_gpu", "usd_per_mtok", "tps_per_mw", "concurrency")
    ]
    assert shown == [tput, cost, per_mw, concurrency]


@pytest.mark.parametrize(("target", "cost"), [(32, "0.370"), (46, "0.752"), (61, "1.991")])
def test_the_later_form_differs_in_cost_only(target: float, cost: str) -> None:
    first, later = read_eight(target), read_eight(target, "page")
    assert show_page("usd_per_mtok", later.usd_per_mtok) == cost
    assert first.tput_tps_per_gpu == later.tput_tps_per_gpu
    assert first.concurrency == later.concurrency


def test_glm5_as_the_page_would_show_it() -> None:
    mtp, off = build_sides(read_source(GLM5).points)
    shown = [
        [
            show_page("tput_tps_per_gpu", read_side(side, at, B200, "page").tput_tps_per_gpu)
            for at in (12, 40, 60)
        ]
        for side in (mtp, off)
    ]
    assert shown == [["1946.4", "1259.6", "902.9"], ["1660.6", "521.3", "231.3"]]
    costs = [read_side(side, 40, B200, "page-2026-05").usd_per_mtok or 0.0 for side in (mtp, off)]
    assert claim_cheaper(costs[0], costs[1], NAMES) == "MTP is 140% cheaper per token"


def test_real_rows_of_several_engines_are_one_side() -> None:
    points = read_source(INFERENCEX).points
    for side in build_sides(points):
        xs = [point.interactivity_tps for point in side.front]
        ys = [point.tput_tps_per_gpu for point in side.front]
        assert xs == sorted(set(xs))
        assert ys == sorted(set(ys), reverse=True)


def test_a_metric_never_leaves_the_range_of_its_knots() -> None:
    xs, ys = [1.0, 2.0, 3.0, 50.0], [4.0, 4.0, 9.0, 9.0]
    values = [spline_metric(xs, ys, 1 + i * 49 / 500) for i in range(501)]
    assert min(values) == 4
    assert max(values) == 9


def test_without_constants_there_is_no_cost() -> None:
    cell = read_side(side_of("off", (10, 100)), 10, None, "page")
    assert (cell.usd_per_mtok, cell.tps_per_mw) == (None, None)
    unpriced = Economics(hardware=find_economics("cpu").hardware)
    assert read_side(side_of("off", (10, 100)), 10, unpriced, "page").usd_per_mtok is None


def test_a_method_is_known_or_refused() -> None:
    assert check_method("page") == "page"
    with pytest.raises(InputError, match="unknown method 'page-2025'; the page's: page-2026-05, page"):
        check_method("page-2025")


def test_nothing_measured_is_no_side() -> None:
    assert build_sides([CurvePoint(arm="off", interactivity_tps=0.0, tput_tps_per_gpu=0.0)]) == ()
