"""Pure: the events of one streamed answer -> what its RequestRecord says. No clock, no network.

The rules, each from a real engine's stream (tests/fixtures/captures):
    - An event with text (or reasoning, or a tool call) is a chunk; a role-only first event is none.
    - Where every such event carries `usage` (continuous usage), an event is a chunk if the count rose,
      text or not, and the counts are kept.
    - An event without text, role or finish reason after the first chunk is a chunk: its tokens did not
      make a whole character yet.
    - The last `usage` of the stream counts, in an event of its own or with the last choice.
    - An `error` event fails the request although the status was 200.
    - A stream that ends without `[DONE]`, but with a finish reason and usage, is complete (`missed_done`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mtpbench.load.sse import SseParser

DETAIL_LENGTH = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One answer as it came: the fields of a RequestRecord that the stream decides, times as stamped."""

    chunk_times: tuple[float, ...]
    chunk_tokens: tuple[int, ...] | None
    prompt_tokens: int | None
    output_tokens: int | None
    finish_reason: str | None
    error: str | None
    error_detail: str | None
    missed_done: bool


class Stream:
    """Accumulates one answer: `feed` for every read, `answer` at the end."""

    __slots__ = (
        "_counts",
        "_error",
        "_finish_reason",
        "_has_text",
        "_known",
        "_output_tokens",
        "_parser",
        "_prompt_tokens",
        "_times",
        "done",
        "last_s",
    )

    def __init__(self) -> None:
        self.done = False
        """Whether `[DONE]` or an error has been read: nothing that follows matters."""
        self.last_s: float | None = None
        """Stamp of the last read that held a whole event."""
        self._parser = SseParser()
        self._times: list[float] = []
        self._counts: list[int] = []
        self._has_text = False
        self._known = True
        self._prompt_tokens: int | None = None
        self._output_tokens: int | None = None
        self._finish_reason: str | None = None
        self._error: tuple[str, str] | None = None

    @property
    def tokens(self) -> int:
        """Output tokens known so far; chunks where the server does not count along."""
        return self._output_tokens if self._output_tokens is not None else len(self._times)

    def feed(self, stamp: float, piece: bytes) -> bool:
        """Take the bytes of one read, stamped right after it; True once nothing that follows matters."""
        self._take_events(stamp, self._parser.feed(piece))
        return self.done

    def answer(self, ended: bool, failure: tuple[str, str] | None = None) -> Answer:
        """What came.

        Args:
            ended: whether the response ended in order (not by a broken connection, a timeout, a cut).
            failure: code and detail of what the transport saw go wrong, or None.
        """
        if ended and not self.done:
            self._take_events(self.last_s or 0.0, self._parser.finish())
        known = self._known and bool(self._times)
        code, detail = self._error or (None if self.done else failure) or self._judge() or (None, None)
        return Answer(
            chunk_times=tuple(self._times),
            chunk_tokens=tuple(self._counts) if known else None,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
            finish_reason=self._finish_reason,
            error=code,
            error_detail=detail[:DETAIL_LENGTH] if detail else None,
            missed_done=code is None and not self.done,
        )

    def _judge(self) -> tuple[str, str] | None:
        """Why a stream that the transport saw end in order is no whole answer, or None."""
        if not self.done and (self._finish_reason is None or self._output_tokens is None):
            return "no_done", f"the stream ended without [DONE] after {len(self._times)} chunks"
        if self._output_tokens is None or self._prompt_tokens is None:
            return "no_usage", f"no event of {len(self._times)} chunks carried usage"
        if self._output_tokens and not self._times:
            return "empty_stream", f"usage says {self._output_tokens} output tokens, but no event held any"
        return None

    def _take_events(self, stamp: float, events: list[bytes]) -> None:
        for event in events:
            if self.done:
                return
            self.last_s = stamp
            if event.startswith(b"[DONE]"):
                self.done = True
                return
            try:
                body = json.loads(event)
            except ValueError:
                self._fail("bad_event", f"not JSON: {event[:DETAIL_LENGTH].decode('utf-8', 'replace')}")
                return
            self._take_body(stamp, body, event)

    def _take_body(self, stamp: float, body: Any, event: bytes) -> None:
        try:
            if body.get("error"):
                self._fail("stream_error", _error_text(body["error"]))
                return
            usage = body.get("usage")
            risen = self._take_usage(usage) if usage else False
            counted = bool(usage) and usage.get("completion_tokens") is not None
            for choice in body.get("choices") or ():
                self._take_choice(stamp, choice, counted, risen)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            text = event[:DETAIL_LENGTH].decode("utf-8", "replace")
            self._fail("bad_event", f"unexpected shape ({error}): {text}")

    def _take_usage(self, usage: dict[str, Any]) -> bool:
        """Keep the counts; whether output tokens rose. A missing count of output is unknown, not 0."""
        before = self._output_tokens or 0
        self._prompt_tokens = int(usage["prompt_tokens"])
        if (output := usage.get("completion_tokens")) is None:
            return False
        self._output_tokens = int(output)
        return self._output_tokens > before

    def _take_choice(self, stamp: float, choice: dict[str, Any], counted: bool, risen: bool) -> None:
        delta = choice.get("delta") or {}
        text = bool(choice.get("text") or delta.get("content") or _other_output(delta))
        finish = choice.get("finish_reason")
        self._finish_reason = finish or self._finish_reason
        if counted and self._known:
            # The server counts along; usage that only the last choice carries is no such count.
            chunk = risen
        elif text:
            chunk = True
        else:
            chunk = self._has_text and not finish and not delta.get("role")
        if not chunk:
            return
        self._has_text = True
        self._known = self._known and counted
        self._times.append(stamp)
        if counted and self._output_tokens is not None:
            self._counts.append(self._output_tokens)

    def _fail(self, code: str, detail: str) -> None:
        self._error = (code, detail)
        self.done = True


def _other_output(delta: dict[str, Any]) -> bool:
    return bool(delta.get("reasoning_content") or delta.get("reasoning") or delta.get("tool_calls"))


def _error_text(error: Any) -> str:
    if isinstance(error, dict):
        return str(error.get("message") or error)
    return str(error)
