"""Pure: what the chart of a comparison shows, in values; nothing about ink, pixels or characters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mtpbench_analysis.chart.bands import Band, Piece, gain_band, gain_pieces, metric_band, metric_pieces
from mtpbench_analysis.chart.choice import Look
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.curves.crossings import Crossing
from mtpbench_analysis.curves.curve import Curve, display_name
from mtpbench_analysis.curves.curve_reader import CurveReader
from mtpbench_analysis.curves.noise import FloatArray
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.metric import Metric

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
    """A measured point: interactivity (tok/s/user) and the metric there; `load` is `c64` or `4/s`."""

    x: float
    y: float
    on_front: bool = False
    load: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One curve.

    Args:
        number: its place in the comparison, which chooses colour and mark.
        dots: valid points, by rising interactivity.
        invalid: points that broke a rule, and would have entered this curve.
        pieces: the curve between its knots.
        unrecorded: points that do not have the metric.
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
    """Where a curve and the baseline serve the same; `wide` where it lies in a gap too wide to be sure.

    Args:
        number: of the curve.
    """

    number: int
    x: float
    y: float
    wide: bool
    interval_tps: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Chart:
    """The chart of one comparison.

    Args:
        lone: invalid points of arms that have no curve.
        targets_tps: interactivities that the tables read the curves at.
        level: a horizontal line that means something (1 where the axis is a gain); None elsewhere.
        notes: what the reader must know beside the picture.
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
        """Whether lines only lead the eye: the metric belongs to recipes and means nothing between them."""
        return self.metric.of in ("knots", "span")

    @property
    def invalid(self) -> tuple[Dot, ...]:
        """Every invalid point."""
        return (*(dot for one in self.series for dot in one.invalid), *self.lone)

    @property
    def values(self) -> FloatArray:
        """(n, 2) all that is drawn: dots, curves, bands and invalid points."""
        dots = [*(dot for one in self.series for dot in one.dots), *self.invalid]
        places = [(dot.x, dot.y) for dot in dots]
        parts = [np.array(places, np.float64).reshape(-1, 2)]
        for one in self.series:
            parts += [np.column_stack([piece.x, piece.y]) for piece in one.pieces]
            if one.band is not None:
                parts += [np.column_stack([one.band.x, edge]) for edge in (one.band.low, one.band.high)]
        return np.concatenate(parts)


def caption(charts: Sequence[Chart]) -> str:
    """What the curves of a picture are; simulated points are not called measured."""
    kinds = {chart.simulated for chart in charts}
    points = "measured or simulated" if len(kinds) > 1 else "simulated" if True in kinds else "measured"
    if all(chart.guided for chart in charts):
        return (
            f"Lines join {points} points of the front: this metric belongs to recipes and means nothing "
            "between them. Dotted verticals: the interactivities of mtpbench compare's tables."
        )
    return (
        f"Curves: between {points} points of the front, as mtpbench compare reads them. Dotted: the "
        "interactivities of its tables."
    )


def describe_chart(comparison: Comparison, title: str = "", look: Look | None = None) -> Chart:
    """The chart of a comparison; a metric that nobody recorded leaves it empty, and a note says so."""
    look = look or Look()
    readers, metric = comparison.readers, look.figure
    gain = metric.of == "ratio"
    lost: dict[int | None, list[CurvePoint]] = {}
    for point in () if look.front_only or gain else comparison.invalid:
        lost.setdefault(curve_of(point, readers), []).append(point)
    series = [
        _series(number, readers[0], look, reader, lost.get(number, ()))
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
        lone=_dots(lost.get(None, ()), metric, readers[0]),
        level=1.0 if gain else None,
        notes=_notes(comparison, series, metric),
    )


