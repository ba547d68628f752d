"""Pure but for a checkpoint's configuration: builds the arms of a sweep, and how each accepts its drafts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mtpbench import golden
from mtpbench.errors import InputError, SweepError
from mtpbench.input_files import read_json
from mtpbench.records import AcceptancePolicy, Arm, DepthRange, DepthRule, GoldenTable, Method, Speculation
from mtpbench.sweep.arm_schema import ArmSpec

MOST_CONFIG_BYTES = 1 << 24
MTP_KEYS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers", "n_predict")
"""How configurations name the number of MTP layers (DeepSeek, GLM, MiMo; Qwen3-Next; others)."""


class ArmError(InputError):
    """An error in an arm; `keys` lead to what is wrong, below the arm."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


def make_arm(name: str, spec: ArmSpec, model_path: str, *, draws: bool) -> Arm:
    """Builds an arm from its part of a sweep file.

    Args:
        name: of the arm.
        spec: what the sweep file says of it.
        model_path: the sweep's checkpoint, which the arm serves unless it names another.
        draws: whether the embedded engine serves it: that draws acceptance, and reads no checkpoint.

    Raises:
        ArmError: no table has its golden length, or the checkpoint can't draft so.
    """
    checkpoint = spec.checkpoint if spec.checkpoint != model_path else None
    method = spec.drafting
    if method is None:
        return Arm(name=name, checkpoint=checkpoint)
    assert spec.most_drafts is not None
    if not draws:
        _check_heads(method, checkpoint or model_path)
    try:
        speculation = Speculation(
            method=method,
            draft_tokens=spec.most_drafts,
            acceptance=_policy(spec, spec.most_drafts),
            draft_model=spec.draft_model,
            draft_sampling=spec.draft_sampling,
            rejection_method=spec.rejection_method,
            depth=_depth(spec),
        )
        speculation = with_rates(speculation) if draws else speculation
    except InputError as error:
        raise ArmError(str(error)) from None
    return Arm(name=name, speculation=speculation, checkpoint=checkpoint)


def _check_heads(method: Method, checkpoint: str) -> None:
    """Refuses MTP on a checkpoint whose configuration names no MTP layer."""
    if method == "mtp" and mtp_layers(checkpoint) == 0:
        raise ArmError(
            f"{checkpoint}/config.json names no MTP layer ({', '.join(MTP_KEYS)}): this checkpoint can't "
            "draft; leave `draft_tokens` out, or use a checkpoint with MTP layers",
            "draft_tokens",
        )


def _depth(spec: ArmSpec) -> DepthRule | None:
    if spec.depth is None or spec.depth == "static":
        return None
    assert not isinstance(spec.depth, str)
    if spec.depth.by_batch is None:
        return DepthRule(kind="adaptive", config=spec.depth.adaptive or {})
    ranges = (DepthRange(first=a, last=b, draft_tokens=drafts) for a, b, drafts in spec.depth.by_batch)
    return DepthRule(kind="by_batch", ranges=tuple(ranges))


def _policy(spec: ArmSpec, drafts: int) -> AcceptancePolicy:
    acceptance = spec.acceptance
    if acceptance is None or acceptance == "measured":
        return AcceptancePolicy(mode="measured")
    assert not isinstance(acceptance, str)
    if acceptance.golden is not None:
        table = GoldenTable(model=acceptance.model, method=spec.drafting or "mtp", mode=acceptance.golden)
        lengths = golden.golden_table(table)
        return AcceptancePolicy(
            mode="golden",
            length=golden.golden_length(table, drafts),
            rates=golden.golden_rates(lengths, drafts),
            pinned_by="golden",
            table=table,
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


def with_rates(speculation: Speculation) -> Speculation:
    """Returns the speculation with the acceptance rates that the embedded engine draws from.

    Where the sweep says `measured` there is no model to measure: the rates are those of the golden table, and
    the policy records that.
    """
    policy = speculation.acceptance
    if policy.rates is not None:
        return speculation
    table = golden.default_table()
    lengths = golden.golden_table(table)
    if policy.length is not None:
        lengths = {**lengths, speculation.draft_tokens: policy.length}
    rates = golden.golden_rates(lengths, speculation.draft_tokens)
    drawn = AcceptancePolicy(
        mode="golden",
        length=1 + sum(rates),
        rates=rates,
        pinned_by=policy.pinned_by or "engine",
        table=policy.table if policy.pinned_by else table,
    )
    return dataclasses.replace(speculation, acceptance=drawn)


def mtp_layers(model_path: str) -> int | None:
    """Returns the MTP layers that a checkpoint's local config.json declares; None where that is unknown.

    Returns 0 where the file is readable and names none. A hub id or a path of another machine is unknown.
    """
    try:
        data = read_json(Path(model_path) / "config.json", MOST_CONFIG_BYTES)
    except SweepError:
        return None
    if not isinstance(data, dict):
        return None
    # At the top or one level down (`text_config` of vision models).
    places = [data, *(value for value in data.values() if isinstance(value, dict))]
    counts = [place.get(key) for place in places for key in MTP_KEYS]
    return max((count for count in counts if isinstance(count, int)), default=0)
