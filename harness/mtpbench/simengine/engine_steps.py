"""Pure: the steps of a worker: the sequences in them, their costs, and the drafts that each sequence accepts.

Accepted tokens are drawn in blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mtpbench.errors import InputError
from mtpbench.metrics.request_table import Ints
from mtpbench.records import EngineLimits, SpecCounters, WorkerGroup
from mtpbench.simengine.profile import Line, Profile

_BLOCK = 1 << 17


class Emission(NamedTuple):
    """An emission holds the token events of one moment: cumulative `tokens` by key, and the ended keys."""

    time_s: float
    keys: Ints
    tokens: Ints
    done: list[int]


@dataclass(slots=True, eq=False)
class TokenSequence:
    """A token sequence is a request that is not decoding: it waits, is in prefill, or has its KV ready."""

    key: int
    prompt: int
    total: int
    generated: int = 0
    sent: int = 0
    computed: int = 0
    rank: int = -1
    final: int = 0
    """KV tokens that the sequence holds at its end on its worker."""
    cancelled: bool = False

    @property
    def context(self) -> int:
        """Returns the tokens whose KV cache the sequence needs: the prompt and what it has generated."""
        return self.prompt + self.generated


@dataclass(slots=True)
class EngineStep:
    """A step of all ranks: how many sequences decode, the prompt chunks in it, and its power above idle."""

    start_s: float
    end_s: float
    decoding: int
    chunks: list[tuple[TokenSequence, int]] = field(default_factory=list)
    extra_w: float = 0.0


@dataclass(slots=True)
class Totals:
    """Totals are counters that only rise."""

    prompt_tokens: int = 0
    preemptions: int = 0
    steps: int = 0
    extra_j: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Costs hold what a worker's steps cost, computed from a profile for one layout and draft count."""

    step_s: list[float]
    prefill: Line
    prefill_fixed_s: float
    kv_tokens_per_rank: int
    idle_w: float
    prefill_w: float
    decode_w: float

    @classmethod
    def of(cls, profile: Profile, group: WorkerGroup, drafts: int, limits: EngineLimits) -> Costs:
        """Returns the costs of a worker of `group` that runs at most `limits.max_running` sequences."""
        ranks = group.dp
        line = profile.prefill_line_s(group)
        pool = profile.kv_tokens(group) if limits.kv_tokens is None else limits.kv_tokens // ranks
        return cls(
            step_s=profile.step_times_s(group, drafts, limits.max_running).tolist(),
            prefill=line,
            prefill_fixed_s=max(0.0, line.at(0)),
            kv_tokens_per_rank=pool,
            idle_w=profile.idle_w,
            prefill_w=profile.prefill_w,
            decode_w=profile.decode_w,
        )


class Drafts:
    """Drafts are a seeded stream of tokens per verification step.

    One uniform u per step and sequence: position i is accepted iff u < rates[i]. The rates are
    unconditional and do not rise, so accepted drafts are always a prefix. Counters count accepted drafts
    also where `max_tokens` cut them off, as vLLM's do.

    Args:
        rates: unconditional acceptance rate by position, one per draft.
        seed: anything numpy takes as a seed.
    """

    def __init__(self, rates: Sequence[float], seed: Sequence[int]) -> None:
        if not rates or any(not 0 <= r <= 1 for r in rates) or list(rates) != sorted(rates, reverse=True):
            raise InputError(
                f"acceptance rates {list(rates)}: one per draft, each in [0, 1], none above the last"
            )
        self.rates = tuple(rates)
        self._rng = np.random.default_rng(list(seed))
        self._block: Ints = np.empty(0, np.int64)
        self._next = self._tallied = 0
        self._steps = 0
        self._accepted = np.zeros(len(rates), np.int64)

    def take(self, count: int) -> Ints:
        """Returns the tokens that each sequence's next step emits, shape (count,): 1 + accepted drafts."""
        if self._next + count > len(self._block):
            self._tally()
            self._refill(max(_BLOCK, 4 * count))
        start, self._next = self._next, self._next + count
        return self._block[start : self._next]

    def counters(self) -> SpecCounters:
        """Returns the counts of drafted and accepted tokens so far."""
        self._tally()
        k = len(self.rates)
        return SpecCounters(
            drafts=float(self._steps),
            draft_tokens=float(self._steps * k),
            accepted_tokens=float(self._accepted.sum()),
            per_position=tuple(float(count) for count in self._accepted),
        )

    def _refill(self, size: int) -> None:
        uniform = self._rng.random(size, dtype=np.float32)
        tokens = np.ones(size, np.int64)
        for rate in self.rates:
            tokens += uniform < rate
        self._block, self._next, self._tallied = tokens, 0, 0

    def _tally(self) -> None:
        used = self._block[self._tallied : self._next]
        by_tokens = np.bincount(used, minlength=len(self.rates) + 2)
        self._accepted += by_tokens[::-1].cumsum()[::-1][2:]
        self._steps += len(used)
        self._tallied = self._next
