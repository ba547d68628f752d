"""Break-evens and projections beside a comparison, and both against what the embedded engine really does."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from curve_points import make_points
from mtpbench.cli import app
from mtpbench.errors import InputError
from mtpbench_analysis.compare import Comparison, Settings, compare
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.curves.break_even import StepCosts
from mtpbench_analysis.curves.curve import Curve, build_curves
from mtpbench_analysis.curves.curve_reader import CurveReader
from mtpbench_analysis.curves.twins import find_twins
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.render.csv_json_parquet import to_csv, to_json
from mtpbench_analysis.what_if import find_projections, projection_lines
from stored_sweep import write_sweep

OFF = ((20.0, 1500.0), (40.0, 900.0), (80.0, 300.0))
MTP = ((30.0, 1600.0), (60.0, 1000.0), (120.0, 320.0))
WAITS = {"ttft_p50_s": 0.5, "osl": 501, "isl": 1000}


def comparison(what_if: tuple[float, ...] = (), **changes: Any) -> Comparison:
    off = make_points("off", *OFF, acceptance_mode="off", draft_tokens=0, **WAITS)
    shared = {"acceptance_mode": "measured", "draft_tokens": 3, "acceptance_length": 2.5, **WAITS, **changes}
    mtp = make_points("mtp", *MTP, **shared)
    one = make_points("mtp1", *MTP, **{**shared, "draft_tokens": 1, "acceptance_length": 1.8})
    curves = build_curves([*off, *mtp, *one])
    return compare(curves[0], curves[1:], Settings(targets_tps=(40.0, 60.0, 90.0), what_if=what_if))


def test_the_break_even_stands_with_its_assumption_and_interval_in_tables_and_exports() -> None:
    compared = comparison()
    table = write_document(compared).table("break_even")
    assert [row[0] for row in table.rows] == ["MTP", "MTP1"]
    assert table.rows[0][1] == "2.50"
    assert table.rows[0][4] == "the baseline does not reach it"
    assert "Assumed: a step costs the same whatever it accepts" in table.caption
    record = json.loads(to_json([compared]))["comparisons"][0]["break_evens"]["MTP"]
    found = [item["acceptance_length"] for item in record["targets"]]
    assert found[0] is not None
    assert found[2] is None
    assert record["targets"][2]["reason"] == "the baseline does not reach it"
    assert table.rows[0][2].startswith(f"{found[0]:.2f} ({record['targets'][0]['interval']['low']:.2f}")
    (line, *_) = [row for row in csv.DictReader(io.StringIO(to_csv([compared]))) if row["curve"] == "MTP"]
    assert float(line["break_even_acceptance_length"]) == found[0]


def test_an_unknown_acceptance_is_null_with_its_reason() -> None:
    compared = comparison(acceptance_length=None)
    table = write_document(compared).table("break_even")
    assert table.rows[0][2] == "its acceptance length is unknown"
    record = json.loads(to_json([compared]))["comparisons"][0]["break_evens"]["MTP"]
    assert (record["targets"], record["reason"]) == ([], "its acceptance length is unknown")


def test_a_depth_that_changes_by_load_has_no_break_even() -> None:
    compared = comparison(depth_rule="by_batch")
    assert compared.step_costs["MTP"] == "dynamic_depth"


def test_an_acceptance_of_some_steps_alone_moves_no_curve_and_is_no_ideal_gain() -> None:
    compared = comparison(drafting_steps_only=True, tokens_per_step=1.2)
    assert compared.step_costs["MTP"] == "drafts_in_some_steps"
    (pair, *_) = find_twins(compared.readers[0], compared.readers[1:])
    assert pair.gain_per_accepted == pytest.approx(pair.interactivity_ratio / 1.2)


def test_projections_are_blocks_and_records_of_their_own() -> None:
    plain, asked = comparison(), comparison(what_if=(2.0, 3.0))
    projected = [table for table in write_document(asked).tables if table.id.startswith("projection")]
    assert [table.id for table in projected] == [
        "projection-2",
        "projection-2-recipes",
        "projection-3",
        "projection-3-recipes",
    ]
    assert all(table.title.startswith("PROJECTION, not measured") for table in projected)
    rest = [table for table in write_document(asked).tables if table not in projected]
    assert rest == list(write_document(plain).tables), "nothing measured changes"
    data, before = (json.loads(to_json([item]))["comparisons"][0] for item in (asked, plain))
    assert all(record["projected"] for record in data["projections"])
    assert all(point["projected"] for record in data["projections"] for point in record["points"])
    assert {**data, "projections": []} == before
    lines = projection_lines([asked])
    assert lines
    assert all(line["projected"] is True for line in lines)


def test_an_arm_that_cannot_accept_so_much_says_its_bounds_and_the_others_are_projected() -> None:
    of_mtp, of_one = find_projections(comparison(what_if=(3.0,)))
    assert of_mtp.curve is not None
    assert (of_one.curve, of_one.reason, of_one.bounds) == (None, "out_of_bounds", (1.0, 2.0))
    table = write_document(comparison(what_if=(3.0,))).table("projection-3")
    assert ("MTP1", "", "its lengths are 1 to 2", "–", "–") in table.rows
    lines = projection_lines([comparison(what_if=(3.0,))])
    (line,) = [line for line in lines if line["curve"] == "MTP1"]
    assert (line["no_projection_because"], line["target_tps"]) == ("its lengths are 1 to 2", None)
    assert {line["no_projection_because"] for line in lines if line["curve"] == "MTP"} == {None}


@pytest.mark.parametrize("length", [0.9, 4.1])
def test_a_length_that_no_arm_can_have_is_refused_with_the_bounds(length: float) -> None:
    with pytest.raises(InputError, match=r"MTP: 1 to 4; MTP1: 1 to 2"):
        find_projections(comparison(what_if=(length,)))


def test_projecting_to_what_was_measured_changes_no_figure() -> None:
    compared = comparison(what_if=(2.5,))
    (item, _) = find_projections(compared)
    for cell, row in zip(item.cells, compared.rows, strict=True):
        assert cell.tput_tps_per_gpu == pytest.approx(row.cells[1].tput_tps_per_gpu)


def call(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    return done.exit_code, done.stdout, f"{done.stderr}{done.exception}"


def test_the_command_projects_to_repeated_and_listed_lengths_in_every_format(tmp_path: Path) -> None:
    results = write_sweep(tmp_path)
    asked = ("--what-if-acceptance", "2.0,3", "--what-if-acceptance", "2")
    status, text, _ = call("compare", results, *asked, "--format", "md")
    assert status == 0
    assert text.count("### PROJECTION, not measured: at an acceptance length of") == 2
    lines = [*csv.DictReader(io.StringIO(call("compare", results, *asked, "--format", "csv")[1]))]
    assert {(line["projected"], line["acceptance_length"]) for line in lines} == {
        ("True", "2.0"),
        ("True", "3.0"),
    }
    (compared,) = json.loads(call("compare", results, *asked, "--format", "json")[1])["comparisons"]
    assert [item["acceptance_length"] for item in compared["projections"]] == [2.0, 3.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--what-if-acceptance", "0.5"), "is not a number of at least 1"),
        (("--what-if-acceptance", "many"), "is not a number of at least 1"),
        (("--what-if-acceptance", "4.5"), "1 to 4"),
        (("--what-if-acceptance", "2", "--method", "page"), "has no projections"),
    ],
)
def test_the_command_refuses_what_is_no_length_of_an_arm(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    status, _, errors = call("compare", write_sweep(tmp_path), *words)
    assert status != 0
    assert message in errors


SWEEP = """\
sweep: {name}
question: Does a projection hold?
model: {{path: deepseek-ai/DeepSeek-V4-Pro, served_name: dsv4, precision: fp4}}
hardware: gb200-nvl72
engine: {{name: simulated, profile: dsv4-gb200}}
workload: {{isl: 1024, osl: 240}}
measurement: {{warmup_per_slot: 2, requests_per_slot: 8, min_requests: 40, min_window_s: 2}}
arms:
  off:
{arms}
topologies:
  - {topology}
