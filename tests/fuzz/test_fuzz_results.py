"""Stored results: any bytes, any JSON, any well-formed table in the place of a point's files."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from damages import RAW, RECORDS, simulate_sweep
from mtpbench.cli import main
from mtpbench.errors import MtpbenchError, SchemaError
from mtpbench.measure import measure
from mtpbench.records import to_json
from mtpbench.store import read_place, read_raw
from mtpbench_analysis.comparisons import Question, compare_if_possible
from mtpbench_analysis.importers.results import read_results
from mtpbench_analysis.traces import read_traces

ODD = (
    None,
    True,
    0,
    1,
    -1,
    1.5,
    1e-300,
    1e18,
    1e308,
    -1e308,
    2**53,
    2**63,
    10**40,
    "",
    "\0",
    "x" * 400,
    [],
    {},
)
CELLS = (None, -1, -(2**62), 2**62, float("nan"), float("inf"), "x", [], [None], [-(2**60)], [1, None], True)
COMMANDS = ("compare", "report", "recompute", "best", "watch", "tables")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_sweep(tmp_path_factory.mktemp("whole"), 2)[1]


@pytest.fixture(scope="session")
def folder(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # In a folder of its own: `report` writes beside whoever calls it.
    with contextlib.chdir(tmp_path_factory.mktemp("here")):
        yield Path(shutil.copytree(whole, tmp_path_factory.mktemp("copy") / whole.name))


def mended(whole: Path, folder: Path) -> Path:
    """The folder as it was, and the point that is to be damaged."""
    place = next(folder.glob("mtp_*_c2_*"))
    shutil.copytree(whole / place.name, place, dirs_exist_ok=True)
    return place


def mutated(value: Any, noise: random.Random, share: float) -> Any:
    if noise.random() < share:
        return noise.choice(ODD)
    if isinstance(value, dict):
        return {k: mutated(v, noise, share) for k, v in value.items() if noise.random() > share / 3}
    if isinstance(value, list):
        return [mutated(item, noise, share) for item in value] * noise.choice((1, 1, 1, 2))
    return value


def use(folder: Path, place: Path) -> None:
    """Does to a point all that commands do; only errors that are ours may end it."""
    try:
        assert len(read_results(folder).points) >= 3
    except SchemaError as error:
        assert place.name in str(error)  # noqa: PT017
        return
    compare_if_possible(read_results(folder), Question())
    read_traces([folder])
    try:
        stored = read_place(place)
        assert stored is not None
        to_json(measure(stored.point, read_raw(place)))
    except MtpbenchError as error:
        assert place.name in str(error)  # noqa: PT017


@settings(max_examples=250)
@given(st.sampled_from((*RECORDS, "raw.json")), st.sampled_from((0.003, 0.02, 0.1)), st.integers(0, 2**32))
def test_any_json_is_a_record_or_damaged(
    whole: Path, folder: Path, name: str, share: float, draw: int
) -> None:
    place = mended(whole, folder)
    data = json.loads((place / name).read_text())
    (place / name).write_text(
        json.dumps(mutated(data, random.Random(draw), share)).replace("Infinity", "1e999")
    )
    use(folder, place)


@settings(max_examples=250)
@given(st.sampled_from(RAW[1:]), st.integers(0, 2**32))
def test_any_table_is_one_of_samples_or_damaged(whole: Path, folder: Path, name: str, draw: int) -> None:
    place, noise = mended(whole, folder), random.Random(draw)
    table = pq.read_table(place / name)
    columns = table.to_pydict()
    for _ in range(noise.choice((1, 1, 3))):
        column = noise.choice(sorted(columns))
        values = columns[column]
        match noise.randrange(5):
            case 0 if len(columns) > 1:
                del columns[column]
            case 1:
                columns[column] = values[::-1]
            case 2:
                columns = {key: list(value)[: len(values) // 2] for key, value in columns.items()}
            case _ if values:
                columns[column] = [*values[1:], noise.choice(CELLS)]
    try:
        made = pa.table(columns, pa.schema([field for field in table.schema if field.name in columns]))
    except (pa.ArrowException, TypeError, OverflowError, ValueError):
        return
    pq.write_table(made, place / name)
    use(folder, place)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from((*RECORDS, *RAW, "sweep.json")), st.sampled_from(COMMANDS), st.data())
def test_any_bytes_end_no_command(
    whole: Path, folder: Path, capsys: Any, name: str, command: str, data: st.DataObject
) -> None:
    place = mended(whole, folder)
    shutil.copy(whole / "sweep.json", folder / "sweep.json")
    path = folder / name if name == "sweep.json" else place / name
    content = path.read_bytes()
    at, keep = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 4))
    piece = data.draw(st.binary(max_size=4))
    path.write_bytes(content[:at] + piece + (content[at + keep :] if keep < 4 else b""))
    extra = {"best": ["--interactivity", "50"], "watch": ["--once"]}.get(command, [])
    arguments, sys.argv = sys.argv, ["mtpbench", command, str(folder), *extra]
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = arguments
    shown = capsys.readouterr()
    assert code in range(6), shown
