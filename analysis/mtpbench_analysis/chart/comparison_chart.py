"""Pure: the chart of a comparison in values: points, curves, bands and crossings; no pixels or characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mtpbench_analysis.chart.style import PictureOptions
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.curves.crossings import Crossing
from mtpbench_analysis.curves.curve_reader import CurveReader, interval_of
from mtpbench_analysis.curves.errors import FloatArray
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.metric import Metric

_DISTINGUISHING = (
    "topology",
    "engine",
    "image",
    "version",
    "serving",
    "acceptance_mode",
    "draft_tokens",
    "settings",
)
"""Fields that distinguish two curves of one arm."""
_STEPS, _BAND_STEPS = 20, 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """A piece of a curve between two neighbouring knots; `wide` where they are too far apart for a ratio."""

    x: FloatArray
    y: FloatArray
    wide: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Band:
    """A band around a curve at the comparison's confidence: (n,) interactivities, lower and upper edge."""

    x: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """A measured point: interactivity (tok/s/user), the metric there, and its load, `c64` or `4/s`."""

    x: float
    y: float
    on_front: bool = False
    load: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One curve of a chart with its points.

    Args:
        number: its place in the comparison, which decides its colour and mark.
        dots: valid points, by rising interactivity.
        invalid: invalid points that would have entered this curve.
        pieces: the curve between its knots.
        unrecorded: the number of points that did not record the metric.
    """

    number: int
    label: str
    dots: tuple[Dot, ...] = ()
    invalid: tuple[Dot, ...] = ()
    pieces: tuple[Piece, ...] = ()
    band: Band | None = None
    unrecorded: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class EqualPoint:
    """A crossing of a curve and the baseline, where both serve the same.

    Args:
        number: the curve's number.
        interval_tps: its interval at the comparison's confidence; None where it is unknown.
    """

    number: int
    x: float
    y: float
    interval_tps: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Chart:
    """The chart of one comparison.

    Args:
        lone: invalid points of arms without a curve.
        targets_tps: the tables' target interactivities.
        level: the height of the line of equal throughput, 1, where the vertical axis is a gain; else None.
        notes: sentences that the reader needs beside the chart.
    """

    title: str
    y_label: str
    metric: Metric
    series: tuple[Series, ...]
    targets_tps: tuple[float, ...]
    crossings: tuple[EqualPoint, ...]
    simulated: bool
    confidence: float
    lone: tuple[Dot, ...] = ()
    level: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def guided(self) -> bool:
        """Whether lines only guide the eye: the metric belongs to recipes and means nothing between knots."""
        return self.metric.of in ("knots", "span")

    @property
    def invalid(self) -> tuple[Dot, ...]:
        """All invalid points."""
        return (*(dot for series in self.series for dot in series.invalid), *self.lone)

    @property
    def values(self) -> FloatArray:
        """(n, 2) interactivity and value of all that is drawn: dots, curves, bands and invalid points."""
        dots = [*(dot for series in self.series for dot in series.dots), *self.invalid]
        places = [(dot.x, dot.y) for dot in dots]
        parts = [np.array(places, np.float64).reshape(-1, 2)]
        for series in self.series:
            parts += [np.column_stack([piece.x, piece.y]) for piece in series.pieces]
            if series.band is not None:
                parts += [
                    np.column_stack([series.band.x, edge]) for edge in (series.band.low, series.band.high)
                ]
        return np.concatenate(parts)


def describe_chart(comparison: Comparison, title: str = "", options: PictureOptions | None = None) -> Chart:
    """Returns the chart of a comparison; an unrecorded metric leaves it empty, and a note says so."""
    options = options or PictureOptions()
    readers, metric = comparison.readers, options.metric
    gain = metric.of == "ratio"
    invalid_points: dict[int | None, list[CurvePoint]] = {}
    for point in () if options.front_only or gain else comparison.invalid:
        invalid_points.setdefault(curve_of(point, readers), []).append(point)
    series = [
        _series(number, readers[0], options, reader, invalid_points.get(number, ()))
        for number, reader in enumerate(readers)
    ]
    return Chart(
        title=title,
        y_label=_y_label(comparison, metric),
        metric=metric,
        series=tuple(series),
        targets_tps=tuple(row.target_tps for row in comparison.rows),
        crossings=_crossings(comparison, metric),
        simulated=comparison.simulated,
        confidence=comparison.settings.confidence,
        lone=_dots(invalid_points.get(None, ()), metric, readers[0]),
        level=1.0 if gain else None,
        notes=_notes(comparison, series, metric),
    )


def curve_of(point: CurvePoint, readers: Sequence[CurveReader]) -> int | None:
    """Returns the number of the curve that an invalid point would have entered: its arm's most similar."""
    alike = {
        number: sum(reader.curve.shared(name) == getattr(point, name) for name in _DISTINGUISHING)
        for number, reader in enumerate(readers)
        if reader.curve.arm == point.arm
    }
    return max(alike, key=alike.__getitem__, default=None)


