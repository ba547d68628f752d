"""Heads differ for certain, and as early as their length allows."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mtpbench.workload.content import HEAD_SYMBOLS, Heads, scramble


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
