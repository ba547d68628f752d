"""The intervals as they were before shape and server starts were in them: the noise of runs alone.

The coverage study reads them off the same points, so that what honesty costs in width is a ratio of one run.
They are drawn as they were: the scatter of runs pooled over the recipes of a curve, else each run's time
blocks; both coordinates together; a front and Steffen's curve of each draw; the central share of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtpbench_analysis.curves.curve import Curve, Measured

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
DRAWS = 1000
FARTHEST_LOG = 80.0
_SEED = 20261124
Bounds = tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Fronts:
    """One front for each draw, padded on the right; `knots` says how long each is."""

    x: Floats
    y: Floats
    knots: Ints

    def read(self, targets: Floats) -> Floats:
        """(draws, targets): throughput; the best point's below a front, NaN above it."""
        last = self.knots[:, None] - 1
        left = np.full((len(self.x), len(targets)), -1, np.intp)
        for knot in self.x.T:
            left += knot[:, None] <= targets
        within = np.clip(left, 0, np.maximum(last - 1, 0))
        value = self._between(within, np.minimum(within + 1, last), targets)
        end = np.take_along_axis(self.x, last, 1)
        value = np.where(left < 0, self.y[:, :1], value)
        value = np.where(end == targets, np.take_along_axis(self.y, last, 1), value)
        read: Floats = np.where(targets > end, np.nan, value)
        return read

    def _between(self, left: Ints, right: Ints, targets: Floats) -> Floats:
        last = self.knots[:, None] - 1
        (x0, y0), (x1, y1) = self._at(left), self._at(right)
        with np.errstate(invalid="ignore", divide="ignore"):
            step = x1 - x0
            secant = (y1 - y0) / step
            before, after = left > 0, right < last
            slope0 = _steffen(*self._at(np.maximum(left - 1, 0)), x0, y0, x1, y1)
            slope1 = _steffen(x0, y0, x1, y1, *self._at(np.minimum(right + 1, last)))
            slope1 = np.where(after, slope1, (3 * secant - slope0) / 2)
            slope0 = np.where(before, slope0, (3 * secant - slope1) / 2)
            line = ~before & ~after
            slope0, slope1 = np.where(line, secant, slope0), np.where(line, secant, slope1)
            t = (targets - x0) / step
            value = (y0 * (1 + 2 * t) + slope0 * step * t) * (1 - t) ** 2
            value += (y1 * (3 - 2 * t) - slope1 * step * (1 - t)) * t * t
        clipped: Floats = np.clip(value, np.minimum(y0, y1), np.maximum(y0, y1))
        return clipped

    def _at(self, index: Ints) -> tuple[Floats, Floats]:
        return np.take_along_axis(self.x, index, 1), np.take_along_axis(self.y, index, 1)


def _steffen(x0: Floats, y0: Floats, x1: Floats, y1: Floats, x2: Floats, y2: Floats) -> Floats:
    h0, h1 = x1 - x0, x2 - x1
    s0, s1 = (y1 - y0) / h0, (y2 - y1) / h1
    mean = (s0 * h1 + s1 * h0) / (h0 + h1)
    sign = np.where(s0 < 0, -1.0, 1.0) + np.where(s1 < 0, -1.0, 1.0)
    slope: Floats = sign * np.minimum(np.minimum(np.abs(s0), np.abs(s1)), np.abs(mean) / 2)
    return slope


def draw_fronts(curve: Curve, stream: int) -> Fronts:
    """Draws the fronts of a curve under the noise of its runs alone."""
    random = np.random.default_rng([_SEED, stream])
    logs = np.log([(item.x, item.y) for item in curve.measured])
    errors = random.standard_normal((DRAWS, len(logs), 2))
    covariances, df, shared = _covariances(curve.measured)
    roots = np.array([_root(covariance) for covariance in covariances])
    shape = (DRAWS, 1 if shared else len(logs))
    scale = np.sqrt(random.chisquare(df, shape) / df)
    shifts = np.einsum("nij,dnj->dni", roots, errors) / scale[:, :, None]
    values = np.exp(np.clip(logs + shifts, -FARTHEST_LOG, FARTHEST_LOG))
    return _fronts(values[:, :, 0], values[:, :, 1])


