"""Pure: the lengths of a run's requests, drawn by the seed, and the first ones shortened."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mtpbench.metrics.request_table import Ints
from mtpbench.records import Workload

_STREAMS = (1, 2)
_WITHIN, _PHASES = 1, 9
"""Further random streams: of the place within a part of the range, and of the slots' phases."""
STRATA = 8
"""Requests in a row that share out the range of lengths. With 8 the scatter of throughput without
speculation falls from 2.7% to 1.2% at concurrency 1 (10 requests), from 1.1% to 0.3% at 4 and from 0.4% to
0.1% at 32. With 4 it falls about as far, with 64 not at all at concurrency 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lengths:
    """The lengths of a run's requests in tokens by index: `prompt_tokens` and `output_tokens`, int64 (n,)."""

    prompt_tokens: Ints
    output_tokens: Ints


def draw_lengths(workload: Workload, count: int, seed: int, *, stratified: bool = False) -> Lengths:
    """Draws the lengths of `count` requests, uniform over the whole numbers in [range_ratio × L, L].

    The i-th request has the same lengths for every `count`, and in both arms of a sweep.

    Args:
        workload: whose lengths they are.
        count: how many requests there are.
        seed: the point's seed.
        stratified: whether each `STRATA` requests in a row have a length from each of as many equal parts of
            the range, in random order: as uniform as independent draws, and their sum scatters less.
    """
    draw = _stratified if stratified else _independent

    def tokens(stream: int, longest: int) -> Ints:
        return draw(shortest_of(workload, longest), longest, count, [seed, stream])

    prompts, outputs = _STREAMS
    return Lengths(prompt_tokens=tokens(prompts, workload.isl), output_tokens=tokens(outputs, workload.osl))


def _independent(least: int, most: int, count: int, seed: list[int]) -> Ints:
    return np.random.default_rng(seed).integers(least, most, size=count, endpoint=True, dtype=np.int64)


def _stratified(least: int, most: int, count: int, seed: list[int]) -> Ints:
    """Draws lengths one from each part of the range: stratified sampling in blocks of `STRATA`.

    Order and place within a part have streams of their own, so that more requests change none before them.
    """
    shape = (-(-count // STRATA), STRATA)
    parts = np.random.default_rng(seed).random(shape).argsort(axis=1)
    places = (parts + np.random.default_rng([*seed, _WITHIN]).random(shape)) / STRATA
    return least + np.floor(places * (most - least + 1)).astype(np.int64).ravel()[:count]


def spread_phases(lengths: Lengths, firsts: Ints, seed: int) -> Lengths:
    """Returns the lengths with the answers of each slot's first request shortened to shares from 0 to 1.

    Slots that start together stay in step for tens of requests, and prompts are then prefilled in batches
    that a settled server does not have. After first answers that end one by one, evenly over the time of one
    answer, each slot is somewhere else in its request.

    Args:
        lengths: of all requests.
        firsts: (c,) indices of the slots' first requests.
        seed: the point's seed; arms with the same seed shorten alike.
    """
    shares = (np.random.default_rng([seed, _PHASES]).permutation(len(firsts)) + 0.5) / max(len(firsts), 1)
    outputs = lengths.output_tokens.copy()
    outputs[firsts] = np.maximum(1, np.floor(outputs[firsts] * shares)).astype(np.int64)
    return Lengths(prompt_tokens=lengths.prompt_tokens, output_tokens=outputs)


def shortest_of(workload: Workload, longest: int) -> int:
    """Returns the least length that can be drawn if `longest` is the greatest."""
    return max(1, math.ceil(workload.range_ratio * longest))
