"""Tables fit their terminals: folded at words, with fewer columns, or as records; no figure is ever cut."""

from __future__ import annotations

import functools
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from curve_points import INFERENCEX, glm5, make_points, point_set
from mtpbench.cli import app
from mtpbench_analysis.comparison_document import summarize, write_document
from mtpbench_analysis.comparisons import Filter, Question, compare_points
from mtpbench_analysis.curves.curve import Grouping
from mtpbench_analysis.document import Caution, Table
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.render.terminal import FittedTable, folded, layout_of
from mtpbench_analysis.tables import INVALID
from stored_sweep import write_sweep

WIDTHS = (40, 60, 70, 80, 100, 160)
UNBOUND = 1000
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
BROKEN = re.compile(
    r"interpolat\s+e?d|provisione\s+d|tok/\s+s|tok/s/use\s+r|acceptanc\s+e|measure\s+d|concurren\s+cy"
)


def shown(renderable: object, columns: int) -> str:
    console = Console(width=columns, file=io.StringIO(), record=True, highlight=False)
    console.print(renderable)
    return console.export_text()


@functools.cache
def printed(columns: int, *words: object) -> str:
    made = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": str(columns)})
    assert made.exit_code == 0, made.output
    return made.output


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("stored"))


def numbers(text: str) -> Counter[str]:
    return Counter(NUMBER.findall(text))


def tables() -> list[Table]:
    public = Filter(hardware="gb200", precision="fp4", isl=8192, osl=1024, engine="dynamo-trt")
    pooled = Question(grouping=Grouping(pool=("image",)))
    example = Question(targets_tps=(12, 40, 60), constants="2026-05")
    comparisons = (
        *compare_points(glm5(), example, Filter(hardware="b200")).comparisons,
        *compare_points(read_source(INFERENCEX), pooled, public).comparisons,
    )
    documents = [write_document(comparison) for comparison in comparisons]
    return [table for one in documents for table in one.tables]


# ----------------------------------------------------------------------------------- what is printed is true


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize(
    "words",
    [("compare", "--full"), ("compare", "--summary"), ("compare", "--method", "page"), ("best",)],
    ids=["compare", "summary", "page", "best"],
)
def test_every_number_of_a_narrow_print_stands_in_the_wide_one(
    stored: Path, columns: int, words: tuple[str, ...]
) -> None:
    narrow, wide = (printed(width, words[0], stored, *words[1:]) for width in (columns, UNBOUND))
    assert max(map(len, narrow.splitlines())) <= columns
    assert set(numbers(narrow)) <= set(numbers(wide))
    assert not BROKEN.search(narrow)
    if columns >= 100:
        assert numbers(narrow) == numbers(wide)
        assert "left out for width" not in narrow


@pytest.mark.parametrize("columns", WIDTHS)
def test_every_number_of_a_bought_rack_is_whole(stored: Path, columns: int) -> None:
    asked = ("best", stored, "--cost", "5", "--interactivity", "40", "--ttft", "2")
    narrow, wide = (printed(width, *asked) for width in (columns, UNBOUND))
    assert set(numbers(narrow)) <= set(numbers(wide))
    assert not BROKEN.search(narrow)


@pytest.mark.parametrize("columns", [20, 26, 33, *WIDTHS, 50, 65, 75, 90, 120])
@pytest.mark.parametrize("table", tables(), ids=lambda table: table.title)
def test_a_table_of_any_width_fits_and_its_numbers_are_whole(table: Table, columns: int) -> None:
    text = shown(FittedTable(table), columns)
    assert max(map(len, text.splitlines())) <= columns
    wide = {
        number for cells in (table.headers, *table.rows) for cell in cells for number in NUMBER.findall(cell)
    }
    assert set(numbers(text.replace(table.title, ""))) <= wide | numbers(table.title).keys()


@pytest.mark.parametrize("columns", [20, 26, 33, *WIDTHS, 50, 65, 75, 90, 120])
@pytest.mark.parametrize("table", tables(), ids=lambda table: table.title)
def test_every_cell_of_a_kept_column_is_there_as_often_as_it_should(table: Table, columns: int) -> None:
    layout = layout_of(table, columns)
    if layout is None:
        return
    for place, width in zip(layout.columns, layout.widths, strict=True):
        for cell in (table.headers[place], *(row[place] for row in table.rows)):
            lines = folded(cell, width)
            assert all(len(line) <= width for line in lines)
            assert "".join(lines).replace(" ", "") == re.sub(r"\s", "", cell)
            assert numbers("\n".join(lines)) == numbers(cell)


# -------------------------------------------------------------------------------------------- what gives way


def table_of(headers: Sequence[str], *rows: Sequence[str]) -> Table:
    return Table(title="Points", headers=tuple(headers), rows=tuple(map(tuple, rows)), caption="Said of it.")


POINTS = table_of(
    (
        "arm",
        "conc.",
        "topology",
        "GPUs",
        "tok/s/GPU",
        "tok/s/user",
        "TTFT s",
        "AL",
        "J/token",
        "runs",
        "valid",
    ),
    ("MTP", "64", "1xTP8-1xTP8", "16", "1,382.9", "142.4", "0.349", "2.49", "4.875", "12", "knot"),
    ("Off", "1", "1xTP8-1xTP8", "16", "130.1", "1100.4", "0.148", "–", "28.91", "12", "yes"),
)


