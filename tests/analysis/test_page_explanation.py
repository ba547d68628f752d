"""The page's numbers beside the honest ones: every difference has a reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from curve_points import FIXTURES, INFERENCEX, glm5, make_points
from mtpbench_analysis.compare import Settings
from mtpbench_analysis.curves.cost import find_economics, has_constants
from mtpbench_analysis.curves.curve import Curve
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.public_page import (
    METHODS,
    ExplainedNumber,
    Explanation,
    Method,
    explain_points,
    explanation_table,
    page_table,
    to_records,
    write_differences,
    write_page_document,
    write_page_sentences,
)
from mtpbench_analysis.render.markup import table_to_markdown

EIGHT = FIXTURES / "dsv4_gb200_off_8k1k.csv"


def settings_for(targets: Sequence[float], hardware: str = "b200") -> Callable[[Curve], Settings]:
    economics = find_economics(hardware, "2026-05")
    return lambda curve: Settings(targets_tps=tuple(targets), economics=economics)


def explain(
    points: Sequence[CurvePoint],
    targets: Sequence[float] = (),
    hardware: str = "b200",
    method: Method = "page-2026-05",
) -> Explanation:
    (explanation,) = explain_points(points, settings_for(targets, hardware), method)
    return explanation


def find(explanation: Explanation, metric: str, target: float, curve: str = "Off") -> ExplainedNumber:
    (one,) = [e for e in explanation.numbers if (e.metric, e.target_tps, e.curve) == (metric, target, curve)]
    return one


def codes(one: ExplainedNumber) -> list[str]:
    return [reason.code for reason in one.reasons]


def text_of(one: ExplainedNumber, code: str) -> str:
    (text,) = [reason.text for reason in one.reasons if reason.code == code]
    return text


def test_cost_splined_on_its_own_contradicts_the_throughput_beside_it() -> None:
    explanation = explain(read_source(EIGHT).points, (32, 46, 61), "gb200")
    one = find(explanation, "usd_per_mtok", 61)
    assert codes(one) == ["wide_gap", "splined_cost"]
    assert text_of(one, "splined_cost") == (
        "cost splined on its own: $10.493, but $2.21 and 308 tok/s/GPU make $1.991"
    )
    assert one.honest_value is None, "over a wide gap nothing but a range is known"
    assert codes(find(explanation, "tput_tps_per_gpu", 61)) == ["wide_gap"]
    assert find(explanation, "tput_tps_per_gpu", 32).agrees


def test_the_later_form_agrees_on_the_cost() -> None:
    explanation = explain(read_source(EIGHT).points, (32,), "gb200", "page")
    assert find(explanation, "usd_per_mtok", 32).agrees


def test_one_side_alone_is_explained_without_claims() -> None:
    explanation = explain(read_source(EIGHT).points, (32, 46, 61), "gb200")
    assert [side.arm for side in explanation.sides] == ["off"]
    assert {one.metric for one in explanation.numbers} == {
        "tput_tps_per_gpu",
        "usd_per_mtok",
        "tps_per_mw",
        "concurrency",
    }
    assert write_page_sentences(explanation) == ()


def test_concurrency_between_two_topologies_is_no_run() -> None:
    one = find(explain(read_source(EIGHT).points, (61,), "gb200"), "concurrency", 61)
    assert (one.honest_state, one.honest_value) == ("recipes", None)
    assert text_of(one, "concurrency_interpolated") == (
        "no run had 45 in flight: splined between 256 on 1xDEP8-4xTP8, 40 GPUs and 1 on 1xDEP8-1xTP8, 16 GPUs"
    )


def test_a_clamped_target_is_not_reached_above_and_a_bound_below() -> None:
    explanation = explain(glm5().points, (8, 60))
    above = find(explanation, "tput_tps_per_gpu", 60)
    assert (above.honest_state, above.honest_value, codes(above)) == ("not_reached", None, ["clamped"])
    assert above.page_value == 231.3
    assert above.reasons[0].text == "clamped: Off ends at 54.3, and the page repeats that point at 60"
    below = find(explanation, "tput_tps_per_gpu", 8)
    assert (below.honest_state, below.page_value, below.honest_value) == ("at_least", 1746.1, 1746.1)
    assert "as if it ran at 8" in below.reasons[0].text


def test_a_percentage_is_set_right() -> None:
    one = find(explain(glm5().points, (40, 60)), "cost_claim", 40, "MTP / Off")
    assert one.page_value is not None
    assert round(one.page_value) == 140
    assert one.honest_value is not None
    assert round(one.honest_value, 3) == 0.586
    assert text_of(one, "percent") == (
        "140% is (cost of Off / cost of MTP − 1) × 100; what MTP saves of these $1.033 is 58.4%"
    )
    missing = find(explain(glm5().points, (40, 60)), "cost_claim", 60, "MTP / Off")
    assert (missing.honest_state, missing.honest_value) == ("not_reached", None)
    assert "Off's number (clamped)" in text_of(missing, "sides")


def test_the_page_row_of_61_is_called_arithmetic() -> None:
    """The page's own 17397%: two one-point sides with the costs that it must have had."""
    mtp = make_points("mtp", (61, 2.21e6 / 3600 / 0.066377), hardware="gb200")
    off = make_points("off", (61, 2.21e6 / 3600 / 11.614), hardware="gb200")
    explanation = explain([*mtp, *off], (61,), "gb200")
    assert "MTP is 17397% cheaper per token" in write_page_sentences(explanation)[0]
    one = find(explanation, "cost_claim", 61, "MTP / Off")
    assert text_of(one, "percent").endswith("what MTP saves of these $11.614 is 99.4%")