def _y_label(comparison: Comparison, metric: Metric) -> str:
    label = metric.label_in("plot").replace("{baseline}", comparison.baseline.label)
    economics = comparison.settings.economics
    return label if metric.show != "dollars" or economics is None else f"{label} ({economics.tier})"


def _notes(comparison: Comparison, series: Sequence[Series], metric: Metric) -> tuple[str, ...]:
    economics = comparison.settings.economics
    if metric.show == "dollars":
        if economics is None:
            return (f"No price is known for {comparison.baseline.shared('hardware') or 'this hardware'}.",)
        return (f"Cost: {economics.label}.",)
    if metric.of == "ratio":
        return ()
    what = f"their {metric.key_in('plot')} tokens" if metric.of == "cell" else metric.label_in("plot")
    return tuple(
        f"{curve.unrecorded} of {curve.unrecorded + len(curve.dots)} points of {curve.label} "
        f"did not record {what}."
        for curve in series
        if curve.unrecorded
    )


def _series(
    number: int,
    base: CurveReader,
    options: PictureOptions,
    reader: CurveReader,
    invalid: Sequence[CurvePoint],
) -> Series:
    curve, metric = reader.curve, options.metric
    gain = metric.of == "ratio"
    front = {id(knot) for knot in curve.front}
    visible = [item for item in curve.measured if id(item) in front or not (options.front_only or gain)]
    if gain and number == 0:
        visible = []
    values = [(item, _value(item.mean, metric, base)) for item in visible]
    dots = [
        dot_of(item.mean, value, on_front=id(item) in front) for item, value in values if value is not None
    ]
    return Series(
        number=number,
        label=curve.full_name,
        dots=tuple(dots),
        invalid=_dots(invalid, metric, base),
        pieces=gain_pieces(reader, base) if gain else metric_pieces(reader, metric),
        band=gain_band(reader, base) if gain else metric_band(reader, metric),
        unrecorded=len(values) - len(dots),
    )


def _dots(points: Sequence[CurvePoint], metric: Metric, base: CurveReader) -> tuple[Dot, ...]:
    values = [(point, _value(point, metric, base)) for point in points]
    return tuple(dot_of(point, value) for point, value in values if value is not None)


def dot_of(point: CurvePoint, value: float, *, on_front: bool = False) -> Dot:
    """Returns the dot of a point at a value of the metric, with its load."""
    return Dot(x=point.interactivity_tps, y=value, on_front=on_front, load=point.load_mark)


def _value(point: CurvePoint, metric: Metric, base: CurveReader) -> float | None:
    if metric.of == "ratio":
        return _gain(point, base)
    value: float | None = metric.of_point(point, base.economics)
    return value


def _gain(point: CurvePoint, base: CurveReader) -> float | None:
    """Returns a point's throughput over the baseline's curve at the same speed; None outside that curve and
    in a wide gap of it.
    """
    low, high = base.curve.range_tps
    if not low <= point.interactivity_tps <= high or base.is_wide([point.interactivity_tps]).any():
        return None
    return point.tput_tps_per_gpu / float(base.serves([point.interactivity_tps])[0])


def _crossings(comparison: Comparison, metric: Metric) -> tuple[EqualPoint, ...]:
    """Returns the crossings of metrics that follow throughput; output or input tokens alone have none.

    Where only a gap is known that one lies in there is no place for it.
    """
    points = []
    for number, curve in enumerate(comparison.others, 1):
        for crossing in comparison.crossings[curve.label]:
            x, y = crossing.interactivity_tps, _height(crossing, metric, comparison)
            interval = crossing.interval
            if x is not None and y is not None:
                points.append(
                    EqualPoint(
                        number=number,
                        x=x,
                        y=y,
                        interval_tps=None if interval is None else (interval.low, interval.high),
                    )
                )
    return tuple(points)


def _height(crossing: Crossing, metric: Metric, comparison: Comparison) -> float | None:
    """Returns the metric at a crossing; None where equal throughput does not decide it."""
    if metric.of == "ratio":
        return 1.0
    if metric.quotient is None or not metric.follows_throughput:
        return None
    return metric.quotient.value({"total": crossing.tput_tps_per_gpu}, comparison.settings.economics)


