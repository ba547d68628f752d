"""The first symbols of each prompt: different for every request, by construction and not by luck."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from mtpbench.metrics.request_table import Ints

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
