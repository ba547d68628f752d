"""YAML files that users write: they are read with line numbers and checked, so that messages say where.

A message names file, line, key, and what would be right. YAML 1.2 booleans only (`true`, `false`): under
PyYAML's 1.1 rules an arm called `off` would be False.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mtpbench.errors import SweepError

KeyPath = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """A strict model refuses unknown keys, infinities and NaN in a mapping of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Loader(yaml.SafeLoader):
    """A loader with YAML 1.2 booleans."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


class LinedYaml:
    """A lined YAML document is plain data with the line of every key.

    Args:
        data: mappings, lists and scalars.
        lines: 1-based line by key path; a list item's path ends in its index.
        path: the file it came from.
    """

    def __init__(self, data: Mapping[str, Any], lines: Mapping[KeyPath, int], path: Path) -> None:
        self.data, self.lines, self.path = data, lines, path

    def line(self, where: KeyPath) -> int | None:
        """Returns the line of a key path, or of the nearest mapping or list that encloses it."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where)

    def checked(self, model: type[M]) -> M:
        """Returns the document as a model.

        Raises:
            SweepError: a key is unknown, missing or wrong; names the first, and counts the rest.
        """
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            raise _explain(error, self, model) from None


def read_yaml(path: Path) -> LinedYaml:
    """Reads the document in `path`, which must be a mapping.

    Raises:
        SweepError: the file is missing, is not YAML, repeats a key, or is not a mapping.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise SweepError("there is no such file", path=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"can't be read ({error})", path=path) from error
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        data = _construct(node, loader, (), lines, path) if node is not None else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise SweepError(f"not YAML: {error.problem}", path=path, line=line) from error
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        raise SweepError(
            "a sweep is a mapping of keys such as `sweep:`, `engine:`, `arms:`", path=path, line=1
        )
    return LinedYaml(data, lines, path)


def _construct(
    node: yaml.Node, loader: _Loader, where: KeyPath, lines: dict[KeyPath, int], path: Path
) -> Any:
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in mapping:
                raise SweepError(f"the key {key!r} is given twice", path=path, line=line, key=dotted(where))
            lines[(*where, key)] = line
            mapping[key] = _construct(value_node, loader, (*where, key), lines, path)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, loader, (*where, i), lines, path) for i, item in enumerate(node.value)]
    return loader.construct_object(node)


def dotted(where: KeyPath) -> str:
    """Returns a key path as people write it: `topologies[2].concurrency`."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _explain(error: ValidationError, document: LinedYaml, model: type[BaseModel]) -> SweepError:
    """Returns an error with the first complaint, in terms of the file; the others are counted."""
    complaints = error.errors(include_url=False)
    # An unknown key often causes a second complaint about the key it should have been: name the typo first.
    complaints.sort(key=lambda item: item["type"] != "extra_forbidden")
    first = complaints[0]
    where = _real_path(first["loc"], document.data)
    message = _message(first, where, model)
    if len(complaints) > 1:
        message += f" ({len(complaints) - 1} more in this file)"
    return SweepError(message, path=document.path, line=document.line(where), key=dotted(where))


def _real_path(location: Sequence[str | int], data: Any) -> KeyPath:
    """Returns pydantic's location without the parts that name types instead of keys of the file."""
    where: list[str | int] = []
    for i, part in enumerate(location):
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if in_list or (isinstance(data, dict) and part in data):
            data = data[part]
        elif i < len(location) - 1 or not (isinstance(data, dict) and isinstance(part, str)):
            continue
        where.append(part)
    return tuple(where)


def _message(complaint: Any, where: KeyPath, model: type[BaseModel]) -> str:
    kind = complaint["type"]
    if kind == "extra_forbidden":
        valid = _valid_keys(complaint["loc"][:-1], model)
        close = difflib.get_close_matches(str(where[-1]), valid, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key; {hint}valid: {', '.join(valid)}"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(complaint["ctx"]["error"])
    text = str(complaint["msg"])
    return f"{text[0].lower()}{text[1:]}, not {complaint['input']!r}"


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
