import dataclasses

import pytest
from typer.testing import CliRunner

from mtpbench.cli import simulate
from mtpbench.errors import ImportFileError, InputError
from mtpbench.simengine.profile import Factors, load_profile
from mtpbench.simengine.profile_fit import FitSetting, fit, read_points, steady_state

HEADER = "concurrency,prefill_layout,decode_layout,tput_per_gpu,interactivity\n"
ROWS = "# a comment\n" + HEADER + "16,1xDEP8,1xDEP8,300,30\n\n64,1xDEP8,1xDEP8,900,27\n8,1xDEP8,2xTP8,60,60\n"
RAW = load_profile("dsv4-gb200")
SETTING = FitSetting()


@pytest.fixture
def points_csv(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(ROWS)
    return path


def test_points_are_read_past_comments_and_blank_lines(points_csv):
    points = read_points(points_csv)
    assert [p.topology.name for p in points] == ["1xDEP8-1xDEP8", "1xDEP8-1xDEP8", "1xDEP8-2xTP8"]
    assert [p.concurrency for p in points] == [16, 64, 8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEADER.replace("interactivity", "speed") + "1,1xDEP8,1xDEP8,1,1\n",
            r"csv:1: no column interactivity;",
        ),
        (HEADER + "1,1xDEP8,1xDEP8,fast,1\n", r"csv:2: tput_per_gpu must be a number above 0 .*'fast'"),
        (HEADER + "1,1xDEP8,1xDEP8,0,1\n", r"csv:2: tput_per_gpu must be a number above 0"),
        (HEADER + '1,1xDEP8,1xDEP8,"9,1\n', r"csv:2: not CSV: unexpected end of data"),
        (HEADER + "1,1xDEP8,1xDEP8,nan,1\n", r"csv:2: tput_per_gpu must be a number"),
        (HEADER + "1e300,1xDEP8,1xDEP8,1,1\n", r"csv:2: concurrency must be a number above 0 and below"),
        ("# x\n" + HEADER + "1,DEP8,1xDEP8,1,1\n", r"csv:3: prefill_layout 'DEP8' is not like 2xDEP8"),
        (HEADER, "no points"),
    ],
)
def test_a_wrong_file_says_where_and_what(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ImportFileError, match=message):
        read_points(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: there is no such file"):
        read_points(tmp_path / "none.csv")


def test_the_fit_finds_the_factors_that_made_the_points(points_csv):
    """Points computed with known factors give those factors back."""
    truth = Factors(decode_scale={"dep": 1.3, "tp": 1.1}, decode_overhead_ms={"dep": 4.0}, prefill_scale=1.2)
    made = dataclasses.replace(RAW, factors=truth)
    shapes = [
        dataclasses.replace(p, concurrency=c) for p in read_points(points_csv) for c in (p.concurrency, 700)
    ]
    points = []
    for shape in shapes:
        outcome = steady_state(shape, made, SETTING)
        points.append(
            dataclasses.replace(
                shape,
                tput_tps_per_gpu=outcome.tput_tps_per_gpu,
                interactivity_tps=outcome.interactivity_tps,
            )
        )
    found = fit(points, RAW, SETTING).factors
    assert found.prefill_scale == pytest.approx(1.2, rel=0.01)
    assert found.decode_scale["dep"] == pytest.approx(1.3, rel=0.03)
    assert found.decode_overhead_ms["dep"] == pytest.approx(4.0, abs=0.8)
    assert found.decode_scale["tp"] == pytest.approx(1.1, rel=0.05)


def test_the_closed_form_is_close_to_the_event_model(points_csv):
    """Within 12%: the closed form knows no imbalance between ranks."""
    for point in read_points(points_csv):
        quick, played = steady_state(point, RAW, SETTING), simulate.play_measured(point, RAW, SETTING)
        assert quick.interactivity_tps == pytest.approx(played.interactivity_tps, rel=0.12)
        assert quick.tput_tps_per_gpu == pytest.approx(played.tput_tps_per_gpu, rel=0.12)


def test_calibrate_prints_held_out_residuals_and_writes_a_profile(points_csv, tmp_path):
    output = tmp_path / "mine.json"
    result = CliRunner().invoke(simulate.app, ["calibrate", str(points_csv), "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert "held out" in result.output
    assert result.output.count("1xDEP8-1xDEP8") == 2
    assert "prefill: table ×" in result.output
    mine = load_profile(str(output))
    assert mine.name == "mine"
    assert mine.factors.decode_scale["dep"] != 1.0
    assert mine.decode_step_ms == RAW.decode_step_ms


def test_serve_refuses_a_speed_above_ten():
    result = CliRunner().invoke(simulate.app, ["serve", "--speed", "50"])
    assert result.exit_code == 2
