"""Pure: what a worker of the embedded engine drafts, and the seeded stream of drafts that it accepts.

The mean of accepted drafts is given by the rates of the arm; its shape says how they scatter around it:

- `by_position`: each sequence draws for itself in each step, position by position (what real heads do);
- `minimum_variance`: the whole part of the mean always, its fraction as a chance (a length pinned on vLLM);
- `lock_step`: so too, but one draw for all sequences of an attention rank (a length pinned on SGLang);
- `geometric`: the same chance for every next draft (a length pinned on llama.cpp).

A step of a smaller depth than the arm's accepts by position up to that depth; the shape then scatters around
that depth's mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mtpbench.errors import InputError, UnsupportedError
from mtpbench.metrics.request_table import Floats, Ints
from mtpbench.records import AcceptanceShape, DepthRule, Method, Point, SpecCounters

_BLOCK = 1 << 17
_BISECTIONS = 60
_LEAST = 1e-12
"""Chance that stands for none."""
_MOST_STRENGTH = 50.0
_X: Floats = np.linspace(-8.0, 8.0, 4001)
_PHI: Floats = np.array([NormalDist().cdf(x) for x in _X.tolist()])


@dataclass(frozen=True, kw_only=True, slots=True)
class Drafting:
    """Drafting is what a worker drafts, and how many drafts are accepted.

    Args:
        rates: unconditional acceptance rate by position, one per draft of the deepest step.
        depth: a rule `by_batch`, or None for always as many drafts as there are rates.
        shape: how accepted drafts scatter around the mean that the rates give.
        spread: relative standard deviation of requests' own acceptance lengths; 0 where all have the arm's.
        costs: the method whose step costs are played.
    """

    rates: tuple[float, ...]
    depth: DepthRule | None = None
    shape: AcceptanceShape = "by_position"
    spread: float = 0.0
    costs: Method = "mtp"

    def __post_init__(self) -> None:
        rates = self.rates
        if not rates or any(not 0 <= r <= 1 for r in rates) or list(rates) != sorted(rates, reverse=True):
            raise InputError(
                f"acceptance rates {list(rates)}: one per draft, each in [0, 1], none above the last"
            )
        if self.depth is not None and self.depth.kind != "by_batch":
            raise UnsupportedError(
                "`depth: adaptive`: the embedded engine has no rule of its own by which it would choose; "
                "give it a table, such as depth: {by_batch: [[1, 16, 3], [17, 64, 2]]}"
            )
        if self.spread:
            if self.shape != "by_position":
                raise UnsupportedError(
                    f"acceptance_spread with acceptance_shape {self.shape}: a pinned length is the same for "
                    "every request; leave one of them out"
                )
            _strength(self.rates, self.spread)

    @property
    def most(self) -> int:
        """Returns the drafts of the deepest step that there can be."""
        return len(self.rates)

    @property
    def depths(self) -> tuple[int, ...]:
        """Returns every depth that a step can have, rising."""
        if self.depth is None:
            return (self.most,)
        return tuple(sorted({min(r.draft_tokens, self.most) for r in self.depth.ranges}))

    def depth_at(self, requests: int) -> int:
        """Returns the drafts of a step in which the fullest attention rank has so many requests."""
        return self.most if self.depth is None else min(self.depth.depth_at(requests), self.most)


def drafting_of(point: Point) -> Drafting | None:
    """Returns what a point's workers draft; None with speculation off.

    Raises:
        UnsupportedError: the arm has no rates, or a rule of depth that the embedded engine can't play.
        InputError: no requests can be spread so widely around the arm's mean.
    """
    speculation, simulation = point.arm.speculation, point.simulation
    if speculation is None:
        return None
    rates = speculation.acceptance.rates or ()
    if len(rates) != speculation.draft_tokens:
        raise UnsupportedError(
            f"arm {point.arm.name}: the embedded engine needs {speculation.draft_tokens} acceptance rates "
            f"(one per draft token), not {list(rates)}; use `acceptance: golden` or give the rates"
        )
    return Drafting(
        rates=rates,
        depth=speculation.depth,
        shape=(simulation and simulation.acceptance_shape) or "by_position",
        spread=(simulation and simulation.acceptance_spread) or 0.0,
        costs=(simulation and simulation.step_costs) or speculation.method,
    )


def shaped_rates(shape: AcceptanceShape, rates: Sequence[float]) -> tuple[float, ...]:
    """Returns the unconditional rates by position that have the shape and the sum of the given ones."""
    if shape == "by_position":
        return tuple(rates)
    mean = float(sum(rates))
    if shape == "geometric":
        return _geometric_rates(mean, len(rates))
    return tuple(min(max(mean - i, 0.0), 1.0) for i in range(len(rates)))


def _geometric_rates(mean: float, drafts: int) -> tuple[float, ...]:
    """Returns p, p², … of the chance p whose powers sum to `mean`."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        chance = (low + high) / 2
        if sum(chance**i for i in range(1, drafts + 1)) < mean:
            low = chance
        else:
            high = chance
    return tuple(high**i for i in range(1, drafts + 1))


