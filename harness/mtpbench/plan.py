"""Pure: groups points into ladders, one for each start of a deployment, and estimates requests and hours."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mtpbench import golden, hardware
from mtpbench.engines import engine_of
from mtpbench.errors import InputError, UnsupportedError
from mtpbench.load.pacer import RequestCounts
from mtpbench.metrics.request_table import Floats
from mtpbench.records import (
    CAVEATS,
    AcceptanceCaveat,
    Deployment,
    Hardware,
    Method,
    Point,
    Process,
    WorkerGroup,
)
from mtpbench.simengine.profile import Profile, load_profile, profile_of
from mtpbench.sweep import Sweep

_PLACEHOLDER = re.compile(r"@\{[\w.:/-]*\}")
START_S = 900.0
"""Assumed seconds from `start` to `ready` of a real deployment of this size (weights, graphs, warm-up)."""
SIMULATED_START_S = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """A ladder is one start of a deployment with the points that it serves; `ladders_of` builds it once.

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
    def unlaunched_key(self) -> str:
        """The key that is equal for all starts of the deployment."""
        return replace(self.first, launch=0).deployment_key

    @property
    def first(self) -> Point:
        """The point that runs first; its arm, topology, engine and measurement rules are those of all."""
        return self.points[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class PointEstimate:
    """The estimate of a point: its requests, engine seconds of load, and requests per second."""

    requests: int
    load_s: float
    requests_per_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LadderEstimate:
    """The estimate of a ladder.

    `hours` are wall hours with the start included; None with a `reason` where nothing estimates them.
    `lacking` is the method for which there are no step costs: those of MTP stand in.
    """

    ladder: Ladder
    requests: int | None = None
    hours: float | None = None
    reason: str | None = None
    lacking: Method | None = None

    @property
    def gpu_hours(self) -> float | None:
        """Hours × GPUs; None where the hours are unknown, and on the embedded engine, which needs no GPU."""
        if self.hours is None or self.ladder.first.simulation:
            return None
        return self.hours * self.ladder.deployment.gpus


@dataclass(frozen=True, kw_only=True, slots=True)
class StartsEstimate:
    """The estimate of all starts of servers: their number, wall hours and GPU-hours until they are ready."""

    number: int
    hours: float
    gpu_hours: float


def ladders_of(points: Iterable[Point]) -> tuple[Ladder, ...]:
    """Returns the ladders of points, one for each start of a deployment, in the order of the points.

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
    """Estimates every ladder of a sweep."""
    return tuple(map(estimate_ladder, ladders_of(sweep.points)))


def estimate_ladder(ladder: Ladder) -> LadderEstimate:
    """Estimates the requests and hours of a ladder from the step costs of its hardware."""
    name = planning_profile(ladder.first)
    if name is None:
        reason = f"no step costs for {ladder.first.hardware} to estimate with"
        return LadderEstimate(ladder=ladder, reason=reason)
    try:
        profile = load_profile(name)
        estimates = [estimate_point(point, profile) for point in ladder.points]
    except InputError as error:
        return LadderEstimate(ladder=ladder, reason=str(error))
    load_s = sum(estimate.load_s for estimate in estimates) / ladder.deployment.time_scale
    method = _method(ladder.first)
    return LadderEstimate(
        ladder=ladder,
        requests=sum(estimate.requests for estimate in estimates),
        hours=(load_s + _start_s(ladder.first)) / 3600,
        lacking=None if profile.step_costs(ladder.first.topology, method) == method else method,
    )


def estimate_starts(points: Iterable[Point]) -> StartsEstimate:
    """Estimates the starts that points need; those of the embedded engine hold no GPU."""
    starts = [
        (_start_s(ladder.first) / 3600, 0 if ladder.first.simulation else ladder.deployment.gpus)
        for ladder in ladders_of(points)
    ]
    return StartsEstimate(
        number=len(starts),
        hours=sum(hours for hours, _ in starts),
        gpu_hours=sum(hours * gpus for hours, gpus in starts),
    )


def restarted_otherwise(points: Sequence[Point]) -> tuple[Point, ...]:
    """Returns the points with a start for each repeat where they share one, and with one where they don't."""
    restarted = any(point.launch for point in points)
    return tuple(replace(point, launch=0 if restarted else point.repeat) for point in points)


def expected_events_per_s(point: Point, time_scale: float = 1.0) -> float | None:
    """Estimates the events per wall second that a point's clients receive, at most one for each output token.

    None where there are no step costs to estimate with.
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
    """Returns the name of the step costs that estimate a point; None where its hardware has none."""
    return point.simulation.profile if point.simulation else profile_of(point.hardware)


def estimate_point(point: Point, profile: Profile) -> PointEstimate:
    """Estimates one point by a closed form on a profile's step costs.

    Steady state of a closed loop: the most sequences in decoding for which prefill keeps up and nobody waits
    outside. On the 18 points of the GB200 SGLang sweep it gives 0.95 to 1.09 times the duration that the
    embedded engine itself takes; how far that one is from hardware stands in docs/calibration.md.
    """
    counts = RequestCounts.of(point.concurrency, point.measurement)
    if point.load.pacing == "trace":
        raise UnsupportedError("a trace takes the time that its own timestamps say")
    if point.load.rate_rps is not None:
        rate = point.load.rate_rps
        return PointEstimate(
            requests=counts.total, load_s=counts.total / rate + point.load.ramp_s / 2, requests_per_s=rate
        )
    mean = (1 + point.workload.range_ratio) / 2
    isl, osl = mean * point.workload.isl, mean * point.workload.osl
    rate = _requests_per_s(point, profile, isl, osl)
    return PointEstimate(requests=counts.total, load_s=counts.total / rate, requests_per_s=rate)


_INSTEAD: Mapping[AcceptanceCaveat, str] = {
    "random_prompts": "send a dataset, or pin it (`acceptance: golden`, `{length: 2.5}`)",
    "ignore_eos": "say `ignore_eos: false`, or pin it",
}


def acceptance_warnings(points: Iterable[Point]) -> tuple[str, ...]:
    """Returns a sentence for each cause why an acceptance that points would measure is not that of real
    use.
    """
    arms: dict[AcceptanceCaveat, dict[str, None]] = {}
    for point in points:
        for caveat in point.acceptance_caveats:
            arms.setdefault(caveat, {})[point.arm.name] = None
    return tuple(
        f"acceptance of {', '.join(names)} is measured {CAVEATS[caveat]}: {_INSTEAD[caveat]}"
        for caveat, names in arms.items()
    )


def _start_s(point: Point) -> float:
    """Returns the assumed seconds from start to ready."""
    return SIMULATED_START_S if point.simulation else START_S


def _acceptance_length(point: Point) -> float:
    """Returns the mean acceptance length that an estimate assumes: the arm's, else that of the method's
    golden table, and MTP's for methods without one.
    """
    speculation = point.arm.speculation
    if speculation is None:
        return 1.0
    policy = speculation.acceptance
    if policy.length is not None:
        return policy.length
    if policy.rates is not None:
        return 1.0 + sum(policy.rates)
    table = golden.default_table(speculation.method) or golden.default_table("mtp")
    lengths = golden.golden_table(table) if table else {1: 1.0}
    return lengths[min(speculation.draft_tokens, max(lengths))]


def _requests_per_s(point: Point, profile: Profile, isl: float, osl: float) -> float:
    decoding = point.topology.group("decode") or point.topology.groups[0]
    ranks = decoding.workers * decoding.dp
    fullest = max(1, math.ceil(point.concurrency / ranks))
    sequences = np.arange(1, fullest + 1, dtype=np.float64)
    # A tensor-parallel worker is one rank that holds all its sequences.
    decode_s = osl * _token_s(point, profile, decoding, fullest)
    prefill = point.topology.group("prefill")
    if prefill is None:
        cycle_s = decode_s + sequences * profile.prefill_line_s(decoding).at(isl)
        rates = ranks * sequences / cycle_s
        return float(rates[-1] * min(1.0, point.concurrency / (ranks * fullest)))
    first_s = profile.prefill_line_s(prefill).at(isl) + profile.transfer_s(round(isl))
    rates = np.minimum(ranks * sequences, point.concurrency) / decode_s
    ceiling = _prefills_per_s(prefill, profile, isl)
    fits = np.minimum(ranks * sequences, point.concurrency) + rates * first_s <= point.concurrency
    inside = rates[fits] if fits.any() else np.array([point.concurrency / (first_s + decode_s[0])])
    return float(min(inside.max(), ceiling))


def _token_s(point: Point, profile: Profile, decoding: WorkerGroup, fullest: int) -> Floats:
    """Returns seconds for each token of a sequence by the sequences on a rank, 1 … `fullest`.

    Where the arm's depth goes by the batch, it is that of so many requests.
    """
    depths = np.array([_depth_at(point, sequences) for sequences in range(1, fullest + 1)])
    token_s: Floats = np.empty(fullest)
    costs = profile.step_costs(point.topology, _method(point))
    for depth in {*depths.tolist()}:
        steps_s = profile.step_times_s(decoding, depth, fullest, costs)[1:]
        token_s[depths == depth] = (steps_s / _tokens_per_step(point, depth))[depths == depth]
    return token_s


def _method(point: Point) -> Method:
    return point.arm.speculation.method if point.arm.speculation else "mtp"


def _depth_at(point: Point, requests: int) -> int:
    rule = point.arm.speculation.depth if point.arm.speculation else None
    if rule is None or rule.kind == "adaptive":
        return point.draft_tokens
    return min(rule.depth_at(requests), point.draft_tokens)


def _tokens_per_step(point: Point, depth: int) -> float:
    """Returns the mean tokens of a step that drafts `depth` tokens, the arm's most or fewer."""
    speculation = point.arm.speculation
    if speculation is None or not depth:
        return 1.0
    rates = speculation.acceptance.rates
    if depth < speculation.draft_tokens and rates is not None:
        return 1.0 + sum(rates[:depth])
    return min(_acceptance_length(point), depth + 1.0)


def _prefills_per_s(group: WorkerGroup, profile: Profile, isl: float) -> float:
    return group.workers * group.dp / profile.prefill_line_s(group).at(isl)


def command_line(process: Process) -> str:
    """Returns the shell command of a process: environment, then argv, with its placeholders as they are."""
    parts = [f"{name}={shlex.quote(value)}" for name, value in process.env.items()]
    return " ".join([*parts, *map(_shell_word, process.argv)])


def _shell_word(argument: str) -> str:
    """Quotes an argument; placeholders are no shell syntax, and alone they need no quotes."""
    rest = _PLACEHOLDER.sub("_", argument)
    return argument if shlex.quote(rest) == rest else shlex.quote(argument)
