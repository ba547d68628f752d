"""What recognising one event costs: the client's own ways beside httptools, in one run.

    .venv/bin/pip install httptools                # not a dependency of mtpbench
    .venv/bin/python benchmarks/client/recognisers.py [--rounds 60]

Every round sends one event (an HTTP chunk of its own, as an engine sends it), or four that one read takes,
to each of C sockets and reads all of them in one way; the ways take turns, so that a noisy machine troubles
all of them alike. Counted is the CPU time of this thread while it reads: epoll, `recvmsg` with the kernel's
stamp, the recogniser and `Stream.take`. Prints microseconds per event (medians over the rounds) and each
way's ratio to the inlined one, taken round by round. *A read* is the events that one read takes, *alone*
the recogniser and `Stream.take` without a socket.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import resource
import select
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mtpbench.load.clocks import CONTROL_BYTES, stamp_receives, unpack_timespec
from mtpbench.load.http1 import END, READ_BYTES, STARTS, Response, take_chunks
from mtpbench.load.mock import chunk, event
from mtpbench.load.stream import Stream

LOADS = ((64, 1), (512, 1), (2048, 1), (2048, 4))
"""Connections, and events that one read takes."""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WAYS = ("inlined", "plain", "http1 + sse", "httptools + check", "httptools + sse")


class Plain:
    """What the loop of the fast transport does with several whole events in one read."""

    def __init__(self) -> None:
        self.stream = Stream()
        self._take = self.stream.take

    def receive(self, at_us: int, data: bytes) -> None:
        """Take what one read gave."""
        take_chunks(self._take, at_us, data)


class Inlined(Plain):
    """What it does with the commonest read."""

    def receive(self, at_us: int, data: bytes) -> None:
        """Take what one read gave."""
        length = len(data)
        start = STARTS[length]
        if (
            data.startswith(start)
            and data.find(b"\n", len(start)) == length - 4
            and data.endswith(END)
            and data.find(b"\r", len(start)) == length - 2
        ):
            self._take(at_us, data[len(start) : -4])
        else:
            super().receive(at_us, data)


class Thorough:
    """What it does with all else."""

    def __init__(self) -> None:
        self.stream, self._response = Stream(), Response()
        self._response.feed(HEAD)

    def receive(self, at_us: int, data: bytes) -> None:
        """Take what one read gave."""
        for piece in self._response.feed(data):
            self.stream.feed(at_us, piece)


class Httptools:
    """httptools' parser, and the client's own reader of events."""

    def __init__(self) -> None:
        self.stream, self._at_us = Stream(), 0
        self._feed = importlib.import_module("httptools").HttpResponseParser(self).feed_data
        self._feed(HEAD)

    def receive(self, at_us: int, data: bytes) -> None:
        """Take what one read gave."""
        self._at_us = at_us
        self._feed(data)

    def on_body(self, piece: bytes) -> None:
        """The parser's callback."""
        self.stream.feed(self._at_us, piece)


class Checked(Httptools):
    """httptools' parser, and a check whether a piece is one whole event of one line."""

    def on_body(self, piece: bytes) -> None:
        """The parser's callback."""
        if (
            piece.startswith(b"data: ")
            and piece.find(b"\n") == len(piece) - 2
            and piece.endswith(b"\n\n")
            and piece.find(b"\r") < 0
            and self.stream.at_event
        ):
            self.stream.take(self._at_us, piece[6:-2])
        else:
            self.stream.feed(self._at_us, piece)


KINDS: tuple[Callable[[], Any], ...] = (Inlined, Plain, Thorough, Checked, Httptools)


def render(tokens: int) -> bytes:
    """An event as vLLM sends it with continuous usage, in a chunk of its own."""
    choice = {"index": 0, "text": " word", "logprobs": None, "finish_reason": None, "stop_reason": None}
    usage = {"prompt_tokens": 1, "total_tokens": tokens + 1, "completion_tokens": tokens}
    body = {"id": "cmpl-00000000", "object": "text_completion", "created": 1, "model": "m"}
    return chunk(event({**body, "choices": [choice], "usage": usage}))


