"""A server of known truth: the requests that a closed loop records of it, computed without a server.

A slot's request waits for its first token, then gets a verification step every tenth of a second; nothing
else happens. What makes the server slower bends its time, so its settled speed is known exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtpbench.metrics.request_table import UNKNOWN, RequestTable

Floats = npt.NDArray[np.float64]
STEP_S = 0.1
ACCEPTED = (0.21, 0.31, 0.26, 0.22)
"""Chances of 1, 2, 3 and 4 tokens in a step."""
LENGTH = float(np.arange(1, 5) @ ACCEPTED)


@dataclass(frozen=True, kw_only=True)
class KnownServer:
    """A server whose speed and acceptance are given.

    Args:
        slots: of the closed loop.
        requests_per_slot: after 2 of warm-up.
        longest: output tokens; lengths are uniform in [0.8 × longest, longest].
        slower: how many times as long a moment of the server's own time takes.
        accepts: chances of 1 to 4 tokens a step, by the server's own time.
    """

    slots: int = 16
    requests_per_slot: int = 10
    longest: int = 256
    slower: Callable[[Floats], Floats] | None = None
    accepts: Callable[[float], tuple[float, ...]] | None = None

    def serve(self, seed: int) -> RequestTable:
        """Plays the loop; slots start out of step, as by the measuring rule 2026-11."""
        rng = np.random.default_rng(seed)
        rounds = 2 + self.requests_per_slot
        shares = (rng.permutation(self.slots) + 0.5) / self.slots
        sent, times, tokens, ends = ([[None] * self.slots for _ in range(rounds)] for _ in range(4))
        for slot in range(self.slots):
            now = 0.0
            for turn in range(rounds):
                length = int(rng.integers(round(0.8 * self.longest), self.longest, endpoint=True))
                length = max(1, int(length * shares[slot])) if turn == 0 else length
                first = now + 0.5 + rng.exponential(0.3)
                brought = self._steps(rng, length, first)
                sent[turn][slot] = now
                times[turn][slot] = first + STEP_S * np.arange(len(brought))
                tokens[turn][slot] = brought
                ends[turn][slot] = now = float(times[turn][slot][-1])
        return self._table(sent, times, tokens, ends)

    def _steps(self, rng: np.random.Generator, length: int, first_s: float) -> npt.NDArray[np.int64]:
        """The tokens that a request has had after each of its steps; the first brings one."""
        chances = [self.accepts(first_s + STEP_S * i) if self.accepts else ACCEPTED for i in (0, length)]
        if chances[0] == chances[1]:
            drawn = rng.choice(4, size=length, p=chances[0]) + 1
        else:
            drawn = np.array([rng.choice(4, p=self.accepts(first_s + STEP_S * i)) + 1 for i in range(length)])
        upto = np.concatenate(([1], 1 + np.cumsum(drawn)))
        last = int(np.searchsorted(upto, length))
        return np.minimum(upto[: last + 1], length)

    def _table(self, sent, times, tokens, ends) -> RequestTable:
        count = self.slots * len(sent)
        flat = [row for rows in times for row in rows]
        offsets = np.concatenate(([0], np.cumsum([len(row) for row in flat]))).astype(np.int64)
        outputs = np.array([row[-1] for rows in tokens for row in rows], np.int64)
        prompts = np.full(count, 1024, np.int64)
        unknown, none = np.full(count, UNKNOWN, np.int64), np.full(count, None, object)
        sent_us = self._bent_us(np.array(sent, float).ravel())
        return RequestTable(
            index=np.arange(count),
            slot=np.arange(count) % self.slots,
            warmup=np.arange(count) < 2 * self.slots,
            scheduled_us=sent_us,
            sent_us=sent_us,
            end_us=self._bent_us(np.array(ends, float).ravel()),
            asked_prompt_tokens=prompts,
            asked_output_tokens=outputs,
            prompt_tokens=prompts,
            output_tokens=outputs,
            cached_prompt_tokens=unknown,
            reasoning_tokens=unknown,
            finish_reason=np.full(count, "length", object),
            error=none,
            error_detail=none,
            chunk_offsets=offsets,
            chunk_times_us=self._bent_us(np.concatenate(flat)),
            chunk_tokens=np.concatenate([row for rows in tokens for row in rows]),
        )

    def _bent_us(self, own_s: Floats) -> npt.NDArray[np.int64]:
        """The wall's microseconds of moments of the server's own time."""
        if self.slower is not None:
            grid = np.linspace(0.0, own_s.max(initial=0.0) + 1, 20_001)
            takes = self.slower((grid[1:] + grid[:-1]) / 2) * np.diff(grid)
            own_s = np.interp(own_s, grid, np.concatenate(([0.0], np.cumsum(takes))))
        return np.round(own_s * 1e6).astype(np.int64)
