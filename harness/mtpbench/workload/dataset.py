"""The dataset: a JSONL file as columns, read once in file order, each line checked."""

from __future__ import annotations

import reprlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from mtpbench.errors import SweepError
from mtpbench.input_files import parse_json_object, read_lines
from mtpbench.metrics.request_table import UNKNOWN, Floats, Ints
from mtpbench.records import Workload
from mtpbench.workload.content import BLOCK_SYMBOLS

_KEYS = (
    *("prompt", "prompt_token_ids", "messages", "input_length", "output_length", "output_tokens"),
    *("hash_ids", "timestamp", "timestamp_ms", "timestamp_s", "session_id", "delay", "role", "content"),
)
"""Keys that are read."""
_KINDS = ("prompt", "prompt_token_ids", "messages", "input_length")
_UNSIGNED = 2**64
MOST_TOKENS = 10_000_000
"""Of a prompt or an answer, as in a sweep file."""
_LONGEST_MS, _LATEST_MS = 1e11, 1e15
"""Of a trace and of a pause, three years; of a timestamp, which may count from 1970."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetLine:
    """A line of a dataset, parsed and checked.

    Args:
        payload: the prompt as a member of the request's JSON, or None for a trace line.
        prompt_tokens: the prompt's length if the line gives it, else None.
        output_tokens: the output length that the line requests, or None.
        hash_ids: a trace line's blocks; empty if it has none.
        timestamp_ms: when the request is sent, or None.
        unit_named: whether the timestamp's key names its unit.
        session: the session that the line is a turn of, or None.
        delay_ms: pause after the end of the turn before.
    """

    payload: bytes | None
    prompt_tokens: int | None
    output_tokens: int | None
    hash_ids: Sequence[int]
    timestamp_ms: float | None
    unit_named: bool
    session: str | int | None
    delay_ms: float


def parse_line(raw: bytes, *, chat: bool, vocabulary: int | None) -> DatasetLine:
    """Parses the request of a line.

    Args:
        raw: the bytes of the line.
        chat: whether prompts go through the chat template.
        vocabulary: token ids lie below it; None if it is unknown.

    Raises:
        ValueError: the line is no request; the message says what would be right.
    """
    row = parse_json_object(raw, _KEYS)
    kinds = [kind for kind in _KINDS if row.get(kind) is not None]
    if len(kinds) != 1:
        raise ValueError(
            'exactly one of "prompt", "prompt_token_ids", "messages" and "input_length" was expected, '
            f"not {' and '.join(map(repr, kinds)) or 'none of them'}"
        )
    if row.get("hash_ids") is not None and kinds != ["input_length"]:
        raise ValueError('"hash_ids" are for a trace line, with "input_length" in place of the prompt')
    session = row.get("session_id")
    if session is not None and (isinstance(session, bool) or not isinstance(session, (str, int))):
        raise ValueError(f'"session_id" is a text or a whole number, not {reprlib.repr(session)}')
    delay = _milliseconds(row, "delay")
    if delay is not None and session is None:
        raise ValueError('"delay" counts from the end of the turn before: give the line a "session_id" too')
    payload, prompt_tokens, hash_ids = _PARSERS[kinds[0]](row, chat, vocabulary)
    return DatasetLine(
        payload=payload,
        prompt_tokens=prompt_tokens,
        output_tokens=_output_tokens(row),
        hash_ids=hash_ids,
        timestamp_ms=_read_timestamp(row),
        unit_named=row.get("timestamp") is None,
        session=session,
        delay_ms=delay or 0.0,
    )


Parsed = tuple[bytes | None, int | None, Sequence[int]]


def _parse_prompt(row: Mapping[str, Any], chat: bool, _: int | None) -> Parsed:
    prompt = row["prompt"]
    if not isinstance(prompt, str) or not prompt:
        raise ValueError(f'"prompt" is a non-empty text, not {reprlib.repr(prompt)}')
    if chat:
        return _member("messages", [{"role": "user", "content": prompt}]), None, ()
    return _member("prompt", prompt), None, ()


def _parse_token_ids(row: Mapping[str, Any], chat: bool, vocabulary: int | None) -> Parsed:
    ids = row["prompt_token_ids"]
    if chat:
        raise ValueError('"prompt_token_ids" can\'t go through a chat template; leave chat_template out')
    if not isinstance(ids, list) or not ids or not all(type(i) is int and i >= 0 for i in ids):
        raise ValueError(
            f'"prompt_token_ids" is a non-empty list of whole numbers from 0, not {reprlib.repr(ids)}'
        )
    if vocabulary is not None and max(ids) >= vocabulary:
        raise ValueError(f"token id {max(ids)} is not below the workload's vocabulary of {vocabulary}")
    return _member("prompt", ids), len(ids), ()


def _parse_messages(row: Mapping[str, Any], chat: bool, _: int | None) -> Parsed:
    messages = row["messages"]
    if not chat:
        raise ValueError('"messages" need the chat template: set chat_template: true, or give "prompt"')
    if not _are_messages(messages):
        raise ValueError(
            '"messages" is a non-empty list of {"role": text, "content": text}, not ' + reprlib.repr(messages)
        )
    return _member("messages", messages), None, ()


def _parse_trace(row: Mapping[str, Any], _: bool, __: int | None) -> Parsed:
    tokens = _whole(row, "input_length")
    ids = row.get("hash_ids")
    if ids is None:
        return None, tokens, ()
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < _UNSIGNED for i in ids):
        raise ValueError(f'"hash_ids" is a list of whole numbers from 0, not {reprlib.repr(ids)}')
    blocks = -(-tokens // BLOCK_SYMBOLS)
    if len(ids) != blocks:
        raise ValueError(
            f"too {'few' if len(ids) < blocks else 'many'} hash_ids: an input_length of {tokens} is {blocks} "
            f"blocks of {BLOCK_SYMBOLS} tokens, and there are {len(ids)}; leave them out for a unique prompt"
        )
    return None, tokens, ids


_PARSERS: Mapping[str, Callable[[Mapping[str, Any], bool, int | None], Parsed]] = {
    "prompt": _parse_prompt,
    "prompt_token_ids": _parse_token_ids,
    "messages": _parse_messages,
    "input_length": _parse_trace,
}


def _are_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and isinstance(m.get("role"), str) and "content" in m for m in value)
    )


def _output_tokens(row: Mapping[str, Any]) -> int | None:
    lengths = {
        key: _whole(row, key) for key in ("output_tokens", "output_length") if row.get(key) is not None
    }
    if len(set(lengths.values())) > 1:
        raise ValueError('"output_tokens" and "output_length" are two names of one number; give one of them')
    return next(iter(lengths.values()), None)


def _whole(row: Mapping[str, Any], key: str) -> int:
    value = row[key]
    if type(value) is not int or not 1 <= value <= MOST_TOKENS:
        raise ValueError(
            f'"{key}" is a whole number of at least 1, not {reprlib.repr(value)}, at most {MOST_TOKENS:,}'
        )
    return value


_TIMESTAMPS = {"timestamp": 1.0, "timestamp_ms": 1.0, "timestamp_s": 1000.0}
"""The keys of a line's time, and the milliseconds of their unit."""


