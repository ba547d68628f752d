"""A point's own panel, acceptance and power over the sweep, as a reader reaches and reads them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from browser.conftest import OpenPage
from browser.pages import HOSTILE, address, compared, published, recorded
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.comparisons import Question, compare_if_possible, compare_points
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.report.overview import LonePoints
from mtpbench_analysis.report.page import read_part
from mtpbench_analysis.traces import SweepTrace, read_traces
from traced_sweep import write_traced

COPIED = "[...document.querySelectorAll('.process [role=status]')].some((one) => one.textContent)"
"""The browser's clipboard answers when it likes."""


def traced(tmp_path: Path, **changes: Any) -> tuple[list[Comparison], tuple[SweepTrace, ...]]:
    directory = write_traced(tmp_path, **changes)
    outcome = compare_points(read_source(directory), Question())
    return list(outcome.comparisons), read_traces([directory])


def open_traced(open_page: OpenPage, tmp_path: Path, fragment: str = "", **context: Any) -> Page:
    comparisons, traces = traced(tmp_path)
    return open_page(comparisons, fragment, traces=traces, **context)


def test_the_panel_tells_the_quantiles_of_the_result(open_page: OpenPage, tmp_path: Path) -> None:
    comparisons, traces = traced(tmp_path)
    page = open_page(comparisons, traces=traces)
    for number, trace in enumerate(traces[0].points):
        page.select_option("[name=closer]", str(number))
        body = page.locator(".closer table").first.locator("tbody tr")
        for row, told, factor in ((0, trace.stored.result.ttft_s, 1), (1, trace.stored.result.tpot_s, 1e3)):
            assert told is not None
            figures = [float(text.replace(",", "")) for text in body.nth(row).locator("td").all_inner_texts()]
            assert figures[0] == told.count
            expected = [factor * v for v in (told.min, told.p10, told.p50, told.p90, told.p99, told.max)]
            assert figures[1:] == pytest.approx(expected, rel=1e-4)
    label = page.locator(".closer svg.plot").first.get_attribute("aria-label") or ""
    assert label.startswith(f"TTFT of {traces[0].points[-1].stored.result.ttft_s.count} requests: p50 ")  # type: ignore[union-attr]
    assert "NaN" not in page.locator(".live").inner_html()


def test_the_curve_passes_through_the_marks(open_page: OpenPage, tmp_path: Path) -> None:
    """Read off the drawing: the places of p50 and p90 are where Python's quantiles lie."""
    comparisons, traces = traced(tmp_path)
    page = open_page(comparisons, "#p=2", traces=traces)
    told = traces[0].points[2].stored.result.ttft_s
    assert told is not None
    dots = page.locator(".closer svg.plot").first.locator(".dot")
    places = dots.evaluate_all("all => all.map(one => one.transform.baseVal.getItem(0).matrix.e)")
    assert (places[1] - places[0]) / (places[2] - places[0]) == pytest.approx(
        (told.p90 - told.p50) / (told.p99 - told.p50), abs=0.01
    )
    path = page.locator(".closer svg.plot .line").first.get_attribute("d") or ""
    heights = [float(pair.split(",")[1]) for pair in path[1:].split("L")]
    assert heights == sorted(heights, reverse=True)


