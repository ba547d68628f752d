"""What the steps of one worker cost: a profile worked out for its layout and draft count."""

from __future__ import annotations

from dataclasses import dataclass

from mtpbench.records import EngineLimits, WorkerGroup
from mtpbench.simengine.profile import Line, Profile


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """What a worker's steps cost, worked out from a profile for one layout and draft count."""

    step_s: list[float]
    prefill: Line
    prefill_fixed_s: float
    kv_tokens_per_rank: int
    idle_w: float
    prefill_w: float
    decode_w: float

    @classmethod
    def of(cls, profile: Profile, group: WorkerGroup, drafts: int, limits: EngineLimits) -> Costs:
        """The costs of a worker of `group` that runs at most `limits.max_running` sequences."""
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
