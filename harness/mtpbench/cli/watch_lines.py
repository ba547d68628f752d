"""The lines that `mtpbench watch` shows of a snapshot: counts, runs and jobs, and the points by arm."""

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
    "missing": "dim",
}
_NARROW = 60
_WIDE = 100
_REASON = 20
_JOB_LINES = 4
_LEAST = 2
"""Rows of an arm with points, however little room there is: one point, and the number of the others."""


@dataclass(frozen=True, slots=True)
class _Column:
    """A column has two lines of heading and a width; figures are aligned to the right."""

    upper: str
    lower: str
    width: int
    right: bool = True


def table_lines(snapshot: Snapshot, columns: int, rows: int, *, ascii_only: bool = False) -> list[Text]:
    """Returns the table in at most so many lines; `… n more` stands for points without room."""
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
    """Returns the columns for a width; a narrow terminal gets fewer."""
    names = {point.planned.topology for point in snapshot.points}
    longest = max((len(point.planned.label) for point in snapshot.points), default=4)
    layout = [_Column("", "load", min(18, max(5, longest)), right=False)]
    if len(names) > 1 and columns >= _NARROW:
        layout.append(_Column("", "topology", min(16, max(map(len, names))), right=False))
    layout += [_Column("tok/s", "/user", 7), _Column("tok/s", "/GPU", 7)]
    if columns >= _NARROW:
        layout += [_Column("", "TTFT", 6), _Column("", "AL", 4)]
    before = sum(column.width + 1 for column in layout)
    widest = 30 if columns >= _WIDE else 9
    return [*layout, _Column("", "state", max(5, min(widest, columns - before)), right=False)]


