"""Pictures of comparisons and of a sweep's power: their charts, title and footer.

Matplotlib draws them. Its import takes a second, which no other command should wait for, so only the drawing
functions import it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import mtpbench
from mtpbench.errors import InputError
from mtpbench.records import Hardware
from mtpbench_analysis.chart.comparison_chart import Chart, describe_chart
from mtpbench_analysis.chart.power_chart import describe_power
from mtpbench_analysis.chart.style import PictureFormat, PictureOptions
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.curves.confounds import tell_checkpoints
from mtpbench_analysis.curves.curve import describe_bounds, describe_sides, describe_workload, short
from mtpbench_analysis.document import SIMULATED_BANNER
from mtpbench_analysis.frame import PointSet, Unused
from mtpbench_analysis.traces import SweepPower

DEFAULT_PANELS, MOST_PANELS = 12, 90
"""90 charts are 30 rows: a PNG of 17,000 pixels' height at the usual resolution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureRequest:
    """A reader's request for a picture.

    Args:
        format: the picture's format.
        title: its title; None for one made of the arms' names.
        options: its size and content.
        source_names: names of the files and folders that were read, without their parent folders.
    """

    format: PictureFormat
    title: str | None
    options: PictureOptions
    source_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A drawn picture, and a notice of what it leaves out and how to draw that; None where it has all."""

    data: bytes
    notice: str | None = None


def draw_comparisons(
    comparisons: Sequence[Comparison], points: PointSet, request: PictureRequest, at_most: int
) -> Picture:
    """Draws a picture with a chart for each comparison.

    Args:
        comparisons: all comparisons.
        points: the points that they are made of, and rows that could not become a point.
        request: the picture's format, title and options.
        at_most: the highest number of charts.

    Raises:
        InputError: there is nothing to draw, or no room for it.
    """
    drawn = choose_comparisons(comparisons, at_most)
    charts = [
        describe_chart(comparison, name, request.options)
        for comparison, name in zip(drawn, name_charts(drawn), strict=True)
    ]
    if not any(len(chart.values) for chart in charts):
        raise InputError(_explain_empty(request.options, charts))
    left_out, notice = "", None
    if len(comparisons) > len(drawn):
        left_out, remedy = describe_left_out(len(drawn), len(comparisons))
        notice = f"{left_out}; {remedy}"
    source = describe_source(request.source_names, points, mtpbench.__version__)
    footer = _footer(charts, drawn, left_out, source)
    from mtpbench_analysis.chart.mpl_chart import draw_figure
    from mtpbench_analysis.chart.mpl_style import save

    title = request.title or write_title(drawn)
    figure = draw_figure(title, charts, footer, request.options)
    return Picture(data=save(figure, request.format, title), notice=notice)


def _footer(
    charts: Sequence[Chart], comparisons: Sequence[Comparison], left_out: str, source: str
) -> tuple[str, ...]:
    """Returns the footer's sentences, each once: what the curves are, notes, cautions, omissions, source."""
    sentences = [caption(charts), *(note for chart in charts for note in chart.notes)]
    sentences += describe_cautions(comparisons, _pooled_fields(comparisons))
    sentences += [bound for comparison in comparisons for bound in describe_bounds(comparison.curves)]
    sentences += [f"{left_out}."] if left_out else []
    sentences += [SIMULATED_BANNER] if any(chart.simulated for chart in charts) else []
    return tuple(dict.fromkeys([*sentences, source]))


def draw_power_picture(sweep: SweepPower, constants: Hardware | None, request: PictureRequest) -> Picture:
    """Draws the power of a whole sweep over time.

    Args:
        sweep: the power of a results folder; at least one trace.
        constants: price and power constants of its hardware, or None.
        request: the picture's format, title and options.

    Raises:
        InputError: there is no room for it.
    """
    chart = describe_power(sweep.traces, sweep.info.baseline, constants, sweep.info.arms)
    footer = [
        *chart.notes,
        *([SIMULATED_BANNER] if chart.simulated else []),
        _power_source(sweep, request.source_names),
    ]
    from mtpbench_analysis.chart.mpl_power import draw_power
    from mtpbench_analysis.chart.mpl_style import save

    name = f"Power over the sweep {sweep.info.name}"
    title = request.title or (f"SIMULATED: {name}" if chart.simulated else name)
    return Picture(data=save(draw_power(title, chart, footer, request.options), request.format, title))


def _explain_empty(options: PictureOptions, charts: Sequence[Chart]) -> str:
    notes = dict.fromkeys(note for chart in charts for note in chart.notes)
    why = " ".join(notes) or "the arms share no interactivity"
    return f"--y {options.y_key}: there is nothing to draw. {why}"


