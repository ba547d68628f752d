"""Gaps between chunks: by chunk, by token, and those that are stalls."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from measured import make_request, steady_load
from mtpbench.metrics import chunk_latency
from mtpbench.metrics.chunk_latency import ChunkGaps, summarise, summarise_weighted
from mtpbench.metrics.packed_chunks import batches
from mtpbench.metrics.request_table import RequestTable
from mtpbench.metrics.window import Window


def gaps(*records, threshold_s=1.0, window=None, counted=None):
    table = RequestTable.from_records(records)
    found = ChunkGaps(table.index, np.array(counted or [True] * len(table), np.bool_), threshold_s, window)
    for batch in batches(table):
        found.add(batch)
    return found


def test_no_gap_spans_two_requests():
    found = gaps(make_request(0, 0, 0.0, [1, 2, 4]), make_request(1, 1, 0.0, [10, 11])).per_chunk()
    assert found is not None
    assert (found.count, found.mean, found.min, found.max) == (3, pytest.approx(4 / 3), 1.0, 2.0)
    assert gaps(make_request(0, 0, 0.0, [1])).per_chunk() is None


def test_only_the_gaps_of_counted_requests_count():
    records = [make_request(0, 0, 0.0, [1, 3]), make_request(1, 0, 3.0, [10, 14, 15])]
    found = gaps(*records, counted=[False, True]).per_chunk()
    assert found is not None
    assert (found.count, found.min, found.max) == (2, 1.0, 4.0)


def test_a_token_waits_its_share_of_the_gap_that_brought_it():
    """A gap of 4 s that brings 4 tokens is four tokens of 1 s each, not one of 4 s."""
    record = make_request(0, 0, 0.0, [1, 2, 6], chunk_tokens=(1, 2, 6), output_tokens=6)
    per_token = gaps(record).per_token()
    assert per_token is not None
    assert (per_token.count, per_token.mean, per_token.max) == (5, 1.0, 1.0)


def test_time_per_token_is_unknown_where_the_tokens_of_a_chunk_are():
    known, unknown = make_request(0, 0, 0.0, [1, 2]), make_request(1, 1, 0.0, [1, 2], chunk_tokens=None)
    assert gaps(known).per_token() is not None
    assert gaps(known, unknown).per_token() is None
    assert gaps().per_token() is None


@given(st.lists(st.tuples(st.floats(0, 1e3), st.integers(1, 9)), min_size=1, max_size=40))
def test_a_weighted_summary_is_that_of_the_values_repeated(pairs):
    values, weights = np.array([v for v, _ in pairs]), np.array([w for _, w in pairs])
    weighted, plain = summarise_weighted(values, weights), summarise(np.repeat(values, weights))
    assert weighted is not None
    assert plain is not None
    for name in ("count", "mean", "min", "p10", "p50", "p90", "p99", "max"):
        assert getattr(weighted, name) == pytest.approx(getattr(plain, name), rel=1e-9, abs=1e-9)


def test_stalls_are_counted_by_request_and_over_time():
    stalled = make_request(1, 1, 0.0, [1, 3, 3.5, 9.5])
    found = gaps(make_request(0, 0, 0.0, [1, 1.5, 2]), stalled, window=Window(start_s=0, end_s=20)).stalls()
    assert found is not None
    assert (found.count, found.requests, found.longest_s) == (2, 1, 6.0)
    assert found.share == pytest.approx(8 / 9.5)
    assert found.over_time == (0, 0, 0, 1, 0, 0, 0, 0, 0, 1, *[0] * 10)
    assert found.worst == ((1, 6.0),)


def test_a_gap_as_long_as_the_threshold_is_no_stall():
    found = gaps(*steady_load(), threshold_s=0.25).stalls()
    assert found is not None
    assert (found.count, found.requests, found.share, found.over_time, found.worst) == (0, 0, 0.0, (), ())
    assert found.longest_s == 0.25


def test_no_gap_no_stalls():
    assert gaps(make_request(0, 0, 0.0, [1])).stalls() is None


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
