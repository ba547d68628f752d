from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_points import RATES, group

from mtpbench.errors import InputError
from mtpbench.records import EngineLimits
from mtpbench.simengine.drafting import Drafting
from mtpbench.simengine.engine_steps import TokenSequence
from mtpbench.simengine.profile import load_profile
from mtpbench.simengine.worker_model import make_worker

PROFILE = load_profile("dsv4-gb200")


def worker(role="aggregated", layout="TP8", drafts=0, **limits):
    given = {"max_running": 64, "prefill_chunk_tokens": 8192} | limits
    drafting = Drafting(rates=RATES[drafts]) if drafts else None
    return make_worker(group(role, 1, layout), PROFILE, EngineLimits(**given), drafting, [1])


def play(target, steps=100_000):
    """Steps until idle; (time, key, cumulative tokens) of every event, and the keys in order of their end."""
    events, ended, now = [], [], 0.0
    for _ in range(steps):
        end = target.begin(now)
        if end is not None:
            target.finish()
            now = end
        for emission in target.take_emissions():
            pairs = zip(emission.keys.tolist(), emission.tokens.tolist(), strict=True)
            events += [(emission.time_s, key, tokens) for key, tokens in pairs]
            ended += emission.done
        if end is None:
            return events, ended
    raise AssertionError("never idle")


@settings(max_examples=60, deadline=None)
@given(
    jobs=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 60)), min_size=1, max_size=30),
    drafts=st.integers(0, 3),
    layout=st.sampled_from(["TP8", "DEP8"]),
    interval=st.integers(1, 20),
    running=st.integers(1, 20),
    chunk=st.sampled_from([8, 64, 4096]),
    pool=st.sampled_from([None, 600 * 8]),
)
def test_every_request_gets_exactly_its_tokens(jobs, drafts, layout, interval, running, chunk, pool):
    """Whatever the limits, drafts, chunks and preemptions: tokens rise to exactly what was asked."""
    limits = {"max_running": running, "prefill_chunk_tokens": chunk, "stream_interval": interval}
    target = worker(
        layout=layout, drafts=drafts, kv_tokens=pool if layout == "DEP8" or not pool else 600, **limits
    )
    for key, (prompt, total) in enumerate(jobs):
        target.submit(TokenSequence(key, prompt, total))
    events, ended = play(target)
    assert sorted(ended) == list(range(len(jobs)))
    for key, (_, total) in enumerate(jobs):
        tokens = [t for _, k, t in events if k == key]
        assert tokens[0] == 1
        assert tokens[-1] == total
        assert all(b > a for a, b in pairwise(tokens))
        gaps = [b - a for a, b in pairwise(tokens[:-1])]
        assert all(gap >= interval for gap in gaps)
    assert target.generation_tokens == sum(total for _, total in jobs)
    assert target.totals.prompt_tokens == sum(prompt for prompt, _ in jobs)
    assert (target.running, target.waiting) == (0, 0)
    assert not any(target._reserved)
    assert not any(target._counts)


def test_without_drafts_a_step_gives_one_token():
    target = worker()
    target.submit(TokenSequence(0, 100, 5))
    assert [tokens for _, _, tokens in play(target)[0]] == [1, 2, 3, 4, 5]


def test_a_drafting_step_sends_several_tokens_in_one_event():
    target = worker(drafts=3)
    target.submit(TokenSequence(0, 100, 400))
    tokens = [tokens for _, _, tokens in play(target)[0]]
    assert max(b - a for a, b in pairwise(tokens)) == 4
    assert len(tokens) < 220


def test_a_full_pool_preempts_the_youngest_and_still_ends_everything():
    """Two sequences grow to 160 tokens each in a pool of 200: the second is sent back and computed again."""
    target = worker(kv_tokens=200)
    target.submit(TokenSequence(0, 60, 100))
    target.submit(TokenSequence(1, 60, 100))
    events, ended = play(target)
    assert target.totals.preemptions >= 1
    assert ended == [0, 1]
    assert target.totals.prompt_tokens == 120
    assert [t for _, k, t in events if k == 1] == list(range(1, 101))


