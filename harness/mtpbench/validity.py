"""Pure: the rules that make a point invalid, each with a stable code; docs/validity.md explains them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from mtpbench.engines import engine_of
from mtpbench.error_rate import by_count, check_error_rate
from mtpbench.metrics.acceptance_rules import check_acceptance
from mtpbench.metrics.request_table import CUT_OFF, UNKNOWN, Floats, Ints, RequestTable
from mtpbench.metrics.settling import check_settling
from mtpbench.metrics.window import due_in_window, rates_due_and_sent
from mtpbench.records import Point, PointResult, Reason, RunFacts

MAX_LAG_OF_GAP = 0.5
TIMER_RESOLUTION_S = 0.005
"""Wall seconds: a lag below this comes from the operating system's timer and scheduler."""
MIN_CONCURRENCY_SHARE = 0.98
MAX_RATE_SHORTFALL = 0.05
"""The share by which an open loop's rate may fall short, however many and even its requests are."""
MOST_CHANCE = 0.5
"""The share below which chance explains nothing, however few its requests."""
MAX_COALESCED_SHARE = 0.01
MAX_SEND_LAG_S = 0.05
"""Wall seconds that a request of an open loop may start late."""
FREE_SLOTS = 0.1
"""The part of one slot that may always be idle: at concurrency 1 the 2% are shorter than one reconnect."""
STEP_US = 1000
"""Wall microseconds: stamps further back than this were taken by a clock that was set."""
MAX_TOKENS_OFF = 0.05
"""The share by which tokens per event may be off what the stream interval and the acceptance allow."""
STEP_SPREAD = 1.2
"""Three standard deviations of a step's tokens, as a share of their mean."""
MAX_BURSTS_OFF = 0.15
"""More of it for bursts, of which two may come so close that they are taken for one."""
MANY_IN_FIRST, MAX_TTFT_OFF = 2, 0.1
"""A first event holds many tokens above this many times the usual; TTFT may be late by this share of it."""
SHORTEST_GAP_S, MAX_HELD_BACK = 0.001, 0.05
"""An answer came whole if its chunks came closer than this (wall seconds), and in this share of TTFT."""
CLIENT_LIMIT = "client_limit"
"""The error of a request that met a limit of the client's machine (descriptors, ports)."""

CODES: Mapping[str, str] = {
    "start_failed": "the deployment never became ready, so nothing was sent",
    "server_died": "a process of the deployment ended, or stopped answering, while the point ran",
    "client_failed": "a process of the load client died, and what it had not written with it",
    "cut_off": "the point was stopped before its last request had ended",
    "no_requests": "no measured request was sent",
    "no_tokens": "no measured request brought a token",
    "no_interactivity": "no request brought two tokens at different moments, so there is no time per token",
    "error_rate": "too many measured requests failed",
    "wrong_prompt_length": "the server counted other prompt lengths than were asked for",
    "wrong_output_length": "requests ended well with another number of tokens than was asked for",
    "tokens_per_chunk": "the tokens of the answers do not fit the events that brought them",
    "tokens_before_first": "the first event held many tokens, so TTFT is later than the first token",
    "window_too_short": "the steady-state window is missing, or shorter than the sweep allows",
    "not_settled": "the server's rates still changed while they were measured",
    "rate_not_reached": "requests of the open loop went out more slowly than they were due",
    "clock_stepped": "the clock that stamps was set while the point ran, and stamps are wrong by it",
    "client_saturated": "the load client, not the server, may have been the bottleneck",
    "mtp_not_accepting": "speculation is on, but (almost) no draft token was accepted",
    "off_is_drafting": "speculation is off in the sweep, but the engine drafts tokens",
    "mtp_no_counters": "speculation is on, but nothing shows that drafts were accepted",
    "wrong_draft_tokens": "steps drafted another number of tokens than the arm declares",
    "pinned_not_met": "acceptance is pinned to a length, and another one was counted",
    "power_missing": "the sweep requires power, and the energy is unknown",
}


def check(
    point: Point,
    table: RequestTable,
    result: PointResult,
    facts: RunFacts,
    furthest_back_us: int = 0,
    first_burst: float = 1.0,
) -> tuple[Reason, ...]:
    """Checks a point by every rule; returns why it is invalid, in the order of `CODES`, or nothing.

    Args:
        point: the point.
        table: its raw requests.
        result: its result, whose own reasons are ignored.
        facts: facts of the run that the requests do not show.
        furthest_back_us: the most that a chunk's stamp lies before the one before it.
        first_burst: the median number of chunks that came at once at the beginning of an answer.
    """
    if facts.start_failed is not None:
        return (Reason(code="start_failed", detail=facts.start_failed),)
    reasons = [
        *_check_run(table, facts, result.client.unsent),
        *_check_requests(point, table, result),
        *_check_lengths(point, table),
        *_check_chunks(point, result, first_burst),
        *_check_window(point, result),
        *check_settling(result.settling),
        *_check_clock(point, result, furthest_back_us),
        *_check_rate(point, table, result),
        *_check_client(point, table, result),
        *check_acceptance(point, table, result),
        *_check_power(point, result),
    ]
    order = list(CODES)
    return tuple(sorted(reasons, key=lambda reason: order.index(reason.code)))


