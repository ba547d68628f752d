"""Pure: acceptance from an engine's speculation counters over the window, or NULL with a reason code."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from mtpbench.metrics.counter_samples import by_worker, from_zero, is_drafting, sound_samples
from mtpbench.metrics.meter_series import MeterSeries
from mtpbench.metrics.window import Window
from mtpbench.records import (
    MOST_COUNTED,
    Acceptance,
    AcceptanceGap,
    CounterSample,
    CounterSource,
    GaugeMean,
    Point,
    SpecCounters,
    Speculation,
    known,
)

_ROUNDING = 1e-9
MIN_COVERAGE = 0.5
"""The share of the window that a worker's samples must span."""


def measure_acceptance(
    point: Point,
    samples: Sequence[CounterSample],
    window: Window | None,
    expected: Sequence[str] = (),
    source: CounterSource | None = None,
    blocks: Sequence[Window] = (),
    decoded_tps: float | None = None,
) -> Acceptance:
    """Computes acceptance from counter differences over the window, summed over the verifying workers.

    For each worker the first and the last readable sample inside the window count; if fewer than two lie
    inside, those just before and after the window count too.

    Args:
        point: its arm says whether speculation is on.
        samples: counter samples of every worker, in any order.
        window: the steady-state window, or None if there was none.
        expected: names of the decode or aggregated processes; empty for every process with counters.
        source: where the counters come from, for the record.
        blocks: the window's time blocks, of which the length is computed too.
        decoded_tps: output tokens per second in the window besides the first of each request, as the client
            counted them.

    Returns:
        NULL with its reason where there is none.
    """
    samples = sound_samples(samples)
    if point.arm.speculation is None:
        return unknown_acceptance("off_but_drafting" if is_drafting(samples) else "speculation_off", source)
    if window is None:
        return unknown_acceptance("no_window", source)
    workers = by_worker(samples, expected)
    if not workers:
        return unknown_acceptance("no_counters", source)
    if set(expected) - set(workers):
        return unknown_acceptance("worker_missing", source)
    speculation = point.arm.speculation
    if not any(s.counters for readings in workers.values() for s in readings):
        return average_gauges(workers, window, speculation, source)
    fixed = speculation.draft_tokens if speculation.drafts_evenly else None
    counted = [[_with_steps(sample, fixed) for sample in from_zero(group)] for group in workers.values()]
    if fixed and _drafts_by_client(counted, window, decoded_tps) == fixed:
        counted = [[_with_steps_of(sample, fixed) for sample in group] for group in counted]
    deltas = _deltas(counted, window)
    if isinstance(deltas, str):
        return unknown_acceptance(deltas, source)
    if fixed is None and any(map(_has_assumed_steps, deltas)):
        return unknown_acceptance("steps_unknown", source)
    made = _summed(deltas, source)
    if made.length is not None and not _is_possible(made, deltas, speculation.draft_tokens):
        return unknown_acceptance("impossible", source)
    counters = [s.counters for group in workers.values() for s in group if s.counters]
    counts_both = all(None not in (c.drafts, c.draft_tokens) for c in counters)
    skips, accepted_tps = speculation.may_skip_drafts, _rate(counted, deltas, window, "accepted_tokens")
    return dataclasses.replace(
        made,
        length_by_block=_by_block(counted, blocks, speculation.draft_tokens) if made.length else None,
        draft_tokens_per_step=made.draft_tokens_per_step if counts_both else None,
        drafting_steps_only=made.length is not None and counts_both and skips,
        tokens_per_step=_tokens_per_step(decoded_tps, accepted_tps, speculation.draft_tokens)
        if skips
        else None,
    )


def _tokens_per_step(decoded_tps: float | None, accepted_tps: float, drafts: int) -> float | None:
    """Returns the tokens of all steps, drafting or not: each gives one besides the drafts that it accepts.

    None where client and counters contradict each other, so that no step could give so many.
    """
    steps_per_s = 0.0 if decoded_tps is None else decoded_tps - accepted_tps
    tokens = decoded_tps / steps_per_s if decoded_tps and steps_per_s > 0 else None
    return tokens if tokens is not None and _is_length(tokens, drafts) else None


def _has_assumed_steps(delta: SpecCounters) -> bool:
    """Returns whether the steps are drafted tokens / a depth that is not that of every step.

    An engine that counts both steps and drafted tokens counts accepted ones by position as well; TensorRT-LLM
    before 1.3.0rc19 does not, and its steps follow from the depth in its configuration.
    """
    return bool(delta.draft_tokens) and delta.accepted_tokens > 0 and not delta.per_position


def _is_possible(made: Acceptance, deltas: Sequence[SpecCounters], drafts: int) -> bool:
    """Returns whether a step gives 1 to drafts + 1 tokens, on no worker more, and no position too many."""
    assert made.length is not None
    shares = (made.rate or 0.0, *(made.per_position or ()))
    return (
        _is_length(made.length, drafts)
        and all(-_ROUNDING <= share <= 1 + _ROUNDING for share in shares)
        and all(delta.accepted_tokens <= (delta.drafts or 0.0) * drafts * (1 + _ROUNDING) for delta in deltas)
    )


