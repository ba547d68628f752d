"""Pure: what a response's head says of the answer that follows; every transport asks the same questions."""

from __future__ import annotations

from mtpbench.load.stream import Stream

EVENT_STREAM = "text/event-stream"
DETAIL_BYTES = 2000


class Verdict:
    """Judges one response by its head, and gathers what an unwanted one says.

    Args:
        status: the HTTP status.
        headers: what the head says, by lower-case name.
        stream: the answer, which learns how its body is encoded.
    """

    __slots__ = ("_code", "_reason", "_said")

    def __init__(self, status: int, headers: dict[str, str], stream: Stream) -> None:
        self._code: str | None = None
        self._reason = ""
        self._said = b""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = headers.get("content-encoding", "").strip().lower()
        if status != 200:
            self._code = f"http_{status}"
            self._reason = _explain(status, headers)
        elif kind != EVENT_STREAM:
            self._code = "wrong_content_type"
            self._reason = f"{kind or 'no content type'} instead of {EVENT_STREAM}"
        elif not stream.decode(encoding):
            self._code = "bad_response"
            self._reason = f"the body is encoded as {encoding!r}, although only identity was accepted"

    @property
    def wanted(self) -> bool:
        """Whether the body is the stream that was asked for."""
        return self._code is None

    @property
    def heard_enough(self) -> bool:
        """Whether an unwanted body has said as much as is kept."""
        return len(self._said) >= DETAIL_BYTES

    def hear(self, piece: bytes) -> None:
        """Keep the beginning of an unwanted body: it usually says what is wrong."""
        self._said += piece[: DETAIL_BYTES - len(self._said)]

    @property
    def failure(self) -> tuple[str, str] | None:
        """Code and detail, or None for a wanted response."""
        if self._code is None:
            return None
        said = self._said.decode("utf-8", "replace").strip()
        return self._code, ": ".join(part for part in (self._reason, said) if part)


def _explain(status: int, headers: dict[str, str]) -> str:
    if 300 <= status < 400:
        return f"redirected to {headers.get('location', 'nowhere')}; give the final address, none is followed"
    if status in (401, 403):
        return "the server wants a key: name the environment variable that holds it in load.api_key_env"
    return ""
