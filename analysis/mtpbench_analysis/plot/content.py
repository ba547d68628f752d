"""Pure: what the chart of a comparison shows, in values; nothing about ink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mtpbench_analysis.cells import Cell
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.cost import usd_per_mtok
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.noise import FloatArray
from mtpbench_analysis.plot.bands import Band, gain_band, knots_within, metric_band, shared_range
from mtpbench_analysis.plot.look import Look, Metric
from mtpbench_analysis.reading import Reading

_STEPS = 20
_TELLING = (
    "topology",
    "engine",
    "image",
    "version",
    "serving",
    "acceptance_mode",
    "draft_tokens",
    "settings",
)
"""Fields that tell two curves of one arm apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """A measured point: interactivity (tok/s/user) and the metric there.

    Args:
        load: `c64` or `4/s`.
        number: of the curve, as in `Series`; of an invalid point, that which it would have entered, or None
            where its arm has none.
    """

    x: float
    y: float
    on_front: bool
    load: str
    number: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """The curve between two neighbouring knots; `wide` where they are too far apart for a ratio."""

    x: FloatArray
    y: FloatArray
    wide: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One curve; `number` is its place in the comparison and chooses colour and mark, as in the report.

    Args:
        unrecorded: points that do not have the metric.
    """

    number: int
    label: str
    dots: tuple[Dot, ...]
    pieces: tuple[Piece, ...]
    band: Band | None
    unrecorded: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """Where a curve and the baseline serve the same; `wide` where it lies in a gap too wide to be sure."""

    x: float
    y: float
    wide: bool
    interval_tps: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """The chart of one comparison.

    Args:
        invalid: points that broke a rule; they enter no curve.
        targets_tps: interactivities that the tables read the curves at.
        level: a horizontal line that means something (1 where the axis is a gain); None elsewhere.
        notes: what the reader must know beside the picture.
    """

    title: str
    y_label: str
    metric: Metric
    series: tuple[Series, ...]
    invalid: tuple[Dot, ...]
    targets_tps: tuple[float, ...]
    crossings: tuple[Mark, ...]
    simulated: bool
    confidence: float
    level: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def values(self) -> FloatArray:
        """(n, 2) all that is drawn: dots, curves, bands and invalid points."""
        found = [(dot.x, dot.y) for one in self.series for dot in one.dots]
        found += [(dot.x, dot.y) for dot in self.invalid]
        parts = [np.array(found, np.float64).reshape(-1, 2)]
        for one in self.series:
            parts += [np.column_stack([piece.x, piece.y]) for piece in one.pieces]
            if one.band is not None:
                parts += [np.column_stack([one.band.x, edge]) for edge in (one.band.low, one.band.high)]
        return np.concatenate(parts)


def caption(panels: Sequence[Panel]) -> str:
    """What the curves of a sheet are; simulated points are not called measured."""
    kinds = {panel.simulated for panel in panels}
    points = "measured or simulated" if len(kinds) > 1 else "simulated" if True in kinds else "measured"
    return (
        f"Curves: between {points} points of the front, as mtpbench compare reads them. Dotted: the "
        "interactivities of its tables."
    )


def describe_panel(comparison: Comparison, title: str, look: Look) -> Panel:
    """The chart of a comparison; a metric that nobody recorded leaves it empty, and a note says so."""
    base = comparison.readings[0]
    series = tuple(_series(number, reading, base, look) for number, reading in enumerate(comparison.readings))
    gain = look.metric == "gain"
    invalid = () if look.front_only or gain else comparison.invalid
    return Panel(
        title=title,
        y_label=_y_label(comparison, look.metric),
        metric=look.metric,
        series=series,
        invalid=tuple(
            dot
            for point in invalid
            if (dot := _dot(point, look.metric, base, _curve_of(point, comparison.readings))) is not None
        ),
        targets_tps=tuple(row.target_tps for row in comparison.rows),
        crossings=_crossings(comparison, look.metric),
        simulated=comparison.simulated,
        confidence=comparison.settings.confidence,
        level=1.0 if gain else None,
        notes=_notes(comparison, series, look.metric),
    )


def _curve_of(point: CurvePoint, readings: Sequence[Reading]) -> int | None:
    """The number of the curve that an invalid point would have entered: of its arm, the most alike."""
    alike = {
        number: sum(reading.curve.shared(name) == getattr(point, name) for name in _TELLING)
        for number, reading in enumerate(readings)
        if reading.curve.arm == point.arm
    }
    return max(alike, key=alike.__getitem__, default=None)


def _y_label(comparison: Comparison, metric: Metric) -> str:
    if metric == "gain":
        return f"gain over {comparison.baseline.label} at equal interactivity, ×"
    if metric == "cost":
        economics = comparison.settings.economics
        return "cost, $/M tokens" + ("" if economics is None else f" ({economics.tier})")
    return ("throughput" if metric == "total" else f"{metric} throughput") + ", tok/s/GPU"


def _notes(comparison: Comparison, series: Sequence[Series], metric: Metric) -> tuple[str, ...]:
    economics = comparison.settings.economics
    if metric == "cost":
        if economics is None:
            return (f"No price is known for {comparison.baseline.shared('hardware') or 'this hardware'}.",)
        return (f"Cost: {economics.label}.",)
    return tuple(
        f"{one.unrecorded} of {one.unrecorded + len(one.dots)} points of {one.label} did not record their "
        f"{metric} tokens."
        for one in series
        if one.unrecorded and metric != "gain"
    )


def _series(number: int, reading: Reading, base: Reading, look: Look) -> Series:
    curve, gain = reading.curve, look.metric == "gain"
    front = {id(knot) for knot in curve.front}
    shown = [item for item in curve.measured if id(item) in front or not (look.front_only or gain)]
    if gain and number == 0:
        shown = []
    dots = [_dot(item.mean, look.metric, base, number, on_front=id(item) in front) for item in shown]
    known = tuple(dot for dot in dots if dot is not None)
    return Series(
        number=number,
        label=curve.label,
        dots=known,
        pieces=_gain_pieces(reading, base) if gain else _pieces(reading, look.metric),
        band=gain_band(reading, base) if gain else metric_band(reading, look.metric),
        unrecorded=len(dots) - len(known),
    )


def _dot(
    point: CurvePoint, metric: Metric, base: Reading, number: int | None, *, on_front: bool = False
) -> Dot | None:
    value = _gain(point, base) if metric == "gain" else _point_value(point, metric, base)
    if value is None:
        return None
    load = "" if point.rate_rps is None else f"{point.rate_rps:g}/s"
    if point.concurrency is not None:
        load = f"c{point.concurrency}"
    return Dot(x=point.interactivity_tps, y=value, on_front=on_front, load=load, number=number)


def _point_value(point: CurvePoint, metric: Metric, reading: Reading) -> float | None:
    if metric == "cost":
        price = None if reading.economics is None else reading.economics.price()
        return None if price is None else usd_per_mtok(point.tput_tps_per_gpu, price)
    values = {
        "total": point.tput_tps_per_gpu,
        "output": point.output_tps_per_gpu,
        "input": point.input_tps_per_gpu,
    }
    return values[metric]


def _gain(point: CurvePoint, base: Reading) -> float | None:
    """Throughput over the baseline's curve at the point's own speed; None outside of that curve."""
    low, high = base.curve.range_tps
    if not low <= point.interactivity_tps <= high:
        return None
    return point.tput_tps_per_gpu / float(base.serves([point.interactivity_tps])[0])


def _cell_value(cell: Cell, metric: Metric) -> float | None:
    values = {
        "total": cell.tput_tps_per_gpu,
        "output": cell.output_tps_per_gpu,
        "input": cell.input_tps_per_gpu,
        "cost": cell.usd_per_mtok,
    }
    return values[metric]


def _pieces(reading: Reading, metric: Metric) -> tuple[Piece, ...]:
    pieces = []
    for lower, upper in pairwise(reading.curve.front):
        places = _between(lower.x, upper.x)
        # Intervals are not asked for here, so one row of draws will do.
        cells = reading.cells(places.tolist(), reading.serves(places)[None, :])
        read = [
            (x, value) for x, cell in zip(places, cells, strict=True) if (value := _cell_value(cell, metric))
        ]
        if len(read) > 1:
            x, y = np.array(read).T
            pieces.append(Piece(x=x, y=y, wide=lower.y / upper.y > reading.max_gap))
    return tuple(pieces)


def _gain_pieces(reading: Reading, base: Reading) -> tuple[Piece, ...]:
    shared = shared_range(reading, base)
    if shared is None:
        return ()
    pieces = []
    for low, high in pairwise(knots_within([reading, base], *shared)):
        places = _between(low, high)
        middle = [(low + high) / 2]
        wide = any(one.cells(middle, one.serves(middle)[None, :])[0].wide_gap for one in (reading, base))
        pieces.append(Piece(x=places, y=reading.serves(places) / base.serves(places), wide=wide))
    return tuple(pieces)


def _between(low: float, high: float) -> FloatArray:
    # Linspace may pass its own end by a rounding error, and outside of the knots nothing is known.
    return np.unique(np.clip(np.linspace(low, high, _STEPS + 1), low, high))


def _crossings(comparison: Comparison, metric: Metric) -> tuple[Mark, ...]:
    """Equal throughput is equal cost and a gain of 1, but says nothing of output or input tokens alone."""
    price = None if comparison.settings.economics is None else comparison.settings.economics.price()
    marks = []
    for crossing in (one for found in comparison.crossings.values() for one in found):
        heights = {
            "total": crossing.tput_tps_per_gpu,
            "gain": 1.0,
            "cost": None if price is None else usd_per_mtok(crossing.tput_tps_per_gpu, price),
        }
        y, interval = heights.get(metric), crossing.interval
        if y is not None:
            between = None if interval is None else (interval.low, interval.high)
            marks.append(
                Mark(x=crossing.interactivity_tps, y=y, wide=crossing.wide_gap, interval_tps=between)
            )
    return tuple(marks)
