"""Pure: the parsers of HTTP/1.1 responses and of server-sent events, whose bytes may be cut anywhere.

Source: RFC 9112 (messages, chunked transfer coding), RFC 9110 (interim responses); WHATWG HTML, Server-sent
events, "Interpreting an event stream".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from orjson import dumps, loads

MAX_HEAD_BYTES = 65_536
MAX_SIZE_DIGITS = 15
"""Digits of a length, decimal or hexadecimal: no body is longer than that many say."""
_HTTP2_SETTINGS = b"\x00\x00"
_NO_BODY = (204, 304)
_HEX = b"0123456789abcdefABCDEF"

_FIELDS = re.compile(
    rb"^(content-(?:length|type|encoding)|transfer-encoding|connection|location|retry-after|date)"
    rb"[ \t]*:([^\r\n]*)",
    re.IGNORECASE | re.MULTILINE,
)

HEAD, SIZE, DATA, AFTER_DATA, TRAILERS, LENGTH, UNTIL_CLOSE, DONE = range(8)
"""States of a response: what its next byte belongs to."""


class BadResponse(Exception):
    """The bytes are no HTTP/1.1 response; the message says why.

    `pieces` are those of the body that the same read held before the fault; they count.
    """

    pieces: list[bytes]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.pieces = []


class Response:
    """A response is parsed from bytes in pieces; `feed` returns the pieces of its body.

    `status` and the `headers` that matter here (lower-case names) are set once the head has ended; `state` is
    `DONE` when the response has ended by its own framing. Interim responses are skipped.
    """

    __slots__ = ("_buffer", "_unread", "headers", "keeps_alive", "state", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.state = HEAD
        self.keeps_alive = True
        self._buffer = b""
        self._unread = 0

    @property
    def ended(self) -> bool:
        """Whether the response has ended by its own framing."""
        return self.state == DONE

    @property
    def at_boundary(self) -> bool:
        """Whether no bytes wait in the buffer for the rest of a line."""
        return not self._buffer

    @property
    def started(self) -> bool:
        """Whether any byte has been read."""
        return self.state != HEAD or bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the pieces of the body that `data` holds, in order.

        Raises:
            BadResponse: the bytes are no HTTP/1.1 response; the error holds the pieces before them.
        """
        pieces: list[bytes] = []
        try:
            self._feed(data, pieces)
        except BadResponse as fault:
            fault.pieces = pieces
            raise
        return pieces

    def _feed(self, data: bytes, pieces: list[bytes]) -> None:
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        while data and self.state != DONE:
            if self.state in (DATA, LENGTH):
                data = self._take_counted(data, pieces)
            elif self.state == UNTIL_CLOSE:
                pieces.append(data)
                return
            else:
                rest = self._take_head(data) if self.state == HEAD else self._take_line(data)
                if rest is None:
                    self._buffer = data
                    return
                data = rest
        if data:
            raise BadResponse(f"{len(data)} bytes after the end of the response: {data[:60]!r}")

    def close(self) -> bool:
        """Ends the response with its connection; returns whether it is complete."""
        if self.state == UNTIL_CLOSE:
            self.state = DONE
        return self.state == DONE

    def _take_counted(self, data: bytes, pieces: list[bytes]) -> bytes:
        piece, rest = data[: self._unread], data[self._unread :]
        pieces.append(piece)
        self._unread -= len(piece)
        if not self._unread:
            self.state = AFTER_DATA if self.state == DATA else DONE
        return rest

    def _take_line(self, data: bytes) -> bytes | None:
        """Takes one line of the chunked framing: a size, the end of a chunk's data, or a trailer.

        Returns:
            The bytes after the line; None if the line is not complete.
        """
        line, newline, rest = data.partition(b"\n")
        if not newline:
            if len(data) > MAX_HEAD_BYTES:
                raise BadResponse(f"a line of the chunked framing is longer than {MAX_HEAD_BYTES} bytes")
            return None
        line = line.removesuffix(b"\r")
        if self.state == AFTER_DATA:
            if line:
                raise BadResponse(f"a chunk is longer than its size says: {line[:60]!r}")
            self.state = SIZE
        elif self.state == SIZE:
            self._unread = _chunk_size(line)
            self.state = DATA if self._unread else TRAILERS
        elif not line:
            self.state = DONE
        return rest

    def _take_head(self, data: bytes) -> bytes | None:
        if not b"HTTP/1.1 ".startswith(data[:9]) and not data.startswith(b"HTTP/1."):
            raise BadResponse(_describe(data))
        end, width = data.find(b"\r\n\r\n"), 4
        bare = data.find(b"\n\n", 0, end if end >= 0 else len(data))
        if bare >= 0:
            end, width = bare, 2
        if end < 0:
            if len(data) > MAX_HEAD_BYTES:
                raise BadResponse(f"the response's head is longer than {MAX_HEAD_BYTES} bytes")
            return None
        self._read_head(data[:end])
        return data[end + width :]

    def _read_head(self, head: bytes) -> None:
        first, _, rest = head.partition(b"\n")
        fields = first.split(None, 2)
        if len(fields) < 2 or not fields[1].isdigit() or len(fields[1]) != 3:
            raise BadResponse(f"no status line: {first[:60]!r}")
        status = int(fields[1])
        if status < 200 and status != 101:
            return  # an interim response; the real one follows
        self.status = status
        self.headers = {name.lower(): value.strip() for name, value in _FIELDS.findall(rest)}
        connection = self.headers.get(b"connection", b"").lower()
        self.keeps_alive = b"close" not in connection and (
            not fields[0].endswith(b"/1.0") or b"keep-alive" in connection
        )
        self._choose_framing()

    def _choose_framing(self) -> None:
        coding = self.headers.get(b"transfer-encoding", b"").lower()
        length = self.headers.get(b"content-length")
        if self.status in _NO_BODY:
            self.state = DONE
        elif coding == b"chunked":
            self.state = SIZE
        elif coding not in (b"", b"identity"):
            raise BadResponse(
                f"transfer coding {coding.decode('latin-1')!r} is not understood; only chunked is"
            )
        elif length is None:
            self.state, self.keeps_alive = UNTIL_CLOSE, False
        elif not length.isdigit() or len(length) > MAX_SIZE_DIGITS:
            raise BadResponse(f"content-length {length[:40]!r} is no number of bytes")
        else:
            self._unread = int(length)
            self.state = LENGTH if self._unread else DONE


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if (
        not digits or digits.strip(_HEX) or len(digits) > MAX_SIZE_DIGITS
    ):  # int() would take signs, prefixes and underscores
        raise BadResponse(f"no chunk size: {line[:60]!r}")
    return int(digits, 16)


