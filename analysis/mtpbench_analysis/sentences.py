"""Pure: what a table says, in words: a sentence for each target, and what to be careful about."""

from __future__ import annotations

from mtpbench_analysis.compare import Comparison, Row
from mtpbench_analysis.curves.cells import Cell, NoInterval, Span
from mtpbench_analysis.curves.curve import Curve, describe_bounds, display_name
from mtpbench_analysis.curves.ratios import Bound, Gap, Ratio, energy_ratio_of
from mtpbench_analysis.numbers import (
    MISSING,
    counted,
    energy,
    fixed,
    listed,
    money,
    percent,
    rate,
    seconds,
    speed,
    spread,
    target,
    times,
)

TTFT_APART = 3.0
"""A caveat names median TTFTs of two sides that differ by more than this factor."""
MANY_CACHED = 0.05
"""A caveat names a larger share of prompt tokens that came from a prefix cache."""
TTFT_LONG_S = 10.0
"""It also names one that is longer than this: no reader of a screen waits so long for a first token."""


MOST_IN_WORDS = 4
"""Curves beside the baseline that all have their sentences; of more only the one that serves the most."""


def write_sentences(comparison: Comparison) -> tuple[str, ...]:
    """Returns one sentence per target and curve: what both sides serve there, the ratio, and what it rests
    on. Of many curves only the one that serves the most has them.
    """
    count = len(comparison.others)
    sentences = []
    if count > MOST_IN_WORDS:
        most = "only that which serves the most at a target is put in words; the table has all."
        sentences.append(f"Of {count} arms {most}")
    for row in comparison.rows:
        indices = range(count) if count <= MOST_IN_WORDS else (_most(row),)
        sentences += [_sentence(comparison, row, index) for index in indices]
    return tuple(sentences)


def _most(row: Row) -> int:
    """Returns the number of the curve that serves the most at a target, as far as that is known."""

    def least_served(index: int) -> float:
        cell = row.cells[index + 1]
        return cell.tput_tps_per_gpu or (cell.tput_range.low if cell.tput_range else 0.0)

    return max(range(len(row.ratios)), key=least_served)


def describe_gap(gap: Gap) -> str:
    """Returns how far apart two knots are, and how far they may be."""
    return f"knots {gap.knot_ratio:.1f}× apart in throughput (limit {gap.limit:g}×)"


def explain_no_ratio(ratio: Ratio) -> str | None:
    """Returns why there is no ratio; None where there is one."""
    if ratio.withheld is not None:
        return f"withheld: {describe_gap(ratio.withheld)}"
    return "not reached" if ratio.not_reached else None


_NO_CELL_INTERVAL: dict[NoInterval, str] = {
    "not_reached": "not reached",
    "wide_gap": "only a range is known over a wide gap",
    "single_run": "single run",
    "may_end_below": "the curve may end below this interactivity",
}


def explain_no_interval(cell: Cell) -> str | None:
    """Returns why a cell has no interval; None where it has one."""
    return None if cell.no_interval is None else _NO_CELL_INTERVAL[cell.no_interval]


def write_overview(comparison: Comparison) -> tuple[str, ...]:
    """Returns what was measured on each side, and where the two can be compared at all."""
    base = comparison.baseline
    several = len(comparison.others) > 1
    both = f"It and {base.label}" if several else "They"
    # What each of several arms measured stands in the table of arms.
    sentences = [f"{_extent(base)}."] if several else []
    for other in comparison.others:
        low, high = max(base.range_tps[0], other.range_tps[0]), min(base.range_tps[1], other.range_tps[1])
        text = f"{_extent(other)}." if several else f"{_extent(other)}; {_extent(base)}."
        if low <= high:
            if several:
                continue
            where = f"{speed(low)} to {speed(high)}" if low < high else f"at {speed(low)} only"
            text += f" Shared range: {where} tok/s/user."
        else:
            slow, fast = (other, base) if other.range_tps[1] < base.range_tps[0] else (base, other)
            text += (
                f" {both} share no interactivity, so no ratio at equal speed exists: {slow.label} would need "
                f"points above {speed(slow.range_tps[1])} tok/s/user, or {fast.label} points below "
                f"{speed(fast.range_tps[0])}. Their best points: {slow.label} "
                f"{rate(slow.front[0].y)} tok/s/GPU at {speed(slow.front[0].x)}, {fast.label} "
                f"{rate(fast.front[0].y)} at {speed(fast.front[0].x)}."
            )
        sentences.append(text)
    return tuple(sentences)


