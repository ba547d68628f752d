"""Pure: the verdict on each change; there is none where the data could not have shown a change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from mtpbench.errors import InputError, NotComparable
from mtpbench_analysis.curves.cells import Interval
from mtpbench_analysis.curves.curve import display_name
from mtpbench_analysis.curves.errors import START_NOISE, check_noise
from mtpbench_analysis.frame import PointSet, Unused
from mtpbench_analysis.metric import Metric
from mtpbench_analysis.metric_table import metrics_in
from mtpbench_analysis.regression.estimates import Estimate, estimate_group, estimate_recipes
from mtpbench_analysis.regression.matching import Matched, match
from mtpbench_analysis.regression.paired_runs import IntArray, PairedRuns, pair_runs, per_sweep
from mtpbench_analysis.regression.power import Plan, fewest, smallest_effect, t_quantile, two_sided_p

Verdict = Literal["slower", "faster", "no change", "no power", "undecided"]
Level = Literal["all", "arm", "recipe"]

_GATED = ("tput_tps_per_gpu", "interactivity_tps")


@dataclass(frozen=True, kw_only=True, slots=True)
class Criteria:
    """The criteria say which change matters, and how surely it must be known.

    Args:
        threshold: the change that matters, as a share.
        confidence: of every interval, and 1 minus the level of every test.
        power: the chance with which a change of the threshold must be found.
        start_noise: how far two starts of one server are taken to differ, as a share. An assumption; where
            few starts were measured it counts as some of them.
    """

    threshold: float = 0.03
    confidence: float = 0.95
    power: float = 0.8
    start_noise: float = START_NOISE

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise InputError(
                f"threshold {self.threshold * 100:g}%: a change above 0% and below 100% is needed"
            )
        check_noise(self.confidence, self.start_noise)
        if not 0.5 <= self.power < 1:
            raise InputError(f"power {self.power:g}: a share from 0.5 to below 1, such as 0.8, is needed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A finding is the change of one metric over all recipes, one arm's, or one recipe.

    Args:
        of: `all`, the arm's display name, or the recipe.
        recipes: how many it is the mean of.
        change: new / old − 1 (of the geometric mean).
        interval: of the change; simultaneous (Bonferroni) over the arms, over the recipes. None where
            the error is unknown.
        p: two-sided, adjusted by Holm over the arms, over the recipes.
        smallest: the smallest change for the worse, as a share, that the criteria's power would find.
        plan: the test of further sweeps; None where the error is unknown.
        old, new: geometric means of the metric.
    """

    metric: Metric
    level: Level
    of: str
    recipes: int
    change: float
    old: float
    new: float
    verdict: Verdict
    interval: Interval | None = None
    p: float | None = None
    smallest: float | None = None
    plan: Plan | None = None
    estimate: Estimate | None = None

    @property
    def title(self) -> str:
        """Returns the metric's name in a regression."""
        return self.metric.label_in("regress")

    @property
    def sweeps_needed(self) -> int | None:
        """Returns how many sweeps of each side find the threshold, and see that nothing changed; None for
        more than 100 or unknown.
        """
        return None if self.plan is None else self.plan.sweeps_needed


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A regression holds the findings of two sides.

    Args:
        left_out: what is on one side only, invalid, or lacks runs.
    """

    criteria: Criteria
    matched: Matched
    findings: tuple[Finding, ...]
    left_out: tuple[Unused, ...]

    def select(self, level: Level, name: str | None = None) -> tuple[Finding, ...]:
        """Returns the findings of one level, of one metric or of all."""
        return tuple(f for f in self.findings if f.level == level and name in (None, f.metric.id))

    @property
    def untested(self) -> tuple[str, ...]:
        """Returns the recipes of both sides whose throughput was not tested, because runs of theirs are
        missing.
        """
        tested = {finding.of for finding in self.select("recipe", "tput_tps_per_gpu")}
        return tuple(label for label in self.matched.labels if label not in tested)

    @property
    def gate(self) -> tuple[str, ...]:
        """Returns why a gate must not open; empty where it may."""
        reasons = [f"{recipe}: no valid run in the new sweep" for recipe in self.matched.broken]
        reasons += [f"{recipe}: runs are missing, so it was not tested" for recipe in self.untested]
        reasons += self.matched.unfinished
        for finding in self.findings:
            blind = finding.verdict == "no power" and finding.level != "recipe"
            if finding.metric.id in _GATED and (finding.verdict == "slower" or blind):
                reasons.append(f"{finding.of}, {finding.metric.label_in('regress')}: {finding.verdict}")
        return tuple(reasons)

    @property
    def is_blind(self) -> bool:
        """Returns whether a slowdown of what the gate looks at could not have been seen."""
        return any(finding.verdict == "no power" for finding in self._gated)

    @property
    def _gated(self) -> list[Finding]:
        return [f for f in self.findings if f.metric.id in _GATED and f.level != "recipe"]

    @cached_property
    def sweeps_needed(self) -> int | None:
        """Returns how many sweeps of each side open the gate with the criteria's power where nothing changed;
        None for more than 100, or where the noise is unknown.

        As if the findings had nothing to do with each other, which needs rather more than they do.
        """
        plans = [finding.plan for finding in self._gated]
        if None in plans:
            return None

        def opens(sweeps: int) -> bool:
            return math.prod(1 - plan.play(sweeps).blind for plan in plans if plan) >= self.criteria.power

        return fewest(opens)


def find_regression(
    old: Sequence[PointSet], new: Sequence[PointSet], criteria: Criteria | None = None
) -> Regression:
    """Tests the changes from the old sweeps to the new ones.

    Args:
        old: the sweeps of the old side, one `PointSet` for each.
        new: those of the new side.
        criteria: None for the defaults.

    Raises:
        NotComparable: nothing matches, simulated and measured are mixed, or the noise is unknown.
    """
    criteria = criteria or Criteria()
    matched = match(old, new)
    findings: list[Finding] = []
    left_out = list(matched.left_out)
    labels = matched.labels
    for metric in metrics_in("regress"):
        pairs, missing = pair_runs(matched.recipes, metric)
        left_out += [
            Unused(
                what=labels[i],
                reason=f"{metric.label_in('regress')}: runs of other rounds are missing",
                kind="unpaired",
            )
            for i in missing
        ]
        if pairs is not None:
            findings += _of_metric(matched, pairs, metric, criteria)
    if not any(f.estimate for f in findings if f.metric.id in _GATED):
        raise NotComparable(_why_undecidable(matched))
    return Regression(criteria=criteria, matched=matched, findings=tuple(findings), left_out=tuple(left_out))


def _why_undecidable(matched: Matched) -> str:
    count = len(matched.recipes)
    pairs = "1 recipe is" if count == 1 else f"{count} recipes are"
    return (
        f"nothing tells how far another run would fall: {pairs} on both sides, with too few runs. Needed: "
        "several sweeps of a side (--old, --new; at least 2 and 2, or 3 and 1), or repeats of each recipe "
        "(at least 2 and 2), or single runs of at least 4 recipes of one arm"
    )


def _of_metric(matched: Matched, pairs: PairedRuns, metric: Metric, criteria: Criteria) -> list[Finding]:
    everything = np.arange(len(pairs.recipes))
    # A server start moves speeds; what share of the drafts is right is the model's and the prompts' matter.
    noise = 0.0 if metric.explains else criteria.start_noise
    groups = [np.flatnonzero(pairs.arms == arm) for arm in np.unique(pairs.arms)]
    names = [display_name(matched.recipes[pairs.recipes[group[0]]].arm) for group in groups]
    every_label = matched.labels
    labels = [every_label[i] for i in pairs.recipes]
    overall = _finding(pairs, metric, everything, estimate_group(pairs, everything, noise))
    arms = [_finding(pairs, metric, g, estimate_group(pairs, g, noise)) for g in groups]
    recipes = [
        _finding(pairs, metric, np.array([i]), estimate)
        for i, estimate in enumerate(estimate_recipes(pairs, noise))
    ]
    return [
        *_judge([replace(overall, of="all", level="all")], criteria),
        *_judge([replace(f, of=name, level="arm") for f, name in zip(arms, names, strict=True)], criteria),
        *_judge([replace(f, of=label) for f, label in zip(recipes, labels, strict=True)], criteria),
    ]


def _finding(pairs: PairedRuns, metric: Metric, members: IntArray, estimate: Estimate | None) -> Finding:
    sides = ((pairs.old, pairs.old_sweeps), (pairs.new, pairs.new_sweeps))
    old, new = (math.exp(per_sweep(side, sweeps)[:, members].mean()) for side, sweeps in sides)
    return Finding(
        metric=metric,
        level="recipe",
        of="",
        recipes=len(members),
        change=math.expm1(float(pairs.ratios[members].mean())),
        old=old,
        new=new,
        verdict="no power",
        estimate=estimate,
    )


def _judge(family: Sequence[Finding], criteria: Criteria) -> list[Finding]:
    """Returns the verdicts of tests that are read together: Holm's for a change, Bonferroni's for the
    intervals.
    """
    raw = [_p(f.estimate) if f.estimate else 1.0 for f in family]
    alpha = (1 - criteria.confidence) / len(family)
    return [
        finding
        if finding.estimate is None
        else _decide(replace(finding, p=p), finding.estimate, alpha, criteria)
        for finding, p in zip(family, holm(raw), strict=True)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """Returns the p values of a family, adjusted so that the chance of any false finding stays below the
    level.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, p[i] * (len(p) - rank)))
        adjusted[i] = largest
    return adjusted


