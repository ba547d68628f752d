"""`mtpbench regress`: is the new sweep slower than the old one?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from mtpbench.errors import InputError, RunError
from mtpbench_analysis.cli.options import OutputOption, Writers, deliver, echo
from mtpbench_analysis.importers import drop_copies, read_source
from mtpbench_analysis.regression import Criteria, Regression, find_regression
from mtpbench_analysis.regression.report import say_gate_needs, to_json, write_regression
from mtpbench_analysis.render.markup import to_markdown
from mtpbench_analysis.render.terminal import to_terminal

Format = Literal["terminal", "md", "json"]


def regress_command(
    old: Annotated[Path, typer.Argument(help="The old sweep: results/<sweep>, CSV or JSON.")],
    new: Annotated[Path, typer.Argument(help="The new sweep, the same recipes.")],
    more_old: Annotated[
        list[Path] | None, typer.Option("--old", help="A further sweep of the old build; repeatable.")
    ] = None,
    more_new: Annotated[
        list[Path] | None, typer.Option("--new", help="A further sweep of the new build; repeatable.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="The change that matters, in percent.")] = 3.0,
    confidence: Annotated[float, typer.Option(help="Of every interval.")] = 0.95,
    power: Annotated[
        float, typer.Option(help="The chance with which a change that matters must be found.")
    ] = 0.8,
    start_noise: Annotated[
        float,
        typer.Option(
            help="How far two starts of one server may differ, in percent: an assumption; several sweeps of "
            "a side tell."
        ),
    ] = 1.0,
    output_format: Annotated[Format, typer.Option("--format", help="How to write it.")] = "terminal",
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit with 3 when slower, and when a slowdown could not be seen.")
    ] = False,
    output: OutputOption = None,
) -> None:
    """Test whether a new sweep is slower than an old one, and say when that could not have been seen."""
    sides = [[old, *(more_old or [])], [new, *(more_new or [])]]
    _check_distinct([path for side in sides for path in side])
    criteria = Criteria(
        threshold=threshold / 100, confidence=confidence, power=power, start_noise=start_noise / 100
    )
    before, after = (drop_copies([read_source(path) for path in side]) for side in sides)
    regression = find_regression(before, after, criteria)
    writers: Writers = {
        "terminal": lambda: to_terminal([write_regression(regression)]),
        "md": lambda: to_markdown([write_regression(regression)]),
        "json": lambda: to_json(regression),
    }
    deliver(writers, output_format, output)
    if gate:
        _judge(regression)


def _check_distinct(paths: Sequence[Path]) -> None:
    first: dict[Path, Path] = {}
    for path in paths:
        if (same := first.setdefault(Path(os.path.realpath(path)), path)) is not path:
            raise InputError(f"{path}: given twice (as {same}); every sweep counts once, on one side")


def _judge(regression: Regression) -> None:
    """Closes the gate (exit 3) with its reasons."""
    if reasons := regression.gate:
        lines = "".join(f"\n  - {reason}" for reason in reasons)
        needs = "".join(f"\n{text}" for text in say_gate_needs(regression))
        raise RunError(f"the gate stays closed:{lines}{needs}")
    echo("the gate is open", err=True)
