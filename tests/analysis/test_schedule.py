"""The depth of drafting by load: from measured arms, in each engine's form, and against the static arms."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special  # type: ignore[import-untyped]
from typer.testing import CliRunner

from mtpbench.cli import app
from mtpbench.errors import InputError
from mtpbench.records import Load, Point, Simulation, Topology, WorkerGroup
from mtpbench_analysis.frame import Unused
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.schedule import (
    EngineForm,
    Run,
    Schedule,
    check_engine,
    find_schedule,
    notes_of,
    to_engine_form,
    to_json,
    write_schedule,
)
from stored_sweep import depth_runs

Serves = Callable[[float], float]


def power(factor: float, exponent: float) -> Serves:
    return lambda load: factor * load**exponent


THREE_DEPTHS = {0: power(10.0, 0.9), 1: power(18.0, 0.75), 3: power(30.0, 0.55)}
"""3 beats 1 up to (30/18)^5 = 12.86, and 1 beats 0 up to 1.8^(20/3) = 50.33."""


def schedule(**changes: Any) -> Schedule:
    return find_schedule(depth_runs(THREE_DEPTHS, **changes))


def depth_at(found: Schedule, batch: int) -> int:
    return next(item.draft_tokens for item in found.ranges if item.first <= batch <= item.last)


def test_depths_change_over_where_their_throughputs_cross() -> None:
    assert schedule().table == [[1, 12, 3], [13, 50, 1], [51, 256, 0]]


@settings(max_examples=60, deadline=None)
@given(
    factors=st.lists(st.floats(5.0, 50.0), min_size=2, max_size=4),
    exponents=st.lists(st.floats(0.2, 1.0), min_size=4, max_size=4),
    cores=st.sampled_from([1, 2, 8]),
)
def test_every_batch_gets_the_best_depth_of_throughputs_that_are_straight_in_logarithms(
    factors: list[float], exponents: list[float], cores: int
) -> None:
    throughputs = {depth: power(factors[depth], exponents[depth]) for depth in range(len(factors))}
    group = WorkerGroup(role="aggregated", workers=cores, tp=1)
    found = find_schedule(depth_runs(throughputs, loads=(8, 64, 512), group=group))
    assert found.ranges[0].first == 1
    assert found.ranges[-1].last == 512 // cores
    for before, after in zip(found.ranges, found.ranges[1:], strict=False):
        assert after.first == before.last + 1
        assert after.draft_tokens != before.draft_tokens
    for batch in range(8 // cores or 1, 512 // cores + 1):
        served = {depth: serves(batch * cores) for depth, serves in throughputs.items()}
        assert served[depth_at(found, batch)] >= max(served.values()) * (1 - 1e-9)


def test_the_region_of_doubt_is_where_the_interval_of_the_two_best_holds_their_being_equal() -> None:
    """Two runs with 1% of error each, known by 20 degrees of freedom, and no luck of starts."""
    runs = depth_runs({0: power(10.0, 0.9), 1: power(20.0, 0.7)}, rel_se=0.01)
    found = find_schedule(runs, start_noise=0.0)
    reach = special.stdtrit(40, 0.975) * 0.01 * math.sqrt(2)
    crossing = 2.0 ** (1 / 0.2)
    first, last = (crossing * math.exp(sign * reach / 0.2) for sign in (-1, 1))
    (doubt,) = found.doubts
    assert (doubt.first, doubt.last) == (math.ceil(first), math.floor(last))
    assert doubt.depths == (0, 1)
    assert doubt.is_known


def test_without_any_noise_told_every_batch_is_in_doubt_and_says_so() -> None:
    (doubt, *_) = schedule(rel_se=None).doubts
    assert not doubt.is_known
    assert (
        "nothing tells the noise of runs" in write_schedule(schedule(rel_se=None), "vllm").items("doubts")[0]
    )


def test_the_load_is_the_batch_of_one_engine_core() -> None:
    group = WorkerGroup(role="aggregated", workers=2, tp=1, dp=4, ep=4)
    found = schedule(loads=(8, 32, 128, 512, 2048), group=group)
    assert found.cores == 8
    assert [rung.batch for rung in found.rungs] == [1, 4, 16, 64, 256]
    runs = depth_runs({0: power(10.0, 0.9), 1: power(20.0, 0.7)}, loads=(8, 64))
    assert find_schedule(runs).cores == 1


def test_requests_that_wait_for_prefill_elsewhere_are_in_no_step_of_a_decoding_worker() -> None:
    """At 256 in flight they wait three quarters of their time, so that no larger batch decodes than at 64."""
    groups = (
        WorkerGroup(role="prefill", workers=1, tp=8),
        WorkerGroup(role="decode", workers=2, tp=8),
    )
    waits_s = {4: 0.0, 16: 1.0, 64: 2.0, 256: 7.5}
    runs = [
        (
            replace(point, topology=Topology(groups=groups)),
            replace(figures, ttft_p50_s=waits_s[point.concurrency], e2el_p50_s=10.0),
        )
        for point, figures in depth_runs(THREE_DEPTHS, loads=tuple(waits_s))
    ]
    found = find_schedule(runs)
    assert [rung.batch for rung in found.rungs] == pytest.approx([2, 7.2, 25.6, 32])
    stuck = [(p, replace(f, ttft_p50_s=8.0) if p.concurrency == 256 else f) for p, f in runs]
    found = find_schedule(stuck)
    assert [rung.concurrency for rung in found.rungs] == [4, 16, 64]
    assert "concurrency 256: it brings no larger batch, requests wait for prefill" in found.left_out


def test_what_was_not_measured_is_said_not_extrapolated() -> None:
    found = schedule(loads=(4, 16, 64))
    assert found.table == [[1, 12, 3], [13, 50, 1], [51, 64, 0]]
    below, above = notes_of(found, "vllm")[1:3]
    assert below == "Below batch 4, the smallest that was measured, its depth is taken: not measured."
    assert above.startswith("Above batch 64, the largest that was measured, the engine drafts 0, as there")
    shallow = schedule(loads=(1, 4, 16))
    assert "the engine drafts 0: its rule above the last key" in notes_of(shallow, "trtllm")[1]


def test_loads_that_one_depth_lacks_are_left_out_by_name() -> None:
    runs = depth_runs(THREE_DEPTHS)
    runs = [
        (point, replace(run, valid=False, reasons=("died",)))
        if run.arm == "mtp3" and run.concurrency == 256
        else (point, run)
        for point, run in runs
    ]
    found = find_schedule(runs)
    assert found.ranges[-1].last == 64
    assert "concurrency 256: not every depth has a valid point there" in found.left_out
    assert any("died" in text for text in found.left_out)


def test_of_several_arms_without_speculation_the_one_on_the_same_checkpoint_is_depth_0() -> None:
    """As in the sweeps that ship: DSpark's layers lie in a checkpoint of their own, which has an Off too."""
    later = "some/later-checkpoint"

    def on(runs: list[Run], name: str, checkpoint: str | None) -> list[Run]:
        arms = [replace(point.arm, name=name or point.arm.name, checkpoint=checkpoint) for point, _ in runs]
        return [
            (replace(point, arm=arm), run if isinstance(run, Unused) else replace(run, arm=arm.name))
            for (point, run), arm in zip(runs, arms, strict=True)
        ]

    drafting = depth_runs({1: THREE_DEPTHS[1], 3: THREE_DEPTHS[3]})
    off = depth_runs({0: THREE_DEPTHS[0]})
    slow = on(depth_runs({0: power(1.0, 0.9)}), "off-later", later)
    assert find_schedule([*off, *slow, *drafting]).table == schedule().table
    found = find_schedule([*slow, *off, *on(off, "off2", None), *drafting])
    assert found.table == schedule().table
    model = off[0][0].model.path
    assert found.left_out == (
        f"off-later: it serves {later}, and mtp1 {model}",
        "off2: it is served as off is",
    )
    lost = [(point, replace(run, valid=False)) for point, run in depth_runs({0: power(1.0, 0.9)})]
    twin = find_schedule([*lost, *on(off, "off2", None), *drafting])
    assert twin.table == schedule().table, "an Off without a valid point stands for none that has some"
    with pytest.raises(InputError, match=f"only one depth.*; not used is off-later: it serves {later}, and"):
        find_schedule([*slow, *drafting[:5]])
    moved = find_schedule([*slow, *off, *on(drafting, "", later)])
    assert moved.table == [[1, 12, 3], [13, 256, 1]]
    assert moved.rungs[0].output_tps_per_gpu[0] == pytest.approx(1.0)


