"""Drives a point's load: processes started, progress told, results merged. No request raises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

from mtpbench.errors import InputError
from mtpbench.load.address import resolve
from mtpbench.load.capacity import EVENTS_PER_STREAM, known, workers_for
from mtpbench.load.harvest import DriveResult, collect
from mtpbench.load.job import Job
from mtpbench.load.pacer import Schedule
from mtpbench.load.pool import Pool
from mtpbench.remote import Host


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadProgress:
    """How far a point has come.

    Args:
        elapsed_s: engine seconds since the point's origin.
        ended: requests that ended, failed ones included.
        failed: those that failed.
        total: requests that the point will send.
        in_flight: requests sent and not yet ended.
        output_tokens: output tokens so far (chunks where the server does not count along).
    """

    elapsed_s: float
    ended: int
    failed: int
    total: int
    in_flight: int
    output_tokens: int


async def drive(
    job: Job,
    *,
    events_per_s: float | None = None,
    progress: Callable[[LoadProgress], None] | None = None,
    stop: asyncio.Event | None = None,
    on_origin: Callable[[float], None] | None = None,
    hosts: Sequence[Host] = (),
) -> DriveResult:
    """Send a job's requests and record every one of them.

    Whatever happens to a request is its record. A server that refuses max(2C, 20) connections in a row ends
    the run.

    Args:
        job: the load, and the server that it is for.
        events_per_s: what is expected of the server, in wall seconds; decides how many client processes there
            are where the job does not say. None for a guess from the concurrency.
        progress: called about four times a second, and once at the end.
        stop: when set, the run is cut off like at the point's timeout.
        hosts: other hosts that the client processes run on, dealt in turn; none for this host.
        on_origin: told the `time.perf_counter()` value of the point's second 0, for others who stamp on it.

    Raises:
        InputError: the job's own files can't be used.
        RunError: the server's host has no address, or a client process could not be started.
    """
    job = replace(job, load=replace(job.load, transport=choose_transport(job)))
    await asyncio.to_thread(resolve, job.base_url)
    prompts, schedule = job.prepare()
    async with Pool(job, choose_workers(job, events_per_s), hosts) as pool:
        origin_ns = pool.start(lambda: progress(_progress(pool, schedule, origin_ns)) if progress else None)
        if on_origin is not None:
            on_origin(origin_ns * 1e-9)
        stopping = asyncio.create_task(_stop_when(stop, pool)) if stop is not None else None
        try:
            await pool.wait()
        finally:
            if stopping is not None:
                stopping.cancel()
        if progress is not None:
            progress(_progress(pool, schedule, origin_ns))
        return collect(pool, job, (prompts, schedule), origin_ns)


def choose_transport(job: Job) -> Literal["fast", "aiohttp"]:
    """`fast` or `aiohttp`: what the job asks for, or what its address allows."""
    plain = urlsplit(job.base_url).scheme == "http"
    if job.load.transport == "fast" and not plain:
        raise InputError(f"load.transport: fast speaks no TLS ({job.base_url}); auto and aiohttp do")
    if job.load.transport != "auto":
        return job.load.transport
    return "fast" if plain else "aiohttp"


def choose_workers(job: Job, events_per_s: float | None) -> int:
    """Client processes for a job: its own number, or as many as its events need; no more than slots."""
    expected = (
        events_per_s if events_per_s is not None else job.concurrency * EVENTS_PER_STREAM * job.time_scale
    )
    return min(job.load.workers or workers_for(expected, known()), job.concurrency)


async def _stop_when(stop: asyncio.Event, pool: Pool) -> None:
    await stop.wait()
    pool.stop()


def _progress(pool: Pool, schedule: Schedule, origin_ns: int) -> LoadProgress:
    return LoadProgress(
        elapsed_s=(time.perf_counter_ns() - origin_ns) * 1e-9 * schedule.time_scale,
        ended=pool.total("ended"),
        failed=pool.total("failed"),
        total=schedule.total,
        in_flight=pool.total("in_flight"),
        output_tokens=pool.total("output_tokens"),
    )