class Sockets:
    """C connected pairs, one side of each under epoll and stamped by the kernel, as the client's are."""

    def __init__(self, count: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=count)
        self._poller = select.epoll()
        self.senders: list[socket.socket] = []
        self._readers: dict[int, socket.socket] = {}
        for _ in range(count):
            reader = socket.create_connection(self._listener.getsockname())
            stamp_receives(reader)
            reader.setblocking(False)
            self._poller.register(reader.fileno(), select.EPOLLIN | select.EPOLLET)
            self._readers[reader.fileno()] = reader
            sender, _ = self._listener.accept()
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.senders.append(sender)
        self.descriptors = list(self._readers)

    def read(self, receive_of: dict[int, Callable[[int, bytes], None]]) -> float:
        """Read one event of every connection; CPU seconds that it took."""
        left = len(self._readers)
        began_ns = time.thread_time_ns()
        while left:
            for descriptor, _ in self._poller.poll(1.0, 8192):
                data, control, _, _ = self._readers[descriptor].recvmsg(READ_BYTES, CONTROL_BYTES)
                seconds, nanoseconds = unpack_timespec(control[0][2])
                receive_of[descriptor]((seconds * 1_000_000_000 + nanoseconds) // 1000 & 0xFFFFFFFF, data)
                left -= 1
        return (time.thread_time_ns() - began_ns) * 1e-9

    def close(self) -> None:
        """Close every socket."""
        for each in (*self.senders, *self._readers.values(), self._listener):
            each.close()
        self._poller.close()


def measure(count: int, per_read: int, rounds: int) -> tuple[list[list[float]], list[list[float]]]:
    """µs per event of each way by round: with sockets, and the recogniser alone."""
    sockets = Sockets(count)
    readers = [[kind() for _ in range(count)] for kind in KINDS]
    alone = [[kind() for _ in range(count)] for kind in KINDS]
    receive_of = [
        {fd: one.receive for fd, one in zip(sockets.descriptors, way, strict=True)} for way in readers
    ]
    whole: list[list[float]] = [[] for _ in KINDS]
    bare: list[list[float]] = [[] for _ in KINDS]
    for number in range(1, rounds + 1):
        data = b"".join(render(per_read * number + k) for k in range(per_read))
        for way in range(len(KINDS)) if number % 2 else reversed(range(len(KINDS))):
            for sender in sockets.senders:
                sender.send(data)
            whole[way].append(sockets.read(receive_of[way]) / count / per_read * 1e6)
            receivers = [one.receive for one in alone[way]]
            began_ns = time.thread_time_ns()
            for receive in receivers:
                receive(number, data)
            bare[way].append((time.thread_time_ns() - began_ns) / count / per_read * 1e-3)
    sockets.close()
    assert all(len(one.stream.chunks) == rounds * per_read for way in (*readers, *alone) for one in way)
    return whole, bare


def main(rounds: int) -> None:
    """Measure every concurrency and print."""
    needed = 2 * max(LOADS)[0] + 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    gc.disable()
    shown = Table(box=box.SIMPLE_HEAD, title=f"µs CPU per event, {rounds} rounds", title_justify="left")
    for heading in ("C", "a read", "way", "all", "ratio", "alone", "ratio"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for count, per_read in LOADS:
        figures = measure(count, per_read, rounds)
        for way, name in enumerate(WAYS):
            cells = []
            for values in figures:
                ratios = [a / b for a, b in zip(values[way], values[0], strict=True)]
                cells += [f"{statistics.median(values[way]):.2f}", f"{statistics.median(ratios):.3f}"]
            shown.add_row(str(count), str(per_read), name, *cells)
    Console().print(shown)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    main(parser.parse_args().rounds)
