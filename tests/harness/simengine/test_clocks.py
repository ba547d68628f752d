import asyncio
import json
import time

import numpy as np
import pytest
from http_engine import RATES, ask, engine
from simulated_points import LIMITS, aggregated, make_point

from mtpbench.load.pacer import RequestCounts, Schedule
from mtpbench.records import Load, Workload
from mtpbench.simengine.virtual import simulate_point
from mtpbench.workload import draw_lengths

SPEED = 2.0
TOLERANCE = 0.15
"""Of throughput and mean TPOT between the two clocks, on a machine that is busy otherwise."""
POINT = make_point(aggregated(1, "TP8"), 4, 3, workload=Workload(isl=64, osl=80, range_ratio=0.8))


async def drive(session, url, lengths, slots):
    """A closed loop over HTTP: (seconds of engine time, TPOT of each request)."""
    tpots = []
    indices = iter(range(len(lengths.prompt_tokens)))

    async def one(index):
        body = ask(int(lengths.output_tokens[index]), int(lengths.prompt_tokens[index]))
        first = last = 0.0
        async with session.post(f"{url}/v1/completions", json=body) as response:
            async for line in response.content:
                if line.startswith(b"data: {") and json.loads(line[6:])["choices"]:
                    last = time.monotonic()
                    first = first or last
        tpots.append(SPEED * (last - first) / (body["max_tokens"] - 1))

    async def slot():
        for index in indices:
            await one(index)

    began = time.monotonic()
    await asyncio.gather(*(slot() for _ in range(slots)))
    return SPEED * (time.monotonic() - began), np.array(tpots)


def test_the_scaled_and_the_virtual_clock_agree():
    """One seed, 24 requests: throughput and mean TPOT within 15%."""
    lengths = draw_lengths(POINT.workload, 24, POINT.seed)
    schedule = Schedule.independent(Load(), RequestCounts(warmup=0, measured=24), 4, POINT.seed)
    table = simulate_point(POINT, LIMITS, lengths, schedule).requests
    virtual_s = table.end_s.max()
    virtual_tpot = ((table.last_chunk_s - table.first_chunk_s) / (table.output_tokens - 1)).mean()

    async def measured():
        async with engine("--acceptance-rates", RATES, "--seed", str(POINT.seed), speed=SPEED) as (
            session,
            url,
        ):
            return await drive(session, url, lengths, 4)

    scaled_s, tpots = asyncio.run(measured())
    assert len(tpots) == 24
    assert scaled_s == pytest.approx(virtual_s, rel=TOLERANCE)
    assert tpots.mean() == pytest.approx(virtual_tpot, rel=TOLERANCE)
