"""Pure: answers to a buyer's questions, in tables and sentences, by hardware, model and workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtpbench.errors import InputError
from mtpbench_analysis.compare import Settings, read_curves
from mtpbench_analysis.comparison_document import leads_table
from mtpbench_analysis.comparisons import Question, settings_for
from mtpbench_analysis.curves.cost import Economics
from mtpbench_analysis.curves.crossings import find_leads
from mtpbench_analysis.curves.curve import Curve, build_curves, describe_workload, relabel
from mtpbench_analysis.curves.inverse import (
    Fastest,
    Recipe,
    Wanted,
    find_fastest,
    find_recipes,
    nearest_misses,
)
from mtpbench_analysis.document import Document, Table, Text, filled
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.metric_table import metrics_in
from mtpbench_analysis.numbers import MISSING, dollars, percent, rate, speed, spread
from mtpbench_analysis.render.csv_json_parquet import describe_lead_ratio

_LISTED = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a buyer asks; nothing asked is who wins at each interactivity.

    Args:
        max_usd_per_mtok: how fast can it be at this cost?
        wanted: which recipe does this most cheaply?
    """

    max_usd_per_mtok: float | None = None
    wanted: Wanted | None = None


def answer(points: PointSet, question: Question, asked: Asked) -> tuple[Document, ...]:
    """One answer for each hardware, model, precision and workload among the points.

    Raises:
        InputError: no point is valid.
    """
    curves = build_curves(points.points, question.grouping)
    if not curves:
        raise InputError(f"{', '.join(points.sources)}: no valid point")
    groups: dict[tuple[object, ...], list[Curve]] = {}
    for curve in curves:
        groups.setdefault(curve.workload_key, []).append(curve)
    return tuple(
        _answer(relabel(group), settings_for(group[0], question, points.info), asked)
        for group in groups.values()
    )


def _answer(curves: Sequence[Curve], settings: Settings, asked: Asked) -> Document:
    readers = read_curves(curves, settings)
    simulated = bool(curves[0].shared("simulated"))
    tables: list[Table] = []
    sentences: list[str] = []
    data: dict[str, Any] = {"curves": [curve.label for curve in curves], "simulated": simulated}
    if asked.max_usd_per_mtok is not None:
        fastest = find_fastest(readers, asked.max_usd_per_mtok)
        tables.append(_fastest_table(fastest, asked.max_usd_per_mtok, settings.economics))
        sentences.append(_say_fastest(fastest, asked.max_usd_per_mtok))
        data["fastest"] = [_fastest_data(one) for one in fastest]
    if asked.wanted is not None:
        recipes = find_recipes(curves, asked.wanted, settings.economics)
        sentences.append(_say_recipes(curves, recipes, asked.wanted))
        data["recipes"] = [_recipe_data(one, settings.economics) for one in recipes]
        if recipes:
            tables.append(_recipes_table(recipes, asked.wanted, settings.economics))
    if asked.max_usd_per_mtok is None and asked.wanted is None:
        leads = find_leads(readers)
        tables.append(leads_table(curves, leads))
        data["leads"] = [
            {
                "low_tps": lead.low_tps,
                "high_tps": lead.high_tps,
                "wins": curves[lead.winner].label,
                **describe_lead_ratio(lead),
                "share_of_draws": lead.share_of_draws,
            }
            for lead in leads
        ]
    data["sentences"] = sentences
    return Document(
        title=_describe(curves[0]),
        simulated=simulated,
        blocks=filled(Text(lines=tuple(sentences)), *tables),
        data=data,
    )


def _describe(curve: Curve) -> str:
    return describe_workload(curve, served_by=False) or "hardware and workload not recorded"


def _fastest_table(found: Sequence[Fastest], usd: float, economics: Economics | None) -> Table:
    rows = []
    for one in found:
        if one.interactivity_tps is None or one.cell is None:
            rows.append((one.curve.label, _why_not(one), MISSING, MISSING))
            continue
        value = ("≥ " if one.at_end else "") + speed(one.interactivity_tps)
        if one.interval is not None:
            value += f" {spread(one.interval.low, one.interval.high, speed)}"
        knots = " and ".join(knot.mean.recipe for knot in one.cell.knots)
        where = "its fastest point; the cost would allow more" if one.at_end else f"between {knots}"
        rows.append((one.curve.label, where, value, rate(one.cell.tput_tps_per_gpu)))
    return Table(
        title=f"The highest tok/s/user at {dollars(usd)} per million tokens",
        headers=("", "where", "tok/s/user", "tok/s/GPU"),
        rows=tuple(rows),
        caption=_note(economics),
        text_columns=2,
    )


