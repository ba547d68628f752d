"""Pictures of comparisons and of a sweep's power: the charts that they hold, title and foot.

Matplotlib draws them. It takes a second to import, which no other command should wait for, so it is imported
where something is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mtpbench
from mtpbench.errors import InputError
from mtpbench.records import Hardware
from mtpbench_analysis.chart.choice import (
    Ending,
    Look,
    Undrawn,
    caution,
    choose_comparisons,
    describe_left_out,
    describe_source,
    name_charts,
    write_title,
)
from mtpbench_analysis.chart.content import Chart, caption, describe_chart
from mtpbench_analysis.chart.power_content import describe_power
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.document import SIMULATED_BANNER
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.traces.power import SweepPower


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
