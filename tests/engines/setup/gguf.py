"""A crafted GLM-4-MoE (one dense layer, one MTP layer with experts), as a GGUF file for llama.cpp.

Source: the GGUF specification, version 3, and the key and tensor names of llama.cpp's `glm4moe`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from engines.setup.chain import CHAIN, Chain
from engines.setup.vocabulary import BOS, CHAT_TEMPLATE, EOS, MERGE, PAD, SPECIAL, TOKENS
from engines.setup.weights import HIDDEN, Matrix, make_core, ones, zeros

Value = bool | int | float | str | list[str] | list[int]

ARCHITECTURE = "glm4moe"
HEADS, KV_HEADS, HEAD_WIDTH, FEED_FORWARD, EXPERTS = 4, 2, 32, 64, 2
_ALIGNMENT = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_F32_TENSOR = 0
_NORMAL_TOKEN, _CONTROL_TOKEN = 1, 3
_SIGMOID = 2


def craft(path: Path, chain: Chain = CHAIN) -> None:
    """Write the checkpoint."""
    write_gguf(path, {**_hyperparameters(), **_tokenizer()}, _tensors(chain))


def write_gguf(path: Path, metadata: Mapping[str, Value], tensors: Mapping[str, Matrix]) -> None:
    """A GGUF file of float32 tensors."""
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        head += _string(key) + _typed(value)
    data = bytearray()
    for name, tensor in tensors.items():
        # The fastest dimension comes first, the reverse of numpy's order.
        shape = tensor.shape[::-1]
        head += _string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", _F32_TENSOR, len(data))
        data += np.ascontiguousarray(tensor, "<f4").tobytes()
        data += bytes(-len(data) % _ALIGNMENT)
    head += bytes(-len(head) % _ALIGNMENT)
    path.write_bytes(bytes(head + data))


def _hyperparameters() -> dict[str, Value]:
    own: dict[str, Value] = {
        "vocab_size": len(TOKENS),
        "context_length": 32768,
        "embedding_length": HIDDEN,
        "block_count": 2,
        "nextn_predict_layers": 1,
        "leading_dense_block_count": 1,
        "feed_forward_length": FEED_FORWARD,
        "expert_feed_forward_length": FEED_FORWARD,
        "expert_count": EXPERTS,
        "expert_used_count": 1,
        "expert_shared_count": 1,
        "expert_weights_scale": 1.0,
        "expert_weights_norm": True,
        "expert_gating_func": _SIGMOID,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": HEAD_WIDTH,
        "attention.value_length": HEAD_WIDTH,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.dimension_count": HEAD_WIDTH // 2,
        "rope.freq_base": 10000.0,
    }
    named = {f"{ARCHITECTURE}.{key}": value for key, value in own.items()}
    return {"general.architecture": ARCHITECTURE, "general.name": "crafted", "general.file_type": 0, **named}


def _tokenizer() -> dict[str, Value]:
    kinds = [_CONTROL_TOKEN if text in SPECIAL else _NORMAL_TOKEN for text in TOKENS]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": list(TOKENS),
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [" ".join(MERGE)],
        "tokenizer.ggml.bos_token_id": BOS,
        "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.ggml.padding_token_id": PAD,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def _tensors(chain: Chain) -> dict[str, Matrix]:
    core = make_core(chain)
    dense = {
        "ffn_gate": zeros(FEED_FORWARD, HIDDEN),
        "ffn_up": zeros(FEED_FORWARD, HIDDEN),
        "ffn_down": zeros(HIDDEN, FEED_FORWARD),
    }
    mtp = {
        "ffn_gate_inp": zeros(EXPERTS, HIDDEN),
        "ffn_gate_exps": zeros(EXPERTS, FEED_FORWARD, HIDDEN),
        "ffn_up_exps": zeros(EXPERTS, FEED_FORWARD, HIDDEN),
        "ffn_down_exps": zeros(EXPERTS, HIDDEN, FEED_FORWARD),
        "ffn_gate_shexp": zeros(FEED_FORWARD, HIDDEN),
        "ffn_up_shexp": zeros(FEED_FORWARD, HIDDEN),
        "ffn_down_shexp": zeros(HIDDEN, FEED_FORWARD),
        # GLM joins the token's embedding, then the previous hidden state.
        "nextn.eh_proj": np.concatenate([core.projection, zeros(HIDDEN, HIDDEN)], axis=1),
        "nextn.enorm": ones(HIDDEN),
        "nextn.hnorm": ones(HIDDEN),
        "nextn.shared_head_norm": ones(HIDDEN),
    }
    layers = ({**_attention(), **dense}, {**_attention(), **mtp})
    return {
        "token_embd.weight": core.embedding,
        "output_norm.weight": ones(HIDDEN),
        "output.weight": core.output,
        **{
            f"blk.{i}.{name}.weight": tensor
            for i, layer in enumerate(layers)
            for name, tensor in layer.items()
        },
        "blk.1.exp_probs_b.bias": zeros(EXPERTS),
    }


def _attention() -> dict[str, Matrix]:
    return {
        "attn_norm": ones(HIDDEN),
        "attn_q": zeros(HEADS * HEAD_WIDTH, HIDDEN),
        "attn_k": zeros(KV_HEADS * HEAD_WIDTH, HIDDEN),
        "attn_v": zeros(KV_HEADS * HEAD_WIDTH, HIDDEN),
        "attn_output": zeros(HIDDEN, HEADS * HEAD_WIDTH),
        "post_attention_norm": ones(HIDDEN),
    }


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _typed(value: Value) -> bytes:
    """A metadata value with its type in front; whole numbers are unsigned outside of arrays."""
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    kind = _INT32 if isinstance(value[0], int) else _STRING
    items = [struct.pack("<i", item) if isinstance(item, int) else _string(item) for item in value]
    return struct.pack("<IIQ", _ARRAY, kind, len(value)) + b"".join(items)
