import numpy as np
import pytest

from mtpbench.errors import InputError
from mtpbench.simengine.engine_steps import Drafts

RATES = (0.79, 0.48, 0.22)


def test_tokens_per_step_have_the_asked_mean_and_positions():
    """1.2 million steps: four standard errors of the mean are below 0.005."""
    drafts = Drafts(RATES, [1])
    tokens = np.concatenate([drafts.take(1000) for _ in range(1200)])
    counters = drafts.counters()
    assert tokens.mean() == pytest.approx(2.49, abs=0.005)
    assert [c / counters.drafts for c in counters.per_position] == pytest.approx(RATES, abs=0.003)
    assert set(np.unique(tokens)) == {1, 2, 3, 4}


def test_counters_count_exactly_what_was_taken():
    drafts = Drafts(RATES, [2])
    taken = np.concatenate([drafts.take(n) for n in (7, 100_000, 1, 100_000)])
    counters = drafts.counters()
    assert counters.drafts == len(taken)
    assert counters.draft_tokens == 3 * len(taken)
    assert counters.accepted_tokens == (taken - 1).sum()
    assert counters.per_position == tuple((taken > i).sum() for i in (1, 2, 3))


def test_the_same_seed_draws_the_same():
    assert (Drafts(RATES, [3, 1]).take(50) == Drafts(RATES, [3, 1]).take(50)).all()
    assert (Drafts(RATES, [3, 1]).take(50) != Drafts(RATES, [3, 2]).take(50)).any()


@pytest.mark.parametrize("rates", [(), (1.2,), (0.3, 0.5), (-0.1,)])
def test_impossible_rates_are_refused(rates):
    with pytest.raises(InputError, match="acceptance rates"):
        Drafts(rates, [1])
