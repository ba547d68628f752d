"""Pure: random prompts as buffers: a unique head and a slice of one long text, or a trace's blocks.

Prompts are written in an alphabet: token ids or words, each with the separator that follows it. Heads differ
for certain, not by chance; the long text is rendered once.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtpbench.errors import SweepError
from mtpbench.metrics.request_table import Ints

WORDS = tuple(
    """
    about again always answer back before best black book bring call carry children close color could
    different door draw early enough every family fast feel find first five food found friend full gave
    give great ground grow hand head heard here hold horse house island keep king land last learn left
    life line little long made many mean mile moon morning mother move music name need next north
    nothing ocean once open other page part piece plan play power problem question rain ready rest river
    rock round sail school seem several ship should side since size slow snow song sound stand start
    stay still stop street study sure take teach test that then these think thought through together
    took town
    """.split()  # noqa: SIM905 - a list of words reads better as words
)
"""Plain words for prompts, each different."""


DEFAULT_VOCABULARY = 32_000
"""Token ids below this exist in every model of interest (DeepSeek's vocabulary has 129,280)."""
_SMALLEST_VOCABULARY = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Alphabet:
    """An alphabet holds the symbols of random prompts: tokens, or words if tokens are unknown.

    Args:
        written: (k,) the symbols as JSON text, each with its one-byte separator, padded with NUL bytes.
        opening: JSON before the first symbol of a prompt.
        closing: JSON after the last symbol, which has no separator.
    """

    written: npt.NDArray[np.bytes_]
    opening: bytes
    closing: bytes

    def __len__(self) -> int:
        return len(self.written)

    @property
    def widths(self) -> Ints:
        """(k,) bytes of each symbol, its separator included."""
        return np.char.str_len(self.written).astype(np.int64)

    def write(self, numbers: npt.NDArray[np.integer]) -> bytes:
        """Writes some symbols by number, each followed by its separator."""
        text: bytes = self.written[numbers].tobytes()
        return text.replace(b"\0", b"")


def token_alphabet(vocabulary: int | None) -> Alphabet:
    """Builds the alphabet of token ids from the middle three quarters of a vocabulary.

    Special tokens stand at the ends of vocabularies. The ids are written with equal width (JSON allows
    blanks), so that a multiplication gives the place of the n-th.

    Args:
        vocabulary: how many tokens the model has, or fewer; None for `DEFAULT_VOCABULARY`.

    Raises:
        SweepError: the vocabulary is too small.
    """
    size = DEFAULT_VOCABULARY if vocabulary is None else vocabulary
    if size < _SMALLEST_VOCABULARY:
        message = f"{size} is too small to draw prompts from; at least {_SMALLEST_VOCABULARY}"
        raise SweepError(message, key="workload.vocabulary")
    ids = range(size // 8, size - size // 8)
    width = len(str(ids[-1]))
    written = np.array([b"%*d," % (width, i) for i in ids], np.bytes_)
    return Alphabet(written=written, opening=b'"prompt":[', closing=b"]")


def word_alphabet(words: Sequence[str]) -> Alphabet:
    """Builds the alphabet of plain words (ASCII letters), whose prompts are one user message."""
    written = np.array([f"{word} ".encode("ascii") for word in words], np.bytes_)
    return Alphabet(written=written, opening=b'"messages":[{"role":"user","content":"', closing=b'"}]')


HEAD_SYMBOLS = 32
_UNIQUE = 1 << 32
"""How many consecutive requests have heads that differ for certain."""


class Heads:
    """The heads of prompts, and where each prompt's slice starts, from the seed and the index alone.

    A head's first symbols are the digits of (index × step + shift) mod `symbols` ** digits, the lowest first,
    with a step that has no divisor in common with `symbols`. So the first k symbols of any `symbols` ** k
    consecutive requests differ: no prompts of their length can differ earlier. The other symbols are random,
    so that the heads of other points (other seeds) differ too.

    Args:
        symbols: how many different symbols there are (at least 2).
        seed: the point's seed.
    """

    def __init__(self, symbols: int, seed: int) -> None:
        self._symbols, self._seed = symbols, seed
        self._digits = min(HEAD_SYMBOLS, math.ceil(math.log(_UNIQUE, symbols)))
        self._modulus = symbols**self._digits
        self._step, self._shift = scramble(self._modulus, f"head:{seed}")

    def draw(self, index: int) -> tuple[int, Ints]:
        """Draws a number of 64 bits for the place of the slice, and the numbers of `HEAD_SYMBOLS` symbols."""
        bits = hashlib.shake_128(f"prompt:{self._seed}:{index}".encode()).digest(8 + 4 * HEAD_SYMBOLS)
        uniform = np.frombuffer(bits, "<u4", offset=8).astype(np.int64)
        numbers = (uniform * self._symbols) >> 32
        value = (index * self._step + self._shift) % self._modulus
        for position in range(self._digits):
            value, numbers[position] = divmod(value, self._symbols)
        return int.from_bytes(bits[:8], "little"), numbers


def scramble(modulus: int, key: str) -> tuple[int, int]:
    """Draws a step and a shift, so that i ↦ (i × step + shift) mod `modulus` gives every number once."""
    bits = hashlib.shake_128(key.encode()).digest(64)
    step = int.from_bytes(bits[:32], "little") % modulus or 1
    while math.gcd(step, modulus) != 1:
        step = (step + 1) % modulus or 1
    return step, int.from_bytes(bits[32:], "little") % modulus


LEAST_SYMBOLS = 1 << 20
_STREAM = 4


class PromptPool:
    """The pool is a long text of random symbols, whose slices need no copy.

    Args:
        alphabet: the symbols.
        longest: symbols of the longest slice that prompts need.
        seed: the point's seed.
        places: at how many different places slices of any length can start at least.
    """

    def __init__(self, alphabet: Alphabet, longest: int, seed: int, places: int = 0) -> None:
        self._symbols = max(LEAST_SYMBOLS, 2 * longest, longest + places)
        rng = np.random.default_rng([seed, _STREAM])
        numbers = rng.integers(0, len(alphabet), size=self._symbols, dtype=np.int32)
        self._text = memoryview(alphabet.write(numbers))
        self._starts = _starts(alphabet, numbers)

    def __len__(self) -> int:
        return self._symbols

    @property
    def text(self) -> memoryview:
        """The whole text."""
        return self._text

    def slice(self, start: int, count: int) -> memoryview:
        """Returns symbols [start, start + count), each with its separator, as a view without a copy."""
        return self._text[self._starts[start] : self._starts[start + count]]


def _starts(alphabet: Alphabet, numbers: npt.NDArray[np.int32]) -> Sequence[int]:
    """Returns where each symbol starts and where the last one ends; a range if all are equally wide."""
    widths = alphabet.widths
    if (widths == widths[0]).all():
        width = int(widths[0])
        return range(0, len(numbers) * width + 1, width)
    starts = np.cumsum(widths[numbers], dtype=np.int64)
    return array("q", b"\0" * 8 + starts.tobytes())  # gives plain ints, and no list of a million of them


Piece = bytes | memoryview
"""A buffer of a request's body."""
BLOCK_SYMBOLS = 512
"""Tokens of one block, which a hash id of a trace stands for."""
MOST_PIECES = 1000
"""One call sends at most 1024 buffers (IOV_MAX)."""


class RandomContent:
    """Random content builds prompts of any length from one pool, without a copy of their long part.

    Args:
        alphabet: the symbols.
        longest: symbols of the longest prompt.
        seed: the point's seed.
        blocks: how many different blocks a trace has.
    """

    def __init__(self, alphabet: Alphabet, longest: int, seed: int, blocks: int = 0) -> None:
        self._alphabet = alphabet
        self._heads = Heads(len(alphabet), seed)
        self.pool = PromptPool(alphabet, max(longest, BLOCK_SYMBOLS), seed, blocks)
        self._places = len(self.pool) - BLOCK_SYMBOLS
        self._step, self._shift = scramble(self._places, f"block:{seed}")

    def prompt(self, index: int, count: int, shared: int = 0) -> list[Piece]:
        """Builds a prompt of `count` symbols; the first `shared` symbols are the same in every prompt."""
        place, numbers = self._heads.draw(index)
        head = min(count - shared, HEAD_SYMBOLS)
        rest = count - shared - head
        start = place % (len(self.pool) - rest + 1)
        parts = (
            self.pool.slice(0, shared),
            self._alphabet.write(numbers[:head]),
            self.pool.slice(start, rest),
        )
        return self._close(part for part in parts if part)

    def blocks(self, numbers: Iterable[int], count: int) -> list[Piece]:
        """Builds a prompt of `count` symbols from whole blocks by number, the last one cut to length.

        Blocks of different numbers start at different places of the pool, so they differ.
        """
        parts: list[Piece] = []
        for number in numbers:
            if count <= 0:
                break
            start = (number * self._step + self._shift) % self._places
            parts.append(self.pool.slice(start, min(count, BLOCK_SYMBOLS)))
            count -= BLOCK_SYMBOLS
        return self._close(parts)

    def _close(self, parts: Iterable[Piece]) -> list[Piece]:
        """Puts the prompt between the opening and the closing JSON, without its last separator."""
        symbols = [*parts]
        symbols[-1] = symbols[-1][:-1]
        return join_buffers([self._alphabet.opening, *symbols, self._alphabet.closing])


def join_buffers(parts: list[Piece], most: int = MOST_PIECES) -> list[Piece]:
    """Returns the same bytes in at most `most` buffers; it joins neighbours if there are more."""
    group = -(-len(parts) // most)
    if group == 1:
        return parts
    return [b"".join(parts[i : i + group]) for i in range(0, len(parts), group)]
