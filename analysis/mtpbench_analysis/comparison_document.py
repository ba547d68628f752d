"""Pure: comparisons as documents: one by itself, in the order in which it is read, or many summed up."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mtpbench_analysis.category_table import category_table
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.crossing_sentences import write_crossings
from mtpbench_analysis.curves.cells import Interval
from mtpbench_analysis.curves.crossings import Lead
from mtpbench_analysis.curves.curve import (
    Curve,
    brief_checkpoint,
    describe_sides,
    describe_workload,
    full_names,
    short,
)
from mtpbench_analysis.curves.twins import Twins, find_twins
from mtpbench_analysis.document import Caution, Document, List, Table, Text, Texts, filled
from mtpbench_analysis.frame import Unused
from mtpbench_analysis.metric_table import metrics_in, note_intervals
from mtpbench_analysis.numbers import (
    MISSING,
    fixed,
    listed,
    percent,
    speed,
    spread,
    target,
    times,
)
from mtpbench_analysis.pairing import describe_invalid
from mtpbench_analysis.sentences import (
    write_agreements,
    write_caveats,
    write_overview,
    write_sentences,
)
from mtpbench_analysis.tables import (
    UNKNOWN,
    Section,
    matched_table,
    per_curve,
    points_table,
    reference_table,
    section_rows,
    show_bare_ratio,
    show_brief,
    show_knots,
    show_ratio,
    show_value,
)
from mtpbench_analysis.what_if import break_even_table, projection_tables


def write_document(comparison: Comparison) -> Document:
    """Returns the document of one comparison."""
    caveats, differences = write_caveats(comparison), _differences(comparison)
    sentences = (*write_sentences(comparison), *write_crossings(comparison))
    left_out = tuple(str(describe_invalid(point)) for point in comparison.invalid)
    return Document(
        title=_title(comparison),
        simulated=comparison.simulated,
        blocks=filled(
            Text(lines=write_overview(comparison)),
            arms_table(comparison),
            matched_table(comparison),
            List(id="words", title="In words", items=sentences),
            List(id="caveats", title="Careful", items=caveats),
            List(id="answers", title="The same answers?", items=write_agreements(comparison)),
            List(id="differences", title="What differs besides speculation", items=differences),
            _leads(comparison),
            twins_table(comparison),
            break_even_table(comparison),
            *projection_tables(comparison),
            category_table(comparison),
            metrics_table(comparison),
            reference_table(comparison),
            points_table(comparison),
            List(id="left_out", title="Points that entered no curve", items=left_out, shortened=True),
        ),
        reservations=(*caveats, *differences),
    )


def _leads(comparison: Comparison) -> Table | None:
    """Returns the table of leads; None where two curves never cross and the sentences say all."""
    return None if len(comparison.leads) < 2 else leads_table(full_names(comparison.curves), comparison.leads)


def _title(comparison: Comparison) -> str:
    versus = describe_sides(comparison.others, comparison.baseline)
    where = describe_workload(comparison.baseline)
    return versus + (f": {where}" if where else "")


def arms_table(comparison: Comparison) -> Table | None:
    """Returns what each arm drafts with; None where there is one beside the baseline, on one checkpoint."""
    if len(comparison.others) < 2 and not comparison.checkpoints:
        return None
    curves = (*comparison.others, comparison.baseline)
    columns = {
        "drafts": [curve.speculation or UNKNOWN for curve in curves],
        "acceptance": [_acceptance(curve) for curve in curves],
        "draft model": [_told(curve, "draft_model") for curve in curves],
        "draft sampling": [_told(curve, "draft_sampling") for curve in curves],
        "rejection": [_told(curve, "rejection_method") for curve in curves],
        "checkpoint": [brief_checkpoint(curve) or MISSING for curve in curves],
        "points": [str(len(curve.measured)) for curve in curves],
        "tok/s/user": [_range(curve) for curve in curves],
    }
    figures = ("points", "tok/s/user")
    same = {name: cells for name, cells in columns.items() if len(set(cells)) == 1 and name not in figures}
    alike = {name: cells[0] for name, cells in same.items() if cells[0] != MISSING}
    shown = {name: cells for name, cells in columns.items() if name not in same}
    return Table(
        id="arms",
        title="The arms",
        headers=("", *shown),
        rows=tuple(zip([curve.label for curve in curves], *shown.values(), strict=True)),
        caption=" ".join(f"The same in all: {name} {text}." for name, text in alike.items()),
        text_columns=1 + len(shown) - len(figures),
    )


def _range(curve: Curve) -> str:
    low, high = curve.range_tps
    return speed(low) if low == high else f"{speed(low)} to {speed(high)}"


def _told(curve: Curve, name: str) -> str:
    values = [short(value, name) for value in curve.values(name) if value is not None]
    return ", ".join(values) or MISSING


def _acceptance(curve: Curve) -> str:
    """Returns how drafts were accepted; every pinned acceptance has the mode `golden`, own rates too."""
    modes = [mode for mode in curve.values("acceptance_mode") if mode is not None]
    return ", ".join("pinned" if mode == "golden" else mode for mode in modes) or MISSING


def _differences(comparison: Comparison) -> Texts:
    several = len(comparison.others) > 1
    lines = [
        f"{label}: {text}" if several else text
        for label, texts in comparison.confounds.items()
        for text in texts
    ]
    return (*dict.fromkeys(lines), *comparison.known_confounds(), *comparison.pooling)


def metrics_table(comparison: Comparison) -> Table:
    """Returns every metric at the targets: rates, costs by tier and kind of token, what the knots
    recorded.
    """
    sections: list[Section] = []
    for metric in metrics_in("metrics", comparison.settings.economics):
        # Metered figures are given as the knots have them: this table is for what they rest on.
        show = show_value if metric.of == "cell" else show_knots
        body = per_curve(comparison, partial(show, metric))
        if any(text != MISSING for _, texts in body for text in texts):
            sections.append((metric.label_in("metrics"), body))
    rows, begins = section_rows(sections)
    return Table(
        id="metrics",
        detail=True,
        title="Every metric at equal interactivity",
        headers=("", "", *(f"at {target(row.target_tps)}" for row in comparison.rows)),
        rows=rows,
        caption="Rates are over all GPUs of the deployment. A cost per output (input) token puts the whole "
        "cost on the output (input) tokens. Latency, acceptance and metered energy are those of the two "
        "knots: they belong to recipes, and between two recipes they mean nothing."
        + _unpriced(comparison)
        + _intervals(comparison),
        sections=begins,
        text_columns=2,
    )


def _intervals(comparison: Comparison) -> str:
    """Returns what the intervals of the knots' figures hold; begins with a blank unless empty."""
    knots = [knot.mean for row in comparison.rows for cell in row.cells for knot in cell.knots]
    note = note_intervals(knots, "metrics")
    return note and f" {note}"