def test_a_request_that_never_fits_is_refused_with_the_figures():
    with pytest.raises(InputError, match=r"60 \+ 200 tokens needs 261 KV tokens.*has 200"):
        worker(kv_tokens=200).submit(TokenSequence(0, 60, 200))


def test_the_running_limit_holds():
    target = worker(max_running=3)
    for key in range(10):
        target.submit(TokenSequence(key, 10, 20))
    now, most = 0.0, 0
    while (end := target.begin(now)) is not None:
        most = max(most, target.running)
        target.finish()
        now = end
    assert most == 3


def test_a_long_prompt_is_taken_in_chunks_while_others_decode():
    target = worker(prefill_chunk_tokens=1000)
    target.submit(TokenSequence(0, 10, 50))
    target.finish() if target.begin(0.0) else None
    target.submit(TokenSequence(1, 3500, 2))
    events, _ = play(target)
    first_of_long = next(time for time, key, _ in events if key == 1)
    decoded_meanwhile = [t for time, key, t in events if key == 0 and time <= first_of_long]
    assert len(decoded_meanwhile) >= 4


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_cancel_frees_the_place(steps):
    """Waiting, in prefill or decoding: after a cancel the next request runs and nothing is left over."""
    target = worker(max_running=1, prefill_chunk_tokens=50)
    target.submit(TokenSequence(0, 100, 50))
    now = 0.0
    for _ in range(steps):
        now = target.begin(now)
        target.finish()
    target.submit(TokenSequence(1, 10, 3))
    target.cancel(0)
    _, ended = play(target)
    assert ended == [1]
    assert target.running == 0
    assert not any(target._reserved)


def test_cancel_in_the_middle_of_a_step_is_safe():
    target = worker()
    for key in range(3):
        target.submit(TokenSequence(key, 10, 5))
    target.begin(0.0)
    target.cancel(1)
    target.finish()
    target.begin(1.0)
    target.cancel(0)
    target.finish()
    assert play(target)[1] == [2]
    target.cancel(99)


def test_the_fullest_rank_sets_the_step_time():
    """Nine sequences on eight attention ranks cost what two per rank cost."""
    target = worker(layout="DEP8")
    for key in range(9):
        target.submit(TokenSequence(key, 8, 50))
    end = target.begin(0.0)
    target.finish()
    again = target.begin(end)
    assert again - end == pytest.approx(0.021059)


def test_a_prefill_worker_hands_prompts_over_and_emits_nothing():
    target = worker(role="prefill", layout="DEP8", prefill_chunk_tokens=8 * 8192)
    for key in range(8):
        target.submit(TokenSequence(key, 8192, 100))
    end = target.begin(0.0)
    target.finish()
    assert end == pytest.approx(0.6603 * 1.104)
    assert sorted(job.key for job in target.take_prefilled()) == list(range(8))
    assert target.take_emissions() == []


def test_a_decode_worker_sends_the_first_token_when_it_admits():
    target = worker(role="decode")
    target.submit(TokenSequence(0, 100, 3), kv_ready=True)
    target.begin(7.0)
    (first,) = target.take_emissions()
    assert (first.time_s, first.tokens.tolist()) == (7.0, [1])


def test_energy_only_rises_and_is_idle_power_at_rest():
    target = worker()
    assert target.energy_j(10.0) == pytest.approx(1700)
    target.submit(TokenSequence(0, 100, 3))
    now, last = 10.0, target.energy_j(10.0)
    while (end := target.begin(now)) is not None:
        for share in (0.0, 0.5, 1.0):
            joules = target.energy_j(now + share * (end - now))
            assert joules >= last
            last = joules
        target.finish()
        now = end
        assert target.energy_j(now) == pytest.approx(last)
    assert last / now > 170
    assert target.energy_j(now + 1) - target.energy_j(now) == pytest.approx(170)
