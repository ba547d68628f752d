"""Pure: one recipe in two arms, and what speculation does to it.

Both arms of a sweep send the same requests to the same recipe, so what its prompts and lengths do to a run
they do to both: the ratio of two runs of one repeat scatters less than either. At equal interactivity two
sides stand on different recipes, which share no requests; nothing is paired there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtpbench_analysis.curves.cells import Interval
from mtpbench_analysis.curves.curve import Curve, Measured
from mtpbench_analysis.curves.curve_reader import CurveReader
from mtpbench_analysis.curves.errors import FloatArray
from mtpbench_analysis.curves.noise import LEAST_SCALE
from mtpbench_analysis.frame import LOAD_FIELDS

_RECIPE = ("topology", *LOAD_FIELDS, "gpus")


@dataclass(frozen=True, kw_only=True, slots=True)
class Twins:
    """Twins are one recipe (topology, concurrency, GPUs) that both a curve and its baseline measured.

    `gain_per_accepted` is the gain in interactivity over the acceptance length: 1 would mean that every
    accepted draft is a whole step saved, which is the ideal; what is missing went into drafting, verifying
    and larger steps. NULL where the acceptance length is unknown.

    Args:
        interactivity_interval, tput_interval: of the ratios; None where nothing tells the noise of runs.
        paired: whether they rest on the ratios of runs of one repeat.
    """

    label: str
    recipe: str
    baseline: Measured
    other: Measured
    interactivity_interval: Interval | None = None
    tput_interval: Interval | None = None
    paired: bool = False

    @property
    def interactivity_ratio(self) -> float:
        """Returns the tok/s/user of the curve over the baseline's."""
        return self.other.x / self.baseline.x

    @property
    def tput_ratio(self) -> float:
        """Returns the tok/s/GPU of the curve over the baseline's."""
        return self.other.y / self.baseline.y

    @property
    def gain_per_accepted(self) -> float | None:
        """Returns the share of the ideal gain that was reached."""
        mean = self.other.mean
        # The ideal is what a step gives, and steps that drafted nothing are steps too.
        length = mean.tokens_per_step if mean.drafting_steps_only else mean.acceptance_length
        return None if not length else self.interactivity_ratio / length


def find_twins(baseline: CurveReader, others: Sequence[CurveReader]) -> tuple[Twins, ...]:
    """Returns every recipe of a curve that its baseline has once too, curve by curve, in the order of the
    concurrency.
    """
    pairs: list[Twins] = []
    for other in others:
        pairs += sorted(_twins(baseline, other), key=_by_load)
    return tuple(pairs)


def _by_load(pair: Twins) -> tuple[float, float, float]:
    mean = pair.other.mean
    return mean.concurrency or 0, mean.rate_rps or 0, -pair.other.x


def _twins(baseline: CurveReader, other: CurveReader) -> list[Twins]:
    ours, theirs = _by_recipe(other.curve), _by_recipe(baseline.curve)
    shared = [
        (item, base)
        for recipe, item in ours.items()
        if item is not None and (base := theirs.get(recipe)) is not None
    ]
    paired = _paired_errors(shared)
    twins = []
    for i, (item, base) in enumerate(shared):
        error = paired[i] if paired else _unpaired_error((other, item), (baseline, base))
        starts = _start_variance(other, item) + _start_variance(baseline, base)
        intervals = [
            None if error is None else _interval(ratio, error[0][axis], error[1], starts, baseline.confidence)
            for axis, ratio in enumerate((item.x / base.x, item.y / base.y))
        ]
        twins.append(
            Twins(
                label=other.curve.label,
                recipe=item.mean.recipe,
                baseline=base,
                other=item,
                interactivity_interval=intervals[0],
                tput_interval=intervals[1],
                paired=paired is not None,
            )
        )
    return twins


_Error = tuple[FloatArray, float]
"""(2,) variances of the logarithms of both ratios, and their degrees of freedom."""


