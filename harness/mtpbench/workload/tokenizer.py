"""Chat prompts of exact length: the template's own tokens, and words that are one token each."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from mtpbench.errors import SweepError
from mtpbench.workload.template import ChatTemplate
from mtpbench.workload.vocabulary import WORDS

LEAST_WORDS = 64
_MOST_WORDS = 1024
_MOST_CANDIDATES = 4096
_PLACEHOLDER = "mtpbenchplaceholder"
_SPACES = ("Ġ", "▁")
"""How vocabularies write the space before a word: byte-level, SentencePiece."""
_COUNTED_WORDS = 50_000
"""Of a longer prompt, so many at each end: a million tokens take seconds and hundreds of megabytes."""
_KEY = "workload.tokenizer"


class ChatTokenizer:
    """Counts templated conversations as the server does, and knows which words cost one token each.

    A prompt of n tokens is one user message of n − `overhead` of its `words`, joined by single spaces.

    Args:
        path: a model's folder, or its tokenizer.json (with tokenizer_config.json beside it).

    Attributes:
        overhead: tokens of the template around the words.
        opening: those of them that stand before the words.
        words: at least `LEAST_WORDS` words that are one token each wherever they stand.

    Raises:
        SweepError: files are missing or wrong, or too few words are one token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        folder = path if path.is_dir() else path.parent
        self._tokenizer = _load(path / "tokenizer.json" if path.is_dir() else path)
        self._template = ChatTemplate(folder)
        before, after = self._split_template()
        self.opening = self._count(before)
        self.overhead, self.words = self._choose_words(before, after)

    def count(self, messages: Sequence[Mapping[str, Any]]) -> int:
        """Tokens of a conversation, with the template and what it adds for the answer."""
        return self._count(self._template.render(messages))

    def count_prompt(self, content: str) -> int:
        """Tokens of a prompt of words; of a very long one the middle is taken at a token for each word."""
        words = content.split(" ")
        middle = len(words) - 2 * _COUNTED_WORDS
        if middle <= 0:
            return self.count(_said(content))
        ends = (words[:_COUNTED_WORDS], words[-_COUNTED_WORDS:])
        return self.overhead + middle + sum(self.count(_said(" ".join(end))) - self.overhead for end in ends)

    def _count(self, text: str) -> int:
        # The template writes the special tokens itself; engines add no more of them to its text.
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def _split_template(self) -> tuple[str, str]:
        text = self._template.render(_said(_PLACEHOLDER))
        parts = text.split(_PLACEHOLDER)
        if len(parts) != 2:
            raise self._error(f"its chat template writes a message {len(parts) - 1} times, not once")
        return parts[0], parts[1]

    def _choose_words(self, before: str, after: str) -> tuple[int, tuple[str, ...]]:
        def cost(words: str) -> int:
            return self._count(f"{before}{words}{after}")

        candidates = self._candidates()
        pair = cost("a a")
        inside = [word for word in candidates if cost(f"a {word} a") == pair + 1]
        alone = {word: cost(word) for word in inside}
        if not alone:
            raise self._too_few(0, len(candidates))
        usual = Counter(alone.values()).most_common()
        most = usual[0][1]
        first = min(tokens for tokens, words in usual if words == most)
        words = tuple(word for word in inside if alone[word] == first)[:_MOST_WORDS]
        if len(words) < LEAST_WORDS:
            raise self._too_few(len(words), len(candidates))
        overhead, both_ways = first - 1, [*words, *reversed(words)]
        if (got := cost(" ".join(both_ways))) != overhead + len(both_ways):
            raise self._error(
                f"its words don't keep to one token each: {len(both_ways)} of them, one token each on their "
                f"own, make {got - overhead} tokens together"
            )
        return overhead, words

    def _candidates(self) -> list[str]:
        """Plain words, ours first, then those that the vocabulary holds with a space before them, by id."""
        vocabulary = sorted(self._tokenizer.get_vocab().items(), key=lambda item: item[1])
        own = (token[1:] for token, _ in vocabulary if token.startswith(_SPACES))
        plain = (word for word in own if len(word) > 2 and word.isascii() and word.isalpha())
        return [*dict.fromkeys([*WORDS, *(word for word in plain if word.islower())])][:_MOST_CANDIDATES]

    def _too_few(self, found: int, tried: int) -> SweepError:
        return self._error(
            f"only {found} of {tried} plain words are one token each, and at least {LEAST_WORDS} are needed "
            "for prompts of exact length; leave `tokenizer` out for prompts that are exact in words"
        )

    def _error(self, message: str) -> SweepError:
        return SweepError(message, path=self._path, key=_KEY)


@functools.lru_cache(maxsize=2)
def load_tokenizer(path: str) -> ChatTokenizer:
    """The tokenizer at a path; every point of a sweep asks for the same one."""
    return ChatTokenizer(Path(path))


def _said(content: str) -> list[Mapping[str, Any]]:
    return [{"role": "user", "content": content}]


def _load(path: Path) -> Tokenizer:
    if not path.is_file():
        message = "there is no such file; a model's folder with tokenizer.json in it was expected"
        raise SweepError(message, path=path, key=_KEY)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise SweepError(f"this is no tokenizer: {error}", path=path, key=_KEY) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
