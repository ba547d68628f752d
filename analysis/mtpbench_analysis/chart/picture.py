"""Pictures of comparisons and of a sweep's power: the charts that they hold, title and foot.

Matplotlib draws them. It takes a second to import, which no other command should wait for, so it is imported
where something is drawn.
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
from mtpbench_analysis.chart.style import Ending, Look
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.curves.curve import describe_workload, display_name, short
from mtpbench_analysis.document import SIMULATED_BANNER
from mtpbench_analysis.frame import PointSet, Unused
from mtpbench_analysis.traces import SweepPower

DEFAULT_PANELS, MOST_PANELS = 12, 90
"""90 panels are 30 rows: a PNG of 17,000 pixels' height at the usual resolution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureRequest:
    """What a reader wants drawn.

    Args:
        ending: the kind of picture.
        title: None for what it shows.
        look: how it is to look.
        names: of the files and folders that were read, without the folders that they lie in.
    """

    ending: Ending
    title: str | None
    look: Look
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A drawn picture; `notice` is what was left out of it and how to have it, or None."""

    data: bytes
    notice: str | None = None


def draw_comparisons(
    comparisons: Sequence[Comparison], points: PointSet, request: PictureRequest, at_most: int
) -> Picture:
    """A chart for each comparison, of so many at most.

    Args:
        comparisons: all that there are.
        points: those that they are made of, and what could not become a point.
        request: what is wanted.
        at_most: charts.

    Raises:
        InputError: there is nothing to draw, or no room for it.
    """
    shown = choose_comparisons(comparisons, at_most)
    charts = [
        describe_chart(one, name, request.look) for one, name in zip(shown, name_charts(shown), strict=True)
    ]
    if not any(len(chart.values) for chart in charts):
        raise InputError(_nothing_of(request.look, charts))
    foot = [caption(charts), *(note for chart in charts for note in chart.notes)]
    foot += caution(shown, _pooled(shown))
    notice = None
    if len(comparisons) > len(shown):
        left_out, remedy = describe_left_out(len(shown), len(comparisons))
        notice = f"{left_out}; {remedy}"
        foot.append(f"{left_out}.")
    if any(chart.simulated for chart in charts):
        foot.append(SIMULATED_BANNER)
    foot.append(describe_source(request.names, points, mtpbench.__version__))
    from mtpbench_analysis.chart.mpl_chart import draw_figure
    from mtpbench_analysis.chart.mpl_style import save

    title = request.title or write_title(shown)
    figure = draw_figure(title, charts, tuple(dict.fromkeys(foot)), request.look)
    return Picture(data=save(figure, request.ending, title), notice=notice)


def draw_power_picture(sweep: SweepPower, constants: Hardware | None, request: PictureRequest) -> Picture:
    """The power of a whole sweep over time.

    Args:
        sweep: what a results folder keeps of it; at least one trace.
        constants: of its hardware, or None.
        request: what is wanted.

    Raises:
        InputError: there is no room for it.
    """
    chart = describe_power(sweep.traces, sweep.info.baseline, constants, sweep.info.arms)
    foot = [
        *chart.notes,
        *([SIMULATED_BANNER] if chart.simulated else []),
        _power_source(sweep, request.names),
    ]
    from mtpbench_analysis.chart.mpl_power import draw_power
    from mtpbench_analysis.chart.mpl_style import save

    name = f"Power over the sweep {sweep.info.name}"
    title = request.title or (f"SIMULATED: {name}" if chart.simulated else name)
    return Picture(data=save(draw_power(title, chart, foot, request.look), request.ending, title))


def _nothing_of(look: Look, charts: Sequence[Chart]) -> str:
    notes = dict.fromkeys(note for chart in charts for note in chart.notes)
    return (
        f"--y {look.metric}: there is nothing to draw. {' '.join(notes) or 'the arms share no interactivity'}"
    )


def _pooled(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """The fields in which the reader let one curve's points differ; the same in every comparison."""
    return comparisons[0].baseline.grouping.pool if comparisons else ()


def _power_source(sweep: SweepPower, names: Sequence[str]) -> str:
    days = sorted({trace.started_utc[:10] for trace in sweep.traces})
    valid = sum(not trace.broken for trace in sweep.traces)
    parts = [
        f"Source: {', '.join(names)}",
        f"{valid} valid points, {len(sweep.traces) - valid} invalid",
        *Undrawn(damaged=len(sweep.damaged), missing=len(sweep.missing)).texts(),
        days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
        f"mtpbench {mtpbench.__version__}",
    ]
    return "; ".join(parts) + "."


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


