"""Pure: one worker as a discrete-event model, without I/O and without a clock of its own.

The driver calls `begin(now)` to plan a step, waits until the end that it returns, and calls `finish()`. All
attention ranks of a worker step together, so the fullest rank sets the time. A step decodes every running
sequence and, where prompts wait, takes a chunk of them (mixed steps share the fixed part of both costs).
Where the depth goes by the batch, a step drafts and verifies as many tokens as the requests of its fullest
rank ask for, those whose prompts it computes included: an attention rank is what vLLM calls an engine core.

Roles: `prefill` ends a prompt with `prefilled`; `decode` takes sequences whose KV came with them and sends
the first token when it admits them; `aggregated` does both. When the KV pool overflows, the youngest
sequence of the rank goes back to the waiting line and its context is computed again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from mtpbench.errors import InputError
from mtpbench.metrics.request_table import Ints
from mtpbench.records import EngineLimits, SpecCounters, WorkerGroup, WorkerRole
from mtpbench.simengine.drafting import Drafting, Drafts
from mtpbench.simengine.engine_steps import Costs, Emission, EngineStep, TokenSequence, Totals, count_fullest
from mtpbench.simengine.profile import Profile

_KEY, _REMAINING, _DUE, _TOTAL, _PROMPT, _RANK, _AGE = range(7)
"""Rows of the running sequences' array; `_DUE` is the tokens remaining at which the next event is sent."""


