"""A snapshot of a sweep as a frame that fits its terminal: counts, what runs, the table, the curve."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from mtpbench.cli.watchtable import table_lines
from mtpbench.progress import RunProgress
from mtpbench.slurm.outcome import STALE_S, JobFiles
from mtpbench.snapshot.snapshot import Snapshot, TimeLeft, next_of_ladder, seconds_of, time_left
from mtpbench_analysis.chart.content import Series
from mtpbench_analysis.chart.terminal import LEAST_COLUMNS, LEAST_ROWS, asks_for_ascii, draw

MANY_ROWS = 100_000
"""The height of a frame that nothing limits: one that goes into a pipe."""
CURVE_ROWS = 16
HIGH_ROWS = 24
_GAP = 3
_BOTH = 22
_JOB_LINES = 4
_PLAIN = str.maketrans({"…": "~", "–": "-", "·": "|", "×": "x"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A snapshot as a rich renderable; never wider or higher than the console it is printed on.

    Args:
        series: what the curve shows, one for each arm of the sweep in its order.
        rows: the frame's height; None for as high as it gets.
    """

    snapshot: Snapshot
    series: tuple[Series, ...]
    rows: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The frame, line by line."""
        size = (options.max_width, self.rows or MANY_ROWS)
        plain = options.ascii_only or asks_for_ascii(os.environ)
        yield from lines_of(self.snapshot, self.series, size, ascii_only=plain)


def lines_of(
    snapshot: Snapshot, series: Sequence[Series], size: tuple[int, int], *, ascii_only: bool = False
) -> list[Text]:
    """The lines of a frame; at most as many, and as wide, as its size says."""
    columns, rows = size
    head = [_title(snapshot, columns), *_wrapped(_counts(snapshot), columns, 2)]
    for text, style in _going_on(snapshot):
        head += _wrapped(text, columns, 3, style)
    head = [*head[: max(2, rows // 2)], Text()]
    body = _body(snapshot, series, (columns, rows - len(head)), ascii_only)
    return [_fitted(line, columns, ascii_only) for line in [*head, *body][:rows]]


def _body(
    snapshot: Snapshot, series: Sequence[Series], size: tuple[int, int], ascii_only: bool
) -> list[Text]:
    """The table, and the curve beside or below it."""
    columns, rows = size
    table = table_lines(snapshot, columns, min(rows, MANY_ROWS), ascii_only=ascii_only)
    taken = max((len(line) for line in table), default=0)
    beside = columns - taken - _GAP
    if beside >= LEAST_COLUMNS + 8:
        height = min(rows, HIGH_ROWS if rows < MANY_ROWS // 2 else CURVE_ROWS)
        curve = draw(series, (min(beside, 76), height), simulated=snapshot.simulated, ascii_only=ascii_only)
        return _side_by_side(table, list(curve.split("\n")), taken)
    # Half of a low terminal is too little for both: the figures come first.
    room = min(CURVE_ROWS, max(rows // 2 if rows >= _BOTH else 0, rows - len(table) - 1))
    if room < LEAST_ROWS or columns < LEAST_COLUMNS:
        return table
    drawn = draw(series, (min(columns, 76), room), simulated=snapshot.simulated, ascii_only=ascii_only).split(
        "\n"
    )
    table = table_lines(snapshot, columns, rows - len(drawn) - 1, ascii_only=ascii_only)
    return [*table, Text(), *drawn]


def _side_by_side(table: Sequence[Text], curve: Sequence[Text], taken: int) -> list[Text]:
    made = []
    for i in range(max(len(table), len(curve))):
        line = table[i].copy() if i < len(table) else Text()
        if i < len(curve):
            line.append(" " * (taken + _GAP - len(line)))
            line.append_text(curve[i])
        made.append(line)
    return made


def _title(snapshot: Snapshot, columns: int) -> Text:
    line = Text(snapshot.info.name, style="bold")
    if snapshot.simulated:
        line.append("  SIMULATED", style="bold yellow")
    clock = f"{datetime.fromtimestamp(snapshot.now_s):%H:%M:%S}"
    if (room := columns - len(line) - len(clock)) > 0:
        line.append(" " * room + clock, style="not bold dim")
    return line


def _counts(snapshot: Snapshot) -> str:
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


def _going_on(snapshot: Snapshot) -> list[tuple[str, str]]:
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


def _progress(files: JobFiles, now_s: float) -> str:
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


def _wrapped(text: str, columns: int, limit: int, style: str = "") -> list[Text]:
    """Words in at most so many lines."""
    lines = textwrap.wrap(text, max(1, columns), max_lines=limit, placeholder=" …")
    return [Text(line, style=style) for line in lines]


def _fitted(line: Text, columns: int, ascii_only: bool) -> Text:
    """A line that is cut off at the edge, in characters that the terminal has."""
    made = line.copy()
    made.no_wrap, made.overflow = True, "crop"
    if ascii_only:
        # One character for one, so that the styles stay where they are.
        made.plain = made.plain.translate(_PLAIN).encode("ascii", "replace").decode("ascii")
    made.truncate(columns, overflow="crop")
    return made
