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
from mtpbench.load.refusals import SlotPauses, read_retry_after_s
from mtpbench.load.request_log import RequestEnd, RequestLog
from mtpbench.load.stream import DETAIL_LENGTH, Answer, Stream
from mtpbench.metrics.request_table import Ints
from mtpbench.redaction import Secrets
from mtpbench.workload import Piece, Prompts

Failure = tuple[str, str]
"""Code and detail of a request's failure: `connect_failed`, `client_limit`, `disconnected`, `timeout`,
`http_NNN`, `wrong_content_type` or `bad_response`."""
USUAL_FINISHES = ("length", "stop", None)
"""Finish reasons that hold nothing of a server's own."""
LEAST_REFUSALS = 20
GONE_S = 5.0
"""A server that has taken no connection for this long is gone, however few were tried meanwhile."""
MOST_PREPARED = 32_768
"""Requests whose bodies are rendered before the clock starts; each later one takes some microseconds."""


@dataclass(eq=False, slots=True)
class Flight:
    """A flight is a request in flight, with the stream of its answer."""

    turn: Turn
    sent_us: int
    stream: Stream = field(default_factory=Stream)
    retry_after_s: float | None = None
    """How long the server asked to wait when it refused the request."""


class Scheduler:
    """The scheduler of one client process starts requests and records how they ended.

    Args:
        spec: the load.
        prompts: the bodies of the requests.
        pacer: this process's share of the schedule.
        log: where requests are recorded when they end.
        refusals: connections refused in a row after which the server counts as gone.
    """

    def __init__(
        self, spec: ClientSpec, prompts: Prompts, pacer: Pacer, log: RequestLog, refusals: int
    ) -> None:
        self.spec, self.pacer, self.log = spec, pacer, log
        self._prompts = prompts
        self._refusals_allowed = max(refusals, LEAST_REFUSALS)
        self.flights: dict[int, Flight] = {}
        """Requests in flight by index, the oldest first."""
        self.origin_ns = 0
        self._secrets: Secrets | None = None
        self.timeout_us = int(spec.rules.request_timeout_s / spec.time_scale * 1e6)
        self.ends_us = int(spec.rules.point_timeout_s / spec.time_scale * 1e6)
        self.failed = self.missed_done = self.refused = self.ended_tokens = self.retried = 0
        self.pauses = SlotPauses(spec.time_scale)
        self._gone_us = int(GONE_S / spec.time_scale * 1e6)
        self._refused_since_us: int | None = None
        self.unreachable = False
        self.cut_off: str | None = None
        self._ready = {index: prompts.pieces(index) for index in pacer.upcoming(MOST_PREPARED)}

    @property
    def over(self) -> bool:
        """Whether no request is in flight and none will start."""
        return not self.flights and (self.unreachable or self.cut_off is not None or self.pacer.finished)

    def now_us(self) -> int:
        """Returns the time on the run's clock, in microseconds."""
        return (time.perf_counter_ns() - self.origin_ns) // 1000

    def next(self) -> Flight | None:
        """Starts the next request if one is due and a slot is free; returns None otherwise."""
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
        """Returns the request's JSON body, in buffers."""
        return self._ready.pop(flight.turn.index, None) or self._prompts.pieces(flight.turn.index)

    def next_due_ns(self) -> int | None:
        """Returns when `next` may start a request although none ends, as `time.perf_counter_ns()` value.

        None if only the end of a request can let another start.
        """
        if self.unreachable or self.cut_off is not None:
            return None
        due = self.pacer.next_due_ns()
        return None if due is None else due + self.origin_ns

    def end(self, flight: Flight, failure: Failure | None) -> None:
        """Records the end of a request, failed or not, and frees its slot."""
        stream, turn = flight.stream, flight.turn
        answer = stream.answer(failure is None, failure)
        if answer.error is not None or answer.finish_reason not in USUAL_FINISHES:
            answer = self._redacted(answer)
        end_us = stream.last_us if failure is None and stream.last_us is not None else self.now_us()
        del self.flights[turn.index]
        lengths = self._prompts.lengths
        end = RequestEnd(
            scheduled_us=turn.due_ns // 1000,
            sent_us=flight.sent_us,
            end_us=end_us,
            asked_prompt_tokens=int(lengths.prompt_tokens[turn.index]),
            asked_output_tokens=int(lengths.output_tokens[turn.index]),
        )
        self.log.add(turn, end, stream, answer)
        pause_us = self.pauses.end(turn.slot, answer.error, flight.sent_us, end_us, flight.retry_after_s)
        self.pacer.end(turn, end_us * 1000, pause_us * 1000)
        self.ended_tokens += stream.tokens
        self.missed_done += answer.missed_done
        self.failed += answer.error is not None
        if answer.error == "connect_failed":
            self._note_unreachable(end_us)
        else:
            self.refused, self._refused_since_us = 0, None

    def _note_unreachable(self, at_us: int) -> None:
        """Notes a connection that nobody took: of too many in a row, or for too long, the server is gone."""
        self.refused += 1
        if self._refused_since_us is None:
            self._refused_since_us = at_us
        too_long = at_us - self._refused_since_us >= self._gone_us
        self.unreachable = self.unreachable or too_long or self.refused >= self._refusals_allowed

    def _redacted(self, answer: Answer) -> Answer:
        """Returns the answer without secrets, which servers repeat, and cuts its detail only then."""
        if self._secrets is None:
            named = (*self.spec.secret_variables, self.spec.load.api_key_env or "")
            self._secrets = Secrets.known(os.environ, named)
        detail = self._secrets.hide(answer.error_detail or "")[:DETAIL_LENGTH]
        finish = answer.finish_reason and self._secrets.hide(answer.finish_reason)
        return replace(answer, error_detail=detail or None, finish_reason=finish)

    def overrun(self, now_us: int) -> dict[int, Failure]:
        """Returns the failures, by index, of requests that have run for too long, or brought too much."""
        failures = {
            index: excess for index, flight in self.flights.items() if (excess := flight.stream.excess)
        }
        for index, flight in self.flights.items():
            if flight.sent_us + self.timeout_us > now_us:
                break  # flights are in the order in which they started
            failures.setdefault(index, ("timeout", self.timeout_detail))
        return failures

    @property
    def timeout_detail(self) -> str:
        """The error detail of a request that timed out."""
        return f"no end after {self.spec.rules.request_timeout_s:g} s"

    def tokens(self) -> int:
        """Returns the output tokens so far; chunks where the server gives no running count."""
        return self.ended_tokens + sum(flight.stream.tokens for flight in self.flights.values())


