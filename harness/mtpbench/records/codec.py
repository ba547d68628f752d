"""The codec turns records into JSON and back; it also has the plain types that records share, and a hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

SCHEMA_VERSION = 9
"""Written into every stored record; the history stands in the package's docstring."""
READABLE_VERSIONS = (2, 3, 4, 5, 6, 7, 8, 9)
"""What the store reads; fields that an older version lacked are NULL (`store/migration.py`)."""

MOST_COUNTED = 2.0**53
"""A counter above this can no longer count by ones: it is a float."""
Json = Any
Role = Literal["router", "prefill", "decode", "aggregated", "sampler", "client"]
WorkerRole = Literal["prefill", "decode", "aggregated"]
Clock = Literal["real", "scaled", "virtual"]
Flags = Mapping[str, Json]
"""Engine options without dashes: True is a bare flag, False or None leaves it out, a mapping is JSON."""


@dataclasses.dataclass(frozen=True, slots=True)
class Within:
    """The bounds of a field's number, or of its list's length: a file that holds another one is damaged."""

    least: float
    most: float


MOST = 1e18
"""The largest number of a record: what is built from a few of them is still a float."""
Count = Annotated[int, Within(0, 2**53)]
Positive = Annotated[int, Within(1, 10**9)]
AboveZero = Annotated[float, Within(1e-9, MOST)]
NotNegative = Annotated[float, Within(0, MOST)]

T = TypeVar("T")
Decoder = Callable[[Json], Any]
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_DEEPEST = 50
"""Levels of plain values, such as engine options, inside a record."""
_SHOWN = 120
_NUMBERS = (int, float)
_PLAIN = frozenset((str, int, bool, type(None)))


