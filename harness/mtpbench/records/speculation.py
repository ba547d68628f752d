"""An arm is one side of a comparison: speculation off or on, how drafts are accepted, what that forces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mtpbench.records.codec import Flags


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenTable:
    """A golden table is one of published mean acceptance lengths (in `data/golden_acceptance.yaml`)."""

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
class Speculation:
    """Speculation is the speculative decoding that an arm declares."""

    method: Literal["mtp"] = "mtp"
    draft_tokens: int
    acceptance: AcceptancePolicy


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """An arm is one side of a comparison: the base with speculation off, or on with what that forces.

    `forces` are the engine options that speculation makes necessary, by worker role; they are the only
    options in which two arms of a sweep can differ, and plan and every table list them.
    """

    name: str
    speculation: Speculation | None = None
    forces: Mapping[str, Flags] = field(default_factory=dict)
    forces_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


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