def _share_out(sizes: Sequence[int], room: int) -> list[int]:
    """Returns the rows of each arm: as many as it needs, or a fair share of the room."""
    shares = [0] * len(sizes)
    free, waiting = max(0, room), list(range(len(sizes)))
    while waiting:
        fair = max(_LEAST, free // len(waiting))
        small = [i for i in waiting if sizes[i] <= fair]
        for i in small or waiting:
            shares[i] = min(sizes[i], fair)
            free -= shares[i]
        waiting = [i for i in waiting if i not in (small or waiting)]
    return shares


def _rows(snapshot: Snapshot, group: Sequence[SeenPoint], layout: Sequence[_Column], room: int) -> list[Text]:
    """Returns the lines of an arm's points; without room for all, those around the running or newest."""
    if len(group) <= room:
        return [_point_line(snapshot, point, layout) for point in group]
    visible = max(1, room - 1)
    newest = max(
        range(len(group)), key=lambda i: (_is_running(snapshot, group[i]), group[i].landed_s or 0.0, -i)
    )
    first = min(max(0, newest + 2 - visible), len(group) - visible)
    lines = [_point_line(snapshot, point, layout) for point in group[first : first + visible]]
    below = len(group) - first - visible
    hidden = " and ".join(
        text for text in (f"{first} above" * bool(first), f"{below} below" * bool(below)) if text
    )
    return [*lines, Text(f"  … {len(group) - visible} more ({hidden})", style="dim")]


def _is_running(snapshot: Snapshot, point: SeenPoint) -> bool:
    return point.planned.id in snapshot.running


def _arm_line(arm: str, place: int, group: Sequence[SeenPoint], ascii_only: bool) -> Text:
    mark, style = mark_and_style(place, ascii_only)
    measured = sum(point.state in ("valid", "invalid", "unusable") for point in group)
    stored = next((point.stored for point in group if point.stored is not None), None)
    label = None if stored is None else stored.point.arm.speculation_label
    counts = f"{'' if label in (None, arm) else f'  {label}'}  {measured} of {len(group)}"
    return Text.assemble((f"{mark} {display_name(arm)}", style), (counts, "dim"))


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
    rates, ttft_s = result.steady or result.whole, result.ttft_as_waited_s(point.stored.point.load)
    return {
        "/user": ("" if result.first_chunk_is_known else "≤") + _figure(result.interactivity_tps),
        "/GPU": _figure(rates.tput_tps_per_gpu if rates else None),
        "TTFT": f"{ttft_s.p50:.2f} s" if ttft_s else "–",
        "AL": f"{result.acceptance.length:.2f}" if result.acceptance.length is not None else "–",
    }


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def _state_cell(snapshot: Snapshot, point: SeenPoint, width: int) -> str:
    """Returns the state, with the first reason of a point that is not valid where that has room."""
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
    # A reason that is cut off helps nobody, so the state stands alone.
    return point.state if width < _REASON and len(whole) > width else whole


def _line(cells: Sequence[str], layout: Sequence[_Column]) -> Text:
    """Joins cells to a line, each cut to its column."""
    parts = []
    for cell, column in zip(cells, layout, strict=True):
        text = cell if len(cell) <= column.width else f"{cell[: column.width - 1]}…"
        parts.append(text.rjust(column.width) if column.right else text.ljust(column.width))
    return Text(" ".join(parts))


# ------------------------------------------------------------------------------- counts, runs and jobs


def count_line(snapshot: Snapshot) -> str:
    """Returns a line such as `6 valid, 1 invalid (server_died 1), 1 running, 2 missing of 10 points`."""
    invalid = snapshot.having("invalid")
    codes = Counter(
        reason.code for point in invalid if point.stored for reason in point.stored.result.reasons[:1]
    )
    reasons = f" ({', '.join(f'{code} {n}' for code, n in codes.most_common(3))})" if codes else ""
    missing = {point.planned.id for point in snapshot.having("missing")}
    running = len(missing & set(snapshot.running))
    parts = [f"{len(snapshot.having('valid'))} valid", f"{len(invalid)} invalid{reasons}"]
    parts += [f"{running} running"] if running else []
    parts += [f"{len(missing) - running} missing"]
    parts += [
        f"{n} {state}" for state in ("unusable", "damaged", "other schema") if (n := _count(snapshot, state))
    ]
    return f"{', '.join(parts)} of {len(snapshot.points)} points"


def _count(snapshot: Snapshot, state: str) -> int:
    return sum(point.state == state for point in snapshot.points)


def present_lines(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Returns sentences on what goes on now, each with its style."""
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
        reason = bad[0].problem.label if bad[0].problem else ""
        sentences.append(
            (f"{bad[0].state}: {reason}, {bad[0].planned.arm} {bad[0].planned.label}{more}", "red")
        )
    sentences += [(text, "red") for text in snapshot.trouble]
    return sentences


def _local(snapshot: Snapshot) -> str:
    """Returns a sentence on a run that is no Slurm job, from its progress, the lock and its servers."""
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
    arm, topology, launch = servers.ladder
    name = f"{arm} on {topology}" if topology else arm
    again = f" for repeat {launch}" if launch else ""
    start = f"{name}: servers started{again} {ago(snapshot.now_s - servers.started_s)}"
    if snapshot.writing:
        return f"{start}; a point is being stored"
    point = next_of_ladder(snapshot.points, servers)
    if point is None:
        return f"{start}; all points of this ladder have landed"
    return f"{start}; next in its ladder, so most likely under load: {point.planned.label}"


def _run(run: RunProgress, now_s: float) -> str:
    """Returns a sentence on a run that is at work."""
    return f"run {run.pid} on {run.host}: {_doing(run, now_s)}"


def _silent(run: RunProgress, now_s: float) -> str:
    """Returns a sentence on a run that was killed: its progress file is old and still there."""
    then_s = seconds_of(run.time_utc)
    since = f"{datetime.fromtimestamp(then_s):%H:%M:%S} ({ago(now_s - then_s)})"
    doing = run.stage or "between points" if run.point_id is None else run.point_id.rsplit("_", 1)[0]
    return (
        f"run {run.pid} on {run.host} is silent since {since}, at {doing}: it was killed; "
        "`mtpbench run` measures what is missing"
    )


def _doing(progress: RunProgress, now_s: float) -> str:
    """Returns the stage, or the point with its requests and rate; then the counts, and the age if old."""
    age_s = now_s - seconds_of(progress.time_utc)
    counts = f"{progress.points_done} done, {progress.points_left} left"
    counts += f" (last heard of {ago(age_s)})" if age_s > STALE_S else ""
    if progress.point_id is None:
        return f"{progress.stage or 'between points'}; {counts}"
    rate = f", {progress.output_tps:,.0f} output tok/s" if progress.output_tps is not None else ""
    share = f"{progress.requests_ended} of {progress.requests_total} requests"
    return f"{progress.point_id.rsplit('_', 1)[0]}, {share}{rate}; {counts}"


def _jobs(snapshot: Snapshot) -> list[str]:
    """Returns a sentence on each Slurm job, but for those that ended well."""
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
    return f"{where}: {_doing(progress, now_s)}"


def _times(snapshot: Snapshot) -> str:
    changed_s = snapshot.changed_s
    text = "no point has landed yet" if changed_s is None else f"last point {ago(snapshot.now_s - changed_s)}"
    if snapshot.servers is not None and snapshot.at_work:
        text += f", servers' logs grew {ago(snapshot.now_s - snapshot.servers.grew_s)}"
    estimate = time_left(snapshot) if snapshot.at_work else None
    return f"{text}. {_time_left(estimate)}" if estimate else text


def _time_left(estimate: TimeLeft) -> str:
    """Returns the time left, and what the estimate is based on."""
    scope = " in the longest ladder" if estimate.side_by_side else ""
    covers = f"{estimate.points} point{'s' * (estimate.points > 1)}"
    unknown = f"; {estimate.unknown} at a concurrency not measured yet" if estimate.unknown else ""
    return (
        f"About {duration(estimate.seconds)} of load left{scope} for {covers}, as long as their "
        f"concurrency took so far{unknown}. Server starts come on top"
    )


def duration(seconds: float) -> str:
    """Formats seconds as `45 s`, `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def ago(seconds: float) -> str:
    """Formats an age as `45 s ago`; where the file system's clock is ahead of ours, as `0 s ago`."""
    return f"{duration(max(0.0, seconds))} ago"
