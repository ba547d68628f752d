"""Many arms of several methods and checkpoints: what they are called, and what every output says of them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from curve_points import make_curve, make_points, point_set
from mtpbench.cli import app
from mtpbench.errors import InputError, NotComparable
from mtpbench_analysis.best import BuyerQuestion, answer
from mtpbench_analysis.chart.style import MARKS
from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.comparison_document import leads_table, write_document
from mtpbench_analysis.comparisons import Filter, Question, compare_points
from mtpbench_analysis.curves.crossings import Lead
from mtpbench_analysis.curves.curve import build_curves, full_names
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.importers.points_csv import write_points
from mtpbench_analysis.render.csv_json_parquet import to_csv, to_json
from mtpbench_analysis.render.markup import to_latex, to_markdown
from mtpbench_analysis.sentences import write_sentences

PRO, LATER = "deepseek-ai/DeepSeek-V4-Pro", "deepseek-ai/DeepSeek-V4-Pro-0813"
METHODS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("off", {"method": "off", "draft_tokens": 0}),
    ("off0813", {"method": "off", "draft_tokens": 0, "checkpoint": LATER}),
    *((f"mtp{k}", {"method": "mtp", "draft_tokens": k}) for k in (1, 2, 3, 5)),
    *((f"dspark{k}", {"method": "dspark", "draft_tokens": k, "checkpoint": LATER}) for k in (5, 6)),
    ("eagle3", {"method": "eagle3", "draft_tokens": 3, "draft_model": "some/head"}),
    ("small", {"method": "draft_model", "draft_tokens": 4, "draft_model": "some/draft"}),
    ("ngram4", {"method": "ngram", "draft_tokens": 4}),
    ("by-load", {"method": "mtp", "draft_tokens": 3, "depth_rule": "by_batch"}),
)


def sweep(count: int = 12, **changes: Any) -> list[CurvePoint]:
    """Points of the first arms of METHODS; each serves 10% more than the one before it."""
    points = []
    for i, (arm, facts) in enumerate(METHODS[:count]):
        gain = 1.1**i
        pairs = ((20.0 * gain, 400.0 * gain), (40.0 * gain, 200.0 * gain), (80.0 * gain, 60.0 * gain))
        points += make_points(arm, *pairs, **{"checkpoint": PRO, **facts, **changes})
    return points


def compared(points: list[CurvePoint], **question: Any) -> Comparison:
    (comparison,) = compare_points(point_set(*points), Question(targets_tps=(50,), **question)).comparisons
    return comparison


def test_a_full_name_tells_method_and_depth_and_another_checkpoint() -> None:
    assert full_names(build_curves(sweep())) == (
        "Off",
        "Off0813 on DeepSeek-V4-Pro-0813",
        *("MTP1 (k=1)", "MTP2 (k=2)", "MTP3 (k=3)", "MTP5 (k=5)"),
        *("DSpark5 (k=5) on DeepSeek-V4-Pro-0813", "DSpark6 (k=6) on DeepSeek-V4-Pro-0813"),
        *("eagle3 (EAGLE-3 k=3)", "small (draft model k=4)", "ngram4 (n-gram k=4)"),
        "by-load (MTP k≤3 by batch)",
    )


def test_an_arm_is_not_named_after_a_method_that_it_does_not_draft_with() -> None:
    curve = make_curve("mtp", (10.0, 100.0), method="dspark", draft_tokens=6)
    assert (curve.label, curve.full_name) == ("mtp", "mtp (DSpark k=6)")
    assert make_curve("off-later", (10.0, 100.0), method="mtp", draft_tokens=1).label == "off-later"
    assert make_curve("mtp", (10.0, 100.0)).label == "MTP"


def test_another_checkpoint_stands_beside_the_ratio_in_every_output() -> None:
    comparison = compared(sweep())
    document = write_document(comparison)
    names = [row[1] for row in document.table("matched").rows]
    assert {"Off0813 / Off†", "DSpark5 / Off†", "DSpark6 / Off†", "MTP3 / Off"} <= set(names)
    note = f"†: Off0813, DSpark5 and DSpark6 serve {LATER}, Off {PRO} (--baseline off0813 compares on one"
    assert note in document.table("matched").caption
    told = f"DSpark6: Checkpoint: Off {PRO}; DSpark6 {LATER}"
    assert told in document.items("differences")
    for text in (to_markdown([document]), to_latex([document])):
        assert "DSpark6 / Off†" in text or r"DSpark6 / Off$\dagger$" in text
    (line, *_) = (row for row in csv.DictReader(io.StringIO(to_csv([comparison]))) if row["arm"] == "dspark6")
    assert f"DSpark6 {LATER}" in line["confounds"]
    assert (line["method"], line["draft_tokens"], line["checkpoint"]) == ("dspark", "6", LATER)
    (data,) = json.loads(to_json([comparison]))["comparisons"]
    assert data["checkpoints"]["DSpark6"] == {
        "label": "DSpark6",
        "ours": LATER,
        "baseline": "Off",
        "theirs": PRO,
        "partner_arm": "off0813",
    }


def test_the_sentence_of_a_ratio_names_both_checkpoints() -> None:
    (sentence,) = write_sentences(
        compared(
            [*sweep(1), *make_points("fast", (40.0, 900.0), (90.0, 90.0), method="dspark", checkpoint=LATER)]
        )
    )
    assert sentence.endswith(f" fast serves {LATER}, Off {PRO}.")


def test_strict_refuses_another_checkpoint_and_an_arm_on_the_same_one_is_its_baseline() -> None:
    chosen = [point for point in sweep() if point.arm in ("off", "off0813", "dspark6")]
    with pytest.raises(NotComparable, match="Checkpoint: Off deepseek-ai/DeepSeek-V4-Pro; DSpark6"):
        compared(chosen, strict=True)
    pair = [point for point in chosen if point.arm != "off"]
    comparison = compared(pair, baseline="off0813")
    assert (comparison.baseline.label, comparison.checkpoints) == ("Off0813", {})
    assert not any(text.startswith("Checkpoint") for text in comparison.confounds["DSpark6"])


def test_a_folder_of_somebody_s_machine_is_named_by_its_end() -> None:
    points = [
        *make_points("off", (40.0, 200.0), checkpoint="/home/someone/models/V4"),
        *make_points("dspark", (40.0, 300.0), checkpoint="/home/someone/models/V4-0813"),
    ]
    text = to_markdown([write_document(compared(points))])
    assert "V4-0813" in text
    assert "someone" not in text


def test_checkpoints_that_nobody_recorded_are_no_confound() -> None:
    points = [*make_points("off", (40.0, 200.0)), *make_points("mtp", (40.0, 300.0))]
    comparison = compared(points)
    assert comparison.checkpoints == {}
    assert not any("checkpoint" in text.lower() for text in comparison.confounds["MTP"])


def test_the_rows_of_many_arms_stand_in_the_order_of_the_sweep() -> None:
    document = write_document(compared(sweep()))
    labels = [label for label, *_ in document.table("arms").rows]
    order = ["Off0813", "MTP1", "MTP2", "MTP3", "MTP5", "DSpark5", "DSpark6", "eagle3", "small", "ngram4"]
    assert labels == [*order, "by-load", "Off"]
    assert list(dict.fromkeys(row[0] for row in document.table("points").rows)) == labels
    assert document.title.startswith("11 arms versus Off")


def test_the_twins_of_many_arms_stand_in_the_order_of_the_sweep() -> None:
    shared = [point for point in sweep() if point.arm in ("off", "mtp5", "dspark5", "ngram4")]
    rows = write_document(compared(shared)).table("twins").rows
    assert list(dict.fromkeys(row[0] for row in rows)) == ["MTP5", "DSpark5", "ngram4"]


def test_the_table_of_arms_tells_what_each_drafts_with() -> None:
    table = write_document(compared(sweep())).table("arms")
    rows = {row[0]: dict(zip(table.headers[1:], row[1:], strict=True)) for row in table.rows}
    assert rows["DSpark6"]["drafts"] == "DSpark k=6"
    assert rows["by-load"]["drafts"] == "MTP k≤3 by batch"
    assert rows["small"]["draft model"] == "some/draft"
    assert (rows["Off"]["drafts"], rows["Off"]["checkpoint"]) == ("off", "DeepSeek-V4-Pro")
    pair = [*make_points("off", (40.0, 200.0)), *make_points("mtp", (40.0, 300.0))]
    assert "arms" not in [block.id for block in write_document(compared(pair)).tables]


def test_of_many_arms_only_the_one_that_serves_the_most_is_put_in_words() -> None:
    few, many = compared(sweep(5)), compared(sweep())
    assert len(write_sentences(few)) == 4
    note, sentence = write_sentences(many)
    assert note == (
        "Of 11 arms only that which serves the most at a target is put in words; the table has all."
    )
    served = {
        cell.tput_tps_per_gpu: curve.label
        for curve, cell in zip(many.curves, many.rows[0].cells, strict=True)
    }
    most = served[max(tput for tput in served if tput is not None)]
    assert re.match(rf"At 50 tok/s/user {most} serves ", sentence)


def test_who_serves_the_most_names_method_depth_and_checkpoint() -> None:
    points = [point for point in sweep() if point.arm in ("off", "mtp3", "dspark6")]
    leads = write_document(compared(points)).table("leads")
    assert {row[1] for row in leads.rows} == {
        "DSpark6 (k=6) on DeepSeek-V4-Pro-0813, of what was measured"
    } | {"DSpark6 (k=6) on DeepSeek-V4-Pro-0813"}
    (document,) = answer(point_set(*points), Question(), BuyerQuestion())
    assert document.data["leads"][-1]["wins"] == "DSpark6 (k=6) on DeepSeek-V4-Pro-0813"
    arms = {item["arm"]: item for item in document.data["arms"]}
    assert (arms["dspark6"]["method"], arms["dspark6"]["draft_tokens"]) == ("dspark", 6)


def test_a_cost_that_nobody_reaches_names_the_cheapest() -> None:
    points = sweep(hardware="gb200-nvl72")
    (document,) = answer(point_set(*points), Question(), BuyerQuestion(max_usd_per_mtok=0.01))
    (sentence, *_) = document.data["sentences"]
    assert re.search(
        r"; the cheapest is by-load \(MTP k≤3 by batch\): its cheapest point costs \$0\.\d+", sentence
    )


def test_arms_are_chosen_by_method_and_what_drafts_nothing_stays() -> None:
    points = point_set(*sweep())
    question = Question(targets_tps=(50,))
    (comparison,) = compare_points(points, question, Filter(methods=("dspark", "ngram"))).comparisons
    assert [curve.arm for curve in comparison.curves] == ["off", "off0813", "dspark5", "dspark6", "ngram4"]
    (comparison,) = compare_points(
        points, Question(targets_tps=(50,), baseline="mtp1"), Filter(methods=("dspark",))
    ).comparisons
    assert comparison.baseline.arm == "mtp1"
    with pytest.raises(InputError, match=r"no point of speculation suffix; .*: draft_model, dspark, .*off"):
        compare_points(points, question, Filter(methods=("suffix",)))
    with pytest.raises(InputError, match=r"--speculation eagle: names among off, mtp, dspark"):
        Filter(methods=("eagle",))


@pytest.mark.parametrize("command", ["compare", "best", "report", "plot"])
def test_every_command_that_reads_curves_takes_methods(command: str, tmp_path: Path) -> None:
    source = tmp_path / "points.csv"
    source.write_text(write_points(sweep()), "utf-8")
    output = tmp_path / ("out.svg" if command == "plot" else "out.html" if command == "report" else "out.md")
    formats = ["--format", "md"] if command in ("compare", "best") else []
    call = [command, str(source), "--speculation", "dspark, ngram", "-o", str(output), *formats]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    text = output.read_text("utf-8")
    assert "ngram4" in text if command != "best" else "by-load" not in text
    assert "MTP3" not in text


def test_a_method_is_no_public_page(tmp_path: Path) -> None:
    source = tmp_path / "points.csv"
    source.write_text(write_points(sweep()), "utf-8")
    result = CliRunner().invoke(app, ["compare", str(source), "--method", "mtp"])
    assert result.exit_code != 0
    assert "--speculation mtp chooses arms" in str(result.exception) + result.output


def test_twelve_curves_have_marks_that_no_two_share() -> None:
    for name in ("light", "dark", "path", "marker", "character", "ascii_character"):
        assert len({getattr(mark, name) for mark in MARKS}) == len(MARKS) == 12, name
    assert len({(mark.character, mark.style) for mark in MARKS}) == 12
    assert [mark.dashed for mark in MARKS] == [False] * 6 + [True] * 6
    assert not {mark.ascii_character for mark in MARKS} & {".", "x"}


def test_a_regression_test_tells_that_an_arm_s_method_and_checkpoint_changed(tmp_path: Path) -> None:
    facts = {
        "before": {"method": "mtp", "checkpoint": PRO},
        "after": {"method": "dspark", "checkpoint": LATER},
    }
    for name, changes in facts.items():
        pairs = ((20.0, 400.0), (25.0, 380.0), (30.0, 300.0), (35.0, 260.0), (40.0, 200.0))
        points = make_points("spec", *pairs, draft_tokens=5, **changes)
        (tmp_path / f"{name}.csv").write_text(write_points(points), "utf-8")
    call = ["regress", *(str(tmp_path / f"{name}.csv") for name in facts)]
    text = " ".join(CliRunner().invoke(app, call, env={"COLUMNS": "200"}).output.split())
    assert f"method MTP → DSpark; checkpoint {PRO} → {LATER}." in text


def test_a_lead_over_one_rounded_interactivity_is_not_told_as_a_range() -> None:
    leads = [
        Lead(low_tps=low, high_tps=high, winner=0, ratio=None, share_of_draws=None)
        for low, high in ((20.0, 52.71), (52.71, 52.74))
    ]
    assert [row[0] for row in leads_table(["MTP"], leads).rows] == ["20 to 52.7", "52.7"]
