"""One long seeded text, rendered once; prompts are slices of it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtpbench.workload.alphabet import Alphabet

LEAST_SYMBOLS = 1 << 20
_STREAM = 4


class Pool:
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
