"""What the processes of a load client left behind, as one result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtpbench.load.health import ClientFacts, Notes, judge_client
from mtpbench.load.job import Job
from mtpbench.load.ledger import Death, read_table
from mtpbench.load.limits import local_ports
from mtpbench.load.pacer import Schedule
from mtpbench.load.pool import Pool
from mtpbench.metrics.request_table import RequestTable
from mtpbench.records import ClientHealth
from mtpbench.workload import Prompts


@dataclass(frozen=True, kw_only=True, eq=False)
class DriveResult:
    """What a load run leaves behind.

    Args:
        table: every request that was sent, ordered by index.
        client: how the client itself did, in engine seconds.
        origin: the `time.perf_counter()` value of the point's second 0.
        server_unreachable: whether the run ended early because nobody accepts connections any more.
        cut_off: `point_timeout` or `stopped` where the run was ended before its last request, or None.
        client_failed: how a client process died, or None.
        notes: what a reader should know besides.
    """

    table: RequestTable
    client: ClientHealth
    origin: float
    server_unreachable: bool
    cut_off: str | None
    client_failed: str | None
    notes: tuple[str, ...]


def collect(pool: Pool, job: Job, plan: tuple[Prompts, Schedule], origin_ns: int) -> DriveResult:
    """The result of a pool whose processes have ended.

    Args:
        pool: the processes.
        job: what they did.
        plan: the requests and their schedule, as every process had them.
        origin_ns: the `time.perf_counter_ns()` value of the run's second 0.
    """
    prompts, schedule = plan
    summaries = {m.number: summary for m in pool.members if (summary := pool.summary(m)) is not None}
    deaths = [
        Death(
            worker=member.number,
            at_us=int(((member.ended_at or 0.0) * 1e9 - origin_ns) / 1000),
            detail=pool.obituary(member),
        )
        for member in pool.members
        if member.number not in summaries
    ]
    table = read_table(pool.directory, schedule, pool.count, deaths, prompts.lengths)
    said = tuple(summaries.values())
    client = judge_client(
        [_notes(pool, number) for number in summaries],
        _facts(job, said, pool),
        table,
        job.concurrency,
        job.time_scale,
        open_loop=job.load.open,
    )
    return DriveResult(
        table=table,
        client=client,
        origin=origin_ns * 1e-9,
        server_unreachable=any(summary["unreachable"] for summary in said),
        cut_off=next((summary["cut_off"] for summary in said if summary["cut_off"]), None),
        client_failed=deaths[0].detail if deaths else None,
        notes=(*prompts.notes, *_remarks(said, client)),
    )


def _facts(job: Job, said: Sequence[dict[str, Any]], pool: Pool) -> ClientFacts:
    workers = pool.count
    stamps = {summary["stamps"] for summary in said}
    kernel = stamps == {"kernel"}

    def furthest_s(name: str) -> float | None:
        moved = [abs(int(summary[name])) for summary in said] if kernel else []
        return max(moved) * 1e-6 if moved else None

    return ClientFacts(
        transport=job.load.transport,
        stamps="kernel" if kernel else "user" if stamps else None,
        workers=workers,
        hosts=pool.hosts,
        host_clock_error_s=pool.clock_error_s,
        # A process that died took its counts with it: what is left of them is no count of the whole.
        late_starts=_total(said, "waited") if len(said) == workers else None,
        unsent=_total(said, "unsent") if len(said) == workers else None,
        clock_drift_s=furthest_s("clock_drift_us"),
        clock_step_s=furthest_s("clock_step_us"),
        descriptor_limit=min((int(summary["descriptors"]) for summary in said), default=None),
        local_ports=local_ports(),
        peak_rss_bytes=_total(said, "peak_rss_bytes") if len(said) == workers else None,
    )


def _remarks(said: Sequence[dict[str, Any]], client: ClientHealth) -> list[str]:
    """What a reader should know besides."""
    remarks = []
    if missed := _total(said, "missed_done"):
        remarks.append(f"{missed} streams ended without [DONE] but with usage and a finish reason")
    if retried := _total(said, "retried"):
        remarks.append(f"{retried} requests were sent again: the server had closed their kept connection")
    if any(summary["unreachable"] for summary in said):
        refused = _total(said, "refused")
        remarks.append(f"{refused} connections in a row were refused: the rest was not sent")
    if client.clock_step_s:
        remarks.append(
            f"the wall clock stepped by {client.clock_step_s:.3g} s: kernel stamps near that are off"
        )
    return remarks


def _total(said: Sequence[dict[str, Any]], name: str) -> int:
    return sum(int(summary[name]) for summary in said)


def _notes(pool: Pool, number: int) -> Notes:
    with np.load(pool.directory / f"{number}.watch.npz") as saved:
        return Notes(ticks=saved["ticks"], lags=saved["lags"])
