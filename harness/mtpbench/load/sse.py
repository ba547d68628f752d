"""Pure: server-sent events out of bytes that arrive cut anywhere."""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"


class SseParser:
    """Takes a response's bytes in pieces and gives the data of each event as soon as it is complete.

    Lines end in LF, CRLF or CR; several `data:` lines of one event are joined by LF; comments and other
    fields are skipped.

    Source: WHATWG HTML, Server-sent events, "Interpreting an event stream".
    """

    def __init__(self) -> None:
        self._parts: list[
            bytes
        ] = []  # of the line that has not ended; joined once, so huge events stay linear
        self._data: list[bytes] = []
        self._after_cr = False
        self._at_start = True

    @property
    def clean(self) -> bool:
        """Whether the last byte ended an event: what comes next begins one."""
        return not (self._parts or self._data or self._after_cr or self._at_start)

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of every event that `piece` completes, in order."""
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
        """The data of an event that the stream's end completes although its blank line is missing.

        The standard drops it; servers that end this way have said something all the same.
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