def _covariances(measured: Sequence[Measured]) -> tuple[Floats, int, bool]:
    """Covariances of the logarithms of each point's mean, degrees of freedom, whether all share them."""
    total, df = np.zeros((2, 2)), 0
    for item in measured:
        logs = np.log([(run.interactivity_tps, run.tput_tps_per_gpu) for run in item.runs])
        residuals = logs - logs.mean(axis=0)
        total += residuals.T @ residuals
        df += len(item.runs) - 1
    if df:
        return np.array([total / df / len(item.runs) for item in measured]), df, True
    return np.array([_of_blocks(item) for item in measured]), int(measured[0].runs[0].se_df or 0), False


def _of_blocks(item: Measured) -> Floats:
    run = item.runs[0]
    x, y = run.interactivity_rel_se or 0.0, run.tput_rel_se or 0.0
    both = (run.rel_se_correlation or 0.0) * x * y
    return np.array([[x * x, both], [both, y * y]])


def _root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    root: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def _fronts(x: Floats, y: Floats) -> Fronts:
    order = np.lexsort((y, x), axis=1)
    x, y = np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1)
    best_right = np.maximum.accumulate(y[:, ::-1], axis=1)[:, ::-1]
    after = np.concatenate([best_right[:, 1:], np.full((len(y), 1), -np.inf)], axis=1)
    on_front = y > after
    first = np.argsort(~on_front, axis=1, kind="stable")
    knots = on_front.sum(axis=1)
    x, y = np.take_along_axis(x, first, 1), np.take_along_axis(y, first, 1)
    padding = np.arange(x.shape[1]) >= knots[:, None]
    return Fronts(np.where(padding, np.inf, x), np.where(padding, -np.inf, y), knots)


def bounds(drawn: Floats, confidence: float = 0.95) -> Bounds:
    """The central interval of some draws; None where more than a tail of them has no value."""
    finite = drawn[np.isfinite(drawn)]
    tail = (1 - confidence) / 2
    if len(drawn) - len(finite) > tail * len(drawn):
        return None
    low, high = np.quantile(finite, (tail, 1 - tail))
    return float(low), float(high)


def crossing_bounds(sides: Sequence[Fronts], overlap: tuple[float, float]) -> Bounds:
    """The interval of the interactivity at which two curves serve the same."""
    baseline, other = sides
    places = np.linspace(*overlap, 33)
    difference = other.read(places) - baseline.read(places)
    changes = np.sign(difference[:, 1:]) * np.sign(difference[:, :-1]) < 0
    rows = np.flatnonzero(changes.sum(axis=1) == 1)
    at = np.full(len(difference), np.nan)
    column = changes[rows].argmax(axis=1)
    before, after = difference[rows, column], difference[rows, column + 1]
    at[rows] = places[column] + (places[column + 1] - places[column]) * before / (before - after)
    return bounds(at)


@dataclass(frozen=True, eq=False)
class Fastest:
    """The draws of a front, read to ask them for the highest interactivity with a throughput."""

    places: Floats
    read: Floats

    @classmethod
    def of(cls, drawn: Fronts, ends: tuple[float, float]) -> Fastest:
        places = np.linspace(*ends, 66)
        return cls(places, drawn.read(places))

    def bounds(self, needed: float) -> Bounds:
        """The interval of that interactivity."""
        enough = np.nan_to_num(self.read, nan=-1.0) >= needed
        last = enough.shape[1] - 1 - enough[:, ::-1].argmax(axis=1)
        rows = np.flatnonzero(enough.any(axis=1) & (last < len(self.places) - 1))
        above, below = self.read[rows, last[rows]], self.read[rows, last[rows] + 1]
        share = np.where(np.isnan(below), 0.0, (above - needed) / (above - below))
        at = np.full(len(self.read), np.nan)
        at[rows] = self.places[last[rows]] + (self.places[1] - self.places[0]) * share
        return bounds(at)
