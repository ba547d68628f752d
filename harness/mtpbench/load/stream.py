"""Pure: the parser of one streamed answer, from its bytes to chunks and counts.

The rules, each from a real engine's stream (tests/fixtures/captures):
    - An event with text (or reasoning, or a tool call) is a chunk; a first event with only a role is none.
    - Where every such event carries `usage` (continuous usage), an event is a chunk if the count rose,
      with text or without, and the counts are kept.
    - An event without text, role or finish reason after the first chunk is a chunk: its tokens were not
      a whole character yet.
    - The last `usage` of the stream counts, in an event of its own or with the last choice.
    - An `error` event fails the request although the status was 200.
    - A stream that ends without `[DONE]`, but with a finish reason and usage, is complete (`missed_done`).
"""

from __future__ import annotations

import json
import zlib
from array import array
from dataclasses import dataclass
from typing import Any

from orjson import loads

_BOM = b"\xef\xbb\xbf"


class SseParser:
    """The parser takes a response's bytes in pieces and returns the data of each event once it is complete.

    Lines end in LF, CRLF or CR; several `data:` lines of one event are joined by LF; comments and other
    fields are skipped.

    Source: WHATWG HTML, Server-sent events, "Interpreting an event stream".
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        """Pieces of the line that has not ended; they are joined once, so huge events take linear time."""
        self._data: list[bytes] = []
        self._after_cr = False
        self._at_start = True

    @property
    def clean(self) -> bool:
        """Whether the last byte ended an event, so that the next byte begins one."""
        return not (self._parts or self._data or self._after_cr or self._at_start)

    def feed(self, piece: bytes) -> list[bytes]:
        """Returns the data of every event that `piece` completes, in order."""
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_cr = False
        if not piece:
            return []
        self._after_cr = piece.endswith(b"\r")
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in piece:
            self._parts.append(piece)
            return []
        self._parts.append(piece)
        lines = b"".join(self._parts).split(b"\n")
        rest = lines.pop()
        self._parts = [rest] if rest else []
        return self._take(lines)

    def finish(self) -> list[bytes]:
        """Returns the data of an event that the stream's end completes although its blank line is missing.

        The standard drops such an event; some servers end their streams with one that counts.
        """
        rest = b"".join(self._parts)
        self._parts = []
        return self._take([rest, b""] if rest else [b""])

    def _take(self, lines: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        if self._at_start:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BOM)
        for line in lines:
            if not line:
                if self._data:
                    events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                    self._data = []
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif line == b"data":
                self._data.append(b"")
        return events


DETAIL_LENGTH = 300
"""Characters of an error's detail that are kept."""
RAW_DETAIL_LENGTH = 4096
"""Characters that a stream itself keeps: secrets are taken out before the detail is cut, never after."""
TOKEN_BITS = 24
UNCOUNTED = (1 << TOKEN_BITS) - 1
"""The token part of a packed chunk whose count the server does not give."""
_NEVER = object()
"""A value that equals no count that a server can give."""
_AUTOMATIC = 47
"""zlib's window size for gzip and zlib streams alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The part of a request's record that its stream decides."""

    prompt_tokens: int | None
    output_tokens: int | None
    cached_prompt_tokens: int | None = None
    reasoning_tokens: int | None = None
    finish_reason: str | None
    error: str | None
    error_detail: str | None
    missed_done: bool


