"""InferenceX rows of every generation, and what is said of those that are wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from curve_points import FIXTURES, INFERENCEX
from mtpbench_analysis.importers import Declared, read_sources
from mtpbench_analysis.importers.inferencex import read_rows

AGGREGATES = FIXTURES / "importers" / "inferencex"


def changed(**values: Any) -> dict[str, Any]:
    """A sound real row with other values; those of `metrics` by their own name."""
    row: dict[str, Any] = json.loads(INFERENCEX.read_text("utf-8"))[8]
    for name, value in values.items():
        (row["metrics"] if name in row["metrics"] else row)[name] = value
    return row


def rows_file(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.json"
    path.write_text(json.dumps(rows), "utf-8")
    return path


def test_a_disaggregated_row_keeps_rates_over_all_gpus_and_the_gpus_of_each_role() -> None:
    metrics = json.loads(INFERENCEX.read_text("utf-8"))[8]["metrics"]
    point = read_rows(INFERENCEX).points[8]
    assert (point.prefill_gpus, point.decode_gpus, point.gpus) == (44, 16, 60)
    assert point.input_tps_per_gpu == pytest.approx(metrics["input_tput_per_gpu"] * 44 / 60)
    assert point.output_tps_per_gpu == pytest.approx(metrics["output_tput_per_gpu"] * 16 / 60)
    both = (point.input_tps_per_gpu or 0) + (point.output_tps_per_gpu or 0)
    assert both == pytest.approx(point.tput_tps_per_gpu, rel=0.01)
    assert point.ttft_p99_s == metrics["p99_ttft"]


def test_an_aggregated_row_has_no_gpus_of_a_role() -> None:
    point = read_rows(INFERENCEX).points[2]
    assert (point.serving, point.gpus, point.prefill_gpus, point.decode_gpus) == ("aggregated", 8, None, None)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"tput_per_gpu": float("nan")}, "tput_per_gpu is NaN: a number above 0 is needed"),
        ({"median_intvty": float("inf")}, "median_intvty is Infinity: a number above 0 is needed"),
        ({"median_intvty": 0}, "median_intvty is 0: it must be above 0"),
        ({"tput_per_gpu": -5.0}, "tput_per_gpu is -5: it must be above 0"),
        ({"tput_per_gpu": "fast"}, "tput_per_gpu is 'fast': a number above 0 is needed"),
        ({"tput_per_gpu": True}, "tput_per_gpu is True: a number above 0 is needed"),
        ({"tput_per_gpu": None}, "tput_per_gpu is null"),
        ({"conc": 2.5}, "conc is 2.5: a whole number of things is needed"),
        ({"conc": 10**400}, "conc is a number too large to use: a number above 0 is needed"),
        ({"disagg": "maybe"}, "disagg is 'maybe': true or false is needed"),
        ({"spec_method": None}, "--arm names the side it belongs to"),
        ({"metrics": None}, "not an InferenceX row: an object with 'hardware', 'framework'"),
    ],
)
def test_a_row_that_can_t_be_used_is_listed_with_the_field_and_its_value(
    tmp_path: Path, values: dict[str, Any], reason: str
) -> None:
    points = read_rows(rows_file(tmp_path, changed(), changed(**values)))
    assert len(points.points) == 1
    assert [item.what for item in points.unused] == ["rows.json[1]"]
    assert reason in points.unused[0].reason


def test_a_field_that_a_point_can_do_without_is_left_empty_and_said(tmp_path: Path) -> None:
    points = read_rows(rows_file(tmp_path, changed(p99_ttft=float("nan"), image=7, osl="many")))
    (point,) = points.points
    assert (point.ttft_p99_s, point.image, point.osl) == (None, None, None)
    assert sorted((item.what, item.reason) for item in points.unused) == [
        ("rows.json[0]: image", "7 is not a text; left empty"),
        ("rows.json[0]: osl", "'many' is not a number above 0; left empty"),
        ("rows.json[0]: p99_ttft", "NaN is not a number above 0; left empty"),
    ]


def test_a_time_in_another_unit_makes_a_row_invalid(tmp_path: Path) -> None:
    ttft = changed()["metrics"]["median_ttft"]
    (point,) = read_rows(rows_file(tmp_path, changed(median_ttft=ttft * 1e3))).points
    assert "mixed units: median_ttft" in point.reasons[0]
    assert "median_e2el" in point.reasons[0]
    (point,) = read_rows(rows_file(tmp_path, changed(median_intvty=27086.0))).points
    assert "median_intvty 2.709e+04 contradicts median_tpot" in point.reasons[0]


def test_a_row_that_comes_again_is_kept_once_and_one_of_another_run_stays(tmp_path: Path) -> None:
    points = read_rows(rows_file(tmp_path, changed(), changed(), changed(run_url="https://other/1")))
    assert len(points.points) == 2
    assert [(item.what, item.reason) for item in points.unused] == [
        ("rows.json[1]", "the same as rows.json[0]; kept once")
    ]


def test_a_run_in_two_files_is_kept_once_and_runs_of_two_addresses_stay_two(tmp_path: Path) -> None:
    """Equal figures are one run unless the rows name two; a folder with a blank in its name is no run's."""
    rows = {"a": "https://runs/1", "a (1)": "https://runs/1", "b": "https://runs/2", "c": None}
    files = []
    for name, url in rows.items():
        folder = tmp_path / name
        folder.mkdir()
        files.append(rows_file(folder, changed(run_url=url)))
    points = read_sources(files, Declared())
    assert [point.run_url for point in points.points] == ["https://runs/1", "https://runs/2", None]
    (copy,) = [item for item in points.unused if item.kind == "repeated"]
    assert copy.reason == "the same as rows.json[0] https://runs/1; kept once"