def _read_timestamp(row: Mapping[str, Any]) -> float | None:
    keys = [key for key in _TIMESTAMPS if row.get(key) is not None]
    if len(keys) > 1:
        raise ValueError(f"{' and '.join(map(repr, keys))} are names of one time; give one of them")
    time = _milliseconds(row, keys[0]) if keys else None
    return None if time is None else time * _TIMESTAMPS[keys[0]]


def _milliseconds(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    most = _LATEST_MS / _TIMESTAMPS[key] if key in _TIMESTAMPS else _LONGEST_MS
    unit = "seconds" if key == "timestamp_s" else "milliseconds"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise ValueError(
            f'"{key}" is a number of {unit}, at least 0, not {reprlib.repr(value)}, at most {most:g}'
        )
    return float(value)


def _member(name: str, value: Any) -> bytes:
    try:
        return b'"%s":%s' % (name.encode(), orjson.dumps(value))
    except orjson.JSONEncodeError as error:
        raise ValueError(f'"{name}" can\'t be sent: {error}') from error


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A dataset holds the rows of a file, one for each line that is not blank.

    Args:
        path: the file.
        line_numbers: (n,) 1-based.
        payloads: the prompts as members of a request's JSON, of the first rows only; None for trace rows.
        prompt_tokens, output_tokens: (n,) `UNKNOWN` if the line does not give them.
        times_s: (n,) seconds from the first row, never falling; None if lines have no timestamps.
        unit_named: whether the keys of all timestamps name their unit.
        previous: (n,) the row of the session's turn before; -1 for none.
        delay_s: (n,) pause after the end of that turn.
        block_offsets: (n + 1,) blocks of row i are [block_offsets[i], block_offsets[i + 1]) of `blocks`.
        blocks: hash ids, numbered from 0 in the order in which they first appear.
        distinct_blocks: how many different blocks there are.
        longest_trace: tokens of the longest trace row; 0 if there is none.
    """

    path: Path
    line_numbers: Ints
    payloads: tuple[bytes | None, ...]
    prompt_tokens: Ints
    output_tokens: Ints
    times_s: Floats | None
    unit_named: bool
    previous: Ints
    delay_s: Floats
    block_offsets: Ints
    blocks: Ints
    distinct_blocks: int
    longest_trace: int

    def __len__(self) -> int:
        return len(self.line_numbers)

    def blocks_of(self, row: int) -> Ints:
        """Returns the numbers of a row's blocks; empty if it has none."""
        return self.blocks[self.block_offsets[row] : self.block_offsets[row + 1]]

    def traced(self, count: int) -> Ints:
        """Returns which of the first `count` rows are trace rows."""
        return np.array([row for row, text in enumerate(self.payloads[:count]) if text is None], np.int64)

    def error(self, row: int, message: str) -> SweepError:
        """Returns an error about the line of a row."""
        return SweepError(message, path=self.path, line=int(self.line_numbers[row]))


def read_dataset(workload: Workload, count: int) -> Dataset:
    """Reads the workload's JSONL file; of rows after the first `count` only the numbers are kept.

    Raises:
        SweepError: the file can't be read, or a line is no request; the error names file and line.
    """
    path = _path(workload)
    reader = _Reader(path, count)
    for number, raw in read_lines(path):
        try:
            line = parse_line(raw, chat=workload.chat_template, vocabulary=workload.vocabulary)
            reader.add(number, line)
        except ValueError as error:
            raise SweepError(str(error), path=path, line=number) from error
    return reader.dataset()


def count_lines(workload: Workload) -> int:
    """Counts the requests of the workload's JSONL file without parsing them.

    Raises:
        SweepError: the file can't be read, or it is empty.
    """
    path = _path(workload)
    return sum(1 for _ in read_lines(path)) or _refuse_empty(path)


def _path(workload: Workload) -> Path:
    if not workload.dataset_path:
        raise SweepError("prompts: dataset needs the path of a JSONL file", key="workload.dataset")
    return Path(workload.dataset_path)


def _refuse_empty(path: Path) -> int:
    raise SweepError("the dataset is empty; one JSON object per line was expected", path=path)


class _Reader:
    """The reader collects the columns and checks each line against those before it."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count = path, count
        self._payloads: list[bytes | None] = []
        self._numbers, self._prompt_tokens, self._output_tokens, self._previous, self._blocks = (
            array("q") for _ in range(5)
        )
        self._offsets = array("q", [0])
        self._times_ms, self._delays_ms = array("d"), array("d")
        self._timed: bool | None = None
        self._unit_named = True
        self._longest_trace = 0
        self._last_turns: dict[str | int, int] = {}
        self._block_numbers: dict[int, int] = {}

    def add(self, number: int, line: DatasetLine) -> None:
        """Adds a line.

        Raises:
            ValueError: the line does not fit the lines before it.
        """
        row = len(self._numbers)
        previous = -1 if line.session is None else self._last_turns.get(line.session, -1)
        self._check_time(line, previous)
        if previous < 0 and line.delay_ms:
            raise ValueError(
                f'"delay" counts from the end of the turn before, and this is the first turn of '
                f'{reprlib.repr(line.session)}: leave it out (a "timestamp" says when a session starts)'
            )
        if line.session is not None:
            self._last_turns[line.session] = row
        self._numbers.append(number)
        if row < self._count:
            self._payloads.append(line.payload)
        self._prompt_tokens.append(UNKNOWN if line.prompt_tokens is None else line.prompt_tokens)
        self._output_tokens.append(UNKNOWN if line.output_tokens is None else line.output_tokens)
        if line.payload is None:
            self._longest_trace = max(self._longest_trace, line.prompt_tokens or 0)
        self._previous.append(previous)
        self._delays_ms.append(line.delay_ms)
        numbers = self._block_numbers
        self._blocks.extend(numbers.setdefault(block, len(numbers)) for block in line.hash_ids)
        self._offsets.append(len(self._blocks))

    def dataset(self) -> Dataset:
        """Builds the dataset of the lines so far.

        Raises:
            SweepError: there are no lines.
        """
        if not self._numbers:
            _refuse_empty(self._path)
        times_ms = np.array(self._times_ms)
        return Dataset(
            path=self._path,
            line_numbers=np.array(self._numbers, np.int64),
            payloads=tuple(self._payloads),
            prompt_tokens=np.array(self._prompt_tokens, np.int64),
            output_tokens=np.array(self._output_tokens, np.int64),
            unit_named=self._unit_named,
            times_s=(times_ms - times_ms[0]) / 1000 if self._timed else None,
            previous=np.array(self._previous, np.int64),
            delay_s=np.array(self._delays_ms) / 1000,
            block_offsets=np.array(self._offsets, np.int64),
            blocks=np.array(self._blocks, np.int64),
            distinct_blocks=len(self._block_numbers),
            longest_trace=self._longest_trace,
        )

    def _check_time(self, line: DatasetLine, previous: int) -> None:
        """Checks that all lines have timestamps, or none; a later turn of a session may do without."""
        time_ms = line.timestamp_ms
        if self._timed is None:
            self._timed = time_ms is not None
        if time_ms is None:
            if self._timed and previous < 0:
                raise ValueError(
                    'this line has no "timestamp" and those before have: give all lines one, or none '
                    "(only a later turn of a session may do without)"
                )
            time_ms = self._times_ms[-1] if self._times_ms else 0.0
        elif not self._timed:
            raise ValueError(
                'this line has a "timestamp" and the first one has none: give all lines one, or none'
            )
        if self._times_ms and time_ms < self._times_ms[-1]:
            raise ValueError(
                f"the timestamps go backwards, from {self._times_ms[-1]:g} to {time_ms:g} ms: "
                "sort the lines by time"
            )
        if self._times_ms and time_ms - self._times_ms[0] > _LONGEST_MS:
            raise ValueError(f"the trace takes {time_ms - self._times_ms[0]:g} ms so far: years")
        self._times_ms.append(time_ms)
        self._unit_named &= line.unit_named
