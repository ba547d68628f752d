"""`mtpbench plot`: the report's chart, or the power of a sweep, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import mtpbench
from mtpbench.errors import InputError
from mtpbench.hardware import lookup
from mtpbench.records import Hardware, SweepInfo
from mtpbench_analysis.cells import DEFAULT_MAX_GAP
from mtpbench_analysis.chart.choice import (
    DEFAULT_DPI,
    DEFAULT_PANELS,
    MOST_PANELS,
    Ending,
    Look,
    Metric,
    Undrawn,
    caution,
    choose_comparisons,
    describe_left_out,
    describe_source,
    ending_of,
    name_charts,
    write_title,
)
from mtpbench_analysis.chart.content import caption, describe_chart
from mtpbench_analysis.chart.power_content import describe_power
from mtpbench_analysis.cli.compare import parse_targets
from mtpbench_analysis.cli.delivery import deliver
from mtpbench_analysis.cli.options import (
    BaselineOption,
    ConfidenceOption,
    ConstantsOption,
    EngineOption,
    HardwareOption,
    IslOption,
    MaxGapOption,
    OslOption,
    PoolOption,
    PowerOption,
    PrecisionOption,
    PriceOption,
    SourcesArgument,
    SplitOption,
    TargetsOption,
    TierOption,
    grouping_of,
)
from mtpbench_analysis.comparisons import Filter, Question, choose, compare_points
from mtpbench_analysis.cost import DEFAULT_TIER, Economics, has_constants, resolve_name
from mtpbench_analysis.document import SIMULATED_BANNER
from mtpbench_analysis.frame import merge
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.reading import DEFAULT_CONFIDENCE
from mtpbench_analysis.traces.power import read_sweep_power

_OF_POWER = (
    *("sources", "output", "power", "title", "width_in", "height_in", "dpi"),
    *("hardware_constants", "kw_per_gpu"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """What both kinds of picture are made from."""

    sources: Sequence[Path]
    ending: Ending
    title: str | None
    look: Look
    question: Question


def plot_command(
    context: typer.Context,
    sources: SourcesArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The picture to write: .svg, .png or .pdf.")
    ] = Path("chart.svg"),
    power: Annotated[
        bool, typer.Option("--power", help="The power of one results folder over time instead.")
    ] = False,
    metric: Annotated[Metric, typer.Option("--y", help="The vertical axis.")] = "total",
    log: Annotated[bool, typer.Option("--log", help="Both axes logarithmic.")] = False,
    front_only: Annotated[
        bool, typer.Option("--front-only", help="No points below the front, no invalid ones.")
    ] = False,
    labels: Annotated[bool, typer.Option("--labels", help="c64 (concurrency 64) beside each knot.")] = False,
    panels: Annotated[
        int, typer.Option(min=1, max=MOST_PANELS, help="Draw at most so many comparisons.")
    ] = DEFAULT_PANELS,
    title: Annotated[str | None, typer.Option(help="Of the picture. [default: the arms]")] = None,
    width_in: Annotated[
        float | None, typer.Option("--width", help="Inches. [default: what the panels need]")
    ] = None,
    height_in: Annotated[
        float | None, typer.Option("--height", help="Inches. [default: what the panels need]")
    ] = None,
    dpi: Annotated[int, typer.Option(help="Pixels in an inch, of a PNG.")] = DEFAULT_DPI,
    targets: TargetsOption = "",
    baseline: BaselineOption = None,
    hardware: HardwareOption = None,
    precision: PrecisionOption = None,
    isl: IslOption = None,
    osl: OslOption = None,
    engine: EngineOption = None,
    hardware_constants: ConstantsOption = None,
    tier: TierOption = DEFAULT_TIER,
    usd_per_gpu_h: PriceOption = None,
    kw_per_gpu: PowerOption = None,
    max_gap: MaxGapOption = DEFAULT_MAX_GAP,
    pool: PoolOption = "",
    split: SplitOption = "",
    confidence: ConfidenceOption = DEFAULT_CONFIDENCE,
) -> None:
    """Draw throughput per GPU over interactivity, MTP against Off, as SVG, PNG or PDF."""
    ending = ending_of(output.name)
    if not output.parent.is_dir():
        raise InputError(f"{output}: there is no folder {output.parent}; make it first")
    asked = _Asked(
        sources=sources,
        ending=ending,
        title=title,
        look=Look(
            metric=metric,
            front_only=front_only,
            log=log,
            loads=labels,
            width_in=width_in,
            height_in=height_in,
            dpi=dpi,
        ),
        question=Question(
            targets_tps=parse_targets(targets),
            baseline=baseline,
            constants=hardware_constants,
            usd_per_gpu_h=usd_per_gpu_h,
            kw_per_gpu=kw_per_gpu,
            tier=tier,
            max_gap=max_gap,
            grouping=grouping_of(pool, split),
            confidence=confidence,
        ),
    )
    if power:
        _refuse_without_effect(context)
        data = _plot_power(asked)
    else:
        kept = Filter(hardware=hardware, precision=precision, isl=isl, osl=osl, engine=engine)
        data = _plot_curves(asked, kept, panels)
    deliver({ending: lambda: data}, ending, output)


def _plot_curves(asked: _Asked, kept: Filter, at_most: int) -> bytes:
    points = merge([read_source(path) for path in asked.sources])
    comparisons = compare_points(points, asked.question, kept).comparisons
    shown = choose_comparisons(comparisons, at_most)
    charts = [
        describe_chart(one, name, asked.look) for one, name in zip(shown, name_charts(shown), strict=True)
    ]
    if not any(len(chart.values) for chart in charts):
        raise InputError(_nothing_of(asked.look.metric, [note for chart in charts for note in chart.notes]))
    foot = [caption(charts), *(note for chart in charts for note in chart.notes)]
    foot += caution(shown, asked.question.grouping.pool)
    if len(comparisons) > len(shown):
        said, remedy = describe_left_out(len(shown), len(comparisons))
        typer.echo(f"{said}; {remedy}", err=True)
        foot.append(f"{said}.")
    if any(chart.simulated for chart in charts):
        foot.append(SIMULATED_BANNER)
    names = [path.name or str(path) for path in asked.sources]
    foot.append(describe_source(names, choose(points, kept), mtpbench.__version__))
    # Matplotlib takes a second to import, which no other command should wait for.
    from mtpbench_analysis.chart.mpl_chart import draw_figure
    from mtpbench_analysis.chart.mpl_style import save

    title = asked.title or write_title(shown)
    return save(draw_figure(title, charts, tuple(dict.fromkeys(foot)), asked.look), asked.ending, title)


def _nothing_of(metric: Metric, notes: Sequence[str]) -> str:
    why = " ".join(dict.fromkeys(notes)) or "the arms share no interactivity"
    return f"--y {metric}: there is nothing to draw. {why}"


def _plot_power(asked: _Asked) -> bytes:
    (source,) = asked.sources if len(asked.sources) == 1 else (None,)
    if source is None or not source.is_dir():
        raise InputError(
            f"--power: {', '.join(map(str, asked.sources))}: one folder results/<sweep> is needed; only its "
            "points keep their power over time"
        )
    sweep = read_sweep_power(source)
    traces = sweep.traces
    if not traces:
        why = "; ".join(sweep.damaged.values()) or "no point of the sweep has been measured yet"
        raise InputError(f"{source}: there is nothing to draw: {why}")
    chart = describe_power(
        traces, sweep.info.baseline, _constants(sweep.info, asked.question), sweep.info.arms
    )
    days = sorted({trace.started_utc[:10] for trace in traces})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    foot = [*chart.notes, *([SIMULATED_BANNER] if chart.simulated else [])]
    valid = sum(not trace.broken for trace in traces)
    said = [f"Source: {source.resolve().name}", f"{valid} valid points, {len(traces) - valid} invalid"]
    said += Undrawn(damaged=len(sweep.damaged), missing=len(sweep.missing)).texts()
    foot.append("; ".join([*said, when, f"mtpbench {mtpbench.__version__}"]) + ".")
    from mtpbench_analysis.chart.mpl_power import draw_power
    from mtpbench_analysis.chart.mpl_style import save

    named = f"Power over the sweep {sweep.info.name}"
    title = asked.title or (f"SIMULATED: {named}" if chart.simulated else named)
    return save(draw_power(title, chart, foot, asked.look), asked.ending, title)


def _constants(info: SweepInfo, question: Question) -> Hardware | None:
    """The sweep's own constants unless others are asked for."""
    found: Hardware | None = info.hardware
    if question.constants is not None:
        name = resolve_name(info.hardware.name, question.constants)
        known = has_constants(name, question.constants)
        found = lookup(name, question.constants) if known else None
    if question.kw_per_gpu is None:
        return found
    return (
        Economics(hardware=found or info.hardware, tier=question.tier)
        .with_power(question.kw_per_gpu)
        .hardware
    )


def _refuse_without_effect(context: typer.Context) -> None:
    """A filter that is silently ignored would be believed."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in _OF_POWER
        and (found := context.get_parameter_source(parameter.name or "")) is not None
        and found.name == "COMMANDLINE"
    ]
    if given:
        raise InputError(
            f"{', '.join(given)}: without effect on --power, which shows a whole sweep as it ran"
        )