def test_what_no_off_and_arms_without_any_valid_point_leave_unknown_is_said() -> None:
    runs = depth_runs(THREE_DEPTHS)
    (unknown,) = find_schedule([run for run in runs if run[0].draft_tokens]).left_out
    assert unknown == "no valid point without speculation: whether drafting nothing serves more is not known"
    lost: list[Run] = [
        (point, Unused(what="x", reason="server_died: exit code 1", kind="unusable", arm="mtp1"))
        if point.draft_tokens == 1
        else (point, run)
        for point, run in runs
    ]
    found = find_schedule(lost)
    assert 1 not in found.rungs[0].output_tps_per_gpu
    assert "mtp1, x: invalid: server_died: exit code 1" in found.left_out


def test_step_costs_that_stand_in_make_no_other_recipe() -> None:
    """The embedded engine plays n-grams with step costs of MTP, and an arm without drafts with its own."""
    runs = depth_runs(THREE_DEPTHS, method="ngram")

    def played(point: Point) -> Point:
        simulation = Simulation(profile="p", step_costs="mtp" if point.draft_tokens else None)
        return replace(point, simulation=simulation)

    assert find_schedule([(played(point), run) for point, run in runs]).table == schedule().table


@pytest.mark.parametrize("changes", [{"confidence": 2}, {"start_noise": -0.03}, {"start_noise": math.nan}])
def test_no_interval_has_an_odd_confidence_or_noise(changes: dict[str, float]) -> None:
    with pytest.raises(InputError, match="is needed"):
        find_schedule(depth_runs(THREE_DEPTHS), **changes)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- what is refused


