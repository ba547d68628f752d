"""Pure: one baseline curve against others at matched interactivity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from mtpbench.errors import InputError, NotComparable
from mtpbench.records import Reference
from mtpbench_analysis.curves.break_even import (
    BreakEven,
    NoProjection,
    StepCosts,
    find_break_evens,
    find_step_costs,
)
from mtpbench_analysis.curves.cells import DEFAULT_MAX_GAP, Cell
from mtpbench_analysis.curves.confounds import (
    Agreement,
    Confound,
    OtherCheckpoint,
    acceptance_warnings,
    find_acceptance_caveats,
    find_checkpoints,
    find_confounds,
    find_length_mismatch,
    find_pooling,
    speculates,
)
from mtpbench_analysis.curves.cost import Economics, NoConstants
from mtpbench_analysis.curves.crossings import Crossing, Lead, find_crossings, find_leads
from mtpbench_analysis.curves.curve import WORKLOAD_FIELDS, Curve, relabel
from mtpbench_analysis.curves.curve_reader import DEFAULT_CONFIDENCE, CurveReader, interval_of
from mtpbench_analysis.curves.errors import START_NOISE, check_noise
from mtpbench_analysis.curves.ratios import Ratio, ratio_of
from mtpbench_analysis.frame import CurvePoint

TargetRule = Literal["given", "overlap", "union"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of one target has a cell per curve, the baseline's first, and a ratio per curve after it."""

    target_tps: float
    cells: tuple[Cell, ...]
    ratios: tuple[Ratio, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownConfound:
    """A known confound is what a sweep's plan says that an arm differs in beyond speculation.

    Args:
        text: the sentence, which names the arm itself.
        arm: whose it is; None where an older version planned, so that it may be any arm's.
        against: the arm that the plan set it against; None where that is the baseline of the comparison.
    """

    text: str
    arm: str | None = None
    against: str | None = None

    @property
    def sentence(self) -> str:
        """Returns the sentence, with what it is set against where that is not the baseline."""
        return self.text if self.against is None else f"{self.text} (planned against {self.against})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The settings say how curves are compared.

    Args:
        targets_tps: interactivities to read the curves at; empty for the default targets.
        max_gap: withhold a ratio across a gap whose knots' throughputs differ by more than this factor.
        economics: the constants for cost and megawatts, or None where the hardware has none.
        confidence: of every interval.
        start_noise: how far two starts of one server are taken to differ, as a share.
        strict: refuse curves that differ in more than speculation, or whose measured acceptance has a
            caveat.
        known_confounds: what the sweep's plan says differs beyond speculation.
        reference: published numbers to print beside.
        agreements: whether the arms of the sweep answer the same, where they were given the same prompts.
        what_if: acceptance lengths to project drafting curves to, beside what was measured.
    """

    targets_tps: tuple[float, ...] = ()
    max_gap: float = DEFAULT_MAX_GAP
    economics: Economics | None = None
    confidence: float = DEFAULT_CONFIDENCE
    start_noise: float = START_NOISE
    strict: bool = False
    known_confounds: tuple[KnownConfound, ...] = ()
    reference: Reference | None = None
    agreements: tuple[Agreement, ...] = ()
    what_if: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison reads a baseline and other curves of one workload at the same targets.

    Args:
        target_rule: `given`, `overlap` (quartiles of the range that all fronts share) or `union`.
        confounds: by the label of a curve, what its points differ in from the baseline's beyond speculation;
            `known_confounds` has what the sweep's plan says besides.
        checkpoints: by the label of a curve that serves another target checkpoint than the baseline, which
            ones they are.
        warnings: what is true of the acceptance and should make a reader careful.
        pooling: what a single curve mixes (several images, say), one sentence each.
        readers: the curves with their noise, the baseline first.
        invalid: points of this workload that entered no curve, each with its reasons.
    """

    baseline: Curve
    others: tuple[Curve, ...]
    rows: tuple[Row, ...]
    target_rule: TargetRule
    settings: Settings
    confounds: Mapping[str, tuple[str, ...]]
    checkpoints: Mapping[str, OtherCheckpoint]
    warnings: tuple[str, ...]
    pooling: tuple[str, ...] = ()
    readers: tuple[CurveReader, ...] = ()
    invalid: tuple[CurvePoint, ...] = ()

    @property
    def curves(self) -> tuple[Curve, ...]:
        """Returns all curves, the baseline first."""
        return (self.baseline, *self.others)

    @cached_property
    def crossings(self) -> Mapping[str, tuple[Crossing, ...]]:
        """Returns where each curve and the baseline serve the same, by the curve's label."""
        base, *others = self.readers
        return {reader.curve.label: find_crossings(base, reader) for reader in others}

    @cached_property
    def leads(self) -> tuple[Lead, ...]:
        """Returns which curve serves the most, by ranges of interactivity; winners are indices into
        `curves`.
        """
        return find_leads(self.readers)

    @cached_property
    def step_costs(self) -> Mapping[str, StepCosts | NoProjection]:
        """Returns what a step of each curve costs, or why nothing tells it, by the curve's label."""
        return {other.label: find_step_costs(other, self.baseline) for other in self.others}

    @cached_property
    def break_evens(self) -> Mapping[str, tuple[BreakEven, ...]]:
        """Returns the acceptance lengths below which a curve stops paying, one for each target, by the label
        of each curve whose steps are known.
        """
        cells = [row.cells[0] for row in self.rows]
        return {
            reader.curve.label: find_break_evens(self.readers[0], reader, costs, cells)
            for reader in self.readers[1:]
            if isinstance(costs := self.step_costs[reader.curve.label], StepCosts)
        }

    @property
    def constants(self) -> Economics | NoConstants:
        """Returns the constants that cost and megawatts are derived with, or that there are none."""
        return self.settings.economics or NoConstants(hardware=self.baseline.shared("hardware"))

    @property
    def simulated(self) -> bool:
        """Returns whether any point was simulated."""
        return any(curve.shared("simulated") for curve in self.curves)

    @property
    def speculating(self) -> tuple[Curve, ...]:
        """Returns the curves that draft tokens."""
        return tuple(c for c in self.curves if speculates(c, self.baseline.arm))

    def name_ratio(self, index: int) -> str:
        """Returns a ratio's name, `MTP / Off`; with `†` where the curve serves another checkpoint."""
        label = self.others[index].label
        return f"{label} / {self.baseline.label}{'†' if label in self.checkpoints else ''}"

    def known_confounds(self, curve: Curve | None = None) -> tuple[str, ...]:
        """Returns what the sweep's plan says of the arms that are compared, or of one curve and the baseline:
        each sentence once.
        """
        arms = {each.arm for each in ((self.baseline, curve) if curve else self.curves)}
        known = [each for each in self.settings.known_confounds if each.arm is None or each.arm in arms]
        return tuple(dict.fromkeys(each.sentence for each in known))

    @property
    def agreements(self) -> tuple[Agreement, ...]:
        """Returns the agreements of the arms that are compared here."""
        arms = {other.arm for other in self.others}
        return tuple(item for item in self.settings.agreements if item.arm in arms)


def compare(baseline: Curve, others: Sequence[Curve], settings: Settings | None = None) -> Comparison:
    """Compares `others` with `baseline`.

    Raises:
        NotComparable: a curve differs from the baseline in hardware, model, precision or workload.
        InputError: there is nothing to compare, or a target or the factor is not a positive number.
    """
    settings = settings or Settings()
    _check(baseline, others, settings)
    labelled = relabel([baseline, *others])
    baseline, others = labelled[0], labelled[1:]
    confounds = {other.label: find_confounds(baseline, other) for other in others}
    if settings.strict:
        _refuse_confounds(baseline, confounds)
        _refuse_caveats(labelled)
    targets, rule = _targets(settings, labelled)
    readers = read_curves(labelled, settings)
    return Comparison(
        baseline=baseline,
        others=tuple(others),
        rows=_rows(readers, targets, settings),
        target_rule=rule,
        settings=settings,
        confounds={
            label: tuple(dict.fromkeys(confound.text for confound in of_curve))
            for label, of_curve in confounds.items()
        },
        checkpoints=find_checkpoints(baseline, others),
        warnings=acceptance_warnings(baseline, others),
        pooling=tuple(sentence for curve in labelled for sentence in find_pooling(curve)),
        readers=readers,
    )


def read_curves(curves: Sequence[Curve], settings: Settings) -> tuple[CurveReader, ...]:
    """Returns a reader of each curve of one comparison; each reader draws its own noise."""
    return tuple(
        CurveReader(
            curve=curve,
            economics=settings.economics,
            max_gap=settings.max_gap,
            confidence=settings.confidence,
            start_noise=settings.start_noise,
            stream=stream,
        )
        for stream, curve in enumerate(curves)
    )


def _rows(readers: Sequence[CurveReader], targets: Sequence[float], settings: Settings) -> tuple[Row, ...]:
    drawn = [reader.drawn(targets) for reader in readers]
    columns = [reader.cells(targets, draws) for reader, draws in zip(readers, drawn, strict=True)]
    rows = []
    for at, (target, *cells) in enumerate(zip(targets, *columns, strict=True)):
        ratios = []
        for cell, draws in zip(cells[1:], drawn[1:], strict=True):
            ratio = ratio_of(cell, cells[0], settings.max_gap)
            if ratio.value is not None and (cell.interval or cells[0].interval):
                quotient = draws[:, at] / drawn[0][:, at]
                ratio = replace(ratio, interval=interval_of(quotient, settings.confidence))
            ratios.append(ratio)
        rows.append(Row(target_tps=target, cells=tuple(cells), ratios=tuple(ratios)))
    return tuple(rows)


def _refuse_confounds(baseline: Curve, confounds: Mapping[str, tuple[Confound, ...]]) -> None:
    """Refuses curves with confounds, but for another day alone; what a sweep's plan declares belongs to the
    arm.
    """
    texts = dict.fromkeys(
        f"{label}: {confound.text}"
        for label, of_curve in confounds.items()
        for confound in of_curve
        if confound.field != "date"
    )
    if texts:
        lines = "".join(f"\n  - {text}" for text in texts)
        raise NotComparable(
            f"--strict: {baseline.label} and what is set against it differ in more than speculation:{lines}"
        )


def _refuse_caveats(curves: Sequence[Curve]) -> None:
    """Refuses drafting curves whose acceptance was measured where it is not that of real use."""
    drafting = [curve for curve in curves if speculates(curve, curves[0].arm)]
    if caveats := find_acceptance_caveats(drafting):
        raise NotComparable("--strict: " + "".join(f"\n  - {caveat}" for caveat in caveats))


def _targets(settings: Settings, curves: Sequence[Curve]) -> tuple[tuple[float, ...], TargetRule]:
    if settings.targets_tps:
        return settings.targets_tps, "given"
    # The others together are one side, as on the page: a one-point curve must not decide the targets.
    others = [curve.range_tps for curve in curves[1:]]
    side = min(low for low, _ in others), max(high for _, high in others)
    return default_targets([curves[0].range_tps, side])


def default_targets(
    ranges: Sequence[tuple[float, float]],
) -> tuple[tuple[float, ...], TargetRule]:
    """Returns the quartiles of the interactivities that all fronts share, or of their union where they share
    none.

    Rounded half up to whole tokens per second (13.5 is 14), as the page does; a range too narrow for three
    whole numbers keeps the decimals that tell its quartiles apart.

    Args:
        ranges: (lowest, highest) interactivity of each front.
    """
    low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
    rule: TargetRule = "overlap"
    if low >= high:
        low, high, rule = min(r[0] for r in ranges), max(r[1] for r in ranges), "union"
    exact = [low + (high - low) * share for share in (0.25, 0.5, 0.75)]
    if low == high:
        return (low,), rule
    for decimals in range(9):
        rounded = [_round_half_up(value, decimals) for value in exact]
        if len(set(rounded)) == 3 and low <= rounded[0] and rounded[-1] <= high:
            return tuple(rounded), rule
    # Too narrow even for nine decimals: what floating point can still tell apart.
    return tuple(sorted(set(exact))), rule


def _round_half_up(value: float, decimals: int) -> float:
    scale = 10.0**decimals
    return math.floor(value * scale + 0.5) / scale


def _check(baseline: Curve, others: Sequence[Curve], settings: Settings) -> None:
    if not others:
        raise InputError(f"nothing to compare {baseline.label} with")
    for target in settings.targets_tps:
        if not (math.isfinite(target) and target > 0):
            raise InputError(f"target {target:g}: an interactivity above 0 tok/s/user is needed")
    check_noise(settings.confidence, settings.start_noise)
    if not (math.isfinite(settings.max_gap) and settings.max_gap >= 1):
        raise InputError(f"the largest gap {settings.max_gap:g} must be a factor of at least 1")
    for other in others:
        differing = [
            f"{name} ({baseline.shared(name)!s} and {other.shared(name)!s})"
            for name in WORKLOAD_FIELDS
            if baseline.shared(name) != other.shared(name)
        ]
        if differing:
            raise NotComparable(
                f"{baseline.label} and {other.label} can't be compared: they differ in {', '.join(differing)}"
            )
        if mismatch := find_length_mismatch(baseline, other):
            raise NotComparable(f"{baseline.label} and {other.label} can't be compared: {mismatch}")
