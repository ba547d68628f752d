"""Pure: the figures of each kind of text: speed, tokens per step, and acceptance where engines tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mtpbench.metrics.chunk_latency import summarise
from mtpbench.metrics.percentile_intervals import TimeParts
from mtpbench.metrics.request_table import UNKNOWN, Floats, Ints, RequestRows
from mtpbench.metrics.window import Window
from mtpbench.records import Acceptance, CategoryFigures, Speculation, StepsGap, ToldGap

MAX_EVENTS_OFF = 0.05
"""The share by which tokens per event may be off tokens per step, beyond chance, where an event is a step."""
STEP_SPREAD = 1.2
"""Three standard deviations of a step's tokens, as a share of their mean."""
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class CountedRequests:
    """The counted requests of a point, and what is known of their steps.

    Args:
        rows: every request.
        counted: (n,) which of them count: r.
        later_tokens: (r,) output tokens after the first chunk.
        later_chunks: (r,) chunks after it.
        tpot_s: (q,) of those with later tokens.
        ended_s: (r,) when each ended.
        window: the steady-state window; None where there is none.
        blocks: its time blocks.
    """

    rows: RequestRows
    counted: Mask
    later_tokens: Ints
    later_chunks: Ints
    tpot_s: Floats
    ended_s: Floats
    window: Window | None
    blocks: Sequence[Window]


def figures_by_category(
    requests: CountedRequests, speculation: Speculation | None, acceptance: Acceptance, interval: int
) -> tuple[CategoryFigures, ...]:
    """Computes the figures of each kind of text, those without a name last; none where no request has one.

    Args:
        requests: the counted requests.
        speculation: the arm's; None where it is off.
        acceptance: the point's, by the engine's counters.
        interval: the stream interval of what streams.
    """
    if requests.rows.category is None:
        return ()
    categories = requests.rows.category[requests.counted]
    names: list[str | None] = sorted({*categories} - {None})
    names += [None] if None in categories else []
    gap = check_events(requests, speculation, acceptance, interval)
    return tuple(
        _figures(requests, np.array([each == name for each in categories], np.bool_), name, speculation, gap)
        for name in names
    )


def check_events(
    requests: CountedRequests, speculation: Speculation | None, acceptance: Acceptance, interval: int
) -> StepsGap | None:
    """Returns why an event is not taken for a step; None where it is one.

    Engines may gather the tokens of several steps in an event, or send those of one step in several, and so
    may what lies between. So the tokens of an event are held against what a step gives by the counters.
    """
    if interval != 1:
        return "events_gathered"
    events, tokens = int(requests.later_chunks.sum()), int(requests.later_tokens.sum())
    if not events:
        return "no_later_events"
    per_step, slack, at_ends = 1.0, MAX_EVENTS_OFF, 0.0
    if speculation is not None:
        if acceptance.length is None or acceptance.drafting_steps_only:
            return "uncounted"
        per_step, slack = acceptance.length, MAX_EVENTS_OFF + STEP_SPREAD / events**0.5
        # The last step of an answer may give more tokens than are sent.
        at_ends = speculation.draft_tokens * len(requests.later_tokens) / max(tokens, 1)
    off = tokens / events / per_step - 1
    return None if -slack - at_ends <= off <= slack else "events_split_or_merged"


def _figures(
    requests: CountedRequests,
    mine: Mask,
    name: str | None,
    speculation: Speculation | None,
    gap: StepsGap | None,
) -> CategoryFigures:
    several = requests.later_tokens >= 1
    parts = None
    if requests.window is not None:
        parts = TimeParts.of(requests.window, requests.blocks, requests.ended_s[mine & several])
    length, told_gap = _acceptance_length(requests, mine, speculation)
    steps = _steps(requests, mine & several, speculation, gap)
    return CategoryFigures(
        category=name,
        requests=int(mine.sum()),
        tpot_s=summarise(requests.tpot_s[mine[several]], parts),
        tokens_per_step=steps.tokens_per_step,
        steps_from=steps.source,
        steps_gap=steps.gap,
        acceptance_length=length,
        acceptance_gap=told_gap,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Steps:
    """Tokens per step, and how steps were told; or why they were not."""

    tokens_per_step: float | None = None
    source: Literal["events", "engine"] | None = None
    gap: StepsGap | None = None


def _steps(
    requests: CountedRequests, mine: Mask, speculation: Speculation | None, gap: StepsGap | None
) -> _Steps:
    """Finds the steps of some requests that have later tokens: events, or what the engine told."""
    source: Literal["events", "engine"] = "events"
    tokens, steps = requests.later_tokens[mine], requests.later_chunks[mine]
    if gap is not None:
        accepted = _told(requests, "accepted_draft_tokens")[mine]
        # Each step gives one token besides the drafts that it accepts.
        source, steps = "engine", tokens - accepted
        if (accepted == UNKNOWN).any() or (steps < 1).any():
            return _Steps(gap=gap)
    if not len(tokens) or not steps.sum():
        return _Steps(gap="no_later_events")
    per_step = float(tokens.sum() / steps.sum())
    if not 1 <= per_step <= 1 + (speculation.draft_tokens if speculation else 0):
        return _Steps(gap="impossible")
    return _Steps(tokens_per_step=per_step, source=source)


def _acceptance_length(
    requests: CountedRequests, mine: Mask, speculation: Speculation | None
) -> tuple[float | None, ToldGap | None]:
    """Returns the acceptance length of some requests by what the engine told of each, or why there is none.

    Requests of which nothing is told made no drafts, where the engine tells of any.
    """
    if speculation is None:
        return None, "speculation_off"
    steps, accepted = (_told(requests, name)[mine] for name in ("drafts", "accepted_draft_tokens"))
    told = (steps != UNKNOWN) & (accepted != UNKNOWN)
    if not told.any():
        return None, "not_told"
    if not steps[told].sum():
        return None, "no_drafts"
    length = 1 + float(accepted[told].sum() / steps[told].sum())
    return (length, None) if length <= 1 + speculation.draft_tokens else (None, "impossible")


def _told(requests: CountedRequests, name: str) -> Ints:
    """Returns what the engine told of the counted requests: (r,)."""
    column: Ints | None = getattr(requests.rows, name)
    return np.full(len(requests.later_tokens), UNKNOWN) if column is None else column[requests.counted]