def test_runs_of_another_workflow_or_day_had_servers_of_their_own(tmp_path: Path) -> None:
    rows = [("https://runs/1", "2026-05-01"), (None, "2026-05-01"), (None, None)]
    points = read_rows(
        rows_file(
            tmp_path, *(changed(run_url=url, date=day, conc=8 + i) for i, (url, day) in enumerate(rows))
        )
    )
    assert [point.start for point in points.points] == ["https://runs/1", "2026-05-01", None]


def test_one_row_is_enough(tmp_path: Path) -> None:
    assert len(read_rows(rows_file(tmp_path, changed())).points) == 1
    path = tmp_path / "agg_one.json"
    path.write_text(json.dumps(json.loads((AGGREGATES / "agg_second.json").read_text("utf-8"))[0]), "utf-8")
    assert len(read_rows(path).points) == 1


def test_the_first_generation_says_tp_for_all_gpus_and_mtp_on_or_off() -> None:
    points = read_rows(AGGREGATES / "agg_first.json", Declared(isl=1024, osl=1024))
    told = [(p.arm, p.serving, p.gpus, p.prefill_gpus, p.decode_gpus, p.topology) for p in points.points]
    assert told == [
        ("off", "aggregated", 8, None, None, "1xTP8"),
        ("mtp", "disaggregated", 36, 4, 32, "4P+32D"),
        ("off", "disaggregated", 36, 4, 32, "4P+32D"),
    ]
    assert (points.points[1].hardware, points.points[1].engine, points.points[1].isl) == (
        "gb200",
        "dynamo-trt",
        1024,
    )
    assert all(point.valid for point in points.points)
    (unused,) = points.unused
    assert unused.what == "agg_first.json[3]"
    assert "--arm names the side" in unused.reason


def test_the_first_rows_of_all_do_not_say_whether_they_are_disaggregated() -> None:
    points = read_rows(AGGREGATES / "agg_first.json", Declared(arm="off"))
    assert (points.points[3].arm, points.points[3].serving, points.points[3].gpus) == ("off", None, 8)
    assert (points.points[0].isl, points.points[0].osl) == (None, None)