def rendered(table: Table, columns: int) -> str:
    return shown(FittedTable(table), columns)


def test_words_fold_first_and_no_figure_does() -> None:
    assert "left out" not in rendered(POINTS, 84)
    text = rendered(POINTS, 72)
    assert "left out" not in text
    assert re.search(r"^ *MTP +64 +1xTP8- +16 +1,382.9 +142.4 +0.349 +2.49 +4.875 +12 +knot *$", text, re.M)


def test_then_columns_are_left_out_the_least_important_first_and_it_is_said() -> None:
    said = [
        next((line for line in rendered(POINTS, columns).splitlines() if "left out" in line), "")
        for columns in range(72, 34, -1)
    ]
    first = next(line for line in said if line)
    assert first.startswith("left out for width: runs; a wider")
    assert "runs, J/token" in " ".join(said)
    text = " ".join(rendered(POINTS, 44).split())
    assert "a wider terminal or --format md shows them" in text
    for word in ("1,382.9", "142.4", "knot", "MTP", "Off"):
        assert word in text


def test_as_a_last_resort_there_are_records() -> None:
    text = rendered(POINTS, 16)
    lines = [line.strip() for line in text.splitlines()]
    assert "MTP" in lines
    assert "AL: 2.49" in lines
    assert "tok/s/GPU:" in text
    assert "left out" not in text


def test_a_table_of_targets_loses_none_of_them() -> None:
    (comparison,) = compare_points(
        glm5(), Question(targets_tps=(12, 40, 60)), Filter(hardware="b200")
    ).comparisons
    matched = write_document(comparison).table("matched")
    for columns in WIDTHS:
        text = rendered(matched, columns)
        assert all(re.search(rf"(?m)^.*\b{target}\b", text) for target in (12, 40, 60))
        assert "left out" not in text
    records = rendered(matched, 30)
    assert "cost, $/M tok, Off" in " ".join(records.split()), "a metric is said again for each of its rows"


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("tok/s/user", 9, ["tok/s/", "user"]),
        ("1xTP8-1xTP8, 16 GPUs", 8, ["1xTP8-", "1xTP8,", "16 GPUs"]),
        ("2026-07", 5, ["2026-07"]),
        ("-20.0%", 3, ["-20.0%"]),
        ("≥ 2.37×", 4, ["≥ 2.37×"]),
        ("$/M tok", 4, ["$/M", "tok"]),
        ("first\nsecond line", 6, ["first", "second", "line"]),
        ("off_1xTP8_c16_r0_0123abcd", 10, ["off_1xTP8_", "c16_r0_", "0123abcd"]),
        ("", 5, [""]),
    ],
)
def test_words_break_where_a_reader_would(text: str, width: int, lines: list[str]) -> None:
    assert folded(text, width) == lines


YELLOW = re.compile(r"\x1b\[(?:[0-9;]*;)?33m([^\x1b]*)")


@pytest.mark.parametrize("columns", [16, 30, 160])
def test_what_could_not_be_read_is_yellow_at_every_width_as_a_table_and_as_records(columns: int) -> None:
    table = table_of(
        ("", "arm", "40", "80"),
        ("tok/s/GPU", "MTP", "1,260.4", Caution("not reached: ends at 77.8")),
        ("", "MTP / Off", "2.42×", Caution("withheld: knots 46.6× apart")),
        ("valid", "", INVALID, "yes"),
    )
    console = Console(
        width=columns, file=io.StringIO(), force_terminal=True, color_system="standard", highlight=False
    )
    console.print(FittedTable(table))
    assert isinstance(console.file, io.StringIO)
    marked = " ".join(" ".join(YELLOW.findall(console.file.getvalue())).split())
    assert (layout_of(table, columns) is None) == (columns == 16)
    for word in ("not", "reached:", "ends", "77.8", "withheld:", "46.6×", "apart", "NO"):
        assert word in marked.split()
    for word in ("1,260.4", "2.42×", "yes", "MTP"):
        assert word not in marked


def test_tables_mark_what_has_no_figure_and_what_is_invalid_and_nothing_else() -> None:
    off = make_points("off", (20.0, 1000.0), (60.0, 100.0))
    mtp = [
        *make_points("mtp", (30.0, 2000.0), (50.0, 900.0)),
        make_points("mtp", (40.0, 1.0), valid=False)[0],
    ]
    question = Question(targets_tps=(40.0, 55.0))
    outcome = compare_points(point_set(*off, *mtp), question)
    document = write_document(outcome.comparisons[0])
    told = [table for one in summarize(outcome.comparisons) for table in one.tables]
    marked = {
        cell.split("\n")[0].partition(":")[0]
        for table in (*document.tables, *told)
        for row in table.rows
        for cell in row
        if isinstance(cell, Caution)
    }
    assert marked == {"not reached", "withheld", "NO", "100.0 to 1,000", "not known"}
