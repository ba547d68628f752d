"""Pure: the parts of a page around its comparisons: health of the runs, overview, points alone, sources."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mtpbench
from mtpbench.records import ClientHealth
from mtpbench_analysis.chart.picture import choose_comparisons
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.curves.curve import Curve, display_name
from mtpbench_analysis.curves.ratios import Ratio
from mtpbench_analysis.document import Document, Table, mark_simulated
from mtpbench_analysis.frame import CurvePoint, PointSet
from mtpbench_analysis.numbers import MISSING, counted, percent, rate, seconds, speed, target
from mtpbench_analysis.tables import INVALID, show_bare_ratio
from mtpbench_analysis.traces import PointTrace, SweepTrace

HEADERS = ("comparison", "knots", "shared tok/s/user", "highest ratio at a target", "at tok/s/user")
BUSY_CPU_SHARE = 0.8
"""A page warns of a client process above this share of a core; the validity rules judge its lag."""
_LISTED = 12
_PATH = re.compile(r"(?<![\w.:/@~+<-])~?/(?!(?:dev|sys|proc|v\d+)/)(?:[\w.@+%=-]+/)+([\w.@+%=-]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunHealth:
    """The health of a page's runs.

    Args:
        summary: counts and the client's highest CPU share in one line.
        wrong: whether a point is invalid, missing or damaged, or the client was busy.
        reasons: lines that say what is wrong with points.
        client: the load client's worst figures, each with its point; None where no figure was recorded.
    """

    summary: str
    wrong: bool
    reasons: tuple[str, ...]
    client: Table | None


def describe_health(sweeps: Sequence[SweepTrace]) -> RunHealth | None:
    """Returns the health of all runs; None where no point comes from a results folder."""
    points = [point for sweep in sweeps for point in sweep.points]
    if not sweeps:
        return None
    missing = [point_id for sweep in sweeps for point_id in sweep.missing]
    damaged = [f"{point_id}: damaged: {why}" for sweep in sweeps for point_id, why in sweep.damaged.items()]
    invalid = [point for point in points if not point.stored.result.valid]
    counts = [f"{len(points) - len(invalid):,} of {_count(len(points), 'measured point')} valid"]
    counts += [f"{len(missing)} planned, not measured"] if missing else []
    counts += [f"{len(damaged)} damaged"] if damaged else []
    failed, sent = _requests(points)
    counts.append(f"{failed:,} of {sent:,} requests failed")
    shares = [share for point in points if (share := point.stored.result.client.cpu_share) is not None]
    counts += [f"load client at most {percent(max(shares))} of a core"] if shares else []
    reasons = _capped([_invalid(point) for point in invalid])
    reasons += _capped([f"{point_id}: planned, not measured yet" for point_id in missing]) + _capped(damaged)
    return RunHealth(
        summary=", ".join(counts),
        wrong=bool(invalid or missing or damaged or max(shares, default=0.0) >= BUSY_CPU_SHARE),
        reasons=(*_count_reasons(invalid), *reasons),
        client=_table(_client(points), points),
    )


def _count_reasons(invalid: Sequence[PointTrace]) -> list[str]:
    """Returns how many points have each reason code; nothing where every invalid point has its own line."""
    if len(invalid) <= _LISTED:
        return []
    kinds = Counter(reason.code for point in invalid for reason in point.stored.result.reasons)
    return [f"{code}: {_count(count, 'point')}" for code, count in kinds.most_common()]


def _invalid(point: PointTrace) -> str:
    why = "; ".join(f"{reason.code}: {reason.detail}" for reason in point.stored.result.reasons)
    return f"{_name(point)}: {why}"


def _name(point: PointTrace) -> str:
    return f"{display_name(point.stored.point.arm.name)}, {point.recipe}"


def _capped(lines: list[str]) -> list[str]:
    more = len(lines) - _LISTED
    return lines if more <= 0 else [*lines[:_LISTED], f"… and {more} more"]


def _requests(points: Sequence[PointTrace]) -> tuple[int, int]:
    results = [point.stored.result for point in points]
    return sum(result.failed_requests for result in results), sum(result.requests for result in results)


def _milliseconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms"


_WORST: tuple[tuple[str, Callable[[ClientHealth], float | None], Callable[[float], str]], ...] = (
    ("CPU of its busiest process, share of a core", lambda c: c.cpu_share, percent),
    ("send lag, p99: from due to the first byte sent", lambda c: c.send_lag_p99_s, _milliseconds),
    (
        "reader lag, p99: from the bytes' arrival (or a due wake-up) to the reader",
        lambda c: c.reader_lag_p99_s,
        _milliseconds,
    ),
    ("drift of the clock that stamps", lambda c: c.clock_drift_s, _milliseconds),
    ("disagreement of its hosts' clocks", lambda c: c.host_clock_error_s, _milliseconds),
    (
        "requests that an open loop sent late, as all slots were taken",
        lambda c: c.late_starts,
        "{:,.0f}".format,
    ),
    ("requests never sent", lambda c: c.unsent, "{:,.0f}".format),
)


def _client(points: Sequence[PointTrace]) -> list[tuple[str, str, str]]:
    """Returns name, worst value and point of each recorded figure."""
    rows = []
    for what, read, show in _WORST:
        values = [
            (value, i)
            for i, point in enumerate(points)
            if (value := read(point.stored.result.client)) is not None
        ]
        if values:
            value, i = max(values, key=lambda pair: abs(pair[0]))
            rows.append((what, show(value), _name(points[i]) if value else ""))
    return rows


def _table(figures: Sequence[tuple[str, str, str]], points: Sequence[PointTrace]) -> Table | None:
    if not figures:
        return None
    clients = [point.stored.result.client for point in points]
    stamps = sorted({f"{c.transport}, {c.stamps} stamps" for c in clients if c.transport})
    return Table(
        title="The load client at its worst",
        headers=("what", "where", "worst"),
        rows=tuple((what, where, value) for what, value, where in figures),
        caption=f"Client: {'; '.join(stamps)}. The validity rules judge it at every point." if stamps else "",
        text_columns=2,
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """The overview of all comparisons of a page.

    Args:
        summary: how many comparisons the page has, and how many have a ratio.
        rows: a row of cells under `HEADERS` for each comparison, in their order.
    """

    summary: str
    rows: tuple[tuple[str, ...], ...]


def find_opening(comparisons: Sequence[Comparison]) -> int:
    """Returns the index of the comparison that the page opens with: its poorer side has the most knots."""
    best = choose_comparisons(comparisons, 1)
    return next((i for i, comparison in enumerate(comparisons) if best and comparison is best[0]), 0)


def describe_overview(comparisons: Sequence[Comparison], documents: Sequence[Document]) -> Overview | None:
    """Returns a row for each comparison; None for a single comparison."""
    if len(comparisons) < 2:
        return None
    rows = tuple(_row(*pair) for pair in zip(comparisons, documents, strict=True))
    with_ratio = sum(_best_ratio(comparison) is not None for comparison in comparisons)
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
    """Returns the highest ratio at a target, the target, and the curve; None where no target has a ratio."""
    ratios = [
        (ratio, row.target_tps, curve)
        for row in comparison.rows
        for ratio, curve in zip(row.ratios, comparison.others, strict=True)
        if ratio.value is not None
    ]
    # A ratio at the target itself is better than a bound or a ratio between best points.
    return max(ratios, key=lambda best: (best[0].bound == "exact", best[0].value or 0.0), default=None)


def _shared(comparison: Comparison) -> str:
    """Returns the widest range that the baseline's front shares with another; `–` where it shares none."""
    low, high = comparison.baseline.range_tps
    ranges = [(max(low, other.range_tps[0]), min(high, other.range_tps[1])) for other in comparison.others]
    start, end = max(ranges, key=lambda pair: pair[1] - pair[0])
    if start > end:
        return MISSING
    return speed(start) if start == end else f"{speed(start)} to {speed(end)}"


