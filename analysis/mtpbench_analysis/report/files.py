"""Writes the comparison of a results folder into it."""

from __future__ import annotations

from pathlib import Path

from mtpbench.store import write_tables
from mtpbench_analysis.comparisons import Question, compare_points
from mtpbench_analysis.document import list_unused, write_document
from mtpbench_analysis.exports import to_csv, to_json
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.importers.points_csv import write_points
from mtpbench_analysis.markdown import to_markdown
from mtpbench_analysis.report.page import render_page
from mtpbench_analysis.report.provenance import describe_provenance
from mtpbench_analysis.traces.sweep import read_traces


def write_report(directory: Path, question: Question | None = None) -> Path:
    """Writes comparison.md, .csv and .json, points.csv and report.html into results/<sweep>.

    Returns:
        The path of report.html.

    Raises:
        InputError, NotComparable: the folder holds nothing to compare.
        SchemaError, StoreError: it can't be read, or a file can't be written.
    """
    points = read_source(directory)
    outcome = compare_points(points, question or Question())
    documents = [write_document(comparison) for comparison in outcome.comparisons]
    left_out = list_unused(outcome.left_out)
    title = points.info.name if points.info else directory.name
    texts = {
        "comparison.md": to_markdown(documents, left_out),
        "comparison.csv": to_csv(outcome.comparisons),
        "comparison.json": to_json(outcome.comparisons, outcome.left_out),
        "points.csv": write_points(points.points, [f"all points of {title}"]),
        "report.html": render_page(
            title, outcome.comparisons, left_out, describe_provenance(points), read_traces([directory])
        ),
    }
    write_tables(directory, texts)
    return directory / "report.html"
