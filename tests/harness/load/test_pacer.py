"""Which request starts next, in which slot, and when: a whole load played in imagined time."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtpbench.errors import InputError
from mtpbench.load.pacer import RequestCounts, Schedule, draw_arrivals_s
from mtpbench.records import Load, Measurement

S = 10**9


def schedule(
    concurrency, total, *, after=None, delay_s=None, arrivals_s=None, warmup=0, ramp_s=0.0, scale=1.0
):
    heads, following = Schedule.chained(np.asarray([-1] * total if after is None else after, np.int64))
    return Schedule(
        concurrency=concurrency,
        warmup=warmup,
        heads=heads,
        arrivals_s=None if arrivals_s is None else np.asarray(arrivals_s, np.float64)[: len(heads)],
        following=following,
        delay_s=np.zeros(total) if delay_s is None else np.asarray(delay_s, np.float64),
        ramp_s=ramp_s,
        time_scale=scale,
    )


@dataclass
class Run:
    turn: object
    start_ns: int
    end_ns: int
    pacer: int


def play(plan, durations_ns, workers=1):
    """Every request of a schedule as it would run, woken only when the pacers say so."""
    pacers = [plan.share(worker, workers) for worker in range(workers)]
    now, runs, ends = 0, [], []
    for _ in range(100_000):
        for number, pacer in enumerate(pacers):
            while (turn := pacer.take(now)) is not None:
                end = now + int(durations_ns[turn.index])
                runs.append(Run(turn, now, end, number))
                heapq.heappush(ends, (end, len(runs) - 1))
        assert sum(pacer.in_flight for pacer in pacers) == len(ends)
        if all(pacer.finished for pacer in pacers):
            assert not ends
            return runs, pacers
        due = [at for pacer in pacers if (at := pacer.next_due_ns()) is not None]
        moments = [*due, *(end for end, _ in ends[:1])]
        assert moments, "nothing is due, nothing runs, and yet it is not over"
        now = max(now, min(moments))
        while ends and ends[0][0] <= now:
            _, index = heapq.heappop(ends)
            pacers[runs[index].pacer].end(runs[index].turn, runs[index].end_ns)
    raise AssertionError("it does not end")


def most_in_flight(runs):
    changes = sorted([(run.start_ns, 1) for run in runs] + [(run.end_ns, -1) for run in runs])
    return int(np.cumsum([change for _, change in changes]).max(initial=0))


durations = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(durations, st.integers(1, 8), st.integers(1, 4))
def test_a_closed_loop_keeps_its_slots_busy_until_its_share_is_sent(durations, concurrency, workers):
    total, workers = len(durations), min(workers, concurrency)
    runs, _ = play(schedule(concurrency, total), durations, workers)
    assert sorted(run.turn.index for run in runs) == list(range(total))
    assert most_in_flight(runs) <= concurrency
    for slot in range(concurrency):
        mine = [run for run in runs if run.turn.slot == slot]
        assert {run.pacer for run in mine} <= {slot % workers}
        assert [run.turn.due_ns for run in mine[:1]] in ([], [0])
        for before, after in itertools.pairwise(mine):
            assert after.start_ns == after.turn.due_ns == before.end_ns
    # A slot rests only when its worker has nothing left.
    for worker in range(workers):
        last = max((run.start_ns for run in runs if run.pacer == worker), default=0)
        for slot in range(worker, concurrency, workers):
            mine = [run for run in runs if run.turn.slot == slot]
            assert not mine or mine[-1].end_ns >= last


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 6))
def test_the_shares_of_all_workers_are_the_whole(total, concurrency, workers):
    workers = min(workers, concurrency)
    plan = schedule(concurrency, total)
    shares = [plan.share(worker, workers).upcoming(total) for worker in range(workers)]
    assert sorted(index for share in shares for index in share) == list(range(total))
    assert all(share == sorted(share) for share in shares)
    assert plan.share(0, workers).upcoming(2) == shares[0][:2]
    assert sum(plan.share(worker, workers).unsent for worker in range(workers)) == plan.total == total


@pytest.mark.parametrize(("concurrency", "workers"), [(6, 3), (5, 2), (3, 2), (7, 4), (4, 4)])
def test_exactly_c_are_in_flight_to_the_end(concurrency, workers):
    """Also where some workers have more slots than others: their share is larger, too."""
    total = 10 * concurrency
    runs, _ = play(schedule(concurrency, total), [10] * total, workers)
    for now in range(0, 100, 5):
        assert sum(run.start_ns <= now < run.end_ns for run in runs) == concurrency
    assert max(run.end_ns for run in runs) == 100


def test_the_first_requests_are_warm_up_and_load_does_not_pause_after_them():
    runs, _ = play(schedule(2, 8, warmup=3), [10] * 8)
    assert [run.turn.warmup for run in runs] == [True] * 3 + [False] * 5
    assert [run.start_ns for run in runs] == [0, 0, 10, 10, 20, 20, 30, 30]


def test_a_ramp_opens_the_slots_one_after_another():
    runs, _ = play(schedule(4, 4, ramp_s=2.0, scale=2.0), [S * 10] * 4)
    assert [(run.turn.slot, run.start_ns, run.turn.due_ns) for run in runs] == [
        (slot, slot * S // 4, slot * S // 4) for slot in range(4)
    ]


def test_the_next_turn_of_a_session_follows_in_its_slot_after_its_pause():
    """Slot 0 holds the session of 0, 1, 2 through its pauses; slot 1 does the rest."""
    after, delay_s = [-1, 0, 1, -1, -1], [9.0, 0.5, 2.0, 9.0, 9.0]
    runs, _ = play(schedule(2, 5, after=after, delay_s=delay_s, scale=0.5), [S] * 5)
    told = sorted((run.turn.index, run.turn.slot, run.start_ns / S, run.turn.due_ns / S) for run in runs)
    assert told == [(0, 0, 0, 0), (1, 0, 2, 2), (2, 0, 7, 7), (3, 1, 0, 0), (4, 1, 1, 1)]


def test_a_pause_keeps_its_slot_and_its_session_and_no_other():
    """Slot 0 ends at 1 s and pauses until 4 s: a session's next turn waits, the other slot goes on."""
    for after in ([-1] * 4, [-1, 0, -1, -1]):
        for arrivals_s in (None, [0.0] * 4):
            plan = schedule(2, 4, after=after, arrivals_s=arrivals_s)
            pacer = plan.share(0, 1)
            first, second = pacer.take(0), pacer.take(0)
            pacer.end(first, 1 * S, 3 * S)
            assert pacer.take(2 * S) is None
            assert pacer.next_due_ns() <= 4 * S
            pacer.end(second, 2 * S)
            third = pacer.take(2 * S)
            assert third.slot == second.slot
            assert after[1] < 0 or third.index != 1
            assert pacer.take(4 * S - 1) is None
            fourth = pacer.take(4 * S)
            assert fourth.slot == first.slot
            assert after[1] < 0 or arrivals_s or fourth.index == 1


