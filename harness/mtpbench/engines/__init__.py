"""The engines, each a pure module: a point in, a deployment out; metrics text in, counters out.

Engines only describe processes; executors only run them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from mtpbench.records import (
    Deployment,
    EngineLimits,
    Hardware,
    Point,
    SpecCounters,
    SpecGauge,
    WorkerRole,
)


class EngineModule(Protocol):
    """What every module of this package offers."""

    SIMULATED: bool
    """Whether its figures come from a model of an engine."""

    RESET_PATH: str | None
    """POST here empties the prefix cache; None where the engine has no such call."""

    def check(self, point: Point, hardware: Hardware) -> None:
        """Raise UnsupportedError where the engine can't do what the point asks."""

    def deploy(self, point: Point, hardware: Hardware) -> Deployment:
        """The processes of the point's deployment (the same for every point of one deployment key)."""

    def limits(self, point: Point) -> Mapping[WorkerRole, EngineLimits]:
        """The scheduler limits that the point's flags set, by worker role."""

    def counters(self, metrics_text: str) -> SpecCounters | tuple[SpecGauge, ...] | None:
        """What one process's metrics say of speculation: counters, else gauges by rank, else None."""
