"""What is wrong with a sweep file, in the words of its owner: file, line, key, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from mtpbench.errors import SweepError
from mtpbench.sweep.lines import KeyPath, LinedYaml, dotted
from mtpbench.sweep.schema import SweepFile


def explain(error: ValidationError, document: LinedYaml, model: type[BaseModel] = SweepFile) -> SweepError:
    """The first complaint, in the words of the file's owner; the rest are counted."""
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
    """pydantic's location without the parts that name types instead of keys of the file."""
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
    text = str(complaint["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return text
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
    """The pydantic model inside an annotation such as `list[Annotated[X, …]] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()) or ():
        if (found := _inner_model(argument)) is not None:
            return found
    return None
