"""What servers say beside the load: pages and answers, read by one bounded reader, and what is in them.

Every GET and POST outside the load client goes through the `Reader`: /metrics, /health, /v1/models, cache
resets, greedy answers, DCGM exporters. A server may say anything; what comes of it is a text, or `Unserved`
with a code. Nothing is unbounded: bytes (before and after decompression), the time of the whole, the nesting
of JSON, the text of the metrics that are parsed. Redirects are not followed, and no charset is taken but
UTF-8, with replacement.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from prometheus_client.parser import text_string_to_metric_families

from mtpbench.records import MOST_COUNTED, Json, decode_json, known, well_formed

if TYPE_CHECKING:
    import aiohttp

PAGE_BYTES = 16 << 20
"""The most bytes of a page or an answer, decompressed; a page of 72 ranks has about half a megabyte."""
DETAIL_CHARACTERS = 200
_NO_VALUE = re.compile(r"[ \t]\[?(?:N/A|Not Supported|null|none)\]?[ \t]*$", re.IGNORECASE)
METRICS_CHARACTERS, LINE_CHARACTERS = 1 << 20, 2048
"""The most text of the metrics asked for, and of a line: parsing takes the square of a line's length."""
MOST_POSITIONS = 1024


class Unserved(Exception):
    """A server's page or answer was not taken.

    Args:
        code: `connect_failed`, `disconnected`, `timeout`, `http_NNN`, `bad_response`, `too_large` or
            `bad_json`; docs/validity.md explains each.
        detail: what happened, with figures.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code, self.detail = code, detail


class Reader:
    """A reader gets pages and posts questions while its async context lasts, one connection for each."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        import aiohttp  # here: who only parses need not wait for its import

        # A server that closes idle connections would cost a page now and then.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, url: str, timeout_s: float) -> str:
        """Returns the text of a page.

        Args:
            url: its address.
            timeout_s: wall seconds for the whole of it.

        Raises:
            Unserved: it did not come, or not whole, not in time, or is none.
        """
        return await self._ask("GET", url, timeout_s, None)

    async def post(self, url: str, timeout_s: float, question: Json = None) -> str:
        """Returns the text of the answer to a question, which is sent as JSON; arguments as for `get`.

        Raises:
            Unserved: as for `get`.
        """
        return await self._ask("POST", url, timeout_s, question)

    async def _ask(self, method: str, url: str, timeout_s: float, question: Json) -> str:
        import aiohttp

        try:
            async with asyncio.timeout(timeout_s):
                return await self._read(method, url, question)
        except Unserved:
            raise
        except TimeoutError:
            raise Unserved("timeout", f"no end within {timeout_s:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise Unserved("connect_failed", str(error)) from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, OSError) as error:
            raise Unserved("disconnected", f"{type(error).__name__}: {_short(str(error))}") from error
        # Whatever else the client library raises is about what the server sent, or an address that is none.
        except Exception as error:
            raise Unserved("bad_response", f"{type(error).__name__}: {_short(str(error))}") from error

    async def _read(self, method: str, url: str, question: Json) -> str:
        assert self._session is not None, "a reader is used inside its context"
        answer = await self._session.request(method, url, json=question, allow_redirects=False)
        try:
            body = bytearray()
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > PAGE_BYTES:
                    raise Unserved("too_large", f"more than {PAGE_BYTES} bytes")
        finally:
            answer.close()
        text = _decompressed(bytes(body), answer.headers.get("Content-Encoding", "")).decode(
            "utf-8", "replace"
        )
        if answer.status != 200 and not (method == "POST" and 200 < answer.status < 300):
            raise Unserved(f"http_{answer.status}", _short(text))
        return text


def _decompressed(body: bytes, encoding: str) -> bytes:
    """Returns the body without its compression, which was not asked for; no more than a page may have."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Unserved("bad_response", f"the content encoding {_short(encoding)} was not asked for")
    # 32 lets zlib see for itself whether it is gzip's form or its own.
    decompressor = zlib.decompressobj(32 + zlib.MAX_WBITS)
    plain = decompressor.decompress(body, PAGE_BYTES + 1)
    if len(plain) > PAGE_BYTES:
        raise Unserved("too_large", f"more than {PAGE_BYTES} bytes, decompressed")
    if not decompressor.eof or decompressor.unused_data:
        raise Unserved("bad_response", "the compressed body breaks off, or goes on after its end")
    return plain


def _short(text: str) -> str:
    return text if len(text) <= DETAIL_CHARACTERS else text[:DETAIL_CHARACTERS] + "…"


# --- JSON ---


def parsed(text: str) -> Json:
    """Returns the JSON of a text.

    Raises:
        Unserved: the text is no JSON, or nested too deeply.
    """
    try:
        return decode_json(text)
    except ValueError as error:
        raise Unserved("bad_json", _short(str(error))) from None


def picked(value: Json, *path: str | int) -> Json:
    """Returns what lies at a path of keys and places.

    Raises:
        Unserved: there is nothing; names the first step that fails.
    """
    for step in path:
        holder: Any = value if isinstance(value, dict if isinstance(step, str) else list) else {}
        try:
            value = holder[step]
        except (KeyError, IndexError):
            raise Unserved("bad_json", f"there is no {step!r} of {'/'.join(map(str, path))}") from None
    return value


def picked_text(value: Json, *path: str | int) -> str:
    """Returns the text at a path, without what is no Unicode character.

    Raises:
        Unserved: there is no text.
    """
    text = picked(value, *path)
    if not isinstance(text, str):
        raise Unserved("bad_json", f"{'/'.join(map(str, path))} is {_short(repr(text))}, not a text")
    return well_formed(text)


# --- Prometheus's text ---


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A metric is one line of Prometheus's text; its value is any float, and NaN where it says `N/A`."""

    name: str
    labels: Mapping[str, str]
    value: float
    unix_s: float | None

    @property
    def rank(self) -> str:
        """Returns the labels as one text, the same in whatever order they stand."""
        return ",".join(f"{name}={value}" for name, value in sorted(self.labels.items()))

    @property
    def series(self) -> str:
        """Returns name and labels as one text."""
        return f"{self.name}{{{self.rank}}}"

    @property
    def amount(self) -> float:
        """Returns the value of what is counted or measured.

        Raises:
            ValueError: it is NaN, infinite, negative or larger than a counter can count.
        """
        amount = known(self.value, 0.0, MOST_COUNTED)
        if amount is None:
            raise ValueError(f"{self.name} is {self.value}, where 0 to 2^53 is due")
        return amount

    def whole(self, label: str, most: int) -> int:
        """Returns a label that is a whole number.

        Raises:
            ValueError: there is none from 0 to `most`.
        """
        text = self.labels.get(label, "")
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= most):
            raise ValueError(f"{self.name}: {label} is {_short(text)!r}, where 0 to {most} is due")
        return int(text)


