"""YAML files that users write: they are read with line numbers and checked, so that messages say where.

A message names file, line, key, and what would be right. Values are those of YAML 1.2's core schema
(`input_files` reads it), keys are always texts, and merge keys (`<<`) are taken as YAML 1.1 has them.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from mtpbench.errors import SweepError
from mtpbench.input_files import (
    MOST_YAML_BYTES,
    bad_tag,
    check_line,
    clean_text,
    compose_yaml,
    has_core_tag,
    is_merge,
    read_input_text,
    scalar_value,
)

KeyPath = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)

_LONGEST_MESSAGE = 600


class Strict(BaseModel):
    """A strict model refuses unknown keys, infinities, NaN, and truth values for numbers in a mapping."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses `true`, which would count as 1, where the field has no place for it."""
        field = cls.model_fields[info.field_name or ""]
        if _holds_truth_value(value) and not _takes_truth_values(field.annotation):
            raise ValueError("true and false are neither numbers nor texts; a text stands in quotes")
        return value


def _holds_truth_value(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_truth_value, value.values()))
    return any(map(_holds_truth_value, value)) if isinstance(value, list) else isinstance(value, bool)


def _takes_truth_values(annotation: Any) -> bool:
    """Returns whether somewhere in a type there is one that takes them, or a mapping that checks itself."""
    if annotation in (bool, Any) or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return True
    return any(map(_takes_truth_values, get_args(annotation)))


def text_of(form: str, wish: str) -> Callable[[str], str]:
    """Returns what takes a text that has a form from its first character to its last, and refuses others.

    Args:
        form: a regular expression.
        wish: what is said behind a text of another form.
    """
    pattern = re.compile(form)

    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"{text!r}{wish}")
        return text

    return check


OneLine = Annotated[str, AfterValidator(check_line)]
"""A text that reaches a file name, a command, a script or an HTTP header."""
Variable = Annotated[
    str, AfterValidator(text_of(r"[A-Za-z_][A-Za-z0-9_]*", " is no name of an environment variable"))
]

# ----------------------------------------------------------------------------------------------- documents


class LinedYaml:
    """A lined YAML document is plain data with the line of every key.

    Args:
        data: mappings, lists and scalars.
        lines: 1-based line by key path; a list item's path ends in its index.
        path: the file it came from.
    """

    def __init__(self, data: Any, lines: Mapping[KeyPath, int], path: Path) -> None:
        self.data, self.lines, self.path = data, lines, path

    def line(self, where: KeyPath) -> int | None:
        """Returns the line of a key path, or of the nearest mapping or list that encloses it."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where)

    def checked(self, model: type[M]) -> M:
        """Returns the document as a model.

        Raises:
            SweepError: it is no mapping, or a key is unknown, missing or wrong; names the first, and counts
                the rest.
        """
        if not isinstance(self.data, dict):
            keys = _keys(model)
            raise SweepError(f"a mapping of keys is needed: {keys}", path=self.path, line=self.line(()) or 1)
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            raise _explain(error, self, model) from None


def read_yaml(path: Path, as_written: Callable[[KeyPath], bool] = lambda where: False) -> LinedYaml:
    """Reads the document in `path`.

    Args:
        path: the file.
        as_written: whether the value at a key path is for another reader, so that it stays the text of the
            file where YAML 1.1 and 1.2 disagree on what it is (`010`, `1e3`).

    Raises:
        SweepError: the file can't be read, is not YAML within bounds, repeats a key, or holds a value that
            the core schema has not; names line and key.
    """
    node = compose_yaml(read_input_text(path, MOST_YAML_BYTES), path)
    reader = _Reader(path, as_written)
    data = reader.value(node, ()) if node is not None else None
    return LinedYaml(data, reader.lines, path)


class _Reader:
    """A reader makes plain data of nodes, and notes the lines of keys."""

    def __init__(self, path: Path, as_written: Callable[[KeyPath], bool]) -> None:
        self._path, self._as_written = path, as_written
        self.lines: dict[KeyPath, int] = {}

    def value(self, node: yaml.Node, where: KeyPath) -> Any:
        """Returns the data of a node."""
        self.lines.setdefault(where, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            try:
                return scalar_value(node, self._as_written(where))
            except ValueError as error:
                raise self._error(str(error), node, where) from None
        assert isinstance(node, yaml.CollectionNode)
        if not has_core_tag(node):
            raise self._error(bad_tag(node), node, where)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        return [self.value(item, (*where, i)) for i, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, where: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for name, (key, value) in self._pairs(node, where).items():
            self.lines[(*where, name)] = key.start_mark.line + 1
            mapping[name] = self.value(value, (*where, name))
        return mapping

    def _pairs(self, node: yaml.MappingNode, where: KeyPath) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Returns a mapping's keys and values by name; its own win over merged ones, and first over later."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if is_merge(key):
                sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for source in reversed(sources):
                    if not isinstance(source, yaml.MappingNode):
                        raise self._error("`<<` merges a mapping, or a list of mappings", key, where)
                    merged |= self._pairs(source, where)
                continue
            name = self._name(key, where)
            if name in own:
                raise self._error(f"the key {reprlib.repr(name)} is given twice", key, where)
            own[name] = (key, value)
        return merged | own

    def _name(self, key: yaml.Node, where: KeyPath) -> str:
        """Returns a key as the text that stands in the file: `off`, `1` and `true` are names."""
        if not isinstance(key, yaml.ScalarNode):
            raise self._error("a key is a text, not a list or a mapping", key, where)
        try:
            return clean_text(key.value)
        except ValueError as error:
            raise self._error(f"a key {error}", key, where) from None

    def _error(self, message: str, node: yaml.Node, where: KeyPath) -> SweepError:
        return SweepError(message, path=self._path, line=node.start_mark.line + 1, key=dotted(where))


def dotted(where: KeyPath) -> str:
    """Returns a key path as people write it: `topologies[2].concurrency`."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{_shortened(part, 100)}"
    return text.removeprefix(".")


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


