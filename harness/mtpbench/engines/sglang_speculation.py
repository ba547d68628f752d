"""Pure: an arm's speculation in SGLang's own options, by release, and what SGLang refuses of it or ignores.

Source: sglang/srt/arg_groups/speculative_hook.py, speculative/adaptive_spec_params.py and the DSpark worker
of 0.5.12.post1, 0.5.21 and 0.5.23 (`make test-parsers` asks them), and the pull requests in between.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mtpbench.engines.about import Release
from mtpbench.engines.declared import LEAVE_OUT, declared, joined, misfit, only_length
from mtpbench.engines.parts import env_of_role, of_role
from mtpbench.records import (
    DepthRule,
    File,
    Flags,
    Method,
    Point,
    Speculation,
    WorkerGroup,
    WorkerRole,
)

ALGORITHMS: Mapping[Method, str] = {
    "mtp": "EAGLE",
    "dspark": "DSPARK",
    "eagle3": "EAGLE3",
    "draft_model": "STANDALONE",
    "ngram": "NGRAM",
}
STARTS = ("speculative-algorithm", "speculative-algo")
DSPARK_SINCE = "0.5.16"
"""The first release that surely has DSPARK (#30261, merged by 2026-07-06)."""
READ_SINCE = "0.5.21"
"""The first release that was read with rejection sampling, and with adaptive depths by batch size."""
BLOCK_SINCE = "0.5.23"
"""The first release that was read with block verification, and with greedy drafts for DSPARK."""
ADAPTS: tuple[Method, ...] = ("mtp", "eagle3")
"""Methods whose depth SGLang changes while it runs; DSPARK verifies fewer tokens instead."""
OWN_STEPS = (0, 1, 3, 5, 7)
"""The depths of SGLang's own adaptive table."""
NO_ADAPTING = ("enable-two-batch-overlap", "enable-multi-layer-eagle", "enable-pdmux")
"""Options with which SGLang silently stays at one depth."""
RADIX_ON_DECODE = "disaggregation-decode-enable-radix-cache"
RAGGED = "SGLANG_RAGGED_VERIFY_MODE"
COST_TABLE = "sps_table_path"
DSPARK_SETTINGS = {COST_TABLE: "speculative-dspark-sps-table-path"} | {
    "confidence_sts_path": "speculative-dspark-confidence-sts-path"
}
RUNNING_REQUESTS = 2048
"""Sequences of a rank that SGLang runs at least where memory sets their number. With speculation its own
number is 48 for all ranks, so that every arm gets this one where the sweep sets none."""


def has_attention_dp(point: Point, group: WorkerGroup) -> bool:
    """Returns whether a worker's attention is data parallel: its ranks could else be whole replicas."""
    flags = of_role(point, group.role, ())
    asked = flags.get("enable-dp-attention") is True or flags.get("attn-dp-size") is not None
    return group.attention_dp and asked


def running_requests(point: Point, group: WorkerGroup) -> int:
    """Returns the sequences that a worker runs at once where the sweep does not say: the same in all arms."""
    return RUNNING_REQUESTS * (group.dp if has_attention_dp(point, group) else 1)


def drafts_on(point: Point, role: WorkerRole) -> bool:
    """Returns whether workers of a role draft: those that decode; to fill the cache of drafts, prefill too.

    DSPARK needs it, and decode workers with a prefix cache of their own.
    """
    speculation = point.arm.speculation
    if speculation is None or role != "prefill":
        return speculation is not None
    return speculation.method == "dspark" or of_role(point, "decode", ()).get(RADIX_ON_DECODE) is True


# --- what is written ---


def speculation_flags(point: Point, role: WorkerRole, config: str = "") -> Flags:
    """Returns what speculation adds to workers of a role.

    Args:
        point: the point.
        role: of the worker.
        config: the path of the file that `speculation_files` describes.
    """
    speculation = point.arm.speculation
    if speculation is None or not drafts_on(point, role):
        return {}
    flags = {
        "speculative-algorithm": ALGORITHMS[speculation.method],
        "speculative-draft-model-path": speculation.draft_model,
        **_depth_flags(speculation),
        "speculative-use-rejection-sampling": _samples_drafts(speculation) or None,
        "speculative-use-block-verification": speculation.rejection_method == "block" or None,
    }
    if role != "prefill" and speculation.depth is not None:
        flags |= _rule_flags(speculation.depth, speculation, config)
    return {name: value for name, value in flags.items() if value is not None}


def _depth_flags(speculation: Speculation) -> Flags:
    """Returns the drafts of a step: one chain of them, or for n-grams a tree of as many."""
    drafts = speculation.draft_tokens
    if speculation.method == "dspark":
        return {"speculative-dspark-block-size": drafts}
    chain = {"speculative-eagle-topk": 1} if speculation.method != "ngram" else {}
    return {"speculative-num-steps": drafts, **chain, "speculative-num-draft-tokens": drafts + 1}


def _samples_drafts(speculation: Speculation) -> bool:
    return speculation.draft_sampling == "probabilistic" and speculation.method in ADAPTS


def _rule_flags(rule: DepthRule, speculation: Speculation, config: str) -> Flags:
    if speculation.method == "dspark":
        return {DSPARK_SETTINGS[key]: value for key, value in rule.config.items() if key in DSPARK_SETTINGS}
    file = {"speculative-adaptive-config": config} if _adaptive_config(rule) else {}
    return {"speculative-adaptive": True, **file}


def _adaptive_config(rule: DepthRule) -> Mapping[str, Any]:
    """Returns SGLang's adaptive table; one that has a single depth for each batch size never adapts.

    SGLang looks up a batch by the captured size that it is padded to: a range that ends at a captured size is
    kept exactly.
    """
    if rule.kind == "adaptive":
        return rule.config
    return {str(r.first): {"candidate_steps": [r.draft_tokens]} for r in rule.ranges}


def speculation_files(point: Point, role: WorkerRole, path: str) -> tuple[File, ...]:
    """Returns the file of the adaptive table, where there is one."""
    speculation = point.arm.speculation
    rule = speculation.depth if speculation is not None else None
    if speculation is None or rule is None or role == "prefill" or speculation.method == "dspark":
        return ()
    table = _adaptive_config(rule)
    return (File(path=path, text=json.dumps(table, indent=1) + "\n"),) if table else ()


def speculation_env(point: Point, role: WorkerRole) -> Mapping[str, str]:
    """Returns the environment that pins an acceptance length, and says how DSPARK drafts and verifies."""
    speculation = point.arm.speculation
    if speculation is None or role == "prefill":
        return {}
    env: dict[str, str] = {}
    if speculation.method == "dspark" and speculation.draft_sampling is not None:
        env["SGLANG_DSPARK_USE_GREEDY_DRAFT"] = str(int(speculation.draft_sampling == "greedy"))
    if speculation.method == "dspark" and speculation.depth is not None:
        env[RAGGED] = str(speculation.depth.config.get("ragged_verify_mode", "compact"))
    if speculation.acceptance.mode == "measured":
        return env
    return {
        **env,
        "SGLANG_SIMULATE_ACC_LEN": f"{speculation.acceptance.length:g}",
        "SGLANG_SIMULATE_ACC_METHOD": "match-expected",
        "SGLANG_SIMULATE_ACC_TOKEN_MODE": "real-draft-token",
    }


# --- what is refused ---


ONLY_OWN_DRAFTS = "deepseek-v4"
"""What the names of models begin with that SGLang runs with the drafts of their own checkpoints alone."""


def check_speculation(point: Point, made: Release) -> None:
    """Raises an error for what SGLang, in the release that lines are written for, can't do of an arm."""
    speculation = declared(point, tuple(ALGORITHMS), starts=STARTS)
    if speculation is None:
        return
    only_length(point, speculation)
    _check_release(point, speculation, made)
    _check_settings(point, speculation)
    _check_depth(point, speculation)
    for group in point.topology.groups:
        if group.role != "prefill":
            _check_layout(point, speculation, group)
        given, ours = of_role(point, group.role, ()), speculation_flags(point, group.role)
        joined(point, {n: v for n, v in given.items() if n in ours}, ours, "engine.flags")


def _check_release(point: Point, speculation: Speculation, made: Release) -> None:
    method, rule = speculation.method, speculation.depth
    greedy = method == "dspark" and speculation.draft_sampling == "greedy"
    since = {
        "DSPARK": DSPARK_SINCE if method == "dspark" else None,
        "`draft_sampling: probabilistic`": READ_SINCE if _samples_drafts(speculation) else None,
        "`draft_sampling: greedy` for DSPARK": BLOCK_SINCE if greedy else None,
        "`rejection_method: block`": BLOCK_SINCE if speculation.rejection_method == "block" else None,
        "table of depths by batch": READ_SINCE if rule is not None and _adaptive_config(rule) else None,
    }
    for what, version in since.items():
        if version is not None and not made.since(version):
            raise misfit(
                point, f"sglang {made.version} has no {what}, known since {version} (`engine.version`)"
            )


def _check_settings(point: Point, speculation: Speculation) -> None:
    method, sampled = speculation.method, speculation.draft_sampling
    name = point.checkpoint.rstrip("/").rsplit("/", 1)[-1]
    if name.casefold().startswith(ONLY_OWN_DRAFTS) and method not in ("mtp", "dspark"):
        raise misfit(
            point,
            f"sglang refuses {ALGORITHMS[method]} of {name}, of which it runs EAGLE (`method: mtp`) and "
            "DSPARK only; leave the arm out",
        )
    block = speculation.rejection_method == "block"
    if block and method not in (*ADAPTS, "dspark"):
        raise misfit(point, f"sglang verifies {ALGORITHMS[method]} drafts one by one only; {LEAVE_OUT}")
    if sampled == "probabilistic" and method not in (*ADAPTS, "dspark"):
        raise misfit(point, f"sglang drafts greedily for {ALGORITHMS[method]}; leave `draft_sampling` out")
    if block and sampled == "greedy":
        raise misfit(point, "sglang samples drafts that it verifies as a block; leave `draft_sampling` out")


def _check_depth(point: Point, speculation: Speculation) -> None:
    rule, drafts = speculation.depth, speculation.draft_tokens
    if rule is None:
        return
    if speculation.method == "dspark":
        _check_budget(point, rule)
        return
    if speculation.method not in ADAPTS:
        raise misfit(point, f"sglang changes the depth of {' and '.join(ADAPTS)} only; use a static depth")
    steps = _steps_of(point, _adaptive_config(rule)) if _adaptive_config(rule) else set(OWN_STEPS)
    if max(steps) != drafts:
        raise misfit(
            point,
            f"the depths are {', '.join(map(str, sorted(steps)))}, and `draft_tokens`, the most of them, is "
            f"{drafts}; write {max(steps)}",
        )


def _steps_of(point: Point, table: Mapping[str, Any]) -> set[int]:
    """Returns all depths of an adaptive table."""
    entries = [entry for size, entry in table.items() if size.isdecimal()]
    steps = [entry.get("candidate_steps") if isinstance(entry, Mapping) else None for entry in entries]
    if not steps or not all(isinstance(some, (list, tuple)) and some for some in steps):
        raise misfit(
            point,
            '`adaptive` holds depths by batch size in sglang, such as {"1": {candidate_steps: [1, 3]}, '
            '"32": {candidate_steps: [0, 1]}}',
        )
    found = [step for some in steps if some for step in some]
    if not all(type(step) is int and step >= 0 for step in found):
        raise misfit(point, "`candidate_steps` are whole numbers of drafts, 0 for none")
    return set(found)


def _check_budget(point: Point, rule: DepthRule) -> None:
    """Refuses a rule that DSPARK would not follow: it drafts whole blocks, and may verify less of them."""
    if rule.kind == "by_batch":
        raise misfit(
            point,
            "sglang drafts whole DSPARK blocks at every batch; use a static depth, or `depth: adaptive` with "
            f"a cost table ({COST_TABLE})",
        )
    known = (*DSPARK_SETTINGS, "ragged_verify_mode")
    if unknown := [key for key in rule.config if key not in known]:
        raise misfit(point, f"sglang has no setting {unknown[0]} for DSPARK; there are {', '.join(known)}")
    if COST_TABLE not in rule.config:
        raise misfit(
            point,
            f"without a cost table DSPARK verifies every draft; give `adaptive: {{{COST_TABLE}: FILE}}`, "
            "made by `python -m sglang.benchmark.dspark_sps_profiler`",
        )
    if rule.config.get("ragged_verify_mode", "compact") not in ("compact", "cap-accept"):
        raise misfit(point, "`ragged_verify_mode` is compact or cap-accept; static verifies every draft")


def _check_layout(point: Point, speculation: Speculation, group: WorkerGroup) -> None:
    """Refuses what SGLang does not run, or silently does not do, on a worker that decodes."""
    flags, algorithm = of_role(point, group.role, ()), ALGORITHMS[speculation.method]
    if flags.get(RADIX_ON_DECODE) is True and algorithm in ("NGRAM", "STANDALONE"):
        raise misfit(point, f"sglang refuses {algorithm} with {RADIX_ON_DECODE}; take that away")
    if speculation.depth is not None and speculation.method in ADAPTS:
        for option in NO_ADAPTING:
            if flags.get(option) is True:
                raise misfit(point, f"sglang never changes the depth with {option}; take that away")
    if has_attention_dp(point, group):
        _check_attention_dp(point, speculation, group)
    ragged = env_of_role(point, group.role).get(RAGGED, "static")
    if algorithm == "DSPARK" and speculation.acceptance.mode != "measured" and ragged != "static":
        raise misfit(point, f"a pinned acceptance needs {RAGGED}=static, not {ragged}")


def _check_attention_dp(point: Point, speculation: Speculation, group: WorkerGroup) -> None:
    flags, algorithm = of_role(point, group.role, ()), ALGORITHMS[speculation.method]
    elsewhere = "run it on TP or TEP layouts (`concurrency` by arm)"
    if algorithm in ("NGRAM", "STANDALONE"):
        raise misfit(
            point, f"sglang refuses {algorithm} with data-parallel attention ({group.layout}); {elsewhere}"
        )
    if speculation.depth is not None and algorithm != "DSPARK":
        raise misfit(
            point,
            f"sglang silently stays at one depth with data-parallel attention ({group.layout}); use a static "
            f"depth here, or {elsewhere}",
        )
    if algorithm != "DSPARK":
        return
    if flags.get("enable-dp-lm-head") is not True:
        raise misfit(
            point,
            f"DSPARK with data-parallel attention ({group.layout}) needs enable-dp-lm-head; set it in "
            "`engine.flags`, so that all arms have it",
        )
    moe = flags.get("moe-a2a-backend", "none")
    if moe not in ("none", "megamoe", "mori"):
        raise misfit(
            point,
            f"DSPARK with data-parallel attention ({group.layout}) needs moe-a2a-backend none, megamoe or "
            f"mori, not {moe}",
        )
    if moe != "none" and speculation.depth is not None:
        raise misfit(
            point,
            f"DSPARK with data-parallel attention ({group.layout}) and moe-a2a-backend {moe} verifies every "
            "draft; use a static depth here",
        )
