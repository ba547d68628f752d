from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from measured import make_point
from mtpbench.engines import llamacpp, sglang, simulated, trtllm, vllm
from mtpbench.engines.parts import spec_counters
from mtpbench.metrics.acceptance import measure_acceptance
from mtpbench.metrics.window import Window
from mtpbench.records import CounterSample, SpecCounters

CAPTURES = Path(__file__).resolve().parents[2] / "fixtures" / "captures"


def test_counters_of_a_real_vllm_with_three_drafts() -> None:
    counters = vllm.counters((CAPTURES / "vllm_crafted_mtp3_metrics_after.txt").read_text())
    assert counters is not None
    assert (counters.drafts, counters.draft_tokens, counters.accepted_tokens) == (3799, 11397, 5690)
    assert counters.per_position == (1904, 1897, 1889)


TWO_RANKS = """\
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0"} 10
vllm:spec_decode_num_drafts_total{engine="1"} 20
# TYPE vllm:spec_decode_num_draft_tokens_total counter
vllm:spec_decode_num_draft_tokens_total{engine="0"} 20
vllm:spec_decode_num_draft_tokens_total{engine="1"} 40
# TYPE vllm:spec_decode_num_accepted_tokens_total counter
vllm:spec_decode_num_accepted_tokens_total{engine="0"} 12
vllm:spec_decode_num_accepted_tokens_total{engine="1"} 21
# TYPE vllm:spec_decode_num_accepted_tokens_per_pos_total counter
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="0"} 8
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="1"} 4
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="1",position="0"} 15
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="1",position="1"} 6
"""


def test_the_ranks_of_one_worker_are_summed_at_every_position() -> None:
    counters = vllm.counters(TWO_RANKS)
    assert counters is not None
    assert (counters.drafts, counters.draft_tokens, counters.accepted_tokens) == (30, 60, 33)
    assert counters.per_position == (23, 10)


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


def test_sglang_counts_steps_and_the_tokens_that_they_sent() -> None:
    """The page of a real SGLang 0.5.23 after 5 requests of 568 tokens, in 231 steps."""
    counters = sglang.counters((CAPTURES / "sglang_crafted_mtp3_metrics_after.txt").read_text("utf-8"))
    assert isinstance(counters, SpecCounters)
    assert (counters.drafts, counters.draft_tokens, counters.accepted_tokens) == (231, None, 568 - 5 - 231)
    assert len(counters.series) == 5


@pytest.mark.parametrize("lost", ["generation_tokens_total", "num_requests_total", "spec_verify_calls_total"])
def test_sglang_without_one_of_its_counters_has_its_gauge_only(lost: str) -> None:
    """Before 0.5.13 there is no count of steps, and before the first request ends there is none at all."""
    page = (CAPTURES / "sglang_crafted_mtp3_metrics_after.txt").read_text("utf-8")
    (gauge,) = sglang.counters(page.replace(f"sglang:{lost}", "sglang:other")) or ()
    assert (gauge.length, gauge.verify_calls) == (2.45, None)
    assert gauge.rank.startswith("engine_type=unified,model_name=tiny,moe_ep_rank=0")
    assert sglang.counters("sglang:num_running_reqs 3\n") is None


def test_trtllm_counts_tokens_but_no_steps() -> None:
    """Names as in TensorRT-LLM's sources; the values are made up."""
    text = "trtllm_spec_decode_num_draft_tokens_total 300\ntrtllm_spec_decode_num_accepted_tokens_total 150\n"
    counters = trtllm.counters(text)
    assert counters is not None
    assert (counters.drafts, counters.draft_tokens, counters.accepted_tokens) == (None, 300, 150)


# --- an arm without speculation whose server drafts all the same, by each engine's own page ---


def vllms(prefix: str, count: int) -> str:
    names = ("drafts_total", "draft_tokens_total", "accepted_tokens_total")
    return "".join(f"{prefix}spec_decode_num_{name} {count}\n" for name in names)


def sglangs(count: int) -> str:
    names = ("generation_tokens_total", "num_requests_total", "spec_verify_calls_total")
    return "".join(f"sglang:{name} {factor * count}\n" for name, factor in zip(names, (5, 1, 2), strict=True))


@pytest.mark.parametrize(
    ("engine", "page"),
    [
        (vllm, lambda count: vllms("vllm:", count)),
        (simulated, lambda count: vllms("vllm:", count)),
        (llamacpp, lambda count: vllms("llamacpp:", count)),
        (sglang, sglangs),
        (sglang, lambda count: f"sglang:spec_accept_length {1.0 + count / 10}\n"),
        (trtllm, lambda count: f'trtllm_spec_decode_drafted_tokens_total{{token_position="0"}} {count}\n'),
        (trtllm, lambda count: f"trtllm_spec_decode_num_draft_tokens_total {count}\n"),
    ],
    ids=["vllm", "simulated", "llamacpp", "sglang", "sglang gauge", "trtllm", "trtllm iterations"],
)
def test_an_off_arm_that_drafts_is_found_on_every_engine(engine: Any, page: Any) -> None:
    def reason(*counts: int) -> str | None:
        samples = []
        for time_s, count in enumerate(counts):
            found = engine.counters(page(count))
            counted = found if isinstance(found, SpecCounters) else None
            gauges = found if isinstance(found, tuple) else ()
            samples.append(CounterSample(time_s=float(time_s), process="w", counters=counted, gauges=gauges))
        return measure_acceptance(make_point(), samples, Window(start_s=0, end_s=2)).reason

    assert reason(0, 4, 9) == "off_but_drafting"
    assert reason(0, 0, 0) == "speculation_off"
