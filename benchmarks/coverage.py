"""Do the printed 95% intervals hold the truth? Known deployments, measured again and again, and compared.

    .venv/bin/python benchmarks/coverage.py [--quick] [--trials N] [--details FILE]

The truth is the embedded engine asked at every concurrency (`coverage_truth.py`). Prints Markdown tables: how
often each kind of answer holds the truth, how wide it is, and the same of the former intervals
(`former_intervals.py`), which held the noise of runs alone. Seeds are fixed: the same code, the same table.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from coverage_experiment import Answer, Bounds, Design, Experiment

PAIRS = (
    *("one topology", "one topology, equal sides", "eight topologies"),
    *("by formula, smooth", "by formula, with a bend"),
)
EQUAL_FRONTS = "eight of equal truth against one"
PROCESSES = 2
TRIALS = 5
GAPS = (1.0, 1.5, 2.0, 3.0, 5.0)
"""Bounds of classes of how far apart in throughput the knots around a target are."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer of one experiment of a design."""

    design: Design
    answer: Answer


def designs() -> Iterator[Design]:
    """All settings of the study."""
    plans = [(1, False), (2, False), (3, False), (5, False), (2, True), (3, True), (5, True)]
    for pair, step, noise, luck, (runs, restart) in itertools.product(
        PAIRS, (2, 4), (0.005, 0.02, 0.05), (0.005, 0.01), plans
    ):
        yield Design(pair=pair, step=step, noise=noise, luck=luck, runs=runs, restart=restart)
    for pair, step, runs in itertools.product(("one topology", "eight topologies"), (2, 4), (1, 3)):
        yield Design(pair=pair, step=step, noise=0.02, luck=0.01, runs=runs, transient=0.015)
    for step, runs in itertools.product((2, 4), (2, 3, 5)):
        yield Design(pair=EQUAL_FRONTS, step=step, noise=0.05, luck=0.01, runs=runs)


def run_designs(chosen: Sequence[Design], trials: int) -> list[Judged]:
    """Every answer of so many experiments of each design."""
    with get_context("spawn").Pool(PROCESSES) as pool:
        rows = pool.imap(partial(run_design, trials), enumerate(chosen), chunksize=1)
        return [
            Judged(design, answer) for design, answers in zip(chosen, rows, strict=True) for answer in answers
        ]


