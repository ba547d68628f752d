"""Pure: a comparison as tables of text, before any format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate

from mtpbench_analysis.compare import Comparison, Row
from mtpbench_analysis.curves.cells import Cell, Held, Span
from mtpbench_analysis.curves.confounds import note_checkpoints
from mtpbench_analysis.curves.curve import display_name
from mtpbench_analysis.curves.ratios import Bound, Ratio, energy_ratio_of
from mtpbench_analysis.document import Caution, Table, Texts
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.metric import Metric
from mtpbench_analysis.metric_table import metric, metrics_in, note_intervals
from mtpbench_analysis.numbers import MISSING, counted, listed, percent, rate, speed, spread, target, times
from mtpbench_analysis.sentences import (
    describe_cost,
    describe_energy,
    describe_gap,
    explain_no_ratio,
)

_SIGNS = {"exact": "", "at_least": "≥ ", "at_most": "≤ ", "best_points": ""}
UNKNOWN = "unknown"
_PointEntry = tuple[str, CurvePoint, int, str]
"""The label of a curve, one of its points, the number of its runs, and its validity."""
Section = tuple[str, Sequence[tuple[str, Texts]]]
"""A label, which the first row of a section shows, and the name and the cells of each row."""


INVALID = Caution("NO")
"""What a column `valid` says of an invalid point."""


def matched_table(comparison: Comparison) -> Table:
    """Returns both sides at equal interactivity: throughput, ratio, cost, megawatts, acceptance and
    recipes.
    """
    sections: list[Section] = [
        (
            metric.label_in("matched"),
            [*per_curve(comparison, show_of(metric)), *_per_ratio(metric, comparison)],
        )
        for metric in metrics_in("matched")
        if is_shown(metric, comparison)
    ]
    rows, begins = section_rows([*sections, ("recipes at the knots", per_curve(comparison, _recipes))])
    return Table(
        id="matched",
        title="At equal interactivity",
        headers=("tok/s/user", "", *(target(row.target_tps) for row in comparison.rows)),
        rows=rows,
        caption=f"{comparison.constants.label}.{note_reading(comparison)}{note_checkpoints(comparison.checkpoints)}",
        sections=begins,
        text_columns=2,
    )


def section_rows(sections: Sequence[Section]) -> tuple[tuple[Texts, ...], tuple[int, ...]]:
    """Returns the rows of a table, and the indices of those that begin a section."""
    rows: list[Texts] = []
    begins = []
    for label, body in sections:
        begins.append(len(rows))
        rows += [(label if i == 0 else "", name, *cells) for i, (name, cells) in enumerate(body)]
    return tuple(rows), tuple(begins)


def is_shown(metric: Metric, comparison: Comparison) -> bool:
    """Returns whether the first table has rows for a metric: where something can be derived, or a knot has
    it.
    """
    if metric.needs == "constants":
        return comparison.settings.economics is not None
    if metric.needs == "meter":
        return is_metered(comparison)
    runs = [run for curve in comparison.curves for knot in curve.front for run in knot.runs]
    if metric.id == "ttft_from_schedule_p50_s":
        # In an open loop it is the TTFT above it.
        runs = [run for run in runs if run.ttft_from_schedule_p50_s != run.ttft_p50_s]
    return metric.of == "cell" or any(metric.of_point(run) is not None for run in runs)


def show_of(metric: Metric) -> Callable[[Cell], str]:
    """Returns how a table shows a metric at a target."""
    if metric.id == "tput_tps_per_gpu":
        return show_throughput
    return (lambda cell: show_knots(metric, cell)) if metric.of == "knots" else partial(_show_bounded, metric)


def show_knots(metric: Metric, cell: Cell) -> str:
    """Returns what the knots of a cell recorded of a metric: `208.6 and 121.0`; it is never interpolated.

    Where a knot has an interval, each has a line.
    """
    if cell.state == "not_reached":
        return MISSING
    bare = all(metric.ends_of(knot.mean) is None for knot in cell.knots)
    return (" and " if bare else "\nand ").join(
        dict.fromkeys(metric.text_of(knot.mean) for knot in cell.knots)
    )


def show_value(metric: Metric, cell: Cell) -> str:
    """Returns the value of a metric at a target, or the two values that it lies between."""
    value = metric.of_cell(cell)
    return value.text(metric.text) if isinstance(value, Span) else metric.text(value)


def _show_bounded(metric: Metric, cell: Cell) -> str:
    """Returns a derived figure; where there is a throughput to derive it from, only its constant can be
    missing.
    """
    text = show_value(metric, cell)
    if text == MISSING:
        return UNKNOWN if cell.state != "not_reached" else MISSING
    interval = metric.interval_at(cell)
    if interval is not None:
        text += f" {spread(interval.low, interval.high, metric.text)}"
    sign = "≤" if metric.better == "lower" else "≥"
    return f"{sign} {text}" if cell.state == "at_least" else text


def points_table(comparison: Comparison) -> Table:
    """Returns every measured point of every curve, the invalid ones too, with its recipe; empty columns left
    out.
    """
    groups = _point_groups(comparison)
    entries = [entry for group in groups for entry in group]
    columns = [
        ("arm", [label for label, *_ in entries]),
        *_load_columns([point for _, point, *_ in entries]),
        *(
            (metric.label_in("points"), [metric.text_of(point) for _, point, *_ in entries])
            for metric in metrics_in("points")
            if metric.id != "concurrency"
        ),
        ("runs", [f"{runs}" for *_, runs, _ in entries]),
        ("valid", [where for *_, where in entries]),
    ]
    dropped = [name for name, cells in columns if set(cells) == {MISSING}]
    single = {run for *_, run, _ in entries} == {1}
    hidden = [*dropped, "runs"] if single else dropped
    filled = [(name, cells) for name, cells in columns if name not in hidden]
    notes = ["knot: valid and on the front."]
    notes += ["Every point is a single run."] if single else []
    notes += [f"Not recorded: {', '.join(dropped)}."] if dropped else []
    notes += [note_intervals([point for _, point, *_ in entries], "points")]
    return Table(
        id="points",
        title="All points",
        headers=tuple(name for name, _ in filled),
        rows=tuple(zip(*(cells for _, cells in filled), strict=True)),
        caption=" ".join(filter(None, notes)),
        sections=tuple(accumulate(map(len, groups[:-1]), initial=0)),
    )


def _load_columns(points: Sequence[CurvePoint]) -> list[tuple[str, list[str]]]:
    """Returns the concurrencies; where any load is more than that, the loads and the rates that were sent."""
    concurrency, sent = metric("concurrency"), metric("sent_rps")
    if all(is_plain(point) or not (point.is_open or point.ramp_s) for point in points):
        return [(concurrency.label_in("points"), [concurrency.text_of(point) for point in points])]
    columns = [("load", [point.load("short") for point in points])]
    if any(point.is_open for point in points):
        columns.append((sent.label_in("points"), [sent.text_of(point) for point in points]))
    return columns


def _point_groups(comparison: Comparison) -> list[list[_PointEntry]]:
    """Returns the points of each curve, then the invalid ones."""
    groups: list[list[_PointEntry]] = []
    for curve in (*comparison.others, comparison.baseline):
        front = {id(knot) for knot in curve.front}
        groups.append(
            [
                (curve.label, item.mean, len(item.runs), "knot" if id(item) in front else "yes")
                for item in curve.measured
            ]
        )
    if comparison.invalid:
        groups.append([(display_name(point.arm), point, 1, INVALID) for point in comparison.invalid])
    return groups


def reference_table(comparison: Comparison) -> Table | None:
    """Returns the sweep's own throughput beside a published row, with the residual; None without a reference.

    A cell that is not reached has no residual.
    """
    reference = comparison.settings.reference
    if reference is None:
        return None
    rows: list[Texts] = []
    targets = [row.interactivity_tps for row in reference.rows]
    base, *others = comparison.readers
    readers = (*others, base)
    for reader in readers:
        curve, cells = reader.curve, reader.cells(targets)
        for cell, published_row in zip(cells, reference.rows, strict=True):
            published = published_row.tput_tps_per_gpu.get(curve.arm)
            own = cell.tput_tps_per_gpu
            residual = MISSING
            if own is not None and published:
                residual = f"{(own / published - 1) * 100:+.1f}%"
            rows.append(
                (curve.label, target(cell.target_tps), rate(published), show_throughput(cell), residual)
            )
    return Table(
        id="reference",
        title="Beside the published row",
        headers=("", "tok/s/user", "published tok/s/GPU", "here", "residual"),
        rows=tuple(rows),
        caption=f"Published: {reference.source}. The page clamps a target outside a curve to its nearest "
        "knot; here such a cell is ≥ or not reached.",
        sections=tuple(range(0, len(rows), max(1, len(reference.rows)))),
    )


def is_metered(comparison: Comparison) -> bool:
    """Returns whether any cell has metered energy."""
    return any(cell.metered_joules_per_token for row in comparison.rows for cell in row.cells)


def per_curve(comparison: Comparison, show: Callable[[Cell], str]) -> list[tuple[str, Texts]]:
    """Returns the cells of each curve, the others first, then the baseline, as in `MTP / Off`."""
    order = [*range(1, len(comparison.curves)), 0]
    return [(comparison.curves[i].label, tuple(show(row.cells[i]) for row in comparison.rows)) for i in order]


def _per_ratio(metric: Metric, comparison: Comparison) -> list[tuple[str, Texts]]:
    """Returns the ratio of each curve to the baseline, for a metric that has one."""
    if metric.id not in _RATIOS:
        return []
    show = _RATIOS[metric.id]
    return [
        (comparison.name_ratio(i), tuple(show(row, i) for row in comparison.rows))
        for i in range(len(comparison.others))
    ]


def show_energy_ratio(ratio: Span | None, bound: Bound) -> str:
    """Returns `0.43× to 0.47×` and what that saves, in a second line; `≤ 0.47×` for a throughput of `≥`.

    Args:
        ratio: joules for an output token over the baseline's.
        bound: of the throughput's ratio.
    """
    if ratio is None:
        return MISSING
    if bound == "at_least":
        value = f"≤ {times(ratio.high)}×"
    elif bound == "at_most":
        value = f"≥ {times(ratio.low)}×"
    else:
        value = ratio.text(lambda share: f"{times(share)}×")
    note = " (best points)" if bound == "best_points" else ""
    return f"{value},\n{describe_energy(ratio, bound)}{note}"


def show_ratio(ratio: Ratio) -> str:
    """Returns `2.42×, 58.6% lower cost`; ≥ or ≤ where a side is only known by its best point; or why not."""
    if ratio.value is None:
        if ratio.withheld is None or ratio.envelope is None:
            return MISSING
        low, high = ratio.envelope
        return Caution(f"withheld:\n{describe_gap(ratio.withheld)}, so {times(low)}× to {times(high)}×")
    sign = _SIGNS[ratio.bound]
    note = " (best points)" if ratio.bound == "best_points" else ""
    value = f"{sign}{times(ratio.value)}×"
    if ratio.interval is not None:
        value += f" {spread(ratio.interval.low, ratio.interval.high, times)}"
    return f"{value},\n{describe_cost(ratio)}{note}"


def show_bare_ratio(ratio: Ratio) -> str:
    """Returns `2.42×`, with ≥ or ≤ where a side is only known by its best point; or why there is none."""
    if ratio.value is None:
        reason = str(explain_no_ratio(ratio))
        return Caution(reason)
    note = " (best points)" if ratio.bound == "best_points" else ""
    return f"{_SIGNS[ratio.bound]}{times(ratio.value)}×{note}"


def show_brief(cell: Cell) -> str:
    """Returns a cell's throughput without what it rests on."""
    if cell.state == "not_reached":
        return Caution("not reached")
    if cell.tput_range is not None:
        return Caution(cell.tput_range.text(rate))
    return ("≥ " if cell.state == "at_least" else "") + _figure(cell)


