"""The page as a reader uses it: typing targets, choosing metrics and arms, sharing a view."""

from __future__ import annotations

import pytest

from browser.conftest import OpenPage
from browser.pages import HOSTILE, address, cell, compared, published, recorded, shapes
from curve_points import make_points
from mtpbench_analysis.frame import CurvePoint

# ------------------------------------------------------------------------------------------------- targets


def test_the_published_table_follows_an_edited_target(open_page: OpenPage) -> None:
    page = open_page(published())
    assert cell(page, 0, 1) == "1,260 (1,197–1,309) interpolated, knots 38.2 and 56.9"
    assert cell(page, 2, 1) == "2.42× (2.22–2.63), 58.6% lower cost"
    page.fill("[name=target-1]", "20")
    assert cell(page, 0, 1).startswith("1,7")
    assert page.locator("ul.sentences li").nth(1).inner_text().startswith("At 20 tok/s/user MTP serves 1,7")
    assert page.evaluate("document.activeElement.name") == "target-1"
    assert address(page) == "#t=12,20,60"


def test_a_target_outside_is_explained_and_not_clamped(open_page: OpenPage) -> None:
    page = open_page(published())
    page.fill("[name=target-0]", "5")
    assert cell(page, 0, 0) == "≥ 1,947 runs at 11.9"
    page.fill("[name=target-2]", "500")
    assert cell(page, 0, 2) == "not reached: ends at 100.9"
    assert cell(page, 2, 2) == "–"
    notes = page.locator("ul.notes").inner_text()
    assert "500 tok/s/user is above what MTP reaches" in notes
    assert "5 tok/s/user is below the front of MTP" in notes


@pytest.mark.parametrize(
    "text", ["0x10", "1e1", "0b1", "+5", "", "fast", "-3", "0", "1e999", "12 40", "1,260", HOSTILE]
)
def test_a_text_that_is_no_target_says_so(open_page: OpenPage, text: str) -> None:
    page = open_page(published())
    page.fill("[name=target-0]", text)
    assert page.get_attribute("[name=target-0]", "aria-invalid") == "true"
    assert "is no interactivity" in page.locator("ul.notes").inner_text()
    assert cell(page, 0, 0) == "–"
    assert cell(page, 0, 1).startswith("1,260")


def test_targets_can_be_added_removed_and_reset(open_page: OpenPage) -> None:
    page = open_page(published())
    page.click("[name=add-target]")
    assert page.locator("table.matched thead input").count() == 4
    page.click("[aria-label='remove target 1']")
    page.click("[aria-label='remove target 1']")
    assert page.locator("table.matched thead input").count() == 2
    page.click("[name=reset-targets]")
    assert page.locator("table.matched thead input").count() == 3
    assert address(page) == ""


def test_no_more_targets_than_a_link_keeps(open_page: OpenPage) -> None:
    page = open_page(published())
    for _ in range(20):
        page.click("[name=add-target]", force=True)
    assert page.locator("table.matched thead input").count() == 12
    assert "A link keeps 12 targets" in page.locator(".tools", has_text="add a target").inner_text()
    fragment = address(page)
    other = open_page(published(), fragment)
    assert other.locator("table.matched thead input").count() == 12
    assert other.locator("#note").inner_text() == ""
    page.click("[aria-label='remove target 1']")
    assert "A link keeps" not in page.locator(".tools", has_text="add a target").inner_text()


# ------------------------------------------------------------------------------------------------ controls


def test_every_metric_can_be_drawn_and_shared(open_page: OpenPage) -> None:
    page = open_page(compared(recorded(hardware="gb200")))
    options = page.locator("[name=y] option").evaluate_all("all => all.map(one => one.value)")
    assert {
        "tput:total",
        "tput:output",
        "tput:input",
        "gain",
        "usd:hyperscaler:output",
        "mw",
        "mw:metered",
    } <= set(options)
    assert {"j", "j:metered", "acceptance", "ttft", "ttft:p99", "e2el"} <= set(options)
    for y in options:
        for x in ("interactivity", "e2el", "ttft", "concurrency"):
            page.select_option("[name=y]", y)
            page.select_option("[name=x]", x)
            assert shapes(page) == {"gain": 2, "acceptance": 3}.get(y, 6), (y, x)
            label = page.locator(f"[name=y] option[value='{y}']").inner_text()
            assert label in page.locator(".live svg.chart").text_content()
            assert "NaN" not in page.locator(".live svg.chart").inner_html()


