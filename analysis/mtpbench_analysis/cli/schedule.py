"""`mtpbench schedule`: the depth of drafting by load, as an engine takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mtpbench.store import read_sweep
from mtpbench_analysis.cli.options import (
    ConfidenceOption,
    OutputOption,
    StartNoiseOption,
    Writers,
    deliver,
    echo,
)
from mtpbench_analysis.curves.curve_reader import DEFAULT_CONFIDENCE
from mtpbench_analysis.curves.errors import START_NOISE
from mtpbench_analysis.document import SIMULATED_BANNER
from mtpbench_analysis.importers.results import to_curve_point
from mtpbench_analysis.render.markup import to_markdown
from mtpbench_analysis.render.terminal import to_terminal
from mtpbench_analysis.schedule import (
    ENGINE_FORMS,
    EngineForm,
    Run,
    Schedule,
    check_engine,
    find_schedule,
    notes_of,
    to_engine_form,
    to_json,
    write_schedule,
)

Format = Literal["terminal", "md", "json", "engine"]


def schedule_command(
    results: Annotated[Path, typer.Argument(help="A folder results/<sweep> with arms of several depths.")],
    engine: Annotated[
        EngineForm | None, typer.Option(help="Whose form. [default: the sweep's engine, else mtpbench]")
    ] = None,
    method: Annotated[str | None, typer.Option(help="The method, where several were measured.")] = None,
    arm_prefix: Annotated[str, typer.Option(help="Only drafting arms whose name begins so.")] = "",
    topology: Annotated[str | None, typer.Option(help="The topology, where several were measured.")] = None,
    confidence: ConfidenceOption = DEFAULT_CONFIDENCE,
    start_noise: StartNoiseOption = START_NOISE * 100,
    output_format: Annotated[
        Format, typer.Option("--format", help="How to write it; engine is the table alone, for a file.")
    ] = "terminal",
    output: OutputOption = None,
) -> None:
    """Write the depth-by-load table that an engine takes, from the static depths that were measured."""
    schedule = find_schedule(
        _read_runs(results),
        method=method,
        arm_prefix=arm_prefix,
        topology=topology,
        confidence=confidence,
        start_noise=start_noise / 100,
    )
    form = engine or _own_form(schedule)
    check_engine(schedule, form)
    if output_format == "engine":
        _warn(schedule, form)
    writers: Writers = {
        "terminal": lambda: to_terminal([write_schedule(schedule, form)]),
        "md": lambda: to_markdown([write_schedule(schedule, form)]),
        "json": lambda: to_json(schedule, form),
        "engine": lambda: to_engine_form(schedule, form),
    }
    deliver(writers, output_format, output)


def _read_runs(results: Path) -> list[Run]:
    stored = read_sweep(results).points
    return [(item.point, to_curve_point(item)) for item in stored]


def _own_form(schedule: Schedule) -> EngineForm:
    return next((form for form in ENGINE_FORMS if form == schedule.point.engine.name), "mtpbench")


def _warn(schedule: Schedule, form: EngineForm) -> None:
    """Says beside the table, on standard error, what the table itself has no room for."""
    if schedule.point.simulated:
        echo(SIMULATED_BANNER, err=True)
    for block in write_schedule(schedule, form).items("doubts"):
        echo(f"in doubt: {block}", err=True)
    for note in notes_of(schedule, form):
        echo(note, err=True)