# ---------------------------------------------------------------------------------------------- complaints


def _explain(error: ValidationError, document: LinedYaml, model: type[BaseModel]) -> SweepError:
    """Returns an error with the first complaint, in terms of the file; the others are counted."""
    complaints = error.errors(include_url=False)
    # Where a word would do too, what is wrong inside a mapping says more than that it is none.
    complaints = [item for item in complaints if not _wants_a_word_of_a_mapping(item)] or complaints
    # An unknown key often causes a second complaint about the key it should have been: name the typo first.
    complaints.sort(key=lambda item: item["type"] != "extra_forbidden")
    first = complaints[0]
    where = _real_path(first["loc"], document.data, is_missing=first["type"] == "missing")
    message = _shortened(_message(first, where, model), _LONGEST_MESSAGE)
    if len(complaints) > 1:
        message += f" ({len(complaints) - 1} more in this file)"
    return SweepError(message, path=document.path, line=document.line(where), key=dotted(where))


def _wants_a_word_of_a_mapping(complaint: Any) -> bool:
    return complaint["type"] == "literal_error" and isinstance(complaint["input"], Mapping)


def _real_path(location: Sequence[str | int], data: Any, *, is_missing: bool) -> KeyPath:
    """Returns pydantic's location without the parts that name types instead of keys of the file.

    A key that is missing is the last part, and not in the file.
    """
    where: list[str | int] = []
    for i, part in enumerate(location):
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if in_list or (isinstance(data, dict) and part in data):
            data = data[part]
        elif not is_missing or i < len(location) - 1:
            continue
        where.append(part)
    return tuple(where)


def _message(complaint: Any, where: KeyPath, model: type[BaseModel]) -> str:
    kind, given = complaint["type"], complaint["input"]
    if kind == "extra_forbidden":
        valid = _valid_keys(complaint["loc"][:-1], model)
        close = difflib.get_close_matches(str(where[-1]), valid, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key; {hint}valid: {', '.join(valid)}"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(complaint["ctx"]["error"])
    if kind in ("model_type", "dict_type"):
        return f"a mapping of keys is needed, not {reprlib.repr(given)}"
    text = str(complaint["msg"])
    quotes = "; put it in quotes" if kind == "string_type" and isinstance(given, int | float) else ""
    return f"{text[0].lower()}{text[1:]}, not {reprlib.repr(given)}{quotes}"


def _keys(model: type[BaseModel]) -> str:
    """Returns the keys that a model needs, or all that it may have, as they are written."""
    needed = [f for f in model.model_fields.items() if f[1].is_required()] or [*model.model_fields.items()]
    return ", ".join(f"`{field.alias or name}:`" for name, field in needed)


def _valid_keys(location: Sequence[str | int], root: type[BaseModel]) -> list[str]:
    model: Any = root
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = model.model_fields[str(part)].annotation
        model = _inner_model(model)
    model = _inner_model(model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _inner_model(annotation: Any) -> Any:
    """Returns the pydantic model inside an annotation such as `list[Annotated[X, …]] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()) or ():
        if (model := _inner_model(argument)) is not None:
            return model
    return None
