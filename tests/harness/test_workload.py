"""Lengths and prompts: exact, seeded, the same bytes for both arms."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mtpbench.errors import SweepError
from mtpbench.records import Workload
from mtpbench.workload import WORDS, Prompts, draw_lengths

RANDOM = Workload(isl=64, osl=8, range_ratio=0.5)
CHAT = Workload(isl=64, osl=8, chat_template=True, temperature=0.5, ignore_eos=False)


def prompts(workload=RANDOM, count=4, seed=3, **more):
    return Prompts(workload, draw_lengths(workload, count, seed), seed, **more)


def parse(body):
    path, raw = body
    return path, json.loads(raw)


def dataset(tmp_path, *lines, **changes):
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return Workload(isl=64, osl=8, prompts="dataset", dataset_path=str(path), **changes)


def test_lengths_lie_in_their_range_and_do_not_depend_on_how_many_are_drawn():
    few, many = draw_lengths(RANDOM, 10, 1), draw_lengths(RANDOM, 1000, 1)
    assert (many.prompt_tokens.min(), many.prompt_tokens.max()) == (32, 64)
    assert (many.output_tokens.min(), many.output_tokens.max()) == (4, 8)
    assert np.array_equal(few.prompt_tokens, many.prompt_tokens[:10])
    assert np.array_equal(few.output_tokens, many.output_tokens[:10])
    assert not np.array_equal(many.prompt_tokens, draw_lengths(RANDOM, 1000, 2).prompt_tokens)


def test_a_random_prompt_is_a_completion_of_exactly_as_many_token_ids_as_asked():
    made = prompts()
    for index in range(len(made)):
        path, body = parse(made.body(index, "tiny", True))
        assert path == "/v1/completions"
        assert len(body.pop("prompt")) == made.lengths.prompt_tokens[index]
        assert body == {
            "model": "tiny",
            "max_tokens": made.lengths.output_tokens[index],
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "ignore_eos": True,
        }


@pytest.mark.parametrize("vocabulary", [8, 259, 32_000, 129_280])
def test_token_ids_come_from_the_middle_of_the_vocabulary(vocabulary):
    made = prompts(Workload(isl=2000, osl=8), 1, vocabulary=vocabulary)
    ids = parse(made.body(0, "m", False))[1]["prompt"]
    assert vocabulary // 8 <= min(ids)
    assert max(ids) < vocabulary - vocabulary // 8
    assert len(ids) == 2000
    assert len(set(ids)) > min(4, vocabulary // 4)


def test_the_workload_s_own_vocabulary_bounds_its_token_ids():
    made = prompts(Workload(isl=2000, osl=8, vocabulary=256), 1)
    ids = parse(made.body(0, "m", False))[1]["prompt"]
    assert 32 <= min(ids) < max(ids) < 224


def test_a_vocabulary_that_is_too_small_is_refused():
    with pytest.raises(SweepError, match="at least 8"):
        prompts(vocabulary=7)


@pytest.mark.parametrize("workload", [RANDOM, CHAT])
def test_the_same_seed_gives_the_same_bytes_and_every_request_its_own_prompt(workload):
    first, again, other = prompts(workload), prompts(workload), prompts(workload, seed=4)
    bodies = [first.body(i, "m", True) for i in range(4)]
    assert bodies == [again.body(i, "m", True) for i in reversed(range(4))][::-1]
    assert len(set(bodies)) == 4
    assert bodies[0] != other.body(0, "m", True)


def test_a_longer_run_sends_the_same_first_requests():
    assert prompts(count=2).body(1, "m", True) == prompts(count=50).body(1, "m", True)


def test_with_a_chat_template_a_prompt_is_one_message_of_as_many_words():
    path, body = parse(prompts(CHAT).body(0, "tiny", False))
    (message,) = body.pop("messages")
    assert path == "/v1/chat/completions"
    assert message["role"] == "user"
    assert len(message["content"].split()) == 64
    assert set(message["content"].split()) <= set(WORDS)
    assert body == {
        "model": "tiny",
        "max_tokens": 8,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_dataset_is_sent_in_order_with_its_own_output_lengths(tmp_path):
    workload = dataset(tmp_path, {"prompt": "one"}, "", {"prompt": "zwei ü", "output_tokens": 3})
    made = prompts(workload, 3)
    bodies = [parse(made.body(i, "m", False)) for i in range(3)]
    assert [(path, body["prompt"], body["max_tokens"]) for path, body in bodies] == [
        ("/v1/completions", "one", 8),
        ("/v1/completions", "zwei ü", 3),
        ("/v1/completions", "one", 8),
    ]
    assert made.lengths.output_tokens.tolist() == [8, 3, 8]
    (note,) = made.notes
    assert "2 lines were reused for 3 requests" in note


def test_a_dataset_that_is_long_enough_needs_no_note(tmp_path):
    assert prompts(dataset(tmp_path, {"prompt": "a"}, {"prompt": "b"}), 2).notes == ()


def test_dataset_prompts_and_messages_go_through_the_chat_template(tmp_path):
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    made = prompts(dataset(tmp_path, {"prompt": "a"}, {"messages": talk}, chat_template=True), 2)
    bodies = [parse(made.body(i, "m", False)) for i in range(2)]
    assert [path for path, _ in bodies] == ["/v1/chat/completions"] * 2
    assert [body["messages"] for _, body in bodies] == [[{"role": "user", "content": "a"}], talk]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "not JSON"),
        ("[1]", 'either "prompt" or "messages"'),
        ({"text": "a"}, 'either "prompt" or "messages"'),
        ({"prompt": "a", "messages": []}, 'either "prompt" or "messages"'),
        ({"prompt": ""}, "non-empty text"),
        ({"messages": [{"role": "user", "content": "u"}]}, "chat_template: true"),
        ({"prompt": "a", "output_tokens": 0}, "at least 1, not 0"),
        ({"prompt": "a", "output_tokens": True}, "at least 1, not True"),
    ],
)
def test_a_bad_dataset_line_is_named_by_file_and_line(tmp_path, line, message):
    with pytest.raises(SweepError, match=message) as caught:
        prompts(dataset(tmp_path, {"prompt": "good"}, line))
    assert (caught.value.path, caught.value.line) == (tmp_path / "data.jsonl", 2)


@pytest.mark.parametrize("messages", [[], "hello", [{"role": "user"}], [7]])
def test_messages_of_another_shape_are_refused(tmp_path, messages):
    with pytest.raises(SweepError, match="non-empty list of"):
        prompts(dataset(tmp_path, {"messages": messages}, chat_template=True))


def test_a_dataset_that_is_missing_or_empty_is_refused(tmp_path):
    with pytest.raises(SweepError, match="can't be read"):
        prompts(Workload(isl=1, osl=1, prompts="dataset", dataset_path=str(tmp_path / "none.jsonl")))
    with pytest.raises(SweepError, match="empty"):
        prompts(dataset(tmp_path, ""))
    with pytest.raises(SweepError, match="needs the path"):
        prompts(Workload(isl=1, osl=1, prompts="dataset"))