def _unpriced(comparison: Comparison) -> str:
    """Returns the tiers that have no row, each with the reason; begins with a blank unless empty."""
    economics = comparison.settings.economics
    unpriced = {} if economics is None else economics.hardware.unpriced
    return "".join(f" No price of {tier}: {reason}." for tier, reason in unpriced.items())


def leads_table(names: Sequence[str], leads: Sequence[Lead]) -> Table:
    """Returns which curve serves the most tokens per GPU, by range of interactivity.

    Args:
        names: of the curves; a name says method, depth and checkpoint.
        leads: over them.
    """
    rows = []
    for lead in leads:
        margin = MISSING if lead.ratio is None else show_bare_ratio(lead.ratio)
        sure = MISSING if lead.share_of_draws is None else _share(lead.share_of_draws)
        low, high = speed(lead.low_tps), speed(lead.high_tps)
        where = low if low == high else f"{low} to {high}"
        rows.append((where, _leaders(names, lead), margin, sure))
    return Table(
        id="leads",
        title="Who serves the most",
        headers=("tok/s/user", "wins", "over the next best, mid-range", "in so many draws of the noise"),
        rows=tuple(rows),
        caption="Below its slowest point a curve counts with that point, which is faster than asked; how it "
        "would do at the asked speed nobody measured (≤, best points).",
        text_columns=2,
    )


def _leaders(names: Sequence[str], lead: Lead) -> str:
    labels = [names[index] for index in lead.leaders]
    if lead.possible:
        return Caution(f"not known: {' or '.join(labels)}")
    leaders = listed(labels) + (" are equal" if lead.equals else "")
    return leaders if lead.is_settled else f"{leaders}, of what was measured"


MOST_SHARE = 0.99
"""Draws hold what is known of noise, not all that may differ: more than this share of them is not said."""


def _share(share: float) -> str:
    return f"over {percent(MOST_SHARE)}" if share > MOST_SHARE else percent(share)


def twins_table(comparison: Comparison) -> Table | None:
    """Returns the same recipe in both arms; None where no recipe was measured in both."""
    base, *others = comparison.readers
    twins = find_twins(base, others)
    if not twins:
        return None
    note = _TWINS_NOTE
    if any(pair.tput_interval is not None for pair in twins):
        kind = (
            "of runs of one repeat, which sent the same requests" if twins[0].paired else "of both arms' runs"
        )
        note += f" In brackets: {base.confidence:.0%} intervals by the scatter {kind}, and server starts."
    return Table(
        id="twins",
        title="The same recipe, speculation off and on",
        headers=("", "recipe", "tok/s/user", "tok/s/GPU", "acceptance length", "gain / acceptance"),
        rows=tuple(_twins(pair) for pair in twins),
        caption=note,
        text_columns=2,
    )


