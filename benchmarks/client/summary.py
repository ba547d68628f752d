"""Medians over rounds, and our figures against the best rival's and the goals of load-client.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scenarios import SCENARIOS

OURS = "ours"
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
FEWEST = "c64"
Runs = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """A bound on one figure of one scenario; the figure is at most, or at least, the bound."""

    title: str
    scenario: str
    figure: str
    bound: float
    unit: str
    sense: Literal["at most", "at least"] = "at most"

    def met(self, value: float) -> bool:
        """Whether a figure meets it."""
        return value <= self.bound if self.sense == "at most" else value >= self.bound


EVENT_BYTES_KEPT = 8 * 64
GOALS = (
    Goal(title="CPU per event, C 64", scenario="c64", figure="cpu_us_per_event", bound=8, unit="µs"),
    Goal(title="CPU per event, C 512", scenario="c512", figure="cpu_us_per_event", bound=8, unit="µs"),
    Goal(title="CPU per event, C 2048", scenario="c2048", figure="cpu_us_per_event", bound=8, unit="µs"),
    Goal(
        title="events/s, saturated",
        scenario="saturated",
        figure="events_per_s",
        bound=95_000,
        unit="/s",
        sense="at least",
    ),
    Goal(
        title="p99 reader lag, saturated",
        scenario="saturated",
        figure="reader_lag_p99_ms",
        bound=20,
        unit="ms",
    ),
    Goal(title="start of a request", scenario="start", figure="start_us", bound=20, unit="µs"),
    Goal(title="ΔTTFT, burst at C 2048", scenario="c2048", figure="delta_ttft_ms", bound=6, unit="ms"),
    Goal(title="ΔTTFT, burst at C 16384", scenario="c16384", figure="delta_ttft_ms", bound=35, unit="ms"),
    Goal(title="p99 stamp error, C 2048", scenario="c2048", figure="stamp_error_p99_us", bound=20, unit="µs"),
    Goal(
        title="p99 stamp error, C 16384", scenario="c16384", figure="stamp_error_p99_us", bound=20, unit="µs"
    ),
    Goal(title="p99 send lag, 200/s", scenario="open200", figure="send_lag_p99_ms", bound=0.5, unit="ms"),
    Goal(title="p99 send lag, 1000/s", scenario="open1000", figure="send_lag_p99_ms", bound=10, unit="ms"),
    Goal(
        title="memory per stream, C 16384 (64 events kept)",
        scenario="c16384",
        figure="kb_per_stream",
        bound=5 + EVENT_BYTES_KEPT / 1000,
        unit="KB",
    ),
    Goal(
        title="two workers on two cores against one, draining",
        scenario="workers",
        figure="speedup",
        bound=1.8,
        unit="×",
        sense="at least",
    ),
    Goal(
        title="the same by CPU time",
        scenario="workers",
        figure="speedup_cpu",
        bound=1.8,
        unit="×",
        sense="at least",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A goal beside what was measured; `ratios` is ours / the best rival's, round by round."""

    goal: Goal
    ours: float | None
    rival: str | None
    rivals: float | None
    ratios: tuple[float, ...]


def add_memory(runs: Sequence[dict[str, Any]]) -> None:
    """`kb_per_stream` of each closed loop: peak RSS less that at C 64 in the same round, per stream more."""
    base = {(run["client"], run["round"]): run for run in runs if run["scenario"] == FEWEST}
    for run in runs:
        fewest = base.get((run["client"], run["round"]), {})
        low, high = fewest.get("peak_rss_mb"), run.get("peak_rss_mb")
        if low is None or high is None or BY_NAME[run["scenario"]].concurrency is None:
            continue
        more = run["server"]["peak_running"] - fewest["server"]["peak_running"]
        if more > 0:
            run["kb_per_stream"] = (high - low) * 1e3 / more


def figures(runs: Runs, client: str, scenario: str, figure: str) -> dict[int, float]:
    """A figure by round, where it was measured."""
    return {
        run["round"]: run[figure]
        for run in runs
        if run["client"] == client and run["scenario"] == scenario and run.get(figure) is not None
    }


def median(runs: Runs, client: str, scenario: str, figure: str) -> float | None:
    """The median of a figure over rounds, or None if it was never measured."""
    found = figures(runs, client, scenario, figure)
    return statistics.median(found.values()) if found else None


def judge(runs: Runs, goal: Goal) -> Verdict:
    """Our figure, the best rival's in the same run, and the ratio of each round."""
    best = min if goal.sense == "at most" else max
    medians = {
        name: value
        for name in {run["client"] for run in runs} - {OURS}
        if (value := median(runs, name, goal.scenario, goal.figure)) is not None
    }
    rival = best(medians, key=lambda name: medians[name]) if medians else None
    ours = figures(runs, OURS, goal.scenario, goal.figure)
    theirs = figures(runs, rival, goal.scenario, goal.figure) if rival else {}
    return Verdict(
        goal=goal,
        ours=statistics.median(ours.values()) if ours else None,
        rival=rival,
        rivals=medians[rival] if rival else None,
        ratios=tuple(ours[n] / theirs[n] for n in sorted(ours.keys() & theirs.keys()) if theirs[n]),
    )
