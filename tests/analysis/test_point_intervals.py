"""Intervals beside the recorded figures of points: in the tables of terminal, Markdown and exports."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from curve_points import make_points, point_set
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.comparisons import Question, compare_points
from mtpbench_analysis.document import Table
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.importers.points_csv import read_points, write_points
from mtpbench_analysis.metric_table import METRICS, metric
from mtpbench_analysis.render.csv_json_parquet import to_csv, to_json
from mtpbench_analysis.render.markup import to_markdown
from mtpbench_analysis.render.terminal import to_terminal

KNOWN: dict[str, Any] = {
    "ttft_p50_s": 0.52,
    "ttft_p50_low_s": 0.49,
    "ttft_p50_high_s": 0.57,
    "ttft_p99_s": 0.9,
    "ttft_p99_low_s": 0.8,
    "interactivity_p99_tps": 8.0,
    "interactivity_p99_high_tps": 9.0,
    "acceptance_length": 2.5,
    "acceptance_rel_se": 0.01,
    "power_w_per_gpu": 900.0,
    "power_rel_se": 0.0,
    "joules_per_token_rel_se": 0.02,
    "se_df": 9,
}


def compared(**known: Any) -> Comparison:
    points = [
        *make_points("off", (10.0, 100.0), (20.0, 50.0), **known),
        *make_points("mtp", (10.0, 200.0), (20.0, 90.0), **known),
    ]
    return compare_points(point_set(*points), Question(targets_tps=(15,))).comparisons[0]


def column(table: Table, name: str) -> set[str]:
    return {row[table.headers.index(name)] for row in table.rows}


def test_recorded_figures_stand_with_their_intervals_and_bounds_with_their_sign() -> None:
    document = write_document(compared(**KNOWN))
    points = document.table("points")
    assert column(points, "TTFT s") == {"0.520 (0.490–0.570)"}
    assert column(points, "AL") == {"2.50 (2.44–2.56)"}
    assert "9.00 (8.60–9.42)" in column(points, "J/token")
    bounds = "≥, ≤: bounds, of too few requests for p99."
    for table in (points, document.table("matched"), document.table("metrics")):
        assert "Beside latencies (order statistics)" in table.caption
        assert table.caption.endswith(bounds) is (table.id == "metrics"), "where one is shown"
    rows = {(row[0], row[1]): row[2] for row in document.table("metrics").rows if row[0]}
    assert rows["TTFT s, p99", "MTP"] == "≥ 0.800"
    assert rows["tok/s/user, p99", "MTP"] == "≤ 9"


def test_knots_of_unlike_intervals_have_a_line_each() -> None:
    points = [
        replace(point, ttft_p50_s=ttft, ttft_p50_low_s=ttft - 0.1, ttft_p50_high_s=ttft + 0.1)
        for point, ttft in zip(make_points("off", (10.0, 100.0), (20.0, 50.0)), (0.4, 0.9), strict=True)
    ]
    other = make_points("mtp", (10.0, 200.0), (20.0, 90.0), ttft_p50_s=0.3)
    (comparison,) = compare_points(point_set(*points, *other), Question(targets_tps=(15,))).comparisons
    table = write_document(comparison).table("matched")
    start = [row[0] for row in table.rows].index("median TTFT at the knots, s")
    rows = {row[1]: row[2] for row in table.rows[start : start + 2]}
    assert rows["Off"] == "0.400 (0.300–0.500)\nand 0.900 (0.800–1.000)"
    assert rows["MTP"] == "0.300"


def test_what_has_no_interval_reads_as_before() -> None:
    bare = {
        name: value
        for name, value in KNOWN.items()
        if not name.endswith(("_rel_se", "low_s", "high_s", "high_tps"))
    }
    document = write_document(compared(**bare))
    assert column(document.table("points"), "TTFT s") == {"0.520"}
    assert column(document.table("points"), "AL") == {"2.50"}
    assert "Beside latencies" not in document.table("points").caption + document.table("matched").caption


def test_rates_have_their_intervals_at_targets_alone() -> None:
    (point,) = make_points("off", (10.0, 100.0), tput_rel_se=0.01, interactivity_rel_se=0.01, se_df=9)
    assert {one.id for one in METRICS if one.ends_of(point) is not None} == set()


def test_terminal_and_markdown_show_the_same_cells() -> None:
    document = write_document(compared(**KNOWN))
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(to_terminal([document], full=True))
    markdown, terminal = to_markdown([document]), console.export_text()
    for text in ("0.520 (0.490–0.570)", "2.50 (2.44–2.56)", "≥ 0.800", "≤ 9"):
        assert text in markdown
        assert text in terminal


def test_exports_hold_ends_and_errors_as_numbers() -> None:
    comparison = compared(**KNOWN)
    line = next(csv.DictReader(io.StringIO(to_csv([comparison]))))
    assert (line["lower_ttft_p50_low_s"], line["upper_ttft_p50_high_s"]) == ("0.49", "0.57")
    assert (line["lower_acceptance_rel_se"], line["lower_power_rel_se"]) == ("0.01", "0.0")
    data = json.loads(to_json([comparison]))
    (knot, _) = data["comparisons"][0]["targets"][0]["cells"][0]["knots"]
    assert (knot["ttft_p50_low_s"], knot["e2el_p50_low_s"]) == (0.49, None)
    mean = data["comparisons"][0]["curves"][0]["points"][0]["mean"]
    assert (mean["ttft_p99_low_s"], mean["ttft_p99_high_s"]) == (0.8, None)


def test_points_with_intervals_come_back_from_a_csv(tmp_path: Any) -> None:
    (point,) = make_points("off", (10.0, 100.0), source="s", **KNOWN)
    path = tmp_path / "points.csv"
    path.write_text(write_points([point]), "utf-8")
    assert read_points(path).points == (point,)


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ({"ttft_p99_s": 0.9}, "0.900"),
        ({"ttft_p99_s": 0.9, "ttft_p99_low_s": 0.9, "ttft_p99_high_s": 0.9}, "0.900 (0.900–0.900)"),
        ({"ttft_p99_s": 0.9, "ttft_p99_high_s": 1.0}, "≤ 1.000"),
        ({"ttft_p99_low_s": None}, "–"),
    ],
)
def test_a_percentile_as_a_reader_sees_it(known: dict[str, Any], text: str) -> None:
    point = CurvePoint(arm="off", interactivity_tps=1.0, tput_tps_per_gpu=1.0, **known)
    assert metric("ttft_p99_s").text_of(point) == text
