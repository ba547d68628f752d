"""Pure but for a checkpoint's configuration: builds the arms of a sweep, and how each accepts its drafts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtpbench import golden
from mtpbench.errors import InputError, SweepError
from mtpbench.input_files import read_json
from mtpbench.records import (
    AcceptancePolicy,
    Arm,
    DepthRange,
    DepthRule,
    GoldenTable,
    Json,
    Method,
    Speculation,
)
from mtpbench.sweep.arm_schema import ArmSpec

MOST_CONFIG_BYTES = 1 << 24
MTP_KEYS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers", "n_predict")
"""How configurations name the number of MTP layers (DeepSeek, GLM, MiMo; Qwen3-Next; others)."""
DSPARK, DSPARK_FOLDER = "dspark_", "dspark"
"""How the names of DSpark's settings begin in a configuration, and the folder that may hold its layers."""
THINKING_KEYS = ("thinking", "enable_thinking")
"""How chat templates name the switch of thinking (DeepSeek, Kimi; Qwen)."""


class ArmError(InputError):
    """An error in an arm; `keys` lead to what is wrong, below the arm."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


def make_arm(
    name: str,
    spec: ArmSpec,
    model_path: str,
    *,
    draws: bool,
    template_arguments: Mapping[str, Json] | None = None,
) -> Arm:
    """Builds an arm from its part of a sweep file.

    Args:
        name: of the arm.
        spec: what the sweep file says of it.
        model_path: the sweep's checkpoint, which the arm serves unless it names another.
        draws: whether the embedded engine serves it: that draws acceptance, and reads no checkpoint.
        template_arguments: what requests pass to the chat template, which may say whether the model thinks.

    Raises:
        ArmError: no table has its golden length, or the checkpoint can't draft so.
    """
    checkpoint = spec.checkpoint if spec.checkpoint != model_path else None
    method = spec.drafting
    if method is None:
        return Arm(name=name, checkpoint=checkpoint)
    assert spec.most_drafts is not None
    served = checkpoint or model_path
    if not draws:
        _check_heads(method, served)
    try:
        speculation = Speculation(
            method=method,
            draft_tokens=spec.most_drafts,
            acceptance=_policy(spec, spec.most_drafts, served, _thinks(template_arguments or {})),
            draft_model=spec.draft_model,
            draft_sampling=spec.draft_sampling,
            rejection_method=spec.rejection_method,
            depth=_depth(spec),
        )
        speculation = with_rates(speculation, served) if draws else speculation
    except InputError as error:
        raise ArmError(str(error)) from None
    return Arm(name=name, speculation=speculation, checkpoint=checkpoint)


def _check_heads(method: Method, checkpoint: str) -> None:
    """Refuses MTP or DSpark on a checkpoint that is known to hold no such layers."""
    config = _configuration(checkpoint)
    has_dspark = config is not None and _names_dspark(config, checkpoint)
    lack = golden.known_lack(checkpoint, method)
    if lack is not None and not (method == "dspark" and has_dspark):
        raise ArmError(f"{checkpoint} can't draft by {method}: {lack.why}. Right is {lack.instead}", "method")
    if config is None:
        return
    if method == "mtp" and not _mtp_layers(config, has_dspark=has_dspark):
        if has_dspark:
            raise ArmError(
                f"{checkpoint} holds DSpark and no MTP layer: MTP may load there, and accepts nothing. "
                "Right is `method: dspark`, or a checkpoint with MTP layers",
                "method",
            )
        raise ArmError(
            f"{checkpoint}/config.json names no MTP layer ({', '.join(MTP_KEYS)}): this checkpoint can't "
            "draft; leave `draft_tokens` out, or use a checkpoint with MTP layers",
            "draft_tokens",
        )
    if method == "dspark" and not has_dspark:
        raise ArmError(
            f"{checkpoint}/config.json names no DSpark ({DSPARK}block_size, …), and there is no folder "
            f"`{DSPARK_FOLDER}`: this checkpoint can't draft so. Right is a checkpoint that bundles it "
            "(`checkpoint: …`), or another `method`",
            "method",
        )


def _depth(spec: ArmSpec) -> DepthRule | None:
    if spec.depth is None or spec.depth == "static":
        return None
    assert not isinstance(spec.depth, str)
    if spec.depth.by_batch is None:
        return DepthRule(kind="adaptive", config=spec.depth.adaptive or {})
    ranges = (DepthRange(first=a, last=b, draft_tokens=drafts) for a, b, drafts in spec.depth.by_batch)
    return DepthRule(kind="by_batch", ranges=tuple(ranges))


def _thinks(template_arguments: Mapping[str, Json]) -> bool | None:
    """Returns whether requests ask the model to think; None where they don't say."""
    said = (template_arguments.get(key) for key in THINKING_KEYS)
    return next((value for value in said if isinstance(value, bool)), None)