def _describe(data: bytes) -> str:
    if data.startswith(_HTTP2_SETTINGS):
        return "the server speaks HTTP/2 only; HTTP/1.1 is needed (a proxy in front can translate)"
    if data[:1] in (b"\x15", b"\x16"):
        return "the server speaks TLS on this port: use an https:// address"
    return f"no HTTP/1.1 response: {data[:60]!r}"


READ_BYTES = 16_384
"""The most that one read takes."""
END = b"\n\n\r\n"
"""How an HTTP chunk ends that is one whole event."""


def _chunk_start(length: int) -> bytes:
    """Returns the first bytes of an HTTP chunk of this length that is one whole event.

    A NUL, which no such chunk begins with, if none has this length.
    """
    for digits in range(1, 5):
        size = length - digits - 4
        if size > 8 and len(f"{size:x}") == digits:
            return b"%x\r\ndata: " % size
    return b"\0"


STARTS = tuple(_chunk_start(length) for length in range(READ_BYTES + 1))
"""The first bytes of a read, by its length, if it is one HTTP chunk that is one whole event."""


def take_chunks(take: Callable[[int, bytes], bool], at_us: int, data: bytes) -> tuple[int, int, bool]:
    """Takes the events of HTTP chunks that are one whole event each, up to the first other chunk.

    Args:
        take: takes an event; returns True if it ended the stream.
        at_us: when the bytes came.
        data: the bytes of a read, from a chunk's start on.

    Returns:
        (bytes that were taken, events in them, whether the last one ended the stream).
    """
    at, length, events = 0, len(data), 0
    try:
        while at < length:
            start = data.find(b"\r\n", at, at + 10) + 2
            end = start + int(data[at : start - 2], 16)
            if (
                data[end - 2 : end + 2] != END
                or data[start : start + 6] != b"data: "
                or data.find(b"\n", start + 6) != end - 2
                or data.find(b"\r", start + 6, end) >= 0
            ):
                break
            at = end + 2
            events += 1
            if take(at_us, data[start + 6 : end - 2]):
                return at, events, True
    except ValueError:
        pass  # a chunk's extension, or no chunk: `Response` decides
    return at, events, False


