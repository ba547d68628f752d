"""Heads of prompts differ for certain; slices of the pool are its own bytes, as many symbols as asked."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtpbench.workload.content import (
    HEAD_SYMBOLS,
    LEAST_SYMBOLS,
    Heads,
    PromptPool,
    scramble,
    token_alphabet,
    word_alphabet,
)


@given(st.integers(2, 200), st.integers(0, 2**40), st.integers(0, 10**6))
def test_the_first_symbols_of_neighbours_are_all_there_are(symbols, seed, first):
    heads = Heads(symbols, seed)
    length = max(1, int(math.log(300, symbols)))
    run = symbols**length
    drawn = {tuple(heads.draw(first + i)[1][:length]) for i in range(run)}
    assert len(drawn) == run


@given(st.integers(2, 100_000), st.integers(0, 2**32), st.integers(0, 2**32))
def test_a_head_has_symbols_of_its_alphabet_and_depends_on_seed_and_index_alone(symbols, seed, index):
    place, head = Heads(symbols, seed).draw(index)
    assert len(head) == HEAD_SYMBOLS
    assert 0 <= head.min() <= head.max() < symbols
    assert 0 <= place < 2**64
    again = Heads(symbols, seed).draw(index)
    assert (place, head.tolist()) == (again[0], again[1].tolist())


def test_the_heads_of_two_seeds_do_not_meet():
    heads = [Heads(6, seed).draw(index)[1].tolist() for seed in range(20) for index in range(200)]
    assert len({tuple(head) for head in heads}) == len(heads)


@given(st.integers(2, 500), st.text(max_size=5))
def test_scrambled_numbers_meet_nowhere(modulus, key):
    step, shift = scramble(modulus, key)
    assert len({(i * step + shift) % modulus for i in range(modulus)}) == modulus


POOLS = {
    "ids": PromptPool(token_alphabet(200), 10, 1),  # ids of two and three digits
    "words": PromptPool(word_alphabet(("a", "bcd", "efghij")), 10, 1),
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
    alphabet = word_alphabet(("a", "b"))
    assert len(PromptPool(alphabet, 3, 1)) == LEAST_SYMBOLS
    assert len(PromptPool(alphabet, LEAST_SYMBOLS, 1)) == 2 * LEAST_SYMBOLS
    assert len(PromptPool(alphabet, 512, 1, places=3 * LEAST_SYMBOLS)) == 3 * LEAST_SYMBOLS + 512


def test_another_seed_makes_another_pool():
    assert POOLS["ids"].text == PromptPool(token_alphabet(200), 10, 1).text
    assert POOLS["ids"].text != PromptPool(token_alphabet(200), 10, 2).text
