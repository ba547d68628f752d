"""Arms of any method: what a sweep file says, what it means, and what is refused where."""

from __future__ import annotations

import dataclasses
import json

import pytest

from mtpbench.errors import SweepError
from mtpbench.records import Arm, DepthRange, DepthRule, Point, from_json, to_json
from mtpbench.sweep import load_sweep

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
