"""The faults that the embedded engine plays on purpose, and when.

Process kinds (a time is engine seconds after start; without one they hold from the start)
    exit_before_bind    exits with status `value` (1) before the port is bound
    exit_after_bind     exits with status `value` (1) at `at_s`, at request `at_request`, or once it is bound
    never_healthy       /health answers 503 for ever
    slow_start          /health answers 503 for the first `value` (5) engine seconds
    metrics_missing     /metrics answers 404 from `at_s` on
    metrics_reset       every counter starts again from 0 at `at_s`
    sigterm_ignored     SIGTERM does nothing
    mtp_silently_off    drafting is off, and no speculation counter exists
Request kinds (struck: the first request at or after `at_s`; request number `at_request`; each request with
`probability`; every request where none of the three is given)
    http_429 http_500 http_503   that status and an OpenAI error body
    disconnect_before_stream     the connection closes before any byte
    disconnect_mid_stream        the connection closes after `value` (1) token events
    no_usage                     no usage, neither at the end nor in the events
    no_done                      the stream ends without [DONE]
    stall                        nothing is sent for `value` (60) engine seconds after the first token event
    malformed_event              the second token event is cut off in the middle of its JSON
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson

from mtpbench.errors import InputError, UnsupportedError
from mtpbench.records import Fault, from_json

SILENTLY_OFF = "mtp_silently_off"
STATUSES = {"http_429": 429, "http_500": 500, "http_503": 503}
PROCESS_KINDS = (
    "exit_before_bind",
    "exit_after_bind",
    "never_healthy",
    "slow_start",
    "metrics_missing",
    "metrics_reset",
    "sigterm_ignored",
    SILENTLY_OFF,
)
REQUEST_KINDS = (
    *STATUSES,
    "disconnect_before_stream",
    "disconnect_mid_stream",
    "no_usage",
    "no_done",
    "stall",
    "malformed_event",
)
KINDS = (*PROCESS_KINDS, *REQUEST_KINDS)
_NO_PROBABILITY = (*PROCESS_KINDS,)


def check_fault(fault: Fault) -> None:
    """Raises an error for a kind that does not exist, or a schedule that is impossible.

    Raises:
        UnsupportedError: says which kinds there are, or what is wrong with the schedule.
    """
    if fault.kind not in KINDS:
        raise UnsupportedError(f"unknown fault {fault.kind!r}; valid: {', '.join(KINDS)}")
    schedules = [n for n in ("at_s", "at_request", "probability") if getattr(fault, n) is not None]
    if len(schedules) > 1:
        raise UnsupportedError(
            f"fault {fault.kind}: {' and '.join(schedules)} are given; only one of them can be"
        )
    if fault.probability is not None and not 0 <= fault.probability <= 1:
        raise UnsupportedError(f"fault {fault.kind}: probability {fault.probability:g} is not in [0, 1]")
    if fault.kind in _NO_PROBABILITY and fault.probability is not None:
        raise UnsupportedError(f"fault {fault.kind} strikes a process, not requests: it takes no probability")
    if (fault.at_s or 0) < 0 or (fault.at_request or 0) < 0:
        raise UnsupportedError(f"fault {fault.kind}: at_s and at_request can't be negative")


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Parses the faults of a command line's JSON list.

    Raises:
        InputError: it is not such a list, or a fault is impossible.
    """
    try:
        data = orjson.loads(text)
        if not isinstance(data, list):
            raise ValueError("a list was expected")
        faults = tuple(from_json(Fault, item) for item in data)
    except ValueError as error:
        raise InputError(f"--faults: {error}") from error
    for fault in faults:
        check_fault(fault)
    return faults


class FaultPlan:
    """A fault plan says which faults strike when. Request faults are drawn in the order of requests.

    Args:
        faults: the planned faults.
        seed: of the draws of faults with a probability.
    """

    def __init__(self, faults: Sequence[Fault], seed: int) -> None:
        self._faults = tuple(faults)
        self._rng = np.random.default_rng([seed, 5])
        self._spent: set[int] = set()
        self._requests = 0

    def find(self, kind: str) -> Fault | None:
        """Returns the fault of a process kind; None where it is not planned."""
        return next((fault for fault in self._faults if fault.kind == kind), None)

    def holds(self, kind: str, now_s: float) -> bool:
        """Returns whether a process kind is in force."""
        return any(fault.kind == kind and now_s >= (fault.at_s or 0.0) for fault in self._faults)

    def strike(self, now_s: float) -> dict[str, Fault]:
        """Returns the faults, by kind, that strike the request that arrives now."""
        index, self._requests = self._requests, self._requests + 1
        return {
            fault.kind: fault
            for i, fault in enumerate(self._faults)
            if (fault.kind in REQUEST_KINDS or fault.at_request is not None)
            and self._strikes(i, fault, index, now_s)
        }

    def _strikes(self, i: int, fault: Fault, index: int, now_s: float) -> bool:
        if fault.probability is not None:
            return bool(self._rng.random() < fault.probability)
        if fault.at_request is not None:
            return fault.at_request == index
        if fault.at_s is not None:
            due = now_s >= fault.at_s and i not in self._spent
            if due:
                self._spent.add(i)
            return due
        return True
