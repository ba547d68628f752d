"""A server that does on each of its connections exactly what a script says, byte by byte."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER's value with which closing a socket resets the connection."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as it came."""

    first_line: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)  # type: ignore[no-any-return]

    @property
    def path(self) -> str:
        return self.first_line.split(" ")[1]


class Peer:
    """One connection from the server's side; `number` counts connections from 0."""

    def __init__(self, connection: socket.socket, number: int, server: Server) -> None:
        self.number, self.server = number, server
        self._socket, self._read = connection, b""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def has_head(self) -> bool:
        """Wait for the head of a request, and leave it for `read`; False where the client has closed."""
        while b"\r\n\r\n" not in self._read:
            piece = self._socket.recv(65_536)
            if not piece:
                return False
            self._read += piece
        return True

    def read(self) -> Request | None:
        """The next whole request, noted in `Server.requests`; None where the client has closed."""
        if not self.has_head():
            return None
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers["content-length"])
        while len(self._read) < length:
            piece = self._socket.recv(1 << 20)
            if not piece:
                return None
            self._read += piece
        body, self._read = self._read[:length], self._read[length:]
        request = Request(first_line=first, headers=headers, body=body, connection=self.number)
        self.server.requests.append(request)
        return request

    def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        """Send pieces, each in a segment of its own, with pauses between them."""
        for i, piece in enumerate(pieces):
            if i and pause_s:
                time.sleep(pause_s)
            self._socket.sendall(piece)

    def await_close(self) -> None:
        """Read on until the client closes, or the test is over."""
        while self._socket.recv(65_536):
            pass

    def ignore(self) -> None:
        """Not even read, until the test is over."""
        self.server.closing.wait(60)

    def reset(self) -> None:
        """End with RST instead of FIN."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._socket.close()


Script = Callable[[Peer], None]
"""What happens on a connection, from its acceptance on; it is closed when the script returns."""


class Server:
    """A context in which `script` runs on every connection, each in a thread of its own.

    Attributes:
        requests: those that were read whole, in the order in which they came.
        connections: how many were accepted.
    """

    def __init__(self, script: Script, host: str = "127.0.0.1") -> None:
        self._script = script
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[Request] = []
        self.connections = 0
        self.closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._faults: list[BaseException] = []

    def __enter__(self) -> Server:
        thread = threading.Thread(target=self._accept, daemon=True)
        self._threads.append(thread)
        thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        _shut(self._listener)
        with self._lock:
            for connection in self._open:
                _shut(connection)
        for thread in self._threads:
            thread.join(10)
        if error is None and self._faults:
            raise self._faults[0]

    def stop_listening(self) -> None:
        """Refuse connections from now on; those that are there stay."""
        _shut(self._listener)
        self._threads[0].join(10)

    def _accept(self) -> None:
        with self._listener:
            while not self.closing.is_set():
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    return
                with self._lock:
                    self._open.add(connection)
                thread = threading.Thread(
                    target=self._serve, args=(connection, self.connections), daemon=True
                )
                self.connections += 1
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            self._script(Peer(connection, number, self))
        except OSError:
            pass  # the client has gone
        except BaseException as fault:  # noqa: BLE001
            self._faults.append(fault)
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
