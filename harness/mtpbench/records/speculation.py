"""An arm is one side of a comparison: speculation off or on, how drafts are accepted, what that forces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from mtpbench.records.codec import Flags, Json, Positive, Within

Method = Literal["mtp", "dspark", "eagle3", "draft_model", "ngram", "suffix"]
"""How drafts are made: by the model's own MTP or DSpark layers, by an EAGLE-3 head or a smaller model of its
own checkpoint, or without a model: out of the text so far (n-gram), or out of earlier answers (suffix)."""
OWN_HEADS: tuple[Method, ...] = ("mtp", "dspark")
"""Methods whose draft layers lie in the target's checkpoint."""
DRAFT_CHECKPOINTS: tuple[Method, ...] = ("eagle3", "draft_model")
"""Methods that need a draft checkpoint besides the target's."""
WITHOUT_MODEL: tuple[Method, ...] = ("ngram", "suffix")
OFF = "off"
"""What stands in a method's place where nothing drafts."""
METHOD_NAMES: Mapping[str, str] = {
    OFF: "off",
    "mtp": "MTP",
    "dspark": "DSpark",
    "eagle3": "EAGLE-3",
    "draft_model": "draft model",
    "ngram": "n-gram",
    "suffix": "suffix",
}
"""What each method is called wherever it is shown."""
AcceptanceCaveat = Literal["random_prompts", "ignore_eos"]
"""Why an acceptance that is measured may not be that of real use."""
CAVEATS: Mapping[AcceptanceCaveat, str] = {
    "random_prompts": "on random tokens, of which a model accepts far more or far fewer than of text",
    "ignore_eos": "with ignore_eos, past the end of answers, where acceptance differs from run to run",
}
"""How it was measured, by caveat, as a sentence goes on."""
MOST_DRAFTS = 64
"""Draft tokens of a step; the longest that an engine drafts by itself (n-gram of llama.cpp)."""
Drafts = Annotated[int, Within(0, MOST_DRAFTS)]


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenTable:
    """A golden table is one of published mean acceptance lengths (in `data/golden_acceptance.yaml`).

    `model` names the model and its checkpoint as the tables do (`deepseek-v4-pro-0813`); `mode` is the
    thinking mode.
    """

    model: str
    method: str
    mode: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptancePolicy:
    """An acceptance policy says how drafts are accepted: by the model (`measured`), or by a golden length.

    Args:
        length: mean acceptance length, the bonus token included (1 … drafts + 1).
        rates: unconditional acceptance rates by position, non-increasing, one per draft; the embedded engine
            needs them, real engines take the length.
        pinned_by: what pins acceptance: numbers of the `sweep` file, the `golden` table that it names, or the
            embedded `engine`, which has no model and draws from a table. None where it is measured.
        table: the golden table, where one pins.
    """

    mode: Literal["measured", "golden"]
    length: float | None = None
    rates: tuple[float, ...] | None = None
    pinned_by: Literal["sweep", "golden", "engine"] | None = None
    table: GoldenTable | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthRange:
    """A depth range says how many tokens a step drafts while its batch holds `first` to `last` requests."""

    first: Positive
    last: Positive
    draft_tokens: Drafts


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthRule:
    """A depth rule says how many tokens each step drafts, where that is not the same for all steps.

    Args:
        kind: `by_batch` looks the depth up by the requests of a step; with `adaptive` the engine chooses it.
        ranges: of `by_batch`, rising, without gaps from batch 1 on; above the last one its depth stays.
        config: of `adaptive`, the engine's own settings; empty for its defaults.
    """

    kind: Literal["by_batch", "adaptive"]
    ranges: tuple[DepthRange, ...] = ()
    config: Mapping[str, Json] = field(default_factory=dict)

    def depth_at(self, batch: int) -> int:
        """Returns the tokens that a step of `batch` requests drafts by a rule `by_batch`."""
        return next((r.draft_tokens for r in self.ranges if batch <= r.last), self.ranges[-1].draft_tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class Speculation:
    """Speculation is the speculative decoding that an arm declares, whatever its kind.

    Args:
        method: how drafts are made.
        draft_tokens: the most tokens that a step drafts; DSpark's block size.
        acceptance: how drafts are accepted.
        draft_model: the checkpoint that drafts, for methods that need one of their own.
        draft_sampling: how drafts are chosen: the most probable, or sampled; None for the engine's default.
        rejection_method: how drafts are verified: one by one (`standard`) or jointly (`block`); None for the
            engine's default.
        depth: how many tokens a step drafts; None for always `draft_tokens`.
    """

    method: Method = "mtp"
    draft_tokens: Annotated[int, Within(1, MOST_DRAFTS)]
    acceptance: AcceptancePolicy
    draft_model: str | None = None
    draft_sampling: Literal["greedy", "probabilistic"] | None = None
    rejection_method: Literal["standard", "block"] | None = None
    depth: DepthRule | None = None

    @property
    def drafts_evenly(self) -> bool:
        """Returns whether each step drafts the same number of tokens: no rule of depth, no search for
        matches.
        """
        return self.depth is None and self.method not in WITHOUT_MODEL

    @property
    def may_skip_drafts(self) -> bool:
        """Returns whether a step may draft nothing: by its rule of depth, or where it finds no match."""
        if self.depth is None:
            return self.method in WITHOUT_MODEL
        return self.depth.kind == "adaptive" or any(r.draft_tokens == 0 for r in self.depth.ranges)


def speculation_label(
    method: str | None, draft_tokens: int | None = None, depth_rule: str | None = None
) -> str | None:
    """Returns what a speculation is called, wherever it is shown: `off`, `MTP k=3`, `MTP k≤3 by batch`.

    Args:
        method: one of `METHOD_NAMES`; None where it was not recorded.
        draft_tokens: of a step; the most of them by a rule of depth. 0 is speculation off.
        depth_rule: `static`, `by_batch` or `adaptive`; None where it was not recorded.

    Returns:
        The label; None where neither method nor draft tokens were recorded.
    """
    if method == OFF or (method is None and draft_tokens == 0):
        return METHOD_NAMES[OFF]
    parts = [] if method is None else [METHOD_NAMES.get(method, method)]
    ruled = depth_rule in ("by_batch", "adaptive")
    if draft_tokens is not None:
        parts.append(f"k{'≤' if ruled else '='}{draft_tokens}")
    if ruled and parts:
        parts.append("by batch" if depth_rule == "by_batch" else "adaptive")
    return " ".join(parts) or None


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """An arm is one side of a comparison: the base with speculation off, or on with what that forces.

    `forces` are the engine options that speculation makes necessary, by worker role; they and `checkpoint`
    are the only things in which two arms of a sweep can differ, and plan and every table list them.
    `checkpoint` is what the arm serves in place of the sweep's model, such as one that holds DSpark layers.
    """

    name: str
    speculation: Speculation | None = None
    forces: Mapping[str, Flags] = field(default_factory=dict)
    forces_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    checkpoint: str | None = None

    @property
    def label(self) -> str:
        """Returns the arm's name and speculation, where the name does not say it: `mtp3: MTP k=3`, `off`."""
        speculation = self.speculation_label
        return self.name if speculation == self.name else f"{self.name}: {speculation}"

    @property
    def speculation_label(self) -> str:
        """Returns what its speculation is called: `off`, `DSpark k=6`."""
        spec = self.speculation
        if spec is None:
            return METHOD_NAMES[OFF]
        rule = spec.depth.kind if spec.depth else None
        return speculation_label(spec.method, spec.draft_tokens, rule) or spec.method


def pinned_text(policy: AcceptancePolicy) -> str | None:
    """Returns what pins acceptance, in the text that the hash of a point holds since schema version 1."""
    table = policy.table
    golden = "golden" if table is None else f"golden {table.model} {table.method} {table.mode}"
    match policy.pinned_by:
        case "sweep":
            return "the sweep file"
        case "golden":
            return golden
        case "engine":
            return f"drawn by the embedded engine from {golden}"
    return None
