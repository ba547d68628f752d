"""Pure: the parser of one HTTP/1.1 response, whose bytes may be cut anywhere, and the check of its head.

Source: RFC 9112 (messages, chunked transfer coding), RFC 9110 (interim responses).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mtpbench.load.stream import Stream

MAX_HEAD_BYTES = 65_536
_HTTP2_SETTINGS = b"\x00\x00"
_NO_BODY = (204, 304)
_HEX = b"0123456789abcdefABCDEF"

_FIELDS = re.compile(
    rb"^(content-(?:length|type|encoding)|transfer-encoding|connection|location)[ \t]*:([^\r\n]*)",
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
        elif not length.isdigit():
            raise BadResponse(f"content-length {length[:40]!r} is no number")
        else:
            self._unread = int(length)
            self.state = LENGTH if self._unread else DONE


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or digits.strip(_HEX):  # int() would take signs, prefixes and underscores
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

    __slots__ = ("_beginning", "_code", "_reason")

    def __init__(self, status: int, headers: dict[str, str], stream: Stream) -> None:
        self._code: str | None = None
        self._reason = ""
        self._beginning = b""
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
