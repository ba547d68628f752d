"""The facts of a point: the fields of another tool's object, and the run that a load generator made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtpbench.records import AcceptanceCaveat
from mtpbench_analysis.frame import CurvePoint, Unused, field_types

_MOST_SHOWN = 40

LARGEST_COUNT = 10**15
"""No count of tokens, requests or GPUs is larger; an ID that slipped into a field may be."""

RATES = ("interactivity_tps", "tput_tps_per_gpu")
SLOWEST_TPS, FASTEST_TPS = 1e-6, 1e9
"""Rates beyond these are a damaged figure or another unit, and would overflow what is computed with them."""


class UnusableError(Exception):
    """The reason why a row can't become a point."""


class Fields:
    """The fields of one object of a file; `notes` says which of them were left empty, and why.

    Args:
        values: the object.
        what: the file and the row, for the notes.
    """

    def __init__(self, values: Mapping[str, Any], what: str) -> None:
        self.values = values
        self.what = what
        self.notes: list[Unused] = []

    def positive(self, name: str) -> float:
        """Returns a number above 0 that the row can't do without.

        Raises:
            UnusableError: it is missing, something else, not finite, or not above 0.
        """
        value = self.values.get(name)
        if value is None:
            raise UnusableError(f"{name} is {'null' if name in self.values else 'missing'}")
        number = as_number(value)
        if number is None:
            raise UnusableError(f"{name} is {show(value)}: a number above 0 is needed")
        if not number > 0:
            raise UnusableError(f"{name} is {show(value)}: it must be above 0")
        return number

    def count(self, name: str) -> int:
        """Returns a whole number of 1 or more that the row can't do without.

        Raises:
            UnusableError: it is missing or something else.
        """
        number = self.positive(name)
        if not number.is_integer() or number > LARGEST_COUNT:
            raise UnusableError(f"{name} is {show(self.values[name])}: a whole number of things is needed")
        return int(number)

    def known(self, name: str, *, zero: bool = False) -> float | None:
        """Returns a number above 0 (or 0 where that can be) that may be missing; anything else is noted, and
        None.
        """
        value = self.values.get(name)
        if value is None:
            return None
        number = as_number(value)
        if number is None or number < 0 or (number == 0 and not zero):
            self.note(name, f"{show(value)} is not a number {'of 0 or more' if zero else 'above 0'}")
            return None
        return number

    def whole(self, name: str, *, zero: bool = False) -> int | None:
        """Returns a whole number above 0 (or 0 where that can be) that may be missing; anything else is
        noted.
        """
        number = self.known(name, zero=zero)
        if number is None:
            return None
        if not number.is_integer() or number > LARGEST_COUNT:
            self.note(name, f"{show(self.values[name])} is not a whole number of things")
            return None
        return int(number)

    def text(self, name: str) -> str | None:
        """Returns a text that may be missing or empty; anything else is noted, and None."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str) or not value.strip():
            self.note(name, f"{show(value)} is not a text")
            return None
        # JSON can hold what no file can (a lone surrogate) and what no table should (NUL, terminal commands).
        return "".join(c if c.isprintable() else "?" for c in " ".join(value.split()))

    def flag(self, name: str) -> bool | None:
        """Returns true or false, or their names as text; None where missing.

        Raises:
            UnusableError: it is something else.
        """
        value = self.values.get(name)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        raise UnusableError(f"{name} is {show(value)}: true or false is needed")

    def section(self, name: str) -> Fields:
        """Returns the object in a field; an empty one where there is none."""
        value = self.values.get(name)
        return Fields(value if isinstance(value, dict) else {}, self.what)

    def note(self, name: str, reason: str) -> None:
        """Lists a field that was left empty."""
        what = f"{self.what}: {name}"
        self.notes.append(Unused(what=what, reason=f"{reason}; left empty", kind="note"))


def check_finite(point: CurvePoint) -> CurvePoint:
    """Returns the point, if its figures are numbers that can be served: those near the ends of the number
    range make others.

    Raises:
        UnusableError: one is not.
    """
    for name in RATES:
        value = getattr(point, name)
        if not SLOWEST_TPS <= value <= FASTEST_TPS:
            raise UnusableError(f"its figures make {name} {show(value)}, which nothing serves")
    for name, kind in field_types().items():
        value = getattr(point, name)
        if kind is float and value is not None and not abs(value) <= LARGEST_COUNT:
            raise UnusableError(f"its figures make {name} {show(value)}")
    return point


def as_number(value: object) -> float | None:
    """Returns a finite number, else None; true and a text are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_count(number: float | None) -> int | None:
    """Returns a number that counts things (1 or more, whole), else None."""
    return int(number) if number and 1 <= number <= LARGEST_COUNT and number.is_integer() else None


