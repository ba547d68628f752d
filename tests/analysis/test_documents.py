"""Sentences, tables, exports and the page: what a reader is told."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from curve_points import INFERENCEX, glm5, make_points, point_set
from mtpbench_analysis.chart.axes import nice_steps
from mtpbench_analysis.cli import render_results
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.comparisons import Filter, Question, compare_points
from mtpbench_analysis.curves.curve import Grouping
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.numbers import dollars, fixed, money, rate
from mtpbench_analysis.render.csv_json_parquet import SCHEMA_VERSION, to_csv, to_json
from mtpbench_analysis.render.markup import to_markdown
from mtpbench_analysis.render.terminal import to_terminal
from mtpbench_analysis.report import compare_folder, write_report
from mtpbench_analysis.report.page import render_page
from mtpbench_analysis.sentences import write_caveats, write_overview, write_sentences
from stored_sweep import write_sweep


def example() -> Comparison:
    question = Question(targets_tps=(12, 40, 60), constants="2026-05")
    (comparison,) = compare_points(glm5(), question, Filter(hardware="b200")).comparisons
    return comparison


INTERVALS = ("(1,898–1,987)", "(1,197–1,309)", "(846–958)", "(1,606–1,712)", "(482–560)")
"""Of the shape between points, and of starts: single runs tell nothing of runs."""


def sides(*points: CurvePoint, targets: tuple[float, ...]) -> Comparison:
    (comparison,) = compare_points(point_set(*points), Question(targets_tps=targets)).comparisons
    return comparison


def gb200_rows() -> Comparison:
    kept = Filter(hardware="gb200", precision="fp4", isl=8192, osl=1024, engine="dynamo-trt")
    pooled = Question(grouping=Grouping(pool=("image",)))
    (comparison,) = compare_points(read_source(INFERENCEX), pooled, kept).comparisons
    return comparison


def test_the_published_example_word_for_word() -> None:
    sentence, caveat = write_sentences(example())[1], write_caveats(example())[0]
    assert f"{sentence} {caveat}" == (
        "At 40 tok/s/user MTP serves 1,260 tok/s/GPU and Off 521: 2.42 (2.22–2.63) times the throughput, "
        "58.6% lower cost per token ($0.43 against $1.04 per million). Both values lie between measured "
        "points; each point is a single run. Acceptance was not recorded, so part of the gain may be the "
        "benchmark's prompts."
    )


def test_the_published_example_table() -> None:
    rows = write_document(example()).table("matched").rows[:3]
    assert [row[:2] for row in rows] == [("tok/s/GPU", "MTP"), ("", "Off"), ("", "MTP / Off")]
    mtp, off, ratio = ([cell.replace("\n", " ") for cell in row[2:]] for row in rows)
    assert mtp == [
        f"1,946 {INTERVALS[0]} interpolated, knots 11.9 and 13.8",
        f"1,260 {INTERVALS[1]} interpolated, knots 38.2 and 56.9",
        f"903 {INTERVALS[2]} interpolated, knots 56.9 and 77.8",
    ]
    assert off == [
        f"1,661 {INTERVALS[3]} interpolated, knots 11.9 and 18.4",
        f"521 {INTERVALS[4]} interpolated, knots 36.7 and 46.1",
        "not reached: ends at 54.3",
    ]
    assert ratio == ["1.17× (1.13–1.22), 14.7% lower cost", "2.42× (2.22–2.63), 58.6% lower cost", "–"]


def test_what_is_not_reached_has_no_ratio_and_says_where_it_ends() -> None:
    assert write_sentences(example())[2] == (
        "At 60 tok/s/user MTP serves 903 tok/s/GPU; Off does not reach it (Off ends at 54.3), so there is no "
        "ratio. The MTP value lies between measured points; each point is a single run."
    )


def test_every_other_sentence() -> None:
    comparison = sides(
        *make_points("off", (10.0, 1000.0), (50.0, 100.0)),
        *make_points("mtp", (20.0, 900.0), (40.0, 800.0)),
        targets=(5.0, 15.0, 20.0, 60.0),
    )
    below, wide, knot, neither = write_sentences(comparison)
    assert below.startswith(
        "At 5 tok/s/user MTP serves at least 900 tok/s/GPU and Off at least 1,000: 0.90 times the "
        "throughput, 11.1% higher cost per token ($"
    )
    assert "best measured point against best measured point. The best MTP point does better" in below
    assert "no ratio, because the Off value lies between two points 10.0 times apart in throughput" in wide
    assert "The MTP value was measured at that speed. The Off value lies between measured points 10.0" in knot
    assert neither == "Neither MTP nor Off reaches 60 tok/s/user: MTP ends at 40, Off ends at 50."


def test_a_tie_has_no_winner_in_any_output() -> None:
    line = ((20.0, 1000.0), (40.0, 500.0))
    comparison = sides(*make_points("off", *line), *make_points("mtp", *line), targets=(30.0,))
    document = write_document(comparison)
    winners = [row[1] for row in document.table("leads").rows]
    assert winners == ["Off and MTP are equal, of what was measured", "Off and MTP are equal"]
    at_30, tie = document.items("words")
    assert "30 tok/s/user MTP serves 750 tok/s/GPU and Off 750: equal, 1.00 (" in at_30
    assert tie.startswith("From 20 to 40 tok/s/user Off and MTP are equal")
    (exported,) = json.loads(to_json([comparison]))["comparisons"]
    assert [(lead["winner"], lead["equal"]) for lead in exported["leads"]] == [(None, ["Off", "MTP"])] * 2
    assert "From 20 to 40 tok/s/user Off and MTP are equal" in render_page("t", [comparison])


def test_bounds_stay_bounds_in_words_and_in_the_table() -> None:
    comparison = sides(
        *make_points("off", (10.0, 1000.0), (50.0, 400.0)),
        *make_points("mtp", (20.0, 1900.0)),
        targets=(15.0,),
    )
    assert (
        "at least 2.05 (1.88–2.46) times the throughput, at least 51.3% lower cost per token"
        in write_sentences(comparison)[0]
    )
    assert (
        "≥ 2.05× (1.88–2.46),\nat least 51.3% lower cost"
        in write_document(comparison).table("matched").rows[2]
    )


def test_repeats_are_said() -> None:
    points = [
        *make_points("off", (10.0, 1000.0), (50.0, 400.0)),
        *make_points("off", (10.0, 1000.0), (50.0, 400.0)),
        *make_points("mtp", (10.0, 1000.0), (50.0, 400.0)),
    ]
    comparison = sides(*points, targets=(30.0,))
    assert "each point is the mean of 1 to 2 runs" in write_sentences(comparison)[0]
    assert "times the throughput, the same cost per token" in write_sentences(comparison)[0]


def test_the_public_rows_that_never_meet_are_explained_in_a_sentence() -> None:
    comparison = gb200_rows()
    assert [row.cells[1].state for row in comparison.rows] == ["not_reached"] * 3
    (overview,) = write_overview(comparison)
    assert overview == (
        "MTP: 1 measured point, at 27.1 tok/s/user; Off: 4 measured points, from 54.2 to 151.2 tok/s/user. "
        "They share no interactivity, so no ratio at equal speed exists: MTP would need points above 27.1 "
        "tok/s/user, or Off points below 54.2. Their best points: MTP 14,952 tok/s/GPU at 27.1, Off 9,335 "
        "at 54.2."
    )


def test_recipes_of_two_topologies_stand_side_by_side_and_are_not_interpolated() -> None:
    rows = write_document(gb200_rows()).table("matched").rows
    assert rows[-1][2] == "conc. 1075, 32P+16D, 48 GPUs\nand conc. 102, 4P+24D, 28 GPUs"


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (fixed(54.25, 1), "54.3"),
        (fixed(0.5, 0), "1"),
        (rate(131.9), "131.9"),
        (rate(1260.4), "1,260"),
        (rate(None), "–"),
        (dollars(0.0648), "$0.065"),
        (money(0.42996), "$0.43"),
        (money(0.0648), "$0.065"),
    ],
)
def test_figures(shown: str, text: str) -> None:
    assert shown == text


# ------------------------------------------------------------------------------------------------- simulated


def test_simulated_stands_on_every_output(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    compared = compare_folder(directory)
    renderable, page = render_results(compared), write_report(compared).read_text("utf-8")
    markdown = (directory / "comparison.md").read_text("utf-8")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(renderable)
    terminal = console.export_text()
    for text in (terminal, markdown, page):
        assert "SIMULATED: MTP versus Off" in text
        assert "SIMULATED: these figures come from a model" in text
        assert text.count("(SIMULATED)") >= 3
    outcome = compare_points(read_source(directory), Question())
    document = write_document(outcome.comparisons[0])
    assert all("(SIMULATED)" in document.heading_of(table) for table in document.tables)
    assert all(
        line["simulated"] == "True" for line in csv.DictReader(io.StringIO(to_csv(outcome.comparisons)))
    )
    assert json.loads(to_json(outcome.comparisons))["simulated"] is True


def test_simulated_stands_nowhere_on_measured_points() -> None:
    document = write_document(example())
    assert "SIMULATED" not in to_markdown([document]) + render_page("t", [example()])


# ---------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("comparison", [example(), gb200_rows()], ids=["glm5", "gb200"])
def test_terminal_tables_fit_a_hundred_columns(comparison: Comparison) -> None:
    narrow = Console(width=100, record=True, file=io.StringIO())
    narrow.print(to_terminal([write_document(comparison)]))
    text = narrow.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text


def test_markdown_has_a_row_for_everything_and_equal_columns() -> None:
    markdown = to_markdown([write_document(example())])
    assert f"| tok/s/GPU | MTP | 1,946 {INTERVALS[0]} interpolated, knots 11.9 and 13.8 |" in markdown
    tables = re.findall(r"(?:^\|.*\n?)+", markdown, re.MULTILINE)
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table.strip().splitlines()}) == 1


def test_a_users_text_breaks_neither_markdown_nor_page() -> None:
    evil = "mtp|<script>alert(1)</script>"
    comparison = sides(*make_points("off", (10.0, 100.0)), *make_points(evil, (10.0, 100.0)), targets=(10.0,))
    markdown = to_markdown([write_document(comparison)])
    assert "<script" not in markdown.replace("\\<script", "")
    assert "<script>alert" not in render_page("<script>alert", [comparison], ["<script>alert"])


def test_the_csv_has_a_line_per_target_and_curve() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv([example()]))))
    assert [(line["target_tps"], line["curve"], line["state"]) for line in lines] == [
        ("12", "Off", "interpolated"),
        ("12", "MTP", "interpolated"),
        ("40", "Off", "interpolated"),
        ("40", "MTP", "interpolated"),
        ("60", "Off", "not_reached"),
        ("60", "MTP", "interpolated"),
    ]
    assert float(lines[3]["tput_ratio"]) == pytest.approx(2.42, abs=0.005)
    assert (lines[4]["tput_tps_per_gpu"], lines[5]["tput_ratio"], lines[5]["no_ratio_because"]) == (
        "",
        "",
        "not reached",
    )
    assert (lines[3]["lower_concurrency"], lines[3]["upper_concurrency"]) == ("32", "16")
    assert lines[3]["constants_date"] == "2026-05"


def test_the_json_holds_every_point_and_every_cell() -> None:
    data = json.loads(to_json([example()]))
    assert data["schema_version"] == SCHEMA_VERSION
    (comparison,) = data["comparisons"]
    assert [len(curve["points"]) for curve in comparison["curves"]] == [7, 7]
    off, mtp = comparison["targets"][1]["cells"]
    assert [knot["recipe"] for knot in mtp["knots"]] == ["concurrency 32, 8 GPUs", "concurrency 16, 8 GPUs"]
    assert off["usd_per_mtok"] == pytest.approx(1.039, abs=5e-4)
    assert comparison["targets"][2]["ratios"][0]["tput_ratio"] is None


def test_a_published_row_stands_beside_ones_own_with_its_residual(tmp_path: Path) -> None:
    (comparison,) = compare_points(read_source(write_sweep(tmp_path)), Question()).comparisons
    table = write_document(comparison).table("reference")
    off = next(row for row in table.rows if row[0] == "Off")
    assert off == ("Off", "60", "1,000", "800\nmeasured", "-20.0%")


def test_a_sweeps_own_constants_baseline_and_confounds_are_used(tmp_path: Path) -> None:
    (comparison,) = compare_points(
        read_source(write_sweep(tmp_path, targets_tps=(45.0,))), Question()
    ).comparisons
    assert [row.target_tps for row in comparison.rows] == [45]
    assert comparison.settings.economics is not None
    assert comparison.settings.economics.hardware.constants_date == "2026-05"
    assert comparison.known_confounds() == ("MTP forces max_num_tokens",)
    (newer,) = compare_points(read_source(tmp_path / "small"), Question(constants="2026-07")).comparisons
    assert newer.settings.economics is not None
    assert newer.settings.economics.hardware.power_kw_per_gpu == 1.87


def test_invalid_and_missing_points_are_told(tmp_path: Path) -> None:
    markdown = (
        write_report(compare_folder(write_sweep(tmp_path))).with_name("comparison.md").read_text("utf-8")
    )
    assert "client_saturated: event loop 0.4 s late" in markdown
    assert "server_died: exit code 1" in markdown
    assert "planned, not measured yet" in markdown
    assert re.search(r"^\| MTP \| 128 .* NO \|$", markdown, re.MULTILINE)


# ------------------------------------------------------------------------------------------------------- page


class Links(HTMLParser):
    """Collects what a page would load, and checks that its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone(tmp_path: Path) -> None:
    """It loads nothing and closes what it opens; tests/browser looks at its script."""
    page = write_report(compare_folder(write_sweep(tmp_path))).read_text("utf-8")
    parser = Links()
    parser.feed(page)
    assert (parser.open, parser.loads) == ([], [])
    assert "http" not in page.replace("http-equiv", "")
    drawn = page[page.index('<div class="static">') : page.index('<div class="legend">')]
    assert drawn.count('class="shape') == 6


def test_the_report_writes_every_format(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    assert write_report(compare_folder(directory)) == directory / "report.html"
    names = {"comparison.md", "comparison.csv", "comparison.json", "points.csv", "report.html"}
    assert names <= {path.name for path in directory.iterdir()}
    assert not list(directory.glob(".*.new"))
    again = compare_points(read_source(directory / "points.csv"), Question(constants="2026-05"))
    assert write_sentences(again.comparisons[0]) == write_sentences(
        compare_points(read_source(directory), Question()).comparisons[0]
    )


@pytest.mark.parametrize(("highest", "last"), [(100.85, 120), (1947.3, 2000), (0.9, 1.0), (14951.9, 15000)])
def test_axes_end_at_round_numbers(highest: float, last: float) -> None:
    steps = nice_steps(highest)
    assert steps[-1] == pytest.approx(last)
    assert steps[0] == 0
