"""Pure: a curve between its knots: its pieces, and its band of confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mtpbench_analysis.curves.curve_reader import CurveReader, interval_of
from mtpbench_analysis.curves.noise import FloatArray
from mtpbench_analysis.metric import Metric

_STEPS, _BAND_STEPS = 20, 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """The curve between two neighbouring knots; `wide` where they are too far apart for a ratio."""

    x: FloatArray
    y: FloatArray
    wide: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Band:
    """Where the curve lies with the comparison's confidence: (n,) places and both edges."""

    x: FloatArray
    low: FloatArray
    high: FloatArray


def metric_pieces(reader: CurveReader, metric: Metric) -> tuple[Piece, ...]:
    """The curve of a metric, a piece between each two knots of the front; none where it is unknown there."""
    pieces = []
    for lower, upper in pairwise(reader.curve.front):
        places = _between(lower.x, upper.x)
        values = _values(reader, metric, places)
        known = np.isfinite(values)
        if known.sum() > 1:
            wide = lower.y / upper.y > reader.max_gap
            pieces.append(Piece(x=places[known], y=values[known], wide=wide))
    return tuple(pieces)


def gain_pieces(reader: CurveReader, base: CurveReader) -> tuple[Piece, ...]:
    """Throughput over the baseline's, where both fronts reach."""
    shared = _shared_range(reader, base)
    if shared is None:
        return ()
    pieces = []
    for low, high in pairwise(_knots_within([reader, base], *shared)):
        places = _between(low, high)
        middle = [(low + high) / 2]
        wide = any(one.cells(middle, one.serves(middle)[None, :])[0].wide_gap for one in (reader, base))
        pieces.append(Piece(x=places, y=reader.serves(places) / base.serves(places), wide=wide))
    return tuple(pieces)


def metric_band(reader: CurveReader, metric: Metric) -> Band | None:
    """The band of throughput, or of what follows from it alone; None where no noise is known."""
    low, high = reader.curve.range_tps
    if not reader.is_sure or low == high or not metric.follows_throughput or metric.quotient is None:
        return None
    places = _band_places([reader], low, high)
    return _edges(places, metric.quotient.scaled(reader.drawn(places), reader.economics), reader)


def gain_band(reader: CurveReader, base: CurveReader) -> Band | None:
    """The band of throughput over the baseline's, where both fronts reach; None for the baseline itself."""
    shared = _shared_range(reader, base)
    if shared is None or not (reader.is_sure and base.is_sure):
        return None
    places = _band_places([reader, base], *shared)
    return _edges(places, reader.drawn(places) / base.drawn(places), reader)


def _values(reader: CurveReader, metric: Metric, places: FloatArray) -> FloatArray:
    """(places,) the metric at each place; NaN where it is unknown."""
    served = reader.serves(places)
    if metric.follows_throughput and metric.quotient is not None:
        return metric.quotient.scaled(served, reader.economics)
    if metric.of != "cell":
        return np.full_like(served, np.nan)
    # Intervals are not asked for here, so one row of draws will do.
    cells = reader.cells(places.tolist(), served[None, :])
    return np.array([metric.of_cell(cell) or np.nan for cell in cells], np.float64)


def _band_places(readers: Sequence[CurveReader], low: float, high: float) -> FloatArray:
    even = np.clip(np.linspace(low, high, _BAND_STEPS), low, high)
    return np.unique(np.concatenate([even, _knots_within(readers, low, high)]))


def _edges(places: FloatArray, drawn: FloatArray, reader: CurveReader) -> Band | None:
    intervals = [(x, interval_of(drawn[:, i], reader.confidence)) for i, x in enumerate(places)]
    known = [(x, interval.low, interval.high) for x, interval in intervals if interval is not None]
    if len(known) < 2:
        return None
    x, low, high = np.array(known).T
    return Band(x=x, low=low, high=high)


def _shared_range(reader: CurveReader, base: CurveReader) -> tuple[float, float] | None:
    """The interactivities that both fronts reach; None for the baseline itself, or where there are none."""
    low = max(reader.curve.range_tps[0], base.curve.range_tps[0])
    high = min(reader.curve.range_tps[1], base.curve.range_tps[1])
    return None if reader is base or low >= high else (low, high)


def _knots_within(readers: Sequence[CurveReader], low: float, high: float) -> list[float]:
    """Both ends, and the knots of all curves between them."""
    inside = {knot.x for one in readers for knot in one.curve.front if low < knot.x < high}
    return sorted({low, high, *inside})


def _between(low: float, high: float) -> FloatArray:
    # Linspace may pass its own end by a rounding error, and outside of the knots nothing is known.
    return np.unique(np.clip(np.linspace(low, high, _STEPS + 1), low, high))
