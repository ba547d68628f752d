"""`mtpbench compare` and `mtpbench import` as a user types them."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from curve_points import GLM5, INFERENCEX
from mtpbench.errors import InputError, MtpbenchError
from mtpbench_analysis.cli import register
from mtpbench_analysis.cli.options import parse_targets
from stored_sweep import write_sweep


def run(*arguments: Any) -> Result:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})


def refused(*arguments: Any) -> MtpbenchError:
    """The error that the main command turns into its message and exit code."""
    error = run(*arguments).exception
    assert isinstance(error, MtpbenchError)
    return error


def test_a_csv_is_compared_in_the_terminal() -> None:
    result = run(
        "compare", GLM5, "--hardware", "b200", "--hardware-constants", "2026-05", "--targets", "12,40,60"
    )
    assert result.exit_code == 0
    assert "58.6% lower" in result.output
    assert "B200 at $1.95 per GPU-hour (hyperscaler; survey of 2025-08), 2.17 kW provisioned" in result.output


def test_public_rows_are_compared_directly() -> None:
    result = run("compare", INFERENCEX, "--hardware", "gb200", "--framework", "dynamo-trt", "--format", "md")
    assert result.exit_code == 0
    assert "They share no interactivity" in result.output


def test_a_results_folder_is_compared(tmp_path: Path) -> None:
    result = run("compare", write_sweep(tmp_path), "--format", "json")
    assert result.exit_code == 0
    assert json.loads(result.output)["comparisons"][0]["hardware"] == "gb200-nvl72"


def test_two_files_of_one_arm_each_make_one_comparison(tmp_path: Path) -> None:
    lines = GLM5.read_text("utf-8").splitlines()
    for arm in ("mtp", "off"):
        rows = [line for line in lines[2:] if line.startswith(arm)]
        (tmp_path / f"{arm}.csv").write_text("\n".join([lines[1], *rows]) + "\n", "utf-8")
    result = run("compare", tmp_path / "off.csv", tmp_path / "mtp.csv", "--format", "csv", "--targets", "40")
    lines_out = list(csv.DictReader(io.StringIO(result.output)))
    assert [line["curve"] for line in lines_out] == ["Off", "MTP"]
    assert float(lines_out[1]["tput_ratio"]) == pytest.approx(2.42, abs=0.005)


@pytest.mark.parametrize("name", ["terminal", "md", "csv", "json"])
def test_every_format_can_go_to_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "out"
    result = run("compare", GLM5, "--format", name, "-o", path)
    assert result.exit_code == 0
    assert "MTP" in path.read_text("utf-8")


def test_without_hardware_there_is_no_cost_and_it_is_said() -> None:
    result = run("compare", GLM5)
    assert "(--hardware names it)" in result.output
    assert "$" not in result.output


@pytest.mark.parametrize("targets", ["32,x", "32,,61", "0", "-4", "nan", "inf"])
def test_a_target_that_is_no_number_is_refused(targets: str) -> None:
    error = refused("compare", GLM5, f"--targets={targets}")
    assert error.exit_code == 2
    assert "is not a positive number" in str(error)


def test_a_file_without_a_usable_point_says_why(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(
        "arm,interactivity_tps,tput_tps_per_gpu\noff,10,-5\nmtp,20,nan\nmtp,30,0\nmtp,40,0\n", "utf-8"
    )
    error = str(run("compare", path).exception)
    assert "no valid point to compare; bad.csv:2: " in error
    assert "-5" in error
    assert "bad.csv:3: " in error
    assert "bad.csv:5" not in error
    assert error.endswith("; and 1 more")


def test_targets_are_read_with_spaces_and_decimals() -> None:
    assert parse_targets(" 32, 46.5 ") == (32, 46.5)
    assert parse_targets("") == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--hardware", "b200x"), "unknown hardware 'b200x'"),
        (("--hardware", "b200", "--hardware-constants", "2020-01"), "known dates: 2026-05, 2026-07, 2026-09"),
        (("--hardware", "b200", "--tier", "free"), "tiers: hyperscaler"),
        (("--baseline", "none"), "arms with points: mtp, off"),
        (("--pool", "everything"), "can't pool everything"),
        (("--max-gap", "0"), "at least 1"),
        (("-o", "/nowhere/at/all"), "can't be written"),
    ],
)
def test_a_bad_argument_says_what_would_be_right(arguments: tuple[str, ...], message: str) -> None:
    error = refused("compare", GLM5, *arguments)
    assert isinstance(error, InputError)
    assert message in str(error)


def test_an_output_is_whole_or_as_it_was_and_a_link_or_a_pipe_is_one_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (target := tmp_path / "target.csv").write_text("before")
    (link := tmp_path / "link.csv").symlink_to(target)
    assert run("compare", GLM5, "--format", "csv", "-o", link).exit_code == 0
    assert link.is_symlink()
    assert target.read_text() != "before"
    os.mkfifo(pipe := tmp_path / "pipe")
    reading = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    assert run("compare", GLM5, "--format", "csv", "-o", pipe).exit_code == 0
    assert os.read(reading, 1 << 20) == target.read_bytes()
    os.close(reading)
    before = target.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mtpbench.store.files.create_file", full)
    assert "can't be written (No space left on device)" in str(refused("compare", GLM5, "-o", link))
    assert target.read_bytes() == before


def test_a_target_is_deduplicated_and_kept_in_the_order_asked() -> None:
    assert parse_targets("61,32,61") == (61, 32)


def test_import_says_what_became_of_every_row_and_writes_what_compare_reads(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    result = run("import", "inferencex", INFERENCEX, "--list", "-o", path)
    assert result.exit_code == 0
    assert result.output.startswith("11 rows: 10 points in 8 curves, 1 invalid, 0 unusable\n")
    assert "rate contradicts latency" in result.output
    image = "tensorrtllm-runtime:0.8.1.post2"
    assert f"MTP, gb200, dsr1, fp4, 8192/1024, dynamo-trt, disaggregated, {image}: 1 point\n" in result.output
    direct = run("compare", INFERENCEX, "--hardware", "gb200", "--format", "csv")
    assert run("compare", path, "--hardware", "gb200", "--format", "csv").output == direct.output


def test_import_narrows() -> None:
    result = run(
        "import", "inferencex", INFERENCEX, "--hardware", "gb200-nvl72", "--precision", "FP4", "--isl", "8192"
    )
    assert result.output.startswith("5 rows: 5 points in 3 curves")
    assert "no row left by precision int3" in str(
        refused("import", "inferencex", INFERENCEX, "--precision", "int3")
    )


@pytest.mark.parametrize("method", ["page-2026-05", "page"])
def test_the_pages_method_stands_beside_the_honest_one(method: str) -> None:
    options = ("--hardware", "b200", "--hardware-constants", "2026-05", "--targets", "40")
    text = run("compare", GLM5, *options, "--method", method, "--format", "md").output
    assert "MTP is 140% cheaper per token" in text if method == "page-2026-05" else "142% cheaper" in text
    assert "58.6% lower cost" in text
    cells = json.loads(run("compare", GLM5, *options, "--method", method, "--format", "json").output)["cells"]
    assert {cell["method"] for cell in cells} == {method}
    lines = run("compare", GLM5, *options, "--method", method, "--format", "csv").output.splitlines()
    assert len(lines) == len(cells) + 1


def test_an_unknown_method_lists_the_known_ones() -> None:
    error = run("compare", GLM5, "--method", "guess").exception
    assert isinstance(error, InputError)
    assert "page-2026-05" in str(error)


def test_what_if_a_gpu_hour_had_another_price() -> None:
    text = run("compare", GLM5, "--hardware", "b200", "--usd-per-gpu-h", "3.30", "--format", "md").output
    assert "\\$3.30 per GPU-hour (your price, asked for with --usd-per-gpu-h)" in text
    more = run("compare", GLM5, "--hardware", "b200", "--kw-per-gpu", "1", "--format", "md").output
    assert "1 kW provisioned per GPU (asked for with --kw-per-gpu)" in more


def test_strict_refuses_what_was_not_recorded() -> None:
    error = run("compare", GLM5, "--hardware", "b200", "--strict").exception
    assert isinstance(error, InputError)
    assert "possibly different: engine" in str(error)


def test_a_binary_format_goes_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cells.parquet"
    assert run("compare", GLM5, "--format", "parquet", "-o", path).exit_code == 0
    assert path.read_bytes()[:4] == b"PAR1"


def test_the_curve_is_for_terminals_unless_it_is_asked_for(tmp_path: Path) -> None:
    plain = run("compare", GLM5).output
    assert "front, interpolated" not in plain
    assert run("compare", GLM5, "--no-curve").output == plain
    drawn = run("compare", GLM5, "--curve").output
    assert "● Off (7)  ▲ MTP (7)  ⠒⠒ front, interpolated" in drawn
    assert drawn.index("At equal interactivity") < drawn.index("▲") < drawn.index("In words")
    path = tmp_path / "out"
    run("compare", GLM5, "-o", path)
    assert "▲" not in path.read_text("utf-8")
    run("compare", GLM5, "--curve", "-o", path)
    assert "▲ MTP (7)" in path.read_text("utf-8")


def test_a_curve_in_the_c_locale_is_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    drawn = run("compare", GLM5, "--curve").output
    assert "o Off (7)  + MTP (7)  .. front, interpolated" in drawn
    assert "⠒" not in drawn


def test_the_curve_of_a_simulation_says_so(tmp_path: Path) -> None:
    drawn = run("compare", write_sweep(tmp_path), "--curve").output
    assert any(line.startswith("tok/s/GPU") and "SIMULATED" in line for line in drawn.splitlines())
    assert "x invalid (1)" in drawn