_TWINS_NOTE = (
    "Ratios to the baseline at equal concurrency, not at equal interactivity. Gain / acceptance: the share "
    "of the ideal gain in tok/s/user (the acceptance length) that was reached."
)


def _twins(pair: Twins) -> Texts:
    length, share = pair.other.mean.acceptance_length, pair.gain_per_accepted
    return (
        pair.label,
        pair.recipe,
        _ratio(pair.interactivity_ratio, pair.interactivity_interval),
        _ratio(pair.tput_ratio, pair.tput_interval),
        MISSING if length is None else fixed(length, 2),
        MISSING if share is None else percent(share),
    )


def _ratio(value: float, interval: Interval | None) -> str:
    text = f"{times(value)}×"
    return text if interval is None else f"{text} {spread(interval.low, interval.high, times)}"


_NAMED = ("model", "precision", "engine", "serving")
_HEADERS = ("workload", "points", "tok/s/user", "tok/s/GPU", "baseline's", "ratio")
_CAPTION = (
    "Points: the curve's and its baseline's. Knots, confounds and recipes of each comparison: without "
    "--summary."
)


def summarize(comparisons: Sequence[Comparison], left_out: Sequence[Unused] = ()) -> tuple[Document, ...]:
    """Returns one document for each hardware, in order of appearance; what is in no comparison comes last."""
    groups: dict[object, list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault(comparison.baseline.shared("hardware"), []).append(comparison)
    documents = [
        _summary(str(hardware or "hardware not recorded"), group) for hardware, group in groups.items()
    ]
    if left_out:
        table = Table(
            title="Not used",
            headers=("what", "reason"),
            rows=tuple((item.what, item.reason) for item in left_out),
            text_columns=2,
        )
        documents.append(Document(title="Not used", simulated=False, blocks=(table,)))
    return tuple(documents)


def _summary(hardware: str, group: Sequence[Comparison]) -> Document:
    simulated = any(comparison.simulated for comparison in group)
    rows: list[Texts] = []
    sections = []
    for comparison in group:
        for index in range(len(comparison.others)):
            sections.append(len(rows))
            rows += _summary_rows(comparison, index)
    table = Table(
        title=f"{hardware}: at equal interactivity",
        headers=_HEADERS,
        rows=tuple(rows),
        caption=_CAPTION,
        sections=tuple(sections),
        text_columns=2,
    )
    blocks = (Text(lines=_count_ratios(group)), table)
    return Document(title=hardware, simulated=simulated, blocks=blocks)


def _count_ratios(group: Sequence[Comparison]) -> tuple[str, ...]:
    """Returns how many targets have a ratio, and at how many it is above 1."""
    ratios = [ratio for comparison in group for row in comparison.rows for ratio in row.ratios]
    values = [ratio.value for ratio in ratios if ratio.value is not None]
    equal = sum(ratio.is_equal for ratio in ratios)
    won = sum(ratio.value is not None and ratio.value > 1 and not ratio.is_equal for ratio in ratios)
    withheld = sum(ratio.withheld is not None for ratio in ratios)
    unreached = len(ratios) - len(values) - withheld
    text = f"{len(group)} comparisons, {len(ratios)} targets: a ratio at {len(values)}"
    if values:
        text += f" (above 1 at {won}, equal at {equal})" if equal else f" (above 1 at {won})"
    return (f"{text}; withheld over a wide gap at {withheld}; one side not reached at {unreached}.",)


def _summary_rows(comparison: Comparison, index: int) -> list[Texts]:
    other, base = comparison.others[index], comparison.baseline
    name = _name(other, base, checkpoints_differ=other.label in comparison.checkpoints)
    points = f"{len(other.measured)} / {len(base.measured)}"
    return [
        (
            name if place == 0 else "",
            points if place == 0 else "",
            target(row.target_tps),
            show_brief(row.cells[index + 1]),
            show_brief(row.cells[0]),
            show_ratio(row.ratios[index]),
        )
        for place, row in enumerate(comparison.rows)
    ]


def _name(other: Curve, base: Curve, *, checkpoints_differ: bool) -> str:
    lengths = f"{other.shared('isl')}/{other.shared('osl')}" if other.shared("isl") else None
    parts = [*(other.shared(name) for name in _NAMED[:2]), lengths]
    parts += [other.shared(name) for name in _NAMED[2:]]
    parts.append(f"{other.label} / {base.label}")
    if checkpoints_differ:
        parts.append("checkpoints differ")
    if other.shared("image") == base.shared("image") and other.shared("image"):
        parts.append(short(other.shared("image"), "image"))
    elif other.shared("image") or base.shared("image"):
        parts.append("images differ")
    return ", ".join(str(part) for part in parts if part is not None)
