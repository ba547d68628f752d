"""Intervals of percentiles: the ranks of order statistics, and how often they hold a truth that is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from mtpbench.metrics.chunk_latency import summarise
from mtpbench.metrics.percentile_intervals import TimeParts, effective_count, percentile_interval, ranks
from mtpbench.metrics.window import Window

PERCENTS = (50, 90, 99)


def parts_of(count: int, parts: int = 9) -> TimeParts:
    """Requests that end one after another, in equal parts."""
    window = Window(start_s=0.0, end_s=float(count))
    return TimeParts.of(window, [window] * parts, np.arange(count) + 0.5)


def holds(values: np.ndarray, truth: float, percent: float, parts: TimeParts) -> bool:
    interval = percentile_interval(values, parts, percent)
    if interval is None:
        return True
    return (interval.low is None or interval.low <= truth) and (
        interval.high is None or truth <= interval.high
    )


# --------------------------------------------------------------------------------------------------- ranks
def chance(count: int, share: float, low: int | None, high: int | None) -> float:
    """How likely the order statistics of two ranks enclose the quantile."""
    below_low = 0.0 if low is None else special.bdtr(low - 1, count, share)
    below_high = 1.0 if high is None else special.bdtr(high - 1, count, share)
    return float(below_high - below_low)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_ranks_enclose_a_quantile_in_95_percent_and_narrower_ones_do_not(share: float) -> None:
    for count in [*range(1, 60), 299, 366, 400, 1000, 10_000]:
        low, high = ranks(count, share)
        if low is None and high is None:
            continue
        assert chance(count, share, low, high) >= 0.95 - 1e-12
        tails = 1 - chance(count, share, low, None), 1 - chance(count, share, None, high)
        if low is not None and high is not None and high < count:
            # Each tail holds at most a half, and would hold more if its rank were one further in.
            assert max(tails) <= 0.025 + 1e-12
            assert special.bdtr(low, count, share) > 0.025
            assert 1 - special.bdtr(high - 2, count, share) > 0.025


@pytest.mark.parametrize(("share", "needed"), [(0.5, 6), (0.9, 29), (0.99, 299)])
def test_an_upper_end_needs_so_many_values_that_the_largest_one_is_above_in_95_percent(
    share: float, needed: int
) -> None:
    low, high = ranks(needed, share)
    assert low is not None
    assert high == needed
    assert ranks(needed - 1, share)[1] is None
    assert share**needed <= 0.05 < share ** (needed - 1) or share == 0.5


def test_a_low_quantile_is_a_high_one_the_other_way_round() -> None:
    for count in (10, 40, 400):
        low, high = ranks(count, 0.9)
        mirrored = (None if high is None else count + 1 - high, None if low is None else count + 1 - low)
        assert ranks(count, 1 - 0.9) == mirrored


# ------------------------------------------------------------------------------------------------ coverage
@pytest.mark.parametrize("count", [10, 37, 145, 640])
def test_intervals_hold_the_percentile_of_independent_requests(count: int) -> None:
    """400 seeded samples with a long tail: the truth is that of the log-normal."""
    random, parts = np.random.default_rng(count), parts_of(count)
    samples = np.exp(random.standard_normal((400, count)))
    for percent in PERCENTS:
        truth = float(np.exp(stats.norm.ppf(percent / 100)))
        held = np.mean([holds(sample, truth, percent, parts) for sample in samples])
        assert 0.94 <= held <= 1.0, percent


def waves(random: np.random.Generator, count: int, shared: float, waves_long: int) -> np.ndarray:
    """Standard normal values of which neighbours share a part that moves slowly."""
    waved = random.standard_normal(count // waves_long + 2).repeat(waves_long)
    start = random.integers(waves_long)
    common = waved[start : start + count]
    values: np.ndarray = np.sqrt(shared) * common + np.sqrt(1 - shared) * random.standard_normal(count)
    return values


@pytest.mark.parametrize("percent", PERCENTS)
@pytest.mark.parametrize(
    ("shared", "waves_long", "parts"), [(0.4, 32, 9), (0.3, 64, 20)], ids=["shorter than a part", "longer"]
)
def test_intervals_hold_the_percentile_of_requests_that_wait_together(
    percent: float, shared: float, waves_long: int, parts: int
) -> None:
    """The interval of as many independent requests misses far too often."""
    random, count, where = np.random.default_rng(7), 640, parts_of(640, parts)
    truth = float(stats.norm.ppf(percent / 100))
    low, high = ranks(count, percent / 100)
    assert low is not None
    assert high is not None
    held, plain = [], []
    for _ in range(300):
        values = waves(random, count, shared, waves_long)
        held.append(holds(values, truth, percent, where))
        ordered = np.sort(values)
        plain.append(ordered[low - 1] <= truth <= ordered[high - 1])
    assert 0.92 <= np.mean(held) <= 0.99
    assert np.mean(plain) < {50: 0.75, 90: 0.85, 99: 0.93}[int(percent)]


def test_requests_that_wait_together_count_as_fewer_never_as_more() -> None:
    random = np.random.default_rng(3)
    counts = [effective_count(waves(random, 640, 0.5, 64), parts_of(640), 50) for _ in range(50)]
    assert max(counts) <= 640
    assert np.median(counts) < 100
    # Values that take turns say more than independent ones would, which nobody can rely on.
    assert effective_count(np.tile([1.0, 2.0], 320), parts_of(640, 8), 50) == 640


# ------------------------------------------------------------------------------------------------- edges
def shuffled(count: int) -> np.ndarray:
    return np.random.default_rng(5).permutation(np.linspace(1, 2, count))


def test_few_requests_tell_a_bound_and_one_no_more_than_that_p99_is_hardly_below_it() -> None:
    one = summarise(np.array([0.5]), parts_of(1))
    assert one is not None
    assert (one.p50_interval, one.p90_interval) == (None, None)
    assert one.p99_interval is not None
    assert (one.p99_interval.low, one.p99_interval.high) == (0.5, None)
    few = summarise(shuffled(40), parts_of(40))
    assert few is not None
    assert few.p99_interval is not None
    assert (few.p99_interval.high, few.p50_interval is None) == (None, False)
    assert few.p50 < few.p99_interval.low < few.p99  # type: ignore[operator]


def test_a_median_has_two_ends_or_none() -> None:
    with_interval = 0
    for count in range(2, 40):
        found = summarise(shuffled(count), parts_of(count))
        assert found is not None
        with_interval += found.p50_interval is not None
        assert found.p50_interval is None or None not in (found.p50_interval.low, found.p50_interval.high)
    assert with_interval > 20


def test_equal_values_have_an_interval_without_width() -> None:
    interval = percentile_interval(np.full(100, 0.25), parts_of(100), 50)
    assert interval is not None
    assert (interval.low, interval.high) == (0.25, 0.25)


def test_a_sample_without_times_has_no_interval() -> None:
    found = summarise(np.linspace(1, 2, 400))
    assert found is not None
    assert (found.p50_interval, found.p99_interval) == (None, None)


@given(
    st.lists(
        st.sampled_from([0.1, 0.2, 0.2000001, 0.5, 3.0]) | st.floats(0.001, 100), min_size=1, max_size=80
    ),
    st.integers(5, 20),
    st.sampled_from(PERCENTS),
)
def test_ends_are_values_of_the_sample_in_order_and_follow_its_unit(
    sample: list[float], parts: int, percent: int
) -> None:
    values, where = np.array(sample), parts_of(len(sample), parts)
    interval = percentile_interval(values, where, percent)
    if interval is None:
        return
    assert interval.fault() is None
    assert {interval.low, interval.high} - {None} <= set(sample)
    assert 0 < interval.effective_count <= len(sample)
    assert interval.low is None or interval.low <= np.percentile(values, percent, method="higher")
    assert interval.high is None or interval.high >= np.percentile(values, percent, method="lower")
    twice = percentile_interval(values * 2, where, percent)
    assert twice is not None
    assert (twice.low, twice.high) == tuple(
        None if end is None else 2 * end for end in (interval.low, interval.high)
    )


def test_parts_are_the_windows_blocks_or_fifths() -> None:
    window = Window(start_s=10.0, end_s=20.0)
    ended_s = np.array([9.0, 10.5, 14.9, 19.9, 20.0, 21.0])
    assert TimeParts.of(window, (), ended_s).of_request.tolist() == [0, 0, 2, 4, 4, 4]
    assert TimeParts.of(window, [window] * 10, ended_s).of_request.tolist() == [0, 0, 4, 9, 9, 9]