def metrics(text: str, names: Sequence[str]) -> list[Metric]:
    """Returns the metrics of a page whose names begin in one of some ways; other lines are not looked at.

    Args:
        text: the page, in Prometheus's text format.
        names: beginnings of names.

    Raises:
        ValueError: a line of theirs can't be parsed, or there is more text of them than can be.
    """
    # Of an engine's long text only these lines are parsed: the scraper shares the client's event loop.
    lines = re.findall(rf"^(?:{'|'.join(map(re.escape, names))})[^\n]*", text, re.MULTILINE)
    longest, total = max(map(len, lines), default=0), sum(map(len, lines))
    if longest > LINE_CHARACTERS or total > METRICS_CHARACTERS:
        raise ValueError(
            f"{total} characters of metrics, {longest} in one line, where "
            f"{METRICS_CHARACTERS} and {LINE_CHARACTERS} are the most"
        )
    try:
        known_or_nan = (_NO_VALUE.sub(" NaN", line) for line in lines)
        families = text_string_to_metric_families("\n".join(known_or_nan) + "\n")
        return [_metric(sample) for family in families for sample in family.samples]
    # The parser raises what its own slips happen to raise on a line that is none.
    except Exception as error:
        raise ValueError(f"unreadable metrics: {_short(str(error))}") from error


def _metric(sample: Any) -> Metric:
    stamp = sample.timestamp
    return Metric(
        name=sample.name,
        labels=sample.labels,
        value=float(sample.value),
        unix_s=None if stamp is None else float(stamp),
    )
