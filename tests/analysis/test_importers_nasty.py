"""Whatever a file holds: points, or an error that names the file; never a traceback."""

from __future__ import annotations

import copy
import gzip
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curve_points import FIXTURES, INFERENCEX
from mtpbench.errors import ImportFileError, InputError
from mtpbench_analysis.frame import CurvePoint, PointSet, columns, field_types
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
@given(rows=st.lists(st.dictionaries(st.sampled_from(sorted(columns())), cells), min_size=1, max_size=3))
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
        ("{} {}", r"nasty\.json:1: not JSON \(Extra data; more follows the first value: one value, a list"),
        ('{\n"a": 1\n}\n{\n"a": 2\n}', r"nasty\.json:4: not JSON \(Extra data"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice in one object, with two values"),
        ('[{"b": {"a": 1, "a": [1]}}]', "the key 'a' stands twice"),
        ('{"a": ' * 5_000 + "1" + "}" * 5_000, "nested too deeply"),
        (b'{"a": "\xe9"}', r"nasty\.json:1: not UTF-8 text \(byte 7\); save it as UTF-8"),
        (VLLM_TEXT.encode("utf-16-le"), r"nasty\.json:1: not UTF-8 text \(a NUL byte\); save it as UTF-8"),
        (gzip.compress(VLLM_TEXT.encode()), r"nasty\.json: not UTF-8 text but compressed \(gzip\); unpack"),
        (b"PK\x03\x04", "a zip archive or an Excel file; unpack it, or save the sheet as CSV"),
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


@pytest.mark.parametrize("read", [kind.read for kind in KINDS.values()])
def test_a_pipe_and_an_endless_device_are_refused_and_never_read(tmp_path: Path, read: Any) -> None:
    """Opening a pipe that nobody writes to waits for ever; /dev/zero has no end."""
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", Path("/dev/zero")):
        with pytest.raises(ImportFileError, match="a pipe or a device; save what it gives as a file"):
            read(path, MTP)


def test_a_file_larger_than_any_result_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtpbench_analysis.importers.documents.LARGEST_FILE_BYTES", 100)
    with pytest.raises(ImportFileError, match=r"large\.json: larger than"):
        read_source(write(tmp_path / "large.json", VLLM_TEXT), MTP)


def test_a_key_given_twice_alike_is_no_fault_and_one_in_a_line_spoils_that_line(tmp_path: Path) -> None:
    line = json.dumps(json.loads(VLLM_TEXT))
    twice = line[:-1] + ', "completed": 24}'
    contradicting = line[:-1] + ', "completed": 25}'
    points = read_source(write(tmp_path / "x.jsonl", f"{twice}\r\n{contradicting}\r\n"), MTP)
    assert len(points.points) == 1
    assert points.unused[0].what == "x.jsonl:2"
    assert "the key 'completed' stands twice" in points.unused[0].reason


HEADER = "arm,interactivity_tps,tput_tps_per_gpu,concurrency\n"


@pytest.mark.parametrize(
    ("cell", "hint"),
    [
        ("1,024", "write thousands without separators"),
        ("1 024", "write thousands without separators"),
        ("1_024", "write thousands without separators"),
        ("1\u202f024", "write thousands without separators"),
        ("1'024'000", "write thousands without separators"),
        ("1.024,5", "write thousands without separators"),
        ("10,5", r"write decimals with a point \(10.5\)"),
        ("\uff11\uff12", "is not a number$"),
        ("0x10", "is not a number$"),
        ("1e999", "is not a finite number"),
        ("0", "0 is nothing; leave the cell empty if unknown"),
        ("1e16", "is not a whole number"),
    ],
)
def test_a_number_that_may_be_read_in_two_ways_is_refused_with_its_cell(
    tmp_path: Path, cell: str, hint: str
) -> None:
    """Spreadsheets write 1,024 for 1024 in one country and for 1.024 in another; Python reads 1_024."""
    text = HEADER + f'off,1,2,"{cell}"\n'
    with pytest.raises(ImportFileError, match=rf"cells\.csv:2: column concurrency: .*{hint}"):
        read_source(write(tmp_path / "cells.csv", text))


@pytest.mark.parametrize("rate", ["1e-300", "1e300", "5e-324", "1.7e308"])
@pytest.mark.parametrize("column", ["interactivity_tps", "tput_tps_per_gpu"])
def test_a_rate_that_nothing_serves_enters_no_curve(tmp_path: Path, column: str, rate: str) -> None:
    """Such figures overflow in draws and splines, where only warnings would tell."""
    values = {"interactivity_tps": "10", "tput_tps_per_gpu": "20"} | {column: rate}
    text = HEADER + f"off,{values['interactivity_tps']},{values['tput_tps_per_gpu']},4\n"
    points = read_source(write(tmp_path / "far.csv", text))
    assert points.points == ()
    assert points.unused[0].reason.endswith("nothing serves that")


def test_the_csv_of_aiperf_may_have_thousands_separators(tmp_path: Path) -> None:
    text = (IMPORTERS / "aiperf" / "c4" / "profile_export_aiperf.csv").read_text("utf-8")
    (plain,) = read_source(write(tmp_path / "x.csv", text), MTP).points
    text = text.replace("(tokens/sec),2521.21", '(tokens/sec),"2,521.21"').replace(",2560.00", ',"2,560.00"')
    assert '"2,560.00"' in text
    (grouped,) = read_source(write(tmp_path / "x.csv", text), MTP).points
    assert grouped == plain


def test_carriage_returns_and_what_is_no_text_are_met(tmp_path: Path) -> None:
    assert len(read_source(write(tmp_path / "a.csv", HEADER.strip() + "\r\noff,1,2,3\r\n")).points) == 1
    with pytest.raises(ImportFileError, match=r"b\.csv:2: not UTF-8 text \(a NUL byte\)"):
        read_source(write(tmp_path / "b.csv", HEADER + "of\0f,1,2,3\n"))
    with pytest.raises(ImportFileError, match="separated by semicolons"):
        read_source(write(tmp_path / "c.csv", HEADER.replace(",", ";")))
    with pytest.raises(ImportFileError, match="column concurrency appears twice"):
        read_source(write(tmp_path / "d.csv", HEADER.strip() + ",concurrency\noff,1,2,3,3\n"))


def test_a_text_with_terminal_commands_is_made_harmless(tmp_path: Path) -> None:
    model = "a\x1b[31m\x00b"
    (point,) = read_source(
        write(tmp_path / "x.json", json.dumps(json.loads(VLLM_TEXT) | {"model_id": model})), MTP
    ).points
    assert point.model == "a?[31m?b"