"""
SPLIT = "{prefill: 1xTP8, decode: 1xTP8, concurrency: [2, 4, 8, 16, 32, 64]}"
ALONE = "{aggregated: 1xTP8, concurrency: [2, 4, 8, 16, 32, 64]}"


def simulate(folder: Path, name: str, topology: str, *lengths: float) -> dict[str, Curve]:
    """The curves of a sweep on the virtual clock, by arm: off, and three drafts pinned at each length."""
    arms = "\n".join(
        f"  mtp{i}: {{draft_tokens: 3, acceptance: {{length: {length}}}}}" for i, length in enumerate(lengths)
    )
    sweep = folder / f"{name}.yaml"
    sweep.write_text(SWEEP.format(name=name, arms=arms, topology=topology), "utf-8")
    words = ["run", str(sweep), "--simulate", "--results", str(folder / "results")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code in (0, 1), done.output
    points = read_source(folder / "results" / f"{name}.simulated").points
    return {curve.arm: curve for curve in build_curves(points)}


def errors_of(projected: Curve, measured: Curve) -> list[float]:
    """How far a projected curve lies from a measured one, recipe by recipe, in both coordinates."""
    truth = {item.mean.concurrency: item for item in measured.measured}
    pairs = [
        (item, truth[item.mean.concurrency]) for item in projected.measured if item.mean.concurrency in truth
    ]
    assert len(pairs) >= 4
    return [ratio - 1 for here, there in pairs for ratio in (here.x / there.x, here.y / there.y)]


def costs_of(curves: dict[str, Curve], arm: str) -> StepCosts:
    costs = compare(curves["off"], [curves[arm]]).step_costs[
        compare(curves["off"], [curves[arm]]).others[0].label
    ]
    assert isinstance(costs, StepCosts)
    return costs


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Curve]:
    return simulate(tmp_path_factory.mktemp("split"), "split", SPLIT, 2.0, 2.5, 3.0)


def test_a_projection_of_a_disaggregated_deployment_is_right_to_three_percent(
    split: dict[str, Curve],
) -> None:
    costs = costs_of(split, "mtp1")
    for arm, length in (("mtp0", 2.0), ("mtp2", 3.0)):
        errors = errors_of(costs.project(length), split[arm])
        assert max(map(abs, errors)) < 0.03


def test_a_projection_of_aggregated_serving_errs_to_the_side_that_it_says(tmp_path: Path) -> None:
    """Steps hold prefill, which each request needs once: up to 8% at this prompt of four times the answer."""
    curves = simulate(tmp_path, "alone", ALONE, 2.0, 2.5)
    errors = errors_of(costs_of(curves, "mtp1").project(2.0), curves["mtp0"])
    assert max(map(abs, errors)) < 0.08
    assert min(errors) < -0.03
    assert max(errors) < 0.02


def test_an_arm_pinned_at_the_break_even_serves_nearly_what_the_baseline_does(
    split: dict[str, Curve], tmp_path: Path
) -> None:
    """From 3.0 to the break-even near 1.9: off by up to 4% in length, and by up to 7% in throughput, since
    interactivity errs most and the curves are steep."""
    targets = (60.0, 68.0)
    compared = compare(split["off"], [split["mtp2"]], Settings(targets_tps=targets))
    found = compared.break_evens["MTP2"]
    lengths = [item.acceptance_length or 0.0 for item in found]
    assert [item.bound for item in found] == ["exact", "exact"]
    pinned = simulate(tmp_path, "pinned", SPLIT, *(round(length, 3) for length in lengths))
    for i, item in enumerate(found):
        curve = pinned[f"mtp{i}"]
        served = CurveReader(curve=curve).serves(targets)[i]
        assert served == pytest.approx(compared.rows[i].cells[0].tput_tps_per_gpu, rel=0.07)
        near = compare(split["off"], [curve], Settings(targets_tps=targets))
        (truth,) = [items[i].acceptance_length for items in near.break_evens.values()]
        assert item.acceptance_length == pytest.approx(truth, rel=0.04)
        assert item.interval is not None
        assert item.interval.low < (truth or 0.0) < item.interval.high