def _figure(cell: Cell) -> str:
    value = rate(cell.tput_tps_per_gpu)
    return (
        value if cell.interval is None else f"{value} {spread(cell.interval.low, cell.interval.high, rate)}"
    )


def show_throughput(cell: Cell) -> str:
    """Returns a cell's throughput with what it rests on in a second line."""
    if cell.state == "not_reached":
        return Caution(f"not reached:\nends at {speed(cell.knots[0].x)}")
    if cell.tput_range is not None:
        lower, upper = cell.knots
        knots = f"{speed(lower.x)} and {speed(upper.x)}"
        return Caution(f"{cell.tput_range.text(rate)}\nover a wide gap, between knots {knots}")
    value = _figure(cell)
    if cell.state == "measured":
        return f"{value}\nmeasured"
    if cell.state == "at_least":
        return f"≥ {value}\nruns at {speed(cell.runs_at_tps)}"
    lower, upper = cell.knots
    return f"{value} interpolated,\nknots {speed(lower.x)} and {speed(upper.x)}"


_RATIOS: Mapping[str, Callable[[Row, int], str]] = {
    "tput_tps_per_gpu": lambda row, i: show_ratio(row.ratios[i]),
    "metered_joules_per_output_token": lambda row, i: show_energy_ratio(
        energy_ratio_of(row.cells[i + 1], row.cells[0]), row.ratios[i].bound
    ),
}
"""By metric, its ratio to the baseline's, for the curve of a number."""