def authorization(spec: ClientSpec) -> str | None:
    """Returns the value of the Authorization header, from the environment; it is never written anywhere.

    Raises:
        InputError: the variable that the sweep names is not set, or holds what no header can.
    """
    name = spec.load.api_key_env
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise InputError(
            f"load.api_key_env: the environment variable {name} is not set; it holds the server's key"
        )
    if not (key.isascii() and key.isprintable()):
        raise InputError(
            f"load.api_key_env: the environment variable {name} holds a line's end, or another character "
            "that no HTTP header can; a key is one line of ASCII"
        )
    return f"Bearer {key}"


COALESCED_US = 1000
"""Events of one read share a stamp. If they came within this time, the shared stamp is precise enough."""
SLEPT_US = 100
FEW_SLOTS = 64
MOST_LAGS = 1 << 17
REPORT_US = 250_000
FLUSH_US = 1_000_000
TICK_COLUMNS = ("at_us", "reads", "coalesced", "cpu_us", "in_flight")


class ProcessMonitor:
    """The monitor of one client process notes how late its reads are, and what it has read.

    Its notes are bounded for any load: lags are sampled more and more rarely, ticks come 20 times a second.

    Args:
        report: called with the scheduler about four times a second.
        slots: requests in flight at most; with many slots not every read is sampled.
    """

    def __init__(self, report: Callable[[Scheduler], None], slots: int) -> None:
        self._report = report
        self.stamps = "user"
        """Where the stamps of reads come from: the `kernel`, or this process (`user`)."""
        self.reads = self.coalesced = self.clock_drift_us = self.clock_step_us = 0
        self.user_stamped = self.misstamped = 0
        """Reads that this process stamped because the wall clock had moved, and reads whose kernel stamps had
        been taken before it turned out that the clock had been set back."""
        self.sample_mask = 0 if slots < FEW_SLOTS else 7
        """A read is sampled if its number has none of these bits: 0 is every read, 7 every eighth."""
        self._lags: array[int] = array("q")
        self._ticks: array[int] = array("q")
        self._since_us = self._polled_us = self._reported_us = self._flushed_us = 0

    def begin_round(self, poll_began_us: int, now_us: int) -> None:
        """Notes that a poll has returned: the bytes that this round reads came after `_since_us`.

        A poll that slept woke at the first arrival. One that did not sleep returns what came since the poll
        before.
        """
        self._since_us = now_us if now_us - poll_began_us > SLEPT_US else self._polled_us
        self._polled_us = now_us

    def note_lag(self, at_us: int, lag_us: int) -> None:
        """Notes the lag of a read behind the arrival of its bytes."""
        self._lags.append(at_us)
        self._lags.append(lag_us)
        if len(self._lags) >= 2 * MOST_LAGS:
            every_second = np.asarray(self._lags).reshape(-1, 2)[::2]
            self._lags = array("q", every_second.tobytes())
            self.sample_mask = 2 * self.sample_mask + 1

    def note_events(self, events: int, at_us: int) -> None:
        """Notes a read of some events, the last of whose bytes came at `at_us`."""
        if events > 1 and at_us - self._since_us > COALESCED_US:
            self.coalesced += 1

    def tick(self, now_us: int, scheduler: Scheduler) -> None:
        """Adds a row of counts to the notes; reports and flushes the log when it is time."""
        cpu_us = time.process_time_ns() // 1000
        self._ticks.extend((now_us, self.reads, self.coalesced, cpu_us, len(scheduler.flights)))
        if now_us - self._reported_us >= REPORT_US:
            self._reported_us = now_us
            self._report(scheduler)
        if now_us - self._flushed_us >= FLUSH_US:
            self._flushed_us = now_us
            scheduler.log.flush()

    def save(self, path: Path, pauses: Ints) -> None:
        """Writes ticks and lags to a file of numpy arrays, with the pauses of the slots."""
        ticks, lags = _table(self._ticks, len(TICK_COLUMNS)), _table(self._lags, 2)
        np.savez(path, ticks=ticks, lags=lags, pauses=pauses)


