"""No figure moves unsaid: a seeded sweep on the virtual clock gives, to the last digit, what it gave before.

`python tests/test_unmoved_figures.py` writes the figures anew. A change of them belongs into the CHANGELOG's
*Measurement* section, beside its reason.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mtpbench.cli import app

FIXTURES = Path(__file__).parent / "fixtures" / "figures"
FIGURES = FIXTURES / "figures.json"
ELSEWHERE: dict[str, str] = {}
"""Where a figure stands now, by the path (or the beginning of one) under which the fixture has it."""


def call(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float | None]]:
    """Every number of a JSON value, and every unknown, by the keys that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from numbers(inner, f"{path}[{i}]")
    elif value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        yield path, value


def figures_of(directory: Path) -> dict[str, dict[str, float | None]]:
    """The figures of every stored point, by its id."""
    found = {}
    for path in sorted(directory.glob("*/result.json")):
        values = dict(numbers(json.loads(path.read_text())))
        del values["schema_version"]
        found[path.parent.name] = values
    return found


def cells_of(directory: Path) -> list[dict[str, str]]:
    """The figures of the comparison's cells, as they are exported."""
    path = directory / "cells.csv"
    call("compare", directory, "--format", "csv", "-o", path)
    with path.open() as file:
        return [{name: text for name, text in row.items() if is_number(text)} for row in csv.DictReader(file)]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def simulate(results: Path) -> Path:
    call("run", FIXTURES / "sweep.yaml", "--simulate", "--results", results)
    return results / "figures.simulated"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="module")
def before() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(FIGURES.read_text())
    return made


def now(path: str) -> str:
    old = max((old for old in ELSEWHERE if path.startswith(old)), key=len, default="")
    return ELSEWHERE[old] + path.removeprefix(old) if old else path


def check(points: dict[str, dict[str, float | None]], before: dict[str, Any]) -> None:
    assert list(points) == list(before["points"]), "an id moved: stored points would count as missing"
    for name, figures in before["points"].items():
        told = {path: points[name].get(now(path)) for path in figures}
        assert {path: repr(value) for path, value in told.items()} == {
            path: repr(value) for path, value in figures.items()
        }


def test_what_is_measured_is_what_it_was(directory: Path, before: dict[str, Any]) -> None:
    check(figures_of(directory), before)


def test_what_is_recomputed_from_the_raw_records_is_that_too(directory: Path, before: dict[str, Any]) -> None:
    assert "8 results recomputed from raw records, 0 changed" in call("recompute", directory)
    check(figures_of(directory), before)


def test_a_folder_of_schema_4_counts_as_measured_and_gives_the_same_figures(
    tmp_path: Path, before: dict[str, Any]
) -> None:
    """Two points of this sweep as they were stored before."""
    results = tmp_path / "results"
    shutil.copytree(FIXTURES / "schema4", results)
    old = results / "figures.simulated"
    ids = sorted(path.parent.name for path in old.glob("*/result.json"))
    only = [word for name in ids for word in ("--only", name)]
    told = call("run", FIXTURES / "sweep.yaml", "--simulate", "--results", results, *only)
    assert "0 points to measure, 2 valid already" in told
    expected = {"points": {name: before["points"][name] for name in ids}}
    assert "2 results recomputed from raw records" in call("recompute", old)
    check(figures_of(old), expected)


def test_the_cells_of_the_comparison_are_what_they_were(directory: Path, before: dict[str, Any]) -> None:
    cells = cells_of(directory)
    assert len(cells) == len(before["cells"])
    for cell, expected in zip(cells, before["cells"], strict=True):
        assert {name: cell.get(name) for name in expected} == expected


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = simulate(Path(folder))
        text = json.dumps({"points": figures_of(made), "cells": cells_of(made)}, indent=1)
        FIGURES.write_text(text + "\n")
        print(f"{FIGURES}: {len(text)} bytes", file=sys.stderr)
