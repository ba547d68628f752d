"""TensorRT-LLM by release: what it counts, drafts, pins and names; read in its sources, not run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

from mtpbench import hardware
from mtpbench.engines import explain, trtllm
from mtpbench.errors import UnsupportedError
from mtpbench.metrics.acceptance import measure_acceptance
from mtpbench.metrics.window import Window
from mtpbench.records import AcceptancePolicy, CounterSample, Deployment, Point, Process
from mtpbench.sweep import load_sweep

RACK = hardware.lookup("gb200-nvl72")
SWEEP = Path(__file__).resolve().parents[3] / "sweeps" / "dsv4-gb200-trtllm.yaml"
OPTIONS = Path(__file__).resolve().parents[2] / "parsers" / "trtllm_options.yaml"
NEWEST = "1.4.0rc1"


def point_of(arm: str = "mtp-k3", topology: str = "1xDEP8", **engine: str | None) -> Point:
    points = load_sweep(SWEEP).points
    point = next(p for p in points if (p.arm.name, p.topology.name) == (arm, topology))
    return dataclasses.replace(point, engine=dataclasses.replace(point.engine, **engine))


def served_from(path: str, name: str, **engine: str | None) -> Point:
    point = point_of(**engine)
    return dataclasses.replace(point, model=dataclasses.replace(point.model, path=path, served_name=name))


def with_yaml(point: Point, **options: object) -> Point:
    flags = {
        role: {**flags, "yaml": {**flags["yaml"], **options}}  # type: ignore[dict-item]
        for role, flags in point.engine.flags.items()
    }
    return dataclasses.replace(point, engine=dataclasses.replace(point.engine, flags=flags))


def no_tokenizer(point: Point) -> Point:
    flags = {
        r: {n: v for n, v in f.items() if n != "custom_tokenizer"} for r, f in point.engine.flags.items()
    }
    return dataclasses.replace(point, engine=dataclasses.replace(point.engine, flags=flags))


def pinned(length: float, **engine: str | None) -> Point:
    point = point_of(**engine)
    assert point.arm.speculation is not None
    policy = AcceptancePolicy(mode="pinned", length=length, pinned_by="sweep")
    speculation = dataclasses.replace(point.arm.speculation, acceptance=policy)
    return dataclasses.replace(point, arm=dataclasses.replace(point.arm, speculation=speculation))


def deployed(point: Point) -> Deployment:
    trtllm.check(point, RACK)
    return trtllm.deploy(point, RACK)


def head(point: Point) -> Process:
    return next(p for p in deployed(point).processes if p.role == "aggregated")


def option(process: Process, name: str) -> str:
    return process.argv[process.argv.index(name) + 1]


def file_of(process: Process) -> Any:
    return yaml.safe_load(process.files[0].text)


# --- what the release drafts, counts and pins ---


def test_both_names_of_the_number_of_drafts_are_written_whatever_the_release() -> None:
    """Until 1.3.0rc15 only `num_nextn_predict_layers` counts; left out, it is 1."""
    for version in ("1.3.0rc12", "1.3.0rc15", NEWEST):
        assert file_of(head(point_of(version=version)))["speculative_config"] == {
            "decoding_type": "MTP",
            "max_draft_len": 3,
            "num_nextn_predict_layers": 3,
        }


@pytest.mark.parametrize("arm", ["off", "mtp-k3"])
def test_every_arm_counts_so_that_all_pay_alike(arm: str) -> None:
    config = file_of(head(point_of(arm)))
    assert (config["return_perf_metrics"], config["enable_iter_perf_stats"]) == (True, True)
    behind = file_of(head(point_of(arm, router="dynamo")))
    assert behind["enable_iter_perf_stats"] is True
    assert "return_perf_metrics" not in behind


@pytest.mark.parametrize(
    ("engine", "named"),
    [
        ({"version": "1.2.1"}, r"1\.2\.1 has no counters .* 1\.3\.0rc12 or later \(`engine\.version`\)"),
        ({"image": "nvcr.io#nvidia/tensorrt-llm/release:1.3.0rc11"}, r"1\.3\.0rc11 has no counters"),
        (
            {"router": "dynamo", "router_version": "1.1.1"},
            r"1\.3\.0rc11 .*\(`engine\.router_version: 1\.2",
        ),
    ],
)
def test_mtp_is_refused_where_nothing_would_count_it(engine: dict[str, str], named: str) -> None:
    with pytest.raises(UnsupportedError, match=named):
        trtllm.check(point_of(**engine), RACK)
    trtllm.check(no_tokenizer(point_of("off", **engine)), RACK)


def test_mtp_is_refused_where_the_sweep_switches_its_counters_off() -> None:
    trtllm.check(with_yaml(point_of(), enable_iter_perf_stats=True), RACK)
    for name in ("return_perf_metrics", "enable_iter_perf_stats"):
        with pytest.raises(UnsupportedError, match=rf"aggregated workers turns {name} off"):
            trtllm.check(with_yaml(point_of(), **{name: False}), RACK)
        trtllm.check(with_yaml(point_of("off"), **{name: False}), RACK)
    behind = with_yaml(point_of(router="dynamo"), return_perf_metrics=False)
    assert file_of(head(behind))["return_perf_metrics"] is False


def test_a_fraction_is_pinned_by_the_releases_that_take_one() -> None:
    variable = "TLLM_SPEC_DECODE_FORCE_NUM_ACCEPTED_TOKENS"
    assert head(pinned(2.49)).env[variable] == "1.49"
    assert head(pinned(2.0, version="1.3.0rc14")).env[variable] == "1"
    with pytest.raises(
        UnsupportedError, match=r"1\.3\.0rc14 pins whole numbers .* 1\.49 becomes 0\. .*1\.3\.0rc15"
    ):
        trtllm.check(pinned(2.49, version="1.3.0rc14"), RACK)


# --- names of options ---


def test_without_a_version_lines_are_for_the_newest_release() -> None:
    made = trtllm.release(point_of())
    assert (made.version, made.named_by) == (NEWEST, "nothing")
    assert trtllm.release(point_of(router="dynamo")).version == "1.3.0rc29"


def test_the_model_is_served_under_the_name_that_requests_use() -> None:
    local = served_from("/models/v4/", "v4-pro")
    assert option(head(local), "--served_model_name") == "v4-pro"
    before: dict[str, str | None] = {"version": "1.2.1"}
    off = dataclasses.replace(served_from("/models/v4/", "/models/v4/", **before), arm=point_of("off").arm)
    with pytest.raises(UnsupportedError, match=r"as 'v4', not as '/models/v4/': .* `model\.served_name: v4`"):
        trtllm.check(no_tokenizer(off), RACK)
    named = dataclasses.replace(off, model=dataclasses.replace(off.model, served_name="v4"))
    assert "--served_model_name" not in head(no_tokenizer(named)).argv
    assert "--extra_llm_api_options" not in head(no_tokenizer(named)).argv


def test_what_older_releases_lack_is_written_their_way_or_refused() -> None:
    old = point_of("off", version="1.1.0")
    with pytest.raises(UnsupportedError, match=r"1\.1\.0 has no custom_tokenizer deepseek_v4"):
        trtllm.check(old, RACK)
    assert option(head(no_tokenizer(old)), "--extra_llm_api_options").endswith("aggregated-0.yaml")
    assert option(head(point_of()), "--config").endswith("aggregated-0.yaml")


@pytest.mark.parametrize(
    ("of_dynamo", "publishes"),
    [
        ("1.2.1", "--publish-events-and-metrics"),
        ("1.3.1", "--publish-kv-events"),
        ("1.5.1", "--publish-kv-events"),
        ("1.6.0", "--publish-metrics"),
        (None, "--publish-metrics"),
    ],
)
def test_dynamos_worker_is_told_to_publish_metrics_in_the_words_of_its_release(
    of_dynamo: str | None, publishes: str
) -> None:
    argv = head(point_of(router="dynamo", router_version=of_dynamo)).argv
    assert [word for word in argv if word.startswith("--publish")] == [publishes]
    assert "--model-path" not in argv
    assert argv[argv.index("--model") + 1] == "deepseek-ai/DeepSeek-V4-Pro"


def test_the_router_waits_as_long_as_the_sweep_does(write_sweep) -> None:  # type: ignore[no-untyped-def]
    path = write_sweep(
        ("  name: simulated\n  clock: scaled\n  speed: 5\n", "  name: trtllm\n  router: trtllm\n"),
        ("  flags: {all: {stream-interval: 4}}\n", ""),
        ("- {aggregated: 1xTP4, concurrency: [1, 2]}", "- {prefill: 1xTP4, decode: 1xTP4, concurrency: [8]}"),
    )
    point = load_sweep(path).points[-1]
    rules = dataclasses.replace(point.measurement, ready_timeout_s=7200.0, request_timeout_s=1799.5)
    router = deployed(dataclasses.replace(point, measurement=rules)).processes[0]
    assert option(router, "--server_start_timeout") == "7200"
    assert option(router, "--request_timeout") == "1800"


def leaves(config: dict[str, Any], above: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in config.items():
        found |= leaves(value, f"{above}{key}.") if isinstance(value, dict) else {above + key}
    return found


@pytest.mark.parametrize("arm", ["off", "mtp-k3"])
@pytest.mark.parametrize(
    ("program", "engine"),
    [
        ("trtllm-serve", {"version": "1.3.0rc12"}),
        ("trtllm-serve", {"version": NEWEST}),
        ("dynamo.trtllm", {"router": "dynamo", "router_version": "1.2.1"}),
        ("dynamo.trtllm", {"router": "dynamo", "router_version": "1.5.1"}),
        ("dynamo.trtllm", {"router": "dynamo", "router_version": "1.6.1"}),
    ],
)
def test_all_that_is_written_stands_in_the_kept_table_for_that_release(
    program: str, engine: dict[str, str], arm: str
) -> None:
    table = yaml.safe_load(OPTIONS.read_text("utf-8"))
    process = head(point_of(arm, **engine))
    named = Version(engine.get("router_version") or engine["version"])
    written = {word for word in process.argv if word.startswith("--")}
    for rows, kind, names in (
        (table[program], "option", written),
        (table["yaml"], "key", leaves(file_of(process))),
    ):
        known = {row[kind]: row for row in rows}
        assert names <= set(known)
        for row in (known[name] for name in names):
            assert row["since"] is None or Version(row["since"]) <= named
            assert "removed" not in row or named < Version(row["removed"])


@pytest.mark.parametrize("arm", ["mtp3", "ngram", "dspark6"])
def test_the_keys_and_kinds_of_every_method_stand_in_the_kept_table(arm: str) -> None:
    points = load_sweep(SWEEP.with_name("dsv4-gb200-arms-trtllm.yaml")).points
    config = file_of(head(next(point for point in points if point.arm.name == arm)))
    known = {row["key"]: row for row in yaml.safe_load(OPTIONS.read_text("utf-8"))["yaml"]}
    assert leaves(config) <= known.keys()
    assert (
        config["speculative_config"]["decoding_type"] in known["speculative_config.decoding_type"]["values"]
    )


# --- counters (names as in its sources; the values are made up) ---

ITERATIONS = (
    'trtllm_spec_decode_num_draft_tokens_total{{model_name="m"}} {drafted}\n'
    'trtllm_spec_decode_num_accepted_tokens_total{{model_name="m"}} {accepted}\n'
)
CONFIGURED = 'trtllm_speculative_config_info{spec_method="MTP",spec_num_tokens="1"} 1.0\n'


def by_position(drafted: list[int], accepted: list[int]) -> str:
    lines = ['trtllm_spec_decode_acceptance_length{model_name="m"} NaN']
    for name, counts in (("drafted", drafted), ("accepted", accepted)):
        for i, count in enumerate(counts):
            labels = f'model_name="m",token_position="{i}"'
            lines.append(f"trtllm_spec_decode_{name}_tokens_total{{{labels}}} {count}")
    return "\n".join(lines) + "\n"


def measured(*pages: str) -> Any:
    samples = [
        CounterSample(time_s=float(i), process="aggregated-0", counters=trtllm.counters(page))
        for i, page in enumerate(pages)
    ]
    return measure_acceptance(point_of(), samples, Window(start_s=0.0, end_s=float(len(pages) - 1)))


def test_positions_count_the_steps_and_all_ranks() -> None:
    """The counters of iterations beside them are rank 0's, once for each rank."""
    before = by_position([40, 40, 40], [30, 20]) + ITERATIONS.format(drafted=960, accepted=900)
    after = by_position([140, 140, 140], [110, 60, 20]) + ITERATIONS.format(drafted=2960, accepted=2700)
    counted = measured(before, after)
    assert counted.drafts == 100
    assert counted.length == pytest.approx(1 + (80 + 40 + 20) / 100)
    assert counted.rate == pytest.approx(140 / 300)
    assert counted.per_position == pytest.approx((0.8, 0.4, 0.2))


