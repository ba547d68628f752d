"""Pure: the parser of one streamed answer, from its bytes to chunks and counts.

The rules, each from a real engine's stream (tests/fixtures/captures):
    - An event with text is a chunk, whatever key of its delta holds it (reasoning, a tool call, an unknown
      one); a role alone is none.
    - Where every such event carries `usage` (continuous usage), or lists its tokens, an event is a chunk if
      the count rose, with text or without, and the counts are kept.
    - An event without text and role is a chunk after the first one: its tokens were not a whole character
      yet, or special ones. Before the first one it is held, and the number of all tokens decides (`_settle`).
    - After the finish reason only text makes a chunk, and only as far as the answer has tokens for it.
    - The last `usage` counts, in an event of its own or with the last choice; one of zeros is none.
    - An `error` event fails the request although the status was 200, and so does a finish reason that is no
      end in order.
    - A stream that ends without `[DONE]`, but with a finish reason and usage, is complete (`missed_done`).
"""

from __future__ import annotations

import json
import zlib
from array import array
from dataclasses import dataclass
from typing import Any

from orjson import loads

from mtpbench.load.http1 import MOST_EVENT_BYTES, SseParser, holds_output, listed_tokens
from mtpbench.load.usage import TOKEN_BITS, UNCOUNTED, UNTOLD, read_count, read_detail, read_told
from mtpbench.records.codec import storable

