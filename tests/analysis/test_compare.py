"""Cells, ratios, default targets, confounds and warnings."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curve_points import glm5, make_curve, make_points, point_set
from mtpbench.errors import InputError, NotComparable
from mtpbench_analysis.compare import Comparison, KnownConfound, Ratio, Settings, compare, default_targets
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.comparisons import Filter, Question, compare_points
from mtpbench_analysis.curves.cells import Cell
from mtpbench_analysis.curves.cost import find_economics, joules_per_token, tps_per_mw, usd_per_mtok
from mtpbench_analysis.curves.curve import Curve
from mtpbench_analysis.curves.ratios import Gap
from mtpbench_analysis.pairing import ComparisonOutcome
from mtpbench_analysis.render.csv_json_parquet import to_csv, to_json
from mtpbench_analysis.sentences import explain_no_ratio, write_caveats

OFF = ((10.0, 1000.0), (30.0, 400.0), (50.0, 100.0))


def cells(comparison: Comparison, which: int) -> list[Cell]:
    return [row.cells[which] for row in comparison.rows]


def ask(*points_of: list, **question: object) -> ComparisonOutcome:  # type: ignore[type-arg]
    return compare_points(point_set(*[p for points in points_of for p in points]), Question(**question))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- cost


def test_page_arithmetic() -> None:
    assert usd_per_mtok(9478.9, 2.21) == pytest.approx(0.06476, abs=5e-6)
    assert tps_per_mw(9478.862, 2.10) == pytest.approx(4513743.8, abs=0.05)
    assert usd_per_mtok(131.9, 2.21) == pytest.approx(4.65, abs=0.005)
    assert joules_per_token(1000.0, 700.0) == 0.7


def test_short_hardware_names_find_their_constants() -> None:
    economics = find_economics("GB200", "2026-05")
    assert economics.hardware.name == "gb200-nvl72"
    assert (economics.usd_per_gpu_h, economics.hardware.power_kw_per_gpu) == (2.21, 2.10)


def test_the_newest_constants_are_the_default_and_are_dated() -> None:
    assert "constants of 2026-09" in find_economics("gb200").label


def test_an_unknown_tier_lists_the_known() -> None:
    with pytest.raises(InputError, match="hyperscaler, neocloud, rental_3y"):
        find_economics("b200", tier="friends")


# ------------------------------------------------------------------------------------------------- targets


def test_targets_round_half_up() -> None:
    assert default_targets([(12.0, 18.0), (12.0, 18.0)]) == ((14.0, 15.0, 17.0), "overlap")


def test_targets_are_quartiles_of_the_overlap() -> None:
    assert default_targets([(10.0, 90.0), (50.0, 200.0)]) == ((60.0, 70.0, 80.0), "overlap")


def test_targets_are_quartiles_of_the_union_where_there_is_no_overlap() -> None:
    assert default_targets([(0.0, 20.0), (60.0, 100.0)]) == ((25.0, 50.0, 75.0), "union")


def test_a_narrow_range_keeps_the_decimals_that_tell_its_targets_apart() -> None:
    targets, _ = default_targets([(1.0, 1.8), (0.5, 3.0)])
    assert targets == (1.2, 1.4, 1.6)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 500), st.floats(0.1, 500)), min_size=2, max_size=3))
def test_default_targets_lie_in_the_range_they_are_taken_from(ends: list[tuple[float, float]]) -> None:
    ranges = [(min(pair), max(pair)) for pair in ends]
    targets, rule = default_targets(ranges)
    lows, highs = [r[0] for r in ranges], [r[1] for r in ranges]
    low, high = (max(lows), min(highs)) if rule == "overlap" else (min(lows), max(highs))
    assert low <= targets[0]
    assert targets[-1] <= high
    assert list(targets) == sorted(set(targets))


def test_a_curve_of_one_point_does_not_decide_the_targets_of_the_others() -> None:
    others = [make_curve("mtp-k1", (90.0, 50.0)), make_curve("mtp-k3", (10.0, 2000.0), (50.0, 500.0))]
    comparison = compare(make_curve("off", *OFF), others)
    assert [row.target_tps for row in comparison.rows] == [20, 30, 40]


# --------------------------------------------------------------------------------------------------- cells


def test_every_state_of_a_cell() -> None:
    comparison = compare(
        make_curve("off", *OFF),
        [make_curve("mtp", (20.0, 2000.0), (60.0, 500.0))],
        Settings(targets_tps=(5.0, 30.0, 40.0, 55.0)),
    )
    below, on_knot, between, above = cells(comparison, 0)
    assert (below.state, below.tput_tps_per_gpu, below.runs_at_tps) == ("at_least", 1000, 10)
    assert (on_knot.state, on_knot.tput_tps_per_gpu, len(on_knot.knots)) == ("measured", 400, 1)
    assert (between.state, between.gap_tps, between.knot_ratio) == ("interpolated", 20, 4)
    assert [knot.x for knot in between.knots] == [30, 50]
    assert (above.state, above.tput_tps_per_gpu, above.usd_per_mtok) == ("not_reached", None, None)


def test_ratios_exist_only_where_both_sides_have_a_number() -> None:
    comparison = compare(
        make_curve("off", *OFF),
        [make_curve("mtp", (20.0, 2000.0), (60.0, 500.0))],
        Settings(targets_tps=(5.0, 15.0, 30.0, 55.0, 70.0)),
    )
    ratios = [row.ratios[0] for row in comparison.rows]
    assert [r.bound for r in ratios[:3]] == ["best_points", "at_least", "exact"]
    assert ratios[0].value == 2
    assert ratios[2].value == pytest.approx(1625 / 400)
    assert [(r.value, r.not_reached) for r in ratios[3:]] == [(None, True)] * 2


def test_a_baseline_known_only_by_its_best_point_bounds_the_ratio_from_above() -> None:
    comparison = compare(
        make_curve("off", *OFF),
        [make_curve("mtp", (5.0, 1500.0), (50.0, 500.0))],
        Settings(targets_tps=(8.0,)),
    )
    assert comparison.rows[0].ratios[0].bound == "at_most"


def test_a_ratio_across_a_wide_gap_is_withheld_with_the_factor() -> None:
    off = make_curve("off", (10.0, 1000.0), (50.0, 100.0))
    mtp = make_curve("mtp", (10.0, 2000.0), (50.0, 1000.0))
    withheld = compare(off, [mtp], Settings(targets_tps=(30.0,))).rows[0].ratios[0]
    assert withheld.value is None
    assert withheld.withheld == Gap(knot_ratio=10.0, limit=5.0)
    assert explain_no_ratio(withheld) == "withheld: knots 10.0× apart in throughput (limit 5×)"
    allowed = compare(off, [mtp], Settings(targets_tps=(30.0,), max_gap=10)).rows[0].ratios[0]
    assert allowed.value == pytest.approx(1500 / 550)


@settings(deadline=None)
@given(st.floats(min_value=1e-3, max_value=1e6))
def test_nothing_is_more_than_a_hundred_percent_cheaper(value: float) -> None:
    lower = Ratio(value=value).lower_cost
    assert lower is not None
    assert lower < 1
    assert (lower > 0) == (value > 1)


def test_the_ratio_of_costs_is_the_inverse_ratio_of_throughputs() -> None:
    settings = Settings(targets_tps=(25.0,), economics=find_economics("b200"))
    row = compare(make_curve("off", *OFF), [make_curve("mtp", (20.0, 2000.0), (60.0, 500.0))], settings).rows[
        0
    ]
    off, mtp = row.cells
    assert off.usd_per_mtok is not None
    assert mtp.usd_per_mtok is not None
    assert off.usd_per_mtok / mtp.usd_per_mtok == pytest.approx(row.ratios[0].value)


def test_the_real_pair_gives_the_published_example() -> None:
    question = Question(targets_tps=(12, 40, 60), constants="2026-05")
    (comparison,) = compare_points(glm5(), question, Filter(hardware="b200")).comparisons
    mtp, off = cells(comparison, 1), cells(comparison, 0)
    assert [round(c.tput_tps_per_gpu or 0) for c in mtp] == [1946, 1260, 903]
    assert [c.tput_tps_per_gpu and round(c.tput_tps_per_gpu) for c in off] == [1661, 521, None]
    assert [round(row.ratios[0].value or 0, 2) for row in comparison.rows] == [1.17, 2.42, 0]
    assert [round(row.ratios[0].lower_cost or 0, 3) for row in comparison.rows] == [0.147, 0.586, 0]
    assert [[round(knot.x, 1) for knot in c.knots] for c in mtp] == [[11.9, 13.8], [38.2, 56.9], [56.9, 77.8]]


def test_more_than_two_arms_are_each_set_against_the_baseline() -> None:
    (comparison,) = ask(
        make_points("off", *OFF),
        make_points("mtp-k1", (10.0, 1500.0), (60.0, 200.0)),
        make_points("mtp-k3", (10.0, 900.0), (90.0, 300.0)),
        targets_tps=(10.0,),
    ).comparisons
    assert [curve.label for curve in comparison.curves] == ["Off", "MTP-k1", "MTP-k3"]
    assert [ratio.value for ratio in comparison.rows[0].ratios] == [1.5, 0.9]


# ------------------------------------------------------------------------- what may be compared, and what not


@pytest.mark.parametrize("field", ["hardware", "model", "precision", "isl", "osl", "simulated"])
def test_curves_of_another_question_are_not_comparable(field: str) -> None:
    off = make_curve("off", *OFF)
    (point,) = make_points("mtp", (10.0, 1.0))
    value: object = {"isl": 1, "osl": 1, "simulated": True}.get(field, "other")
    (mtp,) = [make_curve("mtp", (10.0, 1.0), **{field: value})]
    with pytest.raises(NotComparable, match=field) as caught:
        compare(off, [mtp])
    assert caught.value.exit_code == 2
    with pytest.raises(NotComparable, match=field):
        ask(make_points("off", *OFF), [replace(point, **{field: value})])  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_a_target_must_be_a_positive_number(target: float) -> None:
    with pytest.raises(InputError, match="above 0 tok/s/user"):
        compare(make_curve("off", *OFF), [make_curve("mtp", *OFF)], Settings(targets_tps=(target,)))


def test_a_factor_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        compare(make_curve("off", *OFF), [make_curve("mtp", *OFF)], Settings(max_gap=0.5))


def test_what_differs_beyond_speculation_is_listed() -> None:
    off = make_curve("off", *OFF, image="a", topology="1xTP8", date="2026-01-01", engine="vllm")
    mtp = make_curve("mtp", *OFF, image="b", topology="1xTP8", date="2026-01-01", engine="vllm")
    (lines,) = compare(off, [mtp]).confounds.values()
    assert "Image: Off a; MTP b" in lines
    assert not any("Topology" in line or "Date" in line or "Engine" in line for line in lines)
    assert "Not recorded, so possibly different: serving, prompts, engine options" in lines


def test_engine_options_of_one_side_only_are_listed() -> None:
    """Batch limits and memory shares differ between public recipes; what speculation forces is no option."""
    off = make_curve("off", *OFF, settings=("decode: max_num_seqs 512", "prefill: a 1"))
    mtp = make_curve("mtp", *OFF, settings=("decode: max_num_seqs 256", "prefill: a 1"))
    (lines,) = compare(off, [mtp]).confounds.values()
    assert "Engine options: Off only decode: max_num_seqs 512; MTP only decode: max_num_seqs 256" in lines


def test_prompts_that_differ_are_a_confound() -> None:
    off = make_curve("off", *OFF, workload="random prompts, no chat template")
    mtp = make_curve("mtp", *OFF, workload="random prompts, chat template")
    (lines,) = compare(off, [mtp]).confounds.values()
    assert "Prompts: Off random prompts, no chat template; MTP random prompts, chat template" in lines


def test_strict_refuses_what_differs_and_what_nobody_recorded() -> None:
    known = {
        "image": "a",
        "engine": "vllm",
        "version": "1",
        "serving": "aggregated",
        "workload": "w",
        "topology": "1xTP8",
        "date": "2026-01-01",
        "settings": (),
        "model": "m",
        "precision": "fp4",
        "isl": 1,
        "osl": 1,
    }
    off = make_curve("off", *OFF, **known)
    strict = Settings(strict=True, known_confounds=(KnownConfound(text="what MTP forces"),))
    assert compare(off, [make_curve("mtp", *OFF, **{**known, "date": "2026-01-02"})], strict)
    with pytest.raises(NotComparable, match=r"(?s)--strict: Off and what .* - MTP: Image: Off a"):
        compare(off, [make_curve("mtp", *OFF, **{**known, "image": "b"})], strict)
    bare = [make_curve(arm, *OFF, **{**known, "image": None}) for arm in ("off", "mtp")]
    assert compare(bare[0], bare[1:], strict), "an engine that runs bare has no image"
    unrecorded = [make_curve(arm, *OFF, **{**known, "settings": None}) for arm in ("off", "mtp")]
    with pytest.raises(NotComparable, match="Not recorded, so possibly different: engine options"):
        compare(unrecorded[0], unrecorded[1:], strict)


def test_a_curve_goes_with_the_baseline_it_has_most_in_common_with() -> None:
    points = [
        *make_points("off", *OFF, engine="trt", image="1.1", date="2025-12-15"),
        *make_points("off", *OFF, engine="trt", image="1.3", date="2026-05-18"),
        *make_points("mtp", *OFF, engine="trt", image="1.3", date="2026-05-19"),
        *make_points("mtp", *OFF, engine="trt", image="1.2", date="2026-01-14"),
    ]
    outcome = ask(points[:2], points[2:])  # type: ignore[arg-type]
    pairs = {
        (comparison.baseline.shared("image"), other.shared("image"))
        for comparison in outcome.comparisons
        for other in comparison.others
    }
    assert pairs == {("1.3", "1.3"), ("1.1", "1.2")}


@pytest.mark.parametrize(("date", "nearest"), [("2026-01-14", "1.1"), ("2026-04-30", "1.3")])
def test_of_baselines_with_equally_much_in_common_the_nearest_in_date_is_taken(
    date: str, nearest: str
) -> None:
    baselines = [
        *make_points("off", *OFF, engine="trt", image="1.1", date="2025-12-15"),
        *make_points("off", *OFF, engine="trt", image="1.3", date="2026-05-18"),
    ]
    mtp = make_points("mtp", *OFF, engine="trt", image="1.2", date=date)
    for either in (baselines, baselines[::-1]):
        (comparison,) = ask(either, mtp).comparisons
        assert comparison.baseline.shared("image") == nearest


def test_what_the_plan_says_of_an_arm_stands_once_and_only_where_the_arm_is_compared() -> None:
    known = (
        KnownConfound(text="mtp on decode: --x is 2 instead of 1", arm="mtp"),
        KnownConfound(text="ngram: stand in", arm="ngram"),
        KnownConfound(text="absent: stand in", arm="absent"),
        KnownConfound(text="what an older version planned"),
    )
    off, mtp, ngram = (make_curve(arm, *OFF) for arm in ("off", "mtp", "ngram"))
    comparison = compare(off, [mtp, ngram], Settings(known_confounds=known))
    told = write_document(comparison).items("differences")
    assert [text for text in told if text in [each.text for each in known]] == [
        "mtp on decode: --x is 2 instead of 1",
        "ngram: stand in",
        "what an older version planned",
    ]
    assert not [text for text in told if "stand in" in text and text != "ngram: stand in"]
    (data,) = json.loads(to_json([comparison]))["comparisons"]
    of_mtp, of_ngram = data["confounds"]["MTP"], data["confounds"]["ngram"]
    assert of_mtp[-2:] == ["mtp on decode: --x is 2 instead of 1", "what an older version planned"]
    assert of_ngram[-2:] == ["ngram: stand in", "what an older version planned"]
    rows = list(csv.DictReader(io.StringIO(to_csv([comparison]))))
    assert {row["curve"]: "ngram: stand in" in row["confounds"] for row in rows} == {
        "Off": False,
        "MTP": False,
        "ngram": True,
    }


def test_what_the_plan_says_against_another_arm_than_the_baseline_names_that_arm() -> None:
    known = (KnownConfound(text="mtp on decode: --x is 2 instead of 1", arm="mtp", against="off"),)
    other = make_curve("off-later", *OFF)
    comparison = compare(other, [make_curve("mtp", *OFF)], Settings(known_confounds=known))
    assert comparison.known_confounds() == ("mtp on decode: --x is 2 instead of 1 (planned against off)",)


def test_no_acceptance_warning_without_cause() -> None:
    off = make_curve("off", *OFF, engine="vllm", acceptance_mode="off")
    mtp = make_curve("mtp", *OFF, engine="vllm", acceptance_mode="measured", acceptance_length=2.5)
    assert compare(off, [mtp]).warnings == ()


def test_acceptance_warnings_when_they_are_true() -> None:
    off = make_curve("off", *OFF, engine="vllm", acceptance_mode="off")
    real = make_curve("mtp-a", *OFF, engine="sglang", acceptance_mode="measured", acceptance_length=2.5)
    pinned = make_curve("mtp-b", *OFF, engine="vllm", acceptance_mode="golden")
    warnings = compare(off, [real, pinned]).warnings
    assert [warning.split(" (")[0].split(":")[0] for warning in warnings] == [
        "The engines differ",
        "The acceptance modes differ",
        "Acceptance was not recorded for MTP-b, so part of the gain may be the benchmark's prompts.",
    ]


def drafting_where(**shared: Any) -> Curve:
    return make_curve("mtp", *OFF, engine="vllm", acceptance_length=2.5, **shared)


def test_acceptance_measured_on_random_tokens_or_past_the_end_of_answers_is_said() -> None:
    off = make_curve("off", *OFF, engine="vllm", acceptance_mode="off")
    both = drafting_where(acceptance_mode="measured", acceptance_caveats=("random_prompts", "ignore_eos"))
    random, endless = compare(off, [both]).warnings
    assert random.startswith("Acceptance of MTP was measured on random tokens, ")
    assert endless.startswith("Acceptance of MTP was measured with ignore_eos, ")
    assert [*write_caveats(compare(off, [both]))][:2] == [random, endless]
    # Other tools' files don't say whether acceptance was pinned: what is known of the prompts is told.
    unsaid = drafting_where(acceptance_caveats=("random_prompts",))
    assert compare(off, [unsaid]).warnings == (random,)


def test_an_acceptance_of_drafting_steps_alone_is_said_to_be_one() -> None:
    off = make_curve("off", *OFF, engine="vllm", acceptance_mode="off")
    told = [
        [text for text in write_caveats(compare(off, [curve])) if "steps" in text]
        for curve in (drafting_where(drafting_steps_only=True), drafting_where())
    ]
    assert told == [
        ["Acceptance of MTP is of the steps that drafted: steps may draft nothing, and give one token."],
        [],
    ]


@pytest.mark.parametrize("mode", ["golden", "measured"])
def test_a_pinned_acceptance_and_one_of_texts_have_no_caveat(mode: str) -> None:
    caveats = ("random_prompts",) if mode == "golden" else ()
    off = make_curve(
        "off", *OFF, engine="vllm", acceptance_mode="off", acceptance_caveats=("random_prompts",)
    )
    mtp = drafting_where(acceptance_mode=mode, acceptance_caveats=caveats)
    assert compare(off, [mtp]).warnings == ()


def test_strict_refuses_an_acceptance_with_a_caveat() -> None:
    known = {
        "engine": "vllm",
        "serving": "aggregated",
        "version": "1",
        "workload": "random",
        "settings": (),
        "topology": "1xTP8",
        "date": "2026-01-01",
        "hardware": "b200",
        "model": "m",
        "precision": "fp8",
        "isl": 1,
        "osl": 1,
    }
    off = make_curve("off", *OFF, acceptance_mode="off", **known)
    sound, odd = (
        make_curve("mtp", *OFF, acceptance_mode="measured", acceptance_caveats=caveats, **known)
        for caveats in ((), ("ignore_eos",))
    )
    assert compare(off, [sound], Settings(strict=True))
    with pytest.raises(NotComparable, match=r"--strict: \n  - Acceptance of MTP was measured with ignore"):
        compare(off, [odd], Settings(strict=True))


# -------------------------------------------------------------------------------------------------- pairing


def test_each_engine_is_compared_with_its_own_baseline() -> None:
    outcome = ask(
        *[make_points(arm, *OFF, engine=engine) for engine in ("vllm", "sglang") for arm in ("off", "mtp")]
    )
    pairs = [(c.baseline.shared("engine"), c.others[0].shared("engine")) for c in outcome.comparisons]
    assert pairs == [("vllm", "vllm"), ("sglang", "sglang")]
    assert outcome.left_out == ()


def test_a_curve_with_a_choice_of_foreign_baselines_is_listed_and_not_guessed() -> None:
    outcome = ask(
        make_points("off", *OFF, engine="vllm"),
        make_points("mtp", *OFF, engine="vllm"),
        make_points("off", *OFF, engine="sglang"),
        make_points("mtp", *OFF, engine="trt"),
    )
    assert len(outcome.comparisons) == 1
    assert [item.what for item in outcome.left_out] == [
        "MTP, b200, trt (3 points)",
        "Off, b200, sglang (3 points)",
    ]


def test_the_only_baseline_serves_another_serving_mode_too() -> None:
    (comparison,) = ask(
        make_points("off", *OFF, serving="disaggregated"), make_points("mtp", *OFF, serving="aggregated")
    ).comparisons
    assert any(line.startswith("Serving:") for line in comparison.confounds["MTP"])


def test_every_workload_gets_a_comparison_of_its_own() -> None:
    outcome = ask(*[make_points(arm, *OFF, isl=isl) for isl in (1024, 8192) for arm in ("off", "mtp")])
    assert [c.baseline.shared("isl") for c in outcome.comparisons] == [1024, 8192]


def test_invalid_points_are_listed_with_their_comparison() -> None:
    (bad,) = make_points("mtp", (20.0, 9000.0))
    bad = replace(bad, valid=False, reasons=("server_died: exit 1",))
    (comparison,) = ask(make_points("off", *OFF), make_points("mtp", *OFF), [bad]).comparisons
    assert comparison.invalid == (bad,)
    assert max(item.y for item in comparison.others[0].measured) == 1000


def test_a_missing_baseline_names_the_arms_there_are() -> None:
    with pytest.raises(InputError, match="no valid point of the baseline 'off'; arms with points: mtp"):
        ask(make_points("mtp", *OFF))


def test_only_invalid_points_make_no_comparison() -> None:
    (bad,) = make_points("off", (20.0, 9000.0))
    with pytest.raises(InputError, match="no valid point to compare; all 1 are invalid"):
        ask([replace(bad, valid=False)])


def test_another_baseline_can_be_named() -> None:
    (comparison,) = ask(make_points("off", *OFF), make_points("mtp", *OFF), baseline="mtp").comparisons
    assert (comparison.baseline.label, comparison.others[0].label) == ("MTP", "Off")


def test_a_filter_that_leaves_nothing_says_what_there_is() -> None:
    points = point_set(*make_points("off", *OFF), *make_points("mtp", *OFF))
    with pytest.raises(InputError, match=r"no point of precision fp4; there are: b200"):
        compare_points(points, Question(), Filter(precision="fp4"))


def test_a_hardware_name_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InputError, match="unknown hardware 'b200x'; known: gb200-nvl72"):
        compare_points(glm5(), Question(), Filter(hardware="b200x"))
