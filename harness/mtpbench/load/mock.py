"""The built-in mock server sends as many streams as a rack, one event for each at every step.

    python -m mtpbench.load.mock --port 8000 --ttft-ms 50 --step-ms 20

It measures what this machine's load client can take (`mtpbench doctor --client`), so it has no engine: its
events are rendered once, a step is one `send` for each stream. `GET /stats` returns how many steps it
ran and how many of them came late: late steps show that the mock was the limit, not the client.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

_MODEL = "mtpbench-mock"
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_MOST_TOKENS = 65_536
_READ_BYTES = 1 << 18
_BACKLOG = 16_384


def chunk(data: bytes) -> bytes:
    """Returns bytes as one chunk of an HTTP body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(body: dict[str, Any]) -> bytes:
    """Returns a server-sent event with a JSON body."""
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


class _Stream:
    """The stream of one request: the tokens that it requested and those that were sent."""

    __slots__ = ("due_ns", "sent", "socket", "tokens")

    def __init__(self, connection: socket.socket, tokens: int, due_ns: int) -> None:
        self.socket, self.tokens, self.due_ns, self.sent = connection, tokens, due_ns, 0


class MockServer:
    """The mock server answers every request with one token at each of its steps.

    Args:
        port: the port on 127.0.0.1; 0 for any free one.
        ttft_s: seconds from a request to the first step that serves it.
        step_s: seconds from one step to the next.
    """

    def __init__(self, port: int, ttft_s: float, step_s: float) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._ttft_ns, self._step_ns = int(ttft_s * 1e9), int(step_s * 1e9)
        self._poller = select.epoll()
        self._poller.register(self._listener.fileno(), select.EPOLLIN)
        self._control: int | None = None
        self._ended = False
        self._connections: dict[int, socket.socket] = {}
        self._pending: dict[int, bytes] = {}
        self._streams: dict[int, _Stream] = {}
        self._events: list[bytes] = []
        self.steps = self.late_steps = self.events = 0

    def end_with(self, descriptor: int) -> None:
        """Lets the server end when a descriptor becomes readable, which is when its input ends."""
        self._control = descriptor
        self._poller.register(descriptor, select.EPOLLIN)

    def serve(self) -> None:
        """Serves until the descriptor of `end_with` becomes readable."""
        step_ns = time.monotonic_ns()
        while not self._ended:
            remaining_s = (step_ns - time.monotonic_ns()) * 1e-9
            if remaining_s > 0:
                for descriptor, _ in self._poller.poll(max(remaining_s - 0.001, 0.0)):
                    self._read(descriptor)
                continue
            self._step(step_ns)
            step_ns += self._step_ns
            if (now_ns := time.monotonic_ns()) > step_ns:
                self.late_steps += bool(self._streams)
                step_ns = now_ns

    def _step(self, now_ns: int) -> None:
        self.steps += bool(self._streams)
        rendered, ended = self._events, []
        for descriptor, stream in self._streams.items():
            if stream.due_ns > now_ns:
                continue
            try:
                stream.socket.send(rendered[stream.sent])
            except BlockingIOError:
                continue  # the reader's buffer is full: its event comes late, as with any server
            except OSError:
                ended.append(descriptor)
                continue
            stream.sent += 1
            self.events += 1
            if stream.sent == stream.tokens:
                self._finish(stream)
                ended.append(descriptor)
        for descriptor in ended:
            del self._streams[descriptor]

    def _finish(self, stream: _Stream) -> None:
        choice = {"index": 0, "text": "", "finish_reason": "length"}
        usage = {"prompt_tokens": 1, "completion_tokens": stream.tokens, "total_tokens": stream.tokens + 1}
        last = event({"choices": [choice], "usage": usage}) + b"data: [DONE]\n\n"
        stream.socket.send(chunk(last) + b"0\r\n\r\n")

    def _render(self, tokens: int) -> None:
        """Renders events up to a request's length, like vLLM's with continuous usage."""
        for n in range(len(self._events) + 1, tokens + 1):
            choice = {
                "index": 0,
                "text": " word",
                "logprobs": None,
                "finish_reason": None,
                "stop_reason": None,
            }
            usage = {"prompt_tokens": 1, "total_tokens": n + 1, "completion_tokens": n}
            head = {"id": "cmpl-00000000", "object": "text_completion", "created": 1, "model": _MODEL}
            self._events.append(chunk(event({**head, "choices": [choice], "usage": usage})))

    def _read(self, descriptor: int) -> None:
        if descriptor == self._listener.fileno():
            self._accept()
            return
        if descriptor == self._control:
            self._ended = True
            return
        try:
            data = self._connections[descriptor].recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._poller.unregister(descriptor)
            self._streams.pop(descriptor, None)
            self._pending.pop(descriptor, None)
            self._connections.pop(descriptor).close()
        else:
            self._take_request(descriptor, data)

    def _take_request(self, descriptor: int, data: bytes) -> None:
        """Answers a request once all of it has come."""
        connection = self._connections[descriptor]
        request = self._pending.pop(descriptor, b"") + data
        head, separator, body = request.partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head):
            self._pending[descriptor] = request
        elif head.startswith(b"POST "):
            tokens = min(int(json.loads(body).get("max_tokens", 16)), _MOST_TOKENS)
            self._render(tokens)
            connection.send(_HEAD)
            self._streams[descriptor] = _Stream(connection, tokens, time.monotonic_ns() + self._ttft_ns)
        else:
            self._send_counts(connection)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[connection.fileno()] = connection
            self._poller.register(connection.fileno(), select.EPOLLIN)

    def _send_counts(self, connection: socket.socket) -> None:
        counts = {"steps": self.steps, "late_steps": self.late_steps, "events": self.events}
        body = json.dumps(counts).encode()
        self.steps = self.late_steps = self.events = 0
        connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until a signal; standard output names the port when the server is ready (see `remote`)."""
    parser = argparse.ArgumentParser(prog="mtpbench.load.mock", description="the built-in mock server")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ttft-ms", type=float, default=50.0)
    parser.add_argument("--step-ms", type=float, default=20.0)
    parser.add_argument("--end-with-input", action="store_true", help="end when standard input closes")
    options = parser.parse_args(arguments)
    from mtpbench.load.capacity import most_descriptors, raise_descriptor_limit

    raise_descriptor_limit(most_descriptors() or 1 << 20)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    mock = MockServer(options.port, options.ttft_ms * 1e-3, options.step_ms * 1e-3)
    if options.end_with_input:
        mock.end_with(sys.stdin.fileno())
    sys.stdout.write(json.dumps({"ready": True, "port": mock.port}) + "\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        mock.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
