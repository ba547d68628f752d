"""The facts of a point: the fields of another tool's object, and what the command line declares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtpbench.errors import InputError
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


SERVING = ("aggregated", "disaggregated")
ACCEPTANCE_MODES = ("off", "measured", "golden")


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """The declared facts are those of the command line; None is not declared.

    Args:
        gpus: all GPUs of the deployment; the sum of `prefill_gpus` and `decode_gpus` where they are given.
        serving: `aggregated` or `disaggregated`; the latter follows from two numbers of GPUs.
        acceptance_mode: `off`, `measured` or `golden`.
        isl, osl: the lengths that the requests were made to have, in tokens.
        concurrency: for files that do not say it (AIPerf's CSV).

    Raises:
        InputError: a number is not above 0, two contradict each other, or a word is unknown.
    """

    arm: str | None = None
    gpus: int | None = None
    prefill_gpus: int | None = None
    decode_gpus: int | None = None
    topology: str | None = None
    hardware: str | None = None
    precision: str | None = None
    model: str | None = None
    engine: str | None = None
    version: str | None = None
    serving: str | None = None
    image: str | None = None
    acceptance_mode: str | None = None
    isl: int | None = None
    osl: int | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        for name in ("gpus", "prefill_gpus", "decode_gpus", "isl", "osl", "concurrency"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value}: a whole number of 1 or more is needed")
        if self.arm is not None and not self.arm.strip():
            raise InputError("--arm is empty; an arm such as off or mtp is needed")
        _check_word("--serving", self.serving, SERVING)
        _check_word("--acceptance-mode", self.acceptance_mode, ACCEPTANCE_MODES)
        self._check_gpus()

    def _check_gpus(self) -> None:
        if (self.prefill_gpus is None) != (self.decode_gpus is None):
            raise InputError("--prefill-gpus and --decode-gpus belong together; give both, or --gpus alone")
        if self.prefill_gpus is None or self.decode_gpus is None:
            return
        total = self.prefill_gpus + self.decode_gpus
        if self.gpus is not None and self.gpus != total:
            raise InputError(
                f"--gpus {self.gpus} contradicts --prefill-gpus {self.prefill_gpus} and --decode-gpus "
                f"{self.decode_gpus}, which make {total}; idle GPUs belong to the role that holds them"
            )
        if self.serving == "aggregated":
            raise InputError("--serving aggregated contradicts --prefill-gpus and --decode-gpus")

    @property
    def total_gpus(self) -> int | None:
        """Returns all GPUs of the deployment; None where they were not declared."""
        if self.prefill_gpus is not None and self.decode_gpus is not None:
            return self.prefill_gpus + self.decode_gpus
        return self.gpus

    @property
    def serving_mode(self) -> str | None:
        """Returns `aggregated` or `disaggregated`; None where it was not declared."""
        return "disaggregated" if self.prefill_gpus is not None else self.serving


def _check_word(option: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise InputError(f"{option} {value}: one of {', '.join(allowed)} is needed")
