"""Pure: comparisons as JSON, CSV and Parquet for programs; docs/comparison.md documents them.

Schema history of the JSON (`schema_version`)
    1   first version
    2   intervals, envelopes, crossings, leads, twins, costs by tier and kind of token
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mtpbench.records import to_json as record_to_json
from mtpbench_analysis.category_table import category_rows
from mtpbench_analysis.compare import Comparison, Row
from mtpbench_analysis.crossing_sentences import explain_no_crossing_interval, write_crossings
from mtpbench_analysis.curves.cells import Cell, Interval, Span
from mtpbench_analysis.curves.crossings import Crossing, Lead
from mtpbench_analysis.curves.curve import CURVE_FIELDS, WORKLOAD_FIELDS, Curve, Measured, describe_workload
from mtpbench_analysis.curves.mean_errors import PERCENTILES, STANDARD_ERRORS
from mtpbench_analysis.curves.ratios import energy_ratio_of
from mtpbench_analysis.curves.twins import find_twins
from mtpbench_analysis.document import json_text, visible_values
from mtpbench_analysis.frame import SPECULATION_FIELDS, Unused
from mtpbench_analysis.metric_table import METRICS, TOKEN_KINDS, VIEWS, metrics_in
from mtpbench_analysis.sentences import (
    explain_no_interval,
    explain_no_ratio,
    write_caveats,
    write_overview,
    write_sentences,
)
from mtpbench_analysis.spreadsheet import to_cell
from mtpbench_analysis.what_if import flat_break_even, record_break_evens, record_projections

SCHEMA_VERSION = 2

_SPECULATION = tuple(name for name in SPECULATION_FIELDS if name not in ("depth_table", *CURVE_FIELDS))
_CURVE = ("arm", *CURVE_FIELDS, *_SPECULATION)


def to_json(comparisons: Sequence[Comparison], left_out: Sequence[Unused] = ()) -> str:
    """Returns everything the tables show and what they rest on, as JSON text; unknown is null."""
    data = {
        "schema_version": SCHEMA_VERSION,
        "simulated": any(comparison.simulated for comparison in comparisons),
        "comparisons": [_comparison(comparison) for comparison in comparisons],
        "not_used": [record_to_json(item) for item in left_out],
    }
    return json_text(data)


def to_csv(comparisons: Sequence[Comparison]) -> str:
    """Returns one line per comparison, target and curve; unknown is empty."""
    return lines_to_csv(to_lines(comparisons))


def to_parquet(comparisons: Sequence[Comparison]) -> bytes:
    """Returns the lines of the CSV with their types; unknown is null."""
    return lines_to_parquet(to_lines(comparisons))


def lines_to_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns flat records of the same keys as CSV; None is empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    for line in lines:
        cells = {name: to_cell(value) if isinstance(value, str) else value for name, value in line.items()}
        writer.writerow(cells)
    return buffer.getvalue()


def lines_to_parquet(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """Returns flat records of the same keys as Parquet; a column that is None throughout has the
    null type.
    """
    buffer = io.BytesIO()
    # Parquet holds UTF-8; half of a surrogate pair is none.
    rows = [{name: visible_values(value) for name, value in line.items()} for line in lines]
    pq.write_table(pa.Table.from_pylist(rows), buffer, compression="zstd")
    return buffer.getvalue()


def flat(line: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record whose lists of `{text}` are joined by `; `."""
    return {
        key: "; ".join(item["text"] for item in value) or None if isinstance(value, list) else value
        for key, value in line.items()
    }


