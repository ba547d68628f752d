"""The curve in a terminal: marks, fronts, axes, and what has no room or can't be drawn."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from curve_points import glm5, make_curve, make_points
from mtpbench_analysis.chart.axes import LARGEST, linear_axis, short_tick, throughput_axis
from mtpbench_analysis.chart.comparison_chart import Dot, Series
from mtpbench_analysis.chart.terminal_curve import TableWithCurve, TerminalCurve, draw, series_of
from mtpbench_analysis.curves.curve import build_curves

BRAILLE = {chr(code) for code in range(0x2801, 0x2900)}


Pairs = tuple[tuple[float, float], ...]


def arm(label: str, points: Pairs = (), invalid: Pairs = (), front: Pairs = ()) -> Series:
    """A series of pairs; those of the front are points too."""
    dots = [Dot(x=x, y=y, on_front=True) for x, y in front] + [Dot(x=x, y=y) for x, y in points]
    return Series(number=0, label=label, dots=tuple(dots), invalid=tuple(Dot(x=x, y=y) for x, y in invalid))


def text(*series: Series, columns: int = 76, rows: int = 16, **how: bool) -> str:
    return draw(series, (columns, rows), **how).plain


def printed(renderable: object, columns: int, *, terminal: bool) -> str:
    out = io.StringIO()
    Console(file=out, width=columns, force_terminal=terminal, color_system=None).print(renderable)
    return out.getvalue()


def test_a_real_pair_has_a_mark_for_each_point_a_front_and_a_legend() -> None:
    made = text(*series_of(build_curves(glm5().points)))
    plot = made.rpartition("└")[0]
    assert (plot.count("●"), plot.count("▲")) == (7, 7)
    assert BRAILLE & set(plot)
    assert made.startswith("tok/s/GPU\n2,000 ┤")
    assert made.splitlines()[-3].endswith("tok/s/user")
    assert made.endswith("● MTP (7)  ▲ Off (7)  ⠒⠒ front, interpolated")
    assert "SIMULATED" not in made


def test_the_fastest_point_is_on_the_right_and_the_one_that_serves_most_on_top() -> None:
    lines = text(arm("Off", points=((20.0, 900.0), (80.0, 100.0)))).splitlines()
    marks = [(line.index("●"), row) for row, line in enumerate(lines[:-1]) if "●" in line]
    (left, high), (right, low) = marks
    assert left < right
    assert high < low


def test_dots_lie_only_between_the_knots() -> None:
    trace = arm("Off", front=((40.0, 900.0), (60.0, 300.0)), points=((80.0, 20.0),))
    lines = text(trace).splitlines()[1:-3]
    dots = [column for line in lines for column, one in enumerate(line) if one in BRAILLE]
    marks = [column for line in lines for column, one in enumerate(line) if one == "●"]
    assert min(dots) >= min(marks) - 1
    assert max(dots) <= (min(marks) + max(marks)) / 2 + 1


def test_without_braille_everything_is_ascii() -> None:
    off = arm("Off", front=((20.0, 900.0), (80.0, 100.0)))
    mtp = arm("MTP", points=((40.0, 900.0),), invalid=((60.0, 200.0),))
    made = text(off, mtp, ascii_only=True, simulated=True)
    assert made.isascii()
    assert "o Off (2)  + MTP (1)  x invalid (1)  .. front, interpolated" in made


def test_the_console_decides_what_its_encoding_takes() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=out, width=60).print(TerminalCurve(series=series_of(build_curves(glm5().points))))
    out.flush()
    assert b"o MTP (7)" in out.buffer.getvalue()  # type: ignore[attr-defined]


def test_invalid_points_are_crosses_and_never_on_a_front() -> None:
    points = make_points("mtp", (40.0, 500.0), (60.0, 300.0))
    lost = make_points("mtp", (50.0, 9000.0), valid=False)
    (trace,) = series_of(build_curves(points), lost)
    assert [(dot.x, dot.y) for dot in trace.invalid] == [(50.0, 9000.0)]
    assert [dot.on_front for dot in trace.dots] == [True, True]
    assert "x invalid (1)" in text(trace)


def test_an_arm_without_points_leaves_the_others_their_marks() -> None:
    off, mtp = series_of([make_curve("mtp", (40.0, 500.0))], arms=("off", "mtp"))
    assert (off.label, off.dots) == ("Off", ())
    plot = text(off, mtp).rpartition("└")[0]
    assert "▲" in plot
    assert "●" not in plot


def test_an_arm_of_invalid_points_alone_is_drawn() -> None:
    made = text(*series_of([], make_points("mtp", (40.0, 500.0), valid=False)))
    assert "▲" not in made
    assert "● MTP (0)  x invalid (1)" in made


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize(("columns", "rows"), [(76, 16), (40, 12), (26, 8), (20, 16), (9, 3), (60, 2)])
def test_a_simulation_says_so_at_every_size(columns: int, rows: int, simulated: bool) -> None:
    made = text(arm("Off", points=((1.0, 2.0),)), columns=columns, rows=rows, simulated=simulated)
    assert ("SIMULATED" in made) is simulated


def test_throughputs_46_times_apart_stand_on_a_logarithmic_axis_that_says_so() -> None:
    wide = arm("Off", points=((27.0, 2522.0), (100.0, 54.2)))
    assert text(wide).startswith("tok/s/GPU, log scale")
    assert text(arm("Off", points=((27.0, 800.0), (100.0, 100.0)))).startswith("tok/s/GPU\n")


@pytest.mark.parametrize(
    "points",
    [
        ((50.0, 500.0),),
        ((50.0, 500.0), (50.0, 500.0), (50.0, 500.0)),
        ((0.0, 0.0),),
        ((50.0, 0.0), (60.0, 500.0)),
        ((5e-324, 5e-324), (LARGEST, LARGEST)),
        ((1e-12, 1e-12), (2e-12, 2e-12)),
    ],
)
def test_odd_points_are_drawn(points: tuple[tuple[float, float], ...]) -> None:
    made = text(arm("Off", points=points))
    assert "●" in made.rpartition("└")[0]
    assert f"Off ({len(points)})" in made


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_what_can_not_be_drawn_is_counted(bad: float) -> None:
    trace = arm("Off", points=((50.0, 500.0), (60.0, bad)), invalid=((bad, 3.0),))
    made = text(trace)
    assert "● Off (1)" in made
    assert "2 not drawn" in made
    assert text(arm("Off", points=((bad, 1.0),))) == "no point to draw yet (1 can not be drawn)"


def test_no_points_is_a_sentence() -> None:
    assert text() == text(arm("Off")) == "no point to draw yet"


_values = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 50.0, 1e-9, 1e15]), st.floats(0.1, 5000.0))
_pairs = st.lists(st.tuples(_values, _values), max_size=6).map(tuple)
_traces = st.lists(
    st.builds(arm, st.text("ab ", max_size=60), points=_pairs, invalid=_pairs, front=_pairs),
    max_size=8,
)


@given(_traces, st.integers(0, 130), st.integers(0, 40), st.booleans(), st.booleans())
def test_nothing_crashes_and_nothing_is_larger_than_its_room(
    series: list[Series], columns: int, rows: int, simulated: bool, ascii_only: bool
) -> None:
    made = draw(series, (columns, rows), simulated=simulated, ascii_only=ascii_only)
    lines = made.split("\n")
    assert len(lines) <= max(1, rows)
    assert all(line.cell_len <= columns for line in lines)


@given(st.lists(st.floats(0, LARGEST), max_size=8), st.integers(1, 20))
def test_axes_hold_their_values_and_label_few_ticks(values: list[float], count: int) -> None:
    for axis in (linear_axis(values, count, from_zero=False), throughput_axis(values, count)):
        assert axis.low < axis.high
        assert all(0 <= axis.share(value) <= 1 for value in values)
        assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
        assert len(axis.ticks) <= count + 3
        assert max(map(len, axis.labels), default=0) <= 9


def test_ticks_are_short() -> None:
    values = (0.0, 0.25, 5.0, 2500.0, 250000.0, 2.5e6, 1e-5)
    assert [short_tick(v) for v in values] == ["0", "0.25", "5", "2,500", "250,000", "2.5e+06", "1e-05"]


def test_a_curve_stands_beside_a_table_where_there_is_room_and_else_below() -> None:
    table = Table("a heading of some length")
    table.add_row("a row of it")
    both = TableWithCurve(table, None, TerminalCurve(series=series_of(build_curves(glm5().points))))
    wide, narrow = (printed(both, columns, terminal=True).splitlines() for columns in (120, 60))
    assert any("heading" in line and "┤" in line for line in wide)
    assert not any("heading" in line and "┤" in line for line in narrow)
    assert len(narrow) > len(wide)
    assert all(len(line) <= 60 for line in narrow)


def test_a_curve_for_terminals_is_in_no_pipe() -> None:
    curve = TerminalCurve(series=series_of(build_curves(glm5().points)), terminals_only=True)
    assert printed(curve, 80, terminal=False) == ""
    assert "MTP (7)" in printed(curve, 80, terminal=True)
    table = Table("x")
    assert printed(TableWithCurve(table, None, curve), 80, terminal=False) == printed(
        table, 80, terminal=False
    )
