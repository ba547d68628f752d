"""Pure: every figure that a table, an export, a plot, the page or `regress` can show, declared once.

A new metric is a field of `CurvePoint`, its importer's line, and one row of `METRICS`, which `VIEWS` names
where it is to be seen. Everything else reads these two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtpbench_analysis.curves.cells import TokenKind
from mtpbench_analysis.curves.cost import Economics
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.metric import Metric, OfConstants, Quotient, View

COSTS = "costs"
"""Stands in a view for the costs of every tier and kind of token."""


def _kw(economics: Economics | None) -> float | None:
    return None if economics is None else economics.hardware.power_kw_per_gpu


def _tps_for_mw(economics: Economics | None) -> float | None:
    kw = _kw(economics)
    return None if kw is None else 1000 / kw


def _watts(economics: Economics | None) -> float | None:
    kw = _kw(economics)
    return None if kw is None else kw * 1000


def _usd_for_rate(tier: str | None) -> OfConstants:
    """Returns what a tier's price makes of a rate: dollars for a million tokens × tok/s/GPU."""

    def factor(economics: Economics | None) -> float | None:
        price = None if economics is None else economics.price(tier)
        return None if price is None else price * 1e6 / 3600

    return factor


_LONG: tuple[View, ...] = ("metrics", "page_more")
"""The long tables, which have of metered figures what the knots have."""

