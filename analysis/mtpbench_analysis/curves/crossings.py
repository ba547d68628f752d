"""Pure: where one curve overtakes another, and which of several wins at each interactivity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mtpbench_analysis.curves.cells import Interval
from mtpbench_analysis.curves.curve_reader import CurveReader, interval_of
from mtpbench_analysis.curves.noise import FloatArray
from mtpbench_analysis.curves.ratios import EQUAL, Ratio, ratio_of

_STEPS = 16
"""Looks between two neighbouring knots: two monotone cubics rarely cross twice between them."""
_COARSE = 33
_ROUNDING = 1e-12
"""Throughputs that differ by less than this share are one number: arithmetic leaves 1e-15 between equals."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """A crossing is an interactivity at which two curves serve the same.

    Args:
        interactivity_tps: where.
        tput_tps_per_gpu: what both serve there.
        wins_above: whether the curve beats the baseline above it (and loses below).
        interval: of the interactivity; None where the noise is unknown, where in many draws there is no
            single crossing, or where there are several.
        single_run: whether there is no interval because single runs do not show their noise.
        unclear_share: of the draws that cross never or more than once, where that is why there is none.
        wide_gap: it lies between two knots too far apart for the comparison's ratios.
    """

    interactivity_tps: float
    tput_tps_per_gpu: float
    wins_above: bool
    interval: Interval | None = None
    single_run: bool = False
    unclear_share: float | None = None
    wide_gap: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Lead:
    """A lead is a range of interactivity in which one curve serves the most.

    Args:
        low_tps, high_tps: the range; the first begins at 0, where every best point still counts.
        winner: index of the curve; among equals the first.
        equals: indices of the curves that serve the same all along the range, to what a ratio shows, and are
            known as the winner is: both measured there, or both by their best points.
        ratio: its throughput over that of the next best at the middle of the range, bounded or withheld as
            any ratio is; None where no other curve reaches it.
        share_of_draws: in how many draws of the noise the winner also wins there; None where that is unknown,
            the ratio is not exact, or others are equal.
    """

    low_tps: float
    high_tps: float
    winner: int
    ratio: Ratio | None
    share_of_draws: float | None
    equals: tuple[int, ...] = ()

    @property
    def leaders(self) -> tuple[int, ...]:
        """Returns the winner and its equals."""
        return (self.winner, *self.equals)

    @property
    def is_settled(self) -> bool:
        """Returns whether the winner wins against any value of rivals that were not measured there."""
        return self.ratio is None or self.ratio.bound in ("exact", "at_least")


def find_crossings(baseline: CurveReader, other: CurveReader) -> tuple[Crossing, ...]:
    """Returns where `other` and the baseline serve the same, within the interactivities that both fronts
    span.
    """
    grid = _grid((baseline, other))
    if len(grid) < 2:
        return ()
    crossings = []
    for low, high in _sign_changes(baseline, other, grid):
        at = _root(baseline, other, low, high)
        (cell_base,), (cell_other,) = baseline.cells([at]), other.cells([at])
        before = float(other.serves([low])[0] - baseline.serves([low])[0])
        crossings.append(
            Crossing(
                interactivity_tps=at,
                tput_tps_per_gpu=float(baseline.serves([at])[0]),
                wins_above=before < 0,
                wide_gap=cell_base.wide_gap or cell_other.wide_gap,
            )
        )
    if len(crossings) != 1:
        return tuple(crossings)
    return (_with_interval(crossings[0], baseline, other, grid),)


def find_leads(readers: Sequence[CurveReader]) -> tuple[Lead, ...]:
    """Returns which curve serves the most at each interactivity, from 0 to the highest that any curve
    reaches.

    Below its front a curve counts with its best point, which is faster than asked; what it would serve there
    is not known, so a range ends where a front begins.
    """
    crossings = {
        at
        for i, reader in enumerate(readers)
        for other in readers[i + 1 :]
        for at in _all_crossings(reader, other)
    }
    knots = {knot.x for reader in readers for knot in reader.curve.front}
    edges = np.array(sorted({0.0, *knots, *crossings}))
    places = (edges[:-1] + edges[1:]) / 2
    values = _values(readers, places)
    near_best = values >= np.nanmax(values, axis=0) * (1 - _ROUNDING)
    winners = near_best.argmax(axis=0)
    there = np.isfinite(values)
    begun = np.stack([places >= reader.curve.range_tps[0] for reader in readers])
    # A lead goes on while the winner is the same, has rivals, equals or none, and it, and they, are measured.
    kinds = [
        (
            int(winner),
            there[:, i].sum() == 1,
            begun[winner, i],
            _all_but(begun[:, i] | ~there[:, i], winner),
            tuple(near_best[:, i]),
        )
        for i, winner in enumerate(winners)
    ]
    begins = [i for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1]]
    lows, highs = edges[begins], edges[[*begins[1:], -1]]
    leads = [
        _lead(readers, int(winners[at]), float(low), float(high))
        for low, high, at in zip(lows, highs, begins, strict=True)
    ]
    return tuple(_without_crossings_of_equals(readers, leads))


def _without_crossings_of_equals(readers: Sequence[CurveReader], leads: Sequence[Lead]) -> list[Lead]:
    """Returns leads of which no two neighbours are a tie of the same curves, known in the same way."""
    merged = list(leads[:1])
    for lead in leads[1:]:
        before = merged[-1]
        same = before.equals and set(before.leaders) == set(lead.leaders)
        if same and before.is_settled == lead.is_settled:
            merged[-1] = _lead(readers, before.winner, before.low_tps, lead.high_tps)
        else:
            merged.append(lead)
    return merged


def _all_but(flags: npt.NDArray[np.bool_], index: int) -> bool:
    return bool(np.delete(flags, index).all())


def _lead(readers: Sequence[CurveReader], winner: int, low: float, high: float) -> Lead:
    middle = (low + high) / 2
    cells = [reader.cells([middle])[0] for reader in readers]
    rivals = [i for i, cell in enumerate(cells) if i != winner and cell.tput_tps_per_gpu is not None]
    ratio = None
    if rivals:
        # One that is only known by its best point may serve any more than that: it bounds before all others.
        next_best = max(rivals, key=lambda i: (cells[i].state == "at_least", cells[i].tput_tps_per_gpu))
        ratio = ratio_of(cells[winner], cells[next_best], readers[winner].max_gap)
    exact = ratio is None or (ratio.value is not None and ratio.bound == "exact")
    equals = _equals(readers, winner, low, high)
    share = _share(readers, winner, middle) if exact and not equals else None
    return Lead(low_tps=low, high_tps=high, winner=winner, ratio=ratio, share_of_draws=share, equals=equals)


def _equals(readers: Sequence[CurveReader], winner: int, low: float, high: float) -> tuple[int, ...]:
    values = _values(readers, np.linspace(low, high, _COARSE))
    near = (np.abs(values / values[winner] - 1) < EQUAL).all(axis=1)
    begun = [low >= reader.curve.range_tps[0] for reader in readers]
    return tuple(i for i, is_near in enumerate(near) if i != winner and is_near and begun[i] == begun[winner])


def _values(readers: Sequence[CurveReader], places: FloatArray) -> FloatArray:
    return np.stack([reader.serves(places) for reader in readers])


def _share(readers: Sequence[CurveReader], winner: int, place: float) -> float | None:
    if not all(reader.is_sure for reader in readers):
        return None
    drawn = np.nan_to_num(np.stack([reader.drawn([place])[:, 0] for reader in readers]), nan=0.0)
    return float((drawn.argmax(axis=0) == winner).mean())


def _all_crossings(reader: CurveReader, other: CurveReader) -> list[float]:
    """Returns where both serve the same at or above an interactivity, the flat parts below the fronts
    included.
    """
    high = min(reader.curve.range_tps[1], other.curve.range_tps[1])
    knots = {knot.x for side in (reader, other) for knot in side.curve.front if knot.x <= high}
    grid = _fine(sorted({0.0, high, *knots}))
    return [_root(reader, other, *edges) for edges in _sign_changes(reader, other, grid)]


def _grid(readers: Sequence[CurveReader]) -> FloatArray:
    low = max(reader.curve.range_tps[0] for reader in readers)
    high = min(reader.curve.range_tps[1] for reader in readers)
    if low >= high:
        return np.empty(0)
    inside = {k.x for reader in readers for k in reader.curve.front if low < k.x < high}
    return _fine(sorted({low, high, *inside}))


def _fine(edges: Sequence[float]) -> FloatArray:
    pieces = [np.linspace(a, b, _STEPS, endpoint=False) for a, b in pairwise(edges)]
    return np.concatenate([*pieces, [edges[-1]]]) if pieces else np.array(edges)


def _sign_changes(baseline: CurveReader, other: CurveReader, grid: FloatArray) -> list[tuple[float, float]]:
    served = baseline.serves(grid)
    difference = other.serves(grid) - served
    sign = np.sign(np.where(np.abs(difference) <= _ROUNDING * served, 0, difference))
    nonzero = np.flatnonzero(sign)
    return [(float(grid[a]), float(grid[b])) for a, b in pairwise(nonzero) if sign[a] != sign[b]]


def _root(baseline: CurveReader, other: CurveReader, low: float, high: float) -> float:
    """Returns the crossing between two places of different sign, to 1e-9 of its value."""
    for _ in range(8):
        places = np.linspace(low, high, 17)
        signs = np.sign(other.serves(places) - baseline.serves(places))
        after = int(np.flatnonzero(signs != signs[0])[0])
        low, high = float(places[after - 1]), float(places[after])
        if high - low <= 1e-9 * high:
            break
    return high


def _with_interval(
    crossing: Crossing, baseline: CurveReader, other: CurveReader, grid: FloatArray
) -> Crossing:
    """Returns the only crossing of two curves with its interval, or with the reason why it has none."""
    if not (baseline.is_sure and other.is_sure):
        return replace(crossing, single_run=True)
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
    unclear_share = None if interval else 1 - len(rows) / len(at)
    return replace(crossing, interval=interval, unclear_share=unclear_share)