def test_a_price_that_nobody_knows_is_unknown_and_says_why(open_page: OpenPage) -> None:
    page = open_page(compared(recorded(hardware="gb200"), targets_tps=(20.0,)))
    page.select_option("[name=tier]", "neocloud")
    costs = [text for text in page.locator("table.matched tbody tr").all_text_contents() if "$" in text]
    assert "unknown" in costs[0]
    assert "0.0" not in costs[0]
    assert "NaN" not in page.locator("section:not([hidden])").inner_text()
    assert "an unknown price (neocloud: its source removed this tier" in page.content()
    options = page.locator("[name=y] option").evaluate_all("all => all.map(one => one.value)")
    assert "usd:rental_3y:total" in options
    assert "usd:neocloud:total" not in options


def test_a_shared_link_reproduces_the_view(open_page: OpenPage) -> None:
    comparisons = compared(recorded(hardware="gb200"))
    page = open_page(comparisons)
    page.select_option("[name=y]", "usd:rental_3y:output")
    page.select_option("[name=scale]", "logxy")
    page.select_option("[name=tier]", "rental_3y")
    page.check("[name=labels]")
    page.check("[name=front]")
    page.uncheck("[name=arm-0]")
    page.fill("[name=target-0]", "33.25")
    fragment = address(page)
    other = open_page(comparisons, fragment)
    for part in ("svg.chart", "table.matched tbody", "table.more", "ul.sentences", "ul.notes", "figure > p"):
        assert (
            other.locator(f".live {part}").first.inner_html()
            == page.locator(f".live {part}").first.inner_html()
        )
    assert other.input_value("[name=target-0]") == "33.25"
    assert other.input_value("[name=tier]") == "rental_3y"
    assert "rental_3y" in other.locator("table.matched").inner_text()
    assert not other.is_checked("[name=arm-0]")
    assert shapes(other) == 3


@pytest.mark.parametrize(
    "fragment",
    [
        "#c=99&y=nonsense&x=%00&scale=cubic&hide=7,-1,a&t=,,&tier=mine",
        "#t=" + HOSTILE,
        "#%E0%A4%A",
        "#c=-1",
        "#c=1e9",
    ],
)
def test_a_broken_link_shows_the_usual_view(open_page: OpenPage, fragment: str) -> None:
    page = open_page(published(), fragment)
    assert shapes(page) == 14
    assert page.input_value("[name=y]") == "tput:total"


@pytest.mark.parametrize(
    ("fragment", "told"),
    [
        ("#c=9999", "comparison “9999”"),
        ("#y=foo", "vertical metric “foo”"),
        ("#x=bar&scale=cubic", "horizontal metric “bar”; scale “cubic”"),
        ("#tier=toString", "price “toString”"),
        ("#p=3", "point “3”"),
        ("#t=" + ",".join(str(i) for i in range(1, 14)), "more than 12 targets"),
    ],
)
def test_what_a_link_gets_wrong_is_said_until_it_is_dismissed(
    open_page: OpenPage, fragment: str, told: str
) -> None:
    page = open_page(published(), fragment)
    assert told in page.locator("#note").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("[name=dismiss-note]")
    assert page.locator("#note").inner_text() == ""
    page.evaluate("location.hash = 'y=nothing'")
    page.wait_for_function("document.querySelector('#note').textContent.includes('nothing')")
    page.evaluate("location.hash = 'y=gain'")
    page.wait_for_function("!document.querySelector('#note').textContent")
    assert open_page(published(), "#t=30&y=gain").locator("#note").inner_text() == ""