def test_a_click_or_enter_opens_a_point_and_escape_leads_back(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_traced(open_page, tmp_path)
    assert not page.locator("[name=close-closer]").is_visible()
    page.locator(".live svg.chart .point.c1").first.click()
    first = page.locator(".closer .name").inner_text()
    assert first.startswith("MTP, concurrency ")
    page.click("[name=close-closer]")
    assert address(page) == ""
    page.focus("[name=arm-1]")
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "closer-heading"
    assert page.locator(".closer .part").count() == 7
    assert address(page).startswith("#p=")
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.name || document.activeElement.localName"))
    assert reached[:2] == ["closer", "close-closer"]
    assert reached.count("summary") >= 2
    page.focus(".closer .place summary")
    page.keyboard.press("Escape")
    assert page.locator(".closer .part").count() == 0
    assert page.evaluate("document.activeElement.classList.contains('point')")


def test_a_link_opens_the_same_point(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_traced(open_page, tmp_path, "#p=4")
    assert page.input_value("[name=closer]") == "4"
    page.evaluate("location.hash = 'p=1'")
    page.wait_for_function("document.querySelector('[name=closer]').value === '1'")
    for broken in ("p=99", "p=-1", "p=x", "p=1e3"):
        page.evaluate(f"location.hash = '{broken}'")
        page.wait_for_function("document.querySelector('[name=closer]').value === ''")


def test_a_command_line_is_copied_whole(open_page: OpenPage, tmp_path: Path) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    page = open_traced(open_page, tmp_path, "#p=0", permissions=permissions)
    page.click(".commands summary")
    page.click("[aria-label='copy the command line of worker']")
    page.wait_for_function(COPIED)
    said = page.locator(".process [role=status]").first
    assert said.inner_text() in ("copied", "selected: press Ctrl+C to copy")
    if said.inner_text() != "copied":
        page.keyboard.press("Control+c")
    page.focus("[name=target-0]")
    page.fill("[name=target-0]", "")
    page.keyboard.press("Control+v")
    line = page.locator("pre.command").first.inner_text()
    assert line == """vllm serve 'a model' --flag 'it'"'"'s' '{"a": "<b>"}'"""
    assert page.input_value("[name=target-0]") == line


def test_without_a_clipboard_the_line_is_selected(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_traced(open_page, tmp_path, "#p=0")
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    page.click(".commands summary")
    page.click("[aria-label='copy the command line of router']")
    page.wait_for_function(COPIED)
    assert "Ctrl+C" in page.locator(".process [role=status]").nth(1).inner_text()
    assert page.evaluate("getSelection().toString()") == "route --port 1"


def test_hostile_traces_are_text(open_page: OpenPage, tmp_path: Path) -> None:
    """The fixture fails on a dialog, a request or a complaint."""
    hostile = {"commands": {HOSTILE: ("serve", HOSTILE)}, "environment": {"X": HOSTILE}, "failing": HOSTILE}
    comparisons, traces = traced(tmp_path, **hostile)
    page = open_page(comparisons, "#p=6", traces=traces)
    assert "INVALID" in page.locator(".closer .name").inner_text()
    for summary in page.locator(".closer summary").all():
        summary.click()
    text = page.locator(".closer").inner_text()
    assert f"the first was told: {HOSTILE}" in text
    assert f"X={HOSTILE}" in text
    assert HOSTILE in page.locator("pre.command").first.inner_text().replace("'\"'\"'", "'")
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2


def test_power_and_acceptance_stand_beside_their_tables(open_page: OpenPage, tmp_path: Path) -> None:
    comparisons, traces = traced(tmp_path)
    page = open_page(comparisons, "#p=4", traces=traces)
    assert "80.0%" in page.locator(".closer .part", has_text="Acceptance by position").inner_text()
    power = page.locator(".closer .part", has_text="Power over time")
    watts = traces[0].points[4].stored.result.energy.mean_power_w_per_gpu
    assert f"{watts:.0f} W per GPU" in power.inner_text()
    assert power.locator("svg .window").count() == 1
    assert page.locator(".sweep .power svg").count() == 2
    assert page.locator(".sweep .power svg").first.locator(".window").count() == 3
    page.click(".sweep .power details summary")
    cells = page.locator(".sweep .power tbody tr").nth(4).locator("td").all_inner_texts()
    assert cells[2] == f"{watts:.0f}"
    assert page.locator(".sweep .acceptance svg[role=img]").count() == 2
    page.click(".sweep .acceptance details summary")
    assert page.locator(".sweep .acceptance tbody tr").count() == 3
    assert "50.0%" in page.locator(".sweep .acceptance tbody tr").first.inner_text()


def test_what_is_not_recorded_is_said_or_absent(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(published())
    assert page.locator(".closer, .sweep details").count() == 0
    page.locator(".live svg.chart .point").first.click()
    page.keyboard.press("Enter")
    other = open_page(compared(recorded(hardware="gb200")))
    assert other.locator(".sweep details.acceptance").count() == 1
    assert other.locator(".sweep details.power").count() == 0
    comparisons, traces = traced(tmp_path)
    (sweep,) = traces
    bare = dataclasses.replace(
        sweep.points[0],
        requests=dataclasses.replace(
            sweep.points[0].requests, ttft_s=np.empty(0), tpot_s=np.empty(0), reason="lost"
        ),
        power=dataclasses.replace(
            sweep.points[0].power, times_s=np.empty(0), power_w=np.empty(0), reason="no_meter"
        ),
    )
    only = dataclasses.replace(sweep, points=(bare,))
    page = open_page(comparisons, "#p=0", traces=[only])
    text = page.locator(".closer").inner_text()
    assert "No curve: lost." in text
    assert "No curve: no_meter." in text
    assert "Speculation is off" in text
    page.locator(".live svg.chart .point.c1").first.click()
    assert "does not come from a results folder" in page.locator(".closer").inner_text()


def test_metered_and_provisioned_stand_side_by_side(open_page: OpenPage) -> None:
    page = open_page(compared(recorded(hardware="gb200")))
    names = [
        text
        for text in page.locator("table.matched tbody th.word:not(.who)").all_text_contents()
        if text.strip()
    ]
    assert names[names.index("tok/s/MW, provisioned") :][:4] == [
        "tok/s/MW, provisioned",
        "tok/s/MW, metered GPUs",
        "J/token, provisioned",
        "J/output token, metered GPUs",
    ]


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_the_panel_does_not_run_off_the_screen(open_page: OpenPage, tmp_path: Path, width: int) -> None:
    page = open_traced(open_page, tmp_path, "#p=4", viewport={"width": width, "height": 800})
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.wait_for_timeout(50)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.locator(".closer svg, .closer dl, .closer pre").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect().right)"
    )
    assert max(wide) <= width


def test_paper_shows_the_open_point_without_its_controls(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_traced(open_page, tmp_path, "#p=4")
    page.emulate_media(media="print")
    assert page.locator(".closer svg").first.is_visible()
    assert not page.locator("[name=closer]").is_visible()
    page.emulate_media(media="screen")
    page.click("[name=close-closer]")
    page.emulate_media(media="print")
    assert not page.locator(".closer").is_visible()


def test_a_page_without_a_comparison_looks_closer_all_the_same(open_page: OpenPage, tmp_path: Path) -> None:
    directory = write_traced(tmp_path, died="exit code 1")
    found = compare_if_possible(read_source(directory), Question())
    points = read_source(directory).points
    alone = LonePoints(why=str(found.why_none), points=points)
    page = open_page(
        [], "#p=9", traces=read_traces([directory]), alone=alone, viewport={"width": 375, "height": 800}
    )
    assert "point “9”" in page.locator("#note").inner_text()
    assert page.locator(".health[open]").count() == 1
    assert "No comparison: no valid point" in page.locator(".alone").inner_text()
    assert page.locator("[name=closer] optgroup").evaluate_all("all => all.map((one) => one.label)") == [
        "Off",
        "MTP",
    ]
    assert "no figures, invalid" in page.locator("[name=closer] option").last.inner_text()
    page.select_option("[name=closer]", "5")
    assert address(page) == "#p=5"
    assert "INVALID" in page.locator(".closer .name").inner_text()
    page.click(".commands summary")
    assert "vllm serve" in page.locator("pre.command").first.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.click("[name=close-closer]")
    assert address(page) == ""
    page.evaluate("location.hash = 'p=2'")
    page.wait_for_function("document.querySelector('[name=closer]').value === '2'")
    still = open_page([], traces=read_traces([directory]), alone=alone, java_script_enabled=False)
    assert "All points with figures" in still.locator("main").inner_text()


def test_marks_that_read_alike_get_more_digits_or_one_label(open_page: OpenPage) -> None:
    page = open_page(published())
    source = read_part("script/numbers.js") + read_part("script/plots.js")

    def texts(*values: float, count: int = 500) -> list[str]:
        marks = [["p50", values[0]], ["p90", values[1]], ["p99", values[2]]]
        found: list[str] = page.evaluate(
            f"([marks, count]) => {{ {source} return markTexts(marks, count); }}", [marks, count]
        )
        return found

    assert texts(0.1, 0.2, 0.3) == ["p50 0.1", "p90 0.2", "p99 0.3"]
    assert texts(4.0001, 4.0002, 5) == ["p50 4.0001", "p90 4.0002", "p99 5"]
    assert texts(12.341, 12.344, 12.349) == ["p50 12.341", "p90 12.344", "p99 12.349"]
    assert texts(4, 4, 5) == ["", "p50, p90 4", "p99 5"]
    assert texts(4, 4, 4, count=8) == ["", "", "p50, p90, p99 of 8 requests 4"]
    assert texts(1, 2, 3, count=99)[2] == "p99 of 99 requests 3"


def test_few_requests_behind_a_p99_are_counted_out(open_page: OpenPage, tmp_path: Path) -> None:
    comparisons, traces = traced(tmp_path)
    page = open_page(comparisons, "#p=0", traces=traces)
    told = traces[0].points[0].stored.result.ttft_s
    assert told is not None
    assert told.count < 100
    assert f"p99 of {told.count} requests" in (page.locator(".closer svg.plot").first.text_content() or "")
    assert f"The p99 of {told.count} requests" in page.locator(".closer .part").first.inner_text()