def test_the_second_generation_is_read_on_one_node_and_over_several() -> None:
    points = read_rows(AGGREGATES / "agg_second.json")
    one, split, pool = points.points
    assert (one.arm, one.gpus, one.topology, one.serving) == ("mtp", 8, "1xTP4PP2", "aggregated")
    assert (one.hardware, one.model, one.power_w_per_gpu) == ("b200", "dsr1", 812.5)
    assert (split.arm, split.gpus, split.topology) == ("off", 40, "6xDEP4-1xDEP16")
    assert (split.prefill_gpus, split.decode_gpus, split.precision) == (24, 16, "fp4")
    assert split.power_w_per_gpu is None
    assert (pool.serving, pool.gpus, pool.topology) == ("aggregated", 16, "2xTP8")
    assert all(point.valid for point in points.points)
    (unused,) = points.unused
    assert unused.reason == "'agentic-coding' traces: requests without a fixed ISL and OSL"


def test_what_a_row_says_is_not_overruled() -> None:
    said = Declared(arm="other", isl=1, hardware="x", model="y")
    point = read_rows(AGGREGATES / "agg_second.json", said).points[0]
    assert (point.arm, point.isl, point.hardware, point.model) == ("mtp", 8192, "b200", "dsr1")


def multi_node(**values: Any) -> dict[str, Any]:
    """A disaggregated row that says how its GPUs are made: 1 worker of 4 and 1 of 8."""
    path = FIXTURES / "importers" / "inferencex" / "agg_second.json"
    row: dict[str, Any] = json.loads(path.read_text("utf-8"))[1]
    return row | values


@pytest.mark.parametrize(
    ("values", "gpus", "topology"),
    [
        ({}, 40, "6xDEP4-1xDEP16"),
        ({"decode_tp": 8, "decode_pp": 2}, 40, "6xDEP4-1xDEP8PP2"),
        ({"prefill_tp": 2, "prefill_pcp_size": 2}, 40, "6xDEP2PCP2-1xDEP16"),
        ({"decode_dcp_size": 4, "decode_ep": 1, "decode_dp_attention": "false"}, 40, "6xDEP4-1xTP16DCP4"),
        ({"prefill_pp": 1, "decode_pcp_size": 1, "decode_dcp_size": 1}, 40, "6xDEP4-1xDEP16"),
        ({"prefill_num_workers": 5}, 40, "24P+16D"),
    ],
)
def test_stages_and_context_ranks_are_named(
    tmp_path: Path, values: dict[str, Any], gpus: int, topology: str
) -> None:
    (point,) = read_rows(rows_file(tmp_path, multi_node(**values))).points
    assert (point.gpus, point.topology, point.reasons) == (gpus, topology, ())


def test_gpus_that_leave_out_pipeline_stages_make_a_row_invalid(tmp_path: Path) -> None:
    (point,) = read_rows(rows_file(tmp_path, multi_node(decode_pp=2))).points
    assert point.reasons == ("num_decode_gpu is 16, but 1 workers of tp × pp × pcp_size GPUs have 32",)


@pytest.mark.parametrize("name", ["decode_pp", "decode_ep", "decode_num_workers"])
@pytest.mark.parametrize("value", ["2", 1.5, True])
def test_ranks_that_can_not_be_read_are_not_one(tmp_path: Path, name: str, value: Any) -> None:
    points = read_rows(rows_file(tmp_path, changed(), multi_node(**{name: value})))
    assert len(points.points) == 1
    assert f"{name} is {value!r}: a " in points.unused[-1].reason


def test_an_aggregated_row_counts_its_pipeline_stages(tmp_path: Path) -> None:
    row = multi_node(disagg=False, is_multinode=False, prefill_tp=4, prefill_pp=2, prefill_num_workers=1)
    rates = {"tput_per_gpu": 3000.0, "output_tput_per_gpu": 333.0, "input_tput_per_gpu": 2667.0}
    (point,) = read_rows(rows_file(tmp_path, row | rates)).points
    assert (point.gpus, point.topology) == (8, "1xDEP4PP2")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"p99_ttft": 0.001}, "median_ttft .* s is above p99_ttft 0.001 s"),
        ({"mean_ttft": 9000.0}, "mean_ttft 9000 s is above mean_e2el"),
    ],
)
def test_a_row_whose_percentiles_fall_is_invalid(tmp_path: Path, values: dict[str, Any], reason: str) -> None:
    (point,) = read_rows(rows_file(tmp_path, changed(**values))).points
    assert re.match(reason, point.reasons[-1])