def show(value: object) -> str:
    """Returns a value as a message can show it: short, and NaN by its name."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else f"{value:g}".replace("inf", "Infinity")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**_MOST_SHOWN:
        return "a number too large to use"
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"


_UNEVEN = 10
"""How many times the mean the longest answer may be where lengths are unknown: vLLM takes conversations of
ShareGPT up to 2,048 tokens, whose answers have some 200."""

RATE_TOLERANCE = 0.01
"""How far a file's own rates can contradict its totals and its duration."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """A timing is a time with the name of its field in the file."""

    name: str
    seconds: float

    def __post_init__(self) -> None:
        # The smallest numbers become 0 in another unit.
        if not self.seconds > 0:
            raise UnusableError(f"{self.name} is {self.seconds:g} s: it must be above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """The times of a run are what its file says of one of them (TTFT, say) over all requests.

    Args:
        mean: None where the file does not say.
        percentiles: by percent; 0 is the least, 100 the most.
    """

    mean: Timing | None = None
    percentiles: Mapping[float, Timing] = field(default_factory=dict)

    @property
    def typical(self) -> Timing | None:
        """Returns the mean, else the median: what the units are checked with."""
        return self.mean or self.percentiles.get(50)

    @property
    def longest_s(self) -> float | None:
        """Returns a bound of the longest in seconds, from what is known of its tail."""
        if 100 in self.percentiles:
            return self.percentiles[100].seconds
        known = {percent: timing for percent, timing in self.percentiles.items() if percent > 50}
        if known:
            return 1.5 * known[max(known)].seconds
        return None

    def at_s(self, percent: float) -> float | None:
        """Returns a percentile in seconds; None where the file does not say."""
        timing = self.percentiles.get(percent)
        return timing.seconds if timing else None


@dataclass(frozen=True, kw_only=True, slots=True)
class StatedRate:
    """A stated rate is the file's own, tokens/s, beside the one that its totals and its duration make."""

    name: str
    stated_tps: float
    expected_tps: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnLengths:
    """Drawn lengths are those of requests, as shares of the nominal one, as the file says they were drawn.

    Args:
        mean: 1 for exact lengths.
        deviation: the standard deviation of one; 0 for exact lengths.
    """

    mean: float
    deviation: float

    @property
    def exact(self) -> bool:
        """Returns whether every request was to have the nominal length."""
        return self.mean == 1 and self.deviation == 0


def drawn_from(ratio: float) -> DrawnLengths:
    """Returns lengths drawn uniformly from `ratio` × L to L."""
    return DrawnLengths(mean=(1 + ratio) / 2, deviation=(1 - ratio) / math.sqrt(12))


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run is one result of a load generator, in seconds and tokens.

    Args:
        what: file and row.
        interactivity: the median TPOT over requests, for the point.
        tpot, ttft, e2el: over requests. gaps: over chunks, which hold one token or several.
        rates: the file's own, to be checked.
        requests_rps: the file's own rate of requests; None where it does not say.
        tolerance: for those; more than 1% where the file rounds.
        failed: requests that failed; None where the file does not say.
        concurrency: the most requests in flight; None in an open loop.
        in_flight: the mean that the file states.
        rate_rps: of an open loop. burstiness: of its gamma arrivals; 1 is Poisson's.
        queued_s: how long requests waited for a slot of the client, on average.
        drafted: whether the file counts drafts; None where it would not say.
        method: how they are made, where the file says it. adaptive: whether the engine chooses the depth.
        checkpoint: what was loaded as the target model. draft_model: what drafts, where it is one of its own.
        draft_tokens_per_step: drafted tokens / verification steps, as counted.
        isl, osl: as the file names them. drawn: how lengths were drawn, where it says so.
        worker, worker_gpus: one worker's layout and GPUs, where the file says them.
        problems: what else makes the point invalid.
        notes: what the file does not say, or says wrongly.
    """

    what: str
    duration_s: float
    input_tokens: float
    output_tokens: float
    completed: int
    failed: int | None
    interactivity: Timing
    tpot: Times
    ttft: Times = Times()
    e2el: Times = Times()
    gaps: Times = Times()
    rates: Sequence[StatedRate] = ()
    requests_rps: float | None = None
    tolerance: float = RATE_TOLERANCE
    concurrency: int | None = None
    in_flight: float | None = None
    rate_rps: float | None = None
    burstiness: float = 1.0
    queued_s: float | None = None
    drafted: bool | None = None
    method: str | None = None
    adaptive: bool | None = None
    checkpoint: str | None = None
    draft_model: str | None = None
    draft_tokens: int | None = None
    draft_tokens_per_step: float | None = None
    acceptance_length: float | None = None
    acceptance_per_position: tuple[float, ...] | None = None
    acceptance_caveats: tuple[AcceptanceCaveat, ...] = ()
    model: str | None = None
    version: str | None = None
    isl: int | None = None
    osl: int | None = None
    drawn: DrawnLengths | None = None
    workload: str | None = None
    worker: str | None = None
    worker_gpus: int | None = None
    date: str | None = None
    problems: Sequence[str] = ()
    notes: Sequence[Unused] = ()

    @property
    def sent(self) -> int:
        """Returns how many requests were sent, as far as the file says."""
        return self.completed + (self.failed or 0)

    @property
    def typical_tpot(self) -> Timing:
        """Returns the mean TPOT, else the median."""
        return self.tpot.typical or self.interactivity

    @property
    def built_s(self) -> float:
        """Returns the latency that TTFT and TPOT make of a request of mean length."""
        tokens = max(self.output_tokens / self.completed - 1, 0)
        return self.typical_tpot.seconds * tokens + (self.ttft.typical.seconds if self.ttft.typical else 0)

    @property
    def latency_s(self) -> float:
        """Returns the latency of a request: the stated mean or median, else what TTFT and TPOT make."""
        return self.e2el.typical.seconds if self.e2el.typical else self.built_s

    @property
    def longest_s(self) -> float:
        """Returns a bound of the longest latency: as stated, else of the longest answer at the slowest."""
        if (stated_s := self.e2el.longest_s) is not None:
            return stated_s
        longest = self.osl or _UNEVEN * self.output_tokens / self.completed
        tpot_s = self.tpot.longest_s or 2 * self.typical_tpot.seconds
        ttft_s = self.ttft.longest_s or (2 * self.ttft.typical.seconds if self.ttft.typical else 0)
        return max(2 * self.latency_s, ttft_s + tpot_s * longest)