def write_caveats(comparison: Comparison) -> tuple[str, ...]:
    """Returns what a reader of the sentences must be careful about, each only where it is true."""
    caveats = list(comparison.warnings)
    if any(True in curve.values("demonstrates") for curve in comparison.curves):
        caveats.append("The prompts are mtpbench's demonstration set, which is no benchmark.")
    pinned = [c for c in comparison.speculating if c.shared("acceptance_mode") == "golden"]
    if pinned:
        caveats.append(
            f"Acceptance of {listed([c.label for c in pinned])} was pinned to a fixed mean, not "
            "measured on these prompts."
        )
    caveats += [
        *describe_bounds(comparison.curves),
        *_cached(comparison),
        *_open_loops(comparison),
        *_waiting(comparison),
    ]
    caveats += [
        f"{display_name(item.arm)} gives other answers than {display_name(item.baseline)} to "
        f"{item.prompts - item.same} of {item.prompts} prompts: what it saves may not be worth the same."
        for item in comparison.agreements
        if item.flagged
    ]
    if comparison.simulated:
        caveats.append("All of it was simulated: it shows a model of the engine, not hardware.")
    return tuple(caveats)


def _open_loops(comparison: Comparison) -> list[str]:
    """Returns from when on the latencies of open loops count, where there are any."""
    runs = [run for curve in comparison.curves for item in curve.measured for run in item.runs]
    since_due = {run.ttft_from_schedule_p50_s is not None for run in runs if run.is_open}
    texts = {
        True: "Open loop: TTFT and E2EL count from when a request was due, waiting for a slot included.",
        False: "Open loop: where only the time of sending is known, a wait before it is in no latency.",
    }
    return [text for is_known, text in texts.items() if is_known in since_due]


def _cached(comparison: Comparison) -> list[str]:
    """Returns a sentence for each curve of which a prefix cache held more than a few prompt tokens."""
    shares = {
        curve.label: max((share for share in curve.values("cached_prompt_share") if share), default=0.0)
        for curve in comparison.curves
    }
    return [
        f"A prefix cache held up to {share:.0%} of the prompt tokens of {label}: its prefill was cheaper "
        "than that of unique prompts."
        for label, share in shares.items()
        if share > MANY_CACHED
    ]


def _waiting(comparison: Comparison) -> list[str]:
    """Returns a sentence where equal interactivity is not equal waiting: for the target at which that is
    worst.
    """
    worst: tuple[float, str] | None = None
    base = comparison.baseline
    for row in comparison.rows:
        theirs = _ttfts(row.cells[0])
        for other, cell in zip(comparison.others, row.cells[1:], strict=True):
            ours = _ttfts(cell)
            if not ours or not theirs:
                continue
            apart = max(min(ours) / max(theirs), min(theirs) / max(ours))
            longest = max(*ours, *theirs)
            if apart <= TTFT_APART and longest <= TTFT_LONG_S:
                continue
            text = (
                f"Equal interactivity is not equal waiting: at {target(row.target_tps)} tok/s/user the "
                f"median TTFT is {_spread_of(ours)} s with {other.label} and {_spread_of(theirs)} s "
                f"with {base.label}."
            )
            if worst is None or max(apart, longest / TTFT_LONG_S) > worst[0]:
                worst = max(apart, longest / TTFT_LONG_S), text
    return [] if worst is None else [worst[1]]


def _ttfts(cell: Cell) -> list[float]:
    """Returns median TTFTs of the recipes that a cell rests on; none where one is unknown or nothing is
    reached.
    """
    if cell.state == "not_reached":
        return []
    ttfts = [knot.mean.ttft_p50_s for knot in cell.knots]
    return [value for value in ttfts if value] if all(ttfts) else []


def _spread_of(ttfts_s: list[float]) -> str:
    return Span(low=min(ttfts_s), high=max(ttfts_s)).text(seconds)


