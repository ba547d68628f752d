"""Pure: an arm's speculation in vLLM's own keys, by release, and what vLLM refuses of it or ignores.

Source: vllm/config/speculative.py and vllm/config/vllm.py of 0.25.1, 0.31.0 and 0.33.0 (`make test-parsers`
asks them), and the pull requests that brought what lies between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtpbench.engines.about import Release, as_mapping
from mtpbench.engines.declared import LEAVE_OUT, declared, joined, misfit
from mtpbench.engines.parts import env_of_role, of_role, whole
from mtpbench.records import Flags, Method, Point, Speculation, WorkerRole

METHODS: tuple[Method, ...] = ("mtp", "dspark", "eagle3", "draft_model", "ngram", "suffix")
CONFIG, HELPERS = "speculative-config", ("spec-method", "spec-model", "spec-tokens")
DSPARK_SINCE = "0.25.0"
"""The first release after DSpark was merged (#46995); it was read in 0.25.1."""
KEYS_SINCE = "0.25.1"
"""The first release that was read with these keys: `draft_sample_method`, `standard` and `block` for
`rejection_sample_method`, `num_speculative_tokens_per_batch_size`."""
ADAPTIVE_SINCE = "0.28.0"
"""The first release that surely has `enable_adaptive_verification` (#47808, merged before 2026-08-14)."""
V2_RUNNER, V2_RUNNER_SINCE = "VLLM_USE_V2_MODEL_RUNNER", "0.31.0"
"""The variable that chooses between the two model runners, and a release from which the second is the
default; before, it is the default of some models only."""
BATCHED, CAPTURED = "max-num-batched-tokens", "max-cudagraph-capture-size"
SIZES = {"cudagraph_capture_sizes", "max_cudagraph_capture_size"}
OWN_LIMITS = {BATCHED: 8192, CAPTURED: 1024}
"""The most tokens that vLLM sets by itself; half of them captured where the GPU is older than Blackwell."""
NGRAM_DEFAULTS = {"prompt_lookup_max": 5, "prompt_lookup_min": 5}
"""vLLM's own, written out so that no release changes them."""


def check_speculation(point: Point, made: Release) -> None:
    """Raises an error for what vLLM, in the release that lines are written for, can't do of an arm."""
    starts = HELPERS if point.arm.speculation is not None else (CONFIG, *HELPERS)
    speculation = declared(point, METHODS, starts=starts)
    if speculation is None:
        return
    _check_release(point, speculation, made)
    _check_runner(point, speculation)
    _check_depth(point, speculation)
    _check_acceptance(point, speculation)
    for group in point.topology.groups:
        speculation_flags(point, group.role)


def speculation_flags(point: Point, role: WorkerRole) -> Flags:
    """Returns what speculation adds, to prefill workers too: draft layers fill their own KV cache there.

    How many drafts a step makes is of no use to a prefill worker, which makes no steps after the first.
    """
    speculation = point.arm.speculation
    if speculation is None:
        return {}
    config: dict[str, Any] = {
        "method": speculation.method,
        "num_speculative_tokens": speculation.draft_tokens,
        "model": speculation.draft_model,
        "draft_sample_method": speculation.draft_sampling,
        "rejection_sample_method": speculation.rejection_method,
        **(_depth(speculation) if role != "prefill" else {}),
        **_pinned(speculation),
    }
    ours = {key: value for key, value in config.items() if value is not None}
    keys = joined(point, of_role(point, role).get(CONFIG), ours, CONFIG)
    if speculation.method == "ngram" and not NGRAM_DEFAULTS.keys() & keys.keys():
        keys |= NGRAM_DEFAULTS
    return {CONFIG: keys}


def _depth(speculation: Speculation) -> Mapping[str, Any]:
    rule = speculation.depth
    if rule is None:
        return {}
    if rule.kind == "adaptive":
        return {"enable_adaptive_verification": True}
    table = [[r.first, r.last, r.draft_tokens] for r in rule.ranges]
    return {"num_speculative_tokens_per_batch_size": table}


def _pinned(speculation: Speculation) -> Mapping[str, Any]:
    """Returns the keys that pin acceptance: a length, or the sweep's rates, or under a depth rule any rates.

    vLLM splits a length for the deepest step, so that shallower ones would accept too much.
    """
    policy = speculation.acceptance
    if policy.mode != "golden":
        return {}
    pinned: dict[str, Any] = {"rejection_sample_method": "synthetic"}
    if policy.rates is not None and (policy.pinned_by == "sweep" or speculation.depth is not None):
        return {**pinned, "synthetic_acceptance_rates": list(policy.rates)}
    return {**pinned, "synthetic_acceptance_length": policy.length}


def _needs_v2(speculation: Speculation) -> str | None:
    """Returns what of the speculation the first model runner lacks; None where it has all of it."""
    if speculation.method == "dspark":
        return "dspark"
    if speculation.rejection_method == "block":
        return "`rejection_method: block`"
    # The first runner has it too, without full CUDA graphs.
    return "`depth: {by_batch: …}`" if speculation.depth is not None else None


def speculation_env(point: Point, role: WorkerRole, made: Release) -> Mapping[str, str]:
    """Returns the choice of a model runner, where vLLM would choose another one than without speculation.

    So it stands in the command lines, and is named where arms are compared.
    """
    speculation = point.arm.speculation
    if speculation is None or V2_RUNNER in env_of_role(point, role):
        return {}
    usual = made.since(V2_RUNNER_SINCE)
    if speculation.method == "suffix":
        return {V2_RUNNER: "0"} if usual else {}
    return {V2_RUNNER: "1"} if not usual and _needs_v2(speculation) else {}


def step_room(point: Point, role: WorkerRole) -> Mapping[str, int]:
    """Returns the sequences that a step, and its captured graph, has room for; nothing where none are set.

    Each takes its drafts and one token more; those without room wait, or run without a graph.
    """
    flags = of_role(point, role, ())
    sequences = whole(flags, "max-num-seqs", 0)
    if not sequences or role == "prefill":
        return {}
    sized = as_mapping(flags.get("compilation-config")).keys() & {
        "cudagraph_capture_sizes",
        "max_cudagraph_capture_size",
    }
    own_sizes = sized or flags.get("enforce-eager") is True
    tokens = {n: whole(flags, n, most) for n, most in OWN_LIMITS.items() if n == BATCHED or not own_sizes}
    return {name: min(sequences, most // (point.draft_tokens + 1)) for name, most in tokens.items()}


def _check_release(point: Point, speculation: Speculation, made: Release) -> None:
    """Refuses what only later releases have."""
    rule = speculation.depth
    since = {
        "dspark": DSPARK_SINCE if speculation.method == "dspark" else None,
        "`draft_sampling`": KEYS_SINCE if speculation.draft_sampling else None,
        "`rejection_method`": KEYS_SINCE if speculation.rejection_method else None,
        "`depth: {by_batch: …}`": KEYS_SINCE if rule and rule.kind == "by_batch" else None,
        "`depth: adaptive`": ADAPTIVE_SINCE if rule and rule.kind == "adaptive" else None,
    }
    for what, version in since.items():
        if version is not None and not made.since(version):
            raise misfit(
                point, f"vllm {made.version} has no {what}, known since {version} (`engine.version`)"
            )


def _check_runner(point: Point, speculation: Speculation) -> None:
    """Refuses a sweep's choice of a model runner that lacks what the arm declares.

    The first one plays a depth by batch too, in piecewise graphs: whoever names it may have it.
    """
    needs, suffix = _needs_v2(speculation), speculation.method == "suffix"
    if suffix and needs:
        raise misfit(point, f"{needs} needs vLLM's second model runner, which has no suffix decoding")
    for group in point.topology.groups:
        given = env_of_role(point, group.role).get(V2_RUNNER)
        lacking = needs and (speculation.method == "dspark" or speculation.rejection_method == "block")
        if (given == "0" and lacking) or (given == "1" and suffix):
            what = needs or "suffix"
            raise misfit(point, f"{what} does not run with {V2_RUNNER}={given} (`engine.env`); {LEAVE_OUT}")


def _check_depth(point: Point, speculation: Speculation) -> None:
    """Refuses rules of depth that vLLM would not follow, or that it has no settings for."""
    rule = speculation.depth
    if rule is None:
        return
    if rule.kind == "adaptive":
        _check_adaptive(point, speculation)
        return
    for group in point.topology.groups:
        if group.attention_dp and group.role != "prefill":
            raise misfit(
                point,
                f"vllm drops a depth by batch where a worker has data-parallel ranks ({group.layout}), and "
                f"always drafts {speculation.draft_tokens}; run it on TP or TEP layouts (`concurrency` by "
                "arm), or a static depth here",
            )


def _check_adaptive(point: Point, speculation: Speculation) -> None:
    rule, method = speculation.depth, speculation.method
    if method != "dspark":
        raise misfit(point, f"vllm chooses the depth itself only with dspark, not {method}; use `by_batch`")
    if rule is not None and rule.config:
        raise misfit(point, f"vllm has no settings for `depth: adaptive`, so not {next(iter(rule.config))}")
    if speculation.acceptance.mode != "measured":
        raise misfit(
            point,
            "vllm takes drafts away by the model's confidence, which a pinned acceptance does not know; use "
            "`acceptance: measured`",
        )
    for group in point.topology.groups:
        if group.role != "prefill" and of_role(point, group.role).get("enforce-eager") is True:
            raise misfit(
                point, f"`depth: adaptive` needs CUDA graphs; take enforce-eager of {group.role} away"
            )


def _check_acceptance(point: Point, speculation: Speculation) -> None:
    policy = speculation.acceptance
    if policy.mode == "measured":
        return
    if speculation.rejection_method is not None:
        raise misfit(
            point,
            "a pinned acceptance takes the place of `rejection_method` in vllm; leave that out, or use "
            "`acceptance: measured`",
        )
    if speculation.depth is not None and policy.rates is None:
        raise misfit(
            point,
            "vllm would split a pinned length for the deepest step, so that shallower ones accept too much; "
            "give `rates`",
        )