def choose_comparisons(comparisons: Sequence[Comparison], at_most: int) -> tuple[Comparison, ...]:
    """At most so many comparisons, in their own order: those whose poorer side has the most knots.

    A front of one point says little, and there are many such pairs in public data.
    """
    ranked = sorted(range(len(comparisons)), key=lambda i: (-_knots(comparisons[i]), i))
    return tuple(comparisons[i] for i in sorted(ranked[:at_most]))


def _knots(comparison: Comparison) -> int:
    return min(len(comparison.baseline.front), max(len(other.front) for other in comparison.others))


def name_charts(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Hardware, model, precision, lengths and engine of each; what else tells equal ones apart, if any."""
    names = [describe_workload(one.baseline) or "workload not recorded" for one in comparisons]
    titles = [
        f"{name} ({more})" if names.count(name) > 1 and (more := _telling(one)) else name
        for name, one in zip(names, comparisons, strict=True)
    ]
    seen: dict[str, int] = {}
    for i, name in enumerate(titles):
        seen[name] = seen.get(name, 0) + 1
        if titles.count(name) > 1:
            titles[i] = f"{name} #{seen[name]}"
    return tuple(titles)


def _telling(comparison: Comparison) -> str:
    baseline = comparison.baseline
    telling = [
        short(value, name) for name in ("image", "version", "workload") if (value := baseline.shared(name))
    ]
    return ", ".join(telling[:1])


def write_title(comparisons: Sequence[Comparison]) -> str:
    """`MTP versus Off`, with SIMULATED in front where any of it is."""
    arms = list(dict.fromkeys(display_name(curve.arm) for one in comparisons for curve in one.others))
    listed = ", ".join(arms[:4]) + (f" and {len(arms) - 4} more" if len(arms) > 4 else "")
    text = f"{listed} versus {display_name(comparisons[0].baseline.arm)}"
    return f"SIMULATED: {text}" if any(one.simulated for one in comparisons) else text


def caution(comparisons: Sequence[Comparison], pool: Sequence[str]) -> tuple[str, ...]:
    """What the reader of a picture alone would not know: that sides differ otherwise, that a curve mixes.

    Args:
        comparisons: those that are drawn.
        pool: fields in which the reader let one curve's points differ.
    """
    sentences = []
    if any(one.pooling for one in comparisons) and pool:
        sentences.append(f"A curve may mix points that differ in {', '.join(pool)}, as was asked for.")
    differing = sum(any(one.confounds.values()) for one in comparisons)
    if differing:
        where = "" if len(comparisons) == 1 else f" in {differing} of {len(comparisons)} charts"
        sentences.append(
            f"The sides differ in more than speculation, or nobody recorded whether they do{where}; mtpbench "
            "compare lists it."
        )
    return tuple(sentences)


@dataclass(frozen=True, kw_only=True, slots=True)
class Undrawn:
    """How many points a source has, or should have, that no picture can show.

    Args:
        damaged: points whose files can't be read.
        missing: planned ones that nobody has measured.
        without_figures: measured ones without rates, and rows that are no point.
    """

    damaged: int = 0
    missing: int = 0
    without_figures: int = 0

    def texts(self) -> list[str]:
        """`1 damaged, not drawn`, `3 not measured yet`; nothing of what there is none of."""
        parts = [f"{self.damaged} damaged, not drawn"] if self.damaged else []
        parts += [f"{self.without_figures} without figures, not drawn"] if self.without_figures else []
        return parts + ([f"{self.missing} not measured yet"] if self.missing else [])


def count_unused(unused: Sequence[Unused]) -> Undrawn:
    """What a source's unused points are; what is there twice is drawn once and lacks nothing."""
    kinds = Counter(item.kind for item in unused)
    return Undrawn(damaged=kinds["damaged"], missing=kinds["planned"], without_figures=kinds["unusable"])


def describe_left_out(drawn: int, comparisons: int) -> tuple[str, str]:
    """What a sheet leaves out, and what would draw it."""
    text = f"{comparisons - drawn} of {comparisons} comparisons, those with the fewest knots, are not drawn"
    if comparisons <= MOST_PANELS:
        return text, f"--panels {comparisons} draws all"
    return (
        text,
        f"a picture holds at most {MOST_PANELS}: choose with --hardware, --precision, --isl, --engine",
    )


def describe_source(names: Sequence[str], points: PointSet, version: str) -> str:
    """Where the points come from, in one line that says nothing of this machine's folders.

    Args:
        names: of the files and folders that were read.
        points: what they held, filtered.
        version: of mtpbench.
    """
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    valid = sum(point.valid for point in points.points)
    days = sorted({point.date for point in points.points if point.date})
    parts = [f"Source: {listed}", f"{valid} valid points, {len(points.points) - valid} invalid"]
    parts += count_unused(points.unused).texts()
    if days:
        parts.append(days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}")
    return "; ".join([*parts, f"mtpbench {version}"]) + "."
