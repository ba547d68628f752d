"""A model's chat template: found in its folder and rendered as transformers does, without transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mtpbench.errors import SweepError

_KEY = "workload.tokenizer"
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatTemplate:
    """The template of a model's folder.

    Args:
        folder: holds `tokenizer_config.json`; its `chat_template`, or the file `chat_template.jinja`.

    Raises:
        SweepError: no template is there, or it can't be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        config = _read_object(folder / "tokenizer_config.json")
        source = _find_template(folder, config)
        self._special = _special_tokens(folder, config)
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise SweepError(f"its chat template is wrong: {error}", path=folder, key=_KEY) from error

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The text that the server makes of a conversation before the model answers.

        Raises:
            SweepError: the template refuses the messages.
        """
        try:
            return self._template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=True, **self._special
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            message = f"its chat template refuses the messages: {error}"
            raise SweepError(message, path=self._folder, key=_KEY) from error


def _find_template(folder: Path, config: Mapping[str, Any]) -> str:
    beside = folder / "chat_template.jinja"
    if beside.is_file():
        return _read(beside)
    template = config.get("chat_template")
    if isinstance(template, list):  # several by name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    if isinstance(template, str) and template:
        return template
    raise SweepError(
        "no chat template: `chat_template` in tokenizer_config.json, or a file chat_template.jinja, was "
        "expected; leave `chat_template` out of the workload to send token ids, which are exact without one",
        path=folder,
        key=_KEY,
    )


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    older = folder / "special_tokens_map.json"
    settings = {**(_read_object(older) if older.is_file() else {}), **config}
    found: dict[str, str] = {}
    for name in _SPECIAL:
        value = settings.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            found[name] = value
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        message = f"can't be read ({reason}); the folder of the model's tokenizer was expected"
        raise SweepError(message, path=path, key=_KEY) from error


def _read_object(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise SweepError(f"not JSON: {error.msg}", path=path, line=error.lineno, key=_KEY) from error
    if not isinstance(content, dict):
        raise SweepError("a JSON object was expected", path=path, key=_KEY)
    return content


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


class _Generation(Extension):
    """`{% generation %}` marks what the assistant wrote, for training; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012 - as jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, indent: int | None = None) -> str:
    """Unlike jinja's own filter it leaves `<` and `&` as they are, as servers do."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
