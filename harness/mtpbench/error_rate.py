"""Pure: the rule of failed requests, which counts them by number and by the slot-time that they took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mtpbench.engines import explain
from mtpbench.metrics.request_table import CUT_OFF, RequestRows, RequestTable
from mtpbench.metrics.window import Window, seconds_inside, sending_window
from mtpbench.records import Point, PointResult, Reason


def check_error_rate(point: Point, table: RequestTable, result: PointResult) -> Iterable[Reason]:
    """Checks whether failures took more than is allowed: of the requests, or of a closed loop's slot-time.

    The number alone misleads both ways: a slot that is refused at once asks much more often than one that is
    served, and a request that times out takes a slot for longer. In an open loop the slots are a ceiling, and
    idle ones are no sign of anything.
    """
    # Requests that the harness cut off show nothing about the server; `cut_off` reports them.
    failed = {code: count for code, count in result.errors.items() if code != CUT_OFF}
    number, allowed = sum(failed.values()), point.measurement.max_error_rate
    share = number / result.requests
    closed = not point.load.open
    lost = failed_slot_time(table, result.client.paused_s) if closed else None
    if share <= allowed and (lost is None or lost.share <= allowed):
        return
    detail = f"{number} of {result.requests} measured requests failed ({share:.1%})"
    if lost is not None:
        detail += (
            f", in {lost.slots} of {point.concurrency} slots; with the pauses after them they took "
            f"{lost.share:.1%} of slot-time"
        )
    causes = f": {by_count(failed)}{_first_error(table)}" if failed else ""
    yield Reason(code="error_rate", detail=f"{detail}; allowed {allowed:.1%}{causes}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedSlotTime:
    """The share of slot-time that failed requests and the pauses after them took, and in how many slots."""

    share: float
    slots: int


def failed_slot_time(table: RequestRows, paused_s: float | None = None) -> FailedSlotTime | None:
    """Computes the share of slot-time that failures took from the first measured request on.

    Slot-time is that of all requests and pauses. The share is None where there is none.

    Args:
        table: the requests of a closed loop.
        paused_s: how long slots paused in that time, all together; None where no pauses were recorded.
    """
    if (sending := sending_window(table)) is None:
        return None
    failed = ~table.ok & (table.error != CUT_OFF)
    took_s = seconds_inside(table.sent_s, table.end_s, Window(start_s=sending.start_s, end_s=math.inf))
    pauses_s = 0.0 if paused_s is None else paused_s
    whole_s = float(took_s.sum()) + pauses_s
    if whole_s <= 0:
        return None
    slots = np.unique(table.slot[failed & (table.end_s >= sending.start_s)])
    return FailedSlotTime(share=(float(took_s[failed].sum()) + pauses_s) / whole_s, slots=len(slots))


def _first_error(table: RequestTable) -> str:
    """Returns the first error detail of a measured request, or its cause if it shows a known one."""
    details = [detail for detail in table.error_detail[~table.ok & ~table.warmup] if detail]
    if not details:
        return ""
    cause = explain(details[0])
    return f"; first: {cause or details[0]}"


def by_count(errors: Mapping[str, int]) -> str:
    """Returns errors with their numbers, the most frequent first."""
    return ", ".join(f"{count} {code}" for code, count in Counter(errors).most_common())