def test_one_depth_alone_tells_nothing() -> None:
    with pytest.raises(InputError, match="only one depth was measured"):
        find_schedule(depth_runs({3: power(30.0, 0.5)}))
    with pytest.raises(InputError, match="no valid point of a static depth of drafting"):
        find_schedule(depth_runs({0: power(30.0, 0.5)}))


def test_mixed_recipes_are_refused_by_what_differs() -> None:
    runs, others = depth_runs(THREE_DEPTHS), depth_runs(THREE_DEPTHS, hardware="b200")
    with pytest.raises(InputError, match="differ in their hardware"):
        find_schedule([*runs[:5], *others[5:]])
    with pytest.raises(InputError, match="several topologies were measured"):
        find_schedule(
            [*runs, *depth_runs(THREE_DEPTHS, group=WorkerGroup(role="aggregated", workers=1, tp=4))]
        )
    with pytest.raises(InputError, match=r"several methods were measured \(eagle3, mtp\)"):
        find_schedule([*runs, *depth_runs({2: power(9.0, 0.5)}, method="eagle3")])
    twice = [(replace(point, arm=replace(point.arm, name="mtp3-b")), run) for point, run in runs[10:]]
    with pytest.raises(InputError, match=r"two arms draft 3 tokens \(mtp3, mtp3-b\)"):
        find_schedule([*runs, *twice])
    elsewhere = [
        (replace(point, arm=replace(point.arm, checkpoint="other")), run) for point, run in runs[10:]
    ]
    with pytest.raises(InputError, match="differ in their checkpoint"):
        find_schedule([*runs[:10], *elsewhere])


