"""What is secret, and how a text loses it before it is stored or shown: keys, tokens, passwords in URLs.

A secret is the value of a variable that a sweep names (`@{env:NAME}`, `load.api_key_env`), or whose name
looks like a secret's (`HF_TOKEN`). A text is redacted first and cut afterwards; a part of a secret that
someone else cut is found where it is long enough to be told from other words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from urllib.parse import quote, unquote

from mtpbench.records import Json, Point, to_json

REDACTED = "<redacted>"
HIDDEN = "***"
LEAST_VALUE = 4
"""Characters of a named variable's value from which on it is looked for: `8` and `on` stand everywhere."""
LEAST_GUESSED = 8
"""The same for a variable that nobody named, whose name only looks like a secret's."""
LEAST_PART = 8
"""Characters of a secret's beginning or end that tell it from other words."""
LEAST_AT_EDGE = 3
"""The same at the edge of a text, which may have been cut there."""

_LOOKS_SECRET = re.compile(
    r"token(?!iz|s)|key(?!board|s\b)|secret|passw|passphrase|credential|auth(?!or)|jwt|bearer|cookie",
    re.IGNORECASE,
)
_LOOKS_LIKE_A_PLACE = re.compile(r"(file|path|dir|sock|home|_env)$", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"@\{env:([^}]+)\}")
_NAMES_SECRET = re.compile(
    r"(.*[_-])?(api[_-]?key|(secret|access|private)[_-]key|secret|password|passwd|passphrase|credentials?|jwt)"
    r"|(.*[_-])?(auth|access|bearer|refresh|session|secret|github|gh|gitlab|hf|hugging_?face(_hub)?)[_-]token",
    re.IGNORECASE,
)
"""Names whose values are secret and nothing else; `eos-token`, `auth-type` and `routing-key` are none."""
_STAND_INS = frozenset(("empty", "dummy", "fake", "test", "unused", "not-needed", "no-key"))
"""Values that are written where a program asks for a key and none is needed."""
_CREDENTIALS = re.compile(r"(?<=://)[^\s/?#'\"<>]*@")
_PLAIN = re.compile(r"[-+.\d]*|true|false|yes|no|on|off|none|null", re.IGNORECASE)


def looks_secret(name: str) -> bool:
    """Returns whether the name of a variable or an option looks as if its value were a secret."""
    return _LOOKS_SECRET.search(name) is not None


def without_credentials(text: str) -> str:
    """Returns a text whose URLs hold no `user:password@`; a password `@{env:NAME}` is none."""
    return _CREDENTIALS.sub(_redacted_credentials, text) if "://" in text else text


def _redacted_credentials(match: re.Match[str]) -> str:
    is_unfilled = _PLACEHOLDER.sub("", match[0].removesuffix("@").partition(":")[2]) == ""
    return match[0] if is_unfilled and _PLACEHOLDER.search(match[0]) else f"{HIDDEN}@"


def variables_in(value: Json) -> frozenset[str]:
    """Returns the names of all variables that `@{env:NAME}` names in plain JSON values."""
    return frozenset(name for text in _texts(value) for name in _PLACEHOLDER.findall(text))


def secret_variables(point: Point) -> tuple[str, ...]:
    """Returns the names of the variables whose values a point's texts must not hold."""
    key = (point.load.api_key_env,) if point.load.api_key_env else ()
    return (*sorted(variables_in(to_json(point))), *key)


