"""Where the fast transport's requests go, and how each of them begins."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from mtpbench.errors import RunError
from mtpbench.load.connection import Address

CHOICE_TIMEOUT_S = 2.0


def render_head(base_url: str, path: str, key: str | None, keeps: bool) -> bytes:
    """A request's head up to the number of its content-length."""
    url = urlsplit(base_url)
    lines = [
        f"POST {url.path.rstrip('/')}{path} HTTP/1.1",
        f"Host: {url.netloc.rpartition('@')[2]}",
        "User-Agent: mtpbench",
        "Content-Type: application/json",
        "Accept: text/event-stream",
        "Accept-Encoding: identity",
    ]
    if key is not None:
        lines.append(f"Authorization: {key}")
    if not keeps:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "Content-Length: "]).encode("latin-1")


def choose(addresses: list[Address]) -> Address:
    """The first address that takes a connection; the first of all where none does."""
    for family, where in addresses if len(addresses) > 1 else ():
        with socket.socket(family, socket.SOCK_STREAM) as attempt:
            attempt.settimeout(CHOICE_TIMEOUT_S)
            try:
                attempt.connect(where)
            except OSError:
                continue
            return family, where
    return addresses[0]


def resolve(base_url: str) -> list[Address]:
    """The addresses of a server's host.

    Raises:
        RunError: it has none.
    """
    url = urlsplit(base_url)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(url.hostname or "", port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RunError(
            f"the host {url.hostname!r} of {url.scheme}://{url.netloc.rpartition('@')[2]} has no address "
            f"({error.strerror or error}): check the name, or give its IP address"
        ) from error
    return [(family, where) for family, _, _, _, where in found]