def test_several_methods_or_topologies_are_a_choice() -> None:
    runs = [*depth_runs(THREE_DEPTHS), *depth_runs({2: power(9.0, 0.5)}, method="eagle3")]
    assert find_schedule(runs, method="mtp").table == schedule().table
    group = WorkerGroup(role="aggregated", workers=1, tp=4)
    both = [*depth_runs(THREE_DEPTHS), *depth_runs(THREE_DEPTHS, group=group)]
    assert find_schedule(both, topology="1xTP4").point.topology.name == "1xTP4"


def test_open_loops_are_refused() -> None:
    runs = depth_runs(THREE_DEPTHS, load=Load(pacing="poisson", rate_rps=3.0))
    with pytest.raises(InputError, match="closed loops"):
        find_schedule(runs)


@pytest.mark.parametrize(
    ("engine", "method", "dp", "message"),
    [
        ("vllm", "mtp", 8, r"data_parallel_size is above 1 \(DEP8\).*use workers of one rank"),
        ("vllm", "suffix", 1, "first runner"),
        ("sglang", "mtp", 8, r"under attention DP \(DEP8\)"),
        ("sglang", "ngram", 1, "not for ngram"),
        ("trtllm", "dspark", 1, "not for dspark"),
    ],
)
def test_what_an_engine_would_ignore_is_refused(
    engine: EngineForm, method: Any, dp: int, message: str
) -> None:
    group = WorkerGroup(role="aggregated", workers=1, tp=8 if dp == 1 else 1, dp=dp, ep=dp)
    found = schedule(group=group, method=method, loads=(8, 64, 512))
    with pytest.raises(InputError, match=message):
        check_engine(found, engine)
    with pytest.raises(InputError, match=message):
        to_engine_form(found, engine)


def test_tensorrt_llm_needs_the_most_drafts_first_and_no_max_concurrency() -> None:
    deeper = find_schedule(depth_runs({1: power(30.0, 0.5), 3: power(20.0, 0.8)}))
    assert [item.draft_tokens for item in deeper.ranges] == [1, 3]
    with pytest.raises(InputError, match="needs the most drafts in the first range"):
        check_engine(deeper, "trtllm")
    point = schedule().point
    flags = {"aggregated": {"speculative_config": {"max_concurrency": 64}}}
    capped = replace(schedule(), point=replace(point, engine=replace(point.engine, flags=flags)))
    with pytest.raises(InputError, match="not both"):
        check_engine(capped, "trtllm")


@pytest.mark.parametrize(
    ("version", "refused"), [("1.2.1", True), ("1.3.0rc14", True), ("1.3.0rc15", False), ("odd", False)]
)
def test_releases_of_tensorrt_llm_that_read_the_keys_in_another_way_get_no_table(
    version: str, refused: bool
) -> None:
    """The same mapping would draft by other batches there, without an error."""
    point = schedule().point
    measured = replace(point, engine=replace(point.engine, name="trtllm", version=version))
    found = replace(schedule(), point=measured)
    if not refused:
        return check_engine(found, "trtllm")
    with pytest.raises(InputError, match="as the first batch of its depth"):
        check_engine(found, "trtllm")
    return None


def test_where_drafting_never_pays_there_is_no_table() -> None:
    found = find_schedule(depth_runs({0: power(20.0, 0.8), 2: power(10.0, 0.7)}))
    assert found.table == [[1, 256, 0]]
    with pytest.raises(InputError, match="leave speculation out"):
        to_engine_form(found, "vllm")
    assert "leave speculation out" in write_schedule(found, "vllm").blocks[0].lines[0]  # type: ignore[union-attr]
    assert json.loads(to_json(found, "vllm"))["engine_form"] is None


# -------------------------------------------------------------------------------------------- engines' forms


