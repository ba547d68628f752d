"""`mtpbench import`: rows and results of other tools as a CSV of points."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated

import typer

from mtpbench.errors import InputError
from mtpbench_analysis.cli.options import HardwareOption, OutputOption, make_console, with_options, write_text
from mtpbench_analysis.comparisons import Filter, narrow
from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.importers import KINDS, Declared, Reader, read_source, read_sources
from mtpbench_analysis.importers.documents import join_reasons
from mtpbench_analysis.importers.names import METHODS
from mtpbench_analysis.importers.points_csv import write_points
from mtpbench_analysis.numbers import counted
from mtpbench_analysis.pairing import describe, describe_invalid

import_app = typer.Typer(
    help="Turn rows and results of other tools into a CSV of points.", no_args_is_help=True
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOptions:
    """The facts that files of other tools do not say, and the points that are kept, field by field."""

    arm: Annotated[str | None, typer.Option(help="The side they belong to, such as off or mtp.")] = None
    gpus: Annotated[int | None, typer.Option(help="All GPUs of the deployment.")] = None
    prefill_gpus: Annotated[int | None, typer.Option(help="GPUs that prefill.")] = None
    decode_gpus: Annotated[int | None, typer.Option(help="GPUs that decode.")] = None
    topology: Annotated[str | None, typer.Option(help="Such as 1xTP8 or 6xDEP8-1xDEP16.")] = None
    hardware: HardwareOption = None
    precision: Annotated[str | None, typer.Option(help="Only this precision, or what it was.")] = None
    model: Annotated[str | None, typer.Option(help="The model, if not by the name it was served under.")] = (
        None
    )
    engine: Annotated[
        str | None, typer.Option("--engine", "--framework", help="Only this engine, or which it was.")
    ] = None
    version: Annotated[str | None, typer.Option("--engine-version", help="The engine's version.")] = None
    serving: Annotated[str | None, typer.Option(help="aggregated or disaggregated.")] = None
    image: Annotated[str | None, typer.Option(help="The container image.")] = None
    method: Annotated[
        str | None,
        typer.Option(help="How drafts are made, if unsaid: " + ", ".join(METHODS) + "."),
    ] = None
    draft_tokens: Annotated[int | None, typer.Option(help="Tokens that a step drafts.")] = None
    checkpoint: Annotated[str | None, typer.Option(help="What was loaded as the target model.")] = None
    acceptance_mode: Annotated[
        str | None, typer.Option("--acceptance-mode", help="off, measured, or golden (pinned).")
    ] = None
    isl: Annotated[int | None, typer.Option(help="Only this input length, or which it was.")] = None
    osl: Annotated[int | None, typer.Option(help="Only this output length, or which it was.")] = None
    concurrency: Annotated[int | None, typer.Option(help="For files that do not say it (AIPerf's CSV).")] = (
        None
    )
    range_ratio: Annotated[
        float | None, typer.Option(help="Lengths were drawn from this share of ISL and OSL up; 1 for exact.")
    ] = None
    stream_interval: Annotated[
        int | None, typer.Option(help="Tokens that the server collects before it sends a chunk.")
    ] = None


def _add_command(name: str, read: Reader, does: str) -> None:
    """Mounts one import command; the commands differ in the reader of their files."""

    @import_app.command(name, help=f"Turn {does} into a CSV of points, and say what became of every row.")
    @with_options
    def import_command(
        files: Annotated[list[Path], typer.Argument(help="The files.", metavar="FILES...")],
        options: ImportOptions,
        list_curves: Annotated[bool, typer.Option("--list", help="List the curves.")] = False,
        output: OutputOption = None,
        overwrite: Annotated[
            bool, typer.Option("--overwrite", help="Replace the file if there is one.")
        ] = False,
    ) -> None:
        if output is not None:
            _check_output(output, files, overwrite)
        declared = Declared(**asdict(options))
        names = [each.name for each in fields(Filter) if each.name != "methods"]
        point_filter = Filter(**{name: getattr(options, name) for name in names})
        points = narrow(read_sources(files, declared, read), point_filter)
        _deliver(files, points, point_filter, list_curves, output)


for _name, _kind in KINDS.items():
    _add_command(_name, _kind.read, _kind.label)
_add_command("auto", read_source, "files whose kind is told by what they hold")


def _check_output(output: Path, files: Sequence[Path], overwrite: bool) -> None:
    """Refuses an output that is an input, or there already: an arm imported before would be lost."""
    if Path(os.path.realpath(output)) in [Path(os.path.realpath(file)) for file in files]:
        raise InputError(f"--output {output}: is one of the files that are read; name another")
    if os.path.exists(output) and not overwrite:
        raise InputError(
            f"--output {output}: is there already; name another (compare takes several), or give --overwrite"
        )


def _deliver(
    files: list[Path], points: PointSet, point_filter: Filter, list_curves: bool, output: Path | None
) -> None:
    names = ", ".join(file.name for file in files[:4]) + (f" and {len(files) - 4} more" if files[4:] else "")
    if not points.points:
        lost = [item for item in points.unused if item.kind != "note"]
        why = join_reasons(lost) if lost else f"no row left by {point_filter}"
        raise InputError(f"{names}: no point can be made: {why}" if lost else f"{names}: {why}")
    make_console(soft_wrap=True).print(_summarize(points, list_curves))
    if output is not None:
        comments = [f"imported by mtpbench from {names}: {counted(len(points.points), 'point')}"]
        write_text(output, write_points(points.points, comments))


def _summarize(points: PointSet, list_curves: bool) -> str:
    curves = build_curves(points.points)
    invalid = [describe_invalid(point) for point in points.points if not point.valid]
    unusable = [item for item in points.unused if item.kind != "note"]
    notes = [item for item in points.unused if item.kind == "note"]
    rows = len(points.points) + len(unusable)
    lines = [f"{rows} rows: {counted(len(points.points) - len(invalid), 'point')} in {len(curves)} curves"]
    lines[0] += f", {len(invalid)} invalid, {len(unusable)} unusable"
    lines += [f"  {line}" for line in map(str, [*invalid, *unusable, *notes])]
    if list_curves:
        lines += [f"  {describe(curve)}: {counted(len(curve.measured), 'point')}" for curve in curves]
    return "\n".join(lines)
