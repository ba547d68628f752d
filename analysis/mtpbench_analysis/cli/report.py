"""`mtpbench report`: the page that people open, share and argue over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtpbench.errors import InputError
from mtpbench_analysis.cells import DEFAULT_MAX_GAP
from mtpbench_analysis.cli.compare import parse_targets
from mtpbench_analysis.cli.delivery import write_text
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
from mtpbench_analysis.comparisons import Filter, Question, choose, compare_if_possible
from mtpbench_analysis.cost import DEFAULT_TIER
from mtpbench_analysis.frame import PointSet, merge
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.reading import DEFAULT_CONFIDENCE
from mtpbench_analysis.report import Alone, describe_provenance, render_page
from mtpbench_analysis.traces.points import narrow_traces, read_traces


def report_command(
    sources: SourcesArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    title: Annotated[
        str | None, typer.Option(help="Of the page. [default: the sweep's, or the file's]")
    ] = None,
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
    """Write one page that works offline: table with targets to edit, chart, recipes, caveats, sources."""
    question = Question(
        targets_tps=parse_targets(targets),
        baseline=baseline,
        constants=hardware_constants,
        usd_per_gpu_h=usd_per_gpu_h,
        kw_per_gpu=kw_per_gpu,
        tier=tier,
        max_gap=max_gap,
        grouping=grouping_of(pool, split),
        confidence=confidence,
    )
    kept = Filter(hardware=hardware, precision=precision, isl=isl, osl=osl, engine=engine)
    points = merge([read_source(path) for path in sources])
    found = compare_if_possible(points, question, kept)
    traces = read_traces(sources)
    if found.why_none and not traces:
        # Files of other tools hold nothing to look at beside what a comparison would show.
        raise InputError(f"{', '.join(points.sources)}: {found.why_none}{found.examples}")
    left_out = tuple(map(str, found.outcome.left_out))
    chosen = choose(points, kept)
    if kept != Filter():
        traces = narrow_traces(traces, chosen.points)
    page = render_page(
        title or _title(points),
        found.outcome.comparisons,
        left_out,
        describe_provenance(chosen, [path.resolve().name for path in sources]),
        traces,
        Alone(why=found.why_none, points=chosen.points) if found.why_none else None,
    )
    write_text(output, page)
    if found.why_none:
        typer.echo(f"no comparison: {found.why_none}", err=True)


def _title(points: PointSet) -> str:
    if points.info is not None:
        return points.info.name
    return ", ".join(Path(source).resolve().stem for source in points.sources)
