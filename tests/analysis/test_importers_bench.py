"""Results of vLLM's, SGLang's and AIPerf's load generators as points."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from curve_points import FIXTURES
from mtpbench.errors import ImportFileError, InputError
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.importers import Declared, read_source, read_sources
from mtpbench_analysis.importers.vllm_bench import read_vllm

IMPORTERS = FIXTURES / "importers"
VLLM = IMPORTERS / "vllm" / "mtp3_c4.json"
SGLANG = IMPORTERS / "sglang" / "runs.jsonl"
AIPERF = IMPORTERS / "aiperf" / "c4" / "profile_export_aiperf.json"
MTP = Declared(arm="mtp", gpus=8)


def rewritten(folder: Path, source: Path, **values: Any) -> Path:
    """The first result of a file with other values; `None` takes a field off."""
    data: dict[str, Any] = json.loads(
        source.read_text("utf-8").split("\n")[0] if source == SGLANG else source.read_text("utf-8")
    )
    data = {name: value for name, value in (data | values).items() if value is not None}
    path = folder / source.name
    path.write_text(json.dumps(data), "utf-8")
    return path


def reason_of(points: PointSet) -> str:
    assert points.points == ()
    return points.unused[0].reason


def notes(points: PointSet) -> list[str]:
    return [f"{item.what}: {item.reason}" for item in points.unused]


# ------------------------------------------------------------------------------------------------- vLLM


def test_a_real_result_of_vllm_is_a_point() -> None:
    said = Declared(arm="mtp", gpus=2, hardware="b200", engine="vllm", precision="fp8", topology="1xTP2")
    points = read_source(VLLM, said)
    (point,) = points.points
    assert point.tput_tps_per_gpu == pytest.approx(1912.337189184798 / 2)
    assert point.output_tps_per_gpu == pytest.approx(955.546494010361 / 2)
    assert point.input_tps_per_gpu == pytest.approx(1538 / 1.6074571040007868 / 2)
    assert point.interactivity_tps == pytest.approx(1000 / 3.627806103178868)
    assert (point.concurrency, point.rate_rps, point.gpus) == (4, None, 2)
    assert (point.acceptance_length, point.draft_tokens) == (2.521311475409836, 3)
    assert point.acceptance_per_position == pytest.approx((0.5131, 0.5049, 0.5033), abs=1e-4)
    assert (point.ttft_p50_s, point.ttft_p99_s) == pytest.approx((0.0315515, 0.1007130), abs=1e-6)
    assert (point.model, point.date, point.osl, point.acceptance_mode) == ("tiny", "2026-11-23", 64, None)
    assert (point.hardware, point.engine, point.topology, point.valid) == ("b200", "vllm", "1xTP2", True)
    assert notes(points) == ["mtp3_c4.json: isl: not in the file; --isl names it"]


def test_appended_results_are_one_point_a_line() -> None:
    points = read_source(IMPORTERS / "vllm" / "appended.json", MTP)
    told = [(p.concurrency, p.rate_rps, p.isl, p.osl, p.valid, p.source) for p in points.points]
    assert told == [
        (8, None, 8192, 1024, True, "appended.json:1"),
        (16, None, 8192, 1024, True, "appended.json:2"),
        (None, 1.0, 8192, 1024, True, "appended.json:3"),
    ]
    assert points.unused == ()


def test_a_list_of_results_is_read_and_a_stranger_in_it_listed(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps([json.loads(VLLM.read_text("utf-8")), {"name": 1}, None]), "utf-8")
    points = read_source(path, MTP)
    assert len(points.points) == 1
    assert notes(points)[:2] == [
        "list.json[1]: not a result of vllm bench serve: an object with 'name'",
        "list.json[2]: not a result of vllm bench serve: null",
    ]


def test_a_line_cut_short_is_listed_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    text = (IMPORTERS / "vllm" / "appended.json").read_text("utf-8")
    path.write_text(text[:-40], "utf-8")
    points = read_source(path, MTP)
    assert len(points.points) == 2
    assert points.unused[0].what == "runs.jsonl:3"
    assert points.unused[0].reason.startswith("not JSON")


def test_without_arm_and_gpus_no_point_can_be_made() -> None:
    with pytest.raises(InputError, match=r"mtp3_c4\.json.*nor --gpus \(all GPUs.*no tok/s/GPU can be made"):
        read_source(VLLM)
    with pytest.raises(InputError, match="does not say --gpus"):
        read_source(VLLM, Declared(arm="off"))
    with pytest.raises(InputError, match="does not say --arm"):
        read_source(VLLM, Declared(gpus=8))


def test_prefill_and_decode_gpus_make_the_denominator() -> None:
    (point,) = read_source(VLLM, Declared(arm="mtp", prefill_gpus=6, decode_gpus=2)).points
    assert (point.gpus, point.prefill_gpus, point.decode_gpus) == (8, 6, 2)
    assert point.serving == "disaggregated"
    assert point.tput_tps_per_gpu == pytest.approx(1912.337189184798 / 8)
    assert point.output_tps_per_gpu == pytest.approx(955.546494010361 / 8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpus": 0}, "--gpus 0: a whole number of 1 or more"),
        ({"gpus": 8, "prefill_gpus": 4, "decode_gpus": 2}, "--gpus 8 contradicts .* which make 6"),
        ({"prefill_gpus": 4}, "belong together"),
        ({"serving": "aggregated", "prefill_gpus": 4, "decode_gpus": 2}, "--serving aggregated contradicts"),
        ({"serving": "both"}, "--serving both: one of aggregated, disaggregated"),
        ({"acceptance_mode": "real"}, "--acceptance-mode real: one of off, measured, golden"),
        ({"arm": " "}, "--arm is empty"),
    ],
)
def test_what_is_said_has_to_make_sense(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Declared(**values)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"output_throughput": 970.0}, "output_throughput 970 contradicts the file's tokens and duration"),
        ({"total_token_throughput": 1912.3 * 8}, "total_token_throughput 15298.4 contradicts"),
        ({"failed": 1, "num_prompts": 25}, "1 of 25 requests failed, more than 1%"),
        ({"spec_decode_acceptance_length": 3.0}, "spec_decode_acceptance_length 3 contradicts"),
    ],
)
def test_a_result_that_contradicts_itself_is_an_invalid_point(
    tmp_path: Path, values: dict[str, Any], reason: str
) -> None:
    (point,) = read_source(rewritten(tmp_path, VLLM, **values), MTP).points
    assert not point.valid
    assert reason in "; ".join(point.reasons)


def test_few_failed_requests_and_rates_within_one_percent_are_no_contradiction(tmp_path: Path) -> None:
    (point,) = read_source(rewritten(tmp_path, VLLM, failed=0, output_throughput=955.5 * 1.009), MTP).points
    assert point.valid


def test_failed_requests_of_an_older_version_are_those_that_were_not_completed(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    data = json.loads(VLLM.read_text("utf-8")) | {"num_prompts": 30}
    del data["failed"]
    path.write_text(json.dumps(data), "utf-8")
    (point,) = read_source(path, MTP).points
    assert point.reasons == ("6 of 30 requests failed, more than 1%",)


def test_an_off_arm_that_counts_drafts_is_invalid_and_one_that_does_not_is_off(tmp_path: Path) -> None:
    (point,) = read_source(VLLM, Declared(arm="off", gpus=1)).points
    assert point.reasons == ("arm off, but the file counts draft tokens",)
    assert point.acceptance_mode is None
    (point,) = read_source(IMPORTERS / "vllm" / "appended.json", Declared(arm="off", gpus=8)).points[:1]
    assert (point.acceptance_mode, point.acceptance_length) == ("off", None)


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        # A TPOT in seconds under a name that says milliseconds, and the reverse.
        (
            {"mean_tpot_ms": 0.0035, "median_tpot_ms": 0.0036, "mean_ttft_ms": 0.04},
            ("mean_tpot_ms", "duration"),
        ),
        ({"mean_tpot_ms": 3574.6, "median_tpot_ms": 3627.8}, ("mean_tpot_ms", "duration")),
        ({"mean_ttft_ms": 40596.0}, ("mean_ttft_ms", "concurrency")),
        ({"mean_e2el_ms": 0.26}, ("mean_tpot_ms", "mean_e2el_ms")),
    ],
)
def test_mixed_units_are_refused_with_both_fields(
    tmp_path: Path, values: dict[str, Any], fields: tuple[str, str]
) -> None:
    reason = reason_of(read_source(rewritten(tmp_path, VLLM, **values), MTP))
    assert reason.startswith("mixed units: ")
    assert all(field in reason for field in fields)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"median_tpot_ms": float("nan")}, "median_tpot_ms is NaN: a number above 0 is needed"),
        ({"median_tpot_ms": 0.0}, "median_tpot_ms is 0: it must be above 0"),
        ({"duration": -1.0}, "duration is -1: it must be above 0"),
        ({"completed": 0, "failed": 24}, "completed is 0: it must be above 0"),
        ({"completed": "24"}, "completed is '24': a number above 0 is needed"),
        ({"total_output_tokens": []}, "total_output_tokens is a list: a number above 0 is needed"),
        ({"request_rate": -2}, "request_rate is -2: a number above 0 or inf is needed"),
        ({"median_tpot_ms": 5e-324, "mean_tpot_ms": 5e-324}, "tpot_ms is 0 s: it must be above 0"),
    ],
)
def test_a_result_without_what_a_point_needs_is_listed(
    tmp_path: Path, values: dict[str, Any], reason: str
) -> None:
    assert reason in reason_of(read_source(rewritten(tmp_path, VLLM, **values), MTP))


def test_a_burst_has_all_its_prompts_in_flight(tmp_path: Path) -> None:
    path = tmp_path / "burst.json"
    data = json.loads((IMPORTERS / "vllm" / "appended.json").read_text("utf-8").split("\n")[0])
    path.write_text(json.dumps(data | {"max_concurrency": None, "num_prompts": 64}), "utf-8")
    (point,) = read_source(path, MTP).points
    assert (point.concurrency, point.rate_rps) == (64, None)


def test_lengths_that_were_said_are_held_against_the_tokens() -> None:
    (point,) = read_source(VLLM, Declared(arm="mtp", gpus=8, isl=64, osl=1024)).points
    assert (point.isl, point.osl) == (64, 1024)
    assert point.reasons == (
        "osl 1024 is said, but the requests had 64.0 tokens on average; if they were drawn from R × L to L, "
        "--range-ratio R says so",
    )


def test_a_length_is_told_by_the_requests_where_they_are_listed(tmp_path: Path) -> None:
    lengths = [64] * 23 + [66]
    (point,) = read_source(
        rewritten(tmp_path, VLLM, input_lens=lengths, output_lens=[60, 64] * 12), MTP
    ).points
    assert (point.isl, point.osl) == (64, None)


# ----------------------------------------------------------------------------------------------- SGLang


def test_lines_of_sglang_are_points() -> None:
    points = read_source(SGLANG, Declared(arm="mtp", gpus=8))
    first, burst, opened = points.points
    assert first.tput_tps_per_gpu == pytest.approx(60 * (8192 + 1024) / 80 / 8)
    assert first.input_tps_per_gpu == pytest.approx(60 * 8192 / 80 / 8)
    assert first.interactivity_tps == pytest.approx(1000 / 9.5)
    assert (first.concurrency, first.rate_rps, first.isl, first.osl) == (8, None, 8192, 1024)
    assert (first.model, first.version, first.draft_tokens) == ("deepseek-ai/DeepSeek-R1", "0.5.9", 3)
    assert first.acceptance_length == pytest.approx(2.6)
    assert first.workload == "random prompts, exact lengths"
    assert (first.ttft_p50_s, first.ttft_p99_s) == pytest.approx((0.9, 1.35))
    assert first.e2el_p50_s == pytest.approx(0.9 + 0.0095 * 1023)
    assert (burst.concurrency, burst.rate_rps, burst.acceptance_length) == (32, None, None)
    assert (opened.concurrency, opened.rate_rps, opened.workload) == (None, 2.0, "sharegpt prompts")
    assert all(point.valid for point in points.points)


@pytest.mark.parametrize(
    ("dataset", "caveats"),
    [("random-ids", ("random_prompts",)), ("random", ()), ("sharegpt", ())],
)
def test_only_random_ids_of_sglang_are_random_tokens(
    tmp_path: Path, dataset: str, caveats: tuple[str, ...]
) -> None:
    """Its `random` cuts and repeats texts of ShareGPT to the lengths asked for."""
    (point,) = read_source(rewritten(tmp_path, SGLANG, dataset_name=dataset), MTP).points
    assert point.acceptance_caveats == caveats


def test_aiperf_says_whether_answers_ran_on_past_their_end(tmp_path: Path) -> None:
    (point,) = read_source(AIPERF, MTP).points
    assert point.acceptance_caveats == ("ignore_eos",)
    (unsaid,) = read_source(rewritten(tmp_path, AIPERF, input_config=None), MTP).points
    assert unsaid.acceptance_caveats == ()


def test_what_sglang_does_not_say_is_listed() -> None:
    listed = notes(read_source(SGLANG, Declared(arm="mtp", gpus=8)))
    assert any(
        "runs.jsonl:4: total_input_tokens is 0: SGLang's benchmark does not count" in x for x in listed
    )
    unknown = "failed requests: not in the file (`--output-details` writes them); left empty"
    assert f"runs.jsonl:1: {unknown}" in listed
    assert f"runs.jsonl:2: {unknown}" not in listed


def test_failed_requests_are_counted_where_sglang_lists_them(tmp_path: Path) -> None:
    errors = ["", "", "ReadTimeout", *[""] * 58]
    (point,) = read_source(rewritten(tmp_path, SGLANG, errors=errors), MTP).points
    assert point.reasons == ("1 of 61 requests failed, more than 1%",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"request_rate": "trace"}, "request_rate is 'trace'"),
        ({"mean_e2e_latency_ms": 10.7}, "mean_e2e_latency_ms"),
        ({"median_tpot_ms": 0.0}, "median_tpot_ms is 0"),
    ],
)
def test_a_line_of_sglang_that_can_t_be_used_is_listed(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    assert message in reason_of(read_source(rewritten(tmp_path, SGLANG, **values), MTP))


def test_a_tree_of_drafts_has_no_number_of_drafts_a_step(tmp_path: Path) -> None:
    info = json.loads(SGLANG.read_text("utf-8").split("\n")[0])["server_info"] | {"speculative_eagle_topk": 4}
    (point,) = read_source(rewritten(tmp_path, SGLANG, server_info=info), MTP).points
    assert point.draft_tokens is None


# ----------------------------------------------------------------------------------------------- AIPerf


def test_a_real_summary_of_aiperf_is_a_point() -> None:
    points = read_source(AIPERF, MTP)
    (point,) = points.points
    assert point.interactivity_tps == pytest.approx(1000 / 3.319798338709677)
    assert point.tput_tps_per_gpu == pytest.approx((2560 + 1280) / 1.512045824 / 8)
    assert point.output_tps_per_gpu == pytest.approx(1280 / 1.512045824 / 8)
    assert (point.concurrency, point.rate_rps, point.isl, point.osl) == (4, None, 64, 32)
    assert (point.model, point.date, point.source) == ("mock", "2026-11-24", "c4/profile_export_aiperf.json")
    assert point.e2el_p50_s == pytest.approx(0.137183738)
    assert (point.valid, points.unused) == (True, ())


def test_the_inter_token_latency_of_aiperf_is_tpot_and_not_the_gap_between_chunks() -> None:
    data = json.loads(AIPERF.read_text("utf-8"))
    tpot = (data["request_latency"]["avg"] - data["time_to_first_token"]["avg"]) / (32 - 1)
    assert data["inter_token_latency"]["avg"] == pytest.approx(tpot)
    assert data["inter_chunk_latency"]["avg"] > 2 * tpot


def test_an_open_loop_of_aiperf_has_a_rate_and_its_failures_count() -> None:
    (point,) = read_source(IMPORTERS / "aiperf" / "rate40" / "profile_export_aiperf.json", MTP).points
    assert (point.concurrency, point.rate_rps) == (None, 40.0)
    assert point.reasons == ("6 of 60 requests failed, more than 1%",)


def test_the_csv_of_aiperf_says_the_same_with_fewer_digits_and_without_the_load() -> None:
    (exact,) = read_source(AIPERF, MTP).points
    (rounded,) = read_source(AIPERF.with_suffix(".csv"), Declared(arm="mtp", gpus=8, concurrency=4)).points
    assert rounded.tput_tps_per_gpu == pytest.approx(exact.tput_tps_per_gpu, rel=0.005)
    assert rounded.interactivity_tps == pytest.approx(exact.interactivity_tps, rel=0.002)
    assert (rounded.isl, rounded.osl, rounded.concurrency, rounded.model) == (64, 32, 4, None)
    assert rounded.valid


def test_a_csv_beside_its_json_is_the_same_run() -> None:
    points = read_sources([AIPERF, AIPERF.with_suffix(".csv")], MTP)
    assert len(points.points) == 1
    assert "the same run as profile_export_aiperf.json beside it" in points.unused[0].reason


def test_a_csv_that_rounds_too_much_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "aiperf.csv"
    text = AIPERF.with_suffix(".csv").read_text("utf-8")
    path.write_text(text.replace("3.29,3.16,3.50", "0.29,0.16,0.50").replace(",3.32,", ",0.32,"), "utf-8")
    reasons = "; ".join(item.reason for item in read_source(path, MTP).unused)
    assert "mixed units" in reasons
    text = text.replace("Inter Token Latency (ms)", "Inter Token Latency (sec)")
    path.write_text(text, "utf-8")
    assert "mixed units" in reason_of(read_source(path, MTP))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inter_token_latency": None}, "inter_token_latency is missing; without --streaming there is none"),
        ({"inter_token_latency": {"unit": "ms", "avg": 3.3}}, "inter_token_latency: p50 is missing"),
        ({"inter_token_latency": {"unit": "days", "p50": 3.3}}, "inter_token_latency has the unit 'days'"),
        ({"inter_token_latency": {"unit": "us", "p50": 3.3, "avg": 3.3}}, "mixed units: inter_token_latency"),
        ({"request_count": {"unit": "requests", "avg": 0.0}}, "request_count: avg is 0"),
    ],
)
def test_a_summary_of_aiperf_that_can_t_be_used_is_listed(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    assert message in reason_of(read_source(rewritten(tmp_path, AIPERF, **values), MTP))


def test_a_run_of_aiperf_that_did_not_end_is_invalid(tmp_path: Path) -> None:
    values = {"was_cancelled": True, "is_complete": False, "incomplete_reason": "records stalled"}
    (point,) = read_source(rewritten(tmp_path, AIPERF, **values), MTP).points
    assert point.reasons == (
        "the run was cancelled (was_cancelled)",
        "the run is not complete: records stalled",
    )


def test_the_older_form_of_aiperf_s_configuration_is_read(tmp_path: Path) -> None:
    config = {
        "endpoint": {"model_names": ["m"]},
        "loadgen": {"concurrency": 4},
        "input": {"prompt": {"input_tokens": {"mean": 64}, "output_tokens": {"mean": 32}}},
    }
    (point,) = read_source(rewritten(tmp_path, AIPERF, input_config=config), MTP).points
    assert (point.model, point.concurrency, point.isl, point.osl) == ("m", 4, 64, 32)


def test_a_length_that_the_server_does_not_count_is_invalid(tmp_path: Path) -> None:
    config = json.loads(AIPERF.read_text("utf-8"))["input_config"]
    config["datasets"][0]["prompts"]["isl"]["mean"] = 8192.0
    (point,) = read_source(rewritten(tmp_path, AIPERF, input_config=config), MTP).points
    assert point.reasons == ("isl 8192 is said, but the requests had 64.0 tokens on average",)


# ------------------------------------------------------------------------------------------ several files


def test_a_copy_of_a_file_is_kept_once(tmp_path: Path) -> None:
    copy = rewritten(tmp_path, VLLM)
    points = read_sources([VLLM, copy, VLLM], MTP)
    assert len(points.points) == 1
    assert ("mtp3_c4.json", "the same as mtp3_c4.json; kept once") in [
        (item.what, item.reason) for item in points.unused
    ]


def test_a_repeat_with_other_figures_stays(tmp_path: Path) -> None:
    repeat = rewritten(tmp_path, VLLM, median_tpot_ms=3.7)
    assert len(read_sources([VLLM, repeat], MTP).points) == 2


def test_a_csv_that_is_not_aiperf_s_is_refused_by_its_reader(tmp_path: Path) -> None:
    from mtpbench_analysis.importers.aiperf import read_aiperf

    path = tmp_path / "x.csv"
    path.write_text("arm,x\n", "utf-8")
    with pytest.raises(ImportFileError, match=r"x\.csv: not AIPerf's table: it begins with 'arm,x"):
        read_aiperf(path, MTP)


def test_a_file_of_another_kind_is_listed_by_a_reader_that_was_named() -> None:
    assert "not a result of vllm bench serve" in reason_of(read_vllm(AIPERF, MTP))


@pytest.mark.parametrize(
    ("options", "method", "drafts"),
    [
        ({}, "mtp", 3),
        ({"speculative_draft_model_path": "deepseek-ai/DeepSeek-R1"}, "mtp", 3),
        ({"speculative_draft_model_path": "a/head"}, None, 3),
        ({"speculative_algorithm": "EAGLE3", "speculative_draft_model_path": "a/head"}, "eagle3", 3),
        (
            {
                "speculative_algorithm": "DSPARK",
                "speculative_num_steps": 1,
                "speculative_num_draft_tokens": 7,
            },
            "dspark",
            6,
        ),
        ({"speculative_algorithm": "NGRAM", "speculative_eagle_topk": 10}, "ngram", None),
        ({"speculative_algorithm": None}, "off", 0),
    ],
)
def test_the_options_of_a_server_tell_the_method_and_the_arm_s_name_does_not(
    tmp_path: Path, options: dict[str, Any], method: str | None, drafts: int | None
) -> None:
    info = json.loads(SGLANG.read_text("utf-8").split("\n")[0])["server_info"] | options
    (point,) = read_source(rewritten(tmp_path, SGLANG, server_info=info), replace(MTP, arm="side")).points
    assert (point.method, point.draft_tokens) == (method, drafts)
    assert point.checkpoint == "deepseek-ai/DeepSeek-R1"


def test_what_a_file_does_not_say_of_speculation_can_be_declared() -> None:
    declared = replace(MTP, method="dspark", checkpoint="deepseek-ai/DeepSeek-V4-Pro-0813")
    (point, *_) = read_source(VLLM, declared).points
    assert (point.method, point.draft_tokens, point.checkpoint) == ("dspark", 3, declared.checkpoint)
    assert point.draft_tokens_per_step == pytest.approx(3.0)
    with pytest.raises(InputError, match="--method eagle: one of off, mtp, dspark"):
        replace(MTP, method="eagle")
