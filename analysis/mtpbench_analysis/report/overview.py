"""Pure: many comparisons at a glance, and what a page shows where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtpbench_analysis.chart.choice import choose_comparisons
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.curves.curve import Curve, display_name
from mtpbench_analysis.curves.ratios import Ratio
from mtpbench_analysis.document import Document, Table, mark_simulated
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.numbers import MISSING, rate, seconds, speed, target
from mtpbench_analysis.report.provenance import shorten_paths
from mtpbench_analysis.tables import INVALID, show_bare_ratio

HEADERS = ("comparison", "knots", "shared tok/s/user", "highest ratio at a target", "at tok/s/user")


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """All comparisons of a page.

    Args:
        summary: how many there are, and how many have a ratio.
        rows: in the order of the comparisons: what each is, and cells under `HEADERS`.
    """

    summary: str
    rows: tuple[tuple[str, ...], ...]


def find_opening(comparisons: Sequence[Comparison]) -> int:
    """The index of the comparison to open with: its poorer side has the most knots; the first of equals."""
    best = choose_comparisons(comparisons, 1)
    return next((i for i, one in enumerate(comparisons) if best and one is best[0]), 0)


def write_overview_rows(comparisons: Sequence[Comparison], documents: Sequence[Document]) -> Overview | None:
    """A row for each comparison; None where one needs no overview."""
    if len(comparisons) < 2:
        return None
    rows = tuple(_row(one, document) for one, document in zip(comparisons, documents, strict=True))
    with_ratio = sum(_best_ratio(one) is not None for one in comparisons)
    return Overview(
        summary=f"All {len(rows)} comparisons at a glance: {with_ratio} with a ratio at a target",
        rows=rows,
    )


def _row(comparison: Comparison, document: Document) -> tuple[str, ...]:
    knots = " / ".join(str(len(curve.front)) for curve in (*comparison.others, comparison.baseline))
    best = _best_ratio(comparison)
    if best is None:
        return document.heading, knots, _shared(comparison), f"{MISSING}, {_reason(comparison)}", MISSING
    ratio, place, curve = best
    who = f" ({curve.label})" if len(comparison.others) > 1 else ""
    return document.heading, knots, _shared(comparison), show_bare_ratio(ratio) + who, target(place)


def _best_ratio(comparison: Comparison) -> tuple[Ratio, float, Curve] | None:
    """The highest ratio at a target, the target, and whose it is; None where no target has one."""
    ratios = [
        (ratio, row.target_tps, curve)
        for row in comparison.rows
        for ratio, curve in zip(row.ratios, comparison.others, strict=True)
        if ratio.value is not None
    ]
    # A ratio at the target itself says more than one between best points.
    return max(ratios, key=lambda best: (best[0].bound == "exact", best[0].value or 0.0), default=None)


def _shared(comparison: Comparison) -> str:
    """The widest range that the baseline's front shares with another's; `–` where there is none."""
    low, high = comparison.baseline.range_tps
    ranges = [(max(low, other.range_tps[0]), min(high, other.range_tps[1])) for other in comparison.others]
    start, end = max(ranges, key=lambda pair: pair[1] - pair[0])
    if start > end:
        return MISSING
    return speed(start) if start == end else f"{speed(start)} to {speed(end)}"


def _reason(comparison: Comparison) -> str:
    """Why no target has a ratio."""
    if _shared(comparison) == MISSING:
        return "no shared range"
    reasons = {True: "withheld", False: "not reached"}
    ratios = [ratio for row in comparison.rows for ratio in row.ratios]
    return "; ".join(dict.fromkeys(reasons[ratio.withheld is not None] for ratio in ratios))


@dataclass(frozen=True, kw_only=True, slots=True)
class Alone:
    """What a page shows where nothing can be compared.

    Args:
        why: in words, to stand after "no comparison: ".
        points: those with figures, valid or not.
    """

    why: str
    points: Sequence[CurvePoint]

    @property
    def sentence(self) -> str:
        """Why there is no comparison."""
        return f"No comparison: {shorten_paths(self.why)}."

    @property
    def table(self) -> Table | None:
        """The points with their figures; None where there is none."""
        if not self.points:
            return None
        rows = [
            (
                display_name(point.arm),
                point.recipe,
                "yes" if point.valid else INVALID,
                speed(point.interactivity_tps),
                rate(point.tput_tps_per_gpu),
                seconds(point.ttft_p50_s),
            )
            for point in self.points
        ]
        return Table(
            title=mark_simulated("All points with figures", any(point.simulated for point in self.points)),
            headers=("", "recipe", "valid", "tok/s/user", "tok/s/GPU", "median TTFT, s"),
            rows=tuple(rows),
            caption="The figures of an invalid point are no result: they are here to find out what happened.",
            text_columns=3,
        )
