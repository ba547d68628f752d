"""Chat prompts of exact length, held against the tokenizers library and jinja templates of real shapes."""

from __future__ import annotations

import json
import os

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from workload_files import SPECIAL, TEMPLATE, count_tokens, dataset, make, parse, said, write_model

from mtpbench.errors import SweepError
from mtpbench.records import Workload
from mtpbench.workload import WORDS
from mtpbench.workload.tokenizer import LEAST_WORDS, load_tokenizer

OVERHEAD = 7
"""<s>, <|user|>, newline, </s>, newline, <|assistant|>, newline."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


def chat(model, **changes):
    return Workload(**{"isl": 400, "osl": 8, "chat_template": True, "tokenizer": str(model), **changes})


def as_served(content):
    return f"<s><|user|>\n{content}</s>\n<|assistant|>\n"


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_templated_prompt_has_exactly_the_tokens_asked_for(model, share):
    prompts = make(chat(model, range_ratio=0.02, prefix_share=share), 30)
    assert prompts.exact
    assert prompts.lengths.prompt_tokens.min() < 60
    for index in range(30):
        text = as_served(parse(prompts, index)["messages"][0]["content"])
        assert count_tokens(text) == prompts.lengths.prompt_tokens[index]


def test_the_template_s_opening_counts_as_shared(model):
    prompts = make(chat(model, isl=100, prefix_share=0.5), 20)
    texts = [said(prompts, i) for i in range(20)]
    assert {len(text) for text in texts} == {100 - OVERHEAD}
    assert len({tuple(text[: 50 - 3]) for text in texts}) == 1  # <s>, <|user|>, newline come before
    assert len({text[50 - 3] for text in texts}) > 15


def test_the_tokenizer_knows_its_words_and_the_template_s_own_tokens(model):
    tokenizer = load_tokenizer(str(model))
    assert (tokenizer.overhead, tokenizer.opening) == (OVERHEAD, 3)
    assert len(tokenizer.words) >= LEAST_WORDS
    assert load_tokenizer(str(model)) is tokenizer


def test_a_template_that_is_no_file_is_refused_and_not_passed_over(tmp_path):
    """The model's other template would count other tokens."""
    write_model(tmp_path)
    os.mkfifo(tmp_path / "chat_template.jinja")
    with pytest.raises(SweepError, match=r"chat_template.jinja: .*is a FIFO; a regular file is needed"):
        make(chat(tmp_path))


def test_a_tokenizer_file_is_as_good_as_its_folder(model):
    assert make(chat(model / "tokenizer.json")).body(2) == make(chat(model)).body(2)


def test_a_template_may_stand_in_a_file_of_its_own_or_in_a_list(tmp_path):
    alone = write_model(tmp_path / "alone", template=None)
    (alone / "chat_template.jinja").write_text(TEMPLATE)
    named = [{"name": "tool", "template": "x"}, {"name": "default", "template": TEMPLATE}]
    listed = write_model(tmp_path / "listed", template=named)
    assert load_tokenizer(str(alone)).overhead == load_tokenizer(str(listed)).overhead == OVERHEAD


def test_a_template_with_a_system_text_costs_what_it_costs(tmp_path):
    said_first = "<|system|>\na system of rules {{ strftime_now('%Y') }}\n"
    system = "{% if messages[0]['role'] != 'system' %}" + said_first + "{% endif %}"
    model = write_model(tmp_path, template=system + TEMPLATE)
    prompts = make(chat(model, isl=60), 2)
    assert load_tokenizer(str(model)).overhead > OVERHEAD + 5
    assert load_tokenizer(str(model)).count(parse(prompts, 0)["messages"]) == 60


def test_what_the_template_is_told_counts(tmp_path):
    """Thinking on or off is another prompt: its length is as exact as any other's."""
    thinks = "{% if thinking %}<|assistant|>let us think {{ 'long ' * effort }}{% endif %}"
    model = write_model(tmp_path, template=TEMPLATE + thinks)
    plain = make(chat(model, isl=60), 1)
    told = make(chat(model, isl=60, chat_template_kwargs={"thinking": True, "effort": 3}), 1)
    assert len(said(plain, 0)) == 60 - OVERHEAD
    assert len(said(told, 0)) < len(said(plain, 0)) - 5
    body = parse(told, 0)
    assert body["chat_template_kwargs"] == {"thinking": True, "effort": 3}
    tokenizer = load_tokenizer(str(model), '{"thinking": true, "effort": 3}')
    assert tokenizer.count(body["messages"]) == 60


