"""Pure: the public page's method from points to numbers, reproduced with its faults.

A side pools all points of one arm on one workload: engines, images, serving modes, dates and repeats, each
run a point of its own. The page reads the side's upper-left front at the target, or at its nearest end where
the target lies outside. It splines each metric over the same knots, with d3's end slopes, so that even two
knots bend. `page-2026-05` splines the cost too; `page`, the later form, derives it from the throughput.

Source: the public page's behaviour in May and August 2026 (SemiAnalysisAI/InferenceX-app on GitHub).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

import numpy as np

from mtpbench.errors import InputError
from mtpbench_analysis.curves.cost import Economics, tps_per_mw, usd_per_mtok
from mtpbench_analysis.curves.curve import WORKLOAD_FIELDS, display_name, pareto_front
from mtpbench_analysis.curves.splines import slopes
from mtpbench_analysis.frame import CurvePoint

Method = Literal["page-2026-05", "page"]
METHODS: tuple[Method, ...] = ("page-2026-05", "page")
Clamp = Literal["below", "above"]

_TIED = 1.01
"""The page calls two numbers whose ratio is below this "essentially tied"."""


def check_method(name: str) -> Method:
    """Returns the name as one of the page's methods.

    Raises:
        InputError: no method has this name.
    """
    for method in METHODS:
        if name == method:
            return method
    raise InputError(f"unknown method {name!r}; the page's: {', '.join(METHODS)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PageSide:
    """A side of the page: all points of one arm on one workload, at least one, and its knots, `front`."""

    arm: str
    points: tuple[CurvePoint, ...]
    front: tuple[CurvePoint, ...]

    @property
    def label(self) -> str:
        """The arm's name in a table."""
        return display_name(self.arm)

    @property
    def workload_key(self) -> tuple[Any, ...]:
        """The workload's fields; the page compares sides with equal ones."""
        return _workload_of(self.points[0])

    @property
    def range_tps(self) -> tuple[float, float]:
        """The lowest and highest interactivity of all points, not of the front alone."""
        speeds = [point.interactivity_tps for point in self.points]
        return min(speeds), max(speeds)


@dataclass(frozen=True, kw_only=True, slots=True)
class PageCell:
    """The page's numbers of one side at one target.

    Args:
        target_tps: the target interactivity.
        read_at_tps: the interactivity that the page reads: the target, or the nearest end of the front.
        clamped: whether the target lies below or above the front; None within it.
        knots: the one or two measured points between which the page reads.
        straight_tps_per_gpu: the throughput on a straight line where the front has two knots; else None.
        usd_per_mtok_by_tier: dollars for a million tokens, by tier of the constants.
        concurrency: splined and rounded half up; None where a knot of the front did not record it.
        economics: the constants; `usd_per_mtok` is at the price of their tier.
    """

    target_tps: float
    read_at_tps: float
    clamped: Clamp | None
    knots: tuple[CurvePoint, ...]
    tput_tps_per_gpu: float
    straight_tps_per_gpu: float | None
    usd_per_mtok_by_tier: Mapping[str, float]
    tps_per_mw: float | None
    concurrency: int | None
    economics: Economics | None

    @property
    def usd_per_mtok(self) -> float | None:
        """The dollars for a million tokens at the comparison's price; None where it is unknown."""
        return None if self.economics is None else self.usd_per_mtok_by_tier.get(self.economics.tier)


def build_sides(points: Iterable[CurvePoint]) -> tuple[PageSide, ...]:
    """Returns the sides of all points, in the order of their first points.

    The page has no validity rules, so it has invalid points too, but none without rates.
    """
    grouped: dict[tuple[Any, ...], list[CurvePoint]] = {}
    for point in points:
        if point.interactivity_tps > 0 and point.tput_tps_per_gpu > 0:
            grouped.setdefault((point.arm, *_workload_of(point)), []).append(point)
    return tuple(_side(group) for group in grouped.values())


def default_targets(sides: Sequence[PageSide]) -> tuple[float, ...]:
    """Returns the quartiles of the range that the sides share, or of their union where they share none.

    The ranges are those of all points, not of the fronts. The page rounds half up to whole numbers, so a
    narrow range repeats some; they are returned once.

    Args:
        sides: one side or two.
    """
    lows, highs = zip(*(side.range_tps for side in sides), strict=True)
    low, high = max(lows), min(highs)
    if low >= high:
        low, high = min(lows), max(highs)
    if low == high:
        return (float(round_half_up(low)),)
    return tuple(
        dict.fromkeys(float(round_half_up(low + (high - low) * share)) for share in (0.25, 0.5, 0.75))
    )


