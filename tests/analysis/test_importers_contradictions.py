"""Load that was not what was asked, ends that are failures, figures of a file that contradict each other."""

from __future__ import annotations

import heapq
import json
import math
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from curve_points import FIXTURES
from mtpbench.errors import InputError, NotComparable
from mtpbench_analysis.comparisons import Question, compare_points
from mtpbench_analysis.frame import CurvePoint, PointSet
from mtpbench_analysis.importers import Declared, read_source, read_sources
from mtpbench_analysis.importers.points_csv import write_points
from stored_sweep import write_sweep

AIPERF = FIXTURES / "importers" / "aiperf" / "c4" / "profile_export_aiperf.json"
MTP, OFF = Declared(arm="mtp", gpus=8), Declared(arm="off", gpus=8)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def made(values: dict[str, Any], *, conc: int, n: int, osl: int, tpot_ms: float = 10.0) -> dict[str, Any]:
    """A run that agrees with itself in what all tools write: TTFT 200 ms, 1024 tokens in."""
    isl, ttft_ms = 1024, 200.0
    latency_ms = ttft_ms + tpot_ms * (osl - 1)
    duration = values.get("duration", n / conc * latency_ms / 1000)
    result = {
        "duration": duration,
        "completed": n,
        "total_input_tokens": n * isl,
        "total_output_tokens": n * osl,
        "request_throughput": n / duration,
        "output_throughput": n * osl / duration,
        "max_concurrency": conc,
    }
    for name, value in (("ttft", ttft_ms), ("tpot", tpot_ms), ("itl", tpot_ms)):
        result |= {f"{stat}_{name}_ms": value for stat in ("mean", "median", "p99")}
    return result


def vllm(*, conc: int = 8, n: int = 80, osl: int = 256, **values: Any) -> dict[str, Any]:
    """The object that `vllm bench serve` writes."""
    result = made(values, conc=conc, n=n, osl=osl)
    more = {"num_prompts": n, "request_rate": "inf", "burstiness": 1.0, "failed": 0}
    total = n * (1024 + osl) / result["duration"]
    return {**result, **more, "total_token_throughput": total, **values}


def sglang(
    *, conc: int = 8, n: int = 80, osl: int = 256, ratio: float = 1.0, **values: Any
) -> dict[str, Any]:
    """The line that SGLang's benchmark appends, for random prompts."""
    result = made(values, conc=conc, n=n, osl=osl)
    latency = {f"{stat}_e2e_latency_ms": 200 + 10.0 * (osl - 1) for stat in ("mean", "median", "p99")}
    asked = {"random_input_len": 1024, "random_output_len": 256, "random_range_ratio": ratio}
    more = {"dataset_name": "random", "request_rate": math.inf, "total_output_tokens_retokenized": n * osl}
    return {**result, **latency, **asked, **more, **values}


def read(folder: Path, result: dict[str, Any], declared: Declared = MTP) -> PointSet:
    path = folder / "run.json"
    path.write_text(json.dumps(result), "utf-8")
    return read_source(path, declared)


def point(folder: Path, result: dict[str, Any], declared: Declared = MTP) -> CurvePoint:
    (only,) = read(folder, result, declared).points
    return only


def test_runs_that_agree_with_themselves_are_valid(folder: Path) -> None:
    for result in (vllm(), sglang(), vllm(conc=1, n=1), vllm(conc=64, n=80), vllm(max_concurrency=None, n=8)):
        assert point(folder, result).reasons == ()
        assert point(folder, result, OFF).reasons == ()


# ------------------------------------------------------------------------------------- load that was asked


@pytest.mark.parametrize(
    "ramp",
    [
        {"ramp_up_strategy": "linear", "ramp_up_start_rps": 1, "ramp_up_end_rps": 20},
        {"ramp_up_strategy": "exponential"},
        {"rps_change_events": [{"rps": 2, "timestamp": "x"}]},
        {"dataset_name": "timed_trace"},
        {"request_rate": "trace"},
    ],
)
@pytest.mark.parametrize("make", [vllm, sglang])
def test_a_load_that_changes_as_the_run_goes_on_is_no_point(
    folder: Path, ramp: dict[str, Any], make: Any
) -> None:
    """`vllm bench serve` writes a ramp as `request_rate: inf` without a cap: a burst, by those two."""
    points = read(folder, make(max_concurrency=None, **ramp))
    assert points.points == ()
    assert "no point of a curve" in points.unused[0].reason or "request_rate" in points.unused[0].reason


