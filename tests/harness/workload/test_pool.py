"""Slices of the pool are its own bytes, and hold as many symbols as asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtpbench.workload.content import LEAST_SYMBOLS, PromptPool
from mtpbench.workload.vocabulary import token_ids, words

POOLS = {
    "ids": PromptPool(token_ids(200), 10, 1),  # ids of two and three digits
    "words": PromptPool(words(("a", "bcd", "efghij")), 10, 1),
}


@pytest.mark.parametrize("kind", POOLS)
@given(start=st.integers(0, LEAST_SYMBOLS - 100), count=st.integers(0, 100))
def test_a_slice_is_a_view_of_whole_symbols(kind, start, count):
    pool, separator = POOLS[kind], b"," if kind == "ids" else b" "
    piece = pool.slice(start, count)
    assert piece.obj is pool.text.obj
    assert bytes(piece).count(separator) == count
    assert bytes(piece) == b"".join(bytes(pool.slice(start + i, 1)) for i in range(count))
    assert not count or bytes(piece).endswith(separator)


def test_every_symbol_comes_about_equally_often():
    pool = POOLS["words"]
    found = np.array([bytes(pool.text).count(word) for word in (b"a ", b"bcd ", b"efghij ")])
    assert found.sum() == len(pool)
    assert np.abs(found / len(pool) - 1 / 3).max() < 0.01


def test_it_is_long_enough_for_what_is_asked():
    alphabet = words(("a", "b"))
    assert len(PromptPool(alphabet, 3, 1)) == LEAST_SYMBOLS
    assert len(PromptPool(alphabet, LEAST_SYMBOLS, 1)) == 2 * LEAST_SYMBOLS
    assert len(PromptPool(alphabet, 512, 1, places=3 * LEAST_SYMBOLS)) == 3 * LEAST_SYMBOLS + 512


def test_another_seed_makes_another_pool():
    assert POOLS["ids"].text == PromptPool(token_ids(200), 10, 1).text
    assert POOLS["ids"].text != PromptPool(token_ids(200), 10, 2).text
