"""Sweep files: what they mean, and what is said of wrong ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mtpbench.errors import SweepError
from mtpbench.plan import ladders_of
from mtpbench.records import DEMONSTRATION, Load
from mtpbench.sweep import load_sweep, simulate
from mtpbench.sweep.schema import schema_text


def test_a_sweep_is_arms_times_topologies_times_concurrency(write_sweep) -> None:
    sweep = load_sweep(write_sweep(("topologies:", "repeats: 2\ntopologies:")))
    assert len(sweep.points) == 2 * 2 * 2
    assert len(ladders_of(sweep.points)) == 2
    assert sweep.info.baseline == "off"
    assert sweep.info.planned == tuple(point.id for point in sweep.points)
    assert len(set(sweep.info.planned)) == 8


RESTARTED = (
    "topologies:",
    "repeats: 3\nrestart: true\ntopologies:\n  - {aggregated: 1xTP8, concurrency: [4]}",
)


def test_restarted_repeats_are_ladders_of_their_own_spread_over_the_sweep(write_sweep) -> None:
    """A drift that goes on over the sweep then meets all deployments alike: their mean place is the same."""
    ladders = ladders_of(load_sweep(write_sweep(RESTARTED)).points)
    assert [ladder.first.launch for ladder in ladders] == [0] * 4 + [1] * 4 + [2] * 4
    arms = [(ladder.first.arm.name, ladder.first.topology.name) for ladder in ladders]
    assert arms[4:8] == arms[3::-1] == list(reversed(arms[8:]))
    assert len({ladder.key for ladder in ladders}) == 12
    assert len({ladder.unlaunched_key for ladder in ladders}) == 4
    assert all({point.repeat for point in ladder.points} == {ladder.first.launch} for ladder in ladders)


def test_a_sweep_that_is_restarted_later_keeps_its_first_repeats(write_sweep) -> None:
    shared = load_sweep(write_sweep((RESTARTED[0], RESTARTED[1].replace("true", "false")))).points
    restarted = load_sweep(write_sweep(RESTARTED)).points
    kept = {point.id for point in shared} & {point.id for point in restarted}
    assert kept == {point.id for point in shared if point.repeat == 0}
    assert {point.seed for point in shared} == {point.seed for point in restarted}


def test_both_arms_ask_the_same_requests(write_sweep) -> None:
    points = load_sweep(write_sweep()).points
    seeds = {(p.arm.name, p.concurrency): p.seed for p in points}
    assert seeds["off", 1] == seeds["mtp", 1] != seeds["off", 2]


def test_arms_differ_in_speculation_only(write_sweep) -> None:
    off, mtp = (load_sweep(write_sweep()).points[i] for i in (0, 2))
    assert (off.engine, off.workload, off.measurement, off.topology) == (
        mtp.engine,
        mtp.workload,
        mtp.measurement,
        mtp.topology,
    )
    assert off.arm.speculation is None
    assert mtp.arm.speculation is not None
    assert mtp.arm.speculation.acceptance.rates == pytest.approx((0.79, 0.48, 0.22))


def test_an_arm_called_off_is_text_not_false(write_sweep) -> None:
    assert load_sweep(write_sweep()).info.arms == ("off", "mtp")


def test_layers_of_flags_are_all_then_layout_then_role(sweeps: Path) -> None:
    points = load_sweep(sweeps / "dsv4-gb200-sglang.yaml").points
    wide = next(p for p in points if p.topology.name == "6xDEP8-1xDEP16")
    narrow = next(p for p in points if p.topology.name == "1xTP8-1xTP8")
    assert wide.engine.flags["decode"]["moe-a2a-backend"] == "megamoe"
    assert wide.engine.flags["decode"]["mem-fraction-static"] == 0.85
    assert wide.engine.flags["prefill"]["mem-fraction-static"] == 0.8
    assert "moe-a2a-backend" not in narrow.engine.flags["decode"]
    assert narrow.engine.flags["decode"]["moe-runner-backend"] == "flashinfer_mxfp4"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("workload: {isl", "workloud: {isl", r"tiny.yaml:10: workloud: unknown key; did you mean 'workload'"),
        ("isl: 64", "islx: 64", r"10: workload.islx: unknown key; did you mean 'isl'\? valid: isl, osl"),
        ("concurrency: [1, 2]", "concurrency: [0, 2]", r"tiny.yaml:16: topologies\[0\].concurrency.*greater"),
        ("concurrency: [1, 2]", "concurrency: [2, 1]", r"a ladder rises without repeats; \[2, 1\] does not"),
        ("concurrency: [1, 2]", "concurrency: [1, two]", r"valid integer, not 'two'"),
        ("concurrency: [1, 2]", "concurrency: {mpt: [1]}", r"names the arm 'mpt'; the arms are off, mtp"),
        ("name: simulated", "name: simulatd", r"tiny.yaml:6: engine.name: input.*'vllm'.*not 'simulatd'"),
        ("draft_tokens: 3, ", "", r"tiny.yaml:14: arms.mtp: `acceptance` without `draft_tokens`"),
        ("acceptance: golden", "acceptance: {golden: thinking}", r"'thinking'.*known: thinking_on"),
        ("acceptance: golden", "acceptance: {length: 4.5}", r"4.5 needs 1 … 4 with 3 drafts"),
        ("acceptance: golden", "acceptance: {rates: [0.2, 0.5, 0.1]}", r"3 non-increasing numbers"),
        ("1xTP4", "1xTQ4", r"'1xTQ4' is no layout; write it like 6xDEP8"),
        ("1xTP4", "1xTP6", r"needs 6 GPUs, which neither fit into a node of 4"),
        ("gb200-nvl72", "gb2000", r"tiny.yaml:4: hardware: unknown hardware 'gb2000'"),
        ("sweep: tiny", "sweep: Tiny Sweep", r"tiny.yaml:1: sweep: 'Tiny Sweep': use lower-case"),
        ("question: Does it pay?\n", "", r"question: is missing"),
        ("question: Does it pay?", "question: a\nquestion: b", r"tiny.yaml:3.*'question' is given twice"),
        ("speed: 5", "speed: 11", r"engine.speed: input should be less than or equal to 10, not 11"),
        ("{all: {stream-interval: 4}}", "{all: {streem: 4}}", r"streem"),
        ("{all: {stream-interval: 4}}", "{al: {stream-interval: 4}}", r"unknown layer al; valid: all, tp"),
        ("arms:", "arms: [", r"not YAML"),
        (
            "isl: 64",
            "isl: 64, extra_body: {temperature: 1}",
            r"10: workload.extra_body: `temperature` is not",
        ),
        ("isl: 64", "isl: 64, extra_body: {max_tokens: 1}", r"`max_tokens` .*: `workload.osl` sets it"),
        ("isl: 64", "isl: 64, extra_body: {n: 2}", r"`n` .*: every request asks for one answer"),
        ("isl: 64", "isl: 64, extra_body: {top_p: .nan}", r"workload.extra_body.top_p: '.nan' is no finite"),
        ("isl: 64", "isl: 64, extra_body: {seed: 99999999999999999999}", r"extra_body.seed: .* 64 bits"),
        (
            "isl: 64",
            "isl: 64, chat_template_kwargs: {thinking: true}",
            r"10: workload: `chat_template_kwargs` needs `chat_template: true`",
        ),
    ],
)
def test_bad_input_says_where_what_and_what_is_right(write_sweep, old: str, new: str, said: str) -> None:
    with pytest.raises(SweepError, match=said):
        load_sweep(write_sweep((old, new)))


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"nowhere.yaml: there is no such file"):
        load_sweep(tmp_path / "nowhere.yaml")


def test_simulation_settings_are_refused_for_real_engines(write_sweep) -> None:
    with pytest.raises(SweepError, match=r"`clock` is for the simulated engine, not for vllm"):
        load_sweep(write_sweep(("name: simulated", "name: vllm")))


REAL_ENGINE = (
    ("  name: simulated\n  clock: scaled\n  speed: 5\n", "  name: vllm\n"),
    ("  flags: {all: {stream-interval: 4}}\n", ""),
)


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ('{"model_type": "llama"}', True),
        ('{"num_nextn_predict_layers": 0}', True),
        ('{"num_nextn_predict_layers": 1}', False),
        ('{"text_config": {"mtp_num_hidden_layers": 1}}', False),
        ("not json", False),
        (None, False),
    ],
)
def test_mtp_on_a_checkpoint_without_mtp_layers_is_refused_before_anything_starts(
    write_sweep, tmp_path: Path, config: str | None, refused: bool
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    if config is not None:
        (model / "config.json").write_text(config)
    path = write_sweep(*REAL_ENGINE, ("path: some/model", f"path: {model}"))
    if refused:
        with pytest.raises(SweepError, match=r"arms.mtp.draft_tokens: .*config.json names no MTP layer"):
            load_sweep(path)
    else:
        assert len(load_sweep(path).points) == 4


def test_simulating_a_sweep_keeps_its_points_and_takes_another_name(sweeps: Path) -> None:
    real = load_sweep(sweeps / "dsv4-gb200-sglang.yaml")
    simulated = simulate(real)
    assert simulated.info.name == "dsv4-gb200-sglang.simulated"
    assert len(simulated.points) == len(real.points) == 18
    assert all(p.simulation and p.simulation.clock == "virtual" for p in simulated.points)
    assert not {p.id for p in simulated.points} & {p.id for p in real.points}
    mtp = [p.arm.speculation for p in simulated.points if p.arm.speculation]
    assert all(s.acceptance.rates == pytest.approx((0.79, 0.48, 0.22)) for s in mtp)


def test_open_loops_and_ramps_can_be_simulated_and_traces_can_not(sweeps: Path) -> None:
    sweep = load_sweep(sweeps / "demo.yaml")
    for load in (Load(pacing="poisson", rate_rps=2.0), Load(ramp_s=5.0)):
        paced = dataclasses.replace(
            sweep, points=tuple(dataclasses.replace(p, load=load) for p in sweep.points)
        )
        assert {point.load for point in simulate(paced).points} == {load}
    trace = dataclasses.replace(sweep.points[0], load=Load(pacing="trace"))
    with pytest.raises(SweepError, match=r"load.pacing: .*no trace's timestamps"):
        simulate(dataclasses.replace(sweep, points=(trace,)))


EXPECTED_POINTS = {
    "dsv4-gb200-sglang.yaml": {
        ("off", "1xTP8-1xTP8"): (16, [1]),
        ("off", "1xDEP8-4xTP8"): (40, [64]),
        ("off", "1xDEP8-2xDEP16"): (40, [256]),
        ("off", "1xDEP8-1xDEP16"): (24, [512]),
        ("off", "2xDEP8-1xDEP16"): (32, [1536]),
        ("off", "4xDEP8-1xDEP16"): (48, [4096]),
        ("off", "5xDEP8-1xDEP16"): (56, [8192]),
        ("off", "6xDEP8-1xDEP12"): (60, [8192]),
        ("mtp", "1xTP8-1xTP8"): (16, [1]),
        ("mtp", "1xDEP8-6xTP8"): (56, [32, 64, 128]),
        ("mtp", "1xDEP8-1xDEP16"): (24, [1024]),
        ("mtp", "2xDEP8-1xDEP16"): (32, [2048]),
        ("mtp", "3xDEP8-1xDEP16"): (40, [3072]),
        ("mtp", "4xDEP8-1xDEP16"): (48, [6144]),
        ("mtp", "5xDEP8-1xDEP16"): (56, [8192]),
        ("mtp", "6xDEP8-1xDEP16"): (64, [16384]),
    },
    "dsv4-gb200-vllm.yaml": {
        ("off", "1xDEP8-1xTP8"): (16, [1]),
        ("off", "1xDEP8-4xTP8"): (40, [256, 512]),
        ("off", "1xDEP8-1xDEP8"): (16, [256, 512, 1024]),
        ("off", "2xDEP8-1xDEP8"): (24, [4096]),
        ("off", "3xDEP8-1xDEP8"): (32, [4096]),
        ("mtp", "1xTP8"): (8, [1]),
        ("mtp", "1xDEP8-4xTP8"): (40, [16, 32, 64]),
        ("mtp", "1xDEP8-1xDEP8"): (16, [128, 256, 512, 1024]),
        ("mtp", "2xDEP8-1xDEP8"): (24, [1024]),
    },
}


@pytest.mark.parametrize("name", EXPECTED_POINTS)
def test_shipped_sweeps_hold_every_public_point(sweeps: Path, name: str) -> None:
    found: dict[tuple[str, str], tuple[int, list[int]]] = {}
    for point in load_sweep(sweeps / name).points:
        _, rungs = found.setdefault((point.arm.name, point.topology.name), (point.topology.gpus, []))
        rungs.append(point.concurrency)
    assert found == EXPECTED_POINTS[name]


def test_the_trtllm_sweep_climbs_to_1024_with_three_drafts_and_two_at_large_batches(sweeps: Path) -> None:
    points = load_sweep(sweeps / "dsv4-gb200-trtllm.yaml").points
    assert {p.topology.gpus for p in points} == {8}
    assert {p.concurrency for p in points} == {2**i for i in range(11)}
    assert {(p.arm.name, p.draft_tokens) for p in points} == {("off", 0), ("mtp-k3", 3), ("mtp-k2", 2)}


def test_the_sweep_of_kinds_of_text_asks_the_demonstration_set_through_the_template(sweeps: Path) -> None:
    points = load_sweep(sweeps / "demo-prompts.yaml").points
    assert {p.workload.dataset_path for p in points} == {DEMONSTRATION}
    assert {p.draft_tokens for p in points} == {0, 1, 2, 3}
    assert all(p.simulated and p.workload.chat_template_kwargs == {"thinking": False} for p in points)


def test_the_editors_schema_is_the_models_schema(sweeps: Path) -> None:
    """`make schema` writes it."""
    assert (sweeps / "sweep.schema.json").read_text("utf-8") == schema_text()
    assert json.loads(schema_text())["additionalProperties"] is False
