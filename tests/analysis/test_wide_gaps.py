"""Over a wide gap a range is known and nothing else, whatever reads the curve."""

from __future__ import annotations

import csv
import io
import json
from itertools import chain
from typing import Any

import numpy as np
import pytest

from curve_points import make_curve, make_points, point_set
from mtpbench_analysis.compare import Comparison, Settings, compare
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.comparisons import Question, compare_points
from mtpbench_analysis.curves.cells import Held, Span
from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.curves.curve_reader import CurveReader
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.metric_table import METRICS
from mtpbench_analysis.render.csv_json_parquet import to_csv, to_json
from mtpbench_analysis.tables import note_reading

RECORDED: dict[str, Any] = {
    "interactivity_rel_se": 0.01,
    "tput_rel_se": 0.01,
    "se_df": 9,
    "power_w_per_gpu": 700.0,
    "power_source": "nvml",
}
OFF, MTP = ((20.0, 2500.0), (80.0, 100.0)), ((15.0, 3000.0), (90.0, 1000.0))
TARGET = 40.0


def pair() -> Comparison:
    points = [
        *make_points("off", *OFF, output_tps_per_gpu=10.0, **RECORDED),
        *make_points("mtp", *MTP, output_tps_per_gpu=10.0, **RECORDED),
    ]
    question = Question(targets_tps=(TARGET,), usd_per_gpu_h=3.6, kw_per_gpu=2.0)
    (comparison,) = compare_points(point_set(*points), question).comparisons
    return comparison


def test_a_cell_has_a_range_and_ranges_of_what_follows_from_it() -> None:
    (row,) = pair().rows
    cell = row.cells[0]
    assert (cell.state, cell.wide_gap, cell.no_interval) == ("interpolated", True, "wide_gap")
    assert (cell.tput_tps_per_gpu, cell.interval, cell.held) == (None, None, frozenset())
    assert cell.tput_range == Span(low=100, high=2500)
    assert cell.usd_per_mtok == Span(low=3.6e6 / 3600 / 2500, high=3.6e6 / 3600 / 100)
    assert cell.tps_per_mw == Span(low=100 / 2e-3, high=2500 / 2e-3)
    assert cell.joules_per_token == Span(low=2000 / 2500, high=2000 / 100)
    assert cell.metered_joules_per_token == Span(low=700 / 2500, high=700 / 100)
    for metric in METRICS:
        assert not isinstance(metric.of_cell(cell), float), metric.id
        assert metric.interval_at(cell) is None


def test_a_ratio_is_withheld_and_so_is_that_of_energies() -> None:
    comparison = pair()
    (ratio,) = comparison.rows[0].ratios
    assert (ratio.value, ratio.interval, ratio.lower_cost) == (None, None, None)
    assert ratio.withheld is not None
    assert ratio.envelope == (1000 / 2500, 3000 / 100)
    exported = json.loads(to_json([comparison]))["comparisons"][0]["targets"][0]["ratios"][0]
    assert exported["metered_energy_ratio"] is None


def numbers_in(value: Any) -> list[float]:
    if isinstance(value, dict):
        return list(chain.from_iterable(map(numbers_in, value.values())))
    if isinstance(value, list):
        return list(chain.from_iterable(map(numbers_in, value)))
    return [value] if isinstance(value, float) else []


def test_exports_hold_no_throughput_but_those_of_the_knots() -> None:
    """Not as such, and in no figure that gives it back: cost, megawatts, joules."""
    comparison = pair()
    between = CurveReader(curve=comparison.baseline).serves([TARGET])[0]
    told = {between, 1000 / between, between / 2e-3, 2000 / between, 700 / between}
    exported = json.loads(to_json([comparison]))["comparisons"][0]
    cell = exported["targets"][0]["cells"][0]
    assert (cell["tput_range_low"], cell["tput_range_high"]) == (100, 2500)
    assert (cell["tput_tps_per_gpu"], cell["usd_per_mtok"], cell["interval"]) == (None, None, None)
    assert cell["no_interval_because"] == "only a range is known over a wide gap"
    found = numbers_in(exported)
    assert 2500.0 in found
    assert [value for value in found if np.isclose(list(told), value, rtol=1e-6).any()] == []
    line = next(csv.DictReader(io.StringIO(to_csv([comparison]))))
    assert (line["tput_range_low"], line["tput_range_high"]) == ("100.0", "2500.0")
    empty = (
        "tput_tps_per_gpu",
        "usd_per_mtok",
        "tps_per_mw",
        "interval_low",
        "interval_high",
        "interval_holds",
    )
    assert {line[name] for name in empty} == {""}


