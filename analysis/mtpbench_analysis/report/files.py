"""Writes the comparison of a results folder into it."""

from __future__ import annotations

from pathlib import Path

from mtpbench.store import write_tables
from mtpbench_analysis.comparisons import Question, compare_if_possible
from mtpbench_analysis.document import list_unused, write_document
from mtpbench_analysis.exports import to_csv, to_json
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.importers.points_csv import write_points
from mtpbench_analysis.markdown import to_markdown
from mtpbench_analysis.report.overview import Alone
from mtpbench_analysis.report.page import render_page
from mtpbench_analysis.report.provenance import describe_provenance
from mtpbench_analysis.traces.sweep import read_traces


def write_report(directory: Path, question: Question | None = None) -> Path:
    """Writes comparison.md, .csv and .json, points.csv and report.html into results/<sweep>.

    Where nothing can be compared the files say why, and the page shows the runs all the same.

    Returns:
        The path of report.html.

    Raises:
        InputError: the folder holds no sweep, or the question is wrong.
        SchemaError, StoreError: it can't be read, or a file can't be written.
    """
    points = read_source(directory)
    found = compare_if_possible(points, question or Question())
    comparisons = found.outcome.comparisons
    documents = [write_document(comparison) for comparison in comparisons]
    left_out = list_unused(found.outcome.left_out)
    title = points.info.name if points.info else directory.resolve().name
    why = f"no comparison: {found.why_none}\n\n" if found.why_none else ""
    texts = {
        "comparison.md": why + to_markdown(documents, left_out),
        "comparison.csv": to_csv(comparisons),
        "comparison.json": to_json(comparisons, found.outcome.left_out),
        "points.csv": write_points(points.points, [f"all points of {title}"]),
        "report.html": render_page(
            title,
            comparisons,
            left_out,
            describe_provenance(points, [directory.resolve().name]),
            read_traces([directory]),
            Alone(why=found.why_none, points=points.points) if found.why_none else None,
        ),
    }
    write_tables(directory, texts)
    return directory / "report.html"