def _p(estimate: Estimate) -> float:
    if estimate.se == 0:
        return 1.0 if estimate.effect == 0 else 0.0
    return two_sided_p(estimate.effect / estimate.se, estimate.df)


def _decide(finding: Finding, estimate: Estimate, alpha: float, criteria: Criteria) -> Finding:
    half = t_quantile(1 - alpha / 2, estimate.df) * estimate.se
    low, high = math.expm1(estimate.effect - half), math.expm1(estimate.effect + half)
    least = smallest_effect(estimate.df, alpha, criteria.power) * estimate.se
    more_is_better = finding.metric.better == "higher"
    # The change for the worse that lies so far from none: −3% of a throughput, +3% of a latency.
    smallest = -math.expm1(-least) if more_is_better else math.expm1(least)
    limit = -math.log1p(-criteria.threshold) if more_is_better else math.log1p(criteria.threshold)
    significant = finding.p is not None and finding.p < 1 - criteria.confidence
    verdict: Verdict
    if significant and abs(finding.change) >= criteria.threshold:
        verdict = "faster" if (finding.change > 0) == more_is_better else "slower"
    elif -criteria.threshold < low and high < criteria.threshold:
        verdict = "no change"
    elif smallest > criteria.threshold:
        verdict = "no power"
    else:
        verdict = "undecided"
    return replace(
        finding,
        verdict=verdict,
        interval=Interval(low=low, high=high, confidence=1 - alpha),
        smallest=smallest,
        plan=Plan(unit=estimate.unit, limit=limit, alpha=alpha, power=criteria.power),
    )
