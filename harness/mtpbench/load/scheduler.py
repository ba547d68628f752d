"""What every transport has in common: which request starts, what is recorded of its end, when all is over."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace

from mtpbench.errors import InputError
from mtpbench.load.client_spec import ClientSpec
from mtpbench.load.pacer import Pacer, Turn
from mtpbench.load.request_log import Ended, RequestLog
from mtpbench.load.stream import Stream
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