def _pooled_fields(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Returns the fields that the reader pools: one curve's points may differ in them."""
    return comparisons[0].baseline.grouping.pool if comparisons else ()


def _power_source(sweep: SweepPower, names: Sequence[str]) -> str:
    days = sorted({trace.started_utc[:10] for trace in sweep.traces})
    valid = sum(not trace.broken for trace in sweep.traces)
    parts = [
        f"Source: {', '.join(names)}",
        f"{valid} valid points, {len(sweep.traces) - valid} invalid",
        *UndrawnCounts(damaged=len(sweep.damaged), missing=len(sweep.missing)).texts(),
        days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
        f"mtpbench {mtpbench.__version__}",
    ]
    return "; ".join(parts) + "."


def caption(charts: Sequence[Chart]) -> str:
    """Returns what the curves of a picture are; simulated points are not called measured."""
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


def choose_comparisons(comparisons: Sequence[Comparison], at_most: int) -> tuple[Comparison, ...]:
    """Returns at most `at_most` comparisons in their order: those whose poorer side has the most knots.

    A front of one point says little, and there are many such pairs in public data.
    """
    ranked = sorted(range(len(comparisons)), key=lambda i: (-_knots(comparisons[i]), i))
    return tuple(comparisons[i] for i in sorted(ranked[:at_most]))


def _knots(comparison: Comparison) -> int:
    return min(len(comparison.baseline.front), max(len(other.front) for other in comparison.others))


def name_charts(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Returns a title for each chart: hardware, model, precision, lengths, engine; equal ones get more."""
    names = [describe_workload(each.baseline) or "workload not recorded" for each in comparisons]
    titles = [
        f"{name} ({more})" if names.count(name) > 1 and (more := _distinction(each)) else name
        for name, each in zip(names, comparisons, strict=True)
    ]
    counts: dict[str, int] = {}
    for i, name in enumerate(titles):
        counts[name] = counts.get(name, 0) + 1
        if titles.count(name) > 1:
            titles[i] = f"{name} #{counts[name]}"
    return tuple(titles)


def _distinction(comparison: Comparison) -> str:
    """Returns the image, version or prompts of a comparison, which distinguish it from one of equal title."""
    baseline = comparison.baseline
    texts = [
        short(value, name) for name in ("image", "version", "workload") if (value := baseline.shared(name))
    ]
    return next(iter(texts), "")


def write_title(comparisons: Sequence[Comparison]) -> str:
    """Returns `MTP versus Off`, with SIMULATED in front where any comparison is simulated."""
    others = [curve for comparison in comparisons for curve in comparison.others]
    text = describe_sides(others, comparisons[0].baseline)
    return f"SIMULATED: {text}" if any(comparison.simulated for comparison in comparisons) else text


_MOST_CAUTIONS = 3


def describe_cautions(comparisons: Sequence[Comparison], pool: Sequence[str]) -> tuple[str, ...]:
    """Returns cautions that a picture alone does not show: pooled fields, and confounds.

    Args:
        comparisons: the drawn comparisons.
        pool: the pooled fields: one curve's points may differ in them.
    """
    sentences = []
    if any(comparison.pooling for comparison in comparisons) and pool:
        sentences.append(f"A curve may mix points that differ in {', '.join(pool)}, as was asked for.")
    notes = [f"{note}." for each in comparisons for note in tell_checkpoints(each.checkpoints)]
    sentences += list(dict.fromkeys(notes))[:_MOST_CAUTIONS]
    differing = sum(any(each.confounds.values()) or bool(each.known_confounds()) for each in comparisons)
    if differing:
        where = "" if len(comparisons) == 1 else f" in {differing} of {len(comparisons)} charts"
        sentences.append(
            f"The sides differ in more than speculation, or nobody recorded whether they do{where}; mtpbench "
            "compare lists it."
        )
    return tuple(sentences)


@dataclass(frozen=True, kw_only=True, slots=True)
class UndrawnCounts:
    """Counts of a source's points that no picture can show.

    Args:
        damaged: points whose files can't be read.
        missing: planned points without a measurement.
        without_figures: measured points without rates, and rows that are no point.
    """

    damaged: int = 0
    missing: int = 0
    without_figures: int = 0

    def texts(self) -> list[str]:
        """Returns `1 damaged, not drawn`, `3 not measured yet`; without counts of 0."""
        parts = [f"{self.damaged} damaged, not drawn"] if self.damaged else []
        parts += [f"{self.without_figures} without figures, not drawn"] if self.without_figures else []
        return parts + ([f"{self.missing} not measured yet"] if self.missing else [])


def count_unused(unused: Sequence[Unused]) -> UndrawnCounts:
    """Returns the counts of a source's undrawn points; a repeated point is drawn once and lacks nothing."""
    kinds = Counter(item.kind for item in unused)
    return UndrawnCounts(
        damaged=kinds["damaged"], missing=kinds["planned"], without_figures=kinds["unusable"]
    )


def describe_left_out(drawn: int, comparisons: int) -> tuple[str, str]:
    """Returns what a picture leaves out, and the option that draws it."""
    text = f"{comparisons - drawn} of {comparisons} comparisons, those with the fewest knots, are not drawn"
    if comparisons <= MOST_PANELS:
        return text, f"--panels {comparisons} draws all"
    return (
        text,
        f"a picture holds at most {MOST_PANELS}: choose with --hardware, --precision, --isl, --engine",
    )


def describe_source(names: Sequence[str], points: PointSet, version: str) -> str:
    """Returns where the points come from in one line, without any parent folder of this machine.

    Args:
        names: names of the files and folders that were read.
        points: their points, filtered.
        version: the version of mtpbench.
    """
    sources = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    valid = sum(point.valid for point in points.points)
    days = sorted({point.date for point in points.points if point.date})
    parts = [f"Source: {sources}", f"{valid} valid points, {len(points.points) - valid} invalid"]
    parts += count_unused(points.unused).texts()
    if days:
        parts.append(days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}")
    return "; ".join([*parts, f"mtpbench {version}"]) + "."