def test_a_crossing_is_exported_as_the_gap_that_it_lies_in() -> None:
    points = [*make_points("off", *OFF), *make_points("mtp", (20.0, 2000.0), (80.0, 900.0))]
    (comparison,) = compare_points(point_set(*points), Question()).comparisons
    exported = json.loads(to_json([comparison]))["comparisons"][0]
    (crossing,) = exported["crossings"]["MTP"]
    assert (crossing["interactivity_tps"], crossing["tput_tps_per_gpu"]) == (None, None)
    assert (crossing["gap"], crossing["wide_gap"], crossing["interval"]) == ([20, 80], True, None)
    lead = next(item for item in exported["leads"] if item["possible"])
    assert (lead["winner"], lead["possible"], lead["margin"], lead["settled"]) == (
        None,
        ["Off", "MTP"],
        None,
        False,
    )
    rows = next(table for table in write_document(comparison).tables if table.id == "leads").rows
    assert "not known: Off or MTP" in [row[1] for row in rows]


def test_at_the_knots_of_a_gap_their_figures_are_known() -> None:
    reader = CurveReader(curve=make_curve("off", *OFF, **RECORDED))
    at_knot = 20.0 * (1 + 1e-12)
    assert [cell.wide_gap for cell in reader.cells([20.0, at_knot, 20.1, 80.0])] == [
        False,
        False,
        True,
        False,
    ]
    assert reader.is_wide([20.0, at_knot, 20.1, 80.0]).tolist() == [False, False, True, False]
    low, high = reader.bounds([10.0, 20.0, 40.0, 80.0, 90.0])
    assert low.tolist()[:4] == [2500, 2500, 100, 100]
    assert high.tolist()[:4] == [2500, 2500, 2500, 100]
    assert np.isnan([low[4], high[4]]).all()
    assert reader.drawn([at_knot]).std() < 200


def test_a_draw_over_a_wide_gap_lies_anywhere_between_its_knots() -> None:
    drawn = CurveReader(curve=make_curve("off", *OFF), start_noise=0.0).drawn([21.0, 79.0])
    assert drawn.min() == pytest.approx(100, rel=0.02)
    assert drawn.max() == pytest.approx(2500, rel=0.02)
    assert drawn[:, 0].tolist() == drawn[:, 1].tolist(), "where it lies in the gap says nothing"


def comparison_holding(*, repeats: bool, blocks: bool, starts: int, between: bool, **more: Any) -> Comparison:
    """Both sides alike: at knots, or between two of them."""
    known = {"interactivity_rel_se": 0.01, "tput_rel_se": 0.01, "se_df": 9} if blocks else {}
    points = [
        CurvePoint(
            arm=arm,
            interactivity_tps=x * (1 + 0.01 * run),
            tput_tps_per_gpu=y * (1 - 0.01 * run * (-1) ** i),
            concurrency=i,
            start=str(run % starts),
            repeat=run,
            **known,
        )
        for arm in ("off", "mtp")
        for i, (x, y) in enumerate(((10.0, 1000.0), (20.0, 700.0), (40.0, 500.0)))
        for run in range(2 * starts if repeats else 1)
    ]
    curves = {curve.arm: curve for curve in build_curves(points)}
    target = 15.0 if between else curves["off"].front[1].x
    return compare(curves["off"], [curves["mtp"]], Settings(targets_tps=(target,), **more))


