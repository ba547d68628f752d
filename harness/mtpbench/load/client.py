"""The load client sends a point's load: it starts processes, reports progress, and collects their records.

A request that fails raises nothing: its failure is its record.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

from mtpbench.errors import InputError, RunError
from mtpbench.load.capacity import EVENTS_PER_STREAM, least_workers, local_ports, stored_ceiling, workers_for
from mtpbench.load.client_spec import ClientSpec
from mtpbench.load.connection_pool import resolve
from mtpbench.load.pacer import Schedule
from mtpbench.load.request_log import WorkerDeath, read_table
from mtpbench.load.worker_pool import WorkerPool
from mtpbench.metrics.request_table import Floats, Ints, RequestTable
from mtpbench.metrics.window import (
    Window,
    in_flight_over_time,
    inside,
    mean_in_flight,
    point_window,
    seconds_inside,
    sending_window,
)
from mtpbench.records import ClientHealth
from mtpbench.remote import Host
from mtpbench.workload import Prompts


@dataclass(frozen=True, kw_only=True, eq=False)
class DriveResult:
    """The result of a load: its requests, and how the client did.

    Args:
        table: every request that was sent, ordered by index.
        client: the health of the client itself, in engine seconds.
        origin: the `time.perf_counter()` value of the point's second 0.
        server_unreachable: whether the run ended early because the server refused connections.
        cut_off: `point_timeout` or `stopped` where the run was ended before its last request, or None.
        client_failed: how a client process died, or None.
        notes: remarks for readers of the result.
    """

    table: RequestTable
    client: ClientHealth
    origin: float
    server_unreachable: bool
    cut_off: str | None
    client_failed: str | None
    notes: tuple[str, ...]


def collect(
    pool: WorkerPool, spec: ClientSpec, prompts: Prompts, schedule: Schedule, origin_ns: int
) -> DriveResult:
    """Collects the result of a pool whose processes have ended.

    Args:
        pool: the processes.
        spec: the load that they sent.
        prompts: the requests, as every process had them.
        schedule: when the requests were due.
        origin_ns: the `time.perf_counter_ns()` value of the run's second 0.
    """
    summaries = {m.number: summary for m in pool.members if (summary := pool.summary(m)) is not None}
    deaths = [
        WorkerDeath(
            worker=member.number,
            at_us=int((pool.end_of(member) * 1e9 - origin_ns) / 1000),
            detail=pool.describe_death(member),
        )
        for member in pool.members
        if member.number not in summaries
    ]
    table = read_table(pool.directory, schedule, pool.count, deaths, prompts.lengths)
    if prompts.categories is not None:
        table = dataclasses.replace(table, category=prompts.categories[table.index])
    written = tuple(summaries.values())
    client = judge_client(
        [_load_notes(pool, number) for number in summaries],
        _describe_processes(spec, written, pool),
        table,
        spec.concurrency,
        spec.time_scale,
        open_loop=spec.load.open,
        ramp_s=spec.load.ramp_s,
    )
    return DriveResult(
        table=table,
        client=client,
        origin=origin_ns * 1e-9,
        server_unreachable=any(summary["unreachable"] for summary in written),
        cut_off=next((summary["cut_off"] for summary in written if summary["cut_off"]), None),
        client_failed=deaths[0].detail if deaths else None,
        notes=(*prompts.notes, *_remarks(written, client)),
    )


def _describe_processes(
    spec: ClientSpec, summaries: Sequence[dict[str, Any]], pool: WorkerPool
) -> ClientHealth:
    """Returns the client's transport, stamps, counts and limits; the rest of its health is unknown here."""
    workers = pool.count
    stamps = {summary["stamps"] for summary in summaries}
    kernel = stamps == {"kernel"}

    def furthest_s(name: str) -> float | None:
        offsets_us = [abs(int(summary[name])) for summary in summaries] if kernel else []
        return max(offsets_us) * 1e-6 if offsets_us else None

    return ClientHealth(
        transport=spec.load.transport,
        stamps="kernel" if kernel else "user" if stamps else None,
        workers=workers,
        hosts=pool.hosts,
        host_clock_error_s=pool.clock_error_s,
        # The counts of a process that died are lost: those of the others are no count of the whole.
        late_starts=_total(summaries, "waited") if len(summaries) == workers else None,
        unsent=_total(summaries, "unsent") if len(summaries) == workers else None,
        clock_drift_s=furthest_s("clock_drift_us"),
        clock_step_s=furthest_s("clock_step_us"),
        misstamped_reads=_total(summaries, "misstamped") if kernel else None,
        descriptor_limit=min((int(summary["descriptors"]) for summary in summaries), default=None),
        local_ports=local_ports(),
        peak_rss_bytes=_total(summaries, "peak_rss_bytes") if len(summaries) == workers else None,
    )


