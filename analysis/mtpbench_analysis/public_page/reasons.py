"""Pure: the reasons why a number of the page and the honest number differ, each with its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mtpbench_analysis.curves.cells import Cell, Span
from mtpbench_analysis.curves.cost import price_text, usd_per_mtok
from mtpbench_analysis.curves.curve import CURVE_FIELDS, Curve, Measured
from mtpbench_analysis.curves.ratios import Gap
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.numbers import counted, dollars, fixed, percent, rate, speed, target
from mtpbench_analysis.public_page.method import PageCell, PageSide, percent_text
from mtpbench_analysis.sentences import describe_gap

Code = Literal[
    "agrees",
    "clamped",
    "pooled",
    "best_of_repeats",
    "invalid_knot",
    "two_knots",
    "other_front",
    "wide_gap",
    "splined_cost",
    "concurrency_interpolated",
    "percent",
    "withheld",
    "sides",
]

SAME_SHARE = 5e-4
"""Two numbers that differ by less than this share count as equal."""

_LISTED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class PageReason:
    """A reason as a code for programs and as a sentence, without its full stop, for people."""

    code: Code
    text: str


AGREES = PageReason(code="agrees", text="agrees")


def same(number: float | None, other: float | None) -> bool:
    """Returns whether both numbers are known and equal."""
    return (
        number is not None
        and other is not None
        and abs(number - other) <= SAME_SHARE * max(abs(number), abs(other))
    )


def number_of(value: float | Span | None) -> float | None:
    """Returns a figure that is one number; None for a range."""
    return None if isinstance(value, Span) else value


def throughput_reasons(side: PageSide, page: PageCell, curve: Curve, honest: Cell) -> tuple[PageReason, ...]:
    """Returns why the two throughputs differ, or that they agree, and reservations of equal ones."""
    reasons = [_clamped(side, page)] if page.clamped else []
    agreed = same(page.tput_tps_per_gpu, honest.tput_tps_per_gpu)
    is_end = page.clamped == "above" and honest.state == "not_reached" and not _ends_differ(side, curve)
    if not agreed and not is_end:
        reasons += _pooled(side, page, curve)
        reasons += _invalid(page)
        reasons += _repeats(page, curve)
        reasons += _two_knots(page)
        if not reasons and not honest.wide_gap:
            reasons.append(_other_front(page, honest))
    if agreed and not page.clamped:
        reasons.append(AGREES)
    if honest.wide_gap and honest.knot_ratio is not None:
        lower, upper = honest.knots
        apart = f"{fixed(honest.knot_ratio, 1)}× apart ({rate(lower.y)} and {rate(upper.y)})"
        text = f"nothing is known between its knots, which are {apart}"
        reasons.append(PageReason(code="wide_gap", text=text))
    return tuple(reasons)


def cost_reasons(page: PageCell, throughput: Sequence[PageReason], honest: Cell) -> tuple[PageReason, ...]:
    """Returns why the two costs differ: as their throughputs do, and because the page splines the cost."""
    own = splined_cost(page)
    if own is None:
        return tuple(throughput)
    inherited = [reason for reason in throughput if reason.code != "agrees"]
    if not inherited and same(page.usd_per_mtok, number_of(honest.usd_per_mtok)):
        return (AGREES,)
    return (*inherited, own)


def splined_cost(page: PageCell) -> PageReason | None:
    """Returns the reason if the page's cost contradicts its own throughput, else None."""
    usd = None if page.economics is None else page.economics.usd_per_gpu_h
    if usd is None or page.usd_per_mtok is None:
        return None
    derived = usd_per_mtok(page.tput_tps_per_gpu, usd)
    if same(derived, page.usd_per_mtok):
        return None
    return PageReason(
        code="splined_cost",
        text=f"cost splined on its own: {dollars(page.usd_per_mtok)}, but {price_text(usd)} and "
        f"{rate(page.tput_tps_per_gpu)} tok/s/GPU make {dollars(derived)}",
    )


def concurrency_reasons(
    side: PageSide, page: PageCell, throughput: Sequence[PageReason]
) -> tuple[PageReason, ...]:
    """Returns why no run had the page's concurrency, and the reasons that move the knots around it."""
    moved = tuple(reason for reason in throughput if reason.code in _MOVE_KNOTS)
    if page.clamped:
        return (_clamped(side, page), *(reason for reason in moved if reason.code != "clamped"))
    if len(page.knots) == 1:
        return moved or (AGREES,)
    lower, upper = page.knots
    if _layout(lower) == _layout(upper):
        between = f"{lower.concurrency} and {upper.concurrency} on {_layout(lower)}"
    else:
        between = f"{lower.concurrency} on {_layout(lower)} and {upper.concurrency} on {_layout(upper)}"
    text = f"no run had {page.concurrency} in flight: splined between {between}"
    return (PageReason(code="concurrency_interpolated", text=text), *moved)


_MOVE_KNOTS = ("pooled", "invalid_knot", "other_front")


def percent_reason(costs: tuple[float, float], labels: tuple[str, str]) -> PageReason | None:
    """Returns the reason that the page's percentage is of the lower cost, but a saving is of the higher.

    Args:
        costs: the page's dollars for a million tokens of both sides.
        labels: the labels of both.
    """
    (low, cheap), (high, dear) = sorted(zip(costs, labels, strict=True))
    if high / low < 1 + SAME_SHARE:
        return None
    page_text = f"{percent_text(high / low)} is (cost of {dear} / cost of {cheap} − 1) × 100"
    saved = f"what {cheap} saves of these {dollars(high)} is {percent(1 - low / high)}"
    return PageReason(code="percent", text=f"{page_text}; {saved}")


