"""Seeded requests of exact length. Lengths first (pure arrays), prompts on demand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mtpbench.records import Workload
from mtpbench.requests import Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Lengths:
    """Token lengths of a run's requests by index: `prompt_tokens` and `output_tokens`, both (n,) int64."""

    prompt_tokens: Ints
    output_tokens: Ints


def draw_lengths(workload: Workload, count: int, seed: int) -> Lengths:
    """Lengths of `count` requests, uniform over the whole numbers in [range_ratio × L, L].

    The i-th request has the same lengths whatever `count` is, and in both arms of a sweep.
    """
    prompt_rng, output_rng = (np.random.default_rng([seed, stream]) for stream in (1, 2))

    def draw(rng: np.random.Generator, longest: int) -> Ints:
        shortest = max(1, math.ceil(workload.range_ratio * longest))
        return rng.integers(shortest, longest, size=count, endpoint=True, dtype=np.int64)

    return Lengths(prompt_tokens=draw(prompt_rng, workload.isl), output_tokens=draw(output_rng, workload.osl))
