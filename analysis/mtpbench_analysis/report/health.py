"""Pure: how the runs behind a page went: which points count, and whether the load client kept up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mtpbench.records import ClientHealth
from mtpbench_analysis.curves.curve import display_name
from mtpbench_analysis.document import Table
from mtpbench_analysis.numbers import percent
from mtpbench_analysis.report.traces import recipe_of
from mtpbench_analysis.traces.points import PointTrace, SweepTrace

BUSY_CPU_SHARE = 0.8
"""A client process above this share of a core deserves a look; the validity rules judge it by its lag."""
_LISTED = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """The runs of a report.

    Args:
        summary: all of it in a line.
        wrong: whether a reader should look: a point is invalid, missing or damaged, or the client was busy.
        reasons: what is wrong with points, a line each.
        client: the load client's worst figures, and at which point; None where none was recorded.
    """

    summary: str
    wrong: bool
    reasons: tuple[str, ...]
    client: Table | None


def describe_health(sweeps: Sequence[SweepTrace]) -> Health | None:
    """The health of all runs; None where no point comes from a results folder."""
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
    shares = [share for p in points if (share := p.stored.result.client.cpu_share) is not None]
    counts += [f"load client at most {percent(max(shares))} of a core"] if shares else []
    reasons = _capped([_invalid(point) for point in invalid])
    reasons += _capped([f"{point_id}: planned, not measured yet" for point_id in missing]) + _capped(damaged)
    return Health(
        summary=", ".join(counts),
        wrong=bool(invalid or missing or damaged or max(shares, default=0.0) >= BUSY_CPU_SHARE),
        reasons=(*_kinds(invalid), *reasons),
        client=_table(_client(points), points),
    )


def _kinds(invalid: Sequence[PointTrace]) -> list[str]:
    """How many points each reason hit, where that is shorter than the points themselves."""
    if len(invalid) <= _LISTED:
        return []
    kinds = Counter(reason.code for point in invalid for reason in point.stored.result.reasons)
    return [f"{code}: {_count(count, 'point')}" for code, count in kinds.most_common()]


def _invalid(point: PointTrace) -> str:
    why = "; ".join(f"{reason.code}: {reason.detail}" for reason in point.stored.result.reasons)
    return f"{_name(point)}: {why}"


def _name(point: PointTrace) -> str:
    return f"{display_name(point.stored.point.arm.name)}, {recipe_of(point)}"


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
    """(what, the worst value, at which point), of what was recorded."""
    rows = []
    for what, read, show in _WORST:
        known = [
            (value, i) for i, p in enumerate(points) if (value := read(p.stored.result.client)) is not None
        ]
        if known:
            value, i = max(known, key=lambda pair: abs(pair[0]))
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
