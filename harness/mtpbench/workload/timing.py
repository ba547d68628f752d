"""When a dataset's requests start: by the times of a trace, by the order of sessions, also on reuse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtpbench.metrics.request_table import Floats, Ints
from mtpbench.workload.dataset import Dataset


@dataclass(frozen=True, kw_only=True, eq=False)
class Timing:
    """By request index; see `Prompts` for what they mean."""

    arrivals_s: Floats | None
    after: Ints
    delay_s: Floats
    notes: tuple[str, ...] = ()


def untimed(count: int) -> Timing:
    """Requests that wait for nothing."""
    return Timing(arrivals_s=None, after=np.full(count, -1, np.int64), delay_s=np.zeros(count))


def time_rows(dataset: Dataset, count: int) -> Timing:
    """The timing of `count` requests whose i-th one is row i mod n; each pass makes its sessions anew.

    Raises:
        SweepError: a trace whose timestamps are all equal would have to go on.
    """
    rows, index = len(dataset), np.arange(count, dtype=np.int64)
    passes, row = index // rows, index % rows
    previous = dataset.previous[row]
    after = np.where(previous < 0, -1, previous + passes * rows)
    if rows >= count:
        arrivals_s = None if dataset.times_s is None else dataset.times_s[:count]
        return Timing(arrivals_s=arrivals_s, after=after, delay_s=dataset.delay_s[row])
    notes = [
        f"the dataset's {rows} lines were reused for {count} requests: prefix caches may have helped"
        + (", and a session that came again counts as a new one" if (dataset.previous >= 0).any() else "")
    ]
    arrivals_s = None
    if dataset.times_s is not None:
        last_s = float(dataset.times_s[-1])
        if last_s == 0:
            raise dataset.error(
                rows - 1,
                f"{count} requests are wanted and the trace has {rows}, all at the same time, so it has no "
                "interval to go on with; give it as many lines, or timestamps that rise",
            )
        interval_s = last_s / (rows - 1)
        arrivals_s = dataset.times_s[row] + passes * (last_s + interval_s)
        notes.append(
            f"the trace was repeated after its end at {last_s:g} s, each time after its mean interval of "
            f"{interval_s:.3g} s"
        )
    return Timing(arrivals_s=arrivals_s, after=after, delay_s=dataset.delay_s[row], notes=tuple(notes))
