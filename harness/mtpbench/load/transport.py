"""How the client's requests travel: the seam, and aiohttp behind it.

Another transport need only stamp every read and hand the bytes on; what they mean is `stream.py`'s part.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import time
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp

Take = Callable[[float, bytes], bool]
"""Takes a read: its `time.perf_counter()` stamp and its bytes; True once nothing that follows matters."""
Failure = tuple[str, str]
"""Code and detail of what went wrong."""

READ_BUFFER_BYTES = 1 << 20
DRAIN_S = 1.0
DETAIL_BYTES = 2000
SPARE_DESCRIPTORS = 256
_CLIENT_LIMITS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}


class Transport(Protocol):
    """What `drive` needs of a transport."""

    async def open(self, base_url: str, connections: int) -> None:
        """Get ready for so many connections at once to one server."""

    async def stream(self, path: str, body: bytes, take: Take) -> Failure | None:
        """POST a JSON body and hand on every read of a streamed answer.

        Returns:
            None where a streamed answer ended in order, else code and detail: `connect_failed`,
            `client_limit`, `disconnected`, `http_NNN`, `wrong_content_type` or `bad_response`.
        """

    async def close(self) -> None:
        """Close every connection."""


class AiohttpTransport:
    """One aiohttp session, without limits, proxies, cookies or decompression.

    Args:
        keeps_connections: reuse connections; else each request opens one of its own, and says so.
    """

    def __init__(self, *, keeps_connections: bool = True) -> None:
        self._connections: dict[str, Any] = (
            {"keepalive_timeout": 60} if keeps_connections else {"force_close": True}
        )
        self._session: aiohttp.ClientSession | None = None

    async def open(self, base_url: str, connections: int) -> None:
        """Open the session and raise the limit of open files as far as needed and allowed."""
        raise_descriptor_limit(connections + SPARE_DESCRIPTORS)
        self._session = aiohttp.ClientSession(
            base_url,
            connector=aiohttp.TCPConnector(limit=0, **self._connections),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Accept": "text/event-stream",
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
            },
        )

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def stream(self, path: str, body: bytes, take: Take) -> Failure | None:
        """See `Transport.stream`."""
        if self._session is None:
            raise RuntimeError("the transport is not open")
        try:
            async with self._session.post(path, data=body) as response:
                return await _read(response, take)
        except aiohttp.ClientConnectorError as error:
            limited = error.errno in _CLIENT_LIMITS
            return "client_limit" if limited else "connect_failed", str(error)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, OSError) as error:
            return "disconnected", str(error) or type(error).__name__
        except aiohttp.ClientError as error:
            return "bad_response", f"{type(error).__name__}: {error}"


async def _read(response: aiohttp.ClientResponse, take: Take) -> Failure | None:
    content = response.content
    if response.status != 200:
        text = (await content.read(DETAIL_BYTES)).decode("utf-8", "replace")
        return f"http_{response.status}", text or response.reason or ""
    if response.content_type != "text/event-stream":
        text = (await content.read(DETAIL_BYTES)).decode("utf-8", "replace")
        return "wrong_content_type", f"{response.content_type} instead of text/event-stream: {text}"
    while True:
        piece = await content.readany()
        stamp = time.perf_counter()
        if not piece:
            return None
        if take(stamp, piece):
            await _drain(content)
            return None


async def _drain(content: aiohttp.StreamReader) -> None:
    """Read up to the end, so that the connection can serve the next request; not for long."""
    if content.at_eof():
        return
    try:
        async with asyncio.timeout(DRAIN_S):
            while await content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError, OSError):
        return  # the answer was whole; only the connection is lost


def raise_descriptor_limit(needed: int) -> int:
    """Raise this process's soft limit of open files to `needed` where the hard limit allows.

    Returns:
        The soft limit now; below `needed` where the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return soft
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)
