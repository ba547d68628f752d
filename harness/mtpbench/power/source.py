"""What every source of power says of itself, and what it reads: one interface, so that none are mixed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from mtpbench.records import PowerSource, Reason

UnreadCode = Literal[
    "no_nvml",
    "no_gpu",
    "no_meter",
    "mig",
    "shared_module",
    "mixed_scopes",
    "no_dcgm",
    "not_needed",
    "no_grace",
    "grace_rails",
    "grace_in_module",
    "no_power_source",
    "no_reading",
    "no_answer",
    "node_missing",
    "gpu_swapped",
    "mixed_sources",
    "sampler_failed",
]
"""Why power can't be read; docs/validity.md explains each."""


class Unread(Exception):
    """Power can't be read, with the code and a sentence that go into the result."""

    def __init__(self, code: UnreadCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.reason = unread(code, detail)


def unread(code: UnreadCode, detail: str) -> Reason:
    """Why power can't be read."""
    return Reason(code=code, detail=detail)


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What a source is, or why there is none.

    Args:
        kind: which source was looked for.
        source: what it is and what its figures cover; None where it can't be read.
        meters: what it reads, by its own index: the UUID of a GPU, the rail of a Grace.
        models: by the same index, the GPU's name; empty where the source has none.
        driver: the version of the GPUs' driver, where the source tells it.
        reason: why it can't be read; None where it can.
    """

    kind: Literal["nvml", "dcgm", "grace"]
    source: PowerSource | None = None
    meters: tuple[tuple[int, str], ...] = ()
    models: tuple[str, ...] = ()
    driver: str | None = None
    reason: Reason | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MeterReading:
    """One meter at one moment; a failed read is a reading with neither figure.

    Args:
        meter: the source's index of it.
        power_w: watts, NULL where it was not read.
        energy_j: a counter that only rises, NULL where there is none.
        unix_s: the source's own time of the reading where it has one, else NULL (it was read just now).
        at_s: when this meter was read, on the node's monotonic clock; NULL for the time of its tick.
        took_s: how long that took; nobody knows when within it the meter was read.
    """

    meter: int
    power_w: float | None
    energy_j: float | None
    unix_s: float | None = None
    at_s: float | None = None
    took_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class MeterState:
    """What changes slowly and explains a figure; NULL where the source does not say.

    Args:
        meter: the source's index of it.
        uuid: which GPU it is now.
        temperature_c: of the GPU.
        limit_w: the power cap that is enforced.
        clock_reasons: NVML's bit mask of why clocks are lowered.
        other_scope_w: watts at the scope that is not used, to tell the scopes apart.
    """

    meter: int
    uuid: str | None = None
    temperature_c: int | None = None
    limit_w: float | None = None
    clock_reasons: int | None = None
    other_scope_w: float | None = None


class Source(Protocol):
    """Where power is read: probed once, then read at every tick."""

    def probe(self) -> Probe:
        """What there is, or the reason why not; never raises for what is merely absent."""

    def read(self) -> list[MeterReading]:
        """Every meter now; empty where the source has said nothing new since the last read."""

    def states(self) -> list[MeterState]:
        """The slow facts of every meter now."""

    def close(self) -> None:
        """Let go of it."""
