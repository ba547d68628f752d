"""Pure: the document of an explanation: the page's table and claims, and the table that explains them."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from mtpbench_analysis.curves.cells import Cell, Span
from mtpbench_analysis.curves.curve import build_curves, describe_workload
from mtpbench_analysis.curves.ratios import Ratio
from mtpbench_analysis.document import Caution, Document, Table, Text, Texts, filled
from mtpbench_analysis.metric_table import VIEWS, metrics_in
from mtpbench_analysis.numbers import MISSING, dollars, fixed, rate, speed, target, times
from mtpbench_analysis.public_page.explain import ExplainedNumber, Explanation
from mtpbench_analysis.public_page.method import PageCell, claim_cheaper, claim_faster
from mtpbench_analysis.public_page.reasons import AGREES
from mtpbench_analysis.sentences import describe_cost, explain_no_ratio

_LABELS = {metric.id: metric.label_in("public_page") for metric in metrics_in("public_page")}
_LABELS |= {"throughput_claim": "throughput", "cost_claim": "cost"}
_METHOD_TEXTS = {
    "page-2026-05": "cost and every other metric splined on its own",
    "page": "cost derived from the interpolated throughput, every other metric splined on its own",
}


def write_page_document(explanation: Explanation) -> Document:
    """Returns the page's table and claims, then each number beside the honest one and why they differ."""
    names = " versus ".join(side.label for side in explanation.sides)
    curves = build_curves(explanation.sides[0].points)
    where = describe_workload(curves[0], served_by=False) if curves else ""
    return Document(
        title=f"{names}, as the public page computes it" + (f": {where}" if where else ""),
        simulated=explanation.simulated,
        blocks=filled(
            Text(lines=write_page_sentences(explanation)),
            page_table(explanation),
            explanation_table(explanation),
        ),
    )


def page_table(explanation: Explanation) -> Table:
    """Returns the page's table in its own layout and rounding."""
    rows: list[Texts] = []
    sections = []
    for metric in VIEWS["public_page"]:
        body = [
            (side.label, tuple(show_page(metric, getattr(cell, metric)) for cell in cells))
            for side, cells in zip(explanation.sides, explanation.page, strict=True)
        ]
        if all(text == MISSING for _, texts in body for text in texts):
            continue
        sections.append(len(rows))
        rows += [((_LABELS[metric] if i == 0 else ""), who, *texts) for i, (who, texts) in enumerate(body)]
    return Table(
        title=f"As the page says it ({explanation.method})",
        headers=("tok/s/user", "", *(target(value) for value in explanation.targets_tps)),
        rows=tuple(rows),
        caption=_caption(explanation),
        sections=tuple(sections),
        text_columns=2,
    )


def explanation_table(explanation: Explanation) -> Table:
    """Returns a table of each number beside that of every honest curve, and why they differ."""
    rows: list[Texts] = []
    sections = []
    last: tuple[float, str] | None = None
    reasons: dict[str, tuple[str, ...]] = {}
    for number in explanation.numbers:
        new_target = last is None or last[0] != number.target_tps
        new_metric = new_target or last is None or last[1] != number.metric
        last = number.target_tps, number.metric
        if new_target:
            sections.append(len(rows))
        if number.metric == "tput_tps_per_gpu":
            reasons[number.curve] = tuple(reason.text for reason in number.reasons)
        head = (target(number.target_tps) if new_target else "", _LABELS[number.metric] if new_metric else "")
        rows.append((*head, number.curve, _page_text(number), show_honest(number), _why(number, reasons)))
    return Table(
        title="Where the page and the honest numbers part",
        headers=("tok/s/user", "metric", "curve", "page", "honest", "why"),
        rows=tuple(rows),
        caption=_caption(explanation),
        sections=tuple(sections),
        text_columns=6,
    )


def write_page_sentences(explanation: Explanation) -> tuple[str, ...]:
    """Returns the page's claim at each target, marked as the page's; one side alone has none."""
    if len(explanation.sides) < 2:
        return ()
    names = explanation.sides[0].label, explanation.sides[1].label
    sentences = []
    for cell, base in zip(*explanation.page, strict=True):
        serves = "; ".join(_serves(*side) for side in zip(names, (cell, base), strict=True))
        claims = [claim_faster(cell.tput_tps_per_gpu, base.tput_tps_per_gpu, names)]
        if cell.usd_per_mtok is not None and base.usd_per_mtok is not None:
            claims.insert(0, claim_cheaper(cell.usd_per_mtok, base.usd_per_mtok, names))
        sentences.append(
            f"The page ({explanation.method}) would say: at {target(cell.target_tps)} tok/s/user {serves}. "
            f"{'; '.join(claims)}."
        )
    return tuple(sentences)


def write_differences(explanation: Explanation) -> tuple[str, ...]:
    """Returns a sentence for each number that does not agree with the honest one."""
    return tuple(
        f"At {target(number.target_tps)} tok/s/user, {number.curve}, {_LABELS[number.metric]}: the page says "
        f"{_page_text(number)}, honest is {show_honest(number)} "
        f"({'; '.join(reason.text for reason in number.reasons)})."
        for number in explanation.numbers
        if not number.agrees
    )


