"""Pure: what power sources give (probes, readings, states), and the log that a node's sampler writes of it.

    {"format": 2, "interval_s": …, "probes": [SourceProbe…]}      first: every source that was probed
    {"t": …, "w": …, "gpu": [[meter, W, J, unix_s, t]…]}    a tick of the GPUs' source
    {"t": …, "w": …, "grace": [[socket, W, null, unix_s]…]} a tick of the Grace rails
    {"t": …, "w": …, "states": [MeterState…]}               about every second
    {"t": …, "w": …, "late": [meter…], "took_s": …}         readings that took too long to have a moment
    {"t": …, "w": …, "end": "why"}                          last, where the sampler could still write it

`t` is `time.monotonic()`, which on one machine every process shares, `w` the wall clock.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mtpbench.power import joules, watts
from mtpbench.records import (
    GRACE,
    UNUSED,
    Json,
    PowerSample,
    PowerSource,
    Reason,
    decode_json,
    from_json,
    known,
    to_json,
)

FORMAT = 2

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
    "gpu_order",
    "nothing_ran",
    "other",
]
"""Why power can't be read; docs/validity.md explains each."""

MOST_METERS = 1 << 16
TEMPERATURES_C = (0, 1000)
MOST_SECONDS = 1e11
"""Year 5138; a monotonic clock has less."""


