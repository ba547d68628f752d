"""Arms of any method: what a sweep file says, what it means, and what is refused where."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mtpbench.errors import SweepError
from mtpbench.records import AcceptancePolicy, Arm, DepthRange, DepthRule, Point, from_json, to_json
from mtpbench.sweep import load_sweep, simulate, with_simulated

MTP = "mtp: {draft_tokens: 3, acceptance: golden}"


def arm_of(write_sweep, text: str) -> Arm:  # type: ignore[no-untyped-def]
    points = load_sweep(write_sweep((MTP, f"x: {text}"))).points
    return next(point.arm for point in points if point.arm.name == "x")


def test_a_method_left_out_is_mtp_and_ids_stay(write_sweep) -> None:
    written = load_sweep(write_sweep((MTP, "mtp: {method: mtp, draft_tokens: 3, acceptance: golden}"))).points
    assert [point.id for point in load_sweep(write_sweep()).points] == [point.id for point in written]
    # Of the version before arms knew other methods.
    assert [point.id for point in written] == [
        "off_1xTP4_c1_r0_d71c1690",
        "off_1xTP4_c2_r0_b1772e7c",
        "mtp_1xTP4_c1_r0_998b986b",
        "mtp_1xTP4_c2_r0_7c086772",
    ]


def test_dsparks_drafts_may_be_called_its_block_size(write_sweep) -> None:
    text = "{method: dspark, %s: 3, draft_sampling: probabilistic, acceptance: {length: 2.5}}"
    named, plain = (arm_of(write_sweep, text % name) for name in ("block_size", "draft_tokens"))
    assert named == plain
    assert named.speculation is not None
    assert (named.speculation.method, named.speculation.draft_tokens) == ("dspark", 3)


def test_a_depth_by_batch_says_the_most_drafts_and_where_which(write_sweep) -> None:
    arm = arm_of(
        write_sweep, "{depth: {by_batch: [[1, 16, 3], [17, 64, 2], [65, 256, 0]]}, acceptance: golden}"
    )
    assert arm.speculation is not None
    rule = arm.speculation.depth
    assert arm.speculation.draft_tokens == 3
    assert rule == DepthRule(
        kind="by_batch",
        ranges=(
            DepthRange(first=1, last=16, draft_tokens=3),
            DepthRange(first=17, last=64, draft_tokens=2),
            DepthRange(first=65, last=256, draft_tokens=0),
        ),
    )
    assert [rule.depth_at(batch) for batch in (1, 16, 17, 64, 65, 256, 9999)] == [3, 3, 2, 2, 0, 0, 0]


def test_an_off_arm_may_serve_another_checkpoint(write_sweep) -> None:
    text = "{method: off, checkpoint: deepseek-ai/DeepSeek-V4-Pro-0813}"
    point = next(p for p in load_sweep(write_sweep((MTP, f"x: {text}"))).points if p.arm.name == "x")
    assert point.arm.speculation is None
    assert point.checkpoint == "deepseek-ai/DeepSeek-V4-Pro-0813"
    assert (point.model.path, point.model.served_name) == ("some/model", "m")


def test_an_arm_of_every_setting_survives_its_record(write_sweep) -> None:
    text = (
        "{method: eagle3, draft_tokens: 4, draft_model: a/head, checkpoint: b/target, "
        "rejection_method: block, draft_sampling: greedy, depth: {by_batch: [[1, 8, 4], [9, 9, 1]]}, "
        "acceptance: {length: 2.5}}"
    )
    point = next(p for p in load_sweep(write_sweep((MTP, f"x: {text}"))).points if p.arm.name == "x")
    adaptive = DepthRule(kind="adaptive", config={"ema_alpha": 0.2})
    assert point.arm.speculation is not None
    speculation = dataclasses.replace(point.arm.speculation, depth=adaptive)
    another = dataclasses.replace(point, arm=dataclasses.replace(point.arm, speculation=speculation))
    assert from_json(Point, json.loads(json.dumps(to_json(another)))) == another
    assert from_json(Point, json.loads(json.dumps(to_json(point)))) == point


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("{method: dflash, draft_tokens: 3}", r"14: arms.x.method.*'dspark'.*not 'dflash'"),
        ("{method: dspark}", r"arms.x: `method: dspark` needs `draft_tokens`"),
        ("{draft_tokens: 3, block_size: 3}", r"`block_size` is DSpark's; other methods say `draft_tokens`"),
        ("{method: dspark, draft_tokens: 3, block_size: 5}", r"`block_size` 5 and `draft_tokens` 3 are two"),
        ("{method: eagle3, draft_tokens: 3}", r"`method: eagle3` needs `draft_model`"),
        ("{method: mtp, draft_tokens: 3, draft_model: a/b}", r"drafts from the target's own checkpoint"),
        (
            "{method: ngram, draft_tokens: 3, draft_model: a/b}",
            r"drafts without a model; leave `draft_model`",
        ),
        ("{method: suffix, draft_tokens: 3, draft_sampling: greedy}", r"leave `draft_sampling` out"),
        ("{method: off, draft_tokens: 3}", r"`draft_tokens` with `method: off`"),
        ("{method: off, depth: adaptive}", r"`depth` with `method: off`"),
        (
            "{draft_tokens: 2, depth: {by_batch: [[1, 16, 3]]}}",
            r"drafts up to 3 tokens, and `draft_tokens` is 2",
        ),
        (
            "{depth: {by_batch: [[1, 16, 3], [18, 64, 2]]}}",
            r"leave a gap at batch 17: \[18, 64, …\] needs to",
        ),
        ("{depth: {by_batch: [[1, 16, 3], [16, 64, 2]]}}", r"overlap at batch 16: .* needs to begin at 17"),
        ("{depth: {by_batch: [[2, 16, 3]]}}", r"leave a gap at batch 1"),
        ("{depth: {by_batch: [[1, 0, 3]]}}", r"greater than or equal to 1"),
        ("{depth: {by_batch: [[1, 4, 3], [5, 2, 1]]}}", r"the range \[5, 2, …\] ends before it begins"),
        ("{depth: {by_batch: [[1, 4, 0]]}}", r"no range drafts a token: that is speculation off"),
        ("{draft_tokens: 3, depth: adaptive}", r"engine has no rule of its own .*; give it a table, such as"),
        ("{draft_tokens: 3, depth: sometimes}", r"'sometimes' is no rule of depth; say static, adaptive or"),
        (
            "{draft_tokens: 3, depth: {by_batch: [[1, 4, 1]], adaptive: {}}}",
            r"give exactly one of `by_batch`",
        ),
    ],
)
def test_a_wrong_arm_says_what_would_be_right(write_sweep, arm: str, said: str) -> None:
    with pytest.raises(SweepError, match=said):
        load_sweep(write_sweep((MTP, f"x: {arm}")))


# ------------------------------------------------------------------------------------- golden rows
REAL = (
    ("  name: simulated\n  clock: scaled\n  speed: 5\n", "  name: vllm\n"),
    ("  flags: {all: {stream-interval: 4}}\n", ""),
)


def policy_of(write_sweep, text: str, *changes: tuple[str, str]) -> AcceptancePolicy:  # type: ignore[no-untyped-def]
    points = load_sweep(write_sweep(*changes, (MTP, f"x: {text}"))).points
    arm = next(point.arm for point in points if point.arm.name == "x")
    assert arm.speculation is not None
    return arm.speculation.acceptance


@pytest.mark.parametrize(
    ("method", "checkpoint", "drafts", "on", "off"),
    [
        ("mtp", "some/model", 3, 2.49, 2.97),
        ("mtp", "deepseek-ai/DeepSeek-V4-Pro", 8, 2.58, 3.11),
        ("dspark", "deepseek-ai/DeepSeek-V4-Pro-DSpark", 6, 3.82, 4.87),
        ("dspark", "deepseek-ai/DeepSeek-V4-Pro-0813", 6, 3.77, 5.12),
        ("dspark", "/models/deepseek-v4-pro-0813/", 5, 3.61, 4.74),
    ],
)
def test_a_golden_row_is_found_by_checkpoint_method_drafts_and_mode(
    write_sweep, method: str, checkpoint: str, drafts: int, on: float, off: float
) -> None:
    for mode, length in (("golden", on), ("{golden: thinking_on}", on), ("{golden: thinking_off}", off)):
        arm = f"{{method: {method}, draft_tokens: {drafts}, checkpoint: {checkpoint}, acceptance: {mode}}}"
        for changes in ((), REAL):
            policy = policy_of(write_sweep, arm, *changes)
            assert policy.length == pytest.approx(length)
            assert policy.rates is not None
            assert 1 + sum(policy.rates) == pytest.approx(length)


def test_a_named_model_goes_before_the_checkpoints(write_sweep) -> None:
    named = "acceptance: {golden: thinking_on, model: kimi-k3}"
    arm = f"{{method: dspark, draft_tokens: 8, checkpoint: a/b, {named}}}"
    assert policy_of(write_sweep, arm).length == 3.88


def test_a_row_without_shorter_lengths_has_even_rates(write_sweep) -> None:
    arm = "{method: dspark, draft_tokens: 5, checkpoint: x/DeepSeek-V4.1-Flash, acceptance: golden}"
    policy = policy_of(write_sweep, arm)
    assert policy.rates is not None
    first, *others = policy.rates
    assert others == pytest.approx([first**power for power in (2, 3, 4, 5)])
    assert 1 + sum(policy.rates) == pytest.approx(3.51)


THINKING = "workload: {isl: 64, osl: 32, chat_template: true, chat_template_kwargs: {thinking: %s}}"


@pytest.mark.parametrize(("thinks", "length"), [("true", 2.49), ("false", 2.97)])
def test_whether_the_model_thinks_tells_the_mode(write_sweep, thinks: str, length: float) -> None:
    changes = [("workload: {isl: 64, osl: 32}", THINKING % thinks)]
    plain = "{draft_tokens: 3, acceptance: %s}"
    assert policy_of(write_sweep, plain % "golden", *changes).length == length
    other = "thinking_off" if thinks == "true" else "thinking_on"
    with pytest.raises(SweepError, match=rf"`golden: {other}` pins the acceptance of the other mode"):
        policy_of(write_sweep, plain % f"{{golden: {other}}}", *changes)
    # A length of the sweep's own may be whatever it is.
    assert policy_of(write_sweep, plain % "{length: 2.0}", *changes).length == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        (
            "{method: ngram, draft_tokens: 4, acceptance: golden}",
            r"of ngram on some/model in .*known: d",
        ),
        (
            "{method: eagle3, draft_model: a/b, draft_tokens: 4, acceptance: golden}",
            r"acceptance of eagle3",
        ),
        ("{method: dspark, draft_tokens: 4, acceptance: golden}", r"kimi-k3 dspark; .*Name one"),
        (
            "{draft_tokens: 3, checkpoint: deepseek-ai/DeepSeek-V4-Pro-0813, acceptance: golden}",
            r"of mtp on deepseek-ai/DeepSeek-V4-Pro-0813 in",
        ),
        ("{draft_tokens: 9, acceptance: golden}", r"for 9 draft tokens .*known: 1, 2, 3, 4, 5, 6, 7, 8"),
        (
            "{method: dspark, draft_tokens: 3, checkpoint: a/DeepSeek-V4.1-Flash, acceptance: golden}",
            r"for 3 draft tokens in deepseek-v4.1-flash dspark thinking_on; known: 5",
        ),
        ("{method: ngram, draft_tokens: 4}", r"no model that could accept drafts of ngram.*\{length: 2.5\}"),
        ("{method: dspark, draft_tokens: 9}", r"no acceptance length for 9 draft tokens"),
    ],
)
def test_no_golden_row_is_refused_with_the_known_ones(write_sweep, arm: str, said: str) -> None:
    with pytest.raises(SweepError, match=said):
        load_sweep(write_sweep((MTP, f"x: {arm}")))


def test_the_embedded_engine_draws_a_methods_acceptance_from_its_own_table(write_sweep) -> None:
    """It has no model to measure; a length alone has even rates, but for MTP, whose table gives them."""
    dspark = policy_of(write_sweep, "{method: dspark, draft_tokens: 6}")
    assert (dspark.length, dspark.pinned_by) == (pytest.approx(3.77), "engine")
    assert dspark.table is not None
    assert (dspark.table.model, dspark.table.method) == ("deepseek-v4-pro-0813", "dspark")
    original = "{method: dspark, draft_tokens: 6, checkpoint: a/DeepSeek-V4-Pro-DSpark}"
    assert policy_of(write_sweep, original).length == pytest.approx(3.82)
    ngram = policy_of(write_sweep, "{method: ngram, draft_tokens: 3, acceptance: {length: 1.875}}")
    assert ngram.rates == pytest.approx((0.5, 0.25, 0.125), abs=1e-9)
    mtp = policy_of(write_sweep, "{draft_tokens: 3, acceptance: {length: 2.3}}")
    assert mtp.rates == pytest.approx((0.79, 0.48, 0.03))


def test_a_real_sweep_of_other_methods_is_simulated_with_their_tables(write_sweep) -> None:
    arm = "{method: dspark, draft_tokens: 5, checkpoint: deepseek-ai/DeepSeek-V4-Pro-0813}"
    real = load_sweep(write_sweep(*REAL, (MTP, f"x: {arm}")))
    drawn = next(p.arm.speculation for p in simulate(real).points if p.arm.name == "x")
    assert drawn is not None
    assert drawn.acceptance.length == pytest.approx(3.61)


# ------------------------------------------------------------------------------------- draft layers
DSPARK_KEYS = '{"dspark_block_size": 5, "n_predict": 5%s}'


@pytest.mark.parametrize(
    ("method", "config", "folder", "said"),
    [
        ("mtp", DSPARK_KEYS % "", False, "holds DSpark and no MTP layer"),
        ("mtp", "{}", True, "holds DSpark and no MTP layer"),
        ("mtp", DSPARK_KEYS % ', "num_nextn_predict_layers": 1', False, None),
        ("mtp", '{"n_predict": 1}', False, None),
        ("dspark", DSPARK_KEYS % "", False, None),
        ("dspark", "{}", True, None),
        ("dspark", '{"text_config": {"dspark_markov_rank": 8}}', False, None),
        ("dspark", '{"num_nextn_predict_layers": 1}', False, "config.json names no DSpark"),
        ("dspark", None, False, None),
        ("ngram", "{}", False, None),
    ],
)
def test_a_head_that_a_checkpoint_is_known_to_lack_is_refused(
    write_sweep, tmp_path: Path, method: str, config: str | None, folder: bool, said: str | None
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    if config is not None:
        (model / "config.json").write_text(config)
    if folder:
        (model / "dspark").mkdir()
    path = write_sweep(*REAL, (MTP, f"x: {{method: {method}, draft_tokens: 5, checkpoint: {model}}}"))
    if said is None:
        assert load_sweep(path).points
    else:
        with pytest.raises(SweepError, match=rf"arms.x.*{said}.*[Rr]ight is"):
            load_sweep(path)


@pytest.mark.parametrize(
    ("method", "checkpoint", "said"),
    [
        (
            "mtp",
            "deepseek-ai/DeepSeek-V4-Pro-0813",
            r"accepts nothing .*Right is `method: dspark`, or",
        ),
        (
            "mtp",
            "/models/deepseek-v4-pro-0813",
            r"/deepseek-v4-pro-0813 can't draft by mtp: it bundles",
        ),
        ("mtp", "deepseek-ai/DeepSeek-V4.1-Flash", r"no MTP layer; engines refuse MTP there"),
        ("dspark", "deepseek-ai/DeepSeek-V4-Pro", r"one MTP layer and no DSpark.*V4-Pro-0813"),
        ("dspark", "deepseek-ai/DeepSeek-V4-Pro-0813", None),
        ("mtp", "deepseek-ai/DeepSeek-V4-Pro", None),
        ("dspark", "unknown/checkpoint", None),
        ("mtp", "unknown/checkpoint", None),
    ],
)
def test_a_known_checkpoint_needs_no_file_to_be_refused(
    write_sweep, method: str, checkpoint: str, said: str | None
) -> None:
    text = f"x: {{method: {method}, draft_tokens: 5, checkpoint: {checkpoint}}}"
    path = write_sweep(*REAL, (MTP, text))
    if said is None:
        assert load_sweep(path).points
    else:
        with pytest.raises(SweepError, match=said):
            load_sweep(path)


def test_a_config_that_names_dspark_goes_before_what_a_name_is_known_for(write_sweep, tmp_path: Path) -> None:
    model = tmp_path / "DeepSeek-V4-Pro"
    model.mkdir()
    text = f"x: {{method: dspark, draft_tokens: 5, checkpoint: {model}}}"
    with pytest.raises(SweepError, match="no DSpark"):
        load_sweep(write_sweep(*REAL, (MTP, text)))
    (model / "config.json").write_text('{"dspark_block_size": 5}')
    assert load_sweep(write_sweep(*REAL, (MTP, text))).points


def test_an_arm_that_nothing_can_draw_is_left_out_of_the_simulation_and_said_so(write_sweep) -> None:
    ngram = (MTP, f"{MTP}\n  ngram: {{method: ngram, draft_tokens: 4}}")
    played = simulate(load_sweep(write_sweep(*REAL, ngram)))
    assert played.info.arms == ("off", "mtp")
    assert {point.arm.name for point in played.points} == {"off", "mtp"}
    assert len(played.left_out) == 1
    assert played.left_out[0].startswith("ngram is not played: ")


def test_a_simulation_by_another_machines_step_costs_says_so(sweeps: Path) -> None:
    *_, said = simulate(load_sweep(sweeps / "qwen3-arms-llamacpp.yaml")).left_out
    assert said == (
        "no step costs of h100 are known: those of dsv4-gb200 are played in their place, and no figure "
        "predicts qwen3-8b on h100"
    )
    assert not simulate(load_sweep(sweeps / "dsv4-gb200-arms-sglang.yaml")).left_out


def test_a_sweep_that_the_virtual_clock_can_t_play_has_no_simulation(write_sweep) -> None:
    path = write_sweep(*REAL, ("  off:\n  " + MTP, "  ngram: {method: ngram, draft_tokens: 4}"))
    assert len(with_simulated(load_sweep(path))) == 1
    with pytest.raises(SweepError, match=r"arms.ngram: the embedded engine has no model"):
        simulate(load_sweep(path))