def to_records(explanation: Explanation) -> list[dict[str, Any]]:
    """Returns the explanation as a dict for each number, for JSON."""
    return [
        {
            "method": explanation.method,
            "target_tps": number.target_tps,
            "metric": number.metric,
            "arm": number.side,
            "curve": number.curve,
            "page_value": number.page_value,
            "page_text": _page_text(number),
            "honest_value": number.honest_value,
            "honest_state": number.honest_state,
            "honest_text": show_honest(number),
            "reasons": [{"code": reason.code, "text": reason.text} for reason in number.reasons],
        }
        for number in explanation.numbers
    ]


def show_page(metric: str, value: float | None) -> str:
    """Returns a number as the page prints it: `9478.9`, `0.065`, `4513744`, `~16384`."""
    if value is None:
        return MISSING
    if metric == "concurrency":
        return f"~{value:.0f}"
    return to_fixed(value, {"tput_tps_per_gpu": 1, "usd_per_mtok": 3, "tps_per_mw": 0}[metric])


def to_fixed(value: float, decimals: int) -> str:
    """Returns JavaScript's toFixed: the exact binary value, halves rounded up, no commas."""
    return str(Decimal(value).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP))


def show_honest(number: ExplainedNumber) -> str:
    """Returns the honest number with its basis, or why there is none, in one line."""
    if number.ratio is not None:
        return _show_claim(number, number.ratio)
    cell = number.cell
    if cell is None:
        return "no valid point"
    if number.metric == "concurrency":
        if cell.state == "not_reached":
            return Caution(f"not reached: ends at {speed(cell.knots[0].x)}")
        return " and ".join(dict.fromkeys(knot.mean.recipe for knot in cell.knots))
    if cell.state == "not_reached":
        return Caution(f"not reached: ends at {speed(cell.knots[0].x)}")
    return _bounded(number, cell)


def _show_claim(number: ExplainedNumber, ratio: Ratio) -> str:
    if ratio.value is None:
        return "no ratio: not reached" if ratio.not_reached else Caution(explain_no_ratio(ratio))
    note = " (best points)" if ratio.bound == "best_points" else ""
    if number.metric == "cost_claim":
        return describe_cost(ratio) + note
    return {"at_least": "≥ ", "at_most": "≤ "}.get(ratio.bound, "") + f"{times(ratio.value)}×{note}"


def _bounded(number: ExplainedNumber, cell: Cell) -> str:
    show = {"usd_per_mtok": dollars, "tps_per_mw": _whole}.get(number.metric, rate)
    if cell.wide_gap:
        is_tput = number.metric == "tput_tps_per_gpu"
        figures = cell.tput_range if is_tput else getattr(cell, number.metric)
        return Caution(f"{figures.text(show)}, over a wide gap") if isinstance(figures, Span) else "unknown"
    value = number.honest_value
    if value is None:
        return "unknown"
    figure = show(value)
    if cell.state == "at_least":
        sign = "≤" if number.metric == "usd_per_mtok" else "≥"
        return f"{sign} {figure}, runs at {speed(cell.runs_at_tps)}"
    if number.metric != "tput_tps_per_gpu":
        return figure
    if cell.state == "measured":
        return f"{figure} measured"
    lower, upper = cell.knots
    return f"{figure} interpolated, knots {speed(lower.x)} and {speed(upper.x)}"


def _whole(value: float | None) -> str:
    return MISSING if value is None else fixed(value, 0)


def _page_text(number: ExplainedNumber) -> str:
    if number.metric not in ("throughput_claim", "cost_claim"):
        return show_page(number.metric, number.page_value)
    first, second = number.page_cells
    other, base = number.sides
    if number.metric == "throughput_claim":
        return claim_faster(first.tput_tps_per_gpu, second.tput_tps_per_gpu, (other, base))
    if first.usd_per_mtok is None or second.usd_per_mtok is None:
        return MISSING
    return claim_cheaper(first.usd_per_mtok, second.usd_per_mtok, (other, base))


def _why(number: ExplainedNumber, throughput: dict[str, tuple[str, ...]]) -> str:
    """Returns the reasons; those of the same curve's throughput row become `as tok/s/GPU`."""
    texts = [reason.text for reason in number.reasons]
    shared = [text for text in throughput.get(number.curve, ()) if text != AGREES.text]
    if number.metric in ("usd_per_mtok", "tps_per_mw") and shared:
        texts = ["as tok/s/GPU", *(text for text in texts if text not in (*shared, AGREES.text))]
    return "; ".join(texts)


def _serves(name: str, cell: PageCell) -> str:
    text = f"{name} delivers {to_fixed(cell.tput_tps_per_gpu, 0)} tok/s/GPU"
    if cell.usd_per_mtok is None:
        return text
    return f"{text} at ${to_fixed(cell.usd_per_mtok, 1 if cell.usd_per_mtok >= 10 else 2)} per million tokens"


def _caption(explanation: Explanation) -> str:
    economics = explanation.economics
    constants = "" if economics is None else f" {economics.label}."
    targets = " Targets: the page's default ones." if explanation.own_targets else ""
    return (
        f"{explanation.method}: all engines, images, serving modes, dates and runs of an arm in one curve, "
        f"targets clamped to its ends, {_METHOD_TEXTS[explanation.method]}.{constants}{targets}"
    )
