"""Pure: the chart of a comparison as SVG geometry, for the page's template."""

from __future__ import annotations

from dataclasses import dataclass

from mtpbench_analysis.chart.axes import nice_steps, tick
from mtpbench_analysis.chart.comparison_chart import Chart, Series
from mtpbench_analysis.chart.style import MARKS, shape_of
from mtpbench_analysis.numbers import target

WIDTH, HEIGHT = 860, 420
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 14, 52
_SAMPLES = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class SvgDot:
    """A measured point in pixels."""

    x: float
    y: float
    on_front: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SvgSeries:
    """One curve: the path of its front and its measured points; `colour` numbers a CSS class."""

    label: str
    colour: int
    shape: str
    path: str
    dots: tuple[SvgDot, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SvgTick:
    """A tick of an axis: its place in pixels and its text."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SvgChart:
    """Throughput per GPU over interactivity: curves, axes, and the targets as vertical lines."""

    series: tuple[SvgSeries, ...]
    x_ticks: tuple[SvgTick, ...]
    y_ticks: tuple[SvgTick, ...]
    targets: tuple[SvgTick, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scale:
    x_max: float
    y_max: float

    def x(self, value: float) -> float:
        return round(LEFT + value / self.x_max * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - value / self.y_max * (HEIGHT - TOP - BOTTOM), 1)


def draw_svg(chart: Chart) -> SvgChart:
    """Returns the chart in pixels; both axes begin at 0, so that heights show ratios truly."""
    dots = [dot for series in chart.series for dot in series.dots]
    x_steps = nice_steps(max([dot.x for dot in dots] + list(chart.targets_tps)))
    y_steps = nice_steps(max(dot.y for dot in dots))
    scale = _Scale(x_max=x_steps[-1], y_max=y_steps[-1])
    return SvgChart(
        series=tuple(_series(series, scale) for series in chart.series),
        x_ticks=tuple(SvgTick(at=scale.x(value), text=tick(value)) for value in x_steps),
        y_ticks=tuple(SvgTick(at=scale.y(value), text=tick(value)) for value in y_steps),
        targets=tuple(SvgTick(at=scale.x(at), text=target(at)) for at in chart.targets_tps),
    )


def _series(series: Series, scale: _Scale) -> SvgSeries:
    path = "M" + " L".join(f"{scale.x(x)},{scale.y(y)}" for x, y in _samples(series))
    return SvgSeries(
        label=series.label,
        colour=series.number % len(MARKS),
        shape=shape_of(series.number).path,
        path=path,
        dots=tuple(SvgDot(x=scale.x(dot.x), y=scale.y(dot.y), on_front=dot.on_front) for dot in series.dots),
    )


def _samples(series: Series) -> list[tuple[float, float]]:
    """Returns a curve's points: all knots and about 40 more, as a page may hold thousands of points."""
    knots = [(dot.x, dot.y) for dot in series.dots if dot.on_front]
    places, apart = knots[:1], (knots[-1][0] - knots[0][0]) / _SAMPLES
    for piece in series.pieces:
        *inner, last = zip(piece.x.tolist()[1:], piece.y.tolist()[1:], strict=True)
        for place in inner:
            if place[0] - places[-1][0] >= apart:
                places.append(place)
        places.append(last)
    return places
