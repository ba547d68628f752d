"""A CSV of points that anyone can bring: `arm, interactivity_tps, tput_tps_per_gpu` and any other field."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mtpbench.errors import ImportFileError
from mtpbench_analysis.frame import CurvePoint, PointSet, Unused, columns, field_types, to_frame

REQUIRED = ("arm", "interactivity_tps", "tput_tps_per_gpu")

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def read_points(path: Path) -> PointSet:
    """The points of a CSV; lines that begin with `#` are comments, empty cells are unknown.

    A row without a throughput or an interactivity (empty or 0: nothing was served) is listed in `unused`,
    and so is a column that no field is named like.

    Raises:
        ImportFileError: a required column is missing, or a cell is not what its column needs; the message
            names file, line and column.
    """
    rows = _rows(path)
    _, header = next(rows, (1, []))
    header = [name.strip() for name in header]
    _check_header(path, header)
    points: list[CurvePoint] = []
    unused: list[Unused] = []
    for line, cells in rows:
        if len(cells) != len(header):
            raise ImportFileError(f"{path}:{line}: {len(cells)} cells where the header has {len(header)}")
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        values = {name: _value(path, line, name, text) for name, text in row.items() if name in columns()}
        if reason := _why_unusable(values):
            unused.append(Unused(what=f"{path.name}:{line}", reason=reason, arm=values["arm"]))
            continue
        known = {name: value for name, value in values.items() if value is not None}
        points.append(CurvePoint(**{"source": f"{path.name}:{line}", **known}))
    extra = [name for name in header if name not in columns()]
    if extra:
        unused.append(
            Unused(what=f"{path.name}: column {', '.join(extra)}", reason="no field of that name; ignored")
        )
    return PointSet(sources=(str(path),), points=tuple(points), unused=tuple(unused))


def write_points(points: Iterable[CurvePoint], comments: Iterable[str] = ()) -> str:
    """The text of a points CSV that `read_points` reads back; columns without any value are left out."""
    frame = to_frame(points)
    kept = [name for name in frame.columns if name in REQUIRED or frame[name].notna().any()]
    head = "".join(f"# {line}\n" for line in comments)
    return head + str(frame[kept].to_csv(index=False, lineterminator="\n"))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(1-based line, cells) of every line that is neither empty nor a comment."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ImportFileError(f"{path}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ImportFileError(f"{path}: not UTF-8 text (byte {error.start})") from error
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    reader = csv.reader(io.StringIO("\n".join(line for _, line in lines)))
    # A quoted cell that spans lines would shift the numbers; line_num keeps them right.
    try:
        for cells in reader:
            yield lines[reader.line_num - 1][0], cells
    except csv.Error as error:
        raise ImportFileError(f"{path}:{lines[reader.line_num - 1][0]}: {error}") from error


def _check_header(path: Path, header: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        if not header:
            raise ImportFileError(
                f"{path}: is empty; a header with {', '.join(REQUIRED)} and rows are needed"
            )
        found = ", ".join(header)
        for mark, said in ((";", "semicolons"), ("\t", "tabs")):
            if len(header) == 1 and mark in header[0]:
                raise ImportFileError(f"{path}: the columns are separated by {said}; commas are needed")
        optional = ", ".join(name for name in columns() if name not in REQUIRED)
        raise ImportFileError(
            f"{path}: column {', '.join(missing)} is missing; the header has: {found}. "
            f"Needed: {', '.join(REQUIRED)}; also read: {optional}"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ImportFileError(f"{path}: column {', '.join(twice)} appears twice")


def _value(path: Path, line: int, name: str, text: str) -> Any:
    kind = field_types()[name]
    if name == "reasons":
        return tuple(text.split("; ")) if text else ()
    if not text:
        if name == "arm":
            raise ImportFileError(f"{path}:{line}: column arm is empty; an arm such as off or mtp is needed")
        return None
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise ImportFileError(f"{path}:{line}: column {name}: {text!r} is neither true nor false")
        return text.lower() in _TRUE
    return _number(f"{path}:{line}: column {name}", text, kind)


def _number(where: str, text: str, kind: type) -> float | int:
    try:
        number = float(text)
    except ValueError:
        raise ImportFileError(f"{where}: {text!r} is not a number") from None
    if not math.isfinite(number):
        raise ImportFileError(f"{where}: {text!r} is not a finite number; leave the cell empty if unknown")
    if number < 0:
        raise ImportFileError(f"{where}: {text} is negative")
    if kind is int and number != int(number):
        raise ImportFileError(f"{where}: {text!r} is not a whole number")
    return int(number) if kind is int else number


def _why_unusable(values: dict[str, Any]) -> str | None:
    for name in ("interactivity_tps", "tput_tps_per_gpu"):
        if values[name] is None:
            return f"{name} is empty"
        if values[name] == 0:
            return f"{name} is 0: nothing was served, or it is not known"
    return None
