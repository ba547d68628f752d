"""Whatever a file holds: points, or an error that names the file; never a traceback."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curve_points import FIXTURES, INFERENCEX
from mtpbench.errors import ImportFileError, InputError
from mtpbench_analysis.frame import CurvePoint, PointSet, field_types
from mtpbench_analysis.importers import KINDS, Declared, read_source
from mtpbench_analysis.importers.points_csv import read_points, write_points

IMPORTERS = FIXTURES / "importers"
MTP = Declared(arm="mtp", gpus=8)

SOUND: list[dict[str, Any]] = [
    json.loads(INFERENCEX.read_text("utf-8"))[8],
    *json.loads((IMPORTERS / "inferencex" / "agg_first.json").read_text("utf-8"))[:2],
    *json.loads((IMPORTERS / "inferencex" / "agg_second.json").read_text("utf-8")),
    json.loads((IMPORTERS / "vllm" / "mtp3_c4.json").read_text("utf-8")),
    json.loads((IMPORTERS / "sglang" / "runs.jsonl").read_text("utf-8").split("\n")[0]),
    json.loads((IMPORTERS / "aiperf" / "c4" / "profile_export_aiperf.json").read_text("utf-8")),
]

numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 1e-300, 5e-324, 1.7e308, 10**400, 10**18, float("nan"), float("inf"), True]),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def must(true: bool, message: str) -> None:
    assert true, message


def check(path: Path) -> None:
    """Every reader on a file: sound points that can be written and read back, or an error with its name."""
    for read in (read_source, *(kind.read for kind in KINDS.values())):
        try:
            points = read(path, MTP)
        except InputError as error:
            must(path.name in str(error), str(error))
            continue
        assert isinstance(points, PointSet)
        for point in points.points:
            check_point(path, point)


def check_point(path: Path, point: CurvePoint) -> None:
    assert point.interactivity_tps > 0
    assert point.tput_tps_per_gpu > 0
    for name, kind in field_types().items():
        value = getattr(point, name)
        assert value is None or isinstance(value, kind) or (kind is float and isinstance(value, int)), name
    written = path.with_name("written.csv")
    written.write_text(write_points([point]), "utf-8")
    (again,) = read_points(written).points
    assert (again.arm, again.gpus, again.reasons) == (point.arm, point.gpus, point.reasons)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=values)
def test_any_json_is_points_or_an_error_that_names_the_file(folder: Path, value: Any) -> None:
    path = folder / "any.json"
    path.write_text(json.dumps(value), "utf-8")
    check(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_change_to_a_sound_result_is_points_or_an_error(folder: Path, data: st.DataObject) -> None:
    result = copy.deepcopy(data.draw(st.sampled_from(SOUND)))
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = result
        name = data.draw(st.sampled_from(sorted(place)))
        while isinstance(place[name], dict) and place[name] and data.draw(st.booleans()):
            place = place[name]
            name = data.draw(st.sampled_from(sorted(place)))
        if data.draw(st.booleans()):
            place[name] = data.draw(values)
        elif len(place) > 1:
            del place[name]
    path = folder / "changed.json"
    path.write_text(json.dumps(result), "utf-8")
    check(path)


@settings(max_examples=100, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=80), st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace"))
    )
)
def test_any_bytes_are_points_or_an_error(folder: Path, content: bytes) -> None:
    for suffix in (".json", ".jsonl", ".csv"):
        path = folder / f"bytes{suffix}"
        path.write_bytes(content)
        try:
            read_source(path, MTP)
        except InputError as error:
            must(path.name in str(error), str(error))


cells = st.one_of(
    st.sampled_from(
        ["", "off", "1", "-1", "0", "nan", "inf", "1e999", "1_0", "0x1", "true", "0.5; 0.2", "; ", ";"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from(sorted(field_types())), cells), min_size=1, max_size=3))
def test_any_cells_are_points_or_an_error(folder: Path, rows: list[dict[str, str]]) -> None:
    import csv
    import io

    base = {"arm": "off", "interactivity_tps": "10", "tput_tps_per_gpu": "20"}
    names = sorted({name for row in rows for name in row} | set(base))
    out = io.StringIO()
    # Quoted: a line that begins with # is a comment.
    writer = csv.DictWriter(out, names, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows([base | row for row in rows])
    path = folder / "cells.csv"
    path.write_text(out.getvalue(), "utf-8")
    try:
        points = read_points(path)
    except ImportFileError as error:
        must(str(error).startswith(f"{path}:"), str(error))
        return
    assert len(points.points) + len(points.unused) == len(rows)
    for point in points.points:
        check_point(path, point)


def write(path: Path, content: str | bytes) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content, "utf-8")
    return path


VLLM_TEXT = (IMPORTERS / "vllm" / "mtp3_c4.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"is empty; JSON is needed"),
        (" \n\n", r"is empty; JSON is needed"),
        ("{", r"nasty\.json:1: not JSON"),
        ("{} {}", r"nasty\.json:1: not JSON"),
        ("[" * 200_000, "JSON that can't be read .nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "JSON that can't be read .nested too deeply"),
        ('{"a": ' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("9" * 5000, "JSON that can't be read"),
        (VLLM_TEXT.encode("utf-16"), "not UTF-8 text but UTF-16; save it as UTF-8"),
        (b"\x80\x81", r"not UTF-8 text \(byte 0\)"),
        ("NaN", "found a number"),
        ("null", "found null"),
        ('"text"', "found a text"),
        ('{"a": {"b": null}}', "found an object with 'a'"),
    ],
)
def test_what_is_no_result_says_why(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ImportFileError, match=message) as caught:
        read_source(write(tmp_path / "nasty.json", content), MTP)
    assert "nasty.json" in str(caught.value)


def test_a_byte_order_mark_is_taken_off(tmp_path: Path) -> None:
    path = write(tmp_path / "bom.json", b"\xef\xbb\xbf" + VLLM_TEXT.encode())
    assert len(read_source(path, MTP).points) == 1


def test_a_large_line_is_read(tmp_path: Path) -> None:
    data = json.loads(VLLM_TEXT) | {"generated_texts": ["x" * 1000] * 10_000}
    path = write(tmp_path / "large.json", json.dumps(data))
    assert path.stat().st_size > 10_000_000
    assert len(read_source(path, MTP).points) == 1


def test_a_text_that_can_t_be_written_is_made_writable(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", json.dumps(json.loads(VLLM_TEXT) | {"model_id": "a\ud800\nb"}))
    (point,) = read_source(path, MTP).points
    assert point.model == "a? b"


def test_a_folder_named_like_a_file_is_no_file(tmp_path: Path) -> None:
    for name in ("points.csv", "rows.json"):
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match=name):
            read_source(tmp_path / name, MTP)
        with pytest.raises(ImportFileError, match=f"{name}: can't be read"):
            read_points(tmp_path / name)
