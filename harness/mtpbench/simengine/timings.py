"""When a server process got its requests and sent their tokens: its own truth, apart from any client's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from mtpbench.errors import InputError
from mtpbench.metrics.request_table import Ints
from mtpbench.simengine.openai import FINGERPRINT

KEPT = 262_144
"""Requests whose times are kept."""
COLUMNS = ("received_ns", "first_token_ns", "last_token_ns", "output_tokens", "chunks", "complete")
TTFT = "vllm:time_to_first_token_seconds"
TPOT = "vllm:request_time_per_output_token_seconds"
GAP = "vllm:inter_token_latency_seconds"
E2E = "vllm:e2e_request_latency_seconds"
HISTOGRAMS = {
    TTFT: "Time from the whole request to its first token event.",
    TPOT: "(Last - first token event) / (output tokens - 1) of each request.",
    GAP: "Time between the token events of a request.",
    E2E: "Time from the whole request to its last token event.",
}


class Timings:
    """Times of the streamed requests that ended, on CLOCK_MONOTONIC (`time.monotonic_ns`), one row each.

    A row is written when its stream ends, whole or broken off. Rows have numbers from 0, in the order of
    their ends; the newest `kept` are there to be read.

    Args:
        name: the process.
        time_scale: engine seconds per real second; `sums` are in engine seconds, rows in real nanoseconds.
        kept: rows kept.
    """

    def __init__(self, name: str, time_scale: float, kept: int = KEPT) -> None:
        self._name, self._scale, self._kept = name, time_scale, kept
        self._rows: Ints = np.zeros((len(COLUMNS), kept), np.int64)
        self._next = self._begin = 0
        self.sums: dict[str, list[float]] = {name: [0, 0.0] for name in HISTOGRAMS}
        """[count, seconds] of each histogram, over the whole requests; a reset leaves them alone."""

    def add(
        self, received_ns: int, first_ns: int, last_ns: int, tokens: int, chunks: int, complete: bool
    ) -> None:
        """Note a stream that ended; 0 is no time, and a negative `tokens` is unknown."""
        self._rows[:, self._next % self._kept] = (received_ns, first_ns, last_ns, tokens, chunks, complete)
        self._next += 1
        if complete:
            self._count(TTFT, first_ns - received_ns)
            self._count(E2E, last_ns - received_ns)
            if tokens > 1:
                self._count(TPOT, (last_ns - first_ns) / (tokens - 1))
            self._count(GAP, last_ns - first_ns, chunks - 1)

    def reset(self) -> None:
        """Forget the rows; their numbers go on."""
        self._begin = self._next

    def render(self, since: int, more: Mapping[str, Any]) -> bytes:
        """JSON of the rows from number `since` on, and of `more` beside them.

        Raises:
            InputError: there is no such row yet.
        """
        if not 0 <= since <= self._next:
            raise InputError(f"since={since}: rows 0 to {self._next} are there to be asked for")
        oldest = max(self._begin, self._next - self._kept)
        begin = max(since, oldest)
        rows = self._rows[:, np.arange(begin, self._next) % self._kept]
        answer: dict[str, Any] = {
            "simulated": FINGERPRINT,
            "process": self._name,
            "clock": "CLOCK_MONOTONIC",
            "time_scale": self._scale,
            "begin": begin,
            "next": self._next,
            "lost": max(0, oldest - max(since, self._begin)),
            **more,
        }
        for name, column in zip(COLUMNS, rows, strict=True):
            answer[name] = _known(name, column)
        return orjson.dumps(answer)

    def _count(self, name: str, ns: float, count: int = 1) -> None:
        entry = self.sums[name]
        entry[0] += count
        entry[1] += ns * self._scale / 1e9


def _known(name: str, column: Ints) -> list[Any]:
    values: list[Any] = column.tolist()
    if name == "complete":
        return [bool(value) for value in values]
    if name == "output_tokens":
        return [None if value < 0 else value for value in values]
    return [value or None for value in values] if name.endswith("_ns") else values


def parse_since(text: str) -> int:
    """The `since` of a query.

    Raises:
        InputError: it is no whole number.
    """
    if not text.isdecimal():
        raise InputError(f"since={text}: the number of a row is needed, such as the last answer's `next`")
    return int(text)
