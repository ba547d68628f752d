"""Pure: everything derived from one point's raw records. `run` and `recompute` both call `measure`."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mtpbench.acceptance import measure_acceptance
from mtpbench.gaps import ChunkGaps, summarise
from mtpbench.power.energy import MAX_GAP_S, measure_energy, unknown
from mtpbench.records import (
    ClientHealth,
    CounterSample,
    Energy,
    Point,
    PointResult,
    PowerSample,
    Rates,
    RunFacts,
)
from mtpbench.requests import UNKNOWN, Floats, RequestTable
from mtpbench.validity import check, time_scale
from mtpbench.window import Window, inside, mean_in_flight, point_window, whole_window

TpotBasis = Literal["known_first_chunk", "assumed_one_token"]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Latencies:
    """Per-request latencies in seconds; `tpot_s` and `icl_s` leave out requests without them."""

    ttft_s: Floats
    e2el_s: Floats
    tpot_s: Floats
    icl_s: Floats
    send_lag_s: Floats
    tpot_basis: TpotBasis | None


def measure(
    point: Point,
    table: RequestTable,
    counters: Sequence[CounterSample],
    power: Sequence[PowerSample],
    client: ClientHealth | None,
    notes: RunFacts,
) -> PointResult:
    """The result of a point from its raw records; an empty table gives NULL figures and their reasons.

    Args:
        point: what was measured.
        table: every request, warm-up and failed ones included.
        counters: scrapes of the speculation counters, in engine seconds.
        power: readings of power, in engine seconds.
        client: how the load client did; None on the virtual clock.
        notes: what the records can't tell (a dead server, a cut-off).
    """
    steady = point_window(table, point.concurrency, open_loop=point.load.open)
    whole = whole_window(table)
    gpus = point.topology.gpus
    steady_rates = rates(table, steady, gpus) if steady else None
    measured = ~table.warmup
    errors = Counter(error for error in table.error[measured] if error is not None)
    # In an open loop every measured request was due inside the window, whenever it ended.
    counted = _counted(table, None if point.load.open else steady)
    figures, gaps = latencies(table, counted), ChunkGaps.of(table, counted)
    tpot = summarise(figures.tpot_s)
    result = PointResult(
        point_id=point.id,
        simulated=point.simulated,
        clock=point.simulation.clock if point.simulation else "real",
        requests=int(measured.sum()),
        failed_requests=errors.total(),
        errors=dict(sorted(errors.items())),
        ttft_s=summarise(figures.ttft_s),
        tpot_s=tpot,
        e2el_s=summarise(figures.e2el_s),
        icl_s=summarise(figures.icl_s),
        token_gap_s=gaps.per_token(),
        ttft_from_schedule_s=summarise(figures.ttft_s + figures.send_lag_s),
        e2el_from_schedule_s=summarise(figures.e2el_s + figures.send_lag_s),
        stalls=gaps.stalls(point.load.stall_s, steady),
        interactivity_tps=1.0 / tpot.p50 if tpot and tpot.p50 > 0 else None,
        interactivity_p99_tps=1.0 / tpot.p99 if tpot and tpot.p99 > 0 else None,
        tpot_basis=figures.tpot_basis,
        steady=steady_rates,
        whole=rates(table, whole, gpus) if whole else None,
        acceptance=measure_acceptance(point, counters, steady, notes.counter_processes, notes.counter_source),
        energy=_energy(point, power, steady_rates, notes),
        client=client or ClientHealth(),
        answers=notes.answers,
        evaluation=notes.evaluation,
    )
    return dataclasses.replace(result, reasons=check(point, table, result, notes))


def _energy(point: Point, power: Sequence[PowerSample], steady: Rates | None, notes: RunFacts) -> Energy:
    gpus = point.topology.gpus
    if notes.power_source == "none":
        return unknown(notes.power_reason or "no_power_source", gpus, notes.power_source)
    if steady is None:
        return unknown("no_window", gpus, notes.power_source)
    return measure_energy(
        power,
        Window(start_s=steady.start_s, end_s=steady.end_s),
        gpus,
        steady.input_tokens + steady.output_tokens,
        steady.output_tokens,
        notes.power_source,
        max_gap_s=_max_gap_s(point),
    )


def _max_gap_s(point: Point) -> float:
    """The longest hole between two power readings that may be bridged, in engine seconds."""
    if point.simulation and point.simulation.clock == "virtual":
        return math.inf  # the model is asked, not sampled: its counter misses nothing between two readings
    return max(MAX_GAP_S, 3 * point.measurement.sample_interval_s) * time_scale(point)


def rates(table: RequestTable, window: Window, gpus: int) -> Rates:
    """Token rates over a window, of requests that ended well (a failed request serves nobody).

    Output tokens count at the chunk that carried them: by the server's cumulative counts, or spread evenly
    over the request's chunks where it gives none. A prompt counts as its output does: the share of its
    request's output tokens that lie in the window. Counted whole at the first chunk it would tie the input
    rate to where the window's edges, which are starts and ends of requests, happen to lie: up to 6% in a
    short run, differently in each arm.

    Args:
        table: every request, warm-up included: they load the server too.
        window: counted are moments in (start, end].
        gpus: all GPUs of the deployment.
    """
    ok = table.ok
    prompt_tokens = np.where(
        table.prompt_tokens == UNKNOWN, table.asked_prompt_tokens, table.prompt_tokens
    ).astype(np.float64)
    rows = table.chunk_rows
    counted = np.where(inside(table.chunk_times_s, window), _tokens_by_chunk(table), 0.0)
    within = np.where(ok, np.bincount(rows, weights=counted, minlength=len(table)), 0.0)
    made = np.where(table.output_tokens > 0, table.output_tokens, np.inf)
    input_tokens = float((prompt_tokens * within / made).sum())
    output_tokens = float(within.sum())
    seconds = window.duration_s
    return Rates(
        start_s=window.start_s,
        end_s=window.end_s,
        requests_completed=int((ok & inside(table.end_s, window)).sum()),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        input_tps=input_tokens / seconds,
        output_tps=output_tokens / seconds,
        tput_tps_per_gpu=(input_tokens + output_tokens) / seconds / gpus,
        output_tps_per_gpu=output_tokens / seconds / gpus,
        mean_in_flight=mean_in_flight(table, window),
    )


def latencies(table: RequestTable, counted: Mask) -> Latencies:
    """TTFT, E2EL, TPOT and chunk gaps of the counted requests, all of which must have chunks.

    TPOT is (last − first chunk) / (output tokens − tokens of the first chunk), or − 1 where the server
    does not say what the first chunk held; undefined where nothing comes after the first chunk.

    Args:
        table: the requests.
        counted: (n,) which of them count.
    """
    first, last = table.first_chunk_s[counted], table.last_chunk_s[counted]
    sent, outputs = table.sent_s[counted], table.output_tokens[counted]
    in_first = table.chunk_tokens[table.chunk_offsets[:-1][counted]]
    known = bool(len(in_first)) and not (in_first == UNKNOWN).any()
    later = outputs - in_first if known else outputs - 1
    several = later >= 1
    tpot = (last - first)[several] / later[several]
    basis: TpotBasis | None = None
    if len(tpot):
        basis = "known_first_chunk" if known else "assumed_one_token"
    rows = table.chunk_rows
    within = (rows[1:] == rows[:-1]) & counted[rows[1:]]
    return Latencies(
        ttft_s=first - sent,
        e2el_s=last - sent,
        tpot_s=tpot,
        icl_s=np.diff(table.chunk_times_s)[within],
        send_lag_s=sent - table.scheduled_s[counted],
        tpot_basis=basis,
    )


def _counted(table: RequestTable, steady: Window | None) -> Mask:
    """Measured requests that ended well in the steady-state window (anywhere where there is none)."""
    counted = table.ok & ~table.warmup & (table.chunk_counts > 0)
    return counted & inside(table.end_s, steady) if steady else counted


def _tokens_by_chunk(table: RequestTable) -> Floats:
    """(m,) output tokens that each chunk carried; the chunks of a request add up to its output tokens."""
    counts, rows = table.chunk_counts, table.chunk_rows
    outputs = np.where(table.output_tokens == UNKNOWN, 0, table.output_tokens).astype(np.float64)
    evenly = outputs[rows] / counts[rows]
    cumulative = table.chunk_tokens.astype(np.float64)
    counted = np.diff(cumulative, prepend=0.0)
    filled = counts > 0
    firsts, lasts = table.chunk_offsets[:-1][filled], table.chunk_offsets[1:][filled] - 1
    counted[firsts] = cumulative[firsts]
    said = (table.output_tokens != UNKNOWN)[filled]
    # The final usage is the truth: what the running count missed came with the last chunk.
    counted[lasts[said]] += outputs[filled][said] - cumulative[lasts[said]]
    return np.where(table.chunk_tokens == UNKNOWN, evenly, counted)
