"""llama.cpp's server: its command line, what MTP adds to it, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtpbench import hardware
from mtpbench.engines import llamacpp
from mtpbench.errors import SweepError
from mtpbench.records import Deployment, Point
from mtpbench.sweep import load_sweep
from mtpbench.sweep.arm_confounds import compare_processes

CAPTURES = Path(__file__).resolve().parents[2] / "fixtures" / "captures"
SWEEP = """\
sweep: llama
question: Does it pay?
model: {path: /models/m.gguf, served_name: m, precision: q8}
hardware: h100
engine:
  name: llamacpp
  flags: {all: {parallel: 8, ctx-size: 16384}}
  env: {all: {LLAMA_SET_ROWS: "1"}}
workload: {isl: 64, osl: 32}
arms:
  off:
  mtp: {draft_tokens: 3}
  pinned: {draft_tokens: 3, acceptance: {length: 2.2}}
  rates: {draft_tokens: 2, acceptance: {rates: [0.8, 0.5]}}
  ngram: {method: ngram, draft_tokens: 3}
  ngram16: {method: ngram, draft_tokens: 16}
topologies:
  - {aggregated: 1xTP1, concurrency: [1, 8]}
"""


@pytest.fixture
def points(write_sweep) -> dict[str, Point]:  # type: ignore[no-untyped-def]
    return {point.arm.name: point for point in load_sweep(write_sweep(text=SWEEP)).points}


def deploy(point: Point) -> Deployment:
    return llamacpp.deploy(point, hardware.lookup(point.hardware))


def test_one_process_serves_the_file_under_its_name_with_metrics(points: dict[str, Point]) -> None:
    made = deploy(points["off"])
    (process,) = made.processes
    assert process.argv == (
        *("llama-server", "--model", "/models/m.gguf", "--alias", "m", "--metrics"),
        *("--parallel", "8", "--ctx-size", "16384"),
        *("--host", "@{host:aggregated-0}", "--port", "@{port:aggregated-0/http}"),
    )
    assert process.env == {"LLAMA_SET_ROWS": "1"}
    assert process.metrics == ("http", "/metrics")
    assert process.ready
    assert process.ready.model == "m"
    assert (made.front, made.model_name, made.gpus, made.nodes) == ("aggregated-0", "m", 1, 1)
    assert not made.keeps_connections


@pytest.mark.parametrize(
    ("arm", "added"),
    [
        ("mtp", ("--spec-type", "draft-mtp", "--spec-draft-n-max", "3")),
        ("pinned", ("--spec-type", "draft-mtp", "--spec-draft-n-max", "3", "--spec-synth-len", "2.2")),
        (
            "ngram",
            (
                *("--spec-type", "ngram-simple", "--spec-draft-n-max", "3"),
                *("--spec-ngram-simple-size-m", "3", "--spec-ngram-simple-size-n", "3"),
            ),
        ),
        (
            "ngram16",
            (
                *("--spec-type", "ngram-simple", "--spec-draft-n-max", "16"),
                *("--spec-ngram-simple-size-m", "16", "--spec-ngram-simple-size-n", "12"),
            ),
        ),
        ("rates", ("--spec-type", "draft-mtp", "--spec-draft-n-max", "2", "--spec-synth-rates", "0.8,0.5")),
    ],
)
def test_the_arms_differ_in_speculation_alone(
    points: dict[str, Point], arm: str, added: tuple[str, ...]
) -> None:
    (off,), (on,) = deploy(points["off"]).processes, deploy(points[arm]).processes
    assert on.argv == (*off.argv[:-4], *added, *off.argv[-4:])
    assert compare_processes(off, on) == []


def test_the_tokens_that_n_grams_are_matched_by_can_be_given(write_sweep) -> None:  # type: ignore[no-untyped-def]
    given = SWEEP.replace("parallel: 8", "spec-ngram-simple-size-n: 1")
    points = {point.arm.name: point for point in load_sweep(write_sweep(text=given)).points}
    (process,) = deploy(points["ngram"]).processes
    assert process.argv.count("--spec-ngram-simple-size-n") == 1
    assert process.argv[process.argv.index("--spec-ngram-simple-size-n") + 1] == "1"


def test_the_words_that_start_it_can_be_given(write_sweep) -> None:  # type: ignore[no-untyped-def]
    given = SWEEP.replace("name: llamacpp", 'name: llamacpp\n  command: ["@{env:SERVER}", --verbose]')
    (process,) = deploy(load_sweep(write_sweep(text=given)).points[0]).processes
    assert process.argv[:4] == ("@{env:SERVER}", "--verbose", "--model", "/models/m.gguf")


def test_slots_and_the_batch_are_its_limits(points: dict[str, Point]) -> None:
    limits = llamacpp.limits(points["off"])["aggregated"]
    assert (limits.max_running, limits.prefill_chunk_tokens) == (8, 2048)


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (("1xTP1", "2xTP1"), "1xTP1"),
        (("1xTP1", "1xTP2"), "spreads layers, not tensors"),
        (("aggregated: 1xTP1", "prefill: 1xTP1, decode: 1xTP1"), "prefills and decodes"),
        (("name: llamacpp", "name: llamacpp\n  router: dynamo"), "has no router"),
        (("parallel: 8", "spec-ngram-simple-size-n: 4"), "drafts nothing after a match that is longer"),
    ],
)
def test_what_it_can_not_do_is_refused(write_sweep, replace: tuple[str, str], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SweepError, match=message):
        load_sweep(write_sweep(replace, text=SWEEP))


def test_its_counters_have_its_prefix_and_vllm_s_meaning() -> None:
    counters = llamacpp.counters((CAPTURES / "llamacpp_crafted_mtp3_metrics_after.txt").read_text())
    assert counters is not None
    assert (counters.drafts, counters.accepted_tokens) == (1569, 2294)
    assert llamacpp.counters((CAPTURES / "vllm_crafted_mtp3_metrics_after.txt").read_text()) is None


def test_a_command_for_the_embedded_engine_is_refused(write_sweep) -> None:  # type: ignore[no-untyped-def]
    other = SWEEP.replace("name: llamacpp", "name: simulated\n  command: [x]")
    with pytest.raises(SweepError, match="`command` is for real engines"):
        load_sweep(write_sweep(text=other))