_BOM = b"\xef\xbb\xbf"
MOST_EVENT_BYTES = 4 << 20
"""The longest event that is taken: one token with its log-probabilities takes some kilobytes."""


class SseParser:
    """The parser takes a response's bytes in pieces and returns the data of each event once it is complete.

    Lines end in LF, CRLF or CR; several `data:` lines of one event are joined by LF; comments and fields
    other than `event` are skipped. The data of an event of type `error` comes out as JSON with a key `error`.
    An event longer than `MOST_EVENT_BYTES` is dropped, and `oversized` says so.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        """Pieces of the line that has not ended; they are joined once, so huge events take linear time."""
        self._data: list[bytes] = []
        self._waiting_bytes = 0
        """How much of an event has come that has not ended, about."""
        self.oversized = False
        self._is_error = False
        self._after_cr = False
        self._at_start = True

    @property
    def clean(self) -> bool:
        """Whether the last byte ended an event, so that the next byte begins one."""
        return not (self._parts or self._data or self._is_error or self._after_cr or self._at_start)

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
        self._parts.append(piece)
        events: list[bytes] = []
        if b"\n" in piece:
            lines = b"".join(self._parts).split(b"\n")
            rest = lines.pop()
            self._parts = [rest] if rest else []
            events = self._take(lines)
        if self._parts or self._data:
            self._weigh(0 if events else self._waiting_bytes + len(piece))
        else:
            self._waiting_bytes = 0
        return events

    def _weigh(self, waiting_bytes: int) -> None:
        """Notes how much of an event waits for its end; drops it where that is too much."""
        self._waiting_bytes = waiting_bytes
        if waiting_bytes > MOST_EVENT_BYTES:
            self.oversized = True
            self._parts, self._data = [], []

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
                    data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                    events.append(_as_error(data) if self._is_error else data)
                    self._data = []
                self._is_error = False
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif line == b"data":
                self._data.append(b"")
            elif line.startswith(b"event:"):
                self._is_error = line[6:].strip() == b"error"
        return events


def _as_error(data: bytes) -> bytes:
    """Returns the data of an `event: error` as JSON whose key `error` says what it was."""
    try:
        body = loads(data)
    except ValueError:
        body = None
    if isinstance(body, dict) and body.get("error"):
        return data
    message = body.get("message") if isinstance(body, dict) else None
    words = message if isinstance(message, str) and message else data.decode("utf-8", "replace")
    return dumps({"error": {"message": words or "an error event without words"}})


_LABELS = frozenset(("role", "id", "name", "type", "index", "object", "model", "created"))
"""Keys of a delta that say what it is; what any other key holds is output."""


def holds_output(delta: dict[str, Any]) -> bool:
    """Returns whether a delta holds a text that is not empty, under any key but a label's."""
    return any(_holds_text(value) for key, value in delta.items() if key not in _LABELS)


def _holds_text(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_text, value.values()))
    if isinstance(value, list):
        return any(map(_holds_text, value))
    return isinstance(value, str) and value != ""


def listed_tokens(choice: dict[str, Any]) -> int | None:
    """Returns how many tokens a choice lists, by ids or log-probabilities; None where it lists none."""
    logprobs = choice.get("logprobs")
    lists = [logprobs.get(name) for name in ("content", "tokens")] if isinstance(logprobs, dict) else []
    return next(
        (len(tokens) for tokens in (choice.get("token_ids"), *lists) if isinstance(tokens, list)), None
    )
