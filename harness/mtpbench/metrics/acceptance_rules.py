"""Pure: the rules of validity on speculation: is it there, as deep as declared, and accepted as pinned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mtpbench.metrics.request_table import RequestTable
from mtpbench.records import METHOD_NAMES, WITHOUT_MODEL, Acceptance, Point, PointResult, Reason, Speculation

MIN_ACCEPTANCE_LENGTH = 1.05
MAX_DRAFTS_OFF = 0.05
"""The share by which the drafts of a step may be off those that the arm declares."""
MAX_PIN_MISSED = 0.02
"""The share by which an acceptance length may be off the one that it is pinned to."""
CHANCE_DEVIATIONS = 3.3
"""Standard deviations that chance explains: more happens in 1 of 1,000 runs."""


def check_acceptance(point: Point, table: RequestTable, result: PointResult) -> Iterable[Reason]:
    """Checks that speculation is on or off as the arm says, drafts what it declares, and meets a pin."""
    acceptance, speculation = result.acceptance, point.arm.speculation
    if acceptance.reason == "off_but_drafting":
        detail = "the engine's counters of drafted tokens rose while the point ran"
        yield Reason(code="off_is_drafting", detail=detail)
    if speculation is None or result.steady is None:
        return
    if acceptance.reason == "no_drafts":
        if not _may_rest(point, speculation):
            may = "found no match, or is" if _searches(speculation) else "may be"
            cause = f"{METHOD_NAMES[speculation.method]} {may} silently off"
            detail = f"not one verification step was counted in the window: {cause}"
            yield Reason(code="mtp_not_accepting", detail=detail)
    elif acceptance.length is None:
        yield Reason(code="mtp_no_counters", detail=f"acceptance is unknown: {acceptance.reason}")
    else:
        yield from _check_length(speculation, acceptance, acceptance.length)
        answer_tokens = _mean_answer(point, table)
        wrong = tuple(_check_drafts(point, speculation, acceptance, answer_tokens))
        yield from wrong or _check_pin(point, result, speculation, acceptance.length, answer_tokens)


def _searches(speculation: Speculation) -> bool:
    """Returns whether drafts are found, not made: where nothing matches, none is an honest answer."""
    return speculation.method in WITHOUT_MODEL


def _may_rest(point: Point, speculation: Speculation) -> bool:
    """Returns whether a rule of depth lets all steps of the point draft nothing."""
    rule = speculation.depth
    if rule is None:
        return False
    return rule.kind == "adaptive" or any(
        r.draft_tokens == 0 and r.first <= point.concurrency for r in rule.ranges
    )


def _check_length(speculation: Speculation, acceptance: Acceptance, length: float) -> Iterable[Reason]:
    """Finds drafts that are (almost) never accepted, where they come from a head or a model.

    Steps that draft nothing give one token: where the engine counts them too, a low mean says nothing.
    """
    mixed = speculation.may_skip_drafts and not acceptance.drafting_steps_only
    if length < MIN_ACCEPTANCE_LENGTH and not _searches(speculation) and not mixed:
        detail = f"the acceptance length is {length:.3f}; at least {MIN_ACCEPTANCE_LENGTH} is expected"
        yield Reason(code="mtp_not_accepting", detail=detail)


def _mean_answer(point: Point, table: RequestTable) -> float:
    """Returns the mean output tokens of the answered requests."""
    counted = table.output_tokens[table.ok & ~table.warmup & (table.output_tokens > 0)]
    return float(counted.mean()) if len(counted) else float(point.workload.osl)


def _check_drafts(
    point: Point, speculation: Speculation, acceptance: Acceptance, answer_tokens: float
) -> Iterable[Reason]:
    """Holds the drafts of a step against the arm's, where the engine counts both.

    An engine that drafts no further than an answer may go (llama.cpp) drafts k (k + 1) / 2 tokens less for
    each answer's acceptance length of steps.
    """
    drafted = acceptance.draft_tokens_per_step
    if drafted is None:
        return
    least, most = _depths(point, speculation)
    at_ends = most * (most + 1) / 2 / answer_tokens
    if not least * (1 - MAX_DRAFTS_OFF) - at_ends <= drafted <= most * (1 + MAX_DRAFTS_OFF):
        declared = f"{most}" if least == most else f"{least} to {most}"
        detail = f"the engine drafted {drafted:.3g} tokens per step, and the arm declares {declared}"
        yield Reason(code="wrong_draft_tokens", detail=detail)


def _depths(point: Point, speculation: Speculation) -> tuple[int, int]:
    """Returns the fewest and the most tokens that a step which drafts can draft at the point's load."""
    rule = speculation.depth
    if rule is None:
        return (1 if _searches(speculation) else speculation.draft_tokens), speculation.draft_tokens
    reached = [r.draft_tokens for r in rule.ranges if r.first <= point.concurrency and r.draft_tokens]
    return min(reached, default=1), max(reached, default=speculation.draft_tokens)


