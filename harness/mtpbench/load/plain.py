"""Pure: the commonest bytes of a stream, HTTP chunks that are one whole event of one line each."""

from __future__ import annotations

from collections.abc import Callable

READ_BYTES = 16_384
"""The most that one read takes."""
END = b"\n\n\r\n"
"""How such a chunk ends."""


def _chunk_start(length: int) -> bytes:
    """How so many bytes begin if they are one such chunk; nothing begins with a NUL."""
    for digits in range(1, 5):
        size = length - digits - 4
        if size > 8 and len(f"{size:x}") == digits:
            return b"%x\r\ndata: " % size
    return b"\0"


STARTS = tuple(_chunk_start(length) for length in range(READ_BYTES + 1))
"""How a read of each length begins if it is one such chunk."""


def take_chunks(take: Callable[[int, bytes], bool], at_us: int, data: bytes) -> tuple[int, int, bool]:
    """Hand on the events of such chunks, up to the first that is anything else or the stream's end.

    Args:
        take: takes an event; True if nothing after it matters.
        at_us: when they came.
        data: what was read, from a chunk's start on.

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
        pass  # a chunk's extension, or no chunk: the long way tells
    return at, events, False