def time_scale(point: Point) -> float:
    """Returns engine seconds per wall second: above 1 only on the embedded engine's scaled clock."""
    simulation = point.simulation
    return simulation.speed if simulation and simulation.clock == "scaled" else 1.0


def _check_run(table: RequestTable, facts: RunFacts, unsent: int | None) -> Iterable[Reason]:
    if facts.server_died is not None:
        yield Reason(code="server_died", detail=facts.server_died)
    if facts.client_failed is not None:
        yield Reason(code="client_failed", detail=facts.client_failed)
    cut = int((table.error == CUT_OFF).sum())
    if facts.cut_off is not None or cut:
        cause = facts.cut_off or "unknown"
        detail = f"{cause}: {cut} requests were still running at the end"
        yield Reason(code="cut_off", detail=f"{detail}, {unsent} had not been sent" if unsent else detail)


def _check_requests(point: Point, table: RequestTable, result: PointResult) -> Iterable[Reason]:
    if not result.requests:
        warmup = Counter(error for error in table.error if error is not None)
        detail = f"{len(table)} warm-up requests were sent" + (f": {by_count(warmup)}" if warmup else "")
        yield Reason(code="no_requests", detail=detail)
        return
    measured = ~table.warmup
    if not (table.ok & measured & (table.output_tokens > 0)).any():
        detail = f"{result.requests} measured requests, none with tokens"
        yield Reason(
            code="no_tokens", detail=detail + (f": {by_count(result.errors)}" if result.errors else "")
        )
    elif result.interactivity_tps is None:
        detail = "tokens came, but no request had a time per output token"
        yield Reason(code="no_interactivity", detail=detail)
    yield from check_error_rate(point, table, result)


def _check_power(point: Point, result: PointResult) -> Iterable[Reason]:
    # Throughput is valid without energy; only a sweep that requires power needs it.
    if point.measurement.power == "required" and result.energy.energy_j is None:
        yield Reason(code="power_missing", detail=f"`power: required`, but {result.energy.reason}")


def _check_lengths(point: Point, table: RequestTable) -> Iterable[Reason]:
    completed = table.ok & ~table.warmup
    if not completed.any():
        return
    allowed = point.measurement.max_error_rate
    requested, counted = table.asked_prompt_tokens[completed], table.prompt_tokens[completed]
    wrong = (counted != UNKNOWN) & (np.abs(counted - requested) > _prompt_slack(point, requested))
    if wrong.mean() > allowed:
        yield Reason(code="wrong_prompt_length", detail=_lengths_detail("prompt", requested, counted, wrong))
    requested, counted = table.asked_output_tokens[completed], table.output_tokens[completed]
    wrong = (counted != requested) & point.workload.ignore_eos
    if wrong.mean() > allowed:
        yield Reason(code="wrong_output_length", detail=_lengths_detail("output", requested, counted, wrong))


def _prompt_slack(point: Point, requested: Ints) -> Floats:
    """Returns how far the server's count of each prompt may be off."""
    if point.workload.prompts == "dataset":
        return np.full(len(requested), np.inf)
    if point.workload.chat_template and point.workload.tokenizer is None:
        # Words are not tokens, and the template adds its own.
        return np.asarray(64 + 0.25 * requested, np.float64)
    return np.ones(len(requested))  # a begin-of-sequence token


def _lengths_detail(kind: str, requested: Ints, counted: Ints, wrong: npt.NDArray[np.bool_]) -> str:
    example = int(np.flatnonzero(wrong)[0])
    return (
        f"{int(wrong.sum())} of {len(requested)} requests had another {kind} length; "
        f"first: {requested[example]} tokens asked, {counted[example]} counted by the server"
    )


def most_tokens_per_event(point: Point, per_step: float | None = None) -> float:
    """Returns the most tokens that an event of the server holds, by its stream interval.

    Args:
        point: the point.
        per_step: output tokens of a verification step; the most that it can bring if left out.
    """
    speculation, engine = point.arm.speculation, engine_of(point)
    if per_step is None:
        per_step = 1.0 + (speculation.draft_tokens if speculation else 0)
    interval = stream_interval(point)
    return interval * per_step if engine.ABOUT.interval_of_steps else interval + per_step - 1


