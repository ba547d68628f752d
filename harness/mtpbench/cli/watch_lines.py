"""What `mtpbench watch` says of a snapshot, line by line: counts, what goes on now, and the points by arm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.text import Text

from mtpbench.progress import RunProgress
from mtpbench.slurm.states import STALE_S, AttemptFiles
from mtpbench.snapshot import SeenPoint, Snapshot, TimeLeft, next_of_ladder, seconds_of, time_left
from mtpbench_analysis.chart.terminal_curve import mark_and_style
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
_JOB_LINES = 4
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


# --------------------------------------------------------------------------------------- the present


def count_line(snapshot: Snapshot) -> str:
    """`6 valid, 1 invalid (server_died 1), 1 running, 2 missing of 10 points`."""
    invalid = snapshot.having("invalid")
    codes = Counter(
        reason.code for point in invalid if point.stored for reason in point.stored.result.reasons[:1]
    )
    why = f" ({', '.join(f'{code} {n}' for code, n in codes.most_common(3))})" if codes else ""
    missing = {point.planned.id for point in snapshot.having("missing")}
    running = len(missing & set(snapshot.running))
    parts = [f"{len(snapshot.having('valid'))} valid", f"{len(invalid)} invalid{why}"]
    parts += [f"{running} running"] if running else []
    parts += [f"{len(missing) - running} missing"]
    parts += [
        f"{n} {state}"
        for state in ("unusable", "damaged", "other schema", "incomplete")
        if (n := _count(snapshot, state))
    ]
    return f"{', '.join(parts)} of {len(snapshot.points)} points"


def _count(snapshot: Snapshot, state: str) -> int:
    return sum(point.state == state for point in snapshot.points)


def present_lines(snapshot: Snapshot) -> list[tuple[str, str]]:
    """What is known of the present, a sentence and a style each."""
    sentences = [(text, "") for text in _jobs(snapshot)]
    if snapshot.jobs and not sentences and not snapshot.over:
        sentences.append(("all jobs have ended; `mtpbench submit` asks for what is missing", "yellow"))
    if snapshot.holder.held or snapshot.run or not (snapshot.jobs or snapshot.unheard):
        sentences.append(
            (_local(snapshot), "" if snapshot.at_work else "yellow" if not snapshot.over else "dim")
        )
    sentences.append((_times(snapshot), "dim"))
    if bad := snapshot.having("unusable", "damaged", "other schema"):
        more = f"; and {len(bad) - 1} more" if len(bad) > 1 else ""
        why = bad[0].problem.label if bad[0].problem else ""
        sentences.append((f"{bad[0].state}: {why}, {bad[0].planned.arm} {bad[0].planned.label}{more}", "red"))
    sentences += [(text, "red") for text in snapshot.trouble]
    return sentences


def _local(snapshot: Snapshot) -> str:
    """What the lock and the servers' files tell."""
    holder, servers = snapshot.holder, snapshot.servers
    if snapshot.live_run is not None:
        return _run(snapshot.live_run, snapshot.now_s)
    if not snapshot.at_work:
        if snapshot.over:
            return "every planned point is measured"
        if snapshot.run is not None:
            return _silent(snapshot.run, snapshot.now_s)
        if holder.held is None:
            return "whether a run holds this folder can't be seen on this machine"
        return "no run on this machine holds this folder; `mtpbench run` measures what is missing"
    run = f"run {holder.pid} at work" if holder.pid else "a run is at work"
    if servers is None:
        return f"{run}: it has started no servers yet"
    name = servers.key.rpartition("_")[0].replace("_", " on ", 1)
    up = f"{name}: servers started {ago(snapshot.now_s - servers.started_s)}"
    if snapshot.writing:
        return f"{up}; a point is being stored"
    point = next_of_ladder(snapshot.points, servers)
    if point is None:
        return f"{up}; all points of this ladder have landed"
    return f"{up}; next in its ladder, so most likely under load: {point.planned.label}"


