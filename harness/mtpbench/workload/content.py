"""Pure: random prompts as buffers: a unique head, then a slice of one long seeded text; or a trace's blocks.

Heads differ by construction and not by luck; the long text is rendered once.
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
"""The words, each different."""


DEFAULT_VOCABULARY = 32_000
"""Token ids below this exist in every model of interest (DeepSeek's vocabulary has 129,280)."""
_SMALLEST_VOCABULARY = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Alphabet:
    """The symbols of random prompts; one symbol is one token, or one word where tokens are not known.

    Args:
        written: (k,) the symbols as JSON text, each with its one-byte separator; NUL bytes fill them up.
        opening: JSON before the first symbol of a prompt.
        closing: JSON after the last one, whose separator is left out.
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

    def write(self, chosen: npt.NDArray[np.integer]) -> bytes:
        """The text of some symbols by number, each followed by its separator."""
        text: bytes = self.written[chosen].tobytes()
        return text.replace(b"\0", b"")


def token_ids(vocabulary: int | None) -> Alphabet:
    """Token ids from the middle three quarters of a vocabulary, since special tokens sit at the ends.

    They are written with equal width (JSON allows blanks), so that the place of the n-th is a multiplication.

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


def words(chosen: Sequence[str]) -> Alphabet:
    """Plain words (ASCII letters), as one user message."""
    written = np.array([f"{word} ".encode("ascii") for word in chosen], np.bytes_)
    return Alphabet(written=written, opening=b'"messages":[{"role":"user","content":"', closing=b'"}]')


HEAD_SYMBOLS = 32
_UNIQUE = 1 << 32
"""So many requests have heads that differ for certain."""


class Heads:
    """Seeded heads, and where each prompt's slice starts, from the seed and the index alone.

    A head's first symbols are the digits of (index × step + shift) mod `symbols` ** digits, the lowest first,
    with a step that has no divisor in common with `symbols`. So the first k symbols of any `symbols` ** k
    consecutive requests differ: no prompts can be more unique at their length. The other symbols are random,
    which keeps the heads of other points (other seeds) apart too.

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
        """A number of 64 bits for the place of the slice, and the numbers of `HEAD_SYMBOLS` symbols."""
        bits = hashlib.shake_128(f"prompt:{self._seed}:{index}".encode()).digest(8 + 4 * HEAD_SYMBOLS)
        uniform = np.frombuffer(bits, "<u4", offset=8).astype(np.int64)
        chosen = (uniform * self._symbols) >> 32
        value = (index * self._step + self._shift) % self._modulus
        for position in range(self._digits):
            value, chosen[position] = divmod(value, self._symbols)
        return int.from_bytes(bits[:8], "little"), chosen


def scramble(modulus: int, key: str) -> tuple[int, int]:
    """A seeded step and shift, so that i ↦ (i × step + shift) mod `modulus` never meets itself too early."""
    bits = hashlib.shake_128(key.encode()).digest(64)
    step = int.from_bytes(bits[:32], "little") % modulus or 1
    while math.gcd(step, modulus) != 1:
        step = (step + 1) % modulus or 1
    return step, int.from_bytes(bits[32:], "little") % modulus


LEAST_SYMBOLS = 1 << 20
_STREAM = 4


class PromptPool:
    """Random symbols as text, from which any run of neighbours is had without a copy.

    Args:
        alphabet: what it is made of.
        longest: symbols of the longest slice that will be asked for.
        seed: the point's seed.
        places: how many different places slices of any length must be able to start at.
    """

    def __init__(self, alphabet: Alphabet, longest: int, seed: int, places: int = 0) -> None:
        self._symbols = max(LEAST_SYMBOLS, 2 * longest, longest + places)
        rng = np.random.default_rng([seed, _STREAM])
        chosen = rng.integers(0, len(alphabet), size=self._symbols, dtype=np.int32)
        self._text = memoryview(alphabet.write(chosen))
        self._starts = _starts(alphabet, chosen)

    def __len__(self) -> int:
        return self._symbols

    @property
    def text(self) -> memoryview:
        """All of it."""
        return self._text

    def slice(self, start: int, count: int) -> memoryview:
        """Symbols [start, start + count), each with its separator: a view, no copy."""
        return self._text[self._starts[start] : self._starts[start + count]]


def _starts(alphabet: Alphabet, chosen: npt.NDArray[np.int32]) -> Sequence[int]:
    """Where each symbol starts, and where the last one ends: arithmetic where all are equally wide."""
    widths = alphabet.widths
    if (widths == widths[0]).all():
        width = int(widths[0])
        return range(0, len(chosen) * width + 1, width)
    starts = np.cumsum(widths[chosen], dtype=np.int64)
    return array("q", b"\0" * 8 + starts.tobytes())  # gives plain ints, and no list of a million of them


Piece = bytes | memoryview
"""A buffer of a request's body."""
BLOCK_SYMBOLS = 512
"""Tokens that one hash id of a trace stands for."""
MOST_PIECES = 1000
"""One call sends at most 1024 buffers (IOV_MAX)."""


class RandomContent:
    """Prompts of any length from one pool, in microseconds and without a copy of their long part.

    Args:
        alphabet: what they are made of.
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
        """A prompt of `count` symbols whose first `shared` ones every such prompt has in common."""
        place, chosen = self._heads.draw(index)
        head = min(count - shared, HEAD_SYMBOLS)
        rest = count - shared - head
        start = place % (len(self.pool) - rest + 1)
        parts = (
            self.pool.slice(0, shared),
            self._alphabet.write(chosen[:head]),
            self.pool.slice(start, rest),
        )
        return self._close(part for part in parts if part)

    def blocks(self, numbers: Iterable[int], count: int) -> list[Piece]:
        """A prompt of `count` symbols made of whole blocks by number, cut at its end.

        Blocks of different numbers start at different places of the pool, and so differ.
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
        """The prompt between the JSON that opens and closes it, without its last separator."""
        closed = [*parts]
        closed[-1] = closed[-1][:-1]
        return bounded([self._alphabet.opening, *closed, self._alphabet.closing])


def bounded(parts: list[Piece], most: int = MOST_PIECES) -> list[Piece]:
    """The same bytes in at most `most` buffers: neighbours are joined, with a copy, where there are more."""
    each = -(-len(parts) // most)
    if each == 1:
        return parts
    return [b"".join(parts[i : i + each]) for i in range(0, len(parts), each)]
