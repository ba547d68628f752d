"""Pure: the data of the page's script: points, fronts, bands and constants of every comparison, as JSON.

Each text stands once, in `words`. A point is a list in the order of `columns`, with the places of its texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mtpbench.records import METHOD_NAMES
from mtpbench_analysis.chart.comparison_chart import Band, Chart, curve_of, gain_band
from mtpbench_analysis.chart.style import CROSS, MARKS
from mtpbench_analysis.compare import Comparison, Row
from mtpbench_analysis.crossing_sentences import write_crossings
from mtpbench_analysis.curves.cells import Interval, Span
from mtpbench_analysis.curves.confounds import note_checkpoints
from mtpbench_analysis.curves.curve import display_name
from mtpbench_analysis.curves.curve_reader import CurveReader
from mtpbench_analysis.curves.mean_errors import PERCENTILES, STANDARD_ERRORS, reach_of
from mtpbench_analysis.document import Document, visible_values
from mtpbench_analysis.frame import CurvePoint, join_list
from mtpbench_analysis.metric import Metric, View
from mtpbench_analysis.metric_table import costs, metrics_in, note_intervals
from mtpbench_analysis.report.overview import shorten_paths
from mtpbench_analysis.report.panel import TextTable, Traces
from mtpbench_analysis.tables import is_shown, note_reading
from mtpbench_analysis.traces import SweepTrace
from mtpbench_analysis.what_if import record_break_evens, record_projections

NUMBERS = (*(metric.id for metric in metrics_in("page")), "valid")
TEXTS = (
    "arm",
    "recipe",
    "load_short",
    "load_mark",
    "topology",
    "engine",
    "version",
    "image",
    "serving",
    "workload",
    "settings",
    "date",
    "method",
    "speculation",
    "depth_rule",
    "depth_table",
    "checkpoint",
    "draft_model",
    "draft_sampling",
    "rejection_method",
    "acceptance_mode",
    "power_source",
    "source",
    "reasons",
)
COLUMNS = (*NUMBERS, *TEXTS, "runs")
_REACHES = tuple(dict.fromkeys(STANDARD_ERRORS.values()))

_FACETS = ("hardware", "model", "precision", "engine", "serving")


def describe_page(
    comparisons: Sequence[Comparison],
    documents: Sequence[Document],
    charts: Sequence[Chart],
    sweeps: Sequence[SweepTrace] = (),
    opening: int = 0,
    title: str = "",
) -> dict[str, Any]:
    """Returns all data of the script; an unknown value is null.

    Args:
        comparisons: the page's comparisons.
        documents: a document of each comparison.
        charts: a chart of each, throughput per GPU over interactivity.
        sweeps: the traces of the points.
        opening: the index of the comparison that the page shows first.
        title: the title of the page; files that a reader saves from it have its name.
    """
    texts, traces, metrics = TextTable(), Traces(sweeps), _Declarations()
    columns = _filled(comparisons)
    described = [
        {
            **_comparison(comparison, document, chart, texts, columns),
            **_traces(comparison, traces),
            "views": _views(comparison, metrics),
        }
        for comparison, document, chart in zip(comparisons, documents, charts, strict=True)
    ]
    return {
        "title": title,
        "opening": opening,
        "columns": [*columns, "runs"],
        "unrecorded": [name for name in COLUMNS if name not in (*columns, "runs")],
        "texts": list(TEXTS),
        "ends": PERCENTILES,
        "reaches": {name: _REACHES.index(field) for name, field in STANDARD_ERRORS.items()},
        "metrics": metrics.declared,
        "methods": METHOD_NAMES,
        "shapes": [mark.path for mark in MARKS],
        "cross": CROSS,
        "comparisons": described,
        "traces": traces.describe(texts) if traces.points else None,
        "words": texts.texts,
    }


def to_script_text(data: Any) -> str:
    """Returns JSON that is safe between script tags: no text in it can close the tag or open a comment."""
    text = json.dumps(visible_values(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _filled(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Returns the columns in which any point of the page has a value: the others would only take room."""
    points = [item.mean for each in comparisons for curve in each.curves for item in curve.measured]
    points += [point for each in comparisons for point in each.invalid]
    return tuple(
        name
        for name in (*NUMBERS, *TEXTS)
        if any(getattr(point, name) not in (None, (), "") for point in points)
    )