def read_side(side: PageSide, target_tps: float, economics: Economics | None, method: Method) -> PageCell:
    """Returns the page's numbers of one side at a target interactivity (tok/s/user)."""
    front = side.front
    xs = [point.interactivity_tps for point in front]
    at = min(max(target_tps, xs[0]), xs[-1])
    tputs = [point.tput_tps_per_gpu for point in front]
    tput = spline_metric(xs, tputs, at)
    power = None if economics is None else economics.hardware.power_kw_per_gpu
    powers = None if power is None else [tps_per_mw(value, power) for value in tputs]
    concurrencies = [point.concurrency for point in front]
    recorded = [value for value in concurrencies if value is not None]
    all_recorded = len(recorded) == len(front)
    return PageCell(
        target_tps=target_tps,
        read_at_tps=at,
        clamped="below" if target_tps < xs[0] else "above" if target_tps > xs[-1] else None,
        knots=_nearest(front, at),
        tput_tps_per_gpu=tput,
        straight_tps_per_gpu=float(np.interp(at, xs, tputs)) if len(front) == 2 else None,
        usd_per_mtok_by_tier=_costs(xs, tputs, at, economics, method),
        tps_per_mw=None if powers is None else spline_metric(xs, powers, at),
        concurrency=round_half_up(spline_metric(xs, recorded, at)) if all_recorded else None,
        economics=economics,
    )


def spline_metric(xs: Sequence[float], ys: Sequence[float], at: float) -> float:
    """Returns d3's monotone cubic at a place within the knots, clamped to the range of the knots' values.

    Two knots bend by d3's end slopes: 593.75 at the middle of (0, 0)-(100, 1000).

    Args:
        xs: strictly rising interactivities.
        ys: the metric at each.
        at: a place within [xs[0], xs[-1]].
    """
    if len(xs) == 1:
        return float(ys[0])
    slope = slopes(xs, ys)
    i = min(max(int(np.searchsorted(xs, at, side="right")) - 1, 0), len(xs) - 2)
    step = xs[i + 1] - xs[i]
    t = (at - xs[i]) / step
    value = (
        ys[i] * (2 * t**3 - 3 * t**2 + 1)
        + slope[i] * step * (t**3 - 2 * t**2 + t)
        + ys[i + 1] * (3 * t**2 - 2 * t**3)
        + slope[i + 1] * step * (t**3 - t**2)
    )
    return float(min(max(value, min(ys)), max(ys)))


def claim_cheaper(cost: float, other_cost: float, names: tuple[str, str]) -> str:
    """Returns the page's claim of two costs: `MTP is 17397% cheaper per token`, which is (ratio − 1) × 100.

    Args:
        cost: dollars of the first side.
        other_cost: dollars of the second side.
        names: the names of both.
    """
    ratio, first = _ratio(other_cost, cost)
    if ratio < _TIED:
        return "cost per token is essentially tied"
    return f"{names[0] if first else names[1]} is {percent_text(ratio)} cheaper per token"


def claim_faster(tput: float, other_tput: float, names: tuple[str, str]) -> str:
    """Returns the page's claim of two throughputs: `MTP delivers 142% more tok/s/GPU`.

    Args:
        tput: tok/s/GPU of the first side.
        other_tput: tok/s/GPU of the second side.
        names: the names of both.
    """
    ratio, first = _ratio(tput, other_tput)
    if ratio < _TIED:
        return "throughput per GPU is essentially tied"
    return f"{names[0] if first else names[1]} delivers {percent_text(ratio)} more tok/s/GPU"


def percent_text(ratio: float) -> str:
    """Returns (ratio − 1) × 100, rounded half up, as the page writes it."""
    return f"{round_half_up((ratio - 1) * 100)}%"


def round_half_up(value: float) -> int:
    """Returns the nearest whole number, 13.5 to 14, as JavaScript rounds and Python does not."""
    return math.floor(value + 0.5)


_workload_of = attrgetter(*WORKLOAD_FIELDS)


def _side(points: Sequence[CurvePoint]) -> PageSide:
    front = pareto_front([(point.interactivity_tps, point.tput_tps_per_gpu) for point in points])
    return PageSide(arm=points[0].arm, points=tuple(points), front=tuple(points[i] for i in front))


def _nearest(front: Sequence[CurvePoint], at: float) -> tuple[CurvePoint, ...]:
    for point in front:
        if point.interactivity_tps == at:
            return (point,)
    upper = next(i for i, point in enumerate(front) if point.interactivity_tps > at)
    return front[upper - 1], front[upper]


def _costs(
    xs: Sequence[float], tputs: Sequence[float], at: float, economics: Economics | None, method: Method
) -> dict[str, float]:
    if economics is None:
        return {}
    prices = {tier: usd for tier, usd in economics.hardware.usd_per_gpu_h.items() if usd is not None}
    if method == "page":
        tput = spline_metric(xs, tputs, at)
        return {tier: usd_per_mtok(tput, usd) for tier, usd in prices.items()}
    return {
        tier: spline_metric(xs, [usd_per_mtok(value, usd) for value in tputs], at)
        for tier, usd in prices.items()
    }


def _ratio(numerator: float, denominator: float) -> tuple[float, bool]:
    """Returns the ratio or its inverse, whichever is at least 1, and whether it is the ratio itself."""
    ratio = numerator / denominator
    return (ratio, True) if ratio >= 1 else (1 / ratio, False)
