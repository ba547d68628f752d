"""The points of a sweep as lines of text: by arm, cut around the newest where there is little room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from mtpbench.snapshot.snapshot import SeenPoint, Snapshot
from mtpbench_analysis.chart.terminal import mark_and_style
from mtpbench_analysis.curves.curve import display_name

_STYLES = {
    "invalid": "red",
    "unusable": "red",
    "damaged": "red",
    "other schema": "red",
    "incomplete": "yellow",
    "missing": "dim",
}
_NARROW = 60
_WIDE = 100
_REASON = 20
_LEAST = 2
"""Rows of an arm that has points, whatever the room: one of them and how many more there are."""


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: its two lines of heading, its width, and whether it is one of figures."""

    upper: str
    lower: str
    width: int
    right: bool = True


def table_lines(snapshot: Snapshot, columns: int, rows: int, *, ascii_only: bool = False) -> list[Text]:
    """The table in at most so many lines; `… n more` stands for what has no room."""
    layout = _layout(snapshot, columns)
    head = [_line([column.upper for column in layout], layout), _line([c.lower for c in layout], layout)]
    for line in head:
        line.stylize("dim")
    arms = list(dict.fromkeys((*snapshot.info.arms, *(point.planned.arm for point in snapshot.points))))
    groups = [(arm, [point for point in snapshot.points if point.planned.arm == arm]) for arm in arms]
    groups = [(arm, group) for arm, group in groups if group]
    rooms = _share_out([len(group) for _, group in groups], rows - len(head) - len(groups))
    lines = head
    for (arm, group), room in zip(groups, rooms, strict=True):
        place = arms.index(arm)
        lines.append(_arm_line(arm, place, group, ascii_only))
        lines += _rows(snapshot, group, layout, room)
    return lines[: max(0, rows)]


def _layout(snapshot: Snapshot, columns: int) -> list[_Column]:
    """The columns for a width; what a narrow terminal has no room for is left out."""
    names = {point.planned.topology for point in snapshot.points}
    longest = max((len(point.planned.label) for point in snapshot.points), default=4)
    layout = [_Column("", "load", min(18, max(5, longest)), right=False)]
    if len(names) > 1 and columns >= _NARROW:
        layout.append(_Column("", "topology", min(16, max(map(len, names))), right=False))
    layout += [_Column("tok/s", "/user", 7), _Column("tok/s", "/GPU", 7)]
    if columns >= _NARROW:
        layout += [_Column("", "TTFT", 6), _Column("", "AL", 4)]
    taken = sum(column.width + 1 for column in layout)
    wanted = 30 if columns >= _WIDE else 9
    return [*layout, _Column("", "state", max(5, min(wanted, columns - taken)), right=False)]


def _share_out(sizes: Sequence[int], room: int) -> list[int]:
    """Rows for each arm: what it needs, or a fair share of the room."""
    given = [0] * len(sizes)
    left, waiting = max(0, room), list(range(len(sizes)))
    while waiting:
        fair = max(_LEAST, left // len(waiting))
        small = [i for i in waiting if sizes[i] <= fair]
        for i in small or waiting:
            given[i] = min(sizes[i], fair)
            left -= given[i]
        waiting = [i for i in waiting if i not in (small or waiting)]
    return given


def _rows(snapshot: Snapshot, group: Sequence[SeenPoint], layout: Sequence[_Column], room: int) -> list[Text]:
    """An arm's points; where not all have room, those around what landed last or runs."""
    if len(group) <= room:
        return [_point_line(snapshot, point, layout) for point in group]
    shown = max(1, room - 1)
    newest = max(
        range(len(group)), key=lambda i: (_is_running(snapshot, group[i]), group[i].landed_s or 0.0, -i)
    )
    first = min(max(0, newest + 2 - shown), len(group) - shown)
    lines = [_point_line(snapshot, point, layout) for point in group[first : first + shown]]
    below = len(group) - first - shown
    hidden = " and ".join(
        text for text in (f"{first} above" * bool(first), f"{below} below" * bool(below)) if text
    )
    return [*lines, Text(f"  … {len(group) - shown} more ({hidden})", style="dim")]


def _is_running(snapshot: Snapshot, point: SeenPoint) -> bool:
    return point.planned.id in snapshot.running


def _arm_line(arm: str, place: int, group: Sequence[SeenPoint], ascii_only: bool) -> Text:
    mark, style = mark_and_style(place, ascii_only)
    measured = sum(point.state in ("valid", "invalid", "unusable") for point in group)
    return Text.assemble((f"{mark} {display_name(arm)}", style), (f"  {measured} of {len(group)}", "dim"))


def _point_line(snapshot: Snapshot, point: SeenPoint, layout: Sequence[_Column]) -> Text:
    cells = {
        "load": point.planned.label,
        "topology": point.planned.topology,
        "state": _state_cell(snapshot, point, layout[-1].width),
        **_figures(point),
    }
    line = _line([cells.get(column.lower, "") for column in layout], layout)
    running = _is_running(snapshot, point)
    style = "bold" if running and point.state == "missing" else _STYLES.get(point.state, "")
    line.stylize(style)
    return line


def _figures(point: SeenPoint) -> dict[str, str]:
    if point.stored is None:
        return {}
    result = point.stored.result
    rates = result.steady or result.whole
    return {
        "/user": _figure(result.interactivity_tps),
        "/GPU": _figure(rates.tput_tps_per_gpu if rates else None),
        "TTFT": f"{result.ttft_s.p50:.2f} s" if result.ttft_s else "–",
        "AL": f"{result.acceptance.length:.2f}" if result.acceptance.length is not None else "–",
    }


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def _state_cell(snapshot: Snapshot, point: SeenPoint, width: int) -> str:
    """The state, and for what went wrong the first reason where a good part of it has room."""
    if point.planned.id in snapshot.writing:
        return "storing"
    if point.state == "missing":
        if not _is_running(snapshot, point):
            return "–"
        return "running" if snapshot.running[point.planned.id] else "running?"
    reason = point.problem.label if point.problem else ""
    if point.state == "invalid" and point.stored is not None:
        reason = point.stored.result.reasons[0].code
    whole = f"{point.state}: {reason}" if reason else point.state
    # Half a reason says less than none: the state alone is whole.
    return point.state if width < _REASON and len(whole) > width else whole


def _line(cells: Sequence[str], layout: Sequence[_Column]) -> Text:
    """A line of cells, each cut to its column."""
    made = []
    for cell, column in zip(cells, layout, strict=True):
        text = cell if len(cell) <= column.width else f"{cell[: column.width - 1]}…"
        made.append(text.rjust(column.width) if column.right else text.ljust(column.width))
    return Text(" ".join(made))
