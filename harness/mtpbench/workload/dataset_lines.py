"""One line of a dataset, parsed and checked."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from mtpbench.input_files import check_line, parse_json_object
from mtpbench.workload.content import BLOCK_SYMBOLS

_KEYS = (
    *("prompt", "prompt_token_ids", "messages", "input_length", "output_length", "output_tokens"),
    *("hash_ids", "timestamp", "timestamp_ms", "timestamp_s", "session_id", "delay", "role", "content"),
    "category",
)
"""Keys that are read."""
_KINDS = ("prompt", "prompt_token_ids", "messages", "input_length")
_UNSIGNED = 2**64
MOST_TOKENS = 10_000_000
"""Of a prompt or an answer, as in a sweep file."""
LONGEST_MS, _LATEST_MS = 1e11, 1e15
"""Of a trace and of a pause, three years; of a timestamp, which may count from 1970."""
LONGEST_CATEGORY = 60
"""Characters of a category's name."""


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
        category: the kind of text that the line says it is, or None.
    """

    payload: bytes | None
    prompt_tokens: int | None
    output_tokens: int | None
    hash_ids: Sequence[int]
    timestamp_ms: float | None
    unit_named: bool
    session: str | int | None
    delay_ms: float
    category: str | None


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
        category=_category(row),
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


def _category(row: Mapping[str, Any]) -> str | None:
    value = row.get("category")
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_CATEGORY:
        raise ValueError(
            f'"category" is a text of at most {LONGEST_CATEGORY} characters, not {reprlib.repr(value)}'
        )
    try:
        return check_line(value.strip())
    except ValueError as error:
        raise ValueError(f'"category" {error}') from error


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
    most = _LATEST_MS / _TIMESTAMPS[key] if key in _TIMESTAMPS else LONGEST_MS
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
