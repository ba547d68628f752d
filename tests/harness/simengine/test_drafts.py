"""How many drafts the embedded engine accepts: their mean, their shape, and what the counters say of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtpbench.errors import InputError, UnsupportedError
from mtpbench.records import DepthRange, DepthRule
from mtpbench.simengine.drafting import Drafting, Drafts, shaped_rates

RATES = (0.79, 0.48, 0.22)
SHAPES = ("by_position", "minimum_variance", "lock_step", "geometric")
RULE = DepthRule(
    kind="by_batch",
    ranges=(
        DepthRange(first=1, last=4, draft_tokens=3),
        DepthRange(first=5, last=8, draft_tokens=1),
        DepthRange(first=9, last=9, draft_tokens=0),
    ),
)
rates_of_any_arm = st.lists(st.floats(0, 1), min_size=1, max_size=8).map(lambda r: tuple(sorted(r)[::-1]))


def take(drafts, count, depth=None, ranks=None, first=0):
    """The tokens of one step of `count` sequences, which lie on `ranks`."""
    keys = np.arange(first, first + count)
    where = np.zeros(count, np.int64) if ranks is None else np.asarray(ranks)
    return drafts.take(keys, where, depth or drafts.drafting.most)


def steps(drafts, count, number, depth=None):
    return np.stack([take(drafts, count, depth) for _ in range(number)])


def test_tokens_per_step_have_the_asked_mean_and_positions():
    """1.2 million steps: four standard errors of the mean are below 0.005."""
    drafts = Drafts(Drafting(rates=RATES), [1])
    tokens = steps(drafts, 1000, 1200)
    counters = drafts.counters()
    assert tokens.mean() == pytest.approx(2.49, abs=0.005)
    assert [c / counters.drafts for c in counters.per_position] == pytest.approx(RATES, abs=0.003)
    assert set(np.unique(tokens)) == {1, 2, 3, 4}


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=20, deadline=None)
@given(rates=rates_of_any_arm, data=st.data())
def test_every_shape_has_the_mean_of_the_rates_at_every_depth(shape, rates, data):
    """60,000 draws of a spread of at most half the drafts: five standard errors are below 0.01 per draft."""
    depth = data.draw(st.integers(1, len(rates)))
    ranges = (DepthRange(first=1, last=1, draft_tokens=depth),)
    drafts = Drafts(
        Drafting(rates=rates, shape=shape, depth=DepthRule(kind="by_batch", ranges=ranges)), [1], 8
    )
    tokens = np.stack([take(drafts, 8, depth, ranks=range(8)) for _ in range(7500)])
    assert tokens.mean() == pytest.approx(1 + sum(rates[:depth]), abs=0.011 * depth)


@settings(max_examples=60, deadline=None)
@given(
    rates=rates_of_any_arm,
    shape=st.sampled_from(SHAPES),
    taken=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 8)), min_size=1, max_size=20),
)
def test_counters_count_exactly_what_was_taken(rates, shape, taken):
    depths = tuple(
        DepthRange(first=i + 1, last=i + 1, draft_tokens=min(depth, len(rates)))
        for i, (_, depth) in enumerate(taken)
    )
    drafts = Drafts(
        Drafting(rates=rates, shape=shape, depth=DepthRule(kind="by_batch", ranges=depths)), [2], 3
    )
    seen, drafted = [], 0
    for (count, _), step in zip(taken, depths, strict=True):
        tokens = take(drafts, count, step.draft_tokens, ranks=np.arange(count) % 3)
        assert tokens.min() >= 1
        assert tokens.max() <= 1 + step.draft_tokens
        seen.append(tokens.copy())
        drafted += count * step.draft_tokens
    everything = np.concatenate(seen)
    counters = drafts.counters()
    assert counters.drafts == len(everything)
    assert counters.draft_tokens == drafted
    assert counters.accepted_tokens == (everything - 1).sum()
    assert counters.per_position == tuple((everything > i).sum() for i in range(1, len(rates) + 1))


def test_a_pinned_length_of_least_variance_is_its_whole_part_or_one_more():
    assert shaped_rates("minimum_variance", RATES) == pytest.approx((1.0, 0.49, 0.0))
    drafts = Drafts(Drafting(rates=RATES, shape="minimum_variance"), [1])
    assert set(np.unique(steps(drafts, 1000, 5))) == {2, 3}


def test_in_lock_step_all_sequences_of_a_rank_accept_the_same_number():
    drafts = Drafts(Drafting(rates=RATES, shape="lock_step"), [1], 4)
    ranks = np.arange(40) % 4
    differing = 0
    for _ in range(200):
        by_rank = [take(drafts, 40, ranks=ranks)[ranks == rank] for rank in range(4)]
        assert all(len(set(tokens)) == 1 for tokens in by_rank)
        differing += len({tokens[0] for tokens in by_rank}) > 1
    assert differing > 100


def test_geometric_acceptance_gives_every_next_draft_the_same_chance():
    rates = shaped_rates("geometric", RATES)
    assert sum(rates) == pytest.approx(1.49)
    assert rates[1] / rates[0] == pytest.approx(rates[0])
    assert rates[2] / rates[1] == pytest.approx(rates[0])


@pytest.mark.parametrize(("rates", "shaped"), [((1.0, 1.0), (1, 1)), ((0.0, 0.0), (0, 0))])
@pytest.mark.parametrize("shape", SHAPES)
def test_all_or_no_drafts_accepted_are_so_in_every_shape(shape, rates, shaped):
    assert shaped_rates(shape, rates) == pytest.approx(shaped, abs=1e-12)


@pytest.mark.parametrize(
    ("rates", "spread"), [(RATES, 0.2), (RATES, 0.3), ((0.79,), 0.1), ((0.9, 0.8, 0.7, 0.6, 0.5), 0.2)]
)
def test_requests_spread_around_the_rates_that_counters_give(rates, spread):
    """20,000 requests of 400 tokens: over all steps the length stays within 1%, each rate within 0.01."""
    drafts = Drafts(Drafting(rates=rates, spread=spread), [1])
    taken, needed = np.zeros(20_000), np.zeros(20_000)
    while (running := np.flatnonzero(taken < 400)).size:
        taken[running] += drafts.take(running, np.zeros_like(running), len(rates))
        needed[running] += 1
    counters = drafts.counters()
    assert 1 + counters.accepted_tokens / counters.drafts == pytest.approx(1 + sum(rates), rel=0.01)
    assert [c / counters.drafts for c in counters.per_position] == pytest.approx(rates, abs=0.01)
    lengths = taken / needed
    # What chance alone scatters in so many steps is little beside it.
    chance = steps(Drafts(Drafting(rates=rates), [1]), 1000, 400).var() / needed.mean()
    alone = np.sqrt(lengths.var() - chance) / lengths.mean()
    assert alone == pytest.approx(spread, rel=0.05)


def test_a_request_keeps_its_own_mean_whatever_runs_beside_it():
    drafts = Drafts(Drafting(rates=RATES, spread=0.3), [1])
    alone, beside = np.zeros(50), np.zeros(50)
    for _ in range(3000):
        alone += take(drafts, 50)
        beside += take(drafts, 80)[:50]
    assert np.corrcoef(alone, beside)[0, 1] > 0.95


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"spread": 0.9},
            InputError,
            "around a mean acceptance length of 2.49 with 3 drafts it lies between 0",
        ),
        ({"spread": -0.1}, InputError, "it lies between 0 and"),
        ({"spread": 0.2, "shape": "lock_step"}, UnsupportedError, "the same for every request"),
        (
            {"depth": DepthRule(kind="adaptive")},
            UnsupportedError,
            r"give it a table, such as depth: \{by_batch",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        Drafting(rates=RATES, **change)


def test_the_same_seed_draws_the_same():
    first, again, other = (Drafts(Drafting(rates=RATES), seed) for seed in ([3, 1], [3, 1], [3, 2]))
    drawn = take(first, 50)
    assert (drawn == take(again, 50)).all()
    assert (drawn != take(other, 50)).any()


@pytest.mark.parametrize("rates", [(), (1.2,), (0.3, 0.5), (-0.1,)])
def test_impossible_rates_are_refused(rates):
    with pytest.raises(InputError, match="acceptance rates"):
        Drafting(rates=rates)
