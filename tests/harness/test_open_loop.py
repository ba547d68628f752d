"""Open loops: the rate that was reached, what users waited, ramps, and what a load is called.

Public reports of the same: vllm-project/vllm#54101 and #54136.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from measured import make_point, make_request
from mtpbench.load.pacer import draw_arrivals_s
from mtpbench.measure import measure
from mtpbench.metrics.request_table import RequestTable
from mtpbench.records import ClientHealth, Load, PointResult, RequestRecord, RunFacts, load_label
from mtpbench.store import RawPoint

LOADS = st.builds(
    Load,
    pacing=st.sampled_from(["closed", "poisson", "gamma", "constant", "trace"]),
    rate_rps=st.floats(1e-3, 1e5),
    burstiness=st.sampled_from([0.25, 0.5, 1.0, 1.0000001, 4.0]),
    ramp_s=st.sampled_from([0.0, 0.1, 1.0, 10.0, 1e-9]),
).map(
    lambda load: load if load.pacing not in ("closed", "trace") else dataclasses.replace(load, rate_rps=None)
)


def shape(load: Load, concurrency: int) -> tuple[object, ...]:
    """What of a load is its own: `burstiness` is only of gamma."""
    burstiness = load.burstiness if load.pacing == "gamma" else None
    return (concurrency, load.pacing, load.rate_rps, burstiness, load.ramp_s)


@given(
    st.lists(st.tuples(LOADS, st.integers(1, 10**6)), min_size=2, max_size=4),
    st.sampled_from(["long", "short", "mark"]),
)
def test_loads_that_differ_have_other_labels(loads: list[tuple[Load, int]], form: str) -> None:
    for (one, cap), (other, other_cap) in itertools.combinations(loads, 2):
        labels = [
            make_point(load=load, concurrency=slots).load_label(form)  # type: ignore[arg-type]
            for load, slots in ((one, cap), (other, other_cap))
        ]
        assert (labels[0] == labels[1]) is (shape(one, cap) == shape(other, other_cap))


@pytest.mark.parametrize(
    ("facts", "labels"),
    [
        ((64, None, None, None), ("concurrency 64", "conc. 64", "c64")),
        ((64, None, None, 10.0), ("concurrency 64, ramp 10 s", "conc. 64, ramp 10 s", "c64 ramp 10 s")),
        ((2, 8.0, "poisson", 0.0), ("8 req/s, cap 2", "8 req/s, cap 2", "8/s cap 2")),
        (
            (2, 8.0, "constant", None),
            ("8 req/s constant, cap 2", "8 req/s constant, cap 2", "8/s constant cap 2"),
        ),
        ((None, 0.5, None, None), ("0.5 req/s", "0.5 req/s", "0.5/s")),
        ((9, None, "trace", None), ("trace, cap 9", "trace, cap 9", "trace cap 9")),
        ((None, None, None, None), ("concurrency unknown", "conc. unknown", "cunknown")),
    ],
)
def test_a_load_is_called_so(
    facts: tuple[int | None, float | None, str | None, float | None], labels: tuple[str, ...]
) -> None:
    assert (load_label(*facts), load_label(*facts, "short"), load_label(*facts, "mark")) == labels


def served(load: Load, due_s: list[float], slots: int, service_s: float) -> list[RequestRecord]:
    """Requests that each take so long, in so many slots, in the order in which they are due."""
    free = [0.0] * slots
    records = []
    for i, due in enumerate(due_s):
        slot = min(range(slots), key=free.__getitem__)
        sent = max(due, free[slot])
        free[slot] = sent + service_s
        times = [sent + service_s * k / 4 for k in range(1, 5)]
        records.append(make_request(i, slot, sent, times, scheduled_s=due))
    return records


def result_of(load: Load, requests: int, slots: int, service_s: float, seed: int = 1) -> PointResult:
    due_s = draw_arrivals_s(load, requests, seed).tolist()
    records = served(load, due_s, slots, service_s)
    raw = RawPoint(
        requests=RequestTable.from_records(records),
        counters=(),
        power=(),
        client=ClientHealth(),
        facts=RunFacts(),
    )
    return measure(make_point(load=load, concurrency=slots), raw)


def codes(result: PointResult) -> set[str]:
    return {reason.code for reason in result.reasons}


def test_a_rate_that_the_cap_holds_back_is_not_reached_and_users_waited() -> None:
    result = result_of(Load(pacing="constant", rate_rps=8.0), 20, 2, 0.75)
    assert "rate_not_reached" in codes(result)
    assert result.sent_rps == pytest.approx(2.6, abs=0.2)
    assert result.ttft_s is not None
    waited = result.ttft_as_waited_s(Load(pacing="constant", rate_rps=8.0))
    assert waited is not None
    assert waited.p50 > 5 * result.ttft_s.p50
    (reason,) = (reason for reason in result.reasons if reason.code == "rate_not_reached")
    assert "8 requests/s were asked for" in reason.detail


@given(seed=st.integers(0, 10**6), requests=st.integers(8, 300), busy=st.floats(0.05, 0.6))
def test_chance_in_the_arrivals_is_no_rate_that_was_not_reached(
    seed: int, requests: int, busy: float
) -> None:
    """A server that can do it all: whatever a Poisson process draws, the load is the one that was asked."""
    result = result_of(Load(pacing="poisson", rate_rps=10.0), requests, 8, 8 * busy / 10, seed)
    assert "rate_not_reached" not in codes(result)


@given(seed=st.integers(0, 10**6), requests=st.integers(40, 300), over=st.floats(2.0, 20.0))
def test_a_server_that_can_do_half_of_it_is_always_seen(seed: int, requests: int, over: float) -> None:
    result = result_of(Load(pacing="poisson", rate_rps=10.0), requests, 2, 2 * over / 10, seed)
    assert "rate_not_reached" in codes(result)


def test_a_ramp_is_no_part_of_the_window() -> None:
    load = Load(pacing="constant", rate_rps=10.0, ramp_s=4.0)
    result = result_of(load, 100, 8, 0.1)
    due_s = draw_arrivals_s(load, 100, 1)
    assert result.steady is not None
    assert result.steady.start_s >= 4.0
    assert result.sent_rps == pytest.approx(10.0, rel=0.02)
    assert result.ttft_s is not None
    assert result.ttft_s.count == int((np.asarray(due_s) >= 4.0).sum())


def test_a_load_that_never_left_its_ramp_has_no_window() -> None:
    result = result_of(Load(pacing="constant", rate_rps=10.0, ramp_s=100.0), 30, 8, 0.1)
    assert result.steady is None
    assert "window_too_short" in codes(result)