@pytest.mark.parametrize(
    "phase",
    [
        {"type": "concurrency", "concurrency": 4, "concurrency_ramp": {"duration": 30}},
        {"type": "poisson", "rate": 4.0, "rate_ramp_duration": 30},
        {"type": "fixed_schedule"},
        {"type": "user_centric", "rate": 2.0},
    ],
)
def test_ramps_and_replays_of_aiperf_are_no_points(folder: Path, phase: dict[str, Any]) -> None:
    data = json.loads(AIPERF.read_text("utf-8"))
    data["input_config"]["phases"] = [{"name": "profiling", "kind": "profiling", **phase}]
    points = read(folder, data)
    assert points.points == ()
    assert "no point of a curve" in points.unused[0].reason


def test_no_ramp_is_no_ramp(folder: Path) -> None:
    unset = {"ramp_up_strategy": None, "ramp_up_start_rps": None, "rps_change_events": []}
    assert point(folder, vllm(**unset)).valid


@pytest.mark.parametrize("make", [vllm, sglang])
def test_a_rate_that_was_not_reached_is_said(folder: Path, make: Any) -> None:
    """vllm-project/vllm#54101: with a cap on the concurrency requests wait in the client, off every clock."""
    (reason,) = point(folder, make(conc=2, request_rate=50.0)).reasons
    assert reason == "50 requests/s were asked for, but 80 in 110 s make 0.727"
    assert point(folder, make(conc=2, request_rate=0.73)).valid
    (reason,) = point(folder, make(conc=2, request_rate=0.1)).reasons
    assert reason.startswith("0.1 requests/s were asked for")


def test_a_wait_in_the_client_is_said_where_the_rate_was_reached(folder: Path) -> None:
    waited = vllm(conc=2, request_rate=0.75, mean_client_queue_time_ms=5300.0)
    (reason,) = point(folder, waited).reasons
    assert reason.startswith("requests waited 5.3 s on average for a slot of the client")
    assert point(folder, vllm(conc=2, request_rate=0.75, mean_client_queue_time_ms=0.4)).valid
    # In a burst all requests wait for a slot: that is what a closed loop is.
    assert point(folder, vllm(mean_client_queue_time_ms=53000.0)).valid


@pytest.mark.parametrize("make", [vllm, sglang])
def test_a_concurrency_that_was_not_reached_is_said(folder: Path, make: Any) -> None:
    slow = make(conc=64, duration=80 * 2.75 / 8, n=80)
    (reason,) = point(folder, slow).reasons
    assert reason == "a concurrency of 64 was asked for, but 8 requests were in flight on average"
    crowded = make(conc=8, duration=80 * 2.75 / 20)
    assert "a concurrency of 8 was asked for, but 20 requests" in "; ".join(point(folder, crowded).reasons)


def test_the_stated_mean_in_flight_is_held_against_the_latencies(folder: Path) -> None:
    assert point(folder, sglang(concurrency=8.0)).valid
    (reason,) = point(folder, sglang(concurrency=5.0)).reasons
    assert reason == "concurrency 5 contradicts latencies and duration, which make 8"


def loop(latencies_s: Sequence[float], slots: int) -> float:
    """Seconds that a closed loop of so many slots takes."""
    free = [0.0] * slots
    for latency_s in latencies_s:
        heapq.heapreplace(free, free[0] + latency_s)
    return max(free)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    slots=st.integers(1, 64),
    n=st.integers(1, 300),
    shape=st.sampled_from(["equal", "uniform", "heavy"]),
    says_latency=st.booleans(),
)
def test_no_closed_loop_that_kept_its_slots_busy_is_called_idle(
    folder: Path, seed: int, slots: int, n: int, shape: str, says_latency: bool
) -> None:
    """However long the answers are: the rule's bound is one of every such loop. Most files of vLLM state no
    latency; of these, where the longest answer is at most ten times the mean.
    """
    draw = random.Random(seed)
    lengths = {
        "equal": lambda: 200,
        "uniform": lambda: draw.randint(2, 400),
        "heavy": lambda: min(4000, int(2 + draw.paretovariate(1.2) * 20)),
    }[shape]
    tokens = [lengths() for _ in range(n)]
    latencies_s = [0.2 + 0.01 * (count - 1) for count in tokens]
    duration = loop(latencies_s, slots)
    result = vllm(conc=slots, n=n) | {
        "duration": duration,
        "total_output_tokens": sum(tokens),
        "request_throughput": n / duration,
        "output_throughput": sum(tokens) / duration,
        "total_token_throughput": (sum(tokens) + n * 1024) / duration,
    }
    if says_latency:
        result |= {
            "mean_e2el_ms": 1000 * fmean(latencies_s),
            "median_e2el_ms": 1000 * median(latencies_s),
            "max_e2el_ms": 1000 * max(latencies_s),
        }
    else:
        assume(max(tokens) <= 10 * fmean(tokens))
        # A mean that is a whole number would say that all have it.
        assume(sum(tokens) % n or len(set(tokens)) == 1)
    points = read(folder, result)
    assert [found.reasons for found in points.points] == [()]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(10, 400), rate=st.floats(0.05, 50))
