"""Dataset files: every kind of line, what is reused, what is refused; traces, timestamps and sessions."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_files import dataset, ids, make, parse, said

from mtpbench.errors import SweepError
from mtpbench.records import DEMONSTRATION, MOST_CATEGORIES, Workload
from mtpbench.workload import count_lines

TALK = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]


def test_lines_are_sent_in_order_with_their_own_output_lengths(tmp_path):
    lines = ({"prompt": "one"}, "", {"prompt": "zwei ü \n", "output_tokens": 3}, "  ", {"prompt": "\u2028"})
    workload = dataset(tmp_path, *lines)
    prompts = make(workload, 4)
    assert [(parse(prompts, i)["prompt"], parse(prompts, i)["max_tokens"]) for i in range(4)] == [
        ("one", 8),
        ("zwei ü \n", 3),
        ("\u2028", 8),
        ("one", 8),
    ]
    assert prompts.path == "/v1/completions"
    assert prompts.lengths.output_tokens.tolist() == [8, 3, 8, 8]
    assert not prompts.exact
    (note,) = prompts.notes
    assert "3 lines were reused for 4 requests" in note
    assert count_lines(workload) == 3


def test_a_dataset_that_is_long_enough_needs_no_note(tmp_path):
    assert make(dataset(tmp_path, {"prompt": "a"}, {"prompt": "b"}), 2).notes == ()


def test_token_ids_are_sent_as_they_are_and_their_length_is_exact(tmp_path):
    prompts = make(dataset(tmp_path, {"prompt_token_ids": [5, 0, 7]}, {"input_length": 600}), 2)
    assert ids(prompts, 0) == [5, 0, 7]
    assert len(ids(prompts, 1)) == 600
    assert prompts.lengths.prompt_tokens.tolist() == [3, 600]
    assert prompts.exact


def test_all_kinds_mix_in_a_chat_dataset(tmp_path):
    lines = ({"prompt": "a", "id": 9}, {"messages": TALK, "delay": None}, {"input_length": 5})
    prompts = make(dataset(tmp_path, *lines, chat_template=True), 3)
    assert prompts.path == "/v1/chat/completions"
    assert parse(prompts, 0)["messages"] == [{"role": "user", "content": "a"}]
    assert parse(prompts, 1)["messages"] == TALK
    assert len(said(prompts, 2)) == 5
    assert not prompts.exact


def test_a_request_has_the_same_bytes_however_many_there_are(tmp_path):
    lines = ({"input_length": 900, "hash_ids": [7, 8]}, {"input_length": 30}, {"prompt": "x"})
    workload = dataset(tmp_path, *lines, {"input_length": 3_000_000})
    few, many = make(workload, 1), make(workload, 9)
    assert few.body(0) == many.body(0)
    assert many.body(1) == make(workload, 2).body(1)
    assert ids(many, 1) != ids(many, 5)  # the same line again, without hash ids: a prompt of its own
    assert ids(many, 0) == ids(many, 4)


def test_of_a_long_file_only_the_rows_in_use_keep_their_prompts(tmp_path):
    prompts = make(dataset(tmp_path, *({"prompt": f"p{i}"} for i in range(50))), 3)
    assert len(prompts._dataset.payloads) == 3
    assert len(prompts._dataset) == 50


def test_requests_have_the_categories_of_their_lines_however_often_they_are_used(tmp_path):
    lines = ({"prompt": "a", "category": "math"}, {"prompt": "b"}, {"prompt": "c", "category": " coding "})
    prompts = make(dataset(tmp_path, *lines), 5)
    assert prompts.categories.tolist() == ["math", None, "coding", "math", None]
    assert make(dataset(tmp_path, *lines), 2).categories.tolist() == ["math", None]
    assert "category" not in parse(prompts, 0)
    assert make(dataset(tmp_path, {"prompt": "a", "category": None}), 2).categories is None
    assert make(Workload(isl=8, osl=8), 2).categories is None


def test_more_categories_than_a_table_has_rows_for_are_refused_where_they_begin(tmp_path):
    lines = [{"prompt": "a", "category": f"kind {number}"} for number in range(MOST_CATEGORIES)]
    assert len({*make(dataset(tmp_path, *lines, *lines), 130).categories}) == MOST_CATEGORIES
    workload = dataset(tmp_path, *lines, lines[0], {"prompt": "a", "category": "kind of its own"})
    with pytest.raises(
        SweepError, match=f"'kind of its own' is one more than the {MOST_CATEGORIES}"
    ) as caught:
        make(workload, 1)
    assert caught.value.line == MOST_CATEGORIES + 2


def test_the_demonstration_set_is_found_by_its_name_and_has_eleven_kinds_that_say_what_they_are():
    workload = Workload(isl=64, osl=8, prompts="dataset", dataset_path=DEMONSTRATION, chat_template=True)
    prompts = make(workload, 60)
    kinds = Counter(prompts.categories[:44].tolist())
    assert len(kinds) == 11
    assert set(kinds.values()) == {4}
    assert len({prompts.body(i) for i in range(44)}) == 44
    assert "44 lines were reused for 60" in prompts.notes[0]
    path = resources.files("mtpbench").joinpath("data/demonstration_prompts.jsonl")
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert all("no benchmark" in line["note"] for line in lines)
    assert not workload.chat_template_kwargs
    assert workload.demonstrates
    assert not dataclasses.replace(workload, dataset_path="/a/demonstration").demonstrates


def test_natural_prompts_are_sent_as_they_are_whatever_isl_says(tmp_path):
    long = "word " * 500
    prompts = make(dataset(tmp_path, {"prompt": "short"}, {"prompt": long}), 2)
    assert [parse(prompts, i)["prompt"] for i in range(2)] == ["short", long]


BAD = [
    ("{broken", "not JSON"),
    (b"\xff", "not JSON"),
    ("[1]", "a JSON object was expected"),
    ({}, "exactly one of .* not none of them"),
    ({"prompt": "a", "messages": TALK}, "exactly one of .* not 'prompt' and 'messages'"),
    ({"prompt": ""}, '"prompt" is a non-empty text'),
    ({"prompt": 3}, '"prompt" is a non-empty text, not 3'),
    ({"prompt_token_ids": []}, "non-empty list of whole numbers"),
    ({"prompt_token_ids": [1, True]}, "non-empty list of whole numbers"),
    ({"prompt_token_ids": [1, -1]}, "non-empty list of whole numbers"),
    ({"prompt_token_ids": "12"}, "non-empty list of whole numbers"),
    ({"prompt_token_ids": [999]}, "token id 999 is not below the workload's vocabulary of 500"),
    ({"messages": TALK}, "set chat_template: true"),
    ({"prompt": "a", "output_tokens": 0}, '"output_tokens" is a whole number of at least 1, not 0'),
    ({"prompt": "a", "output_length": True}, '"output_length" is a whole number of at least 1, not True'),
    ({"prompt": "a", "output_length": 1, "output_tokens": 2}, "two names of one number"),
    ({"input_length": 0}, '"input_length" is a whole number'),
    ({"input_length": 2.5}, '"input_length" is a whole number'),
    ({"input_length": 513, "hash_ids": [1]}, "too few hash_ids: .* 513 is 2 blocks of 512 .* there are 1"),
    ({"input_length": 512, "hash_ids": [1, 2]}, "too many hash_ids"),
    ({"input_length": 5, "hash_ids": ["a"]}, '"hash_ids" is a list of whole numbers'),
    ({"prompt": "a", "hash_ids": [1]}, '"hash_ids" are for a trace line'),
    ({"prompt": "a", "timestamp": -1}, '"timestamp" is a number of milliseconds, at least 0, not -1'),
    ({"prompt": "a", "timestamp": "0"}, '"timestamp" is a number of milliseconds'),
    ({"prompt": "a", "timestamp": 5}, "the first one has none"),
    ({"prompt": "a", "delay": 5}, 'give the line a "session_id" too'),
    ({"prompt": "a", "delay": -5, "session_id": "s"}, '"delay" is a number of milliseconds'),
    ({"prompt": "a", "delay": 5, "session_id": "s"}, "this is the first turn of 's'"),
    ({"prompt": "a", "category": 5}, '"category" is a text of at most 60 characters, not 5'),
    ({"prompt": "a", "category": ["math"]}, '"category" is a text of at most 60 characters'),
    ({"prompt": "a", "category": " "}, '"category" is a text of at most 60 characters'),
    ({"prompt": "a", "category": "x" * 61}, '"category" is a text of at most 60 characters'),
    ({"prompt": "a", "category": "a\nb"}, '"category" holds the character U.000A'),
    ({"prompt": "a", "category": "\x1b[1m"}, '"category" holds the character U.001B'),
    ({"prompt": "a", "session_id": [1]}, '"session_id" is a text or a whole number'),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_a_bad_line_is_refused_with_its_file_and_number(tmp_path, line, message):
    raw = line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"prompt":"fine"}\n\n' + raw + b"\n")
    workload = Workload(isl=8, osl=8, prompts="dataset", dataset_path=str(path), vocabulary=500)
    with pytest.raises(SweepError, match=message) as caught:
        make(workload, 1)
    assert (caught.value.path, caught.value.line) == (path, 3)


@pytest.mark.parametrize("messages", [[], "hello", [{"role": "user"}], [7], [{"content": "x"}]])
def test_messages_of_another_shape_are_refused(tmp_path, messages):
    with pytest.raises(SweepError, match="non-empty list of"):
        make(dataset(tmp_path, {"messages": messages}, chat_template=True))


def test_token_ids_go_through_no_chat_template(tmp_path):
    with pytest.raises(SweepError, match="leave chat_template out"):
        make(dataset(tmp_path, {"prompt_token_ids": [1]}, chat_template=True))


@pytest.mark.parametrize("use", [make, count_lines])
def test_a_dataset_that_is_missing_or_empty_is_refused(tmp_path, use):
    with pytest.raises(SweepError, match="there is no such file"):
        use(Workload(isl=1, osl=1, prompts="dataset", dataset_path=str(tmp_path / "none.jsonl")))
    with pytest.raises(SweepError, match="empty"):
        use(dataset(tmp_path, ""))
    with pytest.raises(SweepError, match="needs the path"):
        use(Workload(isl=1, osl=1, prompts="dataset"))


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


@pytest.mark.parametrize(
    ("key", "times", "unit_s"),
    [
        ("timestamp", [0, 150, 400, 900], 0.001),
        ("timestamp_ms", [0, 0.5, 1.2, 1.9], 0.001),
        ("timestamp_s", [0, 0.5, 1.2, 1.9], 1.0),
        ("timestamp", [0, 0, 0, 0], 0.001),
    ],
)
def test_a_key_names_the_unit_of_timestamps(tmp_path, key, times, unit_s):
    prompts = make(dataset(tmp_path, *({"input_length": 5, key: time} for time in times)), len(times))
    assert prompts.trace_arrivals_s() == pytest.approx([time * unit_s for time in times])


@pytest.mark.parametrize(
    "times",
    [
        [0, 0.5, 1.2, 1.9],
        [0.0, 7.25, 15.5, 21.0],
        [0, 1, 3, 4],
        [1_764_460_800 + n for n in range(5)],
        [n * 200_000_000 for n in range(5)],
    ],
)
def test_timestamps_that_can_hardly_be_milliseconds_are_refused(tmp_path, times):
    """A trace in seconds, played as milliseconds, is a burst; one in nanoseconds never ends."""
    prompts = make(dataset(tmp_path, *({"input_length": 5, "timestamp": time} for time in times)), 5)
    with pytest.raises(SweepError, match='if it is in seconds, name it "timestamp_s"'):
        prompts.trace_arrivals_s()


def test_a_line_has_one_time(tmp_path):
    with pytest.raises(SweepError, match="'timestamp' and 'timestamp_s' are names of one time"):
        make(dataset(tmp_path, {"input_length": 5, "timestamp": 1, "timestamp_s": 1}), 1)
