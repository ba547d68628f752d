"""Text from elsewhere: what hides in it is made visible, and a CSV gives it back as it was."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mtpbench_analysis.document import (
    HIDDEN,
    Caution,
    Table,
    json_text,
    visible,
    visible_table,
    visible_values,
)
from mtpbench_analysis.frame import CurvePoint
from mtpbench_analysis.importers.points_csv import read_points, write_points
from mtpbench_analysis.render.csv_json_parquet import lines_to_csv
from mtpbench_analysis.render.markup import table_to_markdown
from mtpbench_analysis.spreadsheet import from_cell, to_cell

HIDES = re.compile(f"[{HIDDEN}]")
FORMULA = re.compile(r"[=+@\-\t\r]")
TEXTS = st.text(st.characters(exclude_categories=()), max_size=30)
AWKWARD = (
    "=1+1",
    "'=1",
    "''",
    "'\\",
    "\\&",
    "\\u001b",
    "\x1b[31m",
    " a ",
    "a\nb",
    "-5",
    "@x",
    "#c",
    "\ud800",
)


@given(TEXTS)
def test_visible_text_hides_nothing_and_is_visible_already(text: str) -> None:
    shown = visible(text)
    assert not HIDES.search(shown)
    assert visible(shown) == shown
    assert len(shown) == len(text), "each character is one, so that what is laid out stays so"


@given(TEXTS)
@example("=1")
def test_a_cell_gives_its_text_back_and_no_spreadsheet_takes_it_for_a_formula(text: str) -> None:
    cell = to_cell(text)
    assert from_cell(cell) == text
    assert not FORMULA.match(cell)
    assert not HIDES.search(cell)
    assert cell == cell.strip()
    assert "\n" not in cell


@pytest.mark.parametrize("text", ["off", "mtp-k3", "it's", "a\\b", "C:\\x1b", "1xTP8", "", "v1.2 (a; b)"])
def test_an_ordinary_text_is_its_own_cell(text: str) -> None:
    assert to_cell(text) == text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arm=TEXTS, engine=TEXTS, settings_=st.lists(TEXTS, max_size=3))
@example(arm="=cmd", engine="\x1b[2J", settings_=["-x", "'"])
@example(arm="# a, b", engine="#", settings_=[])
@example(arm="#", engine="", settings_=[])
def test_points_come_back_from_a_csv_as_they_went(
    tmp_path: Path, arm: str, engine: str, settings_: list[str]
) -> None:
    point = CurvePoint(
        arm=arm or "off",
        engine=engine or None,
        # Lists are joined by `; `, and an empty text is nothing.
        settings=tuple(text.replace(";", ",") for text in settings_ if text.replace(";", ",")) or None,
        interactivity_tps=1.5,
        tput_tps_per_gpu=2.5,
        rel_se_correlation=-0.5,
        source="s",
    )
    path = tmp_path / "points.csv"
    text = write_points([point], [f"of {arm}"])
    assert not HIDES.search(text)
    path.write_text(text, "utf-8")
    assert read_points(path).points == (point,)


@pytest.mark.parametrize("mark", ["=", "+", "-", "@", "\uff1d"])
@pytest.mark.parametrize("before", [",", ";", ", ", ',"', ",'", ",,", "\n,"])
def test_no_cell_of_a_comment_is_a_formula(before: str, mark: str) -> None:
    """A spreadsheet splits a comment like any other line, at commas or, in many countries, semicolons."""
    point = CurvePoint(arm="off", interactivity_tps=1.5, tput_tps_per_gpu=2.5)
    comment, _ = write_points([point], [f"of a{before}{mark}1+1"]).split("\n", 1)
    assert comment.startswith("# of a")
    for delimiter in ",;":
        (row,) = csv.reader(io.StringIO(comment, newline=""), delimiter=delimiter)
        assert not any(cell.strip()[:1] in tuple("=+-@\uff1d") for cell in row)


def test_figures_stay_figures() -> None:
    point = CurvePoint(arm="off", interactivity_tps=1.5, tput_tps_per_gpu=2.5, rel_se_correlation=-0.5)
    (row,) = csv.DictReader(io.StringIO(write_points([point])))
    assert row["rel_se_correlation"] == "-0.5"


@given(st.dictionaries(st.sampled_from("abc"), TEXTS, min_size=1))
def test_no_cell_of_an_export_is_a_formula(line: dict[str, str]) -> None:
    (row,) = csv.DictReader(io.StringIO(lines_to_csv([line]), newline=""))
    assert {name: from_cell(cell) for name, cell in row.items()} == line
    assert not any(FORMULA.match(cell) for cell in row.values())


@given(TEXTS)
def test_tables_json_and_markdown_hide_nothing(text: str) -> None:
    table = visible_table(Table(title=text, headers=(text,), rows=((Caution(text),),), caption=text))
    assert isinstance(table.rows[0][0], Caution)
    assert not any(map(HIDES.search, (table.title, *table.headers, *table.rows[0], table.caption)))
    assert not HIDES.search(table_to_markdown(table))
    assert not HIDES.search(json_text({text: [text, {"a": text}]}))
    assert visible_values({text: [text, 1.0]}) == {visible(text): [visible(text), 1.0]}


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_in_particular(text: str) -> None:
    assert from_cell(to_cell(text)) == text
