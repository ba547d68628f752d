"""Golden acceptance: published mean acceptance lengths, and the rates by position that give a length.

Which checkpoint a row belongs to, and which draft layers a known one lacks, stands beside the lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from mtpbench.errors import InputError
from mtpbench.input_files import compose_yaml, plain_data
from mtpbench.metrics.request_table import Floats
from mtpbench.records import GoldenTable

SOURCE = "data/golden_acceptance.yaml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lack:
    """A lack says why a known checkpoint can't draft by a method, and what would be right."""

    checkpoint: str
    why: str
    instead: str


@cache
def _data() -> Mapping[str, Any]:
    text = resources.files("mtpbench").joinpath(SOURCE).read_text("utf-8")
    loaded: Mapping[str, Any] = plain_data(compose_yaml(text, Path(SOURCE)))
    return loaded


@cache
def _tables() -> Mapping[str, Mapping[str, Mapping[str, Mapping[int, float]]]]:
    """Returns mean acceptance lengths by model, method, mode and draft tokens."""
    tables: dict[str, dict[str, dict[str, Mapping[int, float]]]] = {}
    for row in _data()["rows"]:
        lengths = {int(drafts): float(length) for drafts, length in row["lengths"].items()}
        tables.setdefault(row["model"], {}).setdefault(row["method"], {})[row["mode"]] = lengths
    return tables


def default_table(method: str = "mtp") -> GoldenTable | None:
    """Returns the table that is meant where nothing names a model; None for a method without one."""
    named = _data()["default"].get(method)
    return GoldenTable(method=method, **named) if named else None


def find_table(checkpoint: str, method: str, mode: str, model: str | None = None) -> GoldenTable:
    """Returns the table of a checkpoint's drafts.

    Args:
        checkpoint: hub id or path of what is served.
        method: how drafts are made.
        mode: thinking mode.
        model: the table's model, where a sweep names it; else it is that of the checkpoint, or the default
            one where no table knows the checkpoint, which is there for MTP alone.

    Raises:
        InputError: there is no such table; the message lists the known ones.
    """
    known = model or _model_of(checkpoint)
    default = default_table(method) if method == "mtp" else None
    if known is None and default is not None:
        known = default.model
    if known is None or (model is None and method not in _tables()[known]):
        rows = "; ".join(f"{name} {how}" for name, how in _methods())
        raise InputError(
            f"no golden acceptance of {method} on {checkpoint} in {SOURCE}; known: {rows}. Name one "
            "({golden: …, model: …}), or give {length: …} or measured"
        )
    table = GoldenTable(model=known, method=method, mode=mode)
    golden_table(table)
    return table


def _methods() -> Iterator[tuple[str, str]]:
    return ((model, method) for model, methods in _tables().items() for method in methods)


def _model_of(checkpoint: str) -> str | None:
    """Returns the model of the tables that a checkpoint is; None where none of them knows it."""
    entry = _entry_of(checkpoint)
    return entry[1]["model"] if entry else None


def _entry_of(checkpoint: str) -> tuple[str, Mapping[str, Any]] | None:
    """Returns the hub id and the facts of a known checkpoint, by its hub id or its last folder's name."""
    name = checkpoint.rstrip("/").rsplit("/", 1)[-1].casefold()
    entries: Mapping[str, Any] = _data()["checkpoints"]
    return next(((hub, facts) for hub, facts in entries.items() if _last(hub) == name), None)


def _last(hub_id: str) -> str:
    return hub_id.rsplit("/", 1)[-1].casefold()


def known_lack(checkpoint: str, method: str) -> Lack | None:
    """Returns why a known checkpoint can't draft by a method; None where it can, or is not known."""
    entry = _entry_of(checkpoint)
    if entry is None or method not in entry[1].get("without", ()):
        return None
    return Lack(checkpoint=entry[0], why=entry[1]["why"], instead=entry[1]["instead"])


def golden_table(table: GoldenTable) -> Mapping[int, float]:
    """Returns mean acceptance lengths by number of draft tokens.

    Raises:
        InputError: a name is unknown; the message lists the known ones.
    """
    node: Any = _tables()
    for kind, name in (("model", table.model), ("method", table.method), ("mode", table.mode)):
        if name not in node:
            raise InputError(
                f"no golden acceptance of {kind} {name!r} in {SOURCE}; known: {', '.join(map(str, node))}"
            )
        node = node[name]
    lengths: Mapping[int, float] = node
    return lengths