def test_a_link_followed_within_the_page(open_page: OpenPage) -> None:
    page = open_page(published())
    page.evaluate("location.hash = 't=30&y=j'")
    page.wait_for_function("document.querySelector('[name=target-0]').value === '30'")
    assert page.input_value("[name=y]") == "j"


def test_log_scales_and_only_the_front(open_page: OpenPage) -> None:
    points = [
        *recorded(),
        *make_points(
            "off",
            (9.0, 50.0),
            engine="vllm",
            isl=8192,
            osl=1024,
            topology="1xTP8",
            gpus=8,
            version="1.3",
            image="img:1",
            acceptance_mode="off",
            concurrency=99,
        ),
    ]
    page = open_page(compared(points))
    assert shapes(page) == 7
    assert page.locator(".live svg.chart .point.below").count() == 1
    page.check("[name=front]")
    assert shapes(page) == 6
    before = page.locator(".live svg.chart .curve").first.get_attribute("d")
    page.select_option("[name=scale]", "logy")
    assert page.locator(".live svg.chart .curve").first.get_attribute("d") != before


def test_labels_never_lie_on_each_other(open_page: OpenPage) -> None:
    page = open_page(published(), "#labels=1")
    boxes = page.locator(".live text.load").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect()).map((b) => [b.left, b.top, b.right, b.bottom])"
    )
    assert len(boxes) >= 12
    overlapping = [
        (a, b)
        for i, a in enumerate(boxes)
        for b in boxes[i + 1 :]
        if a[0] < b[2] - 1 and b[0] < a[2] - 1 and a[1] < b[3] - 4 and b[1] < a[3] - 4
    ]
    assert overlapping == []


def test_no_arm_chosen_is_no_accident(open_page: OpenPage) -> None:
    page = open_page(published())
    page.uncheck("[name=arm-0]")
    page.uncheck("[name=arm-1]")
    assert "nothing to show" in page.locator(".live svg.chart").text_content()
    page.check("[name=arm-1]")
    assert shapes(page) == 7


def test_several_comparisons_are_chosen_by_what_differs(open_page: OpenPage) -> None:
    points = [
        p
        for isl in (1024, 8192)
        for engine in ("vllm", "sglang")
        for p in recorded(isl=isl, engine=engine, hardware="b200")
    ]
    page = open_page(compared(points))
    assert page.locator("[name=comparison] option").count() == 4
    page.select_option("#picker [name=sequence]", "8192/1024")
    assert page.locator("[name=comparison] option").count() == 2
    page.select_option("#picker [name=engine]", "sglang")
    assert page.locator("[name=comparison] option").count() == 1
    shown = page.locator("section:not([hidden]) h2").inner_text()
    assert "ISL 8192" in shown
    assert "sglang" in shown
    assert "c=3" in address(page)


def apart_and_rich() -> list[CurvePoint]:
    """A pair without a shared range comes first, then one of three knots on either side."""
    return [
        *make_points("off", (30.0, 100.0), (200.0, 50.0), isl=1, osl=1),
        *make_points("mtp", (10.0, 120.0), (20.0, 60.0), isl=1, osl=1),
        *recorded(hardware="b200"),
    ]


def test_the_page_opens_on_the_richest_and_the_overview_leads_to_all(open_page: OpenPage) -> None:
    page = open_page(compared(apart_and_rich()))
    assert page.locator("section:not([hidden])").get_attribute("data-index") == "1"
    assert address(page) == ""
    page.click(".overview summary")
    assert "no shared range" in page.locator(".overview tbody tr").first.inner_text()
    page.click(".overview tbody tr:first-child a")
    assert page.locator("section:not([hidden])").get_attribute("data-index") == "0"
    assert address(page) == "#c=0"
    assert page.locator("section:not([hidden]) h2").evaluate("e => e === document.activeElement")
    assert page.locator(".overview a[aria-current]").count() == 1
    other = open_page(compared(apart_and_rich()), "#c=0")
    assert other.locator("section:not([hidden])").get_attribute("data-index") == "0"