METRICS = (
    Metric(
        id="tput_tps_per_gpu",
        label="tok/s/GPU",
        unit="tok/s/GPU",
        show="rate",
        better="higher",
        of="cell",
        error="tput_rel_se",
        quotient=Quotient(over="total"),
        labels={"y": "throughput, tok/s/GPU", "plot": "throughput, tok/s/GPU"},
        keys={"regress": "throughput", "y": "tput:total", "plot": "total"},
    ),
    Metric(
        id="interactivity_tps",
        label="tok/s/user",
        unit="tok/s/user",
        show="speed",
        better="higher",
        error="interactivity_rel_se",
        labels={"x": "interactivity, tok/s/user"},
        keys={"regress": "interactivity", "x": "interactivity"},
    ),
    Metric(
        id="output_tps_per_gpu",
        label="output tok/s/GPU",
        unit="tok/s/GPU",
        show="rate",
        better="higher",
        of="cell",
        quotient=Quotient(over="output"),
        labels={"y": "output throughput, tok/s/GPU", "plot": "output throughput, tok/s/GPU"},
        keys={"y": "tput:output", "plot": "output"},
    ),
    Metric(
        id="input_tps_per_gpu",
        label="input tok/s/GPU",
        unit="tok/s/GPU",
        show="rate",
        better="higher",
        of="cell",
        quotient=Quotient(over="input"),
        labels={"y": "input throughput, tok/s/GPU", "plot": "input throughput, tok/s/GPU"},
        keys={"y": "tput:input", "plot": "input"},
    ),
    Metric(
        id="gain",
        label="gain over {baseline}, ×",
        show="times",
        better="higher",
        of="ratio",
        labels={"plot": "gain over {baseline} at equal interactivity, ×"},
    ),
    Metric(
        id="usd_per_mtok",
        label="cost, $/M tok",
        unit="$/M tokens",
        show="dollars",
        better="lower",
        of="cell",
        needs="constants",
        quotient=Quotient(under="total", factor=_usd_for_rate(None)),
        labels={"recipes": "$/M tok", "public_page": "$/M tok", "plot": "cost, $/M tokens"},
        keys={"plot": "cost"},
    ),
    Metric(
        id="tps_per_mw",
        label="tok/s/MW, provisioned",
        unit="tok/s/MW",
        show="rate",
        better="higher",
        of="cell",
        needs="constants",
        quotient=Quotient(over="total", factor=_tps_for_mw),
        labels={"public_page": "tok/s/MW"},
        keys={"y": "mw"},
    ),
    Metric(
        id="metered_w_per_gpu",
        label="W/GPU, metered",
        unit="W",
        show="rate",
        better="lower",
        of="span",
        needs="meter",
        quotient=Quotient(over="power"),
    ),
    Metric(
        id="metered_tps_per_mw",
        label="tok/s/MW, metered GPUs",
        unit="tok/s/MW",
        show="rate",
        better="higher",
        of="span",
        needs="meter",
        quotient=Quotient(over="total", under="power", factor=lambda _: 1e6),
        labels=dict.fromkeys(_LONG, "tok/s/MW at the knots, metered GPUs"),
        keys={"y": "mw:metered"},
    ),
    Metric(
        id="joules_per_token",
        label="J/token, provisioned",
        unit="J",
        show="energy",
        better="lower",
        of="cell",
        needs="constants",
        quotient=Quotient(under="total", factor=_watts),
        keys={"y": "j"},
    ),
    Metric(
        id="metered_joules_per_token",
        label="J/token, metered GPUs",
        unit="J",
        show="energy",
        better="lower",
        of="span",
        needs="meter",
        quotient=Quotient(over="power", under="total"),
        labels={**dict.fromkeys(_LONG, "J/token at the knots, metered GPUs"), "points": "J/token"},
        keys={"y": "j:metered"},
    ),
    Metric(
        id="metered_joules_per_output_token",
        label="J/output token, metered GPUs",
        unit="J",
        show="energy",
        better="lower",
        of="span",
        needs="meter",
        quotient=Quotient(over="power", under="output"),
        labels=dict.fromkeys(_LONG, "J/output token at the knots, metered GPUs"),
        keys={"y": "jout:metered"},
    ),
    Metric(id="power_w_per_gpu", label="W/GPU", unit="W", show="rate", better="lower"),
    Metric(
        id="ttft_p50_s",
        label="TTFT s, median",
        unit="s",
        show="seconds",
        better="lower",
        labels={
            "matched": "median TTFT at the knots, s",
            "points": "TTFT s",
            "recipes": "TTFT s",
            "regress": "TTFT p50",
            "x": "TTFT, median, s",
            "y": "TTFT, median, s",
        },
        keys={"regress": "ttft_p50", "x": "ttft", "y": "ttft"},
    ),
    Metric(
        id="ttft_p99_s",
        label="TTFT s, p99",
        unit="s",
        show="seconds",
        better="lower",
        labels={"y": "TTFT, p99, s"},
        keys={"y": "ttft:p99"},
    ),
    Metric(
        id="e2el_p50_s",
        label="E2EL s, median",
        unit="s",
        show="seconds",
        better="lower",
        labels={"x": "E2EL, median, s", "y": "E2EL, median, s"},
        keys={"x": "e2el", "y": "e2el"},
    ),
    Metric(
        id="ttft_from_schedule_p50_s",
        label="TTFT s from the schedule, median",
        unit="s",
        show="seconds",
        better="lower",
        labels={
            "matched": "median TTFT from the schedule at the knots, s",
            **dict.fromkeys(("y", "plot"), "TTFT from the schedule, median, s"),
        },
        keys={"y": "ttft:schedule", "plot": "ttft-from-schedule"},
    ),
    Metric(
        id="interactivity_p99_tps",
        label="tok/s/user, p99",
        unit="tok/s/user",
        show="speed",
        better="higher",
        labels=dict.fromkeys(("y", "plot"), "interactivity, p99, tok/s/user"),
        keys={"y": "interactivity:p99", "plot": "interactivity-p99"},
    ),
    Metric(
        id="acceptance_length",
        label="acceptance length",
        unit="tokens/step",
        show="hundredths",
        better="higher",
        explains=True,
        labels={
            "matched": "acceptance length at the knots",
            "points": "AL",
            "recipes": "AL",
            "y": "acceptance length, tokens/step",
        },
        keys={"y": "acceptance"},
    ),
    Metric(
        id="acceptance_per_position", label="accepted by position", show="hundredths_list", better="higher"
    ),
    Metric(
        id="draft_tokens_per_step",
        label="draft tokens/step",
        unit="tokens/step",
        show="hundredths",
        explains=True,
    ),
    Metric(
        id="tokens_per_step",
        label="tokens/step, drafting or not",
        unit="tokens/step",
        show="hundredths",
        better="higher",
    ),
    Metric(id="concurrency", label="concurrency", show="whole", labels={"points": "conc."}),
    Metric(id="rate_rps", label="requests/s asked", unit="1/s", show="speed"),
    Metric(id="sent_rps", label="requests/s sent", unit="1/s", show="speed"),
    Metric(id="gpus", label="GPUs", show="whole"),
    Metric(id="prefill_gpus", label="prefill GPUs", show="whole"),
    Metric(id="decode_gpus", label="decode GPUs", show="whole"),
    Metric(id="draft_tokens", label="draft tokens", show="whole"),
    Metric(id="topology", label="topology", show="text"),
)