def _table(values: array[int], columns: int) -> Ints:
    return np.frombuffer(values.tobytes(), np.int64).reshape(-1, columns)


EVENT_STREAM = "text/event-stream"
DETAIL_BYTES = 2000


class ResponseCheck:
    """The check of a response's head decides whether its body is the event stream that was requested.

    Of any other response it keeps the beginning of the body, which usually names the cause.

    Args:
        status: the HTTP status.
        headers: the head's fields by lower-case name.
        stream: the stream of the answer; it is told the encoding of the body.
    """

    __slots__ = ("_beginning", "_code", "_reason", "retry_after_s")

    def __init__(self, status: int, headers: dict[str, str], stream: Stream) -> None:
        self._code: str | None = None
        self._reason = ""
        self._beginning = b""
        self.retry_after_s = read_retry_after_s(headers, time.time()) if status != 200 else None
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = headers.get("content-encoding", "").strip().lower()
        if status != 200:
            self._code = f"http_{status}"
            self._reason = _explain_status(status, headers)
        elif kind != EVENT_STREAM:
            self._code = "wrong_content_type"
            self._reason = f"{kind or 'no content type'} instead of {EVENT_STREAM}"
        elif not stream.decode(encoding):
            self._code = "bad_response"
            self._reason = f"the body is encoded as {encoding!r}, although only identity was accepted"

    @property
    def accepted(self) -> bool:
        """Whether the body is the event stream that was requested."""
        return self._code is None

    @property
    def has_enough(self) -> bool:
        """Whether as much of a refused response's body has come as is kept."""
        return len(self._beginning) >= DETAIL_BYTES

    def keep(self, piece: bytes) -> None:
        """Keeps a piece of a refused response's body, up to `DETAIL_BYTES` of the whole."""
        self._beginning += piece[: DETAIL_BYTES - len(self._beginning)]

    @property
    def failure(self) -> tuple[str, str] | None:
        """Code and detail of the failure; None for an accepted response."""
        if self._code is None:
            return None
        beginning = self._beginning.decode("utf-8", "replace").strip()
        return self._code, ": ".join(part for part in (self._reason, beginning) if part)


def _explain_status(status: int, headers: dict[str, str]) -> str:
    if 300 <= status < 400:
        return f"redirected to {headers.get('location', 'nowhere')}; give the final address, none is followed"
    if status in (401, 403):
        return "the server wants a key: name the environment variable that holds it in load.api_key_env"
    return ""


DRAIN_S = 1.0
"""How long a response may take to end after its last event: if it ends in time, its connection is kept."""
SHORTEST_GRACE_US, GRACE_SHARE = 2000, 0.01


def grace_us(flight: Flight, at_us: int) -> int:
    """Returns for how long a request whose stream ended at `at_us` waits for its response to end.

    Mostly that comes at once, and the next request gets the connection. A server that closes slowly must not
    keep the slot idle: the wait is at most a hundredth of the request, and the next one then gets another.
    """
    return min(max(SHORTEST_GRACE_US, int((at_us - flight.sent_us) * GRACE_SHARE)), int(DRAIN_S * 1e6))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TransportOptions:
    """One process's share of a load, and what a transport calls for it.

    Args:
        scheduler: gives the requests to send and records their ends.
        monitor: notes how this process does.
        path: the path of every request.
        stop_descriptor: a descriptor that becomes readable when the load is to be cut off, or None.
        on_stop: called when that descriptor becomes readable.
    """

    scheduler: Scheduler
    monitor: ProcessMonitor
    path: str
    stop_descriptor: int | None = None
    on_stop: Callable[[], None] | None = None


class Transport(Protocol):
    """A transport sends one process's share of a load. It is opened, run once, and closed."""

    def open(self, connections: int) -> None:
        """Gets ready before the clock starts; opens the connections beforehand if it can.

        Raises:
            RunError: the server's host has no address.
        """

    def run(self) -> None:
        """Sends and receives until the share is done or cut off."""

    def close(self) -> None:
        """Closes every connection."""
