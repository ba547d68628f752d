"""The short form of the coverage study (`benchmarks/coverage.py`): printed intervals hold the truth.

The truth is the embedded engine asked at every concurrency; experiments measure a ladder of it, with noise.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def study(name: str) -> Any:
    """A module of the study; `coverage` also names a package, so the path comes last and goes again."""
    sys.path.append(str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


experiment = study("coverage_experiment")
truth = study("coverage_truth")
PLANS = ((1, False), (3, False), (3, True))
SETTINGS = tuple(itertools.product((2, 4), ((0.005, 0.01), (0.02, 0.005)), PLANS))


def answers_of(pair: str, settings: Sequence[Any], trials: int = 1) -> dict[str, list[Any]]:
    """By kind, the answers of experiments: with the ladder's factor, noise and luck, runs and restarts."""
    kinds: dict[str, list[Any]] = {}
    for number, (step, (noise, luck), (runs, restart)) in enumerate(settings):
        design = experiment.Design(pair=pair, step=step, noise=noise, luck=luck, runs=runs, restart=restart)
        for trial in range(trials):
            for answer in experiment.Experiment(design, 1000 * number + trial).answers():
                kinds.setdefault(answer.kind, []).append(answer)
    return kinds


def held(answers: list[Any], *, formerly: bool = False) -> float:
    """The share of the answers with an interval that hold the truth."""
    pairs = [(answer.truth, answer.former if formerly else answer.bounds) for answer in answers]
    known = [
        truth is not None and low <= truth <= high
        for truth, bounds in pairs
        if bounds
        for low, high in [bounds]
    ]
    assert len(known) >= 0.6 * len(answers)
    return sum(known) / len(known)


@pytest.fixture(scope="module")
def one_topology() -> dict[str, list[Any]]:
    return answers_of("one topology", SETTINGS, trials=2)


@pytest.mark.parametrize("kind", ["cell", "cost", "joules", "ratio", "fastest", "measured cell"])
def test_intervals_hold_what_the_engine_serves_between_the_ladder(
    one_topology: dict[str, list[Any]], kind: str
) -> None:
    answers = one_topology[kind]
    assert len(answers) >= 80
    assert 0.92 <= held(answers) <= 1


def test_intervals_of_the_noise_of_runs_alone_did_not(one_topology: dict[str, list[Any]]) -> None:
    """The experiments can tell: formerly a quarter of the answers missed."""
    assert held(one_topology["cell"], formerly=True) < 0.8
    assert held(one_topology["ratio"], formerly=True) < 0.85
    assert held(one_topology["joules"], formerly=True) < 0.7


def test_equal_sides_are_not_told_apart() -> None:
    """Server starts differ, runs of one start repeat it: the ratio's interval holds 1.00 all the same."""
    ratios = answers_of("one topology, equal sides", SETTINGS[::2])["ratio"]
    assert held(ratios) >= 0.95


def test_crossings_hold_the_true_one() -> None:
    crossings = answers_of("by formula, smooth", SETTINGS[::2])["crossing"]
    assert len(crossings) >= 5
    assert held(crossings) >= 0.9


def test_fronts_of_many_topologies_hold_the_truth() -> None:
    kinds = answers_of("eight topologies", SETTINGS[::3])
    assert held(kinds["cell"]) >= 0.92


def test_the_stored_truth_is_what_the_engine_serves() -> None:
    (asked, *_) = truth.ASKED
    (stored,) = truth.load_truth()[asked.sweep]["mtp"]
    gpus, (x, y, output, power_w) = truth.ask(asked, "mtp", 16)
    at = stored.concurrency.index(16)
    assert gpus == stored.gpus
    figures = stored.x[at], stored.y[at], stored.output[at], stored.power_w[at]
    assert figures == pytest.approx((x, y, output, power_w), rel=3e-3)


def test_the_truth_is_dense() -> None:
    for arms in truth.load_truth().values():
        for truths in arms.values():
            for one in truths:
                steps = [b / a for a, b in zip(one.concurrency, one.concurrency[1:], strict=False) if a >= 16]
                assert max(steps) <= 1.07
