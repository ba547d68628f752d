"""Pure: what a sweep would do, without doing it: deployments, nodes, GPUs, command lines, time, money."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from mtpbench import hardware
from mtpbench.engines.registry import engine_of
from mtpbench.errors import InputError
from mtpbench.estimate import estimate_point, start_s
from mtpbench.records import Deployment, Point, Process
from mtpbench.simengine.profile import load_profile
from mtpbench.sweep import Sweep

PLANNING_PROFILE: Mapping[str, str] = {"gb200-nvl72": "dsv4-gb200"}
"""The step costs that estimates use, by hardware; other hardware has none yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedLadder:
    """One deployment: its points in order, what is started, and what it is expected to take.

    `hours` are wall hours with the start included; None with a `reason` where nothing estimates them.
    """

    points: tuple[Point, ...]
    deployment: Deployment
    requests: int | None
    hours: float | None
    reason: str | None = None

    @property
    def gpu_hours(self) -> float | None:
        """Hours × GPUs; None where the hours are unknown, and on the embedded engine, which needs no GPU."""
        if self.hours is None or self.points[0].simulation:
            return None
        return self.hours * self.deployment.gpus


def plan_sweep(sweep: Sweep) -> tuple[PlannedLadder, ...]:
    """Every deployment of a sweep."""
    return tuple(_plan_ladder(ladder) for ladder in sweep.deployments)


def _plan_ladder(ladder: tuple[Point, ...]) -> PlannedLadder:
    first = ladder[0]
    deployment = engine_of(first).deploy(first, hardware.lookup(first.hardware))
    name = planning_profile(first)
    if name is None:
        reason = f"no step costs for {first.hardware} to estimate with"
        return PlannedLadder(points=ladder, deployment=deployment, requests=None, hours=None, reason=reason)
    try:
        estimates = [estimate_point(point, load_profile(name)) for point in ladder]
    except InputError as error:
        return PlannedLadder(
            points=ladder, deployment=deployment, requests=None, hours=None, reason=str(error)
        )
    load_s = sum(estimate.load_s for estimate in estimates) / deployment.time_scale
    return PlannedLadder(
        points=ladder,
        deployment=deployment,
        requests=sum(estimate.requests for estimate in estimates),
        hours=(load_s + start_s(first)) / 3600,
    )


def expected_events_per_s(point: Point, time_scale: float = 1.0) -> float | None:
    """Events per wall second that a point's clients will see, one for each output token at most.

    None where no step costs are known to estimate with.
    """
    name = planning_profile(point)
    if name is None:
        return None
    try:
        estimate = estimate_point(point, load_profile(name))
    except InputError:
        return None
    mean_osl = (1 + point.workload.range_ratio) / 2 * point.workload.osl
    return estimate.requests_per_s * mean_osl * time_scale


def planning_profile(point: Point) -> str | None:
    """The step costs that estimates of a point use; None where there are none for its hardware."""
    return point.simulation.profile if point.simulation else PLANNING_PROFILE.get(point.hardware)


def command_line(process: Process) -> str:
    """A process as one would type it: environment, then argv, placeholders standing."""
    words = [f"{name}={shlex.quote(value)}" for name, value in process.env.items()]
    # Placeholders are not shell syntax; quoting them would only make the line harder to read.
    words += [word if word.startswith("@{") or "@{" in word else shlex.quote(word) for word in process.argv]
    return " ".join(words)
