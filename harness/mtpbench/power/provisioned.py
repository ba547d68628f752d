"""Pure: `system_power.json`, the provisioned power of one system in the form that MLPerf Endpoints asks for.

Provisioned power is the power that a system is built to draw, the same at every point of a curve; it is no
measurement and never replaces one. It has one of three kinds: a declared total, a rack's published power by
nodes, or component groups and an overhead fraction for everything else. Every figure needs a public source.
Users write it as YAML with the form's own keys.

Source: MLCommons, Endpoints submission documentation, reference of `system_power.json`, and §4.5.2 of the
rules (v1.0 in development, September 2026): the keys, the order of precedence, total = major components ×
(1 + overhead fraction), 0.30 where cooled with liquid, 0.50 with air; scale-out networks are inside the
overhead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from mtpbench.errors import InputError, SweepError
from mtpbench.records import Json
from mtpbench.yaml_files import LinedYaml, OneLine, Strict

MOST_W, MOST_PARTS, MOST_OVERHEAD = 1e9, 1_000_000, 10.0
"""A gigawatt is more than a site has, a million more than any system's parts; beyond lies a slip of units."""
OVERHEAD_BY_COOLING: Mapping[str, float] = {"liquid": 0.30, "air": 0.50}


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """A publication is the link of a figure, and the date on which it was read there (`2026-09-24`)."""

    link: str
    date: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredPower:
    """A declared power is the total that the vendor or the facility rates the system at, in watts."""

    power_w: float
    source: Publication


@dataclass(frozen=True, kw_only=True, slots=True)
class RackPower:
    """A rack power is the published power (W) of a full rack, of which some whole nodes are used."""

    rack_power_w: float
    rack_nodes: int
    nodes: int
    source: Publication


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentPower:
    """A component power is a number of equal components, each rated in watts."""

    count: int
    tdp_w: float
    source: Publication


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupedPower:
    """A grouped power is a sum of component groups, with a fraction for all else that the system draws.

    Args:
        accelerator, cpu: both, or `compute` in their place where they are published as one figure.
        scale_up_network: switches between the accelerators; a count of 0 where there are none.
        cooling: `liquid` or `air`, which sets the fraction.
        overhead_fraction: another fraction, agreed with MLCommons.
    """

    scale_up_network: ComponentPower
    cooling: str
    accelerator: ComponentPower | None = None
    cpu: ComponentPower | None = None
    compute: ComponentPower | None = None
    overhead_fraction: float | None = None


ProvisionedPower = DeclaredPower | RackPower | GroupedPower

_UNITS: Mapping[str, tuple[str, str]] = {
    "cpu": ("num_cpu", "tdp_per_cpu"),
    "accelerator": ("num_accelerator", "tdp_per_accelerator"),
    "compute": ("num_compute", "tdp_per_compute"),
    "scale_up_network": ("num_switches", "tdp_per_switch"),
}


def total_w(power: ProvisionedPower) -> float:
    """Returns the provisioned power of the system in watts.

    Raises:
        InputError: a figure is missing, not above 0, or without a source; says which and what would be right.
    """
    match power:
        case DeclaredPower():
            _check("provisioned_power_w", power.power_w, power.source)
            return power.power_w
        case RackPower():
            _check("rack_power_w", power.rack_power_w, power.source)
            if not 0 < power.nodes <= power.rack_nodes <= MOST_PARTS:
                raise InputError(
                    f"submitted_nodes {power.nodes}: from 1 to the rack's {power.rack_nodes} are possible, "
                    f"and racks of {MOST_PARTS} nodes at most"
                )
            return power.rack_power_w * power.nodes / power.rack_nodes
        case GroupedPower():
            groups = _groups(power)
            return sum(group.count * group.tdp_w for group in groups.values()) * (1 + _overhead(power))


def describe(power: ProvisionedPower) -> dict[str, Json]:
    """Returns the content of `system_power.json`; `source_date` is ours, all other keys are the form's.

    Raises:
        InputError: as for `total_w`.
    """
    total_w(power)
    match power:
        case DeclaredPower():
            return {"provisioned_power_w": power.power_w, **_sourced(power.source)}
        case RackPower():
            return {
                "rack_power_w": power.rack_power_w,
                "rack_nodes": power.rack_nodes,
                "submitted_nodes": power.nodes,
                **_sourced(power.source),
            }
        case GroupedPower():
            form: dict[str, Json] = {}
            for name, group in _groups(power).items():
                count, tdp = _UNITS[name]
                form[name] = {count: group.count, tdp: group.tdp_w, **_sourced(group.source)}
            return {**form, "overhead_fraction": _overhead(power), "cooling": power.cooling}


def render(power: ProvisionedPower) -> str:
    """Returns the text of `system_power.json`.

    Raises:
        InputError: as for `total_w`.
    """
    return json.dumps(describe(power), indent=2) + "\n"


def _groups(power: GroupedPower) -> dict[str, ComponentPower]:
    if power.compute is not None and (power.cpu or power.accelerator):
        raise InputError("compute stands for cpu and accelerator together: give it alone, or the two")
    chosen = {
        "cpu": power.cpu,
        "accelerator": power.accelerator,
        "compute": power.compute,
        "scale_up_network": power.scale_up_network,
    }
    needed = ("compute",) if power.compute is not None else ("cpu", "accelerator")
    if missing := [name for name in needed if chosen[name] is None]:
        raise InputError(f"{', '.join(missing)}: a count and a TDP are needed; missing is not 0 W")
    groups = {name: group for name, group in chosen.items() if group is not None}
    for name, group in groups.items():
        none_needed = name == "scale_up_network" and group.count == 0
        if group.count < 0 or (group.count == 0 and not none_needed):
            raise InputError(f"{name}: a count of {group.count}; at least 1 is needed")
        if group.count > MOST_PARTS:
            raise InputError(f"{name}: a count of {group.count}; {MOST_PARTS} is the most")
        if not none_needed:
            _check(f"{name}.{_UNITS[name][1]}", group.tdp_w, group.source)
    return groups


