"""The planner's closed form against the discrete-event model that has the same step costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtpbench.engines import engine_of
from mtpbench.load.pacer import RequestCounts, Schedule
from mtpbench.metrics.window import whole_window
from mtpbench.plan import estimate_point
from mtpbench.simengine.profile import load_profile
from mtpbench.simengine.virtual import simulate_point
from mtpbench.sweep import load_sweep, simulate
from mtpbench.workload import draw_lengths

POINTS = ["off_1xTP8-1xTP8_c1_", "off_1xDEP8-4xTP8_c64_", "mtp_1xDEP8-6xTP8_c32_", "off_1xDEP8-2xDEP16_c256_"]


@pytest.mark.parametrize("start", POINTS)
def test_the_estimate_is_near_what_the_embedded_engine_takes(sweeps: Path, start: str) -> None:
    sweep = simulate(load_sweep(sweeps / "dsv4-gb200-sglang.yaml"))
    point = next(point for point in sweep.points if point.id.startswith(start))
    counts = RequestCounts.of(point.concurrency, point.measurement)
    schedule = Schedule.independent(point.load, counts, point.concurrency, point.seed)
    lengths = draw_lengths(point.workload, counts.total, point.seed)
    run = simulate_point(point, engine_of(point).limits(point), lengths, schedule)
    window = whole_window(run.requests)
    assert window is not None
    estimate = estimate_point(point, load_profile("dsv4-gb200"))
    assert estimate.requests == len(run.requests)
    assert estimate.load_s == pytest.approx(window.duration_s, rel=0.12)