def _remarks(summaries: Sequence[dict[str, Any]], client: ClientHealth) -> list[str]:
    """Returns remarks on the load for readers of the result."""
    remarks = []
    if client.pauses:
        remarks.append(
            f"slots paused {client.pauses} times after requests that were refused, or failed at once"
            + (f": {client.paused_s:.3g} s while requests were sent, all together" if client.paused_s else "")
        )
    if missed := _total(summaries, "missed_done"):
        remarks.append(f"{missed} streams ended without [DONE] but with usage and a finish reason")
    if retried := _total(summaries, "retried"):
        remarks.append(f"{retried} requests were sent again: the server had closed their kept connection")
    if any(summary["unreachable"] for summary in summaries):
        refused = _total(summaries, "refused")
        remarks.append(f"{refused} connections in a row were refused: the rest was not sent")
    if client.clock_step_s:
        remarks.append(
            f"the wall clock stepped by {client.clock_step_s:.3g} s: the client stamped "
            f"{_total(summaries, 'user_stamped')} reads near that itself"
        )
    return remarks


def _total(summaries: Sequence[dict[str, Any]], name: str) -> int:
    return sum(int(summary[name]) for summary in summaries)


def _load_notes(pool: WorkerPool, number: int) -> ProcessNotes:
    with np.load(pool.directory / f"{number}.monitor.npz") as saved:
        return ProcessNotes(ticks=saved["ticks"], lags=saved["lags"], pauses=saved["pauses"])


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadProgress:
    """The progress of a point's load.

    Args:
        elapsed_s: engine seconds since the point's origin.
        ended: requests that ended, failed ones included.
        failed: ended requests that failed.
        total: requests that the point will send.
        in_flight: requests sent and not yet ended.
        output_tokens: output tokens so far; chunks where the server gives no running count.
    """

    elapsed_s: float
    ended: int
    failed: int
    total: int
    in_flight: int
    output_tokens: int


async def drive(
    spec: ClientSpec,
    *,
    events_per_s: float | None = None,
    progress: Callable[[LoadProgress], None] | None = None,
    stop: asyncio.Event | None = None,
    on_origin: Callable[[float], None] | None = None,
    hosts: Sequence[Host] = (),
) -> DriveResult:
    """Sends a load's requests and records every one of them, failed ones too.

    A server that refuses max(2C, 20) connections in a row ends the run.

    Args:
        spec: the load and its server.
        events_per_s: events per wall second that the server is expected to send. They decide how many client
            processes there are if the load does not. None for an estimate from the concurrency.
        progress: called about four times a second, and once at the end.
        stop: when set, the run is cut off as at the point's timeout.
        hosts: other hosts that the client processes run on, in turn; none for this host.
        on_origin: called with the `time.perf_counter()` value of the point's second 0.

    Raises:
        InputError: the workload's files can't be used.
        RunError: the server's host has no address, or a client process could not be started.
    """
    spec = dataclasses.replace(spec, load=dataclasses.replace(spec.load, transport=choose_transport(spec)))
    await asyncio.to_thread(resolve, spec.base_url)
    prompts, schedule = spec.prepare()
    pool = WorkerPool(spec, choose_workers(spec, events_per_s), hosts)
    stopping = asyncio.create_task(_stop_when(stop, pool)) if stop is not None else None
    try:
        async with pool:
            origin_ns = pool.start(
                lambda: progress(_progress(pool, schedule, origin_ns)) if progress else None
            )
            if on_origin is not None:
                on_origin(origin_ns * 1e-9)
            await pool.wait()
            if progress is not None:
                progress(_progress(pool, schedule, origin_ns))
            return collect(pool, spec, prompts, schedule, origin_ns)
    except RunError as death:
        if stop is None or not stop.is_set() or pool.started:
            raise
        return _nothing_sent(death)
    finally:
        if stopping is not None:
            stopping.cancel()


def _nothing_sent(death: RunError) -> DriveResult:
    """Returns the result of a load that was stopped before its processes were ready."""
    return DriveResult(
        table=RequestTable.from_records([]),
        client=ClientHealth(),
        origin=time.perf_counter(),
        server_unreachable=False,
        cut_off="stopped",
        client_failed=str(death),
        notes=(),
    )


def choose_transport(spec: ClientSpec) -> Literal["fast", "aiohttp"]:
    """Returns the transport that the load names, or with `auto` the one that its address allows.

    Raises:
        InputError: the load names `fast` for an address that needs TLS.
    """
    plain = urlsplit(spec.base_url).scheme == "http"
    if spec.load.transport == "fast" and not plain:
        raise InputError(f"load.transport: fast speaks no TLS ({spec.base_url}); auto and aiohttp do")
    if spec.load.transport != "auto":
        return spec.load.transport
    return "fast" if plain else "aiohttp"


