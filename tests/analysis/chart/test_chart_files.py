"""The files: deterministic, well formed, of the size asked for, and safe with any name."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from curve_points import GLM5, INFERENCEX, make_points, point_set
from mtpbench.errors import InputError, MtpbenchError
from mtpbench_analysis.chart.comparison_chart import describe_chart
from mtpbench_analysis.chart.mpl_chart import draw_figure
from mtpbench_analysis.chart.mpl_style import clean, columns_of, cut, save, wrap
from mtpbench_analysis.chart.style import PictureFormat, PictureOptions
from mtpbench_analysis.cli import register
from mtpbench_analysis.comparisons import Filter, Question, compare_points
from stored_sweep import write_sweep

SVG = "{http://www.w3.org/2000/svg}"
NASTY = (
    "a$b$c",
    "$\\frac{1}$",
    "<script>alert(1)</script>",
    "_hidden",
    "日本語 ünï",
    "x\x00\x1b[31m\ud800y",
    "n" * 300,
)


def run(*arguments: Any) -> Result:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})


def refused(*arguments: Any) -> MtpbenchError:
    error = run("plot", *arguments).exception
    assert isinstance(error, InputError), error
    return error


def picture(kind: PictureFormat, *, simulated: bool = False, arm: str = "mtp", title: str = "t") -> bytes:
    points = make_points("off", (10, 900), (30, 500), simulated=simulated)
    points += make_points(arm, (12, 950), (40, 600), simulated=simulated, engine=arm, model=arm)
    points[:2] = make_points("off", (10, 900), (30, 500), simulated=simulated, engine=arm, model=arm)
    (comparison,) = compare_points(point_set(*points), Question(), Filter()).comparisons
    chart = describe_chart(comparison, f"panel of {arm}", PictureOptions())
    return save(draw_figure(title, [chart], [f"foot of {arm}"], PictureOptions(dpi=80)), kind, title)


def svg_texts(data: bytes) -> list[str]:
    return [element.text or "" for element in ET.fromstring(data).iter(f"{SVG}text")]


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_the_same_input_gives_the_same_bytes(kind: PictureFormat) -> None:
    first = picture(kind)
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.hashsalt": "other"}):
        assert picture(kind) == first
    assert picture(kind, arm="mtp-k2") != first


def test_the_bytes_are_the_same_in_another_process(tmp_path: Path) -> None:
    made = []
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.svg"
        command = [sys.executable, "-m", "mtpbench", "plot", str(GLM5), "--hardware", "b200", "-o", str(path)]
        subprocess.run(
            command, check=True, capture_output=True, env={"PYTHONHASHSEED": seed, "HOME": str(tmp_path)}
        )
        made.append(path.read_bytes())
    assert made[0] == made[1]
    assert b"date" not in made[0].lower()


def test_a_png_has_the_size_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.PNG"
    result = run("plot", GLM5, "--hardware", "b200", "--width", 6, "--height", 4.5, "--dpi", 100, "-o", path)
    assert result.exit_code == 0, result.exception
    with Image.open(path) as image:
        assert image.size == (600, 450)


@pytest.mark.parametrize("simulated", [True, False])
def test_simulated_is_in_the_svg_exactly_where_it_is(simulated: bool) -> None:
    assert ("SIMULATED" in svg_texts(picture("svg", simulated=simulated))) == simulated


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_text_whatever_it_holds(name: str) -> None:
    data = picture("svg", arm=name, title=name)
    texts = svg_texts(data)
    assert any(text == clean(name, 46) for text in texts), texts
    assert any(text.startswith(f"panel of {clean(name)[:4]}") for text in texts)
    assert not list(ET.fromstring(data).iter(f"{SVG}script"))
    for kind in ("png", "pdf"):
        assert len(picture(kind, arm=name, title=name)) > 1000


def test_texts_are_cut_by_what_they_take() -> None:
    assert clean("a\n\tb\x07\ud800") == "a b\ufffd\ufffd"
    assert cut("日本語", 5) == "日本…"
    assert columns_of(cut("n" * 100, 20)) == 20
    lines = wrap("word " * 50 + "x" * 200, 30, 3)
    assert len(lines) == 3
    assert max(map(len, lines)) <= 30
    assert lines[-1].endswith("…")
    assert wrap("", 10, 2) == [""]


def test_pyplot_and_its_global_state_are_not_used(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    picture("png")
    assert dict(matplotlib.rcParams) == before
    code = (
        "import sys; from mtpbench_analysis.chart import mpl_chart, mpl_power; "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_results_folder_becomes_a_chart(tmp_path: Path) -> None:
    path = tmp_path / "c.svg"
    result = run("plot", write_sweep(tmp_path), "-o", path, "--labels", "--targets", "60,80")
    assert result.exit_code == 0, result.exception
    assert f"written: {path}" in result.output
    texts = svg_texts(path.read_bytes())
    assert {"SIMULATED", "SIMULATED: MTP versus Off", "60", "80", "c16", "invalid (1)"} <= set(texts)
    assert "interactivity, tok/s/user" in texts
    assert any(text.startswith("gb200-nvl72, tiny, fp4, ISL 8192 / OSL 1024") for text in texts)
    said = "Source: small; 6 valid points, 1 invalid; 1 without figures, not drawn; 1 not measured yet; 2026"
    assert any(text.startswith(said) for text in texts)
    assert any(text.startswith("Curves: between simulated points") for text in texts)
    next((tmp_path / "small").glob("mtp*_c16_*/result.json")).write_text("{")
    assert run("plot", tmp_path / "small", "-o", path).exit_code == 0
    said = (
        "Source: small; 5 valid points, 1 invalid; 1 damaged, not drawn; 1 without figures, not drawn; 1 not"
    )
    assert any(text.startswith(said) for text in svg_texts(path.read_bytes()))


def test_what_is_left_out_is_said_in_the_picture_and_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.svg"
    result = run("plot", INFERENCEX, "-o", path, "--panels", 1)
    assert result.exit_code == 0, result.exception
    assert "are not drawn; --panels" in result.output
    assert any(
        "comparisons, those with the fewest knots, are not drawn." in t for t in svg_texts(path.read_bytes())
    )


def test_bad_inputs_say_what_would_be_right(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    assert "no picture can be made with the ending .gif" in str(refused(GLM5, "-o", tmp_path / "a.gif"))
    assert "there is no folder" in str(refused(GLM5, "-o", tmp_path / "no" / "a.svg"))
    assert "no such file" in str(refused(tmp_path / "none.csv", "-o", tmp_path / "a.svg"))
    nothing = refused(GLM5, "--hardware", "b200", "--y", "output", "-o", tmp_path / "a.svg")
    assert "--y output: there is nothing to draw. 7 of 7 points of Off" in str(nothing)
    assert "one folder results/<sweep> is needed" in str(refused(GLM5, "--power", "-o", tmp_path / "a.svg"))
    assert "one folder" in str(refused(sweep, sweep, "--power", "-o", tmp_path / "a.svg"))
    assert "--y, --log: without effect on --power" in str(
        refused(sweep, "--power", "--y", "cost", "--log", "-o", tmp_path / "a.svg")
    )
    assert list(tmp_path.glob("a.*")) == []
