"""What the workload's tests share: prompts, their bodies, datasets, and a small real tokenizer."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from mtpbench.records import Workload
from mtpbench.workload import WORDS, Prompts, draw_lengths

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}\n    {% generation %}<|{{ m['role'] }}|>\n"
    "{{ m['content'] | trim }}{{ eos_token }}\n{% endgeneration %}{% endfor %}\n"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SPECIAL = ("<s>", "</s>", "<|user|>", "<|system|>", "<|assistant|>")


def make(workload, count=4, seed=3, model="m", usage=False):
    lengths = draw_lengths(workload, count, seed)
    return Prompts(workload, lengths, seed, model_name=model, continuous_usage=usage)


def parse(prompts, index):
    return json.loads(prompts.body(index))


def ids(prompts, index):
    return parse(prompts, index)["prompt"]


def said(prompts, index):
    (message,) = parse(prompts, index)["messages"]
    return message["content"].split(" ")


def dataset(folder, *lines, **changes):
    path = Path(folder) / "data.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return Workload(isl=64, osl=8, prompts="dataset", dataset_path=str(path), **changes)


@functools.cache
def _trained():
    """A byte-level BPE that keeps our words whole; it splits at spaces, as those of today's models do."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?[a-zA-Z]+|\s+|[^\sa-zA-Z]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=list(SPECIAL),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    text = " ".join(WORDS)
    tokenizer.train_from_iterator([text, *WORDS, "a system of rules that nobody wrote"] * 4, trainer)
    return tokenizer


def write_model(folder, template=TEMPLATE, **settings):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _trained().save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, **settings}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def count_tokens(text):
    """By the library itself, not by our code."""
    return len(_trained().encode(text, add_special_tokens=False))
