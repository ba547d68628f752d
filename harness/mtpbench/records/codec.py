"""Records as plain JSON and back, and the hash of it; names what does not fit."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar

from mtpbench.records.types import Json

T = TypeVar("T")


def to_json(value: Json) -> Json:
    """A record, or a tuple or mapping of records, as plain JSON values; NaN and infinity are refused.

    Raises:
        ValueError: a float is not finite (unknown is None, never NaN).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} can't be stored; unknown is null with a reason")
    return value


def from_json(kind: type[T], data: Json) -> T:
    """The record of type `kind` that `to_json` wrote.

    Raises:
        ValueError: a key is unknown or missing, or a value has the wrong type; the message names it.
    """
    return typing.cast(T, _decode(kind, data, kind.__name__))


def digest(value: Json) -> str:
    """SHA-256, in hex, of the canonical JSON (sorted keys, no spaces) of plain JSON values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _decode(kind: Any, data: Json, where: str) -> Any:
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_record(kind, data, where)
    origin = typing.get_origin(kind)
    if origin is Literal:
        if data not in typing.get_args(kind):
            raise ValueError(f"{where}: {data!r} is none of {', '.join(map(repr, typing.get_args(kind)))}")
        return data
    if origin in (typing.Union, types.UnionType):
        return _decode_optional(kind, data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise ValueError(f"{where}: a list was expected, not {data!r}")
        item = typing.get_args(kind)[0]
        return tuple(_decode(item, value, f"{where}[{i}]") for i, value in enumerate(data))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise ValueError(f"{where}: a mapping was expected, not {data!r}")
        item = typing.get_args(kind)[1]
        return {key: _decode(item, value, f"{where}.{key}") for key, value in data.items()}
    return _decode_scalar(kind, data, where)


def _decode_optional(kind: Any, data: Json, where: str) -> Any:
    if data is None:
        return None
    (inner,) = [arg for arg in typing.get_args(kind) if arg is not type(None)]
    return _decode(inner, data, where)


def _decode_record(kind: type, data: Json, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{where}: a mapping was expected, not {data!r}")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(data) - set(fields)):
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; valid: {', '.join(fields)}")
    hints = _hints(kind)
    missing = [
        name
        for name, f in fields.items()
        if name not in data and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}")
    return kind(**{name: _decode(hints[name], value, f"{where}.{name}") for name, value in data.items()})


def _decode_scalar(kind: Any, data: Json, where: str) -> Any:
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise ValueError(f"{where}: {kind.__name__} was expected, not {data!r}")
    return data
