"""What turns a source into a `PointSet`: a results folder, a CSV of points, what other tools wrote."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mtpbench.errors import ImportFileError, InputError
from mtpbench_analysis.frame import CurvePoint, PointSet, Unused, merge, without_start
from mtpbench_analysis.importers import aiperf, inferencex, sglang_bench, vllm_bench
from mtpbench_analysis.importers.declared import Declared
from mtpbench_analysis.importers.documents import describe, read_json, read_text
from mtpbench_analysis.importers.points_csv import read_points
from mtpbench_analysis.importers.results import read_results

__all__ = ["KINDS", "Declared", "Kind", "drop_copies", "read_source", "read_sources"]

Reader = Callable[[Path, Declared], PointSet]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of JSON that an importer reads.

    Args:
        label: what it is, for messages.
        holds: whether a value of the file looks like one.
        read: reads a file of them.
    """

    label: str
    holds: Callable[[object], bool]
    read: Reader


KINDS = {
    "inferencex": Kind(label="InferenceX rows", holds=inferencex.is_row, read=inferencex.read_rows),
    "sglang": Kind(
        label="lines of sglang.bench_serving", holds=sglang_bench.is_result, read=sglang_bench.read_sglang
    ),
    "vllm": Kind(label="results of vllm bench serve", holds=vllm_bench.is_result, read=vllm_bench.read_vllm),
    "aiperf": Kind(label="AIPerf's summary of a run", holds=aiperf.is_result, read=aiperf.read_aiperf),
}
"""By the name of their import command; the order is that in which a file is tried."""

_SUFFIXES = (".csv", ".json", ".jsonl")


def read_source(path: Path, declared: Declared | None = None) -> PointSet:
    """Returns the points of a results folder or of a file, whose kind is recognised by its content.

    Args:
        path: a folder results/<sweep>, a `.csv` (points, or AIPerf's), a `.json` or `.jsonl`.
        declared: what results of other tools do not say; without it they can't be read.

    Raises:
        InputError: there is no such thing, or its kind is unknown; else what its importer raises.
    """
    declared = declared or Declared()
    if os.path.isdir(path):
        return read_results(path)
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"{path}: a folder results/<sweep>, a .csv of points, or another tool's .json or .jsonl is needed"
        )
    if suffix == ".csv":
        return aiperf.read_aiperf(path, declared) if aiperf.is_table(read_text(path)) else read_points(path)
    return _find_kind(path).read(path, declared)


def read_sources(
    paths: Sequence[Path], declared: Declared | None = None, read: Reader | None = None
) -> PointSet:
    """Returns the points of several sources; a run that another has too is kept once, and listed.

    A CSV of AIPerf's beside its JSON is the same run with fewer digits, and is listed.

    Raises:
        InputError: as `read` says.
    """
    read = read or read_source
    declared = declared or Declared()
    sets = [_beside_json(path, paths) or read(path, declared) for path in dict.fromkeys(paths)]
    return merge(drop_copies(sets))


def drop_copies(sets: Sequence[PointSet]) -> list[PointSet]:
    """Returns sources without the runs that an earlier one has: two runs never agree to the last digit.

    A copied file or folder, and a folder's own `points.csv`, would else pass for repeats without any noise.
    """
    first: dict[CurvePoint, str] = {}
    return [_without_copies(points, first) for points in sets]


def _without_copies(points: PointSet, first: dict[CurvePoint, str]) -> PointSet:
    different: list[CurvePoint] = []
    unused = list(points.unused)
    for point in points.points:
        # What a copy may have lost or gained; runs with addresses of their own are two. On the virtual clock
        # another start serves the same to the last digit.
        mark = replace(
            without_start(point),
            source=None,
            date=None,
            version=None,
            image=None,
            settings=None,
            workload=None,
        )
        source = point.source or f"{point.arm}, {point.recipe}"
        if mark in first:
            reason = f"the same as {first[mark]}; kept once"
            unused.append(Unused(what=source, reason=reason, kind="repeated", arm=point.arm))
            continue
        first[mark] = source
        different.append(point)
    return replace(points, points=tuple(different), unused=tuple(unused))


def _find_kind(path: Path) -> Kind:
    document = read_json(path)
    for kind in KINDS.values():
        if any(kind.holds(row.value) for row in document.rows):
            return kind
    looked_for = ", ".join(kind.label for kind in KINDS.values())
    description = describe(document.rows[0].value) if document.rows else "an empty list"
    if len(document.rows) > 1:
        description = f"{len(document.rows)} values, the first {description}"
    raise ImportFileError(f"{path}: JSON of no known kind; looked for {looked_for}; found {description}")


def _beside_json(path: Path, paths: Sequence[Path]) -> PointSet | None:
    twin = path.with_suffix(".json")
    if path.suffix.lower() != ".csv" or twin not in paths or not aiperf.is_table(read_text(path)):
        return None
    reason = f"the same run as {twin.name} beside it, with fewer digits"
    unused = Unused(what=str(path), reason=reason, kind="repeated")
    return PointSet(sources=(str(path),), points=(), unused=(unused,))
