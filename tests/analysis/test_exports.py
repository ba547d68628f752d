"""Exports say what the tables say, with types, and what is unknown is empty and not zero."""

from __future__ import annotations

import io
import json
import re

import pyarrow.parquet as pq
import pytest

from curve_points import glm5, make_points, point_set
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.comparisons import Filter, Question, compare_points
from mtpbench_analysis.pairing import ComparisonOutcome
from mtpbench_analysis.render.csv_json_parquet import to_csv, to_json, to_parquet
from mtpbench_analysis.render.markup import escape_latex, to_latex

OFF = ((10.0, 1000.0), (50.0, 400.0))
MTP = ((12.0, 900.0), (60.0, 500.0))


def example() -> ComparisonOutcome:
    question = Question(targets_tps=(12, 40, 60), constants="2026-05")
    return compare_points(glm5(), question, Filter(hardware="b200"))


def noisy() -> ComparisonOutcome:
    known = {"tput_rel_se": 0.01, "interactivity_rel_se": 0.01, "se_df": 9, "output_tps_per_gpu": 100.0}
    points = [*make_points("off", *OFF, **known), *make_points("mtp", *MTP, **known)]
    return compare_points(point_set(*points), Question(targets_tps=(30,)))


def test_parquet_holds_the_lines_of_the_csv_with_their_types() -> None:
    outcome = example()
    table = pq.read_table(io.BytesIO(to_parquet(outcome.comparisons)))
    header = to_csv(outcome.comparisons).splitlines()[0].split(",")
    assert table.column_names == header
    rows = table.to_pylist()
    assert [row["target_tps"] for row in rows] == [12, 12, 40, 40, 60, 60]
    last = next(row for row in rows if row["target_tps"] == 60 and row["arm"] == "off")
    assert last["tput_tps_per_gpu"] is None
    assert last["state"] == "not_reached"


def test_json_carries_the_interval_of_a_crossing() -> None:
    known = {"tput_rel_se": 0.01, "interactivity_rel_se": 0.01, "se_df": 19}
    off = make_points("off", *((x, 1200 - 20 * x) for x in (10.0, 16.0, 22.0, 28.0, 36.0, 45.0)), **known)
    mtp = make_points("mtp", *((x, 850 - 6 * x) for x in (10.0, 16.0, 22.0, 28.0, 36.0, 45.0)), **known)
    outcome = compare_points(point_set(*off, *mtp), Question(targets_tps=(30,)))
    (crossing,) = json.loads(to_json(outcome.comparisons))["comparisons"][0]["crossings"]["MTP"]
    assert crossing["wins_above"] is True
    assert crossing["interval"]["low"] < crossing["interactivity_tps"] < crossing["interval"]["high"]


def test_json_carries_intervals_envelopes_crossings_and_leads() -> None:
    data = json.loads(to_json(noisy().comparisons))
    assert data["schema_version"] == 2
    (comparison,) = data["comparisons"]
    cell = comparison["targets"][0]["cells"][1]
    assert cell["interval"]["low"] < cell["tput_tps_per_gpu"] < cell["interval"]["high"]
    assert cell["interval_basis"] == "blocks"
    assert cell["interval_holds"] == ["assumed_starts", "blocks", "shape"]
    assert cell["usd_per_m_by_tier"]["rental_3y"]["output"] > cell["usd_per_m_by_tier"]["rental_3y"]["total"]
    assert set(cell["usd_per_m_by_tier"]["neocloud"].values()) == {None}
    assert "removed this tier" in comparison["economics"]["hardware"]["caveats"]["neocloud"]
    (ratio,) = comparison["targets"][0]["ratios"]
    assert ratio["interval"]["low"] < ratio["tput_ratio"] < ratio["interval"]["high"]
    assert ratio["envelope"] == pytest.approx([500 / 1000, 900 / 400])
    (crossing,) = comparison["crossings"]["MTP"]
    assert crossing["interval"] is None
    assert "of the draws do not cross" in crossing["no_interval_because"]
    leads = [(lead["winner"], lead["bound"]) for lead in comparison["leads"] if lead["settled"]]
    assert leads == [("Off", "exact"), ("MTP", "exact"), ("MTP", None)]
    assert comparison["confidence"] == 0.95


def test_output_and_input_rates_come_from_the_knots_shares() -> None:
    (comparison,) = noisy().comparisons
    cell = comparison.rows[0].cells[0]
    share = 100 / 1000 + (100 / 400 - 100 / 1000) / 2
    assert cell.output_share == pytest.approx(share)
    assert cell.output_tps_per_gpu == pytest.approx(share * cell.tput_tps_per_gpu)
    assert cell.output_tps_per_gpu + cell.input_tps_per_gpu == pytest.approx(cell.tput_tps_per_gpu)


def test_unknown_output_rates_stay_unknown() -> None:
    (comparison,) = example().comparisons
    cell = comparison.rows[0].cells[0]
    assert (cell.output_tps_per_gpu, cell.usd_per_m("output")) == (None, None)


def test_latex_keeps_the_reservations_in_the_caption_and_escapes_what_latex_reads() -> None:
    outcome = example()
    text = to_latex([write_document(c) for c in outcome.comparisons], ["a_b: 50% & more"])
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1
    assert r"B200 at \$1.95 per GPU-hour (hyperscaler; survey of 2025-08)" in text
    assert r"Acceptance was not recorded" in text
    assert re.search(r"2\.42\$\\times\$ \(2\.\d\d--2\.\d\d\), 58\.6\\% lower cost", text)
    assert "% Not used: a_b: 50% & more" in text
    body = [line for line in text.splitlines() if " & " in line and not line.startswith("%")]
    assert {line.count(" & ") for line in body} == {4}


def test_latex_escapes_every_character_that_it_would_read() -> None:
    assert escape_latex("a\\b_{c}^~#&%$") == (
        r"a\textbackslash{}b\_\{c\}\textasciicircum{}\textasciitilde{}\#\&\%\$"
    )
    assert escape_latex("≥ 2×\n–") == r"$\geq$ 2$\times$ --"


def test_simulated_is_said_in_latex_too() -> None:
    points = [*make_points("off", *OFF, simulated=True), *make_points("mtp", *MTP, simulated=True)]
    outcome = compare_points(point_set(*points), Question())
    assert "SIMULATED" in to_latex([write_document(c) for c in outcome.comparisons])
