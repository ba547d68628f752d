"""`mtpbench plot`: the report's chart, or the power of a sweep, as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mtpbench.errors import InputError
from mtpbench_analysis.chart.picture import (
    DEFAULT_PANELS,
    MOST_PANELS,
    PictureRequest,
    draw_comparisons,
    draw_power_picture,
)
from mtpbench_analysis.chart.style import DEFAULT_DPI, Y_KEYS, PictureOptions, YKey, format_of
from mtpbench_analysis.cli.options import ComparisonOptions, SourcesArgument, deliver, echo, with_options
from mtpbench_analysis.comparisons import choose, compare_points, constants_for
from mtpbench_analysis.importers import read_sources
from mtpbench_analysis.traces import SweepPower, read_sweep_power

_OF_POWER = (
    *("sources", "output", "power", "title", "width_in", "height_in", "dpi"),
    *("hardware_constants", "kw_per_gpu"),
)


@with_options
def plot_command(
    context: typer.Context,
    sources: SourcesArgument,
    options: ComparisonOptions,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The picture to write: .svg, .png or .pdf.")
    ] = Path("chart.svg"),
    power: Annotated[
        bool, typer.Option("--power", help="The power of one results folder over time instead.")
    ] = False,
    metric: Annotated[YKey, typer.Option("--y", help="The vertical axis.")] = Y_KEYS[0],
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
) -> None:
    """Draw throughput per GPU over interactivity, each arm against Off, as SVG, PNG or PDF."""
    picture_format = format_of(output.name)
    if not os.path.isdir(output.parent):
        raise InputError(f"{output}: there is no folder {output.parent}; make it first")
    question = options.comparison_question
    request = PictureRequest(
        format=picture_format,
        title=title,
        options=PictureOptions(
            y_key=metric,
            front_only=front_only,
            log=log,
            loads=labels,
            width_in=width_in,
            height_in=height_in,
            dpi=dpi,
        ),
        source_names=tuple(
            (Path(os.path.realpath(path)) if power else path).name or str(path) for path in sources
        ),
    )
    if power:
        _refuse_without_effect(context)
        sweep = _read_power(sources)
        picture = draw_power_picture(sweep, constants_for(sweep.info, question), request)
    else:
        points = read_sources(sources)
        comparisons = compare_points(points, question, options.filter).comparisons
        picture = draw_comparisons(
            comparisons, choose(points, options.filter, options.baseline), request, panels
        )
    if picture.notice:
        echo(picture.notice, err=True)
    deliver({picture_format: lambda: picture.data}, picture_format, output)


def _read_power(sources: Sequence[Path]) -> SweepPower:
    (source,) = sources if len(sources) == 1 else (None,)
    if source is None or not os.path.isdir(source):
        raise InputError(
            f"--power: {', '.join(map(str, sources))}: one folder results/<sweep> is needed; only its "
            "points keep their power over time"
        )
    sweep = read_sweep_power(source)
    if not sweep.traces:
        why = "; ".join(sweep.damaged.values()) or "no point of the sweep has been measured yet"
        raise InputError(f"{source}: there is nothing to draw: {why}")
    return sweep


def _refuse_without_effect(context: typer.Context) -> None:
    """Refuses filters beside `--power`: one that is silently ignored would be believed."""
    ignored = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in _OF_POWER
        and (source := context.get_parameter_source(parameter.name or "")) is not None
        and source.name == "COMMANDLINE"
    ]
    if ignored:
        raise InputError(
            f"{', '.join(ignored)}: without effect on --power, which shows a whole sweep as it ran"
        )
