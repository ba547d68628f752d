"""SGLang's CPU kernels in plain torch: those that SGLang 0.5.23 calls to serve, draft and verify on a CPU.

PyPI's `sglang-kernel` is built for NVIDIA's GPUs; the CPU kernels are built from SGLang's own tree. All other
kernels have a native path that SGLang takes by itself as long as `convert_weight_packed` is missing here,
which is its test for AMX. Slow, and right for small models: chains of drafts (MTP), trees (n-gram), greedy
verification.

In all of them `pool` (requests, tokens) has the cache slot of each token of each request, `requests` (batch,)
the rows of this batch in it, `lengths` (batch,) how many tokens each one has.
"""

from __future__ import annotations

import ctypes
import sys
import types
from typing import Any

import torch

Tensor = Any

__version__ = "0.4.10+torch"
_library = torch.library.Library("sgl_kernel", "DEF")


def copy_all_layer_kv_cache_cpu(addresses: Tensor, strides: Tensor, to: Tensor, source: Tensor) -> None:
    """Copy rows of every layer's cache.

    Args:
        addresses: (layers,) where each layer's cache begins in memory.
        strides: (layers,) bytes of a row.
        to: (rows,) which rows are written.
        source: (rows,) which rows are read, all of them before any is written.
    """
    for address, stride in zip(addresses.tolist(), strides.tolist(), strict=True):
        rows = [ctypes.string_at(address + row * stride, stride) for row in source.tolist()]
        for target, row in zip(to.tolist(), rows, strict=True):
            ctypes.memmove(address + target * stride, row, stride)


def assign_req_to_token_pool_cpu(
    requests: Tensor, pool: Tensor, start: Tensor, end: Tensor, slots: Tensor, width: int
) -> None:
    """Write the slots of new tokens, one request's after the other's, into the pool."""
    del width
    at = 0
    for request, first, last in zip(requests.tolist(), start.tolist(), end.tolist(), strict=True):
        pool[request, first:last] = slots[at : at + last - first].to(pool.dtype)
        at += last - first


def assign_extend_cache_locs_cpu(
    requests: Tensor, pool: Tensor, start: Tensor, end: Tensor, out: Tensor, width: int
) -> None:
    """Read the slots of new tokens, one request's after the other's, from the pool."""
    del width
    at = 0
    for request, first, last in zip(requests.tolist(), start.tolist(), end.tolist(), strict=True):
        out[at : at + last - first] = pool[request, first:last].to(out.dtype)
        at += last - first


def assign_draft_cache_locs_contiguous_cpu(
    requests: Tensor, pool: Tensor, lengths: Tensor, out: Tensor, width: int, topk: int, steps: int
) -> None:
    """Read the slots in which each request's drafts lie: those after its own tokens."""
    ends = lengths + topk * steps
    assign_extend_cache_locs_cpu(requests, pool, lengths, ends, out, width)


def fill_bonus_tokens_cpu(tokens: Tensor, accepted: Tensor, bonus: Tensor, stride: int) -> None:
    """Pick each request's last accepted token; `accepted` counts it."""
    rows = torch.arange(accepted.shape[0])
    bonus.copy_(tokens.reshape(-1)[rows * stride + accepted.long() - 1].to(bonus.dtype))


def fill_accept_out_cache_loc_cpu(index: Tensor, slots: Tensor, out: Tensor) -> None:
    """Move the slots of accepted drafts together; -1 in `index` says that there is none."""
    kept = index[index > -1].long()
    out[: kept.shape[0]] = slots[kept].to(out.dtype)


def rotate_input_ids_cpu(
    tokens: Tensor, start: Tensor, counts: Tensor, new: Tensor, select: Tensor | None = None
) -> None:
    """Shift each request's tokens to the left by one; its new one comes last, or where `select` says."""
    new = new.reshape(-1)
    for row, (first, count) in enumerate(zip(start.tolist(), counts.tolist(), strict=True)):
        if count <= 0:
            continue
        last = first + count - 1
        tokens[first:last] = tokens[first + 1 : last + 1].clone()
        tokens[last if select is None else int(select[row])] = new[row].to(tokens.dtype)


