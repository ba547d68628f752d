"""Does the load client see what the embedded engine itself stamped, at 4,096 streams, also when it is slow?

    python benchmarks/agreement.py [CONCURRENCY]

Three runs on the same engine: the fast transport, the fast transport with a reader that sleeps 0.45 s
after every round, and aiohttp. Printed: mean TTFT and TPOT of the client beside the engine's own (from
`GET /internal/timings`), their difference, and what the point's validity says. SIMULATED: the engine is a
model; what is measured here is the client.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import tempfile
from pathlib import Path

import aiohttp
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from mtpbench import hardware
from mtpbench.deployment import LiveDeployment
from mtpbench.engines import engine_of
from mtpbench.executors.local import LocalExecutor
from mtpbench.load.client import DriveResult, drive
from mtpbench.load.client_spec import ClientSpec
from mtpbench.measure import measure
from mtpbench.records import Load, Point, PointResult, RunFacts
from mtpbench.store import RawPoint
from mtpbench.sweep import load_sweep

SWEEP = Path(__file__).with_name("agreement.yaml")
SLOWED_S = 0.45
WAYS = (
    ("fast", Load(workers=1, transport="fast"), 0.0),
    (f"fast, slowed by {SLOWED_S:g} s", Load(workers=1, transport="fast"), SLOWED_S),
    ("aiohttp", Load(workers=1, transport="aiohttp"), 0.0),
)


def client_means_s(driven: DriveResult) -> tuple[float, float]:
    """Mean TTFT and TPOT over all requests, by the same formula as the engine's."""
    table = driven.table
    chunks = table.chunk_counts > 0
    first, last = table.first_chunk_s[chunks], table.last_chunk_s[chunks]
    later = np.maximum(table.output_tokens[chunks] - 1, 1)
    return float((first - table.sent_s[chunks]).mean()), float(((last - first) / later).mean())


async def engine_means_s(url: str) -> tuple[float, float, float]:
    """The engine's mean TTFT and TPOT, and how late its own steps were at most; forgets them then."""
    async with aiohttp.ClientSession(trust_env=False) as session:
        async with session.get(f"{url}/internal/timings") as answer:
            rows = await answer.json()
        async with session.post(f"{url}/internal/timings/reset"):
            pass
    names = ("received_ns", "first_token_ns", "last_token_ns", "output_tokens")
    received, first, last, tokens = (np.array(rows[name], np.float64) for name in names)
    tpot_ns = (last - first) / np.maximum(tokens - 1, 1)
    return (
        float((first - received).mean()) * 1e-9,
        float(tpot_ns.mean()) * 1e-9,
        rows["schedule"]["late_max_s"],
    )


async def run(point: Point) -> None:
    deployment = engine_of(point).deploy(point, hardware.lookup(point.hardware))
    table = Table(box=box.SIMPLE_HEAD, title="client against engine, SIMULATED", title_justify="left")
    for heading in (
        "client",
        "TTFT s",
        "engine",
        "diff",
        "TPOT ms",
        "engine",
        "diff",
        "read late p99",
        "stamps",
    ):
        table.add_column(
            heading, justify="left" if heading in ("client", "stamps") else "right", no_wrap=True
        )
    said = []
    with tempfile.TemporaryDirectory() as folder:
        async with LiveDeployment(deployment, LocalExecutor(Path(folder)), 60.0) as live:
            for name, load, handicap_s in WAYS:
                measured = dataclasses.replace(point, load=load)
                spec = ClientSpec.of(
                    measured, live.base_url, deployment.model_name, deployment.time_scale, True
                )
                driven = await drive(dataclasses.replace(spec, handicap_s=handicap_s))
                ttft, tpot = client_means_s(driven)
                own_ttft, own_tpot, late = await engine_means_s(live.base_url)
                result = measure(
                    measured,
                    RawPoint(requests=driven.table, client=driven.client, facts=RunFacts(notes=driven.notes)),
                )
                lag = driven.client.reader_lag_p99_s
                table.add_row(
                    name,
                    f"{ttft:.3f}",
                    f"{own_ttft:.3f}",
                    f"{ttft / own_ttft - 1:+.2%}",
                    f"{tpot * 1e3:.2f}",
                    f"{own_tpot * 1e3:.2f}",
                    f"{tpot / own_tpot - 1:+.2%}",
                    "–" if lag is None else f"{lag * 1e3:.1f} ms",
                    str(driven.client.stamps),
                )
                said.append(
                    f"{name}: {verdict(result)}; the engine's steps were late by {late * 1e3:.1f} ms at most"
                )
    console = Console(width=130)
    console.print(table)
    for line in said:
        console.print(line, highlight=False, soft_wrap=True)


def verdict(result: PointResult) -> str:
    """What the validity rules say of the client."""
    reasons = [reason for reason in result.reasons if reason.code.startswith("client")]
    return "; ".join(f"{reason.code}: {reason.detail}" for reason in reasons) or "the client kept up"


if __name__ == "__main__":
    (chosen,) = load_sweep(SWEEP).points
    if len(sys.argv) > 1:
        chosen = dataclasses.replace(chosen, concurrency=int(sys.argv[1]))
    asyncio.run(run(chosen))