def test_two_knots_bend() -> None:
    one = find(explain(make_points("off", (10, 1000), (110, 0.001)), (60,)), "tput_tps_per_gpu", 60)
    assert codes(one)[0] == "two_knots"
    assert one.page_value is not None
    assert round(one.page_value, 2) == 406.25
    assert "a straight line gives 500" in one.reasons[0].text


def test_pooled_curves_name_what_is_pooled_and_whose_the_knots_are() -> None:
    vllm = make_points("off", (10, 100), (30, 60), (50, 30), engine="vllm")
    sglang = make_points("off", (20, 95), (40, 50), engine="sglang")
    explanation = explain([*vllm, *sglang], (25,))
    one = find(explanation, "tput_tps_per_gpu", 25, "Off (vllm)")
    assert text_of(one, "pooled") == (
        "pooled: the page's curve is of 2 engines (sglang, vllm); "
        "its knots here are sglang at 20 and vllm at 30"
    )
    late = find(explain([*vllm, *sglang], (45,)), "tput_tps_per_gpu", 45, "Off (sglang)")
    assert (late.honest_state, codes(late)) == ("not_reached", ["pooled"])


def test_the_best_of_several_runs_is_named() -> None:
    runs = [
        replace(point, repeat=repeat, tput_tps_per_gpu=point.tput_tps_per_gpu * factor)
        for repeat, factor in ((1, 1.0), (2, 0.9))
        for point in make_points("off", (10, 100), (20, 80), (30, 60))
    ]
    one = find(explain(runs, (20,)), "tput_tps_per_gpu", 20)
    assert text_of(one, "best_of_repeats").endswith(
        "the page's knot is 80.0 at 20, one of 2 runs whose mean is 76.0 at 20"
    )


def test_an_invalid_knot_is_named() -> None:
    bad = make_points("off", (20, 99), valid=False, reasons=("client_saturated",))
    good = make_points("off", (10, 100), (20, 80), (30, 60))
    one = find(explain([*good, *bad], (20,)), "tput_tps_per_gpu", 20)
    assert text_of(one, "invalid_knot") == "the page's knot at 20 is invalid (client_saturated)"
    alone = explain(bad, (20,))
    assert alone.numbers[0].honest_state == "no_valid_point"
    assert explanation_table(alone).rows[0][4] == "no valid point"


def test_a_withheld_ratio_is_a_claim_that_nobody_can_make() -> None:
    mtp = make_points("mtp", (10, 1000), (20, 900), (100, 700))
    off = make_points("off", (10, 900), (20, 800), (100, 10))
    one = find(explain([*mtp, *off], (60,)), "cost_claim", 60, "MTP / Off")
    assert one.honest_state == "withheld"
    assert text_of(one, "withheld") == "no honest ratio: knots 80.0× apart in throughput (limit 5×)"


def test_the_page_targets_are_used_where_none_are_given() -> None:
    explanation = explain(glm5().points)
    assert explanation.own_targets
    assert explanation.targets_tps == (22, 33, 44)  # 22.47, 33.07, 43.66
    assert "the page's default ones" in page_table(explanation).caption


def test_simulated_points_say_so() -> None:
    explanation = explain(make_points("off", (10, 100), simulated=True), (10,))
    document = write_page_document(explanation)
    assert document.heading.startswith("SIMULATED: ")
    assert [document.heading_of(table)[-11:] for table in document.tables] == ["(SIMULATED)"] * 2


def test_the_page_table_looks_like_the_page() -> None:
    table = page_table(explain(glm5().points, (12, 40, 60)))
    assert table.headers == ("tok/s/user", "", "12", "40", "60")
    assert table.rows[0] == ("tok/s/GPU", "MTP", "1946.4", "1259.6", "902.9")
    assert table.rows[-1] == ("", "Off", "~126", "~12", "~4")


def test_the_tables_are_rectangles_and_the_records_are_json() -> None:
    explanation = explain(glm5().points, (12, 40, 60))
    table = explanation_table(explanation)
    assert {len(row) for row in table.rows} == {len(table.headers)}
    records = to_records(explanation)
    assert len(records) == len(table.rows)
    first = json.loads(json.dumps(records, allow_nan=False))[0]
    assert (first["metric"], first["arm"], first["page_text"]) == ("tput_tps_per_gpu", "MTP", "1946.4")
    assert first["reasons"] == [{"code": "agrees", "text": "agrees"}]
    assert any(
        "the page says 231.3, honest is not reached: ends at 54.3" in s
        for s in write_differences(explanation)
    )


def test_the_documented_table_is_what_comes_out() -> None:
    text = (FIXTURES.parent.parent / "docs" / "page-method.md").read_text("utf-8")
    explanation = explain(read_source(EIGHT).points, (32, 46, 61), "gb200")
    assert table_to_markdown(page_table(explanation)) in text


def test_every_curve_of_a_pooled_side_has_a_row() -> None:
    vllm = make_points("off", (10, 100), (30, 60), (50, 30), engine="vllm")
    sglang = make_points("off", (20, 95), (40, 50), engine="sglang")
    rows = explanation_table(explain([*vllm, *sglang], (25,))).rows
    assert [row[:4] for row in rows[:2]] == [
        ("25", "tok/s/GPU", "Off (vllm)", rows[0][3]),
        ("", "", "Off (sglang)", rows[0][3]),
    ]


def test_no_difference_of_real_rows_goes_without_a_reason() -> None:
    points = read_source(INFERENCEX).points

    def settings_of(curve: Curve) -> Settings:
        name = curve.shared("hardware")
        return Settings(economics=find_economics(name) if has_constants(name) else None)

    for method in METHODS:
        explained = [one for e in explain_points(points, settings_of, method) for one in e.numbers]
        assert explained
        assert all(one.reasons for one in explained)
