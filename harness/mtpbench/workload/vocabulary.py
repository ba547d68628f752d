"""Pure: what random prompts are written with: token ids or words, each with the separator that follows it."""

from __future__ import annotations

from collections.abc import Sequence
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