def _reason(comparison: Comparison) -> str:
    """Returns why no target has a ratio."""
    if _shared(comparison) == MISSING:
        return "no shared range"
    reasons = {True: "withheld", False: "not reached"}
    ratios = [ratio for row in comparison.rows for ratio in row.ratios]
    return "; ".join(dict.fromkeys(reasons[ratio.withheld is not None] for ratio in ratios))


@dataclass(frozen=True, kw_only=True, slots=True)
class LonePoints:
    """The points of a page without a comparison.

    Args:
        why: why there is no comparison, as the end of the sentence "No comparison: …".
        points: points with figures, valid or not.
    """

    why: str
    points: Sequence[CurvePoint]

    @property
    def sentence(self) -> str:
        """The sentence that says why there is no comparison."""
        return f"No comparison: {shorten_paths(self.why)}."

    @property
    def table(self) -> Table | None:
        """The table of the points with their figures; None without points."""
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


def describe_provenance(points: PointSet, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns lines about the sources, their points, engines, images and days, and the version of mtpbench.

    Args:
        points: points of all sources.
        names: names of the sources without their parent folders; by default the last part of each path.
    """
    names = names or [name_source(source) for source in points.sources]
    valid = sum(point.valid for point in points.points)
    held = f"{counted(valid, 'valid point')}, {len(points.points) - valid} invalid"
    unusable = [item for item in points.unused if item.kind != "note"]
    if unusable:
        held += f", {counted(len(unusable), 'row')} that could not become a point"
    lines = [f"Read from {', '.join(names)}: {held}."]
    days = sorted({point.date for point in points.points if point.date})
    if days:
        lines.append(f"Measured {days[0]}." if len(days) == 1 else f"Measured {days[0]} to {days[-1]}.")
    for name, title in (("engine", "Engines"), ("image", "Images")):
        values = sorted({str(getattr(point, name)) for point in points.points if getattr(point, name)})
        if values:
            more = f" and {len(values) - 12} more" if len(values) > 12 else ""
            lines.append(f"{title}: {', '.join(values[:12])}{more}.")
    return (*lines, f"Page made by mtpbench {mtpbench.__version__}; each point's source stands with it.")


def shorten_paths(text: str) -> str:
    """Returns the text with `…/result.json` in place of `/home/me/results/sweep/result.json`.

    Addresses (`http://…`, `/v1/completions`) and paths of every machine (`/dev`, `/proc`, `/sys`) stay.
    """
    return _PATH.sub(r"…/\1", text)


def name_source(source: str) -> str:
    """Returns the last component of a source's path."""
    return source.rstrip("/").rsplit("/", 1)[-1] or source
