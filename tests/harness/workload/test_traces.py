"""Traces and sessions: same blocks, same tokens; times that never fall; turns that wait for each other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_files import dataset, ids, make, said

from mtpbench.errors import SweepError


def trace(*rows, **more):
    """Rows of (input_length, hash_ids)."""
    return [{"input_length": n, "hash_ids": blocks, **more} for n, blocks in rows]


@pytest.mark.parametrize("chat", [False, True])
def test_the_same_hash_id_is_the_same_512_tokens_and_another_is_another(tmp_path, chat):
    rows = trace((1200, [0, 1, 2]), (1536, [0, 1, 3]), (100, [0]), (1000, [10**15, 1]))
    prompts = make(dataset(tmp_path, *rows, chat_template=chat), 4)
    one, two, three, four = ((said if chat else ids)(prompts, i) for i in range(4))
    assert [len(text) for text in (one, two, three, four)] == [1200, 1536, 100, 1000]
    assert one[:1024] == two[:1024]
    assert one[1024:] != two[1024:1200]
    assert three == one[:100]
    assert four[:512] != one[:512]
    assert four[512:] == one[512:1000]
    assert prompts.exact is not chat


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=6), min_size=1, max_size=12), st.integers(0, 9)
)
def test_prompts_share_what_their_hash_ids_share_and_no_more(tmp_path_factory, blocks, seed):
    rows = trace(*((512 * len(row), row) for row in blocks))
    prompts = make(dataset(tmp_path_factory.mktemp("trace"), *rows), len(rows), seed)
    for (a, one), (b, two) in itertools.combinations(
        [(row, ids(prompts, i)) for i, row in enumerate(blocks)], 2
    ):
        shared = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))))
        assert one[: 512 * shared] == two[: 512 * shared]
        assert one[512 * shared :][:16] != two[512 * shared :][:16] or shared == min(len(a), len(b))


def test_blocks_are_never_copied_and_never_too_many_buffers(tmp_path):
    rows = trace((512 * 900, list(range(900))), (1_000_000, list(range(1954))))
    prompts = make(dataset(tmp_path, *rows), 2)
    assert sum(isinstance(piece, memoryview) for piece in prompts.pieces(0)) == 900
    assert len(prompts.pieces(1)) <= 1000
    assert len(ids(prompts, 1)) == 1_000_000
    assert ids(prompts, 1)[: 512 * 900] == ids(prompts, 0)


def test_timestamps_count_in_seconds_from_the_first(tmp_path):
    rows = [{"input_length": 5, "timestamp": t} for t in (27_000, 27_000, 27_500.5)]
    prompts = make(dataset(tmp_path, *rows), 3)
    assert prompts.arrivals_s.tolist() == [0, 0, 0.5005]
    assert prompts.trace_arrivals_s() is prompts.arrivals_s
    assert make(dataset(tmp_path, *rows), 2).arrivals_s.tolist() == [0, 0]


def test_a_trace_that_is_too_short_goes_on_after_its_mean_interval(tmp_path):
    rows = [{"input_length": 5, "timestamp": t} for t in (1000, 2000, 4000)]
    prompts = make(dataset(tmp_path, *rows), 7)
    assert prompts.arrivals_s.tolist() == [0, 1, 3, 4.5, 5.5, 7.5, 9]
    assert ["reused" in note for note in prompts.notes] == [True, False]
    assert "mean interval of 1.5 s" in prompts.notes[1]


def test_a_trace_without_any_interval_can_t_go_on(tmp_path):
    workload = dataset(tmp_path, {"input_length": 5, "timestamp": 7}, {"input_length": 5, "timestamp": 7})
    assert make(workload, 2).arrivals_s.tolist() == [0, 0]
    with pytest.raises(SweepError, match="3 requests are wanted and the trace has 2") as caught:
        make(workload, 3)
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ((5, 4), "go backwards, from 5 to 4 ms"),
        ((5, None), 'has no "timestamp"'),
        ((None, 5), "all lines one"),
    ],
)
def test_times_that_fall_or_are_missing_are_refused(tmp_path, times, message):
    with pytest.raises(SweepError, match=message) as caught:
        make(dataset(tmp_path, *({"prompt": "a", "timestamp": time} for time in times)), 1)
    assert caught.value.line == 2


def turn(session, **more):
    return {"prompt": f"{session}", **({} if session is None else {"session_id": session}), **more}


def test_a_turn_waits_for_the_one_before_it_and_its_delay(tmp_path):
    rows = (turn("a"), turn(None), turn("b"), turn("a", delay=1500), turn("b", delay=0), turn("a"), turn(7))
    prompts = make(dataset(tmp_path, *rows), 7)
    assert prompts.after.tolist() == [-1, -1, -1, 0, 2, 3, -1]
    assert prompts.delay_s.tolist() == [0, 0, 0, 1.5, 0, 0, 0]
    assert prompts.arrivals_s is None


def test_a_session_that_comes_again_is_a_new_one(tmp_path):
    prompts = make(dataset(tmp_path, turn("a"), turn("a", delay=10)), 5)
    assert prompts.after.tolist() == [-1, 0, -1, 2, -1]
    assert prompts.delay_s.tolist() == [0, 0.01, 0, 0.01, 0]
    assert "new one" in prompts.notes[0]


def test_a_later_turn_may_do_without_a_timestamp(tmp_path):
    rows = (turn("a", timestamp=10), turn("a", delay=5), turn("b", timestamp=30))
    assert make(dataset(tmp_path, *rows), 3).arrivals_s.tolist() == [0, 0, 0.02]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([None, "a", "b", 3]), min_size=1, max_size=12), st.integers(0, 40))
def test_turns_follow_in_file_order_within_a_pass(tmp_path_factory, sessions, count):
    prompts = make(dataset(tmp_path_factory.mktemp("turns"), *map(turn, sessions)), count)
    last: dict[object, int] = {}
    for index in range(count):
        if index % len(sessions) == 0:
            last = {}
        session = sessions[index % len(sessions)]
        assert prompts.after[index] == (-1 if session is None else last.get(session, -1))
        last[session] = index
    assert prompts.after.dtype == np.int64
