"""The client watching itself: is it the server that is slow, or the one who asks?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from mtpbench.load.clock import PointClock
from mtpbench.records import ClientHealth, RequestRecord
from mtpbench.requests import Floats, RequestTable
from mtpbench.window import inside, mean_in_flight, steady_window

TICK_S = 0.01


class SelfWatch:
    """Measures the event loop's lag with a 10 ms ticker, and the process's CPU share."""

    def __init__(self, clock: PointClock) -> None:
        self._clock = clock
        self._ticks: list[tuple[float, float]] = []
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    async def tick(self) -> None:
        """Run until cancelled: sleep, and note how much later than asked the loop came back."""
        while True:
            due = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            now = time.perf_counter()
            self._ticks.append((now, max(now - due, 0.0)))

    def health(self, requests: Sequence[RequestRecord], concurrency: int) -> ClientHealth:
        """How the client did, over the steady-state window where there is one; times in engine seconds."""
        table = RequestTable.from_records(requests)
        window = steady_window(table, concurrency)
        stamps, lags = np.array(self._ticks, np.float64).reshape(-1, 2).T
        during = inside((stamps - self._clock.origin) * self._clock.time_scale, window) if window else None
        if during is not None and during.any():
            lags = lags[during]
        # The slots' first requests have no schedule: they start together, as fast as the client can.
        later = table.scheduled_s > 0
        wall_s = time.perf_counter() - self._started
        return ClientHealth(
            loop_lag_p99_s=_p99(lags * self._clock.time_scale),
            send_lag_p99_s=_p99((table.sent_s - table.scheduled_s)[later]),
            cpu_share=(time.process_time() - self._cpu_started) / wall_s if wall_s > 0 else None,
            achieved_concurrency=mean_in_flight(table, window) if window else None,
        )


def _p99(values: Floats) -> float | None:
    return float(np.percentile(values, 99)) if len(values) else None
