"""The comparison of a results folder, and the files beside its points that hold it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mtpbench.store import replace_file
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.comparisons import Question, compare_if_possible
from mtpbench_analysis.document import Document
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.importers.points_csv import write_points
from mtpbench_analysis.pairing import ComparisonOutcome
from mtpbench_analysis.render.csv_json_parquet import to_csv, to_json
from mtpbench_analysis.render.markup import to_markdown
from mtpbench_analysis.report.overview import LonePoints, describe_provenance
from mtpbench_analysis.report.page import render_page
from mtpbench_analysis.traces import read_traces


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderComparison:
    """The comparison of a results folder, or why there is none, for every format.

    Args:
        directory: results/<sweep>.
        points: all points of the folder.
        outcome: the comparisons, or why there is none.
        documents: a document of each comparison.
        left_out: sentences about points that are in no comparison.
    """

    directory: Path
    points: PointSet
    outcome: ComparisonOutcome
    documents: tuple[Document, ...]
    left_out: tuple[str, ...]


def compare_folder(directory: Path, question: Question | None = None) -> FolderComparison:
    """Returns the comparison of a results folder.

    Raises:
        InputError: the folder holds no sweep, or the question is wrong.
        SchemaError, StoreError: the folder can't be read.
    """
    points = read_source(directory)
    outcome = compare_if_possible(points, question or Question())
    return FolderComparison(
        directory=directory,
        points=points,
        outcome=outcome,
        documents=tuple(map(write_document, outcome.comparisons)),
        left_out=tuple(map(str, outcome.left_out)),
    )


def write_report(compared: FolderComparison) -> Path:
    """Writes comparison.md, .csv and .json, points.csv and report.html into results/<sweep>.

    Without a comparison the files say why, and the page still shows the runs.

    Returns:
        The path of report.html.

    Raises:
        StoreError: a file can't be written.
    """
    directory, points, outcome = compared.directory, compared.points, compared.outcome
    comparisons, why_none = outcome.comparisons, outcome.why_none
    title = points.info.name if points.info else directory.resolve().name
    why = f"no comparison: {why_none}\n\n" if why_none else ""
    texts = {
        "comparison.md": why + to_markdown(compared.documents, compared.left_out),
        "comparison.csv": to_csv(comparisons),
        "comparison.json": to_json(comparisons, outcome.left_out),
        "points.csv": write_points(points.points, [f"all points of {title}"]),
        "report.html": render_page(
            title,
            comparisons,
            compared.left_out,
            describe_provenance(points, [directory.resolve().name]),
            read_traces([directory]),
            LonePoints(why=why_none, points=points.points) if why_none else None,
        ),
    }
    for name, text in texts.items():
        replace_file(directory / name, text, sync=False)
    return directory / "report.html"