VIEWS: Mapping[View, tuple[str, ...]] = {
    "matched": (
        *("tput_tps_per_gpu", "usd_per_mtok", "tps_per_mw", "metered_tps_per_mw", "joules_per_token"),
        *("metered_joules_per_output_token", "acceptance_length", "ttft_p50_s", "ttft_from_schedule_p50_s"),
    ),
    "metrics": (
        *("output_tps_per_gpu", "input_tps_per_gpu", COSTS, "tps_per_mw", "metered_tps_per_mw"),
        *("joules_per_token", "metered_joules_per_token", "metered_joules_per_output_token"),
        *("ttft_p50_s", "ttft_p99_s", "e2el_p50_s", "ttft_from_schedule_p50_s", "interactivity_p99_tps"),
        *("acceptance_length", "acceptance_per_position", "draft_tokens_per_step", "tokens_per_step"),
        *("gpus", "topology"),
    ),
    "points": (
        *("concurrency", "topology", "gpus", "tput_tps_per_gpu", "interactivity_tps", "ttft_p50_s"),
        *("acceptance_length", "metered_joules_per_token"),
    ),
    "recipes": (
        *("usd_per_mtok", "tput_tps_per_gpu", "interactivity_tps", "ttft_p50_s", "acceptance_length"),
    ),
    "knot_export": (
        *("concurrency", "rate_rps", "sent_rps", "gpus", "topology", "acceptance_length"),
        *("power_w_per_gpu", "ttft_p50_s", "e2el_p50_s"),
    ),
    "regress": ("tput_tps_per_gpu", "interactivity_tps", "ttft_p50_s", "acceptance_length"),
    "page": (
        *("interactivity_tps", "tput_tps_per_gpu", "output_tps_per_gpu", "input_tps_per_gpu", "concurrency"),
        *("rate_rps", "sent_rps", "gpus", "prefill_gpus", "decode_gpus", "draft_tokens", "acceptance_length"),
        *("acceptance_per_position", "draft_tokens_per_step", "tokens_per_step", "power_w_per_gpu"),
        "ttft_p50_s",
        *("ttft_p99_s", "e2el_p50_s"),
        *("ttft_from_schedule_p50_s", "interactivity_p99_tps"),
    ),
    "page_more": (
        *("output_tps_per_gpu", "input_tps_per_gpu", COSTS, "tps_per_mw", "joules_per_token"),
        *("metered_tps_per_mw", "metered_joules_per_token", "metered_joules_per_output_token"),
        *("ttft_p99_s", "e2el_p50_s", "interactivity_p99_tps", "acceptance_per_position"),
        "draft_tokens_per_step",
    ),
    "x": ("interactivity_tps", "e2el_p50_s", "ttft_p50_s", "concurrency"),
    "y": (
        *("tput_tps_per_gpu", "output_tps_per_gpu", "input_tps_per_gpu", "gain", COSTS, "tps_per_mw"),
        *("joules_per_token", "metered_tps_per_mw", "metered_joules_per_token"),
        *("metered_joules_per_output_token", "acceptance_length", "ttft_p50_s", "ttft_p99_s", "e2el_p50_s"),
        *("ttft_from_schedule_p50_s", "interactivity_p99_tps"),
    ),
    "plot": (
        *("tput_tps_per_gpu", "output_tps_per_gpu", "input_tps_per_gpu", "usd_per_mtok", "gain"),
        *("ttft_from_schedule_p50_s", "interactivity_p99_tps"),
    ),
    "public_page": ("tput_tps_per_gpu", "usd_per_mtok", "tps_per_mw", "concurrency"),
}
"""Which figures stand where, in the order of each view."""

_BY_ID = {metric.id: metric for metric in METRICS}
TOKEN_KINDS: tuple[TokenKind, ...] = ("total", "output", "input")


def metric(name: str) -> Metric:
    """Returns the metric of an id."""
    return _BY_ID[name]


def metric_by_key(view: View, key: str) -> Metric:
    """Returns the metric that a view's identifiers call so.

    Raises:
        KeyError: none is.
    """
    return {metric.key_in(view): metric for metric in metrics_in(view)}[key]


def metrics_in(view: View, economics: Economics | None = None) -> tuple[Metric, ...]:
    """Returns the metrics of a view in its order, with as many costs as the constants of a
    comparison allow.
    """
    return tuple(
        metric for name in VIEWS[view] for metric in (costs(economics) if name == COSTS else (_BY_ID[name],))
    )


def note_intervals(points: Sequence[CurvePoint], view: View) -> str:
    """Returns what the intervals beside recorded figures of points hold; empty where a view shows none."""
    shown = metrics_in(view)
    ends = [ends for point in points for metric in shown if (ends := metric.ends_of(point)) is not None]
    if not ends:
        return ""
    note = (
        "Beside latencies (order statistics), acceptance and joules (time blocks) of measured points: 95% "
        "intervals of one run, or of the mean of several; none where requests or blocks are too few."
    )
    return (
        f"{note} ≥, ≤: bounds, of too few requests for p99." if any(None in pair for pair in ends) else note
    )


def costs(economics: Economics | None) -> tuple[Metric, ...]:
    """Returns the cost of a million tokens, by tier and kind of token; none without constants."""
    tiers = () if economics is None else economics.tiers
    return tuple(_cost(kind, tier) for tier in tiers for kind in TOKEN_KINDS)


def _cost(kind: TokenKind, tier: str) -> Metric:
    return Metric(
        id=f"usd_per_m_{kind}_{tier.replace(' ', '_')}",
        label=f"$/M {kind} tokens, {tier}",
        unit="$/M tokens",
        show="dollars",
        better="lower",
        of="cell",
        needs="constants",
        quotient=Quotient(under=kind, factor=_usd_for_rate(tier)),
        tier=tier,
        tokens=kind,
        labels={"y": f"cost, $/M {kind} tokens, {tier}"},
        keys={"y": f"usd:{tier}:{kind}"},
    )