def write_agreements(comparison: Comparison) -> tuple[str, ...]:
    """Returns whether speculation changed the greedy answers, and what the user's evaluation scored."""
    sentences = []
    for item in comparison.agreements:
        arm, base = display_name(item.arm), display_name(item.baseline)
        where = "" if item.topologies[0] == item.topologies[1] else f" ({' and '.join(item.topologies)})"
        if item.prompts:
            text = f"{arm} gives {base}'s greedy answer to {item.same} of {item.prompts} fixed prompts{where}"
            if item.first_difference is not None:
                text += f"; the earliest difference is at character {item.first_difference + 1}"
            sentences.append(f"{text}.")
        if None not in item.scores:
            sentences.append(f"The evaluation scores {base} {item.scores[0]:g} and {arm} {item.scores[1]:g}.")
    return tuple(sentences)


def _sentence(comparison: Comparison, row: Row, index: int) -> str:
    other, base = comparison.others[index], comparison.baseline
    cell, base_cell, ratio = row.cells[index + 1], row.cells[0], row.ratios[index]
    at = target(row.target_tps)
    if cell.state == base_cell.state == "not_reached":
        return (
            f"Neither {other.label} nor {base.label} reaches {at} tok/s/user: {_end(other, cell)}, "
            f"{_end(base, base_cell)}."
        )
    if "not_reached" in (cell.state, base_cell.state):
        reached, short = ((other, cell), (base, base_cell))
        if cell.state == "not_reached":
            reached, short = short, reached
        return (
            f"At {at} tok/s/user {_serves(*reached)}; {short[0].label} does not reach it "
            f"({_end(*short)}), so there is no ratio. {_clause(*reached)}; {_runs([reached[1]])}."
        )
    claim = f"At {at} tok/s/user {_serves(other, cell)} and {base.label} {_figure(base_cell)}"
    verdict = f"{claim}: {_verdict(ratio, cell, base_cell, other, base)}."
    found = comparison.checkpoints.get(other.label)
    return " ".join(
        (
            *(verdict, _basis(other, cell, base, base_cell)),
            *_energy(other, cell, base, base_cell, ratio.bound),
            *([f"{found.text}."] if found else []),
        )
    )


def _energy(other: Curve, cell: Cell, base: Curve, base_cell: Cell, bound: Bound) -> tuple[str, ...]:
    """Returns what an output token costs in metered energy on both sides; nothing where a side was not
    metered.
    """
    ratio = energy_ratio_of(cell, base_cell)
    if ratio is None:
        return ()
    ours, theirs = _joules(cell), _joules(base_cell)
    best = ", best point against best point" if bound == "best_points" else ""
    return (
        f"By {_kind(other)} power of the GPUs an output token takes {ours} J with {other.label} and "
        f"{theirs} J with {base.label}: {describe_energy(ratio, bound)}{best}.",
    )


def _joules(cell: Cell) -> str:
    most = "at most " if cell.state == "at_least" else ""
    joules = cell.metered_joules_per_output_token
    return most + (MISSING if joules is None else joules.text(energy))


def describe_energy(ratio: Span, bound: Bound = "exact") -> str:
    """Returns `52.9% to 60.4% less energy`, `1.5% less to 3.0% more energy`, or `the same energy`.

    Args:
        ratio: joules for an output token over the baseline's.
        bound: of the throughput's ratio; more throughput is less energy.
    """
    (most, more), (least, less) = _change(ratio.high), _change(ratio.low)
    if bound == "at_least":
        return f"{'at least' if more == 'less' else 'at most'} {most} {more} energy"
    if bound == "at_most":
        return f"{'at most' if less == 'less' else 'at least'} {least} {less} energy"
    if most == least == "0.0%":
        return "the same energy"
    if more == less:
        near, far = (most, least) if more == "less" else (least, most)
        return f"{near if near == far else f'{near} to {far}'} {more} energy"
    return f"{least} less to {most} more energy"


def _change(ratio: float) -> tuple[str, str]:
    return percent(abs(1 - ratio)), "less" if ratio <= 1 else "more"


def _serves(curve: Curve, cell: Cell) -> str:
    return f"{curve.label} serves {_figure(cell)} tok/s/GPU"


def _figure(cell: Cell) -> str:
    if cell.tput_range is not None:
        return f"somewhere from {cell.tput_range.text(rate)}"
    return ("at least " if cell.state == "at_least" else "") + rate(cell.tput_tps_per_gpu)


