"""The schema of arms in sweep files: what a side adds to the base, and how its drafts are accepted.

What the schema of the whole file shares with it stands here too: names, engine options, environments.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mtpbench.input_files import check_line
from mtpbench.records import DRAFT_CHECKPOINTS, MOST_DRAFTS, WITHOUT_MODEL, Method
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
JsonKeys = dict[OneLine, Annotated[Any, AfterValidator(_check_value)]]
EnvironmentLayers = dict[str, dict[Variable, OneLine]]
Batch = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Depth = Annotated[int, Field(ge=0, le=MOST_DRAFTS, strict=True)]


class GoldenSpec(Strict):
    """Acceptance is pinned to a published mean length (`golden: thinking_on`), or to a length or rates."""

    golden: OneLine | None = Field(None, description="mode in the golden table, such as thinking_on")
    model: OneLine | None = Field(
        None, description="model in the golden table; that of the arm's checkpoint if left out"
    )
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
    return value


AcceptanceSpec = Annotated[
    Literal["measured", "golden"] | GoldenSpec,
    BeforeValidator(_named_policy, json_schema_input_type=Literal["measured", "golden"] | GoldenSpec),
]


class DepthRuleSpec(Strict):
    """A rule of depth is a table by the requests of a step, or left to the engine."""

    by_batch: list[tuple[Batch, Batch, Depth]] | None = Field(
        None,
        min_length=1,
        description="[first, last, draft tokens] by the requests of a step, from 1 on, without gaps; the "
        "depth of the last range stays",
    )
    adaptive: dict[str, Any] | None = Field(
        None, description="the engine's own settings; {} for its defaults"
    )

    @model_validator(mode="after")
    def _one_rule(self) -> DepthRuleSpec:
        if (self.by_batch is None) == (self.adaptive is None):
            raise ValueError("give exactly one of `by_batch` and `adaptive`")
        expected = 1
        for first, last, _ in self.by_batch or ():
            if first != expected:
                what = "overlap" if first < expected else "leave a gap"
                raise ValueError(
                    f"the ranges {what} at batch {min(first, expected)}: [{first}, {last}, …] needs to begin "
                    f"at {expected}"
                )
            if last < first:
                raise ValueError(f"the range [{first}, {last}, …] ends before it begins")
            expected = last + 1
        if self.by_batch and not any(drafts for _, _, drafts in self.by_batch):
            raise ValueError("no range drafts a token: that is speculation off; leave the arm's options out")
        return self


def _named_rule(value: Any) -> Any:
    if isinstance(value, str) and value not in ("static", "adaptive"):
        raise ValueError(
            f"{value!r} is no rule of depth; say static, adaptive or {{by_batch: [[1, 16, 3], [17, 64, 2]]}}"
        )
    return {"adaptive": {}} if value == "adaptive" else value


DepthSpec = Annotated[
    Literal["static"] | DepthRuleSpec,
    BeforeValidator(_named_rule, json_schema_input_type=Literal["static", "adaptive"] | DepthRuleSpec),
]


class ArmSpec(Strict):
    """An arm adds to the base: nothing (off), or a method of speculation, settings and what they force."""

    method: Literal["off", Method] | None = Field(
        None, description="how drafts are made; mtp where only `draft_tokens` is given, off without them"
    )
    draft_tokens: int | None = Field(
        None, ge=1, le=MOST_DRAFTS, description="most draft tokens of a step; leave out for off"
    )
    block_size: int | None = Field(
        None, ge=1, le=MOST_DRAFTS, description="dspark only: another name of `draft_tokens`"
    )
    draft_model: OneLine | None = Field(None, description="hub id or folder of the checkpoint that drafts")
    checkpoint: OneLine | None = Field(
        None, description="hub id or folder that this arm serves in place of `model.path`"
    )
    draft_sampling: Literal["greedy", "probabilistic"] | None = Field(
        None, description="how a draft is chosen: the most probable token, or a sampled one"
    )
    rejection_method: Literal["standard", "block"] | None = Field(
        None, description="how drafts are verified: one by one, or jointly"
    )
    depth: DepthSpec | None = Field(None, description="drafts of each step: static (default), or a rule")
    acceptance: AcceptanceSpec | None = Field(None, description="measured (default), golden, or a policy")
    forces: FlagLayers = Field(
        default_factory=dict, description="engine flags that speculation makes necessary"
    )
    forces_env: EnvironmentLayers = Field(default_factory=dict, description="the same for the environment")

    @property
    def speculates(self) -> bool:
        """Returns whether the arm drafts tokens."""
        return self.drafting is not None

    @property
    def drafting(self) -> Method | None:
        """Returns how drafts are made: by MTP where only their number is given; None where none are."""
        if self.method == "off":
            return None
        return self.method or ("mtp" if self.most_drafts is not None else None)

    @property
    def most_drafts(self) -> int | None:
        """Returns the most tokens that a step drafts, whichever key says it; None where none does."""
        given = self.draft_tokens if self.block_size is None else self.block_size
        return self.deepest if given is None else given

    @property
    def deepest(self) -> int | None:
        """Returns the most tokens that the rule of depth drafts; None where there is no table."""
        table = self.depth.by_batch if isinstance(self.depth, DepthRuleSpec) else None
        return max(drafts for _, _, drafts in table) if table else None

    @model_validator(mode="after")
    def _settings_fit(self) -> ArmSpec:
        method, drafts = self.drafting, self.most_drafts
        if method is None:
            self._refuse_settings_of_speculation()
            return self
        if self.block_size is not None and method != "dspark":
            raise ValueError("`block_size` is DSpark's; other methods say `draft_tokens`")
        if drafts is None:
            raise ValueError(
                f"`method: {method}` needs `draft_tokens`: the bounds and the golden length of its "
                "acceptance follow from it"
            )
        if self.draft_tokens not in (None, drafts):
            raise ValueError(
                f"`block_size` {self.block_size} and `draft_tokens` {self.draft_tokens} are two names of one "
                "number; give one of them"
            )
        if (self.deepest or 0) > drafts:
            raise ValueError(f"`depth` drafts up to {self.deepest} tokens, and `draft_tokens` is {drafts}")
        self._refuse_misfits(method)
        return self

    def _refuse_misfits(self, method: Method) -> None:
        """Refuses settings that the method has no use for, and a method without what it needs."""
        if method in DRAFT_CHECKPOINTS and self.draft_model is None:
            raise ValueError(f"`method: {method}` needs `draft_model`, the checkpoint that drafts")
        if method == "mtp" and self.draft_model is not None:
            raise ValueError(
                "`method: mtp` drafts from the target's own checkpoint; leave `draft_model` out "
                "(`checkpoint` names another target)"
            )
        for name in ("draft_model", "draft_sampling"):
            if method in WITHOUT_MODEL and getattr(self, name) is not None:
                raise ValueError(f"`method: {method}` drafts without a model; leave `{name}` out")

    def _refuse_settings_of_speculation(self) -> None:
        names = ("draft_tokens", "block_size", "draft_model", "draft_sampling", "rejection_method", "depth")
        for name in (*names, "acceptance", "forces", "forces_env"):
            if getattr(self, name):
                lacking = "with `method: off`" if self.method == "off" else "without `draft_tokens`"
                raise ValueError(
                    f"`{name}` {lacking}: an arm without speculation is the bare base "
                    "(move settings that both arms share to `engine.flags`)"
                )
