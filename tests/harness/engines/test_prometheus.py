from __future__ import annotations

from pathlib import Path

import pytest

from mtpbench.engines import vllm
from mtpbench.engines.prometheus import spec_counters

CAPTURES = Path(__file__).resolve().parents[2] / "fixtures" / "captures"


def test_counters_of_a_real_vllm_with_three_drafts() -> None:
    counters = vllm.counters((CAPTURES / "vllm_crafted_mtp3_metrics_after.txt").read_text())
    assert counters is not None
    assert (counters.drafts, counters.draft_tokens, counters.accepted_tokens) == (3799, 11397, 5690)
    assert counters.per_position == (1904, 1897, 1889)


def test_counters_of_a_real_llama_cpp_server_have_its_prefix() -> None:
    text = (CAPTURES / "llamacpp_crafted_mtp3_metrics_after.txt").read_text()
    assert spec_counters(text, "vllm:") is None
    counters = spec_counters(text, "llamacpp:")
    assert counters is not None
    assert counters.accepted_tokens == pytest.approx(sum(counters.per_position))


def test_label_sets_are_summed_and_absent_counters_are_none() -> None:
    text = "\n".join(
        f'vllm:spec_decode_num_{name}{{engine="{engine}"}} {value}'
        for engine in (0, 1)
        for name, value in (("drafts_total", 5), ("draft_tokens_total", 15), ("accepted_tokens_total", 7))
    )
    counters = spec_counters(text, "vllm:")
    assert counters is not None
    assert (counters.drafts, counters.draft_tokens, counters.accepted_tokens) == (10, 30, 14)
    assert counters.per_position == ()
    assert spec_counters("vllm:num_requests_running 3\n", "vllm:") is None