def series_of(
    curves: Sequence[Curve], invalid: Iterable[CurvePoint] = (), arms: Sequence[str] = ()
) -> tuple[Series, ...]:
    """Throughput of curves without a comparison: points alone, in the order of `arms`, then the others.

    Invalid points go to the first curve of their arm; an arm that has nothing else gets a series of its own.
    Arms of `arms` without any point get an empty one, so that the others keep their marks.
    """
    lost: dict[str, list[Dot]] = {}
    for point in invalid:
        lost.setdefault(point.arm, []).append(_dot(point, point.tput_tps_per_gpu))
    series: list[Series] = []
    for arm in dict.fromkeys((*arms, *(curve.arm for curve in curves), *lost)):
        dots = tuple(lost.get(arm, ()))
        for curve in (one for one in curves if one.arm == arm):
            front = {id(knot) for knot in curve.front}
            valid = [_dot(item.mean, item.y, on_front=id(item) in front) for item in curve.measured]
            series.append(Series(number=len(series), label=curve.label, dots=tuple(valid), invalid=dots))
            dots = ()
        if dots or not any(curve.arm == arm for curve in curves):
            series.append(Series(number=len(series), label=display_name(arm), invalid=dots))
    return tuple(series)


def curve_of(point: CurvePoint, readers: Sequence[CurveReader]) -> int | None:
    """The number of the curve that an invalid point would have entered: of its arm, the most alike."""
    alike = {
        number: sum(reader.curve.shared(name) == getattr(point, name) for name in _TELLING)
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
        f"{one.unrecorded} of {one.unrecorded + len(one.dots)} points of {one.label} did not record {what}."
        for one in series
        if one.unrecorded
    )


def _series(
    number: int, base: CurveReader, look: Look, reader: CurveReader, invalid: Sequence[CurvePoint]
) -> Series:
    curve, metric = reader.curve, look.figure
    gain = metric.of == "ratio"
    front = {id(knot) for knot in curve.front}
    shown = [item for item in curve.measured if id(item) in front or not (look.front_only or gain)]
    if gain and number == 0:
        shown = []
    values = [(item, _value(item.mean, metric, base)) for item in shown]
    dots = [_dot(item.mean, value, on_front=id(item) in front) for item, value in values if value is not None]
    return Series(
        number=number,
        label=curve.label,
        dots=tuple(dots),
        invalid=_dots(invalid, metric, base),
        pieces=gain_pieces(reader, base) if gain else metric_pieces(reader, metric),
        band=gain_band(reader, base) if gain else metric_band(reader, metric),
        unrecorded=len(values) - len(dots),
    )


def _dots(points: Sequence[CurvePoint], metric: Metric, base: CurveReader) -> tuple[Dot, ...]:
    values = [(point, _value(point, metric, base)) for point in points]
    return tuple(_dot(point, value) for point, value in values if value is not None)


def _dot(point: CurvePoint, value: float, *, on_front: bool = False) -> Dot:
    load = "" if point.rate_rps is None else f"{point.rate_rps:g}/s"
    if point.concurrency is not None:
        load = f"c{point.concurrency}"
    return Dot(x=point.interactivity_tps, y=value, on_front=on_front, load=load)


def _value(point: CurvePoint, metric: Metric, base: CurveReader) -> float | None:
    if metric.of == "ratio":
        return _gain(point, base)
    value: float | None = metric.of_point(point, base.economics)
    return value


def _gain(point: CurvePoint, base: CurveReader) -> float | None:
    """Throughput over the baseline's curve at the point's own speed; None outside of that curve."""
    low, high = base.curve.range_tps
    if not low <= point.interactivity_tps <= high:
        return None
    return point.tput_tps_per_gpu / float(base.serves([point.interactivity_tps])[0])


def _crossings(comparison: Comparison, metric: Metric) -> tuple[EqualPoint, ...]:
    """Equal throughput is equal cost and a gain of 1, but says nothing of output or input tokens alone."""
    points = []
    for number, other in enumerate(comparison.others, 1):
        for crossing in comparison.crossings[other.label]:
            y, interval = _height(crossing, metric, comparison), crossing.interval
            if y is not None:
                points.append(
                    EqualPoint(
                        number=number,
                        x=crossing.interactivity_tps,
                        y=y,
                        wide=crossing.wide_gap,
                        interval_tps=None if interval is None else (interval.low, interval.high),
                    )
                )
    return tuple(points)


def _height(crossing: Crossing, metric: Metric, comparison: Comparison) -> float | None:
    """The metric where both serve the same; None where that does not say it."""
    if metric.of == "ratio":
        return 1.0
    if metric.quotient is None or not metric.follows_throughput:
        return None
    return metric.quotient.value({"total": crossing.tput_tps_per_gpu}, comparison.settings.economics)
