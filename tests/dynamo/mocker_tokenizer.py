"""A model folder that the mocker can serve: a tokenizer with 36,000 readable tokens, and no weights at all.

The mocker answers with token ids of its own choice; a small tokenizer does not know them and the text is
empty. This one says the same on every machine: it is written out, not trained.
"""

from __future__ import annotations

import json
import string
from itertools import product
from pathlib import Path

from engines.setup.vocabulary import CHAT_TEMPLATE, SPECIAL, byte_level_tokenizer, byte_symbols

SPACE = "Ġ"
"""GPT-2's symbol for a blank."""
CONTEXT_TOKENS = 32_768


def merges() -> tuple[tuple[str, str], ...]:
    """What joins letters to pairs, pairs and letters to triples, and blanks to triples."""
    letters = string.ascii_lowercase
    pairs = tuple(product(letters, letters))
    triples = tuple((a + b, c) for a, b in pairs for c in letters)
    return (*pairs, *triples, *((SPACE, pair + last) for pair, last in triples))


def tokens() -> tuple[str, ...]:
    """The vocabulary by id: special tokens, bytes, then what each merge makes."""
    return (*SPECIAL, *byte_symbols(), *("".join(merge) for merge in merges()))


def write_model(folder: Path) -> None:
    """Everything that the frontend and the mocker read of a model."""
    tokenizer = byte_level_tokenizer(tokens(), merges())
    bos, eos, pad = SPECIAL
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": pad,
        "model_max_length": CONTEXT_TOKENS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    shape = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(tokens()),
        "max_position_embeddings": CONTEXT_TOKENS,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    generation = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "do_sample": False}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", settings),
        ("config.json", shape),
        ("generation_config.json", generation),
    ):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), "utf-8")
