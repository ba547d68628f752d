"""Pure: where one curve overtakes another, and which of several wins at each interactivity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations

import numpy as np
import numpy.typing as npt

from mtpbench_analysis.curves.cells import Interval, Span
from mtpbench_analysis.curves.curve_reader import CurveReader
from mtpbench_analysis.curves.errors import FloatArray
from mtpbench_analysis.curves.ratios import EQUAL, Ratio, ratio_of

_STEPS = 16
"""Looks between two neighbouring knots: two monotone cubics rarely cross twice between them."""
_COARSE = 33
_AT_KNOT = 1e-7
"""An edge nearer to a knot than this share of it is the knot's own."""
_ROUNDING = 1e-12
"""Throughputs that differ by less than this share are one number: arithmetic leaves 1e-15 between equals."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """A crossing is an interactivity at which two curves serve the same.

    Args:
        interactivity_tps: where; None in a gap.
        tput_tps_per_gpu: what both serve there; None in a gap.
        wins_above: whether the curve beats the baseline above it (and loses below).
        interval: of the interactivity; None where too many draws do not cross, where there are several
            crossings, or in a gap.
        unclear_share: of the draws that do not cross, where that is why there is no interval.
        gap: the interactivities between which it lies, where knots that are too far apart for the
            comparison's ratios leave open where: one curve serves more below them, the other above.
    """

    interactivity_tps: float | None
    tput_tps_per_gpu: float | None
    wins_above: bool
    interval: Interval | None = None
    unclear_share: float | None = None
    gap: Span | None = None

    @property
    def wide_gap(self) -> bool:
        """Returns whether nothing but a gap is known that it lies in."""
        return self.gap is not None


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
        possible: indices of the curves of which one wins, where wide gaps leave open which; the winner is
            then the first of them.
    """

    low_tps: float
    high_tps: float
    winner: int
    ratio: Ratio | None
    share_of_draws: float | None
    equals: tuple[int, ...] = ()
    possible: tuple[int, ...] = ()

    @property
    def leaders(self) -> tuple[int, ...]:
        """Returns the winner and its equals, or those of which one wins."""
        return self.possible or (self.winner, *self.equals)

    @property
    def is_settled(self) -> bool:
        """Returns whether the winner wins against any value of rivals that were not measured there."""
        is_won = self.ratio is None or self.ratio.bound in ("exact", "at_least")
        return is_won and not self.possible


def find_crossings(baseline: CurveReader, other: CurveReader) -> tuple[Crossing, ...]:
    """Returns where `other` and the baseline serve the same, within the interactivities that both fronts
    span.
    """
    grid = _grid((baseline, other))
    if len(grid) < 2:
        return ()
    crossings = []
    for low, high in _changes(grid, _signs(baseline, other, grid)):
        between = grid[(grid >= low) & (grid <= high)]
        wins_above = bool(_signs(baseline, other, np.array([low]))[0] < 0)
        if baseline.is_wide(between).any() or other.is_wide(between).any():
            gap = Span(low=low, high=high)
            crossings.append(
                Crossing(interactivity_tps=None, tput_tps_per_gpu=None, wins_above=wins_above, gap=gap)
            )
            continue
        at = _root(lambda places: other.serves(places) - baseline.serves(places), low, high)
        tput = float(baseline.serves([at])[0])
        crossings.append(Crossing(interactivity_tps=at, tput_tps_per_gpu=tput, wins_above=wins_above))
    if len(crossings) != 1 or crossings[0].gap is not None:
        return tuple(crossings)
    return (_with_interval(crossings[0], baseline, other, grid),)