def _check_pin(
    point: Point, result: PointResult, speculation: Speculation, length: float, answer_tokens: float
) -> Iterable[Reason]:
    """Holds the length against the one that it is pinned to, where each step drafts the same number.

    Drafts beyond an answer's end are counted or not, by engine: that moves the length by less than
    k / output tokens of it.
    """
    pinned = speculation.acceptance.length
    if pinned is None or not speculation.drafts_evenly:
        return
    share = MAX_PIN_MISSED + speculation.draft_tokens / answer_tokens
    errors = _standard_error(point, result, speculation, pinned), _error_of_spread(point, result, pinned)
    chance = CHANCE_DEVIATIONS * math.hypot(*errors)
    if abs(length - pinned) > pinned * share + chance:
        detail = (
            f"acceptance is pinned to {pinned:.4g} tokens per step, and {length:.4g} were counted: "
            f"{length / pinned - 1:+.1%}, where {MAX_PIN_MISSED:.0%}, the ends of answers "
            f"({share - MAX_PIN_MISSED:.2%}) and chance ({chance / pinned:.2%}) explain less"
        )
        yield Reason(code="pinned_not_met", detail=detail)


def _standard_error(point: Point, result: PointResult, speculation: Speculation, pinned: float) -> float:
    """Returns the most that the standard error of the counted length can be.

    An engine may draw once for a whole batch, so that a step of a rank is one draw, however many requests it
    serves. The variance of a draw is the largest that the counted and the pinned rates give, else the largest
    of any numbers in 0 … k with that mean.
    """
    acceptance, steady = result.acceptance, result.steady
    group = point.topology.group("decode") or point.topology.groups[0]
    batch = max(1.0, steady.mean_in_flight / (group.workers * group.dp)) if steady else 1.0
    draws = acceptance.gauge.samples if acceptance.gauge else (acceptance.drafts or 1.0) / batch
    mean, fraction = pinned - 1, pinned % 1
    rates = [each for each in (acceptance.per_position, speculation.acceptance.rates) if each]
    variances = [fraction * (1 - fraction), *map(_variance, rates)]
    most = max(variances) if rates else mean * (speculation.draft_tokens - mean)
    return math.sqrt(max(most, 0.0) / max(draws, 1.0))


def _error_of_spread(point: Point, result: PointResult, pinned: float) -> float:
    """Returns the standard error that requests bring whose own lengths scatter, as the embedded engine can
    draw them: each request that was answered in the window is one draw.
    """
    spread = (point.simulation and point.simulation.acceptance_spread) or 0.0
    answered = result.steady.requests_completed if result.steady else 0
    return pinned * spread / math.sqrt(max(answered, 1))


def _variance(rates: Sequence[float]) -> float:
    """Returns the variance of a step's accepted drafts, a prefix, from unconditional rates by position."""
    return sum((2 * i + 1) * rate for i, rate in enumerate(rates)) - sum(rates) ** 2
