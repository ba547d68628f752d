"""The page: one safe file, its data, its policy, and what the static document says without its script."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from curve_points import GLM5, INFERENCEX, glm5, make_points, point_set
from mtpbench.cli import app
from mtpbench_analysis.comparisons import Filter, Question, compare_points
from mtpbench_analysis.document import write_document
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.report import describe_provenance, render_page, write_report
from mtpbench_analysis.report.chart import SHAPES
from mtpbench_analysis.report.data import COLUMNS, describe_page, to_script_text
from mtpbench_analysis.report.page import page_script
from stored_sweep import write_sweep

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u2028--><!--"


def page_data(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    data: dict[str, Any] = json.loads(text)
    return data


def decode(data: dict[str, Any], row: list[Any]) -> dict[str, Any]:
    values = dict(zip(data["columns"], row, strict=True))
    for name in data["texts"]:
        values[name] = None if values[name] is None else data["words"][values[name]]
    return values


def glm5_page() -> str:
    question = Question(targets_tps=(12, 40, 60), constants="2026-05")
    outcome = compare_points(glm5(), question, Filter(hardware="b200"))
    return render_page("glm5", outcome.comparisons)


def test_the_data_hold_every_point_and_its_front() -> None:
    data = page_data(glm5_page())
    (comparison,) = data["comparisons"]
    assert comparison["targets"] == [12, 40, 60]
    assert comparison["economics"]["prices"]["hyperscaler"] == 1.95
    points = {
        curve["label"]: [decode(data, row) for row in curve["points"]] for curve in comparison["curves"]
    }
    assert sorted(p["tput_tps_per_gpu"] for p in points["MTP"]) == sorted(
        p.tput_tps_per_gpu for p in glm5().points if p.arm == "mtp"
    )
    assert {p["recipe"] for p in points["Off"]} >= {"concurrency 256, 8 GPUs"}
    assert [curve["front"] for curve in comparison["curves"]] == [list(range(7)), list(range(7))]


def test_every_column_is_a_field_of_a_point() -> None:
    (point,) = make_points("off", (1.0, 1.0))
    assert [name for name in COLUMNS if not hasattr(point, name)] == ["runs"]


def test_nothing_in_the_data_can_end_its_element() -> None:
    text = to_script_text({"a": HOSTILE, HOSTILE: 1})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": HOSTILE, HOSTILE: 1}


def test_hostile_texts_are_nowhere_markup() -> None:
    points = [
        *make_points("off", (10.0, 100.0), image=HOSTILE, engine=HOSTILE),
        *make_points(HOSTILE, (10.0, 100.0), (11.0, 90.0), image=HOSTILE, engine=HOSTILE, source=HOSTILE),
        *make_points("off", (9.0, 90.0), valid=False, reasons=(HOSTILE,)),
    ]
    outcome = compare_points(point_set(*points), Question())
    page = render_page(HOSTILE, outcome.comparisons, [HOSTILE], [HOSTILE])
    assert page.count("<script") == page.count("</script") == 2
    assert "<img" not in page
    assert "<!--" not in page
    assert HOSTILE in page_data(page)["words"]


def test_the_policy_allows_this_script_and_this_style_and_nothing_else() -> None:
    page = glm5_page()
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    policy = policy.replace("&#39;", "'")
    for tag, name in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not re.search(r"\sstyle=|\son[a-z]+=", page.split("<script")[0])


def test_the_script_never_makes_markup_of_a_text() -> None:
    script = page_script()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert word not in script
    for word in ("fetch(", "XMLHttpRequest", "WebSocket", "sendBeacon", "import("):
        assert word not in script


def test_colours_are_never_alone() -> None:
    page = glm5_page()
    drawn = page[page.index('<div class="static">') : page.index('<div class="legend">')]
    assert drawn.count(SHAPES[0]) == drawn.count(SHAPES[1]) == 7
    assert f'"{SHAPES[1]}"' in page_script()


def test_an_interval_and_a_band_travel_where_the_noise_is_known() -> None:
    noise = random.Random(5)
    points = [
        point
        for repeat in range(4)
        for arm, gain in (("off", 1.0), ("mtp", 1.4))
        for point in make_points(
            arm, *((x, 9000 / x * gain * noise.gauss(1, 0.02)) for x in (10.0, 20.0, 40.0)), repeat=repeat
        )
    ]
    outcome = compare_points(point_set(*points), Question(targets_tps=(20.0, 30.0)))
    (comparison,) = outcome.comparisons
    data = describe_page(outcome.comparisons, [write_document(comparison)])
    curve = data["comparisons"][0]["curves"][1]
    cell = comparison.rows[1].cells[1]
    assert cell.interval is not None
    assert data["comparisons"][0]["intervals"][1]["cells"][1] == [cell.interval.low, cell.interval.high]
    assert curve["sure"] == [True, True, True]
    assert all(low < high for _, low, high in curve["band"])
    assert [curve["band"][0][0], curve["band"][-1][0]] == [10.0, 40.0]
    ratio = comparison.rows[0].ratios[0]
    assert ratio.interval is not None
    (at_20,) = [place for place in curve["gain_band"] if place[0] == 20.0]
    assert at_20[1:] == pytest.approx([ratio.interval.low, ratio.interval.high], rel=1e-6)
    assert data["comparisons"][0]["curves"][0]["gain_band"] is None


def test_single_runs_have_no_band() -> None:
    data = page_data(glm5_page())
    assert [curve["band"] for curve in data["comparisons"][0]["curves"]] == [None, None]


def test_a_simulation_says_so_in_the_title_the_banner_and_the_data(tmp_path: Path) -> None:
    page = write_report(write_sweep(tmp_path)).read_text("utf-8")
    assert "<title>SIMULATED: " in page
    assert page_data(page)["comparisons"][0]["mark"] == "SIMULATED"
    assert page_data(glm5_page())["comparisons"][0]["mark"] is None


def test_invalid_points_and_their_reasons_are_on_the_page() -> None:
    points = [
        *make_points("off", (10.0, 100.0)),
        *make_points("mtp", (10.0, 120.0)),
        *make_points("mtp", (20.0, 110.0), valid=False, reasons=("errors: 3 of 9 failed",)),
    ]
    page = render_page("t", compare_points(point_set(*points), Question()).comparisons)
    data = page_data(page)
    (invalid,) = data["comparisons"][0]["invalid"]
    assert decode(data, invalid)["reasons"] == "errors: 3 of 9 failed"
    assert "errors: 3 of 9 failed</li>" in page


def test_provenance_names_sources_days_and_what_fell_out() -> None:
    lines = describe_provenance(read_source(INFERENCEX))
    assert "rows.json" in lines[0]
    assert any(line.startswith("Measured 202") for line in lines)
    assert "mtpbench" in lines[-1]


def thousand_points() -> list[CurvePoint]:
    noise = random.Random(7)
    return [
        point
        for engine in ("vllm", "sglang", "trtllm")
        for isl in (1024, 8192)
        for arm, gain in (("off", 1.0), ("mtp", 1.5), ("mtp-k1", 1.3))
        for point in make_points(
            arm,
            *((4 + 2 * i, 9000 / (4 + 2 * i) * gain * noise.gauss(1, 0.05)) for i in range(56)),
            isl=isl,
            osl=1024,
            engine=engine,
            serving="disaggregated",
            image=f"nvcr.io/nvidia/{engine}-runtime:1.3.0-some-long-tag",
            topology="6xDEP8-1xDEP16",
            gpus=64,
            settings=tuple(f"decode: option_{i} {i}" for i in range(20)),
            source="results/sweep/some-long-point-identifier-of-a-sweep",
            ttft_p50_s=0.123456789,
        )
    ]


def test_a_thousand_points_stay_under_two_megabytes() -> None:
    points = thousand_points()
    assert len(points) > 1000
    outcome = compare_points(point_set(*points), Question())
    assert sum(len(c.measured) for one in outcome.comparisons for c in one.curves) == len(points)
    assert len(render_page("many", outcome.comparisons).encode()) < 2_000_000


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    words = ["report", str(GLM5), "--hardware", "b200", "--targets", "12,40", "-o", str(output)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert page_data(output.read_text("utf-8"))["comparisons"][0]["targets"] == [12, 40]
    assert "<title>glm5_b200_mtp_off_8k1k</title>" in output.read_text("utf-8")


def test_the_command_refuses_what_cannot_be_compared(tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["report", str(GLM5), "--baseline", "nothing", "-o", str(output)])
    assert result.exit_code != 0
    assert not output.exists()


@pytest.mark.parametrize("title", [None, "What we measured"])
def test_the_title_can_be_chosen(tmp_path: Path, title: str | None) -> None:
    output = tmp_path / "page.html"
    words = ["report", str(GLM5), "-o", str(output), *(["--title", title] if title else [])]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert f"<h1>{title or 'glm5_b200_mtp_off_8k1k'}</h1>" in output.read_text("utf-8")
