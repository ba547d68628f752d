from __future__ import annotations

import dataclasses
from pathlib import Path

from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.comparisons import Question, compare_points
from mtpbench_analysis.curves.confounds import find_agreements, first_difference
from mtpbench_analysis.frame import ArmAnswers
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.render.csv_json_parquet import to_json

GLM = Path(__file__).resolve().parents[1] / "fixtures" / "glm5_b200_mtp_off_8k1k.csv"
OFF = ArmAnswers(arm="off", topology="1xTP8", texts=("2, 3, 5", "Tokyo", "return n", "Die"), score=0.8)


def test_the_first_difference_is_the_first_character_that_is_not_the_same() -> None:
    assert first_difference("abc", "abc") is None
    assert first_difference("abc", "abd") == 2
    assert first_difference("abc", "abcd") == 3


def test_arms_are_paired_on_the_same_topology_where_there_is_one() -> None:
    elsewhere = dataclasses.replace(OFF, topology="1xTP4", texts=("x", "x", "x", "x"))
    mtp = ArmAnswers(arm="mtp", topology="1xTP4", texts=("x", "x", "x", "y"))
    (found,) = find_agreements([OFF, elsewhere, mtp], "off")
    assert (found.topologies, found.same, found.prompts, found.first_difference) == (
        ("1xTP4", "1xTP4"),
        3,
        4,
        0,
    )
    assert not found.flagged


def test_an_arm_that_answered_nothing_has_no_agreement() -> None:
    silent = ArmAnswers(arm="mtp", topology="1xTP8", texts=(), reason="not asked for")
    assert find_agreements([OFF, silent], "off") == ()
    assert find_agreements([silent], "off") == ()


def test_agreement_stands_beside_the_comparison_and_too_little_of_it_is_flagged() -> None:
    same = dataclasses.replace(OFF, arm="mtp", score=0.79)
    other = dataclasses.replace(OFF, arm="mtp", texts=("2, 3, 7", "Kyoto", "return n", "Die"), score=None)
    for answers, said, flagged in (
        (same, "MTP gives Off's greedy answer to 4 of 4 fixed prompts.", False),
        (other, "to 2 of 4 fixed prompts; the earliest difference is at character 1.", True),
    ):
        points = dataclasses.replace(read_source(GLM), answers=(OFF, answers))
        outcome = compare_points(points, Question())
        document = write_document(outcome.comparisons[0])
        assert said in " ".join(document.items("answers"))
        assert any("gives other answers" in caveat for caveat in document.items("caveats")) is flagged
        assert '"agreements": [' in to_json(outcome.comparisons, outcome.left_out)
    points = dataclasses.replace(read_source(GLM), answers=(OFF, same))
    document = write_document(compare_points(points, Question()).comparisons[0])
    assert "The evaluation scores Off 0.8 and MTP 0.79." in document.items("answers")
