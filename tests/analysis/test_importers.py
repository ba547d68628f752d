"""What each importer makes of its source, and what it says of a source that it can't use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curve_points import GLM5, INFERENCEX, glm5
from mtpbench.errors import ImportFileError, InputError, SchemaError
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.importers.inferencex import count_gpus, read_rows, total_rate
from mtpbench_analysis.importers.points_csv import read_points, write_points
from stored_sweep import write_sweep

HEADER = "arm,interactivity_tps,tput_tps_per_gpu,gpus\n"


def csv_file(folder: Path, text: str) -> Path:
    path = folder / "points.csv"
    path.write_text(text, "utf-8")
    return path


# -------------------------------------------------------------------------------------------------- CSV


def test_the_real_pair_is_read_whole() -> None:
    points = glm5()
    assert [(p.arm, p.concurrency, p.gpus) for p in points.points[:2]] == [("mtp", 4, 8), ("mtp", 8, 8)]
    assert len(points.points) == 14
    assert points.points[0].source == "glm5_b200_mtp_off_8k1k.csv:3"
    assert [item.what for item in points.unused] == ["glm5_b200_mtp_off_8k1k.csv: column median_tpot_ms"]


def test_an_unknown_field_is_none(tmp_path: Path) -> None:
    (point,) = read_points(csv_file(tmp_path, HEADER + "off,10,20,\n")).points
    assert (point.gpus, point.engine, point.acceptance_length) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "arm,interactivity_tps\noff,1\n",
            r"points\.csv: column tput_tps_per_gpu is missing; the header has: arm",
        ),
        (
            HEADER + "# note\noff,fast,20,8\n",
            r"points\.csv:3: column interactivity_tps: 'fast' is not a number",
        ),
        (HEADER + "off,10,20,-8\n", r"points\.csv:2: column gpus: -8 is negative"),
        (HEADER + "off,10,20,nan\n", r"points\.csv:2: column gpus: 'nan' is not a finite number"),
        (HEADER + "off,10,20,1e99\n", r"points\.csv:2: column gpus: '1e99' is not a whole number"),
        (HEADER, r"points\.csv: has a header, but no row"),
        (
            "arm,interactivity_tps,tput_tps_per_gpu,acceptance_per_position\nmtp,1,2,0.9; fast\n",
            r"points\.csv:2: column acceptance_per_position: 'fast' is not a number",
        ),
        (
            "arm,interactivity_tps,tput_tps_per_gpu,acceptance_per_position\nmtp,1,2,0.9; 1.5\n",
            r"points\.csv:2: column acceptance_per_position: '1.5' is no share from 0 to 1",
        ),
        (
            "arm,interactivity_tps,tput_tps_per_gpu,rel_se_correlation\nmtp,1,2,-3\n",
            r"points\.csv:2: column rel_se_correlation: -3 is no correlation",
        ),
        (
            "arm,interactivity_tps,tput_tps_per_gpu,ttft_p50_low_s,ttft_p50_high_s\nmtp,1,2,0.5,0.4\n",
            r"points\.csv:2: column ttft_p50_low_s: 0\.5 is above ttft_p50_high_s, 0\.4",
        ),
        (
            "arm,interactivity_tps,tput_tps_per_gpu,power_rel_se\nmtp,1,2,3\n",
            r"points\.csv:2: column power_rel_se: 3 is no share",
        ),
        (HEADER + 'off,10,"20,8\n', r"points\.csv:2: unexpected end of data"),
        (HEADER + "off,10,20,8.5\n", r"points\.csv:2: column gpus: '8.5' is not a whole number"),
        (HEADER + ",10,20,8\n", r"points\.csv:2: column arm is empty"),
        (HEADER + "off,10,20\n", r"points\.csv:2: 3 cells where the header has 4"),
        ("arm,arm,interactivity_tps,tput_tps_per_gpu\n", r"column arm appears twice"),
        ("", r"is empty; a header with arm, interactivity_tps, tput_tps_per_gpu"),
        (
            "arm,interactivity_tps,tput_tps_per_gpu,simulated\noff,1,2,maybe\n",
            "'maybe' is neither true nor false",
        ),
    ],
)
def test_a_bad_csv_names_file_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ImportFileError, match=message) as caught:
        read_points(csv_file(tmp_path, text))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("off,,20,8", "interactivity_tps is empty"),
        ("off,3,0,8", "tput_tps_per_gpu is 0"),
        ("off,3,-20,8", "tput_tps_per_gpu is -20: negative"),
        ("off,nan,20,8", "interactivity_tps is nan: no finite number"),
        ("off,inf,20,8", "interactivity_tps is inf: no finite number"),
    ],
)
def test_a_row_that_measured_nothing_is_listed(tmp_path: Path, row: str, reason: str) -> None:
    points = read_points(csv_file(tmp_path, HEADER + "off,10,20,8\n" + row + "\n"))
    assert len(points.points) == 1
    (unused,) = points.unused
    assert unused.what == "points.csv:3"
    assert unused.reason.startswith(reason)


def test_written_points_are_read_back(tmp_path: Path) -> None:
    points = (
        *read_rows(INFERENCEX).points,
        CurvePoint(arm="mtp", interactivity_tps=1.0, tput_tps_per_gpu=2.0, source="x, y", simulated=True),
        CurvePoint(
            arm="mtp",
            interactivity_tps=1.5,
            tput_tps_per_gpu=2.0,
            source='two\nlines, "quoted"',
            settings=("decode: max_num_seqs 512", "prefill: TOKENIZERS_PARALLELISM=false"),
            acceptance_per_position=(0.9, 0.75, 0.5),
            rate_rps=0.25,
            rel_se_correlation=-0.4,
            power_tput_correlation=-0.25,
            ttft_p99_s=0.75,
            ttft_p99_low_s=0.5,
            valid=False,
            reasons=("one: thing", "another"),
        ),
    )
    path = csv_file(tmp_path, write_points(points, ["a comment"]))
    assert read_points(path).points == points


def test_a_byte_order_mark_and_binary_are_met(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_bytes(b"\xef\xbb\xbf" + (HEADER + "off,10,20,8\n").encode())
    assert len(read_points(path).points) == 1
    path.write_bytes(HEADER.encode("utf-16"))
    with pytest.raises(ImportFileError, match=r"points\.csv: not UTF-8 text but UTF-16; save it as UTF-8"):
        read_points(path)
    path.write_bytes(b"arm\xc3(")
    with pytest.raises(ImportFileError, match=r"not UTF-8 text \(byte 3\)"):
        read_points(path)


def test_a_row_that_comes_again_is_kept_once_and_a_repeat_stays(tmp_path: Path) -> None:
    rows = "off,10,20,8\n# again\noff,10,20,8\noff,10,20.5,8\n"
    points = read_points(csv_file(tmp_path, HEADER + rows))
    assert [point.tput_tps_per_gpu for point in points.points] == [20, 20.5]
    assert [(item.what, item.reason) for item in points.unused] == [
        ("points.csv:4", "the same as line 2; kept once")
    ]


def test_lines_are_counted_past_quoted_cells_comments_and_empty_lines(tmp_path: Path) -> None:
    text = 'arm,interactivity_tps,tput_tps_per_gpu,workload\n\noff,1,2,"a\n\n# b"\n# c "\noff,1,2,"d",9\n'
    with pytest.raises(ImportFileError, match=r"points\.csv:7: 5 cells where the header has 4"):
        read_points(csv_file(tmp_path, text))
    (point,) = read_points(csv_file(tmp_path, text.rsplit("off", 1)[0])).points
    assert (point.workload, point.source) == ("a\n\n# b", "points.csv:3")


# ------------------------------------------------------------------------------------------- InferenceX


def test_the_denominator_is_all_gpus() -> None:
    assert total_rate((5498.178969, 20), (428.679012, 32), 52) == pytest.approx(2378.486687, abs=1e-6)


def test_the_gpus_of_every_generation_of_rows() -> None:
    """tp × ep in an aggregated row, the total in both fields of the first schema, real counts after."""
    counted = [(row["conc"], count_gpus(row)) for row in json.loads(INFERENCEX.read_text("utf-8"))]
    totals = [(conc, gpus.prefill, gpus.decode, gpus.total) for conc, gpus in counted]
    assert totals == [
        (4, 4, 4, 4),
        (4, 8, 8, 8),
        (8, 8, 8, 8),
        (64, 8, 8, 8),
        (3, 4, 24, 28),
        (12, 4, 32, 36),
        (102, 4, 24, 28),
        (1075, 32, 16, 48),
        (4301, 44, 16, 60),
        (2048, 16, 8, 24),
        (512, 8, 8, 8),
    ]


def test_little_s_law_confirms_the_counts_of_every_valid_row() -> None:
    """Concurrency × mean output tokens / latency is the output rate over the GPUs counted, within 15%."""
    for row, point in zip(
        json.loads(INFERENCEX.read_text("utf-8")), read_rows(INFERENCEX).points, strict=True
    ):
        if point.valid and point.output_tps_per_gpu and point.gpus:
            rate = point.output_tps_per_gpu * point.gpus
            implied = row["conc"] * 0.9 * row["osl"] / row["metrics"]["mean_e2el"]
            assert implied / rate == pytest.approx(1.05, abs=0.1), point.source


def test_a_row_that_contradicts_itself_is_kept_as_invalid() -> None:
    invalid = [point for point in read_rows(INFERENCEX).points if not point.valid]
    (point,) = invalid
    assert (point.hardware, point.engine, point.concurrency) == ("mi355x", "atom", 512)
    assert "rate contradicts latency" in point.reasons[0]


def test_rates_that_contradict_the_gpu_counts_make_a_row_invalid(tmp_path: Path) -> None:
    row = json.loads(INFERENCEX.read_text("utf-8"))[8]
    row["num_prefill_gpu"] = 16
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row]), "utf-8")
    (point,) = read_rows(path).points
    assert "rates contradict GPU counts" in point.reasons[0]


def test_a_row_says_what_it_knows() -> None:
    point = read_rows(INFERENCEX).points[8]
    assert (point.arm, point.engine, point.serving) == ("mtp", "dynamo-trt", "disaggregated")
    assert (point.topology, point.hardware, point.precision) == ("11xDEP4-1xDEP16", "gb200", "fp4")
    assert (point.isl, point.osl, point.date) == (8192, 1024, "2026-03-23")
    assert point.interactivity_tps == pytest.approx(27.08625703381272)
    assert point.acceptance_mode is None
    assert point.acceptance_length is None
    assert point.image == "nvcr.io/nvidia/ai-dynamo/tensorrtllm-runtime:0.8.1.post2"
    assert "actions/runs/" in (point.source or "")


def test_a_row_without_a_field_is_listed_with_the_field(tmp_path: Path) -> None:
    rows = json.loads(INFERENCEX.read_text("utf-8"))[:2]
    del rows[1]["metrics"]["tput_per_gpu"]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows), "utf-8")
    points = read_rows(path)
    assert len(points.points) == 1
    assert [(item.what, item.reason) for item in points.unused] == [
        ("rows.json[1]", "tput_per_gpu is missing")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"rows\.json:1: not JSON"),
        ("{}", r"not an InferenceX row: an empty object"),
        ("", r"rows\.json: is empty"),
        ("[]", "none of its 0 rows"),
        ("1", "not an InferenceX row: a number"),
        ('[{"a": 1}]', "none of its 1 rows"),
    ],
)
def test_json_that_is_something_else_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text, "utf-8")
    with pytest.raises(ImportFileError, match=message):
        read_rows(path)


# ----------------------------------------------------------------------------------------------- results


def test_a_results_folder_becomes_points(tmp_path: Path) -> None:
    points = read_source(write_sweep(tmp_path))
    valid = [point for point in points.points if point.valid]
    assert [(p.arm, p.concurrency, p.tput_tps_per_gpu) for p in valid] == [
        ("off", 1, 100),
        ("off", 16, 800),
        ("off", 64, 1500),
        ("mtp", 1, 150),
        ("mtp", 16, 1200),
        ("mtp", 64, 2250),
    ]
    point = valid[-1]
    assert (point.gpus, point.topology, point.serving, point.engine) == (8, "1xTP8", "aggregated", "vllm")
    assert (point.version, point.image, point.date) == ("1.2", "img:1", "2026-11-23")
    assert (point.acceptance_mode, point.acceptance_length, point.draft_tokens) == ("measured", 2.5, 3)
    assert (valid[0].acceptance_mode, valid[0].acceptance_length) == ("off", None)
    assert (point.power_w_per_gpu, point.ttft_p50_s, point.simulated) == (900, 0.4, True)
    assert point.workload == "random prompts, no chat template, lengths from 0.8 L to L, temperature 0"


def test_invalid_empty_and_unmeasured_points_are_all_accounted_for(tmp_path: Path) -> None:
    points = read_source(write_sweep(tmp_path))
    (invalid,) = [point for point in points.points if not point.valid]
    assert invalid.reasons == ("client_saturated: event loop 0.4 s late",)
    assert [(item.what.split("_c")[1][:3], item.reason) for item in points.unused] == [
        ("256", "server_died: exit code 1"),
        ("512", "planned, not measured yet"),
    ]


def test_results_of_an_unknown_schema_are_refused(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    path = next(directory.glob("off*/result.json"))
    stored = json.loads(path.read_text("utf-8")) | {"schema_version": 99}
    path.write_text(json.dumps(stored), "utf-8")
    with pytest.raises(SchemaError, match="99"):
        read_source(directory)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "no such file"),
        ("notes.txt", "is needed"),
        ("", "no results here"),
        ("folder.csv", "no results here"),
        (
            "other.json",
            r"other\.json: JSON of no known kind; looked for InferenceX rows, .*AIPerf's summary of a run; "
            "found an object with 'name', 'seed'",
        ),
        ("list.json", "found 2 values, the first a number"),
        ("none.json", "found an empty list"),
        ("half.json", r"half\.json:1: not JSON"),
    ],
)
def test_a_source_that_is_none_says_what_would_be_one(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "notes.txt").write_text("", "utf-8")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "other.json").write_text('{"name": "x", "seed": 1}', "utf-8")
    (tmp_path / "list.json").write_text("[1, 2]", "utf-8")
    (tmp_path / "none.json").write_text("[]", "utf-8")
    (tmp_path / "half.json").write_text('{"name": "x", "se', "utf-8")
    with pytest.raises(InputError, match=message):
        read_source(tmp_path / name)


def test_fixture_is_the_csv_anyone_can_bring() -> None:
    assert GLM5.read_text("utf-8").startswith("# Measured, public: InferenceX")
