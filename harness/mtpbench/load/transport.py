"""What every transport has in common: its scheduler, the notes of its process, and what it does.

The scheduler says which request starts next and records how each one ended.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from mtpbench.errors import InputError
from mtpbench.load.client_spec import ClientSpec
from mtpbench.load.pacer import Pacer, Turn
from mtpbench.load.request_log import Ended, RequestLog
from mtpbench.load.stream import Stream
from mtpbench.metrics.request_table import Ints
from mtpbench.workload import Piece, Prompts

Failure = tuple[str, str]
"""Code and detail of what went wrong: `connect_failed`, `client_limit`, `disconnected`, `timeout`,
`http_NNN`, `wrong_content_type` or `bad_response`."""
CUT_OFF = "cut_off"
LEAST_REFUSALS = 20
MOST_PREPARED = 32_768
"""Requests that are rendered before the clock starts; later ones take some microseconds each."""


@dataclass(eq=False, slots=True)
class Flight:
    """A request on its way."""

    turn: Turn
    sent_us: int
    stream: Stream = field(default_factory=Stream)


class Scheduler:
    """Hands out flights and records their ends, for one client process.

    Args:
        spec: the load.
        prompts: the requests.
        pacer: this process's share of the schedule.
        log: where ended requests go.
        refusals: connections refused in a row after which the server counts as gone.
    """

    def __init__(
        self, spec: ClientSpec, prompts: Prompts, pacer: Pacer, log: RequestLog, refusals: int
    ) -> None:
        self.spec, self.pacer, self.log = spec, pacer, log
        self._prompts = prompts
        self._refusals_allowed = max(refusals, LEAST_REFUSALS)
        self.flights: dict[int, Flight] = {}
        """In flight, oldest first, by index."""
        self.origin_ns = 0
        self._key = os.environ.get(spec.load.api_key_env) if spec.load.api_key_env else None
        self.timeout_us = int(spec.rules.request_timeout_s / spec.time_scale * 1e6)
        self.ends_us = int(spec.rules.point_timeout_s / spec.time_scale * 1e6)
        self.failed = self.missed_done = self.refused = self.ended_tokens = self.retried = 0
        self.unreachable = False
        self.cut_off: str | None = None
        self._ready = {index: prompts.pieces(index) for index in pacer.upcoming(MOST_PREPARED)}

    @property
    def over(self) -> bool:
        """Whether nothing runs, and nothing more is to start."""
        return not self.flights and (self.unreachable or self.cut_off is not None or self.pacer.finished)

    def now_us(self) -> int:
        """Microseconds on the run's clock."""
        return (time.perf_counter_ns() - self.origin_ns) // 1000

    def next(self) -> Flight | None:
        """The request that starts now, or None."""
        if self.unreachable or self.cut_off is not None:
            return None
        now_ns = time.perf_counter_ns() - self.origin_ns
        turn = self.pacer.take(now_ns)
        if turn is None:
            return None
        self.log.start(self.pacer.started)
        flight = self.flights[turn.index] = Flight(turn, now_ns // 1000)
        return flight

    def pieces(self, flight: Flight) -> tuple[Piece, ...]:
        """The request's JSON body."""
        return self._ready.pop(flight.turn.index, None) or self._prompts.pieces(flight.turn.index)

    def next_due_ns(self) -> int | None:
        """The `time.perf_counter_ns()` value at which `next` may give something without any end."""
        if self.unreachable or self.cut_off is not None:
            return None
        due = self.pacer.next_due_ns()
        return None if due is None else due + self.origin_ns

    def end(self, flight: Flight, failure: Failure | None) -> None:
        """Record the end of a request, good or bad; its slot is free after that."""
        stream, turn = flight.stream, flight.turn
        answer = stream.answer(failure is None, failure and (failure[0], self._redact(failure[1])))
        if answer.error_detail is not None:
            answer = replace(answer, error_detail=self._redact(answer.error_detail))
        end_us = stream.last_us if failure is None and stream.last_us is not None else self.now_us()
        del self.flights[turn.index]
        lengths = self._prompts.lengths
        ended = Ended(
            scheduled_us=turn.due_ns // 1000,
            sent_us=flight.sent_us,
            end_us=end_us,
            asked_prompt_tokens=int(lengths.prompt_tokens[turn.index]),
            asked_output_tokens=int(lengths.output_tokens[turn.index]),
        )
        self.log.add(turn, ended, stream, answer)
        self.pacer.ended(turn, end_us * 1000)
        self.ended_tokens += stream.tokens
        self.missed_done += answer.missed_done
        self.failed += answer.error is not None
        self.refused = self.refused + 1 if answer.error == "connect_failed" else 0
        if self.refused >= self._refusals_allowed:
            self.unreachable = True

    def _redact(self, words: str) -> str:
        """Servers repeat a key that they refuse."""
        return words.replace(self._key, "***") if self._key else words

    def expired(self, now_us: int) -> list[Flight]:
        """The requests that have run for longer than they may."""
        late = []
        for flight in self.flights.values():
            if flight.sent_us + self.timeout_us > now_us:
                break  # they are in the order in which they started
            late.append(flight)
        return late

    @property
    def timeout_detail(self) -> str:
        """What a timed-out request is told."""
        return f"no end after {self.spec.rules.request_timeout_s:g} s"

    def tokens(self) -> int:
        """Output tokens so far (chunks where the server does not count along)."""
        return self.ended_tokens + sum(flight.stream.tokens for flight in self.flights.values())


def authorization(spec: ClientSpec) -> str | None:
    """The value of the Authorization header, from the environment; it is never written anywhere.

    Raises:
        InputError: the variable that the sweep names is not set.
    """
    name = spec.load.api_key_env
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise InputError(
            f"load.api_key_env: the environment variable {name} is not set; it holds the server's key"
        )
    return f"Bearer {key}"


COALESCED_US = 1000
"""Events of one read share a stamp; up to this far apart that is no loss."""
SLEPT_US = 100
FEW_SLOTS = 64
MOST_LAGS = 1 << 17
REPORT_US = 250_000
FLUSH_US = 1_000_000
TICK_COLUMNS = ("at_us", "reads", "coalesced", "cpu_us", "in_flight")


class SelfWatch:
    """One process's notes; `save` writes them for `health`.

    Args:
        report: called about four times a second.
        slots: requests in flight; with many of them not every read is sampled.
    """

    def __init__(self, report: Callable[[Scheduler], None], slots: int) -> None:
        self._report = report
        self.stamps = "user"
        """Who stamps reads: `kernel`, or this process (`user`)."""
        self.reads = self.coalesced = self.clock_drift_us = self.clock_step_us = 0
        self.every = 0 if slots < FEW_SLOTS else 7
        """A read is sampled if its number has none of these bits: 0 is every read, 7 every eighth."""
        self._lags: array[int] = array("q")
        self._ticks: array[int] = array("q")
        self._since_us = self._polled_us = self._reported_us = self._flushed_us = 0

    def begin_round(self, asked_us: int, now_us: int) -> None:
        """A poll that was asked then has returned now; what is read in this round has come since `_since_us`.

        A poll that slept woke at the first arrival. One that did not found what had come since the last one.
        """
        self._since_us = now_us if now_us - asked_us > SLEPT_US else self._polled_us
        self._polled_us = now_us

    def note_lag(self, at_us: int, lag_us: int) -> None:
        """A read came so long after its bytes."""
        self._lags.append(at_us)
        self._lags.append(lag_us)
        if len(self._lags) >= 2 * MOST_LAGS:
            kept = np.asarray(self._lags).reshape(-1, 2)[::2]
            self._lags = array("q", kept.tobytes())
            self.every = 2 * self.every + 1

    def note_events(self, events: int, at_us: int) -> None:
        """One read held so many events; the last of its bytes came then."""
        if events > 1 and at_us - self._since_us > COALESCED_US:
            self.coalesced += 1

    def tick(self, now_us: int, scheduler: Scheduler) -> None:
        """Note how far things are; report and flush when it is time."""
        cpu_us = time.process_time_ns() // 1000
        self._ticks.extend((now_us, self.reads, self.coalesced, cpu_us, len(scheduler.flights)))
        if now_us - self._reported_us >= REPORT_US:
            self._reported_us = now_us
            self._report(scheduler)
        if now_us - self._flushed_us >= FLUSH_US:
            self._flushed_us = now_us
            scheduler.log.flush()

    def save(self, path: Path) -> None:
        """Write ticks and lags."""
        np.savez(path, ticks=_table(self._ticks, len(TICK_COLUMNS)), lags=_table(self._lags, 2))


def _table(values: array[int], columns: int) -> Ints:
    return np.frombuffer(values.tobytes(), np.int64).reshape(-1, columns)


DRAIN_S = 1.0
"""How long an answer that has said all may take to end: its connection can be kept then."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TransportOptions:
    """One process's share of a load, and who is told of it.

    Args:
        scheduler: what to send, and where its ends are recorded.
        watch: what this process notes of itself.
        path: the path of every request.
        control: a descriptor that becomes readable when `hear` has something to do, or None.
        hear: reads it.
    """

    scheduler: Scheduler
    watch: SelfWatch
    path: str
    control: int | None = None
    hear: Callable[[], None] | None = None


class Transport(Protocol):
    """A transport drives one process's share of a load: opened, run once, closed."""

    def open(self, connections: int) -> None:
        """Get ready before the clock starts, with so many connections where they can be made beforehand.

        Raises:
            RunError: the server's host has no address.
        """

    def run(self) -> None:
        """Send and receive until the share is done or cut off."""

    def close(self) -> None:
        """Close every connection."""
