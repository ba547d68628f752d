"""Pure: what two curves differ in beyond speculation, what one mixes, when acceptance misleads, and whether
speculation changed the greedy answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtpbench_analysis.curves.curve import Curve
from mtpbench_analysis.frame import ArmAnswers

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


MIN_SAME_SHARE = 0.75
"""Below this share of equal answers a pair is flagged: more than batch-dependent rounding explains."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """One arm's answers held against the baseline's.

    Args:
        prompts: prompts that both answered.
        same: answers that are equal to the letter.
        first_difference: the earliest character at which an answer differs, or None.
        topologies: of the baseline and of the arm.
        scores: the evaluation's, of the baseline and of the arm; None where unknown.
    """

    arm: str
    baseline: str
    prompts: int
    same: int
    first_difference: int | None
    topologies: tuple[str, str]
    scores: tuple[float | None, float | None] = (None, None)

    @property
    def flagged(self) -> bool:
        """Whether too few answers are the same."""
        return self.prompts > 0 and self.same < MIN_SAME_SHARE * self.prompts


def find_agreements(answers: Sequence[ArmAnswers], baseline: str) -> tuple[Agreement, ...]:
    """Each arm against the baseline, on the same topology where both have one, else on their first ones.

    An arm without answers gets no agreement: nothing is known of it.
    """
    known = [item for item in answers if item.texts or item.score is not None]
    base = {item.topology: item for item in reversed(known) if item.arm == baseline}
    if not base:
        return ()
    first = next(item for item in known if item.arm == baseline)
    found: dict[str, Agreement] = {}
    for item in known:
        if item.arm == baseline:
            continue
        shared = item.topology in base
        if item.arm in found and (
            not shared or found[item.arm].topologies[0] == found[item.arm].topologies[1]
        ):
            continue
        found[item.arm] = hold_against(base.get(item.topology, first), item)
    return tuple(found.values())


def hold_against(base: ArmAnswers, other: ArmAnswers) -> Agreement:
    """One pair of answers, prompt by prompt."""
    pairs = list(zip(base.texts, other.texts, strict=False))
    differences = [at for pair in pairs if (at := first_difference(*pair)) is not None]
    return Agreement(
        arm=other.arm,
        baseline=base.arm,
        prompts=len(pairs),
        same=len(pairs) - len(differences),
        first_difference=min(differences, default=None),
        topologies=(base.topology, other.topology),
        scores=(base.score, other.score),
    )


def first_difference(one: str, other: str) -> int | None:
    """The 0-based character at which two texts part, or None where they are equal."""
    if one == other:
        return None
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
