"""Two ways of measuring never look like one: sides and curves that mix rules say so."""

from __future__ import annotations

from pathlib import Path

from curve_points import make_curve, make_points, point_set
from mtpbench_analysis.curves.confounds import find_confounds, find_pooling
from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.importers.results import read_results
from mtpbench_analysis.regression.matching import match
from stored_sweep import write_sweep

PAIRS = ((10.0, 100.0), (20.0, 50.0))


def test_sides_that_were_measured_by_other_rules_say_so() -> None:
    old, new, other_tool = (
        make_curve(arm, *PAIRS, measuring_rule=rule)
        for arm, rule in (("off", "2026-05"), ("mtp", "2026-11"), ("mtp", None))
    )
    texts = {one.field: one.text for one in find_confounds(old, new)}
    assert texts["measuring_rule"] == "Measuring rule: Off 2026-05; MTP 2026-11"
    for sides in ((old, other_tool), (new, new)):
        assert "measuring rule" not in str(find_confounds(*sides)).lower()


def test_a_curve_that_mixes_rules_says_so_and_averages_none_of_its_runs() -> None:
    points = [
        point
        for rule in ("2026-05", "2026-11")
        for point in make_points("off", *PAIRS, measuring_rule=rule, concurrency=4)
    ]
    (curve,) = build_curves(points)
    assert find_pooling(curve) == ("The Off curve mixes 2 values of measuring rule: 2026-05, 2026-11.",)
    assert {run.measuring_rule for item in curve.measured for run in item.runs} == {"2026-05", "2026-11"}
    assert all(len({run.measuring_rule for run in item.runs}) == 1 for item in curve.measured)


def test_a_regression_names_the_rules_of_its_sides_and_no_rule_of_other_tools() -> None:
    def side(rule: str | None) -> list[PointSet]:
        return [point_set(*make_points("off", *PAIRS, measuring_rule=rule))]

    assert "measuring_rule 2026-05 → 2026-11" in match(side("2026-05"), side("2026-11")).differences
    for rule in ("2026-11", None):
        found = match(side(rule), side(rule))
        assert "measuring_rule" not in " ".join((*found.differences, *found.unknown))


def test_stored_points_say_by_which_rule_they_were_measured(tmp_path: Path) -> None:
    points = read_results(write_sweep(tmp_path)).points
    assert {point.measuring_rule for point in points} == {"2026-05"}