def test_no_open_loop_that_kept_its_rate_is_called_late(folder: Path, seed: int, n: int, rate: float) -> None:
    draw = random.Random(seed)
    sent_s = [0.0]
    for _ in range(n - 1):
        sent_s.append(sent_s[-1] + draw.expovariate(rate))
    duration = sent_s[-1] + 2.75
    if abs(sent_s[-1] - n / rate) > 2.8 * math.sqrt(n) / rate:
        return  # rarer than the rule allows for
    result = vllm(n=n, max_concurrency=None, request_rate=rate, duration=duration)
    assert point(folder, result).reasons == ()


def test_one_long_answer_of_unknown_lengths_makes_no_loop_idle(folder: Path) -> None:
    """64 conversations at once, the longest with eight times the tokens of the mean: it ends the run."""
    result = vllm(conc=64, n=64, osl=251, duration=0.2 + 0.01 * 2007) | {"total_output_tokens": 64 * 251 + 1}
    assert point(folder, result).reasons == ()
    many = vllm(conc=64, n=640, osl=251, duration=640 * 2.7 / 8) | {"total_output_tokens": 640 * 251 + 1}
    (reason,) = point(folder, many).reasons
    assert reason == "a concurrency of 64 was asked for, but 8 requests were in flight on average"


@pytest.mark.parametrize("asked", ["4", 0, 2.5, True, [4]])
@pytest.mark.parametrize("make", [vllm, sglang])
def test_a_concurrency_that_can_not_be_read_is_unknown(folder: Path, make: Any, asked: Any) -> None:
    """It is not that of a burst: that all were sent at once is what a file without one says."""
    points = read(folder, make(max_concurrency=asked))
    assert [found.concurrency for found in points.points] == [None]
    assert "run.json: max_concurrency" in [item.what for item in points.unused if item.kind == "note"]
    assert point(folder, make(max_concurrency=asked), Declared(arm="mtp", gpus=8, concurrency=8)).valid


def test_a_burst_has_the_concurrency_of_all_that_were_sent(folder: Path) -> None:
    assert point(folder, vllm(conc=100, n=99, max_concurrency=None, num_prompts=100)).concurrency == 100
    assert point(folder, vllm(conc=80, max_concurrency=None, num_prompts=None)).concurrency == 80
    failed = sglang(conc=80, max_concurrency=None, errors=["", ""] * 40 + ["x"])
    assert point(folder, failed).concurrency == 81


@pytest.mark.parametrize("name", ["rate", "smoothness"])
def test_a_setting_of_aiperf_that_can_not_be_read_makes_no_point(folder: Path, name: str) -> None:
    """Without its rate an open loop would pass for a closed one."""
    data = json.loads(AIPERF.read_text("utf-8"))
    data["input_config"]["phases"][0] |= {"type": "gamma", "rate": 40.0, name: "4"}
    points = read(folder, data)
    assert [(item.kind, item.reason) for item in points.unused] == [
        ("unusable", f"{name} is '4': a number above 0 is needed")
    ]


def test_a_burstiness_that_can_not_be_read_makes_no_point(folder: Path) -> None:
    points = read(folder, vllm(max_concurrency=None, request_rate=4.0, burstiness="0.1"))
    assert points.points == ()
    assert points.unused[0].reason == "burstiness is '0.1': a number above 0 is needed"


