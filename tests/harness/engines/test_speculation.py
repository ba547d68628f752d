"""What an arm declares of speculation: in an engine's own options, or refused with what would be right."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from mtpbench import hardware
from mtpbench.engines import engine_of, sglang, vllm
from mtpbench.engines.about import newest
from mtpbench.engines.releases import VLLM
from mtpbench.errors import SweepError, UnsupportedError
from mtpbench.records import (
    AcceptancePolicy,
    Arm,
    DepthRange,
    DepthRule,
    Engine,
    Method,
    Point,
    Process,
    Speculation,
    Topology,
    WorkerGroup,
)
from mtpbench.sweep import load_sweep

RACK = hardware.lookup("gb200-nvl72")
SWEEPS = Path(__file__).resolve().parents[3] / "sweeps"
BASE = load_sweep(SWEEPS / "dsv4-gb200-vllm.yaml").points[0]
METHODS: tuple[Method, ...] = get_args(Method)
TP1 = Topology(groups=(WorkerGroup(role="aggregated", workers=1, tp=1),))
TP8 = Topology(groups=(WorkerGroup(role="aggregated", workers=1, tp=8),))
DEP8 = Topology(groups=(WorkerGroup(role="aggregated", workers=1, tp=1, dp=8, ep=8),))
SPLIT = Topology(
    groups=(
        WorkerGroup(role="prefill", workers=1, tp=1, dp=8, ep=8),
        WorkerGroup(role="decode", workers=1, tp=8),
    )
)
LENGTH = AcceptancePolicy(mode="golden", length=2.5, pinned_by="sweep")
RATES = AcceptancePolicy(mode="golden", length=2.47, rates=(0.8, 0.47, 0.2), pinned_by="sweep")
TABLE = DepthRule(
    kind="by_batch",
    ranges=(
        DepthRange(first=1, last=16, draft_tokens=3),
        DepthRange(first=17, last=64, draft_tokens=2),
        DepthRange(first=65, last=256, draft_tokens=0),
    ),
)
ADAPTIVE = DepthRule(kind="adaptive")
LAYOUTS = {"TP1": TP1, "TP8": TP8, "DEP8": DEP8, "DEP8-TP8": SPLIT}
POLICIES = {"length": LENGTH, "rates": RATES, "golden": dataclasses.replace(RATES, pinned_by="golden")}
ATTENTION_DP = {"enable-dp-attention": True, "enable-dp-lm-head": True, "moe-a2a-backend": "megamoe"}


def spec(method: Method, drafts: int = 3, **more: Any) -> Speculation:
    if method in ("eagle3", "draft_model"):
        more.setdefault("draft_model", "drafter")
    more.setdefault("acceptance", AcceptancePolicy(mode="measured"))
    return Speculation(method=method, draft_tokens=drafts, **more)


def point_of(
    engine: str,
    speculation: Speculation | None,
    layout: Topology = TP8,
    flags: Mapping[str, Any] | None = None,
    path: str = "some/model",
    **more: Any,
) -> Point:
    """A point for the newest release, with those options only that SGLang's attention DP needs."""
    roles = {group.role: dict(flags or {}) for group in layout.groups}
    for group in layout.groups if engine == "sglang" and flags is None else ():
        roles[group.role] = ATTENTION_DP if group.attention_dp else {}
    router = {"mocker": "dynamo", "vllm": "dynamo", "sglang": "sglang", "trtllm": "trtllm"}.get(engine)
    base = Engine(name=engine, flags=roles, **{"router": router, **more})
    if engine == "vllm" and base.version is None:
        base = dataclasses.replace(base, version=newest(VLLM))
    arm = Arm(name="on" if speculation else "off", speculation=speculation)
    model = dataclasses.replace(BASE.model, path=path)
    return dataclasses.replace(BASE, model=model, engine=base, topology=layout, arm=arm)


def written(point: Point) -> tuple[Process, ...]:
    module = engine_of(point)
    module.check(point, RACK)
    return module.deploy(point, RACK).processes


