"""What turns a source into a `PointSet`: a results folder, a CSV of points, the public InferenceX rows."""

from __future__ import annotations

from pathlib import Path

from mtpbench.errors import InputError
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.importers.inferencex import read_rows
from mtpbench_analysis.importers.points_csv import read_points
from mtpbench_analysis.importers.results import read_results


def read_source(path: Path) -> PointSet:
    """The points of a results folder, a `.csv` of points or a `.json` of InferenceX rows.

    Raises:
        InputError: there is no such thing, or its kind is unknown; else what its importer raises.
    """
    if path.is_dir():
        return read_results(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    readers = {".csv": read_points, ".json": read_rows}
    if path.suffix.lower() not in readers:
        raise InputError(
            f"{path}: a folder results/<sweep>, a .csv of points or a .json of InferenceX rows is needed"
        )
    return readers[path.suffix.lower()](path)