@dataclass(frozen=True, kw_only=True, slots=True)
class Secrets:
    """The secrets that a run knows, by value, each with what stands in its place.

    `parts` are those of which a part tells something too; a path or a URL begins as many others do.
    """

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    parts: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def known(
        cls, environment: Mapping[str, str], named: Iterable[str] = (), literal: Iterable[str] = ()
    ) -> Secrets:
        """Returns the secrets of an environment.

        Args:
            environment: variables with their values.
            named: names of variables whose values are secret, whatever their names look like.
            literal: further values.
        """
        values = {
            value: HIDDEN
            for name, value in environment.items()
            if looks_secret(name) and not _LOOKS_LIKE_A_PLACE.search(name) and len(value) >= LEAST_GUESSED
        }
        values |= dict.fromkeys(literal, HIDDEN)
        values |= {password: HIDDEN for value in environment.values() for password in _passwords(value)}
        values |= {environment[name]: f"@{{env:{name}}}" for name in named if name in environment}
        chosen = {value: sign for value, sign in values.items() if _is_worth_hiding(value)}
        spelled = {form: sign for value, sign in chosen.items() for form in _spellings(value)}
        parts = (value for value in chosen if not value.startswith(("/", "./", "~")) and "://" not in value)
        return cls(
            values=dict(sorted(spelled.items(), key=lambda item: -len(item[0]))), parts=tuple(sorted(parts))
        )

    @classmethod
    def of(cls, point: Point, environment: Mapping[str, str]) -> Secrets:
        """Returns the secrets that the texts of a point must not hold."""
        return cls.known(environment, secret_variables(point), _literals(point))

    def hide(self, text: str) -> str:
        """Returns the text without secrets, whole or cut off, and without credentials in URLs."""
        for value, sign in self.values.items():
            text = text.replace(value, sign)
        for value in self.parts:
            text = _without_cut_off(_without_beginning(text, value), value)
            # The other way round, the end of a secret is its beginning.
            back, eulav = text[::-1], value[::-1]
            text = _without_cut_off(_without_beginning(back, eulav), eulav)[::-1]
        return without_credentials(text)

    def hide_bytes(self, text: bytes) -> bytes:
        """Returns the bytes of a log without secrets; what is no UTF-8 stays as it is."""
        return self.hide(text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def hide_all(self, value: Json) -> Json:
        """Returns plain JSON values whose texts hold no secret; keys stay as they are."""
        if isinstance(value, Mapping):
            return {name: self.hide_all(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.hide_all(item) for item in value]
        return self.hide(value) if isinstance(value, str) else value


Place = tuple[str | int, ...]


def bare_secret(value: Json) -> tuple[Place, str] | None:
    """Returns where the first secret stands in a user's file as it is, and what would be right; None without.

    Only what is surely one counts: a value of a name that stands for nothing else, a password in a URL.
    """
    return next(_bare_secrets(value, ()), None)


def _bare_secrets(value: Json, where: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _bare_secrets_of(str(name), item, (*where, name)) or _bare_secrets(
                item, (*where, name)
            )
    elif isinstance(value, (list, tuple)):
        for place, (before, item) in enumerate(pairwise(("", *value))):
            name, said = _named(before, item)
            yield from _bare_secrets_of(name, said, (*where, place)) or _bare_secrets(item, (*where, place))
    elif isinstance(value, str) and any(password.strip("*") for password in _passwords(value)):
        yield where, "a password stands in a URL here; write `@{env:NAME}` for it, and export NAME"


def _named(before: Json, word: Json) -> tuple[str, Json]:
    """Returns a word of a command as an option's or a variable's name and value; the name may be empty."""
    if isinstance(word, str) and "=" in word:
        name, _, value = word.partition("=")
        return name.lstrip("-"), value
    is_option = isinstance(before, str) and before.startswith("--")
    return str(before).lstrip("-") if is_option else "", word


def _bare_secrets_of(name: str, value: Json, where: Place) -> tuple[tuple[Place, str], ...]:
    if not (_NAMES_SECRET.fullmatch(name) and _is_literal_secret(name, value)):
        return ()
    if str(value).lower() in _STAND_INS:
        return ()
    variable = name.upper().replace("-", "_")
    return ((where, f"a secret stands here as it is; write `@{{env:{variable}}}`, and export {variable}"),)


def unfilled(variables: Iterable[str]) -> Mapping[str, str]:
    """Returns an environment in which each variable's value is its own placeholder."""
    return {name: f"@{{env:{name}}}" for name in variables}


def _is_literal_secret(name: str, value: Json) -> bool:
    return (
        isinstance(value, str)
        and looks_secret(name)
        and not _LOOKS_LIKE_A_PLACE.search(name)
        and not _PLACEHOLDER.search(value)
        and _is_worth_hiding(value)
    )


def _literals(point: Point) -> Iterator[str]:
    """Yields the secrets that a sweep file itself holds, in options and variables."""
    for layers in (point.engine.flags, point.engine.env, point.arm.forces, point.arm.forces_env):
        for layer in layers.values():
            yield from (value for name, value in layer.items() if _is_literal_secret(name, value))
            yield from (password for text in _texts(to_json(layer)) for password in _passwords(text))


def _passwords(text: str) -> Iterator[str]:
    """Yields the passwords in a text's URLs, as they are written and as they are meant."""
    for credentials in _CREDENTIALS.findall(text) if "://" in text else ():
        _, colon, password = credentials.removesuffix("@").partition(":")
        if colon and not _PLACEHOLDER.search(password):
            yield from (password, unquote(password))


def _is_worth_hiding(value: str) -> bool:
    return len(value) >= LEAST_VALUE and _PLAIN.fullmatch(value) is None


def _spellings(value: str) -> set[str]:
    """Returns a value as texts may spell it: plain, in a URL, in JSON, and each line of several."""
    lines = [line for line in value.splitlines() if len(line) >= LEAST_PART]
    return {value, quote(value, safe="", errors="replace"), json.dumps(value)[1:-1], *lines}


def _without_beginning(text: str, value: str) -> str:
    """Returns the text without longer parts of a secret that it begins with, as in `sk-0123…`."""
    head, found = value[:LEAST_PART], 0
    while len(value) > LEAST_PART and (found := text.find(head, found)) >= 0:
        pairs = zip(value, text[found:], strict=False)
        size = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        text = text[:found] + HIDDEN + text[found + size :]
    return text


def _without_cut_off(text: str, value: str) -> str:
    """Returns the text without the beginning of a secret at its end, where it may have been cut."""
    bare = text.rstrip("'\"…. )")
    for size in range(min(len(value) - 1, len(bare)), LEAST_AT_EDGE - 1, -1):
        if bare.endswith(value[:size]):
            return bare[:-size] + HIDDEN + text[len(bare) :]
    return text


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from (*_texts(str(name)), *_texts(item))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