def _overhead(power: GroupedPower) -> float:
    if power.overhead_fraction is not None:
        if not 0 <= power.overhead_fraction <= MOST_OVERHEAD:
            raise InputError(
                f"overhead_fraction {power.overhead_fraction}: 0 to {MOST_OVERHEAD:g} is needed (0.3 is 30%)"
            )
        return power.overhead_fraction
    if power.cooling not in OVERHEAD_BY_COOLING:
        raise InputError(
            f"cooling {power.cooling!r}: liquid or air is known, or give an overhead_fraction; left out it "
            "would make the system look 30 to 50% better than it is"
        )
    return OVERHEAD_BY_COOLING[power.cooling]


def _check(name: str, watts: float, source: Publication) -> None:
    if not 0 < watts <= MOST_W:
        raise InputError(f"{name} {watts}: watts above 0 are needed, and no more than {MOST_W:g}")
    if not source.link or not source.date:
        raise InputError(f"{name}: a public source and its date are needed")


def _sourced(source: Publication) -> dict[str, Json]:
    return {"link": source.link, "source_date": source.date}


# ---------------------------------------------------------------------------------- as it is written down

_MOST = 1_000_000_000
"""More than any count or power in watts: their products stay finite."""
Watts = Annotated[float, Field(gt=0, le=_MOST, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=_MOST)]
Date = Annotated[str, BeforeValidator(str), Field(pattern=r"^[0-9]{4}-[0-9]{2}(-[0-9]{2})?$")]

KINDS = (
    "one of three kinds is needed: provisioned_power_w; rack_power_w with rack_nodes and submitted_nodes; or "
    "cpu and accelerator (or compute), scale_up_network and cooling"
)


class _Sourced(Strict):
    """A sourced figure has a publication."""

    link: OneLine = Field(min_length=1)
    source_date: Date

    @property
    def source(self) -> Publication:
        """Returns the publication."""
        return Publication(link=self.link, date=self.source_date)


class _Cpu(_Sourced):
    num_cpu: Count
    tdp_per_cpu: Watts

    def group(self) -> ComponentPower:
        return ComponentPower(count=self.num_cpu, tdp_w=self.tdp_per_cpu, source=self.source)


class _Accelerator(_Sourced):
    num_accelerator: Count
    tdp_per_accelerator: Watts

    def group(self) -> ComponentPower:
        return ComponentPower(count=self.num_accelerator, tdp_w=self.tdp_per_accelerator, source=self.source)


class _Compute(_Sourced):
    num_compute: Count
    tdp_per_compute: Watts

    def group(self) -> ComponentPower:
        return ComponentPower(count=self.num_compute, tdp_w=self.tdp_per_compute, source=self.source)


class _Switches(_Sourced):
    num_switches: Count
    tdp_per_switch: float = Field(ge=0, le=_MOST, allow_inf_nan=False)

    def group(self) -> ComponentPower:
        return ComponentPower(count=self.num_switches, tdp_w=self.tdp_per_switch, source=self.source)


class SystemFile(Strict):
    """A system file describes one system, by exactly one of the three kinds."""

    link: OneLine | None = None
    source_date: Date | None = None
    provisioned_power_w: Watts | None = None
    rack_power_w: Watts | None = None
    rack_nodes: int | None = Field(None, ge=1, le=_MOST)
    submitted_nodes: int | None = Field(None, ge=1, le=_MOST)
    cpu: _Cpu | None = None
    accelerator: _Accelerator | None = None
    compute: _Compute | None = None
    scale_up_network: _Switches | None = None
    cooling: OneLine | None = None
    overhead_fraction: float | None = Field(None, le=1000)

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
        """Returns the record of the system's power."""
        if self.scale_up_network is not None:
            return GroupedPower(
                scale_up_network=self.scale_up_network.group(),
                cooling=self.cooling or "",
                accelerator=self.accelerator.group() if self.accelerator else None,
                cpu=self.cpu.group() if self.cpu else None,
                compute=self.compute.group() if self.compute else None,
                overhead_fraction=self.overhead_fraction,
            )
        source = Publication(link=self.link or "", date=self.source_date or "")
        if self.provisioned_power_w is not None:
            return DeclaredPower(power_w=self.provisioned_power_w, source=source)
        assert self.rack_power_w is not None, "a system without groups declares one of the two powers"
        nodes: dict[str, Any] = {"nodes": self.submitted_nodes, "rack_nodes": self.rack_nodes}
        return RackPower(rack_power_w=self.rack_power_w, source=source, **nodes)


def system_power(document: LinedYaml) -> ProvisionedPower:
    """Returns the system that a YAML document describes; its total can be computed.

    Raises:
        SweepError: a key is wrong; names the line, the key, and what would be right.
    """
    power = document.checked(SystemFile).power()
    try:
        total_w(power)
    except InputError as error:
        raise SweepError(str(error), path=document.path, line=document.line(())) from None
    return power
