"""Pure: the points as ladders, a deployment each, and what each is expected to take: requests, time, GPUs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mtpbench import hardware
from mtpbench.engines.registry import engine_of
from mtpbench.errors import InputError
from mtpbench.estimate import estimate_point, start_s
from mtpbench.records import Deployment, Hardware, Point, Process
from mtpbench.simengine.profile import load_profile, profile_of
from mtpbench.sweep import Sweep


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """One deployment with the points that it serves; made once, by `ladders_of`.

    Args:
        points: in the order that they run: by repeat, then by concurrency.
        deployment: the processes that serve them.
        rack: the hardware that it is laid out for.
    """

    points: tuple[Point, ...]
    deployment: Deployment
    rack: Hardware

    @property
    def key(self) -> str:
        """The deployment's key."""
        return self.deployment.key

    @property
    def first(self) -> Point:
        """The point that runs first; arm, topology, engine and measurement rules are those of all."""
        return self.points[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class LadderEstimate:
    """What a ladder is expected to take.

    `hours` are wall hours with the start included; None with a `reason` where nothing estimates them.
    """

    ladder: Ladder
    requests: int | None = None
    hours: float | None = None
    reason: str | None = None

    @property
    def gpu_hours(self) -> float | None:
        """Hours × GPUs; None where the hours are unknown, and on the embedded engine, which needs no GPU."""
        if self.hours is None or self.ladder.first.simulation:
            return None
        return self.hours * self.ladder.deployment.gpus


def ladders_of(points: Iterable[Point]) -> tuple[Ladder, ...]:
    """The points by deployment, each with the deployment that serves them; in the order of the points.

    Raises:
        UnsupportedError: an engine can't serve a topology; a checked sweep holds none of these.
    """
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.deployment_key, []).append(point)
    return tuple(_ladder(group) for group in groups.values())


def _ladder(points: Sequence[Point]) -> Ladder:
    first = points[0]
    rack = hardware.lookup(first.hardware)
    return Ladder(
        points=tuple(sorted(points, key=lambda point: (point.repeat, point.concurrency))),
        deployment=engine_of(first).deploy(first, rack),
        rack=rack,
    )


def plan_sweep(sweep: Sweep) -> tuple[LadderEstimate, ...]:
    """The estimate of every ladder of a sweep."""
    return tuple(map(estimate_ladder, ladders_of(sweep.points)))


def estimate_ladder(ladder: Ladder) -> LadderEstimate:
    """Requests and hours of a ladder, from the step costs of its hardware."""
    name = planning_profile(ladder.first)
    if name is None:
        reason = f"no step costs for {ladder.first.hardware} to estimate with"
        return LadderEstimate(ladder=ladder, reason=reason)
    try:
        estimates = [estimate_point(point, load_profile(name)) for point in ladder.points]
    except InputError as error:
        return LadderEstimate(ladder=ladder, reason=str(error))
    load_s = sum(estimate.load_s for estimate in estimates) / ladder.deployment.time_scale
    return LadderEstimate(
        ladder=ladder,
        requests=sum(estimate.requests for estimate in estimates),
        hours=(load_s + start_s(ladder.first)) / 3600,
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
    return point.simulation.profile if point.simulation else profile_of(point.hardware)


def command_line(process: Process) -> str:
    """A process as one would type it: environment, then argv, placeholders standing."""
    parts = [f"{name}={shlex.quote(value)}" for name, value in process.env.items()]
    # Placeholders are not shell syntax; quoting them would only make the line harder to read.
    parts += [
        argument if argument.startswith("@{") or "@{" in argument else shlex.quote(argument)
        for argument in process.argv
    ]
    return " ".join(parts)
