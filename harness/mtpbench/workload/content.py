"""Random prompts as buffers: a unique head, then a slice of the pool; or a trace's blocks."""

from __future__ import annotations

from collections.abc import Iterable

from mtpbench.workload.alphabet import Alphabet
from mtpbench.workload.heads import HEAD_SYMBOLS, Heads, scramble
from mtpbench.workload.pool import Pool

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
        self.pool = Pool(alphabet, max(longest, BLOCK_SYMBOLS), seed, blocks)
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
