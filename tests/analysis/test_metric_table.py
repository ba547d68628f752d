"""The metric table: every figure once, every view of declared figures, every way of writing them."""

from __future__ import annotations

import json
import typing

import pytest

from curve_points import make_points
from mtpbench_analysis.curves.cells import Span
from mtpbench_analysis.curves.cost import find_economics
from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.curves.curve_reader import CurveReader
from mtpbench_analysis.frame import averaged, columns, field_types
from mtpbench_analysis.metric import Rates, View
from mtpbench_analysis.metric_table import COSTS, METRICS, VIEWS, metric, metrics_in
from mtpbench_analysis.numbers import FORMATS, Format


def test_every_figure_is_declared_once_and_every_view_names_declared_ones() -> None:
    ids = [one.id for one in METRICS]
    assert len(ids) == len(set(ids))
    assert set(VIEWS) == set(typing.get_args(View))
    for view, names in VIEWS.items():
        assert len(names) == len(set(names)), view
        assert set(names) - {COSTS} <= set(ids), view


def test_every_figure_is_to_be_seen_somewhere() -> None:
    shown = {name for names in VIEWS.values() for name in names}
    exported = {one.id for one in METRICS if one.of in ("cell", "span")}
    assert {one.id for one in METRICS} <= shown | exported


def test_a_figure_that_is_not_derived_is_a_field_of_a_point() -> None:
    recorded = {one.id for one in METRICS if one.recorded}
    assert {one.id for one in METRICS if one.quotient is None} - {"gain"} <= recorded <= set(columns())
    assert set(averaged()) <= recorded
    assert all(field_types()[name] is float for name in averaged())


def test_labels_and_keys_stand_for_views_that_show_the_figure() -> None:
    for one in METRICS:
        views = {view for view, names in VIEWS.items() if one.id in names}
        assert set(one.labels) <= views, one.id
        assert set(one.keys) <= views, one.id


def test_every_way_of_writing_a_figure_knows_what_is_missing() -> None:
    assert set(FORMATS) == set(typing.get_args(Format))
    assert all(show(None) == "–" for name, show in FORMATS.items() if name != "times")


@pytest.mark.parametrize("view", typing.get_args(View))
def test_a_view_is_declared_in_plain_json_with_identifiers_of_its_own(view: View) -> None:
    economics = find_economics("gb200", "2026-05")
    told = [one.declaration(view) for one in metrics_in(view, economics)]
    assert json.loads(json.dumps(told)) == told
    assert len({one["key"] for one in told}) == len(told)


def test_a_cost_stands_for_every_tier_and_kind_of_token_that_has_a_price() -> None:
    economics = find_economics("gb200", "2026-05")
    told = [one.id for one in metrics_in("y", economics) if one.id.startswith("usd_per_m_")]
    assert len(told) == 3 * len(economics.tiers) == 9
    assert not [one for one in metrics_in("y") if one.id.startswith("usd_per_m_")]
    (point,) = make_points("off", (10.0, 1000.0), output_tps_per_gpu=100.0)
    by_id = {one.id: one for one in metrics_in("metrics", economics)}
    total, output = by_id["usd_per_m_total_neocloud"], by_id["usd_per_m_output_neocloud"]
    assert total.of_point(point, economics) == pytest.approx(2.75 * 1e6 / 3600 / 1000)
    assert output.of_point(point, economics) == pytest.approx(10 * total.of_point(point, economics))
    assert by_id["usd_per_m_input_neocloud"].of_point(point, economics) is None


def test_a_point_has_its_energy_as_metered_and_as_provisioned() -> None:
    economics = find_economics("gb200", "2026-05")
    (point,) = make_points("off", (10.0, 1000.0), output_tps_per_gpu=100.0, power_w_per_gpu=500.0)
    kw = economics.hardware.power_kw_per_gpu
    assert kw is not None
    expected = {
        "tps_per_mw": 1000 * 1000 / kw,
        "joules_per_token": kw,
        "metered_tps_per_mw": 2e6,
        "metered_joules_per_token": 0.5,
        "metered_joules_per_output_token": 5.0,
    }
    for name, value in expected.items():
        assert metric(name).of_point(point, economics) == pytest.approx(value), name
    (unmetered,) = make_points("off", (10.0, 1000.0))
    assert all(metric(name).of_point(unmetered) is None for name in expected)


def test_the_quotient_of_a_figure_says_the_same_as_its_value_at_a_target() -> None:
    points = make_points(
        "off", (10.0, 1000.0), (20.0, 500.0), output_tps_per_gpu=100.0, power_w_per_gpu=500.0
    )
    economics = find_economics("gb200", "2026-05")
    (curve,) = build_curves(points)
    (cell,) = CurveReader(curve=curve, economics=economics).cells([10.0])
    rates: Rates = {
        "total": cell.tput_tps_per_gpu,
        "output": cell.output_tps_per_gpu,
        "input": cell.input_tps_per_gpu,
        "power": 500.0,
    }
    compared = [
        one
        for view in ("matched", "metrics", "y")
        for one in metrics_in(view, economics)
        if one.of in ("cell", "span")
    ]
    assert len(compared) > 20
    for one in compared:
        assert one.quotient is not None, one.id
        value = one.of_cell(cell)
        low = value.low if isinstance(value, Span) else value
        assert one.quotient.value(rates, economics) == pytest.approx(low), one.id
