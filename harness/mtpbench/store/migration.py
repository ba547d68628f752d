"""Pure: migrates records of schema versions 2 to 4 to version 5, which holds sources and reasons as fields.

Versions 6 to 9 only added fields, which are NULL in what an older version wrote.

The older versions held them as text. Only this module parses that text, and nothing writes it any more: the
tables here are complete and don't change.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mtpbench.records import Json, Point, PointResult, RunFacts

FIRST_WITH_FIELDS = 5

_SIMULATING_ENGINES = ("simulated", "mocker")
_GOLDEN = re.compile(r"(?P<drawn>drawn by the embedded engine from )?golden (?P<table>\S+ \S+ \S+)")
_COUNTERS = re.compile(
    r"(?P<source>.*?)(?:; a gauge, mean of (?P<samples>\d+) samples, "
    r"(?P<weighed>weighted by verification steps|unweighted))?",
    re.DOTALL,
)
_METRICS = " /metrics of every decoding worker"
_NOT_CHECKED, _INTEGRAL = ", not cross-checked", ", integral of power"
_CODES = frozenset(
    (
        "no_power_source",
        "no_window",
        "no_power_samples",
        "missing_gpu",
        "unexpected_gpu",
        "gpu_lost",
        "gpu_swapped",
        "power_not_covered",
        "power_gap",
        "counter_reset",
        "counter_frozen",
        "power_frozen",
        "power_mismatch",
        "power_zero",
        "no_nvml",
        "no_gpu",
        "no_meter",
        "mig",
        "shared_module",
        "mixed_scopes",
        "no_dcgm",
        "not_needed",
        "no_reading",
        "node_missing",
        "mixed_sources",
        "sampler_failed",
    )
)


def _nvml_sources() -> Iterator[tuple[str, Json]]:
    for counter, meter in ((True, "nvml energy counter"), (False, "nvml")):
        for power, power_text in (
            ("instant", ", instant power"),
            ("averaged", ", power averaged over 1 s"),
            (None, ""),
        ):
            for scope, scope_text in (
                ("gpu", ", GPU scope"),
                ("module", ", module scope (GPU and its Grace)"),
                (None, ""),  # before sources knew their scope
            ):
                source = {"meter": "nvml", "counter": counter, "power": power, "scope": scope}
                yield f"{meter}{power_text}{scope_text}", source


def _dcgm_sources() -> Iterator[tuple[str, Json]]:
    for counter, meter in ((True, "dcgm exporter energy counter"), (False, "dcgm exporter")):
        for stamped, times_text in ((True, "its own timestamps"), (False, "times at which its values moved")):
            for scope, scope_text in (("gpu", ""), ("module", ", module scope (GPU and its Grace)")):
                source = {"meter": "dcgm", "counter": counter, "power": "exported", "scope": scope}
                yield f"{meter}, power, {times_text}{scope_text}", {**source, "stamped": stamped}


_POWER_SOURCES: Mapping[str, Json] = {
    "none": None,
    "simulated": {"meter": "simulated", "counter": True},
    **dict(_nvml_sources()),
    **dict(_dcgm_sources()),
}


_DISTRIBUTIONS = ("ttft_s", "tpot_s", "e2el_s", "ttft_from_schedule_s", "e2el_from_schedule_s")
_NEW_FIGURES: Mapping[int, tuple[str, ...]] = {
    3: ("blocks",),
    6: ("tokens_per_chunk", "first_chunk_tokens", "tokens_per_burst", "cached_prompt_share", "sent_rps"),
    7: (
        *(f"{name}.p{percent}_interval" for name in _DISTRIBUTIONS for percent in (50, 90, 99)),
        *("energy.power_w_per_gpu_by_block", "acceptance.length_by_block"),
    ),
    9: (
        "acceptance.draft_tokens_per_step",
        "acceptance.drafting_steps_only",
        "acceptance.tokens_per_step",
        "by_category",
    ),
}
"""Figures of a result that a version brought: fields, or `field.field` of the record that a field holds."""


def figures_moved(before: PointResult, after: PointResult) -> bool:
    """Returns whether two results of one point differ in a figure that the older one's version knew."""
    new = [
        name for version, names in _NEW_FIGURES.items() if version > before.schema_version for name in names
    ]
    for path in (*new, "schema_version"):
        before = _with_figure_of(before, after, path)
    return before != after