def _normal_cdf(x: Floats) -> Floats:
    return np.interp(x, _X, _PHI)


def _own_rates(rates: Sequence[float], strength: float, propensity: Floats) -> Floats:
    """Returns the rates of requests of a standard normal propensity to accept, shape (requests, drafts).

    Their mean over the propensities is `rates`, at every position (a probit model with a random effect).
    """
    inner = [min(max(rate, _LEAST), 1 - _LEAST) for rate in rates]
    levels = np.array([NormalDist().inv_cdf(rate) for rate in inner]) * math.sqrt(1 + strength**2)
    return _normal_cdf(levels + strength * propensity[:, np.newaxis])


def _spread_at(rates: Sequence[float], strength: float) -> float:
    """Returns the relative standard deviation of requests' acceptance lengths.

    A request of fewer tokens per step takes more steps: where steps are normal, requests are as many times
    the tokens of their steps.
    """
    density = np.exp(-(_X**2) / 2)
    length = 1 + _own_rates(rates, strength, _X).sum(axis=1)
    requests = density * length / (density * length).sum()
    mean = float((requests * length).sum())
    return math.sqrt(float((requests * (length - mean) ** 2).sum())) / mean


@cache
def _strength(rates: tuple[float, ...], spread: float) -> float:
    """Returns how strongly requests' propensities act so that their lengths spread as they should.

    Raises:
        InputError: no lengths of so many drafts spread so widely around their mean.
    """
    low, high = 0.0, _MOST_STRENGTH
    widest = _spread_at(rates, high)
    if not 0 < spread < widest:
        raise InputError(
            f"acceptance_spread {spread:g}: around a mean acceptance length of {1 + sum(rates):.3g} with "
            f"{len(rates)} drafts it lies between 0 and {widest:.2g}"
        )
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _spread_at(rates, middle) < spread else (low, middle)
    return high


class _RequestRates:
    """The rates of requests scatter around the arm's: each request has its own, drawn once.

    Over all steps, which is what counters give, the arm's rates stay at every position.
    """

    def __init__(self, drafting: Drafting, seed: Sequence[int]) -> None:
        self._rates = drafting.rates
        self._strength = _strength(drafting.rates, drafting.spread)
        self._rng = np.random.default_rng([*seed, 1])
        self._own: Floats = np.empty((0, drafting.most))

    def of(self, keys: Ints) -> Floats:
        """Returns the rates of requests by their keys, shape (requests, drafts)."""
        last = int(keys.max())
        while last >= len(self._own):
            propensity = self._rng.standard_normal(max(1024, 2 * len(self._own)))
            own = _own_rates(self._rates, self._strength, propensity)
            # See `_spread_at`: requests are drawn in proportion to the tokens of their steps.
            kept = self._rng.random(len(own)) * (1 + len(self._rates)) < 1 + own.sum(axis=1)
            self._own = np.concatenate((self._own, own[kept]))
        return self._own[keys]


