"""`mtpbench report`: the page that people open, share and argue over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mtpbench.errors import InputError
from mtpbench_analysis.cli.options import ComparisonOptions, SourcesArgument, echo, with_options, write_text
from mtpbench_analysis.comparisons import Filter, choose, compare_if_possible
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.importers import read_sources
from mtpbench_analysis.report.overview import LonePoints, describe_provenance
from mtpbench_analysis.report.page import render_page
from mtpbench_analysis.traces import narrow_traces, read_traces


@with_options
def report_command(
    sources: SourcesArgument,
    options: ComparisonOptions,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    title: Annotated[
        str | None, typer.Option(help="Of the page. [default: the sweep's, or the file's]")
    ] = None,
) -> None:
    """Write one page that works offline: table with targets to edit, chart, recipes, caveats, sources."""
    point_filter = options.filter
    points = read_sources(sources)
    outcome = compare_if_possible(points, options.comparison_question, point_filter)
    traces = read_traces(sources)
    if outcome.why_none and not traces:
        # Files of other tools hold nothing to look at beside what a comparison would show.
        raise InputError(f"{', '.join(points.sources)}: {outcome.why_none}{outcome.examples}")
    left_out = tuple(map(str, outcome.left_out))
    chosen = choose(points, point_filter, options.baseline)
    if point_filter != Filter():
        traces = narrow_traces(traces, chosen.points)
    page = render_page(
        title or _title(points),
        outcome.comparisons,
        left_out,
        describe_provenance(chosen, [Path(os.path.realpath(path)).name for path in sources]),
        traces,
        LonePoints(why=outcome.why_none, points=chosen.points) if outcome.why_none else None,
    )
    write_text(output, page)
    if outcome.why_none:
        echo(f"no comparison: {outcome.why_none}", err=True)


def _title(points: PointSet) -> str:
    if points.info is not None:
        return points.info.name
    return ", ".join(Path(os.path.realpath(source)).stem for source in points.sources)