class Stream:
    """A stream collects one answer: `feed` takes every read, `answer` returns the whole at the end.

    `chunks` holds one number of 8 bytes for each chunk: microseconds on the run's clock << `TOKEN_BITS`, and
    below them the cumulative output tokens, or `UNCOUNTED`.
    """

    __slots__ = (
        "_cached_tokens",
        "_checked_prompt",
        "_counts_along",
        "_ended_us",
        "_error",
        "_finish_reason",
        "_has_text",
        "_inflate",
        "_output_tokens",
        "_prompt_tokens",
        "_reasoning_tokens",
        "chunks",
        "done",
        "events",
        "parser",
    )

    def __init__(self) -> None:
        self.done = False
        """Whether `[DONE]` or an error has been read: later events are ignored."""
        self.events = 0
        """Events that `feed` has taken, without those that were passed to `take` directly."""
        self.chunks: array[int] = array("q")
        self.parser = SseParser()
        self._inflate: Any = None
        self._ended_us: int | None = None
        self._has_text = False
        self._counts_along = True
        self._prompt_tokens: int | None = None
        self._checked_prompt: object = _NEVER
        self._output_tokens: int | None = None
        self._cached_tokens: int | None = None
        self._reasoning_tokens: int | None = None
        self._finish_reason: str | None = None
        self._error: tuple[str, str] | None = None

    @property
    def tokens(self) -> int:
        """Output tokens so far; chunks where the server gives no running count."""
        return self._output_tokens if self._output_tokens is not None else len(self.chunks)

    @property
    def last_us(self) -> int | None:
        """The stamp of the last event; None before the first."""
        latest = self.chunks[-1] >> TOKEN_BITS if self.chunks else None
        return max((us for us in (latest, self._ended_us) if us is not None), default=None)

    @property
    def at_event(self) -> bool:
        """Whether the next byte begins an event that can be taken as it is, without decompression."""
        return self.parser.clean and not self.done and self._inflate is None

    def decode(self, content_encoding: str) -> bool:
        """Prepares the stream for a body in this encoding; returns False if it can't be read."""
        if content_encoding in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(_AUTOMATIC)
        return self._inflate is not None or content_encoding in ("", "identity")

    def feed(self, at_us: int, piece: bytes) -> bool:
        """Takes a piece of the body with its stamp; returns True once the stream has ended."""
        if self._inflate is not None:
            try:
                piece = self._inflate.decompress(piece)
            except zlib.error as error:
                return self._fail(
                    at_us, "bad_response", f"the body is not compressed as its header says: {error}"
                )
        for event in self.parser.feed(piece):
            self.events += 1
            if self.take(at_us, event):
                return True
        return self.done

    def take(self, at_us: int, event: bytes) -> bool:
        """Takes the data of one event; returns True once the stream has ended.

        The commonest event comes first (one choice with text and no end): at 100,000 events a second every
        look-up counts. `_take_any` takes all other events.
        """
        try:
            body = loads(event)
        except ValueError:
            return self._take_other_json(at_us, event)
        try:
            (choice,) = body["choices"]
            delta = choice.get("delta")
            text = choice["text"] if delta is None else delta["content"]
            if text and choice["finish_reason"] is None and "error" not in body:
                usage = body.get("usage")
                if not usage:
                    self._counts_along = False
                    self._has_text = True
                    self.chunks.append(at_us << TOKEN_BITS | UNCOUNTED)
                    return False
                if (
                    self._counts_along
                    and usage["prompt_tokens"] == self._checked_prompt
                    and (self._output_tokens or 0) < (tokens := usage["completion_tokens"]) < UNCOUNTED
                ):
                    self.chunks.append(at_us << TOKEN_BITS | tokens)
                    self._has_text = True
                    self._output_tokens = tokens
                    return False
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # not the commonest event
        return self._take_any(at_us, body, event)

    def answer(self, ended: bool, failure: tuple[str, str] | None = None) -> Answer:
        """Returns the answer that the stream brought.

        Args:
            ended: whether the response ended in order (not by a broken connection, a timeout or a cut-off).
            failure: code and detail of the transport's failure, or None.
        """
        if ended and not self.done:
            for event in self.parser.finish():
                self.take(self.last_us or 0, event)
        code, detail = self._error or (None if self.done else failure) or self._judge() or (None, None)
        return Answer(
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
            cached_prompt_tokens=self._cached_tokens,
            reasoning_tokens=self._reasoning_tokens,
            finish_reason=self._finish_reason,
            error=code,
            error_detail=detail[:RAW_DETAIL_LENGTH] if detail else None,
            missed_done=code is None and not self.done,
        )

    def _judge(self) -> tuple[str, str] | None:
        """Returns why a stream that ended in order is no complete answer; None if it is complete."""
        if not self.done and (self._finish_reason is None or self._output_tokens is None):
            return "no_done", f"the stream ended without [DONE] after {len(self.chunks)} chunks"
        if self._output_tokens is None or self._prompt_tokens is None:
            return "no_usage", f"no event of {len(self.chunks)} chunks carried usage"
        if self._output_tokens and not self.chunks:
            return "empty_stream", f"usage says {self._output_tokens} output tokens, but no event held any"
        return None

    def _take_other_json(self, at_us: int, event: bytes) -> bool:
        """Takes an event that orjson refuses: `[DONE]`, or JSON that only the standard library takes."""
        if event.startswith(b"[DONE]"):
            if not self.done:
                self._ended_us = at_us
                self.done = True
            return True
        try:
            body = json.loads(event)  # lone surrogates, huge numbers
        except ValueError:
            return self._fail(at_us, "bad_event", f"not JSON: {_excerpt(event)}")
        return self._take_any(at_us, body, event)

    def _take_any(self, at_us: int, body: Any, event: bytes) -> bool:
        if self.done:
            return True
        self._ended_us = at_us
        try:
            if body.get("error"):
                return self._fail(at_us, "stream_error", _error_text(body["error"]))
            usage = body.get("usage")
            risen = self._take_usage(usage) if usage else False
            counted = bool(usage) and usage.get("completion_tokens") is not None
            for choice in body.get("choices") or ():
                self._take_choice(at_us, choice, counted, risen)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            return self._fail(at_us, "bad_event", f"unexpected shape ({error}): {_excerpt(event)}")
        return False

    def _take_usage(self, usage: dict[str, Any]) -> bool:
        """Keeps the counts; returns whether output tokens rose. A missing output count is unknown, not 0."""
        before = self._output_tokens or 0
        self._prompt_tokens = self._checked_prompt = _count(usage["prompt_tokens"])
        if (cached := _detail(usage, "prompt_tokens_details", "cached_tokens")) is not None:
            self._cached_tokens = cached
        if (thoughts := _detail(usage, "completion_tokens_details", "reasoning_tokens")) is not None:
            self._reasoning_tokens = thoughts
        if (output := usage.get("completion_tokens")) is None:
            return False
        self._output_tokens = _count(output)
        return self._output_tokens > before

    def _take_choice(self, at_us: int, choice: dict[str, Any], counted: bool, risen: bool) -> None:
        delta = choice.get("delta") or {}
        text = bool(choice.get("text") or delta.get("content") or _other_output(delta))
        finish = choice.get("finish_reason")
        if finish is not None and not isinstance(finish, str):
            raise TypeError(f"a finish reason is a text, not {finish!r}")
        self._finish_reason = finish or self._finish_reason
        if counted and self._counts_along:
            # The server gives a running count; usage that only the last choice carries is none.
            chunk = risen
        elif text:
            chunk = True
        else:
            chunk = self._has_text and not finish and not delta.get("role")
        if not chunk:
            return
        self._has_text = True
        self._counts_along = self._counts_along and counted
        tokens = self._output_tokens if counted else None
        self.chunks.append(at_us << TOKEN_BITS | (UNCOUNTED if tokens is None else tokens))

    def _fail(self, at_us: int, code: str, detail: str) -> bool:
        if not self.done:
            self._error = (code, detail)
            self._ended_us = at_us
            self.done = True
        return True


def _count(value: Any) -> int:
    """Returns a number of tokens.

    Raises:
        ValueError: the value is no such number, or does not fit into a packed chunk.
    """
    if isinstance(value, (int, float)) and 0 <= value < UNCOUNTED and value == int(value):
        return int(value)
    raise ValueError(f"{value!r} is no number of tokens")


def _detail(usage: dict[str, Any], group: str, name: str) -> int | None:
    """Returns a count of a usage's details; None where it is not given, or is no count."""
    details = usage.get(group)
    value = details.get(name) if isinstance(details, dict) else None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < UNCOUNTED:
        return None
    return value


def _other_output(delta: dict[str, Any]) -> bool:
    return bool(delta.get("reasoning_content") or delta.get("reasoning") or delta.get("tool_calls"))


def _excerpt(event: bytes) -> str:
    return event[:RAW_DETAIL_LENGTH].decode("utf-8", "replace")


def _error_text(error: Any) -> str:
    if isinstance(error, dict):
        return str(error.get("message") or error)
    return str(error)
