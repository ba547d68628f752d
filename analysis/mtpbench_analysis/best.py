"""Pure: answers to a buyer's questions: how fast at a given cost, how cheap at a given speed, who wins where.

What lies between two knots is read off the curve; what depends on a recipe (TTFT) comes from
measured recipes only. There is an answer for each hardware, model and workload, in tables and sentences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mtpbench.errors import InputError
from mtpbench_analysis.compare import Settings, read_curves
from mtpbench_analysis.comparison_document import leads_table
from mtpbench_analysis.comparisons import Question, settings_for
from mtpbench_analysis.curves.cells import Cell, Interval, Span, span_of
from mtpbench_analysis.curves.cost import NO_PRICE, Economics, usd_per_mtok
from mtpbench_analysis.curves.crossings import find_leads
from mtpbench_analysis.curves.curve import (
    Curve,
    Measured,
    build_curves,
    describe_bounds,
    describe_workload,
    full_names,
    group_by_workload,
    relabel,
)
from mtpbench_analysis.curves.curve_reader import CurveReader, interval_of
from mtpbench_analysis.document import Caution, Document, Table, Text, filled
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.metric_table import metrics_in, note_intervals
from mtpbench_analysis.numbers import MISSING, dollars, listed, percent, rate, speed, spread
from mtpbench_analysis.render.csv_json_parquet import record_lead

_LISTED = 8
_STEPS = 33


@dataclass(frozen=True, kw_only=True, slots=True)
class Fastest:
    """The highest interactivity that a curve has at a given cost, or why it has none.

    Args:
        curve: of which.
        interactivity_tps: None where even its cheapest point costs more.
        cell: the curve read there.
        interval: of the interactivity.
        at_end: the cost would allow more, but the curve ends there.
        gap: the interactivities of two knots too far apart to say more than that it lies between them; the
            first of them is then `interactivity_tps`.
        least_usd_per_mtok: what its cheapest point costs where that is too much.
        no_price: why the price is unknown; None where it is known.
    """

    curve: Curve
    interactivity_tps: float | None
    cell: Cell | None = None
    interval: Interval | None = None
    at_end: bool = False
    gap: Span | None = None
    least_usd_per_mtok: float | None = None
    no_price: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PricedRecipe:
    """A measured recipe that meets a requirement, with its cost."""

    curve: Curve
    measured: Measured
    usd_per_mtok: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """A requirement says how fast a recipe must be for each user, and how long its first token may take."""

    min_interactivity_tps: float
    max_ttft_s: float | None = None

    def meets(self, item: Measured) -> bool:
        """Returns whether a measured recipe meets it; one without a recorded TTFT does not meet a TTFT."""
        if item.x < self.min_interactivity_tps:
            return False
        ttft = item.mean.ttft_p50_s
        return self.max_ttft_s is None or (ttft is not None and ttft <= self.max_ttft_s)


def find_fastest(readers: Sequence[CurveReader], max_usd_per_mtok: float) -> tuple[Fastest, ...]:
    """Returns what each curve reaches at a cost: the fastest first, those that never get so cheap last."""
    answers = [_fastest(reader, max_usd_per_mtok) for reader in readers]
    return tuple(sorted(answers, key=lambda fastest: -(fastest.interactivity_tps or -1.0)))


def find_recipes(
    curves: Sequence[Curve], needs: Requirement, economics: Economics | None
) -> tuple[PricedRecipe, ...]:
    """Returns the measured recipes that meet a requirement, those with the most tokens per GPU first."""
    price = None if economics is None else economics.usd_per_gpu_h
    meeting = [(curve, item) for curve in curves for item in curve.measured if needs.meets(item)]
    meeting.sort(key=lambda pair: -pair[1].y)
    return tuple(
        PricedRecipe(
            curve=curve,
            measured=item,
            usd_per_mtok=None if price is None else usd_per_mtok(item.y, price),
        )
        for curve, item in meeting
    )


def nearest_misses(curves: Sequence[Curve], needs: Requirement) -> tuple[str, ...]:
    """Returns why no recipe meets a requirement: the fastest there is, and the shortest TTFT of the fast
    ones.
    """
    items = [item for curve in curves for item in curve.measured]
    fast = [item for item in items if item.x >= needs.min_interactivity_tps]
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
        reason = NO_PRICE if economics is None else economics.no_price
        return Fastest(curve=curve, interactivity_tps=None, no_price=reason)
    needed = economics.usd_per_gpu_h * 1e6 / (3600 * max_usd_per_mtok)
    front = curve.front
    if front[0].y < needed:
        least = usd_per_mtok(front[0].y, economics.usd_per_gpu_h)
        return Fastest(curve=curve, interactivity_tps=None, least_usd_per_mtok=least)
    at_end = front[-1].y >= needed
    at = front[-1].x if at_end else _falls_below(reader, needed)
    (cell,) = reader.cells([at])
    if cell.wide_gap:
        gap = span_of(*(knot.x for knot in cell.knots))
        (cell,) = reader.cells([cell.knots[0].x])
        return Fastest(curve=curve, interactivity_tps=cell.target_tps, cell=cell, gap=gap)
    interval = None if at_end or cell.interval is None else _interval(reader, needed)
    return Fastest(curve=curve, interactivity_tps=at, cell=cell, interval=interval, at_end=at_end)


def _falls_below(reader: CurveReader, needed: float) -> float:
    """Returns the highest interactivity with that throughput: fronts fall strictly, so halving finds it."""
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
    """Returns the interval of the interactivity at which the draws cross the needed throughput."""
    low, high = reader.curve.range_tps
    places = np.linspace(low, high, 2 * _STEPS)
    drawn = reader.drawn(places)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class BuyerQuestion:
    """A buyer's question asks for a cost or a requirement; without either it asks which curve wins where.

    Args:
        max_usd_per_mtok: how fast can it be at this cost?
        requirement: which recipe meets this most cheaply?
    """

    max_usd_per_mtok: float | None = None
    requirement: Requirement | None = None


_TOLD = ("arm", "method", "draft_tokens", "depth_rule", "checkpoint")


def answer(points: PointSet, question: Question, ask: BuyerQuestion) -> tuple[Document, ...]:
    """Returns one answer for each hardware, model, precision and workload among the points.

    Raises:
        InputError: no point is valid.
    """
    curves = build_curves(points.points, question.grouping)
    if not curves:
        raise InputError(f"{', '.join(points.sources)}: no valid point")
    return tuple(
        _answer(relabel(group), settings_for(group[0], question, points.info), ask)
        for group in group_by_workload(curves)
    )


def _answer(curves: Sequence[Curve], settings: Settings, ask: BuyerQuestion) -> Document:
    # A buyer sets up what wins: a name says method, depth and checkpoint.
    curves = [replace(curve, label=name) for curve, name in zip(curves, full_names(curves), strict=True)]
    readers = read_curves(curves, settings)
    simulated = bool(curves[0].shared("simulated"))
    tables: list[Table] = []
    sentences: list[str] = []
    arms = [{"curve": each.label, **{name: each.shared(name) for name in _TOLD}} for each in curves]
    data: dict[str, Any] = {"curves": [each.label for each in curves], "arms": arms, "simulated": simulated}
    if ask.max_usd_per_mtok is not None:
        fastest = find_fastest(readers, ask.max_usd_per_mtok)
        tables.append(_fastest_table(fastest, ask.max_usd_per_mtok, settings.economics))
        sentences.append(_say_fastest(fastest, ask.max_usd_per_mtok))
        data["fastest"] = [_fastest_data(item) for item in fastest]
    if ask.requirement is not None:
        recipes = find_recipes(curves, ask.requirement, settings.economics)
        sentences.append(_say_recipes(curves, recipes, ask.requirement))
        data["recipes"] = [_recipe_data(recipe, settings.economics) for recipe in recipes]
        if recipes:
            tables.append(_recipes_table(recipes, ask.requirement, settings.economics))
    if ask.max_usd_per_mtok is None and ask.requirement is None:
        leads = find_leads(readers)
        tables.append(leads_table([curve.label for curve in curves], leads))
        data["leads"] = [record_lead(lead, "wins", curves) for lead in leads]
    sentences += describe_bounds(curves)
    data["sentences"] = sentences
    return Document(
        title=_describe(curves[0]),
        simulated=simulated,
        blocks=filled(Text(lines=tuple(sentences)), *tables),
        data=data,
    )


def _describe(curve: Curve) -> str:
    return describe_workload(curve, served_by=False) or "hardware and workload not recorded"


def _fastest_table(fastest: Sequence[Fastest], usd: float, economics: Economics | None) -> Table:
    rows = []
    for item in fastest:
        if item.interactivity_tps is None or item.cell is None:
            rows.append((item.curve.label, _why_not(item), MISSING, MISSING))
            continue
        value = ("≥ " if item.at_end else "") + speed(item.interactivity_tps)
        if item.interval is not None:
            value += f" {spread(item.interval.low, item.interval.high, speed)}"
        knots = " and ".join(knot.mean.recipe for knot in item.cell.knots)
        where = "its fastest point; the cost would allow more" if item.at_end else f"between {knots}"
        tput = rate(item.cell.tput_tps_per_gpu)
        if item.gap is not None:
            value, where = Caution(item.gap.text(speed)), f"somewhere in the wide gap above {knots}"
            tput += f" at {speed(item.interactivity_tps)}"
        rows.append((item.curve.label, where, value, tput))
    return Table(
        title=f"The highest tok/s/user at {dollars(usd)} per million tokens",
        headers=("", "where", "tok/s/user", "tok/s/GPU"),
        rows=tuple(rows),
        caption=_note(economics),
        text_columns=2,
    )


def _why_not(fastest: Fastest) -> str:
    """Returns why a curve has no interactivity at the cost."""
    if fastest.least_usd_per_mtok is None:
        return fastest.no_price or NO_PRICE
    return f"its cheapest point costs ${fastest.least_usd_per_mtok:.3f}"


def _note(economics: Economics | None) -> str:
    return "" if economics is None else f"{economics.label}."


def _say_fastest(fastest: Sequence[Fastest], usd: float) -> str:
    best, *rest = fastest
    if best.no_price is not None:
        return f"What a million tokens cost is unknown: {best.no_price}."
    if best.interactivity_tps is None:
        nearest = min(fastest, key=lambda item: item.least_usd_per_mtok or math.inf)
        why = f"the cheapest is {nearest.curve.label}: {_why_not(nearest)}"
        return f"No curve serves a million tokens for {dollars(usd)}; {why}."
    at = f"At {dollars(usd)} per million tokens"
    rivals = [item for item in rest if item.gap and item.gap.high > best.interactivity_tps]
    if rivals:
        reached = [f"{item.curve.label} reaches {_reach(item)}" for item in (best, *rivals)]
        return f"{at} it is not known who is the fastest: {listed(reached)} tok/s/user."
    equal = [item for item in rest if _reach(item) == _reach(best)]
    who = listed([item.curve.label for item in (best, *equal)])
    rank = "are equal" if equal else "is the fastest"
    text = f"{at} {who} {rank}: {_reach(best)} tok/s/user"
    slower = rest[len(equal) :]
    if slower and slower[0].interactivity_tps is not None:
        text += f", then {slower[0].curve.label} with {_reach(slower[0])}"
    return f"{text}."


def _reach(fastest: Fastest) -> str:
    """Returns the interactivity of a curve that has one, or all that is known of it."""
    if fastest.gap is not None:
        return f"somewhere from {fastest.gap.text(speed)}"
    return ("at least " if fastest.at_end else "") + speed(fastest.interactivity_tps)


def _recipes_table(recipes: Sequence[PricedRecipe], needs: Requirement, economics: Economics | None) -> Table:
    metrics = metrics_in("recipes")
    rows = [
        (
            recipe.curve.label,
            recipe.measured.mean.recipe,
            *(metric.text_of(recipe.measured.mean, economics) for metric in metrics),
            str(len(recipe.measured.runs)),
        )
        for recipe in recipes[:_LISTED]
    ]
    more = f"{len(recipes) - _LISTED} more meet it." if len(recipes) > _LISTED else ""
    notes = (
        _note(economics),
        more,
        note_intervals([recipe.measured.mean for recipe in recipes[:_LISTED]], "recipes"),
    )
    return Table(
        title=f"Measured recipes with {_say_needs(needs)}, the cheapest first",
        headers=("", "recipe", *(metric.label_in("recipes") for metric in metrics), "runs"),
        rows=tuple(rows),
        caption=" ".join(filter(None, notes)),
        text_columns=2,
    )


def _say_recipes(curves: Sequence[Curve], recipes: Sequence[PricedRecipe], needs: Requirement) -> str:
    demand = _say_needs(needs)
    if not recipes:
        return f"No measured recipe has {demand}: {'; '.join(nearest_misses(curves, needs))}."
    best = recipes[0]
    cost = "" if best.usd_per_mtok is None else f" for {dollars(best.usd_per_mtok)} per million tokens"
    text = (
        f"The cheapest measured recipe with {demand} is {best.curve.label}, {best.measured.mean.recipe}: "
        f"{rate(best.measured.y)} tok/s/GPU{cost} at {speed(best.measured.x)} tok/s/user"
    )
    rival = next((recipe for recipe in recipes if recipe.curve is not best.curve), None)
    if rival is not None:
        more = percent(best.measured.y / rival.measured.y - 1)
        text += (
            f"; the best of {rival.curve.label} costs {'the same' if more == percent(0) else f'{more} more'}"
        )
    return f"{text}."


def _say_needs(needs: Requirement) -> str:
    text = f"at least {speed(needs.min_interactivity_tps)} tok/s/user"
    if needs.max_ttft_s is not None:
        text += f" and a median TTFT of at most {needs.max_ttft_s:g} s"
    return text


def _fastest_data(fastest: Fastest) -> dict[str, Any]:
    interval = fastest.interval
    return {
        "curve": fastest.curve.label,
        "interactivity_tps": fastest.interactivity_tps,
        "tput_tps_per_gpu": None if fastest.cell is None else fastest.cell.tput_tps_per_gpu,
        "at_end": fastest.at_end,
        "gap": None if fastest.gap is None else [fastest.gap.low, fastest.gap.high],
        "interval": None if interval is None else [interval.low, interval.high],
        "knots": [] if fastest.cell is None else [knot.mean.recipe for knot in fastest.cell.knots],
        "reason": None if fastest.interactivity_tps is not None else _why_not(fastest),
    }


def _recipe_data(recipe: PricedRecipe, economics: Economics | None) -> dict[str, Any]:
    mean = recipe.measured.mean
    return {
        "curve": recipe.curve.label,
        "recipe": mean.recipe,
        **{metric.id: metric.of_point(mean, economics) for metric in metrics_in("recipes")},
        "usd_per_mtok": recipe.usd_per_mtok,
        "runs": len(recipe.measured.runs),
        "source": mean.source,
    }
