"""Pure: where a curve lies with the comparison's confidence, and the places that two curves share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtpbench_analysis.noise import FloatArray
from mtpbench_analysis.plot.look import Metric
from mtpbench_analysis.reading import Reading, interval_of

_BAND_STEPS = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Band:
    """Where the curve lies with the comparison's confidence: (n,) places and both edges."""

    x: FloatArray
    low: FloatArray
    high: FloatArray


def metric_band(reading: Reading, metric: Metric) -> Band | None:
    """The band of throughput, or of the cost that follows from it; None where no noise is known."""
    low, high = reading.curve.range_tps
    price = None if reading.economics is None else reading.economics.price()
    if not reading.is_sure or low == high or metric not in ("total", "cost"):
        return None
    if metric == "cost" and price is None:
        return None
    places = _band_places([reading], low, high)
    drawn = reading.drawn(places)
    return _edges(
        places, drawn if price is None or metric == "total" else price * 1e6 / (3600 * drawn), reading
    )


def gain_band(reading: Reading, base: Reading) -> Band | None:
    """The band of throughput over the baseline's, where both fronts reach; None for the baseline itself."""
    shared = shared_range(reading, base)
    if shared is None or not (reading.is_sure and base.is_sure):
        return None
    places = _band_places([reading, base], *shared)
    return _edges(places, reading.drawn(places) / base.drawn(places), reading)


def _band_places(readings: Sequence[Reading], low: float, high: float) -> FloatArray:
    even = np.clip(np.linspace(low, high, _BAND_STEPS), low, high)
    return np.unique(np.concatenate([even, knots_within(readings, low, high)]))


def _edges(places: FloatArray, drawn: FloatArray, reading: Reading) -> Band | None:
    found = []
    for i, x in enumerate(places):
        interval = interval_of(drawn[:, i], reading.confidence)
        if interval is not None:
            found.append((x, interval.low, interval.high))
    if len(found) < 2:
        return None
    x, low, high = np.array(found).T
    return Band(x=x, low=low, high=high)


def shared_range(reading: Reading, base: Reading) -> tuple[float, float] | None:
    """The interactivities that both fronts reach; None for the baseline itself, or where there are none."""
    low = max(reading.curve.range_tps[0], base.curve.range_tps[0])
    high = min(reading.curve.range_tps[1], base.curve.range_tps[1])
    return None if reading is base or low >= high else (low, high)


def knots_within(readings: Sequence[Reading], low: float, high: float) -> list[float]:
    """Both ends, and the knots of all curves between them."""
    inside = {knot.x for one in readings for knot in one.curve.front if low < knot.x < high}
    return sorted({low, high, *inside})