def test_a_prompt_shorter_than_the_template_is_refused_with_both_numbers(model):
    make(chat(model, isl=OVERHEAD + 1))
    with pytest.raises(SweepError, match=f"a prompt of 7 tokens .* takes {OVERHEAD} and .* at least 8"):
        make(chat(model, isl=OVERHEAD))
    with pytest.raises(SweepError, match="a prompt of 4 tokens"):
        make(chat(model, isl=400, range_ratio=0.01), 1)


def test_a_dataset_is_counted_with_the_tokenizer(tmp_path, model):
    talk = [{"role": "system", "content": "mean"}, {"role": "user", "content": "take house"}]
    lines = ({"prompt": "black horse"}, {"messages": talk}, {"input_length": 600, "hash_ids": [1, 2]})
    prompts = make(dataset(tmp_path, *lines, chat_template=True, tokenizer=str(model)), 4)
    assert prompts.exact
    assert prompts.lengths.prompt_tokens.tolist() == [9, OVERHEAD + 4 + 3, 600, 9]
    assert count_tokens(as_served(" ".join(said(prompts, 2)))) == 600
    with pytest.raises(SweepError, match="too short") as caught:
        make(dataset(tmp_path, {"input_length": 3}, chat_template=True, tokenizer=str(model)))
    assert caught.value.line == 1


def test_missing_files_say_what_would_be_right(tmp_path):
    with pytest.raises(SweepError, match=r"a model's folder with tokenizer\.json"):
        make(chat(tmp_path / "nowhere"))
    model = write_model(tmp_path / "a", template=None)
    with pytest.raises(SweepError, match=r"no chat template: .* chat_template.jinja"):
        make(chat(model))
    (model / "tokenizer_config.json").unlink()
    with pytest.raises(SweepError, match=r"tokenizer_config.json: .*there is no such file; the folder of"):
        make(chat(model))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for %}", "its chat template is wrong"),
        ("{{ raise_exception('no system') }}", "refuses the messages: no system"),
        ("{{ messages[0].content }}{{ messages[0].content }}", "writes a message 2 times"),
        ("hello", "writes a message 0 times"),
        ("{{ messages.append(1) }}", "refuses the messages"),
    ],
)
def test_a_template_that_can_t_be_used_is_refused(tmp_path, template, message):
    with pytest.raises(SweepError, match=message) as caught:
        make(chat(write_model(tmp_path, template=template)))
    assert "workload.tokenizer" in str(caught.value)


def test_words_that_cost_more_where_they_meet_are_found_out(tmp_path):
    twice = TEMPLATE.replace("m['content'] | trim", "m['content'] | replace('e t', 'e  t')")
    with pytest.raises(SweepError, match="request 0 was to have 400 tokens and has"):
        make(chat(write_model(tmp_path, template=twice)))


def test_a_tokenizer_without_whole_words_is_refused(tmp_path):
    model = write_model(tmp_path)
    letters = Tokenizer(
        models.BPE({symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters.save(str(model / "tokenizer.json"))
    with pytest.raises(SweepError, match=r"only 0 of \d+ plain words are one token each, and at least 64"):
        make(chat(model))


def test_sentencepiece_s_way_of_writing_spaces_is_as_good(tmp_path):
    model = write_model(tmp_path)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS), "\n", *WORDS] * 4, trainer)
    tokenizer.save(str(model / "tokenizer.json"))
    prompts = make(chat(model))
    text = as_served(parse(prompts, 1)["messages"][0]["content"])
    assert len(tokenizer.encode(text, add_special_tokens=False)) == 400


def test_what_is_no_tokenizer_is_refused(tmp_path):
    model = write_model(tmp_path)
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(SweepError, match="this is no tokenizer"):
        make(chat(model))
    (model / "tokenizer_config.json").write_text("[]")
    write_model(tmp_path / "b")
    (tmp_path / "b" / "tokenizer_config.json").write_text("{")
    with pytest.raises(SweepError, match="not JSON"):
        make(chat(tmp_path / "b"))


def test_a_tokenizer_that_truncates_does_not_hide_length(tmp_path):
    model = write_model(tmp_path)
    content = json.loads((model / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 20, "strategy": "LongestFirst", "stride": 0}
    (model / "tokenizer.json").write_text(json.dumps(content))
    assert make(chat(model)).exact


def test_of_a_very_long_prompt_only_the_ends_are_counted(model, monkeypatch):
    monkeypatch.setattr("mtpbench.workload.tokenizer._COUNTED_WORDS", 50)
    tokenizer = load_tokenizer(str(model))
    content = " ".join(tokenizer.words[:64] * 3)
    assert tokenizer.count_prompt(content) == count_tokens(as_served(content)) == OVERHEAD + 192
    assert tokenizer.count_prompt("zzzqq " + content) > OVERHEAD + 193
    assert tokenizer.count_prompt(content.replace(" ", " zzzqq ", 100)) > OVERHEAD + 193
