"""The page: one safe file, its data, its policy, and what the static document says without its script."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from curve_points import GLM5, INFERENCEX, glm5, make_points, point_set
from mtpbench.cli import app
from mtpbench.cli.run import _finish
from mtpbench.errors import InputError
from mtpbench.records import Load, Settling
from mtpbench_analysis.chart.comparison_chart import describe_chart
from mtpbench_analysis.chart.style import MARKS
from mtpbench_analysis.cli import render_results
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.comparisons import Filter, Question, compare_if_possible, compare_points
from mtpbench_analysis.document import visible, visible_values
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.report import compare_folder, write_report
from mtpbench_analysis.report.data import COLUMNS, describe_page, to_script_text
from mtpbench_analysis.report.overview import (
    LonePoints,
    describe_health,
    describe_overview,
    describe_provenance,
    shorten_paths,
)
from mtpbench_analysis.report.page import page_script, render_page
from mtpbench_analysis.report.panel import TextTable, Traces
from mtpbench_analysis.traces import POWER_VALUES, QUANTILES, PointTrace, SweepTrace, read_traces
from stored_sweep import write_sweep
from traced_sweep import COMMANDS, write_traced

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u2028--><!--"


def page_data(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    data: dict[str, Any] = json.loads(text)
    return data


def decode(data: dict[str, Any], row: list[Any]) -> dict[str, Any]:
    values = dict(zip(data["columns"], row[: len(data["columns"])], strict=True))
    values |= dict.fromkeys(data["unrecorded"])
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
    declared = {data["metrics"][i]["id"]: data["metrics"][i] for i in comparison["views"]["more"]}
    assert declared["usd_per_m_total_hyperscaler"]["factor"] == pytest.approx(1.95 * 1e6 / 3600)
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
    assert json.loads(text) == visible_values({"a": HOSTILE, HOSTILE: 1})


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
    assert visible(HOSTILE) in page_data(page)["words"]


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
    shapes = [mark.path for mark in MARKS]
    assert drawn.count(shapes[0]) == drawn.count(shapes[1]) == 7
    assert page_data(page)["shapes"] == shapes
    assert len(set(shapes)) == len(shapes)


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
    data = describe_page(outcome.comparisons, [write_document(comparison)], [describe_chart(comparison)])
    curve = data["comparisons"][0]["curves"][1]
    cell = comparison.rows[1].cells[1]
    assert cell.interval is not None
    assert data["comparisons"][0]["intervals"][1]["cells"][1] == [cell.interval.low, cell.interval.high]
    assert curve["sure"] == [True, True, True]
    assert all(low < high for _, low, high in curve["band"])
    assert curve["band"][0][0] == 10.0
    assert 38 < curve["band"][-1][0] < 40, "a slower start would end the curve before its last point"
    ratio = comparison.rows[0].ratios[0]
    assert ratio.interval is not None
    (at_20,) = [place for place in curve["gain_band"] if place[0] == 20.0]
    assert at_20[1:] == pytest.approx([ratio.interval.low, ratio.interval.high], rel=1e-6)
    assert data["comparisons"][0]["curves"][0]["gain_band"] is None


def test_waiting_from_the_schedule_is_on_the_page_of_a_results_folder(tmp_path: Path) -> None:
    load = Load(pacing="poisson", rate_rps=4.0)
    data = page_data(write_report(compare_folder(write_traced(tmp_path, load=load))).read_text("utf-8"))
    for view, name in (
        ("matched", "ttft_p50_s"),
        ("more", "interactivity_p99_tps"),
        ("y", "ttft_from_schedule_p50_s"),
        ("y", "interactivity_p99_tps"),
    ):
        assert name in {data["metrics"][i]["id"] for i in data["comparisons"][0]["views"][view]}
    for curve in data["comparisons"][0]["curves"]:
        for row in curve["points"]:
            point = decode(data, row)
            assert point["ttft_p50_s"] == point["ttft_from_schedule_p50_s"] > 0
            assert point["load_short"].startswith("4 req/s, cap ")
    other = page_data(glm5_page())
    assert not {"ttft_from_schedule_p50_s"} & {
        other["metrics"][i]["id"] for i in other["comparisons"][0]["views"]["y"]
    }


def test_the_band_of_single_runs_is_their_shape_between_points() -> None:
    for curve in page_data(glm5_page())["comparisons"][0]["curves"]:
        assert not any(curve["sure"])
        widths = {x: high / low for x, low, high in curve["band"]}
        at_knots = [widths[x] for x in widths if any(point[0] == x for point in curve["points"])]
        assert max(at_knots) < max(widths.values())


def test_a_simulation_says_so_in_the_title_the_banner_and_the_data(tmp_path: Path) -> None:
    page = write_report(compare_folder(write_sweep(tmp_path))).read_text("utf-8")
    assert "<title>SIMULATED: " in page
    assert (
        ">SIMULATED</text>" in page[page.index('<div class="static">') : page.index('<div class="legend">')]
    )
    assert ">SIMULATED</text>" not in glm5_page()
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


def thousand_traces(points: list[CurvePoint], template: PointTrace) -> SweepTrace:
    """A full trace of its own for every point, with seven long command lines by ladder of 14 points."""
    noise = np.random.default_rng(5)
    traces = []
    for i, point in enumerate(points):
        start = i // 14
        commands = {
            f"decode-{n}": (
                *("python3", "-m", "engine", "--port", str(20_000 + 10 * start + n)),
                *(f"--option-{k}={k * start % 7}" for k in range(60)),
            )
            for n in range(7)
        }
        stored = dataclasses.replace(
            template.stored,
            result=dataclasses.replace(template.stored.result, point_id=f"some_long_point_id_{i:08x}"),
            provenance=dataclasses.replace(
                template.stored.provenance,
                started_utc=f"2026-11-24T10:{i % 60:02d}:{i % 59:02d}.{i:03d}Z",
                command_lines=commands,
                environment={"NCCL_DEBUG": str(start), "HF_TOKEN": "redacted"},
            ),
        )
        requests = dataclasses.replace(
            template.requests,
            ttft_s=np.sort(noise.exponential(size=QUANTILES)),
            tpot_s=np.sort(noise.exponential(0.02, size=QUANTILES)),
        )
        power = dataclasses.replace(
            template.power,
            times_s=np.linspace(0, 1234.5, POWER_VALUES),
            power_w=noise.uniform(20_000, 60_000, POWER_VALUES),
        )
        traces.append(PointTrace(point=point, stored=stored, requests=requests, power=power))
    return SweepTrace(source="results/many", points=tuple(traces))


def test_a_thousand_points_with_traces_stay_under_two_megabytes(tmp_path: Path) -> None:
    (small,) = read_traces([write_traced(tmp_path)])
    points = [dataclasses.replace(p, source=f"point-{i}") for i, p in enumerate(thousand_points())]
    outcome = compare_points(point_set(*points), Question())
    page = render_page("many", outcome.comparisons, traces=[thousand_traces(points, small.points[0])])
    assert len(page.encode()) < 2_000_000
    data = page_data(page)
    assert data["traces"]["coarse"]
    assert len(data["traces"]["points"]) == len(points)
    assert len(data["traces"]["starts"]) == len(points) // 14
    found = {n for one in data["comparisons"] for curve in one["traces"] for (n,) in curve}
    assert found == set(range(len(points)))


def test_the_page_of_a_results_folder_holds_its_traces(tmp_path: Path) -> None:
    directory = write_traced(tmp_path, failing="overloaded", environment={"A": "1"})
    data = page_data(write_report(compare_folder(directory)).read_text("utf-8"))
    traces, words = data["traces"], data["words"]
    assert not traces["coarse"]
    (sweep,) = read_traces([directory])
    assert len(traces["points"]) == len(sweep.points) == 7
    for row, trace in zip(traces["points"], sweep.points, strict=True):
        told = dict(zip(traces["columns"], row, strict=True))
        result = trace.stored.result
        assert result.ttft_s is not None
        assert words[told["id"]] == result.point_id
        ttft = dict(zip(traces["distribution"], told["ttft"], strict=True))
        assert (ttft["count"], ttft["p99"]) == (
            result.ttft_s.count,
            pytest.approx(result.ttft_s.p99, rel=1e-4),
        )
        assert told["ttft_ms"] == pytest.approx((trace.requests.ttft_s * 1e3).tolist(), rel=1e-3)
        assert told["power_w"] == pytest.approx(trace.power.power_w.tolist(), rel=1e-3)
        assert told["energy"][0] == pytest.approx(result.energy.energy_j, rel=1e-5)
    by_curve = data["comparisons"][0]["traces"]
    assert sorted(n for curve in by_curve for runs in curve for n in runs) == list(range(6))
    assert data["comparisons"][0]["invalid_traces"] == [[6]]
    (_, count, example) = dict(zip(traces["columns"], traces["points"][6], strict=True))["errors"][0]
    assert (count > 0, words[example]) == (True, "overloaded")
    (start,) = traces["starts"]
    lines = [[words[i] for i in traces["commands"][n]] for n in start[-1]]
    assert lines[0] == ["worker", "vllm", "serve", "'a model'", "--flag", "'it'\"'\"'s'", '\'{"a": "<b>"}\'']
    assert len(lines) == len(COMMANDS)


def test_a_panel_counts_open_loops_from_when_they_were_due_and_names_cached_and_reasoning_tokens(
    tmp_path: Path,
) -> None:
    (sweep,) = read_traces([write_traced(tmp_path)])
    trace = sweep.points[0]
    late = dataclasses.replace(trace.stored.result.ttft_s, p50=9.0)
    result = dataclasses.replace(
        trace.stored.result, ttft_from_schedule_s=late, e2el_from_schedule_s=late, cached_prompt_share=0.25
    )
    open_load = dataclasses.replace(trace.stored.point, load=Load(pacing="constant", rate_rps=8.0))
    stored = dataclasses.replace(trace.stored, point=open_load, result=result)
    requests = dataclasses.replace(trace.requests, reasoning_share=0.5)
    changed = dataclasses.replace(trace, stored=stored, requests=requests)
    told = Traces([dataclasses.replace(sweep, points=(changed, trace))]).describe(TextTable())
    ours, plain = (dict(zip(told["columns"], row, strict=True)) for row in told["points"])
    median = list(told["distribution"]).index("p50")
    assert (ours["ttft"][median], ours["e2el"][median], ours["open_loop"]) == (9, 9, 1)
    assert (ours["shares"], plain["shares"], plain["open_loop"]) == ([0.25, 0.5], 0, 0)


def test_hostile_traces_are_nowhere_markup(tmp_path: Path) -> None:
    directory = write_traced(
        tmp_path, commands={HOSTILE: (HOSTILE, "a")}, environment={"X": HOSTILE}, failing=HOSTILE
    )
    page = write_report(compare_folder(directory)).read_text("utf-8")
    assert page.count("<script") == page.count("</script") == 2
    assert "<img" not in page
    assert "<!--" not in page
    assert visible(HOSTILE) in page_data(page)["words"]


def test_points_of_other_tools_have_no_traces_and_no_health() -> None:
    page = glm5_page()
    assert page_data(page)["traces"] is None
    assert "The runs:" not in page
    assert describe_health(()) is None


def test_the_health_of_the_runs_is_open_only_where_something_is_wrong(tmp_path: Path) -> None:
    page = write_report(compare_folder(write_traced(tmp_path / "a", failing="overloaded"))).read_text("utf-8")
    assert '<details class="health" open><summary>The runs: 6 of 7 measured points valid, 1 planned' in page
    assert "MTP, concurrency 16, 1xTP2, 2 GPUs: error_rate: " in page
    assert "load client at most 25.0% of a core" in page
    (sweep,) = read_traces([write_traced(tmp_path / "b")])
    healthy = describe_health([dataclasses.replace(sweep, missing=())])
    assert healthy is not None
    assert not healthy.wrong
    assert healthy.client is not None
    assert ("send lag, p99: from due to the first byte sent", "4.2 ms") in [
        (what, worst) for what, _, worst in healthy.client.rows
    ]


def test_a_filter_keeps_the_traces_of_its_points_alone(tmp_path: Path) -> None:
    directory, output = write_sweep(tmp_path), tmp_path / "page.html"
    # The point that died has no figures, so nothing says whether a filter means it.
    for words, count in (([], 8), (["--engine", "vllm"], 7)):
        result = CliRunner().invoke(app, ["report", str(directory), "-o", str(output), *words])
        assert result.exit_code == 0, result.output
        assert len(page_data(output.read_text("utf-8"))["traces"]["points"]) == count


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


# ------------------------------------------------------------------------------------- nothing to compare
DIED = "exit code 1; its log is /work/me/results/traced/logs/worker.log"


def test_a_sweep_without_a_valid_point_has_a_page_all_the_same(tmp_path: Path) -> None:
    directory, output = write_traced(tmp_path, died=DIED), tmp_path / "page.html"
    result = CliRunner().invoke(app, ["report", str(directory), "-o", str(output)])
    assert result.exit_code == 0, result.output
    for page in (output.read_text("utf-8"), write_report(compare_folder(directory)).read_text("utf-8")):
        assert "<h1>traced</h1>" in page
        assert "<strong>No comparison: no valid point to compare; all 6 are invalid.</strong>" in page
        assert "<summary>The runs: 0 of 6 measured points valid" in page
        assert "server_died: exit code 1; its log is …/worker.log" in page
        assert "All points with figures" in page
        assert str(tmp_path) not in page
        assert page_data(page)["comparisons"] == []
        assert len(page_data(page)["traces"]["points"]) == 6
    assert "no comparison: " in (directory / "comparison.md").read_text("utf-8")
    assert json.loads((directory / "comparison.json").read_text("utf-8"))["comparisons"] == []


def test_what_a_run_ends_with_says_why_there_is_no_comparison(tmp_path: Path) -> None:
    table = render_results(compare_folder(write_traced(tmp_path, died=DIED)))
    with (console := Console(width=200)).capture() as captured:
        console.print(table)
    assert captured.get().startswith("no comparison yet: no valid point to compare; all 6 are invalid\n")


def test_a_run_of_dead_servers_ends_with_a_report_and_its_exit_code(tmp_path: Path) -> None:
    directory = write_traced(tmp_path, died=DIED)
    with pytest.raises(typer.Exit) as ended:
        _finish(Console(quiet=True), directory, interrupted=False)
    assert ended.value.exit_code == 3
    assert (directory / "report.html").is_file()


def test_a_sweep_of_one_arm_has_a_page_of_its_points() -> None:
    found = compare_if_possible(point_set(*make_points("off", (10.0, 100.0))), Question())
    assert found.comparisons == ()
    assert "nothing to compare it with" in str(found.why_none)
    page = render_page("t", (), alone=LonePoints(why="x", points=make_points("off", (10.0, 123.0))))
    assert "<td>123.0</td>" in page


def test_a_wrong_question_is_an_error_even_where_nothing_is_valid(tmp_path: Path) -> None:
    directory, output = write_traced(tmp_path, died=DIED), tmp_path / "page.html"
    for words in (["--baseline", "nothing"], ["--engine", "nothing"], ["--hardware", "nothing"]):
        assert CliRunner().invoke(app, ["report", str(directory), "-o", str(output), *words]).exit_code != 0
    healthy = write_traced(tmp_path / "other")
    assert CliRunner().invoke(app, ["report", str(healthy), "-o", str(output), "--max-gap", "0"]).exit_code
    assert not output.exists()


def test_a_file_without_a_valid_point_says_what_was_wrong_with_it(tmp_path: Path) -> None:
    source, output = tmp_path / "p.csv", tmp_path / "page.html"
    source.write_text("arm,interactivity_tps,tput_tps_per_gpu\noff,10,-5\nmtp,nan,7\n", "utf-8")
    with pytest.raises(InputError) as error:
        compare_points(read_source(source), Question())
    for text in ("no valid point", "p.csv:2: tput_tps_per_gpu is -5: negative", "interactivity_tps is nan"):
        assert text in str(error.value)
    assert CliRunner().invoke(app, ["report", str(source), "-o", str(output)]).exit_code != 0
    assert not output.exists()


# ------------------------------------------------------------------------------------------------- folders
def test_a_page_names_sources_without_their_folders(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for source, name in ((GLM5, GLM5.name), (write_sweep(tmp_path), "small")):
        assert CliRunner().invoke(app, ["report", str(source), "-o", str(page)]).exit_code == 0
        assert f"<li>Read from {name}: " in page.read_text("utf-8")
        assert str(source.parent) not in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("damaged: /home/me/r/result.json: not JSON", "damaged: …/result.json: not JSON"),
        ("no /dev/nvidia0/x, see '~/logs/a.log'", "no /dev/nvidia0/x, see '…/a.log'"),
        ("POST http://h:80/v1/chat/completions, /v1/chat/completions, 8192/1024 tok/s/user", None),
        ("</script></b/c>", None),
    ],
)
def test_reasons_lose_the_folders_of_a_machine(text: str, shown: str | None) -> None:
    assert shorten_paths(text) == (shown or text)


# ---------------------------------------------------------------------------------------------- at a glance
def several() -> list[Comparison]:
    """One pair apart, one with a front of one point, one with three knots on either side."""
    points = [
        *make_points("off", (30.0, 100.0), (200.0, 50.0), isl=1, osl=1),
        *make_points("mtp", (10.0, 120.0), (20.0, 60.0), isl=1, osl=1),
        *make_points("off", (10.0, 100.0), isl=2, osl=1),
        *make_points("mtp", (10.0, 120.0), (20.0, 60.0), isl=2, osl=1),
        *make_points("off", (10.0, 100.0), (20.0, 50.0), (30.0, 20.0), isl=3, osl=1),
        *make_points("mtp", (10.0, 150.0), (20.0, 100.0), (30.0, 60.0), isl=3, osl=1),
    ]
    return list(compare_points(point_set(*points), Question()).comparisons)


def test_several_comparisons_have_an_overview_and_open_with_the_richest() -> None:
    comparisons = several()
    page = render_page("t", comparisons)
    assert page_data(page)["opening"] == 2
    overview = describe_overview(comparisons, [write_document(one) for one in comparisons])
    assert overview is not None
    assert overview.summary == "All 3 comparisons at a glance: 1 with a ratio at a target"
    assert [row[1:4] for row in overview.rows] == [
        ("2 / 2", "–", "–, no shared range"),
        ("2 / 1", "10", "–, not reached"),
        ("3 / 3", "10 to 30", "2.39×"),
    ]
    for i, one in enumerate(comparisons):
        assert f'<a href="#c={i}">{write_document(one).heading}</a>' in page
    assert '<details class="overview">' not in glm5_page()


def test_hardware_without_constants_is_named_whole() -> None:
    points = [
        *make_points("off", (10.0, 100.0), (20.0, 50.0), hardware="rig v2.1"),
        *make_points("mtp", (10.0, 200.0), (20.0, 90.0), hardware="rig v2.1"),
    ]
    comparison = compare_points(point_set(*points), Question()).comparisons[0]
    charts = [describe_chart(comparison)]
    (told,) = describe_page([comparison], [write_document(comparison)], charts)["comparisons"]
    assert told["no_constants"] == (
        "There are no price and power constants for rig v2.1: no cost and no megawatts."
    )


def test_a_remark_on_a_file_is_no_row_that_was_lost(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("arm,interactivity_tps,tput_tps_per_gpu,colour\noff,10,100,red\nmtp,0,200,red\n")
    held, *_ = describe_provenance(read_source(path))
    assert held == "Read from points.csv: 1 valid point, 0 invalid, 1 row that could not become a point."


def test_a_point_s_window_is_told_with_what_was_cut_before_it(tmp_path: Path) -> None:
    (sweep,) = read_traces([write_traced(tmp_path)])
    trace = sweep.points[0]
    windows = []
    for settling in (None, Settling(cut_s=0.0, cut_share=0.0), Settling(cut_s=2.5, cut_share=0.1)):
        result = dataclasses.replace(trace.stored.result, settling=settling)
        changed = dataclasses.replace(trace, stored=dataclasses.replace(trace.stored, result=result))
        told = Traces([dataclasses.replace(sweep, points=(changed,))]).describe(TextTable())
        windows.append(dict(zip(told["columns"], told["points"][0], strict=True))["window"])
    assert windows[0] == windows[1]
    assert windows[2] == [*windows[0], 2.5]
