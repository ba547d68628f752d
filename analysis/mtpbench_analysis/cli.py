"""`mtpbench compare` and `mtpbench import`: the commands of the reading half; the only module that prints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console, RenderableType

from mtpbench.errors import InputError
from mtpbench_analysis.cells import DEFAULT_MAX_GAP
from mtpbench_analysis.comparisons import Filter, Question, compare_points, narrow, render_results
from mtpbench_analysis.cost import DEFAULT_TIER
from mtpbench_analysis.curves import build_curves
from mtpbench_analysis.document import list_unused, write_document
from mtpbench_analysis.exports import to_csv, to_json
from mtpbench_analysis.frame import PointSet, merge
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.importers.inferencex import read_rows
from mtpbench_analysis.importers.points_csv import write_points
from mtpbench_analysis.markdown import to_markdown
from mtpbench_analysis.pairing import Outcome, describe, describe_invalid
from mtpbench_analysis.report import write_report
from mtpbench_analysis.terminal import to_terminal

__all__ = ["compare_command", "import_app", "parse_targets", "register", "render_results", "write_report"]

Format = Literal["terminal", "md", "csv", "json"]

import_app = typer.Typer(help="Turn public rows into a CSV of points.", no_args_is_help=True)

_Hardware = Annotated[
    str | None, typer.Option(help="Only this hardware; names it where the source does not.")
]
_Precision = Annotated[str | None, typer.Option(help="Only this precision.")]
_Isl = Annotated[int | None, typer.Option(help="Only this input length.")]
_Osl = Annotated[int | None, typer.Option(help="Only this output length.")]
_Engine = Annotated[str | None, typer.Option("--engine", "--framework", help="Only this engine.")]
_Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")]


def register(app: typer.Typer) -> None:
    """Mounts `compare` and `import` on the main command."""
    app.command("compare")(compare_command)
    app.add_typer(import_app, name="import")


def compare_command(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Folders results/<sweep>, CSVs of points, InferenceX JSON.", metavar="SOURCES..."
        ),
    ],
    targets: Annotated[str, typer.Option(help="Interactivities in tok/s/user, such as 32,46,61.")] = "",
    output_format: Annotated[Format, typer.Option("--format", help="How to write it.")] = "terminal",
    baseline: Annotated[str | None, typer.Option(help="The arm to compare with. [default: off]")] = None,
    hardware: _Hardware = None,
    precision: _Precision = None,
    isl: _Isl = None,
    osl: _Osl = None,
    engine: _Engine = None,
    hardware_constants: Annotated[
        str | None, typer.Option(help="Date of the price and power constants, such as 2026-05.")
    ] = None,
    tier: Annotated[
        str, typer.Option(help="Whose price: hyperscaler, neocloud or rental_3y.")
    ] = DEFAULT_TIER,
    max_gap: Annotated[
        float, typer.Option(help="No ratio across knots whose throughputs differ by more than this factor.")
    ] = DEFAULT_MAX_GAP,
    pool: Annotated[
        str, typer.Option(help="Let one curve mix these: engine, serving, acceptance_mode.")
    ] = "",
    output: _Output = None,
) -> None:
    """Compare arms at equal interactivity: throughput, cost, tokens per megawatt, and what they rest on."""
    question = Question(
        targets_tps=parse_targets(targets),
        baseline=baseline,
        constants_date=hardware_constants,
        tier=tier,
        max_gap=max_gap,
        pool=tuple(name.strip() for name in pool.split(",") if name.strip()),
    )
    kept = Filter(hardware=hardware, precision=precision, isl=isl, osl=osl, engine=engine)
    outcome = compare_points(merge([read_source(path) for path in sources]), question, kept)
    _deliver(outcome, output_format, output)


@import_app.command("inferencex")
def import_inferencex(
    file: Annotated[Path, typer.Argument(help="The JSON list of rows.")],
    hardware: _Hardware = None,
    precision: _Precision = None,
    isl: _Isl = None,
    osl: _Osl = None,
    engine: _Engine = None,
    list_curves: Annotated[bool, typer.Option("--list", help="List the curves.")] = False,
    output: _Output = None,
) -> None:
    """Turn InferenceX rows into a CSV of points, and say what became of every row."""
    kept = Filter(hardware=hardware, precision=precision, isl=isl, osl=osl, engine=engine)
    points = narrow(read_rows(file), kept)
    if not points.points:
        raise InputError(f"{file}: no row left by {kept}")
    Console(highlight=False, soft_wrap=True).print(_import_summary(points, list_curves), markup=False)
    if output is not None:
        comments = [f"imported by mtpbench from {file.name}: {len(points.points)} points"]
        _write(output, write_points(points.points, comments))


def parse_targets(text: str) -> tuple[float, ...]:
    """`32,46,61` as numbers.

    Raises:
        InputError: a target is not a positive number; the message says which.
    """
    targets = []
    for part in (part.strip() for part in text.split(",")) if text.strip() else ():
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value <= 0:
            raise InputError(
                f"--targets {text}: {part!r} is not a positive number; interactivities in tok/s/user such as "
                "32,46,61 are needed"
            )
        targets.append(value)
    return tuple(dict.fromkeys(targets))


def _deliver(outcome: Outcome, output_format: Format, output: Path | None) -> None:
    documents = [write_document(comparison) for comparison in outcome.comparisons]
    left_out = list_unused(outcome.left_out)
    if output_format == "terminal" and output is None:
        Console(highlight=False).print(to_terminal(documents, left_out))
        return
    texts = {
        "terminal": lambda: _plain(to_terminal(documents, left_out)),
        "md": lambda: to_markdown(documents, left_out),
        "csv": lambda: to_csv(outcome.comparisons),
        "json": lambda: to_json(outcome.comparisons, outcome.left_out),
    }
    text = texts[output_format]()
    if output is None:
        typer.echo(text, nl=False)
    else:
        _write(output, text)


def _plain(renderable: RenderableType) -> str:
    console = Console(width=100, highlight=False, no_color=True)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror})") from error
    typer.echo(f"written: {path}", err=True)


def _count(points: int) -> str:
    return "1 point" if points == 1 else f"{points} points"


def _import_summary(points: PointSet, list_curves: bool) -> str:
    curves = build_curves(points.points)
    invalid = [describe_invalid(point) for point in points.points if not point.valid]
    rows = len(points.points) + len(points.unused)
    lines = [f"{rows} rows: {len(points.points) - len(invalid)} points in {len(curves)} curves"]
    lines[0] += f", {len(invalid)} invalid, {len(points.unused)} unusable"
    lines += [f"  {line}" for line in list_unused([*invalid, *points.unused])]
    if list_curves:
        lines += [f"  {describe(curve)}: {_count(len(curve.measured))}" for curve in curves]
    return "\n".join(lines)