def test_an_engine_that_drafts_one_token_is_not_taken_for_one_that_drafts_the_sweeps_three() -> None:
    exact = measured(by_position([0], []), by_position([100], [80]), by_position([200], [160]))
    assert exact.length == pytest.approx(1.8)
    pages = [ITERATIONS.format(drafted=100 * i, accepted=80 * i) + CONFIGURED for i in (1, 2, 3)]
    assert measured(*pages).length == pytest.approx(1.8)


def test_an_engine_that_accepts_nothing_has_a_length_of_one() -> None:
    """The counter of accepted tokens appears with the first of them."""
    pages = [f"trtllm_spec_decode_num_draft_tokens_total {count}\n" for count in (30, 60, 90)]
    assert measured(*pages).length == 1.0
    assert measured(by_position([10], []), by_position([20], [])).length == 1.0
    assert trtllm.counters("trtllm_request_success_total 5\n") is None


def test_counters_that_begin_in_the_window_are_no_rise() -> None:
    pages = [ITERATIONS.format(drafted=3, accepted=1), by_position([100, 100, 100], [80, 60, 40])]
    first, second = (trtllm.counters(page) for page in pages)
    assert first is not None
    assert second is not None
    assert not set(first.series) & set(second.series)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("pydantic_core.ValidationError: 1 validation error for TorchLlmArgs", "bad_flag"),
        ("RuntimeError: Failed to bind socket to n1:8000: [Errno 98]", "port_in_use"),
        ("[TRT-LLM] [E] Executor creation failed due to insufficient GPU memory.", "out_of_memory"),
        ("RuntimeError: Executor worker returned error", "engine_core_dead"),
    ],
)
def test_deaths_that_its_sources_print(line: str, code: str) -> None:
    cause = explain(line)
    assert cause is not None
    assert cause.code == code
