"""What turns a source into a `PointSet`: a results folder, a CSV of points, what other tools wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mtpbench.errors import ImportFileError, InputError
from mtpbench_analysis.frame import CurvePoint, Declared, PointSet, Unused, merge
from mtpbench_analysis.importers import aiperf, inferencex, sglang_bench, vllm_bench
from mtpbench_analysis.importers.documents import describe, read_json, read_text
from mtpbench_analysis.importers.points_csv import read_points
from mtpbench_analysis.importers.results import read_results

__all__ = ["KINDS", "Declared", "Kind", "read_source", "read_sources"]

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
    if path.is_dir():
        return read_results(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"{path}: a folder results/<sweep>, a .csv of points, or another tool's .json or .jsonl is needed"
        )
    if suffix == ".csv":
        return aiperf.read_aiperf(path, declared) if aiperf.is_table(read_text(path)) else read_points(path)
    return _find_kind(path).read(path, declared)


def read_sources(paths: list[Path], declared: Declared, read: Reader = read_source) -> PointSet:
    """Returns the points of several files; one that another has too, the same in everything, is kept once.

    A CSV of AIPerf's beside its JSON is the same run with fewer digits, and is listed.

    Raises:
        InputError: as `read` says.
    """
    sets = [_beside_json(path, paths) or read(path, declared) for path in dict.fromkeys(paths)]
    return _without_repeated(merge(sets))


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


def _beside_json(path: Path, paths: list[Path]) -> PointSet | None:
    twin = path.with_suffix(".json")
    if path.suffix.lower() != ".csv" or twin not in paths or not aiperf.is_table(read_text(path)):
        return None
    reason = f"the same run as {twin.name} beside it, with fewer digits"
    unused = Unused(what=str(path), reason=reason, kind="repeated")
    return PointSet(sources=(str(path),), points=(), unused=(unused,))


def _without_repeated(points: PointSet) -> PointSet:
    first: dict[CurvePoint, str] = {}
    different: list[CurvePoint] = []
    unused = list(points.unused)
    for point in points.points:
        source = point.source or ""
        mark = replace(point, source=None)
        if mark in first:
            reason = f"the same as {first[mark]}; kept once"
            unused.append(Unused(what=source, reason=reason, kind="repeated", arm=point.arm))
            continue
        first[mark] = source
        different.append(point)
    return replace(points, points=tuple(different), unused=tuple(unused))
