"""The public page's own table: knots that were fitted to it give every figure, to the last digit."""

from __future__ import annotations

from curve_points import FIXTURES
from mtpbench_analysis.compare import Settings
from mtpbench_analysis.comparisons import Question, compare_points
from mtpbench_analysis.curves.cost import find_economics
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.public_page.explain import Explanation, explain_points
from mtpbench_analysis.public_page.texts import explanation_table, page_table
from mtpbench_analysis.render.markup import table_to_markdown

KNOTS = read_source(FIXTURES / "page_knots.csv").points
TARGETS = (32.0, 46.0, 61.0)
PUBLIC = (
    ("tok/s/GPU", "MTP", "9478.9", "9478.9", "9251.8"),
    ("", "Off", "8087.6", "2843.2", "131.9"),
    ("$/M tok", "MTP", "0.065", "0.065", "0.066"),
    ("", "Off", "0.076", "0.218", "11.614"),
    ("tok/s/MW", "MTP", "4513744", "4513744", "4405600"),
    ("", "Off", "3851256", "1353903", "62791"),
    ("concurrency", "MTP", "~16384", "~16384", "~12097"),
    ("", "Off", "~3693", "~364", "~13"),
)
"""As the page showed it in May 2026, at 32, 46 and 61 tok/s/user."""


def explained() -> Explanation:
    settings = Settings(economics=find_economics("gb200", "2026-05"), targets_tps=TARGETS)
    (explanation,) = explain_points(KNOTS, lambda _: settings, "page-2026-05")
    return explanation


def test_every_figure_of_the_public_table_comes_out() -> None:
    assert page_table(explained()).rows == PUBLIC


def test_the_honest_reading_of_the_same_knots_has_no_ratio_where_nobody_measured() -> None:
    question = Question(targets_tps=TARGETS, constants="2026-05")
    (comparison,) = compare_points(read_source(FIXTURES / "page_knots.csv"), question).comparisons
    ratios = [row.ratios[0] for row in comparison.rows]
    assert [ratio.bound for ratio in ratios[:2]] == ["at_least", "at_least"]
    assert ratios[2].withheld is not None
    assert all((ratio.lower_cost or 0.0) < 1 for ratio in ratios)


def test_the_documented_tables_are_what_comes_out() -> None:
    text = (FIXTURES.parent.parent / "docs" / "page-method.md").read_text("utf-8")
    assert table_to_markdown(page_table(explained())) in text
    assert table_to_markdown(explanation_table(explained())) in text