class Worker:
    """A worker has a scheduler, a KV pool and steps.

    Args:
        role: prefill, decode or aggregated.
        ranks: attention-DP ranks (1 under tensor parallelism).
        costs: what steps cost.
        limits: what the engine's options allow.
        drafts: the stream of accepted drafts, or None where speculation is off.
    """

    def __init__(
        self, *, role: WorkerRole, ranks: int, costs: Costs, limits: EngineLimits, drafts: Drafts | None
    ) -> None:
        self.role, self.costs, self.limits, self.drafts = role, costs, limits, drafts
        self.totals = Totals()
        self.prefilled: list[TokenSequence] = []
        self._ranks = ranks
        self._chunk = max(1, limits.prefill_chunk_tokens // ranks)
        self._drafted = self._depth = drafts.drafting.most if drafts else 0
        self._sequences: dict[int, TokenSequence] = {}
        self._waiting: deque[TokenSequence] = deque()
        self._ready: deque[TokenSequence] = deque()
        self._partial: list[deque[TokenSequence]] = [deque() for _ in range(ranks)]
        self._prefilling = 0
        self._counts = [0] * ranks
        self._reserved = [0] * ranks
        self._age = self._n = self._past_tokens = 0
        self._state: Ints = np.zeros((7, 0), np.int64)
        self._grow(256)
        self._emissions: list[Emission] = []
        self._step: EngineStep | None = None

    # ------------------------------------------------------------------------------------ what drivers call

    @property
    def running(self) -> int:
        """Returns how many sequences hold a place: decoding or in prefill."""
        return self._n + self._prefilling

    @property
    def waiting(self) -> int:
        """Returns how many requests have no place yet."""
        return len(self._waiting) + len(self._ready)

    @property
    def busy(self) -> bool:
        """Returns whether a step is under way."""
        return self._step is not None

    def submit(self, sequence: TokenSequence, *, kv_ready: bool = False) -> None:
        """Queues a request; with `kv_ready` its prompt was prefilled elsewhere.

        Raises:
            InputError: it can never fit into the KV pool of one rank.
        """
        sequence.final = sequence.prompt if self.role == "prefill" else sequence.prompt + sequence.total
        need = sequence.final + self._drafted + 1
        if need > self.costs.kv_tokens_per_rank:
            raise InputError(
                f"a request of {sequence.prompt} + {sequence.total} tokens needs {need} KV tokens, "
                f"a rank's pool has {self.costs.kv_tokens_per_rank}"
            )
        self._sequences[sequence.key] = sequence
        (self._ready if kv_ready else self._waiting).append(sequence)

    def cancel(self, key: int) -> None:
        """Frees the place of a request; unknown keys (already ended) are ignored."""
        if sequence := self._sequences.pop(key, None):
            sequence.cancelled = True
            for line in (self._waiting, self._ready):
                if sequence in line:
                    line.remove(sequence)
            return
        self._drop(np.flatnonzero(self._key[: self._n] == key).tolist())

    @property
    def generation_tokens(self) -> int:
        """Returns the output tokens generated so far."""
        running = self._state[:, : self._n]
        return self._past_tokens + int((running[_TOTAL] - running[_REMAINING]).sum())

    def take_emissions(self) -> list[Emission]:
        """Returns the events since the last call, in time order."""
        emissions, self._emissions = self._emissions, []
        return emissions

    def take_prefilled(self) -> list[TokenSequence]:
        """Returns the prompts whose prefill ended on a prefill worker since the last call."""
        sequences, self.prefilled = self.prefilled, []
        return sequences

    def counters(self) -> SpecCounters | None:
        """Returns the speculation counters, or None where speculation is off."""
        return self.drafts.counters() if self.drafts else None

    def power_w(self, now_s: float) -> float:
        """Returns the power of each GPU at a moment; all GPUs step together and draw the same."""
        step = self._step
        busy = step is not None and step.start_s <= now_s < step.end_s
        return self.costs.idle_w + (step.extra_w if busy and step else 0.0)

    def energy_j(self, now_s: float) -> float:
        """Returns the energy of each GPU since engine second 0."""
        joules = self.costs.idle_w * now_s + self.totals.extra_j
        if step := self._step:
            joules += step.extra_w * (min(max(now_s, step.start_s), step.end_s) - step.start_s)
        return joules

    def begin(self, now_s: float) -> float | None:
        """Starts a step and returns when it ends, or None where there is nothing to do."""
        if max(self._reserved) > self.costs.kv_tokens_per_rank:
            self._preempt()
        if self._ready:
            self._admit_ready(now_s)
        chunks, longest = self._plan_prefill() if self._prefilling or self._waiting else ([], 0)
        n = self._n
        if not n and not chunks:
            return None
        costs = self.costs
        if costs.depths is not None:
            self._depth = costs.depths[count_fullest(self._counts_decoding(), chunks)]
        decode_s = costs.step_s[self._depth][max(self._counts_decoding())] if n else 0.0
        duration_s = decode_s
        prefill_s = 0.0
        if chunks:
            prefill_s = costs.prefill.at(longest)
            duration_s = prefill_s
            if n:
                duration_s = max(decode_s, costs.prefill_fixed_s) + prefill_s - costs.prefill_fixed_s
        share = (duration_s - decode_s) / duration_s if n else 1.0
        extra_w = share * costs.prefill_w + (1 - share) * costs.decode_w - costs.idle_w
        self._step = EngineStep(now_s, now_s + duration_s, n, chunks, extra_w)
        return now_s + duration_s

    def finish(self) -> None:
        """Ends the step that `begin` started: counts tokens, emits events, frees places."""
        step, self._step = self._step, None
        assert step is not None, "finish() without begin()"
        self.totals.steps += 1
        self.totals.extra_j += step.extra_w * (step.end_s - step.start_s)
        if n := self._n:
            remaining = self._remaining[:n]
            drafts, depth = self.drafts, self._depth
            remaining -= drafts.take(self._key[:n], self._rank[:n], depth) if drafts and depth else 1
            (due,) = (remaining <= self._due[:n]).nonzero()
            if due.size:
                self._emit(due, step.end_s)
        if step.chunks:
            self._end_chunks(step)

    # ------------------------------------------------------------------------------------ prefill

    def _counts_decoding(self) -> list[int]:
        if not self._prefilling:
            return self._counts
        return [count - len(sequences) for count, sequences in zip(self._counts, self._partial, strict=True)]

    def _plan_prefill(self) -> tuple[list[tuple[TokenSequence, int]], int]:
        budget = [self._chunk] * self._ranks
        chunks: list[tuple[TokenSequence, int]] = []
        for rank, partial in enumerate(self._partial):
            while partial and partial[0].cancelled:
                self._release_prefill(partial.popleft())
            for sequence in partial:
                take = min(budget[rank], sequence.context - sequence.computed)
                if take <= 0:
                    break
                budget[rank] -= take
                chunks.append((sequence, take))
        while self._waiting:
            sequence = self._waiting[0]
            chosen = self._rank_for_prompt(sequence, budget)
            if chosen is None:
                break
            self._waiting.popleft()
            self._hold(sequence, chosen)
            self._partial[chosen].append(sequence)
            self._prefilling += 1
            take = min(budget[chosen], sequence.context)
            budget[chosen] -= take
            chunks.append((sequence, take))
        return chunks, self._chunk - min(budget)

    def _rank_for_prompt(self, sequence: TokenSequence, budget: list[int]) -> int | None:
        if self.running >= self.limits.max_running:
            return None
        if self.role == "prefill":
            rank = budget.index(max(budget))
        else:
            open_ranks = [r for r in range(self._ranks) if budget[r] > 0]
            if not open_ranks:
                return None
            rank = min(open_ranks, key=lambda r: (self._counts[r], -budget[r]))
        return rank if budget[rank] > 0 and self._fits(sequence, rank) else None

    def _end_chunks(self, step: EngineStep) -> None:
        joining: list[TokenSequence] = []
        for sequence, take in step.chunks:
            sequence.computed += take
            if sequence.generated == 0:
                self.totals.prompt_tokens += take
            if sequence.computed < sequence.context:
                continue
            self._partial[sequence.rank].remove(sequence)
            if sequence.cancelled:
                self._release_prefill(sequence)
            elif self.role == "prefill":
                self._release_prefill(sequence)
                del self._sequences[sequence.key]
                self.prefilled.append(sequence)
            else:
                self._prefilling -= 1
                joining.append(sequence)
        if joining:
            self._join(joining, step.end_s)

    def _release_prefill(self, sequence: TokenSequence) -> None:
        self._prefilling -= 1
        self._counts[sequence.rank] -= 1
        self._reserved[sequence.rank] -= sequence.final

    # ------------------------------------------------------------------------------------ KV pool

    def _hold(self, sequence: TokenSequence, rank: int) -> None:
        sequence.rank = rank
        self._counts[rank] += 1
        self._reserved[rank] += sequence.final

    def _used(self) -> list[int]:
        """Returns the exact KV tokens by rank."""
        state = self._state[:, : self._n]
        context = state[_PROMPT] + state[_TOTAL] - state[_REMAINING]
        used = np.bincount(state[_RANK], weights=context, minlength=self._ranks).astype(int).tolist()
        for rank, sequences in enumerate(self._partial):
            used[rank] += sum(sequence.context for sequence in sequences)
        return [int(tokens) for tokens in used]

    def _fits(self, sequence: TokenSequence, rank: int) -> bool:
        """Returns whether a rank has room: surely where all can grow to its end, else by exact count."""
        pool = self.costs.kv_tokens_per_rank
        if self._reserved[rank] + sequence.final <= pool:
            return True
        growth = (self._counts[rank] + 1) * (self._drafted + 1)
        return self._used()[rank] + sequence.context + growth <= pool

    def _preempt(self) -> None:
        """Sends the youngest sequences of overflowing ranks back, until the next step is sure to fit."""
        used = self._used()
        for rank in range(self._ranks):
            while used[rank] + self._counts[rank] * (self._drafted + 1) > self.costs.kv_tokens_per_rank:
                rows = np.flatnonzero(self._state[_RANK, : self._n] == rank)
                if len(rows) < 2:
                    break  # the last one must go on, or the rank would never end anything
                row = int(rows[self._state[_AGE, rows].argmax()])
                key, remaining, due, total, prompt = (int(v) for v in self._state[:5, row])
                # `due` remains at the next event, so the last one was an interval of tokens earlier.
                sent = total - due - self.limits.stream_interval if due else total - remaining
                sequence = TokenSequence(key, prompt, total, total - remaining, sent, final=prompt + total)
                self._sequences[key] = sequence
                self._drop([row])
                self._waiting.appendleft(sequence)
                self.totals.preemptions += 1
                used[rank] -= sequence.context

    # ------------------------------------------------------------------------------------ decode

    def _admit_ready(self, now_s: float) -> None:
        admitted: list[TokenSequence] = []
        room = self.limits.max_running - self.running
        counts = self._counts
        while self._ready and len(admitted) < room:
            rank = counts.index(min(counts))
            if not self._fits(self._ready[0], rank):
                break
            sequence = self._ready.popleft()
            self._hold(sequence, rank)
            admitted.append(sequence)
        if admitted:
            self._join(admitted, now_s)

    def _join(self, sequences: list[TokenSequence], now_s: float) -> None:
        """Gives sequences whose context is computed their next token, and lets them decode."""
        interval = self.limits.stream_interval
        rows: list[tuple[int, ...]] = []
        keys: list[int] = []
        tokens: list[int] = []
        done: list[int] = []
        for sequence in sequences:
            del self._sequences[sequence.key]
            # A preempted sequence runs again, with the tokens that it had generated.
            self._past_tokens -= sequence.generated
            sequence.generated += 1
            remaining = sequence.total - sequence.generated
            if remaining == 0 or sequence.sent == 0 or sequence.generated - sequence.sent >= interval:
                sequence.sent = sequence.generated
                keys.append(sequence.key)
                tokens.append(sequence.generated)
            if remaining == 0:
                done.append(sequence.key)
                self._past_tokens += sequence.generated
                self._counts[sequence.rank] -= 1
                self._reserved[sequence.rank] -= sequence.final
            else:
                self._age += 1
                due = max(sequence.total - sequence.sent - interval, 0)
                place = (sequence.total, sequence.prompt, sequence.rank, self._age)
                rows.append((sequence.key, remaining, due, *place))
        if keys:
            self._emissions.append(Emission(now_s, np.array(keys), np.array(tokens), done))
        if rows:
            n = self._n + len(rows)
            if n > self._state.shape[1]:
                self._grow(2 * n)
            self._state[:, self._n : n] = np.array(rows).T
            self._n = n

    def _grow(self, capacity: int) -> None:
        state = np.zeros((7, capacity), np.int64)
        if self._n:
            state[:, : self._n] = self._state[:, : self._n]
        self._state = state
        self._key, self._remaining, self._due, self._total = state[:4]
        self._rank = state[_RANK]

    def _emit(self, due: Ints, now_s: float) -> None:
        remaining = self._remaining[due]
        np.maximum(remaining, 0, out=remaining)
        self._due[due] = np.maximum(remaining - self.limits.stream_interval, 0)
        keys = self._key[due]
        (ended,) = (remaining == 0).nonzero()
        done: list[int] = keys[ended].tolist()
        self._emissions.append(Emission(now_s, keys, self._total[due] - remaining, done))
        if done:
            self._drop(due[ended].tolist())

    def _drop(self, rows: list[int]) -> None:
        """Removes rows (rising); the last row moves into each hole."""
        state, n = self._state, self._n
        for row in reversed(rows):
            _, remaining, _, total, prompt, rank, _ = state[:, row].tolist()
            self._counts[rank] -= 1
            self._reserved[rank] -= prompt + total
            self._past_tokens += total - max(remaining, 0)
            n -= 1
            if row != n:
                state[:, row] = state[:, n]
        self._n = n


def make_worker(
    group: WorkerGroup,
    profile: Profile,
    limits: EngineLimits,
    drafting: Drafting | None,
    seed: Sequence[int],
) -> Worker:
    """Builds one worker of a group; `drafting` is None without speculation. Prefill workers never draft."""
    if group.role == "prefill":
        drafting = None
    return Worker(
        role=group.role,
        ranks=group.dp,
        costs=Costs.of(profile, group, drafting, limits),
        limits=limits,
        drafts=Drafts(drafting, seed, group.dp) if drafting else None,
    )
