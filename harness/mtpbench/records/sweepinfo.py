"""What the tables need to know of a sweep besides its points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mtpbench.records.codec import SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """A kind of rack and the constants that turn tokens into money and megawatts (a dated file, not code).

    Args:
        power_kw_per_gpu: provisioned all-in power per GPU; None where nobody published one.
        usd_per_gpu_h: price by owner tier, such as `hyperscaler`; empty where nobody published one.
        nodes_per_domain: nodes that share one NVLink domain.
        source: where the constants come from, or why there are none.
    """

    name: str
    gpu: str
    gpus_per_node: int
    nodes_per_domain: int
    power_kw_per_gpu: float | None
    usd_per_gpu_h: Mapping[str, float]
    constants_date: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceRow:
    """Published throughput of both sides at one interactivity, to print beside one's own."""

    interactivity_tps: float
    tput_tps_per_gpu: Mapping[str, float]
    """By arm name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Published numbers that a sweep re-measures, with where they came from."""

    source: str
    rows: tuple[ReferenceRow, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepInfo:
    """What the tables need to know of a sweep besides its points; stored beside them."""

    schema_version: int = SCHEMA_VERSION
    name: str
    question: str
    arms: tuple[str, ...]
    baseline: str
    hardware: Hardware
    targets_tps: tuple[float, ...] = ()
    """Target interactivities of the tables; empty for the default targets."""
    reference: Reference | None = None
    confounds: tuple[str, ...] = ()
    """What differs between the arms beyond speculation, one sentence each."""
    planned: tuple[str, ...] = ()
    """Ids of all points of the sweep, measured or not."""
