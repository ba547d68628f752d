"""A profile holds step costs from a data file: decode and prefill times, KV room, transfer delay and power.

A profile is JSON (`profiles/*.json`, or any file of that form). Its tables are kept as their source gave
them; `factors` say how the engine at hand differs from them and are what calibration fits:
step = table × decode_scale + decode_overhead_ms, prefill = table × prefill_scale.

A decode table is named by layout and drafts: `dep8_k0` without speculation, `dep8_k3` of MTP,
`dep8_dspark_k5` of another method. A step without drafts costs the same for every method. Where a profile
has no table of a method, its steps can be played at MTP's cost only, and whoever does so has to say it.

Rules for what the tables do not hold (none of them is a prediction):
- beyond a table's end (sequences, prompt tokens): the straight line of its last two knots;
- below its first knot: decode steps stay at the first knot's time, prefill follows the first two knots' line;
- attention-DP widths between two tables (DEP12): linear in the width; beyond the tables: the nearest one;
- tensor-parallel widths without a table (TP4, TEPn): the nearest width's table, unscaled;
- draft counts above the tables' K: each further draft costs what the last one did,
  t(k) = t(K) + (k - K)(t(K) - t(K - 1)); of a method with tables of its own, by its two deepest.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from mtpbench.errors import InputError
from mtpbench.input_files import check_line, compose_yaml, parse_json, plain_data, read_json
from mtpbench.metrics.request_table import Floats
from mtpbench.records import Method, Topology, WorkerGroup

Knots = tuple[tuple[float, float], ...]
DecodeTables = Mapping[tuple[str, int, int], Knots]
"""By family, width and drafts."""
_KEYS = (
    "name",
    "about",
    "decode_step_ms",
    "prefill_ms",
    "prefill_prompt_tokens",
    "kv_tokens_per_rank",
    "transfer_ms",
    "power_w",
    "factors",
    "notes",
)
_METHODS: tuple[Method, ...] = get_args(Method)
_NAMED = "|".join(method for method in _METHODS if method != "mtp")
_DECODE_NAME = re.compile(rf"(dep|tp)([1-9][0-9]{{0,5}})_(?:({_NAMED})_)?k([0-9]{{1,2}})")
_LAYOUT_NAME = re.compile(r"(dep|tp)([1-9][0-9]{0,5})")
MOST_BYTES = 1 << 22
_LONGEST = 300
_MOST = 1_000_000_000
"""More than any figure of a profile: their products stay finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Factors:
    """Factors are what calibration fits, by layout family (`dep`, `tp`); 1 and 0 where there is none."""

    decode_scale: Mapping[str, float]
    decode_overhead_ms: Mapping[str, float]
    prefill_scale: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line is a piecewise-linear function through `knots` (x rising), straight on beyond both ends."""

    knots: Knots

    def at(self, x: float) -> float:
        """Returns the value at `x`."""
        knots = self.knots
        if len(knots) == 1:
            return knots[0][1]
        i = 1
        while i < len(knots) - 1 and x > knots[i][0]:
            i += 1
        (x0, y0), (x1, y1) = knots[i - 1], knots[i]
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """A profile holds the costs of one model on one kind of GPU.

    Args:
        decode_step_ms: raw tables of each method: knots of (sequences per attention rank's GPU, or per
            tensor-parallel worker; milliseconds). MTP's hold those without drafts, which all methods share.
        prefill_ms: raw tables by (family, width): knots of (prompt tokens per rank, milliseconds).
        kv_tokens_per_rank: KV-cache tokens by (family, width) of one attention rank (a GPU under attention
            DP, the whole worker under tensor parallelism).
        transfer_base_ms, transfer_per_token_ms: KV hand-over from a prefill to a decode worker.
        idle_w, prefill_w, decode_w: power of one GPU that waits, prefills or decodes.
    """

    name: str
    about: str
    decode_step_ms: Mapping[Method, DecodeTables]
    prefill_ms: Mapping[tuple[str, int], Knots]
    kv_tokens_per_rank: Mapping[tuple[str, int], int]
    transfer_base_ms: float
    transfer_per_token_ms: float
    idle_w: float
    prefill_w: float
    decode_w: float
    factors: Factors

    def step_costs(self, topology: Topology, method: Method) -> Method:
        """Returns the method whose decode tables a method is played with: MTP's where it has none.

        It needs one for the layout of every group that decodes.
        """
        families = {family for family, _, _ in self.decode_step_ms.get(method, ())}
        decoding = (group for group in topology.groups if group.role != "prefill")
        return method if all(family_of(group) in families for group in decoding) else "mtp"

    def step_times_s(self, group: WorkerGroup, drafts: int, longest: int, method: Method = "mtp") -> Floats:
        """Returns decode step times in seconds by sequences on the fullest rank, shape (longest + 1,).

        Raises:
            InputError: there is no table of the method for the layout, or none to derive its drafts from.
        """
        family = family_of(group)
        sequences = np.arange(longest + 1, dtype=np.float64) / (group.tp if group.attention_dp else 1)
        scale = self.factors.decode_scale.get(family, 1.0)
        overhead = self.factors.decode_overhead_ms.get(family, 0.0)
        raw_ms = self._raw_step_ms(
            family, group.gpus_per_worker, drafts, sequences, method if drafts else "mtp"
        )
        times: Floats = (raw_ms * scale + overhead) / 1e3
        times[0] = 0.0
        if (times[1:] <= 0).any():
            raise InputError(
                f"profile {self.name!r}: its tables for {family}{group.gpus_per_worker} give steps no time "
                f"with {drafts} drafts and {int(np.argmax(times[1:] <= 0)) + 1} sequences"
            )
        return times

    def _raw_step_ms(self, family: str, width: int, drafts: int, sequences: Floats, method: Method) -> Floats:
        tables = self.decode_step_ms.get(method, {})
        widths = sorted({w for f, w, _ in tables if f == family})
        if not widths:
            of = "" if method == "mtp" else f" of {method}"
            has = ", ".join(sorted({f"{f}{w}" for f, w, _ in tables})) or f"none{of}"
            raise InputError(
                f"profile {self.name!r} has no decode table{of} for {family} layouts; it has {has}"
            )
        low = max((w for w in widths if w <= width), default=widths[0])
        high = min((w for w in widths if w >= width), default=widths[-1])
        if family == "tp" and low != high:
            low = high = min((low, high), key=lambda w: abs(w - width))
        at_low = self._raw_drafts_ms(family, low, drafts, sequences, method)
        if low == high:
            return at_low
        share = (width - low) / (high - low)
        return at_low + share * (self._raw_drafts_ms(family, high, drafts, sequences, method) - at_low)

    def _raw_drafts_ms(
        self, family: str, width: int, drafts: int, sequences: Floats, method: Method
    ) -> Floats:
        tables = self.decode_step_ms[method]
        tabled = sorted(k for f, w, k in tables if (f, w) == (family, width))
        if drafts in tabled:
            return _interpolate(tables[family, width, drafts], sequences)
        if len(tabled) < 2 or drafts < tabled[-1]:
            of = "" if method == "mtp" else f"{method} "
            raise InputError(
                f"profile {self.name!r} has {family}{width} {of}tables for k = {', '.join(map(str, tabled))} "
                f"only; k = {drafts} can't be derived from them"
            )
        last, before = (_interpolate(tables[family, width, k], sequences) for k in tabled[:-3:-1])
        return last + (drafts - tabled[-1]) / (tabled[-1] - tabled[-2]) * (last - before)

    def prefill_line_s(self, group: WorkerGroup) -> Line:
        """Returns prefill seconds by prompt tokens on the fullest rank; the value at 0 is the fixed part."""
        knots = _nearest(self.prefill_ms, group, self.name, "prefill_ms")
        scale = self.factors.prefill_scale / 1e3
        return Line(knots=tuple((tokens, ms * scale) for tokens, ms in knots))

    def kv_tokens(self, group: WorkerGroup) -> int:
        """Returns the KV-cache tokens of one attention rank."""
        return int(_nearest(self.kv_tokens_per_rank, group, self.name, "kv_tokens_per_rank"))

    def transfer_s(self, tokens: int) -> float:
        """Returns how long a prompt's KV cache takes from a prefill to a decode worker."""
        return (self.transfer_base_ms + self.transfer_per_token_ms * tokens) / 1e3