def said(process: Process) -> dict[str, Any]:
    """All that a process is given: its options, its environment, and what its files hold."""
    found: dict[str, Any] = {}
    words = list(process.argv)
    for i, word in enumerate(words):
        if word.startswith("--"):
            following = words[i + 1] if i + 1 < len(words) else "--"
            value = True if following.startswith("--") else following
            found[word[2:]] = json.loads(value) if isinstance(value, str) and value[0] in "{[" else value
    found |= {f"env {name}": value for name, value in process.env.items()}
    for file in process.files:
        content = yaml.safe_load(file.text)
        found |= {"file": content} if file.path.endswith(".json") else content
    return found


def added(point: Point, role: str | None = None) -> dict[str, Any]:
    """What speculation changes in the first process of a role, by default of those that decode."""
    asked = role or point.topology.groups[-1].role
    off = dataclasses.replace(point, arm=Arm(name="off"))
    before, after = (
        said(next(process for process in written(side) if process.role == asked)) for side in (off, point)
    )
    return {name: value for name, value in after.items() if before.get(name) != value}


def rows(kind: str) -> list[Any]:
    """The rows of the table, each with a name that says its engine, method and layout."""
    table = yaml.safe_load((Path(__file__).parent / "speculation.yaml").read_text("utf-8"))[kind]
    return [pytest.param(row, id=f"{row['engine']}-{row['arm']['method']}-{row['layout']}") for row in table]


def arm_of(row: Mapping[str, Any]) -> Speculation:
    arm = dict(row["arm"])
    method, drafts, depth, policy = (
        arm.pop(key, None) for key in ("method", "draft_tokens", "depth", "acceptance")
    )
    if policy is not None:
        arm["acceptance"] = POLICIES[policy]
    if depth is not None:
        rules = {"table": TABLE, "adaptive": ADAPTIVE}
        own = isinstance(depth, dict)
        arm["depth"] = DepthRule(kind="adaptive", config=depth["adaptive"]) if own else rules[depth]
    return spec(method, drafts, **arm)


@pytest.mark.parametrize("row", rows("adds"))
def test_an_arm_adds_exactly_this(row: Mapping[str, Any]) -> None:
    more = {"flags": {"max_batch_size": 64, "max_num_tokens": 65536}} if row["engine"] == "trtllm" else {}
    assert (
        added(point_of(row["engine"], arm_of(row), LAYOUTS[row["layout"]], **more, **row.get("with", {})))
        == row["adds"]
    )


def test_above_tensorrt_llms_largest_batch_of_a_schedule_the_last_depth_stays() -> None:
    """Above the largest key it would draft nothing."""
    stays = DepthRule(
        kind="by_batch",
        ranges=(
            DepthRange(first=1, last=16, draft_tokens=3),
            DepthRange(first=17, last=64, draft_tokens=1),
        ),
    )
    point = point_of("trtllm", spec("mtp", depth=stays), TP8, {"max_batch_size": 512}, router=None)
    assert said(written(point)[0])["speculative_config"]["draft_len_schedule"] == {16: 3, 64: 1, 512: 1}


# --- roles ---


def test_sglang_drafts_on_prefill_workers_for_dspark_and_for_a_prefix_cache_of_the_decode_workers() -> None:
    mtp, dspark = (point_of("sglang", spec(method), SPLIT) for method in ("mtp", "dspark"))
    assert "speculative-algorithm" not in added(mtp, "prefill")
    assert added(dspark, "prefill") == {
        "speculative-algorithm": "DSPARK",
        "speculative-dspark-block-size": "3",
    }
    cached = {**mtp.engine.flags, "decode": {"disaggregation-decode-enable-radix-cache": True}}
    with_cache = dataclasses.replace(mtp, engine=dataclasses.replace(mtp.engine, flags=cached))
    assert added(with_cache, "prefill")["speculative-algorithm"] == "EAGLE"


