"""Text and JSON that other tools wrote; every error names the file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtpbench.errors import ImportFileError
from mtpbench_analysis.frame import Unused


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRow:
    """A row is one value of a file, with its place in it: `runs.json[3]`, `runs.jsonl:4`, `run.json`."""

    what: str
    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRows:
    """A file's rows, and its lines that can't be read."""

    rows: tuple[FileRow, ...]
    unused: tuple[Unused, ...] = ()


LARGEST_FILE_BYTES = 2**30
"""No summary of a benchmark is larger; what is (an endless device, a log, a model) would fill the memory."""

_OTHER_FORMATS = {
    b"\x1f\x8b": "compressed (gzip); unpack it first",
    b"BZh": "compressed (bzip2); unpack it first",
    b"\xfd7zXZ\x00": "compressed (xz); unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed (zstd); unpack it first",
    b"PK\x03\x04": "a zip archive or an Excel file; unpack it, or save the sheet as CSV (UTF-8)",
    b"PAR1": "a Parquet file; CSV or JSON is needed",
    b"SQLite format 3\x00": "an SQLite database; CSV or JSON is needed",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
}
"""How files begin that are no text in UTF-8, and what they are."""


def read_text(path: Path) -> str:
    """Returns the text of a file, a byte order mark taken off.

    Raises:
        ImportFileError: it can't be read, is no regular file, is too large, or is not text in UTF-8.
    """
    content = _read_bytes(path)
    for mark, what in _OTHER_FORMATS.items():
        if content.startswith(mark):
            raise ImportFileError(f"{path}: not UTF-8 text but {what}")
    if b"\0" in content:
        line = _line_of(content, content.index(0))
        raise ImportFileError(f"{path}:{line}: not UTF-8 text (a NUL byte); save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImportFileError(
            f"{path}:{_line_of(content, error.start)}: not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error


def _read_bytes(path: Path) -> bytes:
    try:
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            # A pipe that nobody writes to is never read to its end, nor is a device.
            raise ImportFileError(f"{path}: a pipe or a device; save what it gives as a file, and name that")
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ImportFileError(f"{path}: can't be read ({why})") from error
    except MemoryError as error:
        raise ImportFileError(f"{path}: too large for the memory of this machine") from error
    if len(content) > LARGEST_FILE_BYTES:
        raise ImportFileError(
            f"{path}: larger than {LARGEST_FILE_BYTES >> 30} GiB; leave the lists of single requests out"
        )
    return content


def _line_of(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1


def read_json(path: Path) -> FileRows:
    """Returns the rows of a JSON or JSONL file: the objects of a list, the lines, or the one value.

    A list's items and a file's lines are rows; a row that comes again, the same in everything, is kept once.
    A line that is not JSON is listed, as long as another one is. A key that an object has twice, with two
    values, is refused: readers differ in which one counts.

    Raises:
        ImportFileError: it can't be read, is empty, or holds no JSON.
    """
    text = read_text(path)
    if not text.strip():
        raise ImportFileError(f"{path}: is empty; JSON is needed")
    try:
        value = _parse(text)
    except (RecursionError, ValueError) as error:
        lines = _read_lines(path, text)
        if lines is None:
            raise ImportFileError(_refuse_json(path, error)) from error
        return _without_repeated(lines)
    if isinstance(value, list):
        rows = tuple(FileRow(what=f"{path.name}[{number}]", value=item) for number, item in enumerate(value))
        return _without_repeated(FileRows(rows=rows))
    return FileRows(rows=(FileRow(what=path.name, value=value),))


def _refuse_json(path: Path, error: Exception) -> str:
    """Returns what is wrong with a file that is neither JSON nor lines of it."""
    if not isinstance(error, json.JSONDecodeError):
        return f"{path}: JSON that can't be read ({_why(error)})"
    extra = "; more follows the first value: one value, a list of them, or one a line is needed"
    return f"{path}:{error.lineno}: not JSON ({_why(error)}{extra if error.msg == _EXTRA else ''})"


_EXTRA = "Extra data"
"""What Python's reader of JSON calls more text behind a whole value."""


def describe(value: object) -> str:
    """Returns what a JSON value is, in a few words: its type and, of an object, its first keys."""
    if isinstance(value, dict):
        keys = ", ".join(repr(key)[:40] for key in list(value)[:8])
        more = f" and {len(value) - 8} more" if len(value) > 8 else ""
        return f"an object with {keys}{more}" if value else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return "a number"


def fingerprint(value: object) -> str | None:
    """Returns the same text for the same JSON value; None for one too deep to tell."""
    try:
        return json.dumps(value, sort_keys=True)
    except RecursionError:
        return None


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_to_object)


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        for key, value in pairs:
            if fingerprint(value) != fingerprint(values[key]):
                raise ValueError(f"the key {key[:40]!r} stands twice in one object, with two values")
    return values


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _read_lines(path: Path, text: str) -> FileRows | None:
    """Returns the file as one JSON value a line; None if no line is one, or there is only one line."""
    rows: list[FileRow] = []
    unused: list[Unused] = []
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    for number, line in lines:
        what = f"{path.name}:{number}"
        try:
            rows.append(FileRow(what=what, value=_parse(line)))
        except (RecursionError, ValueError) as error:
            unused.append(Unused(what=what, reason=f"not JSON ({_why(error)})", kind="unusable"))
    # A pretty-printed object cut short has lines that are JSON by accident (`},` is not, `1` is).
    if len(lines) < 2 or not any(isinstance(row.value, dict) for row in rows):
        return None
    return FileRows(rows=tuple(rows), unused=tuple(unused))


def _without_repeated(file_rows: FileRows) -> FileRows:
    first: dict[str, str] = {}
    rows: list[FileRow] = []
    unused = list(file_rows.unused)
    for row in file_rows.rows:
        mark = fingerprint(row.value) if isinstance(row.value, dict) else None
        if mark is not None and mark in first:
            reason = f"the same as {first[mark]}; kept once"
            unused.append(Unused(what=row.what, reason=reason, kind="repeated"))
            continue
        if mark is not None:
            first[mark] = row.what
        rows.append(row)
    return FileRows(rows=tuple(rows), unused=tuple(unused))


def join_reasons(unused: Iterable[Unused], most: int = 3) -> str:
    """Returns the first reasons as one text, for an error about a file of which nothing can be used."""
    reasons = list(unused)
    more = f"; and {len(reasons) - most} more" if len(reasons) > most else ""
    return "; ".join(map(str, reasons[:most])) + more