def run_design(trials: int, numbered: tuple[int, Design]) -> list[Answer]:
    """The answers of a design's experiments; each has its own seed."""
    number, design = numbered
    return [
        answer for trial in range(trials) for answer in Experiment(design, number * 100_000 + trial).answers()
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cover:
    """How often some intervals hold the truth.

    Args:
        asked: answers.
        without: the share of them that has no interval.
        held, below, above: shares of the intervals that hold the truth, or have it below or above them.
        width: the median of full width over value; None without intervals.
    """

    asked: int
    without: float
    held: float
    below: float
    above: float
    width: float | None

    @classmethod
    def of(cls, answers: Sequence[Answer], interval_of: Callable[[Answer], Bounds]) -> Cover:
        pairs = [(answer, bounds) for answer in answers if (bounds := interval_of(answer))]
        count = max(len(pairs), 1)
        below = sum(a.truth is not None and a.truth < low for a, (low, _) in pairs)
        nothing = sum(a.truth is None for a, _ in pairs)
        above = sum(a.truth is not None and a.truth > high for a, (_, high) in pairs)
        widths = sorted((high - low) / a.value for a, (low, high) in pairs)
        return cls(
            asked=len(answers),
            without=1 - len(pairs) / max(len(answers), 1),
            held=1 - (below + above + nothing) / count,
            below=below / count,
            above=(above + nothing) / count,
            width=widths[len(widths) // 2] if widths else None,
        )


HEADS = (
    *("answers", "no interval", "hold the truth", "truth below / above", "median width"),
    *("former: hold", "width", "width now / former"),
)


def table(title: str, groups: Mapping[str, Sequence[Answer]]) -> str:
    """A Markdown table with one row for each group of answers."""
    lines = [f"| {' | '.join((title, *HEADS))} |", f"|---|{'---:|' * len(HEADS)}"]
    lines += [f"| {name} | {' | '.join(_figures(answers))} |" for name, answers in groups.items() if answers]
    return "\n".join(lines)


def _figures(answers: Sequence[Answer]) -> tuple[str, ...]:
    now = Cover.of(answers, lambda answer: answer.bounds)
    was = Cover.of(answers, lambda answer: answer.former)
    both = "–" if now.width is None or not was.width else f"{now.width / was.width:.1f}×"
    return (
        f"{now.asked:,}",
        f"{now.without:.1%}",
        "–" if now.width is None else f"**{now.held:.1%}**",
        f"{now.below:.1%} / {now.above:.1%}",
        _percent(now.width),
        "–" if was.width is None else f"{was.held:.1%}",
        _percent(was.width),
        both,
    )


def _percent(width: float | None) -> str:
    return "–" if width is None else f"{width:.1%}"


def grouped(judged: Iterable[Judged], name_of: Callable[[Judged], str]) -> dict[str, list[Answer]]:
    """The answers by name, in the order in which the names first appear."""
    groups: dict[str, list[Answer]] = {}
    for one in judged:
        groups.setdefault(name_of(one), []).append(one.answer)
    return groups


def gap_class(ratio: float) -> str:
    """The class of a ratio of knots, as a table names it."""
    if ratio <= GAPS[0]:
        return "at a knot"
    above = [edge for edge in GAPS if edge < ratio]
    below = [edge for edge in GAPS if edge >= ratio]
    return f"{above[-1]:g}× to {below[0]:g}×" if below else f"above {GAPS[-1]:g}×"


def plan_of(design: Design) -> str:
    """How often and in how many starts a recipe was run."""
    if design.runs == 1:
        return "1 run, time blocks"
    return f"{design.runs} runs, " + (f"{design.runs} starts" if design.restart else "1 start")


FACTORS: Mapping[str, Callable[[Design], str]] = {
    "truth": lambda design: design.pair,
    "ladder": lambda design: f"×{design.step}",
    "noise of a run": lambda design: f"{design.noise:.1%}",
    "luck of a start": lambda design: f"{design.luck:.1%}",
    "runs": plan_of,
    "transient": lambda design: f"{design.transient:.1%}",
}
KINDS = ("cell", "ratio", "crossing", "fastest", "joules")
"""Kinds of answers whose cover stands by setting."""


def write_tables(judged: Sequence[Judged]) -> str:
    """The tables of the study: by kind of answer, by setting, and fronts of equal truth."""
    equal = [one for one in judged if one.design.pair == EQUAL_FRONTS]
    judged = [one for one in judged if one.design.pair != EQUAL_FRONTS]
    parts = [table("answer", grouped(judged, lambda one: one.answer.kind)), by_setting(judged)]
    if equal:
        parts.append(table("eight topologies of equal truth against one, 5% noise", by_plan(equal)))
    return "\n\n".join(parts)


def by_setting(judged: Sequence[Judged]) -> str:
    """A row for each level of each factor: the shares that hold, and how wide the intervals are."""
    heads = [f"{kind}: holds" for kind in KINDS]
    heads += ["cell: width", "formerly", "held formerly", "ratio: width", "formerly", "held formerly"]
    lines = [f"| setting | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for name, rows in _levels(judged):
        kinds = {kind: [one.answer for one in rows if one.answer.kind == kind] for kind in KINDS}
        covers = {kind: Cover.of(answers, lambda answer: answer.bounds) for kind, answers in kinds.items()}
        cells = [_held(cover) for cover in covers.values()]
        for kind in ("cell", "ratio"):
            was = Cover.of(kinds[kind], lambda answer: answer.former)
            cells += [_percent(covers[kind].width), _percent(was.width), _held(was)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _levels(judged: Sequence[Judged]) -> Iterator[tuple[str, list[Judged]]]:
    for factor, level in FACTORS.items():
        for name in sorted({level(one.design) for one in judged}):
            yield f"{factor}: {name}", [one for one in judged if level(one.design) == name]
    for name in sorted({gap_class(one.answer.knot_ratio) for one in judged}):
        yield f"knots: {name}", [one for one in judged if gap_class(one.answer.knot_ratio) == name]


def _held(cover: Cover) -> str:
    return "–" if cover.width is None else f"{cover.held:.1%}"


def by_plan(judged: Sequence[Judged]) -> dict[str, list[Answer]]:
    """The answers that compare fronts, by plan and kind."""
    wanted = [one for one in judged if one.answer.kind in ("cell", "ratio", "measured cell")]
    return dict(sorted(grouped(wanted, lambda one: f"{plan_of(one.design)}: {one.answer.kind}").items()))


def details(judged: Sequence[Judged]) -> str:
    """One line for each setting and kind of answer."""

    def name_of(one: Judged) -> str:
        return f"{one.answer.kind}; {'; '.join(level(one.design) for level in FACTORS.values())}"

    return table("setting", dict(sorted(grouped(judged, name_of).items())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every fifth setting")
    parser.add_argument("--trials", type=int, default=TRIALS, help="experiments for each setting")
    parser.add_argument("--details", type=Path, help="write one line for each setting here")
    parser.add_argument("--only", default="", help="truths whose name begins so")
    options = parser.parse_args()
    chosen = [design for design in designs() if design.pair.startswith(options.only)]
    if options.quick:
        chosen = chosen[::5]
    judged = run_designs(chosen, options.trials)
    print(f"{len(chosen)} settings, {options.trials} experiments each\n\n{write_tables(judged)}")
    if options.details:
        options.details.write_text(details(judged) + "\n", "utf-8")


if __name__ == "__main__":
    main()