def test_a_prefill_worker_of_vllm_has_the_draft_layers_and_no_rule_of_depth() -> None:
    point = point_of("vllm", spec("mtp", depth=TABLE), SPLIT)
    assert added(point, "prefill") == {"speculative-config": {"method": "mtp", "num_speculative_tokens": 3}}


# --- what speculation changes by itself ---


@pytest.mark.parametrize("layout", [TP8, DEP8, SPLIT])
def test_sglang_runs_as_many_requests_in_every_arm(layout: Topology) -> None:
    """By itself it would run 48 in all with speculation, and without it at least 2,048 for each rank."""
    for speculation in (None, spec("mtp")):
        point = point_of("sglang", speculation, layout)
        processes = {p.worker: said(p) for p in written(point) if p.worker is not None}
        numbers = [int(one["max-running-requests"]) for one in processes.values()]
        ranks = [2048 * (g.dp if sglang.ABOUT and g.attention_dp else 1) for g in layout.groups]
        assert numbers == ranks
        assert [sglang.limits(point)[g.role].max_running for g in layout.groups] == ranks
    given = said(written(point_of("sglang", spec("mtp"), TP8, {"max-running-requests": 16}))[-1])
    assert given["max-running-requests"] == "16"


def test_vllms_model_runner_is_named_where_speculation_alone_would_change_it() -> None:
    runner = "env VLLM_USE_V2_MODEL_RUNNER"
    for version, method, expected in (
        ("0.25.1", "dspark", "1"),
        ("0.25.1", "mtp", None),
        ("0.25.1", "suffix", None),
        ("0.33.0", "dspark", None),
        ("0.33.0", "suffix", "0"),
    ):
        assert added(point_of("vllm", spec(method), version=version)).get(runner) == expected  # type: ignore[arg-type]


def test_the_room_of_a_step_of_vllms_counts_the_drafts_of_every_sequence() -> None:
    room = vllm.ABOUT.step_room
    assert room is not None
    flags = {"max-num-seqs": 512, "max-num-batched-tokens": 1024, "max-cudagraph-capture-size": 512}
    off, deep = (point_of("vllm", one, TP8, flags) for one in (None, spec("mtp")))
    assert room(off, "aggregated") == {"max-num-batched-tokens": 512, "max-cudagraph-capture-size": 512}
    assert room(deep, "aggregated") == {"max-num-batched-tokens": 256, "max-cudagraph-capture-size": 128}
    assert room(deep, "prefill") == {}
    eager = point_of("vllm", spec("mtp"), TP8, {"max-num-seqs": 4096, "enforce-eager": True})
    assert room(eager, "aggregated") == {"max-num-batched-tokens": 2048}
    assert room(point_of("vllm", spec("mtp"), TP8, {}), "aggregated") == {}


# --- what a sweep adds ---


def forced(engine: str, method: Method, **flags: Any) -> Point:
    point = point_of(engine, spec(method))
    return dataclasses.replace(point, arm=dataclasses.replace(point.arm, forces={"aggregated": flags}))


def test_what_a_sweep_adds_to_the_options_of_speculation_is_kept() -> None:
    config = added(forced("vllm", "ngram", **{"speculative-config": '{"prompt_lookup_max": 3}'}))
    assert config["speculative-config"] == {
        "method": "ngram",
        "num_speculative_tokens": 3,
        "prompt_lookup_max": 3,
    }
    relaxed = {"speculative_config": {"use_relaxed_acceptance_for_thinking": True}}
    config = added(forced("trtllm", "mtp", yaml=relaxed))
    assert config["speculative_config"]["use_relaxed_acceptance_for_thinking"] is True
    assert config["speculative_config"]["max_draft_len"] == 3


@pytest.mark.parametrize(
    ("engine", "flags"),
    [
        ("vllm", {"speculative-config": {"num_speculative_tokens": 5}}),
        ("sglang", {"speculative-num-steps": 5}),
        ("trtllm", {"yaml": {"speculative_config": {"max_draft_len": 5}}}),
    ],
)
def test_what_a_sweep_says_otherwise_than_its_arm_is_refused(engine: str, flags: dict[str, Any]) -> None:
    with pytest.raises(
        UnsupportedError, match=r"(num_speculative_tokens|-num-steps|max_draft_len): 5, and the arm 3"
    ):
        written(forced(engine, "mtp", **flags))


