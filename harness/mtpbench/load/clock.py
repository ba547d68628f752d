"""The one clock of a point: engine seconds since its origin, shared by the client and the samplers."""

from __future__ import annotations

import time


class PointClock:
    """Engine seconds since the origin: wall seconds × `time_scale`, monotonic.

    Args:
        time_scale: engine seconds per wall second; above 1 only on the embedded engine's scaled clock.
        origin: a `time.perf_counter()` value; now by default.
    """

    def __init__(self, time_scale: float = 1.0, origin: float | None = None) -> None:
        self.time_scale = time_scale
        self.origin = time.perf_counter() if origin is None else origin

    def now(self) -> float:
        """Engine seconds since the origin."""
        return self.at(time.perf_counter())

    def at(self, stamp: float) -> float:
        """Engine seconds since the origin of a `time.perf_counter()` value."""
        return (stamp - self.origin) * self.time_scale

    def wall(self, engine_s: float) -> float:
        """Wall seconds that a stretch of engine seconds takes."""
        return engine_s / self.time_scale
