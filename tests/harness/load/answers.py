"""What scripted servers say: events, heads, framings, and whole scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripted import Peer, Request, Script

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
STREAMS = sorted(CAPTURES.glob("*mtp3*.sse"))
DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"


def event(data: Any, end: bytes = b"\n") -> bytes:
    """One event of one line; text stands for itself, the rest is JSON."""
    text = data if isinstance(data, str) else json.dumps(data)
    return b"data: " + text.encode() + end + end


def text(content: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    """An event of a completion."""
    return {"choices": [{"index": 0, "text": content, "finish_reason": finish}], **more}


def chat(finish: Any = None, usage: Any = None, **delta: Any) -> dict[str, Any]:
    """An event of a chat."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": usage}


def usage(output: Any = 3, prompt: Any = 5) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": output}


def last_usage(output: Any = 3, prompt: Any = 5) -> dict[str, Any]:
    """The event with which streams of OpenAI's API end."""
    return {"choices": [], "usage": usage(output, prompt)}


def token(n: int, asked: int = 4, prompt: int = 8) -> bytes:
    """The n-th of so many one-token events with continuous usage, n from 1."""
    return event(text("x", "length" if n == asked else None, usage=usage(n, prompt)))


def tokens(asked: int = 4, prompt: int = 8) -> list[bytes]:
    """A whole answer, `[DONE]` included."""
    return [*(token(n, asked, prompt) for n in range(1, asked + 1)), DONE]


def head(status: str = "200 OK", kind: str | None = "text/event-stream", **headers: Any) -> bytes:
    """A response's head; underscores in names become hyphens."""
    lines = [f"HTTP/1.1 {status}"]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


CHUNKED = head(Transfer_Encoding="chunked")


def chunk(data: bytes, extension: bytes = b"", upper: bool = False) -> bytes:
    """One chunk of the chunked framing."""
    size = (b"%X" if upper else b"%x") % len(data)
    return size + extension + b"\r\n" + data + b"\r\n"


def chunked(*pieces: bytes) -> bytes:
    """A whole response in the chunked framing, a chunk for each piece."""
    return CHUNKED + b"".join(map(chunk, pieces)) + LAST_CHUNK


def measured(body: bytes, **headers: Any) -> bytes:
    """A whole response with its length."""
    return head(Content_Length=len(body), **headers) + body


def cut(data: bytes, size: int) -> list[bytes]:
    """The same in pieces of so many bytes."""
    return [data[i : i + size] for i in range(0, len(data), size)]


def reply(*pieces: bytes, pause_s: float = 0.0, closes: bool = False) -> Script:
    """Every request is answered with these pieces; the connection is kept unless `closes`."""

    def script(peer: Peer) -> None:
        while peer.read():
            peer.send(*pieces, pause_s=pause_s)
            if closes:
                return

    return script


def answer(peer: Peer, request: Request, pause_s: float = 0.0) -> None:
    """As many one-token events as were asked for, each in a chunk of its own."""
    body = request.json
    pieces = tokens(body["max_tokens"], len(body.get("prompt", "x")))
    peer.send(CHUNKED, *map(chunk, pieces[:-1]), chunk(DONE) + LAST_CHUNK, pause_s=pause_s)


def answering(pause_s: float = 0.0, first: Callable[[Peer, Request], bool] | None = None) -> Script:
    """Every request is answered well; `first` may do something before, and say that it was answered."""

    def script(peer: Peer) -> None:
        while request := peer.read():
            if first is None or not first(peer, request):
                answer(peer, request, pause_s)

    return script
