"""Kinds of text × depths: from a stored sweep to the table, the page and JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtpbench.records import (
    DEMONSTRATION,
    AcceptancePolicy,
    Arm,
    CategoryFigures,
    Distribution,
    Interval,
    Point,
    PointResult,
    Speculation,
)
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.comparisons import Question, compare_points
from mtpbench_analysis.document import Caution, Table
from mtpbench_analysis.frame import columns
from mtpbench_analysis.importers.results import read_results
from mtpbench_analysis.render.csv_json_parquet import to_json
from mtpbench_analysis.report.page import render_page
from stored_sweep import OFF, store_point, store_result, write_plan

KINDS = ("coding", "math")
DEPTHS = {0: OFF} | {
    k: Arm(
        name=f"mtp-k{k}",
        speculation=Speculation(draft_tokens=k, acceptance=AcceptancePolicy(mode="measured")),
    )
    for k in (1, 3)
}
AL = {(1, "coding"): 1.9, (1, "math"): 1.7, (3, "coding"): 3.1, (3, "math"): 2.2}


def tpot(seconds: float, interval: bool = True) -> Distribution:
    ends = Interval(low=seconds * 0.8, high=seconds * 1.25, effective_count=9) if interval else None
    values = dict.fromkeys(("mean", "min", "p10", "p50", "p90", "p99", "max"), seconds)
    return Distribution(count=9, **values, p50_interval=ends)


def kind(depth: int, name: str | None, **changes: Any) -> CategoryFigures:
    length = AL.get((depth, str(name)))
    figures = CategoryFigures(
        category=name,
        requests=12,
        tpot_s=tpot(0.02 / (length or 1)),
        tokens_per_step=length or 1.0,
        steps_from="events",
        steps_gap=None,
        acceptance_length=length,
        acceptance_gap=None if length else "speculation_off",
    )
    return replace(figures, **changes)


def untold(one: CategoryFigures) -> CategoryFigures:
    return replace(one, acceptance_length=None, acceptance_gap=one.acceptance_gap or "not_told")


def stored(
    root: Path,
    figures: dict[int, tuple[CategoryFigures, ...]],
    *,
    repeats: int = 1,
    dataset: str = "/d.jsonl",
) -> Comparison:
    """A sweep of three depths at two loads, whose kinds of text have these figures at each."""
    plan: list[tuple[Point, PointResult | None]] = []
    for depth, arm in DEPTHS.items():
        for concurrency, speed in ((4, 90.0), (8, 60.0)):
            for repeat in range(repeats):
                point = store_point(arm, concurrency, repeat)
                workload = replace(point.workload, prompts="dataset", dataset_path=dataset)
                point = replace(point, workload=workload)
                result = store_result(point, speed * (1 + depth / 4), 50.0 * concurrency)
                mine = figures.get(depth, ())
                if repeat:
                    mine = tuple(replace(one, requests=36, tokens_per_step=1.0) for one in mine)
                plan.append((point, replace(result, by_category=mine)))
    arms = {"arms": tuple(arm.name for arm in DEPTHS.values())}
    points = read_results(write_plan(root, plan, arms))
    (comparison,) = compare_points(points, Question()).comparisons
    return comparison


def table_of(comparison: Comparison) -> Table:
    return write_document(comparison).table("categories")


def rows_of(table: Table) -> dict[tuple[str, str], tuple[str, ...]]:
    """The cells by section and kind of text."""
    found, section = {}, ""
    for label, name, *cells in table.rows:
        section = label or section
        found[section, name] = tuple(cells)
    return found


FULL = {depth: tuple(kind(depth, name) for name in KINDS) for depth in DEPTHS}


def test_each_kind_of_text_has_its_figures_by_depth_and_load(tmp_path: Path) -> None:
    table = table_of(stored(tmp_path, FULL))
    assert table.headers == ("", "kind of text", "Off", "MTP-k1: MTP k=1", "MTP-k3: MTP k=3")
    rows = rows_of(table)
    assert len(rows) == 3 * 2 * 2
    for load in ("conc. 4\n1xTP8", "conc. 8\n1xTP8"):
        assert rows[f"acceptance length\n{load}", "coding"] == ("off", "1.90, n 12", "3.10, n 12")
        assert rows[f"tokens per step\n{load}", "math"] == ("1.00, n 12", "1.70, n 12", "2.20, n 12")
        assert rows[f"tok/s/user (median)\n{load}", "math"] == (
            "50 (40–62.5), n 12",
            "85 (68–106.2), n 12",
            "110 (88–137.5), n 12",
        )
    assert "the fewest in a cell are 12" in table.caption
    assert len(table.short) == 6


def test_a_cell_without_a_figure_says_why(tmp_path: Path) -> None:
    figures = {
        **FULL,
        3: (
            kind(3, "coding", tokens_per_step=None, steps_from=None, steps_gap="events_gathered"),
            kind(
                3,
                "math",
                tpot_s=tpot(0.01, interval=False),
                acceptance_length=None,
                acceptance_gap="not_told",
            ),
            kind(3, None, requests=1, tpot_s=None, tokens_per_step=None, steps_gap="no_later_events"),
        ),
    }
    rows = {
        (label.split("\n")[0], name): cells
        for (label, name), cells in rows_of(table_of(stored(tmp_path, figures))).items()
    }
    cells = [
        rows["tokens per step", "coding"][2],
        rows["acceptance length", "math"][2],
        rows["tok/s/user (median)", "math"][2],
        rows["tok/s/user (median)", "(no kind named)"][2],
        rows["tokens per step", "(no kind named)"][0],
    ]
    assert cells == [
        "events hold several steps",
        "not told",
        "100 (too few), n 12",
        "no time per token",
        "no request",
    ]
    assert all(isinstance(cell, Caution) for cell in cells)


def test_what_no_engine_told_has_one_sentence_instead_of_rows(tmp_path: Path) -> None:
    figures = {depth: tuple(map(untold, kinds)) for depth, kinds in FULL.items()}
    table = table_of(stored(tmp_path, figures))
    assert not any("acceptance length" in label for label, *_ in table.rows)
    assert "No acceptance length: not told (docs/validity.md)." in table.caption


def test_runs_of_a_recipe_weigh_by_their_requests(tmp_path: Path) -> None:
    """12 requests at 3.1 tokens per step and 36 at 1: 1.525."""
    rows = rows_of(table_of(stored(tmp_path, FULL, repeats=2)))
    assert {
        cells[2] for (label, name), cells in rows.items() if "per step" in label and name == "coding"
    } == {"1.53, n 48"}


def test_a_sweep_without_kinds_of_text_has_no_such_table(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        table_of(stored(tmp_path, {}))


@pytest.mark.parametrize(("dataset", "said"), [(DEMONSTRATION, True), ("/demonstration", False)])
def test_tables_of_the_demonstration_set_say_that_it_is_no_benchmark(
    tmp_path: Path, dataset: str, said: bool
) -> None:
    comparison = stored(tmp_path, FULL, dataset=dataset)
    assert ("no benchmark" in table_of(comparison).caption) == said
    assert any("no benchmark" in item for item in write_document(comparison).items("caveats")) == said


def test_the_page_and_json_hold_the_figures_and_a_points_csv_does_not(tmp_path: Path) -> None:
    comparison = stored(tmp_path, FULL)
    page = render_page("t", [comparison])
    assert "By kind of text" in page
    assert "3.10, n 12" in page
    (data,) = json.loads(to_json([comparison]))["comparisons"]
    row = next(
        r for r in data["categories"] if r["figure"] == "acceptance_length" and r["category"] == "math"
    )
    assert [cell["value"] for cell in row["cells"]] == [None, 1.7, 2.2]
    assert row["cells"][0]["gap"] == "speculation_off"
    assert "by_category" not in columns()
