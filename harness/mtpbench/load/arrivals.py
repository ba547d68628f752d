"""Pure: when the requests of an open loop start, drawn from a seed."""

from __future__ import annotations

import numpy as np

from mtpbench.errors import InputError
from mtpbench.records import Load
from mtpbench.requests import Floats

_STREAM = 7


def draw_arrivals_s(load: Load, count: int, seed: int) -> Floats:
    """(count,) engine seconds at which requests start, rising from 0 on.

    Intervals are exponential (`poisson`), gamma with shape `burstiness` (`gamma`), or equal (`constant`), all
    with mean 1 / `rate_rps`. A ramp lets the rate rise linearly from 0 over its first `ramp_s` seconds: the
    same arrivals, bent by the inverse of the expected count.

    Args:
        load: an open loop with a rate.
        count: requests.
        seed: the point's seed; arms that share it get the same arrivals.

    Raises:
        InputError: the pacing is no open loop with a rate of its own.
    """
    if load.rate_rps is None or load.pacing not in ("poisson", "gamma", "constant"):
        raise InputError(f"pacing {load.pacing!r} with rate_rps {load.rate_rps!r} has no arrivals to draw")
    rng = np.random.default_rng([seed, _STREAM])
    if load.pacing == "constant":
        expected = np.arange(count, dtype=np.float64)
    else:
        shape = load.burstiness if load.pacing == "gamma" else 1.0
        intervals = rng.gamma(shape, 1.0 / shape, size=count)
        expected = np.cumsum(intervals) - intervals[:1]  # the first request opens the run
    return _bend(expected, load.rate_rps, load.ramp_s)


def _bend(expected: Floats, rate_rps: float, ramp_s: float) -> Floats:
    """When so many requests are expected to have started: the inverse of the cumulated rate."""
    if not ramp_s:
        return expected / rate_rps
    in_ramp = 0.5 * rate_rps * ramp_s
    rising = np.sqrt(2.0 * ramp_s * np.minimum(expected, in_ramp) / rate_rps)
    return rising + np.maximum(expected - in_ramp, 0.0) / rate_rps
