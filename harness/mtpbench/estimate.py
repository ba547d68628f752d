"""Pure: how long a point will take, before anything runs; a closed form on the embedded engine's step costs.

Steady state of a closed loop: the most sequences in decoding for which prefill keeps up and nobody waits
outside. On the 18 points of the GB200 SGLang sweep it gives 0.95 to 1.09 times the duration that the embedded
engine itself takes; how far that one is from hardware stands in docs/calibration.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mtpbench import golden
from mtpbench.errors import UnsupportedError
from mtpbench.load.pacer import RequestCounts
from mtpbench.metrics.request_table import Floats
from mtpbench.records import Point, WorkerGroup
from mtpbench.simengine.profile import Profile

START_S = 900.0
"""Assumed time from `start` to `ready` of a real deployment of this size (weights, graphs, warm-up)."""
SIMULATED_START_S = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What one point is expected to take: requests, engine seconds of load, requests per second."""

    requests: int
    load_s: float
    requests_per_s: float


def estimate_point(point: Point, profile: Profile) -> Estimate:
    """The estimate of one point from a profile's step costs."""
    counts = RequestCounts.of(point.concurrency, point.measurement)
    if point.load.pacing == "trace":
        raise UnsupportedError("a trace takes the time that its own timestamps say")
    if point.load.rate_rps is not None:
        rate = point.load.rate_rps
        return Estimate(
            requests=counts.total, load_s=counts.total / rate + point.load.ramp_s / 2, requests_per_s=rate
        )
    mean = (1 + point.workload.range_ratio) / 2
    isl, osl = mean * point.workload.isl, mean * point.workload.osl
    rate = _requests_per_s(point, profile, isl, osl)
    return Estimate(requests=counts.total, load_s=counts.total / rate, requests_per_s=rate)


def start_s(point: Point) -> float:
    """Assumed seconds from start to ready."""
    return SIMULATED_START_S if point.simulation else START_S


def acceptance_length(point: Point) -> float:
    """The mean acceptance length that the estimate assumes: the arm's, else the golden table's."""
    speculation = point.arm.speculation
    if speculation is None:
        return 1.0
    policy = speculation.acceptance
    if policy.length is not None:
        return policy.length
    if policy.rates is not None:
        return 1.0 + sum(policy.rates)
    table = golden.golden_table(golden.default_table())
    return table[min(speculation.draft_tokens, max(table))]


def _requests_per_s(point: Point, profile: Profile, isl: float, osl: float) -> float:
    decoding = point.topology.group("decode") or point.topology.groups[0]
    ranks = decoding.workers * decoding.dp
    fullest = max(1, math.ceil(point.concurrency / ranks))
    sequences = np.arange(1, fullest + 1, dtype=np.float64)
    # A tensor-parallel worker is one rank that holds all its sequences.
    steps: Floats = profile.step_times_s(decoding, point.draft_tokens, fullest)[1:]
    decode_s = osl / acceptance_length(point) * steps
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


def _prefills_per_s(group: WorkerGroup, profile: Profile, isl: float) -> float:
    return group.workers * group.dp / profile.prefill_line_s(group).at(isl)
