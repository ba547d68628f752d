"""Pure: where one curve overtakes another, and which of several wins at each interactivity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mtpbench_analysis.cells import Interval
from mtpbench_analysis.noise import FloatArray
from mtpbench_analysis.reading import Reading, interval_of

_STEPS = 16
"""Looks between two neighbouring knots: two monotone cubics rarely cross twice between them."""
_COARSE = 33


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """An interactivity at which two curves serve the same.

    Args:
        interactivity_tps: where.
        tput_tps_per_gpu: what both serve there.
        wins_above: whether the curve beats the baseline above it (and loses below).
        interval: of the interactivity; None where the noise is unknown, or where in many draws there is no
            single crossing.
        no_interval_because: the reason.
        wide_gap: it lies between two knots too far apart for the comparison's ratios.
    """

    interactivity_tps: float
    tput_tps_per_gpu: float
    wins_above: bool
    interval: Interval | None = None
    no_interval_because: str | None = None
    wide_gap: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Lead:
    """A range of interactivity in which one curve serves the most.

    Args:
        low_tps, high_tps: the range; the first begins at 0, where every best point still counts.
        winner: index of the curve.
        margin: throughput over that of the next best at the middle of the range; None where nobody else
            reaches it.
        share_of_draws: in how many draws of the noise the winner also wins there; None where unknown.
    """

    low_tps: float
    high_tps: float
    winner: int
    margin: float | None
    share_of_draws: float | None


def find_crossings(baseline: Reading, other: Reading) -> tuple[Crossing, ...]:
    """Where `other` and the baseline serve the same, within the interactivities that both fronts span."""
    grid = _grid((baseline, other))
    if len(grid) < 2:
        return ()
    found = []
    for left, right in _sign_changes(baseline, other, grid):
        at = _root(baseline, other, left, right)
        (cell_base,), (cell_other,) = baseline.cells([at]), other.cells([at])
        before = float(other.serves([left])[0] - baseline.serves([left])[0])
        found.append(
            Crossing(
                interactivity_tps=at,
                tput_tps_per_gpu=float(baseline.serves([at])[0]),
                wins_above=before < 0,
                wide_gap=cell_base.wide_gap or cell_other.wide_gap,
            )
        )
    if len(found) != 1:
        return tuple(found)
    interval, reason = _crossing_interval(baseline, other, grid)
    return (replace(found[0], interval=interval, no_interval_because=reason),)


def find_leads(readings: Sequence[Reading]) -> tuple[Lead, ...]:
    """Which curve serves the most at each interactivity, from 0 to the highest that any of them reaches.

    Below its front a curve counts with its best point, which is faster than asked.
    """
    crossings = {
        at
        for i, one in enumerate(readings)
        for other in readings[i + 1 :]
        for at in _all_crossings(one, other)
    }
    knots = {knot.x for reading in readings for knot in reading.curve.front}
    edges = np.array(sorted({0.0, *knots, *crossings}))
    values = _values(readings, (edges[:-1] + edges[1:]) / 2)
    winners = np.nanargmax(values, axis=0)
    alone = np.isfinite(values).sum(axis=0) == 1
    # A lead goes on while the winner stays the same, and while it has a rival or has none.
    begins = np.flatnonzero(np.diff(winners, prepend=-1) | np.diff(alone, prepend=~alone[:1]))
    lows, highs = edges[begins], edges[[*begins[1:], -1]]
    middles = (lows + highs) / 2
    margins, shares = _margins(readings, middles), _shares(readings, winners[begins], middles)
    return tuple(
        Lead(
            low_tps=float(low),
            high_tps=float(high),
            winner=int(winners[at]),
            margin=margin,
            share_of_draws=share,
        )
        for low, high, at, margin, share in zip(lows, highs, begins, margins, shares, strict=True)
    )


def _values(readings: Sequence[Reading], places: FloatArray) -> FloatArray:
    return np.stack([reading.serves(places) for reading in readings])


def _margins(readings: Sequence[Reading], places: FloatArray) -> list[float | None]:
    if len(readings) == 1:
        return [None] * len(places)
    ordered = np.sort(np.nan_to_num(_values(readings, places), nan=0.0), axis=0)
    best, second = ordered[-1], ordered[-2]
    return [float(a / b) if b > 0 else None for a, b in zip(best, second, strict=True)]


def _shares(readings: Sequence[Reading], winners: Sequence[int], places: FloatArray) -> list[float | None]:
    if not all(reading.is_sure for reading in readings):
        return [None] * len(places)
    drawn = np.nan_to_num(np.stack([reading.drawn(places) for reading in readings]), nan=0.0)
    return [float(share) for share in (drawn.argmax(axis=0) == np.asarray(winners)).mean(axis=0)]


def _all_crossings(one: Reading, other: Reading) -> list[float]:
    """Where both serve the same at or above an interactivity, the flat parts below the fronts included."""
    high = min(one.curve.range_tps[1], other.curve.range_tps[1])
    knots = {knot.x for reading in (one, other) for knot in reading.curve.front if knot.x <= high}
    grid = _fine(sorted({0.0, high, *knots}))
    return [_root(one, other, left, right) for left, right in _sign_changes(one, other, grid)]


def _grid(readings: Sequence[Reading]) -> FloatArray:
    low = max(reading.curve.range_tps[0] for reading in readings)
    high = min(reading.curve.range_tps[1] for reading in readings)
    if low >= high:
        return np.empty(0)
    inside = {k.x for reading in readings for k in reading.curve.front if low < k.x < high}
    return _fine(sorted({low, high, *inside}))


def _fine(edges: Sequence[float]) -> FloatArray:
    pieces = [np.linspace(a, b, _STEPS, endpoint=False) for a, b in pairwise(edges)]
    return np.concatenate([*pieces, [edges[-1]]]) if pieces else np.array(edges)


def _sign_changes(baseline: Reading, other: Reading, grid: FloatArray) -> list[tuple[float, float]]:
    sign = np.sign(other.serves(grid) - baseline.serves(grid))
    known = np.flatnonzero(sign)
    return [(float(grid[a]), float(grid[b])) for a, b in pairwise(known) if sign[a] != sign[b]]


def _root(baseline: Reading, other: Reading, left: float, right: float) -> float:
    """The crossing between two places of different sign, to 1e-9 of its value."""
    for _ in range(8):
        places = np.linspace(left, right, 17)
        signs = np.sign(other.serves(places) - baseline.serves(places))
        after = int(np.flatnonzero(signs != signs[0])[0])
        left, right = float(places[after - 1]), float(places[after])
        if right - left <= 1e-9 * right:
            break
    return right


def _crossing_interval(
    baseline: Reading, other: Reading, grid: FloatArray
) -> tuple[Interval | None, str | None]:
    if not (baseline.is_sure and other.is_sure):
        return None, "single run"
    places = np.linspace(grid[0], grid[-1], _COARSE)
    difference = other.drawn(places) - baseline.drawn(places)
    changes = (np.sign(difference[:, 1:]) * np.sign(difference[:, :-1])) < 0
    once = changes.sum(axis=1) == 1
    rows = np.flatnonzero(once)
    at = np.full(len(difference), np.nan)
    column = changes[rows].argmax(axis=1)
    before, after = difference[rows, column], difference[rows, column + 1]
    at[rows] = places[column] + (places[column + 1] - places[column]) * before / (before - after)
    interval = interval_of(at, baseline.confidence)
    share = 1 - len(rows) / len(at)
    return interval, None if interval else f"{share:.0%} of the draws cross never or more than once"
