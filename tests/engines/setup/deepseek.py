"""A crafted DeepSeek-V3 (latent attention, experts, one MTP layer), as a Hugging Face folder for vLLM."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.setup.chain import CHAIN, Chain
from engines.setup.vocabulary import BOS, EOS, PAD, TOKENS, write_tokenizer
from engines.setup.weights import HIDDEN, Matrix, make_core, ones, write_safetensors, zeros

HEADS, FEED_FORWARD = 2, 64
Q_RANK, KV_RANK, ROPE_WIDTH, NOPE_WIDTH, VALUE_WIDTH = 64, 512, 64, 128, 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """How much the model has to carry, none of which changes what it says: its experts are zero.

    Args:
        layers: of the model without the MTP layer; the first is dense, the others have experts.
        experts: routed experts of a layer, one of which is used for each token.
        expert_width: width of an expert.
    """

    layers: int = 1
    experts: int = 2
    expert_width: int = 32


TOY = Shape()


def craft(folder: Path, chain: Chain = CHAIN, shape: Shape = TOY) -> None:
    """Write the checkpoint: a dense layer, layers with experts, and an MTP layer with experts."""
    folder.mkdir(parents=True, exist_ok=True)
    core = make_core(chain)
    mtp = f"model.layers.{shape.layers}."
    tensors = {
        "model.embed_tokens.weight": core.embedding,
        "lm_head.weight": core.output,
        "model.norm.weight": ones(HIDDEN),
        **_attention("model.layers.0."),
        **_feed_forward("model.layers.0.mlp.", FEED_FORWARD),
        f"{mtp}enorm.weight": ones(HIDDEN),
        f"{mtp}hnorm.weight": ones(HIDDEN),
        # DeepSeek joins the token's embedding, then the previous hidden state.
        f"{mtp}eh_proj.weight": np.concatenate([core.projection, zeros(HIDDEN, HIDDEN)], axis=1),
        f"{mtp}embed_tokens.weight": core.embedding,
        f"{mtp}shared_head.norm.weight": ones(HIDDEN),
        f"{mtp}shared_head.head.weight": core.output,
    }
    for layer in range(1, shape.layers + 1):
        tensors |= _expert_layer(f"model.layers.{layer}.", shape)
    write_safetensors(folder / "model.safetensors", tensors)
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(_config(shape), indent=1), "utf-8")


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "dtype": "bfloat16",
        "vocab_size": len(TOKENS),
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "moe_intermediate_size": shape.expert_width,
        "num_hidden_layers": shape.layers,
        "num_nextn_predict_layers": 1,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "n_routed_experts": shape.experts,
        "n_shared_experts": 1,
        "num_experts_per_tok": 1,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "ep_size": 1,
        "aux_loss_alpha": 0.001,
        "seq_aux": True,
        "q_lora_rank": Q_RANK,
        "kv_lora_rank": KV_RANK,
        "qk_rope_head_dim": ROPE_WIDTH,
        "qk_nope_head_dim": NOPE_WIDTH,
        "v_head_dim": VALUE_WIDTH,
        "max_position_embeddings": 32768,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }


def _expert_layer(prefix: str, shape: Shape) -> dict[str, Matrix]:
    tensors = {
        **_attention(prefix),
        **_feed_forward(f"{prefix}mlp.shared_experts.", shape.expert_width),
        f"{prefix}mlp.gate.weight": zeros(shape.experts, HIDDEN),
        f"{prefix}mlp.gate.e_score_correction_bias": zeros(shape.experts),
    }
    for expert in range(shape.experts):
        tensors |= _feed_forward(f"{prefix}mlp.experts.{expert}.", shape.expert_width)
    return tensors


def _attention(prefix: str) -> dict[str, Matrix]:
    return {
        f"{prefix}self_attn.q_a_proj.weight": zeros(Q_RANK, HIDDEN),
        f"{prefix}self_attn.q_a_layernorm.weight": ones(Q_RANK),
        f"{prefix}self_attn.q_b_proj.weight": zeros(HEADS * (NOPE_WIDTH + ROPE_WIDTH), Q_RANK),
        f"{prefix}self_attn.kv_a_proj_with_mqa.weight": zeros(KV_RANK + ROPE_WIDTH, HIDDEN),
        f"{prefix}self_attn.kv_a_layernorm.weight": ones(KV_RANK),
        f"{prefix}self_attn.kv_b_proj.weight": zeros(HEADS * (NOPE_WIDTH + VALUE_WIDTH), KV_RANK),
        f"{prefix}self_attn.o_proj.weight": zeros(HIDDEN, HEADS * VALUE_WIDTH),
        f"{prefix}input_layernorm.weight": ones(HIDDEN),
        f"{prefix}post_attention_layernorm.weight": ones(HIDDEN),
    }


def _feed_forward(prefix: str, width: int) -> dict[str, Matrix]:
    return {
        f"{prefix}gate_proj.weight": zeros(width, HIDDEN),
        f"{prefix}up_proj.weight": zeros(width, HIDDEN),
        f"{prefix}down_proj.weight": zeros(HIDDEN, width),
    }
