"""A system's provisioned power as it is written down: YAML with the keys of MLPerf's `system_power.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mtpbench.errors import InputError, SweepError
from mtpbench.power.provisioned import (
    ComponentPower,
    DeclaredPower,
    GroupedPower,
    PowerSource,
    ProvisionedPower,
    RackPower,
    total_w,
)
from mtpbench.yaml_files import read_yaml

Watts = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Date = Annotated[str, BeforeValidator(str), Field(pattern=r"^\d{4}-\d{2}(-\d{2})?$")]

KINDS = (
    "one of three kinds is needed: provisioned_power_w; rack_power_w with rack_nodes and submitted_nodes; or "
    "cpu and accelerator (or compute), scale_up_network and cooling"
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Sourced(_Strict):
    """Something that was published."""

    link: str = Field(min_length=1)
    source_date: Date

    @property
    def source(self) -> PowerSource:
        """Where."""
        return PowerSource(link=self.link, date=self.source_date)


class _Cpu(_Sourced):
    num_cpu: int
    tdp_per_cpu: Watts

    def group(self) -> ComponentPower:
        return ComponentPower(count=self.num_cpu, tdp_w=self.tdp_per_cpu, source=self.source)


class _Accelerator(_Sourced):
    num_accelerator: int
    tdp_per_accelerator: Watts

    def group(self) -> ComponentPower:
        return ComponentPower(count=self.num_accelerator, tdp_w=self.tdp_per_accelerator, source=self.source)


class _Compute(_Sourced):
    num_compute: int
    tdp_per_compute: Watts

    def group(self) -> ComponentPower:
        return ComponentPower(count=self.num_compute, tdp_w=self.tdp_per_compute, source=self.source)


class _Switches(_Sourced):
    num_switches: int = Field(ge=0)
    tdp_per_switch: float = Field(ge=0, allow_inf_nan=False)

    def group(self) -> ComponentPower:
        return ComponentPower(count=self.num_switches, tdp_w=self.tdp_per_switch, source=self.source)


class SystemFile(_Strict):
    """One system, by exactly one of the three kinds."""

    link: str | None = None
    source_date: Date | None = None
    provisioned_power_w: Watts | None = None
    rack_power_w: Watts | None = None
    rack_nodes: int | None = Field(None, ge=1)
    submitted_nodes: int | None = Field(None, ge=1)
    cpu: _Cpu | None = None
    accelerator: _Accelerator | None = None
    compute: _Compute | None = None
    scale_up_network: _Switches | None = None
    cooling: str | None = None
    overhead_fraction: float | None = None

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        groups = (self.cpu, self.accelerator, self.compute, self.scale_up_network)
        grouped = any(group is not None for group in groups)
        kinds = [self.provisioned_power_w is not None, self.rack_power_w is not None, grouped]
        if sum(kinds) != 1:
            raise ValueError(KINDS)
        if not grouped and not (self.link and self.source_date):
            raise ValueError("link and source_date are needed: a figure without a public source is a claim")
        if self.rack_power_w is not None and None in (self.rack_nodes, self.submitted_nodes):
            raise ValueError("rack_nodes and submitted_nodes are needed beside rack_power_w")
        if grouped and self.scale_up_network is None:
            raise ValueError("scale_up_network is needed; num_switches: 0 where there is none")
        return self

    def power(self) -> ProvisionedPower:
        """The record."""
        if self.scale_up_network is not None:
            return GroupedPower(
                scale_up_network=self.scale_up_network.group(),
                cooling=self.cooling or "",
                accelerator=self.accelerator.group() if self.accelerator else None,
                cpu=self.cpu.group() if self.cpu else None,
                compute=self.compute.group() if self.compute else None,
                overhead_fraction=self.overhead_fraction,
            )
        source = PowerSource(link=self.link or "", date=self.source_date or "")
        if self.provisioned_power_w is not None:
            return DeclaredPower(power_w=self.provisioned_power_w, source=source)
        known: dict[str, Any] = {"nodes": self.submitted_nodes, "rack_nodes": self.rack_nodes}
        return RackPower(rack_power_w=self.rack_power_w or 0.0, source=source, **known)


def read_system(path: Path) -> ProvisionedPower:
    """The system that a file describes, with a total that can be computed.

    Raises:
        SweepError: the file is missing, is no YAML, or a key is wrong; names the line, the key, and what
            would be right.
    """
    power = read_yaml(path).checked(SystemFile).power()
    try:
        total_w(power)
    except InputError as error:
        raise SweepError(str(error), path=path) from None
    return power