def choose_workers(spec: ClientSpec, events_per_s: float | None) -> int:
    """Returns how many client processes a load has: its own, or as many as its events and open files need.

    There are never more processes than slots.
    """
    expected = (
        events_per_s if events_per_s is not None else spec.concurrency * EVENTS_PER_STREAM * spec.time_scale
    )
    enough = max(workers_for(expected, stored_ceiling()), least_workers(spec.concurrency))
    return min(spec.load.workers or enough, spec.concurrency)


async def _stop_when(stop: asyncio.Event, pool: WorkerPool) -> None:
    await stop.wait()
    pool.stop()


def _progress(pool: WorkerPool, schedule: Schedule, origin_ns: int) -> LoadProgress:
    return LoadProgress(
        elapsed_s=(time.perf_counter_ns() - origin_ns) * 1e-9 * schedule.time_scale,
        ended=pool.total("ended"),
        failed=pool.total("failed"),
        total=schedule.total,
        in_flight=pool.total("in_flight"),
        output_tokens=pool.total("output_tokens"),
    )


PARTS = 20
"""Equal parts of the window, for each of which the concurrency is given."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ProcessNotes:
    """The notes of one process's monitor.

    Args:
        ticks: (t, 5) at_us, reads, coalesced, cpu_us, in_flight; the three in the middle are cumulative.
        lags: (l, 2) at_us, lag_us.
        pauses: (p, 2) when each pause of a slot began and was to end, in microseconds.
    """

    ticks: Ints
    lags: Ints
    pauses: Ints


def judge_client(
    notes: Sequence[ProcessNotes],
    processes: ClientHealth,
    table: RequestTable,
    concurrency: int,
    scale: float,
    *,
    open_loop: bool,
    ramp_s: float = 0.0,
) -> ClientHealth:
    """Computes the health of the client over the steady-state window.

    Args:
        notes: those of each process that ended in order.
        processes: the client's transport, stamps, counts and limits.
        table: the requests, in engine time.
        concurrency: slots of the load.
        scale: engine seconds per wall second.
        open_loop: whether requests started by the clock.
        ramp_s: engine seconds over which the load rose.
    """
    window = point_window(table, concurrency, open_loop=open_loop, ramp_s=ramp_s)
    lags = np.concatenate([_lags_s(note, window, scale) for note in notes]) if notes else np.empty(0)
    reads, coalesced, cpu = (_sums(notes, column, window, scale) for column in (1, 2, 3))
    wall_s = (window.duration_s / scale) if window else None
    # The slots' first requests have no schedule: they start together, as fast as the client can.
    later = (table.scheduled_us > 0) if not open_loop else np.ones(len(table), np.bool_)
    send_lags = (table.sent_s - table.scheduled_s)[later & ~table.warmup]
    sending, whole = sending_window(table), len(notes) == processes.workers
    return dataclasses.replace(
        processes,
        pauses=sum(len(note.pauses) for note in notes) if whole else None,
        paused_s=_paused_s(notes, sending, scale) if whole and sending else None,
        paused_slots=_paused_s(notes, window, scale) / window.duration_s if whole and window else None,
        reader_lag_p50_s=_percentile(lags, 50),
        reader_lag_p99_s=_percentile(lags, 99),
        send_lag_p50_s=_percentile(send_lags, 50),
        send_lag_p99_s=_percentile(send_lags, 99),
        reads=round(sum(reads)) if reads else None,
        coalesced_reads=round(sum(coalesced)) if coalesced else None,
        cpu_share=max(cpu) * 1e-6 / wall_s if cpu and wall_s else None,
        achieved_concurrency=mean_in_flight(table, window) if window else None,
        concurrency_over_time=in_flight_over_time(table, window, PARTS) if window else (),
    )


def _lags_s(note: ProcessNotes, window: Window | None, scale: float) -> Floats:
    """Returns the lags inside the window, in engine seconds; all lags if none lies inside."""
    at_s, lag_s = np.asarray(note.lags * (1e-6 * scale), np.float64).T
    during = inside(at_s, window) if window else np.ones(len(at_s), np.bool_)
    return np.asarray(lag_s[during] if during.any() else lag_s)


def _sums(notes: Sequence[ProcessNotes], column: int, window: Window | None, scale: float) -> list[float]:
    """Returns how much a cumulative column rose over the window, for each process with two ticks."""
    if window is None:
        return []
    rises = []
    for note in notes:
        if len(note.ticks) > 1:
            at_s, values = note.ticks[:, 0] * (1e-6 * scale), note.ticks[:, column]
            first, last = np.interp([window.start_s, window.end_s], at_s, values)
            rises.append(float(last - first))
    return rises


def _paused_s(notes: Sequence[ProcessNotes], window: Window, scale: float) -> float:
    """Returns how long slots paused in the window, all together, in engine seconds."""
    begin_s, end_s = np.concatenate([note.pauses for note in notes]).T * (1e-6 * scale)
    return float(seconds_inside(begin_s, end_s, window).sum())


def _percentile(values: Floats, percent: float) -> float | None:
    return float(np.percentile(values, percent)) if len(values) else None
