"""Pure: the steps of a worker: the sequences in them, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mtpbench.metrics.request_table import Ints
from mtpbench.records import EngineLimits, WorkerGroup
from mtpbench.simengine.drafting import Drafting
from mtpbench.simengine.profile import Line, Profile


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
    """Costs hold what a worker's steps cost, computed from a profile for one layout.

    Args:
        step_s: seconds of a decode step, by its drafts and by the sequences on the fullest rank; empty for
            depths that no step has.
        depths: drafts of a step by the requests on the fullest rank, where they depend on those.
        prefill, prefill_fixed_s: seconds by prompt tokens of the fullest rank, and those that each step has.
        kv_tokens_per_rank: room of an attention rank.
        idle_w, prefill_w, decode_w: power of one GPU.
    """

    step_s: list[list[float]]
    depths: list[int] | None
    prefill: Line
    prefill_fixed_s: float
    kv_tokens_per_rank: int
    idle_w: float
    prefill_w: float
    decode_w: float

    @classmethod
    def of(
        cls, profile: Profile, group: WorkerGroup, drafting: Drafting | None, limits: EngineLimits
    ) -> Costs:
        """Returns the costs of a worker of `group` that runs at most `limits.max_running` sequences."""
        ranks, longest = group.dp, limits.max_running
        step_s: list[list[float]] = [[] for _ in range((drafting.most if drafting else 0) + 1)]
        for depth in drafting.depths if drafting else (0,):
            method = drafting.costs if drafting else "mtp"
            step_s[depth] = profile.step_times_s(group, depth, longest, method).tolist()
        depths = None
        if drafting and drafting.depth:
            depths = [drafting.depth_at(requests) for requests in range(longest + 1)]
        line = profile.prefill_line_s(group)
        pool = profile.kv_tokens(group) if limits.kv_tokens is None else limits.kv_tokens // ranks
        return cls(
            step_s=step_s,
            depths=depths,
            prefill=line,
            prefill_fixed_s=max(0.0, line.at(0)),
            kv_tokens_per_rank=pool,
            idle_w=profile.idle_w,
            prefill_w=profile.prefill_w,
            decode_w=profile.decode_w,
        )


def count_fullest(decoding: Sequence[int], chunks: Sequence[tuple[TokenSequence, int]]) -> int:
    """Returns the requests of the fullest rank in a step: those that decode, and those in prefill."""
    counts = list(decoding)
    for sequence, _ in chunks:
        counts[sequence.rank] += 1
    return max(counts)
