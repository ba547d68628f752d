"""Pure: whether speculation changed the answers: greedy texts of both arms side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtpbench_analysis.frame import ArmAnswers

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
