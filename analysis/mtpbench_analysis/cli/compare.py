"""`mtpbench compare`: arms at equal interactivity."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from mtpbench.errors import InputError
from mtpbench_analysis.cells import DEFAULT_MAX_GAP
from mtpbench_analysis.chart.terminal import TerminalCurve, asks_for_ascii
from mtpbench_analysis.cli.delivery import Writers, deliver
from mtpbench_analysis.cli.options import (
    BaselineOption,
    ConfidenceOption,
    ConstantsOption,
    EngineOption,
    HardwareOption,
    IslOption,
    MaxGapOption,
    OslOption,
    OutputOption,
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
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.comparisons import Filter, Question, compare_points, explain_page
from mtpbench_analysis.cost import DEFAULT_TIER
from mtpbench_analysis.document import Document
from mtpbench_analysis.frame import merge
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.page import METHODS, Explanation, check_method, to_records, write_page_document
from mtpbench_analysis.pairing import Outcome
from mtpbench_analysis.reading import DEFAULT_CONFIDENCE
from mtpbench_analysis.render.csv_json_parquet import (
    flat,
    lines_to_csv,
    lines_to_parquet,
    to_csv,
    to_json,
    to_parquet,
)
from mtpbench_analysis.render.latex import to_latex
from mtpbench_analysis.render.markdown import to_markdown
from mtpbench_analysis.render.terminal import curves_of, to_terminal
from mtpbench_analysis.summary import summarize

HONEST = "honest"
Format = Literal["terminal", "md", "csv", "json", "latex", "parquet"]


def compare_command(
    sources: SourcesArgument,
    targets: TargetsOption = "",
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
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse curves that differ in more than speculation.")
    ] = False,
    confidence: ConfidenceOption = DEFAULT_CONFIDENCE,
    output: OutputOption = None,
) -> None:
    """Compare arms at equal interactivity: throughput, cost, tokens per megawatt, and what they rest on."""
    question = Question(
        targets_tps=parse_targets(targets),
        baseline=baseline,
        constants=hardware_constants,
        usd_per_gpu_h=usd_per_gpu_h,
        kw_per_gpu=kw_per_gpu,
        tier=tier,
        max_gap=max_gap,
        grouping=grouping_of(pool, split),
        strict=strict,
        confidence=confidence,
    )
    kept = Filter(hardware=hardware, precision=precision, isl=isl, osl=osl, engine=engine)
    points = merge([read_source(path) for path in sources])
    if method != HONEST:
        explanations = explain_page(points, question, kept, check_method(method))
        deliver(_page_texts(explanations), output_format, output)
        return
    outcome = compare_points(points, question, kept)
    drawings = _drawings(outcome, curve, output is not None)
    texts = _summary_texts(outcome) if summary else {}
    deliver({**_texts(outcome, full, drawings), **texts}, output_format, output)


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


def _drawings(outcome: Outcome, wanted: bool | None, to_file: bool) -> Sequence[TerminalCurve]:
    """A curve for each comparison; where nobody said, a terminal gets them, and pipes and files do not."""
    if wanted is False or (wanted is None and to_file):
        return ()
    plain = asks_for_ascii(os.environ)
    return curves_of(outcome.comparisons, ascii_only=plain, terminals_only=wanted is None)


def _texts(outcome: Outcome, full: bool, drawings: Sequence[TerminalCurve]) -> Writers:
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


def _summary_texts(outcome: Outcome) -> Writers:
    """The formats for people; programs want the whole, which is a row for each target anyway."""
    documents = summarize(outcome.comparisons, outcome.left_out)
    return {
        "terminal": lambda: to_terminal(documents),
        "md": lambda: to_markdown(documents),
        "latex": lambda: to_latex(documents),
    }


def _page_texts(explanations: Sequence[Explanation]) -> Writers:
    documents = [write_page_document(one) for one in explanations]
    lines = [line for one in explanations for line in to_records(one)]
    return {
        "terminal": lambda: to_terminal(documents),
        "md": lambda: to_markdown(documents),
        "latex": lambda: to_latex(documents),
        "csv": lambda: lines_to_csv([flat(line) for line in lines]),
        "json": lambda: (
            json.dumps({"schema_version": 1, "cells": lines}, indent=2, ensure_ascii=False) + "\n"
        ),
        "parquet": lambda: lines_to_parquet([flat(line) for line in lines]),
    }