def metric_pieces(reader: CurveReader, metric: Metric) -> tuple[Piece, ...]:
    """Returns a metric's curve, a piece between each two knots of the front; no piece where it is unknown."""
    pieces = []
    for lower, upper in pairwise(reader.curve.front):
        places = _between(lower.x, upper.x)
        values = _values(reader, metric, places)
        finite = np.isfinite(values)
        if finite.sum() > 1:
            wide = lower.y / upper.y > reader.max_gap
            pieces.append(Piece(x=places[finite], y=values[finite], wide=wide))
    return tuple(pieces)


def gain_pieces(reader: CurveReader, base: CurveReader) -> tuple[Piece, ...]:
    """Returns the curve of throughput over the baseline's, within the range that both fronts span."""
    shared = _shared_range(reader, base)
    if shared is None:
        return ()
    pieces = []
    for low, high in pairwise(_knots_within([reader, base], *shared)):
        places = _between(low, high)
        middle = [(low + high) / 2]
        wide = any(each.cells(middle, each.serves(middle)[None, :])[0].wide_gap for each in (reader, base))
        pieces.append(Piece(x=places, y=reader.serves(places) / base.serves(places), wide=wide))
    return tuple(pieces)


def metric_band(reader: CurveReader, metric: Metric) -> Band | None:
    """Returns the band of a metric that follows throughput alone; None for others, or for a single point."""
    low, high = reader.curve.range_tps
    if low == high or not metric.follows_throughput or metric.quotient is None:
        return None
    places = _band_places([reader], low, high)
    return _edges(places, metric.quotient.scaled(reader.drawn(places), reader.economics), reader)


def gain_band(reader: CurveReader, base: CurveReader) -> Band | None:
    """Returns the band of throughput over the baseline's within both fronts; None for the baseline itself."""
    shared = _shared_range(reader, base)
    if shared is None:
        return None
    places = _band_places([reader, base], *shared)
    return _edges(places, reader.drawn(places) / base.drawn(places), reader)


def _values(reader: CurveReader, metric: Metric, places: FloatArray) -> FloatArray:
    """Returns (n,) the metric at each interactivity; NaN where it is unknown."""
    served = reader.serves(places)
    if metric.follows_throughput and metric.quotient is not None:
        return metric.quotient.scaled(served, reader.economics)
    if metric.of != "cell":
        return np.full_like(served, np.nan)
    # No interval is needed here, so one row of draws is enough. A wide gap is drawn, as such.
    cells = reader.cells(places.tolist(), served[None, :])
    drawn = [
        replace(cell, tput_tps_per_gpu=tput, wide_gap=False) for cell, tput in zip(cells, served, strict=True)
    ]
    values = [metric.of_cell(cell) for cell in drawn]
    return np.array([value if isinstance(value, float) else np.nan for value in values], np.float64)


def _band_places(readers: Sequence[CurveReader], low: float, high: float) -> FloatArray:
    even = np.clip(np.linspace(low, high, _BAND_STEPS), low, high)
    return np.unique(np.concatenate([even, _knots_within(readers, low, high)]))


def _edges(places: FloatArray, drawn: FloatArray, reader: CurveReader) -> Band | None:
    intervals = [(x, interval_of(drawn[:, i], reader.confidence)) for i, x in enumerate(places)]
    edges = [(x, interval.low, interval.high) for x, interval in intervals if interval is not None]
    if len(edges) < 2:
        return None
    x, low, high = np.array(edges).T
    return Band(x=x, low=low, high=high)


def _shared_range(reader: CurveReader, base: CurveReader) -> tuple[float, float] | None:
    """Returns the range of interactivity that both fronts span; None if empty, or for the baseline itself."""
    low = max(reader.curve.range_tps[0], base.curve.range_tps[0])
    high = min(reader.curve.range_tps[1], base.curve.range_tps[1])
    return None if reader is base or low >= high else (low, high)


def _knots_within(readers: Sequence[CurveReader], low: float, high: float) -> list[float]:
    """Returns both ends and the knots of all curves between them, rising."""
    inside = {knot.x for reader in readers for knot in reader.curve.front if low < knot.x < high}
    return sorted({low, high, *inside})


def _between(low: float, high: float) -> FloatArray:
    # Linspace may pass its own end by a rounding error, and a curve has no value outside of its knots.
    return np.unique(np.clip(np.linspace(low, high, _STEPS + 1), low, high))