class Drafts:
    """Drafts are a seeded stream of tokens per verification step, drawn in blocks.

    One uniform u per step and sequence: position i is accepted iff u < rates[i]. The rates are
    unconditional and do not rise, so accepted drafts are always a prefix. Counters count accepted drafts
    also where `max_tokens` cut them off, as vLLM's do, and no steps that draft nothing.

    Args:
        drafting: what is drafted.
        seed: anything numpy takes as a seed.
        ranks: attention ranks of the worker.
    """

    def __init__(self, drafting: Drafting, seed: Sequence[int], ranks: int = 1) -> None:
        self.drafting = drafting
        self._ranks = ranks
        self._rates = {d: shaped_rates(drafting.shape, drafting.rates[:d]) for d in drafting.depths}
        self._requests = _RequestRates(drafting, seed) if drafting.spread else None
        self._counts_at_once = drafting.shape == "lock_step" or self._requests is not None
        self._rng = np.random.default_rng(list(seed))
        self._uniform: NDArray[np.float32] = np.empty(0, np.float32)
        self._block: Ints = np.empty(0, np.int64)
        self._depth = drafting.depths[-1]
        self._next = self._tallied = 0
        self._steps = self._drafted = 0
        self._accepted = np.zeros(drafting.most, np.int64)

    def take(self, sequences: Ints, ranks: Ints, depth: int) -> Ints:
        """Returns the tokens that each sequence's next step emits: 1 + accepted drafts.

        Args:
            sequences: keys of the sequences, shape (n,).
            ranks: attention rank of each, shape (n,).
            depth: drafts of the step, above 0.
        """
        if depth != self._depth:
            self._tally()
            self._depth = depth
            self._block = self._tokens(self._uniform)
        if not self._counts_at_once:
            drawn = self._advance(len(sequences))
            return self._block[drawn]
        if self._requests is None:
            drawn = self._advance(self._ranks)
            tokens = self._block[drawn][ranks]
        else:
            drawn = self._advance(len(sequences))
            own = self._requests.of(sequences)[:, :depth]
            tokens = 1 + (self._uniform[drawn, np.newaxis] < own).sum(axis=1)
        self._count(tokens)
        return tokens

    def counters(self) -> SpecCounters:
        """Returns the counts of drafted and accepted tokens so far."""
        self._tally()
        return SpecCounters(
            drafts=float(self._steps),
            draft_tokens=float(self._drafted),
            accepted_tokens=float(self._accepted.sum()),
            per_position=tuple(float(count) for count in self._accepted),
        )

    def _advance(self, size: int) -> slice:
        """Returns where the next draws stand in the block, which is drawn anew where it is used up."""
        if self._next + size > len(self._uniform):
            self._tally()
            self._uniform = self._rng.random(max(_BLOCK, 4 * size), dtype=np.float32)
            self._block = self._tokens(self._uniform)
            self._next = self._tallied = 0
        start, self._next = self._next, self._next + size
        return slice(start, self._next)

    def _tokens(self, uniform: NDArray[np.float32]) -> Ints:
        tokens = np.ones(len(uniform), np.int64)
        for rate in self._rates[self._depth]:
            tokens += uniform < rate
        return tokens

    def _tally(self) -> None:
        """Counts what was taken from the block since the last time."""
        if not self._counts_at_once:
            self._count(self._block[self._tallied : self._next])
            self._tallied = self._next

    def _count(self, tokens: Ints) -> None:
        by_tokens = np.bincount(tokens, minlength=len(self._accepted) + 2)
        self._accepted += by_tokens[::-1].cumsum()[::-1][2:]
        self._steps += len(tokens)
        self._drafted += len(tokens) * self._depth
