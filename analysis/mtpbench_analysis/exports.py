"""Pure: comparisons as JSON and CSV for programs; docs/comparison.md documents both.

Schema history of the JSON (`schema_version`)
    1   first version
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from mtpbench.records import to_json as record_to_json
from mtpbench_analysis.cells import Cell
from mtpbench_analysis.compare import Comparison, Row
from mtpbench_analysis.curves import Curve, Measured
from mtpbench_analysis.document import describe_workload
from mtpbench_analysis.frame import Unused
from mtpbench_analysis.sentences import write_caveats, write_overview, write_sentences

SCHEMA_VERSION = 1

_WORKLOAD = ("hardware", "model", "precision", "isl", "osl", "workload", "simulated")
_CURVE = ("arm", "engine", "serving", "acceptance_mode")
_CELL = (
    "state",
    "tput_tps_per_gpu",
    "runs_at_tps",
    "wide_gap",
    "usd_per_mtok",
    "tps_per_mw",
    "joules_per_token",
)


def to_json(comparisons: Sequence[Comparison], left_out: Sequence[Unused] = ()) -> str:
    """Everything the tables show and what they rest on, as JSON text; unknown is null."""
    data = {
        "schema_version": SCHEMA_VERSION,
        "simulated": any(comparison.simulated for comparison in comparisons),
        "comparisons": [_comparison(comparison) for comparison in comparisons],
        "not_used": [record_to_json(item) for item in left_out],
    }
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(comparisons: Sequence[Comparison]) -> str:
    """One line per comparison, target and curve; unknown is empty."""
    lines = [line for number, c in enumerate(comparisons) for line in _lines(number, c)]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _comparison(comparison: Comparison) -> dict[str, Any]:
    settings = comparison.settings
    baseline = comparison.baseline
    return {
        "title": describe_workload(baseline),
        **{name: baseline.shared(name) for name in _WORKLOAD},
        "baseline": baseline.label,
        "curves": [_curve(curve) for curve in comparison.curves],
        "target_rule": comparison.target_rule,
        "max_gap": settings.max_gap,
        "economics": None
        if settings.economics is None
        else {
            "tier": settings.economics.tier,
            "usd_per_gpu_h": settings.economics.usd_per_gpu_h,
            "hardware": record_to_json(settings.economics.hardware),
        },
        "targets": [_row(comparison, row) for row in comparison.rows],
        "overview": list(write_overview(comparison)),
        "sentences": list(write_sentences(comparison)),
        "caveats": list(write_caveats(comparison)),
        "agreements": [record_to_json(item) for item in comparison.agreements],
        "confounds": {label: list(texts) for label, texts in comparison.confounds.items()},
        "pooling": list(comparison.pooling),
        "invalid_points": [record_to_json(point) for point in comparison.invalid],
        "reference": record_to_json(settings.reference) if settings.reference else None,
    }


def _curve(curve: Curve) -> dict[str, Any]:
    return {
        "label": curve.label,
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
            }
            for knot in cell.knots
        ]
        values = {name: getattr(cell, name) for name in _CELL}
        extra = {"gap_tps": cell.gap_tps, "knot_tput_ratio": cell.knot_ratio, "knots": knots}
        cells.append({"curve": curve.label, **values, **extra})
    ratios = [
        {
            "curve": other.label,
            "tput_ratio": ratio.value,
            "bound": ratio.bound,
            "lower_cost_share": ratio.lower_cost,
            "reason": ratio.reason,
        }
        for other, ratio in zip(comparison.others, row.ratios, strict=True)
    ]
    return {"target_tps": row.target_tps, "cells": cells, "ratios": ratios}


def _lines(number: int, comparison: Comparison) -> list[dict[str, Any]]:
    economics = comparison.settings.economics
    lines = []
    for row in comparison.rows:
        for index, (curve, cell) in enumerate(zip(comparison.curves, row.cells, strict=True)):
            ratio = row.ratios[index - 1] if index else None
            lines.append(
                {
                    "comparison": number,
                    **{name: curve.shared(name) for name in (*_WORKLOAD, *_CURVE)},
                    "curve": curve.label,
                    "baseline": comparison.baseline.label,
                    "target_tps": row.target_tps,
                    **{name: getattr(cell, name) for name in _CELL},
                    **_knot("lower", cell, cell.lower),
                    **_knot("upper", cell, cell.upper),
                    "tput_ratio": ratio.value if ratio else None,
                    "ratio_bound": ratio.bound if ratio and ratio.value is not None else None,
                    "no_ratio_because": ratio.reason if ratio else None,
                    "lower_cost_share": ratio.lower_cost if ratio else None,
                    "constants_date": economics.hardware.constants_date if economics else None,
                    "price_tier": economics.tier if economics and economics.usd_per_gpu_h else None,
                }
            )
    return lines


def _knot(side: str, cell: Cell, knot: Measured | None) -> dict[str, Any]:
    fields = ("interactivity_tps", "tput_tps_per_gpu", "concurrency", "gpus", "topology", "acceptance_length")
    values = {f"{side}_{name}": getattr(knot.mean, name) if knot else None for name in fields}
    return {**values, f"{side}_runs": len(knot.runs) if knot else None}