def _why_not(one: Fastest) -> str:
    """Why a curve has no interactivity at the cost."""
    if one.least_usd_per_mtok is None:
        return "the hardware's price is unknown"
    return f"its cheapest point costs ${one.least_usd_per_mtok:.3f}"


def _note(economics: Economics | None) -> str:
    return "" if economics is None else f"{economics.label}."


def _say_fastest(found: Sequence[Fastest], usd: float) -> str:
    best = found[0]
    if best.interactivity_tps is None:
        return f"No curve serves a million tokens for {dollars(usd)}."
    least = "at least " if best.at_end else ""
    text = f"At {dollars(usd)} per million tokens {best.curve.label} is the fastest: {least}"
    text += f"{speed(best.interactivity_tps)} tok/s/user"
    others = [one for one in found[1:] if one.interactivity_tps is not None]
    if others and others[0].interactivity_tps is not None:
        text += f", then {others[0].curve.label} with {speed(others[0].interactivity_tps)}"
    return f"{text}."


def _recipes_table(recipes: Sequence[Recipe], wanted: Wanted, economics: Economics | None) -> Table:
    shown = metrics_in("recipes")
    rows = [
        (
            one.curve.label,
            one.measured.mean.recipe,
            *(metric.text_of(one.measured.mean, economics) for metric in shown),
            str(len(one.measured.runs)),
        )
        for one in recipes[:_LISTED]
    ]
    more = f" {len(recipes) - _LISTED} more meet it." if len(recipes) > _LISTED else ""
    return Table(
        title=f"Measured recipes with {_say_wanted(wanted)}, the cheapest first",
        headers=("", "recipe", *(metric.label_in("recipes") for metric in shown), "runs"),
        rows=tuple(rows),
        caption=_note(economics) + more,
        text_columns=2,
    )


def _say_recipes(curves: Sequence[Curve], recipes: Sequence[Recipe], wanted: Wanted) -> str:
    asked = _say_wanted(wanted)
    if not recipes:
        return f"No measured recipe has {asked}: {'; '.join(nearest_misses(curves, wanted))}."
    best = recipes[0]
    cost = "" if best.usd_per_mtok is None else f" for {dollars(best.usd_per_mtok)} per million tokens"
    text = (
        f"The cheapest measured recipe with {asked} is {best.curve.label}, {best.measured.mean.recipe}: "
        f"{rate(best.measured.y)} tok/s/GPU{cost} at {speed(best.measured.x)} tok/s/user"
    )
    rival = next((one for one in recipes if one.curve is not best.curve), None)
    if rival is not None:
        saved = 1 - rival.measured.y / best.measured.y
        text += f"; the best of {rival.curve.label} costs {percent(1 / (1 - saved) - 1)} more"
    return f"{text}."


def _say_wanted(wanted: Wanted) -> str:
    text = f"at least {speed(wanted.min_interactivity_tps)} tok/s/user"
    if wanted.max_ttft_s is not None:
        text += f" and a median TTFT of at most {wanted.max_ttft_s:g} s"
    return text


def _fastest_data(one: Fastest) -> dict[str, Any]:
    interval = one.interval
    return {
        "curve": one.curve.label,
        "interactivity_tps": one.interactivity_tps,
        "tput_tps_per_gpu": None if one.cell is None else one.cell.tput_tps_per_gpu,
        "at_end": one.at_end,
        "interval": None if interval is None else [interval.low, interval.high],
        "knots": [] if one.cell is None else [knot.mean.recipe for knot in one.cell.knots],
        "reason": None if one.interactivity_tps is not None else _why_not(one),
    }


def _recipe_data(one: Recipe, economics: Economics | None) -> dict[str, Any]:
    mean = one.measured.mean
    return {
        "curve": one.curve.label,
        "recipe": mean.recipe,
        **{metric.id: metric.of_point(mean, economics) for metric in metrics_in("recipes")},
        "usd_per_mtok": one.usd_per_mtok,
        "runs": len(one.measured.runs),
        "source": mean.source,
    }
