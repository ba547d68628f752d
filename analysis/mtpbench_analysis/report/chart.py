"""Pure: the chart of a comparison as SVG geometry; the template draws it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.curves import Curve
from mtpbench_analysis.figures import target
from mtpbench_analysis.interpolate import interpolate

WIDTH, HEIGHT = 860, 420
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 14, 52

_SAMPLES = 40

SHAPES = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    "M-4,-4H4V4H-4z",
    "M0,-5.4L5,3.8H-5z",
    "M0,-5.8L5.2,0L0,5.8L-5.2,0z",
    "M0,5.4L5,-3.8H-5z",
    "M-1.7,-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7z",
)
"""Marks of the curves, as SVG paths around (0, 0): nobody needs their colours to tell them apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """A measured point in pixels."""

    x: float
    y: float
    on_front: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One curve: the SVG path of its front and its measured points; `colour` numbers a CSS class."""

    label: str
    colour: int
    shape: str
    path: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """A place on an axis in pixels, with its text."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Throughput per GPU over interactivity: curves, axes, and the targets as vertical lines."""

    series: tuple[Series, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    targets: tuple[Tick, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scale:
    x_max: float
    y_max: float

    def x(self, value: float) -> float:
        return round(LEFT + value / self.x_max * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - value / self.y_max * (HEIGHT - TOP - BOTTOM), 1)


def draw_chart(comparison: Comparison) -> Chart:
    """The chart of all curves; both axes begin at 0, so that a ratio looks like what it is."""
    measured = [item for curve in comparison.curves for item in curve.measured]
    x_steps = nice_steps(max([item.x for item in measured] + [row.target_tps for row in comparison.rows]))
    y_steps = nice_steps(max(item.y for item in measured))
    scale = _Scale(x_max=x_steps[-1], y_max=y_steps[-1])
    return Chart(
        series=tuple(_series(curve, i, scale) for i, curve in enumerate(comparison.curves)),
        x_ticks=tuple(Tick(at=scale.x(value), text=f"{value:,.6g}") for value in x_steps),
        y_ticks=tuple(Tick(at=scale.y(value), text=f"{value:,.6g}") for value in y_steps),
        targets=tuple(
            Tick(at=scale.x(row.target_tps), text=target(row.target_tps)) for row in comparison.rows
        ),
    )


def nice_steps(highest: float) -> tuple[float, ...]:
    """0 and round numbers up to the first one that is not below `highest`: steps of 1, 2 or 5 × 10ⁿ."""
    rough = highest / 6
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough)
    return tuple(step * i for i in range(math.ceil(highest / step - 1e-9) + 1))


def _series(curve: Curve, colour: int, scale: _Scale) -> Series:
    knots = [(knot.x, knot.y) for knot in curve.front]
    xs, ys = [x for x, _ in knots], [y for _, y in knots]
    # Linspace may pass its own end by a rounding error, and outside the knots nothing is drawn.
    places = np.clip(np.linspace(xs[0], xs[-1], _SAMPLES), xs[0], xs[-1])
    places = np.unique(np.concatenate([places, xs]))
    values = interpolate(xs, ys, places.tolist())
    steps = [f"{scale.x(x)},{scale.y(y)}" for x, y in zip(places.tolist(), values.tolist(), strict=True)]
    dots = tuple(
        Dot(
            x=scale.x(item.x),
            y=scale.y(item.y),
            on_front=any(item is knot for knot in curve.front),
        )
        for item in curve.measured
    )
    return Series(
        label=curve.label, colour=colour % 6, shape=SHAPES[colour % 6], path="M" + " L".join(steps), dots=dots
    )