def stream_interval(point: Point) -> int:
    """Returns how many tokens (of some engines steps) are gathered before an event is sent."""
    limits = engine_of(point).limits(point)
    of_role = limits.get("decode" if point.topology.disaggregated else "aggregated")
    return max(of_role.stream_interval if of_role else 1, 1)


def _check_chunks(point: Point, result: PointResult, first_burst: float) -> Iterable[Reason]:
    """Checks the tokens of the chunks against stream interval and acceptance length."""
    per_chunk, gaps = result.tokens_per_chunk, result.icl_s
    if per_chunk is None or gaps is None:
        return
    causes = [*_check_bursts(point, result, per_chunk, first_burst)]
    if result.tpot_basis != "known_first_chunk":
        causes += _check_events(point, result, per_chunk, gaps.count)
    if causes:
        unknown = "which tokens came when is unknown, and with it the time per token"
        yield Reason(code="tokens_per_chunk", detail=f"{'; '.join(causes)}: {unknown}")
    else:
        yield from _check_first_chunk(point, result, per_chunk)


def _check_bursts(point: Point, result: PointResult, per_chunk: float, first_burst: float) -> Iterable[str]:
    """Checks whether something between engine and client gathered events, so that the first came late."""
    ttft, e2el, gaps = result.ttft_s, result.e2el_s, result.icl_s
    if ttft is None or e2el is None or gaps is None:
        return
    streamed_s, least_s = e2el.p50 - ttft.p50, SHORTEST_GAP_S * time_scale(point)
    if gaps.mean < least_s and streamed_s < MAX_HELD_BACK * ttft.p50:
        yield f"the answers came whole, within {streamed_s:.3g} s after {ttft.p50:.3g} s"
    at_first = first_burst * per_chunk
    usual = max(most_tokens_per_event(point), per_chunk)
    later = (1 + gaps.count / ttft.count) * per_chunk - at_first
    if first_burst > 1 and at_first > MANY_IN_FIRST * usual and at_first > MAX_TOKENS_OFF * later + usual:
        yield f"{at_first:.3g} tokens came at once with the first event (median), and {usual:.3g} are usual"


def _check_events(point: Point, result: PointResult, per_chunk: float, gaps: int) -> Iterable[str]:
    speculates = point.arm.speculation is not None
    most = most_tokens_per_event(point, result.acceptance.length if speculates else None)
    # The steps of the counted requests are a sample of those that the counters cover.
    slack = MAX_TOKENS_OFF + (STEP_SPREAD / gaps**0.5 if speculates else 0.0)
    if per_chunk > most * (1 + slack):
        yield f"{per_chunk:.3g} tokens came with each event, and {most:.3g} are the most that fit"
    if per_chunk < 1 - MAX_TOKENS_OFF:
        yield f"the server counts {per_chunk:.3g} tokens for each event"
    # An event for each token hides none, nor does one for each step: how close they came says nothing then.
    may_hide = 1 + MAX_TOKENS_OFF < per_chunk < most * (1 - slack)
    per_burst = result.tokens_per_burst if speculates and may_hide else None
    if per_burst is not None and per_burst > most * (1 + slack + MAX_BURSTS_OFF):
        yield f"{per_burst:.3g} tokens came at once, and a step brings {most:.3g}"


def _check_first_chunk(point: Point, result: PointResult, per_chunk: float) -> Iterable[Reason]:
    """Checks whether tokens came so long before the first event that TTFT is not theirs.

    Uncounted tokens without an event came there (but one) if those with one came too evenly to hide them.
    """
    first, tpot, ttft, gaps = result.first_chunk_tokens, result.tpot_s, result.ttft_s, result.icl_s
    if tpot is None or ttft is None or gaps is None:
        return
    most = most_tokens_per_event(point)
    if first is None:
        is_even = most == 1 and gaps.mean < gaps.p50 * (1 + per_chunk) / 2
        first = (per_chunk - 1) * (1 + gaps.count / ttft.count) if is_even else 0.0
    usual = max(most, per_chunk)
    late_s = (first - usual) * tpot.p50
    if first > MANY_IN_FIRST * usual and late_s > MAX_TTFT_OFF * ttft.p50:
        detail = (
            f"{first:.0f} tokens came with the first event or before, where {usual:.3g} are usual: the first "
            f"token came up to {late_s:.3g} s before it, and the median TTFT is {ttft.p50:.3g} s"
        )
        yield Reason(code="tokens_before_first", detail=detail)


def _check_window(point: Point, result: PointResult) -> Iterable[Reason]:
    least = point.measurement.min_window_s
    if result.steady is None:
        detail = "at no time had all slots streamed a token while requests were left to send"
        yield Reason(code="window_too_short", detail=detail)
    elif result.steady.duration_s < least:
        detail = (
            f"the steady-state window lasted {result.steady.duration_s:.3g} s; at least {least:g} s are asked"
        )
        yield Reason(code="window_too_short", detail=detail)


