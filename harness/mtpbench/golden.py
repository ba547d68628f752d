"""Golden acceptance: published mean acceptance lengths, and the rates by position that give a length."""

from __future__ import annotations

from collections.abc import Mapping
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


@cache
def _data() -> Mapping[str, Any]:
    text = resources.files("mtpbench").joinpath(SOURCE).read_text("utf-8")
    loaded: Mapping[str, Any] = plain_data(compose_yaml(text, Path(SOURCE)))
    return loaded


def default_table() -> GoldenTable:
    """Returns the table of a sweep that names none."""
    return GoldenTable(**_data()["default"])


def golden_table(table: GoldenTable) -> Mapping[int, float]:
    """Returns mean acceptance lengths by number of draft tokens.

    Raises:
        InputError: a name is unknown; the message lists the known ones.
    """
    node: Any = _data()["tables"]
    for kind, name in (("model", table.model), ("method", table.method), ("mode", table.mode)):
        if name not in node:
            raise InputError(
                f"no golden acceptance of {kind} {name!r} in {SOURCE}; known: {', '.join(map(str, node))}"
            )
        node = node[name]
    return {int(drafts): float(length) for drafts, length in node.items()}


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
