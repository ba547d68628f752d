"""A model's tokenizer and its chat template, rendered as transformers does, for prompts of exact length."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from mtpbench.errors import SweepError
from mtpbench.input_files import parse_json, read_input, read_input_text
from mtpbench.workload.content import WORDS

MOST_TEMPLATE_BYTES, MOST_TOKENIZER_BYTES = 1 << 24, 1 << 28
_KEY = "workload.tokenizer"
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatTemplate:
    """The chat template of a model's folder.

    Args:
        folder: holds `tokenizer_config.json` with a `chat_template`, or the file `chat_template.jinja`.
        arguments: what requests pass to the template besides the messages, such as `thinking`.

    Raises:
        SweepError: the folder has no template, or it can't be read.
    """

    def __init__(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        self._folder, self._arguments = folder, arguments
        config = _read_object(folder / "tokenizer_config.json")
        source = _find_template(folder, config)
        self._special = _special_tokens(folder, config)
        try:
            self._template = _environment().from_string(source)
        except Exception as error:  # a template is a program: it may also nest too deeply, or divide by 0
            raise SweepError(f"its chat template is wrong: {error}", path=folder, key=_KEY) from error

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Renders the text that the server makes of a conversation before the model answers.

        Raises:
            SweepError: the template refuses the messages.
        """
        try:
            given = {"tools": None, "documents": None, "add_generation_prompt": True, **self._special}
            return self._template.render({**given, **self._arguments, "messages": messages})
        except Exception as error:  # a template is a program, and raises whatever programs raise
            message = f"its chat template refuses the messages: {error}"
            raise SweepError(message, path=self._folder, key=_KEY) from error


def _find_template(folder: Path, config: Mapping[str, Any]) -> str:
    beside = folder / "chat_template.jinja"
    if os.path.lexists(beside):
        return _read(beside)
    template = config.get("chat_template")
    if isinstance(template, list):  # several by name
        templates = {
            str(entry.get("name")): entry.get("template") for entry in template if isinstance(entry, dict)
        }
        template = templates.get("default")
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
    settings = {**(_read_object(older) if os.path.lexists(older) else {}), **config}
    tokens: dict[str, str] = {}
    for name in _SPECIAL:
        value = settings.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            tokens[name] = value
    return tokens


def _read(path: Path) -> str:
    try:
        return read_input_text(path, MOST_TEMPLATE_BYTES)
    except SweepError as error:
        message = f"{error.problem}; the folder of the model's tokenizer was expected"
        raise SweepError(message, path=path, line=error.line, key=_KEY) from error


def _read_object(path: Path) -> Mapping[str, Any]:
    text = _read(path)
    try:
        content = parse_json(text.encode(), path)
    except SweepError as error:
        raise SweepError(error.problem, path=path, line=error.line, key=_KEY) from error
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
    """The tag `{% generation %}` marks the assistant's text for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, indent: int | None = None) -> str:
    """Writes JSON as servers do: unlike jinja's own filter it does not escape `<` and `&`."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


LEAST_WORDS = 64
_MOST_WORDS = 1024
_MOST_CANDIDATES = 4096
_PLACEHOLDER = "mtpbenchplaceholder"
_SPACES = ("Ġ", "▁")
"""The space before a word as vocabularies write it: byte-level, SentencePiece."""
_COUNTED_WORDS = 50_000
"""Words at each end of a longer prompt that are tokenized: a million tokens take seconds and much memory."""
_KEY = "workload.tokenizer"


