"""Pure: the tables behind the first one: every metric at the targets, who wins where, twins of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.crossings import Lead
from mtpbench_analysis.curves import Curve
from mtpbench_analysis.document import Table, Texts
from mtpbench_analysis.figures import (
    MISSING,
    fixed,
    percent,
    speed,
    target,
    times,
)
from mtpbench_analysis.metric_table import metrics_in
from mtpbench_analysis.tables import show_bare_ratio, show_knots, show_value
from mtpbench_analysis.twins import Twins, find_twins


def metrics_table(comparison: Comparison) -> Table:
    """Every metric at the targets: rates, costs by tier and kind of token, what the knots recorded."""
    rows: list[Texts] = []
    sections: list[int] = []
    for metric in metrics_in("metrics", comparison.settings.economics):
        # Metered figures are given as the knots have them: this table is for what they rest on.
        show = show_value if metric.of == "cell" else show_knots
        body = [tuple(show(metric, row.cells[i]) for row in comparison.rows) for i in _order(comparison)]
        if all(text == MISSING for texts in body for text in texts):
            continue
        sections.append(len(rows))
        for place, (i, texts) in enumerate(zip(_order(comparison), body, strict=True)):
            label = metric.label_in("metrics") if place == 0 else ""
            rows.append((label, comparison.curves[i].label, *texts))
    return Table(
        id="metrics",
        detail=True,
        title="Every metric at equal interactivity",
        headers=("", "", *(f"at {target(row.target_tps)}" for row in comparison.rows)),
        rows=tuple(rows),
        caption="Rates are over all GPUs of the deployment. A cost per output (input) token puts the whole "
        "cost on the output (input) tokens. Latency, acceptance and metered energy are those of the two "
        "knots: they belong to recipes, and between two recipes they mean nothing.",
        sections=tuple(sections),
        text_columns=2,
    )


def leads_table(curves: Sequence[Curve], leads: Sequence[Lead]) -> Table:
    """Which curve serves the most tokens per GPU, by range of interactivity."""
    rows = []
    for lead in leads:
        margin = MISSING if lead.ratio is None else show_bare_ratio(lead.ratio)
        sure = MISSING if lead.share_of_draws is None else percent(lead.share_of_draws)
        where = f"{speed(lead.low_tps)} to {speed(lead.high_tps)}"
        winner = curves[lead.winner].label
        rows.append((where, winner if lead.is_settled else f"{winner}, of what was measured", margin, sure))
    return Table(
        id="leads",
        title="Who serves the most",
        headers=("tok/s/user", "wins", "over the next best, mid-range", "in so many draws of the noise"),
        rows=tuple(rows),
        caption="Below its slowest point a curve counts with that point, which is faster than asked; how it "
        "would do at the asked speed nobody measured (≤, best points).",
        text_columns=2,
    )


def twins_table(comparison: Comparison) -> Table | None:
    """The same recipe in both arms; None where no recipe was measured in both."""
    twins = find_twins(comparison.baseline, comparison.others)
    if not twins:
        return None
    return Table(
        id="twins",
        title="The same recipe, speculation off and on",
        headers=("", "recipe", "tok/s/user", "tok/s/GPU", "acceptance length", "gain / acceptance"),
        rows=tuple(_twins(pair) for pair in twins),
        caption="Ratios to the baseline at equal concurrency, not at equal interactivity. Gain / acceptance: "
        "the share of the ideal gain in tok/s/user (the acceptance length) that was reached.",
        text_columns=2,
    )


def _twins(pair: Twins) -> Texts:
    length, share = pair.other.mean.acceptance_length, pair.gain_per_accepted
    return (
        pair.label,
        pair.recipe,
        f"{times(pair.interactivity_ratio)}×",
        f"{times(pair.tput_ratio)}×",
        MISSING if length is None else fixed(length, 2),
        MISSING if share is None else percent(share),
    )


def _order(comparison: Comparison) -> tuple[int, ...]:
    """The others first, then the baseline, as in `MTP / Off`."""
    return (*range(1, len(comparison.curves)), 0)
