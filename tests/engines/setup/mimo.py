"""A crafted MiMo (dense attention, one MTP layer), as a Hugging Face folder for vLLM."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from engines.setup.chain import CHAIN, Chain
from engines.setup.vocabulary import BOS, EOS, PAD, TOKENS, write_tokenizer
from engines.setup.weights import HIDDEN, Matrix, make_core, ones, write_safetensors, zeros

HEADS, KV_HEADS, HEAD_WIDTH, FEED_FORWARD = 4, 2, 32, 64


def craft(folder: Path, chain: Chain = CHAIN, layers: int = 1) -> None:
    """Write the checkpoint; the number of layers decides what a draft costs beside a step."""
    folder.mkdir(parents=True, exist_ok=True)
    core = make_core(chain)
    mtp = "model.mtp_layers.0."
    norms = ("token_layernorm", "hidden_layernorm", "final_layernorm")
    tensors = {
        "model.embed_tokens.weight": core.embedding,
        "lm_head.weight": core.output,
        "model.norm.weight": ones(HIDDEN),
        **{name: tensor for i in range(layers) for name, tensor in _block(f"model.layers.{i}.").items()},
        **_block(mtp),
        **{f"{mtp}{name}.weight": ones(HIDDEN) for name in norms},
        # MiMo joins the previous hidden state, then the token's embedding.
        f"{mtp}input_proj.weight": np.concatenate([zeros(HIDDEN, HIDDEN), core.projection], axis=1),
    }
    write_safetensors(folder / "model.safetensors", tensors)
    write_tokenizer(folder)
    config = {
        "architectures": ["MiMoForCausalLM"],
        # MiMo is Qwen2 with MTP layers; this type spares vLLM the model's own code.
        "model_type": "qwen2",
        "dtype": "bfloat16",
        "vocab_size": len(TOKENS),
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "num_nextn_predict_layers": 1,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), "utf-8")


def _block(prefix: str) -> dict[str, Matrix]:
    """A transformer layer that adds nothing."""
    shapes = {
        "self_attn.q_proj.weight": (HEADS * HEAD_WIDTH, HIDDEN),
        "self_attn.q_proj.bias": (HEADS * HEAD_WIDTH,),
        "self_attn.k_proj.weight": (KV_HEADS * HEAD_WIDTH, HIDDEN),
        "self_attn.k_proj.bias": (KV_HEADS * HEAD_WIDTH,),
        "self_attn.v_proj.weight": (KV_HEADS * HEAD_WIDTH, HIDDEN),
        "self_attn.v_proj.bias": (KV_HEADS * HEAD_WIDTH,),
        "self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD_WIDTH),
        "mlp.gate_proj.weight": (FEED_FORWARD, HIDDEN),
        "mlp.up_proj.weight": (FEED_FORWARD, HIDDEN),
        "mlp.down_proj.weight": (HIDDEN, FEED_FORWARD),
    }
    norms = ("input_layernorm.weight", "post_attention_layernorm.weight")
    return {prefix + name: zeros(*shape) for name, shape in shapes.items()} | {
        prefix + name: ones(HIDDEN) for name in norms
    }
