"""Pure: a metric: its name, how it is written, which way is better, and what it follows from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mtpbench_analysis.curves.cells import Cell, Span, TokenKind, span_of
from mtpbench_analysis.curves.cost import Economics
from mtpbench_analysis.curves.errors import FloatArray
from mtpbench_analysis.curves.mean_errors import PERCENTILES, STANDARD_ERRORS, Ends, reach_of
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.numbers import FORMATS, Format, spread

View = Literal[
    "matched",
    "metrics",
    "points",
    "recipes",
    "knot_export",
    "regress",
    "page",
    "page_more",
    "x",
    "y",
    "plot",
    "public_page",
]
"""Where a figure stands: the first table, that of every metric, that of all points, that of `best`'s recipes,
the knots of CSV and JSON, `regress`, a point of the report's page, its long table, the axes of its chart, a
picture's vertical axis, and the public page's table."""
Of = Literal["cell", "span", "knots", "ratio"]
RateName = Literal["total", "output", "input", "power"]
Rates = Mapping[RateName, float | None]
OfConstants = Callable[[Economics | None], float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Quotient:
    """A quotient says what a figure follows from: `factor` × `over` / `under`, 1 for what is not named.

    The page's script derives figures by it at targets that a reader types.

    Args:
        over, under: rates of one GPU: `total`, `output` and `input` tokens/s, and `power` as metered (W).
        factor: of the hardware's constants; it gives None where they are unknown.
    """

    over: RateName | None = None
    under: RateName | None = None
    factor: OfConstants = lambda _: 1.0

    def value(self, rates: Rates, economics: Economics | None) -> float | None:
        """Returns the figure; None where something is unknown, or `under` is 0."""
        factor = self.factor(economics)
        over = 1.0 if self.over is None else rates[self.over]
        under = 1.0 if self.under is None else rates[self.under]
        return None if factor is None or over is None or not under else factor * over / under

    def scaled(self, rate: FloatArray, economics: Economics | None) -> FloatArray:
        """Returns the figure at values of its one rate; NaN where the constants are unknown."""
        factor = self.factor(economics)
        if factor is None:
            return np.full_like(rate, np.nan)
        return factor / rate if self.over is None else factor * rate

    def declaration(self, economics: Economics | None) -> dict[str, Any]:
        """Returns the same as plain JSON."""
        return {"over": self.over, "under": self.under, "factor": self.factor(economics)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A metric is one figure: its name, how it is written, and where it comes from.

    Args:
        id: its name in exports; a field of `CurvePoint` of that name is its value at a point.
        label: what a row, a column or an axis calls it, unit included, unless `labels` says it otherwise.
        show: how its numbers are written, by name, as in `numbers.FORMATS` and in the page's script.
        unit: for programs; empty where it counts something.
        better: which way is better; None where neither is.
        of: `cell`: a curve has it at a target, interpolated or derived from what is; `span`: at a target it
            lies between two values; `knots`: it belongs to measured recipes, so a target has that of its
            knots; `ratio`: it sets a curve against the baseline.
        needs: `constants` (price or power of the hardware) or `meter` (metered power), without which no table
            has a row for it.
        error: the field of `CurvePoint` that holds its relative standard error in a single run.
        explains: a change of it is a reason for other changes, not a result.
        quotient: what it follows from, where it has a value between knots, or is not recorded as such.
        tier, tokens: whose price a cost is at, and of which tokens.
        labels: what a view calls it, where that is not `label`.
        keys: what a view's identifiers call it (a link to the page, `--y`, a JSON), where that is not `id`.
    """

    id: str
    label: str
    show: Format
    unit: str = ""
    better: Literal["higher", "lower"] | None = None
    of: Of = "knots"
    needs: Literal["constants", "meter"] | None = None
    error: str | None = None
    explains: bool = False
    quotient: Quotient | None = None
    tier: str | None = None
    tokens: TokenKind = "total"
    labels: Mapping[View, str] = field(default_factory=dict)
    keys: Mapping[View, str] = field(default_factory=dict)

    def label_in(self, view: View) -> str:
        """Returns what a view calls it."""
        return self.labels.get(view, self.label)

    def key_in(self, view: View) -> str:
        """Returns what a view's identifiers call it."""
        return self.keys.get(view, self.id)

    def of_point(self, point: CurvePoint, economics: Economics | None = None) -> Any:
        """Returns its value at a measured point; None where what it takes was not recorded."""
        if self.recorded:
            return getattr(point, self.id)
        return None if self.quotient is None else self.quotient.value(_rates(point), economics)

    @property
    def recorded(self) -> bool:
        """Returns whether it is a field of a point."""
        return self.id in CurvePoint.__dataclass_fields__

    @property
    def follows_throughput(self) -> bool:
        """Returns whether it follows from the throughput of all tokens alone."""
        return self.quotient is not None and {self.quotient.over, self.quotient.under} <= {"total", None}

    def of_cell(self, cell: Cell) -> float | Span | None:
        """Returns its value at a target: the cell's of the same name; None where it has none there."""
        if self.tier is not None:
            return cell.usd_per_m(self.tokens, self.tier)
        value: float | Span | None = getattr(cell, self.id) if self.of in ("cell", "span") else None
        return value

    def interval_at(self, cell: Cell) -> Span | None:
        """Returns the values that it has over a cell's interval of throughputs; None where it has none."""
        edges = cell.at_edges() if self.of == "cell" else None
        if edges is None:
            return None
        values = [self.of_cell(edge) for edge in edges]
        return span_of(*(value if isinstance(value, float) else None for value in values))

    def text(self, value: Any) -> str:
        """Returns a value of it as a reader sees it; a dash where it is unknown."""
        return FORMATS[self.show](value)

    def ends_of(self, point: CurvePoint) -> Ends | None:
        """Returns the ends of its 95% interval at a measured point; None where none is known, and for rates,
        which have theirs at targets.
        """
        if self.id in PERCENTILES:
            low, high = (getattr(point, field) for field in PERCENTILES[self.id])
            return None if low is None and high is None else (low, high)
        reach = reach_of(point, STANDARD_ERRORS[self.id]) if self.id in STANDARD_ERRORS else None
        value = None if reach is None else self.of_point(point)
        return None if reach is None or value is None else (value / reach, value * reach)

    def text_of(self, point: CurvePoint, economics: Economics | None = None) -> str:
        """Returns its value at a measured point as a reader sees it.

        With an interval: `0.52 (0.49–0.57)`; `≥ 0.49` where a percentile is only known to lie above that.
        """
        value, ends = self.text(self.of_point(point, economics)), self.ends_of(point)
        if ends is None:
            return value
        low, high = ends
        if low is None or high is None:
            return f"≤ {self.text(high)}" if low is None else f"≥ {self.text(low)}"
        return f"{value} {spread(low, high, self.text)}"

    def declaration(self, view: View, economics: Economics | None = None) -> dict[str, Any]:
        """Returns what a program must know to show it in a view, and to derive it, as plain JSON."""
        return {
            "id": self.id,
            "key": self.key_in(view),
            "label": self.label_in(view),
            "unit": self.unit,
            "show": self.show,
            "better": self.better,
            "of": self.of,
            "needs": self.needs,
            "tier": self.tier,
            **({} if self.quotient is None else self.quotient.declaration(economics)),
        }


def _rates(point: CurvePoint) -> Rates:
    return {
        "total": point.tput_tps_per_gpu,
        "output": point.output_tps_per_gpu,
        "input": point.input_tps_per_gpu,
        "power": point.power_w_per_gpu,
    }
