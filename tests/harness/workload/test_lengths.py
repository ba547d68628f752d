"""Lengths by the measuring rule 2026-11: spread over their range, and the first ones shortened."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtpbench.records import Workload
from mtpbench.workload import Lengths, draw_lengths, spread_phases
from mtpbench.workload.lengths import STRATA

RANDOM = Workload(isl=8192, osl=1024, range_ratio=0.8)


def drawn(count: int, seed: int = 1, workload: Workload = RANDOM) -> Lengths:
    return draw_lengths(workload, count, seed, stratified=True)


@given(count=st.integers(0, 50), more=st.integers(0, 50), seed=st.integers(0, 2**63 - 1))
def test_a_request_has_the_same_lengths_however_many_are_drawn(count: int, more: int, seed: int) -> None:
    few, many = drawn(count, seed), drawn(count + more, seed)
    assert len(few.prompt_tokens) == len(few.output_tokens) == count
    assert np.array_equal(few.prompt_tokens, many.prompt_tokens[:count])
    assert np.array_equal(few.output_tokens, many.output_tokens[:count])


@given(
    longest=st.integers(2, 5000),
    ratio=st.floats(0.001, 1, exclude_min=True),
    seed=st.integers(0, 2**63 - 1),
)
def test_requests_in_a_row_share_out_the_range(longest: int, ratio: float, seed: int) -> None:
    lengths = drawn(5 * STRATA, seed, Workload(isl=longest, osl=longest, range_ratio=ratio)).output_tokens
    least = max(1, int(np.ceil(ratio * longest)))
    assert least <= lengths.min()
    assert lengths.max() <= longest
    edges = least + np.arange(STRATA + 1) / STRATA * (longest - least + 1)
    for row in np.sort(lengths.reshape(-1, STRATA), axis=1):
        # A part begins and ends within a token.
        assert (row >= np.floor(edges[:-1])).all()
        assert (row <= np.ceil(edges[1:])).all()


def test_every_length_is_as_likely_as_any_other() -> None:
    lengths = drawn(80_000, 3, Workload(isl=10, osl=13, range_ratio=0.5))
    for tokens, least, most in ((lengths.prompt_tokens, 5, 10), (lengths.output_tokens, 7, 13)):
        counts = np.bincount(tokens, minlength=most + 1)[least:]
        assert counts == pytest.approx(len(tokens) / (most - least + 1), rel=0.02)
    assert abs(np.corrcoef(lengths.prompt_tokens, lengths.output_tokens)[0, 1]) < 0.01
    places = drawn(80_000, 3).output_tokens.reshape(-1, STRATA)
    assert places.mean(axis=0) == pytest.approx(places.mean(), rel=0.002)


@pytest.mark.parametrize("requests", [10, 48, 384])
def test_their_sum_scatters_far_less_than_that_of_independent_draws(requests: int) -> None:
    sums = {
        stratified: np.std(
            [
                draw_lengths(RANDOM, requests, seed, stratified=stratified).output_tokens.sum()
                for seed in range(200)
            ]
        )
        for stratified in (True, False)
    }
    assert sums[True] < sums[False] / (2 if requests % STRATA else 5)


def test_the_numbers_stay_what_they_are() -> None:
    lengths = drawn(9, 7)
    assert lengths.prompt_tokens.tolist() == [6911, 7296, 6986, 8152, 7499, 7714, 6577, 7848, 7184]
    assert lengths.output_tokens.tolist() == [987, 925, 822, 963, 1011, 859, 908, 874, 993]


def test_first_answers_are_shortened_to_evenly_spread_shares() -> None:
    lengths = Lengths(prompt_tokens=np.full(30, 100), output_tokens=np.full(30, 1000))
    spread = spread_phases(lengths, np.arange(10), 5)
    assert sorted(spread.output_tokens[:10].tolist()) == [50 + 100 * i for i in range(10)]
    assert spread.output_tokens[:10].tolist() != sorted(spread.output_tokens[:10].tolist())
    assert (spread.output_tokens[10:] == 1000).all()
    assert spread.prompt_tokens is lengths.prompt_tokens
    assert (lengths.output_tokens == 1000).all()
    again, other = (spread_phases(lengths, np.arange(10), seed).output_tokens for seed in (5, 6))
    assert np.array_equal(again, spread.output_tokens)
    assert not np.array_equal(other, spread.output_tokens)


def test_no_answer_is_shortened_to_nothing() -> None:
    lengths = Lengths(prompt_tokens=np.ones(8, int), output_tokens=np.full(8, 2))
    assert spread_phases(lengths, np.arange(8), 1).output_tokens.min() == 1
    assert np.array_equal(spread_phases(lengths, np.arange(0), 1).output_tokens, lengths.output_tokens)
