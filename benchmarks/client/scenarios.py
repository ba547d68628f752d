"""The loads that every client is put under; which of them, and how often, a run measures."""

from __future__ import annotations

from dataclasses import dataclass

HEAVY_EVENTS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """A load and the mock server's pace; closed loop with `concurrency`, open loop with `rate_per_s`.

    `quick` scenarios are those of `--quick`; `slow_too` are those that slow clients run by default;
    `drained` is not a load but workers.py's, which only our own client can do.
    """

    name: str
    title: str
    requests: int
    step_ms: float
    ttft_ms: float
    concurrency: int | None = None
    rate_per_s: float | None = None
    osl: int = 64
    isl: int = 500
    quick: bool = False
    slow_too: bool = False
    drained: bool = False

    @property
    def heavy(self) -> bool:
        """Whether it takes a client of 50 µs per event most of a minute."""
        return self.requests * self.osl > HEAVY_EVENTS


SCENARIOS = (
    Scenario(
        name="c64",
        title="C 64, 20 ms steps",
        concurrency=64,
        step_ms=20,
        ttft_ms=50,
        requests=256,
        quick=True,
        slow_too=True,
    ),
    Scenario(
        name="c512",
        title="C 512, 50 ms steps",
        concurrency=512,
        step_ms=50,
        ttft_ms=100,
        requests=1024,
    ),
    Scenario(
        name="c2048",
        title="C 2048, 200 ms steps",
        concurrency=2048,
        step_ms=200,
        ttft_ms=400,
        requests=2048,
        quick=True,
        slow_too=True,
    ),
    Scenario(
        name="saturated",
        title="saturated: C 2048, 20 ms steps",
        concurrency=2048,
        step_ms=20,
        ttft_ms=50,
        requests=8192,
        isl=100,
        quick=True,
    ),
    Scenario(
        name="c16384",
        title="C 16384, 200 ms steps",
        concurrency=16384,
        step_ms=200,
        ttft_ms=1000,
        requests=16384,
        isl=100,
    ),
    Scenario(
        name="open200",
        title="open loop, 200 requests/s",
        rate_per_s=200,
        step_ms=20,
        ttft_ms=50,
        requests=1000,
        quick=True,
    ),
    Scenario(
        name="open1000",
        title="open loop, 1000 requests/s",
        rate_per_s=1000,
        step_ms=20,
        ttft_ms=50,
        requests=4000,
        isl=100,
    ),
    Scenario(
        name="start",
        title="a burst of 2048 requests, no token for 5 s",
        concurrency=2048,
        step_ms=20,
        ttft_ms=5000,
        requests=2048,
        osl=1,
    ),
    Scenario(
        name="workers",
        title="two workers on two cores against one",
        concurrency=2048,
        step_ms=40,
        ttft_ms=1000,
        requests=2048,
        isl=100,
        drained=True,
    ),
)