def _with_figure_of(result: Any, other: Any, path: str) -> Any:
    """Returns a record with one of its figures as another record has it, if both have what holds it."""
    name, _, inner = path.partition(".")
    figure = getattr(other, name)
    if inner:
        old = getattr(result, name)
        figure = old if old is None or figure is None else _with_figure_of(old, figure, inner)
    return dataclasses.replace(result, **{name: figure})


def upgraded(kind: type, data: Any) -> Any:
    """Returns the JSON of a record as version 5 would have written it, from that of version 2, 3 or 4.

    Data that those versions did not write stays as it is; the decoder then reports it.

    Raises:
        ValueError: a source is none that those versions knew.
    """
    upgrade = _UPGRADES.get(kind)
    try:
        return data if upgrade is None else upgrade(data)
    except (KeyError, TypeError, AttributeError):
        return data


def _point(data: Json) -> Json:
    engine = {**data["engine"], "simulates": data["engine"]["name"] in _SIMULATING_ENGINES}
    arm = data["arm"]
    if speculation := arm.get("speculation"):
        arm = {**arm, "speculation": {**speculation, "acceptance": _policy(speculation["acceptance"])}}
    return {**data, "engine": engine, "arm": arm}


def _policy(data: Json) -> Json:
    policy = {name: value for name, value in data.items() if name != "source"}
    source = data.get("source")
    if source is None:
        return policy
    if source == "the sweep file":
        return {**policy, "pinned_by": "sweep"}
    match = _GOLDEN.fullmatch(source)
    if match is None:
        raise ValueError(f"acceptance.source {source!r} is none that pins acceptance")
    model, method, mode = match["table"].split(" ")
    table = {"model": model, "method": method, "mode": mode}
    return {**policy, "pinned_by": "engine" if match["drawn"] else "golden", "table": table}


def _result(data: Json) -> Json:
    return {
        **data,
        "acceptance": _acceptance(data["acceptance"]),
        "energy": _energy(data["energy"]),
        "idle": [_idle(idle) for idle in data.get("idle", ())],
    }


def _acceptance(data: Json) -> Json:
    match = _COUNTERS.fullmatch(data["source"])
    assert match is not None, "the pattern fits every text"
    gauge = None
    if match["samples"] is not None:
        gauge = {"samples": int(match["samples"]), "weighted": match["weighed"] != "unweighted"}
    return {**data, "source": _counter_source(match["source"]), "gauge": gauge}


def _energy(data: Json) -> Json:
    source, basis, cross_checked = data["source"], None, None
    if data["energy_j"] is not None:
        basis = "integral" if source.endswith(_INTEGRAL) else "counter"
        cross_checked = None if basis == "integral" else not source.endswith(_NOT_CHECKED)
    source = source.removesuffix(_NOT_CHECKED).removesuffix(_INTEGRAL)
    return {
        **data,
        "source": _power_source(source),
        "basis": basis,
        "cross_checked": cross_checked,
        "reason": _reason(data.get("reason")),
    }


def _facts(data: Json) -> Json:
    return {
        **data,
        "counter_source": _counter_source(data.get("counter_source", "none")),
        "power_source": _power_source(data.get("power_source", "none")),
        "power_reason": _reason(data.get("power_reason")),
        "idle": [_idle(idle) for idle in data.get("idle", ())],
    }


def _idle(data: Json) -> Json:
    return {**data, "reason": _reason(data.get("reason"))}


def _counter_source(text: str) -> Json:
    if text == "none":
        return None
    if text == "embedded engine, in process":
        return {"kind": "process"}
    return {"kind": "metrics", "engine": text.removesuffix(_METRICS) if text.endswith(_METRICS) else None}


def _power_source(text: str) -> Json:
    if text not in _POWER_SOURCES:
        raise ValueError(f"power source {text!r} is none that was ever read")
    return _POWER_SOURCES[text]


def _reason(text: str | None) -> Json:
    """Returns the record of `code: sentence`, of a code alone, or of a text without a code."""
    if text is None:
        return None
    if text == "nothing ran":
        return {"code": "nothing_ran", "detail": text}
    code, _, detail = text.partition(": ")
    return {"code": code, "detail": detail} if code in _CODES else {"code": "other", "detail": text}


_UPGRADES: Mapping[type, Callable[[Json], Json]] = {Point: _point, PointResult: _result, RunFacts: _facts}
