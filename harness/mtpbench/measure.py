"""Pure: the result of a point, computed from its raw records. `run` and `recompute` both call `measure`.

The columns of requests are held in memory whole. There may be a thousand times as many chunks, so they are
read once, batch by batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtpbench.hardware import power_limits_w
from mtpbench.metrics.acceptance import measure_acceptance
from mtpbench.metrics.categories import CountedRequests, figures_by_category
from mtpbench.metrics.chunk_latency import AT_ONCE_S, ChunkGaps, summarise
from mtpbench.metrics.energy import MAX_GAP_S, measure_energy, split_by_node, unknown_energy
from mtpbench.metrics.packed_chunks import Requests, TokenCounts, count_tokens
from mtpbench.metrics.percentile_intervals import TimeParts
from mtpbench.metrics.request_table import UNKNOWN, Floats, Ints, RequestRows, RequestTable
from mtpbench.metrics.settling import describe_settling, settled_window
from mtpbench.metrics.window import (
    Window,
    cut_blocks,
    describe_blocks,
    due_in_window,
    inside,
    mean_in_flight,
    point_window,
    rates_due_and_sent,
    whole_window,
)
from mtpbench.records import (
    Acceptance,
    Energy,
    Point,
    PointResult,
    PowerSample,
    Rates,
    RunFacts,
    Settling,
    TpotBasis,
)
from mtpbench.store import RawPoint
from mtpbench.validity import check, most_tokens_per_event, stream_interval, time_scale

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Latencies:
    """The latencies of the counted requests, in seconds.

    Args:
        ttft_s, e2el_s, send_lag_s: (r,) of every counted request.
        ended_s: (r,) when it ended.
        tpot_s: (q,) of those that have a TPOT.
        tpot_ended_s: (q,) when those ended.
        later_tokens: (r,) output tokens after the first chunk.
        tpot_basis: how the tokens of the first chunk are known.
        first_chunk_tokens: the median of that number; None where it is unknown.
    """

    ttft_s: Floats
    e2el_s: Floats
    ended_s: Floats
    tpot_s: Floats
    tpot_ended_s: Floats
    later_tokens: Ints
    send_lag_s: Floats
    tpot_basis: TpotBasis | None
    first_chunk_tokens: float | None


def measure(point: Point, raw: RawPoint) -> PointResult:
    """Computes the result of a point from its raw records; without requests its figures are NULL."""
    facts, rows = raw.facts, raw.requests.summarised()
    load = point.load
    whole = whole_window(rows)
    steady, cut_s, counted, figures = _settled(point, raw.requests, rows)
    rates = rates_due_and_sent(rows, load.ramp_s) if load.open else None
    chunk_counts = raw.requests.chunk_counts
    blocks = cut_blocks(steady, figures.e2el_s, figures.tpot_ended_s) if steady else ()
    gaps = ChunkGaps(rows.index, counted, point.load.stall_s, steady, AT_ONCE_S * time_scale(point))
    windows = [window for window in (steady, whole, *blocks) if window]
    counts = count_tokens(raw.requests, windows, gaps.add)

    def rates_over(window: Window) -> Rates:
        return _rates(rows, window, counts, point.topology.gpus)

    steady_rates = rates_over(steady) if steady else None
    acceptance = measure_acceptance(
        point,
        raw.counters,
        steady,
        facts.counter_processes,
        facts.counter_source,
        blocks,
        _decoded_tps(steady_rates),
    )
    errors = Counter(error for error in rows.error[~rows.warmup] if error is not None)
    parts = TimeParts.of(steady, blocks, figures.ended_s) if steady else None
    tpot_parts = TimeParts.of(steady, blocks, figures.tpot_ended_s) if steady else None
    tpot = summarise(figures.tpot_s, tpot_parts)
    block_rates = [rates_over(block) for block in blocks]
    result = PointResult(
        point_id=point.id,
        simulated=point.simulated,
        clock=point.simulation.clock if point.simulation else "real",
        requests=int((~rows.warmup).sum()),
        failed_requests=errors.total(),
        errors=dict(sorted(errors.items())),
        ttft_s=summarise(figures.ttft_s, parts),
        tpot_s=tpot,
        e2el_s=summarise(figures.e2el_s, parts),
        icl_s=gaps.per_chunk(),
        token_gap_s=gaps.per_token(),
        ttft_from_schedule_s=summarise(figures.ttft_s + figures.send_lag_s, parts),
        e2el_from_schedule_s=summarise(figures.e2el_s + figures.send_lag_s, parts),
        stalls=gaps.stalls(),
        tokens_per_chunk=_share(rows.output_tokens, chunk_counts, counted),
        by_category=figures_by_category(
            CountedRequests(
                rows=rows,
                counted=counted,
                later_tokens=figures.later_tokens,
                later_chunks=chunk_counts[counted] - 1,
                tpot_s=figures.tpot_s,
                ended_s=figures.ended_s,
                window=steady,
                blocks=blocks,
            ),
            point.arm.speculation,
            acceptance,
            stream_interval(point),
        ),
        tokens_per_burst=_tokens_per_burst(point, rows, counted & (chunk_counts > 1), gaps, acceptance),
        first_chunk_tokens=figures.first_chunk_tokens,
        cached_prompt_share=_cached_share(rows, counted),
        interactivity_tps=1.0 / tpot.p50 if tpot and tpot.p50 > 0 else None,
        interactivity_p99_tps=1.0 / tpot.p99 if tpot and tpot.p99 > 0 else None,
        tpot_basis=figures.tpot_basis,
        sent_rps=rates[1] if rates else None,
        steady=steady_rates,
        whole=rates_over(whole) if whole else None,
        blocks=describe_blocks(
            blocks,
            tuple(block.tput_tps_per_gpu for block in block_rates),
            figures.tpot_s,
            figures.tpot_ended_s,
        ),
        settling=_settling(point, steady, cut_s, blocks, block_rates, figures),
        acceptance=acceptance,
        energy=_energy(point, raw.power, steady_rates, facts, blocks),
        idle=facts.idle,
        gpus=facts.gpus,
        client=raw.client,
        answers=facts.answers,
        evaluation=facts.evaluation,
    )
    reasons = check(point, rows, result, facts, gaps.furthest_back_us, gaps.first_burst())
    return dataclasses.replace(result, reasons=reasons)


def _decoded_tps(rates: Rates | None) -> float | None:
    """Returns output tokens per second without the first of each request, which comes from its prefill."""
    return (rates.output_tokens - rates.requests_completed) / rates.duration_s if rates else None


def _settled(
    point: Point, requests: Requests, rows: RequestTable
) -> tuple[Window | None, float, Mask, Latencies]:
    """Returns the steady-state window, the seconds that were cut from its beginning, which requests count in
    it, and their latencies.
    """
    load, chunk_counts, most = point.load, requests.chunk_counts, most_tokens_per_event(point)
    window = point_window(rows, point.concurrency, open_loop=load.open, ramp_s=load.ramp_s)
    if load.open or window is None:
        # In an open loop every measured request that was due after the ramp counts, whenever it ended.
        counted = _counted(rows, None)
        if window:
            counted &= due_in_window(rows, load.ramp_s)
        return window, 0.0, counted, latencies(rows, counted, chunk_counts, most)
    counted = _counted(rows, window)
    figures = latencies(rows, counted, chunk_counts, most)
    if not point.measurement.awaits_settling:
        return window, 0.0, counted, figures
    settled = settled_window(requests, window, figures.e2el_s, figures.tpot_s, figures.tpot_ended_s)
    if settled is not window:
        counted = _counted(rows, settled)
        figures = latencies(rows, counted, chunk_counts, most)
    return settled, settled.start_s - window.start_s, counted, figures


def _settling(
    point: Point,
    steady: Window | None,
    cut_s: float,
    blocks: Sequence[Window],
    rates: Sequence[Rates],
    figures: Latencies,
) -> Settling | None:
    # In an open loop the arrivals move every figure, on servers that never change too.
    if not point.measurement.awaits_settling or steady is None or point.load.open:
        return None
    output_tps = [block.output_tps for block in rates]
    cut_share = cut_s / (cut_s + steady.duration_s)
    return describe_settling(cut_s, cut_share, blocks, output_tps, figures.tpot_s, figures.tpot_ended_s)


def _energy(
    point: Point,
    power: Sequence[PowerSample],
    steady: Rates | None,
    facts: RunFacts,
    blocks: Sequence[Window],
) -> Energy:
    gpus = point.topology.gpus
    if facts.power_source is None:
        return unknown_energy(facts.power_reason or "no_power_source", gpus, None)
    if steady is None:
        return unknown_energy("no_window", gpus, facts.power_source)
    energy = measure_energy(
        power,
        Window(start_s=steady.start_s, end_s=steady.end_s),
        gpus,
        steady.input_tokens + steady.output_tokens,
        steady.output_tokens,
        facts.power_source,
        max_gap_s=_max_gap_s(point),
        limits_w=power_limits_w(facts.gpus, facts.power_source, point.hardware),
        blocks=blocks,
    )
    if energy.energy_j is not None and energy.grace_energy_j is None and facts.grace_reason is not None:
        energy = dataclasses.replace(energy, grace_reason=facts.grace_reason)
    return dataclasses.replace(energy, energy_j_by_node=split_by_node(energy.energy_j_by_gpu, facts.nodes))


def _max_gap_s(point: Point) -> float:
    """Returns the longest gap between two power readings that may be bridged, in engine seconds."""
    if point.simulation and point.simulation.clock == "virtual":
        return math.inf  # the power model's counter misses nothing between two readings
    if point.simulation is None:
        return MAX_GAP_S  # meters are read ten times a second, however often counters are scraped
    return max(MAX_GAP_S, 3 * point.measurement.sample_interval_s) * time_scale(point)


def rates(table: Requests, window: Window, gpus: int) -> Rates:
    """Computes the token rates over a window, of requests that did not fail (a failed request serves nobody).

    Output tokens count at the chunk that carried them (`tokens_by`). A prompt counts in the same share as its
    request's output tokens lie in the window. If it counted whole at the first chunk, the input rate would
    depend on where the window's edges, which are starts and ends of requests, happen to lie: by up to 6% in a
    short run, and differently in each arm.

    Args:
        table: every request, also those of the warm-up, which load the server too.
        window: moments in (start, end] count.
        gpus: all GPUs of the deployment.
    """
    return _rates(table, window, count_tokens(table, [window]), gpus)


def _rates(rows: RequestRows, window: Window, counts: TokenCounts, gpus: int) -> Rates:
    ok = rows.ok
    prompt_tokens = np.where(
        rows.prompt_tokens == UNKNOWN, rows.asked_prompt_tokens, rows.prompt_tokens
    ).astype(np.float64)
    within = np.where(ok, counts.within(window), 0.0)
    generated = np.where(rows.output_tokens > 0, rows.output_tokens, np.inf)
    input_tokens = float((prompt_tokens * within / generated).sum())
    output_tokens = float(within.sum())
    seconds = window.duration_s
    return Rates(
        start_s=window.start_s,
        end_s=window.end_s,
        requests_completed=int((ok & inside(rows.end_s, window)).sum()),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        input_tps=input_tokens / seconds,
        output_tps=output_tokens / seconds,
        tput_tps_per_gpu=(input_tokens + output_tokens) / seconds / gpus,
        output_tps_per_gpu=output_tokens / seconds / gpus,
        mean_in_flight=mean_in_flight(rows, window),
    )


def latencies(
    table: RequestTable, counted: Mask, chunk_counts: Ints | None = None, most_per_chunk: float = 1.0
) -> Latencies:
    """Computes TTFT, E2EL and TPOT of the counted requests, all of which must have chunks.

    TPOT is (last − first chunk) / (output tokens − tokens of the first chunk). Without the server's count of
    the first chunk it is taken to hold what the later ones, each full, can't have held, but at least 1 token.
    A request without tokens after the first chunk has no TPOT.

    Args:
        table: the requests.
        counted: (n,) which of them count.
        chunk_counts: (n,) chunks of each, where the table holds only the first and the last.
        most_per_chunk: tokens of a full chunk; where it is 1, several tokens are of events that were merged.
    """
    first, last = table.first_chunk_s[counted], table.last_chunk_s[counted]
    sent, outputs = table.sent_s[counted], table.output_tokens[counted]
    in_first = table.chunk_tokens[table.chunk_offsets[:-1][counted]]
    first_is_counted = bool(len(in_first)) and not (in_first == UNKNOWN).any()
    if not first_is_counted:
        in_first = np.ones(len(outputs), np.int64)
        if most_per_chunk > 1:
            chunks = table.chunk_counts if chunk_counts is None else chunk_counts
            in_later = np.floor((chunks[counted] - 1) * most_per_chunk).astype(np.int64)
            in_first = np.clip(outputs - in_later, 1, int(most_per_chunk))
    later = outputs - in_first
    several = later >= 1
    tpot = (last - first)[several] / later[several]
    basis: TpotBasis | None = None
    if len(tpot):
        unknown: TpotBasis = "least_first_chunk" if (in_first > 1).any() else "assumed_one_token"
        basis = "known_first_chunk" if first_is_counted else unknown
    return Latencies(
        ttft_s=first - sent,
        e2el_s=last - sent,
        ended_s=table.end_s[counted],
        tpot_s=tpot,
        tpot_ended_s=table.end_s[counted][several],
        later_tokens=later,
        send_lag_s=sent - table.scheduled_s[counted],
        tpot_basis=basis,
        first_chunk_tokens=float(np.median(in_first)) if first_is_counted else None,
    )


def _tokens_per_burst(
    point: Point, rows: RequestRows, counted: Mask, gaps: ChunkGaps, acceptance: Acceptance
) -> float | None:
    """Returns the tokens per burst of the requests with several chunks; None where nobody can tell steps."""
    per_step = 1.0 if point.arm.speculation is None else acceptance.length
    known = counted & (rows.output_tokens != UNKNOWN)
    if per_step is None or not known.any():
        return None
    bursts = int(known.sum()) + gaps.between_bursts(max(per_step, 1.0))
    return float(rows.output_tokens[known].sum() / bursts)


def _share(parts: Ints, wholes: Ints, counted: Mask) -> float | None:
    """Returns the sum of some counts by that of others; None where no counted request has both."""
    known = counted & (parts != UNKNOWN) & (wholes > 0)
    return float(parts[known].sum() / wholes[known].sum()) if known.any() else None


def _cached_share(rows: RequestRows, counted: Mask) -> float | None:
    """Returns the share of prompt tokens that a prefix cache held; None where the server never says.

    Engines that say it leave out a count of 0 (vLLM: `if self.enable_prompt_tokens_details and
    num_cached_tokens`; SGLang: `UsageProcessor._details_if_cached`). Where any request has a count, one
    without it had none: the requests with a hit alone would make the share too large.
    """
    cached = rows.cached_prompt_tokens
    if (cached == UNKNOWN).all():
        return None
    return _share(np.where(cached == UNKNOWN, 0, cached), rows.prompt_tokens, counted)


def _counted(table: RequestTable, steady: Window | None) -> Mask:
    """Returns which measured requests ended without an error in the window; at any time if it is None."""
    counted = table.ok & ~table.warmup & (table.chunk_counts > 0)
    return counted & inside(table.end_s, steady) if steady else counted
