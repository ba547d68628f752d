"""Pure: the tables behind the first one: every metric at the targets, who wins where, twins of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mtpbench_analysis.cells import Cell, TokenKind
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.crossings import Lead
from mtpbench_analysis.curves import Curve, Measured
from mtpbench_analysis.figures import (
    MISSING,
    dollars,
    energy,
    fixed,
    percent,
    rate,
    seconds,
    speed,
    target,
    times,
)
from mtpbench_analysis.tables import Table, Texts, mark_simulated, metered_joules, show_bare_ratio
from mtpbench_analysis.twins import Twins, find_twins

_KINDS: tuple[TokenKind, ...] = ("total", "output", "input")


def metrics_table(comparison: Comparison) -> Table:
    """Every metric at the targets: rates, costs by tier and kind of token, what the knots recorded."""
    rows: list[Texts] = []
    sections: list[int] = []
    for name, show in _metrics(comparison):
        body = [tuple(show(row.cells[i]) for row in comparison.rows) for i in _order(comparison)]
        if all(text == MISSING for texts in body for text in texts):
            continue
        sections.append(len(rows))
        for place, (i, texts) in enumerate(zip(_order(comparison), body, strict=True)):
            rows.append((name if place == 0 else "", comparison.curves[i].label, *texts))
    return Table(
        title=mark_simulated("Every metric at equal interactivity", comparison.simulated),
        headers=("", "", *(f"at {target(row.target_tps)}" for row in comparison.rows)),
        rows=tuple(rows),
        caption="Rates are over all GPUs of the deployment. A cost per output (input) token puts the whole "
        "cost on the output (input) tokens. Latency, acceptance and metered energy are those of the two "
        "knots: they belong to recipes, and between two recipes they mean nothing.",
        sections=tuple(sections),
        text_columns=2,
    )


def leads_table(curves: Sequence[Curve], leads: Sequence[Lead], simulated: bool) -> Table:
    """Which curve serves the most tokens per GPU, by range of interactivity."""
    rows = []
    for lead in leads:
        margin = MISSING if lead.ratio is None else show_bare_ratio(lead.ratio)
        sure = MISSING if lead.share_of_draws is None else percent(lead.share_of_draws)
        where = f"{speed(lead.low_tps)} to {speed(lead.high_tps)}"
        winner = curves[lead.winner].label
        rows.append((where, winner if lead.is_settled else f"{winner}, of what was measured", margin, sure))
    return Table(
        title=mark_simulated("Who serves the most", simulated),
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
        title=mark_simulated("The same recipe, speculation off and on", comparison.simulated),
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


def _metrics(comparison: Comparison) -> list[tuple[str, Callable[[Cell], str]]]:
    metrics: list[tuple[str, Callable[[Cell], str]]] = [
        ("output tok/s/GPU", lambda cell: rate(cell.output_tps_per_gpu)),
        ("input tok/s/GPU", lambda cell: rate(cell.input_tps_per_gpu)),
    ]
    economics = comparison.settings.economics
    tiers = () if economics is None else economics.tiers
    metrics += [(f"$/M {kind} tokens, {tier}", _cost(kind, tier)) for tier in tiers for kind in _KINDS]
    return [
        *metrics,
        ("tok/s/MW, provisioned", lambda cell: rate(cell.tps_per_mw)),
        ("tok/s/MW at the knots, metered GPUs", _knots(_metered_mw)),
        ("J/token, provisioned", lambda cell: energy(cell.joules_per_token)),
        ("J/token at the knots, metered GPUs", _knots(lambda knot: energy(metered_joules(knot.mean)))),
        ("J/output token at the knots, metered GPUs", _knots(_metered_output_joules)),
        ("TTFT s, median", _knots(lambda knot: seconds(knot.mean.ttft_p50_s))),
        ("TTFT s, p99", _knots(lambda knot: seconds(knot.mean.ttft_p99_s))),
        ("E2EL s, median", _knots(lambda knot: seconds(knot.mean.e2el_p50_s))),
        ("acceptance length", _knots(_length)),
        ("accepted by position", _knots(_positions)),
        ("GPUs", _knots(lambda knot: MISSING if knot.mean.gpus is None else str(knot.mean.gpus))),
        ("topology", _knots(lambda knot: knot.mean.topology or MISSING)),
    ]


def _cost(kind: TokenKind, tier: str) -> Callable[[Cell], str]:
    return lambda cell: dollars(cell.usd_per_m(kind, tier))


def _knots(show: Callable[[Measured], str]) -> Callable[[Cell], str]:
    def at(cell: Cell) -> str:
        if cell.state == "not_reached":
            return MISSING
        return " and ".join(dict.fromkeys(show(knot) for knot in cell.knots))

    return at


def _metered_mw(knot: Measured) -> str:
    power = knot.mean.power_w_per_gpu
    return MISSING if power is None else rate(knot.y / power * 1e6)


def _metered_output_joules(knot: Measured) -> str:
    power, output = knot.mean.power_w_per_gpu, knot.mean.output_tps_per_gpu
    return MISSING if power is None or not output else energy(power / output)


def _length(knot: Measured) -> str:
    length = knot.mean.acceptance_length
    return MISSING if length is None else fixed(length, 2)


def _positions(knot: Measured) -> str:
    rates = knot.mean.acceptance_per_position
    return MISSING if rates is None else " / ".join(fixed(share, 2) for share in rates)
