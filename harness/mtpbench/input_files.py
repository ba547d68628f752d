"""Input files: what a user names is read within bounds, as text, lines, JSON or YAML's nodes, or is refused.

Only regular files are read: a FIFO waits for ever, and a device has no end. YAML is that of version 1.2's
core schema: `off`, `2026-11-29`, `1:30` and `1_000` are texts, `0o17` is 15. `010`, which is 8 to YAML 1.1
and 10 to YAML 1.2, is refused, and so are NaN, infinities, control characters, and tags beyond that schema.

Source: YAML 1.2.2, §10.3 (core schema).
"""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import yaml

from mtpbench.errors import SweepError

MOST_LINE_BYTES = 1 << 24
"""The longest line of a dataset: two million token ids, more than any context."""
_KINDS = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"))
_GZIP = b"\x1f\x8b"


def open_input(path: Path) -> BinaryIO:
    """Opens a regular file for reading.

    Raises:
        SweepError: it is not there, may not be read, or is a folder, a FIFO or a device.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "device")
            raise SweepError(f"is a {kind}; a regular file is needed", path=path)
        return path.open("rb")
    except FileNotFoundError:
        raise SweepError("there is no such file", path=path) from None
    except OSError as error:
        raise SweepError(f"can't be read ({error.strerror})", path=path) from error
    except ValueError as error:  # a NUL byte, or half a surrogate pair
        raise SweepError(f"is no path of a file ({error})", path=path) from error


def read_input(path: Path, most_bytes: int) -> bytes:
    """Reads a regular file of at most `most_bytes` bytes.

    Raises:
        SweepError: as for `open_input`, or it is larger.
    """
    try:
        with open_input(path) as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise SweepError(f"can't be read ({error.strerror})", path=path) from error
    if len(data) > most_bytes:
        raise SweepError(f"is larger than {most_bytes:,} bytes, the most that is read of it", path=path)
    return data


def read_input_text(path: Path, most_bytes: int) -> str:
    """Reads a regular file of UTF-8 text, without its byte-order mark.

    Raises:
        SweepError: as for `read_input`, or it is not UTF-8; names the line.
    """
    return decode_input(read_input(path, most_bytes), path)


def decode_input(data: bytes, path: Path) -> str:
    """Decodes UTF-8 text, without its byte-order mark.

    Raises:
        SweepError: it is not UTF-8; names the line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"can't be read: not UTF-8 text (byte {error.start})"
        raise SweepError(message, path=path, line=line) from error


def read_json(path: Path, most_bytes: int) -> Any:
    """Reads a regular file of JSON: at most 1,024 levels, no NaN, no half of a surrogate pair.

    Raises:
        SweepError: as for `read_input`, or it is not JSON; names the line.
    """
    return parse_json(read_input(path, most_bytes), path)


def parse_json(data: bytes, path: Path) -> Any:
    """Parses JSON that was read from a file, without its byte-order mark.

    Raises:
        SweepError: it is not JSON; names the line.
    """
    try:
        return orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        message = f"not JSON: {error.msg} at column {error.colno}"
        raise SweepError(message, path=path, line=error.lineno) from error


def parse_json_object(data: bytes, keys: Sequence[str]) -> dict[str, Any]:
    """Parses one JSON object, which gives none of `keys` twice: readers differ in which one they take.

    Raises:
        ValueError: it is no JSON object, or gives a key twice.
    """
    try:
        row = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(row, dict):
        raise ValueError(f"a JSON object was expected, not {reprlib.repr(row)}")
    # The slow parser sees only what may give a key twice.
    if any(data.count(b'"%s"' % key.encode()) > 1 for key in keys):
        try:
            json.loads(data, object_pairs_hook=_once)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
    return row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise ValueError(f"the key {reprlib.repr(twice[0])} is given twice")
    return dict(pairs)


def read_lines(path: Path, most_line_bytes: int = MOST_LINE_BYTES) -> Iterator[tuple[int, bytes]]:
    """Reads the lines of a file that are not blank, each with its 1-based number.

    Raises:
        SweepError: as for `open_input`, a line is longer than `most_line_bytes`, or the file is compressed.
    """
    number = 0
    try:
        with open_input(path) as file:
            while raw := file.readline(most_line_bytes + 1):
                number += 1
                if len(raw) > most_line_bytes:
                    message = f"the line is longer than {most_line_bytes:,} bytes"
                    raise SweepError(message, path=path, line=number)
                if number == 1 and raw.startswith(_GZIP):
                    raise SweepError("is compressed by gzip; unpack it first", path=path)
                if text := raw.removeprefix(b"\xef\xbb\xbf").strip():
                    yield number, text
    except OSError as error:
        raise SweepError(f"can't be read ({error.strerror})", path=path) from error


def check_line(text: str) -> str:
    """Returns a text that may stand in a file name, a command or a header: one line.

    Raises:
        ValueError: it holds a control character, a line's end among them.
    """
    for character in text:
        if ord(character) < 32 or 127 <= ord(character) < 160 or character in "\u2028\u2029":
            held = f"U+{ord(character):04X}"
            raise ValueError(f"holds the character {held}; one line without control characters is needed")
    return text


# ------------------------------------------------------------------------------------- YAML, the core schema

