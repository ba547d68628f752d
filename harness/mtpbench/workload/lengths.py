"""How long prompts and answers are: pure arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mtpbench.metrics.request_table import Ints
from mtpbench.records import Workload

_STREAMS = (1, 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lengths:
    """Token lengths of a run's requests by index: `prompt_tokens` and `output_tokens`, both (n,) int64."""

    prompt_tokens: Ints
    output_tokens: Ints


def draw_lengths(workload: Workload, count: int, seed: int) -> Lengths:
    """Lengths of `count` requests, uniform over the whole numbers in [range_ratio × L, L].

    The i-th request has the same lengths whatever `count` is, and in both arms of a sweep.
    """
    prompt_rng, output_rng = (np.random.default_rng([seed, stream]) for stream in _STREAMS)

    def draw(rng: np.random.Generator, longest: int) -> Ints:
        shortest = shortest_of(workload, longest)
        return rng.integers(shortest, longest, size=count, endpoint=True, dtype=np.int64)

    return Lengths(prompt_tokens=draw(prompt_rng, workload.isl), output_tokens=draw(output_rng, workload.osl))


def shortest_of(workload: Workload, longest: int) -> int:
    """The least length that can be drawn where `longest` is the greatest."""
    return max(1, math.ceil(workload.range_ratio * longest))