@pytest.mark.parametrize(("smoothness", "valid"), [(0.1, True), (None, False)])
def test_bursts_of_gamma_arrivals_are_no_fault(folder: Path, smoothness: float | None, valid: bool) -> None:
    """vLLM calls the shape `burstiness`, AIPerf `smoothness`: the lower, the farther chance goes."""
    shape = {"burstiness": smoothness or 1.0}
    assert point(folder, vllm(max_concurrency=None, request_rate=4.0, **shape, duration=40.0)).valid is valid
    data = json.loads((AIPERF.parent.parent / "rate40" / AIPERF.name).read_text("utf-8"))
    del data["error_request_count"]
    data["error_summary"] = []
    duration_s = data["benchmark_duration"]["avg"]
    completed = data["request_count"]["avg"]
    rate = 2 * completed / duration_s
    phase = {"kind": "profiling", "type": "gamma", "rate": rate, "smoothness": smoothness}
    data["input_config"]["phases"] = [phase]
    assert point(folder, data).valid is valid


@pytest.mark.parametrize(
    ("counts", "drafted"),
    [
        ({"spec_decode_num_drafts": 100, "spec_decode_draft_tokens": "300"}, True),
        ({"spec_decode_num_drafts": "100", "spec_decode_draft_tokens": 300}, True),
        ({"spec_decode_num_drafts": 0, "spec_decode_draft_tokens": 0}, False),
        ({"spec_decode_num_drafts": 100, "spec_decode_draft_tokens": 300}, True),
    ],
)
def test_drafts_of_which_one_count_can_not_be_read_are_drafts(
    folder: Path, counts: dict[str, Any], drafted: bool
) -> None:
    reasons = point(folder, vllm(**counts), OFF).reasons
    assert ("arm off, but the file counts draft tokens" in reasons) is drafted


# ------------------------------------------------------------------------------------------------ lengths


def test_exact_lengths_are_held_against_the_tokens_that_came(folder: Path) -> None:
    """vllm-project/vllm#13333: 43 tokens of 512 that were asked for; shorter answers mean more prompts."""
    (reason,) = point(folder, sglang(osl=120)).reasons
    assert reason == "osl 256 is said, but the requests had 120.0 tokens on average"
    assert not point(folder, sglang(osl=245)).valid
    assert point(folder, sglang(osl=255)).valid


@pytest.mark.parametrize(("ratio", "osl", "valid"), [(0.0, 128, True), (0.0, 250, False), (0.8, 230, True)])
def test_drawn_lengths_have_the_mean_of_their_draw(folder: Path, ratio: float, osl: int, valid: bool) -> None:
    result = sglang(ratio=ratio, osl=osl, total_input_tokens=int(80 * 1024 * (1 + ratio) / 2))
    result["total_throughput"] = (result["total_input_tokens"] + 80 * osl) / result["duration"]
    assert point(folder, result).valid is valid


def test_lengths_of_the_command_line_are_held_against_the_tokens(folder: Path) -> None:
    said = Declared(arm="off", gpus=8, isl=1024, osl=256)
    (reason,) = point(folder, vllm(osl=120), said).reasons
    assert "osl 256 is said, but the requests had 120.0 tokens on average; if they were drawn" in reason
    assert point(folder, vllm(osl=230), said).valid
    drawn = Declared(arm="off", gpus=8, osl=256, isl=2048, range_ratio=0)
    assert point(folder, vllm(osl=128), drawn).valid


def test_a_length_that_contradicts_the_file_s_own_is_said(folder: Path) -> None:
    (first, *_) = point(folder, sglang(), Declared(arm="off", gpus=8, osl=512)).reasons
    assert first == "--osl 512 contradicts the file, which says 256"


# ------------------------------------------------------------------------------------------ tokens of a chunk


@pytest.mark.parametrize("make", [vllm, sglang])
def test_gaps_longer_than_tpot_where_nothing_speculates_are_said(folder: Path, make: Any) -> None:
    """Tokens without chunks at the end of an answer double a user's speed, and only this tells."""
    doubled = make(mean_itl_ms=20.0, median_itl_ms=20.0, p99_itl_ms=20.0)
    (reason,) = point(folder, doubled, OFF).reasons
    assert reason.startswith("mean_itl_ms is 2 times mean_tpot_ms, but nothing speculates")
    (reason,) = point(folder, doubled, Declared(arm="a", gpus=8, acceptance_mode="off")).reasons
    assert "nothing speculates" in reason
    assert point(folder, doubled, Declared(arm="off", gpus=8, stream_interval=2)).valid
    assert point(folder, doubled, MTP).valid