def _comparison(
    comparison: Comparison, document: Document, chart: Chart, texts: TextTable, columns: Sequence[str]
) -> dict[str, Any]:
    settings, baseline = comparison.settings, comparison.baseline
    isl, osl = baseline.shared("isl"), baseline.shared("osl")
    notes = {label: item.text for label, item in comparison.checkpoints.items()}
    return {
        "title": document.heading,
        "mark": "SIMULATED" if comparison.simulated else None,
        "kind": "simulated" if comparison.simulated else "measured",
        "facets": {
            **{name: baseline.shared(name) for name in _FACETS},
            "sequence": None if isl is None else f"{isl}/{osl}",
        },
        "isl": isl,
        "osl": osl,
        "max_gap": settings.max_gap,
        "confidence": settings.confidence,
        "economics": _economics(comparison),
        "curves": [
            {
                **_curve(reader, comparison.readers[0], series.band, texts, columns),
                "checkpoint_note": notes.get(reader.curve.label),
            }
            for reader, series in zip(comparison.readers, chart.series, strict=True)
        ],
        "targets": [row.target_tps for row in comparison.rows],
        "intervals": [_intervals(row) for row in comparison.rows],
        "caption": _caption(comparison),
        "recorded_note": note_intervals(
            [item.mean for curve in comparison.curves for item in curve.measured], "matched"
        ),
        "no_constants": None if settings.economics else f"{comparison.constants.label}.",
        "break_evens": record_break_evens(comparison),
        "projections": record_projections(comparison),
        "checkpoints_note": note_checkpoints(comparison.checkpoints),
        "crossings": list(write_crossings(comparison)),
        "crossed": [[equal.number, equal.x, equal.y] for equal in chart.crossings],
        "invalid": [_point(point, 1, texts, columns) for point in comparison.invalid],
        "invalid_curves": [curve_of(point, comparison.readers) for point in comparison.invalid],
    }


def _traces(comparison: Comparison, traces: Traces) -> dict[str, Any]:
    """Returns the numbers of each point's traces, one for each run that comes from a results folder."""
    return {
        "traces": [[traces.numbers(item.runs) for item in curve.measured] for curve in comparison.curves],
        "invalid_traces": [traces.numbers([point]) for point in comparison.invalid],
    }


def _economics(comparison: Comparison) -> dict[str, Any] | None:
    economics = comparison.settings.economics
    if economics is None:
        return None
    tiers = economics.tiers or (economics.tier,)
    labels = {tier: replace(economics, tier=tier).label for tier in tiers}
    return {"tier": economics.tier, "tiers": list(tiers), "labels": labels}


class _Declarations:
    """The declarations of metrics for the script, each once: comparisons share most of them."""

    def __init__(self) -> None:
        self.declared: list[dict[str, Any]] = []
        self._places: dict[str, int] = {}

    def index(self, declaration: Mapping[str, Any]) -> int:
        """Returns the declaration's place; its fields without a value are left out."""
        fields = {name: value for name, value in declaration.items() if value is not None or name == "factor"}
        place = self._places.setdefault(json.dumps(fields), len(self.declared))
        if place == len(self.declared):
            self.declared.append(fields)
        return place


