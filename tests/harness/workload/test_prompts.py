"""Random prompts: exact, unique from the first token on, the same bytes in every run, and never copied."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_files import ids, make, parse, said

from mtpbench.errors import SweepError
from mtpbench.records import Workload
from mtpbench.workload import WORDS, Lengths, Prompts, draw_lengths
from mtpbench.workload.content import MOST_PIECES, join_buffers
from mtpbench.workload.prompts import HARNESS_KEYS, check_extra_body

RANDOM = Workload(isl=64, osl=8, range_ratio=0.5)
CHAT = Workload(isl=64, osl=8, chat_template=True, temperature=0.5, ignore_eos=False)


@settings(max_examples=20, deadline=None)
@given(
    isl=st.integers(1, 3000),
    ratio=st.floats(0.1, 1),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
    vocabulary=st.sampled_from([8, 9, 259, 32_000, 129_280]),
    chat=st.booleans(),
)
def test_every_prompt_is_json_of_exactly_as_many_symbols(isl, ratio, share, seed, vocabulary, chat):
    shape = {"range_ratio": ratio, "prefix_share": share, "vocabulary": vocabulary, "chat_template": chat}
    prompts = make(Workload(isl=isl, osl=8, **shape), 3, seed)
    for index in range(3):
        symbols = said(prompts, index) if chat else ids(prompts, index)
        assert len(symbols) == prompts.lengths.prompt_tokens[index]
        assert chat or vocabulary // 8 <= min(symbols) <= max(symbols) < vocabulary - vocabulary // 8
        assert not chat or set(symbols) <= set(WORDS)
        assert b"".join(prompts.pieces(index)) == prompts.body(index)


def test_a_completion_asks_for_what_the_workload_says():
    prompts = make(RANDOM, model="tiny ü", usage=True)
    body = parse(prompts, 1)
    assert prompts.path == "/v1/completions"
    assert len(body.pop("prompt")) == prompts.lengths.prompt_tokens[1]
    assert body == {
        "model": "tiny ü",
        "max_tokens": prompts.lengths.output_tokens[1],
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "ignore_eos": True,
    }
    assert prompts.exact


def test_a_chat_completion_is_one_message_of_words_and_not_exact():
    prompts = make(CHAT)
    body = parse(prompts, 0)
    assert prompts.path == "/v1/chat/completions"
    (message,) = body.pop("messages")
    assert message["role"] == "user"
    assert body == {
        "model": "m",
        "max_tokens": 8,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert not prompts.exact


@pytest.mark.parametrize("base", [RANDOM, CHAT])
def test_a_request_has_exactly_the_keys_that_the_workload_adds(base):
    further = {"top_p": 0.9, "return_spec_tokens_details": True, "logit_bias": {"5": -1}}
    told = {"thinking": True, "reasoning_effort": "high"} if base is CHAT else {}
    body = parse(make(dataclasses.replace(base, extra_body=further, chat_template_kwargs=told)), 0)
    plain = parse(make(base), 0)
    expected = {**plain, **further, **({"chat_template_kwargs": told} if told else {})}
    assert body == expected


def test_no_key_that_the_harness_sets_may_be_set_besides():
    """Else a key would stand twice in a body, or mean something else than the record says."""
    chat = dataclasses.replace(CHAT, chat_template_kwargs={"thinking": False}, ignore_eos=True)
    sets = {*parse(make(RANDOM), 0), *parse(make(chat, usage=True), 0)}
    assert sets <= set(HARNESS_KEYS)
    for key in HARNESS_KEYS:
        with pytest.raises(ValueError, match=f"^`{key}` is not for extra keys: "):
            check_extra_body(["top_p", key])


@pytest.mark.parametrize("workload", [RANDOM, CHAT])
def test_a_request_has_the_same_bytes_however_many_there_are(workload):
    few, many, other = make(workload, 3), make(workload, 500), make(workload, 3, seed=4)
    assert [few.body(i) for i in range(3)] == [many.body(i) for i in reversed(range(3))][::-1]
    assert few.body(0) != other.body(0)
    assert len({many.body(i) for i in range(500)}) == 500


def test_prompts_are_unique_from_their_first_token_on():
    prompts = make(Workload(isl=40, osl=8), 5000)
    assert len({ids(prompts, i)[0] for i in range(5000)}) == 5000
    tiny = make(Workload(isl=40, osl=8, vocabulary=8), 5000)
    assert len({tuple(ids(tiny, i)[:16]) for i in range(5000)}) == 5000
    assert len({tuple(ids(tiny, i)[:2]) for i in range(36)}) == 36  # all there are of six ids


def test_the_prompts_of_two_points_have_nothing_in_common():
    points = [make(RANDOM, 50, seed=seed) for seed in range(3)]
    assert len({tuple(ids(prompts, i)[:8]) for prompts in points for i in range(50)}) == 150


@pytest.mark.parametrize("chat", [False, True])
def test_a_shared_prefix_is_shared_and_what_follows_is_not(chat):
    workload = Workload(isl=400, osl=8, range_ratio=0.25, prefix_share=0.5, chat_template=chat)
    prompts = make(workload, 40)
    read = said if chat else ids
    texts = [read(prompts, i) for i in range(40)]
    longest = max(texts, key=len)
    for text in texts:
        shared = round(0.5 * len(text))
        assert text[:shared] == longest[:shared]
    tails = {tuple(text[round(0.5 * len(text)) :][:16]) for text in texts}
    assert len(tails) == 40
    for one, two in itertools.pairwise(sorted(texts, key=len)):
        assert one[round(0.5 * len(two)) :] != two[round(0.5 * len(two)) : len(one)]


def test_a_share_of_one_makes_equal_prompts_up_to_their_length():
    prompts = make(Workload(isl=50, osl=8, range_ratio=0.5, prefix_share=1.0), 30)
    texts = sorted((ids(prompts, i) for i in range(30)), key=len)
    assert all(two[: len(one)] == one for one, two in itertools.pairwise(texts))
    equal = make(Workload(isl=50, osl=8, prefix_share=1.0), 30)
    assert len({equal.body(i) for i in range(30)}) == 1


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("chat", [False, True])
def test_the_long_part_is_never_copied(chat, share):
    prompts = make(Workload(isl=100_000, osl=8, prefix_share=share, chat_template=chat), 20)
    views = [piece for i in range(20) for piece in prompts.pieces(i) if isinstance(piece, memoryview)]
    assert len({id(view.obj) for view in views}) == 1
    copied = [len(piece) for i in range(20) for piece in prompts.pieces(i) if isinstance(piece, bytes)]
    assert max(copied) < 600
    assert max(len(prompts.pieces(i)) for i in range(20)) <= 5


def test_a_prompt_of_a_million_tokens_is_exact():
    prompts = make(Workload(isl=1_000_000, osl=8), 2)
    (text,) = [piece for piece in prompts.pieces(1) if isinstance(piece, memoryview)]
    assert bytes(text).count(b",") + 1 + 32 == 1_000_000
    assert json.loads(b"[" + bytes(text) + b"]")[-1] > 0


def test_random_prompts_wait_for_nothing():
    prompts = make(RANDOM, 3)
    assert prompts.arrivals_s is None
    assert prompts.after.tolist() == [-1, -1, -1]
    assert prompts.delay_s.tolist() == [0, 0, 0]
    assert prompts.notes == ()
    assert len(prompts) == 3
    with pytest.raises(SweepError, match="timestamp"):
        prompts.trace_arrivals_s()


def test_no_requests_are_no_trouble():
    assert len(make(RANDOM, 0)) == 0


def test_lengths_that_are_passed_in_count_also_beyond_the_workload_s_own():
    lengths = Lengths(prompt_tokens=np.array([1, 5000]), output_tokens=np.array([2, 3]))
    prompts = Prompts(RANDOM, lengths, 1, model_name="m", continuous_usage=False)
    assert [len(ids(prompts, i)) for i in range(2)] == [1, 5000]


def test_a_vocabulary_that_is_too_small_is_refused():
    with pytest.raises(SweepError, match="at least 8"):
        make(Workload(isl=8, osl=8, vocabulary=7))


@given(st.lists(st.binary(min_size=1, max_size=3), min_size=1, max_size=40), st.integers(1, 50))
def test_too_many_buffers_are_joined_to_fewer(parts, most):
    joined = join_buffers(parts, most)
    assert b"".join(joined) == b"".join(parts)
    assert len(joined) <= most
    assert join_buffers(parts) is parts
    assert MOST_PIECES < 1024


def test_lengths_lie_in_their_range_and_do_not_depend_on_how_many_are_drawn():
    few, many = draw_lengths(RANDOM, 10, 1), draw_lengths(RANDOM, 1000, 1)
    assert (many.prompt_tokens.min(), many.prompt_tokens.max()) == (32, 64)
    assert (many.output_tokens.min(), many.output_tokens.max()) == (4, 8)
    assert np.array_equal(few.prompt_tokens, many.prompt_tokens[:10])
    assert np.array_equal(few.output_tokens, many.output_tokens[:10])
    assert not np.array_equal(many.prompt_tokens, draw_lengths(RANDOM, 1000, 2).prompt_tokens)


def test_the_numbers_stay_what_they_were():
    """Old results stay comparable: these are the lengths of version 0.1."""
    drawn = draw_lengths(Workload(isl=8192, osl=1024, range_ratio=0.8), 4, 7)
    assert drawn.prompt_tokens.tolist() == [7980, 7816, 7989, 6737]
    assert drawn.output_tokens.tolist() == [877, 876, 851, 911]
