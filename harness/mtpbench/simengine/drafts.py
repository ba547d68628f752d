"""Draft-and-verify: how many tokens each sequence gets out of a step, drawn in blocks, and the counters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtpbench.errors import InputError
from mtpbench.metrics.request_table import Ints
from mtpbench.records import SpecCounters

_BLOCK = 1 << 17


class Drafts:
    """A seeded stream of tokens per verification step.

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
        """(count,) tokens that each sequence's next step emits: 1 + accepted drafts."""
        if self._next + count > len(self._block):
            self._tally()
            self._refill(max(_BLOCK, 4 * count))
        start, self._next = self._next, self._next + count
        return self._block[start : self._next]

    def counters(self) -> SpecCounters:
        """What was drafted and accepted so far."""
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