def golden_length(table: GoldenTable, drafts: int) -> float:
    """Returns the published mean acceptance length, bonus token included.

    Raises:
        InputError: a name or the draft count is unknown; the message lists the known ones.
    """
    return _entry(golden_table(table), drafts, f"{table.model} {table.method} {table.mode}")


def golden_rates(length_by_drafts: Mapping[int, float], drafts: int) -> tuple[float, ...]:
    """Returns unconditional acceptance rates by position: the growth of the length from draft to draft.

    Where a table's lengths are not concave (noise), the rates are the nearest ones (least squares) that
    never rise, stay within [0, 1] and sum to length − 1, so that the length itself is kept.

    Args:
        length_by_drafts: mean acceptance length, bonus included, for every draft count 1 … `drafts`.
        drafts: draft tokens per step.

    Raises:
        InputError: a length is missing or lies outside [1, drafts + 1].
    """
    if drafts < 1:
        raise InputError(f"acceptance rates need at least 1 draft token, not {drafts}")
    lengths = [1.0, *(_entry(length_by_drafts, k, "the acceptance table") for k in range(1, drafts + 1))]
    if not 1.0 <= lengths[-1] <= drafts + 1:
        raise InputError(
            f"an acceptance length of {lengths[-1]} is impossible with {drafts} draft tokens: "
            f"it lies in [1, {drafts + 1}], the bonus token included"
        )
    rates = _bounded(_never_rising(np.diff(lengths)), lengths[-1] - 1.0)
    return tuple(round(float(rate), 12) for rate in rates)


def even_rates(length: float, drafts: int) -> tuple[float, ...]:
    """Returns unconditional rates of a length alone: each draft is accepted as likely as the one before it.

    p + p² + … + p^drafts = length − 1, as llama.cpp's `--spec-synth-len` has it; a model's own rates differ.

    Raises:
        InputError: the length lies outside [1, drafts + 1].
    """
    if not 1.0 <= length <= drafts + 1:
        raise InputError(f"an acceptance length of {length} needs 1 … {drafts + 1} with {drafts} drafts")
    powers, low, high = np.arange(1, drafts + 1), 0.0, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if float((middle**powers).sum()) > length - 1 else (middle, high)
    return tuple(round(float(rate), 12) for rate in high**powers)


def rates_of(lengths: Mapping[int, float], drafts: int) -> tuple[float, ...]:
    """Returns the rates of a table's length: by its growth, or even ones where fewer drafts have none.

    Raises:
        InputError: the table has no length for that many drafts.
    """
    if all(fewer in lengths for fewer in range(1, drafts)):
        return golden_rates(lengths, drafts)
    return even_rates(_entry(lengths, drafts, "the acceptance table"), drafts)


def _entry(table: Mapping[int, float], drafts: int, where: str) -> float:
    if drafts not in table:
        counts = ", ".join(map(str, sorted(table)))
        raise InputError(f"no acceptance length for {drafts} draft tokens in {where}; known: {counts}")
    return table[drafts]


def _never_rising(values: Floats) -> Floats:
    """Returns the nearest sequence that never rises, with the same sum.

    Source: pool adjacent violators, Barlow et al., Statistical Inference under Order Restrictions, 1972.
    """
    blocks: list[tuple[float, int]] = []
    for value in values:
        mean, count = float(value), 1
        while blocks and blocks[-1][0] < mean:
            last_mean, last_count = blocks.pop()
            mean = (mean * count + last_mean * last_count) / (count + last_count)
            count += last_count
        blocks.append((mean, count))
    return np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])


def _bounded(rates: Floats, total: float) -> Floats:
    """Returns `rates` within [0, 1], shifted by one constant before clipping so that they sum to `total`."""
    low, high = -1.0 - float(np.abs(rates).max()), 1.0 + float(np.abs(rates).max())
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if np.clip(rates + middle, 0, 1).sum() > total else (middle, high)
    return np.clip(rates + (low + high) / 2, 0.0, 1.0)