def _run(run: RunProgress, now_s: float) -> str:
    """What a run says of itself."""
    age_s = now_s - seconds_of(run.time_utc)
    heard = f" (last heard of {ago(age_s)})" if age_s > STALE_S else ""
    return f"run {run.pid} on {run.host}: {_doing(run)}{heard}"


def _silent(run: RunProgress, now_s: float) -> str:
    """A run that did not say that it ended."""
    then_s = seconds_of(run.time_utc)
    since = f"{datetime.fromtimestamp(then_s):%H:%M:%S} ({ago(now_s - then_s)})"
    doing = run.stage or "between points" if run.point_id is None else run.point_id.rsplit("_", 1)[0]
    return (
        f"run {run.pid} on {run.host} is silent since {since}, at {doing}: it was killed; "
        "`mtpbench run` measures what is missing"
    )


def _doing(progress: RunProgress) -> str:
    """The stage, or the point with its requests and rate; then how many points are done and left."""
    left = f"{progress.points_done} done, {progress.points_left} left"
    if progress.point_id is None:
        return f"{progress.stage or 'between points'}; {left}"
    rate = f", {progress.output_tps:,.0f} output tok/s" if progress.output_tps is not None else ""
    share = f"{progress.requests_ended} of {progress.requests_total} requests"
    return f"{progress.point_id.rsplit('_', 1)[0]}, {share}{rate}; {left}"


def _jobs(snapshot: Snapshot) -> list[str]:
    """What Slurm jobs say of themselves; those that ended well say nothing."""
    sentences = []
    for key, files in snapshot.jobs.items():
        if files.finished is None:
            sentences.append(
                f"{key.rpartition('_')[0]}: job {files.attempt.job_id}{_progress(files, snapshot.now_s)}"
            )
        elif files.finished.outcome != "done":
            detail = f": {files.finished.detail}" if files.finished.detail else ""
            sentences.append(
                f"{key.rpartition('_')[0]}: job {files.attempt.job_id} {files.finished.outcome}{detail}"
            )
    for submission in snapshot.unheard:
        many = (
            f" for {len(submission.keys)} deployments"
            if len(submission.keys) > 1
            else f" for {submission.keys[0]}"
        )
        job = (
            f"job {submission.job_id}"
            if submission.job_id
            else f"{submission.name} ({submission.error or 'no job number yet'})"
        )
        sentences.append(f"{job}{many}: nothing heard of it yet; `mtpbench status` asks Slurm")
    more = len(sentences) - _JOB_LINES
    return [*sentences[:_JOB_LINES], f"… {more} more jobs"] if more > 0 else sentences


def _progress(files: AttemptFiles, now_s: float) -> str:
    where = f" on {', '.join(files.attempt.nodes)}" if files.attempt.nodes else ""
    progress = files.progress
    if progress is None:
        return f"{where}: started {ago(now_s - seconds_of(files.attempt.started_utc))}"
    age_s = now_s - seconds_of(progress.time_utc)
    heard = f" (last heard of {ago(age_s)})" if age_s > STALE_S else ""
    return f"{where}: {_doing(progress)}{heard}"


def _times(snapshot: Snapshot) -> str:
    changed_s = snapshot.changed_s
    text = "no point has landed yet" if changed_s is None else f"last point {ago(snapshot.now_s - changed_s)}"
    if snapshot.servers is not None and snapshot.at_work:
        text += f", servers' logs grew {ago(snapshot.now_s - snapshot.servers.grew_s)}"
    left = time_left(snapshot) if snapshot.at_work else None
    return f"{text}. {_left(left)}" if left else text


def _left(left: TimeLeft) -> str:
    """An estimate with what it rests on."""
    what = " in the longest ladder" if left.side_by_side else ""
    covers = f"{left.points} point{'s' * (left.points > 1)}"
    unknown = f"; {left.unknown} at a concurrency not measured yet" if left.unknown else ""
    return (
        f"About {duration(left.seconds)} of load left{what} for {covers}, as long as their concurrency took "
        f"so far{unknown}. Server starts come on top"
    )


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def ago(seconds: float) -> str:
    """`45 s ago`; a file system's clock that is ahead of ours says now."""
    return f"{duration(max(0.0, seconds))} ago"
