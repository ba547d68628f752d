"""The schema of arms in sweep files: what a side adds to the base, and how its drafts are accepted.

What the schema of the whole file shares with it stands here too: names, engine options, environments.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mtpbench import golden
from mtpbench.input_files import check_line
from mtpbench.yaml_files import OneLine, Strict, Variable, text_of

check_name = text_of(r"[a-z0-9][a-z0-9.+-]*", ": use lower-case letters, digits, '.', '+' and '-'")
"""Of what may become a folder's name."""
_check_option = text_of(
    r"[A-Za-z0-9_][^\s=]*", " is no name of an option; write it without dashes, blanks and `=`"
)


def _check_value(value: Any) -> Any:
    """Checks the texts in an option's value, which reach a command line."""
    if isinstance(value, str):
        check_line(value)
    elif isinstance(value, dict):
        for name, item in value.items():
            check_line(name)
            _check_value(item)
    elif isinstance(value, list):
        for item in value:
            _check_value(item)
    return value


Options = dict[Annotated[str, AfterValidator(_check_option)], Annotated[Any, AfterValidator(_check_value)]]
FlagLayers = dict[str, Options]
EnvironmentLayers = dict[str, dict[Variable, OneLine]]
_GOLDEN = golden.default_table()


class GoldenSpec(Strict):
    """Acceptance is pinned to a published mean length (`golden: thinking_on`), or to a length or rates."""

    golden: OneLine | None = Field(None, description="mode in the golden table, such as thinking_on")
    model: OneLine = Field(_GOLDEN.model, description="model in the golden table")
    length: float | None = Field(None, ge=1, description="mean acceptance length, bonus token included")
    rates: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(
        None, description="unconditional acceptance rate by position, non-increasing, one per draft"
    )

    @model_validator(mode="after")
    def _one_way(self) -> GoldenSpec:
        if sum(value is not None for value in (self.golden, self.length, self.rates)) != 1:
            raise ValueError("give exactly one of `golden`, `length`, `rates`")
        return self


def _named_policy(value: Any) -> Any:
    if not isinstance(value, dict) and value not in ("measured", "golden"):
        raise ValueError(
            f"{value!r} is no acceptance policy; say measured, golden, {{golden: thinking_on}}, "
            "{length: 2.49} or {rates: [0.8, 0.5, 0.2]}"
        )
    return {"golden": _GOLDEN.mode} if value == "golden" else value


AcceptanceSpec = Annotated[
    Literal["measured"] | GoldenSpec,
    BeforeValidator(_named_policy, json_schema_input_type=Literal["measured", "golden"] | GoldenSpec),
]


class ArmSpec(Strict):
    """An arm adds to the base: nothing (off), or draft tokens, an acceptance policy and what they force."""

    draft_tokens: int | None = Field(
        None, ge=1, le=16, description="draft tokens per step; leave out for off"
    )
    acceptance: AcceptanceSpec | None = Field(None, description="measured (default), golden, or a policy")
    forces: FlagLayers = Field(
        default_factory=dict, description="engine flags that speculation makes necessary"
    )
    forces_env: EnvironmentLayers = Field(default_factory=dict, description="the same for the environment")

    @model_validator(mode="after")
    def _overlay_needs_drafts(self) -> ArmSpec:
        overlays = [name for name in ("acceptance", "forces", "forces_env") if getattr(self, name)]
        if self.draft_tokens is None and overlays:
            raise ValueError(
                f"`{overlays[0]}` without `draft_tokens`: an arm without speculation is the bare base "
                "(move settings that both arms share to `engine.flags`)"
            )
        return self
