"""The engines, each a pure module: a point in, a deployment out; metrics text in, counters out.

Engines only describe processes; executors only run them. What else generic code needs to know of an engine
stands in its module's `ABOUT`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What generic code needs to know of an engine besides what it does.

    Args:
        title: what `mtpbench doctor` calls it; None for what comes with the harness.
        package: the Python distribution whose version goes into provenance; None where it is none.
        modules: Python modules that are there where it is installed, its own first.
        extra: the extra of mtpbench that brings it; None where none does.
        programs: words that its command lines begin with, its own program first.
        environment: prefixes of the variables that steer it, which go into provenance (`VLLM` for `VLLM_…`).
        speculation: further parts of option names that mean speculation, in lower case.
        deaths: patterns by code of `registry.ADVICE`, for lines that it prints before it dies.
        simulates: whether its figures come from a model of an engine.
    """

    title: str | None
    package: str | None = None
    modules: tuple[str, ...] = ()
    extra: str | None = None
    programs: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    speculation: tuple[str, ...] = ()
    deaths: Mapping[str, str] = field(default_factory=dict)
    simulates: bool = False


class EngineModule(Protocol):
    """What every module of this package offers."""

    ABOUT: About

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