def _check_clock(point: Point, result: PointResult, furthest_back_us: int) -> Iterable[Reason]:
    client, causes = result.client, []
    if client.misstamped_reads:
        causes.append(f"{client.misstamped_reads} reads may have stamps that are too early")
    if furthest_back_us > STEP_US * time_scale(point):
        causes.append(f"a chunk is stamped {furthest_back_us * 1e-6:.3g} s before the one before it")
    if causes:
        step = f"the wall clock stepped by {client.clock_step_s:.3g} s" if client.clock_step_s else None
        yield Reason(code="clock_stepped", detail="; ".join(filter(None, (step, *causes))))


def _check_rate(point: Point, table: RequestTable, result: PointResult) -> Iterable[Reason]:
    """Holds the rate at which an open loop sent requests against the one that was asked for.

    The same requests are due and sent, so chance in their arrivals is in both; what it adds is a queue that a
    burst left at the end, of about √n requests. A slower draw than was asked for is no fault of the load.
    """
    rates = rates_due_and_sent(table, point.load.ramp_s) if point.load.open else None
    if rates is None:
        return
    due_rps, sent_rps = rates
    asked_rps = min(due_rps, point.load.rate_rps or due_rps)
    chosen = due_in_window(table, point.load.ramp_s)
    if sent_rps >= asked_rps * (1 - _chance_of_rate(table.scheduled_s[chosen])):
        return
    late = table.sent_s[chosen] - table.scheduled_s[chosen] > MAX_SEND_LAG_S * time_scale(point)
    waited = result.ttft_from_schedule_s
    detail = (
        f"{point.load.rate_rps or due_rps:.4g} requests/s were asked for, and {sent_rps:.4g} were sent: "
        f"{int(late.sum())} of {len(late)} requests waited for one of {point.concurrency} slots"
    )
    if waited is not None:
        detail += f"; the median TTFT from the schedule is {waited.p50:.3g} s"
    yield Reason(code="rate_not_reached", detail=detail)


def _chance_of_rate(due_s: Floats) -> float:
    """Returns the share by which the sent rate may fall short by chance: σ of the intervals / mean / √n."""
    intervals = np.diff(np.sort(due_s))
    scatter = float(intervals.std() / intervals.mean()) / math.sqrt(len(due_s))
    return min(max(MAX_RATE_SHORTFALL, scatter), MOST_CHANCE)


def _check_client(point: Point, table: RequestTable, result: PointResult) -> Iterable[Reason]:
    client = result.client
    causes: list[str] = []
    limited = int((table.error == CLIENT_LIMIT).sum())
    if limited:
        causes.append(f"{limited} requests hit a limit of the client's machine (descriptors or ports)")
    lag, gaps = client.reader_lag_p99_s, result.icl_s
    if lag is not None and gaps is not None:
        # Engines that send the tokens of one step one by one have a median gap near 0: the mean counts then.
        gap = max(gaps.p50, gaps.mean)
        if lag > max(MAX_LAG_OF_GAP * gap, TIMER_RESOLUTION_S * time_scale(point)):
            causes.append(f"it read {lag * 1e3:.3g} ms late (p99) at chunk gaps of {gap * 1e3:.3g} ms")
    if (
        client.coalesced_reads
        and client.reads
        and client.coalesced_reads > MAX_COALESCED_SHARE * client.reads
    ):
        share = client.coalesced_reads / client.reads
        causes.append(f"{share:.1%} of its reads held events of several moments, which share one stamp")
    causes += _check_pace(point, result)
    if causes:
        yield Reason(code="client_saturated", detail="; ".join(causes))


def _check_pace(point: Point, result: PointResult) -> Iterable[str]:
    """Checks whether the client sent as many requests as the load requires, and in time."""
    client = result.client
    if point.load.open:
        lag = client.send_lag_p99_s
        # Requests that waited for a free slot are late because of the server, or of the ceiling.
        if lag is not None and not client.late_starts and lag > MAX_SEND_LAG_S * time_scale(point):
            yield f"it sent requests {lag * 1e3:.3g} ms after their time (p99)"
    elif client.achieved_concurrency is not None:
        idle = point.concurrency - client.achieved_concurrency
        if client.paused_slots is not None:  # refused requests are the server's doing: `error_rate`
            idle -= client.paused_slots
        if idle > max((1 - MIN_CONCURRENCY_SHARE) * point.concurrency, FREE_SLOTS):
            yield f"it kept {client.achieved_concurrency:.4g} of {point.concurrency} requests in flight"
