"""Pure: an arm's speculation in TensorRT-LLM's own options, by release, and what it refuses or ignores of it.

Source: tensorrt_llm/llmapi/llm_args.py of the mainline of 2026 and its reference pages for 1.3.0rc27 and
1.4.0rc1, its documentation of 1.2.1, and the pull requests that are named here; read, not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtpbench.engines.about import Release, as_mapping
from mtpbench.engines.declared import declared, joined, misfit, only_length
from mtpbench.engines.parts import of_role, whole
from mtpbench.records import Method, Point, Speculation, WorkerGroup, WorkerRole

DECODING_TYPES: Mapping[Method, str] = {
    "mtp": "MTP",
    "dspark": "DSpark",
    "eagle3": "Eagle3",
    "draft_model": "Draft_Target",
    "ngram": "NGram",
    "suffix": "SA",
}
CONFIG = "speculative_config"
DSPARK_SINCE = "1.3.0rc24"
"""The first release that surely has DSpark (#15808, merged by 2026-07-22); 1.3.0rc27's page was read."""
SCHEDULE_SINCE = "1.3.0rc15"
"""The first release that surely changes the depth of all methods here but DSpark (#10860, #12262)."""
SCHEDULED: tuple[Method, ...] = ("mtp", "eagle3", "draft_model", "suffix")
WITHOUT_OVERLAP: tuple[Method, ...] = ("ngram", "draft_model")
"""Methods that the overlap scheduler does not run, by the documentation of 1.2.1."""
GIVES_UP = (
    *("acceptance_rate_threshold", "acceptance_rate_window_size"),
    *("acceptance_length_threshold", "acceptance_window"),
)
"""Keys that turn speculation off for good, below some acceptance: the arm would be two."""
FORCED = "TLLM_SPEC_DECODE_FORCE_NUM_ACCEPTED_TOKENS"
DEFAULT_BATCH = 1024


def batch_of(point: Point, role: WorkerRole) -> int:
    """Returns the sequences of a step: the sweep's, or as many as this module writes."""
    return whole(of_role(point, role), "max_batch_size", DEFAULT_BATCH)


def speculation_options(point: Point, group: WorkerGroup, given: Any) -> Mapping[str, Any]:
    """Returns what speculation adds to the YAML of either role, and what MTP forces with attention DP.

    Releases before 1.3.0rc15 draft `num_nextn_predict_layers` tokens, whatever `max_draft_len` says, and one
    where it is left out; later ones draft `max_draft_len`, and drop the other with a warning (#12341).

    Args:
        point: the point.
        group: of the worker.
        given: the sweep's own `speculative_config`, whose further keys stay.
    """
    speculation = point.arm.speculation
    if speculation is None:
        return {}
    drafts, method = speculation.draft_tokens, speculation.method
    config: dict[str, Any] = {"decoding_type": DECODING_TYPES[method], "max_draft_len": drafts}
    if method == "mtp":
        config["num_nextn_predict_layers"] = drafts
    if method == "dspark":
        config["block_size"] = drafts
    if speculation.draft_model is not None:
        config["speculative_model"] = speculation.draft_model
    if group.role != "prefill" and speculation.depth is not None:
        config["draft_len_schedule"] = _schedule(point, speculation, group.role)
    options: dict[str, Any] = {CONFIG: joined(point, given, config, CONFIG)}
    if method in WITHOUT_OVERLAP:
        options["disable_overlap_scheduler"] = True
    if group.attention_dp and method == "mtp":
        options["enable_lm_head_tp_in_adp"] = True
    return options


def _schedule(point: Point, speculation: Speculation, role: WorkerRole) -> Mapping[int, int]:
    """Returns the depths by the largest batch of each; above the largest key TensorRT-LLM drafts nothing."""
    assert speculation.depth is not None
    schedule = {r.last: r.draft_tokens for r in speculation.depth.ranges}
    last = speculation.depth.ranges[-1]
    batch = batch_of(point, role)
    return {**schedule, batch: last.draft_tokens} if last.draft_tokens and batch > last.last else schedule


def forced_drafts(point: Point) -> float | None:
    """Returns the accepted drafts that the arm pins, without the bonus token; None where it is measured."""
    speculation = point.arm.speculation
    if speculation is None or speculation.acceptance.length is None:
        return None
    return speculation.acceptance.length - 1


def speculation_env(point: Point) -> Mapping[str, str]:
    """Returns the environment that pins acceptance, where the arm pins it."""
    drafts = forced_drafts(point)
    return {} if drafts is None else {FORCED: f"{drafts:g}"}


def check_speculation(point: Point, made: Release, given: Mapping[WorkerRole, Any]) -> None:
    """Raises an error for what TensorRT-LLM, in the release that lines are written for, can't do of an arm.

    Args:
        point: the point.
        made: the release.
        given: the sweep's own `speculative_config`, by role.
    """
    speculation = declared(point, tuple(DECODING_TYPES), ("draft_sampling", "rejection_method"))
    if speculation is None:
        if any(given.values()):
            raise misfit(point, f"the yaml in `engine.flags` has {CONFIG}, and the arm is off; take it away")
        return
    if speculation.method == "dspark" and not made.since(DSPARK_SINCE):
        raise misfit(
            point, f"trtllm {made.version} has no DSpark, known since {DSPARK_SINCE} (`engine.version`)"
        )
    only_length(point, speculation)
    _check_depth(point, speculation, made)
    for group in point.topology.groups:
        if gives_up := [key for key in GIVES_UP if key in as_mapping(given.get(group.role))]:
            raise misfit(point, f"{gives_up[0]} turns speculation off for good in the middle; leave it out")
        speculation_options(point, group, given.get(group.role))


def _check_depth(point: Point, speculation: Speculation, made: Release) -> None:
    rule, drafts = speculation.depth, speculation.draft_tokens
    if rule is None:
        return
    if rule.kind == "adaptive":
        raise misfit(point, "trtllm does not choose the depth by itself; use `by_batch` or a static depth")
    if speculation.method not in SCHEDULED:
        raise misfit(
            point,
            f"trtllm has a depth by batch for {', '.join(SCHEDULED)}, not for {speculation.method}; use a "
            "static depth",
        )
    if not made.since(SCHEDULE_SINCE):
        raise misfit(
            point,
            f"trtllm {made.version} changes no depth of {speculation.method} by batch, which is known since "
            f"{SCHEDULE_SINCE} (`engine.version`)",
        )
    if rule.ranges[0].draft_tokens != drafts:
        raise misfit(
            point,
            f"trtllm drafts most in the smallest batches: the first range has {rule.ranges[0].draft_tokens}, "
            f"and `draft_tokens` is {drafts}; make them equal",
        )
