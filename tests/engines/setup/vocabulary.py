"""A tokenizer small enough to write by hand: three special tokens, one token for each byte, and one merge."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.setup.chain import NEVER, Chain

SPECIAL = ("<|bos|>", "<|eos|>", "<|pad|>")
MERGE = ("t", "h")
"""llama.cpp refuses a byte-pair vocabulary without any merge."""
CHAT_TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}assistant: "


def byte_symbols() -> tuple[str, ...]:
    """GPT-2's printable symbol for each byte: itself where it is printable, else one from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in printable]
    return tuple(chr(byte) if byte in printable else chr(0x100 + hidden.index(byte)) for byte in range(256))


TOKENS = (*SPECIAL, *byte_symbols(), "".join(MERGE))
BOS, EOS, PAD = range(3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Classes:
    """Which class of the chain each token belongs to, and the token that stands for each class.

    `says` are the letters that the model says; `never` is what it never says, for wrong drafts.
    """

    of_token: tuple[int, ...]
    says: tuple[int, ...]
    never: int


def classify(chain: Chain) -> Classes:
    """Every token in a class of the chain: its letters in theirs, the others by their number."""
    says = tuple(TOKENS.index(letter) for letter in chain.letters)
    of_token = [token % chain.length for token in range(len(TOKENS))]
    for position, token in enumerate(says):
        of_token[token] = position
    return Classes(of_token=tuple(of_token), says=says, never=TOKENS.index(NEVER))


def byte_level_tokenizer(tokens: Sequence[str], merges: Iterable[Sequence[str]]) -> dict[str, Any]:
    """The content of a `tokenizer.json`: byte-level BPE over `tokens` by id, the special ones first."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": text, **special} for i, text in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: token for token, text in enumerate(tokens)},
            "merges": [list(merge) for merge in merges],
        },
    }


def write_tokenizer(folder: Path) -> None:
    """`tokenizer.json`, `tokenizer_config.json` and `generation_config.json` of a model folder for vLLM."""
    tokenizer = byte_level_tokenizer(TOKENS, [MERGE])
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[BOS],
        "eos_token": SPECIAL[EOS],
        "pad_token": SPECIAL[PAD],
        "model_max_length": 32768,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    generation = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD, "do_sample": False}
    for name, content in (
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", settings),
        ("generation_config.json", generation),
    ):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")