def build_tree_kernel_efficient_cpu(
    parents: Tensor,
    selected: Tensor,
    lengths: Tensor,
    mask: Tensor,
    positions: Tensor,
    index: Tensor,
    next_token: Tensor,
    next_sibling: Tensor,
    topk: int,
    depth: int,
    width: int,
    mode: int,
) -> None:
    """Describe the drafts to verify: a chain, the one form that mtpbench asks for.

    Args:
        parents: needed for trees only, as are `selected`, `next_sibling` and `depth`.
        selected: which drafts of a tree were taken.
        lengths: (batch,) tokens before the drafts.
        mask: (batch, width, width) flat; which of the drafts each one sees.
        positions: (batch * width,) where in its sequence each one is.
        index: (batch, width) where each one is in this batch.
        next_token: (batch, width) the draft after each one, -1 after the last.
        next_sibling: (batch, width) -1 everywhere.
        topk: branches of the tree at each draft.
        depth: steps of the tree.
        width: drafts of a request, the token before them included.
        mode: what `mask` is; 1 for drafts alone.

    Raises:
        NotImplementedError: it is a tree, or the mask has what was before the drafts as well.
    """
    del parents, selected, next_sibling, depth
    if topk != 1 or mode != 1:
        raise NotImplementedError(f"a tree of drafts (topk {topk}) with a mask of kind {mode}")
    batch, own = lengths.shape[0], torch.arange(width)
    mask.view(-1).copy_(torch.ones(width, width, dtype=torch.bool).tril().repeat(batch, 1).view(-1))
    positions.copy_((lengths.long()[:, None] + own).view(-1))
    index.copy_((torch.arange(batch)[:, None] * width + own).view_as(index))
    next_token.copy_(torch.cat((own[1:], torch.tensor([-1]))).expand(batch, width))


def reconstruct_indices_from_tree_mask(
    mask: Tensor,
    lengths: Tensor,
    positions: Tensor,
    index: Tensor,
    next_token: Tensor,
    next_sibling: Tensor,
    batch: int,
    width: int,
) -> None:
    """Read a tree of drafts off its mask; the arguments are those of `build_tree_kernel_efficient_cpu`.

    `next_token` has each draft's first child, `next_sibling` its next sibling, -1 where there is none.
    """
    ancestors = mask.view(batch, width, width).bool() & torch.ones(width, width, dtype=torch.bool).tril(-1)
    positions.copy_((ancestors.sum(-1) + lengths.long()[:, None]).view(-1))
    index.copy_(torch.arange(batch * width).view_as(index))
    next_token.fill_(-1)
    next_sibling.fill_(-1)
    for row in range(batch):
        earliest_child: dict[int, int] = {}
        for draft in reversed(range(1, width)):
            above = ancestors[row, draft].nonzero()
            if above.numel():
                parent = int(above[-1])
                next_sibling[row, draft] = earliest_child.get(parent, -1)
                next_token[row, parent] = earliest_child[parent] = draft


def verify_tree_greedy_cpu(
    predicts: Tensor,
    accept_index: Tensor,
    accept_token_num: Tensor,
    candidates: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    target_predict: Tensor,
) -> None:
    """Walk down each tree as long as a draft is what the model itself says; the names are SGLang's.

    Args:
        predicts: (batch * width,) gets the model's token at each accepted draft.
        accept_index: (batch, steps) gets where the accepted ones are, the token before the drafts first.
        accept_token_num: (batch,) gets how many drafts were accepted.
        candidates: (batch, width) the drafts, after the token before them.
        retrive_index: (batch, width) where each one is in this batch.
        retrive_next_token: (batch, width) each one's first child, -1 where there is none.
        retrive_next_sibling: (batch, width) its next sibling, -1 where there is none.
        target_predict: (batch, width) what the model says after each one.
    """
    target = target_predict.reshape(-1)
    for row in range(candidates.shape[0]):
        last, node, accepted = int(retrive_index[row, 0]), 0, 0
        accept_index[row, 0] = last
        while accepted + 1 < accept_index.shape[1]:
            node = int(retrive_next_token[row, node])
            while node != -1 and int(candidates[row, node]) != int(target[last]):
                node = int(retrive_next_sibling[row, node])
            if node == -1:
                break
            predicts[last] = target[last]
            last = int(retrive_index[row, node])
            accepted += 1
            accept_index[row, accepted] = last
        accept_token_num[row] = accepted
        predicts[last] = target[last]


def build_draft_decode_metadata_cpu(
    pool: Tensor, requests: Tensor, lengths: Tensor, topk: int, steps: int, width: int
) -> Tensor:
    """The slots that each branch of drafts sees, (batch * topk, tokens): its request's, then its own."""
    del width
    rows = torch.zeros((requests.shape[0] * topk, int(lengths.max()) + steps), dtype=pool.dtype)
    for at, (request, length) in enumerate(zip(requests.tolist(), lengths.tolist(), strict=True)):
        for branch in range(topk):
            first = length + branch * steps
            row = rows[at * topk + branch]
            row[:length] = pool[request, :length]
            row[length : length + steps] = pool[request, first : first + steps]
    return rows


def _decode_attention(
    query: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k_scale: float,
    v_scale: float,
    out: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    slots: Tensor | None,
    logits: Tensor,
    pool: Tensor,
    requests: Tensor,
    lengths: Tensor,
    scale: float,
    cap: float,
    cross: bool,
    window: int,
    encoder_lengths: Tensor | None,
    sinks: Tensor | None,
) -> None:
    """One new token a request; it is not in the cache yet, where `key` is given."""
    del k_scale, v_scale, logits, cross, encoder_lengths
    if key is not None:
        k_cache[slots] = key.reshape(-1, *k_cache.shape[1:]).to(k_cache.dtype)
        v_cache[slots] = value.reshape(-1, *v_cache.shape[1:]).to(v_cache.dtype)
    for at, (request, length) in enumerate(zip(requests.tolist(), lengths.tolist(), strict=True)):
        rows = pool[request, :length].long()
        seen = _within(torch.ones((1, length), dtype=torch.bool), window)
        out[at] = _attend(query[at : at + 1], k_cache[rows], v_cache[rows], (scale, cap), seen, sinks)[0]


