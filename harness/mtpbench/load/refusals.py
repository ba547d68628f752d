"""Pure: a slot pauses after a refused request, to neither press a busy server nor burn its requests.

A refusal is `http_429`, `http_503` or a connection that nobody takes; the pause after it is what the server
asks for, or grows. Any other failure that comes at once (a 404, a 500, a connection that breaks) is followed
by the shortest pause: waiting longer would not help.

Sources: RFC 9110, 10.2.3 (Retry-After: seconds or a date) and 5.6.7 (dates); RFC 6585, 4 (429). The lengths
are those of OpenAI's client, which most users of such servers have: openai-python, `_constants.py`
(INITIAL_RETRY_DELAY, MAX_RETRY_DELAY) and `_base_client.py` (`_calculate_retry_timeout`, at most 60 s).
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import numpy as np

from mtpbench.metrics.request_table import Ints

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
"""The first pause after a refusal; each refusal in a row doubles it, up to the longest."""
LONGEST_ASKED_S = 60.0
"""The longest pause that a server may ask for."""
AT_ONCE_US = 100_000
"""Wall time: a request that failed within this failed at once. No answer of use comes as soon."""
REFUSALS = frozenset({"http_429", "http_503", "connect_failed"})
_MOST_DIGITS = 9


def read_retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Returns how long a server asks to wait, at least 0; None where it does not say, or says it unreadably.

    A date is held against the server's own clock (`Date`) where it tells it.

    Args:
        headers: the response's fields by lower-case name.
        now_s: Unix time of this machine.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text) if len(text) <= _MOST_DIGITS else LONGEST_ASKED_S
    if (until_s := _read_date_s(text)) is None:
        return None
    since_s = _read_date_s(headers.get("date", ""))
    return max(until_s - (now_s if since_s is None else since_s), 0.0)


def _read_date_s(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


class SlotPauses:
    """The pauses of one process's slots.

    Args:
        time_scale: engine seconds per wall second; pauses are in engine seconds.
    """

    def __init__(self, time_scale: float) -> None:
        self._us_per_s = 1e6 / time_scale
        self._in_a_row: dict[int, int] = {}
        """Refusals in a row by slot, where there are any."""
        self._pauses: array[int] = array("q")

    def end(self, slot: int, error: str | None, sent_us: int, end_us: int, asked_s: float | None) -> int:
        """Takes the end of a request; returns for how many microseconds its slot pauses.

        Args:
            slot: its slot.
            error: the code of its failure, or None.
            sent_us: when it was sent.
            end_us: when it ended.
            asked_s: how long the server asked to wait, or None.
        """
        if error is None:
            if self._in_a_row:
                self._in_a_row.pop(slot, None)
            return 0
        refused = error in REFUSALS
        before = self._in_a_row.pop(slot, 0)
        if refused:
            self._in_a_row[slot] = before + 1
        elif end_us - sent_us > AT_ONCE_US:
            return 0
        pause_us = int(_pause_s(before if refused else 0, asked_s) * self._us_per_s)
        self._pauses.extend((end_us, end_us + pause_us))
        return pause_us

    def table(self) -> Ints:
        """Returns (p, 2) int64: when each pause began and was to end, in microseconds on the run's clock."""
        return np.frombuffer(self._pauses.tobytes(), np.int64).reshape(-1, 2)


def _pause_s(before: int, asked_s: float | None) -> float:
    if asked_s is not None:
        return min(max(asked_s, FIRST_PAUSE_S), LONGEST_ASKED_S)
    return float(min(FIRST_PAUSE_S * 2.0 ** min(before, 30), LONGEST_PAUSE_S))
