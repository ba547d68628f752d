"""Pure: what follows from step costs that nobody measured: break-evens, and curves at another acceptance.

Both stand in blocks of their own, beside what was measured and never among it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mtpbench.errors import InputError
from mtpbench.records import to_json as record_to_json
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.curves.break_even import (
    BreakEven,
    NoBreakEven,
    NoProjection,
    StepCosts,
    project_reader,
)
from mtpbench_analysis.curves.cells import Cell
from mtpbench_analysis.curves.curve import Curve
from mtpbench_analysis.curves.curve_reader import interval_of
from mtpbench_analysis.curves.ratios import Ratio, ratio_of
from mtpbench_analysis.document import Caution, Table, Texts
from mtpbench_analysis.numbers import MISSING, hundredths, listed, rate, speed, spread, target
from mtpbench_analysis.sentences import explain_no_ratio
from mtpbench_analysis.tables import show_brief, show_ratio

WhyNot = NoProjection | Literal["out_of_bounds"]

ASSUMPTION = (
    "Assumed: a step costs the same whatever it accepts (acceptance length / interactivity, with as many "
    "requests in flight), and the time to first token stays; so TPOT' = step / length', and a closed loop's "
    "throughput follows the request time."
)
_NO_WAITS = (
    " The time to first token of {labels} is not known for all runs: there all of a request counts as "
    "decoding."
)
_MIXED_STEPS = (
    " In aggregated serving steps hold prefill too, which every request needs once whatever is accepted: at "
    "a shorter length than measured a curve lies higher than projected, at a longer one lower."
)
_WHY_NOT: dict[WhyNot, str] = {
    "no_speculation": "it drafts nothing",
    "open_loop": "open loop: its throughput is what was sent",
    "dynamic_depth": "its depth changes from step to step, so its steps are of several kinds",
    "drafts_in_some_steps": "steps may draft nothing, and acceptance is of those that drafted",
    "mixed_depths": "its points draft different numbers of tokens (--split draft_tokens)",
    "depth_unknown": "how many tokens it drafts was not recorded",
    "acceptance_unknown": "its acceptance length is unknown",
    "acceptance_out_of_bounds": "a recorded acceptance length is outside 1 … drafts + 1",
    "out_of_bounds": "no length of this arm",
}
_WHY_NO_BREAK_EVEN: dict[NoBreakEven, str] = {
    "baseline_not_reached": "the baseline does not reach it",
    "not_reached": "not reached with all accepted",
    "always_pays": "pays with nothing accepted",
    "never_pays": "loses with all accepted",
    "wide_gap": "knots too far apart",
    "unmeasured": "known by best points only",
}
_SIGNS = {"exact": "", "at_most": "≤ ", "at_least": "≥ "}


@dataclass(frozen=True, kw_only=True, slots=True)
class Projected:
    """A projected curve is what a drafting curve would be at an acceptance length that was not measured.

    Args:
        label: of the curve as measured.
        length: the acceptance length.
        bounds: the lengths that the arm can have; None where its steps are unknown.
        reason: why there is none.
        curve: the projection; None where there is none.
        cells: what it would serve, one for each target.
        ratios: of the cells to the baseline's as measured.
    """

    label: str
    length: float
    bounds: tuple[float, float] | None = None
    reason: WhyNot | None = None
    curve: Curve | None = None
    cells: tuple[Cell, ...] = ()
    ratios: tuple[Ratio, ...] = ()


def find_projections(comparison: Comparison) -> tuple[Projected, ...]:
    """Returns each drafting curve at each length that was asked for.

    Raises:
        InputError: a length lies outside the bounds of every arm whose bounds are known.
    """
    found = []
    for length in comparison.settings.what_if:
        of_length = [_projected(comparison, index, length) for index in range(len(comparison.others))]
        refused = [item for item in of_length if item.reason == "out_of_bounds"]
        if refused and not any(item.curve for item in of_length):
            bounds = "; ".join(f"{item.label}: 1 to {item.bounds[1]:g}" for item in refused if item.bounds)
            raise InputError(
                f"--what-if-acceptance {length:g}: outside the acceptance lengths that an arm can have "
                f"({bounds}; the upper bound is one more than it drafts)"
            )
        found += of_length
    return tuple(found)


def _projected(comparison: Comparison, index: int, length: float) -> Projected:
    reader, base = comparison.readers[index + 1], comparison.readers[0]
    label, costs = reader.curve.label, comparison.step_costs[reader.curve.label]
    if not isinstance(costs, StepCosts):
        return Projected(label=label, length=length, reason=costs)
    bounds = (1.0, costs.most)
    if not 1 <= length <= costs.most:
        return Projected(label=label, length=length, bounds=bounds, reason="out_of_bounds")
    targets = [row.target_tps for row in comparison.rows]
    moved = project_reader(reader, costs, length)
    drawn, base_drawn = moved.drawn(targets), base.drawn(targets)
    cells = moved.cells(targets, drawn)
    ratios = []
    for at, (cell, row) in enumerate(zip(cells, comparison.rows, strict=True)):
        ratio = ratio_of(cell, row.cells[0], comparison.settings.max_gap)
        if ratio.value is not None and (cell.interval or row.cells[0].interval):
            interval = interval_of(drawn[:, at] / base_drawn[:, at], comparison.settings.confidence)
            ratio = replace(ratio, interval=interval)
        ratios.append(ratio)
    return Projected(
        label=label, length=length, bounds=bounds, curve=moved.curve, cells=cells, ratios=tuple(ratios)
    )


def explain_no_projection(reason: WhyNot, bounds: tuple[float, float] | None = None) -> str:
    """Returns why a curve has no step costs, or none at a length."""
    return f"its lengths are 1 to {bounds[1]:g}" if bounds else _WHY_NOT[reason]


def explain_no_break_even(reason: NoBreakEven) -> str:
    """Returns why there is no break-even at a target."""
    return _WHY_NO_BREAK_EVEN[reason]


def break_even_table(comparison: Comparison) -> Table | None:
    """Returns the acceptance lengths below which each curve stops paying; None where no curve says how many
    tokens it drafts.
    """
    if all(costs in ("no_speculation", "depth_unknown") for costs in comparison.step_costs.values()):
        return None
    rows = [
        (label, *_break_even_cells(comparison, label, costs))
        for label, costs in comparison.step_costs.items()
    ]
    known = any(comparison.break_evens.values())
    return Table(
        id="break_even",
        title="Break-even: below this acceptance length drafting does not pay",
        headers=("", "as measured", *(f"at {target(row.target_tps)}" for row in comparison.rows)),
        rows=tuple(rows),
        caption=_break_even_caption(comparison),
        text_columns=1,
        detail=not known,
    )


def _break_even_cells(comparison: Comparison, label: str, costs: StepCosts | NoProjection) -> Texts:
    if not isinstance(costs, StepCosts):
        rest = [MISSING] * (len(comparison.rows) - 1)
        return (MISSING, Caution(explain_no_projection(costs)), *rest)
    return (_measured(costs), *map(show_break_even, comparison.break_evens[label]))


def _measured(costs: StepCosts) -> str:
    low, high = (hundredths(length) for length in costs.measured)
    return low if low == high else f"{low} to {high}"


def show_break_even(item: BreakEven) -> str:
    """Returns a break-even as a table says it: `1.62 (1.55–1.70)`, `≤ 1.80`, or why there is none."""
    if item.acceptance_length is None:
        return Caution(MISSING if item.reason is None else explain_no_break_even(item.reason))
    text = f"{_SIGNS[item.bound]}{hundredths(item.acceptance_length)}"
    interval = item.interval
    return text if interval is None else f"{text} {spread(interval.low, interval.high, hundredths)}"


def _break_even_caption(comparison: Comparison) -> str:
    items = [item for found in comparison.break_evens.values() for item in found]
    note = _assumption(comparison)
    if any(item.bound == "at_most" for item in items):
        note += " ≤: a slower recipe, which was not measured, might pay with less."
    if any(item.bound == "at_least" for item in items):
        note += " ≥: the baseline is known there by its best point only."
    if any(item.interval is not None for item in items):
        note += (
            f" In brackets: {comparison.settings.confidence:.0%} intervals by the same draws of noise as the "
            "ratios; whether the assumption holds is not in them."
        )
    return note


def _assumption(comparison: Comparison) -> str:
    without = [
        label
        for label, costs in comparison.step_costs.items()
        if isinstance(costs, StepCosts) and not costs.waits_known
    ]
    waits = _NO_WAITS.format(labels=listed(without)) if without else ""
    is_mixed = any("aggregated" in curve.values("serving") for curve in comparison.others)
    return ASSUMPTION + waits + (_MIXED_STEPS if is_mixed else "")


def projection_tables(comparison: Comparison) -> tuple[Table, ...]:
    """Returns two tables for each length asked for: at the targets, and recipe by recipe."""
    projections = find_projections(comparison)
    tables = []
    for length in comparison.settings.what_if:
        items = [item for item in projections if item.length == length]
        tables += [_targets_table(comparison, length, items), _recipes_table(comparison, length, items)]
    return tuple(tables)


def _targets_table(comparison: Comparison, length: float, items: Sequence[Projected]) -> Table:
    rows: list[Texts] = []
    begins = []
    for item in items:
        begins.append(len(rows))
        if item.curve is None and item.reason is not None:
            why = Caution(explain_no_projection(item.reason, item.bounds))
            rows.append((item.label, "", why, *[MISSING] * (len(comparison.rows) - 1)))
            continue
        rows.append((item.label, "projected tok/s/GPU", *map(show_brief, item.cells)))
        rows.append(("", "over the baseline as measured", *map(show_ratio, item.ratios)))
    return Table(
        id=f"projection-{length:g}",
        title=f"PROJECTION, not measured: at an acceptance length of {hundredths(length)}",
        headers=("", "tok/s/user", *(target(row.target_tps) for row in comparison.rows)),
        rows=tuple(rows),
        caption=_assumption(comparison),
        sections=tuple(begins),
        text_columns=2,
    )


def _recipes_table(comparison: Comparison, length: float, items: Sequence[Projected]) -> Table:
    headers = ("", "recipe", "acceptance", "tok/s/user", "tok/s/GPU", "tok/s/user", "tok/s/GPU")
    measured = {curve.label: curve for curve in comparison.curves}
    rows = [
        (
            item.label,
            there.mean.recipe,
            hundredths(here.mean.acceptance_length),
            speed(here.x),
            rate(here.y),
            speed(there.x),
            rate(there.y),
        )
        for item in items
        if item.curve is not None
        for here, there in zip(measured[item.label].measured, item.curve.measured, strict=True)
    ]
    return Table(
        id=f"projection-{length:g}-recipes",
        title=f"PROJECTION, not measured: each recipe at {hundredths(length)}",
        headers=headers,
        rows=tuple(rows),
        caption="First as measured, then (the last two columns) as projected.",
        text_columns=2,
        detail=True,
    )


def record_break_evens(comparison: Comparison) -> dict[str, Any]:
    """Returns the break-evens by curve as plain JSON; unknown is null, with the reason."""
    return {
        label: {
            "assumption": _assumption(comparison),
            "waits_known": costs.waits_known if isinstance(costs, StepCosts) else None,
            "bounds": [1.0, costs.most] if isinstance(costs, StepCosts) else None,
            "measured": list(costs.measured) if isinstance(costs, StepCosts) else None,
            "reason": None if isinstance(costs, StepCosts) else explain_no_projection(costs),
            "targets": [
                {
                    "target_tps": item.target_tps,
                    "acceptance_length": item.acceptance_length,
                    "bound": item.bound,
                    "interval": None if item.interval is None else record_to_json(item.interval),
                    "reason": None if item.reason is None else explain_no_break_even(item.reason),
                }
                for item in comparison.break_evens.get(label, ())
            ],
        }
        for label, costs in comparison.step_costs.items()
    }


def flat_break_even(comparison: Comparison, label: str, at: int) -> dict[str, Any]:
    """Returns the break-even of a curve at the target of an index, as columns of a CSV; the baseline has
    none.
    """
    costs, found = comparison.step_costs.get(label), comparison.break_evens.get(label)
    item = found[at] if found else None
    interval = item.interval if item else None
    reason = item and item.reason and explain_no_break_even(item.reason)
    if costs is not None and not isinstance(costs, StepCosts):
        reason = explain_no_projection(costs)
    return {
        "break_even_acceptance_length": item.acceptance_length if item else None,
        "break_even_bound": item.bound if item and item.acceptance_length is not None else None,
        "break_even_low": interval.low if interval else None,
        "break_even_high": interval.high if interval else None,
        "no_break_even_because": reason,
    }


def record_projections(comparison: Comparison) -> list[dict[str, Any]]:
    """Returns the projected curves as plain JSON; every record says that it is projected."""
    return [
        {
            "projected": True,
            "curve": item.label,
            "acceptance_length": item.length,
            "assumption": _assumption(comparison),
            "bounds": None if item.bounds is None else list(item.bounds),
            "reason": None if item.reason is None else explain_no_projection(item.reason, item.bounds),
            "targets": [
                _record_cell(cell, ratio) for cell, ratio in zip(item.cells, item.ratios, strict=True)
            ],
            "points": [
                {
                    "projected": True,
                    "recipe": measured.mean.recipe,
                    "interactivity_tps": measured.x,
                    "tput_tps_per_gpu": measured.y,
                }
                for measured in (item.curve.measured if item.curve else ())
            ],
        }
        for item in find_projections(comparison)
    ]


def _record_cell(cell: Cell, ratio: Ratio) -> dict[str, Any]:
    return {
        "projected": True,
        "target_tps": cell.target_tps,
        "state": _state(cell),
        "tput_tps_per_gpu": cell.tput_tps_per_gpu,
        "interval": None if cell.interval is None else record_to_json(cell.interval),
        "tput_ratio": ratio.value,
        "bound": ratio.bound,
        "ratio_interval": None if ratio.interval is None else record_to_json(ratio.interval),
        "no_ratio_because": explain_no_ratio(ratio),
    }


def _state(cell: Cell) -> str:
    """Returns where the target lies on the projected front; nothing of it is measured."""
    return "at_knot" if cell.state == "measured" else cell.state


def projection_lines(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Returns one flat record for each projected curve and target, for CSV and Parquet; one without a target
    for a curve that can't be projected, which says why.
    """
    return [
        {
            "projected": True,
            "comparison": number,
            "curve": item.label,
            "baseline": comparison.baseline.label,
            "simulated": comparison.simulated,
            "acceptance_length": item.length,
            "target_tps": cell and cell.target_tps,
            "state": cell and _state(cell),
            "tput_tps_per_gpu": cell and cell.tput_tps_per_gpu,
            "interval_low": cell.interval.low if cell and cell.interval else None,
            "interval_high": cell.interval.high if cell and cell.interval else None,
            "tput_ratio": ratio and ratio.value,
            "ratio_low": ratio.interval.low if ratio and ratio.interval else None,
            "ratio_high": ratio.interval.high if ratio and ratio.interval else None,
            "no_ratio_because": ratio and explain_no_ratio(ratio),
            "no_projection_because": item.reason and explain_no_projection(item.reason, item.bounds),
            "assumption": _assumption(comparison),
        }
        for number, comparison in enumerate(comparisons)
        for item in find_projections(comparison)
        for cell, ratio in (*zip(item.cells, item.ratios, strict=True),) or ((None, None),)
    ]
