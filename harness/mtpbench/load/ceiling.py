"""The ceiling of this machine's load client, measured against the built-in mock server.

One client process gets more and more streams at a fixed step. The ceiling is the most events per second at
which its reader was less than one step late (p99) and hardly any read held two steps' events.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from mtpbench.errors import RunError
from mtpbench.load.capacity import SPARE_DESCRIPTORS, STEP_S, Ceiling, Rung, most_descriptors, usable_cores
from mtpbench.load.client import DriveResult, drive
from mtpbench.load.client_spec import ClientSpec
from mtpbench.metrics.window import inside, point_window
from mtpbench.records import Load, Measurement, Workload
from mtpbench.remote import HelperProcess, Host

STREAMS = (128, 512, 1024, 1536, 2048, 3072)
OUTPUT_TOKENS = 128
READY_TIMEOUT_S = 30.0


async def measure_ceiling(on_rung: Callable[[Rung], None]) -> Ceiling:
    """Measures the ceiling in about half a minute.

    Args:
        on_rung: called with each rung when it has been measured.

    Raises:
        RunError: the mock can't be started, or the client kept up with no number of streams.
    """
    limit = most_descriptors()
    rungs: list[Rung] = []
    async with _mock() as url:
        for streams in STREAMS:
            if limit is not None and streams > limit - SPARE_DESCRIPTORS:
                break
            rungs.append(await _measure_rung(url, streams))
            on_rung(rungs[-1])
            if not rungs[-1].kept_up or rungs[-1].mock_was_the_limit:
                break
    in_time = [rung for rung in rungs if rung.kept_up]
    if not in_time:
        raise RunError(
            f"the load client was late already at {STREAMS[0]} streams: this machine is too busy for it"
        )
    return Ceiling(
        events_per_s=max(rung.events_per_s for rung in in_time),
        at_least=rungs[-1].kept_up or rungs[-1].mock_was_the_limit,
        rungs=tuple(rungs),
        measured_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        cores=usable_cores(),
    )


async def _measure_rung(url: str, streams: int) -> Rung:
    spec = ClientSpec(
        base_url=url,
        model_name="mock",
        workload=Workload(isl=16, osl=OUTPUT_TOKENS),
        load=Load(workers=1),
        rules=Measurement(warmup_per_slot=0.25, requests_per_slot=1.5, point_timeout_s=60.0),
        concurrency=streams,
    )
    await _fetch_counts(url)
    driven = await drive(spec)
    counts = await _fetch_counts(url)
    client = driven.client
    coalesced = None
    if client.reads and client.coalesced_reads is not None:
        coalesced = client.coalesced_reads / client.reads
    return Rung(
        streams=streams,
        events_per_s=_events_per_s(driven, streams),
        cpu_share=client.cpu_share,
        lag_p50_s=client.reader_lag_p50_s,
        lag_p99_s=client.reader_lag_p99_s,
        coalesced_share=coalesced,
        mock_late=counts["late_steps"] / max(counts["steps"], 1),
        stamps=client.stamps,
    )


def _events_per_s(driven: DriveResult, streams: int) -> float:
    window = point_window(driven.table, streams, open_loop=False)
    if window is None:
        return 0.0
    return float(inside(driven.table.chunk_times_s, window).sum() / window.duration_s)


@contextlib.asynccontextmanager
async def _mock() -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory(prefix="mtpbench-mock-") as folder:
        arguments = ("--step-ms", str(STEP_S * 1e3), "--end-with-input")
        name, errors = "the built-in mock server", Path(folder) / "stderr"
        helper = await HelperProcess.start(name, Host(name="here"), "mtpbench.load.mock", arguments, errors)
        try:
            yield f"http://127.0.0.1:{(await helper.ready(READY_TIMEOUT_S))['port']}"
        finally:
            await helper.stop()


async def _fetch_counts(url: str) -> Mapping[str, int]:
    """Fetches the mock's counts since they were last fetched."""
    async with aiohttp.ClientSession(trust_env=False) as session, session.get(f"{url}/stats") as response:
        return await response.json()  # type: ignore[no-any-return]