@st.composite
def sessions(draw):
    """`after` of requests in sessions, `delay_s` and durations."""
    total = draw(st.integers(1, 25))
    after, last = [], {}
    for index in range(total):
        session = draw(st.integers(0, 8))
        after.append(last.get(session, -1))
        last[session] = index
    pauses = draw(st.lists(st.integers(0, 5), min_size=total, max_size=total))
    lengths = draw(st.lists(st.integers(1, 9), min_size=total, max_size=total))
    return after, pauses, lengths


@given(sessions(), st.integers(1, 5), st.integers(1, 3), st.booleans(), st.data())
def test_turns_follow_each_other_and_all_are_sent(session, concurrency, workers, is_open, data):
    after, pauses, lengths = session
    workers = min(workers, concurrency)
    arrivals_s = None
    if is_open:
        arrivals_s = sorted(data.draw(st.lists(st.integers(0, 30), min_size=len(after), max_size=len(after))))
    plan = schedule(concurrency, len(after), after=after, delay_s=pauses, arrivals_s=arrivals_s)
    runs, _ = play(plan, np.asarray(lengths) * S, workers)
    by_index = {run.turn.index: run for run in runs}
    assert sorted(by_index) == list(range(len(after)))
    assert len(runs) == len(after)
    assert most_in_flight(runs) <= concurrency
    for index, before in enumerate(after):
        run = by_index[index]
        assert run.start_ns >= run.turn.due_ns
        if before >= 0:
            assert run.turn.due_ns == by_index[before].end_ns + pauses[index] * S
            assert run.pacer == by_index[before].pacer
            if not is_open:
                assert (run.turn.slot, run.start_ns) == (by_index[before].turn.slot, run.turn.due_ns)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from([0.5, 1.0, 10.0]),
)
def test_an_open_loop_starts_by_the_clock_under_its_ceiling(requests, concurrency, workers, scale):
    arrivals_s = sorted(at for at, _ in requests)
    workers = min(workers, concurrency)
    plan = schedule(concurrency, len(requests), arrivals_s=arrivals_s, scale=scale)
    runs, pacers = play(plan, [length * S for _, length in requests], workers)
    assert sorted(run.turn.index for run in runs) == list(range(len(requests)))
    assert most_in_flight(runs) <= concurrency
    for run in runs:
        due_ns = int(arrivals_s[run.turn.index] * S / scale)
        assert run.turn.due_ns == due_ns
        assert run.start_ns >= due_ns
        assert run.turn.waited == (run.start_ns > due_ns)
    for worker, pacer in enumerate(pacers):
        mine = [run for run in runs if run.pacer == worker]
        assert pacer.waited == sum(run.turn.waited for run in mine)
        assert [run.turn.index for run in mine] == sorted(run.turn.index for run in mine)


