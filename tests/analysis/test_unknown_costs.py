"""Hardware without a published price or power: "unknown" with the reason wherever a figure would stand."""

from __future__ import annotations

import csv
import io
import json

from curve_points import make_points, point_set
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.comparisons import Question, compare_points
from mtpbench_analysis.curves.cost import find_economics
from mtpbench_analysis.render.csv_json_parquet import to_csv, to_json


def on_a_cpu() -> Comparison:
    off = make_points("off", (10, 100), (20, 80), hardware="cpu")
    mtp = make_points("mtp", (10, 150), (20, 120), hardware="cpu")
    question = Question(targets_tps=(15, 25))
    (comparison,) = compare_points(point_set(*off, *mtp), question).comparisons
    return comparison


def test_the_label_says_what_is_unknown_and_why() -> None:
    label = find_economics("cpu", tier="neocloud").label
    assert label.startswith("CPU at an unknown price, unknown power provisioned per GPU")
    assert "neither a published price nor a provisioned power" in label


def test_the_table_says_unknown_where_there_is_a_throughput_and_nothing_where_there_is_none() -> None:
    table = write_document(on_a_cpu()).table("matched")
    rows = {(row[0], row[1]): row[2:] for row in table.rows}
    for metric in ("cost, $/M tok", "tok/s/MW, provisioned", "J/token, provisioned"):
        assert rows[metric, "MTP"] == ("unknown", "–")
    assert "unknown price" in table.caption


def test_the_ratio_stands_without_a_price() -> None:
    comparison = on_a_cpu()
    ratio = comparison.rows[0].ratios[0]
    assert ratio.value is not None
    assert abs(ratio.value - 1.5) < 0.01
    sentence = write_document(comparison).items("words")[0]
    assert "1.50 (1.36–1.68) times the throughput, 33.3% lower cost per token." in sentence
    assert "$" not in sentence


def test_exports_hold_null_and_no_tier() -> None:
    comparison = on_a_cpu()
    economics = json.loads(to_json([comparison]))["comparisons"][0]["economics"]
    assert economics["usd_per_gpu_h"] is None
    assert economics["hardware"]["power_kw_per_gpu"] is None
    line = next(csv.DictReader(io.StringIO(to_csv([comparison]))))
    assert (line["usd_per_mtok"], line["tps_per_mw"], line["price_tier"]) == ("", "", "")
