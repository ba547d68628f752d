"""Pure: the page's own way from points to numbers, its faults included, so that they can be reproduced.

A side pools everything of one arm on one workload: engines, images, serving modes, dates and repeats, every
run a point of its own. Its upper-left front is read at the target, or at its nearest end where the target
lies outside. Each metric is splined over the same knots on its own, d3's ends included, so that even two
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
from mtpbench_analysis.curves.curve_reader import slopes
from mtpbench_analysis.frame import CurvePoint

Method = Literal["page-2026-05", "page"]
METHODS: tuple[Method, ...] = ("page-2026-05", "page")
Clamp = Literal["below", "above"]

_TIED = 1.01
"""The page calls two numbers whose ratio is below this "essentially tied"."""


def check_method(name: str) -> Method:
    """The name as one of the page's methods.

    Raises:
        InputError: there is none of that name.
    """
    for method in METHODS:
        if name == method:
            return method
    raise InputError(f"unknown method {name!r}; the page's: {', '.join(METHODS)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PageSide:
    """All points of one arm on one workload, as the page pools them; `front` are its knots. Never empty."""

    arm: str
    points: tuple[CurvePoint, ...]
    front: tuple[CurvePoint, ...]

    @property
    def label(self) -> str:
        """The arm as a table says it."""
        return display_name(self.arm)

    @property
    def workload_key(self) -> tuple[Any, ...]:
        """Equal for sides that the page sets side by side."""
        return _workload_of(self.points[0])

    @property
    def range_tps(self) -> tuple[float, float]:
        """Lowest and highest interactivity of all points, of those beside the front too."""
        speeds = [point.interactivity_tps for point in self.points]
        return min(speeds), max(speeds)


@dataclass(frozen=True, kw_only=True, slots=True)
class PageCell:
    """What the page says of one side at one target.

    Args:
        target_tps: what was asked for.
        read_at_tps: where the page reads its curve: the target, or the nearest end of the front.
        clamped: on which side of the front the target lies; None within it.
        knots: the one or two measured points between which the page reads.
        straight_tps_per_gpu: where there are two knots only, what a straight line gives; else None.
        usd_per_mtok_by_tier: dollars for a million tokens, for each price of the constants.
        concurrency: splined and rounded half up; None where a knot of the front did not record it.
        economics: the constants, whose tier is the one that `usd_per_mtok` is of.
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
        """Dollars for a million tokens at the comparison's price; None where it is unknown."""
        return None if self.economics is None else self.usd_per_mtok_by_tier.get(self.economics.tier)


def build_sides(points: Iterable[CurvePoint]) -> tuple[PageSide, ...]:
    """The sides of all points, in the order in which they first appear.

    The page has no validity rules, so invalid points are in it; what could not be measured at all is not.
    """
    grouped: dict[tuple[Any, ...], list[CurvePoint]] = {}
    for point in points:
        if point.interactivity_tps > 0 and point.tput_tps_per_gpu > 0:
            grouped.setdefault((point.arm, *_workload_of(point)), []).append(point)
    return tuple(_side(group) for group in grouped.values())


def default_targets(sides: Sequence[PageSide]) -> tuple[float, ...]:
    """Quartiles of the interactivities that the sides share, of their union where they share none.

    The ranges are those of all points, not of the fronts. Rounded half up, to whole numbers always, so that
    a narrow range repeats one; a repeated one is given once here.

    Args:
        sides: one or two.
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
    """What the page says of one side at a target interactivity (tok/s/user)."""
    front = side.front
    xs = [point.interactivity_tps for point in front]
    at = min(max(target_tps, xs[0]), xs[-1])
    tputs = [point.tput_tps_per_gpu for point in front]
    tput = spline_metric(xs, tputs, at)
    power = None if economics is None else economics.hardware.power_kw_per_gpu
    powers = None if power is None else [tps_per_mw(value, power) for value in tputs]
    concurrencies = [point.concurrency for point in front]
    known = [value for value in concurrencies if value is not None]
    whole = len(known) == len(front)
    return PageCell(
        target_tps=target_tps,
        read_at_tps=at,
        clamped="below" if target_tps < xs[0] else "above" if target_tps > xs[-1] else None,
        knots=_nearest(front, at),
        tput_tps_per_gpu=tput,
        straight_tps_per_gpu=float(np.interp(at, xs, tputs)) if len(front) == 2 else None,
        usd_per_mtok_by_tier=_costs(xs, tputs, at, economics, method),
        tps_per_mw=None if powers is None else spline_metric(xs, powers, at),
        concurrency=round_half_up(spline_metric(xs, known, at)) if whole else None,
        economics=economics,
    )


def spline_metric(xs: Sequence[float], ys: Sequence[float], at: float) -> float:
    """d3's monotone cubic at one place within the knots, kept within the range of all of the knots' values.

    Two knots bend as d3's end slopes say: 593.75 at the middle of (0, 0)-(100, 1000).

    Args:
        xs: strictly rising interactivities.
        ys: the metric at each.
        at: a place within [xs[0], xs[-1]].
    """
    if len(xs) == 1:
        return float(ys[0])
    slope = slopes(xs, ys)
    left = min(max(int(np.searchsorted(xs, at, side="right")) - 1, 0), len(xs) - 2)
    step = xs[left + 1] - xs[left]
    t = (at - xs[left]) / step
    value = (
        ys[left] * (2 * t**3 - 3 * t**2 + 1)
        + slope[left] * step * (t**3 - 2 * t**2 + t)
        + ys[left + 1] * (3 * t**2 - 2 * t**3)
        + slope[left + 1] * step * (t**3 - t**2)
    )
    return float(min(max(value, min(ys)), max(ys)))


def claim_cheaper(cost: float, other_cost: float, names: tuple[str, str]) -> str:
    """The page's words for two costs: `MTP is 17397% cheaper per token`, which is (ratio − 1) × 100.

    Args:
        cost: dollars of the first name.
        other_cost: dollars of the second.
        names: whose they are.
    """
    ratio, first = _ratio(other_cost, cost)
    if ratio < _TIED:
        return "cost per token is essentially tied"
    return f"{names[0] if first else names[1]} is {percent_text(ratio)} cheaper per token"


def claim_faster(tput: float, other_tput: float, names: tuple[str, str]) -> str:
    """The page's words for two throughputs: `MTP delivers 142% more tok/s/GPU`.

    Args:
        tput: tok/s/GPU of the first name.
        other_tput: tok/s/GPU of the second.
        names: whose they are.
    """
    ratio, first = _ratio(tput, other_tput)
    if ratio < _TIED:
        return "throughput per GPU is essentially tied"
    return f"{names[0] if first else names[1]} delivers {percent_text(ratio)} more tok/s/GPU"


def percent_text(ratio: float) -> str:
    """(ratio − 1) × 100, rounded half up, as the page writes it."""
    return f"{round_half_up((ratio - 1) * 100)}%"


def round_half_up(value: float) -> int:
    """The nearest whole number, 13.5 to 14, as JavaScript rounds and Python does not."""
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
    prices = economics.hardware.usd_per_gpu_h
    if method == "page":
        tput = spline_metric(xs, tputs, at)
        return {tier: usd_per_mtok(tput, usd) for tier, usd in prices.items()}
    return {
        tier: spline_metric(xs, [usd_per_mtok(value, usd) for value in tputs], at)
        for tier, usd in prices.items()
    }


def _ratio(numerator: float, denominator: float) -> tuple[float, bool]:
    """The ratio that is at least 1, and whether it is the one that was asked for."""
    ratio = numerator / denominator
    return (ratio, True) if ratio >= 1 else (1 / ratio, False)