def test_an_open_loop_is_never_early_and_says_when_it_next_needs_to_be_asked():
    pacer = schedule(2, 3, arrivals_s=[0.0, 1.0, 2.0]).share(0, 1)
    assert pacer.take(0).index == 0
    assert pacer.take(S - 1) is None
    assert pacer.next_due_ns() == S
    assert pacer.take(S).index == 1
    assert pacer.take(2 * S) is None
    assert pacer.next_due_ns() is None
    assert (pacer.unsent, pacer.in_flight, pacer.finished) == (1, 2, False)


def test_what_waits_for_a_slot_is_counted_late_from_its_due_time():
    pacer = schedule(1, 3, arrivals_s=[0.0, 1.0, 1.5]).share(0, 1)
    first = pacer.take(0)
    assert pacer.take(2 * S) is None
    pacer.end(first, 3 * S)
    second = pacer.take(3 * S)
    assert (second.index, second.due_ns, second.waited, pacer.waited) == (1, S, True, 1)
    assert pacer.take(3 * S) is None
    pacer.end(second, 4 * S)
    assert pacer.take(4 * S).waited
    assert (pacer.waited, pacer.unsent, pacer.started) == (2, 0, 3)


def test_a_pause_counts_as_unsent_until_its_turn_has_started():
    pacer = schedule(1, 2, after=[-1, 0], delay_s=[0, 1]).share(0, 1)
    assert pacer.unsent == 1
    turn = pacer.take(0)
    pacer.end(turn, S)
    assert (pacer.unsent, pacer.finished, pacer.next_due_ns()) == (1, False, 2 * S)
    assert pacer.take(2 * S - 1) is None
    pacer.end(pacer.take(2 * S), 3 * S)
    assert pacer.finished


def test_chains_of_requests():
    heads, following = Schedule.chained(np.array([-1, -1, 0, 2, 1, -1]))
    assert heads.tolist() == [0, 1, 5]
    assert following.tolist() == [2, 4, 3, -1, -1, -1]


def test_the_counts_follow_the_rules():
    rules = Measurement(warmup_per_slot=1.5, requests_per_slot=2.0, min_requests=8)
    counts = RequestCounts.of(3, rules)
    assert (counts.warmup, counts.total) == (5, 5 + 8)
    counts = RequestCounts.of(10, rules)
    assert (counts.warmup, counts.total) == (15, 15 + 20)


@pytest.mark.parametrize("workers", [2, 3])
def test_more_workers_than_requests_leave_some_idle(workers):
    runs, pacers = play(schedule(4, 1), [5], workers)
    assert [run.turn.index for run in runs] == [0]
    assert all(pacer.finished for pacer in pacers)


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