def test_gaps_longer_than_acceptance_explains_are_said(folder: Path) -> None:
    counted = {
        "spec_decode_num_drafts": 1000,
        "spec_decode_draft_tokens": 3000,
        "spec_decode_accepted_tokens": 1500,
        "spec_decode_acceptance_length": 2.5,
    }
    fitting = vllm(mean_itl_ms=24.0, median_itl_ms=24.0, p99_itl_ms=24.0, **counted)
    assert point(folder, fitting).valid
    (reason,) = point(folder, fitting | {"mean_itl_ms": 50.0}).reasons
    assert "mean_itl_ms is 5 times mean_tpot_ms, but speculation makes 2.5 tokens a step" in reason


def test_the_chunks_of_aiperf_are_held_against_its_tokens() -> None:
    (found,) = read_source(AIPERF, OFF).points
    assert found.reasons[0].startswith("inter_chunk_latency avg is 2.07 times inter_token_latency avg")
    (found,) = read_source(AIPERF, Declared(arm="off", gpus=8, stream_interval=2)).points
    assert found.valid


# -------------------------------------------------------------------------- what contradicts itself, and ends


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"request_throughput": 9.0}, "request_throughput 9 contradicts the file's requests and duration"),
        ({"num_prompts": 70}, "80 requests are completed, of num_prompts 70"),
        ({"num_prompts": 100}, "20 of 100 requests failed"),
        ({"failed": 0, "errors": ["", "x"] * 40}, "40 of 120 requests failed"),
        ({"p99_ttft_ms": 150.0}, "median_ttft_ms (0.2 s) is above p99_ttft_ms (0.15 s)"),
        ({"p90_tpot_ms": 12.0}, "p90_tpot_ms (0.012 s) is above p99_tpot_ms (0.01 s)"),
        ({"min_itl_ms": 11.0}, "min_itl_ms (0.011 s) is above median_itl_ms (0.01 s)"),
        (
            {"mean_e2el_ms": 2000.0, "mean_ttft_ms": 2500.0},
            "mean_ttft_ms (2.5 s) is longer than mean_e2el_ms",
        ),
        ({"output_lens": [256] * 80, "input_lens": [1024] * 79}, "the lists of requests differ in length"),
        ({"output_lens": [256] * 70 + [0] * 10}, "80 requests are completed, but only 70 of output_lens"),
        ({"output_lens": [200] * 80}, "total_output_tokens 20480 contradicts output_lens, which make 16000"),
        (
            {"finish_reason_counts": {"length": 70, "abort": 10}},
            "10 of 80 requests did not end by length or stop",
        ),
        ({"finish_reasons": ["length"] * 78 + ["error"] * 2}, "2 by 'error'"),
    ],
)
def test_figures_that_contradict_each_other_make_a_point_invalid(
    folder: Path, values: dict[str, Any], reason: str
) -> None:
    assert reason in "; ".join(point(folder, vllm(**values)).reasons)


@pytest.mark.parametrize(
    "values",
    [
        {"finish_reason_counts": {"length": 60, "stop": 20}},
        {"finish_reason_counts": {"length": 80, "abort": 0}},
        {"output_lens": [256] * 80, "input_lens": [1024] * 80, "errors": [""] * 80},
        {"min_itl_ms": 0.0, "p1_itl_ms": 0.0},
        {"mean_itl_ms": None, "p99_tpot_ms": None},
    ],
)
def test_usual_ends_and_lists_that_agree_are_no_fault(folder: Path, values: dict[str, Any]) -> None:
    assert point(folder, vllm(**values)).reasons == ()


def test_a_latency_that_its_parts_do_not_make_is_said(folder: Path) -> None:
    reasons = point(folder, sglang(mean_e2e_latency_ms=4000.0)).reasons
    assert "mean_ttft_ms and mean_tpot_ms make a latency of 2.75 s, but mean_e2e_latency_ms is 4 s" in reasons


def test_requests_that_aiperf_cancelled_count_as_failed(folder: Path) -> None:
    data = json.loads(AIPERF.read_text("utf-8"))
    data["error_summary"] = [{"error_details": {"type": "RequestCancellationError"}, "count": 5}]
    (reason,) = point(folder, data).reasons
    assert reason == "5 of 45 requests failed, more than 1%"


# ---------------------------------------------------------------------------- copies, and arms of two lengths

POINTS = """arm,interactivity_tps,tput_tps_per_gpu,output_tps_per_gpu,input_tps_per_gpu,concurrency,isl,osl
off,60,400,{off_out},{off_in},8,8192,1024
off,30,900,{off_out2},{off_in2},64,8192,1024
mtp,90,600,60,540,8,8192,1024
mtp,38,1200,120,1080,64,8192,1024
"""