def _paired_errors(shared: Sequence[tuple[Measured, Measured]]) -> list[_Error] | None:
    """Returns the errors of the ratios by their scatter over repeats; None unless all are in both arms.

    The scatter is pooled over the recipes, in units of what time blocks tell of each where all have some.
    """
    logs = [_repeat_ratios(item, base) for item, base in shared]
    if not logs or any(ratios is None for ratios in logs):
        return None
    known = [ratios for ratios in logs if ratios is not None]
    df = sum(len(ratios) - 1 for ratios in known)
    if not df:
        return None
    scales = [_scale(item, base) for item, base in shared]
    if any(scale is None for scale in scales):
        scales = [np.ones(2)] * len(scales)
    units = [scale for scale in scales if scale is not None]
    total = np.zeros(2)
    for ratios, unit in zip(known, units, strict=True):
        total += (((ratios - ratios.mean(axis=0)) / unit) ** 2).sum(axis=0)
    return [(total / df * unit**2 / len(ratios), df) for ratios, unit in zip(known, units, strict=True)]


def _repeat_ratios(item: Measured, base: Measured) -> FloatArray | None:
    """Returns (repeats, 2) logarithms of the ratios; None where the repeats of both are not the same."""
    ours, theirs = ({run.repeat: run for run in side.runs} for side in (item, base))
    if None in ours or ours.keys() != theirs.keys() or len(ours) < len(item.runs):
        return None
    if len(theirs) < len(base.runs):
        return None
    ratios: FloatArray = np.log(
        [
            (run.interactivity_tps / other.interactivity_tps, run.tput_tps_per_gpu / other.tput_tps_per_gpu)
            for run, other in ((ours[number], theirs[number]) for number in ours)
        ]
    )
    return ratios


def _scale(item: Measured, base: Measured) -> FloatArray | None:
    errors = [(run.interactivity_rel_se, run.tput_rel_se) for run in (*item.runs, *base.runs)]
    squares = [(x * x, y * y) for x, y in errors if x is not None and y is not None]
    if len(squares) < len(errors):
        return None
    scale: FloatArray = np.maximum(np.sqrt(np.mean(squares, axis=0)), LEAST_SCALE)
    return scale


def _unpaired_error(*sides: tuple[CurveReader, Measured]) -> _Error | None:
    variance, spent = np.zeros(2), np.zeros(2)
    for reader, item in sides:
        noise = reader.noise.runs[reader.curve.place_of(item)]
        if noise is None:
            return None
        own = np.diag(noise.covariance)
        variance = variance + own
        spent = spent + own**2 / noise.df
    df = variance**2 / np.where(spent > 0, spent, 1.0)
    return variance, float(np.where(spent > 0, df, np.inf).min())


def _start_variance(reader: CurveReader, item: Measured) -> float:
    """Returns the variance of a point by its starts, where its runs' scatter does not hold it already."""
    starts = reader.noise.starts
    shares = starts.membership[reader.curve.place_of(item)]
    if len(item.runs) > 1 and (shares > 0).sum() == len(item.runs):
        return 0.0
    return float((shares**2).sum()) * starts.sd**2


def _interval(ratio: float, variance: float, df: float, starts: float, confidence: float) -> Interval:
    from scipy import special  # type: ignore[import-untyped]  # only this needs it, and it starts slowly

    total = variance + starts
    # The starts' variance counts as known (Welch-Satterthwaite).
    freedom = math.inf if variance == 0 else df * (total / variance) ** 2
    share = (1 + confidence) / 2
    reach = float(special.ndtri(share) if freedom > 1e6 else special.stdtrit(freedom, share))
    far = math.exp(min(reach * math.sqrt(total), 50.0))
    return Interval(low=ratio / far, high=ratio * far, confidence=confidence)


def _by_recipe(curve: Curve) -> dict[tuple[Any, ...], Measured | None]:
    """Returns a curve's points by recipe; None for a recipe that stands twice (a pooled curve)."""
    recipes: dict[tuple[Any, ...], Measured | None] = {}
    for item in curve.measured:
        if item.mean.concurrency is None:
            continue
        recipe = tuple(getattr(item.mean, name) for name in _RECIPE)
        recipes[recipe] = None if recipe in recipes else item
    return recipes
