"""`mtpbench best`: the questions of somebody who buys or tunes a rack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from mtpbench.errors import InputError
from mtpbench_analysis.best import BuyerQuestion, Requirement, answer
from mtpbench_analysis.cli.options import (
    OutputOption,
    PointOptions,
    SourcesArgument,
    Writers,
    deliver,
    with_options,
)
from mtpbench_analysis.comparisons import choose
from mtpbench_analysis.document import Document, json_text
from mtpbench_analysis.importers import read_sources
from mtpbench_analysis.render.markup import to_markdown
from mtpbench_analysis.render.terminal import to_terminal

Format = Literal["terminal", "md", "json"]


@with_options
def best_command(
    sources: SourcesArgument,
    options: PointOptions,
    cost: Annotated[
        float | None, typer.Option(help="How fast can it be at so many $ per million tokens?")
    ] = None,
    interactivity: Annotated[
        float | None, typer.Option(help="Which recipe is the cheapest with so many tok/s/user …")
    ] = None,
    ttft: Annotated[
        float | None, typer.Option(help="… and a median TTFT of at most so many seconds?")
    ] = None,
    output_format: Annotated[Format, typer.Option("--format", help="How to write it.")] = "terminal",
    output: OutputOption = None,
) -> None:
    """Who wins at each interactivity; how fast at a given cost; the cheapest recipe for a given speed."""
    for name, value in (("--cost", cost), ("--interactivity", interactivity), ("--ttft", ttft)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} {value:g}: a number above 0 is needed")
    if ttft is not None and interactivity is None:
        raise InputError("--ttft goes with --interactivity: the cheapest recipe that meets both")
    requirement = None
    if interactivity is not None:
        requirement = Requirement(min_interactivity_tps=interactivity, max_ttft_s=ttft)
    points = choose(read_sources(sources), options.filter)
    documents = answer(
        points, options.question, BuyerQuestion(max_usd_per_mtok=cost, requirement=requirement)
    )
    writers: Writers = {
        "terminal": lambda: to_terminal(documents),
        "md": lambda: to_markdown(documents),
        "json": lambda: _to_json(documents),
    }
    deliver(writers, output_format, output)


def _to_json(documents: Sequence[Document]) -> str:
    body = [{"title": document.heading, **document.data} for document in documents]
    return json_text({"schema_version": 1, "answers": body})
