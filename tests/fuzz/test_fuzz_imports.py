"""Files of other tools: any value at any place, any text; points that every command reads, or a refusal."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curve_points import FIXTURES, INFERENCEX
from mtpbench.errors import InputError
from mtpbench_analysis.comparison_document import write_document
from mtpbench_analysis.comparisons import Question, compare_if_possible
from mtpbench_analysis.frame import PointSet
from mtpbench_analysis.importers import KINDS, Declared, read_source
from mtpbench_analysis.importers.points_csv import read_points, write_points
from mtpbench_analysis.render.csv_json_parquet import to_csv, to_json, to_parquet
from mtpbench_analysis.render.markup import to_latex, to_markdown
from mtpbench_analysis.render.terminal import to_terminal

IMPORTERS = FIXTURES / "importers"
ARMS = (Declared(arm="mtp", gpus=8), Declared(arm="off", prefill_gpus=4, decode_gpus=4, isl=64, osl=32))


def first_line(path: Path) -> Any:
    return json.loads(path.read_text("utf-8").split("\n")[0])


SOUND = [
    json.loads(INFERENCEX.read_text("utf-8"))[8],
    *json.loads((IMPORTERS / "inferencex" / "agg_second.json").read_text("utf-8")),
    json.loads((IMPORTERS / "vllm" / "mtp3_c4.json").read_text("utf-8")),
    first_line(IMPORTERS / "vllm" / "appended.json"),
    first_line(IMPORTERS / "sglang" / "runs.jsonl"),
    json.loads((IMPORTERS / "aiperf" / "c4" / "profile_export_aiperf.json").read_text("utf-8")),
]
ODD = [
    None,
    True,
    False,
    0,
    1,
    -1,
    0.5,
    -0.0,
    5e-324,
    1e-300,
    1e308,
    2**63,
    10**400,
    "",
    "NaN",
    "inf",
    "\x00",
]
ODD += ["\ud800", "x" * 300, [], {}, [0], {"": 0}, float("nan"), float("inf"), [1, None, "a"], {"mean": -1}]
values = st.one_of(
    st.sampled_from(ODD),
    st.floats(),
    st.integers(),
    st.recursive(
        st.one_of(st.none(), st.floats(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=5,
    ),
)
EXTRA = (
    "ramp_up_strategy",
    "finish_reasons",
    "errors",
    "output_lens",
    "num_prompts",
    "prefill_pp",
    "max_itl_ms",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("imports")


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a value with each of its keys or indices."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [found for key in keys for found in ((value, key), *places(value[key]))]


def must_name(path: Path, error: InputError) -> None:
    assert path.name in str(error)


def hold(path: Path) -> None:
    """Each reader on the file; what it gives is written as a CSV, and read again as it was."""
    for read in (read_source, *(kind.read for kind in KINDS.values())):
        for declared in ARMS:
            try:
                points = read(path, declared)
            except InputError as error:
                must_name(path, error)
                continue
            hold_points(path, points)


def hold_points(path: Path, points: PointSet) -> None:
    for item in points.unused:
        str(item).encode("utf-8", "replace")
    if points.points:
        again = path.with_name("again.csv")
        again.write_text(write_points(points.points), "utf-8")
        assert [found.valid for found in read_points(again).points] == [p.valid for p in points.points]


@given(data=st.data())
def test_any_value_at_any_place(folder: Path, data: st.DataObject) -> None:
    result = copy.deepcopy(data.draw(st.sampled_from(SOUND)))
    for _ in range(data.draw(st.integers(1, 4))):
        found = places(result)
        if data.draw(st.booleans()) or not found:
            result[data.draw(st.sampled_from(EXTRA))] = data.draw(values)
            continue
        container, key = found[data.draw(st.integers(0, len(found) - 1))]
        container[key] = data.draw(values)
    path = folder / "changed.json"
    path.write_text(json.dumps(result), "utf-8")
    hold(path)


TEXTS = [
    (IMPORTERS / "vllm" / "appended.json", ".jsonl"),
    (IMPORTERS / "sglang" / "runs.jsonl", ".jsonl"),
    (IMPORTERS / "aiperf" / "c4" / "profile_export_aiperf.csv", ".csv"),
    (FIXTURES / "glm5_b200_mtp_off_8k1k.csv", ".csv"),
]
PIECES = [
    b"",
    b",",
    b";",
    b'"',
    b"\n",
    b"\r",
    b"\0",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\xff",
    b"NaN",
    b"1e999",
    b"9" * 5000,
]
PIECES += [b"\xef\xbb\xbf", b"[" * 2000, b'{"a": 1, "a": 2}', b"# ", b"1,024", b"-", b"inf", b"\xe2\x80\xa8"]


@settings(max_examples=150)
@given(data=st.data())
def test_any_text_in_any_place(folder: Path, data: st.DataObject) -> None:
    source, suffix = data.draw(st.sampled_from(TEXTS))
    content = source.read_bytes()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        cut = data.draw(st.sampled_from([0, 0, 1, 5, 200]))
        piece = data.draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)))
        content = content[:at] + piece + content[at + cut :]
    path = folder / f"text{suffix}"
    path.write_bytes(content)
    hold(path)


numbers = st.one_of(
    st.sampled_from(
        ["1e-300", "1e300", "1e-9", "5", "50", "1e9", "0.1", "4.9e-324", "1.7e308", "nan", "1e-6"]
    ),
    st.floats(1e-3, 1e5).map(lambda number: f"{number:.6g}"),
)
rows = st.tuples(
    st.sampled_from(["off", "mtp", "x", "=1+1", "a|b"]),
    numbers,
    numbers,
    st.sampled_from(["", "1", "64", "1000000"]),
    st.sampled_from(["", "8", "1"]),
    st.sampled_from(["", "0.1", "1", "0"]),
    st.sampled_from(["", "0.1", "1"]),
    st.sampled_from(["", "4", "1"]),
    st.sampled_from(["", "true", "false"]),
)
HEAD = "arm,interactivity_tps,tput_tps_per_gpu,concurrency,gpus,tput_rel_se,interactivity_rel_se,se_df,valid"


@settings(max_examples=150)
@given(table=st.lists(rows, min_size=1, max_size=12))
def test_what_is_read_is_compared_without_a_warning(folder: Path, table: list[tuple[str, ...]]) -> None:
    path = folder / "points.csv"
    path.write_text("\n".join([HEAD, *(",".join(row) for row in table)]) + "\n", "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            outcome = compare_if_possible(read_source(path), Question())
        except InputError:
            return
        documents = [write_document(comparison) for comparison in outcome.comparisons]
        for write in (to_csv, to_json, to_parquet):
            write(outcome.comparisons)
        for write_documents in (to_markdown, to_latex, to_terminal):
            write_documents(documents)
