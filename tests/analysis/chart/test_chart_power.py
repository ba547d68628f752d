"""The power of a sweep: laid out in time, windows and means as recorded, unknown with its reason."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from typer.testing import CliRunner

from mtpbench.errors import InputError
from mtpbench.hardware import lookup
from mtpbench_analysis.chart.mpl_power import draw_power, spread
from mtpbench_analysis.chart.mpl_style import BAD
from mtpbench_analysis.chart.power_chart import PowerChart, describe_power
from mtpbench_analysis.chart.style import MARKS, PictureOptions
from mtpbench_analysis.cli import register
from mtpbench_analysis.traces import PowerTrace
from stored_sweep import write_sweep

COLOURS = tuple(mark.light for mark in MARKS)
GB200 = lookup("gb200-nvl72", "2026-05")
NOTHING = np.empty(0)


def trace(arm: str = "off", started: str = "10:00:00", **changes: Any) -> PowerTrace:
    """4 GPUs at 2,000 W together, read from −1 to 99 s; the window is 10 to 90 s."""
    times_s = np.arange(-1.0, 100.0)
    made = PowerTrace(
        point_id=f"{arm} {started}",
        arm=arm,
        topology="1xTP4",
        load="c8",
        started_utc=f"2026-01-01T{started}+00:00",
        times_s=times_s,
        power_w=np.full(len(times_s), 2000.0),
        gpus=4,
        window_s=(10.0, 90.0),
        energy_j=2000.0 * 80,
        reason=None,
        source="nvml",
        simulated=False,
    )
    return replace(made, **changes)


def unknown(**changes: Any) -> PowerTrace:
    nothing: dict[str, Any] = {"times_s": NOTHING, "power_w": NOTHING, "gpus": 0, "energy_j": None}
    return trace(**{**nothing, "reason": "no_power_source", **changes})


def described(*traces: PowerTrace) -> PowerChart:
    return describe_power(traces, "off", GB200, ("off", "mtp"))


def texts(chart: PowerChart, **options: Any) -> list[str]:
    figure = draw_power("title", chart, ["foot"], PictureOptions(**options))
    legend = figure.legends[0]
    return [text.get_text() for text in (*figure.texts, *figure.axes[0].texts, *legend.get_texts())]


def test_measured_points_lie_at_their_wall_times_in_minutes() -> None:
    chart = described(trace(), trace("mtp", "10:03:00"))
    first, second = chart.stretches
    assert second.times[0] - first.times[0] == pytest.approx(3.0)
    assert first.window == pytest.approx((11 / 60, 91 / 60))
    assert (chart.x_label, chart.pauses, chart.simulated) == ("minutes since the first load", (), False)
    assert set(first.power_w_per_gpu) == {500.0}
    assert first.mean_w_per_gpu == pytest.approx(500.0)


def test_a_night_between_two_points_is_cut_out_and_said() -> None:
    chart = described(trace(), trace("mtp", "20:00:00"))
    ((_, minutes),) = chart.pauses
    gap = chart.stretches[1].start - chart.stretches[0].end
    assert gap + minutes == pytest.approx(600 - 100 / 60)
    assert gap == pytest.approx(2.0)
    assert "pauses cut out where marked" in chart.x_label
    assert f"{minutes / 60:.1f} h cut out" in texts(chart)


def test_simulated_points_are_laid_end_to_end_in_engine_seconds_and_say_so() -> None:
    chart = described(trace(simulated=True), trace("mtp", "10:00:01", simulated=True))
    first, second = chart.stretches
    assert first.end < second.start < first.end + 5
    assert second.end - second.start == pytest.approx(100)
    assert chart.x_label.startswith("engine seconds")
    assert "SIMULATED" in texts(chart)
    assert "SIMULATED" not in texts(described(trace()))


def test_windows_are_shaded_in_the_arms_colour_and_labelled_with_their_mean() -> None:
    chart = described(trace(), trace("mtp", "10:03:00", energy_j=2400.0 * 80))
    figure = draw_power("t", chart, [], PictureOptions())
    axes = figure.axes[0]
    shaded = [patch for patch in axes.patches if patch.get_alpha() == 0.13]
    assert [(p.get_x(), p.get_x() + p.get_width()) for p in shaded] == [  # type: ignore[attr-defined]
        pytest.approx(one.window) for one in chart.stretches
    ]
    curves = [line for line in axes.lines if line.get_color() in COLOURS]
    for line, one, colour in zip(curves, chart.stretches, COLOURS[:2], strict=True):
        assert line.get_color() == colour
        assert list(line.get_xdata()) == list(one.times)
        assert list(line.get_ydata()) == list(one.power_w_per_gpu)
    assert {"Off c8\n500 W", "MTP c8\n600 W"} <= {text.get_text() for text in figure.texts}


def test_a_point_without_power_keeps_its_place_and_says_why() -> None:
    chart = described(
        trace(), unknown(arm="mtp", started="10:03:00"), unknown(started="10:05:00", window_s=None)
    )
    known, empty, bare = chart.stretches
    assert (known.reason, empty.reason) == (None, "no_power_source")
    assert empty.end - empty.start == pytest.approx(1.5)
    assert bare.end > bare.start
    figure = draw_power("t", chart, [], PictureOptions())
    found = {text.get_text(): text.get_color() for text in figure.texts}
    assert found["MTP c8\nno_power_source"] == BAD
    partly = described(trace(energy_j=None, reason="power_gap")).stretches[0]
    assert (len(partly.times), partly.mean_w_per_gpu, partly.reason) == (101, None, "power_gap")


def hatches(figure: Figure) -> list[tuple[str, str, float, float]]:
    """Hatch, colour, and first and last place of every strip that has one."""
    return [
        (hatch, to_hex(patch.get_edgecolor()), patch.get_x(), patch.get_x() + patch.get_width())  # type: ignore[attr-defined]
        for patch in figure.axes[0].patches
        if (hatch := patch.get_hatch())
    ]


def legend_hatches(figure: Figure) -> dict[str, str | None]:
    legend = figure.legends[0]
    named = zip(legend.legend_handles, legend.get_texts(), strict=True)
    return {text.get_text(): handle.get_hatch() for handle, text in named if isinstance(handle, Patch)}


def test_every_window_without_a_mean_is_hatched_and_so_is_the_legend() -> None:
    partly = trace(energy_j=None, reason="power_not_covered")
    chart = described(partly, unknown(arm="mtp", started="10:03:00"), trace(started="10:06:00"))
    covered, nothing, _ = chart.stretches
    figure = draw_power("t", chart, [], PictureOptions())
    assert covered.window is not None
    assert hatches(figure) == [
        ("///", BAD, *(pytest.approx(at) for at in covered.window)),
        ("///", BAD, pytest.approx(nothing.start), pytest.approx(nothing.end)),
    ]
    assert legend_hatches(figure) == {"power not known, with the reason": "///"}
    assert legend_hatches(draw_power("t", described(trace()), [], PictureOptions())) == {}


def test_an_invalid_point_is_told_from_a_valid_one() -> None:
    bad = trace("mtp", "10:03:00", broken=("error_rate", "died"))
    chart = described(trace(), bad, unknown(started="10:06:00", broken=("no_steady_window",), window_s=None))
    figure = draw_power("t", chart, [], PictureOptions())
    found = {text.get_text(): text.get_color() for text in figure.texts}
    assert found["MTP c8\n500 W, invalid: error_rate and 1 more"] == BAD
    assert found["Off c8\nno_power_source, invalid: no_steady_window"] == BAD
    assert found["Off c8\n500 W"] == COLOURS[0]
    crossed = [one for one in hatches(figure) if one[0] == "xx"]
    _, invalid, bare = chart.stretches
    assert invalid.window is not None
    assert crossed == [
        ("xx", COLOURS[1], *(pytest.approx(at) for at in invalid.window)),
        ("xx", COLOURS[0], pytest.approx(bare.start), pytest.approx(bare.end)),
    ]
    assert legend_hatches(figure)["invalid, with the rule that it broke"] == "xx"


def test_the_provisioned_constant_is_a_line_where_it_is_known() -> None:
    chart = described(trace())
    watts = (GB200.power_kw_per_gpu or 0) * 1000
    assert chart.provisioned_w_per_gpu == watts
    axes = draw_power("t", chart, [], PictureOptions()).axes[0]
    assert any(list(line.get_ydata()) == [watts, watts] for line in axes.lines)
    assert axes.get_ylim()[1] > watts
    assert any(text.startswith(f"provisioned: {watts:,.6g} W per GB200") for text in texts(chart))
    without = describe_power([trace()], "off", None)
    assert without.provisioned_w_per_gpu is None
    assert not any("provisioned" in text for text in texts(without))


def test_labels_stand_upright_and_apart_where_they_have_no_room() -> None:
    many = [
        trace("off" if i < 20 else "mtp", f"10:{i * 2 // 60 + i:02d}:{i % 60:02d}", load=f"c{2**i}")
        for i in range(40)
    ]
    figure = draw_power("t", described(*many), [], PictureOptions())
    labels = [text for text in figure.texts if " W" in text.get_text()]
    assert len(labels) == 40
    assert {text.get_rotation() for text in labels} == {90}
    boxes = sorted((text.get_window_extent() for text in labels), key=lambda box: box.x0)
    assert all(left.x1 <= right.x0 + 1 for left, right in pairwise(boxes))


def test_spreading_keeps_order_and_bounds() -> None:
    assert spread([1.0, 5.0], 2.0, 0.0, 10.0) == [1.0, 5.0]
    assert spread([9.0, 9.5, 9.9], 2.0, 0.0, 10.0) == [6.0, 8.0, 10.0]
    assert spread([5.0] * 11, 3.0, 0.0, 10.0) == pytest.approx(list(range(11)))
    assert spread([], 1.0, 0.0, 1.0) == []


def test_names_and_reasons_are_text() -> None:
    chart = described(unknown(arm="a$b$c", reason="<script>$x$\x00"), trace("_x" * 200))
    said = texts(chart)
    assert any(text.startswith("a$b$c c8\n<script>$x$\ufffd") for text in said)
    assert max(map(len, said)) < 200


def test_the_command_draws_a_whole_sweep(tmp_path: Path) -> None:
    app = typer.Typer()
    register(app)
    path = tmp_path / "power.svg"
    arguments = ["plot", str(write_sweep(tmp_path)), "--power", "-o", str(path), "--kw-per-gpu", "1.9"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.exception
    root = ET.parse(path).getroot()
    said = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"SIMULATED", "SIMULATED: Power over the sweep small"} <= set(said)
    assert any(text.startswith("provisioned: 1,900 W per GB200") for text in said)
    assert any("no_power_samples" in text for text in said)
    assert any("invalid: client_saturated" in text for text in said)
    assert any(
        text.startswith("Source: small; 6 valid points, 2 invalid; 1 not measured yet;") for text in said
    )


def test_what_is_damaged_is_counted_and_said_without_a_folder(tmp_path: Path) -> None:
    app = typer.Typer()
    register(app)
    sweep = write_sweep(tmp_path)
    next(sweep.glob("mtp*_c16_*/result.json")).write_text("{")
    cut = next(sweep.glob("off*_c16_*/power.parquet"))
    cut.write_bytes(cut.read_bytes()[:100])
    next(sweep.glob("off*_c64_*/power.parquet")).unlink()
    path = tmp_path / "power.svg"
    result = CliRunner().invoke(app, ["plot", str(sweep), "--power", "-o", str(path)])
    assert result.exit_code == 0, result.exception
    picture = path.read_text("utf-8")
    assert "Source: small; 5 valid points, 2 invalid; 1 damaged, not drawn; 1 not measured yet;" in picture
    assert "power.parquet is damaged" in picture
    assert "power.parquet is missing" in picture
    assert str(tmp_path) not in picture


def test_a_sweep_of_damaged_points_says_so(tmp_path: Path) -> None:
    app = typer.Typer()
    register(app)
    sweep = write_sweep(tmp_path)
    for path in sweep.glob("*/result.json"):
        path.write_text("{")
    error = CliRunner().invoke(app, ["plot", str(sweep), "--power", "-o", str(tmp_path / "p.svg")]).exception
    assert isinstance(error, InputError)
    assert "there is nothing to draw" in str(error)
    assert "result.json:1: not JSON" in str(error)
