"""The dated hardware constants: `data/hardware.yaml` as `Hardware` records."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

from mtpbench.errors import InputError
from mtpbench.records import Hardware


@cache
def _constants() -> Mapping[str, Any]:
    text = resources.files("mtpbench").joinpath("data/hardware.yaml").read_text("utf-8")
    loaded: Mapping[str, Any] = yaml.safe_load(text)
    return loaded


def names() -> tuple[str, ...]:
    """The hardware that constants exist for."""
    return tuple(_constants()["hardware"])


def lookup(name: str, date: str | None = None) -> Hardware:
    """The constants of one kind of hardware, the newest or those of `date` (`2026-05`).

    Raises:
        InputError: the name or the date is unknown; the message lists the known ones.
    """
    entries = _constants()["hardware"]
    if name not in entries:
        raise InputError(f"unknown hardware {name!r}; known: {', '.join(entries)}")
    entry = entries[name]
    dated = {str(key): value for key, value in entry["constants"].items()}
    chosen = date or max(dated)
    if chosen not in dated:
        raise InputError(f"{name} has no constants of {chosen!r}; known dates: {', '.join(sorted(dated))}")
    return Hardware(
        name=name,
        gpu=entry["gpu"],
        gpus_per_node=entry["gpus_per_node"],
        nodes_per_domain=entry["nodes_per_domain"],
        power_kw_per_gpu=dated[chosen]["power_kw_per_gpu"],
        usd_per_gpu_h=dated[chosen]["usd_per_gpu_h"],
        constants_date=chosen,
        source=entry.get("source", _constants()["source"]),
    )
