"""Pure: one metric of all matched recipes as two arrays of logarithms, one row for each round of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.metric import Metric
from mtpbench_analysis.regression.matching import PairedRecipe

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class PairedRuns:
    """Paired runs hold one metric of the recipes whose runs are complete on both sides.

    A round is one pass over the recipes: one repeat of one sweep. Rows of one round may err together.

    Args:
        recipes: indices into the matched recipes, one for each column.
        old, new: (rounds, recipes) logarithms.
        old_sweeps, new_sweeps: (rounds,) which sweep of its side each round belongs to; a repeat by restart
            is a sweep of its own.
        arms, deployments: (recipes,) numbers that are equal within an arm, within a server start.
        block_variance: (recipes,) of a new/old log ratio as far as time blocks tell it; 0 where they do not.
    """

    recipes: tuple[int, ...]
    old: FloatArray
    new: FloatArray
    old_sweeps: IntArray
    new_sweeps: IntArray
    arms: IntArray
    deployments: IntArray
    block_variance: FloatArray

    @property
    def ratios(self) -> FloatArray:
        """Returns (recipes,) the mean log of the new runs minus that of the old; every sweep weighs
        the same.
        """
        new, old = per_sweep(self.new, self.new_sweeps), per_sweep(self.old, self.old_sweeps)
        ratios: FloatArray = new.mean(axis=0) - old.mean(axis=0)
        return ratios


def per_sweep(values: FloatArray, sweeps: IntArray) -> FloatArray:
    """Returns (sweeps, recipes) means of the rounds of each sweep."""
    return np.stack([values[sweeps == number].mean(axis=0) for number in np.unique(sweeps)])


def pair_runs(recipes: Sequence[PairedRecipe], metric: Metric) -> tuple[PairedRuns | None, tuple[int, ...]]:
    """Returns the pairs of one metric, and the recipes that it leaves out because runs of theirs are missing.

    Where no recipe has all rounds, rounds are given up: each sweep becomes the mean of its runs. A recipe
    that lacks a whole sweep has no place in either. None where no recipe knows the metric.
    """
    measured = [i for i, recipe in enumerate(recipes) if _values(recipe, metric)]
    if not measured:
        return None, ()
    rounds = [_rounds([recipes[i] for i in measured], side) for side in ("old", "new")]
    full = [
        i
        for i in measured
        if all(
            [len(runs) for runs in lists] == most
            for lists, most in zip(_sides(recipes[i]), rounds, strict=True)
        )
    ]
    collapse = not full
    chosen = full or [i for i in measured if all(all(lists) for lists in _sides(recipes[i]))]
    if not chosen:
        return None, tuple(measured)
    arms, deployments = (_numbers([pick(recipes[i]) for i in chosen]) for pick in (_arm, _deployment))
    columns = [[_column(lists, metric, collapse) for lists in _sides(recipes[i])] for i in chosen]
    sides = zip(*(_sides(recipes[i]) for i in chosen), strict=True)
    sweeps = [np.arange(len(rounds[i])) if collapse else _sweeps(side) for i, side in enumerate(sides)]
    pairs = PairedRuns(
        recipes=tuple(chosen),
        old=np.array([old for old, _ in columns], np.float64).T,
        new=np.array([new for _, new in columns], np.float64).T,
        old_sweeps=sweeps[0],
        new_sweeps=sweeps[1],
        arms=arms,
        deployments=deployments,
        block_variance=np.array([_block_variance(recipes[i], metric) for i in chosen]),
    )
    return pairs, tuple(i for i in measured if i not in chosen)


def _sweeps(recipes: Sequence[Sequence[Sequence[CurvePoint]]]) -> IntArray:
    """Returns the number of each round's sweep on one side; rounds whose servers were started anew have
    numbers of their own.

    Args:
        recipes: the runs of each recipe by sweep.
    """
    numbers: list[int] = []
    for of_sweep in zip(*recipes, strict=True):
        first = max(numbers, default=-1) + 1
        patterns = {_pattern(runs) for runs in of_sweep}
        # Recipes that were not restarted together have no rounds that stand for a start.
        together = patterns.pop() if len(patterns) == 1 else (0,) * len(of_sweep[0])
        numbers += [first + number for number in together]
    return np.array(numbers, np.intp)


def _pattern(runs: Sequence[CurvePoint]) -> tuple[int, ...]:
    """Returns the number of each run's server start, in the order in which starts come first."""
    order: dict[str | None, int] = {}
    return tuple(order.setdefault(run.start, len(order)) for run in runs)


def _arm(recipe: PairedRecipe) -> object:
    return recipe.arm


def _deployment(recipe: PairedRecipe) -> object:
    return recipe.deployment


def _sides(recipe: PairedRecipe) -> tuple[tuple[tuple[CurvePoint, ...], ...], ...]:
    return recipe.old, recipe.new


def _values(recipe: PairedRecipe, metric: Metric) -> bool:
    """Returns whether every run of the recipe has the metric."""
    values = [metric.of_point(run) for lists in _sides(recipe) for runs in lists for run in runs]
    return all(value is not None and value > 0 for value in values)


def _rounds(recipes: Sequence[PairedRecipe], side: str) -> list[int]:
    """Returns the most runs that any recipe has in each sweep of one side."""
    counts = [[len(runs) for runs in getattr(recipe, side)] for recipe in recipes]
    return [max(column) for column in zip(*counts, strict=True)]


def _column(lists: Sequence[Sequence[CurvePoint]], metric: Metric, collapse: bool) -> list[float]:
    logs = [[math.log(metric.of_point(run)) for run in runs] for runs in lists]
    return (
        [sum(runs) / len(runs) for runs in logs] if collapse else [value for runs in logs for value in runs]
    )


def _block_variance(recipe: PairedRecipe, metric: Metric) -> float:
    """Returns the variance from time blocks of the runs; 0 unless all of them have it."""
    total = 0.0
    for lists in _sides(recipe):
        runs = [run for runs in lists for run in runs]
        errors: list[Any] = [getattr(run, metric.error) if metric.error else None for run in runs]
        if None in errors:
            return 0.0
        total += sum(error**2 for error in errors) / len(runs) ** 2
    return total


def _numbers(keys: Sequence[object]) -> IntArray:
    order: dict[object, int] = {}
    return np.array([order.setdefault(key, len(order)) for key in keys], np.intp)
