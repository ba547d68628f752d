"""The page of twelve arms: every arm is told apart, nothing runs over, and a method can be chosen."""

from __future__ import annotations

from typing import Any

import pytest

from browser.conftest import OpenPage
from browser.pages import address, compared
from curve_points import make_points
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.sentences import write_sentences

LATER = "deepseek-ai/DeepSeek-V4-Pro-0813"
ARMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("off", {"method": "off", "draft_tokens": 0}),
    ("off0813", {"method": "off", "draft_tokens": 0, "checkpoint": LATER}),
    *((f"mtp{k}", {"method": "mtp", "draft_tokens": k}) for k in (1, 2, 3, 5)),
    *((f"dspark{k}", {"method": "dspark", "draft_tokens": k, "checkpoint": LATER}) for k in (5, 6)),
    ("eagle3", {"method": "eagle3", "draft_tokens": 3}),
    ("small-draft", {"method": "draft_model", "draft_tokens": 4}),
    ("ngram4", {"method": "ngram", "draft_tokens": 4}),
    ("by-load", {"method": "mtp", "draft_tokens": 3, "depth_rule": "by_batch"}),
)


def arms(count: int) -> list[Comparison]:
    points: list[CurvePoint] = []
    for i, (arm, facts) in enumerate(ARMS[:count]):
        gain = 1.12**i
        pairs = (
            (20 * gain, 400 * gain),
            (40 * gain, 200 * gain),
            (70 * gain, 90 * gain),
            (90 * gain, 30 * gain),
        )
        points += make_points(arm, *pairs, **{"checkpoint": "deepseek-ai/DeepSeek-V4-Pro", **facts})
    return compared(points, targets_tps=(30, 50, 80))


def test_twelve_arms_have_a_mark_and_a_colour_each(open_page: OpenPage) -> None:
    page = open_page(arms(12))
    entries = page.locator("figure .legend label")
    assert entries.count() == 12
    assert "by-load (MTP k≤3 by batch)" in entries.nth(11).inner_text()
    looks = page.eval_on_selector_all(
        "figure .legend label",
        """labels => labels.map((label) => {
          const mark = label.querySelector(".shape"), line = label.querySelector(".curve");
          const dash = getComputedStyle(line).strokeDasharray;
          return [mark.getAttribute("d"), getComputedStyle(mark).stroke, dash];
        })""",
    )
    assert len({shape for shape, *_ in looks}) == 12
    assert len({colour for _, colour, _ in looks}) == 12
    assert [dash != "none" for *_, dash in looks] == [False] * 6 + [True] * 6


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_of_twelve_arms_runs_over(open_page: OpenPage, width: int) -> None:
    page = open_page(arms(12), viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    boxes = page.eval_on_selector_all(
        "figure .legend label", "labels => labels.map((l) => l.getBoundingClientRect().toJSON())"
    )
    for i, box in enumerate(boxes):
        assert box["left"] >= 0
        assert box["right"] <= width
        for other in boxes[:i]:
            apart = box["left"] >= other["right"] or other["left"] >= box["right"]
            assert apart or box["top"] >= other["bottom"] or other["top"] >= box["bottom"]


def test_a_chosen_method_leaves_the_arms_without_speculation(open_page: OpenPage) -> None:
    page = open_page(arms(12))
    page.select_option("[name=method]", "dspark")
    shown = page.locator("figure .legend label:visible")
    assert [text.strip() for text in shown.all_inner_texts()] == [
        "Off",
        "Off0813",
        "DSpark5 (k=5)",
        "DSpark6 (k=6)",
    ]
    assert page.locator("svg.chart path.curve").count() == 4 * 3
    rows = page.locator("table.matched tbody tr th.who").all_inner_texts()
    assert "DSpark6 / Off†" in rows
    assert not any("MTP" in row for row in rows)
    assert page.locator("ul.sentences li").count() == 3 * 3
    assert address(page) == "#method=dspark"
    page.select_option("[name=method]", "")
    assert shown.count() == 12


def test_a_link_keeps_the_method_and_refuses_one_that_the_page_does_not_have(open_page: OpenPage) -> None:
    page = open_page(arms(12), "#method=ngram")
    assert page.locator("figure .legend label:visible").count() == 3
    page = open_page(arms(12), "#method=suffix")
    assert "method “suffix”" in page.locator("#note").inner_text()
    assert page.locator("figure .legend label:visible").count() == 12


@pytest.mark.parametrize("count", [5, 12])
def test_the_words_of_many_arms_are_those_of_python(open_page: OpenPage, count: int) -> None:
    comparisons = arms(count)
    page = open_page(comparisons)
    told = page.locator("ul.sentences li").all_inner_texts()
    assert tuple(told[: len(write_sentences(comparisons[0]))]) == write_sentences(comparisons[0])
    assert any(f"serves {LATER}, Off deepseek-ai/DeepSeek-V4-Pro." in text for text in told) == (count == 5)


def test_a_page_of_two_arms_has_no_choice_of_methods(open_page: OpenPage) -> None:
    page = open_page(arms(3))
    assert page.locator("[name=method]").count() == 0
    assert page.locator("figure .legend label").count() == 3
