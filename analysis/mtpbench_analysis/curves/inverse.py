"""Pure: the questions that a buyer asks: how fast at a given cost, how cheap at a given speed.

What lies between two knots is read off the curve; what depends on a recipe (TTFT) is asked of measured
recipes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtpbench_analysis.curves.cells import Cell, Interval
from mtpbench_analysis.curves.cost import Economics, usd_per_mtok
from mtpbench_analysis.curves.curve import Curve, Measured
from mtpbench_analysis.curves.curve_reader import CurveReader, interval_of

_STEPS = 33


@dataclass(frozen=True, kw_only=True, slots=True)
class Fastest:
    """The highest interactivity that a curve has at a given cost.

    Args:
        curve: of which.
        interactivity_tps: None where even its cheapest point costs more.
        cell: the curve read there.
        interval: of the interactivity.
        at_end: the cost would allow more, but the curve ends there.
        least_usd_per_mtok: what its cheapest point costs where that is too much; where there is neither this
            nor an interactivity, the hardware's price is unknown.
    """

    curve: Curve
    interactivity_tps: float | None
    cell: Cell | None = None
    interval: Interval | None = None
    at_end: bool = False
    least_usd_per_mtok: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A measured recipe that meets what was asked, with its cost."""

    curve: Curve
    measured: Measured
    usd_per_mtok: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a recipe must do: at least so fast for each user, with at most so long a first token."""

    min_interactivity_tps: float
    max_ttft_s: float | None = None

    def meets(self, item: Measured) -> bool:
        """Whether a measured recipe does it; one whose TTFT nobody recorded does not meet a TTFT."""
        if item.x < self.min_interactivity_tps:
            return False
        ttft = item.mean.ttft_p50_s
        return self.max_ttft_s is None or (ttft is not None and ttft <= self.max_ttft_s)


def find_fastest(readers: Sequence[CurveReader], max_usd_per_mtok: float) -> tuple[Fastest, ...]:
    """What each curve reaches at a cost, the fastest first, those that never get so cheap last."""
    found = [_fastest(reader, max_usd_per_mtok) for reader in readers]
    return tuple(sorted(found, key=lambda one: -(one.interactivity_tps or -1.0)))


def find_recipes(curves: Sequence[Curve], wanted: Wanted, economics: Economics | None) -> tuple[Recipe, ...]:
    """The measured recipes that meet what is wanted, those with the most tokens per GPU first."""
    price = None if economics is None else economics.usd_per_gpu_h
    found = [(curve, item) for curve in curves for item in curve.measured if wanted.meets(item)]
    found.sort(key=lambda pair: -pair[1].y)
    return tuple(
        Recipe(
            curve=curve,
            measured=item,
            usd_per_mtok=None if price is None else usd_per_mtok(item.y, price),
        )
        for curve, item in found
    )


def nearest_misses(curves: Sequence[Curve], wanted: Wanted) -> tuple[str, ...]:
    """Why no recipe meets what is wanted: the fastest there is, and the shortest TTFT among the fast ones."""
    items = [item for curve in curves for item in curve.measured]
    fast = [item for item in items if item.x >= wanted.min_interactivity_tps]
    if not fast:
        best = max(items, key=lambda item: item.x)
        return (f"the fastest recipe runs at {best.x:.1f} tok/s/user ({best.mean.recipe})",)
    timed = [item for item in fast if item.mean.ttft_p50_s is not None]
    if not timed:
        return (f"{len(fast)} recipes are fast enough, but nobody recorded their TTFT",)
    best = min(timed, key=lambda item: item.mean.ttft_p50_s or 0.0)
    return (
        f"{len(fast)} recipes are fast enough; the shortest TTFT among them is {best.mean.ttft_p50_s:.2f} s "
        f"({best.mean.recipe}, {best.x:.1f} tok/s/user, {best.y:,.0f} tok/s/GPU)",
    )


def _fastest(reader: CurveReader, max_usd_per_mtok: float) -> Fastest:
    curve, economics = reader.curve, reader.economics
    if economics is None or economics.usd_per_gpu_h is None:
        return Fastest(curve=curve, interactivity_tps=None)
    needed = economics.usd_per_gpu_h * 1e6 / (3600 * max_usd_per_mtok)
    front = curve.front
    if front[0].y < needed:
        least = usd_per_mtok(front[0].y, economics.usd_per_gpu_h)
        return Fastest(curve=curve, interactivity_tps=None, least_usd_per_mtok=least)
    at_end = front[-1].y >= needed
    at = front[-1].x if at_end else _falls_below(reader, needed)
    (cell,) = reader.cells([at])
    interval = None if at_end or cell.interval is None else _interval(reader, needed)
    return Fastest(curve=curve, interactivity_tps=at, cell=cell, interval=interval, at_end=at_end)


def _falls_below(reader: CurveReader, needed: float) -> float:
    """The highest interactivity with that throughput: fronts fall strictly, so halving finds it."""
    low, high = reader.curve.range_tps
    while high - low > 1e-9 * high:
        places = np.linspace(low, high, _STEPS)
        enough = reader.serves(places) >= needed
        last = int(np.flatnonzero(enough)[-1])
        if last == _STEPS - 1:
            return float(places[-1])
        low, high = float(places[last]), float(places[last + 1])
    return low


def _interval(reader: CurveReader, needed: float) -> Interval | None:
    """Of the crossing of the needed throughput, from the draws, between places of a fine grid."""
    if reader.draws is None or not reader.is_sure:
        return None
    low, high = reader.curve.range_tps
    places = np.linspace(low, high, 2 * _STEPS)
    drawn = reader.draws.read(places)
    enough = np.where(np.isnan(drawn), False, drawn >= needed)
    last = enough.shape[1] - 1 - enough[:, ::-1].argmax(axis=1)
    some = enough.any(axis=1) & (last < len(places) - 1)
    at = np.full(len(drawn), np.nan)
    rows = np.flatnonzero(some)
    column = last[rows]
    above, below = drawn[rows, column], drawn[rows, column + 1]
    step = places[column + 1] - places[column]
    # A curve that ends before the next place still has enough at its end, which is hardly further on.
    share = np.where(np.isnan(below), 0.0, (above - needed) / (above - below))
    at[rows] = places[column] + step * share
    return interval_of(at, reader.confidence)