def _views(comparison: Comparison, metrics: _Declarations) -> dict[str, list[int]]:
    """Returns the metrics of a comparison by view, as places; axes lack metrics that no point has."""
    economics = comparison.settings.economics
    base = comparison.baseline.label
    points = [item.mean for curve in comparison.curves for item in curve.measured]

    def places(view: View, chosen: Iterable[Metric]) -> list[int]:
        declared = [metric.declaration(view, economics) for metric in chosen]
        return [
            metrics.index({**each, "label": each["label"].replace("{baseline}", base)}) for each in declared
        ]

    def on_axis(metric: Metric) -> bool:
        if metric.of == "ratio":
            low, high = comparison.baseline.range_tps
            return any(low <= knot.x <= high for other in comparison.others for knot in other.front)
        return any(metric.of_point(point, economics) is not None for point in points)

    matched = [
        metric for metric in metrics_in("matched") if metric.needs == "meter" or is_shown(metric, comparison)
    ]
    return {
        "matched": places(
            "matched", (priced for metric in matched for priced in _at_every_price(metric, comparison))
        ),
        "more": places("page_more", metrics_in("page_more", economics)),
        "y": places("y", filter(on_axis, metrics_in("y", economics))),
        "x": places("x", filter(on_axis, metrics_in("x"))),
    }


def _at_every_price(metric: Metric, comparison: Comparison) -> tuple[Metric, ...]:
    """Returns a metric; the cost of all tokens once for every price that a reader can choose."""
    economics = comparison.settings.economics
    if metric.id != "usd_per_mtok" or economics is None:
        return (metric,)
    totals = [cost for cost in costs(economics) if cost.quotient and cost.quotient.under == "total"]
    priced = totals or [replace(metric, tier=economics.tier)]
    return tuple(replace(cost, labels={"matched": f"{metric.label}, {cost.tier}"}) for cost in priced)


def _caption(comparison: Comparison) -> str:
    """Returns the first table's caption; without the constants where the reader can choose a price."""
    note = note_reading(comparison)
    return note if comparison.settings.economics else f"{comparison.constants.label}.{note}"


def _curve(
    reader: CurveReader, base: CurveReader, band: Band | None, texts: TextTable, columns: Sequence[str]
) -> dict[str, Any]:
    curve = reader.curve
    place = {id(item): i for i, item in enumerate(curve.measured)}
    return {
        "label": curve.label,
        "name": curve.full_name,
        "methods": [method for method in curve.values("method") if method is not None],
        "arm": display_name(curve.arm),
        "points": [_point(item.mean, len(item.runs), texts, columns) for item in curve.measured],
        "front": [place[id(knot)] for knot in curve.front],
        "sure": [int(noise is not None) for noise in reader.noise.runs],
        "band": _rows(band),
        "gain_band": _rows(gain_band(reader, base)),
    }


def _rows(band: Band | None) -> list[list[float]] | None:
    """Returns a band as lists [interactivity, low, high]; seven digits are finer than a pixel."""
    if band is None:
        return None
    edges = np.column_stack([band.x, band.low, band.high])
    return [[float(f"{value:.7g}") for value in row] for row in edges.tolist()]


def _intervals(row: Row) -> dict[str, Any]:
    return {
        "cells": [_pair(cell.interval) for cell in row.cells],
        "joules": [_pair(cell.metered_joules_per_token) for cell in row.cells],
        "ratios": [_pair(ratio.interval) for ratio in row.ratios],
    }


def _pair(interval: Interval | Span | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _point(point: CurvePoint, runs: int, texts: TextTable, columns: Sequence[str]) -> list[Any]:
    numbers = [getattr(point, name) for name in NUMBERS if name in columns]
    values = [_text(point, name) for name in TEXTS if name in columns]
    joined = [(join_list(value) or None) if isinstance(value, tuple) else value for value in values]
    return [*numbers, *(texts.index(text) for text in joined), runs, *_ends(point)]


def _ends(point: CurvePoint) -> Iterator[list[float | None]]:
    """Yields the ends of a point's percentiles, and by what factors other figures may be off, if any is
    known.
    """
    ends = [getattr(point, field) for pair in PERCENTILES.values() for field in pair]
    reaches = [reach_of(point, field) for field in _REACHES]
    if any((*ends, *reaches)):
        yield [end and float(f"{end:.10g}") for end in (*ends, *reaches)]


_PATHS = ("source", "checkpoint", "draft_model")


def _text(point: CurvePoint, name: str) -> Any:
    value = getattr(point, name)
    if name == "reasons":
        return tuple(shorten_paths(reason) for reason in value)
    return shorten_paths(value) if name in _PATHS and value is not None else value