def _recipes(cell: Cell) -> str:
    """Returns the knots' recipes; a concurrency between two topologies would mean nothing."""
    if cell.state == "not_reached":
        return MISSING
    knots = [knot.mean for knot in cell.knots]
    if len(knots) == 2 and _layout(knots[0]) == _layout(knots[1]):
        return f"{_both_loads(*knots)}\n{_layout(knots[0])}".rstrip("\n")
    return "\nand ".join(", ".join(filter(None, (p.load("short"), _layout(p)))) for p in knots)


def _both_loads(lower: CurvePoint, upper: CurvePoint) -> str:
    if is_plain(lower) and is_plain(upper):
        return f"{lower.load('short')} and {upper.concurrency}"
    return f"{lower.load('short')} and {upper.load('short')}"


def is_plain(point: CurvePoint) -> bool:
    """Returns whether a point's load is a concurrency and nothing else."""
    return point.concurrency is not None and not point.is_open and not point.ramp_s


def _layout(point: CurvePoint) -> str:
    gpus = None if point.gpus is None else counted(point.gpus, "GPU")
    return ", ".join(part for part in (point.topology, gpus) if part)


def note_reading(comparison: Comparison) -> str:
    """Returns how the targets were chosen, and what the intervals are made of; begins with a blank unless
    empty.
    """
    knots = [knot.mean for row in comparison.rows for cell in row.cells for knot in cell.knots]
    notes = (_target_note(comparison) + _interval_note(comparison), note_intervals(knots, "matched"))
    return " ".join(filter(None, notes))


