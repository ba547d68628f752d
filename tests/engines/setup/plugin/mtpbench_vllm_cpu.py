"""A vLLM plugin that mends two faults of speculative decoding in the CPU build of vLLM 0.32.

1. Pinned ("synthetic") acceptance is not implemented in the CPU kernels: the engine dies at the first
   request. Here it is, with the meaning of the GPU kernels: the draft at each position is accepted with its
   conditional rate.
2. `expand_kernel` writes into a copy where the tensor is not int64 (temperature, top-p and top-k are
   float32), so that sampling under speculation reads uninitialised memory.

vLLM calls `register` in every process that it starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Tensor = Any


def register() -> None:
    """Put the mended kernels in the place of the stock ones."""
    import torch
    from vllm.utils import cpu_triton_utils as kernels

    stock_greedy = kernels._rejection_greedy_sample_kernel_impl
    stock_random = kernels._rejection_random_sample_kernel_impl

    def expand(
        output: Tensor,
        values: Tensor,
        cumulative: Tensor,
        replace_from: Any,
        replace_to: Any,
        MAX_NUM_TOKENS: int | None = None,  # noqa: N803 - the stock kernel's name
    ) -> None:
        del MAX_NUM_TOKENS
        counts = torch.diff(cumulative, prepend=cumulative.new_zeros(1)).long()
        replacement = torch.as_tensor(replace_to, dtype=values.dtype)
        expanded = torch.where(values == replace_from, replacement, values).repeat_interleave(counts)
        output[: expanded.numel()].copy_(expanded)

    def greedy(
        output: Tensor,
        cumulative: Tensor,
        drafts: Tensor,
        target: Tensor,
        bonus: Tensor,
        is_greedy: Tensor | None,
        max_spec_len: int,
        uniform: Tensor = None,
        rates: Tensor = None,
        SYNTHETIC_MODE: bool = False,  # noqa: N803 - the stock kernel's name
    ) -> None:
        if not SYNTHETIC_MODE:
            stock_greedy(output, cumulative, drafts, target, bonus, is_greedy, max_spec_len)
            return
        accept_at_rates(
            (output, cumulative, drafts, target, bonus.view(-1)),
            lambda request: is_greedy is None or bool(is_greedy[request]),
            uniform,
            rates,
        )

    def random(
        output: Tensor,
        cumulative: Tensor,
        drafts: Tensor,
        draft_probs: Tensor,
        target_probs: Tensor,
        bonus: Tensor,
        recovered: Tensor,
        uniform: Tensor,
        is_greedy: Tensor,
        max_spec_len: int,
        vocab_size: int,
        rates: Tensor = None,
        NO_DRAFT_PROBS: bool = False,  # noqa: N803 - the stock kernel's name
        SYNTHETIC_MODE: bool = False,  # noqa: N803 - the stock kernel's name
    ) -> None:
        if not SYNTHETIC_MODE:
            stock_random(
                output,
                cumulative,
                drafts,
                draft_probs,
                target_probs,
                bonus,
                recovered,
                uniform,
                is_greedy,
                max_spec_len,
                vocab_size,
                None,
                NO_DRAFT_PROBS,
                False,
            )
            return
        accept_at_rates(
            (output, cumulative, drafts, recovered, bonus.view(-1)),
            lambda request: not bool(is_greedy[request]),
            uniform,
            rates,
        )

    kernels._expand_kernel_impl = expand
    kernels._rejection_greedy_sample_kernel_impl = greedy
    kernels._rejection_random_sample_kernel_impl = random


def accept_at_rates(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    concerns: Callable[[int], bool],
    uniform: Tensor,
    rates: Tensor,
) -> None:
    """Accept drafts by chance until the first refusal, which the fallback token replaces.

    Args:
        tensors: output (requests, drafts + 1), cumulative draft counts (requests,), drafts and fallbacks (all
            drafts,), bonus tokens (requests,).
        concerns: whether a request is this kernel's; the others are the other kernel's.
        uniform: one number in [0, 1) for each draft.
        rates: chance of acceptance by position, given that the one before was accepted.
    """
    output, cumulative, drafts, fallback, bonus = tensors
    start = 0
    for request, end in enumerate(cumulative.tolist()):
        if concerns(request):
            for position in range(end - start):
                draft = int(drafts[start + position])
                if draft < 0 or float(uniform[start + position]) >= float(rates[position]):
                    output[request, position] = int(fallback[start + position])
                    break
                output[request, position] = draft
            else:
                output[request, end - start] = int(bonus[request])
        start = end