RUNS, WITHIN = "the noise of runs", "noise within a run (time blocks)"
SHAPE, STARTS, ASSUMED = (
    "the curve's shape between points",
    "server starts (as measured)",
    "server starts (1.0% assumed)",
)
ANOTHER = " What another run would do is not in them where no run was repeated."
CASES: list[tuple[dict[str, Any], set[Held], str]] = [
    (
        {"repeats": True, "between": True},
        {"repeats", "shape", "assumed_starts"},
        f"{RUNS}, {SHAPE} and {ASSUMED}.",
    ),
    ({"repeats": True}, {"repeats", "assumed_starts"}, f"{RUNS} and {ASSUMED}."),
    (
        {"repeats": True, "starts": 2, "between": True},
        {"repeats", "shape", "starts"},
        f"{RUNS}, {SHAPE} and {STARTS}.",
    ),
    ({"repeats": True, "starts": 2}, {"repeats", "starts"}, f"{RUNS} and {STARTS}."),
    ({"repeats": True, "start_noise": 0.0}, {"repeats"}, f"{RUNS}."),
    ({"blocks": True}, {"blocks", "assumed_starts"}, f"{WITHIN} and {ASSUMED}.{ANOTHER}"),
    (
        {"blocks": True, "between": True},
        {"blocks", "shape", "assumed_starts"},
        f"{WITHIN}, {SHAPE} and {ASSUMED}.{ANOTHER}",
    ),
    ({"blocks": True, "start_noise": 0.0}, {"blocks"}, f"{WITHIN}.{ANOTHER}"),
    ({"between": True}, {"shape", "assumed_starts"}, f"{SHAPE} and {ASSUMED}.{ANOTHER}"),
    ({"between": True, "start_noise": 0.0}, {"shape"}, f"{SHAPE}.{ANOTHER}"),
]


@pytest.mark.parametrize(("design", "held", "said"), CASES)
def test_the_caption_names_what_the_intervals_hold(
    design: dict[str, Any], held: set[Held], said: str
) -> None:
    default = {"repeats": False, "blocks": False, "starts": 1, "between": False}
    comparison = comparison_holding(**{**default, **design})
    assert [cell.held for cell in comparison.rows[0].cells] == [held, held]
    assert note_reading(comparison) == f" In brackets: 95% intervals that hold {said}"


def test_the_caption_says_why_there_is_no_interval_only_where_it_is_so() -> None:
    single = comparison_holding(repeats=False, blocks=False, starts=1, between=False)
    assert note_reading(single) == " Single runs: no interval."
    points = [
        *make_points("off", *OFF, **RECORDED),
        *make_points("mtp", *((x, y * 1.1) for x, y in OFF), **RECORDED),
    ]
    question = Question(targets_tps=(TARGET,))
    (wide,) = compare_points(point_set(*points), question).comparisons
    assert [cell.no_interval for cell in wide.rows[0].cells] == ["wide_gap", "wide_gap"]
    assert note_reading(wide) == ""


def test_the_caption_says_where_noise_leaves_the_end_of_a_curve_open() -> None:
    points = [
        *make_points("off", (10.0, 1000.0), (20.0, 700.0), **{**RECORDED, "interactivity_rel_se": 0.2}),
        *make_points("mtp", (10.0, 1000.0), (20.0, 700.0), **{**RECORDED, "interactivity_rel_se": 0.2}),
    ]
    (comparison,) = compare_points(point_set(*points), Question(targets_tps=(19.0,))).comparisons
    assert {cell.no_interval for cell in comparison.rows[0].cells} == {"may_end_below"}
    assert note_reading(comparison) == " No interval where noise leaves open whether a curve reaches so far."


def test_the_caption_says_of_which_starts_something_was_measured() -> None:
    points = [
        *make_points("off", (10.0, 1000.0), (20.0, 700.0), start="a", gpus=8),
        *make_points("off", (10.1, 1010.0), (20.2, 707.0), start="b", gpus=8),
        *make_points("mtp", (10.0, 1000.0), (20.0, 700.0), gpus=8),
    ]
    (comparison,) = compare_points(point_set(*points), Question(targets_tps=(15.0,))).comparisons
    assert [set(cell.held) for cell in comparison.rows[0].cells] == [
        {"repeats", "shape", "starts"},
        {"shape", "assumed_starts"},
    ]
    assert "server starts (as measured, else 1.0% assumed)." in note_reading(comparison)