def to_json(value: Json) -> Json:
    """Returns a record, or a tuple or mapping of records, as plain JSON values; NaN and infinity are refused.

    Texts are `well_formed`, whoever wrote them.

    Raises:
        ValueError: a float is not finite (unknown is None, never NaN).
    """
    kind: Any = type(value)
    if kind in _PLAIN:
        return value if kind is not str or value.isascii() else well_formed(value)
    if (names := _field_names(kind)) is not None:
        return {name: to_json(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} can't be stored; unknown is null with a reason")
    return value


@cache
def _field_names(kind: Any) -> tuple[str, ...] | None:
    """Returns the names of a record's fields, or None where the type is no record."""
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def from_json(kind: type[T], data: Json) -> T:
    """Returns the record of type `kind` that `to_json` wrote.

    Raises:
        ValueError: a key is unknown or missing, or a value has the wrong type or is out of its bounds, or
            values contradict each other (a record's `fault` says that); the message names it.
    """
    try:
        return typing.cast(T, _decoder(typing.cast(Any, kind))(data))
    except _Misfit as misfit:
        raise ValueError(f"{kind.__name__}{misfit.where}: {misfit}") from None


def decode_json(text: str) -> Json:
    """Returns the JSON of a text that comes from outside.

    Raises:
        ValueError: it is no JSON, or is nested more deeply than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def known(value: object, least: float, most: float) -> float | None:
    """Returns a value from outside as a float; None where it is no number, NaN, or outside of its bounds.

    Args:
        value: what was read: a number, or anything else.
        least: the smallest value that can be.
        most: the largest.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # NaN is within no bounds, and a whole number may be too large for a float.
    return float(value) if least <= value <= most else None


def well_formed(text: str) -> str:
    """Returns a text from outside as UTF-8 can hold it: half a surrogate pair, which JSON may name, is �."""
    return _HALF_PAIR.sub("\ufffd", text)


def digest(value: Json) -> str:
    """Returns the SHA-256, in hex, of the canonical JSON (sorted keys, no spaces) of plain JSON values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


_UNSTORABLE = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(9), *range(11, 32), *range(127, 160), *range(0xD800, 0xE000))
}
"""Control characters but tab and line feed, and lone surrogates, each with its escape."""


def storable(text: str) -> str:
    """Returns a text from outside with what no file or terminal takes (NUL, ESC, lone surrogates) escaped."""
    return text.translate(_UNSTORABLE)


class _Misfit(Exception):
    """A misfit is a value of the wrong type; `where` grows from the inside out through its containers."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.where = ""

    def inside(self, holder: str) -> _Misfit:
        self.where = holder + self.where
        return self


@cache
def _decoder(kind: Any) -> Decoder:
    """Returns the decoder of a type; it is built once for each type, as records come by thousands."""
    if kind is Any:
        return _plain
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _record_decoder(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _bounded_decoder(arguments[0], arguments[1])
    if origin is Literal:
        return _literal_decoder(arguments)
    if origin in (typing.Union, types.UnionType):
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        decode = _decoder(inner)
        return lambda data: None if data is None else decode(data)
    if origin is tuple:
        return _tuple_decoder(arguments[0]) if arguments[-1] is Ellipsis else _pair_decoder(arguments)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping_decoder(arguments[1])
    return _scalar_decoder(kind)


def _record_decoder(kind: type) -> Decoder:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    required = {
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    decoders = {name: _decoder(hint) for name, hint in _hints(kind).items() if name in fields}
    fault_of = getattr(kind, "fault", None)

    def decode(data: Json) -> Any:
        if not isinstance(data, dict):
            raise _Misfit(f"a mapping was expected, not {_shown(data)}")
        if not data.keys() <= decoders.keys():
            unknown = sorted(data.keys() - decoders.keys())
            names = ", ".join(name if name.isprintable() else repr(name) for name in unknown)
            raise _Misfit(f"unknown {names[:_SHOWN]}; valid: {', '.join(fields)}")
        if not required <= data.keys():
            raise _Misfit(f"missing {', '.join(name for name in fields if name in required - data.keys())}")
        values, name = {}, ""
        try:
            for name, value in data.items():
                values[name] = decoders[name](value)
        except _Misfit as misfit:
            raise misfit.inside(f".{name}") from None
        record = kind(**values)
        if fault_of is not None and (fault := fault_of(record)):
            raise _Misfit(fault)
        return record

    return decode


def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _bounded_decoder(kind: Any, bounds: Within) -> Decoder:
    decode_value = _decoder(kind)
    what = "number" if kind in _NUMBERS else "length of a list"

    def decode(data: Json) -> Any:
        value = decode_value(data)
        if not bounds.least <= (value if kind in _NUMBERS else len(value)) <= bounds.most:
            raise _Misfit(
                f"a {what} from {bounds.least:g} to {bounds.most:g} was expected, not {_shown(data)}"
            )
        return value

    return decode


def _plain(data: Json, levels: int = _DEEPEST) -> Json:
    """Returns plain values as they are."""
    if isinstance(data, (dict, list)):
        if not levels:
            raise _Misfit(f"at most {_DEEPEST} levels of lists and mappings were expected")
        for item in data.values() if isinstance(data, dict) else data:
            _plain(item, levels - 1)
    return data


def _shown(data: Json) -> str:
    text = repr(data)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _literal_decoder(allowed: tuple[Any, ...]) -> Decoder:
    def decode(data: Json) -> Any:
        if data not in allowed:
            raise _Misfit(f"{_shown(data)} is none of {', '.join(map(repr, allowed))}")
        return data

    return decode


def _tuple_decoder(item: Any) -> Decoder:
    decode_item = _decoder(item)

    def decode(data: Json) -> Any:
        if not isinstance(data, list):
            raise _Misfit(f"a list was expected, not {_shown(data)}")
        if item is str and {*map(type, data)} <= {str}:
            return tuple(data)
        values: list[Any] = []
        try:
            for value in data:
                values.append(decode_item(value))  # noqa: PERF401 (the length says where it failed)
        except _Misfit as misfit:
            raise misfit.inside(f"[{len(values)}]") from None
        return tuple(values)

    return decode


def _pair_decoder(kinds: tuple[Any, ...]) -> Decoder:
    """Returns the decoder of a tuple of a fixed number of values, each of its own type."""
    decoders = [_decoder(kind) for kind in kinds]

    def decode(data: Json) -> Any:
        if not isinstance(data, list) or len(data) != len(decoders):
            raise _Misfit(f"a list of {len(decoders)} was expected, not {_shown(data)}")
        values: list[Any] = []
        try:
            for decode_item, value in zip(decoders, data, strict=True):
                values.append(decode_item(value))
        except _Misfit as misfit:
            raise misfit.inside(f"[{len(values)}]") from None
        return tuple(values)

    return decode


def _mapping_decoder(item: Any) -> Decoder:
    decode_item = _decoder(item)

    def decode(data: Json) -> Any:
        if not isinstance(data, dict):
            raise _Misfit(f"a mapping was expected, not {_shown(data)}")
        if item is str and {*map(type, data.values())} <= {str}:
            return dict(data)
        values, key = {}, ""
        try:
            for key, value in data.items():
                values[key] = decode_item(value)
        except _Misfit as misfit:
            raise misfit.inside(f".{key}") from None
        return values

    return decode


def _scalar_decoder(kind: type) -> Decoder:
    if kind not in _NUMBERS:
        return _instance_decoder(kind)
    most = MOST if kind is float else 2**63

    def decode(data: Json) -> Any:
        if type(data) is not kind:
            if kind is not float or type(data) is not int:
                raise _Misfit(f"{kind.__name__} was expected, not {_shown(data)}")
            data = float(data) if -most <= data <= most else math.inf
        if not -most <= data <= most:
            raise _Misfit(f"a number below {most:g} was expected, not {_shown(data)}")
        return data

    return decode


def _instance_decoder(kind: type) -> Decoder:
    def decode(data: Json) -> Any:
        if not isinstance(data, kind):
            raise _Misfit(f"{kind.__name__} was expected, not {_shown(data)}")
        return data

    return decode
