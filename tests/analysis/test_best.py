"""`mtpbench best`: one answer for each hardware, model and workload, in words and figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from curve_points import GLM5, INFERENCEX, make_points
from mtpbench.errors import InputError
from mtpbench_analysis.cli import register
from mtpbench_analysis.importers.points_csv import write_points


def run(*words: object) -> Result:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["best", *map(str, words)])


def test_how_fast_at_a_cost() -> None:
    result = run(GLM5, "--hardware", "b200", "--hardware-constants", "2026-05", "--cost", "0.5")
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert "At $0.500 per million tokens MTP is the fastest: 49.3 tok" in text
    assert "B200 at $1.95 per GPU-hour (hyperscaler; survey of 2025-08)" in text


def test_which_recipe_is_the_cheapest() -> None:
    result = run(GLM5, "--hardware", "b200", "--interactivity", "40", "--format", "json")
    (answer,) = json.loads(result.output)["answers"]
    assert [recipe["curve"] for recipe in answer["recipes"]] == ["MTP", "MTP", "MTP", "Off", "Off"]
    assert answer["recipes"][0]["recipe"] == "concurrency 16, 8 GPUs"
    assert answer["sentences"][0].endswith("the best of Off costs 149.1% more.")


def test_a_ttft_that_nobody_recorded_is_met_by_no_recipe() -> None:
    result = run(GLM5, "--hardware", "b200", "--interactivity", "40", "--ttft", "2", "--format", "md")
    assert "5 recipes are fast enough, but nobody recorded their TTFT" in result.output


def test_who_wins_where_with_three_depths(tmp_path: Path) -> None:
    points = [
        *make_points("off", (10.0, 1000.0), (50.0, 200.0), simulated=True),
        *make_points("mtp-k1", (10.0, 900.0), (60.0, 300.0), simulated=True),
        *make_points("mtp-k3", (10.0, 600.0), (90.0, 200.0), simulated=True),
    ]
    path = tmp_path / "points.csv"
    path.write_text(write_points(points), "utf-8")
    result = run(path, "--format", "md")
    assert "| 0 to 10 | Off, of what was measured | 1.11× (best points) |" in result.output
    assert "| 10 to 22.5 | Off |" in result.output
    assert "| 22.5 to 52.9 | MTP-k1 |" in result.output
    assert "| 60 to 90 | MTP-k3 | – |" in result.output
    assert "SIMULATED: these figures come from a model" in result.output
    assert "Who serves the most (SIMULATED)" in result.output


def test_a_winner_is_named_with_its_depth_once(tmp_path: Path) -> None:
    points = [
        *make_points("off", (10.0, 1000.0), (50.0, 200.0), method="off", draft_tokens=0),
        *make_points("mtp3", (10.0, 900.0), (60.0, 300.0), method="mtp", draft_tokens=3),
    ]
    path = tmp_path / "points.csv"
    path.write_text(write_points(points), "utf-8")
    output = run(path, "--format", "md").output
    assert "| MTP3 (k=3) |" in output
    assert "(k=3) (k=3)" not in output


def test_a_tie_has_no_winner(tmp_path: Path) -> None:
    line = ((10.0, 1000.0), (50.0, 200.0))
    path = tmp_path / "points.csv"
    path.write_text(write_points([*make_points("off", *line), *make_points("mtp", *line)]), "utf-8")
    result = run(path, "--format", "md")
    assert "| 10 to 50 | Off and MTP are equal | 1.00× | – |" in result.output
    (answer,) = json.loads(run(path, "--format", "json").output)["answers"]
    assert [(lead["wins"], lead["equal"]) for lead in answer["leads"]] == [(None, ["Off", "MTP"])] * 2
    assert "Off and MTP are equal: 3" in " ".join(run(path, "--cost", "1").output.split())
    assert "the best of MTP costs the same." in run(path, "--interactivity", "40", "--format", "md").output


def test_a_tier_without_a_price_says_why_in_every_answer() -> None:
    asked = (GLM5, "--hardware", "b200", "--tier", "neocloud")
    why = "neocloud: its source removed this tier in 2026-09"
    text = " ".join(run(*asked, "--cost", "0.5").output.split())
    assert f"What a million tokens cost is unknown: {why}" in text
    (answer,) = json.loads(run(*asked, "--cost", "0.5", "--format", "json").output)["answers"]
    assert {item["interactivity_tps"] for item in answer["fastest"]} == {None}
    assert all(item["reason"].startswith(why) for item in answer["fastest"])
    text = " ".join(run(*asked, "--interactivity", "40").output.split())
    assert f"B200 at an unknown price ({why}" in text
    assert "$0" not in text


def test_every_workload_of_a_source_gets_its_answer() -> None:
    result = run(INFERENCEX, "--format", "json")
    answers = json.loads(result.output)["answers"]
    assert len(answers) > 3
    assert len({answer["title"] for answer in answers}) == len(answers)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cost", "0"), "--cost 0: a number above 0"),
        (("--interactivity", "-3"), "--interactivity -3"),
        (("--ttft", "2"), "--ttft goes with --interactivity"),
        (("--hardware", "abacus"), "unknown hardware 'abacus'"),
    ],
)
def test_wrong_wishes_are_refused(words: tuple[str, ...], said: str) -> None:
    error = run(GLM5, *words).exception
    assert isinstance(error, InputError)
    assert said in str(error)


OFF_WITH_A_GAP = ((10.0, 3000.0), (20.0, 2500.0), (80.0, 100.0))


def answered(tmp_path: Path, *pairs: tuple[float, float]) -> Result:
    points = [*make_points("off", *OFF_WITH_A_GAP), *make_points("mtp", *pairs)]
    path = tmp_path / "points.csv"
    path.write_text(write_points(points), "utf-8")
    return run(path, "--cost", "0.4", "--usd-per-gpu-h", "1.73", "--format", "json")


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (
            ((12.0, 3300.0), (30.0, 2000.0), (90.0, 900.0)),
            "it is not known who is the fastest: MTP reaches 62.7 and Off reaches somewhere from "
            "20 to 80 tok/s/user.",
        ),
        (
            ((12.0, 3300.0), (90.0, 1300.0)),
            "MTP is the fastest: at least 90 tok/s/user, then Off with somewhere from 20 to 80.",
        ),
        (
            ((12.0, 3300.0), (18.0, 1000.0)),
            "Off is the fastest: somewhere from 20 to 80 tok/s/user, then MTP with 17.5.",
        ),
        (
            ((12.0, 3300.0), (20.0, 2800.0), (60.0, 300.0)),
            "it is not known who is the fastest: Off reaches somewhere from 20 to 80 and MTP reaches "
            "somewhere from 20 to 60 tok/s/user.",
        ),
    ],
)
def test_a_wide_gap_at_the_cost_leaves_open_who_is_the_fastest(
    tmp_path: Path, pairs: tuple[tuple[float, float], ...], sentence: str
) -> None:
    (answer,) = json.loads(answered(tmp_path, *pairs).output)["answers"]
    assert answer["sentences"][0] == f"At $0.400 per million tokens {sentence}"
    off = next(item for item in answer["fastest"] if item["curve"] == "Off")
    assert (off["interactivity_tps"], off["gap"], off["interval"]) == (20, [20, 80], None)
    assert off["tput_tps_per_gpu"] == 2500, "that of the speed which is known"