def test_each_engine_gets_its_own_form() -> None:
    found = schedule()
    assert json.loads(to_engine_form(found, "vllm")) == [[1, 12, 3], [13, 50, 1], [51, 256, 0]]
    assert json.loads(to_engine_form(found, "sglang")) == {
        "1": {"candidate_steps": [3]},
        "13": {"candidate_steps": [1]},
        "51": {"candidate_steps": [0]},
    }
    # Each key is the last batch of its depth, and nothing is drafted above the largest.
    assert yaml.safe_load(to_engine_form(found, "trtllm")) == {
        "max_draft_len": 3,
        "draft_len_schedule": {12: 3, 50: 1},
    }
    assert yaml.safe_load(to_engine_form(found, "mtpbench")) == {
        "mtp-by-load": {
            "method": "mtp",
            "draft_tokens": 3,
            "depth": {"by_batch": [[1, 12, 3], [13, 50, 1], [51, 256, 0]]},
        }
    }
    flags = write_schedule(found, "sglang").blocks[0].lines[0]  # type: ignore[union-attr]
    assert "--speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-num-draft-tokens 4" in flags


# -------------------------------------------------------------------------------------- on the virtual clock

SWEEP = """\
sweep: {name}
question: Which depth at which load?
model: {{path: deepseek-ai/DeepSeek-V4-Pro, served_name: dsv4, precision: fp4}}
hardware: gb200-nvl72
engine: {{name: simulated, profile: dsv4-gb200}}
workload: {{isl: 16, osl: 64}}
measurement: {{warmup_per_slot: 1, requests_per_slot: 3, min_requests: 40, min_window_s: 2}}
arms:
{arms}
topologies:
  - {{prefill: 4xDEP8, decode: 1xDEP8, concurrency: [64, 256, 512, 1024, 2048, 4096]}}
"""
STATIC = """\
  off:
  mtp1: {draft_tokens: 1, acceptance: {rates: [0.8]}}
  mtp2: {draft_tokens: 2, acceptance: {rates: [0.8, 0.5]}}
  mtp3: {draft_tokens: 3, acceptance: {rates: [0.8, 0.5, 0.3]}}
"""


def run_sweep(folder: Path, name: str, arms: str) -> Path:
    sweep = folder / f"{name}.yaml"
    sweep.write_text(SWEEP.format(name=name, arms=arms), "utf-8")
    done = CliRunner().invoke(app, ["run", str(sweep), "--simulate", "--results", str(folder / "results")])
    assert done.exit_code in (0, 1), done.output
    return folder / "results" / f"{name}.simulated"


def served(results: Path) -> dict[int, dict[str, float]]:
    """Output tok/s/GPU by load and arm."""
    found: dict[int, dict[str, float]] = {}
    for point in read_source(results).points:
        assert point.output_tps_per_gpu is not None
        found.setdefault(point.concurrency or 0, {})[point.arm] = point.output_tps_per_gpu
    return found


def test_the_arm_of_a_schedule_reaches_the_envelope_of_the_static_arms(tmp_path: Path) -> None:
    """Every depth from 3 to 0 is the best somewhere; the arm by load is within 2% of it at every load."""
    static = run_sweep(tmp_path, "static", STATIC)
    runner = CliRunner()
    table = tmp_path / "arm.json"
    done = runner.invoke(app, ["schedule", str(static), "--format", "engine", "--output", str(table)])
    assert done.exit_code == 0, done.output
    assert "SIMULATED" in done.output
    ((name, arm),) = json.loads(table.read_text("utf-8")).items()
    assert [depth for *_, depth in arm["depth"]["by_batch"]] == [3, 2, 1, 0]
    assert arm["acceptance"] == {"rates": [0.8, 0.5, 0.3]}, "pinned as the deepest arm is"
    by_load = served(run_sweep(tmp_path, "by-load", f"  off:\n  {name}: {json.dumps(arm)}\n"))
    for load, of_arms in served(static).items():
        assert by_load[load][name] >= 0.98 * max(of_arms.values()), load
    text = runner.invoke(app, ["schedule", str(static)], env={"COLUMNS": "200"})
    assert "SIMULATED" in text.output
    assert "In doubt" in text.output
    assert json.loads(runner.invoke(app, ["schedule", str(static), "--format", "json"]).output)["simulated"]
    refused = runner.invoke(app, ["schedule", str(static), "--engine", "vllm"])
    assert refused.exit_code != 0