@pytest.mark.parametrize(
    ("engine", "flags"),
    [
        ("vllm", {"speculative-config": {"method": "mtp", "num_speculative_tokens": 1}}),
        ("vllm", {"spec_method": "ngram"}),
        ("sglang", {"speculative-algorithm": "EAGLE"}),
        ("trtllm", {"yaml": {"speculative_config": {"decoding_type": "MTP"}}}),
        ("llamacpp", {"spec-type": "ngram-mod"}),
        ("mocker", {"aic-nextn": 2}),
    ],
)
def test_an_arm_without_speculation_on_a_base_that_speculates_is_refused(
    engine: str, flags: dict[str, Any]
) -> None:
    layout = TP1 if engine == "llamacpp" else TP8
    with pytest.raises(UnsupportedError, match=r"arm off: .*, and the arm is off; take .* away"):
        written(point_of(engine, None, layout, flags))


# --- what is refused ---


@pytest.mark.parametrize("row", rows("refused"))
def test_what_an_engine_refuses_or_ignores_is_refused_with_what_is_right(
    row: Mapping[str, Any],
) -> None:
    with pytest.raises(UnsupportedError, match=row["refused"]):
        written(point_of(row["engine"], arm_of(row), LAYOUTS[row["layout"]], **row.get("with", {})))


def test_a_refusal_says_where_in_the_sweep(tmp_path: Path) -> None:
    text = (SWEEPS / "dsv4-gb200-arms-sglang.yaml").read_text("utf-8")
    path = tmp_path / "sweep.yaml"
    path.write_text(
        text.replace("  off:\n", "  off:\n  ngram: {method: ngram, draft_tokens: 4}\n", 1), "utf-8"
    )
    named = r"topologies\[0\].*arm ngram \(ngram\): sglang refuses NGRAM of DeepSeek-V4-Pro"
    with pytest.raises(SweepError, match=named):
        load_sweep(path)


def test_a_method_that_does_not_exist_is_told_once_with_all_that_do(tmp_path: Path) -> None:
    text = (SWEEPS / "dsv4-gb200-arms-sglang.yaml").read_text("utf-8")
    path = tmp_path / "sweep.yaml"
    path.write_text(text.replace("  off:\n", "  off:\n  a: {method: none}\n", 1), "utf-8")
    with pytest.raises(SweepError, match=r"arms\.a\.method: input should be 'off', 'mtp', .*, not 'none'$"):
        load_sweep(path)


def test_the_arms_of_the_documentation_are_arms_of_a_sweep(tmp_path: Path) -> None:
    page = (SWEEPS.parent / "docs" / "howto" / "speculation.md").read_text("utf-8")
    arms = page.split("```yaml\n", 1)[1].split("```", 1)[0]
    head = (SWEEPS / "dsv4-gb200-arms-vllm.yaml").read_text("utf-8").split("\narms:\n")[0]
    path = tmp_path / "sweep.yaml"
    path.write_text(f"{head}\n{arms}topologies:\n  - {{aggregated: 1xTP8, concurrency: [1]}}\n", "utf-8")
    named = [line.split(":")[0].strip() for line in arms.splitlines()[1:]]
    assert [point.arm.name for point in load_sweep(path).points] == named


# --- no setting is dropped silently ---

OWN_WAY = {
    ("sglang", "draft_sampling", "greedy"): "SGLang drafts greedily unless it is told to sample",
    ("sglang", "rejection_method", "standard"): "SGLang verifies one by one unless it is told to by blocks",
}
"""What an engine does by itself, and has no option for."""


