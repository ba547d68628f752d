"""One line of a dataset: what it may say, and the JSON that it becomes. Pure parsing."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from mtpbench.workload.content import BLOCK_SYMBOLS

_KINDS = ("prompt", "prompt_token_ids", "messages", "input_length")
_UNSIGNED = 2**64


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """What is kept of a line.

    Args:
        payload: the prompt as a member of the request's JSON, or None for a trace line.
        prompt_tokens: its length where the line says it, else None.
        output_tokens: what it asks for, or None.
        hash_ids: a trace line's blocks; empty where it has none.
        timestamp_ms: when it is sent, or None.
        session: of which session it is a turn, or None.
        delay_ms: pause after the end of the turn before.
    """

    payload: bytes | None
    prompt_tokens: int | None
    output_tokens: int | None
    hash_ids: Sequence[int]
    timestamp_ms: float | None
    session: str | int | None
    delay_ms: float


def parse_line(raw: bytes, *, chat: bool, vocabulary: int | None) -> Line:
    """The request of a line.

    Args:
        raw: its bytes.
        chat: whether prompts go through the chat template.
        vocabulary: token ids lie below it, where it is known.

    Raises:
        ValueError: says what is wrong and what would be right.
    """
    row = _parse_object(raw)
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
    return Line(
        payload=payload,
        prompt_tokens=prompt_tokens,
        output_tokens=_output_tokens(row),
        hash_ids=hash_ids,
        timestamp_ms=_milliseconds(row, "timestamp"),
        session=session,
        delay_ms=delay or 0.0,
    )


def _parse_object(raw: bytes) -> Mapping[str, Any]:
    try:
        row = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(row, dict):
        raise ValueError(f"a JSON object was expected, not {reprlib.repr(row)}")
    return row


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
    named = {key: _whole(row, key) for key in ("output_tokens", "output_length") if row.get(key) is not None}
    if len(set(named.values())) > 1:
        raise ValueError('"output_tokens" and "output_length" are two names of one number; give one of them')
    return next(iter(named.values()), None)


def _whole(row: Mapping[str, Any], key: str) -> int:
    value = row[key]
    if type(value) is not int or not 1 <= value < 2**31:
        raise ValueError(f'"{key}" is a whole number of at least 1, not {reprlib.repr(value)}')
    return value


def _milliseconds(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f'"{key}" is a number of milliseconds, at least 0, not {reprlib.repr(value)}')
    return float(value)


def _member(name: str, value: Any) -> bytes:
    return b'"%s":%s' % (name.encode(), orjson.dumps(value))