DETAIL_LENGTH = 300
"""Characters of an error's detail that are kept."""
RAW_DETAIL_LENGTH = 4096
"""Characters that a stream itself keeps: secrets are taken out before the detail is cut, never after."""
_NEVER = object()
"""A value that equals no count that a server can give."""
_AUTOMATIC = 47  # zlib's window size for gzip and zlib streams alike
_INFLATED_BYTES = 1 << 20
"""The most that is decompressed at once: a few bytes can stand for a thousand times as many."""
MOST_EVENTS = 1 << 20
"""The most events of one answer that are chunks, or held: no model gives an answer of as many tokens."""
ENDS = frozenset(("length", "stop", "tool_calls", "function_call"))
"""The finish reasons of an answer that ended in order."""
_NAMED_ENDS = frozenset(("abort", "error", "content_filter", "cancelled"))
"""Other finish reasons that have a code of their own, `finish_` before them; the rest is `finish_other`."""
_SILENT, _ROLE, _EARLY, _STANDING, _AFTER = range(5)
"""Kinds of held events: no text, a role alone, text before the count rose, while it stood, after the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The part of a request's record that its stream decides."""

    prompt_tokens: int | None
    output_tokens: int | None
    cached_prompt_tokens: int | None = None
    reasoning_tokens: int | None = None
    told: tuple[int, int, int] = UNTOLD
    """Verification steps, drafted and accepted tokens, as the engine told them; each may be `UNKNOWN`."""
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
        "_counts_listed",
        "_ended_us",
        "_error",
        "_finish_reason",
        "_has_role",
        "_has_text",
        "_held",
        "_inflate",
        "_output_tokens",
        "_prompt_tokens",
        "_quick",
        "_reasoning_tokens",
        "_told",
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
        self._has_role = False
        """Whether the first event with text had a role: then every event has one, and it says nothing."""
        self._quick = False
        """Whether the quick way may take events: an event with text has been taken, and lists no tokens."""
        self._held: array[int] | None = None
        """Events of which only the whole answer tells whether they were chunks: stamps with a kind."""
        self._counts_along = True
        self._counts_listed: int | None = None
        self._prompt_tokens: int | None = None
        self._checked_prompt: object = _NEVER
        self._output_tokens: int | None = None
        self._cached_tokens: int | None = None
        self._reasoning_tokens: int | None = None
        self._told = UNTOLD
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

    @property
    def excess(self) -> tuple[str, str] | None:
        """Code and detail of the failure of an answer that has more events than any has, else None."""
        if max(len(self.chunks), len(self._held or ())) <= MOST_EVENTS:
            return None
        return "oversized", f"the answer has more than {MOST_EVENTS} events"

    def decode(self, content_encoding: str) -> bool:
        """Prepares the stream for a body in this encoding; returns False if it can't be read."""
        if content_encoding in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(_AUTOMATIC)
        return self._inflate is not None or content_encoding in ("", "identity")

    def feed(self, at_us: int, piece: bytes) -> bool:
        """Takes a piece of the body with its stamp; returns True once the stream has ended."""
        if self._inflate is not None:
            return self._inflated(at_us, piece)
        for event in self.parser.feed(piece):
            self.events += 1
            if self.take(at_us, event):
                return True
        if self.parser.oversized:
            self._fail(at_us, "oversized", f"an event is longer than {MOST_EVENT_BYTES} bytes")
        # Most streams are short and hold no event: asking for the excess would take a tenth of their time.
        elif (self._held or len(self.chunks) > MOST_EVENTS) and (excess := self.excess):
            self._fail(at_us, *excess)
        return self.done

    def _inflated(self, at_us: int, piece: bytes) -> bool:
        """Takes a compressed piece, a bounded part after the other."""
        inflate, self._inflate = self._inflate, None
        try:
            while piece and not self.done:
                self.feed(at_us, inflate.decompress(piece, _INFLATED_BYTES))
                piece = inflate.unconsumed_tail
        except zlib.error as error:
            self._fail(at_us, "bad_response", f"the body is not compressed as its header says: {error}")
        self._inflate = inflate
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
            if text and self._quick and choice["finish_reason"] is None and "error" not in body:
                usage = body.get("usage")
                if not usage:
                    if not self._counts_along:
                        self.chunks.append(at_us << TOKEN_BITS | UNCOUNTED)
                        return False
                elif (
                    self._counts_along
                    and usage["prompt_tokens"] == self._checked_prompt
                    and (self._output_tokens or 0) < (tokens := usage["completion_tokens"]) < UNCOUNTED
                ):
                    self.chunks.append(at_us << TOKEN_BITS | tokens)
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
        self._settle()
        code, detail = self._error or (None if self.done else failure) or self._judge() or (None, None)
        return Answer(
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
            cached_prompt_tokens=self._cached_tokens,
            reasoning_tokens=self._reasoning_tokens,
            told=self._told,
            finish_reason=self._finish_reason and storable(self._finish_reason[:DETAIL_LENGTH]),
            error=code,
            error_detail=storable(detail[:RAW_DETAIL_LENGTH]) if detail else None,
            missed_done=code is None and not self.done,
        )

    def _judge(self) -> tuple[str, str] | None:
        """Returns why a stream that ended in order is no complete answer; None if it is complete."""
        finish = self._finish_reason
        if finish is not None and finish not in ENDS:
            code = f"finish_{finish}" if finish in _NAMED_ENDS else "finish_other"
            return code, f"the server ended the answer with finish reason {finish!r}"
        if not self.done and (finish is None or self._output_tokens is None):
            return "no_done", f"the stream ended without [DONE] after {len(self.chunks)} chunks"
        if self._output_tokens is None or self._prompt_tokens is None:
            return "no_usage", f"no event of {len(self.chunks)} chunks carried usage"
        if self.chunks and not self._output_tokens:
            return "no_usage", f"usage says 0 output tokens, but {len(self.chunks)} chunks held some"
        if self._output_tokens and not self.chunks:
            return "empty_stream", f"usage says {self._output_tokens} output tokens, but no event held any"
        if finish is None:
            return "no_finish", f"[DONE] came after {len(self.chunks)} chunks, but no finish reason"
        return None

    def _settle(self) -> None:
        """Decides which of the held events were chunks, now that the number of all tokens is known.

        A running count that misses tokens, stands while text comes, or leaves out its own event is none.
        Events without text are tokens as far as there are tokens for them: the latest first, since what comes
        before is an opening. So is text after the finish reason, the earliest first.
        """
        if self._output_tokens is None or self._error is not None:
            return
        held, self._held = sorted(self._held or ()), None
        early, standing, after = (_of(held, kind) for kind in (_EARLY, _STANDING, _AFTER))
        is_trusted = self._is_trusted(len(standing), bool(after)) and not early
        if self.chunks and (is_trusted if self._counts_along else not held):
            return
        chunks = [at | UNCOUNTED for at in self.chunks] + early + standing
        chunks += after[: max(self._output_tokens - len(chunks), 0)]
        silent = _of(held, _SILENT, *((_ROLE,) if self._has_role or not chunks else ()))
        if (spare := self._output_tokens - len(chunks)) > 0:
            chunks += silent[-spare:]
        self.chunks = array("q", sorted(chunks))

    def _is_trusted(self, standing: int, has_after: bool) -> bool:
        """Returns whether the running count rose with most of the text, and reached the last count."""
        counted = self.chunks[-1] & UNCOUNTED if self.chunks else 0
        missed, most = (self._output_tokens or 0) - counted, 0 if has_after else 1 + counted // 50
        return standing <= len(self.chunks) and 0 <= missed <= most

    def _take_other_json(self, at_us: int, event: bytes) -> bool:
        """Takes an event that orjson refuses: `[DONE]`, or JSON that only the standard library takes."""
        if event.startswith(b"[DONE]"):
            if not self.done:
                self._ended_us = at_us
                self.done = True
            return True
        try:
            body = json.loads(event)  # lone surrogates, huge numbers
        except (ValueError, RecursionError):
            return self._fail(at_us, "bad_event", f"not JSON: {_excerpt(event)}")
        return self._take_any(at_us, body, event)

    def _take_any(self, at_us: int, body: Any, event: bytes) -> bool:
        if self.done:
            return True
        self._ended_us = at_us
        try:
            if body.get("error") or body.get("object") == "error":
                return self._fail(at_us, "stream_error", _error_text(body.get("error") or body))
            usage = body.get("usage")
            if usage and usage.get("prompt_tokens") == 0 and usage.get("completion_tokens") == 0:
                usage = None
            risen = self._take_usage(usage) if usage else False
            counted = bool(usage) and usage.get("completion_tokens") is not None
            for choice in body.get("choices") or ():
                self._take_choice(at_us, choice, self._output_tokens if counted else None, risen)
            if self._finish_reason is not None and self._told is UNTOLD:
                self._told = read_told(body)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            return self._fail(at_us, "bad_event", f"unexpected shape ({error}): {_excerpt(event)}")
        return False

    def _take_usage(self, usage: dict[str, Any]) -> bool:
        """Keeps the counts; returns whether output tokens rose. A missing output count is unknown, not 0."""
        before = self._output_tokens or 0
        prompt = self._checked_prompt = read_count(usage["prompt_tokens"])
        self._prompt_tokens = prompt or self._prompt_tokens
        cached = read_detail(usage, "prompt_tokens_details", "cached_tokens", prompt)
        self._cached_tokens = self._cached_tokens if cached is None else cached
        if (output := usage.get("completion_tokens")) is None:
            return False
        self._output_tokens = read_count(output)
        thoughts = read_detail(usage, "completion_tokens_details", "reasoning_tokens", self._output_tokens)
        self._reasoning_tokens = self._reasoning_tokens if thoughts is None else thoughts
        return self._output_tokens > before

    def _take_choice(self, at_us: int, choice: dict[str, Any], tokens: int | None, risen: bool) -> None:
        """Takes a choice; `tokens` is the running count that its event carries, `risen` whether it rose."""
        delta = choice.get("delta") or {}
        text = bool(choice.get("text") or delta.get("content")) or holds_output(delta)
        has_ended, finish = self._finish_reason is not None, choice.get("finish_reason")
        if finish is not None and not isinstance(finish, str):
            raise TypeError(f"a finish reason is a text, not {finish!r}")
        self._finish_reason = finish or self._finish_reason
        if tokens is None and (listed := listed_tokens(choice)) is not None:
            tokens, risen = (self._counts_listed or 0) + listed, listed > 0
            self._counts_listed = tokens
        if text and not self._has_text:
            self._has_role = bool(delta.get("role"))
        self._quick = (text or self._quick) and self._counts_listed is None and self._finish_reason is None
        if tokens is not None and self._counts_along:
            # Usage that only the last choice carries is no running count.
            chunk = risen and (text or not has_ended)
            if text and not risen:
                self._hold(at_us, _STANDING if self.chunks else _EARLY)
        elif text and has_ended:
            chunk = False
            self._hold(at_us, _AFTER)
        else:
            chunk = text or self._is_silent_chunk(at_us, bool(delta.get("role")), has_ended or bool(finish))
        self._has_text = self._has_text or text or chunk
        if chunk:
            self._counts_along = self._counts_along and tokens is not None
            self.chunks.append(at_us << TOKEN_BITS | (UNCOUNTED if tokens is None else tokens))

    def _is_silent_chunk(self, at_us: int, role: bool, has_ended: bool) -> bool:
        """Returns whether an event without text and count is a chunk; holds it if that can't be told yet."""
        if has_ended:
            return False
        if not self._has_text:
            self._hold(at_us, _ROLE if role else _SILENT)
            return False
        return self._has_role or not role

    def _hold(self, at_us: int, kind: int) -> None:
        self._held = self._held or array("q")
        self._held.append(at_us << TOKEN_BITS | kind)

    def _fail(self, at_us: int, code: str, detail: str) -> bool:
        if not self.done:
            self._error = (code, detail)
            self._ended_us = at_us
            self.done = True
        return True


def _of(held: list[int], *kinds: int) -> list[int]:
    return [at | UNCOUNTED for at in held if at & UNCOUNTED in kinds]


def _excerpt(event: bytes) -> str:
    return event[:RAW_DETAIL_LENGTH].decode("utf-8", "replace")


def _error_text(error: Any) -> str:
    return str((error.get("message") if isinstance(error, dict) else None) or error)
