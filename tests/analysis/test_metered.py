"""Metered energy at a target: a range that the knots' power allows, never an interpolated power."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from curve_points import make_points
from mtpbench_analysis.compare import Comparison, Settings, compare
from mtpbench_analysis.curves.cells import Span
from mtpbench_analysis.curves.confounds import find_confounds
from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.curves.ratios import energy_ratio_of
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.numbers import energy
from mtpbench_analysis.render.csv_json_parquet import to_json
from mtpbench_analysis.sentences import describe_energy, write_sentences
from mtpbench_analysis.tables import matched_table

MTP = ((20.0, 1000.0), (60.0, 500.0))
OFF = ((20.0, 500.0), (60.0, 100.0))
SOURCE = "nvml energy counter, instant power, GPU scope"


def metered_points(
    arm: str, pairs: tuple[tuple[float, float], ...], *watts: float | None
) -> list[CurvePoint]:
    return [
        replace(
            point, power_w_per_gpu=power, output_tps_per_gpu=point.tput_tps_per_gpu / 10, power_source=SOURCE
        )
        for point, power in zip(make_points(arm, *pairs), watts, strict=True)
    ]


def compared(
    *targets: float,
    mtp: tuple[float | None, ...] = (1000.0, 800.0),
    off: tuple[float | None, ...] = (900.0, 600.0),
) -> Comparison:
    (base,) = build_curves(metered_points("off", OFF, *off))
    (other,) = build_curves(metered_points("mtp", MTP, *mtp))
    return compare(base, [other], Settings(targets_tps=targets))


def test_at_a_knot_it_is_one_figure() -> None:
    base, cell = compared(20.0).rows[0].cells
    assert cell.metered_w_per_gpu == Span(low=1000.0, high=1000.0)
    assert cell.metered_joules_per_token == Span(low=1.0, high=1.0)
    assert cell.metered_joules_per_output_token == Span(low=10.0, high=10.0)
    assert cell.metered_tps_per_mw == Span(low=1e6, high=1e6)
    assert energy_ratio_of(cell, base) == Span(low=10 / 18, high=10 / 18)


def test_between_two_knots_power_is_anything_between_theirs() -> None:
    (row,) = compared(30.0).rows
    base, cell = row.cells
    tput = cell.tput_tps_per_gpu
    assert tput is not None
    assert 500 < tput < 1000
    joules, interval = cell.metered_joules_per_token, cell.interval
    assert joules is not None
    assert interval is not None
    assert 800 / interval.high < joules.low < 800 / tput
    assert 1000 / tput < joules.high < 1000 / interval.low
    ours, theirs = cell.metered_joules_per_output_token, base.metered_joules_per_output_token
    assert ours is not None
    assert theirs is not None
    assert energy_ratio_of(cell, base) == Span(low=ours.low / theirs.high, high=ours.high / theirs.low)


@pytest.mark.parametrize("missing", [(None, 800.0), (1000.0, None), (None, None)])
def test_a_knot_without_a_meter_leaves_it_unknown(missing: tuple[float | None, ...]) -> None:
    base, cell = compared(30.0, mtp=missing).rows[0].cells
    assert cell.metered_joules_per_output_token is None
    assert energy_ratio_of(cell, base) is None
    assert base.metered_joules_per_output_token is not None


def test_figures_of_two_meters_are_never_held_against_each_other() -> None:
    off = metered_points("off", OFF, 900.0, 600.0)
    (base,) = build_curves(off)
    (mixed,) = build_curves([replace(off[0], power_source="nvml, module scope"), off[1]])
    (module,) = build_curves([replace(p, power_source="nvml, module scope") for p in off])
    (other,) = build_curves(metered_points("mtp", MTP, 1000.0, 800.0))
    row = compare(mixed, [other], Settings(targets_tps=(30.0,))).rows[0]
    assert row.cells[0].metered_w_per_gpu is None
    row = compare(module, [other], Settings(targets_tps=(30.0,))).rows[0]
    assert row.cells[0].metered_joules_per_token is not None
    assert energy_ratio_of(row.cells[1], row.cells[0]) is None
    found = {one.field: one.text for one in find_confounds(module, other)}
    assert found["power_source"].startswith("Power meter: ")
    assert "power_source" not in {one.field for one in find_confounds(base, other)}


def test_another_power_cap_is_a_confound_where_both_sides_tell_theirs() -> None:
    capped = [
        replace(p, power_cap_w=cap) for p, cap in zip(make_points("off", *OFF), (1200, 1200), strict=True)
    ]
    (base,) = build_curves(capped)
    (other,) = build_curves([replace(p, power_cap_w=1000) for p in make_points("mtp", *MTP)])
    (silent,) = build_curves(make_points("mtp", *MTP))
    assert "Power cap in watts: " not in str(find_confounds(base, silent))
    (text,) = [one.text for one in find_confounds(base, other) if one.field == "power_cap_w"]
    assert "1200" in text
    assert "1000" in text


def test_a_gap_too_wide_for_a_ratio_is_too_wide_for_this_one() -> None:
    (row,) = compared(40.0, off=(900.0, 600.0)).rows
    wide = replace(row.cells[0], wide_gap=True)
    assert energy_ratio_of(row.cells[1], row.cells[0]) is not None
    assert energy_ratio_of(row.cells[1], wide) is None


def test_the_table_holds_measured_and_provisioned_apart_and_the_sentence_says_the_effect() -> None:
    comparison = compared(20.0, 30.0)
    table = matched_table(comparison)
    metrics = [row[0] for row in table.rows if row[0]]
    assert metrics.index("tok/s/MW, metered GPUs") < metrics.index("J/output token, metered GPUs")
    at = next(i for i, row in enumerate(table.rows) if row[0] == "J/output token, metered GPUs")
    mtp, off, ratio = table.rows[at : at + 3]
    assert (mtp[1:3], off[1:3]) == (("MTP", "10.00"), ("Off", "18.00"))
    assert ratio[1:3] == ("MTP / Off", "0.56×,\n44.4% less energy")
    assert " to " in ratio[3]
    first, second = write_sentences(comparison)
    assert first.endswith(
        "By measured power of the GPUs an output token takes 10.00 J with MTP and 18.00 J with Off: "
        "44.4% less energy."
    )
    assert "less energy" in second


def test_a_table_without_meters_has_no_such_rows() -> None:
    bare = compared(30.0, mtp=(None, None), off=(None, None))
    assert not [row for row in matched_table(bare).rows if "metered" in row[0]]
    assert "energy" not in " ".join(write_sentences(bare))


@pytest.mark.parametrize(
    ("low", "high", "bound", "words"),
    [
        (0.4, 0.5, "exact", "50.0% to 60.0% less energy"),
        (0.5, 0.5, "exact", "50.0% less energy"),
        (1.1, 1.2, "exact", "10.0% to 20.0% more energy"),
        (0.97, 1.015, "exact", "3.0% less to 1.5% more energy"),
        (1.0, 1.0, "exact", "the same energy"),
        (1.0, 1.2, "exact", "0.0% less to 20.0% more energy"),
        (0.4, 0.5, "at_least", "at least 50.0% less energy"),
        (1.1, 1.2, "at_least", "at most 20.0% more energy"),
        (0.4, 0.5, "at_most", "at most 60.0% less energy"),
        (1.1, 1.2, "at_most", "at least 10.0% more energy"),
        (0.4, 0.5, "best_points", "50.0% to 60.0% less energy"),
    ],
)
def test_the_effect_in_words(low: float, high: float, bound: str, words: str) -> None:
    assert describe_energy(Span(low=low, high=high), bound) == words  # type: ignore[arg-type]


def test_bounds_follow_those_of_throughput() -> None:
    (slow, between) = compared(10.0, 20.0).rows
    assert slow.ratios[0].bound == "best_points"
    text = write_sentences(compared(10.0))[0]
    assert "takes at most 10.00 J with MTP and at most 18.00 J with Off" in text
    assert text.endswith("44.4% less energy, best point against best point.")
    assert between.ratios[0].bound == "exact"


def test_spans_read_as_one_figure_where_they_would_read_alike() -> None:
    assert Span(low=2.101, high=2.104).text(energy) == "2.10"
    assert Span(low=2.1, high=2.31).text(energy) == "2.10 to 2.31"


def test_programs_get_both_ends() -> None:
    body = json.loads(to_json([compared(20.0)], ()))
    row = body["comparisons"][0]["targets"][0]
    assert row["cells"][1]["metered_joules_per_output_token"] == [10.0, 10.0]
    assert row["cells"][1]["metered_tps_per_mw"] == [1e6, 1e6]
    assert row["ratios"][0]["metered_energy_ratio"] == pytest.approx([10 / 18, 10 / 18])