def _is_length(length: float, drafts: int) -> bool:
    return 1 - _ROUNDING <= length <= drafts + 1 + _ROUNDING


def unknown_acceptance(reason: AcceptanceGap, source: CounterSource | None = None) -> Acceptance:
    """Returns an acceptance without figures, with the reason code."""
    return Acceptance(length=None, rate=None, per_position=None, drafts=None, source=source, reason=reason)


def _with_steps(sample: CounterSample, drafts: int | None) -> CounterSample:
    """Returns the sample with drafted tokens where the engine counts only steps that each draft `drafts`.

    Steps don't follow from drafted tokens alone: an engine may draft another number than the arm says.
    """
    counters = sample.counters
    if counters is None or counters.draft_tokens is not None or counters.drafts is None or drafts is None:
        return sample
    both = dataclasses.replace(counters, draft_tokens=counters.drafts * drafts)
    return dataclasses.replace(sample, counters=both)


def _with_steps_of(sample: CounterSample, drafts: int) -> CounterSample:
    """Returns the sample with steps where the engine counts only the `drafts` tokens of each."""
    counters = sample.counters
    if counters is None or counters.drafts is not None or counters.draft_tokens is None:
        return sample
    return dataclasses.replace(
        sample, counters=dataclasses.replace(counters, drafts=counters.draft_tokens / drafts)
    )


def _drafts_by_client(
    workers: Sequence[list[CounterSample]], window: Window, decoded_tps: float | None
) -> int | None:
    """Returns the whole drafts of a step that the client's tokens tell, where the engine counts no steps.

    Every token that is neither the first of its request nor an accepted draft comes from a step of its own:
    that gives the steps, to a few percent, as counters and requests are not cut at the same moments. None
    where the engine counts steps, or nothing is told.
    """
    deltas = _deltas(workers, window)
    if decoded_tps is None or isinstance(deltas, str) or any(delta.drafts is not None for delta in deltas):
        return None
    steps_per_s = decoded_tps - _rate(workers, deltas, window, "accepted_tokens")
    drafted_tps = _rate(workers, deltas, window, "draft_tokens")
    return round(min(drafted_tps / steps_per_s, MOST_COUNTED)) if steps_per_s > 0 else None


def _rate(
    workers: Sequence[list[CounterSample]], deltas: Sequence[SpecCounters], window: Window, name: str
) -> float:
    """Returns how many of what a counter counts all workers make in a second."""
    total = 0.0
    for samples, delta in zip(workers, deltas, strict=True):
        used = _covering(samples, window)
        assert not isinstance(used, str)
        total += (getattr(delta, name) or 0.0) / (used[-1].time_s - used[0].time_s)
    return total


def _deltas(workers: Sequence[list[CounterSample]], window: Window) -> list[SpecCounters] | AcceptanceGap:
    """Returns the counts of each worker over the window, or the reason code of why one's are unknown."""
    deltas: list[SpecCounters] = []
    for samples in workers:
        delta = _delta(samples, window)
        if isinstance(delta, str):
            return delta
        deltas.append(delta)
    return deltas


def _delta(samples: list[CounterSample], window: Window) -> SpecCounters | AcceptanceGap:
    """Returns the counts of one worker over the window, or the reason code of why they are unknown."""
    used = _covering(samples, window)
    if isinstance(used, str):
        return used
    counts = [s.counters for s in used if s.counters is not None]
    if len(counts) < 2:
        return "too_few_samples"
    if any(s.restarted for s in used[1:]):
        return "counter_reset"
    totals = np.array([(c.drafts, c.draft_tokens, c.accepted_tokens) for c in counts], np.float64)
    # Accepted tokens may fall where they are a difference of counters: an aborted request has no first token.
    if (np.diff(totals[:, :2], axis=0) < 0).any():
        return "counter_reset"
    drafts, draft_tokens, accepted = (float(x) for x in totals[-1] - totals[0])
    return SpecCounters(
        drafts=known(drafts, 0.0, MOST_COUNTED),
        draft_tokens=known(draft_tokens, 0.0, MOST_COUNTED),
        accepted_tokens=accepted,
        per_position=_per_position(counts[0], counts[-1]),
    )


def _covering(samples: list[CounterSample], window: Window) -> list[CounterSample] | AcceptanceGap:
    """Returns the readable samples that span the window, or the reason code of why they do not."""
    readable = [s for s in samples if s.counters is not None or s.gauges]
    used = [s for s in readable if window.start_s <= s.time_s <= window.end_s]
    if len(used) < 2:
        before = [s for s in readable if s.time_s <= window.start_s][-1:]
        after = [s for s in readable if s.time_s >= window.end_s][:1]
        used = [*before, *used, *after]
    if len(used) < 2 or used[-1].time_s - used[0].time_s < MIN_COVERAGE * window.duration_s:
        failed = any(s.counters is None and not s.gauges and s.time_s <= window.end_s for s in samples)
        return "worker_vanished" if failed else "too_few_samples"
    return used


