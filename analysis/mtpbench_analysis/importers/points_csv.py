"""A CSV of points that anyone can bring: `arm, interactivity_tps, tput_tps_per_gpu` and any other field."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mtpbench.errors import ImportFileError
from mtpbench_analysis.curves.mean_errors import PERCENTILES
from mtpbench_analysis.document import visible
from mtpbench_analysis.frame import (
    CurvePoint,
    PointSet,
    Unused,
    columns,
    field_types,
    join_list,
    split_list,
    to_frame,
)
from mtpbench_analysis.importers.documents import read_text
from mtpbench_analysis.importers.fields import FASTEST_TPS, LARGEST_COUNT, RATES, SLOWEST_TPS
from mtpbench_analysis.spreadsheet import FORMULA, from_cell, to_cell

REQUIRED = ("arm", *RATES)

_SIGNED = ("rel_se_correlation", "power_tput_correlation")
_SHARES = (
    "tput_rel_se",
    "interactivity_rel_se",
    "power_rel_se",
    "joules_per_token_rel_se",
    "acceptance_rel_se",
)
_NEVER_ZERO = ("concurrency", "rate_rps", "gpus", "isl", "osl", "se_df")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")

Cells = tuple[int, list[str]]
"""The 1-based line that a row begins at, and its cells."""


def read_points(path: Path) -> PointSet:
    """Returns the points of a CSV; lines that begin with `#` are comments, empty cells are unknown.

    A row whose throughput or interactivity is empty, 0, negative or no finite number is listed in `unused`,
    and so are a row that was there before, the same in every cell, and a column that no field is named like.

    Raises:
        ImportFileError: a required column is missing, or a cell is not what its column needs; the message
            names file, line and column.
    """
    rows = _read_rows(path)
    _, header = next(rows, (1, []))
    header = [name.strip() for name in header]
    _check_header(path, header)
    points: list[CurvePoint] = []
    unused: list[Unused] = []
    first: dict[tuple[str, ...], int] = {}
    for line, cells in rows:
        if len(cells) != len(header):
            raise ImportFileError(f"{path}:{line}: {len(cells)} cells where the header has {len(header)}")
        texts = tuple(cell.strip() for cell in cells)
        outcome = _read_point(path, line, dict(zip(header, texts, strict=True)))
        if texts in first:
            reason = f"the same as line {first[texts]}; kept once"
            outcome = Unused(what=f"{path.name}:{line}", reason=reason, kind="repeated")
        first.setdefault(texts, line)
        if isinstance(outcome, CurvePoint):
            points.append(outcome)
        else:
            unused.append(outcome)
    if not first:
        raise ImportFileError(f"{path}: has a header, but no row")
    extra = [name for name in header if name not in columns()]
    if extra:
        what = f"{path.name}: column {', '.join(extra)}"
        unused.append(Unused(what=what, reason="no field of that name; ignored", kind="note"))
    return PointSet(sources=(str(path),), points=tuple(points), unused=tuple(unused))


def write_points(points: Iterable[CurvePoint], comments: Iterable[str] = ()) -> str:
    """Returns the text of a points CSV that `read_points` reads back; columns without any value are
    left out.
    """
    frame = to_frame(points)
    filled = [name for name in frame.columns if name in REQUIRED or frame[name].notna().any()]
    head = "".join(f"# {_to_comment(line)}\n" for line in comments)
    cells = frame[filled].map(lambda value: to_cell(value) if isinstance(value, str) else value)
    body = str(cells.to_csv(index=False, lineterminator="\n"))
    return head + _LIKE_A_COMMENT.sub(r'"\g<0>"', body)


_LIKE_A_COMMENT = re.compile(r"^#[^,\n]*", re.MULTILINE)
"""A first cell that would make a comment of its row."""


_BEGINS_CELL = re.compile(f"(?<=[,;])(?= ?[\"'{FORMULA}])")


def _to_comment(text: str) -> str:
    """Returns a comment: one line, whatever a file is named like, of which no spreadsheet makes a formula."""
    return _BEGINS_CELL.sub("'", visible(" ".join(text.split())))


def _read_point(path: Path, line: int, row: dict[str, str]) -> CurvePoint | Unused:
    values = {name: _read_cell(path, line, name, text) for name, text in row.items() if name in columns()}
    for name in RATES:
        if reason := _why_unusable(name, values[name]):
            what = f"{path.name}:{line}"
            return Unused(what=what, reason=reason, kind="unusable", arm=values["arm"])
    recorded = {name: value for name, value in values.items() if value is not None}
    for low, high in PERCENTILES.values():
        if recorded.get(low, -math.inf) > recorded.get(high, math.inf):
            raise ImportFileError(f"{path}:{line}: column {low}: {row[low]} is above {high}, {row[high]}")
    return CurvePoint(**{"source": f"{path.name}:{line}", **recorded})


def _read_rows(path: Path) -> Iterator[Cells]:
    """Yields every row that is neither empty nor a comment; a quoted cell may span lines."""
    lines = enumerate(read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1)
    at = 0
    begins_row = True

    def feed() -> Iterator[str]:
        nonlocal at, begins_row
        for number, line in lines:
            # Inside a quoted cell a line may be empty, or begin with `#`.
            if begins_row and (not line.strip() or line.lstrip().startswith("#")):
                continue
            if begins_row:
                at, begins_row = number, False
            yield line + "\n"

    reader = csv.reader(feed(), strict=True)
    try:
        for cells in reader:
            yield at, cells
            begins_row = True
    except csv.Error as error:
        raise ImportFileError(f"{path}:{at}: {error}") from error


def _check_header(path: Path, header: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        if not header:
            raise ImportFileError(
                f"{path}: is empty; a header with {', '.join(REQUIRED)} and rows are needed"
            )
        names = ", ".join(header)[:200]
        for mark, separators in ((";", "semicolons"), ("\t", "tabs")):
            if len(header) == 1 and mark in header[0]:
                raise ImportFileError(f"{path}: the columns are separated by {separators}; commas are needed")
        optional = ", ".join(name for name in columns() if name not in REQUIRED)
        raise ImportFileError(
            f"{path}: column {', '.join(missing)} is missing; the header has: {names}. "
            f"Needed: {', '.join(REQUIRED)}; also read: {optional}"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ImportFileError(f"{path}: column {', '.join(twice)} appears twice")


def _read_cell(path: Path, line: int, name: str, text: str) -> Any:
    kind = field_types()[name]
    where = f"{path}:{line}: column {name}"
    if not text:
        if name == "arm":
            raise ImportFileError(f"{where} is empty; an arm such as off or mtp is needed")
        return () if name == "reasons" else None
    if kind is tuple:
        return _read_list(where, name, from_cell(text))
    if kind is str:
        return from_cell(text)
    if kind is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise ImportFileError(f"{where}: {text!r} is neither true nor false")
        return text.lower() in _TRUE
    number = _read_number(where, text)
    return number if name in RATES else _check_number(where, name, text, number)


def _read_list(where: str, name: str, text: str) -> tuple[Any, ...]:
    """Returns the values of a cell that holds several, `; ` between them; each number checked."""
    if name != "acceptance_per_position":
        return split_list(name, text)
    shares = []
    for part in text.split(";"):
        number = _read_number(where, part.strip())
        if not 0 <= number <= 1:
            raise ImportFileError(f"{where}: {part.strip()!r} is no share from 0 to 1")
        shares.append(number)
    return split_list(name, join_list(shares))


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_GROUPED = re.compile(r"[+-]?\d{1,3}([,._ \u00a0\u202f'\u2019]\d{3})+([.,]\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


def _read_number(where: str, text: str) -> float:
    """Returns a number as Python and JSON write it; `1,024` may be 1024 or 1.024, so nobody guesses."""
    if _NUMBER.fullmatch(text):
        return float(text)
    hint = ""
    if _GROUPED.fullmatch(text):
        hint = "; write thousands without separators (1024), and decimals with a point"
    elif _DECIMAL_COMMA.fullmatch(text):
        hint = "; write decimals with a point (10.5)"
    shown = text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"
    raise ImportFileError(f"{where}: {shown!r} is not a number{hint}")


_MOST_SHOWN = 40


def _check_number(where: str, name: str, text: str, number: float) -> float | int:
    if not math.isfinite(number):
        raise ImportFileError(f"{where}: {text!r} is not a finite number; leave the cell empty if unknown")
    if name in _SIGNED:
        if abs(number) > 1:
            raise ImportFileError(f"{where}: {text} is no correlation from -1 to 1")
        return number
    if number < 0:
        raise ImportFileError(f"{where}: {text} is negative")
    if number == 0 and name in _NEVER_ZERO:
        raise ImportFileError(f"{where}: {text} is nothing; leave the cell empty if unknown")
    if name in _SHARES and number > 1:
        raise ImportFileError(f"{where}: {text} is no share of a value, from 0 to 1")
    if field_types()[name] is int:
        if not number.is_integer() or number > LARGEST_COUNT:
            raise ImportFileError(f"{where}: {text!r} is not a whole number")
        return int(number)
    if number > LARGEST_COUNT:
        raise ImportFileError(f"{where}: {text} is larger than anything that is measured here")
    return number


def _why_unusable(name: str, value: float | None) -> str | None:
    if value is None:
        return f"{name} is empty"
    if value == 0:
        return f"{name} is 0: nothing was served, or it is not known"
    if not math.isfinite(value):
        return f"{name} is {value}: no finite number"
    if value < 0:
        return f"{name} is {value:g}: negative"
    if not SLOWEST_TPS <= value <= FASTEST_TPS:
        return f"{name} is {value:g}: nothing serves that"
    return None
