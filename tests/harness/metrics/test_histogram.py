"""Counting whole numbers, in place or sorted, says the same as keeping them all."""

from __future__ import annotations

from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mtpbench.metrics import chunk_latency

NUMBERS = st.lists(st.integers(-5, 60) | st.integers(2**40, 2**40 + 3), max_size=30)


@given(st.lists(NUMBERS, max_size=8))
def test_distinct_numbers_and_their_counts_are_exact(parts):
    counted = chunk_latency.Histogram()
    with mock.patch.multiple(chunk_latency, COUNTED_BELOW=40, _MANY=10, _UNMERGED=16):
        for part in parts:
            counted.add(np.array(part, np.int64))
        numbers, counts = counted.distinct()
    plain = np.unique(np.array([n for part in parts for n in part], np.int64), return_counts=True)
    assert (numbers.tolist(), counts.tolist()) == (plain[0].tolist(), plain[1].tolist())


def test_nothing_counted_is_nothing():
    numbers, counts = chunk_latency.Histogram().distinct()
    assert (len(numbers), len(counts)) == (0, 0)