def find_leads(readers: Sequence[CurveReader]) -> tuple[Lead, ...]:
    """Returns which curve serves the most at each interactivity, from 0 to the highest that any curve
    reaches.

    Over a wide gap a curve may serve anything between its knots. Below its front it counts with its best
    point, which is faster than asked; what it would serve there is not known, so a range ends where a front
    begins.
    """
    knots = {knot.x for reader in readers for knot in reader.curve.front}
    edges = np.array(sorted({0.0, *knots, *_edges(readers, np.array(sorted(knots)))}))
    places = (edges[:-1] + edges[1:]) / 2
    values = _values(readers, places)
    near_best = values >= np.nanmax(values, axis=0) * (1 - _ROUNDING)
    possible = _possible(readers, places)
    winners = [min(some) if some else int(near_best[:, i].argmax()) for i, some in enumerate(possible)]
    there = np.isfinite(values)
    begun = np.stack([places >= reader.curve.range_tps[0] for reader in readers])
    # A lead goes on while the winner is the same, has rivals, equals or none, and it, and they, are measured.
    kinds = [
        (
            winner,
            there[:, i].sum() == 1,
            begun[winner, i],
            _all_but(begun[:, i] | ~there[:, i], winner),
            possible[i] or tuple(near_best[:, i]),
        )
        for i, winner in enumerate(winners)
    ]
    begins = [i for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1]]
    lows, highs = edges[begins], edges[[*begins[1:], -1]]
    leads = [
        _lead(readers, winners[at], float(low), float(high), possible[at])
        for low, high, at in zip(lows, highs, begins, strict=True)
    ]
    return tuple(_without_crossings_of_equals(readers, leads))


def _possible(readers: Sequence[CurveReader], places: FloatArray) -> list[tuple[int, ...]]:
    """Returns for each place the curves of which one serves the most, where wide gaps leave open which."""
    bounds = [reader.bounds(places) for reader in readers]
    lowest, highest = np.stack([low for low, _ in bounds]), np.stack([high for _, high in bounds])
    possible = highest >= np.nanmax(lowest, axis=0) * (1 - _ROUNDING)
    wide = np.stack([reader.is_wide(places) for reader in readers]) & possible
    is_open = wide.any(axis=0) & (possible.sum(axis=0) > 1)
    return [tuple(np.flatnonzero(possible[:, i]).tolist()) if is_open[i] else () for i in range(len(places))]


def _without_crossings_of_equals(readers: Sequence[CurveReader], leads: Sequence[Lead]) -> list[Lead]:
    """Returns leads of which no two neighbours are a tie of the same curves, known in the same way."""
    merged = list(leads[:1])
    for lead in leads[1:]:
        before = merged[-1]
        same = before.equals and not lead.possible and set(before.leaders) == set(lead.leaders)
        if same and before.is_settled == lead.is_settled:
            merged[-1] = _lead(readers, before.winner, before.low_tps, lead.high_tps)
        else:
            merged.append(lead)
    return merged


def _all_but(flags: npt.NDArray[np.bool_], index: int) -> bool:
    return bool(np.delete(flags, index).all())


def _lead(
    readers: Sequence[CurveReader], winner: int, low: float, high: float, possible: tuple[int, ...] = ()
) -> Lead:
    middle = (low + high) / 2
    cells = [reader.cells([middle])[0] for reader in readers]
    rivals = [i for i, cell in enumerate(cells) if i != winner and cell.state != "not_reached"]
    ratio = None
    if rivals:
        serves = _values(readers, np.array([middle]))[:, 0]
        # One that is only known by its best point may serve any more than that: it bounds before all others;
        # where a wide gap leaves the winner open, so it does the ratio.
        next_best = max(
            rivals,
            key=lambda i: (i in possible and cells[i].wide_gap, cells[i].state == "at_least", serves[i]),
        )
        ratio = ratio_of(cells[winner], cells[next_best], readers[winner].max_gap)
    exact = ratio is None or (ratio.value is not None and ratio.bound == "exact")
    equals = () if possible else _equals(readers, winner, low, high)
    share = _share(readers, winner, middle) if exact and not equals else None
    return Lead(
        low_tps=low,
        high_tps=high,
        winner=winner,
        ratio=ratio,
        share_of_draws=share,
        equals=equals,
        possible=possible,
    )


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