def to_lines(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Returns one flat record per comparison, target and curve."""
    return [line for number, c in enumerate(comparisons) for line in _lines(number, c)]


def _comparison(comparison: Comparison) -> dict[str, Any]:
    settings = comparison.settings
    baseline = comparison.baseline
    return {
        "title": describe_workload(baseline),
        **{name: baseline.shared(name) for name in WORKLOAD_FIELDS},
        "baseline": baseline.label,
        "curves": [_curve(curve) for curve in comparison.curves],
        "target_rule": comparison.target_rule,
        "max_gap": settings.max_gap,
        "confidence": settings.confidence,
        "economics": None
        if settings.economics is None
        else {
            "tier": settings.economics.tier,
            "usd_per_gpu_h": settings.economics.usd_per_gpu_h,
            "hardware": record_to_json(settings.economics.hardware),
        },
        "targets": [_row(comparison, row) for row in comparison.rows],
        "overview": list(write_overview(comparison)),
        "sentences": [*write_sentences(comparison), *write_crossings(comparison)],
        "caveats": list(write_caveats(comparison)),
        "agreements": [record_to_json(item) for item in comparison.agreements],
        "checkpoints": {label: record_to_json(item) for label, item in comparison.checkpoints.items()},
        "confounds": {other.label: list(_confounds(comparison, other)) for other in comparison.others},
        "pooling": list(comparison.pooling),
        "crossings": {
            label: [_crossing(crossing) for crossing in crossings]
            for label, crossings in comparison.crossings.items()
        },
        "leads": [record_lead(lead, "winner", comparison.curves) for lead in comparison.leads],
        "twins": [
            {
                "curve": pair.label,
                "recipe": pair.recipe,
                "interactivity_ratio": pair.interactivity_ratio,
                "tput_ratio": pair.tput_ratio,
                "interactivity_interval": _interval(pair.interactivity_interval),
                "tput_interval": _interval(pair.tput_interval),
                "paired": pair.paired,
                "acceptance_length": pair.other.mean.acceptance_length,
                "gain_per_accepted": pair.gain_per_accepted,
            }
            for pair in find_twins(comparison.readers[0], comparison.readers[1:])
        ],
        "break_evens": record_break_evens(comparison),
        "projections": record_projections(comparison),
        "categories": [record_to_json(row) for row in category_rows(comparison)],
        "invalid_points": [record_to_json(point) for point in comparison.invalid],
        "reference": record_to_json(settings.reference) if settings.reference else None,
    }


def _confounds(comparison: Comparison, curve: Curve) -> tuple[str, ...]:
    """Returns what a curve differs in from the baseline: by its points, then by the plan of the sweep."""
    if curve is comparison.baseline:
        return ()
    return (*comparison.confounds[curve.label], *comparison.known_confounds(curve))


def _curve(curve: Curve) -> dict[str, Any]:
    return {
        "label": curve.label,
        "speculation": curve.speculation,
        **{name: curve.shared(name) for name in _CURVE},
        "points": [
            {
                "on_front": any(item is knot for knot in curve.front),
                "runs": [record_to_json(run) for run in item.runs],
                "mean": record_to_json(item.mean),
            }
            for item in curve.measured
        ],
    }


def _row(comparison: Comparison, row: Row) -> dict[str, Any]:
    cells = []
    for curve, cell in zip(comparison.curves, row.cells, strict=True):
        knots = [
            {
                "interactivity_tps": knot.x,
                "tput_tps_per_gpu": knot.y,
                "runs": len(knot.runs),
                "recipe": knot.mean.recipe,
                **_of_knot(knot),
                "acceptance_per_position": knot.mean.acceptance_per_position,
            }
            for knot in cell.knots
        ]
        values = _of_cell(cell)
        values |= {metric.id: _span(metric.of_cell(cell)) for metric in METRICS if metric.of == "span"}
        values |= {
            "interval": _interval(cell.interval),
            "interval_basis": cell.interval_basis,
            "interval_holds": sorted(cell.held),
            "no_interval_because": explain_no_interval(cell),
            "usd_per_m_by_tier": _costs(cell),
        }
        extra = {"gap_tps": cell.gap_tps, "knot_tput_ratio": cell.knot_ratio, "knots": knots}
        cells.append({"curve": curve.label, **values, **extra})
    ratios = [
        {
            "curve": other.label,
            "tput_ratio": ratio.value,
            "bound": ratio.bound,
            "lower_cost_share": ratio.lower_cost,
            "reason": explain_no_ratio(ratio),
            "interval": _interval(ratio.interval),
            "envelope": ratio.envelope,
            "metered_energy_ratio": _span(energy_ratio_of(cell, row.cells[0])),
        }
        for other, ratio, cell in zip(comparison.others, row.ratios, row.cells[1:], strict=True)
    ]
    return {"target_tps": row.target_tps, "cells": cells, "ratios": ratios}


def _lines(number: int, comparison: Comparison) -> list[dict[str, Any]]:
    economics = comparison.settings.economics
    lines = []
    for at, row in enumerate(comparison.rows):
        for index, (curve, cell) in enumerate(zip(comparison.curves, row.cells, strict=True)):
            ratio = row.ratios[index - 1] if index else None
            lines.append(
                {
                    "comparison": number,
                    **{name: curve.shared(name) for name in (*WORKLOAD_FIELDS, *_CURVE)},
                    "curve": curve.label,
                    "baseline": comparison.baseline.label,
                    "target_tps": row.target_tps,
                    **_of_cell(cell),
                    **_knot("lower", cell.lower),
                    **_knot("upper", cell.upper),
                    "interval_low": cell.interval.low if cell.interval else None,
                    "interval_high": cell.interval.high if cell.interval else None,
                    "interval_basis": cell.interval_basis,
                    "interval_holds": " ".join(sorted(cell.held)) or None,
                    "tput_ratio": ratio.value if ratio else None,
                    "ratio_low": ratio.interval.low if ratio and ratio.interval else None,
                    "ratio_high": ratio.interval.high if ratio and ratio.interval else None,
                    "envelope_low": ratio.envelope[0] if ratio and ratio.envelope else None,
                    "envelope_high": ratio.envelope[1] if ratio and ratio.envelope else None,
                    "ratio_bound": ratio.bound if ratio and ratio.value is not None else None,
                    "no_ratio_because": explain_no_ratio(ratio) if ratio else None,
                    "lower_cost_share": ratio.lower_cost if ratio else None,
                    **flat_break_even(comparison, curve.label, at),
                    "confounds": "; ".join(_confounds(comparison, curve)) or None,
                    "constants_date": economics.hardware.constants_date if economics else None,
                    "constants_caveats": "; ".join(economics.caveats) or None if economics else None,
                    "price_tier": economics.tier if economics and economics.usd_per_gpu_h else None,
                }
            )
    return lines


def _of_cell(cell: Cell) -> dict[str, Any]:
    """Returns what is interpolated at a target, where that stands, and what is derived from it."""

    def values(needs: str | None) -> dict[str, Any]:
        chosen = [metric for metric in METRICS if metric.of == "cell" and metric.needs == needs]
        return {metric.id: _number(metric.of_cell(cell)) for metric in chosen}

    known = cell.tput_range
    where = {
        "runs_at_tps": cell.runs_at_tps,
        "wide_gap": cell.wide_gap,
        "tput_range_low": known.low if known else None,
        "tput_range_high": known.high if known else None,
    }
    return {"state": cell.state, **values(None), **where, **values("constants")}


_MORE_OF_KNOTS = (
    *(field for name in VIEWS["knot_export"] for field in PERCENTILES.get(name, ())),
    *(STANDARD_ERRORS[name] for name in VIEWS["knot_export"] if name in STANDARD_ERRORS),
    *("version", "image", "date"),
)
"""Fields of a knot that an export has beside its figures."""


def _of_knot(knot: Measured) -> dict[str, Any]:
    """Returns what a knot's recipe is and recorded, beside its throughput and interactivity."""
    values = {metric.id: metric.of_point(knot.mean) for metric in metrics_in("knot_export")}
    return {**values, **{name: getattr(knot.mean, name) for name in _MORE_OF_KNOTS}}


def _knot(side: str, knot: Measured | None) -> dict[str, Any]:
    names = ("interactivity_tps", "tput_tps_per_gpu", *VIEWS["knot_export"], *_MORE_OF_KNOTS)
    if knot is None:
        return dict.fromkeys((*(f"{side}_{name}" for name in names), f"{side}_runs"))
    values = {"interactivity_tps": knot.x, "tput_tps_per_gpu": knot.y, **_of_knot(knot)}
    return {**{f"{side}_{name}": values[name] for name in names}, f"{side}_runs": len(knot.runs)}


def record_lead(lead: Lead, key: str, curves: Sequence[Curve]) -> dict[str, Any]:
    """Returns a lead with its ratio to the next best, or the reason why there is none, as plain JSON.

    Args:
        lead: a range of interactivity.
        key: what the winner's label stands under; it is null where others are equal or wide gaps leave it
            open: then all are named.
        curves: what the lead's indices stand for.
    """
    ratio = lead.ratio
    return {
        "low_tps": lead.low_tps,
        "high_tps": lead.high_tps,
        key: None if lead.equals or lead.possible else curves[lead.winner].label,
        "equal": [curves[index].label for index in lead.leaders] if lead.equals else [],
        "possible": [curves[index].label for index in lead.possible],
        "margin": None if ratio is None else ratio.value,
        "bound": None if ratio is None else ratio.bound,
        "reason": "nobody else reaches it" if ratio is None else explain_no_ratio(ratio),
        "settled": lead.is_settled,
        "share_of_draws": lead.share_of_draws,
    }


def _crossing(crossing: Crossing) -> dict[str, Any]:
    return {
        "interactivity_tps": crossing.interactivity_tps,
        "tput_tps_per_gpu": crossing.tput_tps_per_gpu,
        "wins_above": crossing.wins_above,
        "interval": _interval(crossing.interval),
        "no_interval_because": explain_no_crossing_interval(crossing),
        "wide_gap": crossing.wide_gap,
        "gap": _span(crossing.gap),
    }


def _number(value: float | Span | None) -> float | None:
    """Returns a figure that is one number; None for the range over a wide gap."""
    return None if isinstance(value, Span) else value


def _span(span: float | Span | None) -> Any:
    """Returns the lowest and the highest value; None where nothing is known."""
    return [span.low, span.high] if isinstance(span, Span) else None


def _interval(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else record_to_json(interval)


def _costs(cell: Cell) -> dict[str, dict[str, float | None]]:
    """Returns the dollars for a million tokens, by owner tier and kind of token."""
    if cell.economics is None:
        return {}
    return {
        tier: {kind: _number(cell.usd_per_m(kind, tier)) for kind in TOKEN_KINDS}
        for tier in cell.economics.tiers
    }