def _extend_attention(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    out: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k_scale: float,
    v_scale: float,
    pool: Tensor,
    requests: Tensor,
    lengths: Tensor,
    new: Tensor,
    start: Tensor,
    longest: int,
    scale: float,
    cap: float,
    cross: bool,
    window: int,
    encoder_lengths: Tensor | None,
    sinks: Tensor | None,
    tree: Tensor | None,
    causal: bool,
) -> None:
    """`new` tokens a request, which are in the cache already; `tree` says which of them each one sees."""
    del key, value, k_scale, v_scale, longest, cross, encoder_lengths
    passed = 0
    for at, (request, length) in enumerate(zip(requests.tolist(), lengths.tolist(), strict=True)):
        count, first = int(new[at]), int(start[at])
        rows = pool[request, :length].long()
        seen = torch.ones((count, length), dtype=torch.bool)
        if tree is not None:
            drafts = tree.view(-1)[passed : passed + count * count].view(count, count)
            seen[:, length - count :] = drafts.bool()
            passed += count * count
        elif causal:
            seen = seen.tril(length - count)
        seen = _within(seen, window)
        part = slice(first, first + count)
        out[part] = _attend(query[part], k_cache[rows], v_cache[rows], (scale, cap), seen, sinks)


def _within(seen: Tensor, window: int) -> Tensor:
    """Of what each token sees, the last `window`; all of it where there is none (0)."""
    count, length = seen.shape
    return seen.triu(length - count - window + 1) if window > 0 else seen


def _attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    scaling: tuple[float, float],
    seen: Tensor,
    sinks: Tensor | None,
) -> Tensor:
    """Attention of (tokens, heads, width) to (seen tokens, KV heads, width).

    Args:
        query: one row a token and head.
        keys: as many as were seen.
        values: the same.
        scaling: the factor, and the cap of the scores or 0.
        seen: (tokens, seen tokens) which ones a token attends to.
        sinks: not known here.

    Raises:
        NotImplementedError: there are sinks.
    """
    if sinks is not None:
        raise NotImplementedError("attention sinks")
    scale, cap = scaling
    repeat = query.shape[1] // keys.shape[1]
    keys = keys.float().repeat_interleave(repeat, dim=1)
    values = values.float().repeat_interleave(repeat, dim=1)
    scores = torch.einsum("nhd,mhd->hnm", query.float(), keys) * scale
    if cap > 0:
        scores = cap * torch.tanh(scores / cap)
    scores = scores.masked_fill(~seen[None], float("-inf"))
    return torch.einsum("hnm,mhd->nhd", torch.softmax(scores, -1), values).to(query.dtype)


_library.define(
    "decode_attention_cpu(Tensor query, Tensor(a!) k_cache, Tensor(b!) v_cache, float k_scale, "
    "float v_scale, Tensor(c!) output, Tensor? key, Tensor? value, Tensor? loc, Tensor attn_logits, "
    "Tensor req_to_token, Tensor req_pool_indices, Tensor seq_lens, float sm_scale, float logit_cap, "
    "bool is_cross_attn, int sliding_window, Tensor? encoder_lens, Tensor? sinks) -> ()"
)
_library.define(
    "extend_attention_cpu(Tensor q_extend, Tensor? k_extend, Tensor? v_extend, Tensor(a!) o_extend, "
    "Tensor k_buffer, Tensor v_buffer, float k_scale, float v_scale, Tensor req_to_token, "
    "Tensor req_pool_indices, Tensor seq_lens, Tensor extend_seq_lens, Tensor extend_start_loc, "
    "int max_len_extend, float sm_scale, float logit_cap, bool is_cross_attn, int sliding_window, "
    "Tensor? encoder_lens, Tensor? sinks, Tensor? tree_mask, bool is_causal) -> ()"
)
_library.impl("decode_attention_cpu", _decode_attention, "CompositeExplicitAutograd")
_library.impl("extend_attention_cpu", _extend_attention, "CompositeExplicitAutograd")

for _name in (
    "fused_sigmoid_mul_cpu",
    "fused_qk_gemma_rmsnorm_cpu",
    "fused_qk_gemma_rmsnorm_with_gate_cpu",
    "fused_qkvzba_split_reshape_cat_contiguous_cpu",
):
    # SGLang looks them up when it imports all its models; those that call them are not served here.
    _library.define(f"{_name}() -> ()")

# SGLang imports this one from a module of the package.
_speculative = types.ModuleType("sgl_kernel.speculative")
_speculative.reconstruct_indices_from_tree_mask = reconstruct_indices_from_tree_mask  # type: ignore[attr-defined]
sys.modules[_speculative.__name__] = _speculative