def _policy(spec: ArmSpec, drafts: int, checkpoint: str, thinks: bool | None) -> AcceptancePolicy:
    acceptance = spec.acceptance
    if acceptance is None or acceptance == "measured":
        return AcceptancePolicy(mode="measured")
    if acceptance == "golden":
        mode = "thinking_off" if thinks is False else "thinking_on"
        return _golden_policy(spec, drafts, golden.find_table(checkpoint, _method(spec), mode))
    assert not isinstance(acceptance, str)
    if acceptance.golden is not None:
        mode = acceptance.golden
        if thinks is not None and mode == ("thinking_off" if thinks else "thinking_on"):
            raise InputError(
                f"`golden: {mode}` pins the acceptance of the other mode: `workload.chat_template_kwargs` "
                f"turns thinking {'on' if thinks else 'off'}"
            )
        return _golden_policy(
            spec, drafts, golden.find_table(checkpoint, _method(spec), mode, acceptance.model)
        )
    if acceptance.rates is not None:
        rates = tuple(acceptance.rates)
        if len(rates) != drafts or list(rates) != sorted(rates, reverse=True):
            raise InputError(f"`rates` needs {drafts} non-increasing numbers, one per draft token")
        return AcceptancePolicy(mode="golden", length=1 + sum(rates), rates=rates, pinned_by="sweep")
    assert acceptance.length is not None
    if acceptance.length > drafts + 1:
        raise InputError(
            f"an acceptance length of {acceptance.length} needs 1 … {drafts + 1} with {drafts} drafts"
        )
    return AcceptancePolicy(mode="golden", length=acceptance.length, pinned_by="sweep")


def _method(spec: ArmSpec) -> Method:
    assert spec.drafting is not None
    return spec.drafting


def _golden_policy(spec: ArmSpec, drafts: int, table: GoldenTable) -> AcceptancePolicy:
    return AcceptancePolicy(
        mode="golden",
        length=golden.golden_length(table, drafts),
        rates=golden.rates_of(golden.golden_table(table), drafts),
        pinned_by="golden",
        table=table,
    )


def with_rates(speculation: Speculation, checkpoint: str = "") -> Speculation:
    """Returns the speculation with the acceptance rates that the embedded engine draws from.

    Where the sweep says `measured` there is no model to measure: the rates are those of the golden table of
    the method (of the checkpoint's, where that has a length for so many drafts), and the policy records that.
    A length alone gives MTP the table's rates up to its last draft, and other methods even ones.

    Raises:
        InputError: acceptance is measured, and no table has a length of the method for so many drafts.
    """
    policy, drafts = speculation.acceptance, speculation.draft_tokens
    if policy.rates is not None:
        return speculation
    table = policy.table
    if policy.length is None:
        table = _drawn_table(speculation.method, drafts, checkpoint)
        rates = golden.rates_of(golden.golden_table(table), drafts)
    else:
        usual = golden.default_table("mtp") if speculation.method == "mtp" else None
        lengths = golden.golden_table(usual) if usual else {}
        rates = golden.rates_of({**lengths, drafts: policy.length}, drafts)
    drawn = AcceptancePolicy(
        mode="golden",
        length=1 + sum(rates),
        rates=rates,
        pinned_by=policy.pinned_by or "engine",
        table=table,
    )
    return dataclasses.replace(speculation, acceptance=drawn)


def _drawn_table(method: Method, drafts: int, checkpoint: str) -> GoldenTable:
    """Returns the table that the embedded engine draws a method's acceptance from."""
    default = golden.default_table(method)
    if default is None:
        raise InputError(
            f"the embedded engine has no model that could accept drafts of {method}, and {golden.SOURCE} has "
            "no lengths of it: give `acceptance: {length: 2.5}` (every draft is as likely as the one before "
            "it) or `{rates: [0.6, 0.4, 0.2]}`"
        )
    # Of MTP there is one table, which old sweeps mean whatever they serve.
    try:
        own = default if method == "mtp" else golden.find_table(checkpoint, method, default.mode)
    except InputError:
        own = default
    return own if drafts in golden.golden_table(own) else default


def _configuration(checkpoint: str) -> tuple[Mapping[str, Any], ...] | None:
    """Returns the parts of a checkpoint's local config.json: its top, and what lies one level down
    (`text_config` of vision models).

    None where it is unknown: a hub id, a path of another machine, or a file that can't be read.
    """
    try:
        data = read_json(Path(checkpoint) / "config.json", MOST_CONFIG_BYTES)
    except SweepError:
        return None
    if not isinstance(data, dict):
        return None
    return (data, *(value for value in data.values() if isinstance(value, dict)))


def _names_dspark(config: Sequence[Mapping[str, Any]], checkpoint: str) -> bool:
    named = any(key.startswith(DSPARK) for part in config for key in part)
    return named or (Path(checkpoint) / DSPARK_FOLDER).is_dir()


def _mtp_layers(config: Sequence[Mapping[str, Any]], *, has_dspark: bool) -> int:
    """Returns the MTP layers that a configuration declares; 0 where it names none.

    Beside DSpark `n_predict` is the length of its block.
    """
    keys = [key for key in MTP_KEYS if not (has_dspark and key == "n_predict")]
    counts = [part.get(key) for part in config for key in keys]
    return max((count for count in counts if isinstance(count, int)), default=0)