def _edges(readers: Sequence[CurveReader], knots: FloatArray) -> list[float]:
    """Returns where two curves serve the same at or above an interactivity, the flat parts below the fronts
    included, and where it opens or ends that they may, over wide gaps.
    """
    edges = []
    # A bound jumps where a wide gap begins or ends, so it is looked at beside the knots too.
    beside = np.concatenate([knots * (1 - _AT_KNOT / 2), knots * (1 + _AT_KNOT / 2)])
    for reader, other in permutations(readers, 2):
        high = min(reader.curve.range_tps[1], other.curve.range_tps[1])
        fine = _fine(sorted({0.0, high, *knots[knots <= high].tolist()}))
        grid = np.sort(np.concatenate([fine, beside[beside < high]]))

        def difference(places: FloatArray, a: CurveReader = reader, b: CurveReader = other) -> FloatArray:
            return a.bounds(places)[0] - b.bounds(places)[1]

        sign = np.sign(_without_rounding(difference(grid), reader.serves(grid)))
        edges += [_root(difference, *change) for change in _changes(grid, sign)]
    return [at for at in edges if np.abs(knots - at).min() > _AT_KNOT * at]


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


def _signs(baseline: CurveReader, other: CurveReader, places: FloatArray) -> FloatArray:
    """Returns 1 where the other curve serves more than the baseline, −1 where it serves less, 0 where they
    serve the same or wide gaps leave it open.
    """
    (base_low, base_high), (low, high) = baseline.bounds(places), other.bounds(places)
    more = _without_rounding(low - base_high, base_high) > 0
    less = _without_rounding(high - base_low, base_low) < 0
    signs: FloatArray = more.astype(np.float64) - less
    return signs


def _without_rounding(difference: FloatArray, served: FloatArray) -> FloatArray:
    """Returns differences of throughputs, 0 for those that arithmetic leaves between equals."""
    return np.where(np.abs(difference) <= _ROUNDING * served, 0.0, difference)


def _changes(grid: FloatArray, sign: FloatArray) -> list[tuple[float, float]]:
    """Returns the places between which a sign changes; where it is 0 it is not known, or none."""
    nonzero = np.flatnonzero(sign)
    return [(float(grid[a]), float(grid[b])) for a, b in pairwise(nonzero) if sign[a] != sign[b]]


def _root(difference: Callable[[FloatArray], FloatArray], low: float, high: float) -> float:
    """Returns where a difference changes its sign between two places, to 1e-9 of its value."""
    for _ in range(8):
        places = np.linspace(low, high, 17)
        signs = np.sign(difference(places))
        after = int(np.flatnonzero(signs != signs[0])[0])
        low, high = float(places[after - 1]), float(places[after])
        if high - low <= 1e-9 * high:
            break
    return high


def _with_interval(
    crossing: Crossing, baseline: CurveReader, other: CurveReader, grid: FloatArray
) -> Crossing:
    """Returns the only crossing of two curves with its interval, or with the reason why it has none.

    A draw that crosses several times counts with the middle between its first crossing and its last; one
    that does not cross is already past it, or not there yet.
    """
    places = np.linspace(grid[0], grid[-1], 2 * _COARSE)
    difference = other.drawn(places) - baseline.drawn(places)
    wins = difference > 0 if crossing.wins_above else difference < 0
    known = np.isfinite(difference)
    changes = (wins[:, 1:] != wins[:, :-1]) & known[:, 1:] & known[:, :-1]
    none = ~changes.any(axis=1)
    first, last = changes.argmax(axis=1), changes.shape[1] - 1 - changes[:, ::-1].argmax(axis=1)
    beyond = np.where(wins[:, 0], -np.inf, np.inf)
    middle = (_zero(places, difference, first) + _zero(places, difference, last)) / 2
    at = np.where(none, beyond, middle)
    tail = (1 - baseline.confidence) / 2
    edges = np.quantile(at, tail, method="lower"), np.quantile(at, 1 - tail, method="higher")
    if not np.isfinite(edges).all():
        return replace(crossing, unclear_share=float(none.mean()))
    interval = Interval(low=float(edges[0]), high=float(edges[1]), confidence=baseline.confidence)
    return replace(crossing, interval=interval)


def _zero(places: FloatArray, difference: FloatArray, column: npt.NDArray[np.intp]) -> FloatArray:
    """Returns (draws,) where the line between two places is 0; the places' edges where it never is."""
    rows = np.arange(len(difference))
    before, after = difference[rows, column], difference[rows, column + 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip(np.nan_to_num(before / (before - after)), 0.0, 1.0)
    zero: FloatArray = places[column] + (places[column + 1] - places[column]) * share
    return zero
