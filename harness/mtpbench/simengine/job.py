"""What goes through a worker: requests, the steps that carry them, and the token events that come out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from mtpbench.metrics.request_table import Ints


class Emission(NamedTuple):
    """Token events of one moment: `tokens` are cumulative per request, `done` those that ended."""

    time_s: float
    keys: Ints
    tokens: Ints
    done: list[int]


@dataclass(slots=True, eq=False)
class Job:
    """A request that is not decoding: waiting, in prefill, or with its KV ready."""

    key: int
    prompt: int
    total: int
    made: int = 0
    sent: int = 0
    computed: int = 0
    rank: int = -1
    final: int = 0
    """KV tokens it holds at its end on the worker it was submitted to."""
    cancelled: bool = False

    @property
    def context(self) -> int:
        """Tokens whose KV it needs: the prompt and what it has generated."""
        return self.prompt + self.made


@dataclass(slots=True)
class Step:
    """One step of all ranks: what it decodes, the prompt chunks it takes, and what it draws above idle."""

    start_s: float
    end_s: float
    decoding: int
    chunks: list[tuple[Job, int]] = field(default_factory=list)
    extra_w: float = 0.0


@dataclass(slots=True)
class Totals:
    """Counters that only rise."""

    prompt_tokens: int = 0
    preemptions: int = 0
    steps: int = 0
    extra_j: float = 0.0
