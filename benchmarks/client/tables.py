"""The tables of a run, for the terminal and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from scenarios import SCENARIOS
from summary import GOALS, Runs, Verdict, figures, judge, median

NONE = "–"
WIDTH = 170


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A table as text: the first column is left-aligned, the others are numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def number(value: float | None) -> str:
    """Three significant digits, or a dash."""
    if value is None:
        return NONE
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.2f}"


def build_grids(runs: Runs, labels: Mapping[str, str]) -> list[Grid]:
    """All tables: the closed loop, the limits, the open loop, the goals."""
    measured = {run["client"] for run in runs}
    names = [name for name in labels if name in measured]

    def spread(name: str, scenario: str, *keys: str) -> str:
        return " / ".join(_with_range(figures(runs, name, scenario, key)) for key in keys)

    closed = [
        [labels[name]]
        + [
            spread(name, c, "cpu_us_per_event", "delta_ttft_ms", "delta_tpot_percent")
            for c in ("c64", "c512", "c2048")
        ]
        + [number(median(runs, name, "c2048", key)) for key in ("peak_pss_mb", "kb_per_stream")]
        for name in names
    ]
    limits = [
        [labels[name]]
        + [spread(name, "saturated", key) for key in ("events_per_s", "reader_lag_p99_ms", "events_per_read")]
        + [spread(name, "c16384", key) for key in ("cpu_us_per_event", "delta_ttft_ms", "kb_per_stream")]
        + [spread(name, "start", "start_us")]
        + [spread(name, c, "send_lag_p99_ms") + _assumed(runs, name, c) for c in ("open200", "open1000")]
        for name in names
    ]
    per_event = "CPU µs per event / ΔTTFT ms / ΔTPOT %"
    return [
        Grid(
            title=f"One core, closed loop: {per_event}",
            header=(
                "client",
                *(s.title for s in SCENARIOS[:3]),
                "peak PSS MB, C 2048",
                "KB per stream, C 2048",
            ),
            rows=closed,
        ),
        Grid(
            title="One core, limits (* schedule assumed to begin with the request that was least late)",
            header=(
                "client",
                "saturated: events/s",
                "p99 reader lag ms",
                "events per read",
                "C 16384: µs per event",
                "ΔTTFT ms",
                "KB per stream",
                "start of a request µs",
                "p99 send lag ms, 200/s",
                "1000/s",
            ),
            rows=limits,
        ),
        Grid(
            title="Goals (ratio: ours / best rival's, per round, median and min–max)",
            header=("goal", "bound", "ours", "best rival", "ratio", "verdict"),
            rows=[_goal_row(judge(runs, goal), labels) for goal in GOALS],
        ),
    ]


def build_notes(runs: Runs, labels: Mapping[str, str], left_out: Iterable[str]) -> list[str]:
    """What failed, what is doubtful, and what was not run, a line each."""
    lines = []
    for run in runs:
        where = f"{labels[run['client']]}, {run['scenario']}, round {run['round'] + 1}"
        if run.get("failure"):
            lines.append(f"FAILED {where}: {run['failure']}")
        lines += [f"marked {where}: {mark}" for mark in run.get("marks", ())]
    return [*lines, *(f"not run: {line}" for line in left_out)]


def print_rich(grids: Sequence[Grid], notes: Sequence[str]) -> None:
    """Tables and notes for the terminal."""
    console = Console(width=max(WIDTH, Console().width))
    for grid in grids:
        table = Table(title=grid.title, title_justify="left")
        for i, name in enumerate(grid.header):
            table.add_column(name, justify="right" if i else "left")
        for row in grid.rows:
            table.add_row(*row)
        console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False)


def to_markdown(grids: Sequence[Grid], notes: Sequence[str], facts: Sequence[str]) -> str:
    """The same as a Markdown document, with what it was measured on."""
    parts = ["# The load client against its rivals", *(f"- {fact}" for fact in facts)]
    for grid in grids:
        parts += [f"\n## {grid.title}", _line(grid.header), _line(["---"] * len(grid.header))]
        parts += [_line(row) for row in grid.rows]
    return "\n".join([*parts, "\n## Notes", *(f"- {note}" for note in notes)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _with_range(by_round: Mapping[int, float]) -> str:
    if not by_round:
        return NONE
    values = list(by_round.values())
    middle = number(statistics.median(values))
    low, high = number(min(values)), number(max(values))
    return middle if low == high else f"{middle} ({low}–{high})"


def _assumed(runs: Runs, name: str, scenario: str) -> str:
    found = [
        run
        for run in runs
        if run["client"] == name and run["scenario"] == scenario and "schedule_known" in run
    ]
    return "*" if found and not found[0]["schedule_known"] else ""


def _goal_row(verdict: Verdict, labels: Mapping[str, str]) -> list[str]:
    goal = verdict.goal
    sign = "≤" if goal.sense == "at most" else "≥"
    rival = NONE if verdict.rival is None else f"{labels[verdict.rival]} {number(verdict.rivals)}"
    ratio = _with_range(dict(enumerate(verdict.ratios)))
    row = [goal.title, f"{sign} {number(goal.bound)} {goal.unit}", number(verdict.ours), rival, ratio]
    if verdict.ours is None:
        return [*row, "not measured"]
    apart = abs(verdict.ours / goal.bound - 1)
    return [*row, f"{'met' if goal.met(verdict.ours) else 'MISSED'} by {apart:.0%}"]
