"""`mtpbench compare`: arms at equal interactivity."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from mtpbench.errors import InputError
from mtpbench.records import METHOD_NAMES
from mtpbench_analysis.chart.terminal_curve import TerminalCurve, asks_for_ascii
from mtpbench_analysis.cli.options import (
    ComparisonOptions,
    OutputOption,
    SourcesArgument,
    Writers,
    deliver,
    parse_lengths,
    with_options,
)
from mtpbench_analysis.comparison_document import summarize, write_document
from mtpbench_analysis.comparisons import compare_points, explain_page
from mtpbench_analysis.document import Document, json_text
from mtpbench_analysis.importers import read_sources
from mtpbench_analysis.pairing import ComparisonOutcome
from mtpbench_analysis.public_page import METHODS, Explanation, check_method, to_records, write_page_document
from mtpbench_analysis.render.csv_json_parquet import (
    flat,
    lines_to_csv,
    lines_to_parquet,
    to_csv,
    to_json,
    to_parquet,
)
from mtpbench_analysis.render.markup import to_latex, to_markdown
from mtpbench_analysis.render.terminal import curves_of, to_terminal
from mtpbench_analysis.report import FolderComparison
from mtpbench_analysis.what_if import projection_lines

HONEST = "honest"
Format = Literal["terminal", "md", "csv", "json", "latex", "parquet"]


@with_options
def compare_command(
    sources: SourcesArgument,
    options: ComparisonOptions,
    output_format: Annotated[Format, typer.Option("--format", help="How to write it.")] = "terminal",
    method: Annotated[
        str,
        typer.Option(
            help="honest, or a public page's own with its faults, explained: " + ", ".join(METHODS) + "."
        ),
    ] = HONEST,
    summary: Annotated[
        bool, typer.Option("--summary", help="One row for each target: for many comparisons at once.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Every metric, in the terminal too.")] = False,
    curve: Annotated[
        bool | None,
        typer.Option("--curve/--no-curve", help="Draw the curves too; if unsaid, in a terminal only."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Refuse curves that differ in more than speculation, and acceptance with a caveat.",
        ),
    ] = False,
    what_if_acceptance: Annotated[
        list[str] | None,
        typer.Option(
            help="Project drafting curves to these acceptance lengths, such as 2.0,2.5, in tables of "
            "their own; CSV and Parquet then hold the projections alone.",
        ),
    ] = None,
    output: OutputOption = None,
) -> None:
    """Compare arms at equal interactivity: throughput, cost, tokens per megawatt, and what they rest on."""
    what_if = parse_lengths(what_if_acceptance or ())
    question = replace(options.comparison_question, strict=strict, what_if=what_if)
    points = read_sources(sources)
    if method in METHOD_NAMES:
        raise InputError(
            f"--method {method}: is no public page's; --speculation {method} chooses arms by method"
        )
    if method != HONEST:
        if what_if:
            raise InputError(f"--method {method} has no projections; leave --what-if-acceptance out")
        explanations = explain_page(points, question, options.filter, check_method(method))
        deliver(_page_texts(explanations), output_format, output)
        return
    outcome = compare_points(points, question, options.filter)
    drawings = _drawings(outcome, curve, output is not None)
    texts = _summary_texts(outcome) if summary else {}
    projected = _projected_texts(outcome) if what_if else {}
    deliver({**_texts(outcome, full, drawings), **texts, **projected}, output_format, output)


def _drawings(outcome: ComparisonOutcome, drawn: bool | None, to_file: bool) -> Sequence[TerminalCurve]:
    """Returns a curve for each comparison; by default a terminal gets them, and pipes and files do not."""
    if drawn is False or (drawn is None and to_file):
        return ()
    plain = asks_for_ascii(os.environ)
    return curves_of(outcome.comparisons, ascii_only=plain, terminals_only=drawn is None)


def _texts(outcome: ComparisonOutcome, full: bool, drawings: Sequence[TerminalCurve]) -> Writers:
    def documents() -> list[Document]:
        return [write_document(comparison) for comparison in outcome.comparisons]

    left_out = tuple(map(str, outcome.left_out))
    return {
        "terminal": lambda: to_terminal(documents(), left_out, full=full, curves=drawings),
        "md": lambda: to_markdown(documents(), left_out),
        "latex": lambda: to_latex(documents(), left_out),
        "csv": lambda: to_csv(outcome.comparisons),
        "json": lambda: to_json(outcome.comparisons, outcome.left_out),
        "parquet": lambda: to_parquet(outcome.comparisons),
    }


def _summary_texts(outcome: ComparisonOutcome) -> Writers:
    """Returns the formats for people; programs take the whole, which has a row for each target anyway."""
    documents = summarize(outcome.comparisons, outcome.left_out)
    return {
        "terminal": lambda: to_terminal(documents),
        "md": lambda: to_markdown(documents),
        "latex": lambda: to_latex(documents),
    }


def _projected_texts(outcome: ComparisonOutcome) -> Writers:
    """Returns the formats of lines, which hold nothing measured where projections are asked for."""
    return {
        "csv": lambda: lines_to_csv(projection_lines(outcome.comparisons)),
        "parquet": lambda: lines_to_parquet(projection_lines(outcome.comparisons)),
    }


def _page_texts(explanations: Sequence[Explanation]) -> Writers:
    documents = [write_page_document(explanation) for explanation in explanations]
    lines = [line for explanation in explanations for line in to_records(explanation)]
    return {
        "terminal": lambda: to_terminal(documents),
        "md": lambda: to_markdown(documents),
        "latex": lambda: to_latex(documents),
        "csv": lambda: lines_to_csv([flat(line) for line in lines]),
        "json": lambda: json_text({"schema_version": 1, "cells": lines}),
        "parquet": lambda: lines_to_parquet([flat(line) for line in lines]),
    }


def render_results(compared: FolderComparison) -> RenderableType:
    """Returns the comparison of a results folder for the terminal, or why there is none yet."""
    comparisons, why_none = compared.outcome.comparisons, compared.outcome.why_none
    drawings = curves_of(comparisons, ascii_only=asks_for_ascii(os.environ))
    table = to_terminal(compared.documents, compared.left_out, curves=drawings)
    return table if why_none is None else Group(Text(f"no comparison yet: {why_none}"), table)