class Unread(Exception):
    """Power can't be read; `reason` goes into the result."""

    def __init__(self, code: UnreadCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.reason = unread(code, detail)


def unread(code: UnreadCode, detail: str) -> Reason:
    """Returns the reason why power can't be read."""
    return Reason(code=code, detail=detail)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceProbe:
    """A probe says what a source of power is, or why there is none.

    Args:
        kind: the kind of source that was probed.
        source: the source and what its figures cover; None where it can't be read.
        meters: by the source's own index, the UUID of a GPU or the rail of a Grace.
        models: by the same index, the GPU's name; empty where the source has none.
        driver: the version of the GPUs' driver, where the source has it.
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
    """A meter reading holds the figures of one meter at one moment; a failed read has neither figure.

    Args:
        meter: the source's index of the meter.
        power_w: watts, NULL where power was not read.
        energy_j: a counter that only rises, NULL where there is none.
        unix_s: the source's own time of the reading where it has one, else NULL (it was read just now).
        at_s: when this meter was read, on the node's monotonic clock; NULL for the time of its tick.
        took_s: how long the read took; when within it the meter was read is unknown.
    """

    meter: int
    power_w: float | None
    energy_j: float | None
    unix_s: float | None = None
    at_s: float | None = None
    took_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class MeterState:
    """A meter state holds what changes slowly and explains a figure; NULL where the source lacks it.

    Args:
        meter: the source's index of the meter.
        uuid: the GPU that it is now.
        temperature_c: the GPU's temperature.
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
    """A source of power is probed once, then read at every tick."""

    def probe(self) -> SourceProbe:
        """Returns what there is, or why there is nothing; raises no error for what is only absent."""

    def read(self) -> list[MeterReading]:
        """Returns a reading of every meter; none where the source has no new reading since the last one."""

    def states(self) -> list[MeterState]:
        """Returns the state of every meter."""

    def close(self) -> None:
        """Frees the source."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """A tick holds the readings of one moment: `monotonic_s` on the node's own clock, `wall_s` since 1970."""

    monotonic_s: float
    wall_s: float
    kind: str
    readings: tuple[MeterReading, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerLog:
    """A power log is what a node's sampler wrote.

    Args:
        probes: every source that was probed.
        ticks: in the order of time.
        states: (monotonic seconds, the state of every meter).
        ended: why the sampler ended, or None where it died before it could write that.
        late: (number of readings that took too long and were left out, seconds of the slowest).
        damaged: number of lines that can't be read and were left out.
    """

    probes: tuple[SourceProbe, ...]
    ticks: tuple[Tick, ...]
    states: tuple[tuple[float, tuple[MeterState, ...]], ...]
    ended: str | None
    late: tuple[int, float] = (0, 0.0)
    damaged: int = 0

    @property
    def gpu_probe(self) -> SourceProbe | None:
        """Returns the probe of the source that the GPUs were read from."""
        return next((p for p in self.probes if p.reason is None and p.kind != "grace"), None)

    @property
    def grace_probe(self) -> SourceProbe | None:
        """Returns the probe of the Grace rails, where there are any."""
        return next((p for p in self.probes if p.reason is None and p.kind == "grace"), None)


def head_line(probes: Sequence[SourceProbe], interval_s: float) -> str:
    """Returns the first line of a log."""
    return _line({"format": FORMAT, "interval_s": interval_s, "probes": to_json(tuple(probes))})


def tick_line(monotonic_s: float, wall_s: float, kind: str, readings: Iterable[MeterReading]) -> str:
    """Returns the line of a tick; `kind` is `gpu` or `grace`."""
    rows = [[r.meter, r.power_w, r.energy_j, r.unix_s, r.at_s] for r in readings]
    return _line({"t": monotonic_s, "w": wall_s, kind: rows})


def late_line(monotonic_s: float, wall_s: float, meters: Iterable[int], took_s: float) -> str:
    """Returns the line of readings that took too long, with the seconds of the slowest."""
    return _line({"t": monotonic_s, "w": wall_s, "late": list(meters), "took_s": took_s})


def states_line(monotonic_s: float, wall_s: float, states: Iterable[MeterState]) -> str:
    """Returns the line of all meters' states."""
    return _line({"t": monotonic_s, "w": wall_s, "states": [dataclasses.asdict(s) for s in states]})


def end_line(monotonic_s: float, wall_s: float, why: str) -> str:
    """Returns the last line of a log."""
    return _line({"t": monotonic_s, "w": wall_s, "end": why})


def parse(text: str) -> PowerLog:
    """Parses a log; a line that is torn or damaged is left out, and costs only itself.

    Raises:
        ValueError: the text is no sampler's log, which its first line shows.
    """
    probes: tuple[SourceProbe, ...] | None = None
    ticks: list[Tick] = []
    states: list[tuple[float, tuple[MeterState, ...]]] = []
    ended: str | None = None
    late, worst_s, damaged = 0, 0.0, 0
    # What follows the last line break was being written when the sampler died.
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            data = decode_json(line)
            if probes is None:
                probes = _probes(data)
            elif "states" in data:
                states.append((_moment(data["t"]), tuple(map(_state, data["states"]))))
            elif "late" in data:
                late, worst_s = late + len(data["late"]), max(worst_s, _moment(data["took_s"]))
            elif "end" in data:
                ended = str(data["end"])
            else:
                ticks.append(_tick(data))
        except (ValueError, KeyError, TypeError) as error:
            if probes is None:
                raise ValueError(f"line {number} of the power log: {error!r}") from error
            damaged += 1  # a full disk tears lines in the middle, too
    if probes is None:
        raise ValueError("the power log is empty")
    return PowerLog(
        probes=probes,
        ticks=tuple(ticks),
        states=tuple(states),
        ended=ended,
        late=(late, worst_s),
        damaged=damaged,
    )


def samples(log: PowerLog, origin_s: float, owners: Mapping[int, str], node: int = 0) -> list[PowerSample]:
    """Returns every reading as the record that energy is computed from.

    Args:
        log: the log of one node.
        origin_s: second 0, on this node's monotonic clock.
        owners: by meter, the process that holds its GPU; a GPU that none holds is `unused@<node>`.
        node: the node's number, which keeps the rails and unused GPUs of two nodes apart.
    """
    power_samples = []
    for tick in log.ticks:
        for reading in tick.readings:
            unowned = f"{GRACE}@{node}" if tick.kind == GRACE else f"{UNUSED}@{node}"
            owner = None if tick.kind == GRACE else owners.get(reading.meter)
            power_samples.append(
                PowerSample(
                    time_s=moment_of(tick, reading) - origin_s,
                    process=owner or unowned,
                    gpu=reading.meter,
                    power_w=reading.power_w,
                    energy_j=reading.energy_j,
                )
            )
    return power_samples


def moment_of(tick: Tick, reading: MeterReading) -> float:
    """Returns when a meter was read, on its node's monotonic clock."""
    if reading.unix_s is not None:
        return tick.monotonic_s - (tick.wall_s - reading.unix_s)
    return tick.monotonic_s if reading.at_s is None else reading.at_s


def identity_fault(log: PowerLog, held: Collection[int] | None = None) -> Reason | None:
    """Returns `gpu_swapped` where a meter was another GPU later than it was first, else None.

    Args:
        log: the log of one node.
        held: the meters to check; None for all.
    """
    first = dict(probe.meters) if (probe := log.gpu_probe) else {}
    for _, states in log.states:
        for state in states:
            first_uuid = first.get(state.meter)
            if held is not None and state.meter not in held:
                continue
            if state.uuid is not None and first_uuid is not None and state.uuid != first_uuid:
                return unread("gpu_swapped", f"GPU {state.meter} was {first_uuid} and became {state.uuid}")
    return None


def _probes(data: Mapping[str, Any]) -> tuple[SourceProbe, ...]:
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']} where {FORMAT} is known")
    return tuple(from_json(SourceProbe, probe) for probe in data["probes"])


def _tick(data: Mapping[str, Any]) -> Tick:
    kind = "grace" if "grace" in data else "gpu"
    return Tick(
        monotonic_s=_moment(data["t"]),
        wall_s=_moment(data["w"]),
        kind=kind,
        readings=tuple(map(_reading, data[kind])),
    )


def _reading(row: Json) -> MeterReading:
    meter, power_w, energy_j, unix_s, at_s = row
    return MeterReading(
        meter=_meter(meter),
        power_w=watts(power_w),
        energy_j=joules(energy_j),
        unix_s=None if unix_s is None else _moment(unix_s),
        at_s=None if at_s is None else _moment(at_s),
    )


def _state(data: Json) -> MeterState:
    state = MeterState(**data)
    if not isinstance(state.uuid, str | None):
        raise ValueError(f"no UUID is {state.uuid!r}")
    heat, bits = known(state.temperature_c, *TEMPERATURES_C), state.clock_reasons
    return dataclasses.replace(
        state,
        meter=_meter(state.meter),
        temperature_c=None if heat is None else int(heat),
        limit_w=watts(state.limit_w),
        clock_reasons=bits if type(bits) is int and 0 <= bits < 1 << 64 else None,
        other_scope_w=watts(state.other_scope_w),
    )


def _meter(value: Json) -> int:
    if type(value) is not int or not 0 <= value < MOST_METERS:
        raise ValueError(f"no meter has the number {value!r}")
    return value


def _moment(value: Json) -> float:
    """Returns a time in seconds; a line without one is damaged."""
    moment_s = known(value, 0.0, MOST_SECONDS)
    if moment_s is None:
        raise ValueError(f"no time is {value!r}")
    return moment_s


def _line(data: Mapping[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":")) + "\n"