def declarations(engine: str) -> Iterator[tuple[Point, Speculation]]:
    layouts = {"llamacpp": (TP1,)}.get(engine, (TP8, DEP8, SPLIT))
    for method, layout, sampling, rejection, rule, policy in itertools.product(
        METHODS, layouts, (None, "greedy", "probabilistic"), (None, "standard", "block"),
        (None, TABLE, ADAPTIVE), (None, LENGTH, RATES),
    ):  # fmt: skip
        more = {"acceptance": policy} if policy is not None else {}
        for drafts in (3, 7) if rule is ADAPTIVE and policy is not RATES else (3,):
            speculation = spec(
                method, drafts, draft_sampling=sampling, rejection_method=rejection, depth=rule, **more
            )
            yield point_of(engine, speculation, layout), speculation


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "llamacpp", "mocker"])
def test_every_setting_changes_the_lines_or_is_refused_by_name(engine: str) -> None:
    accepted, refusals = 0, set()
    for point, speculation in declarations(engine):
        try:
            lines = written(point)
        except UnsupportedError as error:
            refusals.add(str(error).replace(f"arm on ({speculation.method}):", "arm:", 1))
            continue
        accepted += 1
        for name, unset in (
            ("draft_sampling", None),
            ("rejection_method", None),
            ("depth", None),
            ("acceptance", AcceptancePolicy(mode="measured")),
        ):
            value = getattr(speculation, name)
            if value == unset or (engine, name, str(value)) in OWN_WAY:
                continue
            without = dataclasses.replace(speculation, **{name: unset})
            arm = dataclasses.replace(point.arm, speculation=without)
            assert written(dataclasses.replace(point, arm=arm)) != lines, (name, speculation)
    assert accepted > 0
    unnamed = {refusal for refusal in refusals if not refusal.startswith("arm:")}
    assert all("by 3 rates" in refusal for refusal in unnamed), unnamed


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "llamacpp"])
def test_no_two_methods_and_no_two_depths_have_the_same_lines(engine: str) -> None:
    layout, seen = TP1 if engine == "llamacpp" else TP8, []
    for method in METHODS:
        for drafts in (3, 4):
            more = {"draft_model": "d"} if method == "dspark" else {}
            try:
                lines = written(point_of(engine, spec(method, drafts, **more), layout))
            except UnsupportedError:
                continue
            assert lines not in seen
            seen.append(lines)
    assert len(seen) >= 10


# --- checkpoints, and the shipped sweeps ---


def test_llamacpps_shipped_arms_differ_in_speculation_alone() -> None:
    sweep = load_sweep(SWEEPS / "qwen3-arms-llamacpp.yaml")
    assert sweep.info.confounds == ()
    drafts = {point.arm.name: point.draft_tokens for point in sweep.points}
    assert drafts == {"off": 0, "small": 4, "eagle3": 4, "dspark": 7, "ngram": 8}


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_the_shipped_arms_differ_in_speculation_and_in_the_checkpoints_that_are_named(engine: str) -> None:
    sweep = load_sweep(SWEEPS / f"dsv4-gb200-arms-{engine}.yaml")
    own, other = "deepseek-ai/DeepSeek-V4-Pro", "deepseek-ai/DeepSeek-V4-Pro-0813"
    named = f"serves {other} instead of {own}"
    expected = [f"off-0813 {named}"]
    expected += [f"dspark{k} {named}; without drafts, off-0813 serves it too" for k in (5, 6)]
    if engine == "trtllm":
        expected = [
            "2 of 6 points of off have no counterpart in ngram on 1xDEP8",
            "ngram on aggregated: file disable_overlap_scheduler is true instead of absent",
            *expected,
        ]
    assert list(sweep.info.confounds) == expected
    drafts = {point.arm.name: point.draft_tokens for point in sweep.points}
    assert {"off", "mtp1", "mtp2", "mtp3", "off-0813", "dspark5", "dspark6"} <= drafts.keys()
    assert drafts["dspark6"] == 6
    for point in sweep.points:
        served = {word for process in engine_of(point).deploy(point, RACK).processes for word in process.argv}
        assert (other in served) == (point.arm.name in ("off-0813", "dspark5", "dspark6"))
        assert (own in served) == (point.arm.name not in ("off-0813", "dspark5", "dspark6"))