def carried(reasons: Sequence[tuple[str, Sequence[PageReason]]]) -> PageReason | None:
    """Returns the faults of two sides as a reason of a claim about both; None without faults.

    Args:
        reasons: each side's label with its cell's reasons.
    """
    faults = [
        f"{label}'s number ({', '.join(_FAULTS[code] for code in codes)})"
        for label, own in reasons
        if (codes := [reason.code for reason in own if reason.code in _FAULTS])
    ]
    return PageReason(code="sides", text=f"rests on {' and '.join(faults)}") if faults else None


def withheld_reason(gap: Gap) -> PageReason:
    """Returns the reason that the honest method gives no ratio over this gap."""
    return PageReason(code="withheld", text=f"no honest ratio: {describe_gap(gap)}")


_FAULTS = {
    "clamped": "clamped",
    "pooled": "pooled",
    "best_of_repeats": "the best of its repeats",
    "invalid_knot": "an invalid knot",
    "two_knots": "bent between two knots",
    "other_front": "another front",
    "wide_gap": "over a wide gap",
    "splined_cost": "cost splined on its own",
}


def _clamped(side: PageSide, page: PageCell) -> PageReason:
    knot = page.knots[0]
    at, where = target(page.target_tps), speed(knot.interactivity_tps)
    if page.clamped == "above":
        text = f"clamped: {side.label} ends at {where}, and the page repeats that point at {at}"
    else:
        text = f"clamped: {side.label} begins at {where}, and the page shows that point as if it ran at {at}"
    return PageReason(code="clamped", text=text)


def _ends_differ(side: PageSide, curve: Curve) -> bool:
    return side.front[-1].interactivity_tps != curve.front[-1].x


def _pooled(side: PageSide, page: PageCell, curve: Curve) -> list[PageReason]:
    """Returns the reason that the page pools fields which this curve does not, with the page's knots."""
    fields = [name for name in CURVE_FIELDS if len(_values(side.points, name)) > len(curve.values(name))]
    if not fields:
        return []
    mixed = ", ".join(_list_distinct(side.points, name) for name in fields)
    field = next((name for name in fields if len(_values(page.knots, name)) > 1), fields[0])
    knots = " and ".join(
        f"{_short(getattr(knot, field), field)} at {speed(knot.interactivity_tps)}" for knot in page.knots
    )
    return [
        PageReason(code="pooled", text=f"pooled: the page's curve is of {mixed}; its knots here are {knots}")
    ]


def _invalid(page: PageCell) -> list[PageReason]:
    return [
        PageReason(
            code="invalid_knot",
            text=f"the page's knot at {speed(knot.interactivity_tps)} is invalid ("
            f"{'; '.join(knot.reasons) or 'marked so'})",
        )
        for knot in page.knots
        if not knot.valid
    ]


def _repeats(page: PageCell, curve: Curve) -> list[PageReason]:
    reasons = []
    for knot in page.knots:
        item = next(
            (measured for measured in curve.measured if any(run is knot for run in measured.runs)), None
        )
        if item is not None and len(item.runs) > 1:
            reasons.append(_best_of(item, knot))
    return reasons


def _best_of(item: Measured, knot: CurvePoint) -> PageReason:
    return PageReason(
        code="best_of_repeats",
        text=f"every run is a point of its own: the page's knot is {rate(knot.tput_tps_per_gpu)} at "
        f"{speed(knot.interactivity_tps)}, one of {len(item.runs)} runs whose mean is {rate(item.y)} at "
        f"{speed(item.x)}",
    )


def _two_knots(page: PageCell) -> list[PageReason]:
    straight = page.straight_tps_per_gpu
    if straight is None or same(straight, page.tput_tps_per_gpu):
        return []
    text = f"two knots only, bent by d3's end slopes: a straight line gives {rate(straight)}"
    return [PageReason(code="two_knots", text=text)]


def _other_front(page: PageCell, honest: Cell) -> PageReason:
    ours = " and ".join(speed(knot.x) for knot in honest.knots)
    theirs = " and ".join(speed(knot.interactivity_tps) for knot in page.knots)
    return PageReason(
        code="other_front",
        text=f"other points on the front: the page's knots here are at {theirs}, this curve's at {ours}",
    )


def _values(points: Sequence[CurvePoint], name: str) -> tuple[Any, ...]:
    values = {getattr(point, name) for point in points}
    return tuple(sorted(values, key=lambda value: (value is None, str(value))))


def _list_distinct(points: Sequence[CurvePoint], name: str) -> str:
    values = _values(points, name)
    listing = ", ".join(_short(value, name) for value in values[:_LISTED])
    more = f" and {len(values) - _LISTED} more" if len(values) > _LISTED else ""
    word = {"serving": "serving mode", "workload": "prompt setting"}.get(name, name.replace("_", " "))
    return f"{counted(len(values), word)} ({listing}{more})"


def _short(value: Any, name: str) -> str:
    if value is None:
        return "not recorded"
    return str(value).rsplit("/", 1)[-1] if name == "image" else str(value)


def _layout(point: CurvePoint) -> str:
    gpus = None if point.gpus is None else counted(point.gpus, "GPU")
    return ", ".join(part for part in (point.topology, gpus) if part) or "a layout not recorded"
