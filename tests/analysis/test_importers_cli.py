"""`mtpbench import` as a user types it, for the tools that do not say everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from curve_points import FIXTURES
from mtpbench.errors import InputError, MtpbenchError
from mtpbench_analysis.cli.imports import import_app
from mtpbench_analysis.importers.points_csv import read_points

IMPORTERS = FIXTURES / "importers"
VLLM = IMPORTERS / "vllm" / "mtp3_c4.json"
APPENDED = IMPORTERS / "vllm" / "appended.json"
SGLANG = IMPORTERS / "sglang" / "runs.jsonl"
AIPERF = IMPORTERS / "aiperf" / "c4" / "profile_export_aiperf.json"
RATE = IMPORTERS / "aiperf" / "rate40" / "profile_export_aiperf.json"


def run(*arguments: Any) -> Result:
    app = typer.Typer()
    app.add_typer(import_app, name="import")
    return CliRunner().invoke(app, ["import", *map(str, arguments)], env={"COLUMNS": "100"})


def refused(*arguments: Any) -> str:
    error = run(*arguments).exception
    assert isinstance(error, MtpbenchError)
    assert error.exit_code == 2
    return str(error)


def test_results_of_vllm_become_points_that_compare_reads(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    said = ("--arm", "mtp", "--prefill-gpus", 4, "--decode-gpus", 4, "--hardware", "gb200", "--isl", 8192)
    more = (
        "--topology",
        "1xDEP4-1xDEP4",
        "--precision",
        "fp4",
        "--engine",
        "vllm",
        "--engine-version",
        "0.32",
    )
    kinds = ("--model", "dsv4", "--image", "img:1", "--acceptance-mode", "measured", "--osl", 1024)
    result = run("vllm", APPENDED, *said, *more, *kinds, "-o", path)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("3 rows: 3 points in 1 curves, 0 invalid, 0 unusable\n")
    points = read_points(path).points
    assert {(p.arm, p.gpus, p.prefill_gpus, p.decode_gpus, p.serving) for p in points} == {
        ("mtp", 8, 4, 4, "disaggregated")
    }
    assert {(p.hardware, p.precision, p.model, p.engine, p.version, p.image) for p in points} == {
        ("gb200", "fp4", "dsv4", "vllm", "0.32", "img:1")
    }
    assert {(p.topology, p.acceptance_mode, p.isl, p.osl) for p in points} == {
        ("1xDEP4-1xDEP4", "measured", 8192, 1024)
    }
    assert path.read_text("utf-8").startswith("# imported by mtpbench from appended.json: 3 points\n")


def test_every_row_is_accounted_for() -> None:
    result = run("sglang", SGLANG, "--arm", "mtp", "--gpus", 8)
    lines = result.output.splitlines()
    assert lines[0].startswith("4 rows: 3 points in ")
    assert lines[0].endswith("0 invalid, 1 unusable")
    assert any("runs.jsonl:4: total_input_tokens is 0" in line for line in lines)
    assert any("runs.jsonl:1: failed requests: not in the file" in line for line in lines)


def test_many_files_of_several_kinds_are_told_apart_by_auto(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    result = run("auto", VLLM, APPENDED, AIPERF, RATE, "--arm", "mtp", "--gpus", 8, "-o", path)
    assert result.output.startswith("6 rows: 5 points in ")
    assert "1 invalid, 0 unusable" in result.output
    assert "6 of 60 requests failed" in result.output
    assert [point.source for point in read_points(path).points] == [
        "mtp3_c4.json",
        "appended.json:1",
        "appended.json:2",
        "appended.json:3",
        "c4/profile_export_aiperf.json",
        "rate40/profile_export_aiperf.json",
    ]


def test_the_rows_of_inferencex_keep_what_they_say() -> None:
    files = [IMPORTERS / "inferencex" / f"agg_{name}.json" for name in ("first", "second")]
    result = run("inferencex", *files, "--isl", 8192, "--osl", 1024, "--arm", "off", "--list")
    assert result.output.startswith("8 rows: ")
    assert "traces: requests without a fixed ISL and OSL" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("vllm", VLLM, "--arm", "mtp"),
            "does not say --gpus (all GPUs of the deployment: without them no tok/s",
        ),
        (("aiperf", AIPERF, "--gpus", 8), "does not say --arm"),
        (("vllm", VLLM, "--arm", "mtp", "--gpus", 0), "--gpus 0: a whole number of 1 or more"),
        (("vllm", AIPERF, "--arm", "mtp", "--gpus", 8), "not a result of vllm bench serve: an object with"),
        (("auto", VLLM.parent / "gone.json", "--arm", "mtp", "--gpus", 8), "gone.json: no such file"),
        (("vllm", VLLM.parent / "gone.json", "--arm", "mtp", "--gpus", 8), "gone.json: can't be read"),
        (("vllm", VLLM.parent, "--arm", "mtp", "--gpus", 8), "vllm: can't be read (Is a directory)"),
    ],
)
def test_what_can_t_be_imported_says_why(arguments: tuple[Any, ...], message: str) -> None:
    assert message in refused(*arguments)


def test_a_bad_argument_is_the_user_s_and_not_ours() -> None:
    assert isinstance(run("vllm", VLLM, "--serving", "both").exception, InputError)


def test_an_import_replaces_no_file_unless_told_to(tmp_path: Path) -> None:
    """The second arm, written to the file of the first, would be all that is left."""
    path = tmp_path / "points.csv"
    run("vllm", APPENDED, "--arm", "mtp", "--gpus", 8, "-o", path)
    before = path.read_bytes()
    assert "is there already; name another" in refused(
        "vllm", APPENDED, "--arm", "off", "--gpus", 8, "-o", path
    )
    assert path.read_bytes() == before
    assert "is one of the files that are read" in refused("auto", path, "-o", path, "--overwrite")
    again = run("vllm", APPENDED, "--arm", "off", "--gpus", 8, "-o", path, "--overwrite")
    assert again.exit_code == 0
    assert path.read_bytes() != before