def average_gauges(
    workers: Mapping[str, list[CounterSample]],
    window: Window,
    speculation: Speculation,
    source: CounterSource | None,
) -> Acceptance:
    """Computes acceptance for an engine with gauges only: their mean over the window's samples and ranks.

    The weight of a sample is the verification steps counted since the sample before; all weights are equal if
    the engine does not count them. A gauge below 1 is that of a rank without requests, and has no weight. A
    gauge holds the engine's latest average only, so it tells less than a counter.

    Args:
        workers: samples by process, in time order.
        window: the steady-state window.
        speculation: the arm's; it bounds the length.
        source: where the gauges come from.
    """
    lengths: list[float] = []
    weights: list[float] = []
    counted = 0.0
    for samples in workers.values():
        used = _covering(samples, window)
        if isinstance(used, str):
            return unknown_acceptance(used, source)
        for before, after in pairwise(used):
            earlier = {gauge.rank: gauge.verify_calls for gauge in before.gauges}
            for gauge in (gauge for gauge in after.gauges if gauge.length >= 1):
                steps = _steps_since(earlier.get(gauge.rank), gauge.verify_calls)
                if steps is not None and steps < 0:
                    return unknown_acceptance("counter_reset", source)
                lengths.append(gauge.length)
                weights.append(1.0 if steps is None else steps)
                counted += steps or 0.0
    if not sum(weights):
        return unknown_acceptance("no_drafts", source)
    length, drafts = float(np.average(lengths, weights=weights)), speculation.draft_tokens
    if not _is_length(max(lengths), drafts):
        return unknown_acceptance("impossible", source)
    return Acceptance(
        length=length,
        rate=(length - 1) / drafts if speculation.drafts_evenly else None,
        per_position=None,
        drafts=counted or None,
        source=source,
        gauge=GaugeMean(samples=len(lengths), weighted=bool(counted)),
    )


def _steps_since(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _by_block(
    workers: Sequence[Sequence[CounterSample]], blocks: Sequence[Window], drafts: int
) -> tuple[float, ...] | None:
    """Returns the acceptance length of each block, from counters interpolated to the blocks' edges.

    None where there are none, a worker's counters were read less than twice a block, or a block had no draft
    or a length that can't be.
    """
    total = np.zeros((2, len(blocks)))
    for samples in workers:
        counts = [
            (s.time_s, s.counters.drafts, s.counters.accepted_tokens)
            for s in samples
            if s.counters and s.counters.drafts is not None
        ]
        times_s, *counters = np.array(counts, np.float64).reshape(-1, 3).T
        for row, counter in zip(total, counters, strict=True):
            by_block = MeterSeries(times_s, counter).differences(blocks)
            if by_block is None:
                return None
            row += by_block
    steps, accepted = total
    if not (steps > 0).all():
        return None
    lengths = (1 + accepted / steps).tolist()
    return tuple(lengths) if all(_is_length(length, drafts) for length in lengths) else None


def _per_position(first: SpecCounters, last: SpecCounters) -> tuple[float, ...]:
    # A position that first appears during the window was 0 before (labels appear with their first count).
    before = first.per_position + (0.0,) * (len(last.per_position) - len(first.per_position))
    return tuple(b - a for a, b in zip(before, last.per_position, strict=False))


def _summed(deltas: list[SpecCounters], source: CounterSource | None) -> Acceptance:
    drafts = sum(delta.drafts or 0.0 for delta in deltas)
    drafted = sum(delta.draft_tokens or 0.0 for delta in deltas)
    accepted = sum(delta.accepted_tokens for delta in deltas)
    if any(delta.drafts is None for delta in deltas):
        if accepted or not drafted:
            return unknown_acceptance("steps_unknown" if drafted else "no_drafts", source)
        return Acceptance(length=1.0, rate=0.0, per_position=None, drafts=None, source=source)
    if any(delta.draft_tokens is None for delta in deltas):
        drafted = 0.0
    if drafts <= 0:
        return unknown_acceptance("no_drafts", source)
    lengths = {len(delta.per_position) for delta in deltas if delta.drafts}
    positions: tuple[float, ...] | None = None
    if len(lengths) == 1 and lengths != {0}:
        columns = zip(*(delta.per_position for delta in deltas if delta.drafts), strict=True)
        positions = tuple(sum(column) / drafts for column in columns)
    return Acceptance(
        length=1.0 + accepted / drafts,
        rate=accepted / drafted if drafted > 0 else None,
        per_position=positions,
        drafts=drafts,
        source=source,
        draft_tokens_per_step=drafted / drafts if drafted > 0 else None,
    )