def _end(curve: Curve, cell: Cell) -> str:
    return f"{curve.label} ends at {speed(cell.knots[0].x)}"


def _verdict(ratio: Ratio, cell: Cell, base_cell: Cell, other: Curve, base: Curve) -> str:
    if ratio.value is None or ratio.lower_cost is None:
        curve, wide = (other, cell) if cell.wide_gap else (base, base_cell)
        lower, upper = wide.knots
        return (
            f"no ratio, because the {curve.label} value lies between two points "
            f"{fixed(wide.knot_ratio or 0, 1)} times apart in throughput ({rate(lower.y)} at "
            f"{speed(lower.x)} tok/s/user and {rate(upper.y)} at {speed(upper.x)})"
        )
    bound = {"at_least": "at least ", "at_most": "at most "}.get(ratio.bound, "")
    equal = "equal, " if _costs_the_same(ratio) else ""
    value = times(ratio.value)
    if ratio.interval is not None:
        value += f" {spread(ratio.interval.low, ratio.interval.high, times)}"
    text = f"{equal}{bound}{value} times the throughput, {describe_cost(ratio)} per token"
    usd, base_usd = cell.usd_per_mtok, base_cell.usd_per_mtok
    if isinstance(usd, float) and isinstance(base_usd, float):
        text += f" ({money(usd)} against {money(base_usd)} per million)"
    if ratio.bound == "best_points":
        text += f", best {_kind(other)} point against best {_kind(base)} point"
    return text


def describe_cost(ratio: Ratio) -> str:
    """Returns `58.6% lower cost`, `21.9% higher cost` or `the same cost`; nothing is more than 100% lower.

    A bound on the ratio bounds the saving the same way, and a loss the other way.
    """
    saved = ratio.lower_cost
    if saved is None:
        return ""
    lower = {"at_least": "at least ", "at_most": "at most "}.get(ratio.bound, "")
    higher = {"at_least": "at most ", "at_most": "at least "}.get(ratio.bound, "")
    if percent(abs(saved)) == "0.0%":
        return f"{lower}0.0% lower cost" if lower else "the same cost"
    return f"{lower}{percent(saved)} lower cost" if saved > 0 else f"{higher}{percent(-saved)} higher cost"


def _costs_the_same(ratio: Ratio) -> bool:
    return ratio.is_equal and percent(abs(ratio.lower_cost or 0.0)) == "0.0%"


def _basis(other: Curve, cell: Cell, base: Curve, base_cell: Cell) -> str:
    runs = _runs([cell, base_cell])
    if cell.state == base_cell.state == "interpolated":
        return f"Both values lie between {_kind(other)} points; {runs}."
    if cell.state == base_cell.state == "measured":
        return f"Both values were {_kind(other)} at that speed; {runs}."
    return f"{_clause(other, cell)}. {_clause(base, base_cell)}; {runs}."


def _clause(curve: Curve, cell: Cell) -> str:
    if cell.state == "at_least":
        runs_at = speed(cell.runs_at_tps)
        return f"The best {curve.label} point does better than asked: it runs at {runs_at} tok/s/user"
    how = f"was {_kind(curve)} at that speed"
    if cell.state == "interpolated":
        how = f"lies between {_kind(curve)} points"
    if cell.wide_gap and cell.knot_ratio is not None:
        how += f" {fixed(cell.knot_ratio, 1)} times apart in throughput, so nothing but that range is known"
    return f"The {curve.label} value {how}"


def _runs(cells: list[Cell]) -> str:
    counts = {len(knot.runs) for cell in cells for knot in cell.knots}
    if counts == {1}:
        return "each point is a single run"
    low, high = min(counts), max(counts)
    return f"each point is the mean of {low if low == high else f'{low} to {high}'} runs"


def _extent(curve: Curve) -> str:
    count, (low, high) = len(curve.measured), curve.range_tps
    where = f"at {speed(low)}" if low == high else f"from {speed(low)} to {speed(high)}"
    front = f" ({len(curve.front)} on the front)" if len(curve.front) < count else ""
    return f"{curve.label}: {counted(count, f'{_kind(curve)} point')}{front}, {where} tok/s/user"


def _kind(curve: Curve) -> str:
    return "simulated" if curve.shared("simulated") else "measured"