def family_of(group: WorkerGroup) -> str:
    """Returns `dep` where attention is data parallel, else `tp`."""
    return "dep" if group.attention_dp else "tp"


def _interpolate(knots: Knots, x: Floats) -> Floats:
    xs, ys = (np.array(column) for column in zip(*knots, strict=True))
    y: Floats = np.interp(x, xs, ys)
    if len(knots) > 1:
        beyond = x > xs[-1]
        y[beyond] = ys[-1] + (x[beyond] - xs[-1]) * (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
    return y


def _nearest(by_layout: Mapping[tuple[str, int], Any], group: WorkerGroup, name: str, what: str) -> Any:
    family = family_of(group)
    widths = [w for f, w in by_layout if f == family]
    if not widths:
        layouts = ", ".join(f"{f}{w}" for f, w in by_layout)
        raise InputError(f"profile {name!r} has no {what} for {family} layouts; it has {layouts}")
    return by_layout[family, min(widths, key=lambda w: (abs(w - group.gpus_per_worker), w))]


def names() -> tuple[str, ...]:
    """Returns the names of the profiles that ship with the harness."""
    folder = resources.files("mtpbench.simengine").joinpath("profiles")
    return tuple(sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json")))


def default_profile() -> str:
    """Returns the profile that the embedded engine plays where none is named."""
    return str(_usual()["default"])


def profile_of(hardware: str) -> str | None:
    """Returns the profile that estimates of real hardware use; None where there is none for it."""
    name: str | None = _usual()["by_hardware"].get(hardware)
    return name


@cache
def _usual() -> Mapping[str, Any]:
    text = resources.files("mtpbench.simengine").joinpath("profiles/usual.yaml").read_text("utf-8")
    loaded: Mapping[str, Any] = plain_data(compose_yaml(text, Path("usual.yaml")))
    return loaded


@cache
def load_profile(name_or_path: str) -> Profile:
    """Reads the profile of a shipped name, or of a JSON file (anything with a `/` or ending in `.json`).

    Raises:
        InputError: there is no such profile, or the file lacks or misspells something; says what.
    """
    return parse_profile(read_data(name_or_path), name_or_path)


def read_data(name_or_path: str) -> dict[str, Any]:
    """Reads the profile's JSON as it stands in its file."""
    if "/" in name_or_path or name_or_path.endswith(".json"):
        data = read_json(Path(name_or_path), MOST_BYTES)
    elif name_or_path in names():
        folder = resources.files("mtpbench.simengine").joinpath("profiles")
        data = parse_json(folder.joinpath(f"{name_or_path}.json").read_bytes(), Path(name_or_path))
    else:
        raise InputError(f"unknown profile {name_or_path!r}; shipped: {', '.join(names())}, or a .json file")
    if not isinstance(data, dict):
        raise InputError(f"profile {name_or_path}: a JSON object was expected")
    return data


def parse_profile(data: Mapping[str, Any], where: str) -> Profile:
    """Parses the profile that a file's JSON describes.

    Raises:
        InputError: a key is unknown or missing, or a value has the wrong form.
    """
    if unknown := sorted(set(data) - set(_KEYS)):
        names = ", ".join(unknown)[:_LONGEST]
        raise InputError(f"profile {where}: unknown {names}; valid: {', '.join(_KEYS)}")
    if missing := [key for key in _KEYS if key not in data and key not in ("factors", "notes")]:
        raise InputError(f"profile {where}: missing {', '.join(missing)}")
    try:
        prompt_tokens = _above_0(data["prefill_prompt_tokens"], "prefill_prompt_tokens")
        transfer, power = _mapping(data, "transfer_ms"), _mapping(data, "power_w")
        return Profile(
            name=_text(data, "name"),
            about=_text(data, "about"),
            decode_step_ms=_decode_tables(_mapping(data, "decode_step_ms")),
            prefill_ms={
                _layout_key(key.removeprefix("ctx_")): _prefill_knots(rows, key, prompt_tokens)
                for key, rows in _mapping(data, "prefill_ms").items()
            },
            kv_tokens_per_rank={
                _layout_key(key): math.ceil(_above_0(tokens, key))
                for key, tokens in _mapping(data, "kv_tokens_per_rank").items()
            },
            transfer_base_ms=_number(transfer.get("base"), "transfer_ms.base"),
            transfer_per_token_ms=_number(transfer.get("per_token"), "transfer_ms.per_token"),
            idle_w=_number(power.get("idle"), "power_w.idle"),
            prefill_w=_number(power.get("prefill"), "power_w.prefill"),
            decode_w=_number(power.get("decode"), "power_w.decode"),
            factors=_factors(_mapping(data, "factors")),
        )
    except ValueError as error:
        raise InputError(f"profile {where}: {str(error)[:_LONGEST]}") from error


def _mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"{key}: a mapping is needed, not {reprlib.repr(value)}")
    return value


def _text(data: Mapping[str, Any], key: str) -> str:
    if not isinstance(data[key], str):
        raise ValueError(f"{key}: a text is needed, not {reprlib.repr(data[key])}")
    return check_line(data[key])


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MOST:
        raise ValueError(f"{where}: a number from 0 to {_MOST:,} is needed, not {reprlib.repr(value)}")
    return float(value)


def _above_0(value: Any, where: str) -> float:
    if not (number := _number(value, where)):
        raise ValueError(f"{where}: a number above 0 is needed, not 0")
    return number


def _factors(factors: Mapping[str, Any]) -> Factors:
    scale, overhead = _mapping(factors, "decode_scale"), _mapping(factors, "decode_overhead_ms")
    return Factors(
        decode_scale={name: _above_0(value, f"decode_scale.{name}") for name, value in scale.items()},
        decode_overhead_ms={
            name: _number(value, f"decode_overhead_ms.{name}") for name, value in overhead.items()
        },
        prefill_scale=_above_0(factors.get("prefill_scale", 1.0), "prefill_scale"),
    )


def _decode_tables(tables: Mapping[str, Any]) -> Mapping[Method, DecodeTables]:
    parsed: dict[Method, dict[tuple[str, int, int], Knots]] = {}
    for name, rows in tables.items():
        if not (match := _DECODE_NAME.fullmatch(name)):
            raise ValueError(
                f"table {name!r} is not named like dep16_k3 or tp8_k0, nor like dep8_dspark_k5 (of "
                f"{', '.join(_METHODS[1:])})"
            )
        family, width, method, drafts = match.groups()
        if method and not int(drafts):
            raise ValueError(f"table {name!r}: steps without drafts are the same for all; {family}{width}_k0")
        key = family, int(width), int(drafts)
        parsed.setdefault(cast(Method, method or "mtp"), {})[key] = _knots(rows, name)
    return parsed


def _layout_key(text: str) -> tuple[str, int]:
    if not (match := _LAYOUT_NAME.fullmatch(text)):
        raise ValueError(f"layout {text!r} is not named like dep16 or tp8")
    return match[1], int(match[2])


def _knots(rows: Any, where: str, unit: float = 1.0) -> Knots:
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise ValueError(f"{where}: a table is a list of [number, milliseconds], not {reprlib.repr(rows)}")
    knots = tuple((_number(x, where) * unit, _above_0(y, where)) for x, y in rows)
    if not knots or any(b[0] <= a[0] for a, b in pairwise(knots)):
        raise ValueError(f"{where}: a table needs rows of rising first column, not {reprlib.repr(rows)}")
    return knots


def _prefill_knots(rows: Any, where: str, unit: float) -> Knots:
    knots = _knots(rows, where, unit)
    if Line(knots=knots).at(1) <= 0 or any(b[1] < a[1] for a, b in pairwise(knots)):
        raise ValueError(
            f"{where}: prefill takes longer the longer the prompt, and more than 0 ms for one token, "
            f"not {reprlib.repr(rows)}"
        )
    return knots
