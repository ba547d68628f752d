"""The schema of the engine in sweep files: what serves all arms, and what the embedded one plays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mtpbench.engines import EMBEDDED, ENGINES
from mtpbench.records import MAX_SPEED, AcceptanceShape
from mtpbench.sweep.arm_schema import EnvironmentLayers, FlagLayers
from mtpbench.yaml_files import OneLine, Strict

LAYERS = ("all", "tp", "tep", "dep", "prefill", "decode", "aggregated")
MOST_SECONDS = 1e8


class FaultSpec(Strict):
    """A fault is played by the embedded engine, by time, request or probability."""

    kind: OneLine
    at_s: float | None = Field(None, ge=0, le=MOST_SECONDS)
    at_request: int | None = Field(None, ge=0, lt=2**63)
    probability: float | None = Field(None, ge=0, le=1)
    role: Literal["router", "prefill", "decode", "aggregated"] | None = None
    value: float | None = Field(None, ge=-MOST_SECONDS, le=MOST_SECONDS)


class EngineSpec(Strict):
    """The engine of the base; flags in layers: all, then tp | tep | dep (the worker's layout), then role."""

    name: str = Field(json_schema_extra=lambda schema: schema.update(enum=list(ENGINES)))
    router: OneLine | None = Field(None, description="what stands in front of disaggregated workers")
    router_version: OneLine | None = Field(None, description="release of the router, such as 1.6.1 of Dynamo")
    version: OneLine | None = Field(
        None,
        description="release of the engine, such as 0.33.0, that command lines are written for; by default "
        "that of the image's tag, else the one that the router's release pins, else the newest known",
    )
    image: OneLine | None = None
    command: Annotated[list[OneLine], Field(min_length=1)] | None = Field(
        None,
        description="start of a worker's command line, in place of the engine's usual one; may hold "
        "@{env:NAME}; not for the simulated engine",
    )
    flags: FlagLayers = Field(default_factory=dict, description="engine options without dashes, by layer")
    env: EnvironmentLayers = Field(default_factory=dict, description="environment, by layer")
    profile: OneLine | None = Field(None, description="simulated only: step costs (a shipped name or a file)")
    clock: Literal["real", "scaled"] = Field("real", description="simulated only")
    speed: float = Field(
        1.0, ge=1e-3, le=MAX_SPEED, description="simulated only: engine seconds per second when scaled"
    )
    faults: list[FaultSpec] = Field(default_factory=list, description="simulated only")
    acceptance_shape: AcceptanceShape | None = Field(
        None, description="simulated only: how accepted drafts scatter around their mean (by_position)"
    )
    acceptance_spread: float | None = Field(
        None,
        gt=0,
        lt=10,
        description="simulated only: relative deviation of requests' own acceptance lengths",
    )

    @field_validator("name", mode="before")
    @classmethod
    def _known_engine(cls, name: Any) -> Any:
        if name not in tuple(ENGINES):
            *others, last = map(repr, ENGINES)
            raise ValueError(f"input should be {', '.join(others)} or {last}, not {name!r}")
        return name

    @field_validator("flags", "env")
    @classmethod
    def _known_layers(cls, layers: Mapping[str, Any]) -> Mapping[str, Any]:
        if unknown := sorted(set(layers) - set(LAYERS)):
            raise ValueError(f"unknown layer {', '.join(unknown)}; valid: {', '.join(LAYERS)}")
        return layers

    @model_validator(mode="after")
    def _simulation_only(self) -> EngineSpec:
        own = ("profile", "clock", "speed", "faults", "acceptance_shape", "acceptance_spread")
        changed = [name for name in own if name in self.model_fields_set]
        if changed and self.name != EMBEDDED:
            raise ValueError(f"`{changed[0]}` is for the simulated engine, not for {self.name}")
        if self.command and self.name == EMBEDDED:
            raise ValueError("`command` is for real engines; the embedded one comes with the harness")
        if self.speed != 1 and self.clock != "scaled":
            raise ValueError("`speed` needs `clock: scaled`")
        return self