def points_file(folder: Path, name: str, off_share: float) -> Path:
    rates = {"off_out": 400 * off_share, "off_out2": 900 * off_share}
    rates |= {"off_in": 400 * (1 - off_share), "off_in2": 900 * (1 - off_share)}
    text = POINTS.format(**rates)
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_copies_are_no_repeats(tmp_path: Path) -> None:
    """A copied file has the same figures to the last digit: an interval of width zero, out of one run."""
    paths = [points_file(tmp_path, name, 0.1) for name in ("a.csv", "a (1).csv")]
    points = read_sources(paths)
    assert len(points.points) == 4
    assert [(item.kind, item.what) for item in points.unused] == [
        ("repeated", f"a (1).csv:{line}") for line in (2, 3, 4, 5)
    ]
    outcome = compare_points(points, Question())
    assert {len(item.runs) for curve in outcome.comparisons[0].curves for item in curve.measured} == {1}


def test_a_results_folder_its_copy_and_its_own_csv_are_one_sweep(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path)
    alone = read_sources([folder])
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    table = tmp_path / "points.csv"
    # The same sweep again on the virtual clock: to the last digit, on servers that were started anew.
    again = [replace(point, start="another") for point in alone.points]
    table.write_text(write_points(again), "utf-8")
    points = read_sources([folder, copy, table])
    assert points.points == alone.points
    assert sum(item.kind == "repeated" for item in points.unused) == 2 * len(alone.points)


def test_a_repeat_is_no_copy(tmp_path: Path) -> None:
    first = points_file(tmp_path, "a.csv", 0.1)
    again = tmp_path / "b.csv"
    again.write_text(first.read_text("utf-8").replace("off,60,", "off,60.01,"), "utf-8")
    assert len(read_sources([first, again]).points) == 5


def test_arms_whose_answers_differ_in_length_are_not_compared(tmp_path: Path) -> None:
    """Where `--osl` was given by hand, only the two rates of each point tell."""
    with pytest.raises(NotComparable, match="output tokens for each input token: their requests were not of"):
        compare_points(read_sources([points_file(tmp_path, "a.csv", 0.05)]), Question())
    assert compare_points(read_sources([points_file(tmp_path, "b.csv", 0.11)]), Question()).comparisons


def test_an_arm_of_other_lengths_is_left_out_beside_one_of_the_same(tmp_path: Path) -> None:
    path = points_file(tmp_path, "a.csv", 0.1)
    path.write_text(path.read_text("utf-8") + "dspark,70,500,25,475,8,8192,1024\n", "utf-8")
    outcome = compare_points(read_sources([path]), Question())
    assert [curve.arm for curve in outcome.comparisons[0].others] == ["mtp"]
    assert any("requests were not of the same lengths" in item.reason for item in outcome.left_out)


# --------------------------------------------------------------------------------------------------- GPUs


@pytest.mark.parametrize(
    ("info", "gpus", "topology", "valid"),
    [
        ({"tp_size": 8}, 8, "1xTP8", True),
        ({"tp_size": 4, "pp_size": 2}, 8, "1xTP4PP2", True),
        ({"tp_size": 8, "pp_size": 2}, 8, None, False),
        ({"tp_size": 8, "ep_size": 8, "dp_size": 8, "enable_dp_attention": True}, 8, "1xDEP8", True),
        ({"tp_size": 4, "dp_size": 2, "enable_dp_attention": False}, 8, "1xTP4DP2", True),
        ({"tp_size": 4}, 8, None, True),
        ({"tp_size": "x"}, 8, None, True),
        ({"tp_size": 4, "pp_size": "2"}, 4, None, True),
    ],
)
def test_the_gpus_of_a_server_are_held_against_those_that_were_said(
    folder: Path, info: dict[str, Any], gpus: int, topology: str | None, valid: bool
) -> None:
    found = point(folder, sglang(server_info=info), Declared(arm="mtp", gpus=gpus))
    assert (found.topology, found.valid) == (topology, valid)


def test_sa_bench_writes_its_gpus_into_the_file_s_name(tmp_path: Path) -> None:
    path = tmp_path / "results_concurrency_8_gpus_12_ctx_4_gen_8.json"
    path.write_text(json.dumps(vllm()), "utf-8")
    (found,) = read_source(path, Declared(arm="mtp")).points
    assert (found.gpus, found.prefill_gpus, found.decode_gpus) == (12, 4, 8)
    with pytest.raises(InputError, match="its name says 12 GPUs, but 8 are declared"):
        read_source(path, MTP)