def _interval_note(comparison: Comparison) -> str:
    """Returns what the intervals hold, and what they leave out."""
    every = [cell for row in comparison.rows for cell in row.cells]
    cells = [cell for cell in every if cell.interval is not None]
    missing = {cell.no_interval for cell in every}
    ends = " No interval where noise leaves open whether a curve reaches so far."
    open_end = ends if "may_end_below" in missing else ""
    if not cells:
        return (" Single runs: no interval." if "single_run" in missing else "") + open_end
    held = frozenset[Held]().union(*(cell.held for cell in cells))
    parts = [text for part, text in _HELD.items() if part in held]
    starts = [f"{percent(comparison.settings.start_noise)} assumed"] if "assumed_starts" in held else []
    starts = ["as measured", *starts] if "starts" in held else starts
    if starts:
        parts.append(f"server starts ({', else '.join(starts)})")
    note = f" In brackets: {comparison.settings.confidence:.0%} intervals that hold {listed(parts)}."
    if not all("repeats" in cell.held for cell in cells):
        note += " What another run would do is not in them where no run was repeated."
    return note + open_end


_HELD: Mapping[Held, str] = {
    "repeats": "the noise of runs",
    "blocks": "noise within a run (time blocks)",
    "shape": "the curve's shape between points",
}


def _target_note(comparison: Comparison) -> str:
    notes = {
        "given": "",
        "overlap": " Targets: quartiles of the interactivities that all sides reach.",
        "union": " Targets: quartiles of all interactivities measured, as the sides share none.",
    }
    return notes[comparison.target_rule]
