"""What stands beside the figures: waits that are far apart, first events of unknown size, cached prompts."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curve_points import make_points
from mtpbench_analysis.compare import Comparison, Settings, compare
from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.curves.curve_reader import CurveReader
from mtpbench_analysis.curves.twins import find_twins
from mtpbench_analysis.frame import LOAD_FIELDS, CurvePoint
from mtpbench_analysis.importers.points_csv import read_points, write_points
from mtpbench_analysis.sentences import write_caveats
from mtpbench_analysis.tables import matched_table


def compared(off_s: float | None, mtp_s: float | None, target: float = 15.0) -> Comparison:
    (base,) = build_curves(
        [replace(p, ttft_p50_s=off_s) for p in make_points("off", (10.0, 100.0), (20.0, 50.0))]
    )
    (other,) = build_curves(
        [replace(p, ttft_p50_s=mtp_s) for p in make_points("mtp", (10.0, 200.0), (20.0, 90.0))]
    )
    return compare(base, [other], Settings(targets_tps=(target,)))


@pytest.mark.parametrize(
    ("off_s", "mtp_s", "warned"),
    [
        (0.2, 0.5, False),
        (0.2, 0.61, True),
        (2.0, 0.2, True),
        (10.5, 10.2, True),
        (9.0, 9.5, False),
        (None, 60.0, False),
        (60.0, None, False),
    ],
)
def test_waiting_that_differs_or_is_long_is_told(
    off_s: float | None, mtp_s: float | None, warned: bool
) -> None:
    told = [text for text in write_caveats(compared(off_s, mtp_s)) if "equal waiting" in text]
    assert bool(told) == warned


def test_the_warning_names_both_sides_and_where() -> None:
    (text,) = [text for text in write_caveats(compared(2.0, 208.6)) if "waiting" in text]
    assert text == (
        "Equal interactivity is not equal waiting: at 15 tok/s/user the median TTFT is 208.6 s with MTP and "
        "2.000 s with Off."
    )


def test_where_a_side_is_not_reached_there_is_nothing_to_compare() -> None:
    assert not [text for text in write_caveats(compared(2.0, 208.6, target=30.0)) if "waiting" in text]


def test_the_table_holds_ttft_where_anybody_recorded_it() -> None:
    rows = {row[0]: row[2] for row in matched_table(compared(0.2, None)).rows if row[0]}
    assert rows["median TTFT at the knots, s"] == "–"
    assert "median TTFT at the knots, s" not in {row[0] for row in matched_table(compared(None, None)).rows}


@given(
    loads=st.lists(
        st.tuples(
            st.sampled_from([None, 2, 4]),
            st.sampled_from([None, 1.0, 8.0]),
            st.sampled_from([None, "poisson", "gamma 0.5"]),
            st.sampled_from([None, 10.0]),
        ).filter(lambda load: load[0] is not None),
        min_size=2,
        max_size=5,
        unique=True,
    )
)
def test_points_of_different_loads_are_never_runs_of_one(loads: list[tuple[Any, ...]]) -> None:
    """Neither before they were written to a CSV nor after; and each has its twin of the same load only."""
    points = [
        CurvePoint(
            arm=arm,
            interactivity_tps=speed + i,
            tput_tps_per_gpu=100.0 - i,
            **dict(zip(LOAD_FIELDS, load, strict=True)),
        )
        for arm, speed in (("off", 10.0), ("mtp", 30.0))
        for i, load in enumerate(loads)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.csv"
        path.write_text(write_points(points), "utf-8")
        again = read_points(path).points
    for side in (points, again):
        off, mtp = build_curves(side)
        assert [len(item.runs) for item in (*off.measured, *mtp.measured)] == [1] * len(points)
        twins = find_twins(CurveReader(curve=off), [CurveReader(curve=mtp)])
        assert len(twins) == len(loads)
        assert all(pair.baseline.mean.load() == pair.other.mean.load() for pair in twins)


@pytest.mark.parametrize(
    ("off", "mtp", "told"),
    [
        ("known_first_chunk", None, None),
        ("known_first_chunk", "assumed_one_token", "The servers of MTP do not say"),
        ("least_first_chunk", "assumed_one_token", "(assumed_one_token, least_first_chunk)"),
    ],
)
def test_where_the_first_event_holds_an_unknown_number_of_tokens_the_figure_is_a_bound(
    off: str | None, mtp: str | None, told: str | None
) -> None:
    sides = [
        build_curves([replace(p, tpot_basis=basis) for p in make_points(arm, (10.0, 100.0), (20.0, 50.0))])[0]
        for arm, basis in (("off", off), ("mtp", mtp))
    ]
    found = [
        text for text in write_caveats(compare(sides[0], sides[1:], Settings())) if "first event" in text
    ]
    assert (told is None and not found) or (told is not None and told in found[0])


@pytest.mark.parametrize(("share", "told"), [(None, []), (0.04, []), (0.31, ["up to 31%"])])
def test_prompts_that_a_prefix_cache_held_are_told(share: float | None, told: list[str]) -> None:
    """Prompts that are cached in one arm only would make its prefill cheap, and its throughput high."""
    sides = [
        build_curves(
            [replace(p, cached_prompt_share=part) for p in make_points(arm, (10.0, 100.0), (20.0, 50.0))]
        )[0]
        for arm, part in (("off", 0.0), ("mtp", share))
    ]
    found = [text for text in write_caveats(compare(sides[0], sides[1:], Settings())) if "cache" in text]
    assert len(found) == len(told)
    assert all(words in text for words, text in zip(told, found, strict=True))