MOST_YAML_BYTES = 1 << 20
MOST_NODES = 20_000
"""Values and keys of a YAML file, with those that aliases repeat."""
MOST_DEPTH = 50
_TAG = "tag:yaml.org,2002:"
_CORE = {
    "null": (r"~|null|Null|NULL|", ("~", "n", "N", "")),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
_FORMS = {_TAG + name: re.compile(form) for name, (form, _) in _CORE.items()}
_MERGE = _TAG + "merge"
_LEADING_ZEROS = re.compile(r"[-+]?0[0-9]+")
_YAML_1_1 = yaml.SafeLoader("")


class _TooMuch(yaml.MarkedYAMLError):
    """A document has more nodes, or more levels, than files for people have."""


class _Loader(yaml.SafeLoader):
    """A loader knows the scalars of the core schema, counts nodes, and goes only so deep."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes = self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Composes a node within the bounds."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self.nodes, self.depth = self.nodes + 1, self.depth + 1
        if self.depth > MOST_DEPTH:
            raise _TooMuch(problem=f"nested deeper than {MOST_DEPTH} levels", problem_mark=mark)
        if self.nodes > MOST_NODES:
            raise _TooMuch(problem=f"more than {MOST_NODES:,} values and keys", problem_mark=mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}
for _name, (_form, _first) in _CORE.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_form})\Z"), list(_first))
_Loader.add_implicit_resolver(_MERGE, re.compile(r"<<\Z"), ["<"])


def compose_yaml(text: str, path: Path) -> yaml.Node | None:
    """Composes the nodes of a document within bounds; None where it is empty.

    Raises:
        SweepError: it is not YAML, is larger or deeper than a file for people is, or holds itself; names the
            line.
    """
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        what = "" if isinstance(error, _TooMuch) else "not YAML: "
        raise SweepError(f"{what}{error.problem}", path=path, line=line) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"holds the control character U+{ord(text[error.position]):04X}; plain text is needed"
        raise SweepError(message, path=path, line=line) from error
    except (ValueError, OverflowError) as error:  # an escape beyond Unicode, a version of many digits
        line = loader.line + 1 if loader else None
        raise SweepError(f"not YAML: {error}", path=path, line=line) from error
    finally:
        if loader:
            loader.dispose()
    if node is not None:
        _count_nodes(node, {}, path)
    return node


def _count_nodes(node: yaml.Node, known: dict[int, int], path: Path) -> int:
    """Counts the nodes below a node, those of aliases each time; 0 stands for one being counted."""
    if (count := known.get(id(node))) is not None:
        if count == 0:
            raise SweepError("an alias to what it stands in", path=path, line=node.start_mark.line + 1)
        return count
    known[id(node)] = 0
    count = 1
    for part in _parts(node):
        count += _count_nodes(part, known, path)
        if count > MOST_NODES:
            message = f"more than {MOST_NODES:,} values and keys, with what aliases repeat"
            raise SweepError(message, path=path, line=node.start_mark.line + 1)
    known[id(node)] = count
    return count


def _parts(node: yaml.Node) -> Sequence[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def clean_text(text: str) -> str:
    """Returns a text of a file with its surrogate pairs, as JSON writes them, joined to characters.

    Raises:
        ValueError: it holds half a pair, or a control character other than a tab or a line's end.
    """
    if not text.isprintable():
        try:
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            raise ValueError("holds half of a surrogate pair, which is no character") from None
        check_line(text.translate({9: None, 10: None, 13: None, 0x85: None, 0x2028: None, 0x2029: None}))
    return text


def _int(text: str) -> int:
    if _LEADING_ZEROS.fullmatch(text):
        raise ValueError(
            f"{reprlib.repr(text)} is one number to YAML 1.1 and another to YAML 1.2; write it without "
            "leading zeros, an octal one as 0o17, or a text in quotes"
        )
    number = int(text, 0) if len(text) < 40 else 1 << 64
    if not -(1 << 63) <= number < 1 << 64:
        raise ValueError(f"{reprlib.repr(text)} does not fit into 64 bits; a text stands in quotes")
    return number


def _float(text: str) -> float:
    number = float(text) if "n" not in text.lower() else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{reprlib.repr(text)} is no finite number; a text stands in quotes")
    return number


_READERS: Mapping[str, Callable[[str], Any]] = {
    _TAG + "null": lambda text: None,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "int": _int,
    _TAG + "float": _float,
    _TAG + "str": clean_text,
    _MERGE: str,
}


def scalar_value(node: yaml.ScalarNode, as_written: bool = False) -> Any:
    """Returns a scalar's value; `as_written` is the text where YAML 1.1 and 1.2 disagree on what it is."""
    text, tag = node.value, node.tag
    if tag not in _READERS:
        raise ValueError(bad_tag(node))
    if tag in _FORMS and not _FORMS[tag].fullmatch(text):
        raise ValueError(f"{reprlib.repr(text)} is no {tag.removeprefix(_TAG)}, as its tag says")
    if as_written and node.style is None and tag in (_TAG + "int", _TAG + "float"):
        by_1_1 = _YAML_1_1.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        if by_1_1 != tag or _LEADING_ZEROS.fullmatch(text):
            return text
    return _READERS[tag](text)


def plain_data(node: yaml.Node | None) -> Any:
    """Returns the nodes of a file that comes with mtpbench as plain data."""
    if isinstance(node, yaml.MappingNode):
        return {key.value: plain_data(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [*map(plain_data, node.value)]
    return scalar_value(node) if isinstance(node, yaml.ScalarNode) else None


def is_merge(key: yaml.Node) -> bool:
    """Returns whether a key is `<<`, without quotes."""
    return key.tag == _MERGE


def has_core_tag(node: yaml.CollectionNode) -> bool:
    """Returns whether a mapping or a list has no tag but its own."""
    return node.tag == _TAG + ("map" if isinstance(node, yaml.MappingNode) else "seq")


def bad_tag(node: yaml.Node) -> str:
    """Returns what is wrong with a tag beyond the core schema's."""
    tag = "!!" + node.tag.removeprefix(_TAG) if node.tag.startswith(_TAG) else node.tag
    return f"the tag {reprlib.repr(tag)} is not one that can be used; write the value without it"
