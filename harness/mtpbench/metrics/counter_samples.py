"""Pure: the samples of an engine's speculation counters, as they can be: sound, by worker, counted from 0."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from mtpbench.records import MOST_COUNTED, CounterSample, SpecCounters, SpecGauge, known


def sound_samples(samples: Iterable[CounterSample]) -> list[CounterSample]:
    """Returns the samples of a known moment, each without what can be no count."""
    return [_sound(sample) for sample in samples if math.isfinite(sample.time_s)]


def _sound(sample: CounterSample) -> CounterSample:
    """Returns the sample without what can be no count: NaN, infinities, negative and huge values."""
    counters, gauges = sample.counters, sample.gauges
    if counters is not None:
        counted = (counters.drafts, counters.draft_tokens)
        counts = (*(c for c in counted if c is not None), *counters.per_position)
        # A difference of counters is below 0 where requests were aborted before their first token.
        least = -MOST_COUNTED if counters.draft_tokens is None else 0.0
        if known(counters.accepted_tokens, least, MOST_COUNTED) is None or any(
            known(count, 0.0, MOST_COUNTED) is None for count in counts
        ):
            counters = None
    sound = tuple(gauge for gauge in gauges if _is_sound(gauge))
    if counters is sample.counters and len(sound) == len(gauges):
        return sample
    return dataclasses.replace(sample, counters=counters, gauges=sound)


def _is_sound(gauge: SpecGauge) -> bool:
    values = (gauge.length, 0.0 if gauge.verify_calls is None else gauge.verify_calls)
    return all(known(value, 0.0, MOST_COUNTED) is not None for value in values)


def by_worker(samples: Sequence[CounterSample], expected: Sequence[str]) -> dict[str, list[CounterSample]]:
    """Returns the samples, in the order of time, of each expected worker that gave counters or gauges."""
    workers: dict[str, list[CounterSample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.time_s):
        if not expected or sample.process in expected:
            workers.setdefault(sample.process, []).append(sample)
    return {name: group for name, group in workers.items() if any(s.counters or s.gauges for s in group)}


def from_zero(readings: Sequence[CounterSample]) -> list[CounterSample]:
    """Returns the samples of a worker, with counters of 0 where only gauges were there before the first ones.

    Counters have no series before the worker's first request has ended: an idle worker never has any.
    """
    counted = (i for i, sample in enumerate(readings) if sample.counters is not None)
    first = next(counted, len(readings))
    zero = SpecCounters(drafts=0.0, draft_tokens=None, accepted_tokens=0.0)
    return [
        dataclasses.replace(sample, counters=zero, gauges=()) if i < first and sample.gauges else sample
        for i, sample in enumerate(readings)
    ]


def is_drafting(samples: Sequence[CounterSample]) -> bool:
    """Returns whether a server drafts: counters of steps or drafted tokens rise, or a gauge is above 1."""
    for readings in by_worker(samples, ()).values():
        counts = [(s.counters.drafts or 0.0, s.counters.draft_tokens or 0.0) for s in readings if s.counters]
        if counts and max(counts) > min(counts):
            return True
    return any(gauge.length > 1 for sample in samples for gauge in sample.gauges)
