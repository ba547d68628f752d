"""Where speculation begins to pay, and who wins where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from curve_points import make_curve
from mtpbench_analysis.crossing_sentences import explain_no_crossing_interval
from mtpbench_analysis.curves.cells import Span
from mtpbench_analysis.curves.crossings import find_crossings, find_leads
from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.curves.curve_reader import CurveReader
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.sentences import explain_no_ratio


def reader(arm: str, *pairs: tuple[float, float], stream: int = 0, **shared: Any) -> CurveReader:
    return CurveReader(curve=make_curve(arm, *pairs, **shared), stream=stream)


def test_two_straight_lines_cross_where_geometry_says() -> None:
    off, mtp = reader("off", (10.0, 1000.0), (50.0, 200.0)), reader("mtp", (10.0, 800.0), (50.0, 400.0))
    (crossing,) = find_crossings(off, mtp)
    assert crossing.interactivity_tps == pytest.approx(30, rel=1e-8)
    assert crossing.tput_tps_per_gpu == pytest.approx(600, rel=1e-8)
    assert crossing.wins_above
    assert crossing.interval is not None, "the shape between the points is in doubt, whatever runs do"
    assert crossing.interval.low < 30 < crossing.interval.high
    (mirrored,) = find_crossings(mtp, off)
    assert not mirrored.wins_above


def test_curves_that_never_meet_have_no_crossing() -> None:
    off = reader("off", (10.0, 1000.0), (50.0, 200.0))
    assert find_crossings(off, reader("mtp", (10.0, 1100.0), (50.0, 300.0))) == ()
    assert find_crossings(off, reader("mtp", (60.0, 100.0), (90.0, 50.0))) == ()
    assert find_crossings(off, reader("mtp", (60.0, 100.0))) == ()


def test_a_crossing_between_far_knots_is_marked() -> None:
    off = reader("off", (10.0, 1000.0), (50.0, 100.0))
    (crossing,) = find_crossings(off, reader("mtp", (10.0, 800.0), (50.0, 400.0)))
    assert crossing.wide_gap
    assert crossing.gap == Span(low=10, high=50)
    assert (crossing.interactivity_tps, crossing.tput_tps_per_gpu, crossing.interval) == (None, None, None)
    assert crossing.wins_above


def test_curves_that_may_or_may_not_meet_within_a_wide_gap_have_no_crossing() -> None:
    """MTP wins at both ends of the gap; a line between the knots would cross it twice, and nobody knows."""
    off = reader("off", (10.0, 3000.0), (20.0, 2500.0), (80.0, 100.0))
    mtp = reader("mtp", (12.0, 3300.0), (30.0, 2000.0), (90.0, 900.0))
    assert off.serves([25.0]) > mtp.serves([25.0])
    assert find_crossings(off, mtp) == ()


def test_a_wide_gap_leaves_open_who_wins_as_far_as_its_knots_do() -> None:
    off = reader("off", (10.0, 3000.0), (20.0, 2500.0), (80.0, 100.0))
    mtp = reader("mtp", (10.0, 3300.0), (22.0, 2700.0), (42.0, 700.0), (90.0, 650.0))
    leads = find_leads([off, mtp])
    # MTP falls below what Off served at 20 before 42; from there on Off may serve more.
    (start,) = np.interp([2500.0], [700.0, 2700.0], [42.0, 22.0])
    at, low, high = next((lead, lead.low_tps, lead.high_tps) for lead in leads if lead.possible)
    assert (low, high) == (pytest.approx(start, rel=0.05), 80)
    assert mtp.serves([low])[0] == pytest.approx(2500, rel=1e-6)
    assert (at.possible, at.leaders, at.is_settled, at.share_of_draws) == ((0, 1), (0, 1), False, None)
    assert at.ratio is not None
    assert (at.ratio.value, at.equals) == (None, ())
    assert [lead.winner for lead in leads if not lead.possible] == [1] * (len(leads) - 1)


def test_two_equal_curves_with_a_wide_gap_are_no_equals_in_it() -> None:
    line = ((10.0, 1000.0), (20.0, 900.0), (60.0, 50.0))
    leads = find_leads([reader("off", *line), reader("mtp", *line, stream=1)])
    assert [(lead.low_tps, lead.high_tps, lead.equals, lead.possible) for lead in leads] == [
        (0, 10, (1,), ()),
        (10, 20, (1,), ()),
        (20, 60, (), (0, 1)),
    ]


def noisy(
    random: np.random.Generator, arm: str, pairs: list[tuple[float, float]], stream: int
) -> CurveReader:
    points = [
        CurvePoint(
            arm=arm,
            interactivity_tps=x * float(np.exp(0.02 * random.standard_normal())),
            tput_tps_per_gpu=y * float(np.exp(0.02 * random.standard_normal())),
            concurrency=i,
        )
        for i, (x, y) in enumerate(pairs)
        for _ in range(3)
    ]
    (curve,) = build_curves(points)
    return CurveReader(curve=curve, stream=stream)


def test_the_interval_of_a_crossing_holds_what_it_promises() -> None:
    random = np.random.default_rng(11)
    off = [(10.0, 1000.0), (30.0, 600.0), (50.0, 200.0)]
    mtp = [(10.0, 800.0), (30.0, 620.0), (50.0, 400.0)]
    (true,) = find_crossings(reader("off", *off), reader("mtp", *mtp))
    covered = asked = 0
    for _ in range(150):
        found = find_crossings(noisy(random, "off", off, 0), noisy(random, "mtp", mtp, 1))
        if len(found) == 1 and found[0].interval is not None:
            asked += 1
            covered += found[0].interval.low <= true.interactivity_tps <= found[0].interval.high
    assert asked > 130
    assert covered / asked >= 0.92


def test_a_crossing_that_noise_may_undo_has_no_interval() -> None:
    known = {"tput_rel_se": 0.2, "interactivity_rel_se": 0.01, "se_df": 20}
    off = reader("off", (10.0, 1000.0), (50.0, 200.0), **known)
    mtp = reader("mtp", (10.0, 990.0), (50.0, 205.0), stream=1, **known)
    (crossing,) = find_crossings(off, mtp)
    assert crossing.interval is None
    assert "of the draws do not cross" in str(explain_no_crossing_interval(crossing))


def test_the_depth_that_wins_at_each_interactivity() -> None:
    """Off at large batches, one draft in the middle, three where nobody else is fast enough."""
    readers = [
        reader("off", (10.0, 1000.0), (50.0, 200.0)),
        reader("mtp-k1", (10.0, 900.0), (60.0, 300.0)),
        reader("mtp-k3", (10.0, 600.0), (90.0, 200.0)),
    ]
    leads = find_leads(readers)
    # Below 10 nobody was measured: what wins there wins among the best points only.
    assert [(lead.winner, lead.is_settled) for lead in leads] == [
        (0, False),
        (0, True),
        (1, True),
        (2, True),
        (2, True),
    ]
    assert leads[0].low_tps == 0
    assert [lead.high_tps for lead in leads[:-1]] == [after.low_tps for after in leads[1:]]
    # 1000 − 20 (x − 10) = 900 − 12 (x − 10); 900 − 12 (x − 10) = 600 − 5 (x − 10)
    assert [lead.high_tps for lead in leads] == pytest.approx([10, 22.5, 10 + 300 / 7, 60, 90])
    assert [lead.ratio and lead.ratio.bound for lead in leads] == [
        "best_points",
        "exact",
        "exact",
        "exact",
        None,
    ]


def test_a_lead_has_no_ratio_where_the_table_would_have_none() -> None:
    """46 times between two knots: whatever a curve through them says in the middle, nobody measured it."""
    off = reader("off", (10.0, 1000.0), (48.0, 900.0), (100.0, 20.0))
    mtp = reader("mtp", (40.0, 2000.0), (120.0, 500.0))
    leads = find_leads([off, mtp])
    # At 98.67 MTP serves 900, as Off did at 48: beyond it Off may serve more.
    ends = [0, 10, 40, pytest.approx(40 + 80 * 1100 / 1500), 100, 120]
    assert [lead.low_tps for lead in leads] == ends[:-1]
    assert [lead.high_tps for lead in leads] == ends[1:]
    below, slower, gap, last, alone = leads
    # MTP was not measured below 40: its best point beats Off's; how much more it would serve nobody knows.
    assert [(lead.leaders, lead.is_settled) for lead in leads] == [
        ((1,), False),
        ((1,), True),
        ((1,), True),
        ((0, 1), False),
        ((1,), True),
    ]
    assert last.ratio is not None
    assert last.ratio.value is None
    assert below.ratio is not None
    assert slower.ratio is not None
    assert (below.ratio.bound, slower.ratio.bound) == ("best_points", "at_least")
    assert gap.ratio is not None
    assert gap.ratio.value is None
    assert str(explain_no_ratio(gap.ratio)).startswith("withheld: knots 45.0× apart")
    assert alone.ratio is None


def test_a_rival_that_was_not_measured_so_slow_may_do_better() -> None:
    off = reader("off", (10.0, 1000.0), (50.0, 200.0))
    mtp = reader("mtp", (40.0, 300.0), (60.0, 100.0))
    leads = find_leads([off, mtp])
    first = next(lead for lead in leads if lead.low_tps == 10)
    assert (first.winner, first.is_settled) == (0, False)
    assert first.ratio is not None
    assert first.ratio.bound == "at_most"


def test_a_lead_says_how_often_noise_would_change_it() -> None:
    known = {"tput_rel_se": 0.01, "interactivity_rel_se": 0.01, "se_df": 20}
    line = ((10.0, 1000.0), (20.0, 900.0))
    off = reader("off", *line, **known)
    far = [off, reader("mtp", *((x, y / 2) for x, y in line), stream=1, **known)]
    near = [off, reader("mtp", *((x, y * 0.993) for x, y in line), stream=1, **known)]
    # Below the fronts no ratio is exact, so nothing is said of the draws either.
    assert [lead.share_of_draws for lead in find_leads(far)[:2]] == [None, 1.0]
    share = find_leads(near)[1].share_of_draws
    assert share is not None
    assert 0.5 < share < 0.8


def test_of_two_identical_curves_neither_wins() -> None:
    line = ((20.0, 1000.0), (30.0, 700.0), (40.0, 500.0))
    # The arithmetic of two splines leaves differences of rounding: they are no crossings.
    shaken = tuple((x, y * (1 + 1e-15 * (-1) ** i)) for i, (x, y) in enumerate(line))
    readers = [reader("off", *line), reader("mtp", *shaken)]
    leads = find_leads(readers)
    assert find_crossings(*readers) == ()
    assert [(lead.low_tps, lead.high_tps) for lead in leads] == [(0, 20), (20, 40)]
    assert [(lead.leaders, lead.is_settled) for lead in leads] == [((0, 1), False), ((0, 1), True)]
    assert {lead.ratio and lead.ratio.is_equal for lead in leads} == {True}


def test_curves_that_differ_by_less_than_a_ratio_shows_are_equal() -> None:
    known = {"tput_rel_se": 0.01, "interactivity_rel_se": 0.01, "se_df": 20}
    off = reader("off", (10.0, 1000.0), (50.0, 210.0), **known)
    crossed = reader("mtp", (10.0, 996.0), (50.0, 210.5), stream=1, **known)
    (_, tie) = find_leads([off, crossed])
    assert (tie.low_tps, tie.high_tps, set(tie.leaders), tie.share_of_draws) == (10, 50, {0, 1}, None)
    # 1.00× in the middle, 1.02× at an end: that end has a winner.
    wide = reader("mtp", (10.0, 1020.0), (50.0, 210.0), stream=1, **known)
    assert [lead.leaders for lead in find_leads([off, wide])] == [(1,), (1,)]


def test_a_tie_at_the_top_leaves_out_who_serves_less() -> None:
    line = ((10.0, 1000.0), (50.0, 200.0))
    readers = [
        reader("off", *((x, y / 2) for x, y in line)),
        reader("mtp-k1", *line),
        reader("mtp-k3", *line),
    ]
    assert [lead.leaders for lead in find_leads(readers)] == [(1, 2), (1, 2)]


def test_a_rival_of_unknown_worth_is_no_equal() -> None:
    """It serves the same with its slowest point; at the asked speed it may serve more."""
    off = reader("off", (10.0, 1000.0), (40.0, 999.0), (50.0, 200.0))
    mtp = reader("mtp", (40.0, 999.0), (50.0, 200.0))
    below = next(lead for lead in find_leads([off, mtp]) if lead.low_tps == 10)
    assert (below.leaders, below.is_settled) == ((0,), False)


def test_one_knot_without_an_error_leaves_leads_unsure() -> None:
    known = {"tput_rel_se": 0.01, "interactivity_rel_se": 0.01, "se_df": 20}
    points = [
        CurvePoint(arm="off", interactivity_tps=10, tput_tps_per_gpu=1000, concurrency=1, **known),
        CurvePoint(arm="off", interactivity_tps=50, tput_tps_per_gpu=200, concurrency=2),
    ]
    (curve,) = build_curves(points)
    off, mtp = CurveReader(curve=curve), reader("mtp", (10.0, 800.0), (50.0, 400.0), stream=1, **known)
    (crossing,) = find_crossings(off, mtp)
    assert crossing.interval is not None
    assert {lead.share_of_draws for lead in find_leads([off, mtp])} == {None}
