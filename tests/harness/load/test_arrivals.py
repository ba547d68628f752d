"""When the requests of an open loop start."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtpbench.errors import InputError
from mtpbench.load.pacer import draw_arrivals_s
from mtpbench.records import Load

pacings = st.sampled_from(["poisson", "gamma", "constant"])


@given(pacings, st.floats(0.01, 1e5), st.integers(0, 200), st.integers(0, 2**32), st.floats(0, 100))
def test_arrivals_rise_from_0(pacing, rate, count, seed, ramp_s):
    load = Load(pacing=pacing, rate_rps=rate, ramp_s=ramp_s)
    arrivals = draw_arrivals_s(load, count, seed)
    assert arrivals.shape == (count,)
    assert np.all(np.diff(arrivals) >= 0)
    assert count == 0 or arrivals[0] == 0
    assert np.all(np.isfinite(arrivals))


@given(pacings, st.integers(1, 100), st.integers(0, 100), st.integers(0, 2**32))
def test_more_requests_do_not_move_the_first_ones(pacing, count, more, seed):
    """Arms with the same seed get the same arrivals, also if one of them sends more."""
    load = Load(pacing=pacing, rate_rps=7.0)
    assert np.array_equal(
        draw_arrivals_s(load, count + more, seed)[:count], draw_arrivals_s(load, count, seed)
    )


def test_the_seed_decides():
    load = Load(pacing="poisson", rate_rps=7.0)
    assert not np.array_equal(draw_arrivals_s(load, 10, 1), draw_arrivals_s(load, 10, 2))


def test_a_constant_rate_is_a_grid():
    arrivals = draw_arrivals_s(Load(pacing="constant", rate_rps=4.0), 5, 0)
    assert arrivals.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("pacing", "burstiness", "spread"),
    [("poisson", 9.0, 1.0), ("gamma", 1.0, 1.0), ("gamma", 0.25, 2.0), ("gamma", 16.0, 0.25)],
)
def test_intervals_have_the_asked_mean_and_spread(pacing, burstiness, spread):
    """Gamma intervals of shape k vary by 1/√k of their mean."""
    load = Load(pacing=pacing, rate_rps=50.0, burstiness=burstiness)
    intervals = np.diff(draw_arrivals_s(load, 40_000, 3))
    assert intervals.mean() == pytest.approx(0.02, rel=0.05)
    assert intervals.std() / intervals.mean() == pytest.approx(spread, rel=0.1)


def test_with_burstiness_1_gamma_is_poisson():
    poisson = draw_arrivals_s(Load(pacing="poisson", rate_rps=3.0), 50, 5)
    assert np.array_equal(draw_arrivals_s(Load(pacing="gamma", rate_rps=3.0), 50, 5), poisson)


def test_a_ramp_rises_linearly_and_then_holds_the_rate():
    """Half of rate × ramp starts within the ramp, a quarter of those in its first half."""
    arrivals = draw_arrivals_s(Load(pacing="constant", rate_rps=100.0, ramp_s=10.0), 1500, 0)
    assert np.sum(arrivals < 10.0) == 500
    assert np.sum(arrivals < 5.0) == 125
    assert np.diff(arrivals[500:]) == pytest.approx(0.01)
    assert arrivals[-1] == pytest.approx(10.0 + 999 / 100)


@pytest.mark.parametrize(
    "load", [Load(), Load(pacing="trace"), Load(pacing="poisson"), Load(pacing="closed", rate_rps=3.0)]
)
def test_a_pacing_without_a_rate_of_its_own_has_nothing_to_draw(load):
    with pytest.raises(InputError, match=load.pacing):
        draw_arrivals_s(load, 3, 0)
