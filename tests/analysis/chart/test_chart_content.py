"""What a chart shows is what Python's curves say: read off the drawn artists, not off pixels."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

from curve_points import glm5, make_points, point_set
from mtpbench.errors import InputError
from mtpbench_analysis.chart.axes import tick
from mtpbench_analysis.chart.comparison_chart import Chart, describe_chart
from mtpbench_analysis.chart.mpl_chart import draw_figure
from mtpbench_analysis.chart.mpl_style import DIM, PAPER, colour_of, make_figure, marker_of, renderer_of
from mtpbench_analysis.chart.picture import (
    caption,
    choose_comparisons,
    describe_cautions,
    describe_left_out,
    describe_source,
    name_charts,
    write_title,
)
from mtpbench_analysis.chart.style import MARKS, PictureOptions, format_of
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.comparisons import Filter, Question, compare_points
from mtpbench_analysis.frame import CurvePoint, Unused
from mtpbench_analysis.report.data import describe_page
from mtpbench_analysis.report.page import page_style

COLOURS, MARKERS = tuple(mark.light for mark in MARKS), tuple(mark.marker for mark in MARKS)
OFF = ((10.0, 1000.0), (20.0, 800.0), (40.0, 100.0), (30.0, 90.0))
MTP = ((15.0, 700.0), (30.0, 600.0), (60.0, 400.0), (50.0, 100.0))


def pair(*extra: CurvePoint, **shared: Any) -> Comparison:
    """Off with a wide gap (800 to 100) and MTP, which crosses it; both with a point below the front."""
    points = [*make_points("off", *OFF, **shared), *make_points("mtp", *MTP, **shared), *extra]
    (comparison,) = compare_points(point_set(*points), Question(), Filter()).comparisons
    return comparison


def repeated() -> Comparison:
    """Two runs of every recipe, so that the noise is known."""
    points = []
    for factor in (1.0, 1.03):
        for arm, pairs in (("off", OFF), ("mtp", MTP)):
            moved = [(x * factor, y * factor) for x, y in pairs]
            points += make_points(arm, *moved, repeat=int(factor > 1))
    (comparison,) = compare_points(point_set(*points), Question(), Filter()).comparisons
    return comparison


def drawn(comparison: Comparison, **options: Any) -> tuple[Chart, Axes]:
    chosen = PictureOptions(**options)
    chart = describe_chart(comparison, "panel", chosen)
    return chart, draw_figure("title", [chart], ["foot"], chosen).axes[0]


def lines(axes: Axes, colour: str, *, dots: bool) -> list[Any]:
    """The artists of one colour: curve pieces, or marks."""
    return [
        line
        for line in axes.lines
        if to_hex(line.get_color()) == colour and (line.get_marker() not in ("None", "")) == dots
    ]


def crosses(axes: Axes) -> list[Any]:
    return [line for line in axes.lines if line.get_marker() == "x"]


def texts(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [text.get_text() for text in (*axes.texts, *(legend.get_texts() if legend else ()))]


def test_every_drawn_curve_is_the_curve_that_python_reads() -> None:
    comparison = pair()
    _, axes = drawn(comparison)
    for number, reader in enumerate(comparison.readers):
        pieces = lines(axes, COLOURS[number], dots=False)
        assert len(pieces) == len(reader.curve.front) - 1
        for line in pieces:
            x, y = line.get_data()
            assert y == pytest.approx(reader.serves(x), rel=1e-12)
        assert pieces[0].get_xdata()[0] == reader.curve.range_tps[0]
        assert pieces[-1].get_xdata()[-1] == reader.curve.range_tps[1]


def test_a_gap_too_wide_for_a_ratio_is_dashed_and_only_that() -> None:
    _, axes = drawn(pair())
    styles = {
        number: [one.is_dashed() for one in lines(axes, COLOURS[number], dots=False)] for number in (0, 1)
    }
    assert styles == {0: [False, True], 1: [False, False]}
    assert "gap too wide for a ratio" in texts(axes)
    _, narrow = drawn(pair(), front_only=True)
    assert "below the front" not in texts(narrow)


def test_points_are_filled_on_the_front_hollow_below_it_and_crosses_where_invalid() -> None:
    comparison = pair()
    _, axes = drawn(comparison)
    for number, curve in enumerate(comparison.curves):
        hollow, filled = sorted(
            lines(axes, COLOURS[number], dots=True), key=lambda one: one.get_markerfacecolor() != PAPER
        )
        assert hollow.get_markerfacecolor() == PAPER
        assert filled.get_markerfacecolor() == COLOURS[number]
        assert filled.get_marker() == hollow.get_marker() == MARKERS[number]
        assert list(filled.get_xdata()) == [knot.x for knot in curve.front]
        assert list(filled.get_ydata()) == [knot.y for knot in curve.front]
        assert len(hollow.get_xdata()) == len(curve.measured) - len(curve.front) == 1
    _, front = drawn(comparison, front_only=True)
    assert len(lines(front, COLOURS[0], dots=True)) == 1


def test_a_cross_has_the_colour_and_the_mark_of_the_arm_that_failed() -> None:
    broken: dict[str, Any] = {"valid": False, "reasons": ("died",)}
    bad = [*make_points("mtp", (25.0, 650.0), **broken), *make_points("off", (12.0, 900.0), **broken)]
    comparison = pair(*bad, *make_points("never valid", (33.0, 300.0), **broken))
    _, axes = drawn(comparison)
    found = {to_hex(one.get_color()): (one.get_xdata()[0], one.get_ydata()[0]) for one in crosses(axes)}
    assert found == {COLOURS[1]: (25.0, 650.0), COLOURS[0]: (12.0, 900.0), DIM: (33.0, 300.0)}
    beneath = {
        line.get_marker(): line.get_xdata()[0]
        for line in axes.lines
        if len(line.get_xdata()) == 1 and line.get_marker() in MARKERS and line.get_markeredgewidth() == 0.8
    }
    assert beneath == {MARKERS[0]: 12.0, MARKERS[1]: 25.0}
    assert "invalid (3)" in texts(axes)
    assert crosses(drawn(comparison, front_only=True)[1]) == []


def test_a_cross_belongs_to_the_curve_that_the_point_would_have_entered() -> None:
    points = [*make_points("off", *OFF, image="a"), *make_points("mtp", *MTP, image="a")]
    points += make_points("mtp", *((x * 1.1, y * 1.1) for x, y in MTP), image="b")
    points += make_points("mtp", (25.0, 650.0), image="b", valid=False, reasons=("died",))
    (comparison,) = compare_points(point_set(*points), Question(), Filter()).comparisons
    (series,) = [one for one in describe_chart(comparison).series if one.invalid]
    assert comparison.curves[series.number].shared("image") == "b"


def test_marks_on_the_edge_of_the_axes_are_whole() -> None:
    points = [*make_points("off", (10.0, 900.0), (100.0, 0.1)), *make_points("mtp", (20.0, 900.0))]
    points += make_points("mtp", (100.0, 1000.0), valid=False, reasons=("died",))
    (comparison,) = compare_points(point_set(*points), Question(), Filter()).comparisons
    _, axes = drawn(comparison)
    assert (axes.get_xlim()[1], axes.get_ylim()[1]) == (100, 1000)
    marks = [line for line in axes.lines if line.get_marker() not in ("None", "")]
    assert len(marks) >= 4
    assert not any(line.get_clip_on() for line in marks)
    ringed = drawn(pair())[1]
    assert not any(one.get_clip_on() for one in ringed.collections if isinstance(one, PathCollection))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0"), (0.1 + 0.2, "0.3"), (0.00001, "0.00001"), (1500.0, "1,500"), (500_000.0, "500,000")),
        *((1e6, "1M"), (2.5e6, "2.5M"), (1e8, "100M"), (1.5e9, "1,500M"), (2e12, "2T")),
    ],
)
def test_ticks_are_numbers_without_exponents(value: float, text: str) -> None:
    assert tick(value) == text


def test_the_numbers_at_the_axes_lie_within_the_picture() -> None:
    points = [*make_points("off", (100.0, 1e8), (1e5, 1e7)), *make_points("mtp", (200.0, 9e7), (9e4, 2e7))]
    (comparison,) = compare_points(point_set(*points), Question(), Filter()).comparisons
    for log in (False, True):
        _, axes = drawn(comparison, log=log)
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.canvas.draw()
        labels = []
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            labels += [one.label1 for one in axis.get_major_ticks() if low <= one.get_loc() <= high * 1.0001]
        said = {text.get_text() for text in labels}
        assert {"100,000", "100M"} <= said
        assert not any("e" in text for text in said)
        for text in (*labels, axes.yaxis.label):
            box = text.get_window_extent()
            assert 0 <= box.x0 < box.x1 <= figure.bbox.x1, text


def test_colours_are_those_of_the_report_and_no_two_curves_look_alike() -> None:
    light = page_style().split("@media")[0]
    assert tuple(re.findall(r"--c\d+: (#\w{6})", light)) == COLOURS
    assert len({(colour_of(i), marker_of(i)[0]) for i in range(72)}) == 72


def test_targets_are_thin_lines_with_their_numbers_and_far_ones_are_left_to_the_tables() -> None:
    points = point_set(*make_points("off", *OFF), *make_points("mtp", *MTP))
    (comparison,) = compare_points(points, Question(targets_tps=(13.5, 40, 900)), Filter()).comparisons
    _, axes = drawn(comparison)
    upright = {
        line.get_xdata()[0] for line in axes.lines if line.get_linewidth() < 1 and len(line.get_xdata()) == 2
    }
    assert upright == {13.5, 40}
    assert {"13.5", "40"} <= set(texts(axes))
    assert axes.get_xlim()[1] < 100


def test_the_crossing_is_ringed_where_python_finds_it() -> None:
    points = point_set(*make_points("off", *OFF[:2]), *make_points("mtp", (10.0, 900.0), (20.0, 850.0)))
    (comparison,) = compare_points(points, Question(), Filter()).comparisons
    (crossing,) = comparison.crossings["MTP"]
    _, axes = drawn(comparison)
    rings = [one for one in axes.collections if isinstance(one, PathCollection)]
    assert rings[0].get_offsets()[0].tolist() == [crossing.interactivity_tps, crossing.tput_tps_per_gpu]
    assert sum(text.startswith("equal at") for text in texts(axes)) == 1


def test_a_crossing_somewhere_in_a_wide_gap_has_no_ring() -> None:
    comparison = pair()
    assert [crossing.wide_gap for crossing in comparison.crossings["MTP"]] == [True]
    chart, axes = drawn(comparison)
    assert chart.crossings == ()
    assert not any(text.startswith("equal at") for text in texts(axes))


def test_bands_are_those_of_the_report() -> None:
    comparison = repeated()
    described = describe_page([comparison], [write_document(comparison)], [describe_chart(comparison)])
    curves = described["comparisons"][0]["curves"]
    for metric, name in (("total", "band"), ("gain", "gain_band")):
        chart, axes = drawn(comparison, y_key=metric)
        assert any("95% band" in text for text in texts(axes))
        for one, curve in zip(chart.series, curves, strict=True):
            if curve[name] is None:
                assert one.band is None
            else:
                assert one.band is not None
                mine = np.column_stack([one.band.x, one.band.low, one.band.high])
                assert mine == pytest.approx(np.array(curve[name]), rel=1e-6)
    for one in describe_chart(pair(), "", PictureOptions()).series:
        assert one.band is not None, "of single runs the shape between points is in doubt"


def test_cost_follows_from_the_same_curve_and_the_price() -> None:
    comparison = repeated()
    price = comparison.settings.economics.price()  # type: ignore[union-attr]
    chart, axes = drawn(comparison, y_key="cost")
    assert price is not None
    for one, reader in zip(chart.series, comparison.readers, strict=True):
        for piece in one.pieces:
            assert piece.y == pytest.approx(price * 1e6 / (3600 * reader.serves(piece.x)), rel=1e-12)
        assert one.band is not None
        assert (one.band.low < one.band.high).all()
    assert axes.yaxis.get_major_formatter()(1) == "$1"
    assert any("B200 at $" in note for note in chart.notes)


def test_gain_is_the_ratio_at_equal_interactivity_within_the_shared_range_only() -> None:
    comparison = pair()
    base, other = comparison.readers
    chart, axes = drawn(comparison, y_key="gain")
    off, mtp = chart.series
    assert (off.dots, off.pieces) == ((), ())
    xs = np.concatenate([piece.x for piece in mtp.pieces])
    ys = np.concatenate([piece.y for piece in mtp.pieces])
    assert (xs.min(), xs.max()) == (15.0, 40.0)
    assert ys == pytest.approx(other.serves(xs) / base.serves(xs))
    # At 30 Off may serve anything from 100 to 800.
    assert [dot.x for dot in mtp.dots] == [15.0]
    assert [piece.wide for piece in mtp.pieces] == [False, True, True]
    assert any(list(line.get_ydata()) == [1.0, 1.0] for line in axes.lines)


def test_output_is_drawn_where_it_was_recorded_and_missing_points_are_said() -> None:
    whole = pair(output_tps_per_gpu=50.0, input_tps_per_gpu=450.0)
    chart, _ = drawn(whole, y_key="output")
    assert {dot.y for one in chart.series for dot in one.dots} == {50.0}
    assert chart.notes == ()
    empty, axes = drawn(pair(), y_key="output")
    assert len(empty.values) == 0
    assert empty.notes[0] == "4 of 4 points of Off did not record their output tokens."
    assert any(text.startswith("nothing to show") for text in texts(axes))


def test_what_belongs_to_recipes_has_points_and_a_guiding_line_but_no_curve() -> None:
    chart, axes = drawn(pair(ttft_from_schedule_p50_s=0.5), y_key="ttft-from-schedule")
    assert chart.guided
    assert {dot.y for one in chart.series for dot in one.dots} == {0.5}
    assert [(one.pieces, one.band) for one in chart.series] == [((), None), ((), None)]
    assert chart.crossings == ()
    for number, curve in enumerate(pair().curves):
        (guide,) = lines(axes, COLOURS[number], dots=False)
        assert list(guide.get_xdata()) == [knot.x for knot in curve.front]
    assert caption([chart]).startswith(
        "Lines join measured points of the front: this metric belongs to recipes"
    )
    assert axes.get_ylabel() == "TTFT from the schedule, median, s"
    empty = describe_chart(pair(), "", PictureOptions(y_key="interactivity-p99"))
    assert empty.notes[0] == "4 of 4 points of Off did not record interactivity, p99, tok/s/user."


def test_loads_stand_beside_knots_and_never_on_each_other() -> None:
    (comparison,) = compare_points(glm5(), Question(), Filter(hardware="b200")).comparisons
    _, axes = drawn(comparison, loads=True)
    loads = [text for text in axes.texts if re.fullmatch(r"c\d+", text.get_text())]
    assert len(loads) > 10
    boxes = [text.get_window_extent() for text in loads]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    assert not [text for text in drawn(comparison)[1].texts if re.fullmatch(r"c\d+", text.get_text())]


def test_both_axes_are_logarithmic_on_demand_and_begin_at_zero_otherwise() -> None:
    _, plain = drawn(pair())
    assert (plain.get_xlim()[0], plain.get_ylim()[0]) == (0, 0)
    chart, log = drawn(pair(), log=True)
    assert (log.get_xscale(), log.get_yscale()) == ("log", "log")
    low, high = log.get_ylim()
    assert low < chart.values[:, 1].min() < chart.values[:, 1].max() < high


def test_the_legend_covers_no_point() -> None:
    for metric in ("total", "cost", "gain"):
        chart, axes = drawn(repeated(), y_key=metric)
        box = axes.get_legend().get_window_extent()
        places = axes.transData.transform(chart.values)
        assert not any(box.contains(x, y) for x, y in places)


@pytest.mark.parametrize("simulated", [True, False])
def test_simulated_is_written_across_a_panel_exactly_where_it_is(simulated: bool) -> None:
    comparison = pair(simulated=simulated)
    _, axes = drawn(comparison)
    assert ("SIMULATED" in texts(axes)) == simulated
    assert write_title([comparison]) == ("SIMULATED: " if simulated else "") + "MTP versus Off"
    chart = describe_chart(comparison, "", PictureOptions())
    kind = "simulated" if simulated else "measured"
    assert caption([chart]).startswith(f"Curves: between {kind} points of the front")
    both = [chart, replace(chart, simulated=not simulated)]
    assert caption(both).startswith("Curves: between measured or simulated points")


def test_the_panels_with_the_most_knots_are_chosen_and_told_apart() -> None:
    points = []
    for isl, pairs in ((1024, OFF[:1]), (8192, OFF), (2048, OFF[:2])):
        points += make_points("off", *pairs, isl=isl, osl=1) + make_points("mtp", *pairs, isl=isl, osl=1)
    comparisons = compare_points(point_set(*points), Question(), Filter()).comparisons
    assert [one.baseline.shared("isl") for one in choose_comparisons(comparisons, 2)] == [8192, 2048]
    assert name_charts(comparisons)[0] == "b200, ISL 1024 / OSL 1"
    twice = name_charts([comparisons[0], comparisons[0]])
    assert len(set(twice)) == 2


def test_what_differs_and_what_is_mixed_is_said() -> None:
    same = pair()
    other = pair(*make_points("mtp", (70.0, 300.0), engine="x"))
    assert describe_cautions([same], ("image",))[-1].startswith("The sides differ in more than speculation")
    assert "in 2 of 2 charts" in describe_cautions([same, other], ())[-1]


def test_the_source_line_names_files_without_their_folders() -> None:
    points = point_set(
        *make_points("off", *OFF, date="2026-01-02"), *make_points("mtp", *MTP, date="2026-01-03")
    )
    line = describe_source(["rows.json"], points, "1.2")
    assert line == "Source: rows.json; 8 valid points, 0 invalid; 2026-01-02 to 2026-01-03; mtpbench 1.2."


def test_the_source_line_says_what_could_not_be_drawn_but_not_what_is_there_twice() -> None:
    unused = [
        *(Unused(what=f"p{i}", reason="planned, not measured yet", kind="planned") for i in range(3)),
        Unused(what="q", reason="damaged: /home/me/q/result.json: not JSON", kind="damaged"),
        *(Unused(what="r", reason="server_died: exit code 1", kind="unusable") for _ in range(2)),
        Unused(what="s", reason="the same as line 3; kept once", kind="repeated"),
        Unused(what="points.csv: column x", reason="no field of that name; ignored", kind="note"),
    ]
    points = replace(point_set(*make_points("off", *OFF)), unused=tuple(unused))
    line = describe_source(["r"], points, "1")
    said = "1 damaged, not drawn; 2 without figures, not drawn; 3 not measured yet"
    assert line == f"Source: r; 4 valid points, 0 invalid; {said}; mtpbench 1."


def test_what_is_said_to_draw_all_comparisons_is_possible() -> None:
    assert describe_left_out(12, 67)[1] == "--panels 67 draws all"
    said, remedy = describe_left_out(12, 200)
    assert said.startswith("188 of 200 comparisons")
    assert remedy.startswith("a picture holds at most 90: choose with --hardware")


def test_texts_are_measured_without_the_pixels_of_the_whole_picture() -> None:
    figure = make_figure(20.0, 90.0, 150)
    renderer = renderer_of(figure)
    assert renderer.width * renderer.height < 100
    for rotation in (0, 90):
        text = figure.text(0.3, 0.3, "Off c64\n862 W", fontsize=7, rotation=rotation)
        whole = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        assert text.get_window_extent(renderer).bounds == text.get_window_extent(whole).bounds


@pytest.mark.parametrize("name", ["chart.jpg", "chart", "svg", "chart.svg.gz"])
def test_another_ending_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"\.svg, \.png or \.pdf is needed"):
        format_of(name)
    assert format_of("A.SVG") == "svg"


@pytest.mark.parametrize(
    "size", [{"width_in": 0.5}, {"height_in": float("nan")}, {"dpi": 5}, {"width_in": 90.0, "dpi": 1200}]
)
def test_sizes_that_make_no_picture_are_refused(size: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"--(width|height|dpi)"):
        PictureOptions(**size)


def test_a_picture_too_small_for_its_panels_is_refused() -> None:
    chart = describe_chart(pair(), "p", PictureOptions())
    with pytest.raises(InputError, match="--width: too small"):
        draw_figure("t", [chart] * 6, [], PictureOptions(width_in=5.0))
    with pytest.raises(InputError, match="--height: too small"):
        draw_figure("t", [chart] * 6, [], PictureOptions(height_in=3.0))


def test_a_picture_of_too_many_pixels_is_refused_with_the_resolution_that_would_do() -> None:
    chart = describe_chart(pair(), "p", PictureOptions())
    with pytest.raises(InputError, match=r"--dpi 600: .* choose at most 1\d\d, or draw fewer with --panels"):
        draw_figure("t", [chart] * 90, [], PictureOptions(dpi=600))