class ChatTokenizer:
    """The tokenizer counts templated conversations as the server does, and holds words of one token each.

    A prompt of n tokens is one user message of n − `overhead` of these `words`, joined by single spaces.

    Args:
        path: a model's folder, or its tokenizer.json (with tokenizer_config.json beside it).
        arguments: what requests pass to the chat template besides the messages.

    Attributes:
        overhead: tokens of the template around the words.
        opening: tokens of the template before the words.
        words: at least `LEAST_WORDS` words that are one token each at every place.

    Raises:
        SweepError: files are missing or wrong, or too few words are one token.
    """

    def __init__(self, path: Path, arguments: Mapping[str, Any] | None = None) -> None:
        self._path = path
        folder = path if os.path.isdir(path) else path.parent
        self._tokenizer = _load(path / "tokenizer.json" if os.path.isdir(path) else path)
        self._template = ChatTemplate(folder, arguments or {})
        before, after = self._split_template()
        self.opening = self._count(before)
        self.overhead, self.words = self._choose_words(before, after)

    def count(self, messages: Sequence[Mapping[str, Any]]) -> int:
        """Counts the tokens of a conversation, with the template and what it adds for the answer."""
        return self._count(self._template.render(messages))

    def count_prompt(self, content: str) -> int:
        """Counts the tokens of a prompt of words; in the middle of a very long one each word counts 1."""
        words = content.split(" ")
        middle = len(words) - 2 * _COUNTED_WORDS
        if middle <= 0:
            return self.count(_user_message(content))
        ends = (words[:_COUNTED_WORDS], words[-_COUNTED_WORDS:])
        return (
            self.overhead
            + middle
            + sum(self.count(_user_message(" ".join(end))) - self.overhead for end in ends)
        )

    def _count(self, text: str) -> int:
        # The template writes the special tokens itself; engines add none to its text.
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def _split_template(self) -> tuple[str, str]:
        text = self._template.render(_user_message(_PLACEHOLDER))
        parts = text.split(_PLACEHOLDER)
        if len(parts) != 2:
            raise self._error(f"its chat template writes a message {len(parts) - 1} times, not once")
        return parts[0], parts[1]

    def _choose_words(self, before: str, after: str) -> tuple[int, tuple[str, ...]]:
        def cost(content: str) -> int:
            return self._count(f"{before}{content}{after}")

        candidates = self._candidates()
        pair = cost("a a")
        inside = [word for word in candidates if cost(f"a {word} a") == pair + 1]
        alone = {word: cost(word) for word in inside}
        if not alone:
            raise self._too_few(0, len(candidates))
        usual = Counter(alone.values()).most_common()
        largest = usual[0][1]
        first = min(tokens for tokens, count in usual if count == largest)
        words = tuple(word for word in inside if alone[word] == first)[:_MOST_WORDS]
        if len(words) < LEAST_WORDS:
            raise self._too_few(len(words), len(candidates))
        overhead, both_ways = first - 1, [*words, *reversed(words)]
        if (counted := cost(" ".join(both_ways))) != overhead + len(both_ways):
            raise self._error(
                f"its words don't keep to one token each: {len(both_ways)} of them, one token each on their "
                f"own, make {counted - overhead} tokens together"
            )
        return overhead, words

    def _candidates(self) -> list[str]:
        """Returns plain words: first `WORDS`, then words that the vocabulary holds after a space, by id."""
        vocabulary = sorted(self._tokenizer.get_vocab().items(), key=lambda item: item[1])
        own = (token[1:] for token, _ in vocabulary if token.startswith(_SPACES))
        plain = (word for word in own if len(word) > 2 and word.isascii() and word.isalpha())
        return [*dict.fromkeys([*WORDS, *(word for word in plain if word.islower())])][:_MOST_CANDIDATES]

    def _too_few(self, usable: int, tried: int) -> SweepError:
        return self._error(
            f"only {usable} of {tried} plain words are one token each, and at least {LEAST_WORDS} are needed "
            "for prompts of exact length; leave `tokenizer` out for prompts that are exact in words"
        )

    def _error(self, message: str) -> SweepError:
        return SweepError(message, path=self._path, key=_KEY)


@functools.lru_cache(maxsize=2)
def load_tokenizer(path: str, arguments: str = "{}") -> ChatTokenizer:
    """Loads the tokenizer at a path, once for all points of a sweep.

    Args:
        path: as of a `ChatTokenizer`.
        arguments: those of the chat template, as a JSON object.
    """
    return ChatTokenizer(Path(path), json.loads(arguments))


def _user_message(content: str) -> list[Mapping[str, Any]]:
    return [{"role": "user", "content": content}]


def _load(path: Path) -> Tokenizer:
    if not os.path.lexists(path):
        message = "there is no such file; a model's folder with tokenizer.json in it was expected"
        raise SweepError(message, path=path, key=_KEY)
    try:
        tokenizer = Tokenizer.from_buffer(read_input(path, MOST_TOKENIZER_BYTES))
    except SweepError:
        raise
    except Exception as error:  # the library raises nothing more precise
        raise SweepError(f"this is no tokenizer: {error}", path=path, key=_KEY) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
