"""Pure: what two curves differ in beyond speculation, what one curve mixes, and when acceptance misleads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtpbench_analysis.curves.curve import Curve

_COMPARED = ("engine", "serving", "version", "image", "workload", "topology", "date")
_WHERE_METERED = ("power_source", "power_cap_w")
"""Told only where both sides recorded them: most points are not metered at all."""
_ONE_RECIPE = (
    "engine",
    "serving",
    "acceptance_mode",
    "version",
    "image",
    "workload",
    "date",
    "draft_tokens",
)
_ASSUMED = ("hardware", "model", "precision", "isl", "osl")
_WORDS = {
    "isl": "ISL",
    "osl": "OSL",
    "workload": "prompts",
    "settings": "engine options",
    "power_source": "power meter",
    "power_cap_w": "power cap in watts",
}
_LISTED = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Confound:
    """Something besides speculation that two curves differ in, or may differ in.

    Args:
        field: of `CurvePoint`.
        text: one sentence for a reader.
        known: False where it was not recorded, so that nobody knows whether it differs.
    """

    field: str
    text: str
    known: bool = True


def find_confounds(baseline: Curve, other: Curve) -> tuple[Confound, ...]:
    """What `other` differs in from `baseline`, speculation left out, and what nobody recorded."""
    found, unknown = [], []
    for name in _COMPARED:
        ours, theirs = other.values(name), baseline.values(name)
        if ours == theirs == (None,):
            unknown.append(name)
        elif ours != theirs:
            text = f"{_word(name).capitalize()}: {_difference(baseline, other, name)}"
            found.append(Confound(field=name, text=text))
    if len({"version", "image"} & set(unknown)) == 1:
        # An image holds its engine's version, and an engine that runs bare has no image: one of them will do.
        unknown = [name for name in unknown if name not in ("version", "image")]
    mine, its = _options(other), _options(baseline)
    if mine is None or its is None:
        unknown.append("settings")
    elif mine != its:
        text = f"Engine options: {_only(baseline, its - mine, other, mine - its)}"
        found.append(Confound(field="settings", text=text))
    for name in _WHERE_METERED:
        told = [set(curve.values(name)) - {None} for curve in (other, baseline)]
        if all(told) and told[0] != told[1]:
            text = f"{_word(name).capitalize()}: {_difference(baseline, other, name)}"
            found.append(Confound(field=name, text=text))
    if unknown:
        text = f"Not recorded, so possibly different: {', '.join(_word(name) for name in unknown)}"
        found += [Confound(field=name, text=text, known=False) for name in unknown]
    assumed = [name for name in _ASSUMED if baseline.shared(name) is None]
    if assumed:
        text = f"Not recorded, taken to be equal: {', '.join(_word(name) for name in assumed)}"
        found += [Confound(field=name, text=text, known=False) for name in assumed]
    return tuple(found)


def _word(name: str) -> str:
    return _WORDS.get(name, name)


def _options(curve: Curve) -> set[str] | None:
    """The options that any point of the curve ran with; None where one does not say."""
    values = curve.values("settings")
    return None if None in values else {text for settings in values for text in settings}


def _only(one: Curve, of_one: set[str], other: Curve, of_other: set[str]) -> str:
    pairs = ((one, of_one), (other, of_other))
    return "; ".join(f"{curve.label} only {_listed(sorted(texts))}" for curve, texts in pairs if texts)


def find_pooling(curve: Curve) -> tuple[str, ...]:
    """One sentence for each field of which a single curve holds several values."""
    return tuple(
        f"The {curve.label} curve mixes {len(values)} values of {name.replace('_', ' ')}: {_listed(values)}."
        for name in _ONE_RECIPE
        if len(values := curve.values(name)) > 1
    )


def speculates(curve: Curve, baseline_arm: str) -> bool:
    """Whether the curve drafts tokens: as recorded, else taken from its arm not being the baseline."""
    modes = set(curve.values("acceptance_mode")) - {None}
    if modes:
        return modes != {"off"}
    drafts = [value for value in curve.values("draft_tokens") if value is not None]
    return any(drafts) if drafts else curve.arm != baseline_arm


def acceptance_unknown(curve: Curve) -> bool:
    """Whether no point of the curve recorded an acceptance length."""
    return curve.values("acceptance_length") == (None,)


def acceptance_warnings(baseline: Curve, others: Sequence[Curve]) -> tuple[str, ...]:
    """Warnings about acceptance, each given only when it is true of these curves."""
    speculating = [curve for curve in (baseline, *others) if speculates(curve, baseline.arm)]
    if not speculating:
        return ()
    warnings = []
    engines = {engine for curve in (baseline, *others) for engine in curve.values("engine")}
    if len(engines) > 1:
        named = ", ".join(sorted(str(engine or "an engine not recorded") for engine in engines))
        warnings.append(
            f"The engines differ ({named}): acceptance implementations differ across engines, so the gain "
            "can't be put down to speculation alone."
        )
    modes = {mode for curve in speculating for mode in curve.values("acceptance_mode")} - {None, "off"}
    if len(modes) > 1:
        warnings.append(
            f"The acceptance modes differ ({', '.join(sorted(modes))}): real and pinned are mixed."
        )
    unknown = [curve.label for curve in speculating if acceptance_unknown(curve)]
    if unknown:
        whose = f" for {' and '.join(unknown)}" if len(speculating) > 1 else ""
        warnings.append(
            f"Acceptance was not recorded{whose}, so part of the gain may be the benchmark's prompts."
        )
    return tuple(warnings)


def _difference(baseline: Curve, other: Curve, name: str) -> str:
    ours, theirs = set(other.values(name)), set(baseline.values(name))
    parts = []
    for curve, only in ((baseline, theirs - ours), (other, ours - theirs)):
        if only:
            ordered = sorted(only, key=lambda value: (value is None, str(value)))
            shared = "also " if ours & theirs else ""
            parts.append(f"{curve.label} {shared}{_listed(ordered)}")
    return "; ".join(parts)


def _listed(values: Sequence[Any]) -> str:
    shown = [str(value) if value is not None else "not recorded" for value in values[:_LISTED]]
    more = len(values) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
