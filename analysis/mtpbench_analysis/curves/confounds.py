"""Pure: what two curves differ in beyond speculation, what one mixes, when acceptance misleads, and whether
speculation changed the greedy answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from mtpbench.records import CAVEATS, OFF, AcceptanceCaveat
from mtpbench_analysis.curves.curve import Curve, list_values, short
from mtpbench_analysis.frame import SPECULATION_FIELDS, ArmAnswers
from mtpbench_analysis.numbers import listed

_COMPARED = ("engine", "serving", "version", "image", "workload", "topology", "date")
_WHERE_DIFFERENT = ("checkpoint",)
"""Told where the sides differ in it; where neither side recorded it, the model's name has to do."""
_WHERE_RECORDED = ("power_source", "power_cap_w", "measuring_rule")
"""Told only where both sides recorded them: most points are not metered at all, and other tools have no such
rule."""
_ONE_RECIPE = (
    "engine",
    "serving",
    "acceptance_mode",
    "version",
    "image",
    "workload",
    "date",
    *(name for name in SPECULATION_FIELDS if name != "depth_table"),
    "measuring_rule",
)
_ASSUMED = ("hardware", "model", "precision", "isl", "osl")
_WORDS = {
    "isl": "ISL",
    "osl": "OSL",
    "workload": "prompts",
    "settings": "engine options",
    "power_source": "power meter",
    "power_cap_w": "power cap in watts",
    "measuring_rule": "measuring rule",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Confound:
    """A confound is a field in which two curves differ, or may differ, beyond speculation.

    Args:
        field: of `CurvePoint`.
        text: one sentence for a reader.
    """

    field: str
    text: str


def find_confounds(baseline: Curve, other: Curve) -> tuple[Confound, ...]:
    """Returns what `other` differs in from `baseline` beyond speculation, and what was not recorded."""
    confounds, unknown = [], []
    for name in _COMPARED:
        ours, theirs = other.values(name), baseline.values(name)
        if ours == theirs == (None,):
            unknown.append(name)
        elif ours != theirs:
            confounds.append(_differing(name, _difference(baseline, other, name)))
    if len({"version", "image"} & set(unknown)) == 1:
        # An image holds its engine's version, and an engine that runs bare has no image: one of them will do.
        unknown = [name for name in unknown if name not in ("version", "image")]
    mine, its = _options(other), _options(baseline)
    if mine is None or its is None:
        unknown.append("settings")
    elif mine != its:
        confounds.append(_differing("settings", _only((baseline, its - mine), (other, mine - its))))
    confounds += [
        _differing(name, _difference(baseline, other, name))
        for name in _WHERE_DIFFERENT
        if other.values(name) != baseline.values(name)
    ]
    for name in _WHERE_RECORDED:
        recorded = [set(curve.values(name)) - {None} for curve in (other, baseline)]
        if all(recorded) and recorded[0] != recorded[1]:
            confounds.append(_differing(name, _difference(baseline, other, name)))
    assumed = [name for name in _ASSUMED if baseline.shared(name) is None]
    confounds += _not_recorded(unknown, "so possibly different")
    confounds += _not_recorded(assumed, "taken to be equal")
    return tuple(confounds)


MOST_LENGTHS_APART = 1.25
"""By what factor the output tokens for each input token may differ between two sides of one workload."""


def find_length_mismatch(baseline: Curve, other: Curve) -> str | None:
    """Returns how far the answers of two curves differ in length; None where they don't, or it is unknown.

    Prompts count in tok/s/GPU: a side whose answers end early serves more prompts, and so more tokens.
    """
    sides = [(curve.label, share) for curve in (baseline, other) if (share := _output_share(curve))]
    shares = [share for _, share in sides]
    if len(shares) < 2 or max(shares) <= MOST_LENGTHS_APART * min(shares):
        return None
    told = " and ".join(f"{label} made {share:.3g}" for label, share in sides)
    return f"{told} output tokens for each input token: their requests were not of the same lengths"


def _output_share(curve: Curve) -> float | None:
    """Returns the median over points of output tokens / input tokens; None where no point knows both."""
    shares = [
        run.output_tps_per_gpu / run.input_tps_per_gpu
        for item in curve.measured
        for run in item.runs
        if run.output_tps_per_gpu and run.input_tps_per_gpu
    ]
    return median(shares) if shares else None


def _differing(name: str, text: str) -> Confound:
    return Confound(field=name, text=f"{_word(name).capitalize()}: {text}")


def _not_recorded(names: Sequence[str], consequence: str) -> list[Confound]:
    text = f"Not recorded, {consequence}: {', '.join(map(_word, names))}"
    return [Confound(field=name, text=text) for name in names]


def _word(name: str) -> str:
    return _WORDS.get(name, name)


def _options(curve: Curve) -> set[str] | None:
    """Returns the options that any point of the curve ran with; None where one does not say."""
    values = curve.values("settings")
    return None if None in values else {text for settings in values for text in settings}


def _only(*options: tuple[Curve, set[str]]) -> str:
    """Returns which options only one of the curves ran with."""
    return "; ".join(f"{curve.label} only {list_values(texts)}" for curve, texts in options if texts)


def find_pooling(curve: Curve) -> tuple[str, ...]:
    """Returns one sentence for each field of which a single curve holds several values."""
    return tuple(
        f"The {curve.label} curve mixes {len(values)} values of {name.replace('_', ' ')}: "
        f"{list_values(values)}."
        for name in _ONE_RECIPE
        if len(values := curve.values(name)) > 1
    )


def speculates(curve: Curve, baseline_arm: str) -> bool:
    """Returns whether the curve drafts tokens: as recorded, else where its arm is not the baseline."""
    modes = set(curve.values("acceptance_mode")) - {None}
    if modes:
        return modes != {"off"}
    drafts = [value for value in curve.values("draft_tokens") if value is not None]
    return any(drafts) if drafts else curve.arm != baseline_arm


def acceptance_unknown(curve: Curve) -> bool:
    """Returns whether no point of the curve recorded an acceptance length."""
    return curve.values("acceptance_length") == (None,)


def acceptance_warnings(baseline: Curve, others: Sequence[Curve]) -> tuple[str, ...]:
    """Returns warnings about acceptance, each only where it is true of these curves."""
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
    partly = [c.label for c in speculating if any(item.mean.drafting_steps_only for item in c.measured)]
    if partly:
        warnings.append(
            f"Acceptance of {' and '.join(partly)} is of the steps that drafted: steps may draft nothing, "
            "and give one token."
        )
    return (*warnings, *find_acceptance_caveats(speculating))


def find_acceptance_caveats(curves: Sequence[Curve]) -> tuple[str, ...]:
    """Returns a sentence for each cause why an acceptance that was measured may not be that of real use.

    Args:
        curves: those that draft tokens; where acceptance is pinned, prompts don't matter.
    """
    labels: dict[AcceptanceCaveat, dict[str, None]] = {}
    for curve in curves:
        for item in curve.measured:
            known = () if item.mean.acceptance_mode == "golden" else item.mean.acceptance_caveats
            for caveat in (name for name in CAVEATS if name in known):
                labels.setdefault(caveat, {})[curve.label] = None
    return tuple(
        f"Acceptance of {' and '.join(labels[caveat])} was measured {CAVEATS[caveat]}."
        for caveat in CAVEATS
        if caveat in labels
    )


def _difference(baseline: Curve, other: Curve, name: str) -> str:
    ours, theirs = ({_told(name, value) for value in curve.values(name)} for curve in (other, baseline))
    parts = []
    for curve, only in ((baseline, theirs - ours), (other, ours - theirs)):
        if only:
            also = "also " if ours & theirs else ""
            parts.append(f"{curve.label} {also}{list_values(only)}")
    return "; ".join(parts)


def _told(name: str, value: object) -> object:
    return short(value, name) if name == "checkpoint" and value is not None else value


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherCheckpoint:
    """Another checkpoint is what a curve serves as its target where the baseline serves a different one.

    A ratio of the two holds what the checkpoints differ in beside their drafts.

    Args:
        label, ours: the curve's label and checkpoint.
        baseline, theirs: the baseline's.
        partner_arm: an arm without speculation on the curve's own checkpoint; None without one.
    """

    label: str
    ours: str
    baseline: str
    theirs: str
    partner_arm: str | None = None

    @property
    def text(self) -> str:
        """Returns both sides' checkpoints in words, without a full stop."""
        return f"{self.label} serves {self.ours}, {self.baseline} {self.theirs}"


def note_checkpoints(checkpoints: Mapping[str, OtherCheckpoint]) -> str:
    """Returns what `†` beside a ratio means; begins with a blank unless empty."""
    notes = tell_checkpoints(checkpoints)
    return f" †: {'; '.join(notes)}." if notes else ""


def tell_checkpoints(checkpoints: Mapping[str, OtherCheckpoint]) -> tuple[str, ...]:
    """Returns which curves serve which other checkpoint, alike curves together, without full stops."""
    groups: dict[tuple[str, str], list[OtherCheckpoint]] = {}
    for item in checkpoints.values():
        groups.setdefault((item.ours, item.theirs), []).append(item)
    notes = []
    for (ours, theirs), items in groups.items():
        serve = "serves" if len(items) == 1 else "serve"
        note = f"{listed([item.label for item in items])} {serve} {ours}, {items[0].baseline} {theirs}"
        partner = next((item.partner_arm for item in items if item.partner_arm), None)
        if partner is not None:
            note += f" (--baseline {partner} compares on one checkpoint)"
        notes.append(note)
    return tuple(notes)


def find_checkpoints(baseline: Curve, others: Sequence[Curve]) -> Mapping[str, OtherCheckpoint]:
    """Returns the checkpoints of the curves that serve another one than the baseline, by their labels."""
    found = {}
    for other in others:
        sides = [{*curve.values("checkpoint")} - {None} for curve in (other, baseline)]
        if all(sides) and sides[0] != sides[1]:
            ours, theirs = (list_values(_told("checkpoint", value) for value in side) for side in sides)
            partner = next((each for each in others if each is not other and _is_partner(each, other)), None)
            found[other.label] = OtherCheckpoint(
                label=other.label,
                ours=ours,
                baseline=baseline.label,
                theirs=theirs,
                partner_arm=partner.arm if partner else None,
            )
    return found


def _is_partner(curve: Curve, other: Curve) -> bool:
    """Returns whether a curve is another one without speculation, on the same checkpoint."""
    return (
        curve.values("method") == (OFF,)
        and other.values("method") != (OFF,)
        and curve.values("checkpoint") == other.values("checkpoint")
    )


MIN_SAME_SHARE = 0.75
"""Below this share of equal answers a pair is flagged: more than batch-dependent rounding explains."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """An agreement compares one arm's answers with the baseline's.

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
        """Returns whether too few answers are the same."""
        return self.prompts > 0 and self.same < MIN_SAME_SHARE * self.prompts


def find_agreements(answers: Sequence[ArmAnswers], baseline: str) -> tuple[Agreement, ...]:
    """Compares each arm with the baseline, on the same topology where both have one, else on their first.

    An arm without answers gets no agreement: nothing is known of it.
    """
    answered = [item for item in answers if item.texts or item.score is not None]
    own = [item for item in answered if item.arm == baseline]
    by_topology = {item.topology: item for item in reversed(own)}
    agreements: dict[str, Agreement] = {}
    for item in answered if own else ():
        if item.arm == baseline:
            continue
        earlier = agreements.get(item.arm)
        if earlier and (item.topology not in by_topology or len(set(earlier.topologies)) == 1):
            continue
        agreements[item.arm] = hold_against(by_topology.get(item.topology, own[0]), item)
    return tuple(agreements.values())


def hold_against(base: ArmAnswers, other: ArmAnswers) -> Agreement:
    """Compares one pair of answers, prompt by prompt."""
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


def first_difference(text: str, other: str) -> int | None:
    """Returns the 0-based character at which two texts begin to differ; None where they are equal."""
    if text == other:
        return None
    pairs = enumerate(zip(text, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(text), len(other)))
