"""`mtpbench import`: rows and results of other tools as a CSV of points."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mtpbench.errors import InputError
from mtpbench_analysis.cli.options import HardwareOption, OutputOption, write_text
from mtpbench_analysis.comparisons import Filter, narrow
from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.importers import KINDS, Declared, Reader, read_source, read_sources
from mtpbench_analysis.importers.documents import join_reasons
from mtpbench_analysis.importers.points_csv import write_points
from mtpbench_analysis.numbers import counted
from mtpbench_analysis.pairing import describe, describe_invalid

import_app = typer.Typer(
    help="Turn rows and results of other tools into a CSV of points.", no_args_is_help=True
)

_Arm = Annotated[str | None, typer.Option(help="The side they belong to, such as off or mtp.")]
_Gpus = Annotated[int | None, typer.Option(help="All GPUs of the deployment.")]
_PrefillGpus = Annotated[int | None, typer.Option(help="GPUs that prefill.")]
_DecodeGpus = Annotated[int | None, typer.Option(help="GPUs that decode.")]
_Precision = Annotated[str | None, typer.Option(help="Only this precision, or what it was.")]
_Engine = Annotated[
    str | None, typer.Option("--engine", "--framework", help="Only this engine, or which it was.")
]
_Isl = Annotated[int | None, typer.Option(help="Only this input length, or which it was.")]
_Osl = Annotated[int | None, typer.Option(help="Only this output length, or which it was.")]
_Topology = Annotated[str | None, typer.Option(help="Such as 1xTP8 or 6xDEP8-1xDEP16.")]
_Model = Annotated[str | None, typer.Option(help="The model, if not by the name it was served under.")]
_Version = Annotated[str | None, typer.Option("--engine-version", help="The engine's version.")]
_Serving = Annotated[str | None, typer.Option(help="aggregated or disaggregated.")]
_Image = Annotated[str | None, typer.Option(help="The container image.")]
_Acceptance = Annotated[
    str | None, typer.Option("--acceptance-mode", help="off, measured, or golden (pinned).")
]
_Concurrency = Annotated[int | None, typer.Option(help="For files that do not say it (AIPerf's CSV).")]


def _add_command(name: str, read: Reader, does: str) -> None:
    """Mount one import command; they differ in what reads the files."""

    @import_app.command(name, help=f"Turn {does} into a CSV of points, and say what became of every row.")
    def import_command(
        files: Annotated[list[Path], typer.Argument(help="The files.", metavar="FILES...")],
        arm: _Arm = None,
        gpus: _Gpus = None,
        prefill_gpus: _PrefillGpus = None,
        decode_gpus: _DecodeGpus = None,
        topology: _Topology = None,
        hardware: HardwareOption = None,
        precision: _Precision = None,
        model: _Model = None,
        engine: _Engine = None,
        version: _Version = None,
        serving: _Serving = None,
        image: _Image = None,
        acceptance_mode: _Acceptance = None,
        isl: _Isl = None,
        osl: _Osl = None,
        concurrency: _Concurrency = None,
        list_curves: Annotated[bool, typer.Option("--list", help="List the curves.")] = False,
        output: OutputOption = None,
    ) -> None:
        declared = Declared(
            arm=arm,
            gpus=gpus,
            prefill_gpus=prefill_gpus,
            decode_gpus=decode_gpus,
            topology=topology,
            hardware=hardware,
            precision=precision,
            model=model,
            engine=engine,
            version=version,
            serving=serving,
            image=image,
            acceptance_mode=acceptance_mode,
            isl=isl,
            osl=osl,
            concurrency=concurrency,
        )
        point_filter = Filter(hardware=hardware, precision=precision, isl=isl, osl=osl, engine=engine)
        read_all = read_sources(files, declared, read)
        _deliver(files, narrow(read_all, point_filter), point_filter, list_curves, output)


for _name, _kind in KINDS.items():
    _add_command(_name, _kind.read, _kind.label)
_add_command("auto", read_source, "files whose kind is told by what they hold")


def _deliver(
    files: list[Path], points: PointSet, point_filter: Filter, list_curves: bool, output: Path | None
) -> None:
    names = ", ".join(file.name for file in files[:4]) + (f" and {len(files) - 4} more" if files[4:] else "")
    if not points.points:
        lost = [item for item in points.unused if item.kind != "note"]
        why = join_reasons(lost) if lost else f"no row left by {point_filter}"
        raise InputError(f"{names}: no point can be made: {why}" if lost else f"{names}: {why}")
    Console(highlight=False, soft_wrap=True).print(_summarize(points, list_curves), markup=False)
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
