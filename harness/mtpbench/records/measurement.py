"""The measurement holds the rules of measuring one point; the settling says whether its rates had settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mtpbench.records.codec import Json, NotNegative, to_json

MeasuringRule = Literal["2026-05", "2026-11"]
"""How a point is measured, by date.

`2026-05`: lengths are drawn independently, all slots start at once, the window begins when they are warm.
`2026-11`: lengths are shuffled equal quantiles; the slots of a closed loop start out of step; what is not yet
settled is cut from the window's beginning; what does not settle makes the point invalid (`not_settled`).
"""
OLDEST_RULE: MeasuringRule = "2026-05"
"""The rule of points that don't name one."""
LEAST_WARMUP_TO_SPREAD = 2.0
"""Warm-up requests per slot from which phases are spread: the first, shortened one must be over, and a whole
one begun, before the window begins. With one the rates come out up to 5% too high."""
_BESIDE_THE_POINT = ("power", "idle_s")
"""Rules of measuring on which a point's figures don't depend."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """The measurement holds the rules of measuring one point.

    Args:
        warmup_per_slot: requests per slot that end before the window may begin; load goes on after them.
        requests_per_slot: requests per slot that are measured.
        min_requests: at least so many measured requests, whatever the concurrency.
        min_window_s: a steady-state window shorter than this (engine seconds) makes the point invalid.
        max_error_rate: the share of failed measured requests, or of slot-time that failures took, above which
            the point is invalid.
        request_timeout_s: a request without an end after this fails.
        point_timeout_s: a point that takes longer is cut off and invalid.
        ready_timeout_s: how long a deployment may take to become ready.
        sample_interval_s: seconds between two scrapes of counters and power.
        continuous_usage: whether the server shall send the token count in every event.
        greedy_prompts: fixed prompts that each start answers greedily before its ladder; 0 for none.
        greedy_tokens: output tokens of each of those answers.
        evaluate: a command that scores the live endpoint once for each start, or None.
        evaluate_timeout_s: wall seconds that it may take.
        power: `required` refuses to measure where the GPUs' power can't be read.
        idle_s: wall seconds for which idle power is read, before the servers start and with the model loaded;
            0 for not at all. Nothing waits where there is no power to read.
        rule: by which dated rule lengths are drawn, slots start and the window begins; `MeasuringRule`.
    """

    warmup_per_slot: float = 2.0
    requests_per_slot: float = 10.0
    min_requests: int = 8
    min_window_s: float = 1.0
    max_error_rate: float = 0.01
    request_timeout_s: float = 3600.0
    point_timeout_s: float = 14400.0
    ready_timeout_s: float = 3600.0
    sample_interval_s: float = 0.25
    continuous_usage: bool = True
    greedy_prompts: int = 4
    greedy_tokens: int = 32
    evaluate: str | None = None
    evaluate_timeout_s: float = 3600.0
    power: Literal["optional", "required"] = "optional"
    idle_s: float = 10.0
    rule: MeasuringRule = OLDEST_RULE

    @property
    def stratifies_lengths(self) -> bool:
        """Returns whether lengths are shuffled equal quantiles, not independent draws."""
        return self.rule != OLDEST_RULE

    @property
    def spreads_phases(self) -> bool:
        """Returns whether a closed loop's slots begin with shortened requests, and so out of step."""
        return self.rule != OLDEST_RULE and self.warmup_per_slot >= LEAST_WARMUP_TO_SPREAD

    @property
    def awaits_settling(self) -> bool:
        """Returns whether the window begins where rates have settled, and a point that has not is invalid."""
        return self.rule != OLDEST_RULE

    def hashed(self) -> Json:
        """Returns the JSON that a point's id hashes.

        What the figures don't depend on is left out, and the rule by which points were always measured.
        """
        body = to_json(self)
        for name in _BESIDE_THE_POINT:
            body.pop(name)
        if self.rule == OLDEST_RULE:
            body.pop("rule")
        return body


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """A trend says how a figure moved over the time blocks of a window; changes are shares of its mean.

    Args:
        half_width: of the mean's 95% interval, by batch means.
        change: from the window's beginning to its end, by a straight line through the blocks.
        change_p: the chance of a change as large if nothing moved.
        step: from the mean of the blocks before the moment that divides them best to that of those after it,
            as a share of the latter.
        step_p: the chance of a step as large if nothing moved, at any of the moments that were tried.
    """

    half_width: NotNegative
    change: float
    change_p: NotNegative
    step: float
    step_p: NotNegative


@dataclass(frozen=True, kw_only=True, slots=True)
class Settling:
    """The settling of a run; what is NULL could not be told, mostly for want of time blocks.

    Args:
        cut_s: seconds that were cut from the window's beginning, because rates had not settled there.
        cut_share: their share of the window as it was.
        output_rate: of the output tokens per second; all tokens per second move with the lengths of requests
            too.
        interactivity: of 1 / median TPOT.
        scatter_p: the chance that the TPOT of the blocks differs as much if all requests were alike.
    """

    cut_s: NotNegative
    cut_share: NotNegative
    output_rate: Trend | None = None
    interactivity: Trend | None = None
    scatter_p: NotNegative | None = None
